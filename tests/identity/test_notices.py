"""Whoever's ways to sign in have changed hears of it by mail: it may not have been them."""

from __future__ import annotations

import pytest
from starlette.types import ASGIApp

from ocmt.identity.accounts import Accounts
from ocmt.testing.authenticator import SoftPasskey
from ocmt.testing.clock import VirtualClock
from tests.identity.conftest import Letters, let_in
from tests.identity.mfa.test_mfa import set_up

pytestmark = pytest.mark.anyio

API = "/api/v1"


async def test_each_change_is_told_to_its_user_and_nobody_else(
    front: ASGIApp, accounts: Accounts, letters: Letters, clock: VirtualClock
) -> None:
    ada = await let_in(front, accounts, "ada@example.org")
    letters.sent.clear()
    key = {"name": "script", "scopes": ["agent:read"]}
    assert (await ada.call("POST", f"{API}/api-keys", key)).status == 201
    options = (await ada.call("POST", f"{API}/passkeys/options")).json()["options"]
    made = await ada.call(
        "POST", f"{API}/passkeys", {"name": "Phone", "credential": SoftPasskey().made(options)}
    )
    await set_up(ada, clock)
    assert (await ada.call("POST", f"{API}/mfa/backup-codes")).status == 201
    assert (await ada.call("DELETE", f"{API}/mfa/totp")).status == 204
    assert (await ada.call("DELETE", f"{API}/passkeys/{made.json()['id']}")).status == 204
    assert [subject.removeprefix("Your account: ") for _, subject, _ in letters.sent] == [
        "an API key was added",
        "a passkey was added",
        "an authenticator app was added",
        "new backup codes were made",
        "the authenticator app was removed",
        "a passkey was removed",
    ]
    assert {to for to, _, _ in letters.sent} == {"ada@example.org"}
    assert all("/settings" in text and "ocmt_" not in text for _, _, text in letters.sent)


async def test_mail_that_is_away_does_not_stand_in_the_way(
    front: ASGIApp, accounts: Accounts, letters: Letters
) -> None:
    ada = await let_in(front, accounts, "ada@example.org")
    letters.fault = OSError("the mail server is away")
    key = {"name": "script", "scopes": ["agent:read"]}
    assert (await ada.call("POST", f"{API}/api-keys", key)).status == 201
