"""Signing in by a provider, over real HTTP from the button to the session; and the attempt that binds the
two."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import pytest

from ocmt.identity.oidc.model import configure
from ocmt.testing.oidc import CLIENT_ID, Signing

from ..browser import Browser
from ..conftest import PUBLIC_URL
from .conftest import ADA, BOSS, FAILED, Build, World, where

pytestmark = pytest.mark.anyio

LONGER_THAN_AN_ATTEMPT = timedelta(minutes=10, seconds=1).total_seconds()


class TestThePageToSignIn:
    async def test_offers_the_providers_by_their_names(self, world: World) -> None:
        answer = await world.browser().call("GET", "/api/v1/auth/providers")
        assert answer.status == 200
        assert answer.json() == {
            "oidc": [
                {"id": "plain", "label": "Plain"},
                {"id": "corp", "label": "Corp login"},
                {"id": "github", "label": "GitHub"},
            ],
            "magic_link": True,
            "passkeys": True,
        }

    async def test_a_provider_that_is_none_is_not_found(self, world: World) -> None:
        for step in ("start", "callback"):
            answer = await world.browser().call("GET", f"/api/v1/auth/oidc/nobody/{step}")
            assert (answer.status, answer.json()["code"]) == (404, "not_found")


class TestSigningIn:
    @pytest.mark.parametrize("sign", ["ES256", "RS256"])
    async def test_from_the_button_to_the_session(self, ada: World, sign: Signing) -> None:
        ada.issuer.sign = sign
        browser = ada.browser()
        assert await ada.sign_in(browser) == "/"
        assert await ada.who(browser) == ADA
        [session] = (await browser.call("GET", "/api/v1/sessions")).json()["items"]
        assert session["methods"] == ["oidc:plain"]
        assert await ada.count("oidc_attempts") == 0

    async def test_by_github(self, ada: World) -> None:
        browser = ada.browser()
        assert await ada.sign_in(browser, "github") == "/"
        assert await ada.who(browser) == ADA
        [account] = await ada.linked(browser)
        assert (account["provider"], account["label"], account["email"]) == ("github", "GitHub", ADA)

    async def test_the_provider_is_asked_with_state_nonce_and_a_challenge(self, world: World) -> None:
        browser = world.browser()
        url = urlsplit(await world.start(browser))
        asked = {name: value for name, [value] in parse_qs(url.query).items()}
        assert f"{url.scheme}://{url.netloc}{url.path}" == f"{world.issuer.url}/authorize"
        assert asked["redirect_uri"] == f"{PUBLIC_URL}/api/v1/auth/oidc/plain/callback"
        assert asked["scope"] == "openid email profile"
        assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
        assert len({asked["state"], asked["nonce"], asked["code_challenge"]}) == 3
        assert all(len(asked[name]) >= 43 for name in ("state", "nonce", "code_challenge"))
        assert "client_secret" not in asked
        async with world.database.connection() as connection:
            kept = dict(await connection.fetchrow("select * from oidc_attempts") or {})
        assert len(kept["state_hash"]) == len(kept["browser_hash"]) == 32, "only hashes"

    async def test_a_second_sign_in_is_the_same_user(self, ada: World) -> None:
        for _ in range(2):
            assert await ada.sign_in(ada.browser()) == "/"
        assert await ada.count("oidc_accounts") == 1

    async def test_whose_address_changed_at_the_provider_stays_the_same_user(self, ada: World) -> None:
        await ada.sign_in(ada.browser())
        ada.issuer.person.email = "ada.l@elsewhere.example"
        browser = ada.browser()
        assert await ada.sign_in(browser) == "/"
        assert await ada.who(browser) == ADA
        [account] = await ada.linked(browser)
        assert account["email"] == "ada.l@elsewhere.example"

    async def test_another_subject_with_a_known_address_is_not_that_user(self, ada: World) -> None:
        await ada.sign_in(ada.browser())
        ada.issuer.person.subject = "person-2"
        browser = ada.browser()
        assert await ada.sign_in(browser) == f"{FAILED}link_needed"
        assert await ada.who(browser) is None

    async def test_a_second_factor_is_still_due(self, ada: World) -> None:
        user = await ada.accounts.identity.user_by_email(ADA)
        async with ada.database.connection() as connection:
            await connection.execute(
                "insert into totp_secrets (user_id, sealed, created_at, confirmed_at)"
                " values ($1, 'x', now(), now())",
                user.id,
            )
        browser = ada.browser()
        assert await ada.sign_in(browser) == "/sign-in#mfa"
        assert "ocmt-challenge" in browser.cookies
        assert await ada.who(browser) is None

    async def test_signing_in_again_ends_the_session_that_the_cookie_had(self, ada: World) -> None:
        browser = ada.browser()
        await ada.sign_in(browser)
        before = Browser(ada.front, cookies=dict(browser.cookies))
        await ada.sign_in(browser)
        assert await ada.who(browser) == ADA
        assert await ada.who(before) is None

    async def test_the_address_may_be_at_userinfo_alone(self, ada: World) -> None:
        ada.issuer.address_in_token = False
        assert await ada.sign_in(ada.browser()) == "/"
        assert "/userinfo" in ada.issuer.seen

    @pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
    async def test_the_secret_goes_where_the_provider_wants_it(self, ada: World, method: str) -> None:
        ada.issuer.auth_method = method
        assert await ada.sign_in(ada.browser()) == "/"

    async def test_a_public_client_has_none(self, build: Build, ada: World) -> None:
        ada.issuer.auth_method = "none"
        world = build(configure("public", client_id=CLIENT_ID, issuer=f"{ada.issuer.url}/"))
        assert await world.sign_in(world.browser(), "public") == "/"

    async def test_from_another_name_of_this_machine_one_begins_at_the_public_one(self, world: World) -> None:
        answer = await world.browser().call(
            "GET", "/api/v1/auth/oidc/plain/start", headers={"host": "127.0.0.1:8080"}
        )
        assert answer.headers["location"] == f"{PUBLIC_URL}/api/v1/auth/oidc/plain/start"
        assert await world.count("oidc_attempts") == 0

    async def test_several_at_once_make_one_account(self, build: Build) -> None:
        world = build(sign_up="open")
        await world.accounts.identity.add_user(BOSS)
        ends = await asyncio.gather(*(world.sign_in(world.browser()) for _ in range(4)))
        assert ends == ["/"] * 4
        assert (await world.count("users"), await world.count("oidc_accounts")) == (2, 1)

    async def test_what_was_done_is_in_the_audit_log(self, ada: World) -> None:
        await ada.sign_in(ada.browser())
        opened, linked, *_ = await ada.accounts.identity.audit.page(user_id=None)
        assert (opened.action, linked.action) == ("session.opened", "oidc.linked")
        assert linked.details == {"address": "127.0.0.1", "after": {"provider": "plain", "email": ADA}}


class TestAnAttempt:
    async def test_works_once(self, ada: World) -> None:
        browser = ada.browser()
        back = await ada.set_out(browser)
        assert where(await browser.call("GET", back)) == "/"
        again = await browser.call("GET", back)
        assert where(again) == "/", "the back button: one is signed in"
        assert "set-cookie" not in again.headers
        stranger = ada.browser()
        stranger.cookies.update({k: v for k, v in browser.cookies.items() if k != "ocmt"})
        assert where(await stranger.call("GET", back)) == f"{FAILED}attempt_expired"

    async def test_works_once_also_where_two_answers_come_at_once(self, ada: World) -> None:
        browser = ada.browser()
        back = await ada.set_out(browser)
        ends = await asyncio.gather(*(browser.call("GET", back) for _ in range(5)))
        assert sorted(map(where, ends)) == ["/", *[f"{FAILED}attempt_expired"] * 4]

    async def test_ends_after_ten_minutes(self, ada: World) -> None:
        browser = ada.browser()
        back = await ada.set_out(browser)
        await ada.clock.advance(LONGER_THAN_AN_ATTEMPT)
        assert where(await browser.call("GET", back)) == f"{FAILED}attempt_expired"

    async def test_is_of_no_use_in_another_browser_and_then_in_none(self, ada: World) -> None:
        """Otherwise somebody could sign their victim in as themselves (login CSRF)."""
        for has_begun_one_itself in (False, True):
            browser, stranger = ada.browser(), ada.browser()
            back = await ada.set_out(browser)
            if has_begun_one_itself:
                await ada.set_out(stranger)
            for each in (stranger, browser):
                assert where(await each.call("GET", back)) == f"{FAILED}attempt_expired"
                assert await ada.who(each) is None

    async def test_of_one_provider_is_none_of_another(self, ada: World) -> None:
        browser = ada.browser()
        back = (await ada.set_out(browser, "plain")).replace("/plain/", "/corp/")
        assert where(await browser.call("GET", back)) == f"{FAILED}attempt_expired"

    @pytest.mark.parametrize(
        "query", ["", "?state=", "?state=x&code=y", "?code=y", f"?state={'x' * 5000}&code=y"]
    )
    async def test_that_nobody_began_is_none(self, ada: World, query: str) -> None:
        answer = await ada.browser().call("GET", f"/api/v1/auth/oidc/plain/callback{query}")
        assert where(answer) == f"{FAILED}attempt_expired"
        assert ada.issuer.seen == []

    async def test_can_be_called_off_at_the_provider(self, ada: World) -> None:
        ada.issuer.refuses = "access_denied"
        assert await ada.sign_in(ada.browser()) == f"{FAILED}cancelled"

    async def test_that_the_provider_refuses_says_no_more_than_that(self, ada: World) -> None:
        ada.issuer.refuses = "<script>alert(1)</script>"
        assert await ada.sign_in(ada.browser()) == f"{FAILED}provider_rejected"

    async def test_cannot_be_begun_without_end_from_one_address(self, world: World) -> None:
        ends = [(await world.start(world.browser())).partition("?")[0] for _ in range(61)]
        assert ends == [*[f"{world.issuer.url}/authorize"] * 60, f"{FAILED}limit_reached"]

    async def test_leaves_no_row_behind_for_ever(self, world: World) -> None:
        await world.set_out(world.browser())
        await world.clock.advance(LONGER_THAN_AN_ATTEMPT)
        await world.set_out(world.browser())
        assert await world.count("oidc_attempts") == 1
