"""`ocmt serve management` as a process of its own: over a shared database, with nothing that runs agents."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from ocmt.platform.database import Database
from ocmt.testing.installation import surroundings
from tests.services.served import READY_SECONDS, served

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

ROOMS = ("agents", "broker", "chat", "openclaw")
HEAVY = ("aiohttp", "alembic", "joserfc", *(f"ocmt.{room}" for room in ROOMS))
"""What a start does without: each of them costs it some tenths of a second."""


def serve(**environment: str) -> subprocess.CompletedProcess[str]:
    """One that is expected to end by itself, soon."""
    return subprocess.run(
        [sys.executable, "-m", "ocmt", "serve", "management"],
        env=surroundings(**environment),
        capture_output=True,
        text=True,
        timeout=READY_SECONDS,
        check=False,
    )


@pytest.fixture
async def url(database: Database, dsn: str, tmp_path: Path) -> AsyncIterator[str]:
    async with served(dsn, tmp_path) as url:
        yield url


async def test_it_answers_for_accounts_and_for_nothing_else(url: str) -> None:
    async with aiohttp.ClientSession() as session:

        async def ask(path: str) -> tuple[int, str]:
            async with session.get(url + path) as answer:
                return answer.status, answer.content_type

        assert await ask("/readyz") == (200, "application/json")
        assert await ask("/api/v1/me") == (401, "application/problem+json")
        assert await ask("/api/v1/openapi.json") == (200, "application/json")
        assert (await ask("/.well-known/jwks.json"))[0] == 200
        for path in ("/", "/agent", "/broker/anthropic/v1/messages"):
            assert await ask(path) == (404, "application/problem+json"), path


async def test_wrong_surroundings_are_said_in_one_line(dsn: str, tmp_path: Path) -> None:
    given: list[tuple[dict[str, str], str]] = [
        ({}, "Set DATABASE_URL"),
        ({"DATABASE_URL": dsn, "PORT": "eighty"}, "PORT is 'eighty'"),
        (
            {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/x", "PORT": "0"},
            "Nothing answers at 127.0.0.1:1",
        ),
    ]
    for environment, words in given:
        ended = await asyncio.to_thread(serve, OCMT_DATA_DIR=str(tmp_path), **environment)
        assert ended.returncode == 1
        (line,) = ended.stderr.splitlines()
        assert words in line


async def test_an_old_schema_is_named_with_what_to_do(database: Database, dsn: str, tmp_path: Path) -> None:
    async with database.connection() as connection:
        await connection.execute("update alembic_version set version_num = '0001'")
    ended = await asyncio.to_thread(serve, DATABASE_URL=dsn, OCMT_DATA_DIR=str(tmp_path), PORT="0")
    assert (ended.returncode, "run `ocmt db migrate`" in ended.stderr) == (1, True)


async def test_a_data_folder_of_another_installation_is_refused_by_name_and_left_alone(
    database: Database, dsn: str, tmp_path: Path
) -> None:
    home, other = tmp_path / "home", tmp_path / "other"
    async with served(dsn, home):
        ended = await asyncio.to_thread(serve, DATABASE_URL=dsn, OCMT_DATA_DIR=str(other), PORT="0")
        assert ended.returncode == 1
        (line,) = ended.stderr.splitlines()
        assert f"The secret store {other}/secrets does not belong to the database in DATABASE_URL" in line
        assert "--data" in line
        assert not list((other / "objects").iterdir())
        # The one that it belongs to runs on; a second process beside it, with the same folder, may start.
        async with (
            served(dsn, home) as second,
            aiohttp.ClientSession() as session,
            session.get(f"{second}/readyz") as answer,
        ):
            assert answer.status == 200


async def test_a_schema_that_needs_a_newer_program_is_refused(
    database: Database, dsn: str, tmp_path: Path
) -> None:
    async with database.connection() as connection:
        await connection.execute("update alembic_version set version_num = '9998'")
        async with served(dsn, tmp_path):
            pass  # a schema that is only larger: replicas of two versions run side by side
        await connection.execute("update installation set needs_revision = '9997'")
    ended = await asyncio.to_thread(serve, DATABASE_URL=dsn, OCMT_DATA_DIR=str(tmp_path), PORT="0")
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert "needs a newer version of OCMT" in line


def test_its_start_imports_nothing_that_it_does_not_need() -> None:
    script = "import sys, json, ocmt.cli.serve, ocmt.bootstrap.management; print(json.dumps([*sys.modules]))"
    printed = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert [name for name in json.loads(printed) if name.startswith(HEAVY)] == []
