"""Who knocks too often waits; a form of another site's is not taken; and nobody learns who has an account."""

from __future__ import annotations

import pytest
from starlette.types import ASGIApp

from ocmt.identity.accounts import Accounts
from ocmt.identity.limits import KNOCKS_FROM
from ocmt.testing.clock import VirtualClock

from .browser import Browser
from .conftest import Letters, let_in

pytestmark = pytest.mark.anyio

LINK, VERIFY = "/api/v1/auth/magic-link", "/api/v1/auth/magic-link/verify"


async def test_one_network_address_knocks_so_often_and_no_more(
    front: ASGIApp, accounts: Accounts, clock: VirtualClock
) -> None:
    await accounts.identity.add_user("ada@example.org")
    statuses = [
        (await Browser(front).call("POST", VERIFY, {"token": "x"})).status
        for _ in range(KNOCKS_FROM.burst + 2)
    ]
    assert statuses == [401] * KNOCKS_FROM.burst + [429] * 2
    waits = await Browser(front).call("POST", LINK, {"email": "ada@example.org"})
    assert (waits.status, waits.json()["code"]) == (429, "limit_reached")
    await clock.advance(int(waits.headers["retry-after"]))
    assert (await Browser(front).call("POST", LINK, {"email": "ada@example.org"})).status == 202


async def test_a_header_that_anybody_can_write_does_not_help(front: ASGIApp) -> None:
    statuses = [
        (
            await Browser(front).call(
                "POST", VERIFY, {"token": "x"}, headers={"x-forwarded-for": f"203.0.113.{number}"}
            )
        ).status
        for number in range(KNOCKS_FROM.burst + 1)
    ]
    assert statuses[-1] == 429


async def test_known_unknown_and_suspended_addresses_look_the_same(
    front: ASGIApp, accounts: Accounts, letters: Letters
) -> None:
    await accounts.identity.add_user("ada@example.org")
    bob = await accounts.identity.add_user("bob@example.org")
    await accounts.identity.administer(bob.id, status="suspended")
    seen = set()
    for name in ("ada", "bob", "eve"):
        for _ in range(7):  # also where a limit is reached
            answer = await Browser(front).call("POST", LINK, {"email": f"{name}@example.org"})
            seen.add((answer.status, answer.body, tuple(sorted(answer.headers.keys()))))
    assert len(seen) == 1
    assert {to for to, _, _ in letters.sent} == {"ada@example.org"}


@pytest.mark.parametrize(
    "kind", ["text/plain", "multipart/form-data; boundary=x", "Application/X-WWW-Form-Urlencoded"]
)
async def test_a_form_is_not_taken_even_from_our_own_page(
    front: ASGIApp, accounts: Accounts, kind: str
) -> None:
    browser = await let_in(front, accounts, "ada@example.org")
    form = {"content-type": kind}
    refused = await browser.call("PATCH", "/api/v1/me", {"name": "Eve"}, headers=form)
    assert (refused.status, refused.json()["code"]) == (403, "refused")
    assert (await browser.call("POST", "/api/v1/auth/logout", headers=form)).status == 403
    assert (await browser.call("PATCH", "/api/v1/me", {"name": "Ada"})).status == 200
    marked = form | {"x-ocmt-request": "1"}
    assert (await browser.call("POST", "/api/v1/auth/logout", headers=marked)).status == 204
