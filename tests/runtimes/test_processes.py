"""Holding a tree of processes still where there is no control group to do it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ocmt.platform.clock import SystemClock
from ocmt.runtimes.processes import continue_tree, descendants, stop_tree

pytestmark = pytest.mark.anyio

# The child waits for a writer before it becomes another program, and its parent, in the kernel, for that.
WAITING = """
import os, sys
wait = (os.POSIX_SPAWN_OPEN, 0, sys.argv[1], os.O_RDONLY, 0)
os.posix_spawn("/bin/true", ["true"], {}, file_actions=[wait])
"""


@pytest.fixture
async def parent(tmp_path: Path) -> AsyncIterator[int]:
    os.mkfifo(tmp_path / "fifo")
    run = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"
    process = subprocess.Popen([sys.executable, "-c", run, WAITING, str(tmp_path / "fifo")])
    yield process.pid
    for pid in [*descendants(process.pid), process.pid]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


async def test_a_program_that_is_just_starting_another_is_held_too(parent: int) -> None:
    async with asyncio.timeout(20):
        while len(descendants(parent)) < 2:
            await asyncio.sleep(0.01)
    async with asyncio.timeout(5):
        await stop_tree(parent, SystemClock())  # it never returned
    continue_tree(parent)
