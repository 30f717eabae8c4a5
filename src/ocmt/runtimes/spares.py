"""Warm spares: sandboxes in which OpenClaw's modules are loaded already, for nobody; one wake takes one.

A spare is made without a user, a secret or a file of anybody's, serves one agent and ends with it: nothing is
ever given back. It has a host uid of its own; at the hand-over the agent's folders are mounted into its
sandbox, turned to that uid, and only then it is told whose it is. Whoever finds none, or one that does not do
what it should in time, starts without: that is `sandbox.py`'s part. Takes root, as the mounts do.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import structlog

from ocmt.errors import OcmtError, Unavailable
from ocmt.platform.clock import Clock
from ocmt.platform.work import STARTS
from ocmt.runtimes.folders import FIRST_UID, AgentFolder
from ocmt.runtimes.processes import children
from ocmt.runtimes.removal import remove_tree
from ocmt.runtimes.spare_plan import Recipe
from ocmt.runtimes.supervised import Body, Spawned, Supervised
from ocmt.runtimes.tools import Tools, own_python

WARM_TIMEOUT = 120.0
"""Seconds in which a spare must have loaded everything; it takes 15 to 25."""
LISTEN_TIMEOUT = 30.0
"""Seconds in which a gateway from a spare must listen, which takes 4 to 8; else the next start is plain."""
HANDOVER_TIMEOUT = 3.0
"""Seconds for the mounts; they take 0.1."""
SPARE_BYTES = 1_700_000_000
"""Memory that one takes while it waits; measured were 1.0 to 1.65 GB."""
CALM = 20.0
"""Seconds after one was taken before the next is made: making one takes the processor that the wake needs."""
RETRY = 300.0
"""Seconds after one that could not be made."""
FIRST_SPARE_UID = FIRST_UID - 1_000_000
NOT_AS_USER = "only root can mount an agent's folders into a sandbox that runs already"
_MOUNTS = Path(__file__).with_name("spare_mounts.py")


@dataclass(eq=False)
class Spare:
    """One that is ready. Owned by whoever has taken it."""

    id: UUID
    tools: Tools
    folder: AgentFolder
    """What its sandbox was made with: nobody's files."""
    spawned: Spawned

    @property
    def body(self) -> Body:
        """Its processes."""
        return self.spawned.body

    async def furnish(self, agent: AgentFolder) -> None:
        """Mount that agent's folders into its sandbox. Raises: Unavailable; then it must be killed."""
        inner = children(self.body.pid)
        if len(inner) != 1 or agent.uid is None or self.folder.uid is None:
            raise Unavailable("The warm spare is gone.")
        order = {
            "pid": inner.pop(),
            "root": str(agent.root),
            "owner": agent.uid,
            "spare": self.folder.uid,
        }
        await _run_mounts(order)

    async def kill(self) -> None:
        """End it; returns when no process is left."""
        self.body.kill()
        await self.body.ended()
        self.spawned.control.close()
        os.close(self.spawned.output)


async def obstacle(folder: Path) -> str | None:
    """Why no agent whose files are in that folder can be given to a spare; None: one can. Takes 0.1 s."""
    if os.geteuid() != 0:
        return NOT_AS_USER
    try:
        await _run_mounts({"probe": str(folder)})
    except OcmtError as error:
        return f"its file system or this kernel has no mounts with other owners ({_last_line(error)})"
    return None


def _last_line(error: OcmtError) -> str:
    return (error.detail or error.message).strip().rpartition("\n")[2]


async def _run_mounts(order: Mapping[str, object]) -> None:
    process = await asyncio.create_subprocess_exec(
        str(own_python()),
        "-I",
        "-S",
        str(_MOUNTS),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={},
    )
    try:
        async with asyncio.timeout(HANDOVER_TIMEOUT):
            _, faults = await process.communicate(json.dumps(order).encode())
    except TimeoutError as error:
        raise Unavailable("The warm spare could not be furnished in time.") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise Unavailable(
            "The warm spare could not be furnished.", detail=faults.decode("utf-8", "replace")[-500:]
        )


