"""`ocmt channels`, as an operator types it; on a database that DATABASE_URL names."""

from __future__ import annotations

import asyncio
import io
from uuid import UUID, uuid4

import asyncpg
import pytest

from tests.cli.test_users import Shell, shell

__all__ = ["shell"]


@pytest.fixture
def endpoint(shell: Shell, dsn: str) -> UUID:
    """A channel of Ada's with three deliveries, one of them dead."""
    endpoint = uuid4()
    shell.run("users add ada@example.org")

    async def fill() -> None:
        connection = await asyncpg.connect(dsn)
        await connection.execute(
            "insert into channel_endpoints (id, user_id, channel, name, sealed) "
            "select $1, id, 'signed', 'Shop', '' from users",
            endpoint,
        )
        for n, state in enumerate(("done", "dead", "accepted")):
            await connection.execute(
                "insert into deliveries (id, user_id, endpoint_id, external_id, thread, body, received_at, "
                "next_at, state, error) select $1, id, $2, $3, 't', 'x', now(), now(), $4, $5 from users",
                uuid4(),
                endpoint,
                str(n),
                state,
                '{"code": "x", "message": "Because."}' if state == "dead" else None,
            )
        await connection.close()

    asyncio.run(fill())
    return endpoint


def test_listing(shell: Shell, endpoint: UUID) -> None:
    assert shell.run("channels list") == 0
    assert "Shop" in shell.says
    (listed,) = shell.data("channels list ada@example.org")
    assert (listed["id"], listed["open"], listed["dead"]) == (str(endpoint), 1, 1)
    assert shell.data("channels list bob@example.org") == []
    assert shell.run(f"channels deliveries {endpoint}") == 0
    assert "Because." in shell.says
    assert len(shell.data(f"channels deliveries {endpoint}")) == 3
    assert len(shell.data(f"channels deliveries {endpoint} --state dead")) == 1
    assert shell.run(f"channels deliveries {uuid4()}") == 1


def test_replaying(shell: Shell, endpoint: UUID) -> None:
    (dead,) = shell.data(f"channels deliveries {endpoint} --state dead")
    assert shell.run(f"channels replay {endpoint}") == 1
    assert shell.run(f"channels replay {endpoint} --last 1h") == 0
    assert shell.says == "1 delivery runs again\n"
    assert shell.run(f"channels replay {endpoint} {dead['id']}") == 1  # it is under way
    assert shell.data(f"channels replay {endpoint} --last 1h --state done")["count"] == 1


def test_connecting_takes_its_fields_from_standard_input(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def typed(text: str) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO(text))

    shell.run("users add ada@example.org")
    typed("{}")
    assert shell.run("channels connect ada@example.org signed --name Shop --sender bob") == 0
    assert "Shop is connected as" in shell.says
    assert "/webhooks/signed/" in shell.says
    assert "whsec_" in shell.says
    (listed,) = shell.data("channels list ada@example.org")
    assert listed["name"] == "Shop"
    for fields in ("", "[]", '{"mode": 1}', "nonsense"):
        typed(fields)
        assert shell.run("channels connect ada@example.org signed") == 1
        assert "JSON object" in shell.complains
    typed('{"bot_token": "none"}')
    assert shell.run("channels connect ada@example.org telegram") == 1
    assert "none" not in shell.complains
    typed("{}")
    assert shell.run("channels connect bob@example.org signed") == 1
    assert len(shell.data("channels list")) == 1
