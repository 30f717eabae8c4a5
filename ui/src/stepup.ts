/**
 * What takes a recent sign-in: asked for where the server says so, by one dialog, and then the request is repeated.
 * Whoever has no second factor is told to sign in again.
 */
import { signal } from "@preact/signals";
import { ApiError } from "./api";

interface Question {
  proved: () => void;
  given_up: (error: ApiError) => void;
}

/** The question that the dialog asks now. */
export const question = signal<Question | null>(null);

/** The result of `work`, which may have been done twice: before and after a proof of who one is. */
export async function withProof<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof ApiError) || error.code !== "recent_sign_in_needed") throw error;
    await new Promise<void>((proved, reject) => {
      question.value = { proved, given_up: () => reject(error) };
    });
    return await work();
  }
}
