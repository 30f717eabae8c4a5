"""The measured process of `scale`: the platform as `ocmt up` composes it, but for its agents' machines, which
are in the benchmark's process (`ocmt.testing.world`). And its peer: the same agents, started without it.

`python -m benchmarks.orchestrator FOLDER`, settings in the environment; SIGUSR2 has it collect its garbage,
SIGTERM ends it. With `--profile` each SIGUSR1 begins to profile, and the next writes a file into that folder.
With `--direct` the peer: each line of standard input has user ids, whose agents are started at once; answered
by when each was begun.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import json
import os
import pstats
import signal
import socket
import sys
import time
from pathlib import Path
from uuid import UUID, uuid4

import uvloop

from benchmarks.person import MESSAGE
from ocmt.bootstrap.all_in_one import run_all_in_one
from ocmt.openclaw.client import GatewayClient
from ocmt.platform import telemetry
from ocmt.platform.clock import SystemClock
from ocmt.platform.reachable import ReachablePaths
from ocmt.runtimes.base import AgentSpec
from ocmt.settings import load_settings
from ocmt.testing.world import WorldRuntime

TOKEN = "token-of-the-peer"
TIMEOUT = 60.0


def main() -> None:
    """One or the other."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.orchestrator", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--direct", action="store_true")
    parser.add_argument("--profile", type=Path)
    options = parser.parse_args()
    telemetry.configure_logging("console", "warning")
    uvloop.run(_direct(options.folder) if options.direct else _platform(options.folder, options.profile))


async def _platform(folder: Path, profile: Path | None) -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, _collect)
    if profile is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, _Profiles(profile).turn)
    runtime = await WorldRuntime.connect(folder / "world", folder / "disk")
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)

    async def ready(*_: object) -> None:
        print("ready", flush=True)

    await run_all_in_one(
        load_settings(),
        listener,
        ReachablePaths(),
        announce=lambda line: print(line, file=sys.stderr),
        ready=ready,
        make_runtime=lambda *_: runtime,
    )


def _collect() -> None:
    gc.collect()
    print(f"objects {sys.getallocatedblocks()}", flush=True)


class _Profiles:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._profile: cProfile.Profile | None = None
        self._number = 0

    def turn(self) -> None:
        if self._profile is None:
            self._profile = cProfile.Profile(time.thread_time)
            self._profile.enable()
            return
        self._profile.disable()
        self._number += 1
        with (self._folder / f"profile-{self._number}").open("w") as file:
            stats = pstats.Stats(self._profile, stream=file)
            stats.sort_stats("tottime").print_stats(40)
            stats.sort_stats("cumulative").print_stats(60)
        self._profile = None


async def _direct(folder: Path) -> None:
    runtime = await WorldRuntime.connect(folder / "world", folder / "disk")
    lines = asyncio.StreamReader(limit=2**20)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), os.fdopen(0, "rb"))
    while line := await lines.readline():
        users = [UUID(user) for user in json.loads(line)]
        started = await asyncio.gather(*(_start(runtime, user) for user in users))
        print(json.dumps([began for began, _ in started]), flush=True)
        for user, (_, client) in zip(users, started, strict=True):
            await client.close()
            await runtime.stop(user, {}, grace=1)
    await runtime.close()


async def _start(runtime: WorldRuntime, user: UUID) -> tuple[float, GatewayClient]:
    """Start it, say hello, hand over a message."""
    began = time.monotonic()

    async def dial() -> socket.socket:
        return await runtime.dial(user, {})

    environment = {"OPENCLAW_GATEWAY_PASSWORD": TOKEN}
    spec = AgentSpec(user, 1, config="{}", environment=environment, lease_until=began + 3600)
    await runtime.start(spec, {})
    client = await GatewayClient.connect(dial, token=TOKEN, clock=SystemClock(), timeout=TIMEOUT)
    await client.send_chat(
        session_key=f"agent:main:web:{user}", message=MESSAGE, idempotency_key=str(uuid4())
    )
    return began, client


if __name__ == "__main__":
    main()
