"""Removal of what an agent left, however deep, wide or shut it is, in little memory."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

from ocmt.errors import LimitReached
from ocmt.platform.work import Effort
from ocmt.runtimes.removal import remove_tree
from ocmt.runtimes.walking import DEPTH, TooDeep, walk


def nested(top: Path, depth: int) -> None:
    """Folders in folders, deeper than any path is long."""
    top.mkdir()
    number = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("deeper", dir_fd=number)
        os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=number))
        deeper = os.open("deeper", os.O_RDONLY, dir_fd=number)
        os.close(number)
        number = deeper
    os.close(number)


def test_what_is_nested_ten_thousand_deep_goes(tmp_path: Path) -> None:
    nested(tmp_path / "top", 10_000)
    remove_tree(tmp_path / "top")
    assert list(tmp_path.iterdir()) == []


def test_many_names_take_little_memory(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    (top / "one").touch()
    for number in range(30_000):
        os.link(top / "one", top / f"a-rather-long-name-of-a-hard-link-{number}")
    tracemalloc.start()
    remove_tree(top)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert not top.exists()
    assert most < 500_000


def test_links_are_removed_and_never_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").touch()
    (tmp_path / "top" / "inner").mkdir(parents=True)
    (tmp_path / "top" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "top" / "inner" / "link").symlink_to(tmp_path / "elsewhere")
    remove_tree(tmp_path / "top")
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]
    assert (tmp_path / "elsewhere" / "kept").exists()


def test_a_shut_folder_goes(tmp_path: Path) -> None:
    (tmp_path / "top" / "shut" / "inner").mkdir(parents=True)
    (tmp_path / "top" / "shut").chmod(0)
    remove_tree(tmp_path / "top")
    assert list(tmp_path.iterdir()) == []


def test_an_effort_ends_it_and_it_can_be_begun_anew(tmp_path: Path) -> None:
    nested(tmp_path / "top", 100)
    with pytest.raises(LimitReached, match="enough"):
        remove_tree(tmp_path / "top", Effort(steps=50, message="enough"))
    remove_tree(tmp_path / "top")
    assert list(tmp_path.iterdir()) == []


def test_a_walk_sees_every_name_and_ends_where_it_is_too_deep(tmp_path: Path) -> None:
    nested(tmp_path / "top", DEPTH - 2)
    assert len(list(walk(tmp_path / "top", Effort(message="never")))) == 2 * (DEPTH - 2)
    nested(tmp_path / "deep", DEPTH + 2)
    with pytest.raises(TooDeep):
        list(walk(tmp_path / "deep", Effort(message="never")))


def test_a_walk_holds_one_name_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "one").touch()
    for number in range(30_000):
        os.link(tmp_path / "one", tmp_path / f"a-rather-long-name-of-a-hard-link-{number}")
    tracemalloc.start()
    assert sum(1 for _ in walk(tmp_path, Effort(message="never"))) == 30_001
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 500_000
