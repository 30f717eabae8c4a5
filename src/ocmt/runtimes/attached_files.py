"""An agent's files where they may be on a disk of their own, which has to be mounted before anybody looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ocmt.platform.work import Effort
from ocmt.runtimes.base import AgentFiles, FoundFile, FreshFiles, Keep, LeftOut

Attach = Callable[[bool], None]
"""Mounts the agent's disk if it has one. True: make one if it has none."""


class AttachedFiles:
    """AgentFiles that mounts first, in the thread of whoever calls."""

    def __init__(self, files: AgentFiles, attach: Attach, make_room: Callable[[], None]) -> None:
        """Args: `make_room` lets the platform use more of the disk than the agent may, for a restore."""
        self._files = files
        self._attach = attach
        self._make_room = make_room

    def scan(self, keep: Keep, effort: Effort) -> Iterator[FoundFile | LeftOut]:
        """See AgentFiles."""
        self._attach(False)
        yield from self._files.scan(keep, effort)

    def read(self, found: FoundFile) -> Iterator[bytes]:
        """See AgentFiles."""
        self._attach(False)
        yield from self._files.read(found)

    def peek(self, path: str, most: int) -> bytes | None:
        """See AgentFiles."""
        self._attach(False)
        return self._files.peek(path, most)

    def fresh(self) -> FreshFiles:
        """See AgentFiles."""
        self._attach(True)
        self._make_room()
        return self._files.fresh()

    def clear_away(self) -> None:
        """See AgentFiles."""
        self._attach(False)
        self._files.clear_away()

    def read_mark(self) -> bytes | None:
        """See AgentFiles."""
        self._attach(False)
        return self._files.read_mark()

    def write_mark(self, mark: bytes | None) -> None:
        """See AgentFiles."""
        self._attach(mark is not None)
        self._files.write_mark(mark)
