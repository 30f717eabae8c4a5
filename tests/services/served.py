"""`ocmt serve management` as a child process on a free port, over the database of a test."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from ocmt.testing.installation import surroundings

READY_SECONDS = 30


@asynccontextmanager
async def served(dsn: str, folder: Path, **environment: str) -> AsyncIterator[str]:
    """Its address, once it is ready; at the end of the block it must end in order."""
    given = {"DATABASE_URL": dsn, "OCMT_DATA_DIR": str(folder), "PORT": "0", "OCMT_HOST": "127.0.0.1"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ocmt", "serve", "management"),
        env=surroundings(**given, **environment),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(READY_SECONDS):
            line = (await process.stdout.readline()).decode()
        assert line.startswith("ready http://localhost:"), line
        yield line.removeprefix("ready ").strip()
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
