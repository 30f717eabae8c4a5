"""Long answers in pieces, cut where a reader would cut them. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable

_FENCE = re.compile(r" {0,3}(`{3,20}|~{3,20})([^`]*)")
_CLOSING = 21
"""Characters at most that close a fence: a line's end and the marker."""
_LONGEST_OPENING = 40


def in_pieces(text: str, most: int, size: Callable[[str], int] = len) -> list[str]:
    """Cut at paragraphs, else lines, else words, else anywhere; no piece is over `most` (200 at least).

    Only white space at a cut is lost. A code fence that a cut goes through is closed and opened again.
    `size` counts one or two for each character.
    """
    pieces, rest, head = [], text, ""
    while len(rest) > most or size(head + rest) > most:
        near = head + rest[: most + 2]
        fits = most - _CLOSING
        while (over := size(near[:fits]) - (most - _CLOSING)) > 0:
            fits -= -(-over // 2)
        cut, skipped = _cut(near, max(fits // 2, len(head) + 1), fits)
        piece, rest = near[:cut].rstrip(), rest[cut - len(head) + skipped :]
        marker, opening = _open_fence(piece)
        if piece.strip() and piece.strip() != head.strip():
            pieces.append(f"{piece}\n{marker}" if marker else piece)
        head = f"{opening}\n" if marker else ""
    if rest.strip():
        pieces.append((head + rest).rstrip())
    return pieces


def _cut(text: str, least: int, most: int) -> tuple[int, int]:
    """Where, and how many characters of white space there are to be left out."""
    for between in ("\n\n", "\n", " "):
        found = text.rfind(between, least, most + len(between))
        if found >= 0:
            return found, len(between)
    return most, 0


def _open_fence(piece: str) -> tuple[str, str]:
    """What closes and what opens the fence that is open at its end: https://spec.commonmark.org, 4.5."""
    marker = opening = ""
    for line in piece.split("\n"):
        found = _FENCE.fullmatch(line)
        if found and not marker:
            marker = found[1]
            opening = line if len(line) <= _LONGEST_OPENING else marker
        elif found and found[1].startswith(marker) and not found[2].strip():
            marker = opening = ""
    return marker, opening
