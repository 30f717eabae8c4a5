"""An agent's output on its way into a log file that cannot outgrow its bounds.

The pipe comes straight from the gateway, so its content and its speed are the agent's: what comes too fast
waits in the pipe (and the agent with it); what is too old is dropped, and what a full disk does not take.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

CHUNK = 64 * 1024
BYTES_PER_SECOND = 2 * 1024 * 1024
FILE_BYTES = 4 * 1024 * 1024
TAIL_BYTES = 8 * 1024


class Output:
    """Reads one pipe until its end; call `close` to end it earlier. Belongs to the running event loop."""

    def __init__(self, pipe: int, folder: Path, on_end: Callable[[], None]) -> None:
        """Takes the pipe's read end; `folder` is the platform's own."""
        os.set_blocking(pipe, False)
        self._pipe = pipe
        self._path = folder / "gateway.log"
        self._file = self._path.open("ab", buffering=0)
        self._size = self._file.tell()
        self._tail = b""
        self._dropping = False
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._resume: asyncio.TimerHandle | None = None
        self._loop.add_reader(pipe, self._readable)

    @property
    def tail(self) -> str:
        """The last few kilobytes of this run."""
        return self._tail.decode("utf-8", "replace")

    def _readable(self) -> None:
        try:
            data = os.read(self._pipe, CHUNK)
        except BlockingIOError:
            return
        if not data:
            self.close()
            self._on_end()
            return
        self._write(data)
        if len(data) > CHUNK // 8:
            self._loop.remove_reader(self._pipe)
            self._resume = self._loop.call_later(len(data) / BYTES_PER_SECOND, self._go_on)

    def _go_on(self) -> None:
        self._resume = None
        self._loop.add_reader(self._pipe, self._readable)

    def _write(self, data: bytes) -> None:
        self._tail = (self._tail + data)[-TAIL_BYTES:]
        try:
            if self._size + len(data) > FILE_BYTES:
                self._begin_anew()
            self._file.write(data)
        except OSError as error:
            if not self._dropping:
                log.warning("agent_output_dropped", path=str(self._path), error=error.strerror)
            self._dropping = True
        else:
            self._dropping = False
            self._size += len(data)

    def _begin_anew(self) -> None:
        """The old file is closed only when there is a new one. Raises OSError; may then be tried again."""
        with contextlib.suppress(FileNotFoundError):
            self._path.replace(self._path.with_suffix(".log.1"))
        fresh = self._path.open("ab", buffering=0)
        self._file.close()
        self._file, self._size = fresh, 0

    def drain(self) -> None:
        """Take what is in the pipe now, at most a pipe's worth, so that the last words are not missed."""
        if self._file.closed:
            return
        try:
            data = os.read(self._pipe, CHUNK)
        except BlockingIOError:
            return
        self._write(data)

    def close(self) -> None:
        """Stop reading and close both ends of it; closing twice does nothing."""
        if self._file.closed:
            return
        if self._resume is not None:
            self._resume.cancel()
        else:
            self._loop.remove_reader(self._pipe)
        os.close(self._pipe)
        self._file.close()


def log_files(folder: Path) -> tuple[Path, Path]:
    """The log's files, oldest first."""
    return folder / "gateway.log.1", folder / "gateway.log"
