"""An agent's only way to the internet, where it has one: an HTTP proxy on a listener inside its sandbox.

It connects to public addresses and to nothing else: not to this machine, not to its networks, not to a
cloud's metadata. A name is resolved once, here, and the connection goes to the address that was checked. What
flows is not looked at. Everything that an agent can make grow is bounded: the connections at once and in a
minute, their ports, and the bytes of a day. Whether the agent may reach the internet at all is asked for each
connection and again while one is open, so that an operator's "no" ends what is under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Protocol
from urllib.parse import urlsplit
from uuid import UUID

import structlog

from ocmt.errors import OcmtError
from ocmt.platform.bucket import Bucket
from ocmt.platform.internet import Address, is_public
from ocmt.runtimes.supervised import Closer

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""(host, port) → its addresses, best first. Raises OSError."""

CONNECTIONS = 64
HEAD_BYTES = 16 * 1024
HEAD_TIMEOUT = 10.0
RESOLVE_TIMEOUT = 10.0
CONNECT_TIMEOUT = 10.0
IDLE_TIMEOUT = 300.0
NAMES_AT_ONCE = 4
"""Of one agent. Each takes a thread until the name's own server, which may be the agent's, has answered."""
ATTEMPTS = 4
REFUSALS_LOGGED = 100
"""Of one run of an agent: it could fill the log as fast as it likes."""
CHUNK = 64 * 1024
NEW_AT_ONCE = 120
NEW_PER_SECOND = 5.0
"""New connections of one agent: so many at once, then so many a second."""
GRANTS = (8 * 1024 * 1024, CHUNK)
"""Bytes that are booked before they flow; the smaller where the larger one no longer fits into the day."""
LOOK_AGAIN = 5.0
"""Seconds after which it is asked again whether an agent with open connections may reach the internet."""
REFUSED_PORTS = frozenset({25})
"""Mail between servers, whatever the settings say: nobody wants an agent to send spam from this machine."""

_HOP_BY_HOP = {"connection", "proxy-connection", "proxy-authorization", "keep-alive", "te", "upgrade", "host"}


class Refusal(Exception):
    """Why a request is not carried out: an HTTP status and words for whoever reads the agent's log."""

    def __init__(self, status: str, words: str) -> None:
        super().__init__(words)
        self.status = status
        self.words = words


class Gate(Protocol):
    """Who decides about an agent's internet, and counts it. Each call may raise an OcmtError."""

    async def allows(self, user_id: UUID) -> bool:
        """Return whether that user's agent may reach the internet now."""

    async def spend(self, user_id: UUID, size: int) -> bool:
        """Book bytes before they flow. False: the day's are used up."""

    async def give_back(self, user_id: UUID, size: int) -> None:
        """Take booked bytes back that did not flow."""


async def resolve_by_system(host: str, port: int) -> list[str]:
    """The system's own name service, in a thread of its own.

    The loop's few threads are for the names that the platform needs: an agent could keep all of them waiting.
    """
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[str]] = loop.create_future()

    def settle(addresses: list[str] | None, error: Exception | None) -> None:
        if found.done():
            return
        if error is not None:
            found.set_exception(error)
        else:
            found.set_result(addresses or [])

    def look() -> None:
        addresses, fault = None, None
        try:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            addresses = list(dict.fromkeys(str(address[0]) for *_, address in answers))
        except (OSError, ValueError) as error:
            fault = error
        with contextlib.suppress(RuntimeError):  # the loop is gone by now
            loop.call_soon_threadsafe(settle, addresses, fault)

    threading.Thread(target=look, name="egress name", daemon=True).start()
    return await found


@dataclass(frozen=True)
class Request:
    """One request to the proxy, understood."""

    host: str
    port: int
    head: bytes
    """What to send to the server first; empty for CONNECT."""
    is_tunnel: bool


def parse_request(head: bytes) -> Request:
    """The request line and headers of a proxy request, up to and with the empty line. Raises: Refusal."""
    try:
        first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        method, target, version = first.split(" ")
        if method == "CONNECT":
            parts = urlsplit(f"//{target}")
            host, port = parts.hostname, parts.port
        else:
            parts = urlsplit(target)
            host, port = parts.hostname, parts.port or 80
    except ValueError as error:
        raise Refusal("400 Bad Request", "this is not a request to a proxy") from error
    if (
        not version.startswith("HTTP/1.")
        or not host
        or not port
        or (method != "CONNECT" and parts.scheme != "http")
    ):
        raise Refusal("400 Bad Request", "the proxy takes CONNECT and http:// addresses only")
    if method == "CONNECT":
        return Request(host, port, b"", is_tunnel=True)
    kept = [line for line in lines if line.partition(":")[0].strip().lower() not in _HOP_BY_HOP]
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    authority = parts.netloc.rpartition("@")[2]
    sent = [f"{method} {path} HTTP/1.1", f"Host: {authority}", *kept, "Connection: close", "", ""]
    return Request(host, port, "\r\n".join(sent).encode("latin-1"), is_tunnel=False)


