"""Where each setting's value comes from, for `ocmt doctor --settings`. Never shows a secret."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from typing import Any

from pydantic import AliasChoices, BaseModel, SecretStr
from pydantic.fields import FieldInfo

from ocmt.settings import Settings

MASK = "********"


def setting_rows(settings: Settings, environment: Mapping[str, str] = os.environ) -> list[dict[str, Any]]:
    """One row a setting: `setting`, `value` (secrets masked) and `source`."""
    toml = settings.data_dir.expanduser() / "ocmt.toml"
    in_file = _flat(tomllib.loads(toml.read_text())) if toml.is_file() else set()
    given = {name.upper(): name for name in environment}
    rows: list[dict[str, Any]] = []
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        rows += (
            _rows_of_table(name, value, given, in_file)
            if isinstance(value, dict)
            else [_row(name, value, _names(name, field), given, in_file)]
        )
    return rows


def _rows_of_table(
    table: str, entries: Mapping[str, BaseModel], given: Mapping[str, str], in_file: set[str]
) -> list[dict[str, Any]]:
    """One for each value that is set in a table of settings; one for all where it is empty."""
    if not entries:
        return [{"setting": table, "value": None, "source": "default"}]
    # A whole table may come as JSON in one variable, too; what is written out is stronger.
    whole = f"OCMT_{table.upper()}"
    rows = []
    for entry, values in entries.items():
        for name in sorted(values.model_fields_set):
            path = f"{table}.{entry}.{name}"
            names = [f"{whole}__{entry}__{name}".upper(), f"{whole}__{entry}".upper(), whole, path]
            rows.append(_row(path, getattr(values, name), names, given, in_file))
    return rows


def _row(
    name: str, value: object, names: list[str], given: Mapping[str, str], in_file: set[str]
) -> dict[str, Any]:
    return {"setting": name, "value": _shown(value), "source": _source(names, given, in_file)}


def _flat(table: Mapping[str, Any], prefix: str = "") -> set[str]:
    """The names in a file, those of tables with dots."""
    names: set[str] = set()
    for name, value in table.items():
        names.add(prefix + name)
        if isinstance(value, dict):
            names |= _flat(value, f"{prefix}{name}.")
    return names


def _names(name: str, field: FieldInfo) -> list[str]:
    if isinstance(field.validation_alias, AliasChoices):
        return [str(choice) for choice in field.validation_alias.choices]
    return [f"OCMT_{name.upper()}", name]


def _source(names: list[str], given: Mapping[str, str], in_file: set[str]) -> str:
    for name in names:
        if name.isupper() and name in given:
            return f"environment {given[name]}"
    return "ocmt.toml" if in_file.intersection(names) else "default"


def _shown(value: object) -> str | None:
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return None if value is None else str(value)


def unknown_variables(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the variables named `OCMT_…` that no setting reads, such as mistyped ones, in order."""
    known = {
        name.upper()
        for key, field in Settings.model_fields.items()
        for name in (*_names(key, field), f"OCMT_{key}")
    }
    tables = tuple(f"{name}__" for name in known)
    return sorted(
        name
        for name in environment
        if name.upper().startswith("OCMT_")
        and name.upper() not in known
        and not name.upper().startswith(tables)
    )
