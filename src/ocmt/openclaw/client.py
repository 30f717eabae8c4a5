"""A client of one agent's gateway: requests with timeouts, and the events of its runs, over one WebSocket.

The agent on the other side is not trusted: messages are bounded in size, queues in length, and whatever it
sends ends in an answer or in one of two errors: `GatewayError` where it refused, `Unavailable` where it is
gone, silent or talks nonsense. It may also be paused, so there are no pings: silence is no sign of death.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal

import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from ocmt.errors import NotYet, Unavailable
from ocmt.openclaw import protocol
from ocmt.openclaw.bounded import BoundedConnection
from ocmt.openclaw.history import HistoryMessage, RunOutcome, read_history, settle
from ocmt.openclaw.incoming import Incoming
from ocmt.openclaw.protocol import (
    Aborted,
    Delta,
    Failed,
    Fault,
    Final,
    ProtocolError,
    Response,
    RunEvent,
    Status,
    Tool,
)
from ocmt.openclaw.schedule import CHANGED, LIST, LIST_PARAMS, STATUS, Schedule, read_schedule
from ocmt.openclaw.streams import RunStream
from ocmt.platform.clock import Clock

__all__ = [
    "Aborted",
    "Delta",
    "Dial",
    "Failed",
    "Final",
    "GatewayClient",
    "GatewayError",
    "HistoryMessage",
    "RunEvent",
    "RunOutcome",
    "SentRun",
    "Status",
    "SuspendAnswer",
    "Tool",
]

log = structlog.get_logger(__name__)

Dial = Callable[[], Awaitable[socket.socket]]
"""Gives a connected stream to the gateway. Raises NotYet while it does not listen yet."""

LOST = "The connection to OpenClaw is lost."
MAX_MESSAGE = 16 * 1024 * 1024
MAX_QUEUE = 4
"""Messages that wait to be read: each may have that size."""
MAX_PENDING = 256
HANDSHAKE_TIMEOUT = 10.0
RETRY_DELAY = 0.25
CLOSE_TIMEOUT = 0.5
HISTORY_LIMIT = 500
RESUME_PATIENCE = 60.0
"""Seconds that OpenClaw gets to take an interrupted turn up again: seen were 3, and 20 on a busy machine."""
HISTORY_TIMEOUT = 60.0
"""Right after a start on a busy machine a history was seen to take 13 seconds."""
ATTACHED_TIMEOUT = 120.0
"""For a message with files: the gateway writes them to its disk before it answers."""
RESUME_INTERVAL = 0.5
LOST_CHECK_DELAY = 1.0
"""Seconds before a second look for a message that is not in the history: it comes there a moment late."""

_VERSION = version("ocmt")


class GatewayError(Exception):
    """The gateway refused a request, and said why."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(f"{fault.code}: {fault.message}")
        self.code = fault.code
        self.message = fault.message
        self.retryable = fault.retryable
        self.retry_after = fault.retry_after
        self.reason = fault.reason


@dataclass(frozen=True)
class SentRun:
    """The gateway has the message: it begins a run now, or has it from before, under way or done (`ok`)."""

    run_id: str
    status: Literal["started", "in_flight", "ok", "stopped"]
    """`stopped`: the gateway took it for a stop phrase and aborted what ran; there is no run of this id."""


@dataclass(frozen=True)
class SuspendAnswer:
    """Whether the gateway may be frozen; if so it takes no work until resumed, for two minutes at most."""

    ready: bool
    blockers: tuple[str, ...] = ()
    """What still works, in OpenClaw's words."""
    retry_after: float | None = None


