"""When an agent's files are saved beside its stop: at every pause, and from time to time while it is at work.

A generation is of one moment, so they are read only while all of its processes are held still. Nobody waits
for that: whoever needs the agent has it go on at once, and what was not read by then is saved another time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

import structlog

from ocmt.agents.files import FileKeeper
from ocmt.agents.model import Agent, Policy, State
from ocmt.agents.running import Running
from ocmt.agents.suspension import may_be_frozen, take_work_or_close
from ocmt.errors import LeaseLost, OcmtError
from ocmt.openclaw.client import GatewayClient
from ocmt.platform.clock import Clock

log = structlog.get_logger(__name__)

LATEST = 6
"""Times `snapshot_every`: one that is never quiet for so long is saved in the middle of its work."""
STILL_AT_WORK = 2.0
"""Seconds; so long at most it is held still then, or while a program of its user's is connected."""
STILL_IDLE = 60.0
"""And so long otherwise: jobs of its own may become due meanwhile."""


class Due(StrEnum):
    """Whether it is time to save."""

    NO = "no"
    IF_QUIET = "if quiet"
    """Between turns, and if the gateway has nothing to do."""
    IN_ANY_CASE = "in any case"


def is_unsaved(agent: Agent, saved_at: datetime | None) -> bool:
    """Whether it may have changed its files since that moment."""
    if saved_at is None or agent.last_active_at > saved_at:
        return True
    return agent.state is State.AWAKE and bool(agent.holds)


def due(agent: Agent, unsaved_since: datetime | None, now: datetime, policy: Policy) -> Due:
    """Whether it is time to save this agent's files; `unsaved_since` None: nothing has changed."""
    if unsaved_since is None:
        return Due.NO
    if agent.state is State.PAUSED:
        return Due.IN_ANY_CASE
    waiting = now - unsaved_since
    if agent.state is not State.AWAKE or waiting < policy.snapshot_every:
        return Due.NO
    if waiting >= LATEST * policy.snapshot_every:
        return Due.IN_ANY_CASE
    return Due.NO if any(hold.reason == "turn" for hold in agent.holds) else Due.IF_QUIET


