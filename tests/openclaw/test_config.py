"""The configuration that an agent gets. That OpenClaw accepts it is shown by the contract test."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ocmt.openclaw.config import gateway_environment, patched, render_config


def test_no_secret_stands_in_the_file_nor_becomes_a_part_of_it() -> None:
    """`"${NAME}"` would: then each start, with new tokens, is to OpenClaw one with a new configuration."""
    config = json.loads(render_config(model="claude-sonnet-4-6"))
    token, key = (
        {"source": "env", "provider": "default", "id": name}
        for name in ("OPENCLAW_GATEWAY_PASSWORD", "ANTHROPIC_API_KEY")
    )
    assert config["gateway"]["auth"]["password"] == token
    assert config["models"]["providers"]["anthropic"]["apiKey"] == key
    environment = gateway_environment(gateway_token="g", broker_token="b")
    assert (environment["OPENCLAW_GATEWAY_PASSWORD"], environment["ANTHROPIC_API_KEY"]) == ("g", "b")


def test_users_come_through_the_platform_alone_and_never_as_administrators() -> None:
    auth = json.loads(render_config(model="claude-opus-4-7"))["gateway"]["auth"]
    assert auth["mode"] == "trusted-proxy"
    assert "token" not in auth
    assert list(auth["identityScopes"]) == auth["trustedProxy"]["allowUsers"]
    assert not any("admin" in scope for scopes in auth["identityScopes"].values() for scope in scopes)


def test_model_calls_go_to_the_broker() -> None:
    config = json.loads(render_config(model="claude-opus-4-7"))
    assert config["models"]["providers"]["anthropic"]["baseUrl"] == "http://127.0.0.1:18990"
    assert config["agents"]["defaults"]["model"] == {"primary": "anthropic/claude-opus-4-7"}


def test_nothing_spends_money_unasked() -> None:
    config = json.loads(render_config(model="m"))
    defaults = config["agents"]["defaults"]
    assert defaults["heartbeat"] == {"every": "0m"}
    assert defaults["utilityModel"] == ""
    assert config["skills"]["workshop"]["autonomous"] == {"mode": "off"}


def test_the_internet_is_reached_only_where_opted_in_and_only_by_the_proxy() -> None:
    closed = json.loads(render_config(model="m"))
    assert "proxy" not in closed
    assert {"web_fetch", "web_search"} <= set(closed["tools"]["deny"])
    assert not any(
        "proxy" in name.lower() for name in gateway_environment(gateway_token="g", broker_token="b")
    )

    opened = json.loads(render_config(model="m", egress=True))
    assert opened["proxy"] == {"proxyUrl": "http://127.0.0.1:18991"}
    assert not {"web_fetch", "web_search"} & set(opened["tools"]["deny"])
    environment = gateway_environment(gateway_token="g", broker_token="b", egress=True)
    assert environment["HTTPS_PROXY"] == environment["https_proxy"] == "http://127.0.0.1:18991"
    assert environment["NO_PROXY"] == "127.0.0.1,localhost"


@pytest.mark.parametrize(
    ("patch", "patched_to"),
    [
        ({}, {"a": {"b": 1, "c": [1]}}),
        ({"a": {"b": 2}}, {"a": {"b": 2, "c": [1]}}),
        ({"a": {"b": None, "c": [2]}}, {"a": {"c": [2]}}),
        ({"a": None, "d": {"e": None, "f": 1}}, {"d": {"f": 1}}),
        ({"a": 1}, {"a": 1}),
    ],
)
def test_a_revision_may_change_it(patch: dict[str, Any], patched_to: dict[str, Any]) -> None:
    """As in https://www.rfc-editor.org/rfc/rfc7396"""
    assert json.loads(patched('{"a": {"b": 1, "c": [1]}}', patch)) == patched_to
