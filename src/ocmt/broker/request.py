"""Reading an agent's request: only what the broker must know of it. Everything else passes unread.

OpenClaw decorates what the user wrote; facts measured on version 2026.9.6 are in docs/openclaw.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

from ocmt.broker.policy import Beyond, beyond
from ocmt.errors import InvalidInput, LimitReached
from ocmt.platform.strict_json import AT_ONCE, CutText, NotJson, read_at_once, read_in_steps
from ocmt.platform.work import PARSING, Effort

T = TypeVar("T")

_TIMESTAMP = re.compile(r"^\[\w{3} \d{4}-\d\d-\d\d \d\d:\d\d[^\]]*\]\s*")
_INTERNAL = re.compile(
    r"<<<BEGIN_OPENCLAW_INTERNAL_CONTEXT>>>.*?(<<<END_OPENCLAW_INTERNAL_CONTEXT>>>|\Z)", re.DOTALL
)
# How OpenClaw repeats the user's message when it tries a failed call again.
_QUEUED = re.compile(r"^\[Queued user message from a previous active turn[^\]]*\]\s*")
# Not `\s*`, which runs over newlines and so takes the square of their number: who writes them is not trusted.
_CONTINUE = re.compile(r"\n[ \t]*Continue the current task from the existing transcript,.*\Z", re.DOTALL)
_SESSION = re.compile(r"\| session=(agent:[^ |]+) ")
_MODEL = re.compile(r"[\x21-\x7e]{1,200}")
# What stands for a message's files: a line for each, and at the end what is in those that are text.
_MEDIA = re.compile(r"^(?:\[media attached[^\n]*\]|\[Image\])$", re.MULTILINE)
_FILE = '\n<file name="'
_BYTES_PER_TOKEN = 4
_IMAGE_TOKENS = 1_600
"""Of one image at most, after OpenClaw has made it small: its pixels / 750, says Anthropic."""
_USUAL_ANSWER = 1_000
_MOST_AT_ONCE = 20_000
"""Lists and objects of a text that is read on the event loop, whatever its size."""
_MOST_STEPS = 400_000
_MOST_SECONDS = 10.0
_LONGEST_TEXT = 4 * 1024 * 1024
"""Bytes of a text that are looked at: more words than these nobody writes."""
_TOO_MANY = "The request is made of too many parts."


@dataclass(frozen=True)
class ModelRequest:
    """What the broker knows of a request."""

    model: str
    stream: bool
    words: str
    """What the user wrote last, without OpenClaw's decorations; empty where there is none."""
    session_key: str | None
    estimated_tokens: int
    """Roughly what it will use: its size, and an answer of usual length."""
    beyond: Beyond = field(default=Beyond())
    """What it asks of the provider beyond a plain answer."""


async def read(body: bytes | bytearray, of: UUID, then: Callable[[dict[str, Any], int], T]) -> T:
    """Return what `then` makes of a body and its size: at once of a small one, in a thread of a large one.

    Raises: InvalidInput with the words for the agent, Unavailable.
    """
    if _is_small(body):
        return then(parse(bytes(body)), len(body))
    effort = _effort()
    return await PARSING.run(
        lambda: then(_parse_in_steps(bytes(body), effort), len(body)), of=of, effort=effort
    )


def read_request(body: bytes) -> ModelRequest:
    """Read a body of `/v1/messages`. Raises: InvalidInput with the words for the agent."""
    return understood(parse(body), len(body))


def understood(tree: Mapping[str, Any], size: int) -> ModelRequest:
    """Return what the broker must know of a request whose body had that size."""
    return ModelRequest(
        model=tree["model"],
        stream=tree.get("stream") is True,
        words=user_words(tree),
        session_key=_session_key(tree),
        estimated_tokens=_estimate(tree, size) + _USUAL_ANSWER,
        beyond=beyond(tree),
    )


def parse(body: bytes) -> dict[str, Any]:
    """Return the body as a JSON object with a usable `model`. Raises: InvalidInput."""
    if not _is_small(body):
        return _parse_in_steps(body, _effort())
    try:
        return _checked(read_at_once(body))
    except NotJson as error:
        raise _not_json(error) from error


def _parse_in_steps(body: bytes, effort: Effort) -> dict[str, Any]:
    try:
        return _checked(read_in_steps(body, effort, longest=_LONGEST_TEXT))
    except NotJson as error:
        raise _not_json(error) from error
    except LimitReached as error:
        raise InvalidInput(_TOO_MANY) from error


