/**
 * The conversation on the screen: its state, its event stream, and what the user does in it.
 *
 * A new one exists here before the server knows of it, so that the first message shows at once. The rules of what
 * events mean are in `events.ts`; this is the part that talks to the server.
 */
import { signal } from "@preact/signals";
import { expectChange } from "./agent";
import { ApiError, api, wordsFor } from "./api";
import { serverNow } from "./clock";
import { noteUse, refreshConversations } from "./conversations";
import { type Action, type ConversationState, EMPTY, isOpen, openTurn, type Pending, reduce } from "./events";
import { openStream, type Stream } from "./stream";
import type { Attachment, StreamEvent, TurnPage } from "./types";
import { moveUploads, type Uploads, uploadsOf } from "./uploads";

/** Pauses before a message that did not get through is sent again by itself. */
const RESEND_AFTER_MS = [1_000, 3_000];
/** A hidden tab in which nothing happens lets its connection go: a browser has few for each host. */
const LET_GO_AFTER_MS = 30_000;

export type Loading = "loading" | "loaded" | "gone" | "failed";

export class Conversation {
  readonly id = signal<string | null>(null);
  readonly state = signal<ConversationState>(EMPTY);
  readonly loading = signal<Loading>("loaded");
  readonly interrupted = signal(false);
  /** Why the last thing asked here was refused, in words for the user. */
  readonly problem = signal<string | null>(null);
  /** The turn that was asked to stop and has not yet. */
  readonly stopping = signal<string | null>(null);
  /** What to announce to a screen reader. */
  readonly announcement = signal("");
  /** A text that was refused and goes back into the composer. */
  readonly returned = signal<string | null>(null);
  /** The files of the next message. */
  readonly uploads: Uploads;

  private stream: Stream | null = null;
  private closed = false;
  private hiddenTimer: ReturnType<typeof setTimeout> | undefined;
  private creating: Promise<string> | null = null;

  constructor(
    id: string | null,
    private readonly onCreated: (id: string) => void,
  ) {
    this.id.value = id;
    this.uploads = uploadsOf(id);
    if (id !== null) this.loading.value = "loading";
    document.addEventListener("visibilitychange", this.onVisibility);
    addEventListener("online", this.onOnline);
    addEventListener("focus", this.onFocus);
    if (id !== null) void this.load();
  }

  close(): void {
    this.closed = true;
    clearTimeout(this.hiddenTimer);
    document.removeEventListener("visibilitychange", this.onVisibility);
    removeEventListener("online", this.onOnline);
    removeEventListener("focus", this.onFocus);
    this.letGo();
  }

  async load(): Promise<void> {
    const id = this.id.value;
    if (id === null) return;
    this.loading.value = "loading";
    let page: TurnPage;
    try {
      page = await api.turns(id);
    } catch (error) {
      this.loading.value = error instanceof ApiError && error.status === 404 ? "gone" : "failed";
      this.problem.value = wordsFor(error);
      return;
    }
    if (this.closed) return;
    this.problem.value = null;
    this.dispatch({ type: "loaded", page });
    this.loading.value = "loaded";
    this.listen();
  }

  async loadOlder(): Promise<void> {
    const id = this.id.value;
    const cursor = this.state.value.older;
    if (id === null || cursor === null) return;
    await this.attempt(async () => this.dispatch({ type: "older", page: await api.turns(id, cursor) }));
  }

  /** Shows the message at once and sends it; with the key of an earlier, unsent one, sends that again. */
  async send(
    text: string,
    attachments: readonly Attachment[] = [],
    key: string = crypto.randomUUID(),
  ): Promise<void> {
    this.problem.value = null;
    const createdAt = new Date(serverNow()).toISOString();
    this.dispatch({ type: "sending", key, text, attachments, createdAt });
    for (let tries = 0; ; tries++) {
      try {
        const id = await this.ensureCreated();
        const ids = attachments.map((attachment) => attachment.id);
        const turn = await api.send(id, text, ids, key);
        this.dispatch({ type: "sent", key, turn });
        expectChange();
        void refreshConversations();
        return;
      } catch (error) {
        if (isPassing(error)) {
          const pause = RESEND_AFTER_MS[tries];
          if (pause === undefined) return this.dispatch({ type: "not_sent", key, problem: wordsFor(error) });
          await new Promise((resolve) => setTimeout(resolve, pause));
        } else {
          this.withdraw({ key, text, attachments });
          this.problem.value = wordsFor(error);
          return;
        }
      }
    }
  }

