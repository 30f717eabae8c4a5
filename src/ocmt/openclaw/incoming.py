"""What comes from an agent's gateway: read at a bounded rate, and large frames without holding up the others.

A gateway that sends faster than it may is not hung up on. Its frames wait, and with them its own socket. The
time is the event loop's own, because what is protected is the processor of this process.
"""

from __future__ import annotations

import asyncio

from ocmt.errors import LimitReached
from ocmt.openclaw.protocol import Event, ProtocolError, Response, frame_of, read_frame
from ocmt.platform.bucket import Bucket
from ocmt.platform.strict_json import AT_ONCE, NotJson, read_in_steps
from ocmt.platform.work import PARSING, Effort

BYTES_PER_SECOND = 4 * 1024 * 1024
BURST_BYTES = 48 * 1024 * 1024
"""Three of the largest frames, such as whole histories."""
FRAMES_PER_SECOND = 1000
BURST_FRAMES = 4000
_SURELY_SMALL = 32 * 1024
_MOST_PARTS_AT_ONCE = 20_000
_MOST_STEPS = 600_000
_MOST_SECONDS = 10.0


class Incoming:
    """The frames of one connection."""

    def __init__(self) -> None:
        self._bytes = Bucket(BYTES_PER_SECOND, BURST_BYTES)
        self._frames = Bucket(FRAMES_PER_SECOND, BURST_FRAMES)

    async def read(self, data: str | bytes) -> Response | Event | None:
        """Return the next frame once the rate allows it. None: a kind that we do not know.

        Raises: ProtocolError; Unavailable where too much waits to be read for this connection.
        """
        now = asyncio.get_running_loop().time()
        wait = max(self._bytes.wait(len(data), now), self._frames.wait(1, now))
        self._bytes.pour(len(data), now)
        self._frames.pour(1, now)
        if wait > 0:
            await asyncio.sleep(wait)
        if _is_small(data):
            return read_frame(data)
        effort = Effort(steps=_MOST_STEPS, seconds=_MOST_SECONDS, message="made of too many parts")
        return await PARSING.run(_read_large, data, effort, of=self, effort=effort)


def _is_small(data: str | bytes) -> bool:
    if len(data) <= _SURELY_SMALL:
        return True
    if len(data) > AT_ONCE:
        return False
    parts = (
        data.count(b"{") + data.count(b"[") if isinstance(data, bytes) else data.count("{") + data.count("[")
    )
    return parts <= _MOST_PARTS_AT_ONCE


def _read_large(data: str | bytes, effort: Effort) -> Response | Event | None:
    whole = data.encode() if isinstance(data, str) else data
    try:
        return frame_of(read_in_steps(whole, effort, longest=len(whole), strict=False))
    except (NotJson, LimitReached) as error:
        raise ProtocolError(str(error)) from error
