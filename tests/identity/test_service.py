"""Who gets in, for how long, and what ends it: on a real database."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta

import pytest

from ocmt.errors import Conflict, InvalidInput, NotFound, Refused, Unauthenticated
from ocmt.identity.entrance.model import Browser
from ocmt.identity.entrance.service import Entered
from ocmt.identity.limits import LINKS_TO
from ocmt.identity.model import User
from ocmt.identity.service import Identity
from ocmt.platform.database import Database
from ocmt.platform.rate import Rate
from ocmt.testing.clock import VirtualClock

from .conftest import PUBLIC_URL, Letters

pytestmark = pytest.mark.anyio

DAY = timedelta(days=1).total_seconds()


async def linked(identity: Identity, letters: Letters, email: str) -> str:
    """The token in the letter that a request for a link brings."""
    await identity.request_link(email)
    return letters.last_token()


async def signed_in(identity: Identity, email: str, *, admin: bool = False) -> tuple[User, str]:
    await identity.add_user(email, "admin" if admin else "user")
    return await enter(identity, token_of(await identity.make_link(email)), "test")


async def enter(identity: Identity, token: str, agent: str | None = None) -> tuple[User, str]:
    """Use a link up, as somebody who says that it was them who asked."""
    outcome = await identity.sign_in(token, Browser(agent), confirmed=True)
    assert isinstance(outcome, Entered)
    return outcome.user, outcome.token


async def suspend(identity: Identity, email: str) -> User:
    return await identity.administer((await identity.user_by_email(email)).id, status="suspended")


async def reinstate(identity: Identity, email: str) -> User:
    return await identity.administer((await identity.user_by_email(email)).id, status="active")


async def start_token(identity: Identity) -> str:
    link = await identity.make_start_link()
    assert link is not None
    return token_of(link)


def token_of(link: str) -> str:
    match = re.fullmatch(re.escape(PUBLIC_URL) + r"/sign-in#token=([\w-]{43})", link)
    assert match, link
    return match[1]


class TestWhoIsAdmitted:
    async def test_a_stranger_who_comes_first_gets_no_letter(
        self, identity: Identity, letters: Letters
    ) -> None:
        await identity.request_link("eve@evil.example")
        assert letters.sent == []
        assert list(await identity.users()) == []

    async def test_afterwards_a_stranger_gets_no_letter_and_hears_nothing(
        self, identity: Identity, letters: Letters
    ) -> None:
        await identity.add_user("ada@example.org")
        await identity.request_link("eve@example.org")
        assert letters.sent == []

    async def test_whom_the_administrator_added_gets_one_however_they_spell_it(
        self, identity: Identity, letters: Letters
    ) -> None:
        await identity.add_user("ada@example.org")
        await identity.add_user("Bob@Example.org", name="Bob")
        user, _ = await enter(identity, await linked(identity, letters, "bob@EXAMPLE.org"))
        assert (user.email, user.name, user.is_admin) == ("bob@example.org", "Bob", False)

    async def test_a_suspended_user_gets_no_letter(self, identity: Identity, letters: Letters) -> None:
        await identity.add_user("ada@example.org")
        await identity.add_user("bob@example.org")
        await suspend(identity, "bob@example.org")
        await identity.request_link("bob@example.org")
        assert letters.sent == []

    async def test_of_several_who_use_the_start_link_at_once_only_one_gets_in(
        self, identity: Identity
    ) -> None:
        token = await start_token(identity)
        results = await asyncio.gather(*(enter(identity, token) for _ in range(4)), return_exceptions=True)
        assert sum(isinstance(result, tuple) for result in results) == 1
        assert [user.is_admin for user in await identity.users()] == [True]

    async def test_what_is_no_address_is_refused(self, identity: Identity) -> None:
        with pytest.raises(InvalidInput):
            await identity.request_link("no address")


class TestLinks:
    async def test_a_link_works_once_even_when_used_many_times_at_once(self, identity: Identity) -> None:
        await identity.add_user("ada@example.org")
        token = token_of(await identity.make_link("ada@example.org"))
        results = await asyncio.gather(*(enter(identity, token) for _ in range(8)), return_exceptions=True)
        assert sum(isinstance(result, tuple) for result in results) == 1
        assert sum(isinstance(result, Unauthenticated) for result in results) == 7

    async def test_a_link_works_for_fifteen_minutes(self, identity: Identity, clock: VirtualClock) -> None:
        await identity.add_user("ada@example.org")
        in_time = token_of(await identity.make_link("ada@example.org"))
        too_late = token_of(await identity.make_link("ada@example.org"))
        await clock.advance(15 * 60 - 1)
        await enter(identity, in_time)
        await clock.advance(1)
        with pytest.raises(Unauthenticated):
            await enter(identity, too_late)

    @pytest.mark.parametrize("token", ["", "x", "x" * 43, "x" * 100_000, "\ud800", "\x00"])
    async def test_a_made_up_token_signs_nobody_in(self, identity: Identity, token: str) -> None:
        await identity.add_user("ada@example.org")
        with pytest.raises(Unauthenticated):
            await enter(identity, token)

    async def test_a_link_to_somebody_who_was_suspended_meanwhile_is_refused_and_used_up(
        self, identity: Identity
    ) -> None:
        await identity.add_user("ada@example.org")
        await identity.add_user("bob@example.org")
        token = token_of(await identity.make_link("bob@example.org"))
        await suspend(identity, "bob@example.org")
        with pytest.raises(Refused):
            await enter(identity, token)
        await reinstate(identity, "bob@example.org")
        with pytest.raises(Unauthenticated):
            await enter(identity, token)

    async def test_no_link_is_made_for_nobody_or_for_the_suspended(self, identity: Identity) -> None:
        await identity.add_user("ada@example.org")
        await identity.add_user("bob@example.org")
        await suspend(identity, "bob@example.org")
        with pytest.raises(NotFound):
            await identity.make_link("eve@example.org")
        with pytest.raises(Refused):
            await identity.make_link("bob@example.org")

    async def test_an_address_gets_five_letters_in_a_quarter_of_an_hour(
        self, identity: Identity, letters: Letters, clock: VirtualClock
    ) -> None:
        await identity.add_user("ada@example.org")
        await identity.add_user("bob@example.org")
        await asyncio.gather(*(identity.request_link("ada@example.org") for _ in range(LINKS_TO.burst + 3)))
        assert len(letters.sent) == LINKS_TO.burst
        await identity.request_link("bob@example.org")
        assert len(letters.sent) == LINKS_TO.burst + 1
        await clock.advance(15 * 60)
        await identity.request_link("ada@example.org")
        assert len(letters.sent) == LINKS_TO.burst + 2

    async def test_made_up_addresses_do_not_fill_the_table(
        self, identity: Identity, database: Database, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        few = Rate("few", count=3, period=timedelta(minutes=15), burst=3)
        monkeypatch.setattr("ocmt.identity.limits.LINKS_TO_STRANGERS", few)
        await identity.add_user("ada@example.org")
        for number in range(5):
            await identity.request_link(f"nobody{number}@example.org")
        assert await count(database, "sign_in_links") == 3
        await identity.request_link("ada@example.org")  # and they lock nobody out
        assert await count(database, "sign_in_links") == 4
        await clock.advance(2 * 3600)
        await identity.request_link("ada@example.org")
        assert await count(database, "sign_in_links") == 1

    async def test_a_letter_that_cannot_be_sent_is_no_fault_of_the_asker(
        self, identity: Identity, letters: Letters
    ) -> None:
        await identity.add_user("ada@example.org")
        letters.fault = OSError("no mail server")
        await identity.request_link("ada@example.org")


class TestTheStartLink:
    async def test_on_an_empty_installation_it_makes_the_administrator(self, identity: Identity) -> None:
        user, _ = await enter(identity, await start_token(identity))
        assert (user.email, user.is_admin) == ("admin@localhost", True)

    async def test_there_is_none_once_there_is_an_administrator(
        self, identity: Identity, clock: VirtualClock
    ) -> None:
        await identity.add_user("ada@example.org")
        await clock.advance(1)
        await identity.add_user("cleo@example.org", "admin")
        assert await identity.make_start_link() is None
        await suspend(identity, "ada@example.org")
        assert await identity.make_start_link() is None
        first = await identity.first_administrator()
        assert first is not None
        assert first.email == "cleo@example.org"

    async def test_one_that_was_printed_before_is_void_then(self, identity: Identity) -> None:
        token = await start_token(identity)
        await identity.add_user("ada@example.org", "admin")
        with pytest.raises(Unauthenticated):
            await enter(identity, token)
        assert [user.email for user in await identity.users()] == ["ada@example.org"]

    async def test_it_works_for_an_hour_at_most(self, identity: Identity, clock: VirtualClock) -> None:
        token = await start_token(identity)
        await clock.advance(timedelta(hours=1).total_seconds())
        with pytest.raises(Unauthenticated):
            await enter(identity, token)

    async def test_strangers_who_signed_up_first_do_not_take_it_away(
        self, database: Database, letters: Letters, clock: VirtualClock
    ) -> None:
        identity = Identity.over(database, letters, clock, public_url=PUBLIC_URL, sign_up="open")
        await identity.request_link("eve@evil.example")
        stranger, _ = await enter(identity, letters.last_token())
        assert not stranger.is_admin
        user, _ = await enter(identity, await start_token(identity))
        assert user.is_admin

    async def test_a_new_one_voids_the_one_before(self, identity: Identity) -> None:
        older, newer = [await start_token(identity) for _ in range(2)]
        with pytest.raises(Unauthenticated):
            await enter(identity, older)
        await enter(identity, newer)
        with pytest.raises(Unauthenticated):
            await enter(identity, newer)


class TestSessions:
    async def test_a_session_is_known_by_its_token(self, identity: Identity) -> None:
        user, token = await signed_in(identity, "ada@example.org")
        principal = await identity.entrance.authenticate(token)
        assert principal is not None
        assert (principal.user_id, principal.email, principal.is_admin) == (user.id, user.email, True)
        assert await identity.entrance.authenticate(token[:-1]) is None
        assert await identity.entrance.authenticate("x" * 100_000) is None

    async def test_tokens_are_kept_only_as_hashes(self, identity: Identity, database: Database) -> None:
        await identity.add_user("ada@example.org")
        link = token_of(await identity.make_link("ada@example.org"))
        _, session = await enter(identity, link, "Browser")
        async with database.connection() as connection:
            rows = [
                *await connection.fetch("select * from login_sessions"),
                *await connection.fetch("select * from sign_in_links"),
            ]
        assert len(rows) == 2
        assert link not in repr(rows)
        assert session not in repr(rows)

    async def test_a_week_without_use_ends_it(self, identity: Identity, clock: VirtualClock) -> None:
        _, token = await signed_in(identity, "ada@example.org")
        await clock.advance(6 * DAY)
        assert await identity.entrance.authenticate(token)
        await clock.advance(6 * DAY)
        assert await identity.entrance.authenticate(token)
        await clock.advance(7 * DAY)
        assert await identity.entrance.authenticate(token) is None

    async def test_thirty_days_end_it_in_any_case(self, identity: Identity, clock: VirtualClock) -> None:
        _, token = await signed_in(identity, "ada@example.org")
        for _ in range(29):
            await clock.advance(DAY)
            assert await identity.entrance.authenticate(token)
        await clock.advance(DAY)
        assert await identity.entrance.authenticate(token) is None

    async def test_its_last_use_is_written_every_five_minutes(
        self, identity: Identity, clock: VirtualClock
    ) -> None:
        user, token = await signed_in(identity, "ada@example.org")
        began = clock.now()
        for minutes, seen in ((4, began), (1, began + timedelta(minutes=5))):
            await clock.advance(minutes * 60)
            await identity.entrance.authenticate(token)
            assert [session.last_seen_at for session in await identity.entrance.sessions(user.id)] == [seen]

    async def test_signing_out_ends_this_session_and_no_other(self, identity: Identity) -> None:
        user, here = await signed_in(identity, "ada@example.org")
        _, there = await enter(identity, token_of(await identity.make_link(user.email)), "There")
        principal = await identity.entrance.authenticate(here)
        assert principal is not None
        await identity.entrance.sign_out(principal)
        await identity.entrance.sign_out(principal)
        assert await identity.entrance.authenticate(here) is None
        assert await identity.entrance.authenticate(there)
        assert [session.user_agent for session in await identity.entrance.sessions(user.id)] == ["There"]

    async def test_suspension_ends_all_sessions_at_once_in_every_replica(
        self, identity: Identity, letters: Letters, clock: VirtualClock, database: Database
    ) -> None:
        await signed_in(identity, "ada@example.org")
        _, token = await signed_in(identity, "bob@example.org")
        replica = Identity.over(database, letters, clock, public_url=PUBLIC_URL)
        assert await identity.entrance.authenticate(token)
        await suspend(replica, "bob@example.org")
        assert await identity.entrance.authenticate(token) is None
        await reinstate(replica, "bob@example.org")
        assert await identity.entrance.authenticate(token) is None

    async def test_nobody_ends_the_session_of_another(self, identity: Identity) -> None:
        ada, token = await signed_in(identity, "ada@example.org")
        bob, bobs = await signed_in(identity, "bob@example.org")
        [session] = await identity.entrance.sessions(ada.id)
        other = await identity.entrance.authenticate(bobs)
        assert other is not None
        assert other.user_id == bob.id
        with pytest.raises(NotFound):
            await identity.entrance.end_session(other, session.id)
        assert await identity.entrance.authenticate(token)

    async def test_sessions_that_ended_long_ago_are_forgotten(
        self, identity: Identity, database: Database, clock: VirtualClock
    ) -> None:
        user, _ = await signed_in(identity, "ada@example.org")
        await clock.advance(40 * DAY)
        await enter(identity, token_of(await identity.make_link(user.email)))
        assert await count(database, "login_sessions") == 1


class TestUsers:
    async def test_the_first_user_is_an_administrator_the_next_only_if_told(self, identity: Identity) -> None:
        added = [
            await identity.add_user(f"{name}@example.org", "admin" if name == "cleo" else "user")
            for name in ("ada", "bob", "cleo")
        ]
        assert [user.is_admin for user in added] == [True, False, True]

    async def test_an_address_belongs_to_one_user(self, identity: Identity) -> None:
        await identity.add_user("ada@example.org")
        with pytest.raises(Conflict):
            await identity.add_user("ADA@example.org")

    async def test_the_last_administrator_cannot_be_suspended(self, identity: Identity) -> None:
        await identity.add_user("ada@example.org")
        await identity.add_user("bob@example.org")
        with pytest.raises(Conflict):
            await suspend(identity, "ada@example.org")
        await identity.add_user("cleo@example.org", "admin")
        assert (await suspend(identity, "ada@example.org")).status == "suspended"
        with pytest.raises(NotFound):
            await suspend(identity, "eve@example.org")

    async def test_the_first_administrator_gets_a_proper_name_and_address(self, identity: Identity) -> None:
        user, _ = await enter(identity, await start_token(identity))
        changed = await identity.change_user(user.id, name="Ada", email="Ada@example.org")
        assert (changed.name, changed.email) == ("Ada", "ada@example.org")
        changed = await identity.change_user(user.id, name=None)
        assert (changed.name, changed.email) == (None, "ada@example.org")

    async def test_nobody_takes_the_address_of_another(self, identity: Identity) -> None:
        ada = await identity.add_user("ada@example.org")
        bob = await identity.add_user("bob@example.org")
        with pytest.raises(Conflict):
            await identity.change_user(ada.id, email="bob@example.org")
        with pytest.raises(Refused):
            await identity.change_user(bob.id, email="cleo@example.org")
        assert (await identity.change_user(bob.id, name="Bob", email="BOB@example.org")).name == "Bob"

    async def test_users_come_in_pages_oldest_first(self, identity: Identity, clock: VirtualClock) -> None:
        added = []
        for number in range(5):
            added.append(await identity.add_user(f"user{number}@example.org"))
            await clock.advance(1)
        first = await identity.users(limit=3)
        assert [*first, *await identity.users(after=first[-1].id, limit=3)] == added


async def count(database: Database, table: str) -> int:
    async with database.connection() as connection:
        found: int = await connection.fetchval(f"select count(*) from {table}")
    return found
