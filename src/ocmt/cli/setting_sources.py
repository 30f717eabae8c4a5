"""Where each setting's value comes from, for `ocmt doctor --settings`. Never shows a secret."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from typing import Any

from pydantic import AliasChoices, SecretStr
from pydantic.fields import FieldInfo

from ocmt.settings import Settings

MASK = "********"


def setting_rows(settings: Settings, environment: Mapping[str, str] = os.environ) -> list[dict[str, Any]]:
    """One row a setting: `setting`, `value` (secrets masked) and `source`."""
    toml = settings.data_dir.expanduser() / "ocmt.toml"
    in_file = set(tomllib.loads(toml.read_text())) if toml.is_file() else set()
    given = {name.upper(): name for name in environment}
    return [
        {
            "setting": name,
            "value": _shown(getattr(settings, name)),
            "source": _source(_names(name, field), given, in_file),
        }
        for name, field in type(settings).model_fields.items()
    ]


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
    return None if value is None else str(value)
