"""What people send as one thing is one turn, wherever a process dies; what they send apart stays apart."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocmt.channels.claims import LEASE
from ocmt.channels.gathering import (
    GAP,
    LONGEST_WAIT,
    MOST_BYTES,
    MOST_JOINED,
    Part,
    belonging,
    complete_at,
)
from ocmt.errors import Conflict
from ocmt.testing.channels import Sent
from tests.agents.replica import until
from tests.channels.conftest import House

T0 = datetime(2030, 1, 1, tzinfo=UTC)


def part(number: int, together: str | None, after: float, wait: float = 0.0, size: int = 100) -> Part:
    at = T0 + timedelta(seconds=after)
    return Part(UUID(int=number), together, at, at + timedelta(seconds=wait), size)


# The rule


def numbers(first: Part, *behind: Part) -> list[int]:
    return [one.id.int for one in belonging(first, behind)]


def test_an_album_is_found_also_where_others_write_in_between() -> None:
    first = part(0, "album:1", 0, 1)
    behind = (
        part(1, "said:eve", 0.1),
        part(2, "album:1", 0.2, 1),
        part(3, None, 0.3),
        part(4, "album:2", 0.4, 1),
    )
    assert numbers(first, *behind) == [2]
    assert complete_at(first, [behind[1]]) == T0 + timedelta(seconds=1.2)


def test_texts_belong_together_as_neighbors_only() -> None:
    first = part(0, "said:ada", 0, 1.2)
    assert numbers(first, part(1, "said:ada", 0.3), part(2, "said:eve", 0.4), part(3, "said:ada", 0.5)) == [1]
    assert numbers(first, part(1, None, 0.1), part(2, "said:ada", 0.2)) == []


def test_what_comes_late_or_too_much_is_a_message_of_its_own() -> None:
    first = part(0, "said:ada", 0)
    gap = GAP.total_seconds()
    assert numbers(first, part(1, "said:ada", gap), part(2, "said:ada", 2 * gap + 0.1)) == [1]
    steady = [part(n, "said:ada", n) for n in range(1, 20)]
    assert len(numbers(first, *steady)) == int(LONGEST_WAIT.total_seconds())
    many = [part(n, "said:ada", n / 100) for n in range(1, 100)]
    assert len(numbers(first, *many)) == MOST_JOINED - 1
    assert numbers(first, part(1, "said:ada", 0.1, size=MOST_BYTES)) == []


@given(st.lists(st.tuples(st.sampled_from([None, "a", "b"]), st.floats(0, 10), st.floats(0, 3)), max_size=30))
def test_nobody_waits_for_longer_than_the_longest_wait(given_: list[tuple[str | None, float, float]]) -> None:
    first = part(0, "a", 0, 1)
    behind = sorted(
        (part(n, mark, after, wait) for n, (mark, after, wait) in enumerate(given_, 1)),
        key=lambda one: one.received_at,
    )
    found = belonging(first, behind)
    assert complete_at(first, found) <= T0 + LONGEST_WAIT
    assert all(one.together == "a" for one in found)
    assert len(found) < MOST_JOINED


# With the database


async def album(house: House, count: int = 3, group: str = "album:1", **more: Any) -> None:
    for n in range(count):
        await house.post(
            id=f"{group}{n}",
            text="what is this?" if n == 0 else "",
            files=[f"{n}.png"],
            together=group,
            wait=1,
            **more,
        )


async def test_an_album_is_one_turn_with_all_its_pictures(house: House) -> None:
    async with house.at_work(), house.agent_answers("cats"):
        await album(house)
        await until(lambda: [one.text for one in house.fake.sent] == ["cats"])
        await asyncio.sleep(0.1)
    (turn,) = await house.turns()
    assert turn["text"] == "what is this?"
    assert [one["name"] for one in turn["attachments"]] == ["0.png", "1.png", "2.png"]
    assert set((await house.states()).values()) == {"done"}


async def test_it_waits_for_what_may_still_come_and_no_longer(house: House) -> None:
    """In virtual time: the second picture comes 0.9 s after the first."""
    await house.post(id="1", text="look", files=["1.png"], together="album:1", wait=1)
    async with house.at_work():
        await until(lambda: house.rows("select from deliveries where state = 'accepted'"))
    assert await house.turns() == []
    await house.post(id="2", text="", files=["2.png"], together="album:1", wait=1)
    async with house.at_work():
        await house.becomes("1", "answering")
    (turn,) = await house.turns()
    assert len(turn["attachments"]) == 2


async def test_a_long_paste_and_its_continuation_are_one_turn(house: House) -> None:
    async with house.at_work(), house.agent_answers("read"):
        await house.post(id="1", text="first half", together="said:ada", wait=1.2)
        await house.post(id="2", text="second half", together="said:ada")
        await until(lambda: len(house.fake.sent) == 1)
        await asyncio.sleep(0.1)
    assert [turn["text"] for turn in await house.turns()] == ["first half\nsecond half"]


async def test_what_waits_behind_a_running_answer_and_was_sent_at_once_is_one_turn(house: House) -> None:
    async with house.at_work():
        await house.post(id="1", text="one", together="said:ada")
        await house.becomes("1", "answering")
        for n in (2, 3, 4):
            await house.post(id=str(n), text=str(n), together="said:ada")
        await house.post(id="5", text="5", together="said:eve")
        await house.answer()
        await house.becomes("2", "answering")
        await house.answer()
        await house.becomes("5", "answering")
    assert [turn["text"] for turn in await house.turns()] == ["one", "2\n3\n4", "5"]


async def test_one_alone_is_a_turn_after_its_wait(house: House) -> None:
    async with house.at_work():
        await house.post(id="1", text="nearly full", together="said:ada", wait=1.2)
        await house.becomes("1", "answering")
    assert [turn["text"] for turn in await house.turns()] == ["nearly full"]


async def test_a_stop_phrase_ends_what_is_still_being_gathered(house: House) -> None:
    await album(house, 2)
    async with house.at_work():
        await house.post(id="s", text="stop")
        await house.becomes("s", "done")
        await asyncio.sleep(0.1)
    assert await house.turns() == []
    assert set((await house.states()).values()) == {"ignored", "done"}


async def test_an_album_waits_as_a_whole_for_its_sender_to_be_let_in(house: House) -> None:
    house.fake.pairs = True
    async with house.at_work():
        await album(house)
        await until(lambda: len(house.fake.sent) == 1)  # one code, not three
        await house.room.channels.set_sender(house.anna, house.endpoint, "ada", "approved")
        await until(house.turns)
    (turn,) = await house.turns()
    assert len(turn["attachments"]) == 3


async def test_run_again_it_is_the_same_message_and_its_parts_are_nothing_alone(house: House) -> None:
    async with house.at_work(), house.agent_answers("cats"):
        await album(house)
        await until(lambda: len(house.fake.sent) == 1)
        await house.all_sent()
        rows = await house.rows("select id from deliveries order by received_at, id")
        page = house.room.deliveries
        ids = [row["id"] for row in rows]
        with pytest.raises(Conflict, match="part of the message"):
            await page.replay(house.anna, house.endpoint, ids[1])
        assert await page.replay_many(house.anna, house.endpoint, ids=ids[1:]) == 0
        await page.replay(house.anna, house.endpoint, ids[0])
        await until(lambda: len(house.fake.sent) == 2)
    assert [len(turn["attachments"]) for turn in await house.turns()] == [3, 3]


@pytest.mark.parametrize("seed", range(3))
async def test_dying_anywhere_loses_nothing_and_doubles_nothing(house: House, seed: int) -> None:
    """Albums and pastes come in while the workers are killed again and again, at any await."""
    chance = random.Random(seed)
    async with house.agent_answers():
        for n in range(4):
            for piece in range(3):
                await house.post(
                    id=f"{n}.{piece}",
                    thread=str(n % 2),
                    text=f"{n}.{piece}",
                    files=[f"{n}.{piece}.txt"] if n < 2 else [],
                    together=f"album:{n}" if n < 2 else f"said:{n}",
                    wait=0.5,
                )
            async with house.at_work(outbox=False):
                await asyncio.sleep(chance.uniform(0.005, 0.08))
            await house.clock.advance(LEASE.total_seconds() + 1)
            house.room = house.build()
        for _ in range(8):
            async with house.at_work(outbox=False):
                await asyncio.sleep(chance.uniform(0.005, 0.08))
            await house.clock.advance(300)
            house.room = house.build()
        async with house.at_work():

            def all_told() -> bool:
                return len(house.fake.sent) == 4

            await until(all_told, timeout=30)
            await asyncio.sleep(0.1)
    texts = sorted(turn["text"] for turn in await house.turns())
    assert texts == ["\n".join(f"{n}.{piece}" for piece in range(3)) for n in range(4)]
    assert sorted(len(turn["attachments"]) for turn in await house.turns()) == [0, 0, 3, 3]
    assert set((await house.states()).values()) == {"done"}
    assert all(isinstance(one, Sent) for one in house.fake.sent)
