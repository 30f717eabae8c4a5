"""Order, retries, dead letters, replays; and that dying anywhere loses and doubles nothing."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta

import pytest

from ocmt.channels.claims import LEASE
from ocmt.channels.model import DELIVERY_TRIES, KEEP, PATIENCE
from ocmt.chat.model import MAX_OPEN_TURNS
from ocmt.errors import Conflict, LimitReached, NotFound
from tests.agents.replica import until
from tests.channels.conftest import House


async def test_within_a_thread_one_after_the_other_and_threads_side_by_side(house: House) -> None:
    for n in range(3):
        for thread in ("a", "b"):
            await house.post(id=f"{thread}{n}", thread=thread, text=f"{thread}{n}")
    async with house.at_work():
        for n in range(3):
            await house.becomes(f"a{n}", "answering")
            await house.becomes(f"b{n}", "answering")
            assert len(await house.turns()) == 2 * (n + 1)
            await house.answer(None)
        await until(lambda: len(house.fake.sent) == 6)
    for thread in ("a", "b"):
        assert [one.text for one in house.fake.sent if one.thread == thread] == [
            f"re: {thread}{n}" for n in range(3)
        ]


async def test_a_failed_turn_is_said_in_its_words(house: House) -> None:
    async with house.at_work():
        await house.post(id="1", text="Hi")
        await house.becomes("1", "answering")
        await house.answer("", status="failed", error={"code": "x", "message": "The key was refused."})
        await until(lambda: [one.text for one in house.fake.sent] == ["The key was refused."])


async def fill(house: House) -> None:
    """No more turns may be open."""
    conversation = await house.chat.create_conversation(house.anna)
    for n in range(MAX_OPEN_TURNS):
        await house.chat.post(house.anna, conversation.id, "x", key=str(n))


async def test_a_limit_is_waited_for_and_is_no_fault_of_the_delivery(house: House) -> None:
    await fill(house)
    async with house.at_work():
        await house.post(id="1", text="Hi")
        for _ in range(DELIVERY_TRIES + 2):
            await house.rows("update deliveries set error = null, next_at = $1", house.clock.now())
            await until(lambda: house.rows("select from deliveries where error is not null"))
        (row,) = await house.rows("select * from deliveries")
        assert (row["state"], row["attempts"], row["error"]["code"]) == ("accepted", 0, LimitReached.code)
        await house.answer()
        await house.becomes("1", "answering", leaps=60)
    assert house.fake.sent == []


async def test_after_a_day_it_is_dead_and_can_be_replayed(house: House) -> None:
    await fill(house)
    async with house.at_work():
        await house.post(id="1", text="Hi")
        await house.rows("update deliveries set received_at = $1", house.clock.now() - PATIENCE)
        await house.becomes("1", "dead", leaps=5)
        (row,) = await house.rows("select * from deliveries")
        assert row["error"]["code"] == LimitReached.code
        assert row["attempts"] == DELIVERY_TRIES
        await house.answer()
        await house.room.deliveries.replay(house.anna, house.endpoint, row["id"])
        await house.becomes("1", "answering")
        with pytest.raises(Conflict):
            await house.room.deliveries.replay(house.anna, house.endpoint, row["id"])
        await house.answer(None)
        await until(lambda: house.fake.sent[-1].text == "re: Hi")
    assert len(house.fake.sent) == 2  # the first one said why there was no answer


async def test_a_replay_is_a_new_turn_with_an_answer_of_its_own(house: House) -> None:
    async with house.at_work(), house.agent_answers():
        await house.post(id="1", text="Hi")
        await house.becomes("1", "done")
        (page,) = await house.room.deliveries.page(house.anna, house.endpoint)
        count = await house.room.deliveries.replay_many(
            house.anna,
            house.endpoint,
            since=page.received_at,
            till=page.received_at + timedelta(seconds=1),
            states=["done"],
        )
        assert count == 1
        await until(lambda: len(house.fake.sent) == 2)
        await house.all_sent()
    assert len(await house.turns()) == 2
    (page,) = await house.room.deliveries.page(house.anna, house.endpoint, state="done")
    assert (page.replays, page.sent, page.pending) == (1, 1, 0)
    with pytest.raises(NotFound):
        await house.room.deliveries.replay(house.endpoint, house.endpoint, page.id)


async def test_a_deleted_conversation_is_begun_anew(house: House) -> None:
    async with house.at_work(), house.agent_answers():
        await house.post(id="1", text="Hi")
        await until(lambda: len(house.fake.sent) == 1)
        (old,) = await house.chat.conversations(house.anna)
        await house.chat.delete(house.anna, old.id)
        await house.post(id="2", text="Ho")
        await until(lambda: len(house.fake.sent) == 2)
        (new,) = await house.chat.conversations(house.anna)
        assert new.id != old.id


async def test_what_is_nothing_for_the_agent_is_ignored(house: House) -> None:
    async with house.at_work():
        await house.post(id="1", other="x")
        await house.post(id="2", text=" \x00 ")
        await house.becomes("1", "ignored")
        await house.becomes("2", "ignored")
    assert await house.turns() == []


async def test_too_long_a_message_is_kept_and_shown_with_the_reason(house: House) -> None:
    async with house.at_work():
        await house.post(id="1", text="x" * 300_000)
        await house.becomes("1", "dead")
        await until(lambda: len(house.fake.sent) == 1)
    assert "KB fit into one" in house.fake.sent[0].text
    (shown,) = await house.room.deliveries.page(house.anna, house.endpoint)
    assert shown.error is not None
    assert shown.error["code"] == "too_large"


async def test_in_a_group_who_says_it_stands_before_it(house: House) -> None:
    async with house.at_work():
        await house.post(id="1", text="See", private=False)
        await house.becomes("1", "answering")
    (turn,) = await house.turns()
    assert turn["text"] == "Ada: See"


@pytest.mark.parametrize("seed", range(3))
async def test_dying_anywhere_loses_nothing_and_answers_once(house: House, seed: int) -> None:
    """The workers are killed again and again, at any await; then one more process ends the work."""
    chance = random.Random(seed)
    for n in range(12):
        await house.post(id=str(n), thread=str(n % 3), text=str(n), files=[f"{n}.txt"] * (n % 2))
    async with house.agent_answers():
        for _ in range(12):
            async with house.at_work(outbox=False):
                await asyncio.sleep(chance.uniform(0.005, 0.08))
            await house.clock.advance(LEASE.total_seconds() + 1)
            house.room = house.build()
        async with house.at_work():
            await until(lambda: len(house.fake.sent) == 12, timeout=30)
            await asyncio.sleep(0.1)
    assert set((await house.states()).values()) == {"done"}
    assert sorted(turn["text"] for turn in await house.turns()) == sorted(str(n) for n in range(12))
    for thread in range(3):
        said = [int(one.text.removeprefix("re: ")) for one in house.fake.sent if one.thread == str(thread)]
        assert said == list(range(thread, 12, 3))
    assert len(await house.rows("select * from channel_threads")) == 3


async def test_two_processes_share_the_work_and_do_nothing_twice(house: House) -> None:
    for n in range(30):
        await house.post(id=str(n), thread=str(n % 10), text=str(n))
    other = house.build()
    async with house.agent_answers(), house.at_work():
        second = [asyncio.create_task(other.run_deliveries()), asyncio.create_task(other.run_outbox())]
        await until(lambda: len(house.fake.sent) >= 30, timeout=30)
        await asyncio.sleep(0.2)
        for task in second:
            task.cancel()
        await asyncio.wait(second)
    assert sorted(int(one.text.removeprefix("re: ")) for one in house.fake.sent) == list(range(30))


async def test_what_ended_long_ago_is_forgotten(house: House) -> None:
    async with house.at_work(), house.agent_answers():
        await house.post(id="1", text="Hi")
        await until(lambda: len(house.fake.sent) == 1)
        await house.all_sent()
    await house.post(id="2", text="Ho")
    await house.clock.advance(KEEP.total_seconds() + 1)
    await house.room.deliveries.sweep()
    assert await house.states() == {"2": "accepted"}
