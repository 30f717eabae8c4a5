"""Snapshots of a workspace of 50 MB, and its restore beside `cp -a`: `python -m benchmarks.snapshots`.

A real database and a real folder of objects, both below `--folder`; no agent. Takes about a minute.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from uuid import UUID

import psutil
import structlog
from uuid_utils.compat import uuid7

from benchmarks.results import Result
from ocmt.agents.service import Agents
from ocmt.agents.snapshots.service import Snapshots
from ocmt.platform.clock import SystemClock
from ocmt.platform.database import Database
from ocmt.platform.embedded_postgres import EmbeddedPostgres
from ocmt.platform.leases import Lease, Leases
from ocmt.platform.migrations import migrate
from ocmt.platform.objects import LocalObjects
from ocmt.platform.postgres_binaries import find_binaries
from ocmt.platform.reachable import ReachablePaths
from ocmt.runtimes.agent_files import FilesOnDisk
from ocmt.runtimes.folders import FIRST_UID, AgentFolder
from ocmt.settings import load_settings

SIZES = [(1, 12_000_000), (8, 1_500_000), (100, 150_000), (400, 22_000), (700, 3_000)]
"""(how many, bytes): 50 MB in 1,209 files, from a database's to a note's."""
CHANGED_TARGET = 300.0
UNCHANGED_TARGET = 50.0
RESTORE_TARGET = 200.0
RESTORE_RATIO = 0.5
FORGETTING = 6.0
"""Seconds after files were deleted: for five, ext4 looks long for the numbers of new ones, to use none of
those again. Without that both sides take up to five times as long."""


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.snapshots", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--folder", type=Path, help="below which everything is made; default: the usual one")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    with tempfile.TemporaryDirectory(prefix="ocmt-bench-", dir=options.folder) as folder:
        Path(folder).chmod(0o711)
        for result in asyncio.run(measure(Path(folder), options.rounds)):
            print(result.line(), *(f"\n    {name}: {value}" for name, value in result.more.items()))


async def measure(folder: Path, rounds: int) -> list[Result]:
    """All of it, in the folder, which the database's user must be able to pass."""
    folder.mkdir(mode=0o711, exist_ok=True)
    agent = AgentFolder(folder / "agents" / "a", FIRST_UID + 1 if os.geteuid() == 0 else None)
    await asyncio.to_thread(_fill, agent)
    async with _snapshots(folder) as (snapshots, lease):
        files = FilesOnDisk(agent)
        first = await _timed(lambda: snapshots.save(lease, files))
        await snapshots.tidy(lease, files)
        changed = [await _changed(snapshots, lease, files, agent, number) for number in range(rounds)]
        await snapshots.tidy(lease, files)
        await snapshots.save(lease, files)
        spent = time.process_time()
        unchanged = [await _timed(lambda: snapshots.save(lease, files)) for _ in range(rounds)]
        processor = 1000 * (time.process_time() - spent) / rounds
        reread = [await _timed(lambda: snapshots.save(lease, files, reread=True)) for _ in range(rounds)]
        restored, copied = [], []
        for _ in range(rounds):
            await asyncio.to_thread(files.clear_away)
            await asyncio.sleep(FORGETTING)
            restored.append(await _timed(lambda: snapshots.restore(lease, files)))
            await asyncio.to_thread(shutil.rmtree, folder / "copy", ignore_errors=True)
            await asyncio.sleep(FORGETTING)
            copied.append(await asyncio.to_thread(_copied, agent.root, folder / "copy"))
    size = sum(count * bytes_ for count, bytes_ in SIZES) / 1e6
    saves, still, tidies = zip(*changed, strict=True)
    return [
        Result(
            "snapshot_1mb_changed",
            "ms",
            saves,
            target=f"≤ {CHANGED_TARGET:g} ms",
            met=median(saves) <= CHANGED_TARGET,
            more={
                "first": round(first, 1),
                "agent_held_still": round(median(still), 1),
                "tidy_afterwards": round(median(tidies), 1),
            },
        ),
        Result(
            "snapshot_unchanged",
            "ms",
            unchanged,
            target=f"≤ {UNCHANGED_TARGET:g} ms",
            met=median(unchanged) <= UNCHANGED_TARGET,
            more={
                "processor_milliseconds": round(processor, 1),
                "every_file_read_again": round(median(reread), 1),
            },
        ),
        Result(
            "restore_50mb",
            "MB/s",
            [1000 * size / taken for taken in restored],
            target=f"≥ {RESTORE_TARGET:g} MB/s, or ≥ {RESTORE_RATIO:g} of cp -a",
            met=median(restored) <= max(1000 * size / RESTORE_TARGET, median(copied) / RESTORE_RATIO),
            peer="cp -a of the same files (without making sure that they are on the disk)",
            peer_samples=[1000 * size / taken for taken in copied],
            more={"milliseconds": round(median(restored), 1), "peer_milliseconds": round(median(copied), 1)},
        ),
    ]


