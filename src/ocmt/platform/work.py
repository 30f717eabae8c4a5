"""Threads for calls that block: one bounded pool for each concern, and a budget for each piece of work.

The event loop's default pool is shared by everything in the process, cannot cancel a call, and is waited for
when the process ends. So nothing that an agent or a user can make slow runs there. It runs in one of the
pools below: one owner has one thread at a time, owners take turns, and a process that ends waits for none.

A thread cannot be stopped from outside. Work of unknown size therefore takes an `Effort` and spends it in its
loop: an effort that is used up, or whose caller has gone, ends the work at that place.

A call that runs for longer than `LONG_SECONDS` is counted and logged with the name of its pool and its owner.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar
from weakref import WeakSet

import structlog

from ocmt.errors import LimitReached, Unavailable

T = TypeVar("T")

log = structlog.get_logger(__name__)

LONG_SECONDS = 30.0
"""After this time a call that still runs is logged."""
LAST_SECONDS = 3.0
"""How long `to_the_end` waits for a thread once the process is ending."""
_LOOK_AT_CLOCK = 64
"""The clock is read once in so many steps: reading it costs more than most steps do."""
_POLITE_AFTER = 0.25
"""Seconds after which a piece of work begins to pause, so that it leaves the interpreter to others."""
_POLITE_SPELL = 0.004
_POLITE_PAUSE = 0.001

POOLS: WeakSet[Workers] = WeakSet()
"""All of this process; `telemetry` makes metrics of their state."""


class Abandoned(Exception):
    """Nobody waits for this work anymore, so it ends."""


class Effort:
    """A budget of steps and seconds for one piece of work, spent by the thread that does it."""

    def __init__(self, *, steps: int | None = None, seconds: float | None = None, message: str) -> None:
        """Args: `message` is the sentence for the user when the budget is used up. None means no bound."""
        now = time.monotonic()
        self._left = steps
        self._end = None if seconds is None else now + seconds
        self._polite_at = now + _POLITE_AFTER
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
            now = time.monotonic()
            if self._end is not None and now > self._end:
                raise LimitReached(self._message)
            if now > self._polite_at:
                # A thread of pure Python holds the interpreter for 5 ms at a time. Work that takes long
                # pauses often, so that the event loop and other users' calls run in between.
                time.sleep(_POLITE_PAUSE)
                self._polite_at = now + _POLITE_PAUSE + _POLITE_SPELL

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
    watch: asyncio.TimerHandle | None = None


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
        self.long_calls = 0
        """Calls so far that ran for longer than `LONG_SECONDS`."""
        POOLS.add(self)
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
        job.watch = loop.call_later(LONG_SECONDS, self._watch, job)
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

    def waiting(self) -> int:
        """Return how many calls wait for a thread."""
        with self._changed:
            return sum(len(line.jobs) for line in self._lines.values())

    def _watch(self, job: _Job) -> None:
        """Log a call that has run for too long; look again later at one that has not begun."""
        if job.begun is None:
            if not job.answer.done():
                job.watch = job.loop.call_later(LONG_SECONDS, self._watch, job)
            return
        self.long_calls += 1
        log.warning(
            "a call in a thread takes long",
            pool=self.name,
            owner=None if type(job.owner) is object else str(job.owner),
            seconds=round(time.monotonic() - job.begun, 1),
        )

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
                job.loop.call_soon_threadsafe(_settle, job, answer, error)
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


def _settle(job: _Job, result: Any, error: BaseException | None) -> None:
    answer = job.answer
    if job.watch is not None:
        job.watch.cancel()
    if answer.done():
        return
    if error is None:
        answer.set_result(result)
    elif isinstance(error, StopIteration):
        answer.set_exception(RuntimeError("a call in a thread raised StopIteration"))
    else:
        answer.set_exception(error)


async def to_the_end(workers: Workers, call: Callable[..., T], *given: Any, of: Hashable | None = None) -> T:
    """Run a call and wait for its end even if the caller is cancelled, because nobody may use what it writes.

    Once the process is ending, a cancelled caller waits `LAST_SECONDS` at most: whoever comes next on this
    machine waits for the end of the whole process.
    """
    work = asyncio.ensure_future(workers.run(call, *given, of=of))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        while not work.done() and not _ending.is_set():
            await asyncio.wait([work], timeout=_ENDING_LOOK)
        if not work.done():
            await asyncio.wait([work], timeout=LAST_SECONDS)
        if work.done() and not work.cancelled():
            work.exception()  # the caller has gone, so nobody asks for it
        raise


_ENDING_LOOK = 0.5
_ending = threading.Event()


def process_ends() -> None:
    """Note that this process is ending: from now on nothing waits long for a thread."""
    _ending.set()


class DaemonExecutor(concurrent.futures.ThreadPoolExecutor):
    """The event loop's default executor, with daemon threads that nobody waits for.

    Our own code does not use it. Libraries do, for example to look up host names. The loop accepts only a
    ThreadPoolExecutor, whose own threads are joined when the process ends; so both are replaced here.
    """

    def __init__(self, threads: int = 4) -> None:
        super().__init__(1)
        self._most = threads
        self._begun = 0
        self._lock = threading.Lock()
        self._calls: queue.SimpleQueue[tuple[concurrent.futures.Future[Any], Callable[[], Any]]] = (
            queue.SimpleQueue()
        )

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[T]:
        """Run the call in a daemon thread."""
        answer: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._calls.put((answer, lambda: fn(*args, **kwargs)))
        with self._lock:
            if self._begun < self._most:
                self._begun += 1
                threading.Thread(target=self._serve, name=f"default-{self._begun}", daemon=True).start()
        return answer

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Do nothing: the threads end with the process."""

    def _serve(self) -> None:
        while True:
            answer, call = self._calls.get()
            if not answer.set_running_or_notify_cancel():
                continue
            try:
                answer.set_result(call())
            except BaseException as error:  # handed to the caller, whatever it is
                answer.set_exception(error)


def use_daemon_threads() -> None:
    """Give the running event loop a default executor that the end of the process does not wait for."""
    asyncio.get_running_loop().set_default_executor(DaemonExecutor())


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
