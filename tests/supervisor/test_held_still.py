"""`held_still.mjs` in the Node that the set-up has installed, with a clock that the test moves."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from ocmt.runtimes.bubblewrap import SUPERVISOR
from ocmt.testing.installed import installed_tools

HELD_STILL = SUPERVISOR.with_name("held_still.mjs")

CLOCK = """
// Timers in virtual milliseconds: each fires when its time has come, and all that are overdue at once.
let now = 0;
let timers = [];
performance.now = () => now;
const arm = (repeats) => (callback, delay, ...values) => {
  const timer = { due: now + delay, delay, repeats, run: () => callback(...values), unref: () => timer };
  timer.refresh = () => { timer.due = now + delay; timers.push(timer); };
  timers.push(timer);
  return timer;
};
globalThis.setTimeout = arm(false);
globalThis.setInterval = arm(true);
const fire = () => {
  const due = timers.filter((timer) => timer.due <= now);
  timers = timers.filter((timer) => timer.due > now);
  for (const timer of due) {
    if (timer.repeats) { timer.due = now + timer.delay; timers.push(timer); }
    timer.run();
  }
};
const run = (milliseconds) => { for (const end = now + milliseconds; now < end; ) { now += 100; fire(); } };
const hold = (milliseconds) => { now += milliseconds; fire(); };
const seen = [];
await import(process.argv[1]);
"""


def what_fires(script: str) -> list[Any]:
    """What was seen, in the order in which the script's timers fired."""
    node = installed_tools().node
    done = subprocess.run(
        [
            node,
            "--input-type=module",
            "-e",
            f"{CLOCK}{script}\nconsole.log(JSON.stringify(seen));",
            HELD_STILL,
        ],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    found: list[Any] = json.loads(done.stdout)
    return found


def test_an_interval_that_came_due_while_it_was_held_still_is_left_out_once() -> None:
    assert what_fires("""
        setInterval((name) => seen.push(`${name} ${now}`), 60_000, "sweep");
        run(20_000); hold(3_600_000); run(59_000);
        seen.push("a minute later");
        run(2_000);
    """) == ["a minute later", "sweep 3680000"]


def test_a_timeout_that_came_due_while_it_was_held_still_begins_anew() -> None:
    assert what_fires("""
        setTimeout((name) => seen.push(`${name} ${now}`), 30_000, "idle");
        run(20_000); hold(3_600_000); run(29_900);
        seen.push("not yet");
        run(200); run(60_000);
    """) == ["not yet", "idle 3650000"]


def test_short_timers_fire_as_soon_as_it_goes_on() -> None:
    assert what_fires("""
        setTimeout(() => seen.push("soon"), 5_000);
        run(1_000); hold(3_600_000);
    """) == ["soon"]


def test_what_is_not_due_yet_keeps_its_time() -> None:
    assert what_fires("""
        setTimeout(() => seen.push(now), 120_000);
        run(20_000); hold(60_000); run(100_000);
    """) == [120_000]


def test_a_process_that_is_never_held_still_is_not_changed() -> None:
    assert what_fires("""
        setInterval(() => seen.push(now), 60_000);
        setTimeout(() => seen.push(now), 10_000);
        run(120_000);
    """) == [10_000, 60_000, 120_000]


def test_the_promise_of_a_timeout_stays_what_it_was() -> None:
    node = installed_tools().node
    script = "import {promisify} from 'node:util'; console.log(await promisify(setTimeout)(1, 'done'));"
    done = subprocess.run(
        [node, f"--import={HELD_STILL}", "--input-type=module", "-e", script],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert done.stdout == "done\n"
