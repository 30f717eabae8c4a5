"""The page docs/reference/asvs.md: every requirement of ASVS 4.0.3 up to level 2 is on it, and the tests that
it names exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference" / "asvs.md"
STATES = {"yes", "partly", "no", "not applicable"}

SECTIONS = dict(
    part.split(":")
    for part in ["1.1:7", "1.2:4", "1.4:5", "1.5:4", "1.6:4", "1.7:2", "1.8:2", "1.9:2", "1.10:1", "1.11:2", "1.12:2", "1.14:6", "2.1:12", "2.2:3", "2.3:3", "2.4:5", "2.5:7", "2.6:3", "2.7:6", "2.8:7", "2.9:3", "2.10:4", "3.1:1", "3.2:4", "3.3:4", "3.4:5", "3.5:3", "3.7:1", "4.1:5", "4.2:2", "4.3:3", "5.1:5", "5.2:8", "5.3:10", "5.4:3", "5.5:4", "6.1:3", "6.2:6", "6.3:2", "6.4:2", "7.1:4", "7.2:2", "7.3:4", "7.4:3", "8.1:4", "8.2:3", "8.3:8", "9.1:3", "9.2:4", "10.2:2", "10.3:3", "11.1:8", "12.1:3", "12.2:1", "12.3:6", "12.4:2", "12.5:2", "12.6:1", "13.1:5", "13.2:6", "13.3:2", "13.4:2", "14.1:4", "14.2:6", "14.3:3", "14.4:7", "14.5:4"]
)
"""How many requirements of levels 1 and 2 a section has. Source: OWASP ASVS 4.0.3."""
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
        f"{section}.{n}" for section, last in SECTIONS.items() for n in range(1, int(last) + 1)
    } - LEFT_OUT
    answered = [each for cells in rows() for each in requirements(cells[0])]
    assert len(answered) == len(set(answered))
    assert set(answered) == asked


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
