"""The private server: closed to others, gone with its parent, back after any end, plain about faults."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import stat
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import asyncpg
import psutil
import pytest

from ocmt.errors import SetupProblem
from ocmt.platform.embedded_postgres import EmbeddedPostgres
from ocmt.platform.postgres_binaries import all_binaries, major_version
from ocmt.platform.server_user import choose_server_user

pytestmark = pytest.mark.anyio

SETTINGS = {"fsync": "off"}

Start = Callable[..., Awaitable[tuple[EmbeddedPostgres, str]]]


@pytest.fixture
def folder(open_folder: Path) -> Path:
    return open_folder / "pg"


@pytest.fixture
async def start(folder: Path, postgres_binaries: Path) -> AsyncIterator[Start]:
    """Start a server in `folder` (or another); all are stopped at the end."""
    servers: list[EmbeddedPostgres] = []

    async def start(
        where: Path = folder, *, binaries: Path = postgres_binaries, **settings: str
    ) -> tuple[EmbeddedPostgres, str]:
        server = EmbeddedPostgres(where, binaries=binaries, settings={**SETTINGS, **settings})
        servers.append(server)
        return server, await server.start()

    yield start
    for server in servers:
        await server.stop()


async def ask(dsn: str, query: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def gone(pid: int) -> None:
    await asyncio.to_thread(psutil.wait_procs, [psutil.Process(pid)] if psutil.pid_exists(pid) else [], 10)
    assert not psutil.pid_exists(pid)


async def test_nobody_else_gets_in(start: Start, folder: Path) -> None:
    server, dsn = await start()
    password = re.findall(r":([^:@]+)@", dsn)[0]

    assert mode(folder / "password") == 0o600
    assert mode(folder / "socket") == mode(folder / "data") == 0o700
    assert await ask(dsn, "show listen_addresses") == ""
    assert await ask(dsn, "show data_checksums") == "on"
    for database in ("ocmt", "postgres"):
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(dsn.replace(password, "wrong").replace("@/ocmt", f"@/{database}"))
    rules = (folder / "data" / "pg_hba.conf").read_text()
    assert {line.split()[-1] for line in rules.splitlines() if line.strip() and line[0] != "#"} == {
        "scram-sha-256"
    }
    assert server.pid is not None
    assert password not in " ".join(psutil.Process(server.pid).cmdline())


async def test_the_server_never_runs_as_root(start: Start) -> None:
    server, _ = await start()
    assert server.pid is not None
    assert psutil.Process(server.pid).uids().real != 0
    assert psutil.Process(server.pid).uids().effective != 0


@pytest.mark.parametrize("binaries", all_binaries(), ids=lambda path: f"{major_version(path)}")
async def test_every_postgresql_on_this_machine_keeps_data_over_a_restart(
    start: Start, folder: Path, binaries: Path
) -> None:
    server, dsn = await start(binaries=binaries)
    await ask(dsn, "create table kept as select lower('ÄÖ') as word")
    pid = server.pid
    await server.stop()
    assert server.pid is None
    assert pid is not None
    assert not psutil.pid_exists(pid)

    _, same_dsn = await start(binaries=binaries)
    assert same_dsn == dsn
    assert await ask(dsn, "select word from kept") == "äö"


async def test_a_second_ocmt_is_refused_in_one_line(start: Start) -> None:
    await start()
    with pytest.raises(SetupProblem) as refusal:
        await start()
    assert refusal.value.message == f"another ocmt uses this data folder (pid {os.getpid()})"


async def test_what_was_committed_survives_a_killed_server(start: Start) -> None:
    server, dsn = await start()
    await ask(dsn, "create table kept as select 1 as one")
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    await server.stop()

    _, dsn = await start()
    assert await ask(dsn, "select one from kept") == 1


async def test_a_server_that_is_killed_under_us_comes_back_under_the_same_address(start: Start) -> None:
    server, dsn = await start()
    await ask(dsn, "create table kept as select 1 as one")
    killed = server.pid
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    async with asyncio.timeout(15):
        while True:
            with contextlib.suppress(OSError, asyncpg.PostgresError):
                assert await ask(dsn, "select one from kept") == 1
                break
            await asyncio.sleep(0.05)
    assert server.pid not in (None, killed)


async def test_a_stale_pid_file_does_not_hinder_even_when_another_process_has_that_number(
    start: Start, folder: Path
) -> None:
    server, _ = await start()
    await server.stop()
    user = choose_server_user(folder / "data")
    other = subprocess.Popen([*user.launcher(die_with_parent="KILL"), "sleep", "60"])
    try:
        (folder / "data" / "postmaster.pid").write_text(f"{other.pid}\n{folder}/data\n1\n5432\n\n\n\n")
        _, dsn = await start()
        assert await ask(dsn, "select 1") == 1
        assert other.poll() is None, "a stranger's process was ended"
    finally:
        other.kill()
        other.wait()


PARENT = """
import asyncio, sys
from pathlib import Path
from ocmt.platform.embedded_postgres import EmbeddedPostgres
from ocmt.platform.telemetry import configure_logging

