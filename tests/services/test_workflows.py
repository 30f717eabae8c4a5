"""Chains of requests, each made of what the one before has answered: a group that was made is renamed, its
key shared, its member removed. Whatever the chain, every answer is one of the described, to the letter.

Over HTTP, to the service as a process. The links between operations are inferred from the description.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, seed, settings
from schemathesis.checks import CHECKS

from ocmt.identity.accounts import Accounts
from ocmt.platform.clock import SystemClock
from ocmt.platform.database import Database
from ocmt.platform.secrets import LocalSecrets
from ocmt.testing.mail import MemoryMail
from tests.services.served import served

pytestmark = pytest.mark.anyio

CHAINS = int(os.environ.get("OCMT_FUZZ_CASES", "80")) // 20
"""`make fuzz` has 1,000."""
STEPS = 12
PEOPLE = 40
NAMES = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)


class Outcomes:
    """How often a link was followed, and what it came to."""

    followed: ClassVar[int] = 0
    well: ClassVar[int] = 0


@pytest.mark.timeout(3600)
async def test_whatever_follows_from_what_the_answers_are_the_described(
    database: Database, dsn: str, tmp_path: Path
) -> None:
    # Every chain comes from an address of its own, or the entrance would soon say only that it is too much.
    async with served(dsn, tmp_path, OCMT_TRUSTED_PROXIES="127.0.0.1") as url:
        sessions = await people(database, tmp_path, url)
        await asyncio.to_thread(walk, url, sessions)
    print(f"{Outcomes.followed} on something in particular, {Outcomes.well} of them went well")
    assert Outcomes.followed >= CHAINS
    assert Outcomes.well > 0, "no link led anywhere"


async def people(database: Database, folder: Path, url: str) -> list[str]:
    """The cookies of administrators who signed in just now."""
    secrets = LocalSecrets(folder / "secrets")
    accounts = Accounts.over(database, secrets, MemoryMail(), SystemClock(), public_url=url)
    cookies = []
    for number in range(PEOPLE):
        email = f"person{number}@example.org"
        await accounts.identity.add_user(email, "admin")
        token = (await accounts.identity.make_link(email)).split("#token=")[1]
        headers = {"origin": url, "x-forwarded-for": f"198.51.100.{number}"}
        async with (
            aiohttp.ClientSession(headers=headers) as browser,
            browser.post(
                f"{url}/api/v1/auth/magic-link/verify", json={"token": token, "confirm": True}
            ) as answer,
        ):
            assert answer.status == 200
            cookies.append(answer.cookies["ocmt"].value)
    return cookies


def walk(url: str, sessions: list[str]) -> None:
    """Chain after chain, each from its own seed: the service remembers, so no chain can be walked twice."""
    schema = schemathesis.openapi.from_url(f"{url}/api/v1/openapi.json")
    checks = [CHECKS.get_one(name) for name in NAMES]
    faults: list[str] = []

    class Workflow(schema.as_state_machine()):  # type: ignore[misc]
        number: ClassVar[int] = 0

        def get_call_kwargs(self, case: Any) -> dict[str, Any]:
            number = self.number % len(sessions)
            headers = {"cookie": f"ocmt={sessions[number]}", "origin": url}
            return {"headers": headers | {"x-forwarded-for": f"198.51.100.{number}"}, "timeout": 30}

        def validate_response(self, response: Any, case: Any, **_: Any) -> None:
            if "{" in case.operation.path:
                Outcomes.followed += 1
                Outcomes.well += response.status_code < 300
            try:
                case.validate_response(response, checks=checks)
            except Exception as error:
                faults.append(str(error))
                raise

    for Workflow.number in range(CHAINS):
        try:
            seed(Workflow.number)(Workflow).run(
                settings=settings(
                    max_examples=1,
                    stateful_step_count=STEPS,
                    database=None,
                    deadline=None,
                    phases=[Phase.generate],
                    suppress_health_check=list(HealthCheck),
                )
            )
        except Exception:  # whatever hypothesis makes of a fault: also "flaky", for the state was another one
            if not faults:
                raise
        assert faults == [], f"chain {Workflow.number}: {faults[0]}"
