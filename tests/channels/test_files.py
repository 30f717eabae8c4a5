"""Files that come with a channel's message reach the agent with it, or the agent is told why not."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest

from ocmt.channels.base import SendFailed
from ocmt.channels.claims import LEASE
from ocmt.channels.files import AT_ONCE
from ocmt.channels.model import DELIVERY_TRIES
from ocmt.chat.model import MAX_ATTACHED_BYTES, MAX_ATTACHMENTS, MAX_IMAGE_BYTES, MAX_OPEN_TURNS
from ocmt.chat.service import Chat
from ocmt.errors import TooLarge
from ocmt.testing.channels import FakeChannel
from ocmt.testing.objects import FaultyObjects
from tests.agents.replica import until
from tests.channels.conftest import House


async def turn_of(house: House, **message: Any) -> tuple[str, list[tuple[str, str, bytes]]]:
    """The text of the turn that a message becomes, and name, media type and content of each of its files."""
    async with house.at_work():
        await house.post(id="1", **message)
        await house.becomes("1", "answering", leaps=1)
    return await the_turn(house)


async def the_turn(house: House) -> tuple[str, list[tuple[str, str, bytes]]]:
    (turn,) = await house.turns()
    files = []
    for one in turn["attachments"]:
        found, content = await house.chat.attachments.content(house.anna, UUID(one["id"]))
        files.append((found.name, found.media_type, content))
    return turn["text"], files


async def test_files_come_with_their_message_in_order(house: House) -> None:
    house.fake.files = {"cat.png": b"\x89PNG", "notes.txt": b"Buy milk."}
    text, files = await turn_of(house, text="See", files=["cat.png", "notes.txt"])
    assert text == "See"
    assert files == [("cat.png", "image/png", b"\x89PNG"), ("notes.txt", "text/plain", b"Buy milk.")]


async def test_a_photo_needs_no_words(house: House) -> None:
    text, files = await turn_of(house, text="", files=["cat.png"])
    assert text == ""
    assert [name for name, _, _ in files] == ["cat.png"]


async def test_neither_words_nor_files_is_nothing_to_say(house: House) -> None:
    async with house.at_work():
        await house.post(id="1", text=" ")
        await house.becomes("1", "ignored")


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("big.bin", b"x" * (MAX_ATTACHED_BYTES + 1), "it is too large"),
        ("big.png", b"x" * (MAX_IMAGE_BYTES + 1), "it is too large"),
        ("none.txt", b"", "The file is empty"),
        ("gone.txt", SendFailed("It was deleted.", permanent=True), "It was deleted"),
        ("huge.zip", TooLarge("It has 2 GB."), "it is too large"),
    ],
)
async def test_one_that_cannot_come_is_named_with_the_reason(
    house: House, name: str, content: bytes | SendFailed, why: str
) -> None:
    house.fake.files = {name: content}
    text, files = await turn_of(house, text="See", files=["a.txt", name])
    assert [one for one, _, _ in files] == ["a.txt"]
    assert text.startswith(f"See\n\n[Attached, but not passed on to you: {name} (")
    assert text.endswith(f": {why}]")


async def test_of_many_as_many_come_as_one_message_takes(house: House) -> None:
    names = [f"{n}.txt" for n in range(MAX_ATTACHMENTS + 2)]
    text, files = await turn_of(house, text="See", files=names)
    assert [name for name, _, _ in files] == names[:MAX_ATTACHMENTS]
    assert text.count("[Attached, but not passed on to you: ") == 2


async def test_together_they_are_no_larger_than_one_message_takes(house: House) -> None:
    house.fake.files = {name: b"x" * (MAX_ATTACHED_BYTES // 2) for name in ("a.bin", "b.bin")}
    text, files = await turn_of(house, text="", files=["a.bin", "b.bin", "c.txt"])
    assert [name for name, _, _ in files] == ["a.bin", "b.bin"]
    assert "c.txt" in text


async def test_while_the_vendor_does_not_answer_the_whole_message_waits(house: House) -> None:
    away = SendFailed("The vendor does not answer.")
    house.fake.files = {"a.txt": [away, away, b"At last."]}
    text, files = await turn_of(house, text="See", files=["a.txt"])
    assert (text, files) == ("See", [("a.txt", "text/plain", b"At last.")])
    (row,) = await house.rows("select * from deliveries")
    assert row["attempts"] == 2


async def test_at_the_last_try_the_message_goes_without_it(house: House) -> None:
    house.fake.files = {"a.txt": SendFailed("The vendor does not answer.")}
    async with house.at_work():
        await house.post(id="1", text="See", files=["a.txt"])
        await house.becomes("1", "answering", leaps=5)
    text, files = await the_turn(house)
    assert files == []
    assert "a.txt (text/plain): The vendor does not answer]" in text
    assert len(house.fake.fetched) == DELIVERY_TRIES


async def test_a_strangers_files_are_not_fetched(house: House) -> None:
    house.fake.pairs = True
    async with house.at_work():
        await house.post(id="1", text="See", files=["a.txt"])
        await house.becomes("1", "waiting")
        assert house.fake.fetched == []
        await house.room.channels.set_sender(house.anna, house.endpoint, "ada", "approved")
        await house.becomes("1", "answering")
    assert house.fake.fetched == ["a.txt"]


async def test_who_died_behind_the_post_does_not_need_the_files_again(house: House) -> None:
    house.fake.files = {"a.txt": [b"There.", SendFailed("It was deleted.", permanent=True)]}
    async with house.at_work():
        await house.post(id="1", text="See", files=["a.txt"])
        await house.becomes("1", "answering")
    await house.rows("update deliveries set state = 'accepted', turn_id = null, lease_expires_at = null")
    await house.clock.advance(LEASE.total_seconds() + 1)
    async with house.at_work():
        await house.becomes("1", "answering")
    assert await the_turn(house) == ("See", [("a.txt", "text/plain", b"There.")])


async def test_what_a_try_has_fetched_the_next_one_need_not(house: House) -> None:
    house.fake.files = {"b.txt": [SendFailed("Away."), b"B"]}
    _, files = await turn_of(house, text="See", files=["a.txt", "b.txt"])
    assert [content for _, _, content in files] == [b"a.txt", b"B"]
    assert house.fake.fetched == ["a.txt", "b.txt", "b.txt"]
    assert len(await house.rows("select from attachments")) == 2


async def test_while_files_are_fetched_nobody_else_takes_the_message(house: House) -> None:
    started = house.clock.now()

    class Slow(FakeChannel):
        async def fetch(self, *given: object, most: int) -> bytes:
            await house.clock.sleep(4 * LEASE.total_seconds())
            return await super().fetch(*given, most=most)  # type: ignore[arg-type]

    house.fake.__class__ = Slow
    await turn_of(house, text="See", files=["a.txt"])
    assert house.fake.fetched == ["a.txt"]
    assert house.clock.now() - started >= 4 * LEASE


async def test_who_waits_long_for_room_keeps_the_message_and_posts_it_once(house: House) -> None:
    """As many as there is room for take minutes; nobody else takes up what waits meanwhile."""

    class Slow(FakeChannel):
        async def fetch(self, *given: object, most: int) -> bytes:
            await house.clock.sleep(3 * LEASE.total_seconds())
            return await super().fetch(*given, most=most)  # type: ignore[arg-type]

    house.fake.__class__ = Slow
    names = [f"{n}.txt" for n in range(2 * AT_ONCE)]
    other = house.build()
    for name in names:
        await house.post(id=name, thread=name, text="See", files=[name])
    async with house.agent_answers(), house.at_work():
        second = asyncio.create_task(other.run_deliveries())
        await until(lambda: len(house.fake.sent) >= len(names), timeout=30)
        await house.all_sent()
        second.cancel()
        await asyncio.wait([second])
    assert sorted(house.fake.fetched) == names
    assert [one.text for one in house.fake.sent] == ["re: See"] * len(names)
    assert await house.states() == dict.fromkeys(names, "done")


async def test_while_a_limit_is_waited_for_files_are_not_fetched_again(house: House) -> None:
    conversation = await house.chat.create_conversation(house.anna)
    for n in range(MAX_OPEN_TURNS):
        await house.chat.post(house.anna, conversation.id, "x", key=str(n))
    async with house.at_work():
        await house.post(id="1", text="See", files=["a.txt"])
        for _ in range(5):
            await house.rows("update deliveries set error = null, next_at = $1", house.clock.now())
            await until(lambda: house.rows("select from deliveries where error is not null"))
        await house.answer()
        await house.becomes("1", "answering", leaps=5)
    assert house.fake.fetched == ["a.txt"]


async def test_a_store_that_is_away_is_waited_for_as_the_vendor_is(house: House) -> None:
    objects = FaultyObjects(error=OSError)
    house.chat = Chat(house.database, house.clock, objects)
    house.room = house.build()
    objects.fail_at = 0
    text, files = await turn_of(house, text="See", files=["a.txt"])
    assert (text, files) == ("See", [("a.txt", "text/plain", b"a.txt")])
    (row,) = await house.rows("select * from deliveries")
    assert row["attempts"] == 1


async def test_what_a_suspended_users_channel_has_waits_for_them(house: House) -> None:
    await house.post(id="1", text="Hi")
    await house.rows("update users set status = 'suspended' where id = $1", house.anna)
    async with house.at_work():
        for _ in range(20):
            await house.clock.advance(60)
            assert await house.states() == {"1": "accepted"}
        await house.rows("update users set status = 'active' where id = $1", house.anna)
        await house.becomes("1", "answering")
