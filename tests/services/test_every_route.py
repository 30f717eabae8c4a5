"""Every route of the whole application, asked by those who may not: whoever adds one is covered by being
found."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ocmt.identity.access import SCOPES, need_of
from ocmt.platform.principal import Principal
from tests.identity.browser import Browser
from tests.services.conftest import House
from tests.services.test_routes import ENTRANCE, assert_problem, knock, routes

pytestmark = pytest.mark.anyio

OPEN = ENTRANCE | {
    "/api/v1/auth/logout",
    "/api/v1/auth/token",
    "/api/v1/auth/step-up",
    "/api/v1/auth/step-up/passkey",
    "/api/v1/auth/step-up/link",
}
"""What lies below `/auth/`: the routes themselves ask for a session, or are the entrance."""
STREAMS = {"/api/v1/admin/audit/stream"}
"""They go on for a quarter of an hour; they stand behind the same guards as their neighbours."""


def walk(house: House) -> Iterator[tuple[str, str]]:
    """(method, path template) of all that is not open to everybody."""
    for method, template in routes(house):
        if template not in OPEN and template not in STREAMS:
            yield method, template


async def test_whoever_is_shut_out_gets_nowhere(house: House) -> None:
    await house.sign_in("root@example.org")
    identity = house.management.accounts.identity
    for status in ("suspended", "pending", "deleting"):
        browser = await house.sign_in(f"{status}@example.org")
        user = await identity.user_by_email(f"{status}@example.org")
        await identity.administer(user.id, status=status)
        for method, template in walk(house):
            answer = await knock(browser, method, template, {})
            assert_problem(answer, status=401, where=f"{method} {template} ({status})")


async def test_who_must_enrol_can_do_nothing_else(house: House) -> None:
    await house.sign_in("root@example.org")
    browser = await house.sign_in("bob@example.org")
    identity = house.management.accounts.identity
    await identity.administer((await identity.user_by_email("bob@example.org")).id, mfa_required=True)
    refused = 0
    for method, template in walk(house):
        answer = await knock(browser, method, template, {})
        if template.startswith(("/api/v1/mfa", "/api/v1/passkeys", "/api/v1/sessions")):
            continue
        if (method, template) == ("GET", "/api/v1/me"):
            continue
        assert (answer.status, answer.json()["code"]) == (403, "second_factor_missing"), (
            f"{method} {template}"
        )
        refused += 1
    assert refused >= 60


async def test_a_token_without_the_scope_gets_nowhere(house: House) -> None:
    """By real API keys of an administrator, each with all scopes but the one that is needed."""
    admin = await house.sign_in("root@example.org")
    keys = house.management.accounts.api_keys
    me = await house.management.accounts.identity.user_by_email("root@example.org")
    principal = Principal(me.id, None, me.email, "admin")
    lacking = {
        scope: (await keys.make(principal, f"all but {scope}", sorted(SCOPES.keys() - {scope})))[1]
        for scope in SCOPES
    }
    whole = (await keys.make(principal, "all", sorted(SCOPES)))[1]
    seen = set()
    for method, template in walk(house):
        scope = need_of(method, template).scope
        key = lacking.get(scope, whole)
        program = Browser(admin.app, origin=None)
        program.bearer = key
        answer = await knock(program, method, template, {})
        assert (answer.status, answer.json()["code"]) == (403, "refused"), (
            f"{method} {template} needs {scope}"
        )
        seen.add(scope)
    assert seen == {*SCOPES, "session"}
