import { describe, expect, test } from "vitest";
import { type ConversationState, EMPTY, openTurn, reduce } from "../src/events";
import type { StreamEvent, Turn, TurnPage } from "../src/types";

const turn = (id: string, more: Partial<Turn> = {}): Turn => ({
  id,
  conversation_id: "c",
  text: `text of ${id}`,
  attachments: [],
  status: "accepted",
  attempt: 1,
  answer: null,
  tools: [],
  usage: null,
  error: null,
  created_at: "2026-11-23T10:00:00Z",
  started_at: null,
  finished_at: null,
  ...more,
});

const page = (items: Turn[], resume_after: number): TurnPage => ({ items, next_cursor: null, resume_after });

const usage = { input_tokens: 10, output_tokens: 5, calls: 1 };

/** A whole conversation: an answer with a tool, one that failed and was tried again, one that was stopped. */
const LOG: StreamEvent[] = (
  [
    { turn_id: "a", type: "turn.accepted", text: "text of a", attempt: 1 },
    { turn_id: "a", type: "agent.progress", step: "gateway", text: "Starting OpenClaw" },
    { turn_id: "a", type: "turn.started" },
    { turn_id: "a", type: "turn.delta", text: "Hel" },
    {
      turn_id: "a",
      type: "turn.tool",
      call_id: "1",
      name: "write",
      phase: "start",
      summary: "x",
      failed: false,
    },
    {
      turn_id: "a",
      type: "turn.tool",
      call_id: "1",
      name: "write",
      phase: "result",
      summary: "x",
      failed: false,
    },
    { turn_id: "a", type: "turn.delta", text: "lo" },
    { turn_id: "a", type: "turn.completed", message: "Hello", usage },
    { turn_id: "b", type: "turn.accepted", text: "text of b", attempt: 1 },
    { turn_id: "b", type: "turn.started" },
    { turn_id: "b", type: "turn.delta", text: "lost" },
    { turn_id: "b", type: "turn.failed", code: "agent_error", message: "It broke.", retryable: true },
    { turn_id: "b", type: "turn.accepted", text: "text of b", attempt: 2 },
    { turn_id: "b", type: "turn.started" },
    { turn_id: "b", type: "turn.delta", text: "found" },
    { turn_id: "b", type: "turn.completed", message: "found", usage },
    { turn_id: "c", type: "turn.accepted", text: "text of c", attempt: 1 },
    { turn_id: "c", type: "turn.delta", text: "half" },
    { turn_id: "c", type: "turn.stopped" },
  ] as Omit<StreamEvent, "seq">[]
).map((event, index) => ({ ...event, seq: index + 1 }) as StreamEvent);

const play = (events: StreamEvent[], from: ConversationState = EMPTY) =>
  reduce(from, { type: "events", events });

/** What the server's list says after the first `seq` events: open turns are to be replayed from their beginning. */
function listAt(seq: number): TurnPage {
  const seen = play(LOG.slice(0, seq));
  const open = openTurn(seen);
  const begin = open ? LOG.findIndex((event) => event.turn_id === open.id) : seq;
  const items = seen.turns.map((view) => {
    const { status, answer, tools, usage, error, attempt } = view;
    return turn(view.id, { status, answer, tools, usage, error, attempt });
  });
  return page(items, begin);
}

const withoutTimes = (state: ConversationState) => ({
  ...state,
  turns: state.turns.map((view) => ({ ...view, createdAt: null })),
});

describe("events rebuild a conversation", () => {
  test("deltas add up, tools are shown once, the final message has the last word", () => {
    const [a, b, c] = play(LOG).turns;
    expect(a).toMatchObject({ status: "completed", answer: "Hello", usage, progress: null });
    expect(a?.tools).toEqual([{ call_id: "1", name: "write", phase: "result", summary: "x", failed: false }]);
    expect(b).toMatchObject({ status: "completed", answer: "found", attempt: 2, error: null });
    expect(c).toMatchObject({ status: "stopped", answer: "half" });
  });

  test("from whatever number the stream is taken up, the result is the same", () => {
    const whole = withoutTimes(play(LOG));
    for (let seq = 0; seq <= LOG.length; seq++) {
      const list = listAt(seq);
      const begun = reduce(EMPTY, { type: "loaded", page: list });
      const later = LOG.filter((event) => event.seq > list.resume_after);
      expect(withoutTimes(play(later, begun)), `taken up after ${seq}`).toEqual(whole);
    }
  });

  test("an event that was seen before changes nothing, however they overlap", () => {
    const whole = play(LOG);
    for (let seq = 0; seq < LOG.length; seq++) {
      const partly = play(LOG.slice(0, seq));
      expect(play(LOG, partly)).toEqual(whole);
    }
    expect(play(LOG, whole)).toBe(whole);
  });

  test("a turn that the list already calls finished is not doubled by its own events", () => {
    const list = page([turn("a", { status: "completed", answer: "Hello", usage })], 0);
    const state = play(LOG.slice(0, 8), reduce(EMPTY, { type: "loaded", page: list }));
    expect(state.turns).toHaveLength(1);
    expect(state.turns[0]?.answer).toBe("Hello");
  });

  test("progress is shown until the agent says something", () => {
    const waking = play(LOG.slice(0, 2));
    expect(waking.turns[0]?.progress).toEqual({ step: "gateway", text: "Starting OpenClaw" });
    expect(play(LOG.slice(0, 4)).turns[0]?.progress).toBeNull();
  });

  test("a retry begins with an empty answer", () => {
    const before = play(LOG.slice(0, 12)).turns[1];
    expect(before).toMatchObject({ status: "failed", answer: "lost", error: { code: "agent_error" } });
    const after = play(LOG.slice(0, 13)).turns[1];
    expect(after).toMatchObject({ status: "accepted", answer: "", error: null, attempt: 2 });
  });
});

