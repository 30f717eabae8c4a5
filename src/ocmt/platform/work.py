"""Threads for calls that block: one bounded pool for each concern, and a budget for each piece of work.

The event loop's default pool is shared by everything in the process, cannot cancel a call, and is waited for
when the process ends. So nothing that an agent or a user can make slow runs there. It runs in one of the
pools below: one owner has one thread at a time, owners take turns, and a process that ends waits for none.

A thread cannot be stopped from outside. Work of unknown size therefore takes an `Effort` and spends it in its
loop: an effort that is used up, or whose caller has gone, ends the work at that place.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ocmt.errors import LimitReached, Unavailable

T = TypeVar("T")

_LOOK_AT_CLOCK = 64
"""The clock is read once in so many steps: reading it costs more than most steps do."""


class Abandoned(Exception):
    """Nobody waits for this work anymore, so it ends."""


class Effort:
    """A budget of steps and seconds for one piece of work, spent by the thread that does it."""

    def __init__(self, *, steps: int | None = None, seconds: float | None = None, message: str) -> None:
        """Args: `message` is the sentence for the user when the budget is used up. None means no bound."""
        self._left = steps
        self._end = None if seconds is None else time.monotonic() + seconds
        self._message = message
        self._until_look = 0
        self._abandoned = False

    def spend(self, steps: int = 1) -> None:
        """Count that much work.

        Raises: LimitReached once the steps or the seconds are used up; Abandoned once the caller has gone.
        """
        if self._abandoned:
            raise Abandoned
        if self._left is not None:
            self._left -= steps
            if self._left < 0:
                raise LimitReached(self._message)
        self._until_look -= steps
        if self._until_look <= 0:
            self._until_look = _LOOK_AT_CLOCK
            if self._end is not None and time.monotonic() > self._end:
                raise LimitReached(self._message)

    def abandon(self) -> None:
        """End the work at its next step. Safe from any thread."""
        self._abandoned = True


@dataclass(eq=False)
class _Job:
    """One call that waits or runs."""

    call: Callable[[], Any]
    owner: Hashable
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Any]
    begun: float | None = None


@dataclass(eq=False)
class _Line:
    """What one owner has in a pool: the jobs that wait, and whether one runs."""

    jobs: deque[_Job] = field(default_factory=deque)
    running: bool = False


class Workers:
    """A bounded pool of threads for one concern."""

    def __init__(self, name: str, threads: int, *, waiting: int = 256) -> None:
        """Args: `waiting` is the number of calls that one owner may have waiting at once."""
        self.name = name
        self._threads = threads
        self._waiting = waiting
        self._changed = threading.Condition()
        self._lines: dict[Hashable, _Line] = {}
        self._ready: deque[Hashable] = deque()
        """Owners with a job that may begin now; each stands here once and goes to the end after a job."""
        self._started = 0
        self._idle = 0
        self._at_work: set[_Job] = set()

    async def run(
        self,
        call: Callable[..., T],
        *given: Any,
        of: Hashable | None = None,
        effort: Effort | None = None,
    ) -> T:
        """Run `call(*given)` in a thread of this pool and return what it returns.

        Of one owner (`of`) one call runs at a time; without an owner a call has a line of its own. If the
        caller is cancelled, a call that waits never begins, and one that runs is told by its `effort`.

        Raises: Unavailable when the owner has too many calls waiting; whatever the call raises.
        """
        loop = asyncio.get_running_loop()
        job = _Job(lambda: call(*given), of if of is not None else object(), loop, loop.create_future())
        self._add(job)
        try:
            return await job.answer  # type: ignore[no-any-return]  # the future holds what the call returns
        except asyncio.CancelledError:
            if effort is not None:
                effort.abandon()
            raise

    def at_work(self) -> list[float]:
        """Return the seconds for which each running call has run, longest first."""
        now = time.monotonic()
        with self._changed:
            return sorted((now - job.begun for job in self._at_work if job.begun is not None), reverse=True)

    def _add(self, job: _Job) -> None:
        with self._changed:
            line = self._lines.setdefault(job.owner, _Line())
            if len(line.jobs) >= self._waiting:
                raise Unavailable(
                    "Too much is being done for you at once. Try again in a moment.", retry_after=1
                )
            line.jobs.append(job)
            if not line.running and len(line.jobs) == 1:
                self._ready.append(job.owner)
            if self._idle:
                self._wake()
            elif self._started < self._threads:
                self._started += 1
                # A daemon: a process that ends does not wait for it.
                threading.Thread(target=self._work, name=f"{self.name}-{self._started}", daemon=True).start()

    def _wake(self) -> None:
        # Counted here and not by the thread that wakes: until it runs, a second job must not count on it.
        self._idle -= 1
        self._changed.notify()

    def _work(self) -> None:
        while True:
            job = self._next()
            try:
                answer, error = job.call(), None
            except BaseException as raised:  # handed to the caller, whatever it is
                answer, error = None, raised
            self._done(job)
            with contextlib.suppress(RuntimeError):  # the caller's event loop has ended, so nobody waits
                job.loop.call_soon_threadsafe(_settle, job.answer, answer, error)
            del job, answer, error  # nothing of the call stays alive while the thread waits

    def _next(self) -> _Job:
        with self._changed:
            while True:
                while not self._ready:
                    self._idle += 1
                    self._changed.wait()
                owner = self._ready.popleft()
                line = self._lines[owner]
                while line.jobs and line.jobs[0].answer.cancelled():
                    line.jobs.popleft()
                if not line.jobs:
                    del self._lines[owner]
                    continue
                job = line.jobs.popleft()
                line.running = True
                job.begun = time.monotonic()
                self._at_work.add(job)
                return job

    def _done(self, job: _Job) -> None:
        with self._changed:
            self._at_work.discard(job)
            line = self._lines[job.owner]
            line.running = False
            if line.jobs:
                self._ready.append(job.owner)
                if self._idle:
                    self._wake()
            else:
                del self._lines[job.owner]


def _settle(answer: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(result)
    elif isinstance(error, StopIteration):
        answer.set_exception(RuntimeError("a call in a thread raised StopIteration"))
    else:
        answer.set_exception(error)


FILES = Workers("files", 4)
"""Agents' files: saves, restores, archives, removal. The owner is the user's id."""
DISK = Workers("disk", 2)
"""Looks at how much of the disk agents take."""
STARTS = Workers("starts", 4)
"""What a start or stop of an agent does on this machine: folders, sockets, configuration, paging."""
SECRETS = Workers("secrets", 2)
"""The secret store."""
OBJECTS = Workers("objects", 4)
"""The object store's files."""
PARSING = Workers("parsing", 1)
"""Parsing of large bodies; one thread, since parsing holds the interpreter's lock."""
OTHER = Workers("other", 2)
"""Mail, migrations, and whatever has no size that a user decides."""
