"""What outlives the session that made it: every route that changes something is on one of two lists, and what
the first list promises holds for each of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID, uuid4

import pytest

from ocmt.identity.access import LOOKING_ONLY, SCOPES
from ocmt.identity.lasting import HARMLESS, LASTING, Lasting, _pattern, rule_of
from ocmt.platform.database import Database
from ocmt.platform.principal import Principal
from ocmt.testing.authenticator import SoftPasskey
from ocmt.testing.clock import VirtualClock
from ocmt.testing.mail import MemoryMail
from tests.identity.browser import Answer, Browser
from tests.identity.mfa.test_mfa import code_of
from tests.services.conftest import House
from tests.services.test_routes import ENTRANCE, knock, routes

pytestmark = pytest.mark.anyio

READS = ("GET", "HEAD")
LATER = 11 * 60
"""Seconds after which a sign-in is not recent any more."""


def writes(house: House) -> Iterator[tuple[str, str]]:
    for method, template in routes(house):
        if method not in READS and template not in ENTRANCE:
            yield method, template


def matches(method: str, template: str, listed: Mapping[tuple[str, str], object]) -> list[tuple[str, str]]:
    path = re.sub(r"{[\w:]+}", "x1", template)
    return [key for key in listed if key[0] == method and _pattern(key[1]).fullmatch(path)]


async def test_every_write_is_on_exactly_one_list_and_every_line_is_a_route(house: House) -> None:
    seen = set()
    for method, template in writes(house):
        found = matches(method, template, LASTING) + matches(method, template, HARMLESS)
        assert len(found) == 1, (
            f"{method} {template} changes something. Name it in identity/lasting.py: among LASTING if what "
            f"it makes outlives its session, else among HARMLESS with the reason. Found: {found}"
        )
        seen.update(found)
    stale = {key for key in (*LASTING, *HARMLESS) if key not in seen and key[0] not in READS}
    assert stale == set()
    readable = {(method, template) for method, template in routes(house) if method in READS}
    assert {key for key in LASTING if key[0] in READS} <= readable


KEPT_ELSEWHERE = {
    "agent_visits": "the sessions themselves, at the agents' own host name",
    "agents": "made at the first look; what lasts of it is its egress",
    "attachments": "content of the user's own",
    "channel_threads": "made by those who were let in",
    "conversations": "content of the user's own",
    "deliveries": "made by those who were let in",
    "deliveries_forgotten": "ids of deliveries",
    "egress_days": "counts of bytes",
    "events": "content of the user's own",
    "group_invitations": "listed",
    "holds": "made by the platform, for minutes",
    "imported_vaults": "made by operators",
    "login_sessions": "the sessions themselves",
    "model_calls": "made by the broker",
    "oidc_accounts": "connected by a page, see identity/oidc/routes.py and test_oidc_accounts",
    "oidc_attempts": "for ten minutes, bound to a browser",
    "outbox": "made by the platform",
    "passkey_challenges": "for minutes, bound to a session",
    "resource_shares": "made by operators",
    "revision_trials": "made by operators",
    "sign_in_challenges": "for ten minutes, bound to a browser",
    "snapshots": "content of the user's own",
    "storage_used": "counts of bytes",
    "turns": "content of the user's own",
    "vault_item_versions": "content of the user's own",
    "vault_items": "content of the user's own",
    "vault_keys": "content of the user's own",
}


async def test_every_table_of_users_is_named(house: House, database: Database) -> None:
    async with database.connection() as connection:
        rows = await connection.fetch(
            "select distinct table_name from information_schema.columns"
            " where table_schema = 'public' and column_name in ('user_id', 'owner_id')"
        )
    named = {table for rule in LASTING.values() for table in rule.tables} | KEPT_ELSEWHERE.keys()
    missing = {row[0] for row in rows} - named
    assert missing == set(), "say in identity/lasting.py how it is made, or here why that does not matter"


@pytest.mark.parametrize("path", ["/agent/channels/", "/agent/channels\n", "/agent/channels"])
def test_no_spelling_of_a_path_that_a_router_takes_gets_around_the_list(path: str) -> None:
    assert rule_of("POST", path) is not None


async def test_without_a_recent_sign_in_none_of_it_is_done(house: House, clock: VirtualClock) -> None:
    root = await house.sign_in("root@example.org")
    await clock.advance(LATER)
    for method, template in LASTING:
        answer = await knock(root, method, template, {})
        assert (answer.status, answer.json()["code"]) == (403, "recent_sign_in_needed"), (
            f"{method} {template}"
        )
    assert (await root.call("POST", "/agent/channels/", {"channel": "signed"})).status != 201
    assert (await root.call("GET", "/agent/channels")).json()["items"] == []


async def test_a_token_does_none_of_it_but_what_the_list_says(house: House) -> None:
    root = await house.sign_in("root@example.org")
    me = await house.management.accounts.identity.user_by_email("root@example.org")
    principal = Principal(me.id, None, me.email, "admin")
    _, key = await house.management.accounts.api_keys.make(principal, "all", sorted(SCOPES))
    program = Browser(root.app, origin=None, bearer=key)
    allowed = set()
    for (method, template), rule in LASTING.items():
        answer = await knock(program, method, template, {})
        if answer.status != 403 or answer.json()["code"] != "refused":
            assert rule.tokens, f"{method} {template}: {answer.body!r}"
            allowed.add(template.rpartition("/")[2])
    assert allowed == {"token", "users", "{value}", "invitations"}


async def test_who_looks_through_other_eyes_changes_nothing_at_all(house: House, clock: VirtualClock) -> None:
    root = await house.sign_in("root@example.org")
    bob = await house.sign_in("bob@example.org")
    user = await house.management.accounts.identity.user_by_email("bob@example.org")
    began = await root.call(
        "POST", f"/api/v1/admin/users/{user.id}/impersonate", {"reason": "They asked me to look."}
    )
    assert began.status == 204, began.body
    refused = 0
    for method, template in [*writes(house), ("GET", "/api/v1/me/export"), ("OPTIONS", "/agent/gateway/x")]:
        if template == "/api/v1/auth/logout":
            continue
        answer = await knock(root, method, template, {})
        assert (answer.status, answer.json()["code"]) == (403, "refused"), f"{method} {template}"
        assert answer.json()["detail"] == LOOKING_ONLY or "user's own" in answer.json()["detail"]
        refused += 1
    assert refused >= 70
    for method in ("DELETE", "PROPFIND", "post", "BREW", "PATCH"):
        assert (await root.call(method, "/agent/conversations", {})).status in (400, 403, 405), method
    assert await root.open_socket("/agent/gateway") == "websocket.close"
    assert (await root.call("GET", "/agent/gateway/")).status == 403
    for path in ("/agent", "/agent/conversations", "/agent/channels", "/api/v1/groups", "/api/v1/me"):
        assert (await root.call("GET", path)).status == 200, f"{path} can be looked at"
    assert (await bob.call("GET", "/agent/conversations")).json()["items"] == []
    assert (await root.call("POST", "/api/v1/auth/logout")).status == 204
    assert (await root.call("GET", "/api/v1/me")).json()["email"] == "root@example.org"


class Diary:
    """Does lasting things for real and looks at what was written and sent."""

    def __init__(self, house: House, database: Database) -> None:
        self.house, self.database = house, database
        mail = house.management.accounts.identity.post._mail
        assert isinstance(mail, MemoryMail)
        self.mail = mail
        self.done: set[tuple[str, str]] = set()

    async def last_row(self) -> int:
        async with self.database.connection() as connection:
            found: int | None = await connection.fetchval("select max(id) from audit_log")
        return found or 0

    async def do(self, who: Browser, email: str, method: str, path: str, body: object = None) -> Answer:
        before, mails = await self.last_row(), len(self.mail.sent)
        answer = await who.call(method, path, body)
        assert 200 <= answer.status < 300, f"{method} {path}: {answer.status} {answer.body!r}"
        (key,) = [key for key in LASTING if key[0] == method and _pattern(key[1]).fullmatch(path)]
        rule: Lasting = LASTING[key]
        async with self.database.connection() as connection:
            rows = await connection.fetch("select action, actor_id from audit_log where id > $1", before)
        actor = (await self.house.management.accounts.identity.user_by_email(email)).id
        if rule.audit:
            assert (rule.audit[0], actor) in {(row["action"], row["actor_id"]) for row in rows} or any(
                row["action"] in rule.audit and row["actor_id"] == actor for row in rows
            ), f"{method} {path} wrote {[row['action'] for row in rows]}"
        told = [one.subject for one in self.mail.sent[mails:] if one.to == email]
        expected = [f"Your account: {rule.notice[0].lower()}{rule.notice[1:]}"] if rule.notice else []
        assert told == expected, f"{method} {path}"
        self.done.add(key)
        return answer


async def test_each_is_in_the_audit_log_and_is_told_to_its_user(
    house: House, database: Database, clock: VirtualClock
) -> None:
    root = await house.sign_in("root@example.org")
    bob = await house.sign_in("bob@example.org")
    diary = Diary(house, database)
    BOB, ROOT = "bob@example.org", "root@example.org"

    async def his(method: str, path: str, body: object = None) -> Any:
        answer = await diary.do(bob, BOB, method, path, body)
        return answer.json() if answer.body[:1] == b"{" else None

    async def hers(method: str, path: str, body: object = None) -> Any:
        answer = await diary.do(root, ROOT, method, path, body)
        return answer.json() if answer.body[:1] == b"{" else None

    await his("POST", "/api/v1/api-keys", {"name": "k", "scopes": ["agent:read"]})
    await his("POST", "/api/v1/auth/token")
    options = (await his("POST", "/api/v1/passkeys/options"))["options"]
    made = await his("POST", "/api/v1/passkeys", {"name": "p", "credential": SoftPasskey().made(options)})
    await his("DELETE", f"/api/v1/passkeys/{made['id']}")
    secret = (await his("POST", "/api/v1/mfa/totp"))["secret"]
    await his("POST", "/api/v1/mfa/totp/confirm", {"code": code_of(secret, clock)})
    await his("POST", "/api/v1/mfa/backup-codes")
    await his("DELETE", "/api/v1/mfa/totp")
    user = await house.management.accounts.identity.user_by_email(BOB)
    number = uuid4()
    async with database.connection() as connection:
        await connection.execute(
            "insert into oidc_accounts (id, provider, issuer, subject, user_id, email, created_at)"
            " values ($1, 'google', 'x', 's', $2, $3, now())",
            number,
            user.id,
            BOB,
        )
    await his("DELETE", f"/api/v1/oidc-accounts/{number}")
    channel = (await his("POST", "/agent/channels", {"channel": "signed"}))["id"]
    await his("POST", f"/agent/channels/{channel}/reconnect")
    await his("POST", f"/agent/channels/{channel}/senders/approve", {"sender": "eve"})
    await his("PATCH", "/agent", {"egress": True})
    group = (await bob.call("POST", "/api/v1/groups", {"name": "g"})).json()["id"]
    invited = await his("POST", f"/api/v1/groups/{group}/invitations", {"email": ROOT})
    await hers("POST", f"/api/v1/group-invitations/{invited['id']}/accept")
    her_id = (await house.management.accounts.identity.user_by_email(ROOT)).id
    await his("PUT", f"/api/v1/groups/{group}/members/{her_id}", {"role": "admin"})
    await his("PUT", f"/api/v1/groups/{group}/keys/anthropic_api_key", {"value": "sk-ant-a-key-1234"})
    await his("GET", "/api/v1/me/export")
    cleo = UUID((await hers("POST", "/api/v1/admin/users", {"email": "cleo@example.org"}))["id"])
    await hers("PUT", "/api/v1/admin/sign-up-rules/domain/example.net")
    await hers("POST", "/api/v1/admin/invitations", {"email": "dan@example.org"})
    await hers("DELETE", f"/api/v1/admin/users/{cleo}")
    await his("DELETE", "/api/v1/me", {"confirm": BOB})
    await house.management.accounts.identity.add_user("fay@example.org")
    fay = await house.management.accounts.identity.user_by_email("fay@example.org")
    await hers(
        "POST", f"/api/v1/admin/users/{fay.id}/impersonate", {"reason": "They asked me to have a look."}
    )
    assert diary.done == LASTING.keys()


async def test_a_suspension_does_not_wait_for_a_proof_but_all_that_gives_more_does(
    house: House, clock: VirtualClock
) -> None:
    root = await house.sign_in("root@example.org")
    await house.sign_in("bob@example.org")
    bob = await house.management.accounts.identity.user_by_email("bob@example.org")
    path = f"/api/v1/admin/users/{bob.id}"
    await clock.advance(LATER)
    assert (await root.call("PATCH", path, {"status": "suspended", "mfa_required": True})).status == 200
    for more in ({"status": "active"}, {"role": "admin"}, {"mfa_required": False}):
        refused = await root.call("PATCH", path, more)
        assert (refused.status, refused.json()["code"]) == (403, "recent_sign_in_needed"), more


async def test_a_refusal_is_told_to_nobody(house: House) -> None:
    bob = await house.sign_in("bob@example.org")
    mail = house.management.accounts.identity.post._mail
    assert isinstance(mail, MemoryMail)
    mail.sent.clear()
    assert (await bob.call("POST", "/agent/channels", {"channel": "nope"})).status == 400
    assert (await bob.call("POST", "/api/v1/api-keys", {"name": "", "scopes": []})).status == 400
    assert mail.sent == []
