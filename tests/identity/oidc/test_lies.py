"""Providers that lie, forge, are slow, or are not there: nobody gets in, and nobody waits for long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web

from ocmt.testing.oidc import FakeIssuer, Signing

from ..browser import Browser
from .conftest import FAILED, Build, World, where

pytestmark = pytest.mark.anyio

Tell = Callable[[FakeIssuer], None]


def lie(**claims: Any) -> Tell:
    def apply(issuer: FakeIssuer) -> None:
        issuer.claims = {
            name: value(issuer.now) if callable(value) else value for name, value in claims.items()
        }

    return apply


def signing(how: Signing) -> Tell:
    def apply(issuer: FakeIssuer) -> None:
        issuer.sign = how

    return apply


class TestALie:
    """Nothing of what a provider's answer says counts before all of it was checked."""

    @pytest.mark.parametrize(
        "tell",
        [
            pytest.param(lie(nonce="another"), id="nonce of another attempt"),
            pytest.param(lie(nonce=None), id="no nonce"),
            pytest.param(lie(aud="another-client"), id="for another client"),
            pytest.param(lie(aud=["another-client"]), id="for other clients"),
            pytest.param(lie(aud=[]), id="for nobody"),
            pytest.param(lie(aud=None), id="no audience"),
            pytest.param(lie(aud=["ocmt-client", "another"]), id="for several, asked for by nobody"),
            pytest.param(lie(aud=["ocmt-client", "another"], azp="another"), id="asked for by another"),
            pytest.param(lie(azp="another"), id="authorised another party"),
            pytest.param(lie(iss="https://accounts.google.com"), id="another issuer"),
            pytest.param(lie(iss=None), id="no issuer"),
            pytest.param(lie(exp=lambda now: now - 61), id="expired"),
            pytest.param(lie(exp=None), id="never expires"),
            pytest.param(lie(exp="tomorrow"), id="expires some time"),
            pytest.param(lie(iat=lambda now: now + 61), id="from the future"),
            pytest.param(lie(iat=None), id="made at no time"),
            pytest.param(lie(nbf=lambda now: now + 61), id="not yet"),
            pytest.param(lie(sub=None), id="nobody"),
            pytest.param(lie(sub=""), id="empty subject"),
            pytest.param(lie(sub=7), id="a number as subject"),
            pytest.param(lie(sub="x" * 300), id="endless subject"),
            pytest.param(lie(sub="a\0b"), id="subject that no database takes"),
            pytest.param(lie(at_hash="AAAA"), id="with another access token"),
            pytest.param(signing("none"), id="not signed"),
            pytest.param(signing("HS256"), id="signed with the public key as a secret"),
            pytest.param(FakeIssuer.forge, id="signed by somebody else"),
            pytest.param(FakeIssuer.tamper, id="changed after it was signed"),
        ],
    )
    async def test_opens_nothing(self, ada: World, tell: Tell) -> None:
        tell(ada.issuer)
        browser = ada.browser()
        assert await ada.sign_in(browser) == f"{FAILED}token_invalid"
        assert await ada.who(browser) is None
        assert (await ada.count("login_sessions"), await ada.count("oidc_accounts")) == (0, 0)

    @pytest.mark.parametrize(
        "tell",
        [
            pytest.param(lie(exp=lambda now: now - 59), id="expired a moment ago"),
            pytest.param(lie(iat=lambda now: now + 59), id="made in a moment"),
            pytest.param(lie(aud=["ocmt-client"]), id="for us in a list"),
            pytest.param(lie(aud=["ocmt-client", "another"], azp="ocmt-client"), id="asked for by us"),
            pytest.param(lie(at_hash=None), id="without the access token's hash"),
        ],
    )
    async def test_is_not_what_clocks_and_the_protocol_allow(self, ada: World, tell: Tell) -> None:
        tell(ada.issuer)
        assert await ada.sign_in(ada.browser()) == "/"

    async def test_an_answer_that_names_another_issuer_is_none(self, ada: World) -> None:
        ada.issuer.names_itself = True
        assert await ada.sign_in(ada.browser()) == "/"
        ada.issuer.answer_issuer = "https://evil.example"
        assert await ada.sign_in(ada.browser()) == f"{FAILED}token_invalid"

    async def test_an_answer_that_names_no_issuer_where_it_has_to_is_none(self, ada: World) -> None:
        ada.issuer.names_itself = True
        browser = ada.browser()
        back = (await ada.set_out(browser)).partition("&iss=")[0]
        assert where(await browser.call("GET", back)) == f"{FAILED}token_invalid"

    @pytest.mark.parametrize("id_token", [None, 7, "", "x", "a.b.c", "ä.b.c", "." * 100_000])
    async def test_without_an_id_token_nobody_is_known(self, ada: World, id_token: object) -> None:
        tokens = {"access_token": "x", "token_type": "Bearer", "id_token": id_token}
        ada.issuer.instead["/token"] = web.json_response(tokens)
        assert await ada.sign_in(ada.browser()) == f"{FAILED}token_invalid"

    async def test_userinfo_of_somebody_else_is_nobodys(self, ada: World) -> None:
        ada.issuer.address_in_token = False
        ada.issuer.userinfo = {"sub": "person-2"}
        assert await ada.sign_in(ada.browser()) == f"{FAILED}token_invalid"

    async def test_the_code_is_worth_nothing_with_another_verifier(self, ada: World) -> None:
        browser = ada.browser()
        back = await ada.set_out(browser)
        async with ada.database.connection() as connection:
            await connection.execute("update oidc_attempts set verifier = repeat('a', 43)")
        assert where(await browser.call("GET", back)) == f"{FAILED}provider_rejected"


