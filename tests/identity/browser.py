"""A browser as far as identity is concerned: it calls an ASGI app, keeps cookies, and says who sends it.

In memory, because what is tested is what the app makes of headers that no HTTP client lets one choose freely
(Origin, Sec-Fetch-Site, a `__Host-` cookie without TLS).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Headers
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Browser:
    app: ASGIApp
    origin: str | None = "http://localhost:8080"
    cookies: dict[str, str] = field(default_factory=dict)
    bearer: str | None = None
    """A token, sent with every request."""

    async def call(
        self, method: str, url: str, body: object = None, *, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request and its whole answer; Set-Cookie is obeyed."""
        sent = {"host": "localhost:8080", "user-agent": "Browser/1"}
        if self.origin is not None and method != "GET":
            sent["origin"] = self.origin
        if self.cookies:
            sent["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        if self.bearer is not None:
            sent["authorization"] = f"Bearer {self.bearer}"
        payload = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        if payload:
            sent["content-type"] = "application/json"
        messages = await self._exchange(
            self._scope("http", method, url, {**sent, **(headers or {})}), payload
        )
        start = messages[0]
        answer = Answer(
            start["status"],
            Headers(raw=start["headers"]),
            b"".join(message.get("body", b"") for message in messages[1:]),
        )
        for line in answer.headers.getlist("set-cookie"):
            for name, morsel in SimpleCookie(line).items():
                if morsel["max-age"] == "0":
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = morsel.value
        return answer

    async def open_socket(self, url: str, *, headers: Mapping[str, str] | None = None) -> str:
        """The type of the app's first answer to a WebSocket handshake."""
        sent = {"host": "localhost:8080", **(headers or {})}
        if self.origin:
            sent["origin"] = self.origin
        if self.cookies:
            sent["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        [first, *_] = await self._exchange(self._scope("websocket", None, url, sent), b"")
        return str(first["type"])

    async def _exchange(self, scope: dict[str, Any], payload: bytes) -> list[Message]:
        incoming: list[Message] = [
            {"type": "websocket.connect"}
            if scope["type"] == "websocket"
            else {"type": "http.request", "body": payload, "more_body": False}
        ]
        outgoing: list[Message] = []
        answered = asyncio.Event()

        async def receive() -> Message:
            if incoming:
                return incoming.pop(0)
            if scope["type"] == "http":
                await answered.wait()  # it stays until it has the whole answer
            return {"type": "http.disconnect" if scope["type"] == "http" else "websocket.disconnect"}

        async def send(message: Message) -> None:
            outgoing.append(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                answered.set()

        await self.app(scope, receive, send)
        return outgoing

    def _scope(self, kind: str, method: str | None, url: str, headers: Mapping[str, str]) -> dict[str, Any]:
        parts = urlsplit(url)
        return {
            "type": kind,
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "http" if kind == "http" else "ws",
            "path": parts.path,
            "raw_path": parts.path.encode(),
            "query_string": parts.query.encode(),
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()],
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 8080),
            "state": {},
            **({"method": method} if method else {"subprotocols": []}),
        }