class GatewayClient:
    """One connection to one gateway. Made by `connect`; once lost it stays lost."""

    def __init__(self, connection: ClientConnection, clock: Clock) -> None:
        self._connection = connection
        self._clock = clock
        self._ids = itertools.count(1)
        self._pending: dict[str, asyncio.Future[Response | None]] = {}
        self._streams: dict[str, set[RunStream]] = {}
        self._suspensions: dict[str, str] = {}
        self.schedule_changes = 0
        """How often the gateway has told that its schedule changed, or that a run of it began or ended."""
        self._ended = asyncio.Event()
        self._lost_by = LOST
        self._reader = asyncio.create_task(self._read(), name="gateway client")

    @classmethod
    async def connect(
        cls,
        dial: Dial,
        *,
        token: str,
        clock: Clock,
        timeout: float,
        on_step: Callable[[str], None] | None = None,
    ) -> GatewayClient:
        """Connect and say hello; while the gateway starts, try again for at most `timeout` seconds.

        `on_step("hello")` is called once, when the gateway answers at all. Raises: Unavailable when the time
        is up or there is no agent, GatewayError where it refuses us for good (a wrong token).
        """
        deadline = clock.monotonic() + timeout
        answered = False
        while True:
            try:
                connection = await _open(dial)
                if not answered and on_step is not None:
                    on_step("hello")
                answered = True
                return cls(await _say_hello(connection, token), clock)
            except NotYet as error:
                last: Exception = error
                delay = error.retry_after or RETRY_DELAY
            except GatewayError as error:
                if not error.retryable:
                    raise
                last, delay = error, error.retry_after or RETRY_DELAY
            except (
                ConnectionClosed,
                InvalidHandshake,
                ProtocolError,
                OSError,
                TimeoutError,
                EOFError,
            ) as error:
                last, delay = error, RETRY_DELAY
            if clock.monotonic() + delay >= deadline:
                raise Unavailable(
                    f"OpenClaw did not get ready within {timeout:.0f} seconds.", detail=repr(last)
                ) from last
            await clock.sleep(delay)

    async def request(self, method: str, params: Mapping[str, Any], *, timeout: float = 30) -> dict[str, Any]:
        """One call. Raises: GatewayError when refused, Unavailable without an answer in `timeout` seconds."""
        if self.closed:
            raise Unavailable(self._lost_by)
        if len(self._pending) >= MAX_PENDING:
            raise Unavailable("OpenClaw leaves too many requests unanswered.", detail=method)
        request_id = str(next(self._ids))
        answer: asyncio.Future[Response | None] = asyncio.get_running_loop().create_future()
        self._pending[request_id] = answer
        try:
            async with asyncio.timeout(timeout):
                await self._connection.send(protocol.request_frame(request_id, method, params))
                response = await answer
        except TimeoutError as error:
            raise Unavailable(
                "OpenClaw did not answer in time.", detail=f"{method}, {timeout:g} s"
            ) from error
        except ConnectionClosed as error:
            raise Unavailable(LOST, detail=f"{method}: {error}") from error
        finally:
            self._pending.pop(request_id, None)
            answer.cancel()
        if response is None:
            raise Unavailable(self._lost_by, detail=method)
        if response.fault is not None:
            raise GatewayError(response.fault)
        return dict(response.payload)

    async def send_chat(
        self,
        *,
        session_key: str,
        message: str,
        idempotency_key: str,
        attachments: Sequence[Mapping[str, str]] = (),
        commands: bool = True,
    ) -> SentRun:
        """Hand over a message. The same key again starts no second run, as long as the gateway lives.

        `attachments`: of each `fileName`, `mimeType` and `content` as base64; all together below 25 MiB.
        `commands=False`: OpenClaw interprets nothing in the text: no stop phrase, command, directive or
        skill. After a restart of the gateway ask `outcome` first. Raises: GatewayError, Unavailable.
        """
        params = {"sessionKey": session_key, "message": message, "idempotencyKey": idempotency_key}
        files = {"attachments": list(attachments)} if attachments else {}
        inert = {} if commands else {"suppressCommandInterpretation": True}
        patience = ATTACHED_TIMEOUT if attachments else 30
        payload = await self.request("chat.send", {**params, **files, **inert}, timeout=patience)
        run_id = protocol.string(payload, "runId") or idempotency_key
        match payload.get("status"):
            case ("started" | "in_flight" | "ok") as status:
                return SentRun(run_id, status)
            case "accepted":  # the same key again, whose first request is still being admitted
                return SentRun(run_id, "in_flight")
            case None if isinstance(payload.get("aborted"), bool):
                return SentRun(run_id, "stopped")
            case other:
                # A run that has failed before it began, or an answer of a version that we do not know.
                log.warning("gateway gave an unknown answer to a message", status=repr(other)[:100])
                raise GatewayError(Fault("UNKNOWN", "It gave an answer that we do not understand."))

    @contextlib.contextmanager
    def run_events(self, session_key: str) -> Iterator[AsyncIterator[RunEvent]]:
        """The events of all runs of a conversation from now on: enter before `send_chat`.

        The iterator raises Unavailable when the connection is lost, or when its reader is so slow that more
        than MAX_QUEUED_EVENTS, or MAX_QUEUED_TEXT characters, wait for it.
        """
        stream = RunStream()
        self._streams.setdefault(session_key, set()).add(stream)
        if self.closed:
            stream.end(self._lost_by)
        try:
            yield stream
        finally:
            streams = self._streams[session_key]
            streams.discard(stream)
            if not streams:
                del self._streams[session_key]

    async def history(self, session_key: str, limit: int = 200) -> list[HistoryMessage]:
        """The last messages of a conversation, oldest first; empty for one that does not exist."""
        params = {"sessionKey": session_key, "limit": limit}
        payload = await self.request("chat.history", params, timeout=HISTORY_TIMEOUT)
        return list(read_history(payload).messages)

    async def outcome(self, *, session_key: str, run_id: str, message_key: str) -> RunOutcome:
        """What became of a run, after a crash of either side. Waits while OpenClaw is about to resume it.

        Never `resuming`: a turn that is not taken up within RESUME_PATIENCE seconds is `unknown`.
        Enter `run_events` before, so that no event of a resumed run is missed.
        Raises: GatewayError, Unavailable.
        """
        deadline = self._clock.monotonic() + RESUME_PATIENCE
        looked_again = False
        while True:
            params = {"sessionKey": session_key, "limit": HISTORY_LIMIT}
            history = read_history(await self.request("chat.history", params, timeout=HISTORY_TIMEOUT))
            found = settle(history, run_id=run_id, message_key=message_key)
            if found.status == "resuming":
                if self._clock.monotonic() >= deadline:
                    return RunOutcome("unknown")
                await self._clock.sleep(RESUME_INTERVAL)
            elif found.status == "unknown" and not looked_again:
                looked_again = True
                await self._clock.sleep(LOST_CHECK_DELAY)
            else:
                return found

    async def abort(self, *, session_key: str, run_id: str | None) -> None:
        """Stop a run, or all of the conversation. Stopping what does not run succeeds."""
        params = {"sessionKey": session_key} | ({"runId": run_id} if run_id else {})
        await self.request("chat.abort", params)

    async def schedule(self) -> Schedule:
        """What the agent has planned, and whether any of it runs now. Raises: GatewayError, Unavailable."""
        status = await self.request(STATUS, {}, timeout=10)
        return read_schedule(status, await self.request(LIST, LIST_PARAMS, timeout=10))

    async def prepare_suspend(self, request_id: str) -> SuspendAnswer:
        """Ask whether it may be frozen. The same request id again renews the suspension that it holds.

        Raises: GatewayError (also while another request id holds a suspension), Unavailable.
        """
        payload = await self.request("gateway.suspend.prepare", {"requestId": request_id}, timeout=10)
        if payload.get("status") == "ready" and (suspension := protocol.string(payload, "suspensionId")):
            self._suspensions[request_id] = suspension
            return SuspendAnswer(ready=True)
        blockers = payload.get("blockers")
        named = [entry for entry in blockers if isinstance(entry, dict)] if isinstance(blockers, list) else []
        return SuspendAnswer(
            ready=False,
            blockers=tuple(protocol.string(entry, "message", 200) for entry in named[:20]),
            retry_after=protocol.seconds(payload.get("retryAfterMs")),
        )

    async def resume_suspend(self, request_id: str) -> None:
        """Take work again. Resuming what is not suspended, or no longer, succeeds."""
        if request_id not in self._suspensions:
            # Prepared over an earlier connection: the same request id is told the same suspension again.
            await self.prepare_suspend(request_id)
        suspension = self._suspensions.pop(request_id, None)
        if suspension is not None:
            await self.request("gateway.suspend.resume", {"suspensionId": suspension}, timeout=10)

    @property
    def closed(self) -> bool:
        """Whether the connection is lost or closed."""
        return self._ended.is_set()

    async def wait_closed(self) -> None:
        """Return once the connection is lost or closed."""
        await self._ended.wait()

    async def close(self) -> None:
        """Close the connection; a gateway that does not answer gets half a second."""
        await self._connection.close()
        await asyncio.wait([self._reader])

    async def _read(self) -> None:
        incoming = Incoming()
        try:
            async for data in self._connection:
                self._take(await incoming.read(data))
        except ConnectionClosed as error:
            log.debug("gateway connection lost", reason=str(error))
        except (ProtocolError, Unavailable) as error:
            self._lost_by = "OpenClaw answered with something that makes no sense."
            log.warning("gateway talks nonsense", reason=str(error))
            self._connection.transport.abort()
        finally:
            self._ended.set()
            for answer in self._pending.values():
                if not answer.done():
                    answer.set_result(None)
            for streams in self._streams.values():
                for stream in streams:
                    stream.end(self._lost_by)

    def _take(self, frame: Response | protocol.Event | None) -> None:
        if isinstance(frame, Response):
            answer = self._pending.get(frame.id)
            if answer is not None and not answer.done():
                answer.set_result(frame)
        elif isinstance(frame, protocol.Event) and frame.name == CHANGED:
            self.schedule_changes += 1
        elif isinstance(frame, protocol.Event) and (told := protocol.read_run_event(frame)) is not None:
            session_key, event = told
            for stream in self._streams.get(session_key, ()):
                stream.put(event)


