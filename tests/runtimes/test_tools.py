"""The set-up's manifest: found, or said in one line what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ocmt.errors import SetupProblem
from ocmt.runtimes.tools import Tools, find_tools, own_python


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


class TestSeveralOpenClaws:
    """As set-ups of several versions leave them in one cache."""

    @pytest.fixture
    def tools(self, cache: Path) -> Tools:
        for name in ("2026.9.6-aaa", "2026.10.1-bbb", "2026.10.1-rc.1-ccc"):
            program = cache / "openclaws" / name / "node_modules" / "openclaw" / "openclaw.mjs"
            program.parent.mkdir(parents=True)
            program.touch()
            (cache / f"{name}-node-24").mkdir()
        (cache / "openclaws" / "2026.11.0-ddd").mkdir()
        (cache / "2026.10.1-bbb-node-24").rmdir()
        own = str(cache / "openclaws" / "2026.9.6-aaa")
        note(cache, openclaw=own, compile_cache=str(cache / "2026.9.6-aaa-node-24"))
        return find_tools(cache)

    @pytest.mark.parametrize(
        ("image", "folder", "primed"),
        [
            (None, "2026.9.6-aaa", "2026.9.6-aaa-node-24"),
            ("2026.9.6", "2026.9.6-aaa", "2026.9.6-aaa-node-24"),
            ("2026.10.1", "2026.10.1-bbb", None),
            ("2026.10.1-rc.1", "2026.10.1-rc.1-ccc", "2026.10.1-rc.1-ccc-node-24"),
            ("2026.10.1-rc.1-ccc", "2026.10.1-rc.1-ccc", "2026.10.1-rc.1-ccc-node-24"),
        ],
    )
    def test_one_by_its_version_or_its_whole_name(
        self, tools: Tools, image: str | None, folder: str, primed: str | None
    ) -> None:
        found = tools.of(image)
        assert found is not None
        assert found.openclaw.name == folder
        assert (found.compile_cache.name if found.compile_cache else None) == primed
        assert found.node == tools.node

    @pytest.mark.parametrize(
        "image", ["2026.8.0", "2026.11.0", "..", "../openclaws/2026.10.1-bbb", "", "2026"]
    )
    def test_one_that_is_not_there_or_not_complete(self, tools: Tools, image: str) -> None:
        assert tools.of(image) is None
