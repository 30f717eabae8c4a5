"""What tokens, half-enrolled users and administrators in other people's shoes may ask for at all."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocmt.errors import Refused
from ocmt.identity.access import SCOPES, check, need_of
from ocmt.platform.principal import Principal

ROUTES = [
    ("GET", "/agent", "agent:read"),
    ("GET", "/agent/conversations", "agent:read"),
    ("POST", "/agent/conversations", "agent:write"),
    ("WEBSOCKET", "/agent/gateway", "agent:write"),
    ("GET", "/api/v1/me", "account:read"),
    ("PATCH", "/api/v1/me", "account:write"),
    ("GET", "/api/v1/vault/items", "vault:read"),
    ("PUT", "/api/v1/vault/items/x", "vault:write"),
    ("GET", "/api/v1/usage", "account:read"),
    ("GET", "/api/v1/audit", "account:read"),
    ("GET", "/api/v1/admin/users", "admin:read"),
    ("POST", "/api/v1/admin/users", "admin:write"),
]
NEVER = [
    ("GET", "/api/v1/sessions"),
    ("DELETE", "/api/v1/sessions/x"),
    ("GET", "/api/v1/api-keys"),
    ("POST", "/api/v1/mfa/totp"),
    ("GET", "/api/v1/me/export"),
    ("POST", "/api/v1/auth/logout"),
    ("GET", "/api/v1/what-nobody-has-thought-of"),
    ("GET", "/agents"),
    ("GET", "/"),
    ("GET", "//agent"),
    ("GET", "/Agent"),
    ("GET", "/api/v1/mex"),
    ("GET", "/api/v1/me/../admin"),
]


def a_token(*scopes: str) -> Principal:
    return Principal(UUID(int=1), None, "ada@example.org", scopes=frozenset(scopes), via="api_key")


def may(principal: Principal, method: str, path: str) -> bool:
    try:
        check(principal, method, path)
    except Refused:
        return False
    return True


@pytest.mark.parametrize(("method", "path", "scope"), ROUTES)
def test_a_route_takes_its_scope_and_no_other_will_do(method: str, path: str, scope: str) -> None:
    assert may(a_token(scope), method, path)
    assert not may(a_token(*(SCOPES.keys() - {scope})), method, path)


@pytest.mark.parametrize(("method", "path"), NEVER)
def test_what_takes_a_browser_or_is_unknown_no_token_may_do(method: str, path: str) -> None:
    every = frozenset(SCOPES) - {"account:read", "admin:read"} if ".." in path else frozenset(SCOPES)
    assert not may(a_token(*every), method, path)


@given(st.text(alphabet="/agentpiv1m.%2\\", max_size=30))
def test_no_trick_with_a_path_is_open_to_everybody(path: str) -> None:
    path = f"/{path}"
    assert need_of("POST", path).scope != "open" or path.startswith("/api/v1/auth/")


def test_a_session_may_ask_for_everything() -> None:
    session = Principal(UUID(int=1), UUID(int=2), "ada@example.org")
    assert all(may(session, method, path) for method, path, _ in ROUTES)
    assert all(may(session, method, path) for method, path in NEVER)


def test_who_must_enrol_may_only_do_that() -> None:
    session = Principal(UUID(int=1), UUID(int=2), "ada@example.org", must_enrol=True)
    assert may(session, "POST", "/api/v1/mfa/totp")
    assert may(session, "GET", "/api/v1/me")
    assert not may(session, "DELETE", "/api/v1/me")
    for path in ("/agent", "/api/v1/vault/items", "/api/v1/admin/users", "/api/v1/me/export"):
        assert not may(session, "GET", path), path


def test_who_looks_through_other_eyes_sees_neither_keys_nor_vault_and_changes_no_name() -> None:
    session = Principal(UUID(int=1), UUID(int=2), "ada@example.org", impersonator_id=UUID(int=3))
    assert may(session, "GET", "/agent/conversations")
    assert may(session, "GET", "/api/v1/me")
    assert not may(session, "PATCH", "/api/v1/me")
    for path in ("/api/v1/vault/items", "/api/v1/api-keys", "/api/v1/mfa", "/api/v1/me/export"):
        assert not may(session, "GET", path), path
