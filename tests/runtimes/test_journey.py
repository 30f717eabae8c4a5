"""The real OpenClaw in a real container, where Docker answers: it says hello, calls its model through a door,
sleeps and ends. In a real sandbox that is what `tests/journey` tells; here it refuses a configuration.

A container takes a minute, half of it OpenClaw's own start, half of it the image.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import structlog
from starlette.types import Receive, Scope, Send

from ocmt.openclaw.client import GatewayClient
from ocmt.openclaw.config import gateway_environment, render_config
from ocmt.openclaw.protocol import Failed, Final, RunEvent
from ocmt.platform.clock import SystemClock
from ocmt.platform.http.listener import serve_on
from ocmt.runtimes.base import AgentRuntime, AgentSpec, CanPause
from ocmt.runtimes.bubblewrap import View
from ocmt.runtimes.docker import DockerRuntime
from ocmt.runtimes.sandbox import SandboxRuntime
from ocmt.runtimes.supervised import Closer
from ocmt.runtimes.tools import Tools

from .conftest import DOCKER_URL, need_docker
from .docker_image import make_image, remove_image

pytestmark = [pytest.mark.anyio, pytest.mark.journey, pytest.mark.sandbox, pytest.mark.timeout(300)]


def a_stream(text: str) -> bytes:
    """A whole answer of Anthropic's, streamed."""
    message: dict[str, object] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-6",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }
    delta = {"stop_reason": "end_turn", "stop_sequence": None}
    events: list[dict[str, object]] = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 3}},
        {"type": "message_stop"},
    ]
    return b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events)


class Model:
    """A door behind which a model answers; notes the keys that it was shown."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    async def door(self, user_id: UUID, listener: socket.socket) -> Closer:
        return await serve_on(listener, self)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.keys.append(dict(scope["headers"]).get(b"x-api-key", b"").decode())
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": a_stream("pong")})


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
async def runtime(folder: Path, installed: Tools, model: Model, view: View) -> AsyncIterator[SandboxRuntime]:
    runtime = SandboxRuntime(
        data_dir=folder / "data",
        tools=installed,
        doors={"broker": model.door},
        clock=SystemClock(),
        log=structlog.get_logger("tests"),
        view=view,
    )
    yield runtime
    await runtime.close()


@pytest.fixture
def openclaw_image(installed: Tools) -> Iterator[str]:
    """An image with the real Node and OpenClaw of this machine."""
    need_docker()
    image = asyncio.run(make_image(DOCKER_URL, installed))
    yield image
    asyncio.run(remove_image(DOCKER_URL, image))


@pytest.fixture
async def containers(folder: Path, openclaw_image: str, model: Model) -> AsyncIterator[DockerRuntime]:
    runtime = DockerRuntime(
        data_dir=folder / "data",
        doors={"broker": model.door},
        clock=SystemClock(),
        log=structlog.get_logger("tests"),
        url=DOCKER_URL,
        image=openclaw_image,
    )
    yield runtime
    await runtime.close()


@pytest.mark.docker
async def test_openclaw_answers_sleeps_and_ends(containers: DockerRuntime, model: Model) -> None:
    runtime: AgentRuntime = containers
    environment = gateway_environment(gateway_token="gateway-token", broker_token="broker-token")
    spec = AgentSpec(uuid4(), 1, render_config(model="claude-sonnet-4-6"), environment)
    state = await runtime.start(spec, {})

    async def dial() -> socket.socket:
        return await runtime.dial(spec.user_id, state)

    client = await GatewayClient.connect(dial, token="gateway-token", clock=SystemClock(), timeout=100)
    assert (await runtime.observe(spec.user_id, state)).phase == "running"
    session = "agent:main:web:test"
    with client.run_events(session) as events:
        await client.send_chat(session_key=session, message="ping", idempotency_key="1")
        async with asyncio.timeout(60):
            answer = [event async for event in until_final(events)][-1]
    assert answer.text == "pong"
    assert set(model.keys) == {"broker-token"}

    assert isinstance(runtime, CanPause)
    began = time.monotonic()
    await runtime.pause(spec.user_id, state)
    assert time.monotonic() - began < 1  # 10 ms on a quiet machine, see benchmarks
    await runtime.resume(spec.user_id, state)
    assert await client.history(session)

    await client.close()
    assert await runtime.stop(spec.user_id, state, grace=8) == {}
    assert "completed cleanly" in await runtime.logs(spec.user_id, {}, lines=20)


async def until_final(events: AsyncIterator[RunEvent]) -> AsyncIterator[Final]:
    async for event in events:
        assert not isinstance(event, Failed), event
        if isinstance(event, Final):
            yield event
            return


async def test_a_configuration_that_openclaw_refuses_is_exit_code_78(runtime: SandboxRuntime) -> None:
    spec = AgentSpec(uuid4(), 1, '{"gateway": {"mode": "nonsense"}}', {})
    await runtime.start(spec, {})
    async with asyncio.timeout(60):
        while (seen := await runtime.observe(spec.user_id, {})).phase != "exited":
            await asyncio.sleep(0.05)
    assert seen.exit_code == 78
    assert "gateway.mode" in seen.log_tail
