"""The agents' own host name: how one gets in there, what is served there, and what no longer is elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp

from ocmt.errors import SetupProblem
from ocmt.gateway.pages import ControlUi
from ocmt.identity.visits.model import BEGIN, SIGN_IN, TICKET_LIFETIME
from ocmt.services.all_in_one import all_in_one_app
from ocmt.testing.clock import VirtualClock
from tests.identity.browser import Answer, Browser
from tests.services.conftest import URL, House
from tests.services.test_routes import routes

pytestmark = pytest.mark.anyio

AGENTS = "http://agents.localhost:8080"
HOST = {"host": "agents.localhost:8080"}
COOKIE = "ocmt-agent"
PAGE = b"<script>1</script>OpenClaw"


@pytest.fixture
def app(house: House, pages: Path) -> ASGIApp:
    folder = pages / "control-ui"
    folder.mkdir()
    (folder / "index.html").write_bytes(PAGE)
    object.__setattr__(house.orchestrator, "pages", ControlUi(folder, strangers_to=BEGIN))
    return all_in_one_app(
        house.management, house.orchestrator, house.database, url=URL, agent_url=AGENTS, ui_dir=pages
    )


@dataclass
class Person:
    """One browser: its jar for the public address, and its jar for the agents' host name."""

    public: Browser
    agents: Browser

    async def at_agents(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        return await self.agents.call(method, path, body, headers={**HOST, **headers})

    async def ticket(self) -> str:
        """Follow the redirects up to the page with the ticket."""
        led = await self.public.call("GET", "/agent/gateway/")
        assert (led.status, led.headers["location"]) == (303, AGENTS + BEGIN)
        begun = await self.at_agents("GET", BEGIN)
        there = begun.headers["location"]
        assert begun.status == 303
        assert there.startswith(f"{URL}/agent/gateway/?for=")
        back = await self.public.call("GET", there.removeprefix(URL))
        assert back.status == 303
        assert back.headers["location"].startswith(f"{AGENTS}{SIGN_IN}#ticket=")
        return back.headers["location"].partition("#ticket=")[2]

    async def enter(self) -> None:
        answer = await self.at_agents("POST", SIGN_IN, {"ticket": await self.ticket()})
        assert answer.status == 200, answer.body


@pytest.fixture
async def anna(house: House, app: ASGIApp) -> Person:
    browser = await house.sign_in("anna@example.org")
    return Person(Browser(app, cookies=browser.cookies), Browser(app, origin=AGENTS))


async def test_one_gets_in_by_a_ticket_and_sees_the_pages_there(anna: Person) -> None:
    page = await anna.at_agents("GET", "/agent/gateway/")
    assert (page.status, page.headers["location"]) == (303, BEGIN)
    await anna.enter()
    page = await anna.at_agents("GET", "/agent/gateway/")
    assert (page.status, page.body) == (200, PAGE)
    policy = page.headers["content-security-policy"]
    assert "connect-src agents.localhost:8080/agent/gateway/ ws://agents.localhost:8080" in policy
    assert "frame-ancestors 'none'" in policy
    assert "localhost:8080 " not in policy.replace("agents.localhost", "")
    assert (await anna.at_agents("GET", "/")).headers["location"] == "/agent/gateway/"


async def test_the_cookies_are_of_that_host_alone_and_out_of_scripts_reach(anna: Person) -> None:
    ticket = await anna.ticket()
    answer = await anna.at_agents("POST", SIGN_IN, {"ticket": ticket})
    for line in answer.headers.getlist("set-cookie"):
        (morsel,) = SimpleCookie(line).values()
        assert (morsel["domain"], morsel["path"], morsel["httponly"]) == ("", "/", True)
        assert morsel["samesite"] == "lax"
    assert anna.agents.cookies.keys() == {COOKIE}
    assert anna.public.cookies.keys() == {"ocmt"}
    assert anna.agents.cookies[COOKIE] not in (ticket, anna.public.cookies["ocmt"])


async def test_a_ticket_works_once_for_a_minute_and_in_the_browser_that_asked(
    anna: Person, app: ASGIApp, clock: VirtualClock
) -> None:
    used = await anna.ticket()
    asker = dict(anna.agents.cookies)
    assert (await anna.at_agents("POST", SIGN_IN, {"ticket": used})).status == 200
    anna.agents.cookies = dict(asker)
    assert (await anna.at_agents("POST", SIGN_IN, {"ticket": used})).status == 401

    late = await anna.ticket()
    await clock.advance(TICKET_LIFETIME.total_seconds() + 1)
    assert (await anna.at_agents("POST", SIGN_IN, {"ticket": late})).status == 401

    # Somebody who hands their own ticket to anna does not get her signed in as themselves.
    mallorys = await anna.ticket()
    victim = Person(anna.public, Browser(app, origin=AGENTS))
    assert (await victim.at_agents("POST", SIGN_IN, {"ticket": mallorys})).status == 401
    await victim.at_agents("GET", BEGIN)
    assert (await victim.at_agents("POST", SIGN_IN, {"ticket": mallorys})).status == 401
    assert COOKIE not in victim.agents.cookies


@pytest.mark.parametrize("origin", [URL, "http://evil.example", "null", "https://agents.localhost:8080"])
async def test_no_other_page_posts_a_ticket(anna: Person, origin: str) -> None:
    answer = await anna.at_agents("POST", SIGN_IN, {"ticket": await anna.ticket()}, origin=origin)
    assert (answer.status, answer.json()["code"]) == (403, "refused")


async def test_the_sessions_end_ends_it(anna: Person, house: House) -> None:
    await anna.enter()
    assert (await anna.public.call("POST", "/api/v1/auth/logout")).status == 204
    page = await anna.at_agents("GET", "/agent/gateway/")
    assert (page.status, page.headers["location"]) == (303, BEGIN)
    assert await anna.agents.open_socket("/agent/gateway", headers=HOST) != "websocket.accept"


@pytest.mark.parametrize("status", ["suspended", "deleting"])
async def test_the_end_of_the_account_ends_it(anna: Person, house: House, status: Any) -> None:
    identity = house.management.accounts.identity
    ben = Person(Browser(anna.public.app), Browser(anna.agents.app, origin=AGENTS))
    ben.public.cookies = (await house.sign_in("ben@example.org")).cookies
    await ben.enter()
    await identity.administer((await identity.user_by_email("ben@example.org")).id, status=status)
    assert (await ben.at_agents("GET", "/agent/gateway/")).status == 303


async def test_neither_cookie_is_any_good_at_the_other_address(anna: Person, house: House) -> None:
    await anna.enter()
    visit, session = anna.agents.cookies[COOKIE], anna.public.cookies["ocmt"]
    for name in ("ocmt", COOKIE):
        there = Browser(anna.public.app, cookies={name: visit})
        assert (await there.call("GET", "/api/v1/me")).status == 401
        assert (await there.call("GET", "/agent/conversations")).status == 401
        back = Browser(anna.agents.app, origin=AGENTS, cookies={name: session})
        assert (await back.call("GET", "/agent/gateway/", headers=HOST)).status == 303
        assert (await back.call("GET", "/agent/gateway/v1/models", headers=HOST)).status == 401


async def test_nothing_but_the_gateway_is_served_there(anna: Person, house: House) -> None:
    """Whatever cookies and origins one brings: every route of the platform, and every page of the UI."""
    await anna.enter()
    anna.agents.cookies["ocmt"] = anna.public.cookies["ocmt"]
    paths = {path for _, path in routes(house)} | {
        "/settings",
        "/index.html",
        "/assets/app-1a2b3c.js",
        "/sign-in",
        "/healthz",
        "/readyz",
        "/metrics",
        "/broker/anthropic/v1/messages",
        "/webhooks/signed/0190f0a0-0000-7000-8000-000000000000",
        "/agent/gatewayx",
        "/agent/../api/v1/me",
    }
    for path in sorted(paths):
        for method in ("GET", "POST"):
            answer = await anna.at_agents(method, path, {} if method == "POST" else None)
            assert answer.status == 404, f"{method} {path}: {answer.status}"
            assert "set-cookie" not in answer.headers
    assert (await anna.public.call("GET", "/api/v1/me")).status == 200, "the session was not ended by it"


async def test_the_public_address_serves_none_of_it_and_says_where_it_is(anna: Person) -> None:
    for method, path in (
        ("GET", "/agent/gateway/assets/a.js"),
        ("GET", "/agent/gateway/v1/models"),
        ("POST", "/agent/gateway/v1/responses"),
        ("POST", "/agent/gateway/"),
        ("POST", SIGN_IN),
        ("GET", BEGIN),
    ):
        answer = await anna.public.call(method, path, {} if method == "POST" else None)
        assert (answer.status, answer.json()["code"]) == (421, "elsewhere"), path
        assert AGENTS in answer.json()["detail"], path
    opened = await anna.public.open_socket("/agent/gateway")
    assert opened == "websocket.http.response.start"
    for host in ("evil.example", "127.0.0.1:8080"):
        answer = await anna.public.call("GET", "/agent/gateway/", headers={"host": host})
        assert answer.headers["location"] == AGENTS + BEGIN
    stranger = await Browser(anna.public.app).call("GET", "/agent/gateway/?for=" + "0" * 64)
    assert (stranger.status, stranger.headers["location"]) == (303, "/")


@pytest.mark.parametrize("binding", ["", "x", "0" * 63, "0" * 65, "%0a" * 64, "A" * 64])
async def test_a_ticket_is_bound_to_a_browser_or_not_given(anna: Person, binding: str) -> None:
    answer = await anna.public.call("GET", f"/agent/gateway/?for={binding}")
    assert answer.status == 403
    framed = await anna.public.call(
        "GET", "/agent/gateway/?for=" + "0" * 64, headers={"sec-fetch-dest": "iframe"}
    )
    assert framed.status == 403


async def test_sockets_there_take_its_own_pages_and_programs_with_keys(anna: Person, house: House) -> None:
    await anna.enter()
    # Past the authentication: without an upgrade to splice it is no handshake.
    assert await anna.agents.open_socket("/agent/gateway", headers=HOST) == "websocket.http.response.start"
    for origin in (URL, "http://evil.example", "null"):
        anna.agents.origin = origin
        refused = await anna.agents._exchange(
            anna.agents._scope(
                "websocket",
                None,
                "/agent/gateway",
                {**HOST, "origin": origin, "cookie": f"{COOKIE}={anna.agents.cookies[COOKIE]}"},
            ),
            b"",
        )
        assert refused[0]["type"] == "websocket.close", origin


async def test_a_session_has_only_so_many_visits(anna: Person, house: House) -> None:
    for _ in range(8):
        await anna.enter()
    async with house.database.connection() as connection:
        assert await connection.fetchval("select count(*) from agent_visits") <= 5


async def test_the_page_that_signs_in_runs_its_own_script_alone(anna: Person) -> None:
    page = await anna.at_agents("GET", SIGN_IN)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert "'unsafe-inline'" not in policy
    assert "frame-ancestors 'none'" in policy
    await anna.at_agents("GET", BEGIN)
    assert (await anna.at_agents("POST", SIGN_IN, b"x" * 5000)).status == 413


def test_a_wrong_address_is_refused_when_the_process_starts(house: House, pages: Path) -> None:
    with pytest.raises(SetupProblem, match="same host"):
        all_in_one_app(
            house.management,
            house.orchestrator,
            house.database,
            url=URL,
            agent_url="http://localhost:9000",
            ui_dir=pages,
        )
