"""Bytes of somebody who writes them by hand: refused in words, whatever they are."""

from __future__ import annotations

import base64
import os
from typing import Any

import cbor2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp

from ocmt.identity.accounts import Accounts
from ocmt.testing.authenticator import SoftPasskey
from ocmt.testing.clock import VirtualClock

from ..browser import Answer, Browser
from ..conftest import let_in
from ..mfa.test_mfa import MFA, at_the_door, half_way, set_up
from .test_passkeys import DOOR, ME, OWN, knock, registered

pytestmark = pytest.mark.anyio

DEEP = b"[" * 100_000


def text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.fixture
async def ada(front: ASGIApp, accounts: Accounts) -> Browser:
    return await let_in(front, accounts, "ada@example.org")


async def offered(browser: Browser, **response: str) -> Answer:
    """A registration in which some parts are replaced."""
    options = (await browser.call("POST", f"{OWN}/options")).json()["options"]
    credential = SoftPasskey().made(options)
    credential["response"].update(response)
    return await browser.call("POST", OWN, {"name": "x", "credential": credential})


async def test_json_that_is_too_deep_is_refused(ada: Browser) -> None:
    answer = await offered(ada, clientDataJSON=text(DEEP))
    assert (answer.status, answer.json()["code"]) == (403, "passkey_not_accepted")
    body = {"credential": {"id": "AA", "response": {"clientDataJSON": text(DEEP)}}}
    assert (await Browser(ada.app).call("POST", f"{DOOR}/verify", body)).status == 403


@pytest.mark.parametrize("length", [1024, 5000, 60_000])
async def test_an_id_longer_than_the_standard_allows_is_refused(ada: Browser, length: int) -> None:
    assert (await registered(ada, SoftPasskey(id=os.urandom(length)))).status == 403


STATEMENTS: list[Any] = [
    {
        "fmt": name,
        "attStmt": {
            "x5c": [b"\x30\x03"],
            "sig": b"x",
            "alg": -7,
            "ver": "2.0",
            "certInfo": b"x",
            "pubArea": b"x",
            "response": b"{}",
        },
    }
    for name in ("packed", "tpm", "android-key", "android-safetynet", "fido-u2f", "apple", "nonsense")
]


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda one: str(one["fmt"]))
async def test_an_attestation_of_nonsense_is_refused(ada: Browser, statement: dict[str, Any]) -> None:
    options = (await ada.call("POST", f"{OWN}/options")).json()["options"]
    credential = SoftPasskey().made(options)
    whole = cbor2.loads(base64.urlsafe_b64decode(credential["response"]["attestationObject"] + "=="))
    credential["response"]["attestationObject"] = text(cbor2.dumps({**whole, **statement}))
    assert (await ada.call("POST", OWN, {"name": "x", "credential": credential})).status == 403


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 10_000), put=st.binary(max_size=8), cut=st.integers(0, 40))
async def test_a_registration_with_other_bytes_never_crashes(
    ada: Browser, clock: VirtualClock, at: int, put: bytes, cut: int
) -> None:
    await clock.advance(1)
    passkey = SoftPasskey()
    credential = passkey.made((await ada.call("POST", f"{OWN}/options")).json()["options"])
    raw = base64.urlsafe_b64decode(credential["response"]["attestationObject"] + "==")
    at %= len(raw)
    credential["response"]["attestationObject"] = text(raw[:at] + put + raw[at + cut :])
    answer = await ada.call("POST", OWN, {"name": "x", "credential": credential})
    assert answer.status in (201, 403), answer.body
    if answer.status == 201:
        assert (await knock(Browser(ada.app), passkey)).status in (200, 403)
        path = f"{OWN}/{answer.json()['id']}"
        assert (await ada.call("DELETE", path)).status == 204, "there is room for the next"


async def test_a_sign_in_that_was_given_up_is_no_hindrance(
    front: ASGIApp, accounts: Accounts, ada: Browser, clock: VirtualClock
) -> None:
    await set_up(ada, clock)
    phone = SoftPasskey()
    assert (await registered(ada, phone)).status == 201
    browser = await half_way(front, accounts, "ada@example.org")
    for _ in range(5):
        await at_the_door(browser, "000000")
    assert (await knock(browser, phone)).status == 200
    assert (await browser.call("GET", ME)).json()["email"] == "ada@example.org"


async def test_backup_codes_go_with_the_last_factor(front: ASGIApp, accounts: Accounts, ada: Browser) -> None:
    assert (await registered(ada, SoftPasskey())).status == 201
    assert (await ada.call("POST", f"{MFA}/backup-codes")).status == 201
    (listed,) = (await ada.call("GET", OWN)).json()["items"]
    assert (await ada.call("DELETE", f"{OWN}/{listed['id']}")).status == 204
    assert (await ada.call("GET", MFA)).json()["backup_codes"] == 0