def _effort() -> Effort:
    return Effort(steps=_MOST_STEPS, seconds=_MOST_SECONDS, message=_TOO_MANY)


def _is_small(body: bytes | bytearray) -> bool:
    return len(body) <= AT_ONCE and body.count(b"[") + body.count(b"{") <= _MOST_AT_ONCE


def _not_json(error: NotJson) -> InvalidInput:
    return InvalidInput(f"The request body is not valid JSON: {error}.")


def _checked(tree: Any) -> dict[str, Any]:
    if not isinstance(tree, dict):
        raise InvalidInput("The request body is not a JSON object.")
    if not isinstance(tree.get("model"), str) or not _MODEL.fullmatch(tree["model"]):
        raise InvalidInput("model: a model's name is needed.")
    return tree


def estimate_tokens(size: int) -> int:
    """About how many tokens so many bytes of text are; never 0."""
    return max(1, size // _BYTES_PER_TOKEN)


def _estimate(tree: Mapping[str, Any], size: int) -> int:
    """As above, with images for what they cost: as text they would be a thousand times that."""
    images = [_size(data) for message in _messages(tree) for data in _images(message.get("content"))]
    return estimate_tokens(size - sum(images)) + _IMAGE_TOKENS * len(images)


def _images(content: object, *, results: bool = True) -> Iterator[str]:
    """The base64 of images in a content field; with `results` also of those in tool results."""
    for block in content if isinstance(content, list) else []:
        if not isinstance(block, dict):
            continue
        source = block.get("source")
        if block.get("type") == "image" and isinstance(source, dict) and isinstance(source.get("data"), str):
            yield source["data"]
        elif block.get("type") == "tool_result" and results:
            yield from _images(block.get("content"), results=False)


def _size(text: str) -> int:
    return text.size if isinstance(text, CutText) else len(text)


def user_words(tree: Mapping[str, Any]) -> str:
    """What the user wrote last, without tool results and what OpenClaw adds. Files may come without any."""
    return _last_message(tree)[0]


def sent_files(tree: Mapping[str, Any]) -> bool:
    """Whether files came with the last thing that the user wrote."""
    return _last_message(tree)[1]


def _last_message(tree: Mapping[str, Any]) -> tuple[str, bool]:
    for message in reversed(_messages(tree)):
        if message.get("role") == "user":
            text = _text(message)
            words, files = _undecorated(text), _MEDIA.search(_own(text)) is not None
            if words or files:
                return words, files
    return "", False


def last_tool_results(tree: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tool results that wait for the model's word; empty where it is the user's words that wait."""
    for message in reversed(_messages(tree)):
        if message.get("role") != "user":
            return []
        results = [block for block in _blocks(message) if block.get("type") == "tool_result"]
        if results or _undecorated(_text(message)):
            return results
    return []


def last_tool_calls(tree: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tool calls of the model's last message."""
    for message in reversed(_messages(tree)):
        if message.get("role") == "assistant":
            return [block for block in _blocks(message) if block.get("type") == "tool_use"]
    return []


def content_text(content: object) -> str:
    """The text of a content field, which is a string or a list of blocks."""
    return _text({"content": content})


def _session_key(tree: Mapping[str, Any]) -> str | None:
    found = _SESSION.findall(content_text(tree.get("system")))
    return found[-1] if found else None


def _undecorated(text: str) -> str:
    text = _MEDIA.sub("", _own(text).partition(_FILE)[0])
    return _CONTINUE.sub("", _QUEUED.sub("", text)).strip()


def _own(text: str) -> str:
    return _TIMESTAMP.sub("", _INTERNAL.sub("", text).strip())


def _messages(tree: Mapping[str, Any]) -> list[dict[str, Any]]:
    messages = tree.get("messages")
    return [one for one in messages if isinstance(one, dict)] if isinstance(messages, list) else []


def _blocks(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    content = message.get("content")
    if isinstance(content, list):
        yield from (block for block in content if isinstance(block, dict))


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    texts, left = [], _LONGEST_TEXT
    for block in _blocks(message):
        text = block.get("text")
        if block.get("type") == "text" and isinstance(text, str) and left > 0:
            texts.append(text)
            left -= len(text)
    return "\n".join(texts)
