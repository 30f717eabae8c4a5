"""Reading an agent's request: only what the broker must know of it. Everything else passes unread.

OpenClaw decorates what the user wrote; facts measured on version 2026.9.6 are in docs/openclaw.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ocmt.errors import InvalidInput

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
_MOST_CONTAINERS = 500_000
_MOST_ITEMS = 2_000_000
"""Lists and objects, and what is in them, of one request. Small ones by the million take forty times their
size in memory, and seconds to read in which nobody else is served."""


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


def read_request(body: bytes) -> ModelRequest:
    """Read a body of `/v1/messages`. Raises InvalidInput with the words for the agent."""
    tree = parse(body)
    return ModelRequest(
        model=tree["model"],
        stream=tree.get("stream") is True,
        words=user_words(tree),
        session_key=_session_key(tree),
        estimated_tokens=_estimate(tree, len(body)) + _USUAL_ANSWER,
    )


def parse(body: bytes) -> dict[str, Any]:
    """The body as a JSON object with a usable `model`. Raises InvalidInput."""
    if body.count(b"[") + body.count(b"{") > _MOST_CONTAINERS or body.count(b",") > _MOST_ITEMS:
        raise InvalidInput("The request is made of too many parts.")
    try:
        tree = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("The request body is not valid JSON.") from error
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
    images = [len(data) for message in _messages(tree) for data in _images(message.get("content"))]
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
    texts = (block.get("text") for block in _blocks(message) if block.get("type") == "text")
    return "\n".join(text for text in texts if isinstance(text, str))
