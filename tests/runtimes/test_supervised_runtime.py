"""What sandbox and container have in common, on both: a real agent with a stand-in for OpenClaw."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ocmt.errors import NotYet, Unavailable
from ocmt.runtimes.base import CanPause
from ocmt.runtimes.supervised_runtime import SupervisedRuntime

from .conftest import Counter, a_spec, inside

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]


@pytest.fixture(
    params=[
        pytest.param("runtime", marks=pytest.mark.sandbox, id="sandbox"),
        pytest.param("docker", marks=pytest.mark.docker),
    ]
)
def supervised(request: pytest.FixtureRequest) -> SupervisedRuntime:
    found: SupervisedRuntime = request.getfixturevalue(request.param)
    return found


async def test_the_proxy_where_it_is_allowed(supervised: SupervisedRuntime, broker: Counter) -> None:
    spec = a_spec(egress=True)
    await supervised.start(spec, {})
    code = """
        import socket
        with socket.create_connection(("127.0.0.1", 18991), 2) as connection:
            answer = connection.recv(10).decode()
    """
    assert await inside(supervised, spec.user_id, code) == "hello"
    await supervised.stop(spec.user_id, {}, grace=5)
    assert broker.open == 0


async def test_one_that_is_forgotten_ends_and_leaves_no_file(supervised: SupervisedRuntime) -> None:
    spec, other = a_spec(), a_spec()
    await supervised.start(spec, {})
    await inside(supervised, spec.user_id, "open('/home/agent/workspace/mine', 'w').write('x'); answer = 1")
    await supervised.start(other, {})
    folder = supervised._place(spec.user_id)
    assert (folder / "workspace" / "mine").is_file()
    assert set(await supervised.remembered()) == {spec.user_id, other.user_id}
    await supervised.forget(spec.user_id)
    await supervised.forget(spec.user_id)
    assert not folder.exists()
    assert await supervised.remembered() == [other.user_id]
    assert (await supervised.observe(spec.user_id, {})).phase == "absent"
    assert await inside(supervised, other.user_id, "answer = 2") == 2
    await supervised.stop(other.user_id, {}, grace=5)


async def test_a_gateway_that_gives_up_is_reported_with_its_code_and_last_words(
    supervised: SupervisedRuntime,
) -> None:
    spec = a_spec("exit 78")
    await supervised.start(spec, {})
    async with asyncio.timeout(10):
        while (seen := await supervised.observe(spec.user_id, {})).phase != "exited":
            await asyncio.sleep(0.01)
    assert seen.exit_code == 78
    switches = "--import=/supervisor/held_still.mjs --max-semi-space-size=4"
    program = "/opt/openclaw/node_modules/openclaw/openclaw.mjs"
    assert f"stand-in: {switches} {program} gateway run" in seen.log_tail
    with pytest.raises(Unavailable):
        await supervised.dial(spec.user_id, {})
    assert "exit 78" in await supervised.logs(spec.user_id, {}, lines=5)

    await supervised.start(spec, {})  # may be tried again
    await supervised.stop(spec.user_id, {}, grace=5)


class TestDialling:
    async def test_a_gateway_that_does_not_listen_yet(self, supervised: SupervisedRuntime) -> None:
        spec = a_spec("deaf")
        await supervised.start(spec, {})
        with pytest.raises(NotYet) as caught:
            await supervised.dial(spec.user_id, {})
        assert caught.value.retry_after is not None
        assert 0 < caught.value.retry_after <= 0.1
        assert (await supervised.observe(spec.user_id, {})).step == "gateway"

    async def test_nobody_there(self, supervised: SupervisedRuntime) -> None:
        with pytest.raises(Unavailable):
            await supervised.dial(a_spec().user_id, {})

    async def test_many_at_once_each_get_a_connection_of_their_own(
        self, supervised: SupervisedRuntime
    ) -> None:
        spec = a_spec()
        await supervised.start(spec, {})
        answers = await asyncio.gather(
            *(inside(supervised, spec.user_id, f"answer = {number}") for number in range(12))
        )
        assert answers == list(range(12))


class TestPausing:
    async def test_a_paused_agent_stands_still_and_goes_on_where_it_was(
        self, supervised: SupervisedRuntime, folder: Path
    ) -> None:
        assert isinstance(supervised, CanPause)
        spec = a_spec()
        await supervised.start(spec, {})
        ticking = """
            import subprocess
            tick = "while :; do echo x >> /home/agent/workspace/ticks; sleep 0.01; done"
            subprocess.Popen(["sh", "-c", tick])
            answer = 1
        """
        await inside(supervised, spec.user_id, ticking)
        ticks = folder / "data" / "agents" / str(spec.user_id) / "workspace" / "ticks"
        await until_it_grows(ticks)

        state = await supervised.pause(spec.user_id, {})
        assert (await supervised.observe(spec.user_id, state)).phase == "paused"
        size = ticks.stat().st_size
        await asyncio.sleep(0.2)  # real time, of real processes
        assert ticks.stat().st_size == size
        with pytest.raises(Unavailable):
            await supervised.dial(spec.user_id, state)
        await supervised.pause(spec.user_id, state)

        await supervised.resume(spec.user_id, state)
        await supervised.resume(spec.user_id, state)
        await until_it_grows(ticks)
        assert await inside(supervised, spec.user_id, "answer = 2") == 2

    async def test_nobody_to_pause(self, supervised: SupervisedRuntime) -> None:
        with pytest.raises(Unavailable):
            await supervised.pause(a_spec().user_id, {})


async def until_it_grows(path: Path) -> None:
    async with asyncio.timeout(5):
        size = path.stat().st_size if path.exists() else 0
        while not path.exists() or path.stat().st_size <= size:
            await asyncio.sleep(0.01)
