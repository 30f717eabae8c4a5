"""Identity over HTTP, as a browser and as a program meet it."""

from __future__ import annotations

import re

import pytest
from fastapi import FastAPI
from starlette.types import ASGIApp

from ocmt.identity.middleware import Authentication
from ocmt.identity.routes import routes
from ocmt.identity.service import Identity
from ocmt.platform.database import Database
from ocmt.platform.http import exception_handlers
from ocmt.testing.clock import VirtualClock

from .browser import Browser
from .conftest import Letters

pytestmark = pytest.mark.anyio

ME = "/api/v1/me"
SESSIONS = "/api/v1/sessions"
USERS = "/api/v1/admin/users"
LINK = "/api/v1/auth/magic-link"
VERIFY = "/api/v1/auth/magic-link/verify"
LOGOUT = "/api/v1/auth/logout"
OPEN_TO_ALL = {("POST", LINK), ("POST", VERIFY)}


def build(identity: Identity) -> tuple[FastAPI, ASGIApp]:
    api = FastAPI(exception_handlers=exception_handlers())
    api.include_router(routes(identity, identity._clock), prefix="/api/v1")
    return api, Authentication(api, identity.entrance, identity.address)


@pytest.fixture
def app(identity: Identity) -> ASGIApp:
    return build(identity)[1]


async def suspend(identity: Identity, email: str) -> None:
    await identity.administer((await identity.user_by_email(email)).id, status="suspended")


async def signed_in(app: ASGIApp, identity: Identity, email: str) -> Browser:
    if email not in {user.email for user in await identity.users()}:
        await identity.add_user(email)
    browser = Browser(app)
    answer = await browser.call("POST", VERIFY, {"token": (await identity.make_link(email)).split("=")[1]})
    assert answer.status == 200, answer.body
    return browser


