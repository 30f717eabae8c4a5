"""The set-up's manifest: found, or said in one line what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ocmt.errors import SetupProblem
from ocmt.runtimes.tools import find_tools, own_python


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    for name in ("node/bin/node", "openclaw/node_modules/openclaw/openclaw.mjs", "bubblewrap/bwrap"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    note(tmp_path)
    return tmp_path


def note(cache: Path, **changes: object) -> None:
    noted = {
        "node": str(cache / "node/bin/node"),
        "openclaw": str(cache / "openclaw"),
        "bwrap": str(cache / "bubblewrap/bwrap"),
        "compile_cache": None,
        "postgres": None,
    }
    (cache / "tools.json").write_text(json.dumps(noted | changes))


def test_what_the_set_up_has_noted(cache: Path) -> None:
    tools = find_tools(cache)
    assert tools.node == cache / "node/bin/node"
    assert tools.openclaw == cache / "openclaw"
    assert tools.bwrap == cache / "bubblewrap/bwrap"
    assert tools.compile_cache is None
    assert tools.python == own_python()
    assert ".venv" not in str(tools.python)


def test_a_compile_cache_is_a_nicety(cache: Path) -> None:
    note(cache, compile_cache=str(cache / "primed"))
    assert find_tools(cache).compile_cache is None
    (cache / "primed").mkdir()
    assert find_tools(cache).compile_cache == cache / "primed"


def test_before_the_set_up(tmp_path: Path) -> None:
    with pytest.raises(SetupProblem, match="make setup"):
        find_tools(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"node": 1}', "null"])
def test_a_damaged_manifest(cache: Path, text: str) -> None:
    (cache / "tools.json").write_text(text)
    with pytest.raises(SetupProblem, match="make setup"):
        find_tools(cache)


@pytest.mark.parametrize(
    "name", ["node/bin/node", "openclaw/node_modules/openclaw/openclaw.mjs", "bubblewrap/bwrap"]
)
def test_something_gone(cache: Path, name: str) -> None:
    (cache / name).unlink()
    with pytest.raises(SetupProblem, match=name):
        find_tools(cache)
