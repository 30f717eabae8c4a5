"""What users can do with conversations and turns, on a real database."""

import asyncio
from uuid import UUID, uuid4

import pytest

from ocmt.chat import log
from ocmt.chat.model import MAX_OPEN_TURNS, Event, EventType, TurnStatus
from ocmt.chat.service import Chat
from ocmt.errors import Conflict, LeaseLost, LimitReached, NotFound
from ocmt.platform.database import Database
from ocmt.testing.clock import VirtualClock
from ocmt.testing.objects import MemoryObjects
from tests.accounts import make_user

pytestmark = pytest.mark.anyio


@pytest.fixture
def chat(database: Database, clock: VirtualClock) -> Chat:
    return Chat(database, clock, MemoryObjects())


@pytest.fixture
async def anna(database: Database) -> UUID:
    return await make_user(database, "anna@example.org")


@pytest.fixture
async def bert(database: Database) -> UUID:
    return await make_user(database, "bert@example.org")


async def end_turn(database: Database, turn_id: UUID, status: TurnStatus) -> None:
    async with database.connection() as connection:
        await connection.execute("update turns set status = $2 where id = $1", turn_id, status.value)


async def test_an_accepted_message_is_a_turn_and_an_event(chat: Chat, anna: UUID, database: Database) -> None:
    conversation = await chat.create_conversation(anna)
    turn = await chat.post(anna, conversation.id, "hello there", key="k1")
    assert turn.status is TurnStatus.ACCEPTED
    events = await log.read(database, user_id=anna, conversation_id=conversation.id, after=0)
    assert [(e.seq, e.type, e.turn_id) for e in events] == [(1, EventType.ACCEPTED, turn.id)]
    assert (await chat.conversation(anna, conversation.id)).title == "hello there"


async def test_the_same_key_again_is_the_same_turn(chat: Chat, anna: UUID) -> None:
    conversation = await chat.create_conversation(anna)
    turns = await asyncio.gather(*(chat.post(anna, conversation.id, "hello", key="k1") for _ in range(4)))
    assert len({turn.id for turn in turns}) == 1
    with pytest.raises(Conflict, match="another message"):
        await chat.post(anna, conversation.id, "something else", key="k1")


async def test_another_users_conversation_does_not_exist(chat: Chat, anna: UUID, bert: UUID) -> None:
    conversation = await chat.create_conversation(anna)
    turn = await chat.post(anna, conversation.id, "secret", key="k1")
    for attempt in (
        chat.conversation(bert, conversation.id),
        chat.post(bert, conversation.id, "hello", key="k2"),
        chat.history(bert, conversation.id),
        chat.rename(bert, conversation.id, "mine"),
        chat.delete(bert, conversation.id),
        chat.stop(bert, turn.id),
        chat.retry(bert, turn.id),
        chat.conversation(bert, uuid4()),
    ):
        with pytest.raises(NotFound):
            await attempt
    assert await chat.conversations(bert) == []


async def test_messages_that_wait_are_bounded(chat: Chat, anna: UUID) -> None:
    conversation = await chat.create_conversation(anna)
    for number in range(MAX_OPEN_TURNS):
        await chat.post(anna, conversation.id, "hello", key=str(number))
    with pytest.raises(LimitReached, match="messages waiting"):
        await chat.post(anna, conversation.id, "hello", key="one more")


async def test_a_failed_turn_can_be_tried_again_as_a_new_attempt(
    chat: Chat, anna: UUID, database: Database
) -> None:
    conversation = await chat.create_conversation(anna)
    turn = await chat.post(anna, conversation.id, "hello", key="k1")
    with pytest.raises(Conflict, match="failed or was stopped"):
        await chat.retry(anna, turn.id)
    await end_turn(database, turn.id, TurnStatus.FAILED)
    again = await chat.retry(anna, turn.id)
    assert (again.status, again.attempt) == (TurnStatus.ACCEPTED, 2)
    assert again.message_key != turn.message_key
    events = await log.read(database, user_id=anna, conversation_id=conversation.id, after=0)
    assert [e.data["attempt"] for e in events] == [1, 2]