  /** Takes an unsent message back into the composer. */
  withdraw({ key, text, attachments }: Pick<Pending, "key" | "text" | "attachments">): void {
    this.dispatch({ type: "withdrawn", key });
    this.returned.value = text;
    this.uploads.putBack(attachments);
  }

  async stop(): Promise<void> {
    const turn = openTurn(this.state.value);
    if (!turn) return;
    this.stopping.value = turn.id;
    const done = await this.attempt(() => api.stopTurn(turn.id));
    if (!done) this.stopping.value = null;
  }

  async retry(turnId: string): Promise<void> {
    await this.attempt(async () => this.dispatch({ type: "retried", turn: await api.retryTurn(turnId) }));
    expectChange();
  }

  private dispatch(action: Action): void {
    this.state.value = reduce(this.state.value, action);
  }

  /** Whether it went well; if not, `problem` says why. */
  private async attempt(work: () => Promise<unknown>): Promise<boolean> {
    this.problem.value = null;
    try {
      await work();
      return true;
    } catch (error) {
      this.problem.value = wordsFor(error);
      return false;
    }
  }

  private ensureCreated(): Promise<string> {
    if (this.id.value !== null) return Promise.resolve(this.id.value);
    this.creating ??= api
      .createConversation()
      .then((info) => {
        this.id.value = info.id;
        noteUse(info);
        if (!this.closed) {
          moveUploads(info.id, this.uploads);
          this.listen();
          this.onCreated(info.id);
        }
        return info.id;
      })
      .finally(() => {
        this.creating = null;
      });
    return this.creating;
  }

  private listen(): void {
    const id = this.id.value;
    if (id === null || this.closed || this.stream) return;
    this.stream = openStream({
      url: (after, follow) => api.eventsUrl(id, after, follow),
      after: this.state.value.seq,
      onEvents: (events) => this.take(events),
      onInterrupted: (interrupted) => {
        this.interrupted.value = interrupted;
      },
      mayRetry: () => this.stillThere(id),
    });
    if (document.hasFocus()) this.stream.prefer();
  }

  private letGo(): void {
    this.stream?.close();
    this.stream = null;
    this.interrupted.value = false;
  }

  private async stillThere(id: string): Promise<boolean> {
    try {
      await api.turns(id);
      return true;
    } catch (error) {
      if (!(error instanceof ApiError)) return false;
      if (error.status === 404) this.loading.value = "gone";
      return error.status !== 404 && error.status !== 401;
    }
  }

  private take(events: StreamEvent[]): void {
    const finished = new Set(this.state.value.turns.filter((turn) => !isOpen(turn)).map((turn) => turn.id));
    this.dispatch({ type: "events", events });
    for (const turn of this.state.value.turns) {
      if (finished.has(turn.id) || isOpen(turn)) continue;
      if (this.stopping.value === turn.id) this.stopping.value = null;
      if (turn.status === "completed")
        this.announcement.value = `The agent answered: ${turn.answer.slice(0, 1000)}`;
      if (turn.status === "failed")
        this.announcement.value = `No answer: ${turn.error?.message ?? "it failed"}`;
      if (turn.status === "stopped") this.announcement.value = "The answer was stopped.";
    }
    const changed = events.some((event) => event.type !== "turn.delta" && event.type !== "turn.tool");
    if (changed) expectChange();
    if (events.some((event) => event.type === "turn.accepted")) void refreshConversations();
  }

  private readonly onVisibility = (): void => {
    clearTimeout(this.hiddenTimer);
    if (!document.hidden) {
      this.listen();
      return;
    }
    this.hiddenTimer = setTimeout(() => {
      if (document.hidden && !openTurn(this.state.value)) this.letGo();
    }, LET_GO_AFTER_MS);
  };

  private readonly onFocus = (): void => this.stream?.prefer();

  private readonly onOnline = (): void => this.stream?.reconnect();
}

/** Whether the same request can succeed a moment later. */
function isPassing(error: unknown): boolean {
  return error instanceof ApiError && (error.status === 0 || error.status >= 500 || error.retryable);
}
