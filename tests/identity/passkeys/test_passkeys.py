"""Passkeys: registered, sign in by themselves, stand in as the second step, and are fooled by nothing."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp

from ocmt.identity.accounts import Accounts
from ocmt.platform.database import Database
from ocmt.testing.authenticator import SoftPasskey
from ocmt.testing.clock import VirtualClock

from ..browser import Answer, Browser
from ..conftest import let_in
from ..mfa.test_mfa import half_way, set_up

pytestmark = pytest.mark.anyio

OWN, DOOR, ME = "/api/v1/passkeys", "/api/v1/auth/passkey", "/api/v1/me"


async def registered(browser: Browser, passkey: SoftPasskey, name: str = "Phone") -> Answer:
    options = (await browser.call("POST", f"{OWN}/options")).json()["options"]
    return await browser.call("POST", OWN, {"name": name, "credential": passkey.made(options)})


async def knock(browser: Browser, passkey: SoftPasskey) -> Answer:
    options = (await browser.call("POST", f"{DOOR}/options")).json()["options"]
    return await browser.call("POST", f"{DOOR}/verify", {"credential": passkey.answers(options)})


@pytest.fixture
async def ada(front: ASGIApp, accounts: Accounts) -> Browser:
    return await let_in(front, accounts, "ada@example.org")


@pytest.fixture
async def phone(ada: Browser) -> SoftPasskey:
    """Hers, registered."""
    phone = SoftPasskey()
    assert (await registered(ada, phone)).status == 201
    return phone


class TestRegistering:
    async def test_it_is_listed_renamed_and_removed(self, ada: Browser, phone: SoftPasskey) -> None:
        (listed,) = (await ada.call("GET", OWN)).json()["items"]
        assert (listed["name"], listed["last_used_at"]) == ("Phone", None)
        path = f"{OWN}/{listed['id']}"
        assert (await ada.call("PATCH", path, {"name": "Old phone"})).status == 204
        assert (await ada.call("GET", OWN)).json()["items"][0]["name"] == "Old phone"
        assert (await ada.call("DELETE", path)).status == 204
        assert (await ada.call("DELETE", path)).status == 404

    async def test_what_becomes_of_it_is_in_the_log(
        self, ada: Browser, phone: SoftPasskey, database: Database
    ) -> None:
        (listed,) = (await ada.call("GET", OWN)).json()["items"]
        await ada.call("PATCH", f"{OWN}/{listed['id']}", {"name": "Old phone"})
        await ada.call("DELETE", f"{OWN}/{listed['id']}")
        async with database.connection() as connection:
            rows = await connection.fetch("select action from audit_log order by id")
        assert [row["action"] for row in rows][-3:] == [
            "passkey.added",
            "passkey.renamed",
            "passkey.removed",
        ]

    async def test_the_same_one_is_registered_once(self, ada: Browser, phone: SoftPasskey) -> None:
        assert (await registered(ada, phone)).status == 409

    async def test_an_answer_is_taken_once_in_time_and_from_who_was_asked(
        self, front: ASGIApp, accounts: Accounts, ada: Browser, clock: VirtualClock
    ) -> None:
        options = (await ada.call("POST", f"{OWN}/options")).json()["options"]
        answer = {"name": "x", "credential": SoftPasskey().made(options)}
        bob = await let_in(front, accounts, "bob@example.org")
        assert (await bob.call("POST", OWN, answer)).status == 403
        assert (await ada.call("POST", OWN, answer)).status == 403, "used up by that"
        options = (await ada.call("POST", f"{OWN}/options")).json()["options"]
        await clock.advance(301)
        late = await ada.call("POST", OWN, {"name": "x", "credential": SoftPasskey().made(options)})
        assert (late.status, late.json()["code"]) == (403, "passkey_not_accepted")

    @pytest.mark.parametrize(
        "wrong",
        [
            {"origin": "https://evil.example"},
            {"site": "evil.example"},
            {"verifies": False},
        ],
    )
    async def test_one_for_another_site_or_without_its_owner_is_not_taken(
        self, ada: Browser, wrong: dict[str, Any]
    ) -> None:
        assert (await registered(ada, SoftPasskey(**wrong))).status == 403

    async def test_it_takes_a_recent_sign_in(self, ada: Browser, clock: VirtualClock) -> None:
        await clock.advance(601)
        assert (await ada.call("POST", f"{OWN}/options")).json()["code"] == "recent_sign_in_needed"


class TestAtTheDoor:
    async def test_it_is_enough_by_itself(self, front: ASGIApp, ada: Browser, phone: SoftPasskey) -> None:
        browser = Browser(front)
        assert (await knock(browser, phone)).status == 200
        assert (await browser.call("GET", ME)).json()["email"] == "ada@example.org"
        sessions = (await browser.call("GET", "/api/v1/sessions")).json()["items"]
        assert ["passkey"] in [session["methods"] for session in sessions]

    async def test_only_the_browser_that_was_asked_may_answer(
        self, front: ASGIApp, ada: Browser, phone: SoftPasskey
    ) -> None:
        asked, other = Browser(front), Browser(front)
        question = (await asked.call("POST", f"{DOOR}/options")).json()["options"]
        await other.call("POST", f"{DOOR}/options")
        answer = {"credential": phone.answers(question)}
        taken_along = await other.call("POST", f"{DOOR}/verify", answer)
        assert (taken_along.status, taken_along.json()["code"]) == (403, "passkey_not_accepted")
        assert (await other.call("GET", ME)).status == 401

    async def test_with_it_the_link_alone_does_not_do(
        self, front: ASGIApp, accounts: Accounts, phone: SoftPasskey
    ) -> None:
        browser = await half_way(front, accounts, "ada@example.org")
        assert (await knock(browser, phone)).status == 200
        session = next(
            one for one in (await browser.call("GET", "/api/v1/sessions")).json()["items"] if one["current"]
        )
        assert session["methods"] == ["link", "passkey"]

    async def test_somebody_elses_does_not_complete_anothers_sign_in(
        self, front: ASGIApp, accounts: Accounts, phone: SoftPasskey, clock: VirtualClock
    ) -> None:
        bob = await let_in(front, accounts, "bob@example.org")
        await set_up(bob, clock)
        browser = await half_way(front, accounts, "bob@example.org")
        assert (await knock(browser, phone)).status == 200
        assert (await browser.call("GET", ME)).json()["email"] == "ada@example.org", "she signs in as herself"

    async def test_one_that_nobody_knows_or_that_is_for_another_site(
        self, front: ASGIApp, phone: SoftPasskey
    ) -> None:
        assert (await knock(Browser(front), SoftPasskey())).status == 403
        for name, value in (
            ("origin", "https://evil.example"),
            ("site", "evil.example"),
            ("verifies", False),
        ):
            right = getattr(phone, name)
            setattr(phone, name, value)
            assert (await knock(Browser(front), phone)).status == 403, name
            setattr(phone, name, right)
        assert (await knock(Browser(front), phone)).status == 200

    async def test_a_copy_is_noticed_by_its_count(
        self, front: ASGIApp, phone: SoftPasskey, database: Database
    ) -> None:
        assert (await knock(Browser(front), phone)).status == 200
        phone.count = 0
        assert (await knock(Browser(front), phone)).status == 403
        async with database.connection() as connection:
            actions = [row["action"] for row in await connection.fetch("select action from audit_log")]
        assert "passkey.counter_went_back" in actions

    async def test_one_that_does_not_count_is_taken_again_and_again(
        self, front: ASGIApp, phone: SoftPasskey
    ) -> None:
        for _ in range(2):
            phone.count = -1
            assert (await knock(Browser(front), phone)).status == 200

    async def test_who_is_suspended_stays_out(self, front: ASGIApp, accounts: Accounts, ada: Browser) -> None:
        bob, key = await let_in(front, accounts, "bob@example.org"), SoftPasskey()
        await registered(bob, key)
        user = await accounts.identity.user_by_email("bob@example.org")
        await accounts.identity.administer(user.id, status="suspended")
        assert (await knock(Browser(front), key)).status == 403

    async def test_it_proves_once_more_who_one_is(
        self, ada: Browser, phone: SoftPasskey, clock: VirtualClock
    ) -> None:
        await clock.advance(601)
        assert (await ada.call("POST", f"{OWN}/options")).status == 403
        options = (await ada.call("POST", f"{DOOR}/options")).json()["options"]
        body = {"credential": phone.answers(options)}
        assert (await ada.call("POST", "/api/v1/auth/step-up/passkey", body)).status == 204
        assert (await ada.call("POST", f"{OWN}/options")).status == 200


PLACES = [("id",), ("rawId",), ("type",), ("response",)] + [
    ("response", name) for name in ("clientDataJSON", "authenticatorData", "signature")
]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    place=st.sampled_from(PLACES),
    value=st.none() | st.integers() | st.text(max_size=40) | st.lists(st.text(max_size=3), max_size=2),
)
async def test_a_mangled_answer_is_refused_and_never_a_crash(
    front: ASGIApp, phone: SoftPasskey, clock: VirtualClock, place: tuple[str, ...], value: Any
) -> None:
    await clock.advance(60)
    browser = Browser(front)
    options = (await browser.call("POST", f"{DOOR}/options")).json()["options"]
    right = phone.answers(options)
    mangled: Any = copy.deepcopy(right)
    inner = mangled
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    answer = await browser.call("POST", f"{DOOR}/verify", {"credential": mangled})
    assert answer.status in ((200, 403) if place == ("rawId",) else (403,)), answer.body