class EgressProxy:
    """Serves all agents' egress listeners; `door` is the runtime's Door."""

    def __init__(
        self,
        log: structlog.stdlib.BoundLogger,
        *,
        gate: Gate,
        ports: Collection[int],
        resolve: Resolve = resolve_by_system,
        allowed: Callable[[Address], bool] = is_public,
    ) -> None:
        """Args: `ports` are those that agents may connect to. `resolve` and `allowed` are for tests, which
        have no internet.
        """
        self._log = log
        self._ports = frozenset(ports) - REFUSED_PORTS
        self.gate = gate
        self._resolve = resolve
        self._allowed = allowed

    async def door(self, user_id: UUID, listener: socket.socket) -> Closer:
        """Serve one agent's listener until it is closed."""
        serving = _Serving(self, user_id, self._log.bind(user_id=str(user_id)))
        await serving.open(listener)
        return serving

    async def connect(self, host: str, port: int, names: asyncio.Semaphore) -> socket.socket:
        """A connection to the first address of that name that is public and answers. Raises: Refusal.

        `names` bounds how many names the asking agent looks up at once.
        """
        if port not in self._ports:
            raise Refusal("403 Forbidden", f"port {port} is not allowed; {_listed(self._ports)}")
        try:
            async with asyncio.timeout(RESOLVE_TIMEOUT):
                addresses = [ip_address(text) for text in await self._look_up(host, port, names)]
        except (OSError, ValueError, TimeoutError) as error:
            raise Refusal("502 Bad Gateway", f"{host} cannot be resolved") from error
        public = [address for address in addresses if self._allowed(address)]
        if not public:
            raise Refusal("403 Forbidden", f"{host} is not on the public internet")
        for address in public[:ATTEMPTS]:
            connection = await _connect(address, port)
            if connection is not None:
                return self._not_to_ourselves(connection, host)
        raise Refusal("504 Gateway Timeout", f"{host} does not answer")

    async def _look_up(self, host: str, port: int, names: asyncio.Semaphore) -> Sequence[str]:
        await names.acquire()
        looking = asyncio.ensure_future(self._resolve(host, port))

        def looked(done: asyncio.Future[Sequence[str]]) -> None:
            # Not when we stop waiting for it: its thread goes on.
            names.release()
            if not done.cancelled():
                done.exception()

        looking.add_done_callback(looked)
        return await asyncio.shield(looking)

    def _not_to_ourselves(self, connection: socket.socket, host: str) -> socket.socket:
        """A public address may be this machine's own: then both ends of the connection have it."""
        here, there = connection.getsockname()[0], connection.getpeername()[0]
        if here == there and not self._allowed(ip_address("127.0.0.1")):
            connection.close()
            raise Refusal("403 Forbidden", f"{host} is this machine")
        return connection


async def _connect(address: Address, port: int) -> socket.socket | None:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    connection = socket.socket(family, socket.SOCK_STREAM)
    connection.setblocking(False)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            await asyncio.get_running_loop().sock_connect(connection, (str(address), port))
    except (OSError, TimeoutError):
        connection.close()
        return None
    except BaseException:
        connection.close()
        raise
    return connection


