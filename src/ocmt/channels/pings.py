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
_SPAN = re.compile(r"(?<![`\\])(`+)(?!`)[^\r\n]*?[^`\r\n](?<!`)\1(?!`)")
_LINES = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
"""Lines as Markdown has them: `splitlines` ends them at more characters."""
_PARAGRAPHS = re.compile(r"(\n[ \t]*\n)")
_NAME = r"[a-z0-9][a-z0-9-]*"
_LINK = re.compile(
    rf"(?:(?<![a-z0-9_])https?://{_NAME}|(?<![^\s(*_~])www\.{_NAME})(?:\.{_NAME})+(?::[0-9]+)?"
    r"(?=[/?#\s]|$)[^\s<>()\[\]`\"'|\\]*",
    re.IGNORECASE,
)
"""Only what is certainly a link: where a host is wrong, the vendor finds names in the rest of it."""
_MARKUP = re.compile(r"<[A-Za-z/!?]")
_AT = r"(?:@|&#0{0,9}64;|&#[xX]0{0,9}40;|&commat;)"
_GITHUB = re.compile(rf"(?<![A-Za-z0-9_]){_AT}(?=([A-Za-z0-9][A-Za-z0-9-]*)(/[A-Za-z0-9_.-]+)?)")
_TELEGRAM = re.compile(r"(?<!\w)@(?=(\w+))")


def for_github(text: str, calls: str = "") -> str:
    """The text with no mention of a user or a team. `calls`: the login that may be called.

    GitHub calls nobody from code. What is code is not certain where there is raw HTML, or a fence in a list
    or a quotation: then all of it counts as text. For paragraphs see `_certain_spans`.
    """
    blocks = list(_fences(text))
    certain = all(_is_certain_fence(part) for part, is_fence in blocks if is_fence) and not any(
        _MARKUP.search(part) or "```" in part or "~~~" in part
        for block, is_fence in blocks
        for part, is_code in ([] if is_fence else _spans(block))
        if not is_code or "```" in part
    )
    return "".join(
        part if is_code and certain else _outside_links(part, _GITHUB, calls)
        for block, is_fence in blocks
        for part, is_code in ([(block, True)] if is_fence else _certain_spans(block))
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
    for part, is_fence in _fences(text):
        if is_fence:
            yield part, True
        else:
            yield from _spans(part)


def _fences(text: str) -> Iterator[tuple[str, bool]]:
    """The whole text in pieces, with whether each is a fenced block that is closed."""
    lines = _LINES.findall(text)
    start = number = 0
    while number < len(lines):
        end = _fence_ends(lines, number)
        if end is None:
            number += 1
            continue
        if start < number:
            yield "".join(lines[start:number]), False
        yield "".join(lines[number : end + 1]), True
        start = number = end + 1
    if start < len(lines):
        yield "".join(lines[start:]), False


def _is_certain_fence(block: str) -> bool:
    """Whether no line of an indented one, which may be a list's, can be outside of that list."""
    indent = block[: len(block) - len(block.lstrip(" "))]
    return all(line.startswith(indent) or not line.strip() for line in _LINES.findall(block))


def _certain_spans(text: str) -> Iterator[tuple[str, bool]]:
    """As `_spans`, but of a paragraph in which other spans could be meant all is text.

    Those are with a backtick that is left over, whose other one may be on another line, and with a bar, which
    may begin the next cell of a table.
    """
    for paragraph in _PARAGRAPHS.split(text):
        parts = list(_spans(paragraph))
        if any(("|" if is_code else "`") in part for part, is_code in parts):
            yield paragraph, False
        else:
            yield from parts


def _fence_ends(lines: list[str], number: int) -> int | None:
    """The line that closes the fence that this line opens; None where it opens none, or nothing closes it."""
    opened = _FENCE.fullmatch(lines[number].rstrip("\r\n"))
    if opened is None:
        return None
    for at in range(number + 1, len(lines)):
        found = _FENCE.fullmatch(lines[at].rstrip("\r\n"))
        if found and found[1].startswith(opened[1]) and not found[2].strip(" \t"):
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
