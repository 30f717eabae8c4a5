"""The set-up as a whole: what it runs again when something changed, and what people see when a step fails.

The steps' own work is replaced: the real ones download a gigabyte, and `make test` has just done that.
"""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ocmt.errors import SetupProblem
from ocmt.setup import bubblewrap, first_start, interface, node, openclaw, postgres, program, uv
from ocmt.setup.folders import cache_folder, read_json
from ocmt.setup.node import Node


@dataclass
class Clone:
    """A clone with all that the set-up looks at, and a record of the steps that ran."""

    folder: Path
    tools: Path
    ran: list[str] = field(default_factory=list)

    def set_up(self, *groups: str) -> list[str]:
        self.ran.clear()
        program.set_up(self.folder, groups=frozenset(groups))
        return list(self.ran)


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clone:
    clone = Clone(tmp_path / "clone", tmp_path / "tools")
    for name in (
        "uv.lock",
        "pyproject.toml",
        "agent/package-lock.json",
        "ui/package-lock.json",
        "ui/src/main.tsx",
    ):
        write(clone.folder / name)
    write(clone.folder / "agent/package.json", '{"dependencies": {"openclaw": "2026.9.6"}}')
    made = {name: write(clone.tools / name) for name in ("uv", "node", "npm", "bwrap", "pg/postgres")}
    write(clone.tools / "openclaw/node_modules/openclaw/package.json")
    monkeypatch.setenv("OCMT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))

    def sync(_place: object, _uv: Path, groups: frozenset[str]) -> str:
        clone.ran.append(f"sync {','.join(sorted(groups))}".strip())
        write(clone.folder / ".venv/bin/python")
        return "done"

    def build(_place: object, _node: Node) -> str:
        clone.ran.append("ui")
        write(clone.folder / "ui/dist/index.html")
        return "built"

    found = Node(made["node"], made["npm"], "24.19.0")
    monkeypatch.setattr(uv, "get_uv", lambda place: (made["uv"], "there"))
    monkeypatch.setattr(uv, "sync", sync)
    monkeypatch.setattr(node, "get_node", lambda place, uv: (found, "there"))
    monkeypatch.setattr(
        openclaw, "get_openclaw", lambda place, node, bwrap: (clone.tools / "openclaw", "there")
    )
    monkeypatch.setattr(openclaw, "SPACE", 0)
    monkeypatch.setattr(interface, "build_interface", build)
    monkeypatch.setattr(bubblewrap, "get_bubblewrap", lambda place, uv: (made["bwrap"], "there"))
    monkeypatch.setattr(bubblewrap, "sandbox_works", lambda program: True)
    monkeypatch.setattr(postgres, "get_postgres", lambda place, uv: (clone.tools / "pg", "there"))
    monkeypatch.setattr(
        first_start, "first_start", lambda place, node, openclaw: (clone.tools / "primed", "done")
    )
    return clone


def test_the_second_set_up_has_nothing_to_do(clone: Clone, capsys: pytest.CaptureFixture[str]) -> None:
    assert clone.set_up() == ["sync", "ui"]
    capsys.readouterr()
    assert clone.set_up() == []
    assert capsys.readouterr().out == "Everything is set up.\n"


@pytest.mark.parametrize(
    "changed",
    ["uv.lock", "pyproject.toml", "agent/package-lock.json", "ui/src/main.tsx", "ui/package-lock.json"],
)
def test_a_changed_source_is_noticed(clone: Clone, changed: str) -> None:
    clone.set_up()
    (clone.folder / changed).write_text("changed")
    assert clone.set_up()


def test_what_the_build_makes_is_not_a_source(clone: Clone) -> None:
    clone.set_up()
    write(clone.folder / "ui/node_modules/x/index.js")
    write(clone.folder / "ui/dist/assets/a.js")
    assert clone.set_up() == []


@pytest.mark.parametrize(
    "gone", ["node", "bwrap", "pg/postgres", "openclaw/node_modules/openclaw/package.json"]
)
def test_a_tool_that_is_gone_or_another_is_noticed(clone: Clone, gone: str) -> None:
    clone.set_up()
    (clone.tools / gone).unlink()
    assert clone.set_up()
    (clone.tools / gone).write_text("an update of the machine's")
    assert clone.set_up()


def test_built_pages_and_environment_that_are_gone_are_made_again(clone: Clone) -> None:
    clone.set_up()
    (clone.folder / "ui/dist/index.html").unlink()
    assert clone.set_up()
    (clone.folder / ".venv/bin/python").unlink()
    assert clone.set_up()


def test_groups_add_up_so_that_run_does_not_undo_test(clone: Clone) -> None:
    assert clone.set_up() == ["sync", "ui"]
    assert clone.set_up("dev") == ["sync dev", "ui"]
    assert clone.set_up() == []
    assert clone.set_up("docs") == ["sync dev,docs", "ui"]


def test_an_interrupted_set_up_is_run_again(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    clone.set_up()
    (clone.folder / "uv.lock").write_text("changed")

    def stopped(_place: object, _node: Node) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(interface, "build_interface", stopped)
        with pytest.raises(KeyboardInterrupt):
            clone.set_up()
    assert clone.set_up() == ["sync", "ui"]


def test_a_failed_step_is_plain_lines_and_exit_1(
    clone: Clone, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_arguments: object, **_options: object) -> None:
        raise SetupProblem("Installing OpenClaw failed. The disk is full.")

    monkeypatch.setattr(program, "set_up", fails)
    assert program.main([]) == 1
    assert capsys.readouterr().err == "\nSet-up stopped: Installing OpenClaw failed. The disk is full.\n"


def test_ctrl_c_says_that_it_goes_on_from_there(
    clone: Clone, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "set_up", stopped)
    assert program.main([]) == 130
    assert "Run the same again" in capsys.readouterr().err


def test_where_no_sandbox_can_be_made_it_says_so_and_goes_on(
    clone: Clone, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def must_not_run(*_arguments: object) -> None:
        raise AssertionError("there is no sandbox to start it in")

    monkeypatch.setattr(bubblewrap, "sandbox_works", lambda program: False)
    monkeypatch.setattr(first_start, "first_start", must_not_run)
    clone.set_up()
    assert "does not allow sandboxes" in capsys.readouterr().out


def test_the_manifest_says_where_everything_is(clone: Clone) -> None:
    clone.set_up()
    assert read_json(cache_folder() / "tools.json") == {
        "node": str(clone.tools / "node"),
        "npm": str(clone.tools / "npm"),
        "openclaw": str(clone.tools / "openclaw"),
        "bwrap": str(clone.tools / "bwrap"),
        "compile_cache": str(clone.tools / "primed"),
        "postgres": str(clone.tools / "pg"),
    }


def test_too_full_a_disk_is_told_before_the_first_step(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openclaw, "SPACE", 10**15)
    with pytest.raises(SetupProblem, match="Make room"):
        clone.set_up()
    assert clone.ran == []


def test_an_installed_package_is_told_that_it_needs_a_clone(tmp_path: Path) -> None:
    with pytest.raises(SetupProblem, match="clone"):
        program.set_up(tmp_path)
