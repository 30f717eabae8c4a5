"""OpenClaw's own protocol through the whole installation: sandbox, gateway, splice, sign-in.

Slow, for it starts the real OpenClaw; told in order, with one agent.
"""

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from ocmt.testing.installation import Installation, Person
from ocmt.testing.installed import installed_tools
from tests.journey.conftest import anna, data, installation

__all__ = ["anna", "data", "installation"]

pytestmark = [pytest.mark.anyio, pytest.mark.journey, pytest.mark.timeout(240)]

CLI = {"id": "cli", "version": "1", "platform": "linux", "mode": "cli"}
CONTROL_UI = {"id": "openclaw-control-ui", "version": "1", "platform": "web", "mode": "webchat"}


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    return {"OCMT_AGENT_STOP_AFTER": "1h"}


@pytest.fixture(scope="module")
async def key(anna: Person) -> str:
    made = await anna.call(
        "POST", "/api/v1/api-keys", {"name": "cli", "scopes": ["agent:read", "agent:write"]}, status=201
    )
    return str(made["key"])


def socket_url(installation: Installation) -> str:
    return installation.url.replace("http", "ws", 1) + "/agent/gateway"


def cookies_of(person: Person) -> str:
    return "; ".join(f"{each.key}={each.value}" for each in person.http.cookie_jar)


async def ask(client: ClientConnection, method: str, params: Any, number: str = "1") -> dict[str, Any]:
    await client.send(json.dumps({"type": "req", "id": number, "method": method, "params": params}))
    while (frame := json.loads(await client.recv())).get("id") != number:
        pass
    assert isinstance(frame, dict)
    return frame


async def hello(client: ClientConnection, who: dict[str, str], **auth: str) -> dict[str, Any]:
    assert json.loads(await client.recv())["event"] == "connect.challenge"
    params = {
        "minProtocol": 4,
        "maxProtocol": 4,
        "client": who,
        "role": "operator",
        "scopes": ["operator.read", "operator.write", "operator.admin"],
        "caps": [],
        **({"auth": auth} if auth else {}),
    }
    return await ask(client, "connect", params, "hello")


async def openclaw(home: Path, *arguments: str) -> str:
    """What OpenClaw's command line prints."""
    tools = installed_tools()
    entry = tools.openclaw / "node_modules" / "openclaw" / "openclaw.mjs"
    process = await asyncio.create_subprocess_exec(
        tools.node,
        entry,
        *arguments,
        "--timeout",
        "90000",
        cwd=home,
        env={"HOME": str(home), "PATH": "/usr/bin:/bin", "NO_COLOR": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    told, complaint = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, (told + complaint).decode()
    return told.decode()


async def test_a_stranger_and_another_sites_page_are_refused_and_wake_nobody(
    installation: Installation, anna: Person
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(socket_url(installation), proxy=None)
    assert refused.value.response.status_code == 401
    cookie = cookies_of(anna)
    with pytest.raises(InvalidStatus) as refused:
        await connect(
            socket_url(installation),
            proxy=None,
            origin="https://evil.example",  # type: ignore[arg-type]
            additional_headers={"cookie": cookie},
        )
    assert refused.value.response.status_code == 403
    assert (await anna.call("GET", "/agent"))["state"] == "stopped"


async def test_a_program_with_an_api_key_wakes_the_agent_and_talks_to_it(
    installation: Installation, anna: Person, key: str
) -> None:
    async with connect(
        socket_url(installation),
        proxy=None,
        open_timeout=120,
        additional_headers={"authorization": f"Bearer {key}"},
    ) as client:
        told = await hello(client, CLI)
        assert told["ok"], told
        scopes = told["payload"]["auth"]["scopes"]
        assert "operator.write" in scopes
        assert "operator.admin" not in scopes
        assert (await ask(client, "sessions.list", {}))["ok"]
        refused = await ask(client, "config.patch", {"raw": "{}", "baseHash": "x"}, "2")
        assert not refused["ok"]
        agent = await anna.call("GET", "/agent")
        assert agent["state"] == "awake"
        assert any(hold["reason"] == "socket" for hold in agent["kept_awake_by"])
        params = {"sessionKey": "agent:main:cli", "message": "hello", "idempotencyKey": "k1"}
        assert (await ask(client, "chat.send", params, "3"))["ok"]
        async with asyncio.timeout(60):
            while True:
                frame = json.loads(await client.recv())
                if frame.get("event") == "chat" and frame["payload"].get("state") == "final":
                    break
        assert "demo model" in json.dumps(frame["payload"])


async def test_openclaws_own_command_line_comes_in_with_the_key_in_its_address(
    installation: Installation, key: str, tmp_path: Path
) -> None:
    """As docs/how-to/openclaw-clients.md says."""
    remote = {"url": socket_url(installation).replace("://", f"://ocmt:{key}@"), "token": "none"}
    config = tmp_path / ".openclaw" / "openclaw.json"
    config.parent.mkdir()
    config.write_text(json.dumps({"gateway": {"mode": "remote", "remote": remote}}))
    told = json.loads(await openclaw(tmp_path, "gateway", "call", "health", "--json"))
    assert told["ok"]


async def test_the_control_ui_comes_in_with_the_cookie_and_no_token(
    installation: Installation, anna: Person
) -> None:
    cookie = cookies_of(anna)
    async with connect(
        socket_url(installation),
        proxy=None,
        origin=installation.url,  # type: ignore[arg-type]
        additional_headers={"cookie": cookie},
    ) as client:
        told = await hello(client, CONTROL_UI)
        assert told["ok"], told
        assert "operator.read" in told["payload"]["auth"]["scopes"]


async def test_openais_protocol_works_below_it(installation: Installation, key: str) -> None:
    headers = {"authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(installation.url, headers=headers) as session:
        said = {"model": "openclaw", "messages": [{"role": "user", "content": "hello"}]}
        async with session.post("/agent/gateway/v1/chat/completions", json=said) as response:
            told = await response.json()
            assert response.status == 200, told
            assert "sandbox" in response.headers["content-security-policy"]
        assert "demo model" in told["choices"][0]["message"]["content"]
        for path in ("/agent/gateway/hooks/agent", "/agent/gateway/v1/../x", "/agent/gateway/config.json"):
            async with session.post(path) as response:
                assert response.status in (403, 404), path
            async with session.get(path, allow_redirects=False) as response:
                # Of the Control UI's own addresses at the most: the gateway is not asked.
                assert response.status in (303, 403, 404), path


async def test_a_revoked_key_ends_its_sockets(installation: Installation, anna: Person, key: str) -> None:
    (made,) = (await anna.call("GET", "/api/v1/api-keys"))["items"]
    async with connect(
        socket_url(installation), proxy=None, additional_headers={"authorization": f"Bearer {key}"}
    ) as client:
        assert (await hello(client, CLI))["ok"]
        await anna.call("DELETE", f"/api/v1/api-keys/{made['id']}", status=204)
        async with asyncio.timeout(60):
            await client.wait_closed()
        assert client.close_code == 1008
