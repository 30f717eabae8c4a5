"""Whose account a provider opens: by a verified address, by the sign-up policy, by being connected."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from ocmt.identity.entrance.model import Browser
from ocmt.identity.oidc.model import MOST_ACCOUNTS
from ocmt.testing.oidc import FakeIssuer, Person

from .conftest import ADA, BOSS, FAILED, Build, World, where

pytestmark = pytest.mark.anyio

NOT_RECENT = timedelta(minutes=10, seconds=1).total_seconds()
LINK = "/api/v1/auth/oidc/plain/start?link=1"
OWN = "/api/v1/oidc-accounts"
CONNECTED = "/settings#linked=plain"


class TestAnIssuer:
    async def test_that_takes_anothers_place_opens_nobodys_account_by_its_subjects(
        self, ada: World, build: Build
    ) -> None:
        assert await ada.sign_in(ada.browser()) == "/"
        async with FakeIssuer(ada.clock) as another:
            another.person = Person(subject=ada.issuer.person.subject, email="eve@example.org")
            later = build(plain=another)
            assert await later.sign_in(later.browser()) != "/"
        assert await ada.sign_in(ada.browser()) == "/"


class TestAnAddress:
    @pytest.mark.parametrize("verified", [False, None, "false", 1, "yes", [True]])
    async def test_that_is_not_verified_opens_nothing(self, ada: World, verified: object) -> None:
        ada.issuer.person = Person(email_verified=verified)
        assert await ada.sign_in(ada.browser()) == f"{FAILED}email_unverified"
        assert await ada.count("oidc_accounts") == 0

    @pytest.mark.parametrize("email", [None, "", "ada", "ada@@example.org", "ädä@example.org"])
    async def test_that_is_none_opens_nothing(self, ada: World, email: str | None) -> None:
        ada.issuer.person = Person(email=email)
        assert await ada.sign_in(ada.browser()) == f"{FAILED}email_unverified"

    async def test_that_is_not_verified_any_more_opens_nothing_either(self, ada: World) -> None:
        assert await ada.sign_in(ada.browser()) == "/"
        ada.issuer.person.email_verified = False
        assert await ada.sign_in(ada.browser()) == f"{FAILED}email_unverified"

    async def test_of_a_trusted_domain_needs_no_more_than_the_providers_word(self, ada: World) -> None:
        await ada.accounts.identity.add_user("ada@corp.example")
        ada.issuer.person = Person(email="Ada@CORP.example", email_verified=None)
        assert await ada.sign_in(ada.browser(), "plain") == f"{FAILED}email_unverified"
        browser = ada.browser()
        assert await ada.sign_in(browser, "corp") == "/"
        assert await ada.who(browser) == "ada@corp.example"

    @pytest.mark.parametrize("domain", ["evil-corp.example", "corp.example.evil.org", "sub.corp.example"])
    async def test_of_a_domain_that_only_looks_like_it_does(self, ada: World, domain: str) -> None:
        await ada.accounts.identity.add_user(f"ada@{domain}")
        ada.issuer.person = Person(email=f"ada@{domain}", email_verified=None)
        assert await ada.sign_in(ada.browser(), "corp") == f"{FAILED}email_unverified"

    @pytest.mark.parametrize(
        "emails",
        [
            [{"email": ADA, "primary": True, "verified": False}],
            [{"email": ADA, "primary": False, "verified": True}],
            [{"email": ADA, "primary": "true", "verified": "true"}],
            [],
            {},
            None,
            ["ada@example.org"],
        ],
    )
    async def test_of_github_must_be_primary_and_verified(self, ada: World, emails: object) -> None:
        ada.github.emails = emails
        assert await ada.sign_in(ada.browser(), "github") == f"{FAILED}email_unverified"

    async def test_that_github_shows_in_public_does_not_count(self, ada: World) -> None:
        ada.github.user["email"] = ADA
        ada.github.emails = [{"email": "eve@evil.example", "primary": True, "verified": True}]
        assert await ada.sign_in(ada.browser(), "github") == f"{FAILED}not_admitted"

    @pytest.mark.parametrize("number", [None, "4711", True, 47.11])
    async def test_without_a_number_of_the_github_account_nobody_is_known(
        self, ada: World, number: object
    ) -> None:
        ada.github.user["id"] = number
        assert await ada.sign_in(ada.browser(), "github") == f"{FAILED}token_invalid"


class TestWhoIsLetIn:
    async def test_nobody_without_an_invitation_where_one_is_needed(self, ada: World) -> None:
        ada.issuer.person = Person(email="eve@example.org")
        assert await ada.sign_in(ada.browser()) == f"{FAILED}not_admitted"
        assert (await ada.count("users"), await ada.count("oidc_accounts")) == (2, 0)

    @pytest.mark.parametrize(
        ("policy", "email", "end"),
        [
            ({"sign_up": "open"}, "eve@example.org", "/"),
            ({"sign_up": "allowlist", "allowed": ["example.org"]}, "eve@example.org", "/"),
            ({"sign_up": "allowlist", "allowed": ["example.org"]}, "eve@other.org", f"{FAILED}not_admitted"),
        ],
    )
    async def test_whom_the_policy_names(
        self, build: Build, policy: dict[str, Any], email: str, end: str
    ) -> None:
        world = build(**policy)
        await world.accounts.identity.add_user(BOSS)
        world.issuer.person = Person(email=email)
        browser = world.browser()
        assert await world.sign_in(browser) == end
        assert await world.who(browser) == (email if end == "/" else None)

    async def test_nobody_before_their_approval(self, build: Build) -> None:
        world = build(sign_up="approval")
        await world.accounts.identity.add_user(BOSS)
        for _ in range(2):
            assert await world.sign_in(world.browser()) == f"{FAILED}awaits_approval"
        user = await world.accounts.identity.user_by_email(ADA)
        await world.accounts.identity.administer(user.id, status="active")
        assert await world.sign_in(world.browser()) == "/"
        assert await world.count("users") == 2

    async def test_nobody_who_is_suspended(self, ada: World) -> None:
        browser = ada.browser()
        await ada.sign_in(browser)
        user = await ada.accounts.identity.user_by_email(ADA)
        await ada.accounts.identity.administer(user.id, status="suspended")
        assert await ada.who(browser) is None
        assert await ada.sign_in(browser) == f"{FAILED}not_admitted"

    async def test_nobody_who_was_suspended_before_the_first_time(self, ada: World) -> None:
        user = await ada.accounts.identity.user_by_email(ADA)
        await ada.accounts.identity.administer(user.id, status="suspended")
        assert await ada.sign_in(ada.browser()) == f"{FAILED}not_admitted"
        assert await ada.count("oidc_accounts") == 0


class TestAnAccountThatIsInUse:
    """What an address alone opens: docs/decisions/0023."""

    async def test_is_not_opened_by_an_address_that_was_verified_some_time(self, world: World) -> None:
        await world.by_link(BOSS)
        await world.by_link(ADA)
        for name in ("plain", "corp", "github"):
            assert await world.sign_in(world.browser(), name) == f"{FAILED}link_needed"
        assert await world.count("oidc_accounts") == 0

    async def test_is_opened_by_who_decides_over_the_address(self, world: World) -> None:
        await world.by_link(BOSS)
        await world.by_link("ada@corp.example")
        world.issuer.person = Person(email="ada@corp.example")
        assert await world.sign_in(world.browser(), "plain") == f"{FAILED}link_needed"
        assert await world.sign_in(world.browser(), "corp") == "/"

    @pytest.mark.parametrize(
        "something",
        [
            "insert into imported_vaults (user_id, document) values ($1, '{}')",
            "insert into vault_keys (user_id, wrapped) values ($1, 'x')",
            "insert into agents (user_id, runtime, broker_token_hash) values ($1, 'sandbox', 'x')",
        ],
    )
    async def test_is_also_one_in_which_there_only_is_something(self, ada: World, something: str) -> None:
        user = await ada.accounts.identity.user_by_email(ADA)
        async with ada.database.connection() as connection:
            await connection.execute(something, user.id)
        assert await ada.sign_in(ada.browser()) == f"{FAILED}link_needed"


class TestConnecting:
    async def test_a_provider_to_the_account_one_is_signed_in_to(self, world: World) -> None:
        browser = await world.by_link(BOSS)
        world.issuer.person = Person(email="private@elsewhere.example")
        assert await world.sign_in(browser, link=True) == CONNECTED
        assert await world.who(browser) == BOSS
        [account] = await world.linked(browser)
        assert (account["email"], account["last_used_at"]) == ("private@elsewhere.example", None)
        other = world.browser()
        assert await world.sign_in(other) == "/"
        assert await world.who(other) == BOSS

    async def test_twice_is_once(self, world: World) -> None:
        browser = await world.by_link(BOSS)
        for _ in range(2):
            assert await world.sign_in(browser, link=True) == CONNECTED
        assert await world.count("oidc_accounts") == 1

    async def test_needs_a_recent_sign_in(self, world: World) -> None:
        browser = await world.by_link(BOSS)
        await world.clock.advance(NOT_RECENT)
        assert await world.start(browser, link=True) == "/settings#error=recent_sign_in_needed"

    async def test_needs_somebody_who_is_signed_in(self, world: World) -> None:
        assert await world.start(world.browser(), link=True) == "/settings#error=unauthenticated"

    @pytest.mark.parametrize("sent", [{}, {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}])
    async def test_is_not_begun_by_another_sites_page(self, world: World, sent: dict[str, str]) -> None:
        """It could connect its own account to that of whoever visits it, and come in by it ever after."""
        browser = await world.by_link(BOSS)
        answer = await browser.call("GET", LINK, headers=sent)
        assert answer.headers["location"] == "/settings#error=refused"
        assert await world.count("oidc_attempts") == 0

    async def test_is_not_done_on_somebodys_behalf(self, world: World) -> None:
        boss = await world.by_link(BOSS)
        ada = await world.accounts.identity.add_user(ADA)
        entrance = world.accounts.identity.entrance
        principal = await entrance.authenticate(boss.cookies["ocmt"])
        assert principal is not None
        async with world.database.transaction() as connection:
            entered = await entrance.impersonate(connection, principal, ada, reason="help", browser=Browser())
        ada_herself = await world.by_link(ADA)
        back = await world.set_out(ada_herself, link=True)
        ada_herself.cookies["ocmt"] = boss.cookies["ocmt"] = entered.token
        assert where(await ada_herself.call("GET", back)) == "/settings#error=attempt_expired"
        assert await world.who(boss) == ADA
        assert await world.start(boss, link=True) == "/settings#error=recent_sign_in_needed"
        answer = await boss.call("GET", OWN)
        assert (answer.status, answer.json()["code"]) == (403, "refused")

    async def test_is_not_done_while_a_second_factor_is_missing(self, ada: World) -> None:
        browser = await ada.by_link(ADA)
        user = await ada.accounts.identity.user_by_email(ADA)
        await ada.accounts.identity.administer(user.id, mfa_required=True)
        assert await ada.start(browser, link=True) == "/settings#error=second_factor_missing"
        answer = await browser.call("GET", OWN)
        assert (answer.status, answer.json()["code"]) == (403, "second_factor_missing")

    async def test_somebody_elses_account_is_refused(self, ada: World) -> None:
        await ada.sign_in(ada.browser())
        browser = await ada.by_link(BOSS)
        assert await ada.sign_in(browser, link=True) == "/settings#error=already_linked"

    async def test_is_not_finished_by_another_user_of_the_browser(self, world: World) -> None:
        browser = await world.by_link(BOSS)
        back = await world.set_out(browser, link=True)
        other = await world.by_link("bert@example.org")
        browser.cookies["ocmt"] = other.cookies["ocmt"]
        assert where(await browser.call("GET", back)) == "/settings#error=attempt_expired"
        assert await world.count("oidc_accounts") == 0

    async def test_is_not_finished_by_who_has_signed_out(self, world: World) -> None:
        browser = await world.by_link(BOSS)
        back = await world.set_out(browser, link=True)
        assert (await browser.call("POST", "/api/v1/auth/logout")).status == 204
        assert where(await browser.call("GET", back)) == f"{FAILED}attempt_expired"

    async def test_ends_at_some_number(self, world: World) -> None:
        browser = await world.by_link(BOSS)
        for number in range(MOST_ACCOUNTS):
            world.issuer.person.subject = f"person-{number}"
            assert await world.sign_in(browser, link=True) == CONNECTED
        world.issuer.person.subject = "one-more"
        assert await world.sign_in(browser, link=True) == "/settings#error=limit_reached"

    async def test_is_undone_by_its_user_alone(self, world: World) -> None:
        boss = await world.by_link(BOSS)
        bert = await world.by_link("bert@example.org")
        await world.sign_in(boss, link=True)
        [account] = await world.linked(boss)
        path = f"{OWN}/{account['id']}"
        assert await world.linked(bert) == []
        assert (await bert.call("DELETE", path)).status == 404
        assert (await boss.call("DELETE", path)).status == 204
        assert (await boss.call("DELETE", path)).status == 404
        assert await world.sign_in(world.browser()) == f"{FAILED}not_admitted"
        assert (await world.actions())[:2] == ["oidc.unlinked", "oidc.linked"]
