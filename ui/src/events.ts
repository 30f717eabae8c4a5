/**
 * What a conversation looks like, computed from its history, its events and what was typed here: a pure reducer.
 *
 * Whatever the event number from which the stream is taken up, replaying leads to the same conversation; an event
 * that was seen before changes nothing. Nothing in here may touch the network, the clock or the page.
 */
import { sameFiles } from "./attachments";
import type {
  Attachment,
  Fault,
  Step,
  StreamEvent,
  ToolCall,
  Turn,
  TurnPage,
  TurnStatus,
  Usage,
} from "./types";

/** A turn as it is shown. */
export interface TurnView {
  id: string;
  /** Stable while an optimistic message becomes a turn, so that its place on the page is kept. */
  key: string;
  text: string;
  attachments: readonly Attachment[];
  status: TurnStatus;
  /** The attempt whose events are shown; 0: none was seen yet. */
  attempt: number;
  answer: string;
  tools: ToolCall[];
  progress: Step | null;
  usage: Usage | null;
  error: Fault | null;
  createdAt: string | null;
}

/** A message that the server has not confirmed yet. */
export interface Pending {
  key: string;
  text: string;
  attachments: readonly Attachment[];
  createdAt: string;
  /** Why it could not be sent, in words for the user; null while it is on its way. */
  problem: string | null;
}

export interface ConversationState {
  turns: TurnView[];
  pending: Pending[];
  /** The number of the last event applied. */
  seq: number;
  /** Leads to older turns; null: there are none. */
  older: string | null;
}

export const EMPTY: ConversationState = { turns: [], pending: [], seq: 0, older: null };

export type Action =
  | { type: "loaded"; page: TurnPage }
  | { type: "older"; page: TurnPage }
  | { type: "events"; events: StreamEvent[] }
  | ({ type: "sending" } & Omit<Pending, "problem">)
  | { type: "sent"; key: string; turn: Turn }
  | { type: "not_sent"; key: string; problem: string }
  | { type: "withdrawn"; key: string }
  | { type: "retried"; turn: Turn };

export function reduce(state: ConversationState, action: Action): ConversationState {
  switch (action.type) {
    case "loaded":
      return {
        ...state,
        turns: action.page.items.map((turn) => fromServer(turn)),
        seq: action.page.resume_after,
        older: action.page.next_cursor,
      };
    case "older": {
      const known = new Set(state.turns.map((turn) => turn.id));
      const older = action.page.items.filter((turn) => !known.has(turn.id)).map((turn) => fromServer(turn));
      return { ...state, turns: [...older, ...state.turns], older: action.page.next_cursor };
    }
    case "events":
      return action.events.reduce(applyEvent, state);
    case "sending": {
      const { type, ...message } = action;
      const others = state.pending.filter((other) => other.key !== message.key);
      return { ...state, pending: [...others, { ...message, problem: null }] };
    }
    case "sent": {
      const confirmed = { ...state, pending: state.pending.filter((message) => message.key !== action.key) };
      return upsert(confirmed, fromServer(action.turn, action.key), action.turn.attempt);
    }
    case "not_sent":
      return {
        ...state,
        pending: state.pending.map((message) =>
          message.key === action.key ? { ...message, problem: action.problem } : message,
        ),
      };
    case "withdrawn":
      return { ...state, pending: state.pending.filter((message) => message.key !== action.key) };
    case "retried":
      return upsert(state, fromServer(action.turn), action.turn.attempt);
  }
}

export function isOpen(turn: { status: TurnStatus }): boolean {
  return turn.status === "accepted" || turn.status === "running";
}

/** The turn that is being answered, or waits to be: the oldest one that is not finished. */
export function openTurn(state: ConversationState): TurnView | undefined {
  return state.turns.find(isOpen);
}

/**
 * A turn of the history. What a finished one says is the truth; an open one starts out blank and is rebuilt by the
 * events, which the server replays from the beginning of its first attempt.
 */
