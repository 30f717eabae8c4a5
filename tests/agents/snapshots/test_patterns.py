"""The automaton of `.ocmtignore` says what a plain matcher says, and costs no more than a name is long."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ocmt.agents.snapshots.keeping import Keeping
from ocmt.agents.snapshots.patterns import Pattern, parse_ignore
from ocmt.errors import LimitReached
from ocmt.platform.work import Effort

SIGNS = st.text(alphabet="ab*?[]!^-\\/\xe4\udc80", max_size=9)
NAMES = st.text(alphabet="ab*[]-\\\xe4\udc80", min_size=1, max_size=5)


@settings(max_examples=400)
@example(["**/*a*", "!a/**/b/"], ["a", "b", "ab"], True)
@example(["**/**/a/**/**"], ["a", "a"], False)
@example(["?"], ["aa"], False)
@given(st.lists(SIGNS, max_size=6), st.lists(NAMES, min_size=1, max_size=4), st.booleans())
def test_it_says_what_a_plain_matcher_says(lines: list[str], names: list[str], is_folder: bool) -> None:
    patterns = parse_ignore("\n".join(lines).encode("utf-8", "surrogateescape"))
    keep = Keeping(patterns)
    for deep in range(1, len(names) + 1):  # as a scan goes: each folder before what is in it
        path = "/".join(names[:deep])
        expected = kept_by_plain_matcher(patterns, path, is_folder)
        assert keep(f"workspace/{path}", is_folder) is expected, (patterns, path)
    assert keep("workspace/other", is_folder) is kept_by_plain_matcher(patterns, "other", is_folder)


HOSTILE = {
    "stars": "\n".join(["*a" * 80 + "b"] * 200),
    "deep stars": "\n".join(["**/" * 20 + "*a" * 60 + "b"] * 200),
    "classes": "\n".join([f"[!{chr(0x4E00 + number)}-\u9fff]" * 14 for number in range(200)]),
    "questions": "\n".join(["*" + "?" * 160] * 200),
    "as in the report": "\n".join(["**/" + "*a" * 50 + "*b" for _ in range(200)]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_patterns_cost_milliseconds_for_a_path_and_are_counted(name: str) -> None:
    text = HOSTILE[name].encode()
    patterns = parse_ignore(text)
    assert len(patterns) > 90, "of the 32 KB that are read"
    path = "workspace/" + "/".join(["a" * 250] * 15)
    began = time.process_time()
    Keeping(patterns)(path, False)
    assert time.process_time() - began < 1.5, "5.4 s and more with a matcher that goes back"
    keep = Keeping(patterns, Effort(steps=2_000_000, message="Use fewer or shorter patterns."))
    with pytest.raises(LimitReached, match="fewer or shorter patterns"):
        [keep(f"{path}/{number:0250}", False) for number in range(50_000)]


def test_what_is_in_a_folder_costs_its_own_name_only() -> None:
    class Counting(Effort):
        spent = 0

        def spend(self, steps: int = 1) -> None:
            self.spent += steps

    effort = Counting(message="")
    keep = Keeping(parse_ignore(b"*.log\nbuild/\n"), effort)
    folder = "workspace/" + "/".join(["deep" * 20] * 40)
    keep(folder, True)
    before = effort.spent
    for number in range(100):
        keep(f"{folder}/{number:04}", False)
    assert effort.spent - before < 100 * 10 + 200


def test_usual_patterns_are_far_from_the_limit() -> None:
    usual = b"node_modules/\n.venv/\n*.pyc\n__pycache__/\ndist\n/build\n*.log\n!keep.log\n.cache/**\n"
    keep = Keeping(parse_ignore(usual))
    for number in range(50_000):
        assert keep(f"workspace/src/package/{number:06}/module.py", False)


def kept_by_plain_matcher(patterns: Sequence[Pattern], path: str, is_folder: bool) -> bool:
    """What `Keeping` said before it had an automaton; of the path alone, whatever became of its folders."""
    for pattern in reversed(patterns):
        if (is_folder or not pattern.folders_only) and _matches(pattern.segments, path.split("/")):
            return pattern.keeps
    return True


def _matches(pattern: Sequence[str], path: Sequence[str]) -> bool:
    """Whether the pattern's segments match all of the path's; `**` stands for any number of them."""
    # Which prefixes of the path the pattern's segments so far can match.
    reached = {0}
    for number, segment in enumerate(pattern):
        if segment == "**":
            # At the end it stands for what is inside, not for the folder itself.
            first = min(reached) + (number == len(pattern) - 1 and number > 0)
            reached = set(range(first, len(path) + 1))
        else:
            reached = {at + 1 for at in reached if at < len(path) and _matches_name(segment, path[at])}
        if not reached:
            return False
    return len(path) in reached


def _matches_name(pattern: str, name: str) -> bool:
    """One segment. Goes back to the last star only, so it takes at most len(pattern) * len(name) steps."""
    at = here = 0
    star = mark = -1
    while here < len(name):
        step = _one(pattern, at, name[here]) if at < len(pattern) and pattern[at] != "*" else 0
        if step:
            at += step
            here += 1
        elif at < len(pattern) and pattern[at] == "*":
            star, mark = at, here
            at += 1
        elif star >= 0:
            mark += 1
            at, here = star + 1, mark
        else:
            return False
    return all(sign == "*" for sign in pattern[at:])


def _one(pattern: str, at: int, character: str) -> int:
    """How many signs of the pattern match this one character; 0: none do."""
    sign = pattern[at]
    if sign == "?":
        return 1
    if sign == "\\" and at + 1 < len(pattern):
        return 2 if pattern[at + 1] == character else 0
    if sign == "[":
        end = pattern.find("]", at + 2)
        if end > 0:
            inside = pattern[at + 1 : end]
            negated = inside[0] in "!^" and len(inside) > 1
            return end + 1 - at if _in_class(inside[negated:], character) is not negated else 0
    return 1 if sign == character else 0


def _in_class(signs: str, character: str) -> bool:
    at = 0
    while at < len(signs):
        if signs[at + 1 : at + 2] == "-" and at + 2 < len(signs):
            if signs[at] <= character <= signs[at + 2]:
                return True
            at += 3
        else:
            if signs[at] == character:
                return True
            at += 1
    return False
