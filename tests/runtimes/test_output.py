"""An agent's log, when its disk takes nothing any more."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from ocmt.runtimes import output
from ocmt.runtimes.output import Output, log_files

pytestmark = pytest.mark.anyio


async def test_a_log_that_cannot_be_begun_anew_goes_on_when_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "FILE_BYTES", 10)
    folder = tmp_path / "logs"
    folder.mkdir()
    reading, writing = os.pipe()
    writer = Output(reading, folder, on_end=lambda: None)

    async def say(words: bytes) -> None:
        os.write(writing, words)
        async with asyncio.timeout(5):
            while not writer.tail.endswith(words.decode()):
                await asyncio.sleep(0)

    await say(b"one 67890")
    log_files(folder)[1].unlink()
    folder.rmdir()  # as good as a full disk: no file can be made
    await say(b"two")
    await say(b"three")
    folder.mkdir()
    await say(b"four")
    assert log_files(folder)[1].read_bytes() == b"four"
    writer.close()
    os.close(writing)
