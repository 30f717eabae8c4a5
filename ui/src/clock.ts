/** The server's time, as nearly as its answers tell it: ages are shown right on a machine whose clock is wrong. */

let ahead = 0;

/** Takes the `Date` header of an answer, which is exact to the second. */
export function learnServerTime(header: string | null): void {
  const time = header === null ? Number.NaN : Date.parse(header);
  if (Number.isNaN(time)) return;
  const difference = time - Date.now();
  // Less than two seconds is the header's own resolution and the way it took.
  ahead = Math.abs(difference) < 2000 ? 0 : difference;
}

/** Milliseconds since 1970. */
export function serverNow(): number {
  return Date.now() + ahead;
}