class Saving:
    """Saves one agent's files beside its stop.

    The driver takes its lock by `before_all`, and calls `give_way` before it lets the agent go on.
    """

    def __init__(self, files: FileKeeper, running: Running, clock: Clock, policy: Policy) -> None:
        self._files = files
        self._running = running
        self._clock = clock
        self._policy = policy
        self._saved_at: datetime | None = None
        self._unsaved_since: datetime | None = None
        self.leave_until = clock.now()
        """It could not be saved before a stop: until then it is not stopped."""
        self._next = clock.now()
        """It was busy, or could not be saved: until then it is left in peace."""
        self._work: asyncio.Task[bool] | None = None
        """The last one."""
        self._under_way: set[asyncio.Task[bool]] = set()
        """It, and others that are not done yet with what comes after reading."""
        self._read = asyncio.Event()
        self._waiting = 0
        self._needed = asyncio.Event()
        """Set while anybody waits for the lock."""

    def due(self, agent: Agent) -> Due:
        """Whether it is time. To be asked at every look: activity is noted here."""
        now = self._clock.now()
        if self._unsaved_since is None and is_unsaved(agent, self._saved_at):
            self._unsaved_since = now
        able = self._files.can_save and self._running.can_pause
        if not able or self._under_way or now < self._next:
            return Due.NO
        return due(agent, self._unsaved_since, now, self._policy)

    async def look(
        self,
        agent: Agent,
        find: Callable[[UUID], Awaitable[Agent]],
        hand: Callable[[], AbstractAsyncContextManager[None]],
    ) -> None:
        """Save, if it is time. `hand`: the driver's lock. Raises: LeaseLost."""
        if self.due(agent) is Due.NO:
            return
        async with hand():
            agent = await find(agent.user_id)  # what came meanwhile wins
            kind = self.due(agent)
            if kind is not Due.NO and agent.state is State.PAUSED:
                self.beside_pause(agent)
            elif kind is not Due.NO:
                await self.between_turns(agent, kind)

    @contextlib.asynccontextmanager
    async def before_all(self, lock: asyncio.Lock) -> AsyncIterator[None]:
        """Hold the lock; for whoever waits here, what is done under it to save gives way at once."""
        self._waiting += 1
        self._needed.set()
        self.give_way()
        try:
            await lock.acquire()
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._needed.clear()
        try:
            yield
        finally:
            lock.release()

    def give_way(self) -> None:
        """When this returns nothing will be saved of what is read from now on: the agent may be let go."""
        if self._work is not None and not self._read.is_set():
            self._work.cancel()

    async def end(self) -> None:
        """End what is under way, whatever it is."""
        under_way = tuple(self._under_way)
        for work in under_way:
            work.cancel()
        if under_way:
            await asyncio.wait(under_way)

    # While it is paused

    def beside_pause(self, agent: Agent) -> None:
        """It is paused: save what there is, beside everything else."""
        if self._files.can_save and self._running.frozen is not None and not self._needed.is_set():
            self._begin(agent)

    # While it is awake

    async def between_turns(self, agent: Agent, kind: Due) -> None:
        """Hold it still for a moment and save what there is. The caller holds the driver's lock.

        Nothing of it renews its idle time. Raises: LeaseLost.
        """
        gateway = self._running.living
        if gateway is None:
            return
        if kind is Due.IF_QUIET and not await may_be_frozen(gateway, agent.user_id):
            self._leave(self._policy.busy_retry)
            return
        at_work = kind is Due.IN_ANY_CASE or agent.holds
        try:
            if not self._needed.is_set():
                await self._running.pause(agent.runtime_state)
                await self._read_all(agent, at_most=STILL_AT_WORK if at_work else STILL_IDLE)
        except LeaseLost:
            raise
        except OcmtError as error:
            log.warning("agent not held still", user_id=str(agent.user_id), error=str(error))
            self._leave(self._policy.snapshot_every)
        finally:
            await self._go_on(gateway)

    async def _read_all(self, agent: Agent, *, at_most: float) -> None:
        """Until all is read, or somebody needs it, or the time is up."""
        if self._needed.is_set():
            return
        work = self._begin(agent)
        signs = [asyncio.create_task(event.wait()) for event in (self._read, self._needed)]
        try:
            await asyncio.wait([work, *signs], timeout=at_most, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.give_way()
            for sign in signs:
                sign.cancel()
        if not self._read.is_set() and not work.done():
            self._leave(self._policy.busy_retry)

    async def _go_on(self, gateway: GatewayClient) -> None:
        if self._running.frozen is None:
            await take_work_or_close(gateway, self._running.user_id)
        elif await self._running.resume() is None:
            # Nobody knows what it does: without a connection it counts as lost, and is started anew.
            await gateway.close()

    # Before a stop

    async def before_stop(self, agent: Agent, commit: Callable[[], Awaitable[bool]]) -> bool:
        """Its files are saved first, and only what is saved is stopped; whether `commit` agreed, too."""
        runs = agent.state is State.AWAKE
        began = self._clock.now()
        if not await self._files.saved(agent, runs=runs):
            self.leave_until = began + self._policy.busy_retry
            return False
        self._note(began)
        committed = False
        try:
            committed = await commit()
        finally:
            if runs and not committed:
                await self._files.let_go(agent)
        return committed

    # Work

    def _begin(self, agent: Agent) -> asyncio.Task[bool]:
        self._read = asyncio.Event()
        self._work = asyncio.create_task(self._save(agent, self._read), name=f"save {agent.user_id}")
        self._under_way.add(self._work)
        self._work.add_done_callback(self._done)
        return self._work

    async def _save(self, agent: Agent, read: asyncio.Event) -> bool:
        began = self._clock.now()
        if not await self._files.save(agent, read.set):
            # Not soon: what is beyond a limit costs a look at all files each time.
            self._leave(self._policy.snapshot_every)
            return False
        self._note(began)
        await self._files.tidy(agent)
        return True

    def _note(self, moment: datetime) -> None:
        self._saved_at, self._unsaved_since = moment, None

    def _leave(self, pause: timedelta) -> None:
        self._next = self._clock.now() + pause

    def _done(self, work: asyncio.Task[bool]) -> None:
        self._under_way.discard(work)
        error = None if work.cancelled() else work.exception()
        if isinstance(error, LeaseLost):
            log.info("agent not saved", user_id=str(self._running.user_id), error=error.message)
        elif error is not None:
            log.error("saving an agent failed", user_id=str(self._running.user_id), exc_info=error)
