"""Who may make an account, when a second factor is due, how long a session lives."""

from datetime import UTC, datetime, timedelta

import pytest

from ocmt.errors import InvalidInput
from ocmt.identity.entrance.model import (
    Admission,
    Newcomer,
    SecondFactors,
    SignUpPolicy,
    admission,
    is_recent,
    must_enrol,
    second_factor_due,
    session_expiry,
    touch_is_due,
)

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
ADA = "ada@example.org"
LISTED = ("example.com", "@example.net", "Ada@Example.org")


def policy(mode: str) -> SignUpPolicy:
    return SignUpPolicy.parse(mode, LISTED)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mode", "email", "expected"),
    [
        ("invitation", ADA, None),
        ("allowlist", ADA, Admission("active")),
        ("allowlist", "bob@example.com", Admission("active")),
        ("allowlist", "bob@example.net", Admission("active")),
        ("allowlist", "bob@example.org", None),
        ("allowlist", "bob@sub.example.com", None),
        ("allowlist", "eve@evilexample.com", None),
        ("approval", ADA, Admission("active")),
        ("approval", "bob@example.org", Admission("pending")),
        ("open", "bob@example.org", Admission("active")),
    ],
)
def test_the_policy_decides_about_a_newcomer(mode: str, email: str, expected: Admission | None) -> None:
    assert admission(policy(mode), Newcomer(email)) == expected


def test_a_rule_of_an_administrators_lets_in_like_the_settings() -> None:
    assert admission(policy("allowlist"), Newcomer("x@y.org", listed=True)) == Admission("active")
    assert admission(policy("invitation"), Newcomer("x@y.org", listed=True)) is None


@pytest.mark.parametrize("mode", ["invitation", "allowlist", "approval", "open"])
def test_an_invitation_lets_in_under_every_policy_and_brings_its_role(mode: str) -> None:
    invited = Newcomer("x@y.org", invited_as="auditor")
    assert admission(policy(mode), invited) == Admission("active", "auditor")


@pytest.mark.parametrize(
    "entry",
    [
        "example",
        "*.example.org",
        "*@example.org",
        "ada@",
        "@",
        "a b.org",
        "https://example.org",
        "-x.org",
        "..",
        "ada@*",
    ],
)
def test_what_is_neither_address_nor_domain_is_refused_by_name(entry: str) -> None:
    with pytest.raises(InvalidInput, match="OCMT_SIGN_UP_ALLOWED") as refused:
        SignUpPolicy.parse("allowlist", ["example.org", f" {entry} "])
    assert repr(entry) in str(refused.value)


def test_blanks_capitals_and_other_letters_are_of_no_account() -> None:
    policy = SignUpPolicy.parse(
        "allowlist", [" Example.ORG ", "", "  ", "münchen.de", "Ada@Bücher.example\n"]
    )
    assert policy.domains == {"example.org", "xn--mnchen-3ya.de"}
    assert policy.lists("ada@xn--bcher-kva.example")
    assert policy.lists("eve@xn--mnchen-3ya.de")


def test_a_second_factor_is_due_where_there_is_one_unless_the_first_was_both() -> None:
    assert not second_factor_due(["link"], SecondFactors())
    assert second_factor_due(["link"], SecondFactors(totp=True))
    assert second_factor_due(["oidc:google"], SecondFactors(passkeys=1))
    assert not second_factor_due(["passkey"], SecondFactors(totp=True, passkeys=1))
    assert not second_factor_due(["link"], SecondFactors(backup_codes=8)), "codes stand in for something"


def test_the_methods_offered_are_those_that_there_are() -> None:
    assert SecondFactors(totp=True, passkeys=2, backup_codes=3).methods == ("passkey", "totp", "backup_code")
    assert SecondFactors(backup_codes=3).methods == ()


def test_where_one_is_demanded_a_session_without_may_only_enrol() -> None:
    assert must_enrol(["link"], demanded=True)
    assert not must_enrol(["link"], demanded=False)
    assert not must_enrol(["link", "totp"], demanded=True)


def test_a_session_ends_after_a_week_unused_and_after_thirty_days_at_last() -> None:
    assert session_expiry(NOON, NOON) == NOON + timedelta(days=7)
    assert session_expiry(NOON, NOON + timedelta(days=5)) == NOON + timedelta(days=12)
    assert session_expiry(NOON, NOON + timedelta(days=29)) == NOON + timedelta(days=30)


def test_the_last_use_is_written_down_every_five_minutes_at_most() -> None:
    assert not touch_is_due(NOON, NOON + timedelta(minutes=4, seconds=59))
    assert touch_is_due(NOON, NOON + timedelta(minutes=5))


def test_a_proof_is_recent_for_ten_minutes_and_none_never() -> None:
    assert is_recent(NOON, NOON + timedelta(minutes=10))
    assert not is_recent(NOON, NOON + timedelta(minutes=10, seconds=1))
    assert not is_recent(None, NOON)
