"""The agent's folder on disk: complete, kept apart, and no trap for a platform that runs as root."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from ocmt.errors import SetupProblem
from ocmt.runtimes.folders import FIRST_UID, AgentFolder, last_lines

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_first_use_makes_everything(tmp_path: Path) -> None:
    agent = AgentFolder(tmp_path / "agents" / "a", None)
    agent.prepare('{"one": 1}', compile_cache=None)
    agent.prepare('{"two": 2}', compile_cache=None)
    assert {path.name for path in agent.root.iterdir()} == {
        "config", "home", "logs", "state", "tmp", "workspace",
    }  # fmt: skip
    config = agent.root / "config" / "openclaw.json"
    assert config.read_text() == '{"two": 2}'
    assert mode(config) == 0o600
    assert mode(agent.root / "workspace") == 0o700
    assert list((agent.root / "config").iterdir()) == [config]


def test_a_primed_compile_cache_is_copied_once(tmp_path: Path) -> None:
    primed = tmp_path / "primed"
    (primed / "v24").mkdir(parents=True)
    (primed / "v24" / "entry").write_text("compiled")
    agent = AgentFolder(tmp_path / "a", None)
    agent.prepare("{}", compile_cache=primed)
    copied = agent.root / "tmp" / "node-compile-cache" / "v24" / "entry"
    assert copied.read_text() == "compiled"
    copied.write_text("the agent's own by now")
    agent.prepare("{}", compile_cache=primed)
    assert copied.read_text() == "the agent's own by now"


@as_root
def test_as_root_the_agent_owns_its_own_and_nothing_else(tmp_path: Path) -> None:
    agent = AgentFolder(tmp_path / "a", FIRST_UID + 7)
    agent.prepare("{}", compile_cache=None)
    owners = {path.name: path.stat().st_uid for path in agent.root.iterdir()}
    assert owners == {
        "home": FIRST_UID + 7,
        "workspace": FIRST_UID + 7,
        "state": FIRST_UID + 7,
        "tmp": FIRST_UID + 7,
        "config": 0,
        "logs": 0,
    }
    assert agent.root.stat().st_uid == 0


@as_root
def test_a_new_uid_takes_its_files_along_but_not_what_links_point_to(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("the platform's")
    AgentFolder(tmp_path / "a", FIRST_UID + 1).prepare("{}", compile_cache=None)
    (tmp_path / "a" / "workspace" / "trap").symlink_to(precious)
    (tmp_path / "a" / "workspace" / "mine").write_text("x")
    AgentFolder(tmp_path / "a", FIRST_UID + 2).prepare("{}", compile_cache=None)
    assert (tmp_path / "a" / "workspace" / "mine").stat().st_uid == FIRST_UID + 2
    assert precious.stat().st_uid == 0


def test_a_configuration_is_written_anew_only_when_it_changed(tmp_path: Path) -> None:
    folder = AgentFolder(tmp_path / "agent", uid=None)
    config = folder.root / "config" / "openclaw.json"
    folder.prepare("{}", compile_cache=None)
    first = config.stat().st_ino
    folder.prepare("{}", compile_cache=None)
    assert config.stat().st_ino == first
    folder.prepare('{"a": 1}', compile_cache=None)
    assert (config.read_text(), config.stat().st_ino != first) == ('{"a": 1}', True)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "agents").write_text("a file in the way")
    with pytest.raises(SetupProblem, match="agents"):
        AgentFolder(tmp_path / "agents" / "a", None).prepare("{}", compile_cache=None)


def test_the_last_lines_run_across_rotated_files(tmp_path: Path) -> None:
    old, new = tmp_path / "log.1", tmp_path / "log"
    old.write_text("1\n2\n3\n")
    new.write_text("4\n5\n")
    assert last_lines([old, new], 3) == "3\n4\n5"
    assert last_lines([tmp_path / "none"], 3) == ""


def test_what_lies_where_folders_are_mounted_is_moved_aside(tmp_path: Path) -> None:
    agent = AgentFolder(tmp_path / "a", None)
    agent.prepare("{}", compile_cache=None)
    home = agent.root / "home"
    (home / "workspace").symlink_to("/")
    (home / "state").write_text("a file of the user's")
    home.chmod(0)
    agent.prepare("{}", compile_cache=None)
    assert all(stat.S_ISDIR((home / name).lstat().st_mode) for name in ("workspace", "state"))
    assert not (home / "config").exists()
    assert [path.read_text() for path in home.glob("state.moved-*")] == ["a file of the user's"]
