"""What a person sees of the set-up: one numbered line a step, with what happened and how long it took.

On a terminal the line of a running step counts its seconds; elsewhere (CI, a pipe) a long step says every
15 seconds that it is still at work. Nothing here decides anything.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

_HEARTBEAT = 15.0
_ENOUGH_TO_TELL = 1.0


class Step:
    """A running step; `result` is what its line will end with."""

    def __init__(self) -> None:
        self.result = "done"


class Console:
    """Prints the steps of one set-up, numbered `[1/7]`, to `out`."""

    def __init__(self, steps: int, *, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._steps = steps
        self._number = 0
        self._terminal = self._out.isatty()

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Shows `name` while the block runs, then the step's result; a step that raises says `failed`."""
        self._number += 1
        head = f"[{self._number}/{self._steps}] {name} …"
        step, started, over = Step(), time.monotonic(), threading.Event()
        beat = threading.Thread(target=self._beat, args=(head, started, over), daemon=True)
        beat.start()
        try:
            yield step
        except BaseException as error:
            step.result = "stopped" if isinstance(error, KeyboardInterrupt) else "failed"
            raise
        finally:
            over.set()
            beat.join()
            self._finish(head, step.result, time.monotonic() - started)

    def say(self, text: str) -> None:
        """A line of its own, below a step."""
        print(f"      {text}", file=self._out, flush=True)

    def _beat(self, head: str, started: float, over: threading.Event) -> None:
        if self._terminal:
            self._write(head)
        while not over.wait(1.0 if self._terminal else _HEARTBEAT):
            seconds = f"{time.monotonic() - started:.0f} s"
            if self._terminal:
                self._write(f"\r{head} {seconds}\x1b[K")
            else:
                self._write(f"{head} still at work ({seconds})\n")

    def _finish(self, head: str, result: str, seconds: float) -> None:
        took = f" ({seconds:.0f} s)" if seconds >= _ENOUGH_TO_TELL else ""
        start, end = ("\r", "\x1b[K\n") if self._terminal else ("", "\n")
        self._write(f"{start}{head} {result}{took}{end}")

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()