class _Serving:
    """The connections of one agent."""

    def __init__(self, proxy: EgressProxy, user_id: UUID, log: structlog.stdlib.BoundLogger) -> None:
        self._proxy = proxy
        self._user_id = user_id
        self._rate = Bucket(NEW_PER_SECOND, NEW_AT_ONCE)
        self._booked = 0
        """Bytes that are booked and have not flowed yet."""
        self._booking = asyncio.Lock()
        self._log = log
        self._tasks: set[asyncio.Task[None]] = set()
        self._names = asyncio.Semaphore(NAMES_AT_ONCE)
        self._refusals = 0

    async def open(self, listener: socket.socket) -> None:
        self._server = await asyncio.start_server(self._accept, sock=listener, limit=HEAD_BYTES)
        self._watch = asyncio.create_task(self._look_again(), name=f"egress {self._user_id}")

    async def close(self) -> None:
        """Refuse new connections and end all others."""
        self._server.close()
        self._watch.cancel()
        await self._cut()
        booked, self._booked = self._booked, 0
        if booked:
            with contextlib.suppress(OcmtError):  # a few megabytes of one day
                await self._proxy.gate.give_back(self._user_id, booked)

    async def _cut(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)

    async def _look_again(self) -> None:
        while True:
            await asyncio.sleep(LOOK_AGAIN)
            if not self._tasks:
                continue
            try:
                allowed = await self._proxy.gate.allows(self._user_id)
            except OcmtError as error:
                self._log.warning("egress_not_asked", error=str(error))
                continue
            if not allowed:
                self._log.info("egress_ended_by_policy")
                await self._cut()

    async def _may_begin(self) -> None:
        """Raises: Refusal."""
        now = asyncio.get_running_loop().time()
        if wait := self._rate.wait(1, now):
            raise Refusal(
                "429 Too Many Requests", f"too many new connections; try again in {wait:.0f} seconds"
            )
        self._rate.pour(1, now)
        try:
            allowed = await self._proxy.gate.allows(self._user_id)
        except OcmtError as error:
            raise Refusal("503 Service Unavailable", "the platform is busy; try again") from error
        if not allowed:
            raise Refusal("403 Forbidden", "the internet is switched off for this agent")

    async def _pay(self, size: int) -> None:
        """Book what is about to flow. Raises: Refusal when the day's bytes are used up."""
        if self._booked < size:
            async with self._booking:
                while self._booked < size:
                    self._booked += await self._book()
        self._booked -= size

    async def _book(self) -> int:
        for size in GRANTS:
            try:
                if await self._proxy.gate.spend(self._user_id, size):
                    return size
            except OcmtError as error:
                raise Refusal("503 Service Unavailable", "the platform is busy; try again") from error
        raise Refusal("403 Forbidden", "what this agent may exchange with the internet today is used up")

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= CONNECTIONS:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._carry_out(reader, writer)
        except Refusal as refusal:
            self._refusals += 1
            if self._refusals <= REFUSALS_LOGGED:
                self._log.info("egress_refused", status=refusal.status, reason=refusal.words)
            body = f"OCMT's proxy: {refusal.words}.\n".encode()
            head = f"HTTP/1.1 {refusal.status}\r\nContent-Type: text/plain; charset=utf-8\r\n"
            writer.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
            with contextlib.suppress(OSError):
                await writer.drain()
        except (OSError, TimeoutError) as error:
            self._log.debug("egress_ended", error=repr(error))
        except Exception:
            self._log.exception("egress_failed")
        finally:
            writer.close()

    async def _carry_out(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = parse_request(await _head(reader))
        await self._may_begin()
        await self._pay(len(request.head) or 1)
        connection = await self._proxy.connect(request.host, request.port, self._names)
        there, to_there = await asyncio.open_connection(sock=connection)
        try:
            if request.is_tunnel:
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                to_there.write(request.head)
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, to_there, self._pay))
                group.create_task(_pump(there, writer, self._pay))
        except* (OSError, TimeoutError, Refusal) as errors:
            self._log.debug("egress_ended", error=repr(errors.exceptions[0]))
        finally:
            to_there.close()


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        async with asyncio.timeout(HEAD_TIMEOUT):
            return await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError as error:
        raise Refusal("431 Request Header Fields Too Large", "the request's head is too large") from error
    except asyncio.IncompleteReadError as error:
        raise Refusal("400 Bad Request", "the request is not complete") from error


async def _pump(
    source: asyncio.StreamReader, target: asyncio.StreamWriter, pay: Callable[[int], Awaitable[None]]
) -> None:
    """Carry bytes one way until their end, each paid for before it flows, and pass the end on."""
    while True:
        async with asyncio.timeout(IDLE_TIMEOUT):
            data = await source.read(CHUNK)
        if not data:
            break
        await pay(len(data))
        target.write(data)
        async with asyncio.timeout(IDLE_TIMEOUT):
            await target.drain()
    if target.can_write_eof():
        target.write_eof()


def _listed(ports: Collection[int]) -> str:
    shown = [str(port) for port in sorted(ports)[:10]]
    return f"allowed are {', '.join(shown)}" if shown else "none is allowed"
