"""Who comes through the one door, in which way, and for how long: on a real database."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from ocmt.errors import NotFound, Refused, Unauthenticated
from ocmt.identity.entrance import model
from ocmt.identity.entrance.model import Browser
from ocmt.identity.entrance.service import Entered, Entrance, Outcome, SecondFactorNeeded
from ocmt.identity.model import User
from ocmt.identity.service import Identity
from ocmt.platform.database import Database
from ocmt.platform.principal import Principal
from ocmt.testing.clock import VirtualClock

from ..conftest import PUBLIC_URL, Letters

pytestmark = pytest.mark.anyio

ADA = "ada@example.org"
BOSS = "boss@example.org"
HERE = Browser("Browser/1", "203.0.113.5")
PUBLIC = "https://agents.example.org"
NOT_ADMITTED = "ask your administrator"


class Doors:
    """Makes an installation by its policy, with an administrator unless there is to be nobody."""

    def __init__(self, database: Database, letters: Letters, clock: VirtualClock) -> None:
        self.database, self.letters, self.clock = database, letters, clock

    async def open(self, *, boss: bool = True, url: str = PUBLIC_URL, **policy: Any) -> Identity:
        identity = Identity.over(self.database, self.letters, self.clock, public_url=url, **policy)
        if boss:
            await identity.add_user(BOSS, "admin")
        return identity

    async def sign_in(self, identity: Identity, email: str) -> Outcome:
        """By a link that was handed over: proves the address, whatever the policy sends mails to."""
        token = f"token of {email} {uuid4()}"
        async with self.database.transaction() as connection:
            await identity._add_link(connection, token, email, timedelta(minutes=15), None)
        return await identity.sign_in(token, HERE)

    async def invite(self, email: str, role: str = "user", *, days: float = 7, **columns: datetime) -> UUID:
        """A row as an administrator's invitation makes it."""
        async with self.database.connection() as connection:
            id: UUID = await connection.fetchval(
                "insert into invitations (id, email, role, token_hash, created_at, expires_at, accepted_at,"
                " revoked_at) values ($1, $2, $3, $4, $5, $6, $7, $8) returning id",
                uuid4(),
                email,
                role,
                uuid4().bytes,
                self.clock.now(),
                self.clock.now() + timedelta(days=days),
                columns.get("accepted_at"),
                columns.get("revoked_at"),
            )
            return id

    async def execute(self, statement: str, *values: Any) -> None:
        async with self.database.connection() as connection:
            await connection.execute(statement, *values)

    async def value(self, query: str, *values: Any) -> Any:
        async with self.database.connection() as connection:
            return await connection.fetchval(query, *values)


@pytest.fixture
def doors(database: Database, letters: Letters, clock: VirtualClock) -> Doors:
    return Doors(database, letters, clock)


async def entered(doors: Doors, identity: Identity, email: str) -> User:
    outcome = await doors.sign_in(identity, email)
    assert isinstance(outcome, Entered)
    return outcome.user


