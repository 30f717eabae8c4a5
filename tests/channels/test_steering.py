"""Control words over a channel: at once, past the queue, never a turn, and owner commands for nobody."""

from __future__ import annotations

import asyncio

import pytest

from ocmt.channels.model import State
from ocmt.channels.steering import GREETING, HELP, NEW, WORKING
from ocmt.chat.controls import COMMANDS, NOTHING_RUNS, STOP_PHRASES, STOPPED, Does
from tests.agents.replica import until
from tests.channels.conftest import House


async def said(house: House, *lines: str) -> None:
    await until(lambda: [one.text for one in house.fake.sent] == list(lines))
    await house.all_sent()


@pytest.mark.parametrize(
    "phrase", ["stop", "Stop!", "STOP.", "/stop", "/stop@fake_bot", "please stop", "停止", "стоп"]
)
async def test_a_stop_phrase_passes_the_queue_of_its_thread(house: House, phrase: str) -> None:
    async with house.at_work():
        await house.post(id="1", text="tell me a long story")
        await house.becomes("1", "answering")
        await house.post(id="2", text="and another one")
        await house.post(id="other", thread="elsewhere", text="a question")
        await house.becomes("other", "answering")
        await house.post(id="3", text=phrase)
        await house.becomes("3", "done")
        await said(house, STOPPED)
        turns = {turn["text"]: turn["stop_requested"] for turn in await house.turns()}
        assert turns == {"tell me a long story": True, "a question": False}
        states = await house.states()
        assert (states["1"], states["2"], states["other"]) == ("ignored", "ignored", "answering")
        # The stopped turn's end is not told once more, and the thread goes on.
        await house.answer("", status="stopped")
        await house.post(id="4", text="hello")
        await house.becomes("4", "answering")
        await house.answer("Hi!")
        await until(lambda: [one.text for one in house.fake.sent if one.thread == "main"] == [STOPPED, "Hi!"])


async def test_with_nothing_to_stop_it_says_so(house: House) -> None:
    async with house.at_work():
        await house.post(id="1", text="stop")
        await said(house, NOTHING_RUNS)
    assert await house.turns() == []
    assert await house.states() == {"1": "done"}


async def test_the_same_stop_phrase_delivered_twice_is_answered_once(house: House) -> None:
    async with house.at_work():
        for _ in range(3):
            await house.post(id="1", text="stop")
        await said(house, NOTHING_RUNS)


@pytest.mark.parametrize("phrase", sorted(STOP_PHRASES))
async def test_no_stop_phrase_ever_becomes_a_turn(house: House, phrase: str) -> None:
    async with house.at_work():
        await house.post(id="1", text=f"{phrase.upper()}!")
        await house.becomes("1", "done")
    assert await house.turns() == []


async def test_a_stop_phrase_with_a_picture_or_more_text_is_a_message(house: House) -> None:
    async with house.at_work():
        await house.post(id="1", text="stop", files=["sign.png"])
        await house.becomes("1", "answering")
        await house.answer()
        await house.post(id="2", text="stop the music")
        await house.becomes("2", "answering")
    assert [turn["text"] for turn in await house.turns()] == ["stop", "stop the music"]


async def test_what_only_looked_like_a_control_word_waits_for_its_turn(house: House) -> None:
    """The intake's look is a cheap one; whoever reads the message decides."""
    async with house.at_work():
        await house.post(id="1", text="one")
        await house.becomes("1", "answering")
        await house.post(id="2", text="stop", files=["a.txt"])
        await house.post(id="3", text="three")

        async def in_turn() -> bool:
            rows = await house.rows("select urgent from deliveries where external_id = '2'")
            return not rows[0]["urgent"]

        await until(in_turn)
        assert len(await house.turns()) == 1
        for n in ("1", "2", "3"):
            await house.becomes(n, "answering")
            await house.answer()
    assert [turn["text"] for turn in await house.turns()] == ["one", "stop", "three"]


async def test_a_stop_while_a_message_is_being_taken_stops_that_too(house: House) -> None:
    """The first message's files take their time; its turn comes about after the stop."""
    house.fake.hangs = None
    release = asyncio.Event()
    fetch = house.fake.fetch

    async def slow(*arguments: object, **more: object) -> bytes:
        await release.wait()
        return await fetch(*arguments, **more)  # type: ignore[arg-type]

    house.fake.fetch = slow  # type: ignore[method-assign]
    async with house.at_work():
        await house.post(id="1", text="look", files=["a.txt"])
        await until(lambda: house.rows("select from deliveries where lease_expires_at is not null"))
        await house.post(id="2", text="stop")
        await house.becomes("2", "done")
        await said(house, STOPPED)
        release.set()

        async def stopped() -> bool:
            return [turn["stop_requested"] for turn in await house.turns()] == [True]

        await until(stopped)
    assert (await house.states())["1"] == "ignored"


