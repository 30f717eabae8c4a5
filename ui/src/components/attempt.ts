/** What most cards do: show a list, change something, show the list anew, and say what went wrong. */
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { wordsFor } from "../api";

export interface Shown<T> {
  /** Null: not read yet. */
  value: T | null;
  problem: string | null;
  /** Does it and reads anew; whether it went well. Without anything to do it reads only. */
  attempt: (work?: () => Promise<unknown>) => Promise<boolean>;
  /** Reads anew without being asked: leaves the problem that stands there, and says nothing of one of its own. */
  refresh: () => Promise<void>;
}

/** `read` is called now and after each attempt, and again when one of `of` is another one. */
export function useShown<T>(read: () => Promise<T>, ...of: unknown[]): Shown<T> {
  const [value, setValue] = useState<T | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  const asked = useRef(0);
  const known = useRef(false);
  const look = useCallback(async () => {
    const number = ++asked.current;
    const found = await read();
    // A slow, older answer never overwrites a newer one.
    if (number === asked.current) setValue(found);
    // biome-ignore lint/correctness/useExhaustiveDependencies: `read` is made anew with each drawing, `of` says when it is another one
  }, of);
  const attempt = useCallback(
    async (work?: () => Promise<unknown>) => {
      setProblem(null);
      try {
        await work?.();
        await look();
        known.current = true;
        return true;
      } catch (error) {
        setProblem(wordsFor(error));
        return false;
      }
    },
    [look],
  );
  const refresh = useCallback(async () => {
    try {
      await look();
      // Nothing could be read before: that it can be now is news.
      if (!known.current) setProblem(null);
      known.current = true;
    } catch {
      // What cannot be seen just now has not changed; the next look will tell.
    }
  }, [look]);
  useEffect(() => {
    void attempt();
  }, [attempt]);
  return { value, problem, attempt, refresh };
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
  const shown = useShown(() => Promise.all(places.map((place) => read(place))), places);
  const { value } = shown;
  const next = value?.at(-1)?.next ?? null;
  return {
    ...shown,
    value: value?.flatMap((page) => page.items) ?? null,
    more: next === null ? null : () => setPlaces((all) => (all.includes(next) ? all : [...all, next])),
    restart: () => setPlaces([null]),
  };
}