class TestWhoIsLetIn:
    async def test_by_invitation_only_whom_an_administrator_named(self, doors: Doors) -> None:
        identity = await doors.open()
        assert (await entered(doors, identity, BOSS)).role == "admin"
        with pytest.raises(Refused, match=NOT_ADMITTED):
            await doors.sign_in(identity, ADA)
        assert [user.email for user in await identity.users()] == [BOSS]

    async def test_a_refusal_uses_the_link_up_all_the_same(self, doors: Doors) -> None:
        identity = await doors.open()
        with pytest.raises(Refused):
            await doors.sign_in(identity, ADA)
        assert await doors.value("select count(*) from sign_in_links where used_at is null") == 0

    @pytest.mark.parametrize("role", ["user", "admin", "auditor"])
    async def test_an_invitation_says_the_role(self, doors: Doors, role: str) -> None:
        identity = await doors.open()
        await doors.invite("Ada@Example.org", role)
        assert (await entered(doors, identity, ADA)).role == role
        assert await doors.value("select accepted_at from invitations") == doors.clock.now()

    async def test_of_several_invitations_the_last_counts_and_all_are_accepted(self, doors: Doors) -> None:
        identity = await doors.open()
        await doors.invite(ADA, "admin")
        await doors.clock.advance(1)
        await doors.invite(ADA, "user")
        assert (await entered(doors, identity, ADA)).role == "user"
        assert await doors.value("select count(*) from invitations where accepted_at is null") == 0

    async def test_an_invitation_that_is_over_lets_nobody_in(self, doors: Doors) -> None:
        identity = await doors.open()
        await doors.invite(ADA, days=0)
        await doors.invite(ADA, revoked_at=doors.clock.now())
        await doors.invite(ADA, accepted_at=doors.clock.now())
        await doors.invite("another@example.org")
        with pytest.raises(Refused, match=NOT_ADMITTED):
            await doors.sign_in(identity, ADA)

    async def test_an_invitation_does_not_change_who_is_in_already(self, doors: Doors) -> None:
        identity = await doors.open()
        await identity.add_user(ADA)
        await doors.invite(ADA, "admin")
        assert (await entered(doors, identity, ADA)).role == "user"

    async def test_by_allowlist_addresses_and_domains(self, doors: Doors) -> None:
        identity = await doors.open(sign_up="allowlist", allowed=[ADA, "@friends.example"])
        for email in (ADA, "bert@friends.example"):
            assert (await entered(doors, identity, email)).role == "user"
        for email in ("bert@example.org", "eve@evil-friends.example", "eve@sub.friends.example"):
            with pytest.raises(Refused, match=NOT_ADMITTED):
                await doors.sign_in(identity, email)

    @pytest.mark.parametrize(("kind", "value"), [("address", ADA), ("domain", "example.org")])
    async def test_by_allowlist_also_whom_a_rule_of_an_administrator_names(
        self, doors: Doors, kind: str, value: str
    ) -> None:
        identity = await doors.open(sign_up="allowlist")
        with pytest.raises(Refused):
            await doors.sign_in(identity, ADA)
        await doors.execute(
            "insert into sign_up_rules (kind, value, created_at) values ($1, $2, now())", kind, value
        )
        assert (await entered(doors, identity, ADA)).status == "active"

    async def test_a_rule_does_not_count_where_only_invitations_do(self, doors: Doors) -> None:
        identity = await doors.open(sign_up="invitation", allowed=["example.org"])
        await doors.execute(
            "insert into sign_up_rules (kind, value, created_at) values ('address', $1, now())", ADA
        )
        with pytest.raises(Refused, match=NOT_ADMITTED):
            await doors.sign_in(identity, ADA)

    async def test_by_approval_everybody_waits_but_those_who_are_named(self, doors: Doors) -> None:
        identity = await doors.open(sign_up="approval", allowed=["friends.example"])
        assert (await entered(doors, identity, "bert@friends.example")).status == "active"
        for _ in range(2):
            with pytest.raises(Refused, match="approval"):
                await doors.sign_in(identity, ADA)
        waiting = await identity.user_by_email(ADA)
        assert waiting.status == "pending"
        assert await doors.value("select count(*) from login_sessions where user_id = $1", waiting.id) == 0
        await identity.administer(waiting.id, status="active")
        assert (await entered(doors, identity, ADA)).id == waiting.id

    async def test_open_to_everybody_but_the_suspended(self, doors: Doors) -> None:
        identity = await doors.open(sign_up="open")
        ada = await entered(doors, identity, ADA)
        await identity.administer(ada.id, status="suspended")
        with pytest.raises(Refused, match=NOT_ADMITTED):
            await doors.sign_in(identity, ADA)

    @pytest.mark.parametrize("url", [PUBLIC, PUBLIC_URL])
    @pytest.mark.parametrize("mode", ["invitation", "allowlist", "approval", "open"])
    async def test_nobody_becomes_administrator_by_being_first(
        self, doors: Doors, url: str, mode: str
    ) -> None:
        identity = await doors.open(boss=False, url=url, sign_up=mode, allowed=["example.org"])
        with suppress(Refused):
            await doors.sign_in(identity, ADA)
        await identity.request_link("bert@example.org")
        assert [user.role for user in await identity.users() if user.role != "user"] == []
        assert await identity.make_start_link() is not None, "the first administrator is still to be made"

    async def test_several_at_once_make_one_user(self, doors: Doors) -> None:
        identity = await doors.open(boss=False, sign_up="open")
        users = await asyncio.gather(*(entered(doors, identity, ADA) for _ in range(4)))
        assert len({user.id for user in users}) == 1
        assert [user.role for user in await identity.users()] == ["user"]

    async def test_how_somebody_came_in_is_in_the_audit_log(self, doors: Doors) -> None:
        identity = await doors.open(sign_up="open")
        ada = await entered(doors, identity, ADA)
        opened, signed_up, *_ = await identity.audit.page(user_id=ada.id)
        assert (opened.action, signed_up.action) == ("session.opened", "user.signed_up")
        assert signed_up.details == {
            "address": "203.0.113.5",
            "method": "link",
            "after": {"email": ADA, "role": "user", "status": "active"},
        }