class TestKeys:
    async def test_are_kept_and_asked_for_again_when_one_is_new(self, ada: World) -> None:
        for _ in range(3):
            assert await ada.sign_in(ada.browser()) == "/"
        assert ada.issuer.seen.count("/jwks") == 1
        assert ada.issuer.seen.count("/.well-known/openid-configuration") == 1
        await ada.clock.advance(60)
        ada.issuer.rotate(keep=False)
        assert await ada.sign_in(ada.browser()) == "/"
        assert ada.issuer.seen.count("/jwks") == 2

    async def test_that_nobody_published_are_not_asked_for_each_time(self, ada: World) -> None:
        assert await ada.sign_in(ada.browser()) == "/"
        ada.issuer.forge()
        await ada.clock.advance(60)
        for _ in range(5):
            assert await ada.sign_in(ada.browser()) == f"{FAILED}token_invalid"
        assert ada.issuer.seen.count("/jwks") == 2

    async def test_are_not_believed_for_longer_than_an_hour(self, ada: World) -> None:
        assert await ada.sign_in(ada.browser()) == "/"
        ada.issuer.withdraw()
        assert await ada.sign_in(ada.browser()) == "/"
        await ada.clock.advance(3601)
        assert await ada.sign_in(ada.browser()) == f"{FAILED}token_invalid"

    @pytest.mark.parametrize("body", [b"", b"[]", b'{"keys": 7}', b'{"keys": [7, {}, {"kty": "RSA"}]}'])
    async def test_of_no_use_are_none(self, ada: World, body: bytes) -> None:
        ada.issuer.instead["/jwks"] = web.Response(body=body)
        assert await ada.sign_in(ada.browser()) == f"{FAILED}token_invalid"


