"""Providers from settings, addresses that may be asked, and what a provider's word is worth."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocmt.errors import SetupProblem
from ocmt.identity.oidc import id_tokens
from ocmt.identity.oidc.model import (
    AddressUnverified,
    Provider,
    TokenInvalid,
    configure,
    is_safe,
    may_link,
    profile,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)


def google(**more: Any) -> Provider:
    return configure("google", client_id="id", client_secret="secret", **more)


class TestConfiguring:
    def test_google_and_github_know_their_addresses(self) -> None:
        assert (google().label, google().issuer) == ("Google", "https://accounts.google.com")
        github = configure("github", client_id="id", client_secret="secret")
        assert (github.label, github.issuer, github.kind) == ("GitHub", "https://github.com", "github")

    def test_any_other_is_named_by_its_issuer(self) -> None:
        for written in ("https://sso.example.org/realms/main", "https://sso.example.org/realms/main/"):
            found = configure("my_corp", client_id="id", issuer=written)
            assert (found.label, found.kind, found.issuer) == (
                "My corp",
                "oidc",
                "https://sso.example.org/realms/main",
            )

    def test_the_address_may_be_that_of_the_description(self) -> None:
        url = "https://sso.example.org/.well-known/openid-configuration"
        assert configure("sso", client_id="id", issuer=url).issuer == "https://sso.example.org"

    def test_the_secret_is_not_shown(self) -> None:
        assert "hush" not in repr(configure("google", client_id="id", client_secret="hush"))

    @pytest.mark.parametrize(
        ("given", "named"),
        [
            ({"id": "google", "client_id": None}, "oidc.google.client_id"),
            ({"id": "google", "client_id": "id"}, "oidc.google.client_secret"),
            ({"id": "github", "client_id": "id"}, "oidc.github.client_secret"),
            ({"id": "corp", "client_id": "id"}, "oidc.corp.issuer"),
            ({"id": "corp", "client_id": "id", "issuer": "http://sso.example.org"}, "oidc.corp.issuer"),
            ({"id": "corp", "client_id": "id", "issuer": "sso.example.org"}, "oidc.corp.issuer"),
            ({"id": "corp", "client_id": "id", "issuer": "https://a.org/?x=1"}, "oidc.corp.issuer"),
            ({"id": "Corp!", "client_id": "id", "issuer": "https://a.org"}, "Corp!"),
            (
                {"id": "corp", "client_id": "id", "issuer": "https://a.org", "trusted_domains": ["*"]},
                "oidc.corp.trusted_domains",
            ),
            (
                {"id": "corp", "client_id": "id", "issuer": "https://a.org", "trusted_domains": ["a@b.org"]},
                "oidc.corp.trusted_domains",
            ),
        ],
    )
    def test_what_is_wrong_is_named(self, given: dict[str, Any], named: str) -> None:
        with pytest.raises(SetupProblem, match=r"\.$") as caught:
            configure(**given)
        assert named in caught.value.message


@pytest.mark.parametrize(
    ("url", "elsewhere", "here"),
    [
        ("https://example.org/token", True, True),
        ("https://example.org:8443/token?x=1", True, True),
        ("http://127.0.0.1:9000/token", False, True),
        ("http://localhost/token", False, True),
        ("http://[::1]:9000/", False, True),
        ("http://example.org/token", False, False),
        ("http://127.0.0.1.evil.org/", False, False),
        ("https://user:pass@example.org/", False, False),
        ("https:///token", False, False),
        ("https://example.org/a b", False, False),
        ("https://example.org/\r\nx: y", False, False),
        ("https://exämple.org/", False, False),
        ("https://example.org:port/", False, False),
        ("https://[/", False, False),
        ("javascript:alert(1)", False, False),
        ("", False, False),
    ],
)
def test_where_we_may_be_sent(url: str, elsewhere: bool, here: bool) -> None:
    assert is_safe(url, local=False) is elsewhere
    assert is_safe(url, local=True) is here


class TestAProvidersWord:
    @pytest.mark.parametrize(
        ("email", "more", "decides"),
        [
            ("ada@gmail.com", {}, True),
            ("ada@googlemail.com", {}, True),
            ("ada@example.org", {"hd": "example.org"}, True),
            ("ada@example.org", {"hd": "other.org"}, False),
            ("ada@example.org", {"hd": True}, False),
            ("ada@example.org", {}, False),
        ],
    )
    def test_google_decides_over_its_own_and_its_customers_addresses(
        self, email: str, more: dict[str, object], decides: bool
    ) -> None:
        found = profile(google(), {"sub": "1", "email": email, "email_verified": True, **more})
        assert found.authoritative is decides
        assert may_link(found, untouched=False) is decides
        assert may_link(found, untouched=True)

    def test_of_any_other_issuer_the_same_claims_decide_nothing(self) -> None:
        for id, issuer in (("corp", "https://sso.example.org"), ("google", "https://evil.example")):
            other = configure(id, client_id="id", client_secret="secret", issuer=issuer)
            for email in ("ada@gmail.com", "ada@example.org"):
                claims = {"sub": "1", "email": email, "email_verified": True, "hd": "example.org"}
                assert not profile(other, claims).authoritative

    def test_google_that_does_not_vouch_for_its_own_address_is_not_believed(self) -> None:
        with pytest.raises(AddressUnverified):
            profile(google(), {"sub": "1", "email": "ada@gmail.com", "email_verified": False})

    def test_a_boolean_as_text_is_one(self) -> None:
        assert (
            profile(google(), {"sub": "1", "email": "A@B.org", "email_verified": "true"}).email == "a@b.org"
        )

    @given(
        claims=st.fixed_dictionaries(
            {}, optional=dict.fromkeys(("sub", "email", "email_verified", "hd"), JSON)
        )
    )
    def test_is_a_profile_or_a_refusal_whatever_it_is(self, claims: dict[str, Any]) -> None:
        try:
            found = profile(google(), claims)
        except (TokenInvalid, AddressUnverified):
            return
        assert claims["email_verified"] in (True, "true")
        assert found.email


def _base64(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


class TestNonsense:
    """What comes from outside may be anything: it is refused, and never a crash."""

    @given(document=JSON | st.fixed_dictionaries({"keys": st.lists(JSON)}))
    def test_as_keys(self, document: object) -> None:
        assert list(id_tokens.key_set(document)) == []

    @given(
        key=st.fixed_dictionaries(
            {"kty": st.sampled_from(["RSA", "EC", "oct", "OKP"])},
            optional={name: JSON for name in ("n", "e", "x", "y", "crv", "k", "kid", "use", "alg", "d")},
        )
    )
    def test_as_a_key(self, key: dict[str, Any]) -> None:
        id_tokens.key_set({"keys": [key]})

    @given(
        token=st.one_of(
            JSON,
            st.text(),
            st.tuples(JSON, JSON, st.text(max_size=5)).map(
                lambda parts: f"{_base64(parts[0])}.{_base64(parts[1])}.{parts[2]}"
            ),
            st.fixed_dictionaries(
                {"alg": st.sampled_from(["RS256", "ES256", "none", "HS256", "", 7])},
                optional={"kid": JSON, "crit": JSON, "b64": JSON, "typ": JSON, "jwk": JSON},
            ).map(lambda head: f"{_base64(head)}.{_base64({'sub': '1'})}.AAAA"),
        )
    )
    def test_as_a_token(self, token: object) -> None:
        for keys in (id_tokens.key_set({}), _KEYS):
            with pytest.raises(TokenInvalid):
                id_tokens.verify(
                    token,
                    keys,
                    google(),
                    issuer="https://accounts.google.com",
                    nonce="nonce",
                    access_token=None,
                    now=datetime(2030, 1, 1, tzinfo=UTC),
                )


# RFC 7517, appendix A.1
_KEYS = id_tokens.key_set(
    {
        "keys": [
            {
                "kty": "EC",
                "crv": "P-256",
                "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
                "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
                "kid": "1",
            }
        ]
    }
)
