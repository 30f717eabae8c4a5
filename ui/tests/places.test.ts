import { describe, expect, test } from "vitest";
import { type Place, takePlace } from "../src/places";

/** Web Locks for one browser, as the specification has them: exclusive, first come first served, with stealing. */
class FakeLocks {
  private readonly held = new Map<string, { reject: (error: Error) => void }>();
  private readonly queues = new Map<string, (() => void)[]>();

  request(
    name: string,
    options: LockOptions,
    callback: (lock: Lock | null) => Promise<void> | undefined,
  ): Promise<void> {
    return new Promise((resolve, reject) => {
      const grant = () => {
        const entry = { reject };
        this.held.set(name, entry);
        void Promise.resolve(callback({ name, mode: "exclusive" })).then(() => {
          if (this.held.get(name) !== entry) return;
          this.held.delete(name);
          resolve();
          this.queues.get(name)?.shift()?.();
        });
      };
      if (options.steal) {
        this.held.get(name)?.reject(new Error("stolen"));
        grant();
      } else if (!this.held.has(name)) grant();
      else if (options.ifAvailable) resolve(callback(null));
      else {
        const queue = this.queues.get(name) ?? [];
        this.queues.set(name, queue);
        queue.push(grant);
        options.signal?.addEventListener("abort", () => {
          const at = queue.indexOf(grant);
          if (at < 0) return; // granted already
          queue.splice(at, 1);
          reject(new Error("aborted"));
        });
      }
    });
  }
}

const settle = () => new Promise((resolve) => setTimeout(resolve, 0));

class Tab {
  readonly place: Place;
  held: boolean | null = null;

  constructor(locks: FakeLocks) {
    this.place = takePlace(
      (held) => {
        this.held = held;
      },
      locks as unknown as LockManager,
    );
  }
}

describe("places for connections", () => {
  async function tabs(count: number): Promise<Tab[]> {
    const locks = new FakeLocks();
    const opened: Tab[] = [];
    for (let n = 0; n < count; n++) {
      opened.push(new Tab(locks));
      await settle();
    }
    return opened;
  }
  const holders = (opened: Tab[]) => opened.filter((tab) => tab.held).length;

  test("of twelve tabs three have one, and the others know that they have none", async () => {
    const opened = await tabs(12);
    expect(holders(opened)).toBe(3);
    expect(opened.filter((tab) => tab.held === false)).toHaveLength(9);
  });

  test("the tab that its user turns to takes one, and another loses it", async () => {
    const opened = await tabs(12);
    for (const tab of opened) {
      tab.place.prefer();
      await settle();
      expect(tab.held).toBe(true);
      expect(holders(opened)).toBe(3);
    }
  });

  test("what a closed tab had goes to one that waits", async () => {
    const opened = await tabs(5);
    const closed = opened.find((tab) => tab.held) as Tab;
    closed.place.release();
    await settle();
    expect(holders(opened.filter((tab) => tab !== closed))).toBe(3);
  });

  test("a closed tab takes none, however late", async () => {
    const opened = await tabs(4);
    const waiting = opened.find((tab) => !tab.held) as Tab;
    waiting.place.release();
    for (const tab of opened) if (tab !== waiting) tab.place.release();
    await settle();
    expect(waiting.held).toBe(false);
  });

  test("a browser without locks follows as if it had one tab", () => {
    let held: boolean | null = null;
    takePlace((now) => {
      held = now;
    }, undefined);
    expect(held).toBe(true);
  });
});
