"""What an agent's OpenClaw is told: its configuration file and the secrets and switches of its environment.

Lean on purpose: no channel, page, terminal, heartbeat or background learning that would spend memory or
money while nobody asks. The reason for each switch is in docs/openclaw.md. Secrets stand only in the
environment; the file names them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

GATEWAY_PORT = 18801
BROKER_URL = "http://127.0.0.1:18990"
EGRESS_PROXY = "http://127.0.0.1:18991"
WORKSPACE = "/home/agent/workspace"

OWNER = "owner"
"""Who an agent's user is to its gateway: there is only this one."""
OWNER_SCOPES = ("operator.read", "operator.write", "operator.approvals", "operator.questions")
"""Not `operator.admin`: the configuration is the platform's."""
OWNER_HEADER = "x-ocmt-user"
PROXY_HEADER = "x-ocmt-proxy"
OWNER_ORIGIN = "https://ocmt.internal"
"""In the place of the page's own, which the platform has looked at already."""

GATEWAY_SWITCHES = {
    "OPENCLAW_DISABLE_BONJOUR": "1",
    "OPENCLAW_EXEC_SHELL_SNAPSHOT": "0",
    "OPENCLAW_NO_AUTO_UPDATE": "1",
    "OPENCLAW_NO_RESPAWN": "1",
    "OPENCLAW_OFFLINE": "1",
    "OPENCLAW_SKIP_CHANNELS": "1",
}
"""The part of every gateway's environment that is no secret."""
_OUT_OF_PLACE = ("computer", "nodes", "mobile_ui", "terminal", "portal", "theme", "gateway", "plugins")
"""Tools for OpenClaw's own apps and devices, or for what the platform decides (updates, plugins)."""
_NOT_IN_CATALOG: dict[str, dict[str, int]] = {
    name: {"contextWindow": 200_000, "maxTokens": 128_000}
    for name in ("claude-sonnet-4-6", "claude-opus-4-6", "claude-opus-4-7")
}
"""Models that version 2026.9.6's catalog of Anthropic's API lacks; the numbers are its `claude-cli`'s. It
would use them all the same, but take them for blind: another model call would describe each image, and its
words would stand in the place of the user's."""
_NEED_INTERNET = ("web_fetch", "web_search")


def render_config(
    *,
    model: str,
    egress: bool = False,
    gateway_port: int = GATEWAY_PORT,
    broker_url: str = BROKER_URL,
    egress_proxy: str = EGRESS_PROXY,
    workspace: str = WORKSPACE,
    turn_timeout: int = 900,
) -> str:
    """OpenClaw's configuration (JSON). `model` is Anthropic's name of it, `turn_timeout` in seconds."""
    config: dict[str, Any] = {
        "gateway": {
            "mode": "local",
            "port": gateway_port,
            "bind": "loopback",
            "auth": {
                # The platform's own connection has the password; users come through the platform, which says
                # that they are the owner. So no client of theirs ever needs, or sees, a credential of it.
                "mode": "trusted-proxy",
                "password": _from_environment("OPENCLAW_GATEWAY_PASSWORD"),
                "identityScopes": {OWNER: list(OWNER_SCOPES)},
                "trustedProxy": {
                    "userHeader": OWNER_HEADER,
                    "requiredHeaders": [PROXY_HEADER],
                    "allowUsers": [OWNER],
                    "allowLoopback": True,
                    # A browser has a key of its own as a device; that it comes as the owner is enough.
                    "deviceAutoApprove": {"enabled": True, "scopes": list(OWNER_SCOPES)},
                },
            },
            "trustedProxies": ["127.0.0.1"],
            "controlUi": {"enabled": False, "allowedOrigins": [OWNER_ORIGIN]},
            "terminal": {"enabled": False},
            "http": {"endpoints": {"chatCompletions": {"enabled": True}, "responses": {"enabled": True}}},
        },
        "models": {
            "providers": {
                "anthropic": {
                    "baseUrl": broker_url,
                    "apiKey": _from_environment("ANTHROPIC_API_KEY"),
                    "models": _described(model),
                }
            },
            "catalogRefresh": {"enabled": False},
        },
        "agents": {
            "defaults": {
                "model": {"primary": f"anthropic/{model}"},
                "models": {f"anthropic/{model}": {}},
                "workspace": workspace,
                "timeoutSeconds": turn_timeout,
                "heartbeat": {"every": "0m"},
                "utilityModel": "",
            }
        },
        "tools": {"deny": [*_OUT_OF_PLACE, *(() if egress else _NEED_INTERNET)]},
        "skills": {"workshop": {"autonomous": {"mode": "off"}}},
        "plugins": {"allow": ["anthropic"], "slots": {"memory": "none"}},
        "update": {"checkOnStart": False},
        "discovery": {"mdns": {"mode": "off"}},
    }
    if egress:
        config["proxy"] = {"proxyUrl": egress_proxy}
    return json.dumps(config, indent=2)


def _described(model: str) -> list[dict[str, Any]]:
    """What OpenClaw must be told of that model; nothing where its own catalog has it."""
    limits = _NOT_IN_CATALOG.get(model)
    if limits is None:
        return []
    return [{"id": model, "name": model, "input": ["text", "image"], "reasoning": True, **limits}]


def patched(config: str, patch: Mapping[str, Any]) -> str:
    """That configuration with a merge patch applied: null removes, everything else replaces or adds.

    https://www.rfc-editor.org/rfc/rfc7396
    """
    return json.dumps(_merged(json.loads(config), patch), indent=2) if patch else config


def _merged(target: Any, patch: Any) -> Any:
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merged(merged.get(name), value)
    return merged


def _from_environment(name: str) -> dict[str, str]:
    """A reference to a secret, whose value is no part of the configuration. With `${NAME}` it would be: at
    each new token OpenClaw checks and migrates all of its state again, which takes 3 seconds.
    """
    return {"source": "env", "provider": "default", "id": name}


def gateway_environment(
    *,
    gateway_token: str,
    broker_token: str,
    egress: bool = False,
    egress_proxy: str = EGRESS_PROXY,
) -> dict[str, str]:
    """The gateway's part of its environment: its secrets, and what keeps it from calling home or forking."""
    environment = {
        "OPENCLAW_GATEWAY_PASSWORD": gateway_token,
        "ANTHROPIC_API_KEY": broker_token,
        **GATEWAY_SWITCHES,
    }
    if egress:
        # For what the agent runs; OpenClaw itself goes by its configuration.
        for name in ("http_proxy", "https_proxy"):
            environment |= {name: egress_proxy, name.upper(): egress_proxy}
        environment |= {"no_proxy": "127.0.0.1,localhost", "NO_PROXY": "127.0.0.1,localhost"}
    return environment
