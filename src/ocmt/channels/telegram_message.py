"""Reads one `Message` of Telegram's Bot API: its words, its files, and what stands beside them. Pure.

What is done with each field stands in `schema.TELEGRAM`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ocmt.channels.base import Attachment
from ocmt.channels.quoting import LONGEST_FORWARD, named, quoted, remark, texts_in
from ocmt.channels.schema import TELEGRAM, How
from ocmt.channels.wire import part, words

UNKNOWN_KIND = "a kind of message that I do not know yet"
_FILES = {
    "animation": ("animation.mp4", "video/mp4"),
    "document": ("document", "application/octet-stream"),
    "voice": ("voice.ogg", "audio/ogg"),
    "audio": ("audio.mp3", "audio/mpeg"),
    "video": ("video.mp4", "video/mp4"),
    "video_note": ("video_note.mp4", "video/mp4"),
    "live_photo": ("live_photo.mp4", "video/mp4"),
}
_MOST_LISTED = 50
"""Options of a poll and tasks of a checklist."""
_RICH = {"text": "", "caption": "", "title": "", "expression": "", "summary": ""}


@dataclass
class Content:
    """What is in a message."""

    text: str = ""
    """The sender's own words; of a forwarded message none."""
    context: list[str] = field(default_factory=list)
    attachments: list[Attachment] = field(default_factory=list)
    unreadable: str = ""


def content(message: Mapping[str, Any]) -> Content:
    """All that its sender sent; without what it replies to, see `replied`."""
    found = Content(text=own_words(message), attachments=list(attachments(message)))
    found.context += lines(message)
    origin = part(message, "forward_origin")
    if origin:
        what = f"a message forwarded from {origin_of(origin)}"
        found.context.insert(0, quoted(what, found.text, most=LONGEST_FORWARD))
        found.text = ""
    found.unreadable = unreadable(message)
    return found


def own_words(message: Mapping[str, Any]) -> str:
    """The text or the caption."""
    text = words(message, "text") or words(message, "caption")
    if text:
        return text
    return "\n".join(texts_in(part(message, "rich_message"), _RICH))


def replied(message: Mapping[str, Any]) -> Content:
    """What it replies to: the chosen part, else the whole message, and its files."""
    found = Content()
    original, external = part(message, "reply_to_message"), part(message, "external_reply")
    if "forum_topic_created" in original:
        return found  # in a topic, every message that is no reply is one to the message that opened it
    chosen = words(part(message, "quote"), "text")
    source = original or external
    if source:
        who = _person(part(original, "from")) if original else origin_of(part(external, "origin"))
        text = chosen or own_words(original)
        kind = "the part chosen" if chosen else "the message"
        found.context.append(quoted(f"{kind} that this replies to, from {who}", text))
        found.context += lines(source)
        found.attachments += attachments(source)
        if not text and not found.attachments and len(found.context) == 1:
            found.context.append(remark(f"It is {unreadable(source) or 'without a text that can be read'}"))
    elif chosen:
        found.context.append(quoted("the part chosen that this replies to", chosen))
    if part(message, "reply_to_story"):
        found.context.append(remark("It replies to a story, which cannot be read here"))
    if isinstance(message.get("reply_to_checklist_task_id"), int):
        found.context.append(
            remark(f"It is about task {message['reply_to_checklist_task_id']} of the checklist")
        )
    if words(message, "reply_to_poll_option_id"):
        option = named(words(message, "reply_to_poll_option_id"))
        found.context.append(remark(f"It is about the option {option} of the poll"))
    return found


def attachments(message: Mapping[str, Any]) -> Sequence[Attachment]:
    """Its files, each once."""
    found = []
    if largest := _largest(message.get("photo")):
        found.append((largest, "photo.jpg", "image/jpeg"))
    if largest := _largest(part(message, "live_photo").get("photo")):
        found.append((largest, "photo.jpg", "image/jpeg"))
    found += [
        (part(message, key), *usual)
        for key, usual in _FILES.items()
        if not (key == "document" and "animation" in message)  # it repeats the animation
    ]
    sticker = part(message, "sticker")
    if sticker and not sticker.get("is_animated") and not sticker.get("is_video"):
        found.append((sticker, "sticker.webp", "image/webp"))
    return [
        Attachment(
            reference=words(one, "file_id"),
            name=(words(one, "file_name") or name)[:200],
            media_type=(words(one, "mime_type") or media_type)[:200],
            size=number(one, "file_size"),
        )
        for one, name, media_type in found
        if words(one, "file_id")
    ]


