/**
 * The page that somebody wanted before they had to sign in, kept in this browser only: nothing of it is in a link
 * or a mail, so no stranger can choose where a sign-in leads.
 */
import { parseRoute } from "./router";

const KEY = "ocmt.return";
const KEPT_MS = 30 * 60_000;

interface Place {
  path: string;
  at: number;
  /** The sign-in goes by a provider's page, which comes back to `/`. */
  away?: boolean;
}

/** Whether a path is one of our own pages that can be returned to. */
export function canReturnTo(path: unknown): path is string {
  if (typeof path !== "string") return false;
  const { page } = parseRoute(path);
  return page !== "unknown" && page !== "sign-in";
}

export function rememberPlace(path: string): void {
  if (canReturnTo(path)) write({ path, at: Date.now() });
}

/** The sign-in leaves our pages now. */
export function goAway(): void {
  write({ path: "/", at: Date.now(), ...read(), away: true });
}

/** Where to go now that somebody has signed in: once, and only soon after it was remembered. */
export function takePlace(): string {
  const place = read();
  forget();
  return place?.path ?? "/";
}

/** The same, for the page that a provider's sign-in comes back to. */
export function takePlaceAfterProvider(): string | null {
  return read()?.away ? takePlace() : null;
}

function read(): Place | null {
  try {
    const place = JSON.parse(localStorage.getItem(KEY) ?? "null");
    const fresh = typeof place?.at === "number" && Math.abs(Date.now() - place.at) < KEPT_MS;
    return fresh && canReturnTo(place.path) ? place : null;
  } catch {
    return null;
  }
}

function write(place: Place): void {
  try {
    localStorage.setItem(KEY, JSON.stringify(place));
  } catch {
    // Switched off or full: the sign-in leads to the first page.
  }
}

function forget(): void {
  try {
    localStorage.removeItem(KEY);
  } catch {
    // Switched off: there is nothing.
  }
}

/** Tells other tabs of this browser that somebody has signed in. */
export const signIns = (): BroadcastChannel | null =>
  typeof BroadcastChannel === "undefined" ? null : new BroadcastChannel("ocmt.sign-in");
