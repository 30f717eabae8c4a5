"""The server that is attacked: one for each file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest

from tests.conftest import _on_database
from tests.hostile.stage import Stage, open_stage


@pytest.fixture(scope="module")
async def stage(
    anyio_backend: str, postgres: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    name = f"test_{uuid4().hex}"
    admin = await asyncpg.connect(postgres)
    await admin.execute(f"create database {name} template template")
    try:
        async with open_stage(_on_database(postgres, name), tmp_path_factory.mktemp("hostile")) as opened:
            yield opened
    finally:
        await admin.execute(f"drop database if exists {name} with (force)")
        await admin.close()
