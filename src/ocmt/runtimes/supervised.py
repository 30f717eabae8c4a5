"""One agent that a supervisor runs: its process, its control channel, its doors, and what is known of it.

Knows nothing of how the surroundings of the supervisor were made (that is `sandbox.py` and `docker.py`), only
that there is something, the body, whose end takes everything inside with it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol
from uuid import UUID

import structlog

from ocmt.errors import DiskFull, NotYet, SetupProblem, Unavailable
from ocmt.platform.clock import Clock
from ocmt.platform.free_space import WORDS
from ocmt.runtimes.channel import Channel, Misbehaviour, checked_socket
from ocmt.runtimes.output import Output
from ocmt.supervisor.main import PROTOCOL

START_TIMEOUT = 20.0
"""Seconds from the spawn to the gateway's process; it takes 0.1 on a quiet machine."""
DIAL_TIMEOUT = 5.0
DIALS_AT_ONCE = 32
RETRY_DIAL = 0.05


class Closer(Protocol):
    """Something that serves until it is closed."""

    async def close(self) -> None:
        """End it; closing twice does nothing."""


Door = Callable[[UUID, socket.socket], Awaitable[Closer]]
"""(user id, listener inside that agent's network namespace) → serves it, and closes it with itself."""


@dataclass(frozen=True)
class Order:
    """What the supervisor is asked to run. The environment holds secrets: it goes over the channel only."""

    command: list[str]
    environment: Mapping[str, str]
    directory: str
    gateway_port: int
    doors: Mapping[str, int]
    """Names of doors → the ports they have inside."""
    processes: int | None
    """The most that it may have; None where something else sees to that."""
    largest: int | None = None
    """The bytes that one file may have, for a spare that runs already; others have it from their launcher."""
    filter: bytes | None = None
    """A system call filter (BPF) for the supervisor to put on, where its surroundings do not."""
    lease_until: float | None = None
    """See EndsWithLease."""

    def message(self) -> dict[str, object]:
        """The start message of the control protocol."""
        return {
            "op": "start",
            "command": self.command,
            "environment": dict(self.environment),
            "directory": self.directory,
            "port": self.gateway_port,
            "listen": dict(self.doors),
            "processes": self.processes,
            **({"largest": self.largest} if self.largest is not None else {}),
            **({"lease": self.lease_until} if self.lease_until is not None else {}),
            **({"filter": base64.b64encode(self.filter).decode()} if self.filter else {}),
        }


class Body(Protocol):
    """What holds all of an agent's processes, so that they end together."""

    @property
    def pid(self) -> int:
        """The host's id of the outermost process, all others are below it; 0 where nobody can tell."""

    def greeted(self) -> None:
        """Told when the supervisor runs, and nothing of the agent's yet."""

    def kill(self) -> None:
        """End all of them. Returns at once; may be called again."""

    async def ended(self) -> int:
        """Wait until none is left; the exit code of the outermost, 128 + N where signal N ended it."""


@dataclass(frozen=True)
class Spawned:
    """A supervisor on its way. Owns its three descriptors."""

    body: Body
    control: socket.socket
    """Our end of the control channel."""
    output: int
    """The pipe to read the agent's output from."""
    writing: int | None = None
    """The other end of that pipe, where it could not be inherited and has to be handed over."""


