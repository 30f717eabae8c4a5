"""Anthropic's event stream: reading the usage off it while it passes, and writing one.

Format: https://docs.anthropic.com/en/docs/build-with-claude/streaming
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ocmt.usage.model import Tokens

_LONGEST_LINE = 1024 * 1024
_COUNTS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")


def event(name: str, data: Mapping[str, Any]) -> bytes:
    """One event as it goes over the wire; its `type` is its name, as Anthropic has it."""
    body = json.dumps({"type": name, **data}, ensure_ascii=False, separators=(",", ":"))
    return f"event: {name}\ndata: {body}\n\n".encode()


def error_event(error_type: str, message: str) -> bytes:
    """The event that says that a stream has failed."""
    return event("error", {"error": {"type": error_type, "message": message}})


def split_events(data: bytes) -> tuple[bytes, bytes]:
    """The whole events of a stream's bytes, and the beginning of the next; all where that is too long."""
    ends = (data.rfind(blank) + len(blank) for blank in (b"\n\n", b"\r\n\r\n") if blank in data)
    end = max(ends, default=0)
    if len(data) - end > _LONGEST_LINE:
        return data, b""
    return data[:end], data[end:]


def printable(text: str) -> str:
    """Without what a terminal obeys and a database refuses: a provider's words go into the ledger."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def tokens_in(usage: object) -> dict[str, int]:
    """The counts of a `usage` object that are there and make sense."""
    if not isinstance(usage, dict):
        return {}
    found = ((name, usage.get(name)) for name in _COUNTS)
    return {
        name: count
        for name, count in found
        if isinstance(count, int) and not isinstance(count, bool) and 0 <= count < 2**40
    }


def as_tokens(counts: Mapping[str, int]) -> Tokens:
    """Anthropic's counts as ours."""
    return Tokens(*(counts.get(name, 0) for name in _COUNTS))


class UsageReader:
    """Reads a stream in pieces cut anywhere. Pieces are looked at, never kept, but for an unfinished line."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._skipping = False
        self._counts: dict[str, int] = {}
        self._deltas = 0
        self.complete = False
        """Whether the message came to its proper end."""
        self.error: tuple[str, str] | None = None
        """Type and message of an `error` event."""

    @property
    def tokens(self) -> Tokens | None:
        """What was used as far as seen; None before the provider said anything of it.

        A stream that broke off has no final count: then each piece of text counts as one token at least.
        """
        if not self._counts:
            return None
        counts = dict(self._counts)
        if not self.complete:
            counts["output_tokens"] = max(counts.get("output_tokens", 0), self._deltas)
        return as_tokens(counts)

    def feed(self, piece: bytes) -> None:
        """Look at the next piece."""
        lines = piece.split(b"\n")
        for index, line in enumerate(lines):
            if index < len(lines) - 1:
                if self._skipping:
                    self._skipping = False
                elif self._rest:
                    self._rest += line
                    self._line(bytes(self._rest))
                else:
                    self._line(line)
                self._rest.clear()
            elif not self._skipping:
                self._rest += line
                if len(self._rest) > _LONGEST_LINE:
                    # No event that matters here is that long.
                    self._rest.clear()
                    self._skipping = True

    def _line(self, line: bytes) -> None:
        line = line.rstrip(b"\r")
        if not line.startswith(b"data:"):
            return
        if b'"content_block_delta"' in line:
            self._deltas += 1
            return
        if b'"usage"' not in line and b'"error"' not in line and b'"message_stop"' not in line:
            return
        try:
            data = json.loads(line[5:])
        except (ValueError, RecursionError):
            # Not ours to complain: the agent gets the same bytes.
            return
        if isinstance(data, dict):
            self._data(data)

    def _data(self, data: Mapping[str, Any]) -> None:
        match data.get("type"):
            case "message_start" if isinstance(message := data.get("message"), dict):
                self._count(message.get("usage"))
            case "message_delta":
                self._count(data.get("usage"))
            case "message_stop":
                self.complete = True
            case "error" if isinstance(error := data.get("error"), dict):
                self.error = str(error.get("type", ""))[:100], printable(str(error.get("message", "")))[:500]

    def _count(self, usage: object) -> None:
        """Counts only grow: a gateway on the way may repeat one as 0 that the provider has already told."""
        for name, count in tokens_in(usage).items():
            self._counts[name] = max(count, self._counts.get(name, 0))
