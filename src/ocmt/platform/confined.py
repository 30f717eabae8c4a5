"""Runs a piece of work on foreign data in a child process with little memory, so that only the child can end.

The work is a module of this program with a `main`. The child reads the data from its standard input, which is
a file, and writes a small result to its standard output.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import sys
from collections.abc import Sequence
from typing import IO

from ocmt.errors import Unavailable

_START_SECONDS = 20.0
"""What the start of a child may take on a busy machine, beside its work."""
_READ = 256 * 1024


class Overrun(Exception):
    """The child used up its memory, its time, or the room for its result."""


async def run_confined(
    module: str, words: Sequence[str], file: IO[bytes], *, memory: int, seconds: int, most_output: int
) -> bytes:
    """Run `python -m module memory seconds *words` with that file as its input; returns its output.

    The child limits itself with `limit_self` before it reads anything. It is killed when the caller is
    cancelled, or after three times its seconds.
    Raises: Overrun where it did not come to an end of its own, Unavailable where no child can be started.
    """
    file.seek(0)
    try:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-m",
            module,
            str(memory),
            str(seconds),
            *words,
            stdin=file,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={"PATH": os.defpath, "LANG": "C.UTF-8"},
            cwd="/",
        )
    except OSError as error:
        raise Unavailable(
            "This cannot be checked just now. Try again in a minute.", detail=repr(error), retry_after=30.0
        ) from error
    try:
        async with asyncio.timeout(_START_SECONDS + 3 * seconds):
            output = await _output(child, most_output)
            code = await child.wait()
    except TimeoutError as error:
        raise Overrun("it took too long") from error
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
    if code != 0:
        raise Overrun(f"it ended with {code}")
    return output


async def _output(child: asyncio.subprocess.Process, most: int) -> bytes:
    assert child.stdout is not None
    read = bytearray()
    while piece := await child.stdout.read(_READ):
        read += piece
        if len(read) > most:
            raise Overrun("its result is too large")
    return bytes(read)


def limit_self(memory: int, seconds: int) -> None:
    """Limit this process, which is such a child, for good."""
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # of files; a pipe is none
    os.nice(10)
