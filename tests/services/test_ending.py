"""`ocmt up` ends within seconds, whatever its threads do."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from pathlib import Path

import pytest

from ocmt.testing.installation import surroundings

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

PROGRAM = """
import asyncio, time
import ocmt.bootstrap.all_in_one as program
from ocmt.platform import work
from tests.hostile import server

serve, tasks = program.serve, []

def burn():
    while True:
        pass

async def begin():
    pools = (work.FILES, work.SECRETS, work.OBJECTS, work.OTHER, work.STARTS, work.DISK)
    for pool in pools:
        tasks.extend(asyncio.create_task(pool.run(time.sleep, 600, of=number)) for number in range(4))
    tasks.append(asyncio.create_task(work.to_the_end(work.FILES, time.sleep, 600)))
    tasks.extend(asyncio.create_task(asyncio.to_thread(time.sleep, 600)) for _ in range(6))
    tasks.append(asyncio.create_task(work.PARSING.run(burn)))
    tasks.append(asyncio.create_task(work.Workers("busy", 1).run(burn)))
    await asyncio.sleep(0.5)
    print("busy", flush=True)

async def serve_with_busy_threads(*given, ready, **named):
    async def then_busy():
        await ready()
        await begin()

    await serve(*given, ready=then_busy, **named)

program.serve = serve_with_busy_threads
server.main()
"""


async def test_a_process_whose_threads_are_all_busy_ends_on_sigterm(dsn: str, tmp_path: Path) -> None:
    given = {
        "DATABASE_URL": dsn,
        "OCMT_DATA_DIR": str(tmp_path / "data"),
        "OCMT_PORT": "0",
        "OCMT_RUNTIME": "process",
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM),
        env=surroundings(**given),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    output: list[str] = []
    try:
        async with asyncio.timeout(60):
            while not (line := (await process.stdout.readline()).decode()).startswith("busy"):
                output.append(line)
                assert line, output
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            await process.stdout.read()
            assert await process.wait() == 0
        assert time.monotonic() - began < 20, "12 s and no end in sight before"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
