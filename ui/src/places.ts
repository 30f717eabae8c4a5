/**
 * Which tabs of this browser may keep a connection open.
 *
 * Over HTTP/1.1 a browser has six connections for each host, shared by all of its tabs. If every tab kept one open for
 * its event stream, the seventh tab would not load, and no request of the others would get through. So all tabs share
 * a few places, by Web Locks. A tab without a place asks for news every few seconds instead. The tab that its user
 * turns to takes a place from another.
 */

const NAMES = ["ocmt-stream-1", "ocmt-stream-2", "ocmt-stream-3"];

export interface Place {
  /** Takes a place from another tab, because the user is at this one. */
  prefer(): void;
  /** Gives the place up for good. */
  release(): void;
}

/** Says by `onChange` whether this tab has a place: once soon, and again at every change. */
export function takePlace(
  onChange: (held: boolean) => void,
  locks: LockManager | undefined = navigator.locks,
): Place {
  if (!locks) {
    onChange(true); // an old browser, or plain http: as if this were its only tab
    return { prefer: () => {}, release: () => {} };
  }
  let giveUp: (() => void) | null = null;
  let released = false;
  let waiting = new AbortController();

  /** Holds the lock until `giveUp` is called; a callback for `locks.request`. */
  function hold(): Promise<void> | undefined {
    if (released || giveUp) return undefined; // another request was quicker
    waiting.abort();
    onChange(true);
    return new Promise<void>((resolve) => {
      giveUp = resolve;
    });
  }

  function request(name: string, options: LockOptions): Promise<boolean> {
    return new Promise((answer) => {
      let mine = false;
      const done = locks?.request(name, options, (lock) => {
        const holding = lock ? hold() : undefined;
        mine = holding !== undefined;
        answer(mine);
        return holding;
      });
      // It rejects where the wait was given up, and where another tab took the place from this one.
      done?.catch(() => {
        answer(false);
        if (mine) lost();
      });
    });
  }

  function lost(): void {
    giveUp = null;
    if (released) return;
    onChange(false);
    wait();
  }

  function wait(): void {
    waiting = new AbortController();
    for (const name of NAMES) void request(name, { signal: waiting.signal });
  }

  async function begin(): Promise<void> {
    for (const name of NAMES) {
      if (await request(name, { ifAvailable: true })) return;
    }
    if (released || giveUp) return;
    onChange(false);
    wait();
  }

  void begin();
  return {
    prefer: () => {
      if (giveUp || released) return;
      const name = NAMES[Math.floor(Math.random() * NAMES.length)] as string;
      void request(name, { steal: true });
    },
    release: () => {
      released = true;
      waiting.abort();
      giveUp?.();
      giveUp = null;
    },
  };
}
