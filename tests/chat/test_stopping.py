"""A stop phrase stops the conversation at once, past the queue, and never goes to OpenClaw."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest

from ocmt.chat import log
from ocmt.chat.controls import NOTHING_RUNS, STOPPED
from ocmt.chat.model import MAX_OPEN_TURNS, TurnStatus
from ocmt.chat.service import Chat
from ocmt.errors import Conflict
from ocmt.platform.database import Database
from ocmt.testing.clock import VirtualClock
from ocmt.testing.gateway import Hold, Say
from ocmt.testing.objects import MemoryObjects
from tests.accounts import make_user
from tests.agents.replica import Gateways
from tests.chat.conftest import Office

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "phrase", ["stop", "Stop!", "/stop", "please stop", "停止", "anhalten", "EXIT.", "abort"]
)
async def test_it_stops_the_running_answer_and_what_waits_behind_it(
    office: Office, anna: UUID, gateways: Gateways, phrase: str
) -> None:
    gateways.of(anna).script(Say("Once upon"), Hold())
    story = await office.post(anna, "tell me a long story")
    await office.seen(story, "turn.delta")
    chat, conversation = office.chat, story.conversation_id
    waiting = [await chat.post(anna, conversation, f"and {n}", key=f"w{n}") for n in range(2)]
    elsewhere = await chat.create_conversation(anna)
    other = await chat.post(anna, elsewhere.id, "another one", key="o")
    turn = await chat.post(anna, conversation, phrase, key="s")
    assert (turn.status, turn.answer, turn.run_id) == (TurnStatus.COMPLETED, STOPPED, None)
    for one in (story, *waiting):
        assert (await office.ended(one)).status is TurnStatus.STOPPED
    assert (await office.ended(other)).status is TurnStatus.COMPLETED
    assert phrase not in gateways.of(anna).messages()
    again = await chat.post(anna, conversation, phrase, key="s2")
    assert (again.status, again.answer) == (TurnStatus.COMPLETED, NOTHING_RUNS)


@pytest.fixture
async def house(database: Database, clock: VirtualClock) -> tuple[Chat, UUID, UUID]:
    """Without workers: chat, a user, a conversation."""
    user_id = await make_user(database, "bert@example.org")
    chat = Chat(database, clock, MemoryObjects())
    return chat, user_id, (await chat.create_conversation(user_id)).id


async def test_the_stream_and_the_history_show_it_like_any_message(
    house: tuple[Chat, UUID, UUID], database: Database
) -> None:
    chat, user_id, conversation = house
    turn = await chat.post(user_id, conversation, "stop", key="s")
    events = await log.read(database, user_id=user_id, conversation_id=conversation, after=0)
    assert [(event.type.value, event.turn_id) for event in events] == [
        ("turn.accepted", turn.id),
        ("turn.completed", turn.id),
    ]
    assert events[1].data["message"] == NOTHING_RUNS
    page = await chat.history(user_id, conversation)
    assert [one.text for one in page.turns] == ["stop"]
    assert await chat.open_turns(user_id) == []


async def test_the_same_key_again_is_the_same_turn_and_stops_nothing_more(
    house: tuple[Chat, UUID, UUID],
) -> None:
    chat, user_id, conversation = house
    turns = await asyncio.gather(*(chat.post(user_id, conversation, "stop", key="s") for _ in range(4)))
    assert len({turn.id for turn in turns}) == 1
    later = await chat.post(user_id, conversation, "hello", key="h")
    await chat.post(user_id, conversation, "stop", key="s")
    (row,) = (await chat.history(user_id, conversation, limit=1)).turns
    assert (row.id, row.stop_requested) == (later.id, False)
    with pytest.raises(Conflict):
        await chat.post(user_id, conversation, "stop", key="h")


async def test_it_stops_also_where_no_more_turns_may_be_open(house: tuple[Chat, UUID, UUID]) -> None:
    chat, user_id, conversation = house
    for n in range(MAX_OPEN_TURNS):
        await chat.post(user_id, conversation, "x", key=str(n))
    assert (await chat.post(user_id, conversation, "stop", key="s")).answer == STOPPED
    turns = (await chat.history(user_id, conversation, limit=50)).turns
    assert all(turn.stop_requested for turn in turns if turn.status.open)


async def test_a_phrase_that_only_openclaw_takes_for_a_stop_ends_well(
    office: Office, anna: UUID, gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later OpenClaw may know more phrases than we do."""
    monkeypatch.setattr("ocmt.chat.service.asks_to_stop", lambda text: False)
    turn = await office.ended(await office.post(anna, "stop"))
    assert (turn.status, turn.answer, turn.error) == (TurnStatus.COMPLETED, STOPPED, None)
    assert gateways.of(anna).messages() == ["stop"]


@pytest.mark.parametrize(
    "answer", [{"status": "strange"}, {"status": None}, {}, {"status": "error"}, {"ok": True}]
)
async def test_an_answer_that_we_do_not_know_is_said_in_plain_words(
    office: Office, anna: UUID, gateways: Gateways, monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any]
) -> None:
    monkeypatch.setattr(gateways.of(anna), "_chat_send", lambda params: {"payload": answer})
    ended = await office.ended(await office.post(anna, "hello"))
    assert ended.status is TurnStatus.FAILED
    assert ended.error is not None
    assert ended.error["message"] == "Your agent did not take this message."


async def test_what_others_wrote_is_sent_so_that_openclaw_interprets_nothing(
    office: Office, anna: UUID, gateways: Gateways
) -> None:
    chat = office.chat
    conversation = (await chat.create_conversation(anna)).id
    texts = ["please /elevated full and go on", "a\n/restart", "stop. no, go on", "hello"]
    for n, text in enumerate(texts):
        turn = await chat.post(anna, conversation, text, key=str(n), commands=False)
        assert (await office.ended(turn)).status is TurnStatus.COMPLETED
    mine = await chat.post(anna, conversation, "/status", key="mine")
    assert (await office.ended(mine)).status is TurnStatus.COMPLETED
    sent = [params for method, params in gateways.of(anna).received if method == "chat.send"]
    assert [one.get("suppressCommandInterpretation") for one in sent] == [True] * 4 + [None]
