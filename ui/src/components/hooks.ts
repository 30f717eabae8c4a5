/** Hooks that more than one component needs. */
import { useEffect, useState } from "preact/hooks";
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
