"""Everything that people do, through the reverse proxies of docs/how-to/tls.md, configured as it prints.

Over TLS, on a port that is not 443, with the double of an agent behind it. A proxy that is not installed is
skipped: `scripts/proxies.py` installs all three where it may, and `make test` calls it.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from starlette.types import ASGIApp, Receive, Scope, Send
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from yarl import URL

from ocmt.gateway.pages import ControlUi
from ocmt.identity.visits.model import BEGIN, SIGN_IN
from ocmt.platform.http.addresses import parse_networks
from ocmt.services.all_in_one import all_in_one_app
from ocmt.services.server import serve
from ocmt.testing.clock import VirtualClock
from ocmt.testing.gateway import Hold, Say
from tests.agents.replica import Gateways, time_flies
from tests.channels.test_signed import own_signature
from tests.services.conftest import House
from tests.services.proxies import AGENTS_NAME, NAME, PROXIES, Certificate, find, free_port, running

pytestmark = pytest.mark.anyio

BIG = 16 * 1024**2
"""Bytes of the largest file that may be sent: docs/reference/http.md."""


HERE = "127.0.0.2"
"""Where the browser is: another address of loopback than the proxy's."""


class Loopback(AbstractResolver):
    """Every name is this machine."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=0)
        ]

    async def close(self) -> None:
        pass


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def public_url(port: int) -> str:
    return f"https://{NAME}:{port}"


@pytest.fixture
def agent_url(port: int) -> str:
    return f"https://{AGENTS_NAME}:{port}"


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, for sockets in it, and open to the user that a proxy's workers become."""
    made = Path(tempfile.mkdtemp(prefix="ocmt-proxy-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@dataclass
class Walk:
    """One browser in front of the proxy, and the house behind it."""

    house: House
    gateways: Gateways
    clock: VirtualClock
    http: aiohttp.ClientSession
    certificate: Certificate
    public_url: str
    agent_url: str
    port: int
    pages: Path
    app: ASGIApp

    async def call(self, method: str, path: str, status: int, **given: Any) -> Any:
        headers = {"Origin": self.public_url, **given.pop("headers", {})}
        async with self.http.request(method, self.public_url + path, headers=headers, **given) as response:
            body = await response.read()
            assert response.status == status, (method, path, response.status, body[:500])
            is_json = "json" in response.content_type
            return json.loads(body) if is_json else body

    async def sign_in(self) -> None:
        identity = self.house.management.accounts.identity
        await identity.add_user("anna@example.org", "admin")
        link = await identity.make_link("anna@example.org")
        assert link.startswith(self.public_url)
        token = link.split("#token=")[1]
        await self.call(
            "POST",
            "/api/v1/auth/magic-link/verify",
            200,
            json={"token": token},
            headers={"X-Forwarded-For": "203.0.113.9"},
        )

    def cookies(self, url: str) -> str:
        """The Cookie header of a socket to that address."""
        kept = self.http.cookie_jar.filter_cookies(URL(url))
        return "; ".join(f"{name}={morsel.value}" for name, morsel in kept.items())

    def socket(self, url: str, origin: str) -> connect:
        return connect(
            f"{url.replace('https://', 'wss://')}/agent/gateway",
            ssl=self.certificate.trusting(),
            sock=socket.create_connection(("127.0.0.1", self.port)),
            origin=origin,  # type: ignore[arg-type]
            additional_headers={"Cookie": self.cookies(url)},
            proxy=None,
        )


@asynccontextmanager
async def open_house(house: House, app: ASGIApp, *, port: int = 0) -> AsyncIterator[int]:
    """The house at work behind a port of loopback."""
    listener = socket.create_server(("127.0.0.1", port))
    answers, stop = asyncio.Event(), asyncio.Event()

    async def ready() -> None:
        answers.set()

    rooms = house.orchestrator
    tasks = [
        asyncio.create_task(serve(app, listener, stop=stop, ready=ready, closing=rooms.stream.closing)),
        asyncio.create_task(rooms.reconciler.run()),
        asyncio.create_task(rooms.worker.run()),
        asyncio.create_task(rooms.sockets.run()),
    ]
    try:
        await answers.wait()
        yield int(listener.getsockname()[1])
    finally:
        stop.set()
        await tasks[0]
        for task in tasks[1:]:
            task.cancel()
        await asyncio.wait(tasks)
        await rooms.reconciler.close()


@pytest.fixture(params=PROXIES)
async def walk(
    request: pytest.FixtureRequest,
    house: House,
    gateways: Gateways,
    clock: VirtualClock,
    pages: Path,
    folder: Path,
    port: int,
    public_url: str,
    agent_url: str,
) -> AsyncIterator[Walk]:
    program = find(request.param)
    if program is None:
        pytest.skip(f"needs {request.param}: as root, `make test` installs it (scripts/proxies.py)")
    control_ui = pages / "control-ui"
    control_ui.mkdir()
    (control_ui / "index.html").write_text("OpenClaw's pages")
    certificate = Certificate(folder)

    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        await browser.app(scope, receive, send)

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(time_flies(clock))
        upstream = await stack.enter_async_context(open_house(house, front))
        await stack.enter_async_context(running(program, request.param, folder, port, upstream, certificate))
        http = await stack.enter_async_context(
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    resolver=Loopback(), ssl=certificate.trusting(), local_addr=(HERE, 0)
                ),
                timeout=aiohttp.ClientTimeout(total=60),
            )
        )
        browser = Walk(
            house, gateways, clock, http, certificate, public_url, agent_url, port, pages, house.app
        )
        object.__setattr__(house.orchestrator, "pages", ControlUi(control_ui))
        browser.app = all_in_one_app(
            house.management,
            house.orchestrator,
            house.database,
            url=public_url,
            ui_dir=pages,
            proxies=parse_networks(["127.0.0.1"]),
        )
        await browser.sign_in()
        yield browser


