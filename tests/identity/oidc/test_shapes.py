"""ID tokens and userinfo as real providers make them: who gets in by which, and whose word counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from ocmt.identity.oidc.model import Provider, completed, configure, is_verified, lacks
from ocmt.testing.oidc import FakeIssuer, Person

from .conftest import ADA, FAILED, Build, World

pytestmark = pytest.mark.anyio

UNVERIFIED = f"{FAILED}email_unverified"
OUT: dict[str, Any] = {"email": None, "email_verified": None}
"""Left out."""


def shape(issuer: FakeIssuer, token: dict[str, Any], userinfo: dict[str, Any]) -> None:
    """Have it tell exactly this, beside the subject, in its ID tokens and at userinfo."""
    issuer.claims = {**OUT, **token}
    issuer.userinfo = {**OUT, **userinfo}


TRUE: dict[str, Any] = {"email": ADA, "email_verified": True}
SHAPES: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    # Who they are, what the ID token says, what userinfo says, where that leads
    ("Google: all of it in the ID token", {**TRUE, "hd": "example.org", "azp": "ocmt-client"}, TRUE, "/"),
    ("Keycloak: in both", {**TRUE, "preferred_username": "ada"}, {**TRUE, "preferred_username": "ada"}, "/"),
    ("Okta org server: verified at userinfo only", {"email": ADA}, TRUE, "/"),
    ("Authelia: address and its verification at userinfo", {}, TRUE, "/"),
    ("Authelia before 4.39: verified at userinfo only", {"email": ADA, "alt_emails": []}, TRUE, "/"),
    ("Zitadel: nothing asserted in the ID token", {"urn:zitadel:iam:org:id": "1"}, TRUE, "/"),
    ("Amazon Cognito: booleans as text", {"email": ADA, "email_verified": "true"}, {}, "/"),
    ("booleans as text at userinfo", {"email": ADA}, {"email": ADA, "email_verified": "True"}, "/"),
    ("an address with capitals", {"email": "Ada@Example.ORG"}, {**TRUE, "email": "ADA@example.org"}, "/"),
    (
        "Microsoft: an address and no word about it",
        {"email": ADA, "preferred_username": ADA},
        {"email": ADA},
        UNVERIFIED,
    ),
    ("Microsoft's claim by anybody else", {"email": ADA, "xms_edov": True}, {"email": ADA}, UNVERIFIED),
    (
        "a user name that looks like an address",
        {"preferred_username": ADA, "upn": ADA},
        {"upn": ADA},
        UNVERIFIED,
    ),
    ("denied in the signed token", {"email": ADA, "email_verified": False}, TRUE, UNVERIFIED),
    ("denied there as text", {"email": ADA, "email_verified": "false"}, TRUE, UNVERIFIED),
    ("denied there without an address", {"email_verified": False}, TRUE, UNVERIFIED),
    ("denied at userinfo", {"email": ADA}, {"email": ADA, "email_verified": False}, UNVERIFIED),
    ("denied at userinfo as text", {"email": ADA}, {"email": ADA, "email_verified": "false"}, UNVERIFIED),
    (
        "verified, but of another address",
        {"email": ADA},
        {"email": "eve@example.org", "email_verified": True},
        UNVERIFIED,
    ),
    ("verified, but of no address", {"email": ADA}, {"email_verified": True}, UNVERIFIED),
    ("verified in the token, of no address", {"email_verified": True}, {"email": ADA}, UNVERIFIED),
    ("a number is no word", {"email": ADA, "email_verified": 1}, {}, UNVERIFIED),
    ("a list is no word", {"email": ADA, "email_verified": ["true"]}, {}, UNVERIFIED),
    ("nothing anywhere", {}, {}, UNVERIFIED),
    (
        "distributed claims are not followed",
        {"_claim_names": {"email": "src1"}, "_claim_sources": {"src1": {"endpoint": "http://127.0.0.1:1/"}}},
        {},
        UNVERIFIED,
    ),
    (
        "aggregated claims are not believed",
        {"_claim_names": {"email": "src1"}, "_claim_sources": {"src1": {"JWT": "e30.e30."}}},
        {},
        UNVERIFIED,
    ),
]


@pytest.mark.parametrize(
    ("token", "userinfo", "end"), [each[1:] for each in SHAPES], ids=[each[0] for each in SHAPES]
)
async def test_the_shape_of(ada: World, token: dict[str, Any], userinfo: dict[str, Any], end: str) -> None:
    shape(ada.issuer, token, userinfo)
    browser = ada.browser()
    assert await ada.sign_in(browser) == end
    assert await ada.who(browser) == (ADA if end == "/" else None)


@pytest.mark.parametrize("sign", ["ES256", "RS256"])
async def test_userinfo_as_a_signed_token(ada: World, sign: Any) -> None:
    ada.issuer.sign = sign
    shape(ada.issuer, {}, TRUE)
    ada.issuer.signs_userinfo = True
    assert await ada.sign_in(ada.browser()) == "/"


@pytest.mark.parametrize(
    "lie",
    [
        {"iss": "https://evil.example"},
        {"aud": "another-client"},
        {"aud": ["another-client"]},
        {"sub": "person-2"},
        {"sub": None},
    ],
    ids=str,
)
async def test_signed_userinfo_of_another_issuer_client_or_person(ada: World, lie: dict[str, Any]) -> None:
    shape(ada.issuer, {}, {**TRUE, **lie})
    ada.issuer.signs_userinfo = True
    assert await ada.sign_in(ada.browser()) == f"{FAILED}token_invalid"


@pytest.mark.parametrize("body", ["", "e30.e30.", "a.b.c", "{}", "x" * 100_000])
async def test_userinfo_that_is_no_token_is_nobodys(ada: World, body: str) -> None:
    shape(ada.issuer, {}, TRUE)
    ada.issuer.instead["/userinfo"] = web.Response(text=body, content_type="application/jwt")
    assert await ada.sign_in(ada.browser()) == f"{FAILED}token_invalid"


async def test_userinfo_is_asked_only_for_what_is_missing(ada: World) -> None:
    shape(ada.issuer, TRUE, TRUE)
    assert await ada.sign_in(ada.browser()) == "/"
    assert "/userinfo" not in ada.issuer.seen


async def test_an_address_that_is_not_ascii_is_the_same_by_every_way(ada: World, build: Build) -> None:
    await ada.accounts.identity.add_user("eva@münchen.de")
    for email in ("eva@MÜNCHEN.de", "eva@xn--mnchen-3ya.de", "Eva@Mu\u0308nchen.DE"):
        ada.issuer.person = Person(subject="eva", email=email)
        browser = ada.browser()
        assert await ada.sign_in(browser) == "/", email
        assert await ada.who(browser) == "eva@xn--mnchen-3ya.de"


async def test_a_provider_that_is_connected_to_an_old_account_is_told_to_its_user(ada: World) -> None:
    mail = ada.accounts.identity.post._mail
    await ada.clock.advance(60)
    ada.issuer.person = Person(email=ADA)
    assert await ada.sign_in(ada.browser()) == "/"
    assert [(to, subject) for to, subject, _ in mail.sent] == [(ADA, "Your account: plain was connected")]  # type: ignore[attr-defined]
    assert await ada.sign_in(ada.browser()) == "/"
    assert len(mail.sent) == 1  # type: ignore[attr-defined]


class TestMicrosoft:
    """`xms_edov` is Microsoft's claim, and counts in Microsoft's tokens only."""

    tenant = configure(
        "entra", client_id="x", client_secret="y", issuer="https://login.microsoftonline.com/t/v2.0"
    )

    @pytest.mark.parametrize(
        ("said", "verified"),
        [
            (True, True),
            ("true", True),
            ("1", True),
            (1, True),
            (False, False),
            ("0", False),
            (None, False),
            ("yes", False),
        ],
    )
    def test_its_owner_has_proved_the_domain(self, said: object, verified: bool) -> None:
        claims = {"sub": "s", "email": ADA, "xms_edov": said}
        assert is_verified(self.tenant, claims) is verified
        assert not is_verified(
            replace(self.tenant, issuer="https://login.microsoftonline.com.evil.example"), claims
        )

    def test_what_it_denies_elsewhere_stays_denied(self) -> None:
        assert not is_verified(self.tenant, {"email": ADA, "xms_edov": True, "email_verified": False})


@pytest.fixture
def plain() -> Provider:
    return configure("plain", client_id="x", client_secret="y", issuer="https://login.example.org")


def test_a_trusted_domain_needs_no_word_about_its_addresses(plain: Provider) -> None:
    trusted = replace(plain, trusted_domains=frozenset({"example.org"}))
    assert lacks(plain, {"sub": "s", "email": ADA})
    assert not lacks(trusted, {"sub": "s", "email": ADA})
    assert lacks(trusted, {"sub": "s"})


def test_userinfo_adds_an_address_and_nothing_else() -> None:
    told = {"sub": "s", "email": ADA, "email_verified": True, "hd": "evil.example", "nonce": "x", "iss": "x"}
    assert completed({"sub": "s", "iss": "right"}, told) == {
        "sub": "s",
        "iss": "right",
        "email": ADA,
        "email_verified": True,
    }
