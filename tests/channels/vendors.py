"""What the tests of the adapters share."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from uuid import UUID, uuid4

import aiohttp
from aiohttp import web
from hypothesis import strategies as st

from ocmt.channels.base import Channel, Endpoint, Incoming
from ocmt.testing.web import WebDouble

Adapter = TypeVar("Adapter")
Session = Callable[[], aiohttp.ClientSession]

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
"""What a stranger may put in any place."""


def nowhere() -> aiohttp.ClientSession:
    """A session for adapters that are only to judge what they are given."""
    raise AssertionError("no calls here")


@asynccontextmanager
async def calling(adapter: Callable[[Session, str], Adapter], url: str) -> AsyncIterator[Adapter]:
    """An adapter whose vendor is at that address."""
    async with aiohttp.ClientSession() as session:
        yield adapter(lambda: session, url)


async def connected(
    channel: Channel, fields: Mapping[str, str], url: str, endpoint_id: UUID | None = None
) -> Endpoint:
    """As the service connects one: the endpoint, with its webhook registered."""
    made = await channel.connect(fields)
    endpoint = Endpoint(endpoint_id or uuid4(), uuid4(), channel.name, made.secrets, made.settings)
    await channel.register(endpoint, url)
    return endpoint


def raw(body: object) -> bytes:
    """As it is sent: bytes as they are, anything else as JSON."""
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def incoming(body: bytes, signed: Mapping[str, str], **headers: Any) -> Incoming:
    """A webhook with the headers that prove it; `headers`: further ones or others, `_` for `-`."""
    return Incoming({**signed, **{name.replace("_", "-"): value for name, value in headers.items()}}, body)


async def arrived(request: web.Request) -> Incoming:
    """What came to a server."""
    return Incoming({name.lower(): value for name, value in request.headers.items()}, await request.read())


def assert_whole(text: str, pieces: Sequence[str], most: int) -> None:
    """Nothing but white space is lost, and no piece is empty or over the bound."""
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(0 < len(piece) <= most for piece in pieces)


class Served(WebDouble):
    """A server that has one answer to everything."""

    def __init__(self, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> None:
        self._handler = handler

    def _app(self) -> web.Application:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handler)
        return app
