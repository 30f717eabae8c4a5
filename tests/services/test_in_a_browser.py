"""What a real browser makes of an agent's bytes, and of two host names. The agents are doubles."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page
from starlette.responses import HTMLResponse
from starlette.types import Receive, Scope, Send

from ocmt.gateway.pages import ControlUi
from ocmt.identity.visits.model import BEGIN
from ocmt.services.all_in_one import all_in_one_app
from ocmt.testing.clock import VirtualClock
from tests.agents.replica import time_flies
from tests.browser.conftest import browser, chromium
from tests.gateway.test_splice import raw_upstream
from tests.gateway.wire import joined
from tests.platform.test_headers import served
from tests.services.conftest import House
from tests.services.proxies import free_port
from tests.services.test_proxies import open_house

__all__ = ["browser", "chromium"]

pytestmark = [pytest.mark.anyio, pytest.mark.browser]

CONNECTS = """(address) => new Promise((resolve) => {
  const socket = new WebSocket(address);
  socket.onopen = () => resolve("open");
  socket.onerror = () => resolve("refused");
})"""
EVIL = b"Set-Cookie: ocmt=evil; Path=/"
ATTACKS = {
    "a line feed": b"\n" + EVIL,
    "a carriage return": b"\r" + EVIL,
    "both": b"\r\n" + EVIL,
    "a line feed and a blank": b"\n " + EVIL,
    "a subprotocol": b"\r\nSec-WebSocket-Protocol: a\n" + EVIL,
    "an extension": b"\r\nSec-WebSocket-Extensions: x\n" + EVIL,
}


@asynccontextmanager
async def hostile_agent(attack: bytes) -> AsyncIterator[int]:
    """An agent that answers every upgrade rightly, and has more to say."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        found = re.search(rb"(?i)sec-websocket-key: (\S+)", head)
        assert found is not None
        accept = hashlib.sha1(found[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + base64.b64encode(accept) + attack + b"\r\n\r\n"
        )
        await reader.read()
        writer.close()

    server, port = await raw_upstream(answer)
    async with server:
        yield port


async def cookies_after(page: Page, port: int) -> list[str]:
    """The cookies that the browser has once the page has opened a socket to that port."""
    await page.evaluate(CONNECTS, f"ws://127.0.0.1:{port}/")
    return [cookie["name"] for cookie in await page.context.cookies()]


async def test_an_agent_sets_no_cookie_in_its_users_browser(browser: Browser) -> None:
    """The finding, in Chromium; and first that Chromium does obey such an answer where nobody is between."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await joined(scope, receive, send, port=port)
        else:
            await HTMLResponse("<p>page</p>")(scope, receive, send)

    obeyed = []
    async with served(app) as address:
        for name, attack in ATTACKS.items():
            async with hostile_agent(attack) as port:
                for through, target in ((False, port), (True, address[1])):
                    context = await browser.new_context()
                    page = await context.new_page()
                    await page.goto(f"http://127.0.0.1:{address[1]}/")
                    set_by_it = await cookies_after(page, target)
                    await context.close()
                    if through:
                        assert set_by_it == [], name
                    elif set_by_it:
                        obeyed.append(name)
    assert "a line feed" in obeyed, "the test would see it"


# Two host names

SCRIPT = """
const socket = new WebSocket(`ws://${location.host}/agent/gateway`);
socket.onmessage = (event) => {
  document.body.dataset.said = JSON.parse(event.data).event;
};
"""
REACHES = """async (address) => {
  try { return (await fetch(address, { credentials: "include" })).status; }
  catch (error) { return "nothing"; }
}"""


@dataclass
class Names:
    public: str
    agents: str


@pytest.fixture
def names() -> Names:
    port = free_port()
    return Names(f"http://localhost:{port}", f"http://agents.localhost:{port}")


@pytest.fixture
def public_url(names: Names) -> str:
    return names.public


async def test_what_agents_show_is_at_its_own_host_name(
    browser: Browser, house: House, names: Names, pages: Path, clock: VirtualClock
) -> None:
    folder = pages / "control-ui"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text('<!doctype html><body><script src="./assets/a.js"></script>')
    (folder / "assets" / "a.js").write_text(SCRIPT)
    object.__setattr__(house.orchestrator, "pages", ControlUi(folder, strangers_to=BEGIN))
    app = all_in_one_app(
        house.management,
        house.orchestrator,
        house.database,
        url=names.public,
        agent_url=names.agents,
        ui_dir=pages,
    )
    identity = house.management.accounts.identity
    await identity.add_user("anna@example.org", "admin")
    link = await identity.make_link("anna@example.org")
    port = int(names.public.rpartition(":")[2])
    async with time_flies(clock), open_house(house, app, port=port):
        context = await browser.new_context()
        page = await context.new_page()
        await page.goto(names.public)
        signed_in = await page.evaluate(
            """async (token) => (await fetch("/api/v1/auth/magic-link/verify", {
              method: "POST",
              headers: { "Content-Type": "application/json" },
              body: JSON.stringify({ token }),
            })).status""",
            link.split("#token=")[1],
        )
        assert signed_in == 200

        await page.goto(f"{names.public}/agent/gateway/")
        await page.wait_for_url(f"{names.agents}/agent/gateway/")
        await page.wait_for_selector("body[data-said='connect.challenge']", state="attached")
        kept = {(cookie["domain"], cookie["name"]) for cookie in await context.cookies()}
        assert kept == {("localhost", "ocmt"), ("agents.localhost", "ocmt-agent")}
        assert await page.evaluate("document.cookie") == ""
        assert "#" not in page.url
        for address in (f"{names.public}/api/v1/me", f"{names.agents}/api/v1/me", f"{names.agents}/agent"):
            assert await page.evaluate(REACHES, address) == "nothing", address

        home = await context.new_page()
        await home.goto(names.public)
        frame = """(address) => {
          const frame = document.createElement("iframe");
          frame.src = address;
          document.body.append(frame);
          return new Promise((resolve) => { frame.onload = () => resolve(frame.contentDocument !== null); });
        }"""
        assert not await home.evaluate(frame, f"{names.agents}/agent/gateway/"), "not to be looked into"
        for inner in home.frames[1:]:
            assert "data-said" not in await inner.content()
        left = """async () => (await fetch("/api/v1/auth/logout", {
          method: "POST", headers: { "Content-Type": "application/json" }, body: "{}",
        })).status"""
        assert await home.evaluate(left) == 204
        await page.goto(f"{names.agents}/agent/gateway/")
        assert page.url == f"{names.public}/", "signed out here is signed out there"
        await context.close()