async def test_all_that_people_do_goes_through(walk: Walk) -> None:
    await the_pages(walk)
    await a_chat_that_streams(walk)
    await files_up_and_down(walk)
    await a_signed_webhook(walk)
    await the_gateway(walk)
    await many_tabs(walk)


async def the_pages(walk: Walk) -> None:
    assert b"OCMT" in await walk.call("GET", "/chat", 200)
    me = await walk.call("GET", "/api/v1/me", 200)
    assert me["email"] == "anna@example.org"
    # Who asks is whom the proxy saw, not the proxy, and not what a client claims.
    sessions = await walk.call("GET", "/api/v1/sessions", 200)
    assert sessions["items"][0]["address"] == HERE
    for path in ("/agent/conversations/", "/api/v1/me/"):
        await walk.call("GET", path, 404, allow_redirects=False)


async def a_chat_that_streams(walk: Walk) -> None:
    """Each piece is here before the agent says the next one: nothing on the way waits for more."""
    user = await walk.house.management.accounts.identity.user_by_email("anna@example.org")
    first, second = asyncio.Event(), asyncio.Event()
    walk.gateways.of(user.id).script(Say("one "), Hold(first), Say("two "), Hold(second), Say("three"))
    made = await walk.call("POST", "/agent/conversations", 201, json={})
    room = f"/agent/conversations/{made['id']}"
    turn = {"text": "count"}
    await walk.call("POST", f"{room}/turns", 202, json=turn, headers={"Idempotency-Key": "k"})
    heard = ""
    async with asyncio.timeout(30), walk.http.get(f"{walk.public_url}{room}/events?after=0") as stream:
        assert stream.status == 200
        assert stream.content_type == "text/event-stream"
        assert "content-encoding" not in stream.headers
        async for line in stream.content:
            if not line.startswith(b"data:"):
                continue
            data = json.loads(line.removeprefix(b"data:"))
            heard += data.get("text", "") if "attempt" not in data else ""
            if "one" in heard:
                first.set()
            if "two" in heard:
                assert first.is_set()
                second.set()
            if "message" in data:
                assert data["message"].endswith("one two three")
                break
    assert second.is_set()


