"""API keys: what they look like, what they may do, and when they are dead."""

from __future__ import annotations

import base64
import re
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import ASGIApp, Receive, Scope, Send

from ocmt.identity.accounts import Accounts
from ocmt.identity.api_keys import model
from ocmt.identity.middleware import Authentication
from ocmt.identity.model import token_hash
from ocmt.platform.database import Database
from ocmt.testing.clock import VirtualClock

from ..browser import Browser
from ..conftest import let_in

pytestmark = pytest.mark.anyio

KEYS = "/api/v1/api-keys"
ME = "/api/v1/me"
READ = {"name": "script", "scopes": ["account:read"]}


async def made(browser: Browser, **changes: object) -> str:
    answer = await browser.call("POST", KEYS, READ | changes)
    assert answer.status == 201, answer.body
    assert answer.headers["cache-control"] == "no-store"
    return str(answer.json()["key"])


async def with_key(front: ASGIApp, key: str, method: str, path: str, body: object = None) -> int:
    """The status of a program's request: no cookie, no Origin."""
    program = Browser(front, origin=None)
    answer = await program.call(method, path, body, headers={"authorization": f"Bearer {key}"})
    return answer.status


class TestLooks:
    def test_a_key_is_known_by_its_looks(self) -> None:
        key = model.new_key()
        assert re.fullmatch(r"ocmt_[\w-]{43}[0-9A-Za-z]{6}", key)
        assert model.is_key(key)

    @given(st.integers(5, 53), st.characters(codec="ascii", categories=["L", "N"]))
    def test_one_wrong_character_and_it_is_none(self, place: int, character: str) -> None:
        key = model.new_key()
        changed = key[:place] + character + key[place + 1 :]
        assert model.is_key(changed) is (changed == key)

    def test_those_of_the_old_production_are_known_too(self) -> None:
        assert model.is_key("opw_live_" + "0f" * 16)
        assert not model.is_key("opw_live_" + "0F" * 16)
        assert not model.is_key("opw_live_0f")

    @given(st.text())
    def test_nothing_else_is(self, text: str) -> None:
        assert not model.is_key(text)


class TestUse:
    async def test_it_serves_a_program_and_is_shown_once(self, front: ASGIApp, accounts: Accounts) -> None:
        browser = await let_in(front, accounts, "ada@example.org")
        key = await made(browser)
        assert await with_key(front, key, "GET", ME) == 200
        listed = (await browser.call("GET", KEYS)).json()["items"]
        assert [(each["name"], each["prefix"], each["scopes"]) for each in listed] == [
            ("script", key[:12], ["account:read"])
        ]
        assert key not in str(listed)
        assert listed[0]["last_used_at"] is not None
        assert listed[0]["last_address"] == "127.0.0.1"

    async def test_on_a_socket_it_may_stand_in_the_address_and_nowhere_else(
        self, front: ASGIApp, accounts: Accounts
    ) -> None:
        """Programs make `Basic` of that. So does a browser, perhaps with another site's page behind it."""
        reached: list[Scope] = []

        async def inner(scope: Scope, receive: Receive, send: Send) -> None:
            reached.append(scope)
            await send({"type": "websocket.accept"})

        key = await made(await let_in(front, accounts, "ada@example.org"), scopes=["agent:write"])
        door = Authentication(
            inner, accounts.identity.entrance, accounts.identity.address, bearers=accounts.bearers
        )

        async def opens(said: str, *, origin: str | None = None) -> bool:
            program = Browser(door, origin=origin)
            shown = {"authorization": f"Basic {base64.b64encode(said.encode()).decode()}"}
            opened = await program.open_socket("/agent/gateway", headers=shown)
            return opened == "websocket.accept" and "principal" in reached[-1]["state"]

        assert await opens(f"ocmt:{key}")
        assert await opens(f":{key}")
        for said in ("", key, f"{key}:", f"ocmt:{key}:", "ocmt:wrong"):
            assert not await opens(said)
        assert not await opens(f"ocmt:{key}", origin="http://localhost:8080")
        shown = {"authorization": "Basic " + base64.b64encode(f"ocmt:{key}".encode()).decode()}
        assert (await Browser(front, origin=None).call("GET", ME, headers=shown)).status == 401
        for nonsense in ("Basic =!", "Basic \xe9", "Basic"):
            program = Browser(door, origin=None)
            opened = await program.open_socket("/agent/gateway", headers={"authorization": nonsense})
            assert opened == "websocket.close", nonsense

    async def test_what_it_has_no_scope_for_is_refused(self, front: ASGIApp, accounts: Accounts) -> None:
        key = await made(await let_in(front, accounts, "ada@example.org"))
        assert await with_key(front, key, "PATCH", ME, {"name": "Eve"}) == 403
        assert await with_key(front, key, "GET", "/api/v1/admin/users") == 403
        assert await with_key(front, key, "GET", KEYS) == 403, "a key neither sees nor makes keys"
        assert await with_key(front, key, "POST", KEYS, READ) == 403

    async def test_an_imported_one_goes_on_working(
        self, front: ASGIApp, accounts: Accounts, database: Database, clock: VirtualClock
    ) -> None:
        user = await accounts.identity.add_user("ada@example.org")
        key = "opw_live_" + "0f" * 16
        async with database.connection() as connection:
            await connection.execute(
                "insert into api_keys (id, user_id, name, prefix, key_hash, scopes, created_at)"
                " values (gen_random_uuid(), $1, 'old', 'opw_live_0f0', $2, '{account:read}', $3)",
                user.id,
                token_hash(key),
                clock.now(),
            )
        assert await with_key(front, key, "GET", ME) == 200

    async def test_its_last_use_is_written_every_five_minutes(
        self, front: ASGIApp, accounts: Accounts, clock: VirtualClock
    ) -> None:
        browser = await let_in(front, accounts, "ada@example.org")
        key, began = await made(browser), clock.now()
        for minutes, seen in ((0, 0), (4, 0), (1, 5)):
            await clock.advance(minutes * 60)
            await with_key(front, key, "GET", ME)
            (listed,) = await accounts.api_keys.list((await accounts.identity.users())[0].id)
            assert listed.last_used_at == began + timedelta(minutes=seen)


