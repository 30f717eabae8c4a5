"""Anthropic's Messages API as a double on the wire: a real server on loopback that answers by script.

    async with FakeAnthropic(keys={"sk-ant-test"}) as anthropic:
        anthropic.script(Failed(529, "overloaded_error", "Overloaded"), Streamed("Hello"))

Each request takes the next answer of the script, and `otherwise` when there is none; `seen` has what came in.
Shapes as documented at https://docs.anthropic.com/en/api/messages-streaming and …/errors.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from aiohttp import web

from ocmt.testing.web import WebDouble


@dataclass
class Seen:
    """One request as it came in."""

    path: str
    query: str
    headers: Mapping[str, str]
    body: dict[str, Any]
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the client went away before it had the whole answer."""


class Scripted(Protocol):
    """One answer of a script."""

    async def play(self, request: web.Request, seen: Seen) -> web.StreamResponse:
        """Answer the request."""


@dataclass
class Streamed:
    """A whole answer: streamed word by word, or in one piece where the request does not ask for a stream."""

    text: str = "Hello from Claude."
    input_tokens: int = 25
    output_tokens: int = 12
    cache_read: int = 0
    cache_write: int = 0
    hold: asyncio.Event | None = None
    """After the first word, wait for this."""

    async def play(self, request: web.Request, seen: Seen) -> web.StreamResponse:
        """See Scripted."""
        model = str(seen.body.get("model"))
        if seen.body.get("stream") is not True:
            return web.json_response(_message(model, self.text, self._usage(self.output_tokens)))
        response = await _head(request)
        await response.write(_sse("message_start", message=_message(model, None, self._usage(1))))
        await response.write(_BLOCK_START + _sse("ping"))
        for number, word in enumerate(self.text.split(" ")):
            await response.write(_text_delta(word if number == 0 else f" {word}"))
            if number == 0 and self.hold:
                await self.hold.wait()
        await response.write(_BLOCK_STOP)
        delta = {"stop_reason": "end_turn", "stop_sequence": None}
        await response.write(_sse("message_delta", delta=delta, usage={"output_tokens": self.output_tokens}))
        await response.write(_sse("message_stop"))
        return response

    def _usage(self, output_tokens: int) -> dict[str, int]:
        return {
            "input_tokens": self.input_tokens,
            "cache_creation_input_tokens": self.cache_write,
            "cache_read_input_tokens": self.cache_read,
            "output_tokens": output_tokens,
        }


@dataclass
class Failed:
    """An error answer."""

    status: int
    error_type: str
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)

    async def play(self, request: web.Request, seen: Seen) -> web.StreamResponse:
        """See Scripted."""
        error = {"type": self.error_type, "message": self.message}
        body = {"type": "error", "error": error, "request_id": f"req_{secrets.token_hex(8)}"}
        return web.json_response(body, status=self.status, headers=self.headers)


@dataclass
class Stalled:
    """Says so many words and then nothing any more; with none, not even the head of an answer."""

    text: str = ""

    async def play(self, request: web.Request, seen: Seen) -> web.StreamResponse:
        """See Scripted."""
        if self.text:
            await _begin(request, seen, self.text)
        await asyncio.Event().wait()
        raise AssertionError("unreachable")


@dataclass
class Broken:
    """Says so many words and cuts the connection, in the middle of an event if `mid_event`."""

    text: str = "Hel"
    mid_event: bool = False

    async def play(self, request: web.Request, seen: Seen) -> web.StreamResponse:
        """See Scripted."""
        response = await _begin(request, seen, self.text)
        if self.mid_event:
            await response.write(b'event: content_block_delta\ndata: {"type":"content_')
        # Lets what was written leave before the cut.
        await asyncio.sleep(0.05)
        assert request.transport is not None
        request.transport.abort()
        return response


