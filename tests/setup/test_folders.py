"""Pieces of the set-up appear whole or not at all, and two set-ups never meet."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ocmt.errors import SetupProblem
from ocmt.setup.folders import (
    cache_folder,
    digest,
    discard_leftovers,
    make_cache,
    new_folder,
    only_one,
    read_json,
    require_space,
    write_whole,
)


def test_a_folder_appears_when_its_making_ended_well(tmp_path: Path) -> None:
    with new_folder(tmp_path / "node" / "24") as partial:
        (partial / "bin").touch()
        assert not (tmp_path / "node" / "24").exists()
    assert (tmp_path / "node" / "24" / "bin").exists()


def test_a_failed_making_leaves_nothing(tmp_path: Path) -> None:
    def make() -> None:
        with new_folder(tmp_path / "24") as partial:
            (partial / "half").touch()
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        make()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_set_up_left_is_removed_and_the_rest_kept(tmp_path: Path) -> None:
    (tmp_path / "openclaw" / ".partial-2026.9.6-1").mkdir(parents=True)
    (tmp_path / "openclaw" / "2026.9.6").mkdir()
    (tmp_path / ".partial-tools.json-1").touch()
    discard_leftovers(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["openclaw", "2026.9.6"]


def test_a_second_set_up_waits_for_the_first_and_says_so(tmp_path: Path) -> None:
    waiting = threading.Event()
    order: list[str] = []

    def second() -> None:
        with only_one(tmp_path, waiting.set):
            order.append("second")

    with only_one(tmp_path, lambda: None):
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(10)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_a_tool_that_outlives_a_killed_set_up_keeps_the_lock(tmp_path: Path) -> None:
    code = (
        "import os, subprocess, sys; from pathlib import Path; from ocmt.setup.folders import only_one\n"
        "with only_one(Path(sys.argv[1]), lambda: None) as lock:\n"
        "    tool = subprocess.Popen(['sleep', '60'], pass_fds=[lock], stdout=-3, stderr=-3)\n"
        "    print(tool.pid, flush=True); os.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, timeout=30
    )
    tool = int(killed.stdout)
    told = threading.Event()

    def end_the_tool() -> None:
        told.set()
        os.kill(tool, 9)

    with only_one(tmp_path, end_the_tool):
        assert told.is_set()


def test_too_little_space_is_told_before_anything_is_fetched(tmp_path: Path) -> None:
    with pytest.raises(SetupProblem, match=r"needs 1000000\.0 GB .* OCMT_CACHE_DIR"):
        require_space(tmp_path / "not" / "there", 10**15, "Set-up")


def test_a_cache_below_a_file_is_one_plain_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SetupProblem, match="cannot be written"):
        make_cache(tmp_path / "file" / "ocmt")


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"HOME": "/home/new"}, "/home/new/.cache/ocmt"),
        ({"HOME": "/home/new", "XDG_CACHE_HOME": "/big"}, "/big/ocmt"),
        ({"HOME": "/home/new", "XDG_CACHE_HOME": "relative"}, "/home/new/.cache/ocmt"),
        ({"HOME": "/home/new", "OCMT_CACHE_DIR": "/elsewhere"}, "/elsewhere"),
    ],
)
def test_where_the_cache_is(
    environment: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HOME", "XDG_CACHE_HOME", "OCMT_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(folder)


def test_without_home_the_users_entry_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("OCMT_CACHE_DIR", raising=False)
    assert cache_folder().is_absolute()
    assert cache_folder().parts[:2] != ("/", ".cache")


def test_files_are_written_whole_and_damaged_ones_count_as_missing(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.json", '{"a": 1}')
    assert read_json(tmp_path / "a.json") == {"a": 1}
    (tmp_path / "a.json").write_text('{"a"')
    assert read_json(tmp_path / "a.json") == {}
    assert read_json(tmp_path / "b.json") == {}


def test_a_digest_sees_names_and_contents(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("x")
    two.write_text("x")
    assert digest(tmp_path, [one]) != digest(tmp_path, [two])
    before = digest(tmp_path, [one, two])
    assert digest(tmp_path, [two, one]) == before
    two.write_text("y")
    assert digest(tmp_path, [one, two]) != before
