"""Strangers: told a code in private, ignored in groups, heard once they are let in."""

from __future__ import annotations

import re

import pytest

from ocmt.channels.model import CODE_LIFE, CODE_PAUSE, MAX_CODES, WAITING_KEPT
from ocmt.errors import InvalidInput, NotFound
from tests.agents.replica import until
from tests.channels.conftest import House


@pytest.fixture(autouse=True)
def pairs(house: House) -> None:
    house.fake.pairs = True


def codes(house: House) -> list[str]:
    found = [re.search(r"[A-Z2-9]{4}-[A-Z2-9]{4}", one.text) for one in house.fake.sent]
    return [one[0] for one in found if one]


async def test_a_stranger_is_told_a_code_and_heard_once_let_in(house: House) -> None:
    async with house.at_work(), house.agent_answers():
        for n in range(WAITING_KEPT + 5):
            await house.post(id=str(n), text=str(n))
        await house.becomes(str(WAITING_KEPT + 4), "waiting")
        await until(lambda: len(codes(house)) == 1)
        assert await house.turns() == []
        (code,) = codes(house)
        with pytest.raises(NotFound):
            await house.room.channels.approve(house.anna, house.endpoint, "AAAA-AAAA")
        with pytest.raises(InvalidInput):
            await house.room.channels.approve(house.anna, house.endpoint, "x")
        with pytest.raises(NotFound):
            await house.room.channels.approve(house.endpoint, house.endpoint, code)
        sender = await house.room.channels.approve(house.anna, house.endpoint, f" {code.lower()} ")
        assert (sender.sender, sender.name, sender.state) == ("ada", "Ada", "approved")
        await until(lambda: len(house.fake.sent) == 1 + WAITING_KEPT)
    assert [one.text for one in house.fake.sent[1:]] == [f"re: {n}" for n in range(5, 5 + WAITING_KEPT)]
    states = list((await house.states()).values())
    assert (states.count("ignored"), states.count("done")) == (5, WAITING_KEPT)


async def test_codes_are_told_rarely_expire_and_are_not_kept_in_clear(house: House) -> None:
    async with house.at_work():
        await house.post(id="1", text="Hi")
        await until(lambda: len(codes(house)) == 1)
        await house.clock.advance(CODE_PAUSE.total_seconds() + 1)
        await house.post(id="2", text="Hi")
        await until(lambda: len(codes(house)) == 2)
        first, second = codes(house)
        assert second.replace("-", "") not in str(await house.rows("select * from channel_senders"))
        with pytest.raises(NotFound):
            await house.room.channels.approve(house.anna, house.endpoint, first)
        await house.clock.advance(CODE_LIFE.total_seconds() + 1)
        with pytest.raises(NotFound):
            await house.room.channels.approve(house.anna, house.endpoint, second)


async def test_only_so_many_codes_are_out(house: House) -> None:
    async with house.at_work():
        for n in range(MAX_CODES + 1):
            await house.post(id=str(n), sender=f"s{n}", thread=str(n), text="Hi")
        await until(lambda: len(codes(house)) == MAX_CODES)

        async def one_is_ignored() -> bool:
            return list((await house.states()).values()).count("ignored") == 1

        await until(one_is_ignored)


async def test_a_stranger_in_a_group_is_ignored_and_can_be_let_in_by_name(house: House) -> None:
    async with house.at_work():
        await house.post(id="1", text="Hi", private=False)
        await house.becomes("1", "ignored")
        (sender,) = await house.room.channels.senders(house.anna, house.endpoint)
        assert (sender.sender, sender.state) == ("ada", "pending")
        await house.room.channels.set_sender(house.anna, house.endpoint, "ada", "approved")
        await house.post(id="2", text="Ho", private=False)
        await house.becomes("2", "answering")
    assert house.fake.sent == []


async def test_who_is_blocked_or_forgotten_is_not_heard(house: House) -> None:
    channels = house.room.channels
    await channels.set_sender(house.anna, house.endpoint, "ada", "blocked")
    async with house.at_work():
        await house.post(id="1", text="Hi")
        await house.becomes("1", "ignored")
        await channels.remove_sender(house.anna, house.endpoint, "ada")
        with pytest.raises(NotFound):
            await channels.remove_sender(house.anna, house.endpoint, "ada")
        await house.post(id="2", text="Hi")
        await house.becomes("2", "waiting")
    assert await house.turns() == []