describe("a message of one's own", () => {
  const sending = reduce(EMPTY, {
    type: "sending",
    key: "k",
    text: "hi",
    attachments: [],
    createdAt: "2026-11-23T10:00:00Z",
  });
  const accepted: StreamEvent = { seq: 1, turn_id: "t", type: "turn.accepted", text: "hi", attempt: 1 };

  test("shows at once, and once only, whether the answer or the event comes first", () => {
    expect(sending.pending).toHaveLength(1);
    const sent = { type: "sent", key: "k", turn: turn("t", { text: "hi" }) } as const;
    const answerFirst = play([accepted], reduce(sending, sent));
    const eventFirst = reduce(play([accepted], sending), sent);
    for (const state of [answerFirst, eventFirst]) {
      expect(state.pending).toEqual([]);
      expect(state.turns.map((view) => [view.id, view.key])).toEqual([["t", "k"]]);
    }
  });

  test("is known by its files too, of which those that others send say the same text", () => {
    const file = (id: string) => ({ id, name: "p.png", media_type: "image/png", size: 9 });
    const mine = { type: "sending", key: "k2", text: "", attachments: [file("f")], createdAt: "" } as const;
    const both = reduce(sending, mine);
    expect(both.pending).toMatchObject([{ attachments: [] }, { attachments: [file("f")] }]);
    const event: StreamEvent = { seq: 1, turn_id: "t", type: "turn.accepted", text: "", attempt: 1 };
    const other = play([{ ...event, attachments: [file("g")] }], both);
    expect(other.turns[0]).toMatchObject({ key: "t", attachments: [file("g")] });
    const own = play([{ ...event, attachments: [file("f")] }], both);
    expect(own.turns[0]).toMatchObject({ key: "k2", attachments: [file("f")] });
    expect(own.pending.map((message) => message.key)).toEqual(["k"]);
    const again = play([{ ...event, seq: 2, attempt: 2 }], own);
    expect(again.turns[0]).toMatchObject({ attempt: 2, attachments: [file("f")] });
  });

  test("an answer to the request that comes late does not undo what was streamed", () => {
    const delta: StreamEvent = { seq: 2, turn_id: "t", type: "turn.delta", text: "Hello" };
    const streamed = play([accepted, delta], sending);
    const late = reduce(streamed, { type: "sent", key: "k", turn: turn("t", { text: "hi" }) });
    expect(late.turns[0]?.answer).toBe("Hello");
  });

  test("an answer that begins anew takes the place of what was streamed", () => {
    const first: StreamEvent = { seq: 2, turn_id: "t", type: "turn.delta", text: "Hal" };
    const anew: StreamEvent = { seq: 3, turn_id: "t", type: "turn.delta", text: "Hel", replace: true };
    const more: StreamEvent = { seq: 4, turn_id: "t", type: "turn.delta", text: "lo" };
    expect(play([accepted, first, anew, more], sending).turns[0]?.answer).toBe("Hello");
  });

  test("that could not be sent stays with the reason, and can be sent again under its key", () => {
    const failed = reduce(sending, { type: "not_sent", key: "k", problem: "No network." });
    expect(failed.pending[0]?.problem).toBe("No network.");
    const again = reduce(failed, {
      type: "sending",
      key: "k",
      text: "hi",
      attachments: [],
      createdAt: "2026-11-23T10:00:05Z",
    });
    expect(again.pending).toMatchObject([{ key: "k", problem: null }]);
  });

  test("loading the history leaves what is still being sent", () => {
    const loaded = reduce(sending, { type: "loaded", page: page([turn("old", { status: "completed" })], 7) });
    expect(loaded.pending).toHaveLength(1);
    expect(loaded).toMatchObject({ seq: 7, turns: [{ id: "old" }] });
  });
});
