"""`ocmt agents hold` and `release`, as an operator types them; on a database that DATABASE_URL names."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest

from ocmt.platform.database import connect
from tests.cli.test_users import Shell, shell

__all__ = ["shell"]


def held(dsn: str) -> list[dict[str, Any]]:
    """The holds that there are."""

    async def find() -> list[dict[str, Any]]:
        connection = await connect(dsn)
        try:
            return [dict(row) for row in await connection.fetch("select * from holds")]
        finally:
            await connection.close()

    return asyncio.run(find())


@pytest.fixture
def ada(shell: Shell) -> str:
    shell.run("users add ada@example.org")
    return "ada@example.org"


def test_an_operator_holds_an_agent_awake_and_lets_it_go(shell: Shell, dsn: str, ada: str) -> None:
    assert shell.run(f"agents hold {ada} --for 2h --reason demo") == 0
    assert shell.says.startswith(f"the agent of {ada} is kept awake until 20")
    (hold,) = held(dsn)
    assert (hold["reason"], hold["note"]) == ("operator", "demo")
    left = hold["expires_at"] - hold["created_at"]
    assert timedelta(minutes=119) < left <= timedelta(hours=2, minutes=1)
    assert shell.run(f"agents release {ada}") == 0
    assert shell.says == f"the agent of {ada} is released\n"
    assert held(dsn) == []
    assert shell.run(f"agents release {ada}") == 0
    assert shell.says == f"the agent of {ada} was not held by an operator\n"


def test_a_second_hold_takes_the_place_of_the_first(shell: Shell, dsn: str, ada: str) -> None:
    told = shell.data(f"agents hold {ada} --for 90s")
    assert (told["email"], told["note"]) == (ada, None)
    assert datetime.fromisoformat(told["until"]).tzinfo is not None
    shell.data(f"agents hold {ada} --for 3d --reason demo")
    (hold,) = held(dsn)
    assert hold["note"] == "demo"
    assert shell.data(f"agents release {ada}") == {"email": ada, "released": True}


@pytest.mark.parametrize("time", ["8d", "0s", "-1h", "soon", "9" * 400])
def test_a_time_that_makes_no_sense_is_misuse_in_one_line(
    shell: Shell, dsn: str, ada: str, time: str
) -> None:
    assert shell.run(f"agents hold {ada} --for {time}") == 2
    assert len(shell.complains.splitlines()) == 1
    assert held(dsn) == []


def test_who_does_not_exist_has_no_agent(shell: Shell) -> None:
    assert shell.run("agents hold nobody@example.org --for 1h") == 1
    assert shell.run("agents release nobody@example.org") == 1
