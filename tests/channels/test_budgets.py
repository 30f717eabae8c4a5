"""What webhooks take has a budget for each user: over it they are refused in words, not lost after a 200."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from ocmt.channels.allowances import TRUST_BYTES
from ocmt.channels.base import Accepted
from ocmt.channels.history import Deliveries
from ocmt.channels.model import KEEP_BODY
from ocmt.channels.writer import QUEUE_BYTES_OF_ONE, Writer
from ocmt.errors import Conflict, LimitReached, Unavailable
from ocmt.platform.storage import Budgets, Store, Used, used
from tests.accounts import make_user
from tests.agents.replica import time_flies, until
from tests.channels.conftest import House

pytestmark = pytest.mark.anyio
KB = 1024
WRITERS: dict[UUID, list[Writer]] = {}
"""Those of a test, by its user."""
SMALL = Budgets(delivery_bytes=20 * KB)


async def counted(house: House, user_id: UUID | None = None) -> Used:
    """The count, once nothing is under way."""
    for writer in (house.room.intake._writer, *WRITERS.get(house.anna, [])):
        await writer.count_now()
    found = await used(house.database, user_id or house.anna, SMALL)
    return next(one for one in found if one.store is Store.DELIVERIES)


async def is_exact(house: House) -> bool:
    """Whether the count is what a count of everything gives."""
    before = await counted(house)
    async with house.database.connection() as connection:
        await connection.execute("select recount_storage()")
    return await counted(house) == before


def writer_of(house: House) -> Writer:
    writer = Writer(house.database, house.clock, budgets=SMALL)
    WRITERS.setdefault(house.anna, []).append(writer)
    return writer


async def keep(
    house: House, writer: Writer, name: str, *, size: int = KB, endpoint: UUID | None = None
) -> str:
    try:
        await writer.keep(endpoint or house.endpoint, Accepted(name, "t"), b"x" * size)
    except LimitReached as error:
        return error.message if error.retry_after else "without a time"
    return "kept"


async def test_a_flood_is_kept_up_to_the_budget_and_refused_in_words(house: House) -> None:
    writer = writer_of(house)
    said = [await keep(house, writer, str(number)) for number in range(60)]
    kept = said.index(next(one for one in said if one != "kept"))
    assert set(said[kept:]) == {said[kept]}
    assert "not kept" in said[kept]
    assert 10 <= kept <= 20
    # Every 200 is a row, and nothing else is.
    assert set(await house.states()) == {str(number) for number in range(kept)}
    now = await counted(house)
    assert (now.items, now.bytes <= now.most_bytes) == (kept, True)
    assert now.refused_at == house.clock.now()
    assert await is_exact(house)


async def test_many_at_once_and_from_two_processes_do_not_pass_it_together(house: House) -> None:
    one, other = writer_of(house), writer_of(house)
    said = await asyncio.gather(
        *(
            keep(house, writer, f"{place}-{number}")
            for number in range(40)
            for place, writer in enumerate((one, other))
        )
    )
    assert said.count("kept") == len(await house.states())
    now = await counted(house)
    assert now.bytes <= now.most_bytes + TRUST_BYTES
    assert await is_exact(house)


async def test_a_process_alone_never_passes_it_and_two_only_by_what_they_are_trusted_with(
    house: House,
) -> None:
    alone = writer_of(house)
    await asyncio.gather(*(keep(house, alone, f"{number}") for number in range(60)))
    now = await counted(house)
    assert now.bytes <= now.most_bytes


async def test_trusted_ones_are_counted_soon_by_themselves(house: House) -> None:
    writer = writer_of(house)
    for number in range(3):
        assert await keep(house, writer, str(number)) == "kept"
    async with time_flies(house.clock):

        async def so() -> bool:
            found = await used(house.database, house.anna, SMALL)
            return next(one.items for one in found if one.store is Store.DELIVERIES) == 3

        await until(so)


async def test_a_batch_that_fails_leaves_the_count_as_it_is(house: House) -> None:
    writer = writer_of(house)
    for number in range(3):
        assert await keep(house, writer, str(number)) == "kept"
    uncount, failing = writer._uncount_known, True

    async def fails(*given: Any) -> None:
        if failing:
            raise Unavailable("The database does not answer just now.")
        await uncount(*given)

    # With what is still to be counted of the batches before.
    writer._uncount_known = fails  # type: ignore[method-assign, assignment]
    writer._allowances.trusts = lambda *_: False  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        await keep(house, writer, "3")
    failing = False
    assert await keep(house, writer, "3") == "kept"
    assert (await counted(house)).items == 4
    assert await is_exact(house)


async def test_what_is_known_already_is_answered_as_kept_and_counted_once(house: House) -> None:
    writer = writer_of(house)
    assert await keep(house, writer, "1") == "kept"
    again = await asyncio.gather(*(keep(house, writer, str(number % 3)) for number in range(12)))
    assert set(again) == {"kept"}
    assert (await counted(house)).items == 3
    assert await is_exact(house)
    while await keep(house, writer, str(uuid4())) == "kept":
        pass
    assert await keep(house, writer, "1") == "kept"
    assert await is_exact(house)


async def test_a_neighbor_in_the_same_batch_is_kept(house: House) -> None:
    bert = await make_user(house.database, "bert@example.org")
    theirs = (await house.room.channels.connect(bert, "signed", {})).connection.id
    writer = writer_of(house)
    said = await asyncio.gather(
        *(keep(house, writer, str(number), size=5 * KB) for number in range(20)),
        *(keep(house, writer, str(number), endpoint=theirs) for number in range(5)),
    )
    assert set(said[20:]) == {"kept"}
    assert "kept" not in said[1:20]
    assert (await counted(house, bert)).items == 5


async def test_a_plan_has_a_budget_of_its_own(house: House) -> None:
    async with house.database.connection() as connection:
        await connection.execute("insert into plans (name, delivery_bytes) values ('tiny', 1000)")
        await connection.execute(
            "insert into agents (user_id, runtime, broker_token_hash, plan) "
            "values ($1, 'sandbox', '', 'tiny')",
            house.anna,
        )
    assert (await house.post(id="1", text="Hi")).status == 200
    answer = await house.post(id="2", text="x" * 900)
    assert (answer.status, json.loads(answer.body)["code"]) == (429, "limit_reached")
    assert int(answer.headers["retry-after"]) > 60


async def test_disconnecting_frees_everything(house: House) -> None:
    for number in range(5):
        await house.post(id=str(number), text="Hi")
    async with house.agent_answers(), house.at_work():
        await house.becomes("4", "done")
        await house.all_sent()
    assert (await counted(house)).bytes > 0
    assert await is_exact(house)
    await house.room.channels.disconnect(house.anna, house.endpoint)
    now = await counted(house)
    assert (now.items, now.bytes) == (0, 0)


async def test_what_has_ended_can_be_cleared_and_what_is_open_stays(house: House) -> None:
    async with house.agent_answers(), house.at_work():
        for number in range(3):
            await house.post(id=str(number), text="Hi")
        await house.becomes("2", "done")
        await house.all_sent()
    await house.post(id="open", text="Hi")
    assert await house.room.deliveries.clear(house.anna, house.endpoint) == 3
    assert await house.states() == {"open": "accepted"}
    assert (await counted(house)).items == 1
    assert await is_exact(house)


async def test_the_body_of_what_was_given_up_goes_after_a_day_and_its_replay_says_so(house: House) -> None:
    await house.post(id="1", text="x" * 300)
    async with house.database.connection() as connection:
        await connection.execute("update deliveries set state = 'dead', finished_at = $1", house.clock.now())
    deliveries = house.room.deliveries
    await deliveries.sweep()
    (one,) = await deliveries.page(house.anna, house.endpoint)
    assert (one.size > 300, one.body_dropped) == (True, False)
    before = (await counted(house)).bytes
    await house.clock.advance((KEEP_BODY + timedelta(minutes=1)).total_seconds())
    await deliveries.sweep()
    (one,) = await deliveries.page(house.anna, house.endpoint)
    assert (one.size, one.body_dropped, one.state) == (0, True, "dead")
    assert (await counted(house)).bytes < before - 300
    assert await is_exact(house)
    with pytest.raises(Conflict, match="body of this delivery is not kept"):
        await deliveries.replay(house.anna, house.endpoint, one.id)
    assert await deliveries.replay_many(house.anna, house.endpoint, ids=[one.id]) == 0
    # It is still known: its sender's repetition is no new message.
    assert (await house.post(id="1", text="x" * 300)).status == 200
    assert (await house.states()) == {"1": "dead"}


async def test_a_budget_that_is_nearly_full_makes_room_of_what_has_ended_and_of_nothing_else(
    house: House,
) -> None:
    writer = writer_of(house)
    deliveries = Deliveries(house.database, house.clock, SMALL)
    names = [str(number) for number in range(11)]
    for name in names:
        assert await keep(house, writer, name) == "kept"
    async with house.database.connection() as connection:
        await connection.execute(
            "update deliveries set state = 'done', finished_at = $1 where external_id <> '10'",
            house.clock.now(),
        )
    await counted(house)
    await deliveries.sweep()
    sizes = {one.external_id: one.size for one in await deliveries.page(house.anna, house.endpoint)}
    assert Counter(sizes.values())[0] >= 3
    assert sizes["10"] == KB
    assert set(sizes) == set(names)
    now = await counted(house)
    assert now.bytes <= now.most_bytes // 2
    assert await is_exact(house)


async def test_rows_without_bodies_make_room_a_day_later(house: House) -> None:
    writer = writer_of(house)
    deliveries = Deliveries(house.database, house.clock, SMALL)
    while await keep(house, writer, str(uuid4()), size=1) == "kept":
        pass
    async with house.database.connection() as connection:
        await connection.execute("update deliveries set state = 'done', finished_at = $1", house.clock.now())
    await deliveries.sweep()
    full = await counted(house)
    assert full.items == len(await house.states())
    await house.clock.advance((KEEP_BODY + timedelta(minutes=1)).total_seconds())
    await deliveries.sweep()
    now = await counted(house)
    assert 0 < now.items < full.items
    assert now.bytes <= now.most_bytes // 2
    assert await is_exact(house)
    assert await keep(house, writer, "new") == "kept"


async def test_large_webhooks_of_one_sender_leave_room_in_the_queue(house: House) -> None:
    bert = await make_user(house.database, "bert@example.org")
    theirs = (await house.room.channels.connect(bert, "signed", {})).connection.id
    writer = Writer(house.database, house.clock)
    large = QUEUE_BYTES_OF_ONE // 8
    mine = [asyncio.create_task(keep(house, writer, str(number), size=large)) for number in range(40)]
    await asyncio.sleep(0)
    other = asyncio.create_task(keep(house, writer, "theirs", endpoint=theirs, size=large))
    said = await asyncio.gather(*mine)
    assert await other == "kept"
    assert 0 < said.count("kept") < 40
    assert not writer._bytes_of
