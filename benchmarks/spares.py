"""Wakes from a warm spare beside plain ones: `python -m benchmarks.spares [ROUNDS]`, as root, on a quiet
machine.

Through the runtime and the gateway's client alone, in turn, each by an agent that has been awake before. The
first run records what OpenClaw loads, which takes as long as two starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import psutil
import structlog

from benchmarks.waking import processor_seconds
from ocmt.agents.starting import wait_for_hello
from ocmt.openclaw.config import GATEWAY_SWITCHES, gateway_environment, render_config
from ocmt.openclaw.exercise import exercise
from ocmt.platform.clock import SystemClock
from ocmt.platform.reachable import ReachablePaths
from ocmt.runtimes.base import AgentSpec
from ocmt.runtimes.processes import descendants
from ocmt.runtimes.sandbox import SandboxRuntime
from ocmt.runtimes.spare_plan import Recipe
from ocmt.runtimes.supervised import Closer
from ocmt.runtimes.tools import find_tools
from ocmt.settings import load_settings
from ocmt.testing.anthropic import FakeAnthropic

MODEL = "claude-sonnet-4-6"
PLAIN, WARM = UUID(int=101), UUID(int=102)
SETTLE = 2.0
"""Seconds between the end of one and the start of the next."""


@dataclass(frozen=True)
class Wake:
    """One start: seconds to hello, to the end of a first turn, and of OpenClaw's processor time to hello."""

    hello: float
    answered: float
    processor: float


def processor_time(pid: int) -> float:
    """Of everything below that process, in seconds."""
    return processor_seconds([psutil.Process(one) for one in descendants(pid)])


async def wake(runtime: SandboxRuntime, user_id: UUID, slot: int, *, spared: float = 0.0) -> Wake:
    """Start that agent, have it answer once, and stop it. `spared`: processor time of before."""
    clock, token = SystemClock(), secrets.token_urlsafe()
    environment = gateway_environment(gateway_token=token, broker_token=secrets.token_urlsafe())
    began = time.monotonic()
    state = await runtime.start(AgentSpec(user_id, slot, render_config(model=MODEL), environment), {})

    async def show(_step: str) -> None:
        return None

    gateway = await wait_for_hello(runtime, user_id, state, token=token, clock=clock, timeout=180, show=show)
    hello, processor = time.monotonic() - began, processor_time(state["pid"]) - spared
    await gateway.close()
    await exercise(partial(runtime.dial, user_id, state), token=token, clock=clock)
    answered = time.monotonic() - began
    await runtime.stop(user_id, state, grace=10)
    await asyncio.sleep(SETTLE)
    return Wake(hello, answered, processor)


async def pass_on(port: int, _user_id: UUID, listener: socket.socket) -> Closer:
    """A door to what listens on that port here."""

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await source.read(65536):
                target.write(piece)
                await target.drain()
        target.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, back), copy(there, writer))

    return Served(await asyncio.start_server(serve, sock=listener))


@dataclass(frozen=True)
class Served:
    """A door that is open."""

    server: asyncio.Server

    async def close(self) -> None:
        """See Closer."""
        self.server.close()


async def measure(folder: Path, view: ReachablePaths, rounds: int) -> None:
    """Prints a line a round, and the medians."""
    async with FakeAnthropic() as anthropic:
        door = partial(pass_on, urlsplit(anthropic.url).port or 0)
        token = secrets.token_urlsafe()
        throw_away = gateway_environment(gateway_token=token, broker_token=secrets.token_urlsafe())
        clock = SystemClock()
        parts: dict[str, Any] = {
            "tools": find_tools(load_settings().cache_dir),
            "doors": {"broker": door},
            "clock": clock,
            "log": structlog.get_logger("benchmark"),
            "view": view.view,
        }
        recipe = Recipe(
            1,
            render_config(model=MODEL),
            8 * 1024**3,
            GATEWAY_SWITCHES,
            throw_away,
            partial(exercise, token=token, clock=clock),
        )
        pairs = []
        for number in range(rounds + 1):
            runtime = SandboxRuntime(data_dir=folder, **parts)
            plain = await wake(runtime, PLAIN, 1)
            await runtime.close()
            runtime = SandboxRuntime(data_dir=folder, recipe=recipe, **parts)
            await runtime.probe()
            while not runtime.spares.waiting:
                await asyncio.sleep(0.2)
            await asyncio.sleep(SETTLE)
            before = processor_time(runtime.spares.waiting[0].body.pid)
            warm = await wake(runtime, WARM, 2, spared=before)
            await runtime.close()
            if number:  # the first start of each makes its state folder
                pairs.append((plain, warm))
                print(f"plain {plain}\nwarm  {warm}", flush=True)
    for name in ("hello", "answered", "processor"):
        ratios = [getattr(warm, name) / getattr(plain, name) for plain, warm in pairs]
        print(f"{name}: ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    paths = ReachablePaths()
    paths.enter()
    with tempfile.TemporaryDirectory(prefix="ocmt-spares-") as made:
        asyncio.run(measure(Path(made), paths, int(sys.argv[1]) if sys.argv[1:] else 3))