class TestAMailIsWorthSending:
    @pytest.mark.parametrize(
        ("policy", "email", "worth"),
        [
            ({}, ADA, False),
            ({}, "invited@example.org", True),
            ({}, BOSS, True),
            ({}, "suspended@example.org", False),
            ({"sign_up": "open"}, ADA, True),
            ({"sign_up": "approval"}, ADA, True),
            ({"sign_up": "allowlist", "allowed": ["example.org"]}, ADA, True),
            ({"sign_up": "allowlist", "allowed": ["example.org"]}, "ada@other.org", False),
        ],
    )
    async def test_to_whom_would_be_let_in(
        self, doors: Doors, policy: dict[str, Any], email: str, worth: bool
    ) -> None:
        identity = await doors.open(**policy)
        await doors.invite("invited@example.org")
        suspended = await identity.add_user("suspended@example.org")
        await identity.administer(suspended.id, status="suspended")
        await identity.request_link(email)
        assert [to for to, _, _ in doors.letters.sent] == ([email] if worth else [])
        assert await doors.value("select count(*) from users where email = $1", ADA) == 0


@pytest.fixture
async def ada(doors: Doors) -> tuple[Identity, User]:
    """Ada has an authenticator app."""
    identity = await doors.open()
    user = await identity.add_user(ADA)
    await doors.execute(
        "insert into totp_secrets (user_id, sealed, created_at, confirmed_at) values ($1, 'x', now(), now())",
        user.id,
    )
    return identity, user


async def challenge(doors: Doors, identity: Identity) -> SecondFactorNeeded:
    outcome = await doors.sign_in(identity, ADA)
    assert isinstance(outcome, SecondFactorNeeded)
    return outcome


async def complete(identity: Identity, database: Database, token: str) -> Entered:
    async with database.transaction() as connection:
        return await identity.entrance.complete(connection, token, method="totp", browser=HERE)


