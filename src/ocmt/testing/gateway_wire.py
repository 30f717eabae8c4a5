"""The wire of the gateway's double: a real socket, the handshake, and faults to order."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, Self
from uuid import uuid4

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from ocmt.errors import NotYet, Unavailable
from ocmt.openclaw.config import OWNER, OWNER_HEADER, PROXY_HEADER
from ocmt.platform.clock import Clock

MAX_PAYLOAD = 26214400
"""Bytes of one frame, as it says in its hello."""
Answer = Callable[[dict[str, Any]], dict[str, Any]]
"""A request's parameters → `{"payload": …}` or `{"error": …}`."""


async def stream_to(address: tuple[str, int]) -> socket.socket:
    """A non-blocking stream to it; closed where nobody waits for it any more."""
    stream = socket.socket()
    stream.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(stream, address)
    except BaseException:
        stream.close()
        raise
    return stream


class GatewayServer:
    """Listens, greets and answers by `_methods`. All attributes may be changed at any time."""

    def __init__(self, clock: Clock, *, token: str) -> None:
        self._clock = clock
        self.token = token
        self.not_listening = 0
        """So many dials raise NotYet."""
        self.starting = 0
        """So many connects are refused with UNAVAILABLE and `retryAfterMs`."""
        self.unanswered: set[str] = set()
        """Methods that never get an answer; `connect` is one of them."""
        self.dials = 0
        self.received: list[tuple[str, dict[str, Any]]] = []
        """Every request, with its parameters, in order."""
        self.suspension: tuple[str, str] | None = None
        """The request id and the suspension id that it holds."""
        self._connections: set[ServerConnection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._dead = False
        self._server: Server | None = None
        self._servers: list[Server] = []
        """All that were opened: on another machine it is opened anew."""

    def _methods(self) -> Mapping[str, Answer]:
        """What is understood."""
        raise NotImplementedError

    async def kill(self) -> None:
        """Die as by SIGKILL."""
        raise NotImplementedError

    async def dial(self) -> socket.socket:
        """A Dial: a connected, non-blocking stream to this gateway."""
        self.dials += 1
        if self._dead or self._server is None:
            raise Unavailable("There is no agent.")
        if self.not_listening > 0:
            self.not_listening -= 1
            raise NotYet("OpenClaw does not listen yet.", retry_after=0.1)
        return await stream_to(next(iter(self._server.sockets)).getsockname())

    async def disconnect(self) -> None:
        """Break all connections; runs go on."""
        for connection in self._connections:
            connection.transport.abort()
        await asyncio.sleep(0)

    async def __aenter__(self) -> Self:
        self._server = await serve(
            self._serve,
            "127.0.0.1",
            0,
            compression=None,
            ping_interval=None,
            close_timeout=0.5,
            max_size=MAX_PAYLOAD,
        )
        self._servers.append(self._server)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()
        for server in self._servers:
            server.close(close_connections=True)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for server in self._servers:
            await server.wait_closed()

    async def _serve(self, connection: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            await tell(connection, "connect.challenge", {"nonce": uuid4().hex, "ts": self._milliseconds()})
            if not await self._greet(connection):
                await connection.close(1013, "gateway starting")
                return
            self._connections.add(connection)
            try:
                async for data in connection:
                    frame = json.loads(data)
                    await self._answer(connection, frame["id"], frame["method"], frame["params"])
            finally:
                self._connections.discard(connection)

    async def _greet(self, connection: ServerConnection) -> bool:
        frame = json.loads(await connection.recv())
        method, params = frame["method"], frame["params"]
        self.received.append((method, params))
        if "connect" in self.unanswered:
            await connection.wait_closed()
        elif self.starting > 0:
            self.starting -= 1
            error = unavailable("gateway starting; retry shortly", 500, "startup-sidecars")
            await respond(connection, frame["id"], error=error)
        elif method != "connect" or not self._knows(connection, params):
            error = {"code": "INVALID_REQUEST", "message": "unauthorized: gateway token mismatch"}
            await respond(connection, frame["id"], error=error)
        else:
            snapshot = {"suspension": {"phase": "prepared" if self.suspension else "accepting"}}
            hello = {
                "type": "hello-ok",
                "protocol": 4,
                "policy": {"maxPayload": MAX_PAYLOAD},
                "snapshot": snapshot,
            }
            await respond(connection, frame["id"], payload=hello)
            return True
        return False

    def _knows(self, connection: ServerConnection, params: Mapping[str, Any]) -> bool:
        """The platform by its password, and whom it announces as the owner."""
        assert connection.request is not None
        headers = connection.request.headers
        announced = headers.get(OWNER_HEADER) == OWNER and PROXY_HEADER in headers
        return announced or params.get("auth", {}).get("password") == self.token

    async def _answer(
        self, connection: ServerConnection, request_id: str, method: str, params: dict[str, Any]
    ) -> None:
        self.received.append((method, params))
        if method in self.unanswered:
            return
        known = self._methods().get(method)
        if known is None:
            error: dict[str, Any] = {"code": "INVALID_REQUEST", "message": f"unknown method: {method}"}
            await respond(connection, request_id, error=error)
        elif self.suspension and not method.startswith("gateway.suspend."):
            error = unavailable(f"{method} unavailable during gateway suspension", 1000, "gateway-suspending")
            await respond(connection, request_id, error=error)
        else:
            answer = known(params)
            await respond(connection, request_id, **answer)

    async def _broadcast(self, event: str, payload: Mapping[str, Any]) -> None:
        for connection in list(self._connections):
            with suppress(ConnectionClosed):
                await tell(connection, event, payload)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _milliseconds(self) -> int:
        return int(self._clock.now().timestamp() * 1000)


def unavailable(message: str, retry_after_ms: int, reason: str) -> dict[str, Any]:
    """An error that says when to try again."""
    return {
        "code": "UNAVAILABLE",
        "message": message,
        "retryable": True,
        "retryAfterMs": retry_after_ms,
        "details": {"reason": reason},
    }


async def tell(connection: ServerConnection, event: str, payload: Mapping[str, Any]) -> None:
    """Send an event."""
    await connection.send(json.dumps({"type": "event", "event": event, "payload": payload}))


async def respond(
    connection: ServerConnection,
    request_id: str,
    *,
    payload: Mapping[str, Any] | None = None,
    error: Mapping[str, Any] | None = None,
) -> None:
    """Send the answer to a request."""
    outcome: dict[str, Any] = (
        {"ok": True, "payload": payload} if error is None else {"ok": False, "error": error}
    )
    await connection.send(json.dumps({"type": "res", "id": request_id, **outcome}))
