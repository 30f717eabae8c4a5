"""What strangers and vendors hear, and that 200 means kept."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
from starlette.types import Message

from ocmt.channels.base import Accepted
from ocmt.channels.intake import Intake
from ocmt.channels.model import MAX_BODY
from ocmt.channels.writer import Writer
from ocmt.errors import LimitReached, Unavailable
from ocmt.platform.bucket import Buckets
from ocmt.platform.database import Connection
from ocmt.testing.clock import VirtualClock
from tests.agents.replica import until
from tests.channels.conftest import House, call


async def test_what_is_answered_with_200_is_kept_and_known_when_it_comes_again(house: House) -> None:
    for _ in range(3):
        assert (await house.post(id="1", text="Hi")).status == 200
    assert await house.states() == {"1": "accepted"}


async def test_a_hundred_at_once_share_few_transactions(house: House) -> None:
    answers = await asyncio.gather(*(house.post(id=str(n % 90), text="Hi") for n in range(100)))
    assert {one.status for one in answers} == {200}
    assert len(await house.states()) == 90
    assert house.room.intake._writer.batches <= 5


@pytest.mark.parametrize("signature", ["", "wrong", "é" * 64, "0" * 64])
async def test_a_bad_signature_is_refused_and_nothing_kept(house: House, signature: str) -> None:
    assert (await house.post(id="1", text="Hi", signature=signature)).status == 401
    assert await house.states() == {}


async def test_strangers_addresses_are_not_found(house: House) -> None:
    paths = [
        f"/webhooks/fake/{uuid4()}",
        f"/webhooks/nope/{house.endpoint}",
        f"/webhooks/signed/{house.endpoint}",
        f"/webhooks/fake/{str(house.endpoint)[:8]}",
        "/webhooks/",
        "/webhooks/fake/../../x",
    ]
    for path in paths:
        answer = await call(house.room.intake, path, b"{}")
        assert (answer.status, answer.headers["content-type"]) == (404, "application/problem+json")


async def test_guesses_share_their_look_into_the_database(house: House) -> None:
    looks = 0
    find = house.room.endpoints._find

    async def counted(ids: list[object]) -> object:
        nonlocal looks
        looks += 1
        return await find(ids)  # type: ignore[arg-type]

    house.room.endpoints._find = counted  # type: ignore[method-assign, assignment]
    guesses = [uuid4() for _ in range(300)]
    for _ in range(2):
        await asyncio.gather(*(call(house.room.intake, f"/webhooks/fake/{one}") for one in guesses))
    assert looks <= 3


async def test_a_removed_endpoint_is_not_found_at_once_elsewhere(house: House) -> None:
    assert (await house.post(id="1", text="Hi")).status == 200
    listening = asyncio.create_task(house.room.endpoints.listen(house.hints))
    await asyncio.sleep(0.2)
    await house.build().channels.disconnect(house.anna, house.endpoint)

    async def gone() -> bool:
        return (await house.post(id="2", text="Hi")).status == 404

    await until(gone)
    listening.cancel()


async def test_an_endpoint_removed_under_the_cache_is_no_false_200(house: House) -> None:
    assert (await house.post(id="1", text="Hi")).status == 200
    await house.build().channels.disconnect(house.anna, house.endpoint)
    assert (await house.post(id="2", text="Hi")).status == 404


async def test_methods_sizes_and_encodings(house: House) -> None:
    path = f"/webhooks/fake/{house.endpoint}"
    wrong = await call(house.room.intake, path, method="GET")
    assert (wrong.status, wrong.headers["allow"]) == (405, "POST")
    assert (await call(house.room.intake, path, b"x" * (MAX_BODY + 1))).status == 413
    announced = {"content-length": str(MAX_BODY + 1)}
    assert (await call(house.room.intake, path, b"", announced)).status == 413
    pieces: list[Message] = [
        {"type": "http.request", "body": b"x" * (MAX_BODY // 2 + 1), "more_body": True} for _ in range(2)
    ]
    assert (await call(house.room.intake, path, pieces)).status == 413
    assert (await call(house.room.intake, path, b"", {"content-encoding": "gzip"})).status == 415
    body = json.dumps({"id": "1", "text": "x" * (MAX_BODY - 30)}).encode()
    signed = {"x-signature": house.fake.sign(body), "content-encoding": "identity"}
    assert (await call(house.room.intake, path, body, signed)).status == 200


async def test_a_slow_body_and_a_sender_that_goes(house: House) -> None:
    room = house.room
    intake = Intake(
        {"fake": house.fake}, room.endpoints, Writer(house.database, house.clock), house.clock, patience=0.05
    )
    path = f"/webhooks/fake/{house.endpoint}"
    assert (
        await call(intake, path, [{"type": "http.request", "body": b"{", "more_body": True}])
    ).status == 408
    assert (await call(intake, path, [{"type": "http.disconnect"}])).status == 0


async def test_challenges_and_what_is_nothing_for_us(house: House) -> None:
    answer = await house.post(challenge="<b>x</b>")
    assert (answer.status, answer.body) == (200, b"<b>x</b>")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert (await house.post(nothing=1)).status == 200
    assert await house.states() == {}


async def test_nul_bytes_and_halves_of_characters_are_kept(house: House) -> None:
    for n, odd in enumerate(["\x00", "\ud800", "x" * 5000, ""]):
        assert (await house.post(id=f"{n}{odd}", thread=odd, text="a" + odd, sender=odd)).status == 200
    assert len(await house.states()) == 4
    async with house.at_work(), house.agent_answers():
        await until(lambda: len(house.fake.sent) >= 4)


async def test_while_the_database_is_away_nobody_hears_200(house: House) -> None:
    assert (await house.post(id="0", text="Hi")).status == 200

    @asynccontextmanager
    async def away() -> AsyncIterator[Connection]:
        raise Unavailable("The database does not answer just now.", retry_after=2)
        yield

    real, house.database.transaction = house.database.transaction, away  # type: ignore[method-assign]
    answer = await house.post(id="1", text="Hi")
    assert (answer.status, answer.headers["retry-after"]) == (503, "2")
    house.database.transaction = real  # type: ignore[method-assign]
    assert (await house.post(id="1", text="Hi")).status == 200
    assert await house.states() == {"0": "accepted", "1": "accepted"}


async def test_a_full_queue_is_said(house: House) -> None:
    writer = Writer(house.database, house.clock, queue=2, most=1)
    tries = [writer.keep(house.endpoint, Accepted(str(n), "t"), b"{}") for n in range(4)]
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(one, Unavailable) for one in results) == 2
    assert len(await house.states()) == 2


def test_an_endpoint_that_sends_too_often_is_told_when_to_come_again(clock: VirtualClock) -> None:
    buckets, key = Buckets(clock, burst=2, per_second=10), uuid4()
    buckets.take(key)
    buckets.take(key)
    with pytest.raises(LimitReached) as refused:
        buckets.take(key)
    assert refused.value.retry_after == pytest.approx(0.1)
    buckets.take(uuid4())


async def test_two_that_send_the_same_at_once_in_two_processes(house: House) -> None:
    other = house.build()
    answers = await asyncio.gather(
        *(house.post(room=room, id="1", text="Hi") for room in (house.room, other) for _ in range(10))
    )
    assert {one.status for one in answers} == {200}
    assert len(await house.states()) == 1