def lines(message: Mapping[str, Any]) -> list[str]:
    """Of each thing that is no text and no file a line."""
    found = []
    if sticker := part(message, "sticker"):
        found.append(f"Sticker: {words(sticker, 'emoji') or 'without an emoji'}")
    if contact := part(message, "contact"):
        name = " ".join(filter(None, (words(contact, "first_name"), words(contact, "last_name"))))
        found.append(f"Contact: {name}, {words(contact, 'phone_number')}")
    if dice := part(message, "dice"):
        found.append(f"Dice: {words(dice, 'emoji')} {_figure(dice.get('value'))}")
    if venue := part(message, "venue"):
        where = _place(part(venue, "location"))
        found.append(f"Place: {words(venue, 'title')}, {words(venue, 'address')} ({where})")
    elif location := part(message, "location"):
        found.append(f"Location: {_place(location)}")
    if poll := part(message, "poll"):
        options = "; ".join(_listed(poll.get("options")))
        found.append(f"Poll: {words(poll, 'question')} Options: {options}")
    if checklist := part(message, "checklist"):
        tasks = "; ".join(_listed(checklist.get("tasks")))
        found.append(f"Checklist: {words(checklist, 'title')}. Tasks: {tasks}")
    for key, label in (("game", "Game"), ("invoice", "Invoice")):
        if one := part(message, key):
            found.append(f"{label}: {words(one, 'title')}. {words(one, 'description')}")
    return [remark(one) for one in found]


def unreadable(message: Mapping[str, Any]) -> str:
    """What of it cannot be read, in words; "" where there is no such thing.

    A field that is not in the table is of a later version: an object or a list there is taken for content.
    """
    unknown = ""
    for key, value in message.items():
        how, what = TELEGRAM.get(key, (None, ""))
        if how is How.REFUSED:
            return what
        if how is None and isinstance(value, dict | list):
            unknown = UNKNOWN_KIND
    return unknown


def origin_of(origin: Mapping[str, Any]) -> str:
    """Who said it first: https://core.telegram.org/bots/api#messageorigin."""
    match origin.get("type"):
        case "user":
            return _person(part(origin, "sender_user"))
        case "hidden_user":
            return named(words(origin, "sender_user_name")) or "somebody"
        case "chat":
            return named(words(part(origin, "sender_chat"), "title")) or "a chat"
        case "channel":
            return named(words(part(origin, "chat"), "title")) or "a channel"
        case _:
            return "somebody"


def number(data: Mapping[str, Any], key: str) -> int | None:
    """Only one of 64 bits: more has no id of Telegram's."""
    value = data.get(key)
    return value if type(value) is int and abs(value) < 2**63 else None


def _person(user: Mapping[str, Any]) -> str:
    name = " ".join(filter(None, (words(user, key) for key in ("first_name", "last_name"))))
    return named(name or words(user, "username")) or "somebody"


def _largest(photos: Any) -> Mapping[str, Any] | None:
    sizes = [one for one in photos if isinstance(one, dict)] if isinstance(photos, list) else []
    return max(
        sizes, key=lambda one: (number(one, "width") or 0) * (number(one, "height") or 0), default=None
    )


def _listed(entries: Any) -> list[str]:
    texts = (
        [words(one, "text") for one in entries if isinstance(one, dict)] if isinstance(entries, list) else []
    )
    return [named(text, 200) for text in texts[:_MOST_LISTED]]


def _place(location: Mapping[str, Any]) -> str:
    return f"{_figure(location.get('latitude'))}, {_figure(location.get('longitude'))}"


def _figure(value: Any) -> str:
    return f"{value:.8g}" if type(value) in (int, float) and abs(value) < 1e9 else "?"