class TestAChallenge:
    async def test_names_what_can_be_shown(self, doors: Doors, ada: tuple[Identity, User]) -> None:
        identity, user = ada
        assert (await challenge(doors, identity)).methods == ("totp",)
        await doors.execute(
            "insert into backup_codes (id, user_id, code_hash, created_at) values ($1, $2, 'x', now())",
            uuid4(),
            user.id,
        )
        assert (await challenge(doors, identity)).methods == ("totp", "backup_code")
        assert await doors.value("select count(*) from login_sessions") == 0

    async def test_is_not_made_of_what_was_never_confirmed(
        self, doors: Doors, ada: tuple[Identity, User]
    ) -> None:
        await doors.execute("update totp_secrets set confirmed_at = null")
        assert isinstance(await doors.sign_in(ada[0], ADA), Entered)

    async def test_opens_one_session_by_both_methods(self, doors: Doors, ada: tuple[Identity, User]) -> None:
        identity, user = ada
        token = (await challenge(doors, identity)).token
        assert (await identity.entrance.challenged(token)).id == user.id
        await complete(identity, doors.database, token)
        [session] = await identity.entrance.sessions(user.id)
        assert session.methods == ["link", "totp"]
        with pytest.raises(Unauthenticated, match="begin it again"):
            await complete(identity, doors.database, token)

    async def test_is_over_after_ten_minutes(self, doors: Doors, ada: tuple[Identity, User]) -> None:
        identity, _ = ada
        token = (await challenge(doors, identity)).token
        await doors.clock.advance(model.CHALLENGE_LIFETIME.total_seconds())
        with pytest.raises(Unauthenticated):
            await identity.entrance.challenged(token)
        with pytest.raises(Unauthenticated):
            await complete(identity, doors.database, token)

    async def test_may_be_tried_five_times(self, doors: Doors, ada: tuple[Identity, User]) -> None:
        identity, _ = ada
        token = (await challenge(doors, identity)).token
        for _ in range(model.CHALLENGE_ATTEMPTS):
            await identity.entrance.challenged(token)
        with pytest.raises(Unauthenticated, match="too often"):
            await identity.entrance.challenged(token)

    async def test_may_not_be_tried_oftener_by_trying_at_once(
        self, doors: Doors, ada: tuple[Identity, User]
    ) -> None:
        identity, _ = ada
        token = (await challenge(doors, identity)).token
        tries = await asyncio.gather(
            *(identity.entrance.challenged(token) for _ in range(12)), return_exceptions=True
        )
        assert sum(isinstance(each, User) for each in tries) == model.CHALLENGE_ATTEMPTS

    @pytest.mark.parametrize("token", ["", "x", "x" * 10_000])
    async def test_that_nobody_was_given_is_none(
        self, doors: Doors, ada: tuple[Identity, User], token: str
    ) -> None:
        await challenge(doors, ada[0])
        with pytest.raises(Unauthenticated):
            await ada[0].entrance.challenged(token)

    async def test_ends_with_the_suspension_of_its_user(
        self, doors: Doors, ada: tuple[Identity, User]
    ) -> None:
        identity, user = ada
        token = (await challenge(doors, identity)).token
        await identity.administer(user.id, status="suspended")
        with pytest.raises(Unauthenticated):
            await identity.entrance.challenged(token)
        with pytest.raises(Unauthenticated):
            await complete(identity, doors.database, token)

    async def test_leaves_no_row_behind_for_ever(self, doors: Doors, ada: tuple[Identity, User]) -> None:
        await challenge(doors, ada[0])
        await doors.clock.advance(model.CHALLENGE_LIFETIME.total_seconds() + 1)
        await challenge(doors, ada[0])
        assert await doors.value("select count(*) from sign_in_challenges") == 1


async def session(doors: Doors, identity: Identity, email: str) -> tuple[str, Principal]:
    outcome = await doors.sign_in(identity, email)
    assert isinstance(outcome, Entered)
    principal = await identity.entrance.authenticate(outcome.token)
    assert principal is not None
    return outcome.token, principal


class TestSessions:
    async def test_are_so_many_at_most_and_the_longest_unused_makes_room(self, doors: Doors) -> None:
        identity = await doors.open()
        tokens = []
        for _ in range(model.MOST_SESSIONS):
            tokens.append((await session(doors, identity, BOSS))[0])
            await doors.clock.advance(1)
        await doors.clock.advance(model.SESSION_TOUCH.total_seconds())
        assert await identity.entrance.authenticate(tokens[0]) is not None, "the oldest was used just now"
        tokens.append((await session(doors, identity, BOSS))[0])
        alive = [await identity.entrance.authenticate(token) is not None for token in tokens]
        assert alive == [True, False, *[True] * (model.MOST_SESSIONS - 1)]

    async def test_of_one_user_make_no_room_at_anothers(self, doors: Doors) -> None:
        identity = await doors.open()
        await identity.add_user(ADA)
        token, _ = await session(doors, identity, ADA)
        for _ in range(model.MOST_SESSIONS + 1):
            await session(doors, identity, BOSS)
        assert await identity.entrance.authenticate(token) is not None

    async def test_say_when_the_last_proof_was(self, doors: Doors) -> None:
        identity = await doors.open()
        token, principal = await session(doors, identity, BOSS)
        assert principal.authenticated_at == doors.clock.now()
        await doors.clock.advance(3600)
        async with doors.database.transaction() as connection:
            await identity.entrance.prove_again(connection, principal, method="totp")
        later = await identity.entrance.authenticate(token)
        assert later is not None
        assert later.authenticated_at == doors.clock.now()
        [shown] = await identity.entrance.sessions(principal.user_id)
        assert shown.methods == ["link", "totp"]

    async def test_are_ended_by_their_user_alone(self, doors: Doors) -> None:
        identity = await doors.open()
        await identity.add_user(ADA)
        _, boss = await session(doors, identity, BOSS)
        token, ada = await session(doors, identity, ADA)
        assert ada.session_id is not None
        with pytest.raises(NotFound):
            await identity.entrance.end_session(boss, ada.session_id)
        assert await identity.entrance.authenticate(token) is not None
        await identity.entrance.end_session(ada, ada.session_id)
        assert await identity.entrance.authenticate(token) is None

    async def test_that_ended_long_ago_leave_no_row(self, doors: Doors) -> None:
        identity = await doors.open()
        await session(doors, identity, BOSS)
        await doors.clock.advance(2 * model.SESSION_ABSOLUTE.total_seconds())
        await session(doors, identity, BOSS)
        assert await doors.value("select count(*) from login_sessions") == 1


