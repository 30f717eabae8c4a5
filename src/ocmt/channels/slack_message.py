"""Reads one message event of Slack's: its words, its files, and what stands beside them. Pure.

What is done with each subtype, block and field stands in `schema`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ocmt.channels.base import Attachment
from ocmt.channels.quoting import named, quoted, remark, texts_in
from ocmt.channels.schema import SLACK_BLOCKS, SLACK_SUBTYPES, How
from ocmt.channels.wire import part, words

_MARKED = re.compile(r"<([^<>]*)>")
_MOST_SHARED = 20
_MOST_BLOCKS = 100
_LONGEST_TEXT = 40_000
"""Characters of blocks; Slack cuts a message's text there as well."""
_TEXTS = {"text": "", "url": " ", "alt_text": "", "title": "", "description": "", "name": ":", "user_id": "@"}


def hears(event: Mapping[str, Any]) -> bool:
    """Whether somebody said it to the app: what a bot says, changes and what a channel says is not."""
    if event.get("bot_id"):
        return False
    subtype = event.get("subtype")
    how = SLACK_SUBTYPES.get("(none)" if subtype is None else str(subtype), (How.REFUSED, ""))[0]
    if how is How.IGNORED:
        return False
    kind = event.get("type")
    return kind == "app_mention" or (kind == "message" and is_direct(event))


def is_direct(event: Mapping[str, Any]) -> bool:
    """Whether it is between a person and the app alone."""
    return event.get("channel_type") == "im"


def own_words(event: Mapping[str, Any], me: str) -> str:
    """The text; where there is none, that of the blocks."""
    return plain(words(event, "text"), me) or _of_blocks(event.get("blocks"), me)


def beside(event: Mapping[str, Any], me: str) -> list[str]:
    """What was shared or forwarded with it, as quotes, and files that the app cannot see."""
    found = []
    for one in _shared(event):
        author = named(plain(words(one, "author_name") or words(one, "author_subname"), me)) or "somebody"
        where = named(plain(words(one, "channel_name"), me))
        text = plain(words(one, "text"), me) or _of_blocks(_message_blocks(one), me)
        text = text or plain(words(one, "fallback"), me)
        origin = f"{author} in #{where}" if where else author
        found.append(quoted(f"a message shared from {origin}", text))
    hidden = [one for one in _listed(event.get("files")) if not words(one, "url_private")]
    found += [
        remark(
            f"A file that Slack does not show to the app: {words(one, 'name') or words(one, 'id') or 'file'}"
        )
        for one in hidden[:_MOST_SHARED]
    ]
    return found


def files(event: Mapping[str, Any]) -> Sequence[Attachment]:
    """Its files, and those of messages that were shared with it, each once."""
    found = _listed(event.get("files"))
    for one in _shared(event):
        found += _listed(one.get("files"))
    unique = {words(one, "url_private"): one for one in found if words(one, "url_private")}
    return [
        Attachment(
            reference=url,
            name=(words(one, "name") or "file")[:200],
            media_type=(words(one, "mimetype") or "application/octet-stream")[:200],
            size=size if type(size := one.get("size")) is int and size >= 0 else None,
        )
        for url, one in unique.items()
    ]


def unreadable(event: Mapping[str, Any]) -> str:
    """What of it cannot be read, in words: an item of Slack's own, or a subtype that came up later."""
    subtype = event.get("subtype")
    how, what = SLACK_SUBTYPES.get("(none)" if subtype is None else str(subtype), (How.REFUSED, ""))
    return (what or "a kind of message that I do not know yet") if how is How.REFUSED else ""


def plain(text: str, me: str) -> str:
    """Slack's mark-up as text, without the mentions of `me`.

    https://docs.slack.dev/messaging/formatting-message-text#parsing.
    """

    def said(found: re.Match[str]) -> str:
        target, _, label = found[1].partition("|")
        if target == f"@{me}":
            return ""
        if target[:1] in ("@", "#"):
            return target[0] + (label.removeprefix(target[0]) or target[1:])
        if target[:1] == "!":
            return label or "@" + target[1:].split("^")[0]
        address = target.removeprefix("mailto:")
        return f"{label} ({address})" if label and label != address else address

    text = _MARKED.sub(said, text).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    return text.strip()


def _shared(event: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Messages that were shared, and those that a link leads to; previews of pages are not among them."""
    return [
        one
        for one in _listed(event.get("attachments"))[:_MOST_SHARED]
        if one.get("is_share") is True or one.get("is_msg_unfurl") is True
    ]


def _message_blocks(shared: Mapping[str, Any]) -> list[Any]:
    found: list[Any] = []
    for one in _listed(shared.get("message_blocks"))[:_MOST_SHARED]:
        found += _listed(part(one, "message").get("blocks"))
    return found


def _of_blocks(blocks: Any, me: str) -> str:
    """The texts of blocks, of each on lines of their own. Of unknown kinds as well: text is text."""
    texts: list[str] = []
    left = _LONGEST_TEXT
    for block in _listed(blocks)[:_MOST_BLOCKS]:
        kind = words(block, "type")
        how, _ = SLACK_BLOCKS.get(kind, (How.READ, ""))
        if how is How.IGNORED or left <= 0:
            continue
        between = "" if kind == "rich_text" else "\n"
        sections = _listed(block.get("elements")) if kind == "rich_text" else [block]
        said = "\n".join(between.join(_pieces(section, me)) for section in sections)[:left].strip()
        if said:
            texts.append(remark(f"{kind.title()}: {said}") if how is How.NAMED else said)
            left -= len(said)
    return "\n".join(texts)


def _pieces(section: Mapping[str, Any], me: str) -> list[str]:
    """Its texts in order, without mentions of `me`; each item of a list on a line of its own."""
    if words(section, "type") == "rich_text_list":
        return ["\n".join("- " + "".join(_pieces(one, me)) for one in _listed(section.get("elements")))]
    mention = f"@{me}"
    return [text for text in texts_in(section, _TEXTS) if text != mention]


def _listed(value: Any) -> list[Any]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
