"""The rules of identity, one by one."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from ocmt.errors import InvalidInput
from ocmt.identity.model import (
    User,
    may_change_address,
    new_token,
    normalise_email,
    normalise_name,
    shorten_user_agent,
    token_hash,
)
from ocmt.platform.principal import Role

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("ada@example.org", "ada@example.org"),
        ("  Ada.Lovelace+agent@Example.ORG\n", "ada.lovelace+agent@example.org"),
        ("admin@localhost", "admin@localhost"),
        ("ada@münchen.de", "ada@xn--mnchen-3ya.de"),
        ("ADA@MÜNCHEN.DE", "ada@xn--mnchen-3ya.de"),
        ("ada@mu\u0308nchen.de", "ada@xn--mnchen-3ya.de"),
        ("ada@straße.example", "ada@xn--strae-oqa.example"),
        ("ada@例え。テスト", "ada@xn--r8jz45g.xn--zckzah"),
        ("o'neill@xn--bcher-kva.example", "o'neill@xn--bcher-kva.example"),
    ],
)
def test_an_address_has_one_spelling(written: str, kept: str) -> None:
    assert normalise_email(written) == kept


@pytest.mark.parametrize(
    "written",
    [
        "",
        "ada",
        "@example.org",
        "ada@",
        "ada@@example.org",
        "ada@example..org",
        "ada@-example.org",
        "ada lovelace@example.org",
        "ada@example.org, eve@example.org",
        "ada@example.org\nBcc: eve@example.org",
        "ada@example.org\x00",
        '"ada"@example.org',
        "Ada <ada@example.org>",
        "adm\u0131n@example.org",  # a dotless i, which upper case would turn into an ordinary one
        "ada@b\u00fc cher.example",
        "ada@\u202eexample.org",
        "ada@\u00fc..example",
        f"{'a' * 65}@example.org",
        f"ada@{'a.' * 130}org",
    ],
)
def test_what_is_no_address_is_refused(written: str) -> None:
    with pytest.raises(InvalidInput):
        normalise_email(written)


def test_a_name_is_one_printable_line() -> None:
    assert normalise_name("  Ada Lovelace ") == "Ada Lovelace"
    assert normalise_name("   ") is None
    assert normalise_name(None) is None
    for wrong in ("Ada\nLovelace", "Ada\x00", "a" * 201):
        with pytest.raises(InvalidInput):
            normalise_name(wrong)


def test_a_browser_may_not_describe_itself_at_any_length() -> None:
    assert shorten_user_agent("Mozilla\x00/5.0") == "Mozilla/5.0"
    assert len(shorten_user_agent("x" * 10_000) or "") == 300
    assert shorten_user_agent("") is None


@pytest.mark.parametrize(("role", "may"), [("admin", True), ("auditor", False), ("user", False)])
def test_only_administrators_set_their_own_address(role: Role, may: bool) -> None:
    user = User(UUID(int=1), "ada@example.org", None, role, "active", False, NOON)
    assert may_change_address(user) is may


def test_tokens_have_256_bits_and_are_kept_as_a_hash() -> None:
    token = new_token()
    assert len(token) == 43
    assert new_token() != token
    assert len(token_hash(token)) == 32
    assert token.encode() not in token_hash(token)


def test_the_hash_of_a_token_that_is_no_text_is_no_error() -> None:
    assert token_hash("\ud800") != token_hash("\ud801")
