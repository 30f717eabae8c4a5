"""What every runtime promises, on the double that others test with and on real sandboxes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from ocmt.errors import NotYet, SetupProblem, Unavailable
from ocmt.openclaw.client import GatewayClient
from ocmt.platform.clock import SystemClock
from ocmt.runtimes.base import AgentRuntime, AgentSpec, CanPause, RunsImages
from ocmt.runtimes.bubblewrap import View
from ocmt.runtimes.tools import Tools
from ocmt.testing.clock import VirtualClock
from ocmt.testing.gateway import FakeGateway
from ocmt.testing.misbehaving import (
    DiesMidTurn,
    DiskFiller,
    FlakyRuntime,
    ForkBomb,
    LyingRuntime,
    NeverRuntime,
    RefusesSuspend,
    SlowRuntime,
    SlowToDie,
)
from ocmt.testing.runtimes import FakeRuntime

from .conftest import Counter, make_docker_runtime, make_runtime

pytestmark = pytest.mark.anyio


@pytest.fixture(
    params=[
        "fake",
        pytest.param("sandbox", marks=pytest.mark.sandbox),
        pytest.param("docker", marks=pytest.mark.docker),
    ]
)
def any_runtime(request: pytest.FixtureRequest) -> AgentRuntime:
    if request.param == "fake":
        return FakeRuntime(SystemClock())
    if request.param == "docker":
        return make_docker_runtime(
            *(request.getfixturevalue(name) for name in ("folder", "docker_image", "broker"))
        )
    parts: tuple[Path, Tools, Counter, View] = tuple(
        request.getfixturevalue(name) for name in ("folder", "tools", "broker", "view")
    )
    return make_runtime(*parts)


def a_spec() -> AgentSpec:
    return AgentSpec(uuid4(), 1, "{}")


async def until(runtime: AgentRuntime, spec: AgentSpec, phase: str) -> None:
    async with asyncio.timeout(20):
        while (await runtime.observe(spec.user_id, {})).phase != phase:
            await asyncio.sleep(0.01)


async def test_the_life_of_an_agent(any_runtime: AgentRuntime) -> None:
    spec = a_spec()
    assert (await any_runtime.observe(spec.user_id, {})).phase == "absent"
    with pytest.raises(Unavailable):
        await any_runtime.dial(spec.user_id, {})

    state = await any_runtime.start(spec, {})
    assert await any_runtime.start(spec, state) == state
    await until(any_runtime, spec, "running")
    connection = await any_runtime.dial(spec.user_id, state)
    assert connection.getblocking() is False
    assert await any_runtime.logs(spec.user_id, state, lines=10)

    assert await any_runtime.stop(spec.user_id, state, grace=1) == {}
    assert await any_runtime.stop(spec.user_id, {}, grace=1) == {}
    assert (await any_runtime.observe(spec.user_id, {})).phase == "absent"
    async with asyncio.timeout(5):
        assert await end_of(connection)
    connection.close()
    await any_runtime.close()


async def test_images(any_runtime: AgentRuntime) -> None:
    if not isinstance(any_runtime, RunsImages):
        return  # a runtime need not have more than one
    assert await any_runtime.has_image(any_runtime.own_image)
    assert not await any_runtime.has_image("nobody-has-this-image")
    spec = replace(a_spec(), image=any_runtime.own_image)
    await any_runtime.start(spec, {})
    await until(any_runtime, spec, "running")
    other = replace(a_spec(), image="nobody-has-this-image")
    with pytest.raises(SetupProblem, match="nobody-has-this-image"):
        await any_runtime.start(other, {})
    assert (await any_runtime.observe(other.user_id, {})).phase == "absent"
    await any_runtime.close()


async def end_of(connection: object) -> bool:
    """A connection ends with its agent, in order or by a reset."""
    try:
        return await asyncio.get_running_loop().sock_recv(connection, 1) == b""  # type: ignore[arg-type]
    except ConnectionResetError:
        return True


async def test_pausing(any_runtime: AgentRuntime) -> None:
    assert isinstance(any_runtime, CanPause)
    spec = a_spec()
    with pytest.raises(Unavailable):
        await any_runtime.pause(spec.user_id, {})
    state = await any_runtime.start(spec, {})
    await until(any_runtime, spec, "running")
    for _ in range(2):
        state = await any_runtime.pause(spec.user_id, state)
    await until(any_runtime, spec, "paused")
    with pytest.raises(Unavailable):
        await any_runtime.dial(spec.user_id, state)
    for _ in range(2):
        state = await any_runtime.resume(spec.user_id, state)
    (await any_runtime.dial(spec.user_id, state)).close()
    await any_runtime.close()
    assert (await any_runtime.observe(spec.user_id, {})).phase == "absent"


class TestTheMisbehavingDoubles:
    async def test_slow(self, clock: VirtualClock) -> None:
        runtime, spec = SlowRuntime(clock), a_spec()
        await runtime.start(spec, {})
        with pytest.raises(NotYet):
            await runtime.dial(spec.user_id, {})
        assert (await runtime.observe(spec.user_id, {})).phase == "starting"
        await clock.advance(60)
        (await runtime.dial(spec.user_id, {})).close()
        await runtime.close()

    async def test_never(self, clock: VirtualClock) -> None:
        runtime, spec = NeverRuntime(clock), a_spec()
        await runtime.start(spec, {})
        await clock.advance(1e6)
        with pytest.raises(NotYet):
            await runtime.dial(spec.user_id, {})
        await runtime.close()

    async def test_flaky(self, clock: VirtualClock) -> None:
        runtime, spec = FlakyRuntime(clock, failures=1), a_spec()
        with pytest.raises(Unavailable):
            await runtime.start(spec, {})
        await runtime.start(spec, {})
        await runtime.close()

    async def test_flaky_by_exit_code(self, clock: VirtualClock) -> None:
        runtime, spec = FlakyRuntime(clock, failures=1, exit_code=78), a_spec()
        await runtime.start(spec, {})
        seen = await runtime.observe(spec.user_id, {})
        assert (seen.phase, seen.exit_code) == ("exited", 78)
        await runtime.start(spec, {})
        assert (await runtime.observe(spec.user_id, {})).phase == "running"
        await runtime.close()

    async def test_lying(self, clock: VirtualClock) -> None:
        runtime, spec = LyingRuntime(clock), a_spec()
        assert (await runtime.observe(spec.user_id, {})).phase == "running"
        with await runtime.dial(spec.user_id, {}) as connection:
            assert connection.recv(1) == b""

    async def test_slow_to_die(self, clock: VirtualClock) -> None:
        runtime, spec = SlowToDie(clock, seconds=30), a_spec()
        await runtime.start(spec, {})
        for _ in range(2):
            with pytest.raises(NotYet) as refused:
                await runtime.stop(spec.user_id, {}, grace=0)
            assert refused.value.retry_after == 30
        (await runtime.dial(spec.user_id, {})).close()
        with pytest.raises(NotYet):
            await runtime.start(spec, {})
        stopping = asyncio.create_task(runtime.stop(spec.user_id, {}, grace=60))
        await clock.advance(30)
        assert await stopping == {}
        assert (await runtime.observe(spec.user_id, {})).phase == "absent"
        await runtime.start(spec, {})
        await runtime.close()

    async def test_refuses_suspend(self, clock: VirtualClock) -> None:
        async with FakeGateway(clock) as gateway:
            runtime, spec = RefusesSuspend(clock, make_gateway=lambda _: made(gateway)), a_spec()
            await runtime.start(spec, {})
            assert gateway.busy
            await runtime.close()

    async def test_fork_bomb(self, clock: VirtualClock) -> None:
        runtime, spec = ForkBomb(clock), a_spec()
        await runtime.start(spec, {})
        (await runtime.dial(spec.user_id, {})).close()
        with pytest.raises(NotYet):
            await runtime.dial(spec.user_id, {})
        with pytest.raises(Unavailable):
            await runtime.pause(spec.user_id, {})
        assert (await runtime.observe(spec.user_id, {})).phase == "running"
        assert await runtime.stop(spec.user_id, {}, grace=0) == {}
        await runtime.start(spec, {})
        (await runtime.dial(spec.user_id, {})).close()
        await runtime.close()

    async def test_disk_filler(self, clock: VirtualClock) -> None:
        async with FakeGateway(clock) as gateway:
            runtime, spec = DiskFiller(clock, times=1, make_gateway=lambda _: made(gateway)), a_spec()
            await runtime.start(spec, {})
            assert (await runtime.observe(spec.user_id, {})).reason is None
            client = await GatewayClient.connect(gateway.dial, token=gateway.token, clock=clock, timeout=5)
            await client.send_chat(session_key="s", message="hello", idempotency_key="k")
            await asyncio.wait_for(client.wait_closed(), 5)
            await client.close()
            seen = await runtime.observe(spec.user_id, {})
            assert (seen.phase, seen.reason) == ("exited", DiskFiller.WORDS)
            await runtime.close()

    async def test_dies_mid_turn(self, clock: VirtualClock) -> None:
        async with FakeGateway(clock) as gateway:
            runtime, spec = DiesMidTurn(clock, times=1, make_gateway=lambda _: made(gateway)), a_spec()
            await runtime.start(spec, {})
            client = await GatewayClient.connect(gateway.dial, token=gateway.token, clock=clock, timeout=5)
            await client.send_chat(session_key="s", message="hello", idempotency_key="k")
            await asyncio.wait_for(client.wait_closed(), 5)
            await client.close()
            seen = await runtime.observe(spec.user_id, {})
            assert (seen.phase, seen.exit_code) == ("exited", 137)
            await runtime.start(spec, {})
            assert (await runtime.observe(spec.user_id, {})).phase == "running"
            await runtime.close()


async def made(gateway: FakeGateway) -> FakeGateway:
    return gateway
