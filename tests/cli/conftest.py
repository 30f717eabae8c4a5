"""What the tests of the command line share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest


@pytest.fixture
async def empty_dsn(anyio_backend: str, postgres: str) -> AsyncIterator[str]:
    """A database without any schema."""
    name = f"empty_{uuid4().hex}"
    admin = await asyncpg.connect(postgres)
    await admin.execute(f"create database {name} template template0")
    yield postgres.replace("@/ocmt?", f"@/{name}?")
    await admin.execute(f"drop database {name} with (force)")
    await admin.close()
