"""A whole replica that answers: agents, worker and chat on a real database, the rest as doubles."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

import pytest

from ocmt.chat import log
from ocmt.chat.answer import Answerer
from ocmt.chat.model import Event, Fault, Turn
from ocmt.chat.service import Chat
from ocmt.chat.worker import TurnWorker
from ocmt.platform.database import Database, Hints
from ocmt.testing.clock import VirtualClock
from ocmt.testing.objects import MemoryObjects
from ocmt.testing.runtimes import FakeRuntime
from tests.accounts import make_user
from tests.agents.conftest import gateways, hints, runtime
from tests.agents.replica import Gateways, Replica, time_flies, until

__all__ = ["gateways", "hints", "runtime"]

BuildOffice = Callable[..., "Office"]


@dataclass
class Office:
    """Chat and what answers it."""

    replica: Replica
    chat: Chat
    worker: TurnWorker
    objects: MemoryObjects
    fault: list[Fault] = field(default_factory=list)
    """The broker's explanation of a failure, if it has one."""
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """At work, while time flies; closed in order at the end."""
        async with time_flies(self.replica.clock):
            try:
                self.tasks = [
                    asyncio.create_task(self.replica.reconciler.run()),
                    asyncio.create_task(self.worker.run()),
                ]
                yield
            finally:
                await self.die()
                await self.replica.reconciler.close()

    async def die(self) -> None:
        """As a process does that is killed: nothing is put in order."""
        for task in self.tasks:
            task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks)

    async def post(self, user_id: UUID, text: str, conversation_id: UUID | None = None) -> Turn:
        """Send a message, in a new conversation if none is named."""
        if conversation_id is None:
            conversation_id = (await self.chat.create_conversation(user_id)).id
        return await self.chat.post(user_id, conversation_id, text, key=text)

    async def events(self, turn: Turn, after: int = 0) -> list[Event]:
        """What the turn's stream has shown so far."""
        found = await log.read(
            self.replica.database,
            user_id=turn.user_id,
            conversation_id=turn.conversation_id,
            after=after,
            limit=5000,
        )
        return [event for event in found if event.turn_id == turn.id]

    async def turn(self, turn: Turn) -> Turn:
        """As it is now."""
        page = await self.chat.history(turn.user_id, turn.conversation_id)
        return next(found for found in page.turns if found.id == turn.id)

    async def seen(self, turn: Turn, kind: str, holds: Callable[[Event], bool] = lambda _: True) -> None:
        """Wait until such an event has been written."""

        async def written() -> bool:
            return any(event.type == kind and holds(event) for event in await self.events(turn))

        await until(written)

    async def ended(self, turn: Turn) -> Turn:
        """Wait for its end."""

        async def over() -> bool:
            return not (await self.turn(turn)).status.open

        await until(over, timeout=15)
        return await self.turn(turn)


@pytest.fixture
async def anna(database: Database) -> UUID:
    return await make_user(database, "anna@example.org")


@pytest.fixture
def build_office(
    clock: VirtualClock,
    database: Database,
    hints: Hints,
    runtime: FakeRuntime,
    gateways: Gateways,
) -> BuildOffice:
    def build(
        *,
        runtime: FakeRuntime = runtime,
        owner: str = "a",
        turn_timeout: timedelta = timedelta(minutes=15),
    ) -> Office:
        replica = Replica.build(
            clock=clock, database=database, hints=hints, runtime=runtime, gateways=gateways, owner=owner
        )
        fault: list[Fault] = []

        async def usage_of(user_id: UUID, turn_id: UUID) -> dict[str, int] | None:
            return {"calls": 1}

        async def explain(user_id: UUID, turn_id: UUID) -> Fault | None:
            return fault[0] if fault else None

        objects = MemoryObjects()
        chat = Chat(database, clock, objects)
        answerer = Answerer(
            database,
            clock,
            replica.agents,
            usage_of=usage_of,
            explain=explain,
            turn_timeout=turn_timeout,
            attachments=chat.attachments,
        )
        return Office(
            replica,
            chat,
            TurnWorker(database, clock, hints, replica.reconciler, answerer),
            objects,
            fault,
        )

    return build


@pytest.fixture
async def office(build_office: BuildOffice) -> AsyncIterator[Office]:
    office = build_office()
    async with office.open():
        yield office
