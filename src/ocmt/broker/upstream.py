"""The provider's side of a call: Anthropic's Messages API, with the key added here and nowhere else."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress

import aiohttp
from starlette.types import Scope
from yarl import URL

from ocmt.broker.events import printable
from ocmt.broker.model import Timeouts
from ocmt.platform.http.headers import UnsafeHeader, fields, raw_fields

_PASSED_ON = frozenset({"anthropic-version", "accept", "user-agent"})
_BETAS = "anthropic-beta"
_QUERIES = frozenset({"", "beta=true"})
_PASSED_BACK = frozenset(
    {"content-type", "cache-control", "request-id", "retry-after", "retry-after-ms", "x-should-retry"}
)
_LARGEST_WHOLE_ANSWER = 32 * 1024 * 1024
_LARGEST_ERROR = 1024 * 1024


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
        self, path: str, scope: Scope, body: bytes | bytearray, *, key: str, streamed: bool, betas: Betas
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Make the call; yields once the head of the answer is there. Leaving cancels what is under way.

        `betas` says what of the agent's `anthropic-beta` is passed on.
        Raises: TimeoutError, aiohttp.ClientError; ValueError where the key cannot be sent.
        """
        query = scope.get("query_string", b"").decode("ascii", "replace")
        if query not in _QUERIES:
            query = ""
        # An answer that is not streamed comes all at once, after as long as it takes.
        patience = self._timeouts.first_byte if streamed else self._timeouts.total
        async with asyncio.timeout(patience):
            response = await self._session.post(
                URL(self._url + path + (f"?{query}" if query else ""), encoded=True),
                # Not bytes: aiohttp writes those in one go, however many.
                data=io.BytesIO(body),
                headers={
                    **passed_on(scope, betas),
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

    async def whole(
        self,
        response: aiohttp.ClientResponse,
        *,
        hold: Callable[[int], None],
        most: int = _LARGEST_WHOLE_ANSWER,
    ) -> bytes:
        """The whole body. `hold` reserves room for each piece of it and raises where there is none.

        Raises: TimeoutError, aiohttp.ClientError, what `hold` raises.
        """
        body = bytearray()
        async for piece in self.pieces(response):
            hold(len(piece))
            body += piece
            if len(body) > most:
                raise AnswerTooLarge("the answer is too large")
        return bytes(body)

    async def error(self, response: aiohttp.ClientResponse) -> bytes:
        """The whole body of an answer that says no. Raises: TimeoutError, aiohttp.ClientError."""
        return await self.whole(response, hold=lambda _: None, most=_LARGEST_ERROR)


Betas = Callable[[str], str]
"""What an agent writes into `anthropic-beta` → what of it the provider gets."""


def passed_on(scope: Scope, betas: Betas) -> dict[str, str]:
    """The agent's headers that the provider gets; its token and all about the connection stay here."""
    found = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    kept = {name: value for name, value in found if name in _PASSED_ON}
    asked = betas(",".join(value for name, value in found if name == _BETAS))
    return {**kept, _BETAS: asked} if asked else kept


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
