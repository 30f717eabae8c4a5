"""Holds docs/reference/asvs.md to what it names: tests and files that exist, and every requirement of OWASP
ASVS 4.0.3 that levels 1 and 2 ask for, once."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference" / "asvs.md"
THREATS = ROOT / "docs" / "security.md"
STATES = ("yes", "partly: ", "no: ", "n/a: ")

# Chapter: how many requirements each of its sections has, 0 where there is no such section.
SECTIONS = {
    1: (7, 4, 0, 5, 4, 4, 2, 2, 2, 1, 3, 2, 0, 6),
    2: (12, 7, 3, 6, 7, 3, 6, 7, 3, 4),
    3: (1, 4, 4, 5, 3, 2, 1),
    4: (5, 2, 3),
    5: (5, 8, 10, 3, 4),
    6: (3, 8, 3, 2),
    7: (4, 2, 4, 3),
    8: (6, 3, 8),
    9: (3, 5),
    10: (1, 6, 3),
    11: (8,),
    12: (3, 1, 6, 2, 2, 1),
    13: (5, 6, 2, 2),
    14: (5, 6, 3, 7, 4),
}
LEVEL_3_ONLY = [
    "1.11.3",
    "2.2.4",
    "2.2.5",
    "2.2.6",
    "2.2.7",
    "3.6.1",
    "3.6.2",
    "6.2.7",
    "6.2.8",
    "6.3.3",
    "8.1.5",
    "8.1.6",
    "9.2.5",
    "10.1.1",
    "10.2.3",
    "10.2.4",
    "10.2.5",
    "10.2.6",
    "14.1.5",
]
REMOVED = ["1.4.2", "1.4.3", "1.12.1", "4.1.4", "7.3.2", "13.1.2", "13.2.4", "14.3.1"]
ROWS_OF_THEIR_OWN = ("2.", "3.", "4.", "6.", "7.", "8.", "13.")
"""Chapters in which no two requirements share a row."""


def requirements() -> set[str]:
    every = {
        f"{chapter}.{section}.{number}"
        for chapter, counts in SECTIONS.items()
        for section, count in enumerate(counts, 1)
        for number in range(1, count + 1)
    }
    assert every.issuperset([*LEVEL_3_ONLY, *REMOVED])
    return every.difference(LEVEL_3_ONLY, REMOVED)


def rows() -> Iterator[list[str]]:
    """Cells: ids, what is asked for, state, what shows it."""
    for line in PAGE.read_text().splitlines():
        if re.match(r"\| \d", line):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def ids_in(cell: str) -> list[str]:
    """Of `1.2.3`, or of a range from one to another, without what no level below 3 asks for."""
    first, _, last = cell.partition("\N{EN DASH}")
    section, _, low = first.rpartition(".")
    same, _, high = (last or first).rpartition(".")
    assert same == section, f"{cell} is no range within one section"
    every = [f"{section}.{number}" for number in range(int(low), int(high) + 1)]
    return [each for each in every if each not in LEVEL_3_ONLY and each not in REMOVED]


def names_in(path: Path) -> set[str]:
    """Its functions, alone and with the class that they are in."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        inside = node.body if isinstance(node, ast.ClassDef) else [node]
        for each in inside:
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
                names.add(each.name)
                if isinstance(node, ast.ClassDef):
                    names.add(f"{node.name}::{each.name}")
    return names


def test_every_requirement_of_levels_1_and_2_has_its_place_once() -> None:
    named = [each for row in rows() for each in ids_in(row[0])]
    assert sorted(requirements() - set(named)) == [], "left out"
    assert sorted(set(named) - requirements()) == [], "there is no such requirement"
    assert sorted(each for each in set(named) if named.count(each) > 1) == [], "named twice"


def test_where_each_requirement_is_to_be_answered_for_itself_none_shares_a_row() -> None:
    shared = [row[0] for row in rows() if row[0].startswith(ROWS_OF_THEIR_OWN) and len(ids_in(row[0])) > 1]
    assert shared == []


def test_every_row_says_how_it_stands_and_what_shows_it() -> None:
    for row in rows():
        assert len(row) == 4, row
        assert row[2].startswith(STATES), row
        assert row[3], row


def test_every_test_that_is_named_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::([\w:]+)`", PAGE.read_text())
    assert len(named) > 100
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not (ROOT / path).is_file() or name not in names_in(ROOT / path)
    ]
    assert missing == []


def test_every_file_that_is_named_exists() -> None:
    for page in (PAGE, THREATS):
        named = re.findall(r"`([\w./-]+/[\w./-]+|\w+\.(?:md|toml|lock))`", page.read_text())
        missing = [
            each
            for each in named
            if not each.startswith("/")
            and not any((base / each).exists() for base in (ROOT, ROOT / "src" / "ocmt"))
        ]
        assert missing == [], page.name
