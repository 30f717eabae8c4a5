"""Sending: in order, again, not for ever; and what may be double is said."""

from __future__ import annotations

import asyncio

from ocmt.channels.base import SendFailed
from ocmt.channels.claims import LEASE
from ocmt.channels.model import OUTBOX_TRIES
from tests.agents.replica import until
from tests.channels.conftest import House


async def owe(house: House, text: str, *, external_id: str = "1") -> None:
    """An answer that is to be sent."""
    async with house.at_work(outbox=False):
        await house.post(id=external_id, text="Hi")
        await house.becomes(external_id, "answering")
        await house.answer(text)
        await house.becomes(external_id, "done")


async def test_a_fault_is_tried_again_with_the_same_key_and_the_parts_keep_their_order(house: House) -> None:
    await owe(house, "a" * 100 + "b" * 100)
    house.fake.faults = [SendFailed("Not now.", retry_after=3), SendFailed("Not now.")]
    async with house.at_work(deliveries=False):
        await house.all_sent()
    assert len(house.fake.sent) == 2
    assert [one.text[0] for one in house.fake.sent] == ["a", "b"]
    first, second = await house.rows("select * from outbox order by seq")
    assert (first["attempts"], first["may_be_double"], second["attempts"]) == (2, False, 0)
    assert [one.key for one in house.fake.sent] == [str(first["id"]), str(second["id"])]


async def test_the_vendor_says_how_long_to_wait(house: House) -> None:
    await owe(house, "a")
    house.fake.faults = [SendFailed("Slow down.", retry_after=1000)]
    async with house.at_work(deliveries=False):

        async def waits() -> bool:
            (row,) = await house.rows("select * from outbox")
            return bool((row["next_at"] - house.clock.now()).total_seconds() > 900)

        await until(waits)
    assert house.fake.tries == 1


async def test_what_is_refused_for_ever_is_dead_with_the_parts_behind_it(house: House) -> None:
    await owe(house, "a" * 300)
    await owe(house, "z", external_id="2")
    house.fake.faults = [SendFailed("The chat is gone.", permanent=True)]
    async with house.at_work(deliveries=False):
        await house.all_sent()
    assert [one.text for one in house.fake.sent] == ["z"]
    rows = await house.rows("select state, error from outbox order by seq")
    assert [row["state"] for row in rows] == ["dead", "dead", "dead", "sent"]
    assert rows[2]["error"]["message"] == "The chat is gone."
    shown = (await house.room.deliveries.page(house.anna, house.endpoint))[1]
    assert (shown.dead, shown.sent) == (3, 0)
    assert await house.room.deliveries.resend(house.anna, house.endpoint, shown.id) == 3
    async with house.at_work(deliveries=False):
        await house.all_sent()
    assert len(house.fake.sent) == 4


async def test_after_so_many_tries_it_is_dead(house: House) -> None:
    await owe(house, "a")
    house.fake.faults = [SendFailed("Not now.") for _ in range(OUTBOX_TRIES)]
    async with house.at_work(deliveries=False):

        async def dead() -> bool:
            await house.rows("update outbox set next_at = $1 where state = 'pending'", house.clock.now())
            (row,) = await house.rows("select * from outbox")
            return bool(row["state"] == "dead")

        await until(dead)
    assert (house.fake.tries, house.fake.sent) == (OUTBOX_TRIES, [])


async def test_an_uncertain_try_is_written_down_before_the_next(house: House) -> None:
    await owe(house, "a")
    house.fake.faults, house.fake.takes_it = [SendFailed("No answer.", uncertain=True)], True
    async with house.at_work(deliveries=False):
        await house.all_sent()
    assert len(house.fake.sent) == 2
    (shown,) = await house.room.deliveries.page(house.anna, house.endpoint)
    assert shown.may_be_double
    assert len({one.key for one in house.fake.sent}) == 1


async def test_a_worker_that_dies_in_mid_send_leaves_what_may_be_double(house: House) -> None:
    await owe(house, "a")
    house.fake.hangs = asyncio.Event()
    async with house.at_work(deliveries=False):
        await until(lambda: house.fake.tries == 1)
    house.fake.hangs = None
    await house.clock.advance(LEASE.total_seconds() + 1)
    async with house.at_work(deliveries=False):
        await house.all_sent()
    assert len(house.fake.sent) == 2
    (shown,) = await house.room.deliveries.page(house.anna, house.endpoint)
    assert (shown.may_be_double, shown.sent) == (True, 1)
