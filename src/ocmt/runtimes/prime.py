"""Makes the compile cache that new agents start with, by running the gateway once, at set-up.

Node keys its cache by path and uid, so it must be made in a sandbox like theirs. It holds compiled code, so
it is only ever made here, from an agent that nobody has talked to, and never taken from a user's.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import UUID

import structlog

from ocmt.errors import Unavailable
from ocmt.platform.clock import SystemClock
from ocmt.platform.work import FILES, STARTS
from ocmt.runtimes.base import AgentSpec
from ocmt.runtimes.bubblewrap import View
from ocmt.runtimes.folders import CACHE_FOLDER
from ocmt.runtimes.removal import remove_tree
from ocmt.runtimes.sandbox import SandboxRuntime
from ocmt.runtimes.supervised import Closer
from ocmt.runtimes.tools import Tools

START_TIMEOUT = 180.0
SETTLE = 5.0
"""Seconds that the gateway gets after it listens, to load what it loads afterwards."""
STOP_GRACE = 30.0


class _NobodyThere:
    """A broker's door that lets the caller wait; a gateway without users does not knock."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener

    async def close(self) -> None:
        self._listener.close()


async def _door(user_id: UUID, listener: socket.socket) -> Closer:
    return _NobodyThere(listener)


async def prime_compile_cache(
    tools: Tools,
    target: Path,
    *,
    config: str,
    environment: Mapping[str, str],
    view: View,
    private: Sequence[Path] = (),
    settle: float = SETTLE,
) -> None:
    """Run the gateway with that configuration until it listens, and keep what Node has compiled in `target`.

    `target` must not exist; it is complete or absent. `private`: what the gateway must not see, such as the
    platform's data folder. Takes as long as a cold start, some 15 s.
    Raises: SetupProblem where no sandbox can be made, Unavailable where the gateway does not start.
    """
    folder = Path(tempfile.mkdtemp(prefix=".priming-", dir=target.parent))
    runtime = SandboxRuntime(
        data_dir=folder,
        tools=tools,
        doors={"broker": _door},
        clock=SystemClock(),
        log=structlog.get_logger(__name__),
        view=view,
        private=private,
        own_disks=False,
    )
    spec = AgentSpec(UUID(int=1), slot=0, config=config, environment=environment)
    try:
        await runtime.start(spec, {})
        async with asyncio.timeout(START_TIMEOUT):
            while (seen := await runtime.observe(spec.user_id, {})).phase == "starting":  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        if seen.phase != "running":
            raise Unavailable("OpenClaw did not start.", detail=seen.log_tail)
        await asyncio.sleep(settle)
        await runtime.stop(spec.user_id, {}, grace=STOP_GRACE)
        made = folder / "agents" / str(spec.user_id) / "tmp" / CACHE_FOLDER
        await STARTS.run(_keep, made, folder / "kept", target)
    except TimeoutError as error:
        raise Unavailable("OpenClaw took too long to start.") from error
    finally:
        await runtime.close()
        await FILES.run(remove_tree, folder)


def _keep(made: Path, copy: Path, target: Path) -> None:
    """A copy, so that it belongs to us and not to the agent's uid; links are not followed."""
    shutil.copytree(made, copy, symlinks=True)
    copy.chmod(0o755)
    copy.rename(target)
