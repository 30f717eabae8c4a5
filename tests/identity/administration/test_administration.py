"""Administrators decide who gets in, and may look through a user's eyes; auditors see, users do neither."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.types import ASGIApp

from ocmt.identity.accounts import Accounts
from ocmt.identity.audit.retention import Retention
from ocmt.identity.entrance.model import SignUpMode
from ocmt.platform.database import Database
from ocmt.testing.clock import VirtualClock
from ocmt.testing.secrets import MemorySecrets

from ..browser import Answer, Browser
from ..conftest import PUBLIC_URL, Letters, behind_the_door, let_in

pytestmark = pytest.mark.anyio

ADMIN = "/api/v1/admin"
LINK, VERIFY = "/api/v1/auth/magic-link", "/api/v1/auth/magic-link/verify"
ME = "/api/v1/me"
REASON = {"reason": "They asked me to look at a job that fails."}


@pytest.fixture
async def ada(front: ASGIApp, accounts: Accounts) -> Browser:
    """The administrator."""
    return await let_in(front, accounts, "ada@example.org")


async def comes(front: ASGIApp, letters: Letters, email: str) -> Answer | None:
    """Somebody asks for a link and uses it; None: they got none."""
    browser, before = Browser(front), len(letters.sent)
    await browser.call("POST", LINK, {"email": email})
    if len(letters.sent) == before:
        return None
    return await browser.call("POST", VERIFY, {"token": letters.last_token()})


def house(mode: SignUpMode, database: Database, letters: Letters, clock: VirtualClock) -> Accounts:
    return Accounts.over(database, MemorySecrets(), letters, clock, public_url=PUBLIC_URL, sign_up=mode)


class TestWhoGetsIn:
    async def test_by_a_rule(self, database: Database, letters: Letters, clock: VirtualClock) -> None:
        accounts = house("allowlist", database, letters, clock)
        front = behind_the_door(accounts)
        ada = await let_in(front, accounts, "ada@example.org")
        assert await comes(front, letters, "bob@example.com") is None
        rule = f"{ADMIN}/sign-up-rules/domain/example.com"
        assert (await ada.call("PUT", rule)).status == 204
        assert (await ada.call("PUT", rule)).status == 204, "twice is once"
        answer = await comes(front, letters, "bob@example.com")
        assert answer is not None
        assert answer.status == 200
        listed = (await ada.call("GET", f"{ADMIN}/sign-up-rules")).json()
        assert listed["mode"] == "allowlist"
        assert [(rule["kind"], rule["value"]) for rule in listed["items"]] == [("domain", "example.com")]
        assert (await ada.call("DELETE", rule)).status == 204
        assert await comes(front, letters, "eve@example.com") is None
        assert (await ada.call("PUT", f"{ADMIN}/sign-up-rules/domain/nonsense")).status == 400

    async def test_by_an_invitation(
        self, front: ASGIApp, letters: Letters, ada: Browser, clock: VirtualClock
    ) -> None:
        assert await comes(front, letters, "bob@example.com") is None
        invited = await ada.call(
            "POST", f"{ADMIN}/invitations", {"email": "Bob@example.com", "role": "auditor"}
        )
        assert invited.status == 201
        assert letters.sent[-1][0] == "bob@example.com"
        answer = await comes(front, letters, "bob@example.com")
        assert answer is not None
        assert answer.json()["role"] == "auditor"
        (listed,) = (await ada.call("GET", f"{ADMIN}/invitations")).json()["items"]
        assert listed["accepted_at"] is not None
        assert (await ada.call("POST", f"{ADMIN}/invitations", {"email": "bob@example.com"})).status == 409

    async def test_not_by_one_that_was_taken_back_or_is_a_week_old(
        self, front: ASGIApp, letters: Letters, ada: Browser, clock: VirtualClock
    ) -> None:
        for email in ("bob@example.com", "cleo@example.com"):
            await ada.call("POST", f"{ADMIN}/invitations", {"email": email})
        newest, _ = (await ada.call("GET", f"{ADMIN}/invitations")).json()["items"]
        path = f"{ADMIN}/invitations/{newest['id']}"
        assert (await ada.call("DELETE", path)).status == 204
        assert (await ada.call("DELETE", path)).status == 404
        assert await comes(front, letters, "cleo@example.com") is None
        await clock.advance(timedelta(days=7).total_seconds())
        assert await comes(front, letters, "bob@example.com") is None

    async def test_by_approval(self, database: Database, letters: Letters, clock: VirtualClock) -> None:
        accounts = house("approval", database, letters, clock)
        front = behind_the_door(accounts)
        ada = await let_in(front, accounts, "ada@example.org")
        waits = await comes(front, letters, "bob@example.com")
        assert waits is not None
        assert (waits.status, "approval" in waits.json()["detail"]) == (403, True)
        bob = next(
            user
            for user in (await ada.call("GET", f"{ADMIN}/users")).json()["items"]
            if user["status"] == "pending"
        )
        assert (await ada.call("PATCH", f"{ADMIN}/users/{bob['id']}", {"status": "active"})).status == 200
        assert letters.sent[-1][:2] == ("bob@example.com", "You may sign in now")
        answer = await comes(front, letters, "bob@example.com")
        assert answer is not None
        assert answer.status == 200

    async def test_on_a_public_address_nobody_becomes_administrator_by_asking_first(
        self, database: Database, letters: Letters, clock: VirtualClock
    ) -> None:
        accounts = Accounts.over(
            database, MemorySecrets(), letters, clock, public_url="https://agents.example.org"
        )
        await accounts.identity.request_link("eve@example.org")
        assert letters.sent == []


class TestLookingThroughOtherEyes:
    async def as_bob(self, front: ASGIApp, accounts: Accounts, ada: Browser) -> str:
        await let_in(front, accounts, "bob@example.org")
        bob = await accounts.identity.user_by_email("bob@example.org")
        return f"{ADMIN}/users/{bob.id}/impersonate"

    async def test_for_a_reason_and_back_to_oneself(
        self, front: ASGIApp, accounts: Accounts, ada: Browser
    ) -> None:
        path = await self.as_bob(front, accounts, ada)
        assert (await ada.call("POST", path, {"reason": "because"})).status == 400
        assert (await ada.call("POST", path, REASON)).status == 204
        me = (await ada.call("GET", ME)).json()
        assert (me["email"], me["impersonated_by"] is not None) == ("bob@example.org", True)
        for method, hidden in (("GET", "/api/v1/api-keys"), ("PATCH", ME), ("GET", "/api/v1/mfa")):
            assert (await ada.call(method, hidden, {})).status == 403, hidden
        assert (await ada.call("GET", f"{ADMIN}/users")).status == 403
        assert (await ada.call("POST", "/api/v1/auth/logout")).status == 204
        assert (await ada.call("GET", ME)).json()["email"] == "ada@example.org"

    async def test_the_user_reads_of_it(self, front: ASGIApp, accounts: Accounts, ada: Browser) -> None:
        await ada.call("POST", await self.as_bob(front, accounts, ada), REASON)
        bob = await let_in(front, accounts, "bob@example.org")
        rows = (await bob.call("GET", "/api/v1/audit")).json()["items"]
        (row,) = [row for row in rows if row["action"] == "session.impersonated"]
        assert row["details"]["reason"] == REASON["reason"]
        sessions = (await bob.call("GET", "/api/v1/sessions")).json()["items"]
        assert sum(session["impersonated"] for session in sessions) == 1

    async def test_it_ends_after_an_hour(
        self, front: ASGIApp, accounts: Accounts, ada: Browser, clock: VirtualClock
    ) -> None:
        await ada.call("POST", await self.as_bob(front, accounts, ada), REASON)
        for _ in range(2):
            await clock.advance(29 * 60)
            assert (await ada.call("GET", ME)).status == 200
        await clock.advance(2 * 60)
        assert (await ada.call("GET", ME)).status == 401

    async def test_no_administrator_is_impersonated_and_it_takes_a_recent_sign_in(
        self, front: ASGIApp, accounts: Accounts, ada: Browser, clock: VirtualClock
    ) -> None:
        other = await accounts.identity.add_user("root@example.org", "admin")
        assert (await ada.call("POST", f"{ADMIN}/users/{other.id}/impersonate", REASON)).status == 403
        path = await self.as_bob(front, accounts, ada)
        await clock.advance(11 * 60)
        refused = await ada.call("POST", path, REASON)
        assert (refused.status, refused.json()["code"]) == (403, "recent_sign_in_needed")


class TestTheLog:
    async def test_it_is_paged_filtered_and_exported(
        self, front: ASGIApp, accounts: Accounts, ada: Browser
    ) -> None:
        for name in ("bob", "cleo"):
            await ada.call("POST", f"{ADMIN}/users", {"email": f"{name}@example.org"})
        first = (await ada.call("GET", f"{ADMIN}/audit?limit=2")).json()
        assert [row["action"] for row in first["items"]] == ["user.added", "user.added"]
        rest = (await ada.call("GET", f"{ADMIN}/audit?limit=2&before={first['next']}")).json()
        assert rest["items"][0]["action"] == "session.opened"
        only = (await ada.call("GET", f"{ADMIN}/audit?action=session.")).json()["items"]
        assert {row["action"] for row in only} == {"session.opened"}
        exported = await ada.call("GET", f"{ADMIN}/audit/export?after=1")
        rows = [json.loads(line) for line in exported.body.splitlines()]
        assert [row["id"] for row in rows] == list(range(2, len(rows) + 2))
        assert rows[-1]["details"]["after"]["email"] == "cleo@example.org"

    async def test_whatever_is_done_to_a_user_is_in_it(
        self, front: ASGIApp, accounts: Accounts, ada: Browser
    ) -> None:
        bob = (await ada.call("POST", f"{ADMIN}/users", {"email": "bob@example.org"})).json()["id"]
        for change in ({"role": "auditor"}, {"mfa_required": True}, {"status": "suspended"}):
            assert (await ada.call("PATCH", f"{ADMIN}/users/{bob}", change)).status == 200
        rows = (await ada.call("GET", f"{ADMIN}/audit?user_id={bob}")).json()["items"]
        assert [
            (row["action"], row["details"].get("before"), row["details"].get("after")) for row in rows
        ] == [
            ("user.status", {"status": "active"}, {"status": "suspended"}),
            ("user.mfa_required", {"mfa_required": False}, {"mfa_required": True}),
            ("user.role", {"role": "user"}, {"role": "auditor"}),
            ("user.added", None, {"email": "bob@example.org", "name": None, "role": "user"}),
        ]
        assert all(row["details"]["address"] == "127.0.0.1" for row in rows)

    async def test_what_was_cut_and_what_was_dropped_by_retention(
        self, accounts: Accounts, ada: Browser, clock: VirtualClock, database: Database
    ) -> None:
        audit = accounts.identity.audit
        for number in range(4):
            await clock.advance(86400)
            await accounts.identity.add_user(f"user{number}@example.org")
        whole = await audit.verify()
        assert whole.fault is None
        assert await audit.forget_before(clock.now() - timedelta(days=1.5)) > 0
        kept = await audit.verify()
        assert (kept.fault, kept.rows < whole.rows) == (None, True)
        assert await audit.has(bytes.fromhex(whole.head))
        async with database.connection() as connection:
            await connection.execute("delete from audit_log where id = (select max(id) from audit_log)")
        assert (await audit.verify()).fault is not None

    async def test_the_log_is_kept_for_as_long_as_the_setting_says(
        self, accounts: Accounts, ada: Browser, clock: VirtualClock
    ) -> None:
        audit = accounts.identity.audit
        await clock.advance(3 * 86400)
        await accounts.identity.add_user("late@example.org")
        before = (await audit.verify()).rows
        assert await Retention(audit, clock, None).look() == 0
        assert await Retention(audit, clock, timedelta(days=5)).look() == 0
        assert await Retention(audit, clock, timedelta(days=1)).look() == before - 1
        kept = [row.action for row in await audit.read()]
        assert kept == ["user.added", "audit.retained"]
        assert (await audit.verify()).fault is None

    async def test_what_names_a_person_is_erased_and_the_log_is_whole(
        self, accounts: Accounts, ada: Browser, database: Database
    ) -> None:
        bob = await accounts.identity.add_user("bob@example.org")
        async with database.transaction() as connection:
            await accounts.identity.audit.erase(connection, bob.id)
        assert (await accounts.identity.audit.verify()).fault is None
        async with database.connection() as connection:
            assert "bob@" not in repr(await connection.fetch("select * from audit_log"))


async def test_what_leads_to_more_rights_takes_a_recent_sign_in_and_an_address_no_key(
    front: ASGIApp, accounts: Accounts, ada: Browser, clock: VirtualClock
) -> None:
    """Links to sign in go to an address: a key that could change it would open a whole session."""
    bob = await accounts.identity.add_user("bob@example.org")
    wish = {"name": "script", "scopes": ["account:write", "admin:write", "admin:read"]}
    key = (await ada.call("POST", "/api/v1/api-keys", wish)).json()["key"]
    program = Browser(front, bearer=key)
    taken = await program.call("PATCH", "/api/v1/me", {"email": "eve@example.org"})
    assert (taken.status, taken.json()["code"]) == (403, "recent_sign_in_needed")
    assert (await program.call("PATCH", "/api/v1/me", {"name": "Ada"})).status == 200
    assert (await program.call("PATCH", f"{ADMIN}/users/{bob.id}", {"role": "auditor"})).status == 200
    await clock.advance(601)
    refused = [
        ("PATCH", "/api/v1/me", {"email": "ada@example.com"}),
        ("PATCH", f"{ADMIN}/users/{bob.id}", {"role": "admin"}),
        ("POST", f"{ADMIN}/users", {"email": "eve@example.org", "role": "admin"}),
        ("POST", f"{ADMIN}/invitations", {"email": "eve@example.org", "role": "admin"}),
    ]
    for method, path, body in refused:
        answer = await ada.call(method, path, body)
        assert (answer.status, answer.json()["code"]) == (403, "recent_sign_in_needed"), path
    assert (await ada.call("PATCH", f"{ADMIN}/users/{bob.id}", {"status": "suspended"})).status == 200


async def test_of_two_who_edit_one_account_the_second_is_told(
    front: ASGIApp, accounts: Accounts, ada: Browser
) -> None:
    bob = await accounts.identity.add_user("bob@example.org")
    path = f"{ADMIN}/users/{bob.id}"
    seen = {"if-match": (await ada.call("GET", path)).headers["etag"]}
    both = {"role": "auditor", "mfa_required": True}
    assert (await ada.call("PATCH", path, both, headers=seen)).status == 200
    assert (await ada.call("PATCH", path, {"status": "suspended"}, headers=seen)).status == 412
    assert (await accounts.identity.user(bob.id)).status == "active"
    me = "/api/v1/me"
    seen = {"if-match": (await ada.call("GET", me)).headers["etag"]}
    assert (await ada.call("PATCH", me, {"name": "Ada"}, headers=seen)).status == 200
    assert (await ada.call("PATCH", me, {"name": "Eda"}, headers=seen)).status == 412


async def test_of_a_change_that_is_refused_in_part_nothing_is_done(accounts: Accounts, ada: Browser) -> None:
    own = await accounts.identity.user_by_email("ada@example.org")
    both = {"mfa_required": True, "status": "suspended"}  # ada is the last administrator
    assert (await ada.call("PATCH", f"{ADMIN}/users/{own.id}", both)).status == 409
    assert await accounts.identity.user(own.id) == own


async def test_every_route_of_the_administration_knows_its_roles(
    front: ASGIApp, accounts: Accounts, ada: Browser
) -> None:
    api = FastAPI()
    api.include_router(accounts.routes(), prefix="/api/v1")
    await accounts.identity.add_user("audrey@example.org", "auditor")
    audrey = await let_in(front, accounts, "audrey@example.org")
    bob = await let_in(front, accounts, "bob@example.org")
    walked: list[tuple[str, str]] = []
    for template, operations in api.openapi()["paths"].items():
        if not template.startswith(ADMIN):
            continue
        path = template.replace("{kind}", "domain").replace("{value}", "example.net")
        path = path.replace("{user_id}", str(bob_id := (await accounts.identity.users())[-1].id))
        path = path.replace("{invitation_id}", str(bob_id))
        for method in map(str.upper, operations):
            if template.endswith("/stream"):
                continue  # it goes on; it stands behind the same guard as the export
            body: Any = None if method == "GET" else {}
            assert (await Browser(front).call(method, path, body)).status == 401, (method, path)
            assert (await bob.call(method, path, body)).status == 403, (method, path)
            seen = (await audrey.call(method, path, body)).status
            assert (seen == 403) if method != "GET" else (seen == 200), (method, path, seen)
            walked.append((method, path))
    assert len(walked) >= 12
