"""Writes the Management API's own description to docs/reference/openapi.json: `python scripts/openapi.py`.

The committed file is the contract: a test compares the program with it, so that no change goes unseen.
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from ocmt.identity.accounts import Accounts
from ocmt.services.management import Management

FILE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "openapi.json"


def described() -> dict[str, Any]:
    """The description. It needs no room to be open."""
    nobody: Any = None
    accounts = Accounts(**dict.fromkeys((field.name for field in fields(Accounts)), nobody))
    rooms = dict.fromkeys((field.name for field in fields(Management)), nobody)
    return Management(**rooms | {"accounts": accounts}).app().openapi()


def rendered() -> str:
    """As it is committed: without the program's version, which is no part of the contract."""
    description = described()
    description["info"]["version"] = "1"
    return json.dumps(description, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


if __name__ == "__main__":
    FILE.write_text(rendered())
    print(f"written: {FILE}")
