"""The page docs/reference/asvs.md: every requirement of ASVS 4.0.3 up to level 2 is on it, and the tests that
it names exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference" / "asvs.md"
STATES = {"yes", "partly", "no", "not applicable"}

SECTIONS = {
    1: (7, 4, 0, 5, 4, 4, 2, 2, 2, 1, 2, 2, 0, 6),
    2: (12, 3, 3, 5, 7, 3, 6, 7, 3, 4),
    3: (1, 4, 4, 5, 3, 0, 1),
    4: (5, 2, 3),
    5: (5, 8, 10, 3, 4),
    6: (3, 6, 2, 2),
    7: (4, 2, 4, 3),
    8: (4, 3, 8),
    9: (3, 4),
    10: (0, 2, 3),
    11: (8,),
    12: (3, 1, 6, 2, 2, 1),
    13: (5, 6, 2, 2),
    14: (4, 6, 3, 7, 4),
}
"""How many requirements of levels 1 and 2 each section of a chapter has. Source: OWASP ASVS 4.0.3."""
LEFT_OUT = {"1.4.2", "1.4.3", "1.12.1", "4.1.4", "7.3.2", "13.1.2", "13.2.4", "14.3.1"}
"""Deleted from the standard."""


def rows() -> Iterator[list[str]]:
    for line in PAGE.read_text().splitlines():
        if re.match(r"\| \d", line):
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


def requirements(cell: str) -> Iterator[str]:
    """`2.1.1-2.1.3, 2.2.1` → 2.1.1, 2.1.2, 2.1.3, 2.2.1."""
    for part in cell.split(", "):
        first, _, last = part.partition("-")
        section, _, number = first.rpartition(".")
        until = last.rpartition(".")[2] or number
        assert not last or last.rpartition(".")[0] == section, part
        yield from (f"{section}.{each}" for each in range(int(number), int(until) + 1))


def test_every_requirement_up_to_level_2_is_answered_once() -> None:
    asked = {
        f"{chapter}.{section}.{number}"
        for chapter, sections in SECTIONS.items()
        for section, last in enumerate(sections, start=1)
        for number in range(1, last + 1)
    }
    answered = [each for cells in rows() for each in requirements(cells[0])]
    assert len(answered) == len(set(answered))
    assert set(answered) == asked - LEFT_OUT


def test_each_has_one_of_four_answers_and_says_why() -> None:
    for cells in rows():
        assert len(cells) == 4, cells
        assert cells[2] in STATES, cells
        assert cells[3], cells


def test_the_tests_that_are_named_exist() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE.read_text())
    assert len(named) > 100
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not re.search(rf"def {name}\(", (ROOT / path).read_text() if (ROOT / path).is_file() else "")
    ]
    assert missing == []
