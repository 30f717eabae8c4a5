"""`ocmt revisions`, as an operator types it; on a database that DATABASE_URL names."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from ocmt.agents.revisions.service import Revisions
from ocmt.agents.service import Agents
from ocmt.platform.clock import SystemClock
from ocmt.platform.database import Database
from tests.cli.test_users import Shell, shell

__all__ = ["shell"]


@pytest.fixture
def known(shell: Shell, dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """As `ocmt up` leaves it: what it runs is revision 1, and installed."""
    cache = tmp_path / "cache"
    for name in ("node/bin/node", "openclaw/2026.9.6-abc/node_modules/openclaw/openclaw.mjs", "bwrap"):
        (cache / name).parent.mkdir(parents=True, exist_ok=True)
        (cache / name).touch()
    noted = {"node": "node/bin/node", "openclaw": "openclaw/2026.9.6-abc", "bwrap": "bwrap"}
    (cache / "tools.json").write_text(json.dumps({k: str(cache / v) for k, v in noted.items()}))
    monkeypatch.setenv("OCMT_CACHE_DIR", str(cache))

    async def know() -> None:
        database = await Database.open(dsn, pool_size=1)
        clock = SystemClock()
        await Revisions(database, Agents(database, clock, runtime="sandbox"), clock).know("2026.9.6-abc")
        await database.close()

    asyncio.run(know())
    shell.run("users add ada@example.org")
    return shell


def listed(shell: Shell) -> list[tuple[Any, ...]]:
    names = ("number", "image", "state", "share", "pinned", "installed")
    return [tuple(row[name] for name in names) for row in shell.data("revisions list")]


def test_before_the_first_start_there_is_none(shell: Shell) -> None:
    assert shell.run("revisions list") == 0
    assert shell.says == "There are no revisions yet: `ocmt up` notes the first one.\n"
    assert shell.run("revisions add 2026.10.1") == 1
    assert "start `ocmt up` once before" in shell.complains


def test_from_one_user_to_a_share_to_all(known: Shell) -> None:
    assert known.run("revisions add 2026.10.1") == 0
    assert known.says == (
        "revision 2 (OpenClaw 2026.10.1) is added, for 0 % of the users\n"
        "it is not installed on this machine, and not tried here before it is\n"
    )
    assert known.run("revisions pin ada@example.org 2") == 0
    assert known.says == "the agent of ada@example.org is pinned to revision 2, from its next start on\n"
    assert listed(known) == [
        (1, "2026.9.6-abc", "current", 100, 0, True),
        (2, "2026.10.1", "added", 0, 1, False),
    ]
    assert known.run("revisions roll-out 2 --share 20") == 0
    assert known.says == "revision 2 is offered to 20 % of the users\n"
    assert known.run("revisions unpin ada@example.org") == 0
    assert listed(known)[1][2:5] == ("canary", 20, 0)
    assert known.run("revisions roll-out 2") == 0
    assert known.run("revisions withdraw 1") == 0
    assert [row[2] for row in listed(known)] == ["withdrawn", "current"]
    assert known.run("revisions list") == 0
    assert known.says.splitlines()[0].split()[:6] == ["NUMBER", "IMAGE", "STATE", "SHARE", "AGENTS", "PINNED"]
    assert known.says.splitlines()[2].split()[:8] == ["2", "2026.10.1", "current", "100", "%", "0", "0", "0"]


def test_a_revision_may_bring_a_configuration(known: Shell, tmp_path: Path) -> None:
    file = tmp_path / "more.json"
    file.write_text('{"update": {"checkOnStart": null}}')
    told = known.data(f"revisions add 2026.9.6 --share 10 --config {file}")
    assert (told["number"], told["share"], told["installed"]) == (2, 10, True)
    assert told["image"] == "2026.9.6-abc", "the version alone is enough for what is installed"
    assert told["config"] == {"update": {"checkOnStart": None}}
    file.write_text("[]")
    assert known.run(f"revisions add 2026.9.6 --config {file}") == 1
    assert "must hold a JSON object" in known.complains


def test_what_cannot_be_is_said_in_one_line(known: Shell) -> None:
    for command, says in {
        "revisions withdraw 1": "roll another one out to 100 % first",
        "revisions withdraw 7": "There is no revision 7",
        "revisions pin ada@example.org 7": "There is no revision 7",
        "revisions roll-out 1 --share 101": "0 to 100",
        "revisions add 2026.9.6 --share -1": "0 to 100",
    }.items():
        assert known.run(command) == 1
        assert says in known.complains
        assert known.complains.count("\n") == 1
    assert known.data("revisions retry 1") == {"number": 1, "agents": 0}
