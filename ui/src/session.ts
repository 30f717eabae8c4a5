/** Who is signed in: the one thing that every page depends on. */
import { signal } from "@preact/signals";
import { ApiError, api, onSignedOut, wordsFor } from "./api";
import { forgetDrafts } from "./drafts";
import type { User } from "./types";

export type Session =
  | { state: "unknown" }
  | { state: "unreachable"; problem: string }
  /** `left`: on purpose, so that there is no page to return to. */
  | { state: "signed-out"; left?: boolean }
  | { state: "signed-in"; user: User };

export const session = signal<Session>({ state: "unknown" });

export async function findSession(): Promise<void> {
  try {
    session.value = { state: "signed-in", user: await api.me() };
  } catch (error) {
    const signedOut = error instanceof ApiError && error.status === 401;
    session.value = signedOut ? { state: "signed-out" } : { state: "unreachable", problem: wordsFor(error) };
  }
}

export async function signOut(): Promise<void> {
  await api.signOut();
  forgetDrafts();
  session.value = { state: "signed-out", left: true };
}

onSignedOut(() => {
  session.value = { state: "signed-out" };
});