async def _open(dial: Dial) -> ClientConnection:
    stream = await dial()
    try:
        return await connect(
            "ws://127.0.0.1/",
            sock=stream,
            proxy=None,
            compression=None,
            ping_interval=None,
            max_size=MAX_MESSAGE,
            max_queue=MAX_QUEUE,
            create_connection=BoundedConnection,
            open_timeout=HANDSHAKE_TIMEOUT,
            close_timeout=CLOSE_TIMEOUT,
        )
    except BaseException:
        stream.close()
        raise


async def _say_hello(connection: ClientConnection, token: str) -> ClientConnection:
    """From the challenge to the hello; the connection is closed unless it succeeds."""
    incoming = Incoming()
    try:
        async with asyncio.timeout(HANDSHAKE_TIMEOUT):
            protocol.read_challenge(await incoming.read(await connection.recv()))
            params = protocol.connect_params(token, version=_VERSION)
            await connection.send(protocol.request_frame("connect", "connect", params))
            while True:
                frame = await incoming.read(await connection.recv())
                if isinstance(frame, Response) and frame.id == "connect":
                    break
        _check_hello(frame)
    except BaseException:
        connection.transport.abort()
        raise
    return connection


def _check_hello(response: Response) -> None:
    if response.fault is not None:
        raise GatewayError(response.fault)
    protocol.read_hello(response)