class TestSigningIn:
    async def test_by_a_letter_from_address_to_cookie(
        self, app: ASGIApp, identity: Identity, letters: Letters
    ) -> None:
        await identity.add_user("ada@example.org", name="Ada")
        browser = Browser(app)
        answer = await browser.call("POST", LINK, {"email": "Ada@Example.org"})
        assert (answer.status, answer.body) == (202, b"")
        answer = await browser.call("POST", VERIFY, {"token": letters.last_token()})
        assert answer.status == 200
        assert answer.headers["cache-control"] == "no-store"
        me = answer.json()
        assert {name: me[name] for name in ("email", "name", "is_admin")} == {
            "email": "ada@example.org",
            "name": "Ada",
            "is_admin": True,
        }
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", me["created_at"])
        assert me.pop("mfa_required") is False
        assert (await browser.call("GET", ME)).json() == me | {"must_enrol": False, "impersonated_by": None}

    async def test_an_address_without_user_gets_the_same_answer(
        self, app: ASGIApp, identity: Identity, letters: Letters
    ) -> None:
        await identity.add_user("ada@example.org")
        known = await Browser(app).call("POST", LINK, {"email": "ada@example.org"})
        unknown = await Browser(app).call("POST", LINK, {"email": "eve@example.org"})
        assert (known.status, known.body) == (unknown.status, unknown.body)
        assert dict(known.headers).keys() == dict(unknown.headers).keys()
        assert [to for to, _, _ in letters.sent] == ["ada@example.org"]

    async def test_on_loopback_the_cookie_is_plain_but_out_of_reach_of_scripts(
        self, app: ASGIApp, identity: Identity
    ) -> None:
        await identity.add_user("ada@example.org")
        token = (await identity.make_link("ada@example.org")).split("=")[1]
        cookie = (await Browser(app).call("POST", VERIFY, {"token": token})).headers["set-cookie"]
        name_and_value, *attributes = cookie.split("; ")
        assert re.fullmatch(r"ocmt=[\w-]{43}", name_and_value)
        assert {each.lower() for each in attributes} == {
            "httponly",
            "max-age=2592000",
            "path=/",
            "samesite=lax",
        }

    async def test_behind_tls_the_cookie_is_bound_to_host_and_tls(
        self, database: Database, letters: Letters, clock: VirtualClock
    ) -> None:
        identity = Identity.over(database, letters, clock, public_url="https://agents.example.org")
        _, app = build(identity)
        token = (await identity.make_start_link() or "").split("=")[1]
        browser = Browser(app, origin="https://agents.example.org")
        cookie = (await browser.call("POST", VERIFY, {"token": token})).headers["set-cookie"]
        assert cookie.startswith("__Host-ocmt=")
        assert "; secure" in cookie.lower()
        assert (await browser.call("GET", ME)).status == 200
        plain = Browser(app, cookies={"ocmt": browser.cookies["__Host-ocmt"]})
        assert (await plain.call("GET", ME)).status == 401

    async def test_the_mere_visit_of_a_link_does_not_use_it_up(
        self, app: ASGIApp, identity: Identity
    ) -> None:
        await identity.add_user("ada@example.org")
        token = (await identity.make_link("ada@example.org")).split("=")[1]
        scanner = Browser(app)
        for method in ("GET", "HEAD", "OPTIONS"):
            assert (await scanner.call(method, f"{VERIFY}?token={token}")).status == 405
        assert (await Browser(app).call("POST", VERIFY, {"token": token})).status == 200

    async def test_another_site_cannot_sign_its_visitor_in(self, app: ASGIApp, identity: Identity) -> None:
        token = (await identity.make_start_link() or "").split("=")[1]
        answer = await Browser(app, origin="https://evil.org").call("POST", VERIFY, {"token": token})
        assert (answer.status, answer.json()["code"]) == (403, "refused")
        program = Browser(app, origin=None)
        assert (await program.call("POST", VERIFY, {"token": token})).status == 200

    async def test_a_used_link_is_answered_in_plain_words(self, app: ASGIApp, identity: Identity) -> None:
        answer = await Browser(app).call("POST", VERIFY, {"token": "x" * 43})
        assert (answer.status, answer.json()["code"]) == (401, "unauthenticated")
        assert "ask for a new one" in answer.body.decode()

    async def test_signing_in_again_ends_the_session_that_the_cookie_had(
        self, app: ASGIApp, identity: Identity
    ) -> None:
        browser = await signed_in(app, identity, "ada@example.org")
        before = Browser(app, cookies=dict(browser.cookies))
        token = (await identity.make_link("ada@example.org")).split("=")[1]
        await browser.call("POST", VERIFY, {"token": token})
        assert (await browser.call("GET", ME)).status == 200
        assert (await before.call("GET", ME)).status == 401

    @pytest.mark.parametrize(
        "body", [None, {}, {"email": 1}, {"email": "nobody"}, {"email": "a@b.c", "more": 1}, [], "x"]
    )
    async def test_nonsense_is_invalid_input(self, app: ASGIApp, body: object) -> None:
        answer = await Browser(app).call("POST", LINK, body)
        assert (answer.status, answer.json()["code"]) == (400, "invalid_input")


