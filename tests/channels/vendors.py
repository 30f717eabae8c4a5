"""What the tests of the adapters share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import aiohttp
from aiohttp import web

from ocmt.testing.web import WebDouble


def nowhere() -> aiohttp.ClientSession:
    """A session for adapters that are only to judge what they are given."""
    raise AssertionError("no calls here")


class Served(WebDouble):
    """A server that has one answer to everything."""

    def __init__(self, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> None:
        self._handler = handler

    def _app(self) -> web.Application:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handler)
        return app
