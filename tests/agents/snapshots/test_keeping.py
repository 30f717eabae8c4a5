"""What of an agent's files is kept: its own patterns, what never is, and how much."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocmt.agents.snapshots.keeping import Keeping, Limits, gather, never_kept
from ocmt.agents.snapshots.patterns import parse_ignore
from ocmt.errors import LimitReached
from ocmt.runtimes.base import FoundFile, LeftOut


def keeps(patterns: str, path: str, *, folder: bool = False) -> bool:
    return Keeping(parse_ignore(patterns.encode()))(f"workspace/{path}", folder)


@pytest.mark.parametrize(
    ("patterns", "path", "kept"),
    [
        ("", "a", True),
        ("# a", "a", True),
        ("a", "a", False),
        ("a", "b/a", False),
        ("a", "ab", True),
        ("/a", "a", False),
        ("/a", "b/a", True),
        ("b/a", "b/a", False),
        ("b/a", "c/b/a", True),
        ("*.log", "x/y.log", False),
        ("*.log", "x/y.logs", True),
        ("*.log\n!keep.log", "keep.log", True),
        ("!keep.log\n*.log", "keep.log", False),
        ("?", "x", False),
        ("?", "xx", True),
        ("[a-c]1", "b1", False),
        ("[a-c]1", "d1", True),
        ("[!a-c]1", "d1", False),
        ("[!a-c]1", "b1", True),
        ("[]x]", "]", False),
        ("[x", "[x", False),
        ("\\#x", "#x", False),
        ("a\\*", "a*", False),
        ("a\\*", "ab", True),
        ("**/d", "d", False),
        ("**/d", "a/b/d", False),
        ("a/**", "a/b/c", False),
        ("a/**", "a", True),
        ("a/**/z", "a/z", False),
        ("a/**/z", "a/b/c/z", False),
        ("a/*/z", "a/b/c/z", True),
        ("a*b*c", "a-b-b-c", False),
        ("a*b*c", "a-b-b", True),
        ("x   ", "x", False),
        ("ü*", "über", False),
    ],
)
def test_patterns_are_those_of_git(patterns: str, path: str, kept: bool) -> None:
    assert keeps(patterns, path) is kept


def test_a_slash_at_the_end_means_folders_only() -> None:
    assert keeps("build/", "build")
    assert not keeps("build/", "build", folder=True)
    assert not keeps("build/", "a/build", folder=True)


def test_the_agents_patterns_reach_no_further_than_its_workspace() -> None:
    keep = Keeping(parse_ignore(b"*"))
    assert keep("state/openclaw.sqlite", False)
    assert keep("workspace", True)
    assert not keep("workspace/a", False)


@given(st.binary(max_size=300), st.text(max_size=20))
def test_no_pattern_breaks_anything(patterns: bytes, name: str) -> None:
    Keeping(parse_ignore(patterns))(f"workspace/{name}", False)


def test_a_pattern_that_would_hold_up_regular_expressions_takes_no_time() -> None:
    patterns = "\n".join(["*a" * 100 + "b"] * 20)
    began = time.process_time()
    assert keeps(patterns, "a" * 250)
    assert keeps("**/" * 80 + "b", "a/" * 60 + "a")
    assert time.process_time() - began < 2


def test_only_so_many_patterns_count() -> None:
    assert len(parse_ignore(b"a\n" * 1000)) == 200
    assert parse_ignore(b"x" * 1000) == []


@pytest.mark.parametrize(
    ("path", "never"),
    [
        ("state/tmp", True),
        ("state/cache", True),
        ("state/openclaw.sqlite", False),
        ("state/openclaw.sqlite-wal", False),
        ("state/openclaw.sqlite-shm", True),
        ("state/agents/x-shm", True),
        ("workspace/data.db-shm", True),
        ("workspace/notes-shm", False),
        ("workspace/tmp", False),
        ("workspace/a/node-compile-cache", True),
        ("home/.cache", True),
        ("home/.gitconfig", False),
        ("home/workspace", True),
        ("config", False),
        ("config/openclaw.json", False),
        ("config/.openclaw.json.1234", True),
    ],
)
def test_caches_and_shared_memory_are_never_kept(path: str, never: bool) -> None:
    assert never_kept(path) is never


def a_file(name: str, size: int) -> FoundFile:
    return FoundFile(f"workspace/{name}", "file", 0o600, size, 0, 0, 0)


LIMITS = Limits(files=3, total_bytes=10 * 1024**2, file_bytes=5 * 1024**2)


def test_within_the_limits_everything_is_gathered() -> None:
    things: list[FoundFile | LeftOut] = [a_file("a", 1), LeftOut("workspace/s", "a socket"), a_file("b", 2)]
    assert gather(things, LIMITS) == ([things[0], things[2]], [things[1]])


@pytest.mark.parametrize(
    ("things", "says"),
    [
        ([a_file("big\n", 6 * 1024**2)], r"workspace/big\\n has 6 MB; your plan allows 5 MB for a file"),
        ([a_file("sparse", 2**43)], "8388608 MB"),
        ([a_file(str(number), 0) for number in range(4)], "more than the 3 files"),
        ([a_file(str(number), 4 * 1024**2) for number in range(3)], "more than the 10 MB"),
    ],
)
def test_beyond_a_limit_it_is_said_which(things: list[FoundFile], says: str) -> None:
    with pytest.raises(LimitReached, match=says) as error:
        gather(things, LIMITS)
    assert ".ocmtignore" in error.value.message


def test_a_scan_is_left_off_at_the_first_thing_too_many() -> None:
    seen = []

    def endless() -> object:
        for number in range(10**9):
            seen.append(number)
            yield a_file(str(number), 0)

    with pytest.raises(LimitReached):
        gather(endless(), LIMITS)  # type: ignore[arg-type]
    assert len(seen) == 4


def test_only_so_much_of_what_was_left_out_is_named() -> None:
    assert len(gather((LeftOut(str(number), "a socket") for number in range(10**5)), LIMITS)[1]) == 100
