"""What a user or an agent can make the chat keep has a bound; deleting frees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocmt.chat.model import (
    MAX_NOTED,
    MAX_OPEN_TURNS,
    MAX_UNSENT,
    Event,
    EventType,
    Turn,
    TurnStatus,
    merge_deltas,
)
from ocmt.chat.noted import MORE, Noted, Verdict
from ocmt.chat.service import Chat
from ocmt.errors import InvalidInput, LimitReached
from ocmt.platform.database import Database
from ocmt.platform.storage import Budgets, Store, used
from ocmt.testing.clock import VirtualClock
from ocmt.testing.gateway import Hold, Retract, Say, UseTool
from ocmt.testing.objects import MemoryObjects
from tests.accounts import make_user
from tests.agents.replica import Gateways
from tests.chat.conftest import Office
from tests.chat.test_answer import shown

pytestmark = pytest.mark.anyio
KB = 1024


def chat_of(database: Database, clock: VirtualClock, **limits: int) -> Chat:
    return Chat(database, clock, MemoryObjects(), Budgets(**limits))


async def kept(database: Database, user_id: UUID, store: Store) -> tuple[int, int]:
    """(items, bytes)"""
    found = {one.store: one for one in await used(database, user_id, Budgets())}
    return found[store].items, found[store].bytes


async def counted_anew(database: Database, user_id: UUID, store: Store) -> tuple[int, int]:
    async with database.connection() as connection:
        await connection.execute("select recount_storage()")
    return await kept(database, user_id, store)


async def outcomes(*calls: Any) -> list[Any]:
    return await asyncio.gather(*calls, return_exceptions=True)


async def pieces(content: bytes) -> AsyncIterator[bytes]:
    yield content


# Conversations and messages


async def test_conversations_have_a_number_also_for_many_requests_at_once(
    database: Database, clock: VirtualClock, anna: UUID
) -> None:
    chat = chat_of(database, clock, conversations=5)
    made = await outcomes(*(chat.create_conversation(anna) for _ in range(40)))
    assert sum(isinstance(one, LimitReached) for one in made) == 35
    assert await kept(database, anna, Store.CONVERSATIONS) == (5, 0)
    with pytest.raises(LimitReached, match=r"all of the 5 conversations .* delete conversations"):
        await chat.create_conversation(anna)
    await chat.delete(anna, next(one.id for one in made if not isinstance(one, BaseException)))
    await chat.create_conversation(anna)
    # A neighbor has a budget of their own.
    bert = await make_user(database, "bert@example.org")
    await chat.create_conversation(bert)


async def test_large_messages_that_are_stopped_at_once_are_counted_and_end(
    database: Database, clock: VirtualClock, anna: UUID
) -> None:
    chat = chat_of(database, clock, conversation_bytes=1024 * KB)
    conversation = await chat.create_conversation(anna)
    accepted = 0
    refusals = []
    for number in range(30):
        try:
            turn = await chat.post(anna, conversation.id, "x" * 200 * KB, key=str(number))
        except LimitReached as error:
            refusals.append(error.message)
            continue
        async with database.connection() as connection:
            await connection.execute("update turns set status = 'stopped' where id = $1", turn.id)
        accepted += 1
    assert {"1 MB of conversations" in words for words in refusals} == {True}
    assert 1 <= accepted <= 3
    items, size = await kept(database, anna, Store.CONVERSATIONS)
    assert size <= 1024 * KB + 2 * 200 * KB
    # What was accepted before is still answered as accepted: the same key is no new message.
    known = await chat.post(anna, conversation.id, "x" * 200 * KB, key="0")
    assert known.text == "x" * 200 * KB
    await chat.delete(anna, conversation.id)
    assert await kept(database, anna, Store.CONVERSATIONS) == (items - 1, 0)
    await chat.post(anna, (await chat.create_conversation(anna)).id, "and on", key="k")


async def test_stop_phrases_do_not_pass_the_budget_and_stop_all_the_same(
    database: Database, clock: VirtualClock, anna: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ocmt.chat.service.STOP_BYTES", 4 * KB)
    chat = chat_of(database, clock, conversation_bytes=8 * KB)
    conversation = await chat.create_conversation(anna)
    turn = await chat.post(anna, conversation.id, "a question", key="question")
    said = await outcomes(*(chat.post(anna, conversation.id, "stop", key=str(n)) for n in range(60)))
    refused = [one for one in said if isinstance(one, LimitReached)]
    assert len(refused) > 30
    assert len(refused) + sum(isinstance(one, Turn) for one in said) == 60
    assert (await kept(database, anna, Store.CONVERSATIONS))[1] < 16 * KB
    # Beyond it nothing is kept, and the running answer is stopped.
    async with database.connection() as connection:
        await connection.execute("update turns set stop_requested = false where id = $1", turn.id)
    with pytest.raises(LimitReached, match="delete conversations"):
        await chat.post(anna, conversation.id, "stop", key="one more")
    async with database.connection() as connection:
        assert await connection.fetchval("select stop_requested from turns where id = $1", turn.id)


async def test_one_large_message_that_is_tried_again_and_again_ends_too(
    database: Database, clock: VirtualClock, anna: UUID
) -> None:
    """Each try writes the text once more for the browsers."""
    chat = chat_of(database, clock, conversation_bytes=1024 * KB)
    conversation = await chat.create_conversation(anna)
    turn = await chat.post(anna, conversation.id, "x" * 200 * KB, key="k")
    tries = 0
    async with database.connection() as connection:
        for _ in range(30):
            await connection.execute("update turns set status = 'stopped' where id = $1", turn.id)
            try:
                await chat.retry(anna, turn.id)
            except LimitReached as error:
                assert "delete conversations" in error.message  # noqa: PT017
                break
            tries += 1
    assert tries < 6
    assert (await kept(database, anna, Store.CONVERSATIONS))[1] <= 1024 * KB + 300 * KB


async def test_messages_at_once_in_many_conversations_do_not_pass_the_number_that_may_be_open(
    database: Database, clock: VirtualClock, anna: UUID
) -> None:
    chat = chat_of(database, clock)
    conversations = [await chat.create_conversation(anna) for _ in range(2 * MAX_OPEN_TURNS)]
    posted = await outcomes(*(chat.post(anna, one.id, "Hi", key="k") for one in conversations))
    assert sum(not isinstance(one, BaseException) for one in posted) == MAX_OPEN_TURNS
    assert len(await chat.open_turns(anna)) == MAX_OPEN_TURNS


async def test_what_is_counted_is_what_is_there_after_messages_answers_retries_and_deletions(
    office: Office, anna: UUID, database: Database, gateways: Gateways
) -> None:
    gateways.of(anna).script(Say("No, wai"), Retract(), UseTool("write", "Write"), Say("Done."))
    first = await office.ended(await office.post(anna, "write"))
    stopped = await office.post(anna, "second", first.conversation_id)
    await office.chat.stop(anna, stopped.id)
    await office.ended(stopped)
    if (await office.turn(stopped)).status is not TurnStatus.COMPLETED:
        await office.chat.retry(anna, stopped.id)
        await office.ended(stopped)
    other = await office.ended(await office.post(anna, "elsewhere"))
    items, size = await kept(database, anna, Store.CONVERSATIONS)
    # JSON on its way may be a little longer than JSON at rest, never shorter.
    assert (await counted_anew(database, anna, Store.CONVERSATIONS))[0] == items == 2
    assert 0 <= size - (await kept(database, anna, Store.CONVERSATIONS))[1] <= size / 5
    for conversation in (first.conversation_id, other.conversation_id):
        await office.chat.delete(anna, conversation)
    assert await kept(database, anna, Store.CONVERSATIONS) == (0, 0)


# Events of a hostile agent


async def test_a_flood_of_tool_calls_is_cut_and_the_answer_still_comes(
    office: Office, anna: UUID, gateways: Gateways
) -> None:
    """5,000 events a second used to be 5,000 rows a second, for as long as a turn may last."""
    flood = [UseTool("write", f"Write to file {number}") for number in range(MAX_NOTED)]
    gateways.of(anna).script(*flood, Say("Done."))
    turn = await office.ended(await office.post(anna, "go"))
    events = await office.events(turn)
    noted = [event for event in events if event.type in (EventType.TOOL, EventType.PROGRESS)]
    assert len(noted) <= MAX_NOTED + 1
    assert [event.data["text"] for event in noted if event.type is EventType.PROGRESS][-1] == MORE
    assert sum(event.data.get("text") == MORE for event in noted) == 1
    assert (turn.status, turn.answer, shown(events)) == (TurnStatus.COMPLETED, "Done.", "Done.")


async def test_an_agent_whose_user_has_no_room_left_is_stopped_in_plain_words(
    office: Office, anna: UUID, database: Database, gateways: Gateways
) -> None:
    async with database.connection() as connection:
        await connection.execute("insert into plans (name, conversation_bytes) values ('small', 30000)")
    await office.replica.agents.find(anna)
    async with database.connection() as connection:
        await connection.execute("update agents set plan = 'small' where user_id = $1", anna)
    gateways.of(anna).script(Say("x" * 20_000), Say("y" * 20_000), Hold())
    turn = await office.ended(await office.post(anna, "talk"))
    assert turn.error is not None
    assert (turn.status, turn.error["code"]) == (TurnStatus.FAILED, "storage_full")
    assert "Delete conversations" in turn.error["message"]
    assert any(method == "chat.abort" for method, _ in gateways.of(anna).received)
    assert (await kept(database, anna, Store.CONVERSATIONS))[1] < 4 * 30_000
    with pytest.raises(LimitReached, match="delete conversations"):
        await office.chat.post(anna, turn.conversation_id, "more", key="more")
    await office.chat.delete(anna, turn.conversation_id)
    again = await office.ended(await office.post(anna, "hello"))
    assert again.status is TurnStatus.COMPLETED


kinds = st.sampled_from([EventType.TOOL, EventType.PROGRESS, EventType.STARTED, EventType.DELTA])
phases = st.sampled_from(["start", "update", "result"])


@given(st.lists(st.tuples(kinds, phases, st.integers(0, 5), st.integers(0, 60)), max_size=80))
def test_whatever_comes_a_turn_notes_so_many_and_says_once_that_it_leaves_out(
    coming: list[tuple[EventType, str, int, int]],
) -> None:
    noted = Noted(most=10, most_bytes=200)
    written, cut = [], 0
    begun: set[str] = set()
    for kind, phase, call, size in coming:
        data = {"call_id": f"{call}", "phase": phase, "text": "x" * size}
        match noted.take(kind, data):
            case Verdict.WRITTEN:
                if kind in (EventType.TOOL, EventType.PROGRESS):
                    written.append((kind, phase, f"{call}", size))
            case Verdict.LAST:
                cut += 1
                begun = {one for k, p, one, _ in written if k is EventType.TOOL and p != "result"}
            case Verdict.LEFT_OUT:
                assert cut == 1
                assert kind in (EventType.TOOL, EventType.PROGRESS)
    assert cut <= 1
    # Beside the bound only ends of calls that were shown as begun.
    assert len(written) <= 10 + len(begun)


@given(st.lists(st.tuples(st.text(max_size=3), st.booleans()), max_size=30))
def test_pieces_that_are_joined_read_as_they_were_and_are_one_row(pieces: list[tuple[str, bool]]) -> None:
    """An agent that begins its answer anew with every piece costs no row for each."""
    turn = UUID(int=1)
    events = [
        Event(EventType.DELTA, turn, {"text": text, **({"replace": True} if anew else {})})
        for text, anew in pieces
    ]
    merged = merge_deltas(events)
    assert shown(merged) == shown(events)
    assert len(merged) == min(1, len(events))


# Attachments


async def test_parallel_uploads_pass_neither_the_number_nor_the_size(
    database: Database, clock: VirtualClock, anna: UUID
) -> None:
    chat = chat_of(database, clock)
    keep = chat.attachments.keep
    made = await outcomes(
        *(keep(anna, f"{number}", None, pieces(b"x"), size=1) for number in range(3 * MAX_UNSENT))
    )
    assert sum(not isinstance(one, BaseException) for one in made) == MAX_UNSENT
    assert {type(one) for one in made if isinstance(one, BaseException)} == {LimitReached}
    assert await kept(database, anna, Store.ATTACHMENTS) == (MAX_UNSENT, MAX_UNSENT)
    bert = await make_user(database, "bert@example.org")
    small = chat_of(database, clock, attachment_bytes=10 * KB).attachments.keep
    made = await outcomes(*(small(bert, "a", None, pieces(b"x" * KB), size=KB) for _ in range(25)))
    assert sum(not isinstance(one, BaseException) for one in made) == 10
    assert await kept(database, bert, Store.ATTACHMENTS) == (10, 10 * KB)


async def test_an_upload_that_is_larger_than_its_sender_said_is_refused_and_frees_its_place(
    database: Database, clock: VirtualClock, anna: UUID
) -> None:
    chat = chat_of(database, clock)
    with pytest.raises(InvalidInput, match="Content-Length"):
        await chat.attachments.keep(anna, "a", None, pieces(b"x" * 100), size=10)
    assert await kept(database, anna, Store.ATTACHMENTS) == (0, 0)


async def test_tiny_attachments_have_a_number(
    database: Database, clock: VirtualClock, anna: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ocmt.platform.storage.LEAST_ATTACHMENTS", 3)
    chat = chat_of(database, clock, attachment_bytes=40 * KB)
    made = [await chat.attachments.keep(anna, "a", None, pieces(b"x"), size=1) for _ in range(3)]
    with pytest.raises(LimitReached, match=r"all of the 3 attachments .* delete conversations with files"):
        await chat.attachments.keep(anna, "a", None, pieces(b"x"), size=1)
    # In the place of one that is there already, another fits.
    await chat.attachments.keep(anna, "b", None, pieces(b"y"), size=1, attachment_id=made[0].id)
    await chat.attachments.drop(anna, made[1].id)
    await chat.attachments.keep(anna, "a", None, pieces(b"x"), size=1)


async def test_files_are_counted_as_they_are_and_freed_with_what_has_them(
    database: Database, clock: VirtualClock, anna: UUID
) -> None:
    chat = chat_of(database, clock)
    first = await chat.attachments.keep(anna, "a", None, pieces(b"x" * 100))
    second = await chat.attachments.keep(anna, "b", None, pieces(b"x" * 50))
    assert await kept(database, anna, Store.ATTACHMENTS) == (2, 150)
    conversation = await chat.create_conversation(anna)
    turn = await chat.post(anna, conversation.id, "See", key="k", attachments=[first.id])
    await chat.attachments.drop(anna, second.id)
    assert await kept(database, anna, Store.ATTACHMENTS) == (1, 100)
    assert await counted_anew(database, anna, Store.ATTACHMENTS) == (1, 100)
    async with database.connection() as connection:
        await connection.execute("update turns set status = 'stopped' where id = $1", turn.id)
    await chat.delete(anna, conversation.id)
    assert await kept(database, anna, Store.ATTACHMENTS) == (0, 0)


async def test_an_account_that_goes_takes_its_counts_along(
    database: Database, clock: VirtualClock, anna: UUID
) -> None:
    chat = chat_of(database, clock)
    conversation = await chat.create_conversation(anna)
    await chat.post(anna, conversation.id, "Hi", key="k")
    await chat.attachments.keep(anna, "a", None, pieces(b"x"))
    async with database.connection() as connection:
        await connection.execute("delete from users where id = $1", anna)
        assert await connection.fetchval("select count(*) from storage_used") == 0
