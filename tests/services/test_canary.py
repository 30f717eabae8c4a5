"""Secrets of every kind go through the whole application, and are then looked for wherever they must not
be."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest
from pyotp import TOTP
from structlog.testing import capture_logs

from ocmt.platform.database import Database
from ocmt.testing.clock import VirtualClock
from tests.identity.browser import Answer, Browser
from tests.services.conftest import House

pytestmark = pytest.mark.anyio

VAULT = "/api/v1/vault/items"
PROVIDER_KEY = "sk-ant-canary-5f3a9c71e2"
NOTE = "canary-note-77aa31"
OLD_PASSWORD = "canary-password-19ce"
PHRASE = "canary " * 11 + "bird"


def spellings(secret: str) -> Iterator[str]:
    """As itself, and as what programs make of it."""
    yield secret
    yield base64.b64encode(secret.encode()).decode().rstrip("=")
    yield secret.encode().hex()


async def test_no_secret_is_in_a_log_an_answer_or_the_database(
    house: House, database: Database, clock: VirtualClock
) -> None:
    answers: list[tuple[str, Answer]] = []
    secrets: dict[str, str] = {}
    with capture_logs() as logs:
        browser = await house.sign_in("root@example.org")
        link = (await house.management.accounts.identity.make_link("root@example.org")).split("#token=")[1]
        secrets["link"] = link

        async def call(method: str, path: str, body: object = None, who: Browser = browser) -> Answer:
            answer = await who.call(method, path, body)
            answers.append((path, answer))
            return answer

        await call("POST", "/api/v1/auth/magic-link/verify", {"token": link})
        secrets["session"] = browser.cookies["ocmt"]
        begun = (await browser.call("POST", "/api/v1/mfa/totp")).json()
        secrets["totp"] = begun["secret"]
        code = TOTP(begun["secret"]).at(int(clock.now().timestamp()))
        confirmed = (await browser.call("POST", "/api/v1/mfa/totp/confirm", {"code": code})).json()
        secrets["backup code"] = confirmed["codes"][0]
        made = await browser.call("POST", "/api/v1/api-keys", {"name": "k", "scopes": ["account:read"]})
        secrets["API key"] = made.json()["key"]
        secrets["access token"] = (await browser.call("POST", "/api/v1/auth/token", {})).json()[
            "access_token"
        ]

        secrets |= {"provider key": PROVIDER_KEY, "note": NOTE, "password": OLD_PASSWORD, "phrase": PHRASE}
        await call("PUT", f"{VAULT}/anthropic_api_key", {"value": PROVIDER_KEY})
        await call("PUT", f"{VAULT}/diary", {"value": NOTE, "kind": "note"})
        await call("PUT", f"{VAULT}/anthropic_api_key", {"value": "sk-ant " + PROVIDER_KEY})
        await call("POST", f"{VAULT}/anthropic_api_key/test")
        await call("GET", VAULT)
        await call("POST", "/api/v1/vault/unlock", {"password": OLD_PASSWORD})
        await call("POST", "/api/v1/vault/recover", {"phrase": PHRASE, "more": PHRASE})
        await call("POST", "/api/v1/auth/step-up", {"code": secrets["backup code"]})
        await call("POST", "/api/v1/auth/step-up", {"code": secrets["backup code"]})
        for token in (secrets["API key"], secrets["access token"], secrets["API key"][:-1] + "!"):
            program = Browser(house.app, origin=None, bearer=token)
            await call("GET", "/api/v1/me", None, program)
            await call("POST", VAULT, {"value": PROVIDER_KEY}, program)
        for path in ("/api/v1/audit", "/api/v1/admin/audit", "/api/v1/me", "/api/v1/sessions", "/api/v1/mfa"):
            await call("GET", path)
        await call("DELETE", "/api/v1/me", {"confirm": PROVIDER_KEY})

    async with database.connection() as connection:
        tables = await connection.fetch(
            "select table_name from information_schema.tables where table_schema = 'public'"
        )
        stored = {
            name: repr([dict(row) for row in await connection.fetch(f'select * from "{name}"')])
            for (name,) in tables
        }
    assert len(answers) > 20
    for kind, secret in secrets.items():
        for text in spellings(secret):
            assert text not in repr(logs), f"the {kind} is in the log"
            for table, content in stored.items():
                assert text not in content, f"the {kind} is in the table {table}"
            for path, answer in answers:
                assert text.encode() not in answer.body, f"the {kind} is in an answer of {path}"
