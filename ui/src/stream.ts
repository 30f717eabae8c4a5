/**
 * A conversation's event stream over EventSource that never gives up by itself.
 *
 * The browser reconnects after a broken connection (with Last-Event-ID), but not after an answer other than 200:
 * then we do, after the last event seen, with growing pauses. Events are handed over in batches, one for each frame
 * that is drawn, so that a fast answer costs no more than a slow one. A tab that has no place for a connection of its
 * own (see `places.ts`) asks every few seconds for what it has not seen.
 */
import { type Place, takePlace } from "./places";
import { EVENT_TYPES, type StreamEvent } from "./types";

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 15_000;
/** Only an interruption that a person would notice is worth a word. */
const NOTICE_AFTER_MS = 3_000;
/** How often a tab without a place asks for news. */
const ASK_EVERY_MS = 2_500;

export interface StreamOptions {
  /** With `follow`, the stream stays open; without, it ends once everything so far was sent. */
  url: (after: number, follow: boolean) => string;
  after: number;
  onEvents: (events: StreamEvent[]) => void;
  onInterrupted: (interrupted: boolean) => void;
  /** The server refused the stream: whether asking again makes sense. */
  mayRetry: () => Promise<boolean>;
  /** Runs the callback before the next frame is drawn. */
  nextFrame?: (callback: () => void) => void;
  takePlace?: (onChange: (held: boolean) => void) => Place;
}

export interface Stream {
  /** Drops the connection and makes a new one, after the last event seen. */
  reconnect(): void;
  /** The user is at this tab: it gets a connection of its own. */
  prefer(): void;
  close(): void;
}

export function openStream(options: StreamOptions): Stream {
  const nextFrame = options.nextFrame ?? beforeNextFrame;
  let source: EventSource | null = null;
  let last = options.after;
  let batch: StreamEvent[] = [];
  let refusals = 0;
  let retryTimer: ReturnType<typeof setTimeout> | undefined;
  let noticeTimer: ReturnType<typeof setTimeout> | undefined;
  let closed = false;
  let follow = true;

  function connect(): void {
    disconnect();
    const opened = new EventSource(options.url(last, follow));
    const asking = !follow;
    let answered = false;
    source = opened;
    opened.onopen = () => {
      answered = true;
      refusals = 0;
      clearTimeout(noticeTimer);
      noticeTimer = undefined;
      options.onInterrupted(false);
    };
    opened.onerror = () => {
      if (asking && answered && source === opened) {
        disconnect(); // it has ended, as it should
        retryTimer = setTimeout(connect, ASK_EVERY_MS);
        return;
      }
      noticeTimer ??= setTimeout(() => options.onInterrupted(true), NOTICE_AFTER_MS);
      if (opened.readyState === EventSource.CLOSED && source === opened) void refused();
    };
    for (const type of EVENT_TYPES) opened.addEventListener(type, (message) => receive(type, message));
  }

  function disconnect(): void {
    clearTimeout(retryTimer);
    source?.close();
    source = null;
  }

  function receive(type: StreamEvent["type"], message: MessageEvent<string>): void {
    const seq = Number(message.lastEventId);
    if (!Number.isSafeInteger(seq) || seq <= last) return;
    last = seq;
    if (batch.length === 0) nextFrame(flush);
    batch.push({ ...JSON.parse(message.data), type, seq } as StreamEvent);
  }

  function flush(): void {
    const events = batch;
    batch = [];
    if (!closed && events.length > 0) options.onEvents(events);
  }

  async function refused(): Promise<void> {
    disconnect();
    if (!(await options.mayRetry()) || closed || source) return;
    const pause = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** refusals++);
    retryTimer = setTimeout(connect, pause * (0.75 + Math.random() / 2));
  }

  const place = (options.takePlace ?? takePlace)((held) => {
    if (closed || (source !== null && follow === held)) return;
    follow = held;
    connect();
  });
  return {
    reconnect: () => {
      if (!closed) connect();
    },
    prefer: () => place.prefer(),
    close: () => {
      closed = true;
      place.release();
      clearTimeout(noticeTimer);
      disconnect();
    },
  };
}

/** A hidden page draws no frames; it must still keep up. */
function beforeNextFrame(callback: () => void): void {
  if (document.hidden) setTimeout(callback, 100);
  else requestAnimationFrame(callback);
}
