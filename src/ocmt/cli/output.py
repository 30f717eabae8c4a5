"""How commands print data: a table for people, or with `--json` one JSON document for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

from cyclopts import Parameter

AsJson = Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON.")]
"""The `--json` of every command that prints data."""

DataDir = Annotated[Path | None, Parameter(name="--data", help="The data folder.")]
"""The `--data` of every command that works on an installation."""


def print_json(data: object) -> None:
    """One document on standard output."""
    print(json.dumps(data, indent=2, default=_jsonable))


def print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, empty: str) -> None:
    """Aligned columns under their names; the line `empty` where there is nothing."""
    if not rows:
        print(empty)
        return
    cells = [[_cell(row[column]) for column in columns] for row in rows]
    table = [[column.upper().replace("_", " ") for column in columns], *cells]
    widths = [max(len(line[index]) for line in table) for index in range(len(columns))]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M")
    return str(value)


def _jsonable(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, UUID | Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