class TestWhoMayEnter:
    async def test_every_route_but_the_entrance_asks_who_you_are(self, identity: Identity) -> None:
        api, app = build(identity)
        visitor = Browser(app)
        asked = set()
        for path, operations in api.openapi()["paths"].items():
            url = path.replace("{session_id}", "0192f0c1-2345-7890-abcd-0123456789ab")
            for method in map(str.upper, operations):
                if (method, url) not in OPEN_TO_ALL:
                    answer = await visitor.call(method, url, {})
                    assert (answer.status, answer.json()["code"]) == (401, "unauthenticated"), (method, url)
                    asked.add((method, url))
        assert len(asked) == 9

    async def test_the_session_of_another_is_not_found(self, app: ASGIApp, identity: Identity) -> None:
        ada = await signed_in(app, identity, "ada@example.org")
        bob = await signed_in(app, identity, "bob@example.org")
        [session] = (await ada.call("GET", SESSIONS)).json()["items"]
        answer = await bob.call("DELETE", f"{SESSIONS}/{session['id']}")
        assert (answer.status, answer.json()["code"]) == (404, "not_found")
        assert (await ada.call("GET", ME)).status == 200

    async def test_only_administrators_see_and_add_users(self, app: ASGIApp, identity: Identity) -> None:
        await signed_in(app, identity, "ada@example.org")
        bob = await signed_in(app, identity, "bob@example.org")
        for method, body in (("GET", None), ("POST", {"email": "eve@example.org"})):
            answer = await bob.call(method, USERS, body)
            assert (answer.status, answer.json()["code"]) == (403, "refused")

    async def test_a_suspended_user_is_out_at_once(self, app: ASGIApp, identity: Identity) -> None:
        await signed_in(app, identity, "ada@example.org")
        bob = await signed_in(app, identity, "bob@example.org")
        assert (await bob.call("GET", ME)).status == 200
        await suspend(identity, "bob@example.org")
        assert (await bob.call("GET", ME)).status == 401

    @pytest.mark.parametrize("value", ["", "x", "a" * 5000, "\xff\xfe", "%00", '"', "ocmt"])
    async def test_a_made_up_cookie_is_nobody(self, app: ASGIApp, value: str) -> None:
        assert (await Browser(app, cookies={"ocmt": value}).call("GET", ME)).status == 401


class TestWritesFromElsewhere:
    @pytest.mark.parametrize("origin", ["https://evil.org", "http://localhost:3000", "null", None])
    async def test_a_write_with_the_cookie_needs_our_own_origin(
        self, app: ASGIApp, identity: Identity, origin: str | None
    ) -> None:
        browser = await signed_in(app, identity, "ada@example.org")
        browser.origin = origin
        for method, url in (("PATCH", ME), ("POST", LOGOUT), ("POST", USERS), ("DELETE", f"{SESSIONS}/x")):
            answer = await browser.call(method, url, {})
            assert (answer.status, answer.json()["code"]) == (403, "refused")
        assert (await browser.call("GET", ME)).status == 200

    async def test_without_origin_the_browser_may_vouch_for_it(
        self, app: ASGIApp, identity: Identity
    ) -> None:
        browser = await signed_in(app, identity, "ada@example.org")
        browser.origin = None
        answer = await browser.call("PATCH", ME, {}, headers={"sec-fetch-site": "same-origin"})
        assert answer.status == 200

    async def test_other_names_of_this_machine_are_our_own(self, app: ASGIApp, identity: Identity) -> None:
        browser = await signed_in(app, identity, "ada@example.org")
        browser.origin = "http://127.0.0.1:8080"
        assert (await browser.call("PATCH", ME, {})).status == 200

    async def test_a_socket_with_the_cookie_needs_our_own_origin_too(
        self, app: ASGIApp, identity: Identity
    ) -> None:
        reached = []

        async def inner(scope: object, receive: object, send: object) -> None:
            reached.append(scope)
            await send({"type": "websocket.accept"})  # type: ignore[operator]

        browser = await signed_in(app, identity, "ada@example.org")
        browser.app = Authentication(inner, identity.entrance, identity.address)
        assert await browser.open_socket("/agent/gateway") == "websocket.accept"
        browser.origin = "https://evil.org"
        assert await browser.open_socket("/agent/gateway") == "websocket.close"
        assert len(reached) == 1


