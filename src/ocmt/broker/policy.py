"""What an agent may ask of the provider beyond a plain answer, and what a key must look like. Pure.

A model call is a way out of a sandbox without a network: the provider fetches addresses, runs code, and calls
other servers for whoever asks it to, and none of that is counted in tokens. So the lists below name what is
known to do nothing of the kind, and everything else is beyond them.
https://docs.claude.com/en/api/messages, https://docs.claude.com/en/api/beta-headers
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_PLAIN_FIELDS = frozenset(
    {
        "cache_control",
        "context_management",
        "max_tokens",
        "messages",
        "metadata",
        "model",
        "output_config",
        "output_format",
        "service_tier",
        "stop_sequences",
        "stream",
        "system",
        "temperature",
        "thinking",
        "tool_choice",
        "tools",
        "top_k",
        "top_p",
    }
)
_REACHING_FIELDS = frozenset({"container", "mcp_servers"})
_CLIENT_TOOL = re.compile(r"custom|(?:bash|computer|memory|text_editor)_\d{8}")
"""Tools that the client runs. The provider runs those of every other type."""
_PLAIN_BLOCKS = frozenset(
    {
        "document",
        "image",
        "redacted_thinking",
        "search_result",
        "text",
        "thinking",
        "tool_result",
        "tool_use",
    }
)
_PLAIN_SOURCES = frozenset({"base64", "content", "text"})
"""Where an image or a document comes from. The provider fetches a `url`, and a `file` belongs to
everybody who has the same key."""
_PLAIN_BETAS = re.compile(
    r"(?:claude-code|computer-use|context-1m|context-management|effort|extended-cache-ttl"
    r"|fine-grained-tool-streaming|interleaved-thinking|model-context-window-exceeded|output-128k"
    r"|prompt-caching|prompt-caching-scope|structured-outputs|thinking-binding-controls|token-counting"
    r"|token-efficient-tools)-\d{4}-?\d{2}-?\d{2}"
)
_REACHING_BETAS = re.compile(
    r"(?:code-execution|files-api|mcp-client|skills|web-fetch|web-search)-\d{4}-?\d{2}-?\d{2}"
)
_BETA = re.compile(r"[a-z0-9][a-z0-9.-]{0,80}")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")
_LONGEST_WORD = 200
_MOST_NAMED = 5
_KEY = re.compile(r"[\x21-\x7e]{1,512}")


@dataclass(frozen=True)
class Beyond:
    """What a request asks for beyond a plain answer, each by a name that is safe to print."""

    reaching: tuple[str, ...] = ()
    """What makes the provider reach other servers, files, or programs for the agent."""
    unknown: tuple[str, ...] = ()
    """Fields that are not known here, and so may cost what nobody counts."""


def beyond(tree: Mapping[str, Any]) -> Beyond:
    """Return what a request's body asks for beyond a plain answer."""
    reaching = [name for name in _REACHING_FIELDS if tree.get(name)]
    unknown = [name for name in tree if name not in _PLAIN_FIELDS and name not in _REACHING_FIELDS]
    tools = tree.get("tools")
    for tool in tools if isinstance(tools, list) else []:
        kind = tool.get("type") if isinstance(tool, dict) else "tool"
        if kind is not None and not (isinstance(kind, str) and _CLIENT_TOOL.fullmatch(kind)):
            reaching.append(_word(kind))
    for kind in _unusual_blocks(tree):
        reaching.append(kind)
    return Beyond(_named(reaching), _named(unknown))


def refused(asked: Beyond, *, own_key: bool, internet: bool) -> tuple[str, ...]:
    """Return what of it is refused: everything without the internet, what is unknown also on others' keys."""
    found = () if internet else asked.reaching
    return found if internet and own_key else found + asked.unknown


def served_betas(value: str, *, own_key: bool, internet: bool) -> str:
    """Return the part of an `anthropic-beta` header that is passed on; the rest is left out."""
    names = [name for name in map(str.strip, value.split(",")) if _BETA.fullmatch(name)]
    if not (internet and own_key):
        names = [
            name
            for name in names
            if _PLAIN_BETAS.fullmatch(name) or (internet and _REACHING_BETAS.fullmatch(name))
        ]
    return ",".join(names[:50])


def clean_key(text: str) -> str:
    """Return a key without what is easily copied with it: blanks, line ends, quotation marks around it."""
    text = text.strip(" \t\r\n\v\f\x00\ufeff\u200b\u00a0")
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1].strip()
    return text


def is_key(text: str) -> bool:
    """Whether that can be sent as a key, which is the value of a header."""
    return _KEY.fullmatch(text) is not None


def _unusual_blocks(tree: Mapping[str, Any]) -> Iterator[str]:
    """The types of blocks and sources that are not plain; what a tool is called with is not looked at."""
    messages = tree.get("messages")
    rest: list[Any] = [tree.get("system")]
    rest += [
        one.get("content")
        for one in (messages if isinstance(messages, list) else [])
        if isinstance(one, dict)
    ]
    while rest:
        node = rest.pop()
        if isinstance(node, list):
            rest += node
        elif isinstance(node, dict):
            kind, source = _word(node.get("type")), node.get("source")
            if kind not in _PLAIN_BLOCKS:
                yield kind
            if isinstance(source, dict):
                if _word(source.get("type")) not in _PLAIN_SOURCES:
                    yield f"{kind}_{_word(source.get('type'))}"
                rest.append(source.get("content"))
            rest.append(node.get("content"))


def _word(kind: object) -> str:
    """Return a type as it is; nothing for one that is a list, an object, or too long to be one."""
    return kind if isinstance(kind, str) and len(kind) <= _LONGEST_WORD else ""


def _named(found: list[str]) -> tuple[str, ...]:
    names = dict.fromkeys(name if _NAME.fullmatch(name) else "an unknown part" for name in found)
    return tuple(names)[:_MOST_NAMED]
