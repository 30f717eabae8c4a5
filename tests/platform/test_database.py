"""The pool, its transactions, named SQL and hints, on a real server."""

from __future__ import annotations

import pytest

from ocmt.platform.database import Database

pytestmark = pytest.mark.anyio


async def test_json_columns_are_python_objects(database: Database) -> None:
    async with database.transaction() as connection:
        value = {"text": "ü", "list": [1, None, True]}
        assert await connection.fetchval("select $1::jsonb", value) == value