class TestADemandedSecondFactor:
    async def test_must_be_set_up_before_anything_else(self, doors: Doors) -> None:
        identity = await doors.open()
        ada = await identity.add_user(ADA)
        token, before = await session(doors, identity, ADA)
        assert not before.must_enrol
        await identity.administer(ada.id, mfa_required=True)
        now = await identity.entrance.authenticate(token)
        assert now is not None
        assert now.must_enrol, "at once, in sessions that are open already"

    async def test_is_set_up_when_it_was_shown(self, doors: Doors, ada: tuple[Identity, User]) -> None:
        identity, user = ada
        await identity.administer(user.id, mfa_required=True)
        outcome = await complete(identity, doors.database, (await challenge(doors, identity)).token)
        principal = await identity.entrance.authenticate(outcome.token)
        assert principal is not None
        assert not principal.must_enrol

    async def test_of_administrators_is_demanded_of_them_alone(self, doors: Doors) -> None:
        identity = await doors.open(mfa_for_admins=True)
        await identity.add_user(ADA)
        await identity.add_user("auditor@example.org", "auditor")
        due = {
            email: (await session(doors, identity, email))[1].must_enrol
            for email in (BOSS, ADA, "auditor@example.org")
        }
        assert due == {BOSS: True, ADA: False, "auditor@example.org": False}


async def impersonated(doors: Doors, identity: Identity) -> tuple[str, Principal, User]:
    await identity.add_user(ADA)
    return await again(doors, identity)


async def again(doors: Doors, identity: Identity) -> tuple[str, Principal, User]:
    _, boss = await session(doors, identity, BOSS)
    user = await identity.user_by_email(ADA)
    async with doors.database.transaction() as connection:
        entered = await identity.entrance.impersonate(connection, boss, user, reason="ticket 7", browser=HERE)
    return entered.token, boss, user