class TestAProviderThat:
    @pytest.mark.parametrize("name", ["plain", "github"])
    async def test_is_down_is_said_to_be(self, ada: World, name: str) -> None:
        browser = ada.browser()
        back = await ada.set_out(browser, name)
        ada.issuer.down = ada.github.down = True
        assert where(await browser.call("GET", back)) == f"{FAILED}provider_unavailable"

    @pytest.mark.parametrize("name", ["plain", "github"])
    async def test_is_too_slow_is_not_waited_for(self, build: Build, ada: World, name: str) -> None:
        browser = ada.browser()
        back = await ada.set_out(browser, name)
        ada.issuer.hold = ada.github.hold = asyncio.Event()
        impatient = Browser(build(timeout=0.1).front, cookies=browser.cookies)
        async with asyncio.timeout(20):
            assert where(await impatient.call("GET", back)) == f"{FAILED}provider_unavailable"

    async def test_is_down_at_the_start_is_asked_again_after_some_seconds(self, world: World) -> None:
        world.issuer.down = True
        for _ in range(3):
            assert await world.start(world.browser()) == f"{FAILED}provider_unavailable"
        asked = len(world.issuer.seen)
        assert await world.start(world.browser()) == f"{FAILED}provider_unavailable"
        assert len(world.issuer.seen) == asked
        world.issuer.down = False
        await world.clock.advance(6)
        assert (await world.start(world.browser())).startswith(world.issuer.url)
        assert await world.count("oidc_attempts") == 1

    @pytest.mark.parametrize(
        "description",
        [
            {"issuer": "https://accounts.google.com"},
            {"issuer": None},
            {"authorization_endpoint": None},
            {"authorization_endpoint": "javascript:alert(1)"},
            {"token_endpoint": "http://169.254.169.254/token"},
            {"token_endpoint": "ftp://127.0.0.1/"},
            {"jwks_uri": "http://user@127.0.0.1/"},
            {"jwks_uri": "http://127.0.0.1:99999/"},
            {"jwks_uri": "file:///etc/passwd"},
            {"userinfo_endpoint": "http://example.org/"},
            {"jwks_uri": 7},
        ],
    )
    async def test_describes_itself_as_what_it_must_not_be_is_not_used(
        self, world: World, description: dict[str, Any]
    ) -> None:
        world.issuer.description = description
        assert await world.start(world.browser()) == f"{FAILED}provider_unavailable"

    @pytest.mark.parametrize(
        ("status", "headers", "body"),
        [
            pytest.param(404, {}, b"", id="not there"),
            pytest.param(500, {}, b"", id="broken"),
            pytest.param(200, {}, b"<html>", id="a page"),
            pytest.param(200, {}, b"[]", id="a list"),
            pytest.param(200, {}, b"[" * 100_000, id="deep"),
            pytest.param(200, {}, b'{"issuer": "' + b"x" * 600_000 + b'"}', id="endless"),
        ],
    )
    async def test_describes_itself_not_at_all_is_not_used(
        self, world: World, status: int, headers: dict[str, str], body: bytes
    ) -> None:
        description = web.Response(status=status, headers=headers, body=body)
        world.issuer.instead["/.well-known/openid-configuration"] = description
        assert await world.start(world.browser()) == f"{FAILED}provider_unavailable"

    @pytest.mark.parametrize("status", [301, 302, 307, 308])
    async def test_sends_us_elsewhere_is_not_followed(self, ada: World, status: int) -> None:
        browser = ada.browser()
        back = await ada.set_out(browser)
        elsewhere = {"location": f"{ada.issuer.url}/elsewhere"}
        for path in ("/.well-known/openid-configuration", "/token"):
            ada.issuer.instead[path] = web.Response(status=status, headers=elsewhere)
        ada.issuer.instead["/elsewhere"] = web.json_response({})
        assert where(await browser.call("GET", back)) == f"{FAILED}provider_unavailable"
        await ada.clock.advance(3601)
        assert await ada.start(browser) == f"{FAILED}provider_unavailable"
        assert "/elsewhere" not in ada.issuer.seen

    @pytest.mark.parametrize("path", ["/api/v3/user", "/api/v3/user/emails"])
    async def test_has_no_answer_about_the_person_is_said_to_be_unavailable(
        self, ada: World, path: str
    ) -> None:
        ada.github.instead[path] = web.json_response({"message": "rate limited"}, status=403)
        assert await ada.sign_in(ada.browser(), "github") == f"{FAILED}provider_unavailable"

    @pytest.mark.parametrize("name", ["plain", "github"])
    async def test_does_not_take_our_secret_is_the_administrators_to_mend(
        self, ada: World, name: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        refusal = {"error": "invalid_client"}
        ada.issuer.instead["/token"] = web.json_response(refusal, status=401)
        ada.github.instead["/login/oauth/access_token"] = web.json_response(refusal)
        browser = ada.browser()
        back = await ada.set_out(browser, name)
        assert where(await browser.call("GET", back)) == f"{FAILED}provider_rejected"
        log = "".join(capfd.readouterr()) + caplog.text
        assert "invalid_client" in log
        code, state = back.partition("?code=")[2].split("&state=")
        assert code not in log
        assert state not in log
