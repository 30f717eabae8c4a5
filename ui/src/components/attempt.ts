/** What most cards do: show a list, change something, show the list anew, and say what went wrong. */
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { wordsFor } from "../api";

export interface Shown<T> {
  /** Null: not read yet. */
  value: T | null;
  problem: string | null;
  /** Does it and reads anew; whether it went well. Without anything to do it reads only. */
  attempt: (work?: () => Promise<unknown>) => Promise<boolean>;
}

/** `read` is called now and after each attempt, and again when one of `of` is another one. */
export function useShown<T>(read: () => Promise<T>, ...of: unknown[]): Shown<T> {
  const [value, setValue] = useState<T | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  const asked = useRef(0);
  const attempt = useCallback(async (work?: () => Promise<unknown>) => {
    setProblem(null);
    try {
      await work?.();
      const number = ++asked.current;
      const found = await read();
      // A slow, older answer never overwrites a newer one.
      if (number === asked.current) setValue(found);
      return true;
    } catch (error) {
      setProblem(wordsFor(error));
      return false;
    }
    // biome-ignore lint/correctness/useExhaustiveDependencies: `read` is made anew with each drawing, `of` says when it is another one
  }, of);
  useEffect(() => {
    void attempt();
  }, [attempt]);
  return { value, problem, attempt };
}

interface Pages<T> extends Shown<T[]> {
  /** Shows one page more; null: there is none. */
  more: (() => void) | null;
  /** Back to the first page, for another list. */
  restart: () => void;
}

/** The same of a list that comes in pages: those that are shown are read anew together. */
export function usePages<T, Place>(
  read: (place: Place | null) => Promise<{ items: T[]; next?: Place | null }>,
): Pages<T> {
  const [places, setPlaces] = useState<(Place | null)[]>([null]);
  const { value, problem, attempt } = useShown(() => Promise.all(places.map((place) => read(place))), places);
  const next = value?.at(-1)?.next ?? null;
  return {
    value: value?.flatMap((page) => page.items) ?? null,
    problem,
    attempt,
    more: next === null ? null : () => setPlaces((all) => (all.includes(next) ? all : [...all, next])),
    restart: () => setPlaces([null]),
  };
}