@dataclass
class BrokeDown:
    """Says so many words, then an `error` event, as Anthropic does when it fails midway."""

    text: str = "Hel"
    error_type: str = "overloaded_error"
    message: str = "Overloaded"

    async def play(self, request: web.Request, seen: Seen) -> web.StreamResponse:
        """See Scripted."""
        response = await _begin(request, seen, self.text)
        await response.write(_sse("error", error={"type": self.error_type, "message": self.message}))
        return response


@dataclass
class Raw:
    """These bytes, each piece written by itself, with these headers."""

    pieces: tuple[bytes, ...]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "text/event-stream"})

    async def play(self, request: web.Request, seen: Seen) -> web.StreamResponse:
        """See Scripted."""
        response = web.StreamResponse(status=self.status, headers=self.headers)
        await response.prepare(request)
        for piece in self.pieces:
            await response.write(piece)
        return response


class FakeAnthropic(WebDouble):
    """The server. Use it as an asynchronous context manager; `url` is its address then."""

    def __init__(self, *, keys: Collection[str] | None = None) -> None:
        self.keys = keys
        """The keys it accepts; None: any."""
        self.otherwise: Scripted = Streamed()
        self.seen: list[Seen] = []
        self._script: deque[Scripted] = deque()
        self._arrived = asyncio.Event()

    def script(self, *answers: Scripted) -> None:
        """What to answer to the next requests, in their order."""
        self._script.extend(answers)

    async def request(self, number: int = 1, *, timeout: float = 5) -> Seen:
        """The `number`th request, as soon as it is there."""
        async with asyncio.timeout(timeout):
            while len(self.seen) < number:
                self._arrived.clear()
                await self._arrived.wait()
        return self.seen[number - 1]

    def _app(self) -> web.Application:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/messages", self._messages)
        app.router.add_post("/v1/messages/count_tokens", self._count)
        return app

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        seen = await self._note(request)
        if refusal := self._refusal(request):
            return await refusal.play(request, seen)
        answer = self._script.popleft() if self._script else self.otherwise
        try:
            return await answer.play(request, seen)
        except (asyncio.CancelledError, ConnectionError):
            seen.hung_up.set()
            raise

    async def _count(self, request: web.Request) -> web.StreamResponse:
        seen = await self._note(request)
        if refusal := self._refusal(request):
            return await refusal.play(request, seen)
        return web.json_response({"input_tokens": 42})

    async def _note(self, request: web.Request) -> Seen:
        body = json.loads(await request.read())
        headers = {name.lower(): value for name, value in request.headers.items()}
        seen = Seen(request.path, request.query_string, headers, body)
        self.seen.append(seen)
        self._arrived.set()
        return seen

    def _refusal(self, request: web.Request) -> Failed | None:
        if "anthropic-version" not in request.headers:
            return Failed(400, "invalid_request_error", "anthropic-version: header is required")
        if self.keys is not None and request.headers.get("x-api-key") not in self.keys:
            return Failed(401, "authentication_error", "invalid x-api-key")
        return None


async def _head(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(
        headers={"content-type": "text/event-stream; charset=utf-8", "request-id": "req_double"}
    )
    await response.prepare(request)
    return response


async def _begin(request: web.Request, seen: Seen, text: str) -> web.StreamResponse:
    response = await _head(request)
    usage = {"input_tokens": 25, "output_tokens": 1}
    await response.write(
        _sse("message_start", message=_message(str(seen.body.get("model")), None, usage))
        + _BLOCK_START
        + _text_delta(text)
    )
    return response


def _message(model: str, text: str | None, usage: Mapping[str, int]) -> dict[str, Any]:
    return {
        "id": f"msg_{secrets.token_hex(12)}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [] if text is None else [{"type": "text", "text": text}],
        "stop_reason": None if text is None else "end_turn",
        "stop_sequence": None,
        "usage": usage,
    }


def _text_delta(text: str) -> bytes:
    return _sse("content_block_delta", index=0, delta={"type": "text_delta", "text": text})


def _sse(name: str, **data: object) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n".encode()


_BLOCK_START = _sse("content_block_start", index=0, content_block={"type": "text", "text": ""})
_BLOCK_STOP = _sse("content_block_stop", index=0)
