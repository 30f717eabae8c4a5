"""What servers answer is never unpacked: a few bytes could become gigabytes."""

from __future__ import annotations

import gzip

import aiohttp
import pytest
from aiohttp import web

from ocmt.channels.wire import public_session
from ocmt.platform.http import client_session

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("public", [False, True])
async def test_an_answer_that_is_packed_stays_packed(public: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocmt.channels.wire.is_public", lambda address: True)
    packed = gzip.compress(bytes(64 * 1024 * 1024))
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.headers["Accept-Encoding"])
        return web.Response(body=packed, headers={"Content-Encoding": "gzip"})

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        port = runner.addresses[0][1]
        session: aiohttp.ClientSession = public_session() if public else client_session()
        async with session, session.get(f"http://127.0.0.1:{port}/") as response:
            assert await response.read() == packed
    finally:
        await runner.cleanup()
    assert asked == ["identity"]
