"""The event log: batches in order, nothing behind the end, nothing lost, the same from any point."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ocmt.agents.service import Agents
from ocmt.chat import log
from ocmt.chat.log import BATCH_INTERVAL, GATHER, MAX_BUFFERED, MAX_FAILURES, RETRY_INTERVAL, TurnWriter
from ocmt.chat.model import Event, EventType, Turn, merge_deltas
from ocmt.chat.service import Chat
from ocmt.errors import LeaseLost, Unavailable
from ocmt.platform.database import Connection, Database
from ocmt.testing.clock import VirtualClock
from ocmt.testing.objects import MemoryObjects
from tests.agents.replica import time_flies, until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def turn(database: Database, clock: VirtualClock, anna: UUID) -> Turn:
    """A turn of a user whose agent nobody drives yet: its lease token is 0."""
    await Agents(database, clock, runtime="fake").find(anna)
    chat = Chat(database, clock, MemoryObjects())
    return await chat.post(anna, (await chat.create_conversation(anna)).id, "hello", key="k")


async def stored(database: Database, turn: Turn) -> list[Event]:
    """Without the one that accepted it."""
    found = await log.read(
        database, user_id=turn.user_id, conversation_id=turn.conversation_id, after=0, limit=10_000
    )
    return found[1:]


async def texts(database: Database, turn: Turn) -> list[str]:
    return [event.data["text"] for event in await stored(database, turn)]


class Unsteady(Database):
    """The real database, which at times does not answer, or not yet."""

    def __init__(self, real: Database) -> None:
        super().__init__(real._pool)
        self.failures = 0
        self.silences = 0
        self.answers = asyncio.Event()
        self.answers.set()
        self.asked = 0

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        self.asked += 1
        await self.answers.wait()
        if self.failures > 0:
            self.failures -= 1
            raise Unavailable("The database does not answer just now.")
        async with super().connection() as connection:
            yield connection
        if self.silences > 0:
            self.silences -= 1
            raise Unavailable("The connection was lost before the database said that it has written.")


async def test_the_first_event_is_written_at_once_and_the_rest_in_batches(
    database: Database, clock: VirtualClock, turn: Turn
) -> None:
    async with TurnWriter(database, clock, turn, lease_token=0) as writer:
        await writer.put_delta("a")

        async def one_is_written() -> bool:
            return await texts(database, turn) == ["a"]

        await until(one_is_written)
        for piece in "bcd":
            await writer.put_delta(piece)
        assert await texts(database, turn) == ["a"]
        for wait in (BATCH_INTERVAL - GATHER, GATHER):
            await clock.wait_for_sleepers()
            await clock.advance(wait)

        async def all_is_written() -> bool:
            return await texts(database, turn) == ["a", "bcd"]

        await until(all_is_written)


async def test_a_database_that_fails_for_a_while_loses_nothing(
    database: Database, clock: VirtualClock, turn: Turn
) -> None:
    unsteady = Unsteady(database)
    async with TurnWriter(unsteady, clock, turn, lease_token=0) as writer, time_flies(clock):
        unsteady.failures = 3
        for piece in ("one ", "two ", "three"):
            await writer.put_delta(piece)
        await until(lambda: unsteady.failures == 0)
        writer.check()
    assert "".join(await texts(database, turn)) == "one two three"


async def test_what_was_written_though_nobody_said_so_is_not_written_again(
    database: Database, clock: VirtualClock, turn: Turn
) -> None:
    unsteady = Unsteady(database)
    async with TurnWriter(unsteady, clock, turn, lease_token=0) as writer:
        unsteady.silences = 2
        await writer.put_delta("one ")
        await until(lambda: unsteady.silences == 1)
        await writer.put_delta("two ")  # more than there was comes with the second attempt
        async with time_flies(clock):
            await until(lambda: unsteady.silences == 0)
            await writer.put_delta("three")
    assert "".join(await texts(database, turn)) == "one two three"


async def test_nor_with_what_ends_the_turn(database: Database, clock: VirtualClock, turn: Turn) -> None:
    unsteady = Unsteady(database)
    async with TurnWriter(unsteady, clock, turn, lease_token=0) as writer:
        unsteady.silences = 1
        await writer.put_delta("said once, ")
        await until(lambda: unsteady.silences == 0)
        await writer.put_delta("and the end")
        async with writer.held() as unwritten:
            assert [event.data["text"] for event in unwritten] == ["and the end"]
    assert await texts(database, turn) == ["said once, "]


async def test_a_database_that_stays_away_ends_the_turn_here(
    database: Database, clock: VirtualClock, turn: Turn
) -> None:
    unsteady = Unsteady(database)
    unsteady.failures = MAX_FAILURES + 1

    async def write() -> None:
        async with TurnWriter(unsteady, clock, turn, lease_token=0) as writer:
            await writer.put_delta("lost")
            for _ in range(MAX_FAILURES):
                await clock.wait_for_sleepers()
                await clock.advance(RETRY_INTERVAL)
            while True:
                await asyncio.sleep(0)
                writer.check()

    with pytest.raises(Unavailable):
        await write()


async def test_nothing_comes_behind_what_ends_the_turn(
    database: Database, clock: VirtualClock, turn: Turn
) -> None:
    slow = Unsteady(database)
    async with TurnWriter(slow, clock, turn, lease_token=0) as writer:
        slow.answers.clear()
        await writer.put_delta("under way, ")
        await until(lambda: slow.asked == 1)  # a batch is being written, slowly
        await writer.put_delta("left, ")

        async def end() -> None:
            async with writer.held() as left, database.connection() as connection:
                await log.append(
                    connection,
                    clock,
                    user_id=turn.user_id,
                    conversation_id=turn.conversation_id,
                    events=[*left, Event(EventType.DELTA, turn.id, {"text": "the end"})],
                    lease_token=None,
                )

        ending = asyncio.create_task(end())
        await asyncio.sleep(0.02)
        slow.answers.set()
        await ending
    assert "".join(await texts(database, turn)) == "under way, left, the end"


async def test_a_batch_that_was_under_way_while_the_turn_ended_is_not_taken(
    database: Database, clock: VirtualClock, turn: Turn
) -> None:
    async def append(connection: Connection, type_: EventType) -> None:
        await log.append(
            connection,
            clock,
            user_id=turn.user_id,
            conversation_id=turn.conversation_id,
            events=[Event(type_, turn.id, {})],
            lease_token=0,
        )

    async def late() -> None:
        async with database.connection() as connection:
            await append(connection, EventType.DELTA)

    async with database.transaction() as ending:
        await append(ending, EventType.COMPLETED)
        await ending.execute(
            "update turns set status = 'completed', finished_at = now() where id = $1", turn.id
        )
        batch = asyncio.create_task(late())
        async with database.connection() as connection:
            await until_waiting(connection)
    with pytest.raises(LeaseLost):
        await batch
    assert [event.type for event in await stored(database, turn)] == [EventType.COMPLETED]


async def until_waiting(connection: Connection) -> None:
    """Return once somebody waits for another's lock on a row."""
    async with asyncio.timeout(10):
        while not await connection.fetchval("select count(*) from pg_locks where not granted"):
            await asyncio.sleep(0.01)


