"""Archives that mean harm end the child that looks at them, at most, and never the platform."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import os
import struct
import sys
import tempfile
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import psutil
import pytest

from ocmt.agents.snapshots.checking import Checker
from ocmt.agents.snapshots.keeping import Limits
from ocmt.errors import InvalidInput, LimitReached, OcmtError, TooLarge
from ocmt.platform.confined import Overrun, run_confined
from tests.agents.snapshots.snapshotting import Bench
from tests.agents.snapshots.test_transfers import FILE, WORKSPACE, a_zip, pieces

pytestmark = pytest.mark.anyio
MIB = 1024 * 1024


def bomb(method: int, size: int) -> bytes:
    """A manifest that unpacks to that many zeros."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method) as archive, archive.open("manifest.json", "w") as member:
        for _ in range(size // MIB):
            member.write(bytes(MIB))
    return data.getvalue()


@contextmanager
def as_file(data: bytes) -> Iterator[IO[bytes]]:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        yield file


HARMFUL: dict[str, Callable[[], bytes]] = {
    "bzip2": lambda: bomb(zipfile.ZIP_BZIP2, 256 * MIB),
    "lzma": lambda: bomb(zipfile.ZIP_LZMA, 256 * MIB),
    "deflate": lambda: bomb(zipfile.ZIP_DEFLATED, 256 * MIB),
    "a manifest of lists": lambda: a_zip(changes={"padding": [[]] * 4_000_000}),
    "what was left out, for ever": lambda: a_zip(changes={"left_out": [["", ""]] * 1_000_000}),
    "370,000 entries": lambda: with_entries(370_000),
}

ALLOWED = {"a manifest of lists"}
"""What is large in it is of no meaning, and only the child has seen it."""


def with_entries(number: int) -> bytes:
    """A zip whose directory has that many entries and 17 MB."""
    data = a_zip(FILE)
    start, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    entries = data[start:end] * number
    sizes = struct.pack("<2Q", len(entries), start)
    large = struct.pack("<4sQ2H2L2Q", b"PK\6\6", 44, 45, 45, 0, 0, number, number) + sizes
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, start + len(entries), 1)
    return data[:start] + entries + large + locator + b"PK\5\6" + bytes(4) + b"\xff" * 12 + bytes(2)


@pytest.mark.parametrize("name", HARMFUL)
async def test_no_archive_takes_the_platforms_memory(bench: Bench, name: str) -> None:
    data = HARMFUL[name]()
    if name == "bzip2":
        assert len(data) < 1000
    await bench.transfers.receive(bench.user_id, pieces(a_zip(FILE, members={"workspace/a": b"x"})))
    here = psutil.Process()
    largest = 0
    ended = asyncio.Event()

    async def watch() -> None:
        nonlocal largest
        while not ended.is_set():
            largest = max(largest, here.memory_info().rss)
            await asyncio.sleep(0.005)

    before = here.memory_info().rss
    watching = asyncio.create_task(watch())
    try:
        with contextlib.nullcontext() if name in ALLOWED else pytest.raises((InvalidInput, TooLarge)):
            await bench.transfers.receive(bench.user_id, large_pieces(data))
    finally:
        ended.set()
        await watching
    assert largest - before < 3 * len(data) + 32 * MIB


async def large_pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), MIB):
        yield data[start : start + MIB]


async def test_the_same_checks_hold_when_it_is_put_in_place(bench: Bench) -> None:
    """As if it had been checked by an older program, which let it pass."""
    bench.write("workspace/a", "mine")
    await bench.transfers.receive(bench.user_id, pieces(a_zip(FILE, members={"workspace/a": b"x"})))
    data = bomb(zipfile.ZIP_BZIP2, 256 * MIB)
    key = bench.key(".imports/archive.zip")
    bench.objects.stored[key] = data
    async with bench.database.connection() as connection:
        await connection.execute("update agents set import_asked = $1", hashlib.sha256(data).hexdigest())
    before = psutil.Process().memory_info().rss
    with pytest.raises(InvalidInput, match="no archive"):
        await bench.transfers.carry_out(bench.lease, bench.files, Limits())
    assert psutil.Process().memory_info().rss - before < 100 * MIB
    assert not await bench.transfers.import_asked(bench.user_id), "and it is not tried again"
    assert bench.content()["workspace/a"] == b"mine"


async def test_the_reasons_come_back_as_they_are() -> None:
    checker = Checker()
    good = a_zip(FILE, members={"workspace/a": b"x"})
    with as_file(good) as file:
        assert await checker.count(file, Limits()) == 1
    cases: list[tuple[bytes, Limits, type[OcmtError], str]] = [
        (a_zip(FILE), Limits(), InvalidInput, "workspace/a"),
        (good, Limits(files=1), LimitReached, "more than the 1 files"),
        (a_zip(changes={"padding": "x" * 2 * MIB}), Limits(files=10), TooLarge, "too large"),
        (b"no zip at all, but long enough", Limits(), InvalidInput, "no archive"),
    ]
    for data, limits, kind, words in cases:
        with as_file(data) as file, pytest.raises(kind, match=words):
            await checker.count(file, limits)


async def test_a_child_that_takes_too_much_is_ended_and_said() -> None:
    for memory, seconds, most in ((32 * MIB, 30, MIB), (512 * MIB, 30, 3)):
        with as_file(a_zip(WORKSPACE)) as file, pytest.raises(Overrun):
            await run_confined(
                "ocmt.agents.snapshots.examining",
                ["10", "10", "10", "contents"],
                file,
                memory=memory,
                seconds=seconds,
                most_output=most,
            )


async def test_a_child_ends_with_whoever_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "endless.py").write_text("while True: pass")
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\nexec {sys.executable} {tmp_path / 'endless.py'}\n")
    script.chmod(0o755)
    monkeypatch.setattr("ocmt.platform.confined.sys.executable", str(script))

    def children() -> list[psutil.Process]:
        return [child for child in psutil.Process().children() if "endless" in " ".join(child.cmdline())]

    with as_file(b"") as file:
        task = asyncio.create_task(run_confined("x", [], file, memory=MIB, seconds=60, most_output=MIB))
        async with asyncio.timeout(20):
            while not children():
                await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not children()


async def test_the_childs_limits_are_those_that_were_asked_for() -> None:
    program = "import resource, sys; from ocmt.platform.confined import limit_self; limit_self(300 << 20, 7);"
    program += "print([resource.getrlimit(k)[1] for k in (resource.RLIMIT_AS, resource.RLIMIT_CPU)])"
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE, env=dict(os.environ)
    )
    output, _ = await child.communicate()
    assert output.decode().strip() == f"[{300 << 20}, 7]"