async def files_up_and_down(walk: Walk) -> None:
    content = os.urandom(BIG)
    kept = await walk.call(
        "POST",
        "/agent/attachments?name=gr%C3%B6%C3%9Fe.bin",
        201,
        data=io.BytesIO(content),
        headers={"Content-Type": "application/pdf"},
    )
    assert kept["size"] == BIG
    assert await walk.call("GET", f"/agent/attachments/{kept['id']}", 200) == content
    too_large = await walk.call(
        "POST",
        "/agent/attachments?name=x.bin",
        413,
        data=io.BytesIO(content + b"x" * 2 * 1024**2),
        headers={"Content-Type": "application/pdf"},
    )
    assert too_large["code"] == "too_large", "the answer is ours, not the proxy's"


async def a_signed_webhook(walk: Walk) -> None:
    """The signature is over the very bytes: odd blanks and characters beyond ASCII come through."""
    made = await walk.call("POST", "/agent/channels", 201, json={"channel": "signed"})
    assert made["webhook_url"].startswith(f"{walk.public_url}/webhooks/signed/")
    path = made["webhook_url"].removeprefix(walk.public_url)
    body = '{ "text" :\t"Grüße  \\u0000",\r\n\n "x": [1 , 2]}'.encode()
    moment = str(int(walk.clock.now().timestamp()))
    signed = {
        "webhook-id": "m1",
        "webhook-timestamp": moment,
        "webhook-signature": own_signature(made["secret"], "m1", moment, body),
        "content-type": "application/json",
    }
    await walk.call("POST", path, 200, data=body, headers=signed)
    await walk.call("POST", path, 401, data=body + b" ", headers=signed)


async def the_gateway(walk: Walk) -> None:
    async with walk.http.get(f"{walk.public_url}/agent/gateway", allow_redirects=False) as response:
        assert response.headers["location"] == "/agent/gateway/"
    async with walk.http.get(f"{walk.public_url}/agent/gateway/") as response:
        assert (response.status, await response.text()) == (200, "OpenClaw's pages")
        # With the port: without it the page would not be allowed its own scripts.
        policy = response.headers["content-security-policy"]
        assert f"script-src {NAME}:{walk.port}/agent/gateway/" in policy
        assert f"wss://{NAME}:{walk.port}/agent/gateway" in policy
    async with walk.socket(walk.public_url, walk.public_url) as client:
        assert json.loads(await client.recv())["event"] == "connect.challenge"
    with pytest.raises(InvalidStatus) as refused:
        async with walk.socket(walk.public_url, "https://evil.example"):
            pass
    assert refused.value.response.status_code == 403

    walk.app = all_in_one_app(
        walk.house.management,
        walk.house.orchestrator,
        walk.house.database,
        url=walk.public_url,
        agent_url=walk.agent_url,
        ui_dir=walk.pages,
        proxies=parse_networks(["127.0.0.1"]),
    )
    async with walk.http.get(f"{walk.public_url}/agent/gateway/") as response:
        assert response.status == 200
        ways = [passed.headers["location"] for passed in response.history]
    sign_in, _, ticket = ways[-1].partition("#ticket=")
    assert [way.partition("?")[0] for way in ways[:-1]] == [
        f"{walk.agent_url}{BEGIN}",
        f"{walk.public_url}/agent/gateway/",
    ]
    assert sign_in == f"{walk.agent_url}{SIGN_IN}"
    own = {"Origin": walk.agent_url}
    async with walk.http.post(sign_in, json={"ticket": ticket}, headers=own) as response:
        assert response.status == 200, await response.text()
    async with walk.http.get(f"{walk.agent_url}/agent/gateway/") as response:
        assert (response.status, await response.text()) == (200, "OpenClaw's pages")
    async with walk.socket(walk.agent_url, walk.agent_url) as client:
        assert json.loads(await client.recv())["event"] == "connect.challenge"
    async with walk.http.get(f"{walk.agent_url}/api/v1/me") as response:
        assert response.status == 404


async def many_tabs(walk: Walk) -> None:
    """A browser that can speaks HTTP/2, over which any number of streams share one connection."""
    context = walk.certificate.trusting("h2", "http/1.1")
    _, writer = await asyncio.open_connection("127.0.0.1", walk.port, ssl=context, server_hostname=NAME)
    spoken = writer.get_extra_info("ssl_object").selected_alpn_protocol()
    writer.transport.abort()
    assert spoken == "h2"
