/** What came in over channels, in words; and what their pages decide. Pure. */
import { count, moment } from "./format";
import type { DeliveryFacts, DeliveryState, Page } from "./types";

export const STATE_WORDS: Record<DeliveryState, string> = {
  accepted: "Received",
  answering: "Being answered",
  done: "Answered",
  waiting: "Sender not let in",
  ignored: "Left aside",
  dead: "Given up",
};

export const STATES = Object.keys(STATE_WORDS) as DeliveryState[];

/** Those that can run again. */
export const ENDED: DeliveryState[] = STATES.filter((state) => state !== "accepted" && state !== "answering");

const WATCHING_MS = 3_000;
const CALM_MS = 15_000;

/** Whether it can run again: it has ended, and its content is still kept. */
export const canRunAgain = (one: DeliveryFacts) => ENDED.includes(one.state) && !one.body_dropped;

/** Whether something still happens with it by itself. */
export const isOpen = (one: DeliveryFacts) => !ENDED.includes(one.state) || one.pending > 0;

/**
 * After how many milliseconds to look again: soon where something is expected. `first`: whether something is where
 * there is nothing yet.
 */
export function lookEvery(shown: DeliveryFacts[] | null, first: boolean): number {
  const expected = shown === null || (first && shown.length === 0) || shown.some(isOpen);
  return expected ? WATCHING_MS : CALM_MS;
}

/** Where it is, with its answer. `next_at`: of the next try, where it is known. */
export function deliveryWords(one: DeliveryFacts & { next_at?: string }, now: number): string {
  if (one.state === "accepted" && one.attempts > 0) {
    return one.next_at ? `To be tried again at ${moment(one.next_at, now)}` : "To be tried again";
  }
  if (one.state !== "done") return STATE_WORDS[one.state];
  if (one.dead > 0) return one.sent > 0 ? "Answered, but not all was sent" : "Answered, but not sent";
  if (one.pending > 0) return "Answered, being sent";
  return one.sent > 0 ? "Answered" : "Done, nothing sent back";
}

/** What else there is to know of it: "2 tries failed", "run again 3 times". */
export function deliveryNotes(one: DeliveryFacts): string[] {
  const notes = [];
  if (one.attempts > 0) notes.push(`${count(one.attempts, "try", "tries")} failed`);
  if (one.replays > 0) notes.push(`run again ${one.replays === 1 ? "once" : `${one.replays} times`}`);
  if (one.body_dropped) notes.push("its content is not kept anymore, so it cannot run again");
  if (one.may_be_double) notes.push("its answer may have been sent twice");
  return notes;
}

export const replayedWords = (many: number) =>
  many === 0 ? "There was nothing to run again." : `${count(many, "message runs", "messages run")} again.`;

/** Whether what is filled in there must not be seen. */
export const isSecret = (field: string) => /(token|secret)$/.test(field);

/** A text with the addresses in it apart: what is at odd places is one, and safe to lead to. */
export function withAddresses(text: string): string[] {
  return text.split(/(https:\/\/[^\s<>"']*[^\s<>"'.,;:!?()])/);
}

/** The first pages of a list as one: each begins where the one before ends, so that none is missed between them. */
export async function inARow<T>(
  read: (cursor: string | null) => Promise<Page<T>>,
  pages: number,
): Promise<Page<T>> {
  const found: Page<T> = { items: [], next_cursor: null };
  for (let number = 0; number < pages; number++) {
    const page = await read(found.next_cursor);
    found.items.push(...page.items);
    found.next_cursor = page.next_cursor;
    if (page.next_cursor === null) break;
  }
  return found;
}
