"""How many of a turn's tool calls and remarks are written down. Pure.

They come from the agent, as fast as it likes, and each is a row. So a turn has a number and a size of them.
A call that was shown as begun may still be shown as ended, so that nothing seems to run for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from ocmt.chat.model import MAX_NOTED, MAX_NOTED_BYTES, EventType

MORE = "…"
"""The remark in the place of everything that is left out."""
_COUNTED = frozenset({EventType.TOOL, EventType.PROGRESS})


class Verdict(StrEnum):
    """What becomes of an event."""

    WRITTEN = "written"
    LAST = "last"
    """It is left out, and a remark in its place says that things are left out from now on."""
    LEFT_OUT = "left out"


class Noted:
    """The count of one turn."""

    def __init__(self, *, most: int = MAX_NOTED, most_bytes: int = MAX_NOTED_BYTES) -> None:
        """Args: `most` is the number of events, `most_bytes` the size of their texts together."""
        self._left = most
        self._bytes_left = most_bytes
        self._begun: set[str] = set()
        self._over = False

    def take(self, kind: EventType, data: Mapping[str, Any]) -> Verdict:
        """Count an event, and say what becomes of it."""
        if kind not in _COUNTED:
            return Verdict.WRITTEN
        size = sum(len(value) for value in data.values() if isinstance(value, str))
        call = str(data.get("call_id")) if kind is EventType.TOOL else None
        if self._over or self._left <= 0 or size > self._bytes_left:
            if call in self._begun and data.get("phase") == "result":
                self._begun.discard(call)
                return Verdict.WRITTEN
            verdict = Verdict.LEFT_OUT if self._over else Verdict.LAST
            self._over = True
            return verdict
        self._left -= 1
        self._bytes_left -= size
        if call is not None:
            (self._begun.discard if data.get("phase") == "result" else self._begun.add)(call)
        return Verdict.WRITTEN
