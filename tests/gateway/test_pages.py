"""OpenClaw's own pages: whose they are, what they may do, and what else is not there."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from uuid import uuid4

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from ocmt.gateway.pages import ControlUi
from ocmt.platform.principal import Principal
from tests.identity.browser import Answer, Browser

pytestmark = pytest.mark.anyio

SCRIPT = "globalThis.began = 1;"
PAGE = f'<script data-x="false">{SCRIPT}</script><script type="module" src="./assets/a.js"></script>'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "control-ui"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text(PAGE)
    (folder / "assets" / "a.js").write_text("1;")
    (folder / "favicon.svg").write_text("<svg/>")
    (tmp_path / "secret.txt").write_text("secret")
    return folder


def behind_the_door(pages: ASGIApp, *, signed_in: bool = True) -> Browser:
    inner = Starlette(routes=[Mount("/agent/gateway", app=pages)])

    async def door(scope: Scope, receive: Receive, send: Send) -> None:
        if signed_in:
            scope.setdefault("state", {})["principal"] = Principal(uuid4(), uuid4(), "ada@example.org")
        await inner(scope, receive, send)

    return Browser(door)


async def ask(pages: ASGIApp, path: str, *, signed_in: bool = True, method: str = "GET") -> Answer:
    return await behind_the_door(pages, signed_in=signed_in).call(method, f"/agent/gateway{path}")


async def test_the_page_may_run_its_own_scripts_and_reach_the_gateway_alone(folder: Path) -> None:
    answer = await ask(ControlUi(folder), "/")
    assert answer.body.decode() == PAGE
    fence = dict(part.partition(" ")[::2] for part in answer.headers["content-security-policy"].split("; "))
    own = "localhost:8080/agent/gateway/"
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    assert fence["script-src"] == f"{own} 'sha256-{digest}'"
    assert (
        fence["connect-src"] == f"{own} ws://localhost:8080/agent/gateway wss://localhost:8080/agent/gateway"
    )
    assert fence["default-src"] == fence["form-action"] == fence["frame-ancestors"] == "'none'"
    assert "allow-popups" not in fence["sandbox"]
    assert "allow-top-navigation" not in fence["sandbox"]


@pytest.mark.parametrize("host", ["evil.example; script-src *", "a b", "", "x\r\ny", "[::1]:8080"])
def test_a_host_that_is_no_plain_name_does_not_get_into_the_policy(folder: Path, host: str) -> None:
    policy = ControlUi(folder).fence(host)
    assert "connect-src 'self';" in policy
    assert not host or host not in policy


async def test_its_files_have_the_fence_too(folder: Path) -> None:
    pages = ControlUi(folder)
    script, icon = await ask(pages, "/assets/a.js"), await ask(pages, "/favicon.svg")
    assert (script.body, icon.body) == (b"1;", b"<svg/>")
    assert "immutable" in script.headers["cache-control"]
    assert icon.headers["cache-control"] == "no-cache"
    assert "sandbox" in icon.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/assets/none.js", 404),
        ("/../secret.txt", 404),
        ("/%2e%2e/secret.txt", 404),
        ("/assets/..%2f..%2fsecret.txt", 404),
        ("/chat/main", 303),
        ("/assets", 303),
    ],
)
async def test_what_is_not_there_is_not_found_and_its_own_addresses_lead_to_the_page(
    folder: Path, path: str, status: int
) -> None:
    answer = await ask(ControlUi(folder), path)
    assert answer.status == status
    assert b"secret" not in answer.body
    if status == 303:
        assert answer.headers["location"] == "/agent/gateway/"


async def test_strangers_are_led_to_the_sign_in_and_get_nothing(folder: Path) -> None:
    pages = ControlUi(folder)
    page = await ask(pages, "/", signed_in=False)
    assert (page.status, page.headers["location"], page.body) == (303, "/", b"")
    assert (await ask(pages, "/assets/a.js", signed_in=False)).status == 401


async def test_without_an_openclaw_there_are_none_and_nothing_is_written_to_them(folder: Path) -> None:
    assert (await ask(ControlUi(None), "/")).status == 404
    assert (await ask(ControlUi(folder), "/", method="POST")).status == 404
