"""Takes the calls out of an answer: a name in it notifies nobody but whom it answers. Pure.

A zero-width space behind the `@` is not seen, and no vendor reads a name across it. Code is left as it is
where the vendor calls nobody from it, and so are e-mail addresses and links.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

BREAK = "\u200b"
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})([^`\n]*)")
_SPAN = re.compile(r"(?<![`\\])(`+)(?!`)[^\n]*?[^`\n](?<!`)\1(?!`)")
_LINK = re.compile(r"(?:https?://|www\.)[^\s<>()\[\]`\"']+", re.IGNORECASE)
_MARKUP = re.compile(r"<[A-Za-z/!?]")
_AT = r"(?:@|&#0{0,9}64;|&#[xX]0{0,9}40;|&commat;)"
_GITHUB = re.compile(rf"(?<![A-Za-z0-9_]){_AT}(?=([A-Za-z0-9][A-Za-z0-9-]*)(/[A-Za-z0-9_.-]+)?)")
_TELEGRAM = re.compile(r"(?<!\w)@(?=(\w+))")


def for_github(text: str, calls: str = "") -> str:
    """The text with no mention of a user or a team. `calls`: the login that may be called.

    GitHub calls nobody from code. Where there is raw HTML, what is code is not certain, so code counts as
    text.
    """
    parts = list(_code_and_text(text))
    certain = not any(_MARKUP.search(part) for part, is_code in parts if not is_code)
    return "".join(
        part if is_code and certain else _outside_links(part, _GITHUB, calls) for part, is_code in parts
    )


def for_telegram(text: str, calls: str = "") -> tuple[str, list[dict[str, Any]]]:
    """The text with no mention, and entities that mark as code what has to stay as it is: Telegram finds
    none there.

    Offsets count UTF-16 code units: https://core.telegram.org/bots/api#messageentity.
    """
    parts: list[str] = []
    entities: list[dict[str, Any]] = []
    offset = 0
    for part, is_code in _code_and_text(text):
        if is_code and "@" in part:
            inner = part.rstrip("\n")
            kind = "pre" if "\n" in inner else "code"
            entities.append({"type": kind, "offset": offset, "length": _units(inner)})
        said = part if is_code else _outside_links(part, _TELEGRAM, calls)
        parts.append(said)
        offset += _units(said)
    if len(entities) > 90:  # Telegram takes 100 of them
        return _outside_links(text, _TELEGRAM, calls), []
    return "".join(parts), entities


def longest(text: str) -> int:
    """How long it can get by this, in characters: each `@` may get a break."""
    return len(text) + text.count("@")


def _outside_links(text: str, mention: re.Pattern[str], calls: str) -> str:
    def broken(found: re.Match[str]) -> str:
        team = found[2] if len(found.groups()) > 1 else None
        if calls and found[1].lower() == calls.lower() and not team:
            return found[0]
        return f"@{BREAK}"

    pieces: list[str] = []
    end = 0
    for link in _LINK.finditer(text):
        # The letter before a link counts for what is looked behind at, so the text is not cut out.
        pieces += [mention.sub(broken, text[end : link.start()]), link[0]]
        end = link.end()
    return "".join([*pieces, mention.sub(broken, text[end:])])


def _code_and_text(text: str) -> Iterator[tuple[str, bool]]:
    """The whole text in pieces, with whether each is code: fenced blocks that are closed, and spans in a
    line."""
    lines = text.splitlines(keepends=True)
    start = number = 0
    while number < len(lines):
        end = _fence_ends(lines, number)
        if end is None:
            number += 1
            continue
        yield from _spans("".join(lines[start:number]))
        yield "".join(lines[number : end + 1]), True
        start = number = end + 1
    yield from _spans("".join(lines[start:]))


def _fence_ends(lines: list[str], number: int) -> int | None:
    """The line that closes the fence that this line opens; None where it opens none, or nothing closes it."""
    opened = _FENCE.fullmatch(lines[number].rstrip("\r\n"))
    if opened is None:
        return None
    for at in range(number + 1, len(lines)):
        found = _FENCE.fullmatch(lines[at].rstrip("\r\n"))
        if found and found[1].startswith(opened[1]) and not found[2].strip():
            return at
    return None


def _spans(text: str) -> Iterator[tuple[str, bool]]:
    end = 0
    for span in _SPAN.finditer(text):
        if span.start() > end:
            yield text[end : span.start()], False
        yield span[0], True
        end = span.end()
    if end < len(text):
        yield text[end:], False


def _units(text: str) -> int:
    return len(text) + sum(letter > "\uffff" for letter in text)
