"""One turn for nobody: seen through to its end, whatever that is, and no trouble for who asked for it."""

from __future__ import annotations

import asyncio

import pytest

from ocmt.openclaw import exercise as exercise_module
from ocmt.openclaw.exercise import SESSION, exercise
from ocmt.platform.clock import SystemClock
from ocmt.testing.gateway import Die, Fail, FakeGateway, Hold, Say, Step

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "script", [(Say("Hello"),), (Fail("no key"),), (Die(),)], ids=["answer", "refusal", "end"]
)
async def test_it_ends_with_the_turn(script: tuple[Step, ...]) -> None:
    clock = SystemClock()
    async with FakeGateway(clock) as gateway:
        gateway.script(*script)
        async with asyncio.timeout(10):
            await exercise(gateway.dial, token=gateway.token, clock=clock)
        assert gateway.messages(SESSION) == ["Hello"]


async def test_a_turn_that_never_ends_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exercise_module, "TIMEOUT", 0.2)
    clock = SystemClock()
    async with FakeGateway(clock) as gateway:
        gateway.script(Hold())
        async with asyncio.timeout(10):
            await exercise(gateway.dial, token=gateway.token, clock=clock)


async def test_a_gateway_that_refuses_is_left() -> None:
    clock = SystemClock()
    async with FakeGateway(clock) as gateway:
        await exercise(gateway.dial, token="wrong", clock=clock)
