"""The provider's side of a call: Anthropic's Messages API, with the key added here and nowhere else."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

import aiohttp
from starlette.types import Scope
from yarl import URL

from ocmt.broker.events import printable
from ocmt.broker.model import Timeouts
from ocmt.platform.http.headers import UnsafeHeader, fields, raw_fields

_PASSED_ON = frozenset({"anthropic-version", "anthropic-beta", "accept", "user-agent"})
_PASSED_BACK = frozenset(
    {"content-type", "cache-control", "request-id", "retry-after", "retry-after-ms", "x-should-retry"}
)
_LARGEST_WHOLE_ANSWER = 32 * 1024 * 1024


class AnswerTooLarge(aiohttp.ClientError):
    """An answer that is not a stream is larger than any that the API gives."""


class Upstream:
    """Anthropic at one address. Follows no redirects: the key goes to that address only."""

    def __init__(self, session: aiohttp.ClientSession, url: str, timeouts: Timeouts) -> None:
        self._session = session
        self._url = url.rstrip("/")
        self._timeouts = timeouts

    @asynccontextmanager
    async def post(
        self, path: str, scope: Scope, body: bytes, *, key: str, streamed: bool
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Make the call; yields once the head of the answer is there. Leaving cancels what is under way.

        Raises: TimeoutError, aiohttp.ClientError.
        """
        query = scope.get("query_string", b"").decode("ascii", "replace")
        # An answer that is not streamed comes all at once, after as long as it takes.
        patience = self._timeouts.first_byte if streamed else self._timeouts.total
        async with asyncio.timeout(patience):
            response = await self._session.post(
                URL(self._url + path + (f"?{query}" if query else ""), encoded=True),
                # Not bytes: aiohttp writes those in one go, however many.
                data=io.BytesIO(body),
                headers={
                    **passed_on(scope),
                    "content-type": "application/json",
                    "accept-encoding": "identity",
                    "x-api-key": key,
                },
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None, connect=self._timeouts.connect, sock_read=None),
            )
        try:
            yield response
        finally:
            response.close()

    async def pieces(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """The body as it arrives. It is read no faster than it is asked for.

        Raises: TimeoutError, aiohttp.ClientError.
        """
        patience = self._timeouts.first_byte
        while True:
            async with asyncio.timeout(patience):
                piece = await response.content.readany()
            if not piece:
                return
            patience = self._timeouts.idle
            yield piece

    async def whole(self, response: aiohttp.ClientResponse) -> bytes:
        """The whole body. Raises TimeoutError, aiohttp.ClientError."""
        body = bytearray()
        async for piece in self.pieces(response):
            body += piece
            if len(body) > _LARGEST_WHOLE_ANSWER:
                raise AnswerTooLarge("the answer is too large")
        return bytes(body)


def passed_on(scope: Scope) -> dict[str, str]:
    """The agent's headers that the provider gets; its token and all about the connection stay here."""
    found = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])
    return {name: value for name, value in found if name in _PASSED_ON}


def passed_back(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """The provider's headers that the agent gets."""
    back: dict[str, str] = {}
    for name, value in headers.items():
        if name.lower() in _PASSED_BACK or name.lower().startswith("anthropic-ratelimit-"):
            with suppress(UnsafeHeader):  # the answer is worth more than a header that nobody may have
                back |= fields({name.lower(): value})
    return raw_fields(back)


def error_in(body: bytes) -> tuple[str, str]:
    """Type and message of an error answer; empty where it has none (a proxy's page of HTML)."""
    try:
        error = json.loads(body)["error"]
        return str(error["type"])[:100], printable(str(error["message"]))[:500]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "", ""