function fromServer(turn: Turn, key = turn.id): TurnView {
  const finished = !isOpen(turn);
  return {
    id: turn.id,
    key,
    text: turn.text,
    attachments: turn.attachments,
    status: finished ? turn.status : "accepted",
    attempt: finished ? turn.attempt : 0,
    answer: finished ? (turn.answer ?? "") : "",
    tools: finished ? turn.tools : [],
    progress: null,
    usage: finished ? turn.usage : null,
    error: finished ? turn.error : null,
    createdAt: turn.created_at,
  };
}

/** An answer to a request may come later than the events that it caused: what these built is kept. */
function upsert(state: ConversationState, turn: TurnView, attempt: number): ConversationState {
  const known = state.turns.find((other) => other.id === turn.id);
  if (!known) return { ...state, turns: [...state.turns, turn] };
  if (isOpen(known) || known.attempt >= attempt) return state;
  return replace(state, { ...turn, key: known.key });
}

function replace(state: ConversationState, turn: TurnView): ConversationState {
  return { ...state, turns: state.turns.map((other) => (other.id === turn.id ? turn : other)) };
}

function applyEvent(before: ConversationState, event: StreamEvent): ConversationState {
  if (event.seq <= before.seq) return before;
  const state = { ...before, seq: event.seq };
  const turn = state.turns.find((other) => other.id === event.turn_id);

  if (event.type === "turn.accepted") {
    if (!turn) return appendAccepted(state, event);
    if (!isOpen(turn) && event.attempt <= turn.attempt) return state;
    return replace(state, { ...blank(turn), attempt: event.attempt });
  }
  // What comes after the end belongs to an attempt that the history has already settled.
  if (!turn || !isOpen(turn)) return state;
  return replace(state, continued(turn, event));
}

/** A turn that we hear of for the first time: one of ours that is still being sent, or another window's. */
function appendAccepted(
  state: ConversationState,
  event: Extract<StreamEvent, { type: "turn.accepted" }>,
): ConversationState {
  const attachments = event.attachments ?? [];
  const own = state.pending.find(
    (message) =>
      message.problem === null && message.text === event.text && sameFiles(message.attachments, attachments),
  );
  const turn: TurnView = {
    id: event.turn_id,
    key: own?.key ?? event.turn_id,
    text: event.text,
    attachments,
    status: "accepted",
    attempt: event.attempt,
    answer: "",
    tools: [],
    progress: null,
    usage: null,
    error: null,
    createdAt: own?.createdAt ?? null,
  };
  return {
    ...state,
    turns: [...state.turns, turn],
    pending: state.pending.filter((message) => message !== own),
  };
}

function blank(turn: TurnView): TurnView {
  return { ...turn, status: "accepted", answer: "", tools: [], progress: null, usage: null, error: null };
}

function continued(turn: TurnView, event: Exclude<StreamEvent, { type: "turn.accepted" }>): TurnView {
  switch (event.type) {
    case "agent.progress":
      return { ...turn, progress: { step: event.step, text: event.text } };
    case "turn.started":
      return { ...turn, status: "running", progress: null };
    case "turn.delta":
      return {
        ...turn,
        status: "running",
        progress: null,
        answer: event.replace ? event.text : turn.answer + event.text,
      };
    case "turn.tool":
      return { ...turn, status: "running", progress: null, tools: withTool(turn.tools, event) };
    case "turn.completed":
      return { ...settled(turn, "completed"), answer: event.message ?? turn.answer, usage: event.usage };
    case "turn.failed": {
      const { code, message, retryable } = event;
      return { ...settled(turn, "failed"), error: { code, message, retryable } };
    }
    case "turn.stopped":
      return settled(turn, "stopped");
  }
}

function settled(turn: TurnView, status: TurnStatus): TurnView {
  return { ...turn, status, progress: null };
}

function withTool(tools: ToolCall[], event: ToolCall): ToolCall[] {
  const { call_id, name, phase, failed } = event;
  const known = tools.find((tool) => tool.call_id === call_id);
  if (!known) return [...tools, { call_id, name, phase, failed, summary: event.summary ?? null }];
  const summary = event.summary || known.summary;
  return tools.map((tool) => (tool === known ? { ...tool, phase, failed, summary } : tool));
}