async def test_only_the_last_message_can_be_tried_again(chat: Chat, anna: UUID, database: Database) -> None:
    conversation = await chat.create_conversation(anna)
    first = await chat.post(anna, conversation.id, "one", key="k1")
    await end_turn(database, first.id, TurnStatus.FAILED)
    await chat.post(anna, conversation.id, "two", key="k2")
    with pytest.raises(Conflict, match="last message"):
        await chat.retry(anna, first.id)


async def test_history_tells_from_where_to_follow_an_open_turn(
    chat: Chat, anna: UUID, database: Database
) -> None:
    conversation = await chat.create_conversation(anna)
    done = await chat.post(anna, conversation.id, "one", key="k1")
    await end_turn(database, done.id, TurnStatus.COMPLETED)
    assert (await chat.history(anna, conversation.id)).resume_after == 1
    await chat.post(anna, conversation.id, "two", key="k2")
    page = await chat.history(anna, conversation.id)
    assert page.resume_after == 1
    assert [turn.text for turn in page.turns] == ["one", "two"]


async def test_history_pages_backwards(
    chat: Chat, anna: UUID, database: Database, clock: VirtualClock
) -> None:
    conversation = await chat.create_conversation(anna)
    for number in range(5):
        turn = await chat.post(anna, conversation.id, str(number), key=str(number))
        await end_turn(database, turn.id, TurnStatus.COMPLETED)
        await clock.advance(1)
    latest = await chat.history(anna, conversation.id, limit=2)
    older = await chat.history(anna, conversation.id, before=latest.older, limit=2)
    oldest = await chat.history(anna, conversation.id, before=older.older, limit=2)
    texts = [turn.text for page in (oldest, older, latest) for turn in page.turns]
    assert texts == ["0", "1", "2", "3", "4"]
    assert oldest.older is None


async def test_a_conversation_is_not_deleted_under_an_answer(
    chat: Chat, anna: UUID, database: Database
) -> None:
    conversation = await chat.create_conversation(anna)
    turn = await chat.post(anna, conversation.id, "hello", key="k1")
    with pytest.raises(Conflict, match="Stop it first"):
        await chat.delete(anna, conversation.id)
    await end_turn(database, turn.id, TurnStatus.STOPPED)
    await chat.delete(anna, conversation.id)
    with pytest.raises(NotFound):
        await chat.conversation(anna, conversation.id)


async def test_events_are_numbered_without_gaps_however_many_write(
    chat: Chat, anna: UUID, database: Database, clock: VirtualClock
) -> None:
    conversation = await chat.create_conversation(anna)
    turn = await chat.post(anna, conversation.id, "hello", key="k1")

    async def write(number: int) -> None:
        async with database.connection() as connection:
            await log.append(
                connection,
                clock,
                user_id=anna,
                conversation_id=conversation.id,
                events=[Event(EventType.DELTA, turn.id, {"text": f"{number}.{part}"}) for part in range(3)],
                lease_token=None,
            )

    await asyncio.gather(*(write(number) for number in range(8)))
    events = await log.read(database, user_id=anna, conversation_id=conversation.id, after=0)
    assert [event.seq for event in events] == list(range(1, 26))
    texts = [event.data["text"] for event in events[1:]]
    # Each writer's batch stands together and in its own order.
    assert all(texts[i : i + 3] == [f"{texts[i][0]}.{part}" for part in range(3)] for i in range(0, 24, 3))


async def test_a_replica_that_lost_its_lease_writes_nothing(
    chat: Chat, anna: UUID, database: Database, clock: VirtualClock
) -> None:
    conversation = await chat.create_conversation(anna)
    turn = await chat.post(anna, conversation.id, "hello", key="k1")
    async with database.connection() as connection:
        await connection.execute("update agents set lease_token = 7 where user_id = $1", anna)
        stale = [Event(EventType.DELTA, turn.id, {"text": "late"})]
        with pytest.raises(LeaseLost):
            await log.append(
                connection,
                clock,
                user_id=anna,
                conversation_id=conversation.id,
                events=stale,
                lease_token=6,
            )
    assert len(await log.read(database, user_id=anna, conversation_id=conversation.id, after=0)) == 1
