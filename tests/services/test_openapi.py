"""The Management API keeps to its own description, whatever is sent to it."""

import functools
import json
import os
from dataclasses import fields
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.core.result import Ok

from ocmt.identity.accounts import Accounts
from ocmt.services.management import Management
from tests.identity.browser import Answer, Browser
from tests.services.conftest import House

pytestmark = pytest.mark.anyio

CASES = int(os.environ.get("OCMT_FUZZ_CASES", "80"))
"""`make fuzz` has 20,000."""


def described() -> dict[str, Any]:
    """The API's own words; no room need be open for them."""
    nobody: Any = None
    accounts = Accounts(**dict.fromkeys((field.name for field in fields(Accounts)), nobody))
    rooms = dict.fromkeys((field.name for field in fields(Management)), nobody)
    return Management(**rooms | {"accounts": accounts}).app().openapi()


DESCRIPTION = described()


def cases() -> st.SearchStrategy[Any]:
    """Good and bad requests to all routes."""
    schema = schemathesis.openapi.from_dict(DESCRIPTION)
    operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
    assert len(operations) >= 10
    return st.one_of(
        *(operation.as_strategy(generation_mode=mode) for operation in operations for mode in GenerationMode)
    )


def test_no_route_promises_an_answer_that_it_never_gives(house: House) -> None:
    for path, operations in house.api.openapi()["paths"].items():
        for method, operation in operations.items():
            assert "422" not in operation["responses"], f"{method} {path}"
            assert "application/problem+json" in operation["responses"]["4XX"]["content"], f"{method} {path}"


@pytest.mark.timeout(3600)
@settings(
    max_examples=CASES,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.filter_too_much,
        HealthCheck.data_too_large,
    ],
)
@given(case=cases())
async def test_whatever_is_sent_the_answer_is_one_of_the_described(house: House, case: Any) -> None:
    await check(await house.sign_in(f"{uuid4()}@example.org"), case.operation.definition.raw, case)


async def check(browser: Browser, described: dict[str, Any], case: Any) -> None:
    path = case.formatted_path
    if case.query:
        path += "?" + "&".join(
            f"{quote(str(name))}={quote(str(value))}" for name, value in case.query.items()
        )
    body = case.body if isinstance(case.body, dict | list | str | int | float | bool | None) else None
    answer = await browser.call(case.method, path, body)
    where = f"{case.method} {path} {body!r}: {answer.status} {answer.body!r}"
    assert answer.status < 500, where
    kind = answer.headers.get("content-type", "")
    if answer.status >= 400:
        assert kind == "application/problem+json", where
        keeps_to(described["responses"]["4XX"]["content"][kind]["schema"], answer, where)
        return
    assert str(answer.status) in described["responses"], where
    content = described["responses"][str(answer.status)].get("content", {})
    if kind == "application/json":
        keeps_to(content[kind]["schema"], answer, where)


@functools.cache
def validator_of(schema: str) -> Any:
    whole = {**json.loads(schema), "components": DESCRIPTION["components"]}
    return jsonschema_rs.validator_for(whole, validate_formats=True)


def keeps_to(schema: dict[str, Any], answer: Answer, where: str) -> None:
    faults = list(validator_of(json.dumps(schema)).iter_errors(answer.json()))
    assert faults == [], f"{where}: {faults[0].message}"
