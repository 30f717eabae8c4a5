// Node's timers in a process that is held still, as they are on a computer that sleeps: time did not pass.
// `node --import held_still.mjs`, before OpenClaw.
//
// OpenClaw is written for computers that people close. There the clock of its timers stands still meanwhile; the
// clock of a process that is frozen goes on, so everything that OpenClaw does each minute is due at once when it
// goes on, just when somebody waits for it: it ends its idle threads, and the message at hand starts them again
// (1.2 to 2 s). So a long timer that was overdue when the process went on begins its time anew.
// Short ones are left alone, and what is planned by the clock on the wall is planned anew by `gateway.suspend.resume`.

import { promisify } from "node:util";
import { isMainThread } from "node:worker_threads";

const LOOK = 1_000; // milliseconds, as all of these
const HELD = 5_000; // no look for so long: it was held still, or so busy that the difference does not matter
const AT_ONCE = 1_000; // in which everything fires that was overdue
const LONG = 10_000;

const once = globalThis.setTimeout;
const repeatedly = globalThis.setInterval;

let looked = performance.now();
let wentOn = Number.NEGATIVE_INFINITY;

// A gateway's threads have no long timers of their own, and inherit `--import`.
if (isMainThread) {
  repeatedly(wentOnJustNow, LOOK).unref();
  globalThis.setTimeout = setTimeout;
  globalThis.setInterval = setInterval;
}

function wentOnJustNow() {
  const now = performance.now();
  if (now - looked > HELD) wentOn = now;
  looked = now;
  return now - wentOn < AT_ONCE;
}

function setTimeout(callback, delay, ...values) {
  if (!isLong(callback, delay)) return once(callback, delay, ...values);
  const timer = once(() => (wentOnJustNow() ? timer.refresh() : callback(...values)), delay);
  return timer;
}
setTimeout[promisify.custom] = once[promisify.custom];

function setInterval(callback, delay, ...values) {
  if (!isLong(callback, delay)) return repeatedly(callback, delay, ...values);
  return repeatedly(() => wentOnJustNow() || callback(...values), delay);
}

function isLong(callback, delay) {
  return delay >= LONG && typeof callback === "function";
}
