"""Groups over HTTP: by consent, run by their admins, invisible to others; and what they share goes with
leaving."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from fastapi import FastAPI
from starlette.types import ASGIApp

from ocmt.errors import NotFound
from ocmt.groups import model
from ocmt.groups.routes import routes
from ocmt.groups.service import Groups
from ocmt.identity.accounts import Accounts
from ocmt.identity.audit.model import Actor
from ocmt.identity.middleware import Authentication
from ocmt.platform.database import Database
from ocmt.platform.http import exception_handlers
from ocmt.testing.clock import VirtualClock
from ocmt.testing.mail import MemoryMail
from ocmt.testing.secrets import MemorySecrets
from ocmt.vault.group_keys import GroupKeys
from ocmt.vault.model import ANTHROPIC_API_KEY
from ocmt.vault.service import ModelKeys, Vault
from tests.identity.browser import Browser
from tests.identity.conftest import let_in

pytestmark = pytest.mark.anyio

GROUPS, MINE = "/api/v1/groups", "/api/v1/group-invitations"
KEY = "sk-ant-of-the-group-1234"


class House:
    """The rooms that groups touch, behind the door."""

    def __init__(self, database: Database, clock: VirtualClock) -> None:
        self.secrets, self.mail = MemorySecrets(), MemoryMail()
        self.accounts = Accounts.over(
            database, self.secrets, self.mail, clock, public_url="http://localhost:8080"
        )
        audit = self.accounts.identity.audit
        self.vault = Vault(database, self.secrets, audit, clock)
        self.shared = GroupKeys(database, self.vault.master, audit, clock)
        self.keys = ModelKeys(self.vault, self.shared, database, clock)
        identity = self.accounts.identity
        self.groups = Groups(
            database,
            audit,
            clock,
            url="http://localhost:8080",
            post=identity.post,
            admits=identity.entrance.would_admit,
        )
        api = FastAPI(exception_handlers=exception_handlers())
        api.include_router(self.accounts.routes(), prefix="/api/v1")
        api.include_router(
            routes(self.groups, self.accounts.identity.deliver, self._put, self._drop), prefix="/api/v1"
        )
        identity = self.accounts.identity
        self.front: ASGIApp = Authentication(api, identity.entrance, identity.address)

    async def _put(self, actor: Actor, group_id: UUID, name: str, value: str) -> None:
        await self.shared.put(actor, group_id, name, value, require_admin=self.groups.require_admin)

    async def _drop(self, actor: Actor, group_id: UUID, name: str) -> None:
        await self.shared.delete(actor, group_id, name, require_admin=self.groups.require_admin)

    async def browser(self, name: str) -> Browser:
        return await let_in(self.front, self.accounts, f"{name}@example.org")

    async def id_of(self, name: str) -> UUID:
        return (await self.accounts.identity.user_by_email(f"{name}@example.org")).id


@pytest.fixture
async def house(database: Database, clock: VirtualClock) -> House:
    house = House(database, clock)
    await house.browser("root")
    return house


async def made(browser: Browser, name: str = "Research") -> str:
    answer = await browser.call("POST", GROUPS, {"name": name})
    assert answer.status == 201, answer.body
    return f"{GROUPS}/{answer.json()['id']}"


async def joined(house: House, admin: Browser, group: str, name: str) -> Browser:
    """Somebody who was invited and has said yes."""
    browser = await house.browser(name)
    invited = await admin.call("POST", f"{group}/invitations", {"email": f"{name}@example.org"})
    assert invited.status == 201, invited.body
    assert (await browser.call("POST", f"{MINE}/{invited.json()['id']}/accept")).status == 200
    return browser


class TestConsent:
    async def test_who_is_invited_decides(self, house: House) -> None:
        ada, bob = await house.browser("ada"), await house.browser("bob")
        group = await made(ada)
        await ada.call("POST", f"{group}/invitations", {"email": "Bob@example.org"})
        assert house.mail.sent[-1].to == "bob@example.org"
        (waiting,) = (await bob.call("GET", MINE)).json()["items"]
        assert waiting["group_name"] == "Research"
        assert (await bob.call("GET", group)).status == 404, "not before they have said yes"
        assert (await bob.call("POST", f"{MINE}/{waiting['id']}/decline")).status == 204
        assert (await bob.call("POST", f"{MINE}/{waiting['id']}/accept")).status == 404
        assert (await ada.call("GET", f"{group}/members")).json()["items"][1:] == []

    async def test_nobody_accepts_for_another_and_a_week_is_the_end(
        self, house: House, clock: VirtualClock
    ) -> None:
        ada, eve, bob = [await house.browser(name) for name in ("ada", "eve", "bob")]
        group = await made(ada)
        number = (await ada.call("POST", f"{group}/invitations", {"email": "bob@example.org"})).json()["id"]
        assert (await eve.call("POST", f"{MINE}/{number}/accept")).status == 404
        await clock.advance(7 * 86400 - 60)
        assert (await (await house.browser("bob")).call("GET", MINE)).json()["items"] != []
        await clock.advance(60)
        bob = await house.browser("bob")
        assert (await bob.call("POST", f"{MINE}/{number}/accept")).status == 404

    async def test_a_new_invitation_replaces_the_one_before_and_one_can_be_withdrawn(
        self, house: House
    ) -> None:
        ada, bob = await house.browser("ada"), await house.browser("bob")
        group = await made(ada)
        for role in ("member", "admin"):
            await ada.call("POST", f"{group}/invitations", {"email": "bob@example.org", "role": role})
        (waiting,) = (await bob.call("GET", MINE)).json()["items"]
        assert waiting["role"] == "admin"
        assert (await ada.call("DELETE", f"{group}/invitations/{waiting['id']}")).status == 204
        assert (await bob.call("GET", MINE)).json()["items"] == []


class TestRunningOne:
    async def test_who_edits_what_another_has_changed_meanwhile_is_told(self, house: House) -> None:
        ada = await house.browser("ada")
        group = await made(ada)
        seen = {"if-match": (await ada.call("GET", group)).headers["etag"]}
        first = await ada.call("PUT", group, {"name": "First"}, headers=seen)
        assert first.status == 200
        late = await ada.call("PUT", group, {"name": "Late"}, headers=seen)
        assert (late.status, late.json()["code"]) == (412, "precondition_failed")
        assert (await ada.call("GET", group)).json()["name"] == "First"
        again = await ada.call("PUT", group, {"name": "Again"}, headers={"if-match": first.headers["etag"]})
        assert again.status == 200
        wrong = await ada.call("PUT", group, {"name": "Wrong"}, headers={"if-match": "W/abc"})
        assert wrong.status == 400

    async def test_members_see_and_admins_change(self, house: House) -> None:
        ada = await house.browser("ada")
        group = await made(ada)
        bob = await joined(house, ada, group, "bob")
        assert (await bob.call("GET", group)).json()["role"] == "member"
        changes: list[tuple[str, str, Any]] = [
            ("PUT", group, {"name": "Mine"}),
            ("DELETE", group, None),
            ("GET", f"{group}/invitations", None),
            ("POST", f"{group}/invitations", {"email": "x@example.org"}),
            ("PUT", f"{group}/keys/{ANTHROPIC_API_KEY}", {"value": KEY}),
            ("DELETE", f"{group}/keys/{ANTHROPIC_API_KEY}", None),
            ("PUT", f"{group}/members/{await house.id_of('ada')}", {"role": "member"}),
            ("DELETE", f"{group}/members/{await house.id_of('ada')}", None),
        ]
        for method, path, body in changes:
            assert (await bob.call(method, path, body)).status == 403, (method, path)
        eve = await house.browser("eve")
        for method, path, body in [*changes, ("GET", group, None), ("GET", f"{group}/members", None)]:
            assert (await eve.call(method, path, body)).status == 404, (method, path)
        assert (await ada.call("PUT", group, {"name": " New  name "})).json()["name"] == "New name"

    async def test_the_last_admin_stays_until_there_is_another(self, house: House) -> None:
        ada = await house.browser("ada")
        group, own = await made(ada), await house.id_of("ada")
        bob = await joined(house, ada, group, "bob")
        assert (await ada.call("DELETE", f"{group}/members/{own}")).status == 409
        assert (await ada.call("PUT", f"{group}/members/{own}", {"role": "member"})).status == 409
        assert (
            await ada.call("PUT", f"{group}/members/{await house.id_of('bob')}", {"role": "admin"})
        ).status == 204
        assert (await ada.call("DELETE", f"{group}/members/{own}")).status == 204
        assert (await ada.call("GET", group)).status == 404
        assert (await bob.call("GET", group)).json()["members"] == 1

    async def test_there_are_limits(self, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(model, "MOST_GROUPS", 1)
        ada = await house.browser("ada")
        await made(ada)
        assert (await ada.call("POST", GROUPS, {"name": "Another"})).status == 429
        assert (await ada.call("POST", GROUPS, {"name": " "})).status == 400


class TestTheSharedKey:
    async def test_members_agents_use_it_where_their_user_has_none(self, house: House) -> None:
        ada = await house.browser("ada")
        group = await made(ada)
        bob = await joined(house, ada, group, "bob")
        number = await house.id_of("bob")
        assert await house.keys.find(number, ANTHROPIC_API_KEY) is None
        put = await ada.call("PUT", f"{group}/keys/{ANTHROPIC_API_KEY}", {"value": KEY})
        assert put.status == 204
        found = await house.keys.find(number, ANTHROPIC_API_KEY)
        assert found is not None
        assert (found.source, found.value) == ("group", KEY)
        shown = await bob.call("GET", group)
        assert shown.json()["key_names"] == [ANTHROPIC_API_KEY]
        assert KEY.encode() not in shown.body
        await house.vault.put(number, ANTHROPIC_API_KEY, "sk-ant-of-bob-12345678")
        found = await house.keys.find(number, ANTHROPIC_API_KEY)
        assert found is not None
        assert found.source == "user"

    async def test_leaving_takes_it_away_at_once(self, house: House) -> None:
        ada = await house.browser("ada")
        group = await made(ada)
        bob = await joined(house, ada, group, "bob")
        await ada.call("PUT", f"{group}/keys/{ANTHROPIC_API_KEY}", {"value": KEY})
        number = await house.id_of("bob")
        assert await house.keys.source(number, ANTHROPIC_API_KEY) == "group"
        assert (await bob.call("DELETE", f"{group}/members/{number}")).status == 204
        assert await house.keys.source(number, ANTHROPIC_API_KEY) is None
        assert await house.keys.find(number, ANTHROPIC_API_KEY) is None
        assert (await ada.call("DELETE", f"{group}/keys/{ANTHROPIC_API_KEY}")).status == 204
        assert await house.keys.find(await house.id_of("ada"), ANTHROPIC_API_KEY) is None

    async def test_it_is_sealed_and_outlives_a_new_master_key(self, house: House, database: Database) -> None:
        ada = await house.browser("ada")
        group = await made(ada)
        await ada.call("PUT", f"{group}/keys/{ANTHROPIC_API_KEY}", {"value": KEY})
        async with database.connection() as connection:
            rows = await connection.fetch("select * from group_vault_items, group_vault_keys")
        assert KEY not in repr(rows)
        assert await house.vault.master.rotate() == (2, 1)
        found = await house.keys.find(await house.id_of("ada"), ANTHROPIC_API_KEY)
        assert found is not None
        assert found.value == KEY
        await house.keys.used(found)
        async with database.connection() as connection:
            assert await connection.fetchval("select uses from group_vault_items") == 1

    async def test_of_two_groups_it_is_that_of_the_older_membership(
        self, house: House, clock: VirtualClock
    ) -> None:
        ada = await house.browser("ada")
        for name, value in (("First", KEY), ("Second", "sk-ant-of-the-second-99")):
            group = await made(ada, name)
            await ada.call("PUT", f"{group}/keys/{ANTHROPIC_API_KEY}", {"value": value})
            await clock.advance(1)
        found = await house.keys.find(await house.id_of("ada"), ANTHROPIC_API_KEY)
        assert found is not None
        assert found.value == KEY

    async def test_what_is_no_providers_key_is_refused(self, house: House) -> None:
        ada = await house.browser("ada")
        group = await made(ada)
        assert (await ada.call("PUT", f"{group}/keys/github", {"value": "x"})).status == 400
        assert (await ada.call("PUT", f"{group}/keys/{ANTHROPIC_API_KEY}", {"value": "x"})).status == 400


async def test_what_the_old_production_had_is_shown_and_never_how_to_sign_in(
    house: House, database: Database, clock: VirtualClock
) -> None:
    ada = await house.browser("ada")
    group = await made(ada)
    async with database.connection() as connection:
        resource = await connection.fetchval(
            "insert into group_resources"
            " (id, group_id, name, resource_type, endpoint, sealed_auth, status, created_at) values"
            " (gen_random_uuid(), $1, 'Tool', 'mcp_server', 'https://x', 'secret', 'active', $2)"
            " returning id",
            UUID(group.rpartition("/")[2]),
            clock.now(),
        )
        await connection.execute(
            "insert into resource_shares (id, resource_id, user_id, permissions, status, granted_at)"
            " values (gen_random_uuid(), $1, $2, $3, 'granted', $4)",
            resource,
            await house.id_of("ada"),
            {"read": True},
            clock.now(),
        )
    shown = await ada.call("GET", f"{group}/resources")
    assert [one["name"] for one in shown.json()["items"]] == ["Tool"]
    assert b"secret" not in shown.body
    (share,) = (await ada.call("GET", "/api/v1/shares")).json()["items"]
    assert (share["resource_name"], share["permissions"]) == ("Tool", {"read": True})
    assert (await (await house.browser("eve")).call("GET", "/api/v1/shares")).json()["items"] == []


class TestWhoActsAndForWhom:
    """An administrator who looks through a user's eyes is never the one who joins, owns or is asked."""

    async def test_membership_and_ownership_follow_for_whom_and_the_log_names_both(
        self, house: House, database: Database
    ) -> None:
        ada, carol = await house.browser("ada"), await house.browser("carol")
        root, for_carol = await house.id_of("root"), await house.id_of("carol")
        actor = Actor(by=root, on_behalf_of=for_carol)
        group = await made(ada)
        invited = await ada.call(
            "POST", f"{group}/invitations", {"email": "carol@example.org", "role": "admin"}
        )
        joined_id = await house.groups.decide(actor, UUID(invited.json()["id"]), accept=True)
        own = await house.groups.make(actor, "Carol's", None)
        await house.shared.put(
            actor, own.id, ANTHROPIC_API_KEY, KEY, require_admin=house.groups.require_admin
        )
        async with database.connection() as connection:
            for column, table in (
                ("user_id", "group_members"),
                ("created_by", "groups"),
                ("invited_by", "group_invitations"),
                ("updated_by", "group_vault_items"),
            ):
                named = {row[0] for row in await connection.fetch(f"select {column} from {table}")}
                assert root not in named, table
            rows = await connection.fetch(
                "select actor_id, details from audit_log where action like 'group.%'"
            )
        assert [one.id for one in await house.groups.list(for_carol)] == [own.id, joined_id]
        assert list(await house.groups.list(root)) == []
        by_root = [row for row in rows if row["actor_id"] == root]
        assert len(by_root) == 3
        assert all(str(for_carol) in str(row["details"]) for row in by_root)
        mine = (await carol.call("GET", "/api/v1/audit")).json()["items"]
        assert {"group.joined", "group.made"} <= {row["action"] for row in mine}, "the user reads of it"

    async def test_an_invitation_is_only_for_whom_it_names_whoever_acts(self, house: House) -> None:
        ada = await house.browser("ada")
        await house.browser("carol")
        root, for_carol = await house.id_of("root"), await house.id_of("carol")
        group = await made(ada)
        invited = await ada.call("POST", f"{group}/invitations", {"email": "root@example.org"})
        with pytest.raises(NotFound):
            await house.groups.decide(
                Actor(by=root, on_behalf_of=for_carol), UUID(invited.json()["id"]), accept=True
            )