class TestLookingThroughAnothersEyes:
    async def test_is_known_as_such_and_never_recent(self, doors: Doors) -> None:
        identity = await doors.open(mfa_for_admins=False)
        token, boss, user = await impersonated(doors, identity)
        principal = await identity.entrance.authenticate(token)
        assert principal is not None
        assert (principal.user_id, principal.email) == (user.id, ADA)
        assert principal.impersonator_id == boss.user_id
        assert principal.authenticated_at is None
        [shown] = await identity.entrance.sessions(user.id)
        assert shown.impersonated, "its user sees it"

    async def test_ends_after_an_hour_however_much_it_is_used(self, doors: Doors) -> None:
        identity = await doors.open()
        token, _, _ = await impersonated(doors, identity)
        for _ in range(5):
            await doors.clock.advance(model.IMPERSONATION.total_seconds() / 6)
            assert await identity.entrance.authenticate(token) is not None
        await doors.clock.advance(model.IMPERSONATION.total_seconds() / 6)
        assert await identity.entrance.authenticate(token) is None

    async def test_is_not_stopped_by_a_second_factor_that_the_user_lacks(self, doors: Doors) -> None:
        identity = await doors.open()
        token, _, user = await impersonated(doors, identity)
        await identity.administer(user.id, mfa_required=True)
        principal = await identity.entrance.authenticate(token)
        assert principal is not None
        assert not principal.must_enrol

    async def test_ends_with_the_users_suspension(self, doors: Doors) -> None:
        identity = await doors.open()
        token, _, user = await impersonated(doors, identity)
        await identity.administer(user.id, status="suspended")
        assert await identity.entrance.authenticate(token) is None

    @pytest.mark.parametrize(
        "lost", ["suspended", "role", "signed out", "all sessions", "expired", "another"]
    )
    async def test_ends_with_what_its_administrator_loses(self, doors: Doors, lost: str) -> None:
        identity = await doors.open()
        await identity.add_user("cleo@example.org", "admin")
        token, boss, _ = await impersonated(doors, identity)
        assert await identity.entrance.authenticate(token) is not None
        match lost:
            case "suspended":
                await identity.administer(boss.user_id, status="suspended")
            case "role":
                await identity.administer(boss.user_id, role="auditor")
            case "signed out":
                await identity.entrance.sign_out(boss)
            case "all sessions":
                async with doors.database.transaction() as connection:
                    await identity.entrance.end_all(connection, boss.user_id)
            case "expired":
                await doors.execute(
                    "update login_sessions set expires_at = $2 where id = $1",
                    boss.session_id,
                    doors.clock.now(),
                )
            case "another":  # the session that began it is none of that administrator's
                await doors.execute(
                    "update login_sessions set impersonator_session_id = id where impersonator_id is not null"
                )
        assert await identity.entrance.authenticate(token) is None

    async def test_stays_ended_when_its_administrator_is_let_in_again(self, doors: Doors) -> None:
        identity = await doors.open()
        await identity.add_user("cleo@example.org", "admin")
        token, boss, _ = await impersonated(doors, identity)
        for change in ({"status": "suspended"}, {"status": "active"}):
            await identity.administer(boss.user_id, **change)  # type: ignore[arg-type]
        assert await identity.entrance.authenticate(token) is None
        token, boss, _ = await again(doors, identity)
        for role in ("auditor", "admin"):
            await identity.administer(boss.user_id, role=role)
        assert await identity.entrance.authenticate(token) is None

    async def test_every_table_that_knows_impersonators_is_covered_here(self, doors: Doors) -> None:
        """A new column of that kind needs tests as those above."""
        known = await doors.value(
            "select array_agg(table_name || '.' || column_name order by column_name)"
            " from information_schema.columns"
            " where table_schema = 'public' and column_name like '%impersonator%'"
        )
        assert known == ["login_sessions.impersonator_id", "login_sessions.impersonator_session_id"]

    async def test_takes_no_session_of_the_users_away(self, doors: Doors) -> None:
        identity = await doors.open()
        token, boss, user = await impersonated(doors, identity)
        own = [(await session(doors, identity, ADA))[0] for _ in range(model.MOST_SESSIONS)]
        async with doors.database.transaction() as connection:
            await identity.entrance.impersonate(connection, boss, user, reason="again", browser=HERE)
        alive = [await identity.entrance.authenticate(each) is not None for each in (token, *own)]
        assert all(alive)

    async def test_is_in_the_audit_log_with_its_reason(self, doors: Doors) -> None:
        identity = await doors.open()
        _, boss, user = await impersonated(doors, identity)
        row = (await identity.audit.page(user_id=user.id))[0]
        assert (row.action, row.actor_id, row.subject_id) == ("session.impersonated", boss.user_id, user.id)
        assert row.details is not None
        assert row.details["reason"] == "ticket 7"


async def test_a_session_is_not_kept_in_any_memory(doors: Doors) -> None:
    """Another replica that ends it has ended it here."""
    identity = await doors.open()
    token, principal = await session(doors, identity, BOSS)
    other: Entrance = (await doors.open(boss=False)).entrance
    assert await other.authenticate(token) is not None
    await other.sign_out(principal)
    assert await identity.entrance.authenticate(token) is None
    await other.sign_out(principal)
