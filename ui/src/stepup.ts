/**
 * What takes a recent sign-in: wherever the server says so, one dialog asks for a proof, and then the request is
 * repeated. The page behind the dialog stays as it is, with what was typed into it.
 */
import { signal } from "@preact/signals";
import { ApiError, api, onProofNeeded } from "./api";

interface Question {
  proved: () => void;
  given_up: () => void;
}

/** The question that the dialog asks now. */
export const question = signal<Question | null>(null);

let asking: Promise<boolean> | null = null;

/** Whether the person has proved once more who they are. Several requests share one dialog. */
function ask(): Promise<boolean> {
  asking ??= new Promise<boolean>((resolve) => {
    question.value = { proved: () => resolve(true), given_up: () => resolve(false) };
  }).finally(() => {
    asking = null;
  });
  return asking;
}

onProofNeeded(ask);

/** Before the browser itself goes somewhere that takes a recent sign-in. Throws where the person gives up. */
export async function ensureProof(): Promise<void> {
  if ((await api.waysToProve()).recent || (await ask())) return;
  throw new ApiError(403, "recent_sign_in_needed", "That takes a recent sign-in.", false);
}