async def test_a_transaction_that_fails_leaves_what_was_not_written(
    database: Database, clock: VirtualClock, turn: Turn
) -> None:
    async with TurnWriter(database, clock, turn, lease_token=0) as writer:
        await writer.put_delta("kept")
        with pytest.raises(Unavailable):
            async with writer.held():
                raise Unavailable("The database does not answer just now.")
    assert await texts(database, turn) == ["kept"]


async def test_a_stream_faster_than_the_database_is_held_back(
    database: Database, clock: VirtualClock, turn: Turn
) -> None:
    slow = Unsteady(database)
    async with TurnWriter(slow, clock, turn, lease_token=0) as writer:
        slow.answers.clear()
        for _ in range(MAX_BUFFERED):
            await writer.put_delta("x")
        held_back = asyncio.create_task(writer.put_delta("y"))
        await asyncio.sleep(0.01)
        assert not held_back.done()
        slow.answers.set()
        await held_back
    assert "".join(await texts(database, turn)) == "x" * MAX_BUFFERED + "y"


async def test_without_the_lease_the_writer_says_so(
    database: Database, clock: VirtualClock, turn: Turn
) -> None:
    async def write() -> None:
        async with TurnWriter(database, clock, turn, lease_token=99) as writer:
            await writer.put_delta("late")
            while True:
                await asyncio.sleep(0)
                writer.check()

    with pytest.raises(LeaseLost):
        await write()
    assert await stored(database, turn) == []


def rebuild(events: list[Event]) -> list[object]:
    """The turn as a browser has it after these events."""
    view: list[object] = ["", {}, "open"]
    for event in events:
        match event.type:
            case EventType.ACCEPTED:
                view = ["", {}, "open"]
            case EventType.DELTA:
                view[0] = event.data["text"] if event.data.get("replace") else view[0] + event.data["text"]
            case EventType.TOOL:
                view[1] = {**view[1], event.data["call_id"]: event.data["phase"]}  # type: ignore[dict-item]
            case EventType.COMPLETED | EventType.FAILED | EventType.STOPPED:
                view[2] = event.type
    return view


pieces = st.one_of(
    st.builds(lambda text: (EventType.DELTA, {"text": text}), st.text('ab ä😀\n"\\', max_size=4)),
    st.builds(lambda text: (EventType.DELTA, {"text": text, "replace": True}), st.text("cd", max_size=4)),
    st.builds(
        lambda call, phase: (EventType.TOOL, {"call_id": call, "phase": phase}),
        st.sampled_from(["t1", "t2"]),
        st.sampled_from(["start", "update", "result"]),
    ),
    st.just((EventType.ACCEPTED, {"text": "hello", "attempt": 2})),
    st.just((EventType.PROGRESS, {"step": "note", "text": "…"})),
)
batches = st.lists(st.lists(pieces, min_size=1, max_size=6), min_size=1, max_size=6)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=batches, page=st.integers(1, 7))
async def test_replaying_from_any_point_gives_the_same_conversation(
    database: Database,
    clock: VirtualClock,
    anna: UUID,
    batches: list[list[tuple[EventType, dict[str, object]]]],
    page: int,
) -> None:
    chat = Chat(database, clock, MemoryObjects())
    turn = await chat.post(anna, (await chat.create_conversation(anna)).id, "hello", key="k")
    said = [[Event(kind, turn.id, data) for kind, data in batch] for batch in batches]
    said.append([Event(EventType.COMPLETED, turn.id, {"message": "done"})])
    async with database.connection() as connection:
        for batch in said:
            await log.append(
                connection,
                clock,
                user_id=anna,
                conversation_id=turn.conversation_id,
                events=merge_deltas(batch),
                lease_token=None,
            )
        await connection.execute("update turns set status = 'completed' where id = $1", turn.id)
    whole = await log.read(
        database, user_id=anna, conversation_id=turn.conversation_id, after=0, limit=10_000
    )
    assert rebuild(whole) == rebuild([event for batch in said for event in batch])

    for seen in range(0, len(whole) + 1, max(1, len(whole) // 4)):
        replayed = whole[:seen]
        while part := await log.read(
            database,
            user_id=anna,
            conversation_id=turn.conversation_id,
            after=replayed[-1].seq if replayed else 0,
            limit=page,
        ):
            replayed += part
        assert replayed == whole