class Supervised:
    """A running agent. Made by `start`; belongs to the running event loop; ended by `end` or by itself."""

    def __init__(
        self,
        user_id: UUID,
        order: Order,
        doors: Mapping[str, Door],
        clock: Clock,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        self.user_id = user_id
        self.phase: Literal["starting", "running", "exited"] = "starting"
        self.step = "sandbox"
        self.exit_code: int | None = None
        self.paused = False
        self.held = False
        """Whether it is held still because the server's disk is almost full."""
        self.paged_out = False
        self.called_back: asyncio.Task[None] | None = None
        self.hardened = False
        self.condemned: str | None = None
        """Why it was ended from here, in words for its user."""
        self._company: list[asyncio.Task[None]] = []
        self._foreign = False
        """Whether the supervisor speaks another version of the protocol."""
        self._order = order
        self._doors = doors
        self._clock = clock
        self._log = log.bind(user_id=str(user_id))
        self._listeners: dict[str, socket.socket] = {}
        self._closers: list[Closer] = []
        self._dials: dict[int, asyncio.Future[socket.socket]] = {}
        self._next_dial = 0
        self._spawned = asyncio.Event()
        self._failure: str | None = None
        self._lease_until = order.lease_until
        self._ordered = False
        """Whether the supervisor has its order, which brings the lease; before, there may be no channel."""

    async def start(self, spawn: Callable[[], Spawned], logs: Path) -> None:
        """Spawn it and have the gateway started.

        `spawn` runs in this thread (the death of the spawning thread would end the sandbox).
        Raises: Unavailable where the sandbox could not be started, SetupProblem where its supervisor is of
        another version; nothing is left then.
        """
        try:
            spawned = spawn()
        except OSError as error:
            raise Unavailable("The agent's sandbox could not be started.", detail=repr(error)) from error
        self._body = spawned.body
        self._output = Output(spawned.output, logs, on_end=lambda: None)
        self._channel = Channel(spawned.control, on_message=self._heard, on_closed=self._lost)
        self._watch = asyncio.create_task(self._watch_end(), name=f"agent {self.user_id}")
        try:
            async with asyncio.timeout(START_TIMEOUT):
                self._give_order(spawned.writing)
                await self._spawned.wait()
                await self._open_doors()
        except TimeoutError as error:
            await self.kill()
            raise Unavailable("The agent's sandbox took too long to start.", detail=self.failure()) from error
        except BaseException:
            await self.kill()
            raise

    def _give_order(self, writing: int | None) -> None:
        try:
            self._channel.send(replace(self._order, lease_until=self._lease_until).message(), writing)
            self._ordered = True
        finally:
            if writing is not None:
                os.close(writing)

    def failure(self) -> str:
        """Why it ended, in its own last words."""
        return "\n".join(filter(None, (self._failure, self._output.tail.strip())))

    @property
    def ended(self) -> bool:
        """Whether no process of it is left."""
        return self.phase == "exited"

    @property
    def log_tail(self) -> str:
        """The last few kilobytes of its output."""
        return self._output.tail

    @property
    def process(self) -> int:
        """The host's id of the outermost process; all others are below it."""
        return self._body.pid

    # What the supervisor says

    def _heard(self, message: dict[str, Any], attached: int | None) -> None:
        event = message["event"]
        if event == "connected":
            self._connected(message.get("id"), attached)
        elif event == "listener":
            self._take_listener(message.get("name"), attached)
        elif attached is not None:
            os.close(attached)
            raise _misbehaviour("a socket that nobody asked for")
        elif event == "refused":
            self._refused(message.get("id"))
        elif event == "hello" and self.step == "sandbox":
            self._greet(message)
        elif event == "spawned" and self.step == "files":
            self.step = "gateway"
            self._spawned.set()
        elif event == "listening" and self.phase == "starting":
            self.phase, self.step = "running", "hello"
        elif event == "failed" and self.phase == "starting":
            self._failure = f"The gateway could not be started: {str(message.get('message'))[:500]}"
        elif event == "exited" and self.phase != "exited":
            self._report_exit(message.get("code"))
        else:
            raise _misbehaviour(f"an unexpected {event[:40]!r}")

    def _greet(self, message: dict[str, Any]) -> None:
        """The supervisor runs, nothing of the agent's yet."""
        self.hardened = message.get("hardened") is True
        self._foreign = message.get("protocol") != PROTOCOL
        if self._foreign:
            self._body.kill()
        self.step = "files"
        self._body.greeted()

    def _take_listener(self, name: object, attached: int | None) -> None:
        """Only before the gateway runs: until then nobody inside can keep a copy and play with its flags."""
        port = self._order.doors.get(name) if isinstance(name, str) and name not in self._listeners else None
        if port is None or self.step != "files":
            if attached is not None:
                os.close(attached)
            raise _misbehaviour("a listener that nobody asked for")
        self._listeners[str(name)] = checked_socket(attached, port=port, listening=True)

    def _connected(self, dial: object, attached: int | None) -> None:
        found = checked_socket(attached, port=self._order.gateway_port, listening=False)
        waiting = self._dials.pop(dial, None) if isinstance(dial, int) else None
        if waiting is None:
            found.close()
            raise _misbehaviour("a connection that nobody asked for")
        waiting.set_result(found)

    def _refused(self, dial: object) -> None:
        waiting = self._dials.pop(dial, None) if isinstance(dial, int) else None
        if waiting is None:
            raise _misbehaviour("an answer that nobody asked for")
        waiting.set_exception(NotYet("OpenClaw is not listening yet.", retry_after=RETRY_DIAL))

    def _report_exit(self, code: object) -> None:
        if not isinstance(code, int) or not 0 <= code <= 255:
            raise _misbehaviour("an impossible exit code")
        self.exit_code = code

    def _lost(self, error: Misbehaviour | None) -> None:
        """The channel is gone: so is the supervisor, or it must be now."""
        if error is not None:
            self._failure = f"The agent broke the rules of its channel ({error.detail})."
            self._log.warning("agent_misbehaved", detail=error.detail)
        self._body.kill()

    # What the platform asks

    async def dial(self) -> socket.socket:
        """A connection to the gateway. Raises: NotYet, Unavailable."""
        if self.held:
            raise DiskFull(WORDS, retry_after=30)
        if self.phase == "exited" or self.paused:
            raise Unavailable("The agent is not running.", retry_after=1.0)
        if not self._spawned.is_set():
            raise NotYet("The agent is being started.", retry_after=RETRY_DIAL)
        if len(self._dials) >= DIALS_AT_ONCE:
            raise NotYet("Too many connections are being made to the agent.", retry_after=RETRY_DIAL)
        self._next_dial += 1
        waiting: asyncio.Future[socket.socket] = asyncio.get_running_loop().create_future()
        self._channel.send({"op": "dial", "id": self._next_dial})
        self._dials[self._next_dial] = waiting
        try:
            await asyncio.wait([waiting], timeout=DIAL_TIMEOUT)
        except asyncio.CancelledError:
            waiting.add_done_callback(_close_unwanted)
            raise
        if not waiting.done():
            waiting.add_done_callback(_close_unwanted)
            raise NotYet("The agent did not answer.", retry_after=RETRY_DIAL)
        return waiting.result()

    def renew(self, until: float) -> None:
        """See EndsWithLease. A paused agent cannot read: it is told when it goes on."""
        self._lease_until = until
        if not self.paused and not self.held:
            self.tell_lease()

    def tell_lease(self) -> None:
        """Until when it may run; also before it goes on after a pause. Raises Unavailable."""
        if self._lease_until is not None and self._ordered and self.phase != "exited":
            self._channel.send({"op": "lease", "until": self._lease_until})

    async def over(self) -> None:
        """Wait until it has ended by itself."""
        await asyncio.shield(self._watch)

    async def end(self, grace: float) -> None:
        """Ask it to end, wait at most `grace` seconds, kill; returns when no process is left."""
        if self.phase != "exited":
            with contextlib.suppress(Unavailable):
                self._channel.send({"op": "stop", "grace": grace})
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(grace + 0.5):
                        await asyncio.shield(self._watch)
        await self.kill()

    async def kill(self) -> None:
        """End it at once; returns when no process is left."""
        self._body.kill()
        await asyncio.shield(self._watch)

    def condemn(self, words: str) -> None:
        """End it at once, and say why to its user."""
        self.condemned = words
        self._failure = words
        self._body.kill()

    def accompany(self, watch: Coroutine[Any, Any, None]) -> None:
        """Have that run beside it, for as long as it runs."""
        task = asyncio.create_task(watch, name=f"watch {self.user_id}")
        self._company.append(task)
        if self.ended:
            task.cancel()

    async def _watch_end(self) -> None:
        """Tidy up after the end, however it came."""
        status = await self._body.ended()
        for task in self._company:
            task.cancel()
        self._channel.drain()
        self._channel.close()
        self._output.drain()
        self._output.close()
        if self.exit_code is None:
            self.exit_code = status
        self.phase = "exited"
        self._spawned.set()
        for waiting in self._dials.values():
            waiting.set_exception(Unavailable("The agent has ended.", retry_after=1.0))
        self._dials.clear()
        await self._close_doors()

    # Doors

    async def _open_doors(self) -> None:
        if self._foreign:
            raise SetupProblem(
                "The agents' image is of another version of OCMT: build it again.", detail=self.failure()
            )
        if self.ended:
            raise Unavailable("The agent's sandbox did not start.", detail=self.failure())
        for name in self._order.doors:
            listener = self._listeners.pop(name, None)
            if listener is None:
                raise Unavailable("The agent's sandbox did not start.", detail=f"no listener for {name}")
            self._closers.append(await self._doors[name](self.user_id, listener))
        if self.ended:
            await self._close_doors()

    async def _close_doors(self) -> None:
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()
        while self._closers:
            closer = self._closers.pop()
            try:
                async with asyncio.timeout(2.0):
                    await closer.close()
            except Exception:
                self._log.exception("door_did_not_close")


def _misbehaviour(detail: str) -> Misbehaviour:
    return Misbehaviour("The agent broke the rules of its channel.", detail=detail)


def _close_unwanted(waiting: asyncio.Future[socket.socket]) -> None:
    """For a dial that was given up: its answer may still come."""
    if not waiting.cancelled() and waiting.exception() is None:
        waiting.result().close()