async def warmed(spawned: Spawned, command: list[str], environment: Mapping[str, str]) -> None:
    """Have a supervisor that was just spawned load what the spare needs. Raises: Unavailable."""
    loop = asyncio.get_running_loop()
    control = spawned.control
    control.setblocking(False)
    try:
        async with asyncio.timeout(WARM_TIMEOUT):
            await _heard(loop, control, "hello")
            control.send(
                json.dumps({"op": "warm", "command": command, "environment": dict(environment)}).encode()
            )
            await _heard(loop, control, "warm")
    except TimeoutError as error:
        raise Unavailable("The warm spare took too long to load.") from error
    except OSError as error:
        raise Unavailable("The warm spare ended while it was loading.", detail=repr(error)) from error


async def _heard(loop: asyncio.AbstractEventLoop, control: socket.socket, event: str) -> None:
    """Nothing untrusted runs in there yet: a wrong word is a fault of ours, not an attack."""
    readable = asyncio.Event()
    loop.add_reader(control.fileno(), readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(control.fileno())
    message = control.recv(65536)
    if not message or json.loads(message).get("event") != event:
        raise Unavailable("The warm spare ended while it was loading.", detail=repr(message[:200]))


async def expect_listening(agent: Supervised, clock: Clock) -> None:
    """End an agent whose gateway does not come out of its spare in time."""
    await clock.sleep(LISTEN_TIMEOUT)
    if agent.phase == "starting":
        agent.condemn("OpenClaw did not start in time from a warm spare.")


class Spares:
    """The spares that wait, and the task that makes new ones."""

    def __init__(
        self,
        recipe: Recipe | None,
        folder: Path,
        make: Callable[[], Awaitable[Spare]],
        forget: Callable[[Spare], Awaitable[None]],
        clock: Clock,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        """`folder`: theirs. `make` raises OcmtError; `forget` is awaited for each that ends untaken."""
        self._count = recipe.count if recipe else 0
        self.folder = folder
        self._make = make
        self._forget = forget
        self._clock = clock
        self._log = log
        self._ready: dict[Spare, asyncio.Task[None]] = {}
        self._wanted = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> list[Spare]:
        """Those that are ready. They may end at any time."""
        return list(self._ready)

    async def begin(self) -> None:
        """Make them, and new ones for those that are taken, until `close`. Beginning twice does nothing."""
        if not self._count or self._keeping is not None:
            return
        await STARTS.run(self._clear)
        reason = await obstacle(self.folder)
        if reason is not None:
            self._log.warning("no_warm_spares", reason=reason)
            return
        self._wanted.set()
        self._keeping = asyncio.create_task(self._keep(), name="warm spares")

    def _clear(self) -> None:
        """What a platform that was killed has left; not the plan."""
        self.folder.mkdir(mode=0o711, exist_ok=True)
        self.folder.chmod(0o711)
        for leftover in self.folder.iterdir():
            if leftover.is_dir():
                remove_tree(leftover)

    def take(self, tools: Tools) -> Spare | None:
        """One of just these tools, for the caller to use once or kill; None where there is none."""
        found = next((spare for spare in self._ready if spare.tools == tools), None)
        if found is not None:
            self._ready.pop(found).cancel()
            self._wanted.set()
        return found

    async def close(self) -> None:
        """End those that wait."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])
        while self._ready:
            spare, watch = self._ready.popitem()
            watch.cancel()
            await spare.kill()
            await self._forget(spare)

    async def _keep(self) -> None:
        calm = 0.0
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while len(self._ready) < self._count:
                await self._clock.sleep(calm)
                try:
                    spare = await self._make()
                except OcmtError as error:
                    self._log.warning("no_warm_spare", reason=error.message, detail=error.detail)
                    calm = RETRY
                    continue
                except Exception:
                    self._log.exception("no_warm_spare")
                    calm = RETRY
                    continue
                calm = CALM
                self._ready[spare] = asyncio.create_task(self._watch(spare), name=f"spare {spare.id}")
                self._log.info("warm_spare_ready", waiting=len(self._ready))

    async def _watch(self, spare: Spare) -> None:
        """One that ends while it waits makes room for another."""
        await spare.body.ended()
        if self._ready.pop(spare, None) is not None:
            self._log.warning("warm_spare_ended")
            await spare.kill()
            await self._forget(spare)
            self._wanted.set()


uids = itertools.count(FIRST_SPARE_UID)
"""Host uids for spares, each used once in the life of this process."""