@asynccontextmanager
async def _snapshots(folder: Path) -> AsyncIterator[tuple[Snapshots, Lease]]:
    """The service on a database of its own, as `ocmt up` runs it."""
    settings = load_settings()
    binaries = find_binaries(settings.cache_dir)
    assert binaries is not None, "no PostgreSQL found: run `make setup`"
    paths = ReachablePaths()
    server = EmbeddedPostgres(folder / "pg", binaries=binaries, view=paths.view)
    dsn = await server.start()
    try:
        await migrate(dsn)
        database = await Database.open(dsn)
        clock = SystemClock()
        user_id: UUID = uuid7()
        async with database.connection() as connection:
            await connection.execute("insert into users (id, email) values ($1, 'a@example.org')", user_id)
        await Agents(database, clock, runtime="sandbox").find(user_id)
        lease = await Leases(database, table="agents", key="user_id", owner="bench").take(user_id)
        assert lease is not None
        yield Snapshots(database, LocalObjects(folder / "objects"), clock), lease
        await database.close()
    finally:
        await server.stop()


def _fill(agent: AgentFolder) -> None:
    agent.prepare("{}", compile_cache=None)
    source = random.Random(1)  # the same files each time
    number = 0
    for count, size in SIZES:
        for _ in range(count):
            path = agent.root / "workspace" / f"folder {number % 40}" / f"{number % 7}" / f"file {number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(source.randbytes(size))
            number += 1
    for path in (agent.root / "workspace").rglob("*"):
        os.chown(path, agent.uid or os.getuid(), agent.uid or os.getgid())
    time.sleep(0.2)  # or the first snapshot finds that they have changed just now


async def _changed(
    snapshots: Snapshots, lease: Lease, files: FilesOnDisk, agent: AgentFolder, number: int
) -> tuple[float, float, float]:
    """Change 1 MB in 40 files; milliseconds of the snapshot, until all is read, and of what may follow."""
    changed = 0
    names = sorted((agent.root / "workspace").rglob("file *"), key=lambda path: hash((path, number)))
    for path in names:
        size = path.stat().st_size
        if size < 150_001 and changed + size <= 1_000_000:
            path.write_bytes(os.urandom(size))
            changed += size
    await asyncio.sleep(0.2)
    began = time.monotonic()
    read: list[float] = []
    saved = await _timed(lambda: snapshots.save(lease, files, read=lambda: read.append(time.monotonic())))
    return saved, 1000 * (read[0] - began), await _timed(lambda: snapshots.tidy(lease, files))


async def _timed(call: Callable[[], Awaitable[object]]) -> float:
    began = time.monotonic()
    await call()
    return 1000 * (time.monotonic() - began)


def _copied(source: Path, target: Path) -> float:
    began = time.monotonic()
    subprocess.run(["cp", "-a", str(source), str(target)], check=True, timeout=60)
    return 1000 * (time.monotonic() - began)


if __name__ == "__main__":
    print(f"others use {psutil.cpu_percent(interval=1):.0f} % of this machine")
    main()