class TestMailsToStrangers:
    """Group invitations are mails that any user can have sent: no relay for anybody's words."""

    LURE = "Payroll. Confirm your salary at https://evil.example/login"

    async def test_nothing_of_the_senders_choosing_is_in_them(self, house: House) -> None:
        ada = await house.browser("ada")
        await house.browser("bob")
        await ada.call("PATCH", "/api/v1/me", {"name": "https://evil.example"})
        group = await made(ada, self.LURE)
        await ada.call("POST", f"{group}/invitations", {"email": "bob@example.org"})
        (mail,) = [one for one in house.mail.sent if one.to == "bob@example.org"]
        for words in ("evil", "Payroll", "salary"):
            assert words not in mail.subject + mail.text
        assert "ada@example.org invites you" in mail.text

    async def test_a_sender_has_twenty_a_day_and_a_victim_gets_one(
        self, house: House, clock: VirtualClock
    ) -> None:
        eve = await house.browser("eve")
        await house.browser("victim")
        group = await made(eve)
        statuses = [
            (await eve.call("POST", f"{group}/invitations", {"email": "victim@example.org"})).status
            for _ in range(30)
        ]
        assert statuses == [201] * 20 + [429] * 10
        assert [one.to for one in house.mail.sent].count("victim@example.org") == 1
        other = await made(eve, "Another group")
        assert (await eve.call("POST", f"{other}/invitations", {"email": "x@example.org"})).status == 429
        bob = await house.browser("bob")
        group = await made(bob)
        assert (await bob.call("POST", f"{group}/invitations", {"email": "eve@example.org"})).status == 201

    async def test_an_address_gets_five_a_day_from_everybody_together(self, house: House) -> None:
        await house.browser("victim")
        for sender in ("mallory", "trudy"):
            browser = await house.browser(sender)
            for number in range(4):
                group = await made(browser, f"Group {number}")
                answer = await browser.call("POST", f"{group}/invitations", {"email": "victim@example.org"})
                assert answer.status == 201
        assert [one.to for one in house.mail.sent].count("victim@example.org") == 5

    async def test_strangers_whom_sign_up_keeps_out_get_none_and_nobody_learns_who_they_are(
        self, house: House
    ) -> None:
        ada = await house.browser("ada")
        await house.browser("bob")
        group = await made(ada)
        answers = [
            await ada.call("POST", f"{group}/invitations", {"email": email})
            for email in ("bob@example.org", "stranger@elsewhere.example")
        ]
        assert [answer.status for answer in answers] == [201, 201]
        assert {frozenset(answer.json()) for answer in answers} == {frozenset({"id"})}
        assert "stranger@elsewhere.example" not in [one.to for one in house.mail.sent]
        listed = (await ada.call("GET", f"{group}/invitations")).json()["items"]
        assert {one["email"] for one in listed} == {"bob@example.org", "stranger@elsewhere.example"}
