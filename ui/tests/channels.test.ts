import { describe, expect, test } from "vitest";
import {
  canRunAgain,
  deliveryNotes,
  deliveryWords,
  ENDED,
  inARow,
  isSecret,
  lookEvery,
  replayedWords,
  withAddresses,
} from "../src/channels";
import { moment } from "../src/format";
import type { DeliveryFacts } from "../src/types";

const NOW = Date.parse("2026-11-24T10:00:00Z");
const AT = "2026-11-24T09:30:00Z";

const delivery = (more: Partial<DeliveryFacts & { next_at: string }> = {}) => ({
  id: "1",
  received_at: AT,
  state: "done" as const,
  attempts: 0,
  replays: 0,
  error: null,
  finished_at: null,
  sent: 0,
  pending: 0,
  dead: 0,
  may_be_double: false,
  ...more,
});

describe("where a delivery is", () => {
  test.each([
    [{ state: "accepted" as const }, "Received"],
    [{ state: "accepted" as const, attempts: 2 }, "To be tried again"],
    [{ state: "accepted" as const, attempts: 2, next_at: AT }, `To be tried again at ${moment(AT, NOW)}`],
    [{ state: "answering" as const }, "Being answered"],
    [{ state: "waiting" as const, sent: 1 }, "Sender not let in"],
    [{ state: "dead" as const }, "Given up"],
    [{ sent: 2 }, "Answered"],
    [{ sent: 1, pending: 1 }, "Answered, being sent"],
    [{ dead: 2 }, "Answered, but not sent"],
    [{ sent: 1, dead: 1 }, "Answered, but not all was sent"],
    [{}, "Done, nothing sent back"],
  ])("%o: %s", (more, words) => {
    expect(deliveryWords(delivery(more), NOW)).toBe(words);
  });

  test("and what else there is to know of it", () => {
    expect(deliveryNotes(delivery())).toEqual([]);
    expect(deliveryNotes(delivery({ attempts: 1, replays: 1 }))).toEqual(["1 try failed", "run again once"]);
    expect(deliveryNotes(delivery({ attempts: 8, replays: 2, may_be_double: true }))).toEqual([
      "8 tries failed",
      "run again 2 times",
      "its answer may have been sent twice",
    ]);
  });

  test("how many run again", () => {
    expect(replayedWords(0)).toBe("There was nothing to run again.");
    expect(replayedWords(1)).toBe("1 message runs again.");
    expect(replayedWords(3)).toBe("3 messages run again.");
  });

  test("what is open cannot run again", () => {
    expect(ENDED).toEqual(["done", "waiting", "ignored", "dead"]);
  });
});

describe("how often to look", () => {
  test("soon while something is expected, else at leisure", () => {
    for (const first of [true, false]) {
      const soon = lookEvery(null, first);
      expect(lookEvery([delivery({ sent: 1 }), delivery({ state: "answering" })], first)).toBe(soon);
      expect(lookEvery([delivery({ pending: 1 })], first)).toBe(soon);
      expect(lookEvery([delivery({ sent: 1 })], first)).toBeGreaterThan(soon);
    }
  });

  test("at an empty list soon only where a first one is expected", () => {
    expect(lookEvery([], true)).toBe(lookEvery(null, true));
    expect(lookEvery([], false)).toBe(lookEvery([delivery({ sent: 1 })], false));
  });
});

describe("steps", () => {
  test("addresses in them stand apart, without what ends the sentence", () => {
    expect(withAddresses("Open https://t.me/BotFather in Telegram.")).toEqual([
      "Open ",
      "https://t.me/BotFather",
      " in Telegram.",
    ]);
    expect(withAddresses("See https://a.example/b?c=d, then (https://e.example).")).toEqual([
      "See ",
      "https://a.example/b?c=d",
      ", then (",
      "https://e.example",
      ").",
    ]);
  });

  test("nothing but https is an address", () => {
    for (const text of ["javascript:alert(1)", "http://a.example", "https://", "xhttps:/a"]) {
      expect(withAddresses(text)).toEqual([text]);
    }
  });

  test("what has no content anymore cannot run again, and says so", () => {
    const gone = delivery({ state: "dead", body_dropped: true });
    expect(canRunAgain(delivery({ state: "dead" }))).toBe(true);
    expect(canRunAgain(delivery({ state: "answering" }))).toBe(false);
    expect(canRunAgain(gone)).toBe(false);
    expect(deliveryNotes(gone)).toEqual(["its content is not kept anymore, so it cannot run again"]);
  });

  test("tokens and secrets are not shown", () => {
    expect(["bot_token", "signing_secret", "token"].filter(isSecret)).toHaveLength(3);
    expect(["repository", "mode", "secrets_of_life"].filter(isSecret)).toEqual([]);
  });
});

describe("pages in a row", () => {
  const all = ["a", "b", "c", "d", "e"];
  const read = async (cursor: string | null) => {
    const start = cursor === null ? 0 : all.indexOf(cursor) + 1;
    const items = all.slice(start, start + 2);
    return { items, next_cursor: start + 2 < all.length ? (items.at(-1) ?? null) : null };
  };

  test("each begins where the one before ended", async () => {
    expect(await inARow(read, 1)).toEqual({ items: ["a", "b"], next_cursor: "b" });
    expect(await inARow(read, 2)).toEqual({ items: ["a", "b", "c", "d"], next_cursor: "d" });
    expect(await inARow(read, 9)).toEqual({ items: all, next_cursor: null });
  });
});