@pytest.mark.parametrize("command", sorted(name for name, does in COMMANDS.items() if does is Does.OWNER))
async def test_an_owner_command_is_refused_in_one_line(house: House, command: str) -> None:
    async with house.at_work():
        await house.post(id="1", text=f"/{command.upper()} now\nand more", private=False)
        await said(house, f"Only the owner of this agent can use /{command}, and only in the web chat.")
    assert await house.turns() == []


async def test_a_caption_does_not_carry_an_owner_command_through(house: House) -> None:
    async with house.at_work():
        await house.post(id="1", text="/restart", files=["a.png"])
        await until(lambda: len(house.fake.sent) == 1)
    assert await house.turns() == []


@pytest.mark.parametrize(
    "text",
    [
        "please /elevated full and do this",
        "hello\n/restart",
        "/unknown thing",
        "! rm -rf ~",
        "/btw what is up",
    ],
)
async def test_whatever_else_is_text_that_openclaw_does_not_interpret(house: House, text: str) -> None:
    async with house.at_work():
        await house.post(id="1", text=text)
        await house.becomes("1", "answering")
    (turn,) = await house.turns()
    assert (turn["text"], turn["commands"]) == (text, False)


async def test_the_other_commands_are_answered_at_once(house: House) -> None:
    async with house.at_work():
        await house.post(id="1", text="/start")
        await said(house, GREETING)
        await house.post(id="2", text="a question")
        await house.becomes("2", "answering")
        await house.post(id="3", text="/status")
        await house.post(id="4", text="/help@fake_bot")
        await house.post(id="5", text="/whoami", sender="ada")
        await until(lambda: len(house.fake.sent) == 4)
        assert {one.text for one in house.fake.sent} == {GREETING, WORKING, HELP, "You are Ada (ada)."}
        assert (await house.states())["2"] == "answering"


async def test_a_new_conversation_begins_with_the_next_message(house: House) -> None:
    async with house.at_work(), house.agent_answers("yes"):
        await house.post(id="1", text="one")
        await house.becomes("1", "done")
        await house.post(id="2", text="/new")
        await house.becomes("2", "done")
        await house.post(id="3", text="three")
        await house.becomes("3", "done")
        await said(house, "yes", NEW, "yes")
    first, second = await house.turns()
    assert first["conversation_id"] != second["conversation_id"]


async def test_a_stranger_stops_nothing(house: House) -> None:
    house.fake.pairs = True
    async with house.at_work():
        await house.post(id="0", text="hi", thread="group", sender="ada", private=False)
        await house.becomes("0", "ignored")
        await house.room.channels.set_sender(house.anna, house.endpoint, "ada", "approved")
        await house.post(id="1", text="a question", thread="group", sender="ada", private=False)
        await house.becomes("1", "answering")
        await house.post(id="2", text="stop", thread="group", sender="eve", private=False)
        await house.becomes("2", "ignored")
        assert (await house.states())["1"] == "answering"
        assert not (await house.turns())[0]["stop_requested"]
        await house.post(id="3", text="stop", thread="group", sender="ada", private=False)
        await house.becomes("1", "ignored")
        await said(house, STOPPED)


async def test_dying_anywhere_a_stop_phrase_is_answered_once(house: House) -> None:
    await house.post(id="1", text="a question")
    async with house.at_work(outbox=False):
        await house.becomes("1", "answering")
    await house.post(id="2", text="stop")
    for n in range(12):
        async with house.at_work(outbox=False):
            await asyncio.sleep(0.002 * n)
        await house.clock.advance(31)
        house.room = house.build()
    async with house.at_work():
        await until(lambda: len(house.fake.sent) == 1)
        await asyncio.sleep(0.1)
    assert [one.text for one in house.fake.sent] == [STOPPED]
    assert (await house.states()) == {"1": State.IGNORED, "2": State.DONE}


async def test_what_cannot_be_read_is_said_in_private_and_not_in_a_group(house: House) -> None:
    async with house.at_work():
        await house.post(id="1", text="", unreadable="a gift", private=False)
        await house.becomes("1", "ignored")
        await house.post(id="2", text="", unreadable="a gift")
        await said(house, "I cannot read this kind of message (a gift). Write it as text.")
        await house.post(id="3", text="", context="[Location: 1, 2]")
        await house.becomes("3", "answering")
    assert [turn["text"] for turn in await house.turns()] == ["[Location: 1, 2]"]