configure_logging(level="error")

async def main():
    server = EmbeddedPostgres(Path(sys.argv[1]), binaries=Path(sys.argv[2]), settings={"fsync": "off"})
    await server.start()
    print(server.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_the_server_ends_with_a_parent_that_is_killed(
    start: Start, folder: Path, postgres_binaries: Path, run_script: Callable[..., subprocess.Popen[str]]
) -> None:
    parent = run_script(PARENT, folder, postgres_binaries)
    assert parent.stdout is not None
    pid = int(await asyncio.to_thread(parent.stdout.readline))
    parent.kill()
    await asyncio.to_thread(parent.wait)
    # At once, while the old server may still be on its way out.
    _, dsn = await start()
    assert await ask(dsn, "select 1") == 1
    await gone(pid)


async def test_an_interrupted_first_start_is_repeated_from_the_beginning(start: Start, folder: Path) -> None:
    first = asyncio.ensure_future(start())
    while not (folder / "data.new").exists():
        await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert not (folder / "data").exists()

    _, dsn = await start()
    assert await ask(dsn, "select 1") == 1


async def test_a_long_path_gets_a_short_private_socket_folder(start: Start, open_folder: Path) -> None:
    deep = open_folder / ("d" * 60) / ("e" * 60)
    server, dsn = await start(deep / "pg")
    assert await ask(dsn, "select 1") == 1
    sockets = Path(str(await ask(dsn, "show unix_socket_directories")).strip('"'))
    assert mode(sockets) == 0o700
    await server.stop()
    assert not sockets.exists()


async def test_data_of_another_major_version_is_said_plainly(start: Start, folder: Path) -> None:
    (folder / "data").mkdir(parents=True)
    user = choose_server_user(Path("/nonexistent"))
    os.chown(folder / "data", user.uid, user.gid)
    (folder / "data" / "PG_VERSION").write_text("9\n")
    (folder / "password").write_text("x")
    with pytest.raises(
        SetupProblem, match=r"made by PostgreSQL 9, and this machine has \d+: install PostgreSQL 9"
    ):
        await start()


@pytest.mark.skipif(len({major_version(path) for path in all_binaries()}) < 2, reason="one PostgreSQL only")
async def test_data_finds_the_binaries_that_made_it(start: Start) -> None:
    newest, oldest = all_binaries()[-1], all_binaries()[0]
    server, _ = await start(binaries=newest)
    await server.stop()
    _, dsn = await start(binaries=oldest)
    assert str(await ask(dsn, "show server_version")).startswith(str(major_version(newest)))


async def test_a_server_that_does_not_start_is_quoted(start: Start) -> None:
    with pytest.raises(SetupProblem) as problem:
        await start(shared_buffers="plenty")
    assert 'invalid value for parameter "shared_buffers": "plenty"' in problem.value.message
    assert "\n" not in problem.value.message


async def test_a_folder_that_cannot_be_made_is_said_plainly(start: Start, open_folder: Path) -> None:
    (open_folder / "file").touch()
    with pytest.raises(SetupProblem, match="cannot be used: Not a directory"):
        await start(open_folder / "file" / "pg")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_a_folder_that_is_not_writable_is_said_plainly(start: Start, open_folder: Path) -> None:
    open_folder.chmod(0o500)
    with pytest.raises(SetupProblem, match="is not writable for this user"):
        await start(open_folder / "pg")


ON_A_SMALL_DISK = """
import asyncio, subprocess, sys
from pathlib import Path
from ocmt.errors import SetupProblem
from ocmt.platform.embedded_postgres import EmbeddedPostgres

disk = Path(sys.argv[1])
disk.mkdir()
subprocess.run(["mount", "-t", "tmpfs", "-o", sys.argv[3], "tmpfs", disk], check=True)

async def main():
    await EmbeddedPostgres(disk / "pg", binaries=Path(sys.argv[2])).start()

try:
    asyncio.run(main())
except SetupProblem as problem:
    print(problem.message)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
@pytest.mark.parametrize(
    ("options", "complaint"), [("size=12m", "is full. Make room"), ("ro", "is not writable for this user")]
)
async def test_a_disk_that_is_full_or_read_only_is_said_plainly(
    open_folder: Path,
    postgres_binaries: Path,
    run_script: Callable[..., subprocess.Popen[str]],
    options: str,
    complaint: str,
) -> None:
    process = run_script(
        ON_A_SMALL_DISK, open_folder / "disk", postgres_binaries, options, prefix=("unshare", "--mount")
    )
    output, _ = await asyncio.to_thread(process.communicate, None, 30)
    assert complaint in output
    assert output.count("\n") == 1