class TestItsEnd:
    async def test_revoked_it_is_dead_at_once(self, front: ASGIApp, accounts: Accounts) -> None:
        browser = await let_in(front, accounts, "ada@example.org")
        key = await made(browser)
        (listed,) = (await browser.call("GET", KEYS)).json()["items"]
        assert (await browser.call("DELETE", f"{KEYS}/{listed['id']}")).status == 204
        assert await with_key(front, key, "GET", ME) == 401
        assert (await browser.call("DELETE", f"{KEYS}/{listed['id']}")).status == 404

    async def test_it_expires(self, front: ASGIApp, accounts: Accounts, clock: VirtualClock) -> None:
        browser = await let_in(front, accounts, "ada@example.org")
        key = await made(browser, expires_at=(clock.now() + timedelta(hours=1)).isoformat())
        assert await with_key(front, key, "GET", ME) == 200
        await clock.advance(3600)
        assert await with_key(front, key, "GET", ME) == 401

    async def test_its_user_suspended_it_is_dead_at_once(self, front: ASGIApp, accounts: Accounts) -> None:
        await let_in(front, accounts, "ada@example.org")
        key = await made(await let_in(front, accounts, "bob@example.org"))
        bob = await accounts.identity.user_by_email("bob@example.org")
        await accounts.identity.administer(bob.id, status="suspended")
        assert await with_key(front, key, "GET", ME) == 401

    async def test_with_the_role_goes_what_it_could_do_with_it(
        self, front: ASGIApp, accounts: Accounts
    ) -> None:
        await let_in(front, accounts, "ada@example.org")
        bob = await accounts.identity.add_user("bob@example.org", "admin")
        key = await made(await let_in(front, accounts, "bob@example.org"), scopes=["admin:read"])
        assert await with_key(front, key, "GET", "/api/v1/admin/users") == 200
        await accounts.identity.administer(bob.id, role="user")
        assert await with_key(front, key, "GET", "/api/v1/admin/users") == 403


class TestMaking:
    async def test_it_takes_a_recent_sign_in(
        self, front: ASGIApp, accounts: Accounts, clock: VirtualClock
    ) -> None:
        browser = await let_in(front, accounts, "ada@example.org")
        await clock.advance(11 * 60)
        answer = await browser.call("POST", KEYS, READ)
        assert (answer.status, answer.json()["code"]) == (403, "recent_sign_in_needed")

    @pytest.mark.parametrize(
        ("changes", "status"),
        [
            ({"scopes": []}, 400),
            ({"scopes": ["everything"]}, 400),
            ({"scopes": ["admin:read"]}, 403),
            ({"name": " "}, 400),
            ({"name": "two\nlines"}, 400),
            ({"expires_at": "2001-01-01T00:00:00Z"}, 400),
            ({"expires_at": "2031-01-01T00:00:00"}, 400),
        ],
    )
    async def test_what_cannot_be_is_refused(
        self, front: ASGIApp, accounts: Accounts, changes: dict[str, object], status: int
    ) -> None:
        await let_in(front, accounts, "ada@example.org")
        bob = await let_in(front, accounts, "bob@example.org")
        assert (await bob.call("POST", KEYS, READ | changes)).status == status

    async def test_nobody_has_more_than_fifty(
        self, front: ASGIApp, accounts: Accounts, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(model, "MOST_KEYS", 2)
        browser = await let_in(front, accounts, "ada@example.org")
        await made(browser)
        await made(browser)
        assert (await browser.call("POST", KEYS, READ)).status == 429

    async def test_only_ones_own_are_seen_and_revoked(self, front: ASGIApp, accounts: Accounts) -> None:
        ada = await let_in(front, accounts, "ada@example.org")
        bob = await let_in(front, accounts, "bob@example.org")
        await made(ada)
        (hers,) = (await ada.call("GET", KEYS)).json()["items"]
        assert (await bob.call("GET", KEYS)).json()["items"] == []
        assert (await bob.call("DELETE", f"{KEYS}/{hers['id']}")).status == 404
