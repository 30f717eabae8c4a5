/** Hooks that more than one component needs. */
import { useEffect, useRef, useState } from "preact/hooks";
import { serverNow } from "../clock";

/** The server's time, renewed every second while `ticking`. */
export function useNow(ticking = true): number {
  const [now, setNow] = useState(serverNow());
  useEffect(() => {
    if (!ticking) return undefined;
    setNow(serverNow());
    const timer = setInterval(() => setNow(serverNow()), 1000);
    return () => clearInterval(timer);
  }, [ticking]);
  return now;
}

export function useTitle(title: string | null): void {
  useEffect(() => {
    document.title = title ? `${title} · OCMT` : "OCMT";
  }, [title]);
}

/** Does it again and again, `every` so many milliseconds after the last time, while the page is looked at. */
export function usePoll(work: () => Promise<unknown>, every: number): void {
  const latest = useRef(work);
  latest.current = work;
  useEffect(() => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    let over = false;
    const look = async () => {
      await latest.current();
      clearTimeout(timer);
      if (!over && !document.hidden) timer = setTimeout(() => void look(), every);
    };
    const onVisibility = () => {
      clearTimeout(timer);
      if (!document.hidden) void look();
    };
    document.addEventListener("visibilitychange", onVisibility);
    if (!document.hidden) timer = setTimeout(() => void look(), every);
    return () => {
      over = true;
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", onVisibility);
    };
  }, [every]);
}
