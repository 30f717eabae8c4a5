"""Has an archive from outside examined by a child process: the platform's side of `examining`."""

from __future__ import annotations

import asyncio
import json
from typing import IO, Any
from uuid import UUID

import structlog

from ocmt.agents.snapshots.archive import Archive
from ocmt.agents.snapshots.examining import BYTES_OF_A_FILE, FIXED_BYTES, Found
from ocmt.agents.snapshots.keeping import Limits
from ocmt.errors import InvalidInput, LimitReached, OcmtError, TooLarge
from ocmt.platform.confined import Overrun, run_confined
from ocmt.platform.work import PARSING

log = structlog.get_logger(__name__)

AT_ONCE = 2
"""Child processes at a time; whoever asks for one has the only transfer, or the only start, of that user."""
_MEMORY = 256 * 1024**2
_MEMORY_OF_A_FILE = 4 * 1024
_SECONDS = 30
_BYTES_A_SECOND = 20 * 1024**2
_ERRORS: dict[str, type[OcmtError]] = {kind.code: kind for kind in (InvalidInput, LimitReached, TooLarge)}


class Checker:
    """Of one process."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(AT_ONCE)

    async def count(self, source: IO[bytes], limits: Limits) -> int:
        """Return how many files are in a good archive.

        Raises: InvalidInput where it is none of ours or is damaged, TooLarge, LimitReached, Unavailable.
        """
        answer, _ = await self._examined(source, limits, "count")
        return int(answer["files"])

    async def open(self, source: IO[bytes], limits: Limits, user_id: UUID) -> Archive:
        """Return a good archive, ready to be unpacked. Raises as `count`."""
        _, rest = await self._examined(source, limits, "contents")
        return Archive(source, await PARSING.run(Found.parse, rest, of=user_id), user_id)

    async def _examined(self, source: IO[bytes], limits: Limits, want: str) -> tuple[dict[str, Any], bytes]:
        numbers = map(str, (limits.files, limits.total_bytes, limits.file_bytes))
        async with self._free:
            try:
                output = await run_confined(
                    "ocmt.agents.snapshots.examining",
                    [*numbers, want],
                    source,
                    memory=_MEMORY + _MEMORY_OF_A_FILE * limits.files,
                    seconds=_SECONDS + limits.total_bytes // _BYTES_A_SECOND,
                    most_output=4 * (FIXED_BYTES + BYTES_OF_A_FILE * limits.files),
                )
            except Overrun as error:
                log.warning("an archive could not be checked", reason=str(error))
                raise InvalidInput(
                    "This archive takes too much memory or time to check. Make one with fewer files.",
                    detail=str(error),
                ) from error
        head, _, rest = output.partition(b"\n")
        answer = json.loads(head)
        if "code" in answer:
            raise _ERRORS.get(answer["code"], InvalidInput)(answer["message"], detail=answer["detail"])
        return answer, rest
