"""A database that fails says what is wrong: to its operator by the place, to everybody else without it."""

from __future__ import annotations

import asyncio
import errno
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

import asyncpg
import pytest

from ocmt.cli.app import run
from ocmt.errors import OcmtError
from ocmt.platform import database_faults
from ocmt.platform.database import Database, connect
from ocmt.platform.database_faults import Fault, Place, fault_of
from ocmt.testing.installation import surroundings

pytestmark = pytest.mark.anyio


def with_parts(
    dsn: str, *, user: str | None = None, password: str = "wrong", database: str | None = None
) -> str:
    parts = urlsplit(dsn)
    login = f"{user}:{password}" if user else parts.netloc.removesuffix("@")
    return f"postgresql://{login}@/{database or parts.path.lstrip('/')}?{parts.query}"


@asynccontextmanager
async def listening(answer: bytes | None) -> AsyncIterator[int]:
    """A server that is not PostgreSQL: it answers with that, or (None) never."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        if answer is None:
            await reader.read()
        else:
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def failure(database: Database) -> str:
    """What a user of the database reads."""
    with pytest.raises(OcmtError) as raised:
        async with database.connection() as connection:
            await connection.fetchval("select 1")
    return raised.value.message


CASES: dict[str, tuple[Callable[[str], str], str]] = {
    "a wrong password": (lambda dsn: with_parts(dsn, user="ocmt"), "refuses the user ocmt.*password"),
    "an unknown role": (lambda dsn: with_parts(dsn, user="nobody_here"), "refuses the user nobody_here"),
    "an unknown database": (lambda dsn: with_parts(dsn, database="nowhere"), "no database nowhere.*createdb"),
    "a closed port": (lambda _: "postgresql://u:hush@127.0.0.1:1/d", "Nothing answers at 127.0.0.1:1"),
    "a host of two addresses": (
        lambda _: "postgresql://u:hush@localhost:1/d",
        "Nothing answers at localhost:1",
    ),
    "an unknown host": (lambda _: "postgresql://u:hush@nowhere.invalid/d", "nowhere.invalid, is not known"),
    "a socket that is not there": (
        lambda _: "postgresql://u:hush@/d?host=/nowhere",
        "Nothing answers at the local",
    ),
    "a malformed address": (lambda _: "postgresql://u:hush@h:port/d", "DATABASE_URL is malformed"),
    "another scheme": (lambda _: "mysql://u:hush@h/d", "DATABASE_URL is malformed"),
    "an unknown option": (lambda dsn: f"{dsn}&sslmode=perhaps", "DATABASE_URL is malformed"),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("way", [connect, Database.open])
async def test_the_operator_reads_what_is_wrong_and_where(
    postgres: str, case: str, way: Callable[[str], Awaitable[object]]
) -> None:
    make, words = CASES[case]
    with pytest.raises(OcmtError, match=words) as raised:
        await way(make(postgres))
    assert "hush" not in raised.value.message + (raised.value.detail or "")
    assert "wrong" not in raised.value.message


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"\x00" * 64])
async def test_a_server_that_is_not_postgresql_is_told_so(answer: bytes) -> None:
    async with listening(answer) as port:
        with pytest.raises(OcmtError, match=f"127.0.0.1:{port}"):
            await connect(f"postgresql://u:p@127.0.0.1:{port}/d")


async def test_a_server_without_tls_is_told_so(postgres: str) -> None:
    async with listening(b"N") as port:
        with pytest.raises(OcmtError, match="No TLS connection"):
            await connect(f"postgresql://u:p@127.0.0.1:{port}/d?sslmode=require")


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (asyncpg.DiskFullError("x"), database_faults.FULL),
        (OSError(errno.ENOSPC, "x"), database_faults.FULL),
        (asyncpg.TooManyConnectionsError("x"), database_faults.TOO_MANY),
        (asyncpg.CannotConnectNowError("x"), database_faults.STARTING),
        (asyncpg.ReadOnlySQLTransactionError("x"), database_faults.READ_ONLY),
        (OSError(errno.EHOSTUNREACH, "x"), database_faults.NO_ROUTE),
        (TimeoutError(), database_faults.SILENT),
        (asyncpg.DeadlockDetectedError("x"), database_faults.OTHER),
    ],
)
def test_each_error_has_its_words(error: BaseException, fault: Fault) -> None:
    assert fault_of(error) is fault


def test_nobody_but_the_operator_reads_of_hosts_and_roles() -> None:
    place = Place("db.internal:5432", "the_role", "the_database")
    for fault in vars(database_faults).values():
        if isinstance(fault, Fault):
            assert "{" not in fault.everybody
            assert "{" not in fault.for_operator(place)


async def test_a_password_that_changes_while_the_pool_is_open_is_no_internal_error(postgres: str) -> None:
    name = "changing"
    admin = await asyncpg.connect(postgres)
    try:
        await admin.execute(f"create role {name} login password 'first'")
        database = await Database.open(with_parts(postgres, user=name, password="first", database="postgres"))
        try:
            await admin.execute(f"alter role {name} password 'second'")
            await admin.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where usename = $1", name
            )
            words = [await failure(database) for _ in range(3)]
            assert "refuses its sign-in" in words[-1]
            assert name not in "".join(words)
        finally:
            await database.close()
    finally:
        await admin.execute(f"drop role {name}")
        await admin.close()


@pytest.mark.parametrize(
    "command",
    [
        ["users", "list"],
        ["agents", "list"],
        ["db", "status"],
        ["db", "migrate"],
        ["backup", "create", "x", "--passphrase-file", "/dev/null"],
        ["keys", "rotate"],
    ],
)
@pytest.mark.parametrize("case", ["a wrong password", "an unknown database", "a closed port"])
def test_every_command_says_it_in_one_line(
    postgres: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    case: str,
    command: list[str],
) -> None:
    make, _ = CASES[case]
    # The logging of a whole process is not for one test to configure.
    monkeypatch.setattr("ocmt.platform.telemetry.configure_logging", lambda *_: None)
    monkeypatch.setenv("DATABASE_URL", make(postgres))
    monkeypatch.setenv("OCMT_DATA_DIR", str(tmp_path / quote("data")))
    assert run(command) == 1
    said = capfd.readouterr().err
    assert said.startswith("ocmt: ")
    assert said.count("\n") == 1, said
    assert "Traceback" not in said


@pytest.mark.parametrize("command", [["serve", "management"], ["up"]])
@pytest.mark.parametrize("case", ["a wrong password", "a malformed address"])
def test_a_service_that_cannot_start_says_it_in_one_line(
    postgres: str, tmp_path: Path, case: str, command: list[str]
) -> None:
    make, _ = CASES[case]
    given = surroundings(DATABASE_URL=make(postgres), OCMT_DATA_DIR=str(tmp_path), PORT="0", OCMT_PORT="0")
    program = [sys.executable, "-m", "ocmt", *command]
    ended = subprocess.run(program, env=given, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith("ocmt: ")
    assert ended.stderr.count("\n") == 1, ended.stderr
