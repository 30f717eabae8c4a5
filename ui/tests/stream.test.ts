import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { openStream, type Stream } from "../src/stream";
import type { StreamEvent } from "../src/types";

class FakeEventSource {
  static readonly CLOSED = 2;
  static opened: FakeEventSource[] = [];
  readyState = 1;
  onopen: (() => void) | null = null;
  onerror: (() => void) | null = null;
  private readonly listeners = new Map<string, (message: MessageEvent<string>) => void>();

  constructor(readonly url: string) {
    FakeEventSource.opened.push(this);
  }
  addEventListener(type: string, listener: (message: MessageEvent<string>) => void): void {
    this.listeners.set(type, listener);
  }
  close(): void {
    this.readyState = 2;
  }
  say(seq: number, type: string, data: object): void {
    const message = { lastEventId: String(seq), data: JSON.stringify(data) };
    this.listeners.get(type)?.(message as MessageEvent<string>);
  }
  refuse(): void {
    this.readyState = 2;
    this.onerror?.();
  }
}

describe("the event stream", () => {
  let received: StreamEvent[][];
  let interruptions: boolean[];
  let frames: (() => void)[];
  let stream: Stream;
  let mayRetry: boolean;

  const drawFrame = () => {
    for (const callback of frames.splice(0)) callback();
  };
  const latest = () => FakeEventSource.opened.at(-1) as FakeEventSource;

  beforeEach(() => {
    vi.useFakeTimers();
    vi.stubGlobal("EventSource", FakeEventSource);
    FakeEventSource.opened = [];
    received = [];
    interruptions = [];
    frames = [];
    mayRetry = true;
    stream = openStream({
      url: (after) => `/events?after=${after}`,
      after: 4,
      onEvents: (events) => received.push(events),
      onInterrupted: (interrupted) => interruptions.push(interrupted),
      mayRetry: async () => mayRetry,
      nextFrame: (callback) => frames.push(callback),
    });
  });

  afterEach(() => {
    stream.close();
    vi.useRealTimers();
    vi.unstubAllGlobals();
  });

  test("hands over what came within a frame together, without what was seen before", () => {
    latest().say(4, "turn.delta", { turn_id: "t", text: "old" });
    latest().say(5, "turn.delta", { turn_id: "t", text: "a" });
    latest().say(6, "turn.delta", { turn_id: "t", text: "b" });
    expect(received).toEqual([]);
    drawFrame();
    expect(received).toEqual([
      [
        { seq: 5, type: "turn.delta", turn_id: "t", text: "a" },
        { seq: 6, type: "turn.delta", turn_id: "t", text: "b" },
      ],
    ]);
  });

  test("connects again after a refusal, behind the last event seen", async () => {
    latest().say(9, "turn.started", { turn_id: "t" });
    latest().refuse();
    await vi.advanceTimersByTimeAsync(1000);
    expect(FakeEventSource.opened.map((source) => source.url)).toEqual([
      "/events?after=4",
      "/events?after=9",
    ]);
  });

  test("asks ever more rarely while it is refused, and gives up when told that there is no point", async () => {
    for (let refusal = 0; refusal < 8; refusal++) {
      latest().refuse();
      await vi.advanceTimersByTimeAsync(20_000);
    }
    expect(FakeEventSource.opened).toHaveLength(9);
    latest().refuse();
    await vi.advanceTimersByTimeAsync(5_000);
    expect(FakeEventSource.opened).toHaveLength(9);
    mayRetry = false;
    await vi.advanceTimersByTimeAsync(20_000);
    latest().refuse();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(FakeEventSource.opened).toHaveLength(10);
  });

  test("mentions an interruption only when it lasts", async () => {
    latest().onerror?.();
    await vi.advanceTimersByTimeAsync(2_000);
    latest().onopen?.();
    await vi.advanceTimersByTimeAsync(5_000);
    expect(interruptions).not.toContain(true);
    latest().onerror?.();
    await vi.advanceTimersByTimeAsync(3_000);
    expect(interruptions.at(-1)).toBe(true);
    latest().onopen?.();
    expect(interruptions.at(-1)).toBe(false);
  });

  test("says nothing more once it is closed", () => {
    latest().say(5, "turn.started", { turn_id: "t" });
    stream.close();
    drawFrame();
    expect(received).toEqual([]);
    expect(latest().readyState).toBe(FakeEventSource.CLOSED);
  });
});

describe("a tab without a place for a connection of its own", () => {
  let change: (held: boolean) => void;
  let stream: Stream;

  beforeEach(() => {
    vi.useFakeTimers();
    vi.stubGlobal("EventSource", FakeEventSource);
    FakeEventSource.opened = [];
    stream = openStream({
      url: (after, follow) => `/events?after=${after}&follow=${follow}`,
      after: 4,
      onEvents: () => {},
      onInterrupted: (interrupted) => {
        if (interrupted) throw new Error("an answer that ends is no interruption");
      },
      mayRetry: async () => true,
      nextFrame: (callback) => callback(),
      takePlace: (onChange) => {
        change = onChange;
        return { prefer: () => onChange(true), release: () => {} };
      },
    });
  });

  afterEach(() => {
    stream.close();
    vi.useRealTimers();
    vi.unstubAllGlobals();
  });

  const latest = () => FakeEventSource.opened.at(-1) as FakeEventSource;
  const end = (source: FakeEventSource) => {
    source.readyState = 0; // the browser would connect again
    source.onerror?.();
  };

  test("opens nothing before it knows, asks from where it is, closes, and asks again later", () => {
    expect(FakeEventSource.opened).toHaveLength(0);
    change(false);
    expect(latest().url).toBe("/events?after=4&follow=false");
    latest().onopen?.();
    latest().say(5, "turn.delta", { text: "a" });
    const first = latest();
    end(first);
    expect(first.readyState).toBe(FakeEventSource.CLOSED);
    vi.advanceTimersByTime(2_000);
    expect(FakeEventSource.opened).toHaveLength(1);
    vi.advanceTimersByTime(3_000);
    expect(latest().url).toBe("/events?after=5&follow=false");
  });

  test("follows once it has a place, and asks again once that is taken from it", () => {
    change(false);
    latest().onopen?.();
    stream.prefer();
    expect(latest().url).toBe("/events?after=4&follow=true");
    const following = latest();
    change(false);
    expect(following.readyState).toBe(FakeEventSource.CLOSED);
    expect(latest().url).toBe("/events?after=4&follow=false");
  });
});