class TestOneself:
    async def test_the_first_administrator_takes_a_proper_name(
        self, app: ASGIApp, identity: Identity
    ) -> None:
        browser = Browser(app)
        await browser.call("POST", VERIFY, {"token": (await identity.make_start_link() or "").split("=")[1]})
        answer = await browser.call("PATCH", ME, {"name": "Ada", "email": "Ada@example.org"})
        assert (answer.json()["name"], answer.json()["email"]) == ("Ada", "ada@example.org")
        answer = await browser.call("PATCH", ME, {"name": None})
        assert (answer.json()["name"], answer.json()["email"]) == (None, "ada@example.org")

    async def test_is_admin_is_not_ones_own_to_change(self, app: ASGIApp, identity: Identity) -> None:
        await signed_in(app, identity, "ada@example.org")
        bob = await signed_in(app, identity, "bob@example.org")
        assert (await bob.call("PATCH", ME, {"is_admin": True})).status == 400

    async def test_the_list_of_sessions_marks_the_one_that_asks(
        self, app: ASGIApp, identity: Identity
    ) -> None:
        here = await signed_in(app, identity, "ada@example.org")
        there = await signed_in(app, identity, "ada@example.org")
        items = (await here.call("GET", SESSIONS)).json()["items"]
        assert sorted(each["current"] for each in items) == [False, True]
        [other] = [each["id"] for each in items if not each["current"]]
        assert (await here.call("DELETE", f"{SESSIONS}/{other}")).status == 204
        assert (await there.call("GET", ME)).status == 401
        assert (await here.call("GET", ME)).status == 200
        assert (await here.call("DELETE", f"{SESSIONS}/{other}")).status == 404

    async def test_signing_out_takes_the_cookie_and_ends_the_session(
        self, app: ASGIApp, identity: Identity
    ) -> None:
        browser = await signed_in(app, identity, "ada@example.org")
        kept = Browser(app, cookies=dict(browser.cookies))
        answer = await browser.call("POST", LOGOUT)
        assert (answer.status, answer.body) == (204, b"")
        assert browser.cookies == {}
        assert (await kept.call("GET", ME)).status == 401


class TestAdministration:
    async def test_whom_the_administrator_adds_can_sign_in(
        self, app: ASGIApp, identity: Identity, letters: Letters
    ) -> None:
        ada = await signed_in(app, identity, "ada@example.org")
        answer = await ada.call("POST", USERS, {"email": "Bob@example.org", "name": "Bob"})
        assert answer.status == 201
        added = answer.json()
        assert (added["email"], added["is_admin"], added["status"]) == ("bob@example.org", False, "active")
        assert (await ada.call("POST", USERS, {"email": "bob@example.org"})).status == 409
        bob = Browser(app)
        await bob.call("POST", LINK, {"email": "bob@example.org"})
        assert (await bob.call("POST", VERIFY, {"token": letters.last_token()})).status == 200

    async def test_a_link_opened_in_another_browser_asks_back_and_stays_good(
        self, app: ASGIApp, identity: Identity, letters: Letters
    ) -> None:
        await identity.add_user("ada@example.org")
        await Browser(app).call("POST", LINK, {"email": "ada@example.org"})
        other, token = Browser(app), letters.last_token()
        answer = await other.call("POST", VERIFY, {"token": token})
        assert (answer.status, answer.json()["code"]) == (409, "confirmation_needed")
        assert (await other.call("POST", VERIFY, {"token": token, "confirm": True})).status == 200
        assert (await other.call("POST", VERIFY, {"token": token, "confirm": True})).status == 401

    async def test_users_come_page_by_page(
        self, app: ASGIApp, identity: Identity, clock: VirtualClock
    ) -> None:
        ada = await signed_in(app, identity, "ada@example.org")
        for number in range(4):
            await clock.advance(1)
            await identity.add_user(f"user{number}@example.org")
        first = (await ada.call("GET", f"{USERS}?limit=3")).json()
        rest = (await ada.call("GET", f"{USERS}?limit=3&after={first['next']}")).json()
        assert [len(first["items"]), len(rest["items"]), rest["next"]] == [3, 2, None]
        assert first["items"][0]["email"] == "ada@example.org"
        found = (await ada.call("GET", f"{USERS}?search=USER2")).json()["items"]
        assert [user["email"] for user in found] == ["user2@example.org"]
        assert (await ada.call("GET", f"{USERS}?search=%25")).json()["items"] == [], "no pattern, but text"
        assert (await ada.call("GET", f"{USERS}?limit=0")).status == 400
