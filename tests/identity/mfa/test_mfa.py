"""The second factor by codes: set up, asked for at the door and again, used once, and guessed by nobody."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyotp import TOTP
from starlette.types import ASGIApp

from ocmt.errors import LimitReached
from ocmt.identity.accounts import Accounts
from ocmt.identity.mfa import model
from ocmt.platform.argon import ArgonGate
from ocmt.platform.database import Database
from ocmt.testing.clock import VirtualClock

from ..browser import Answer, Browser
from ..conftest import PUBLIC_URL, behind_the_door, let_in

pytestmark = pytest.mark.anyio

MFA, TOTP_PATH, CONFIRM = "/api/v1/mfa", "/api/v1/mfa/totp", "/api/v1/mfa/totp/confirm"
DOOR, STEP_UP, ME = "/api/v1/auth/mfa", "/api/v1/auth/step-up", "/api/v1/me"
KEYS = "/api/v1/api-keys"
IMPORTED = "$argon2id$v=19$m=65536,t=3,p=1$b1d1GchTR0znMaJeUjNAag$2x81Ngcr+i8XUD0fHuaF19qVZzXbPvU3dMWpyo5R1hE"
"""Of GSJD-32XC, as the production before this one made it."""


def code_of(secret: str, clock: VirtualClock, steps: int = 0) -> str:
    return TOTP(secret).at(int(clock.now().timestamp()) + 30 * steps)


async def set_up(browser: Browser, clock: VirtualClock) -> tuple[str, list[str]]:
    """(secret, backup codes) of an authenticator app that was just set up; its next code is in the next
    step."""
    begun = (await browser.call("POST", TOTP_PATH)).json()
    answer = await browser.call("POST", CONFIRM, {"code": code_of(begun["secret"], clock)})
    assert answer.status == 200, answer.body
    await clock.advance(30)
    return begun["secret"], answer.json()["codes"]


async def half_way(front: ASGIApp, accounts: Accounts, email: str) -> Browser:
    """Somebody who has used their link, and is asked for the second factor."""
    browser = Browser(front)
    token = (await accounts.identity.make_link(email)).split("#token=")[1]
    answer = await browser.call("POST", "/api/v1/auth/magic-link/verify", {"token": token})
    assert answer.json()["mfa_required"] is True
    assert "ocmt" not in browser.cookies
    return browser


async def at_the_door(browser: Browser, code: str) -> Answer:
    return await browser.call("POST", DOOR, {"code": code})


class TestSettingUp:
    async def test_it_counts_once_a_code_was_given_back(
        self, front: ASGIApp, accounts: Accounts, clock: VirtualClock
    ) -> None:
        browser = await let_in(front, accounts, "ada@example.org")
        begun = (await browser.call("POST", TOTP_PATH)).json()
        assert begun["uri"].startswith("otpauth://totp/")
        assert begun["qr_svg"].startswith("<svg")
        assert (await browser.call("GET", MFA)).json()["totp"] is False
        await let_in(front, accounts, "ada@example.org")  # nothing is asked for yet
        wrong = await browser.call("POST", CONFIRM, {"code": "000000"})
        assert (wrong.status, wrong.json()["code"]) == (403, "wrong_code")
        answer = await browser.call("POST", CONFIRM, {"code": code_of(begun["secret"], clock)})
        assert len(answer.json()["codes"]) == 8
        state = (await browser.call("GET", MFA)).json()
        assert (state["totp"], state["backup_codes"]) == (True, 8)
        await half_way(front, accounts, "ada@example.org")

    async def test_what_is_stored_opens_nothing(
        self, front: ASGIApp, accounts: Accounts, clock: VirtualClock, database: Database
    ) -> None:
        secret, codes = await set_up(await let_in(front, accounts, "ada@example.org"), clock)
        async with database.connection() as connection:
            rows = repr(
                [
                    *await connection.fetch("select * from totp_secrets"),
                    *await connection.fetch("select * from backup_codes"),
                    *await connection.fetch("select * from audit_log"),
                ]
            )
        assert secret not in rows
        assert not any(code in rows or code.replace("-", "") in rows for code in codes)

    async def test_it_takes_a_recent_sign_in_to_add_and_to_remove(
        self, front: ASGIApp, accounts: Accounts, clock: VirtualClock
    ) -> None:
        browser = await let_in(front, accounts, "ada@example.org")
        secret, _ = await set_up(browser, clock)
        await clock.advance(11 * 60)
        for method, path in (("DELETE", TOTP_PATH), ("POST", f"{MFA}/backup-codes"), ("POST", TOTP_PATH)):
            assert (await browser.call(method, path)).json()["code"] == "recent_sign_in_needed", path
        assert (await browser.call("POST", STEP_UP, {"code": code_of(secret, clock)})).status == 204
        assert (await browser.call("DELETE", TOTP_PATH)).status == 204
        await let_in(front, accounts, "ada@example.org")
        assert (await browser.call("GET", MFA)).json()["backup_codes"] == 0

    async def test_a_second_app_takes_the_removal_of_the_first(
        self, front: ASGIApp, accounts: Accounts, clock: VirtualClock
    ) -> None:
        browser = await let_in(front, accounts, "ada@example.org")
        await set_up(browser, clock)
        assert (await browser.call("POST", TOTP_PATH)).status == 409

    async def test_where_it_is_demanded_nothing_else_can_be_done_first(
        self, front: ASGIApp, accounts: Accounts, clock: VirtualClock
    ) -> None:
        await let_in(front, accounts, "ada@example.org")
        bob = await accounts.identity.add_user("bob@example.org")
        await accounts.identity.administer(bob.id, mfa_required=True)
        browser = await let_in(front, accounts, "bob@example.org")
        assert (await browser.call("GET", ME)).json()["must_enrol"] is True
        refused = await browser.call("GET", KEYS)
        assert (refused.status, refused.json()["code"]) == (403, "second_factor_missing")
        await set_up(browser, clock)
        assert (await browser.call("GET", ME)).json()["must_enrol"] is False
        assert (await browser.call("GET", KEYS)).status == 200
        assert (await browser.call("DELETE", TOTP_PATH)).status == 403, "it is the only one"
        assert (await browser.call("GET", MFA)).json()["totp"] is True


class TestAtTheDoor:
    async def test_link_and_code_open_a_session(
        self, front: ASGIApp, accounts: Accounts, clock: VirtualClock
    ) -> None:
        secret, _ = await set_up(await let_in(front, accounts, "ada@example.org"), clock)
        browser = await half_way(front, accounts, "ada@example.org")
        assert (await at_the_door(browser, code_of(secret, clock))).status == 200
        assert (await browser.call("GET", ME)).json()["email"] == "ada@example.org"
        session = (await browser.call("GET", "/api/v1/sessions")).json()["items"][0]
        assert session["methods"] == ["link", "totp"]

    async def test_a_code_is_taken_once_by_all_together(
        self, front: ASGIApp, accounts: Accounts, clock: VirtualClock
    ) -> None:
        secret, _ = await set_up(await let_in(front, accounts, "ada@example.org"), clock)
        browsers = [await half_way(front, accounts, "ada@example.org") for _ in range(4)]
        code = code_of(secret, clock)
        answers = await asyncio.gather(*(at_the_door(browser, code) for browser in browsers))
        assert sorted(answer.status for answer in answers) == [200, 403, 403, 403]

    async def test_a_clock_may_be_half_a_minute_off(
        self, front: ASGIApp, accounts: Accounts, clock: VirtualClock
    ) -> None:
        secret, _ = await set_up(await let_in(front, accounts, "ada@example.org"), clock)
        browser = await half_way(front, accounts, "ada@example.org")
        assert (await at_the_door(browser, code_of(secret, clock, steps=2))).status == 403
        assert (await at_the_door(browser, code_of(secret, clock, steps=1))).status == 200

    async def test_a_backup_code_works_once_however_it_is_typed(
        self, front: ASGIApp, accounts: Accounts, clock: VirtualClock
    ) -> None:
        _, codes = await set_up(await let_in(front, accounts, "ada@example.org"), clock)
        typed = f" {codes[3].lower().replace('-', ' ')} "
        browser = await half_way(front, accounts, "ada@example.org")
        assert (await at_the_door(browser, typed)).status == 200
        assert (await browser.call("GET", MFA)).json()["backup_codes"] == 7
        again = await half_way(front, accounts, "ada@example.org")
        assert (await at_the_door(again, typed)).status == 403

    async def test_imported_codes_work(
        self, front: ASGIApp, accounts: Accounts, clock: VirtualClock, database: Database
    ) -> None:
        await set_up(await let_in(front, accounts, "ada@example.org"), clock)
        async with database.connection() as connection:
            await connection.execute("delete from backup_codes")
            await connection.execute(
                "insert into backup_codes (id, user_id, code_hash, created_at)"
                " select gen_random_uuid(), id, $1, now() from users",
                IMPORTED,
            )
        browser = await half_way(front, accounts, "ada@example.org")
        assert (await at_the_door(browser, "GSJD-32XC")).status == 200

    async def test_five_wrong_codes_end_the_sign_in_and_ten_lock_the_account_for_a_while(
        self, front: ASGIApp, accounts: Accounts, clock: VirtualClock
    ) -> None:
        secret, _ = await set_up(await let_in(front, accounts, "ada@example.org"), clock)
        for _ in range(2):
            browser = await half_way(front, accounts, "ada@example.org")
            assert [(await at_the_door(browser, "000000")).status for _ in range(5)] == [403] * 5
            assert (await at_the_door(browser, code_of(secret, clock))).status == 401
        browser = await half_way(front, accounts, "ada@example.org")
        locked = await at_the_door(browser, code_of(secret, clock))
        assert (locked.status, locked.json()["code"]) == (429, "limit_reached")
        assert int(locked.headers["retry-after"]) <= 90
        await clock.advance(90)
        browser = await half_way(front, accounts, "ada@example.org")
        assert (await at_the_door(browser, code_of(secret, clock))).status == 200

    async def test_without_a_sign_in_there_is_nothing_to_complete(self, front: ASGIApp) -> None:
        assert (await at_the_door(Browser(front), "000000")).status == 401

    async def test_who_was_suspended_half_way_does_not_get_in(
        self, front: ASGIApp, accounts: Accounts, clock: VirtualClock
    ) -> None:
        await let_in(front, accounts, "ada@example.org")
        secret, _ = await set_up(await let_in(front, accounts, "bob@example.org"), clock)
        browser = await half_way(front, accounts, "bob@example.org")
        bob = await accounts.identity.user_by_email("bob@example.org")
        await accounts.identity.administer(bob.id, status="suspended")
        assert (await at_the_door(browser, code_of(secret, clock))).status == 401

    async def test_administrators_must_have_one_where_the_setting_says_so(
        self, database: Database, accounts: Accounts, clock: VirtualClock, letters: object, secrets: object
    ) -> None:
        strict = Accounts.over(
            database,
            secrets,  # type: ignore[arg-type]
            letters,  # type: ignore[arg-type]
            clock,
            public_url=PUBLIC_URL,
            mfa_for_admins=True,
        )
        browser = await let_in(behind_the_door(strict), strict, "ada@example.org")
        assert (await browser.call("GET", "/api/v1/admin/users")).status == 403


class Work:
    """In threads, until it is told to go on; counts how many run at once."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.most = self._running = 0
        self._lock, self._begun = threading.Lock(), threading.Semaphore(0)

    def __call__(self) -> int:
        with self._lock:
            self._running += 1
            self.most = max(self.most, self._running)
        self._begun.release()
        assert self.go_on.wait(10)
        with self._lock:
            self._running -= 1
        return 1

    async def two_run(self) -> None:
        for _ in range(2):
            assert await asyncio.to_thread(self._begun.acquire, timeout=10)


class TestTheGate:
    async def test_a_storm_waits_in_line_and_is_bounded(self) -> None:
        gate, work = ArgonGate(at_once=2, waiting=10), Work()
        storm = [asyncio.create_task(gate.run(work)) for _ in range(30)]
        await work.two_run()
        work.go_on.set()
        results = await asyncio.gather(*storm, return_exceptions=True)
        assert results.count(1) == 10
        assert sum(isinstance(result, LimitReached) for result in results) == 20
        assert work.most == 2

    async def test_who_gives_up_makes_no_room_for_another_computation(self) -> None:
        gate, work = ArgonGate(at_once=2, waiting=10), Work()
        impatient = [asyncio.create_task(gate.run(work)) for _ in range(2)]
        await work.two_run()
        for task in impatient:
            task.cancel()
        await asyncio.wait(impatient)
        patient = [asyncio.create_task(gate.run(work)) for _ in range(4)]
        assert not (await asyncio.wait(patient, timeout=0.05))[0]
        work.go_on.set()
        assert await asyncio.gather(*patient) == [1] * 4
        assert work.most == 2


@given(st.integers(0, 2**31), st.integers(-40, 40))
def test_a_code_is_right_in_its_step_and_the_two_beside_it(at: int, steps: int) -> None:
    secret = "JBSWY3DPEHPK3PXP" * 2
    code = TOTP(secret).generate_otp(max(0, at // 30 + steps))
    now = datetime.fromtimestamp(at, UTC)
    found = model.matching_step(secret, code, now, after=-1)
    if abs(steps) <= 1 and at // 30 + steps >= 0:
        assert found is not None
        assert model.matching_step(secret, code, now, after=at // 30 + 1) is None
    elif found is not None:  # the code of another step happens to be the same
        assert TOTP(secret).generate_otp(found) == code


def test_backup_codes_have_forty_bits_and_no_look_alikes() -> None:
    codes = {code for _ in range(50) for code in model.new_backup_codes()}
    assert len(codes) == 400
    assert all(model.is_backup(model.plain(code)) for code in codes)
    assert not any(letter in code for code in codes for letter in "01IO")
