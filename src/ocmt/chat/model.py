"""Conversations, turns and their events: types and rules, pure.

The event log of a conversation is the truth that browsers see: replaying it from any point rebuilds the same
conversation. `Turn` rows say what became of each message.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from ocmt.errors import InvalidInput, TooLarge

MAX_MESSAGE_BYTES = 256 * 1024
"""Of one message, as UTF-8: what a model's context has room for beside the conversation."""
MAX_ATTACHMENTS = 10
"""Of one message."""
MAX_ATTACHED_BYTES = 16 * 1024 * 1024
"""Of one message's attachments together: they travel to OpenClaw in one frame of 25 MiB, as base64."""
MAX_IMAGE_BYTES = 6 * 1024 * 1024
"""Of one image. OpenClaw takes no larger one; both limits stand in its `hello`, `policy.attachments`."""
MAX_UNSENT = 30
"""Attachments of one user that no message has yet."""
UNSENT_LIFE = timedelta(days=1)
MAX_NOTED = 2_000
"""Tool calls and remarks of one turn that are written down; the answer goes on without the others."""
MAX_NOTED_BYTES = 1024 * 1024
"""Of them together, in one turn."""
EVENT_BYTES = 100
"""What an event counts as, beside its data."""
MAX_OPEN_TURNS = 20
"""Of one user: accepted and not yet answered."""
STOP_BYTES = 256 * 1024
"""Of stop phrases that are kept although the budget is used up: about 200 of them."""
MAX_IDEMPOTENCY_KEY = 200
TITLE_LENGTH = 60
MAX_ATTEMPTS = 3
"""How often a turn is taken up again after its agent died under it."""
_LONGEST_NAME = 120
_RESERVED = re.compile(r"\.+(?:openclaw|ocmt|git|ssh|blobs|snapshots)(?![a-z])", re.IGNORECASE)
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9.+_-]{0,60}/[a-z0-9][a-z0-9.+_-]{0,80}")


class TurnStatus(StrEnum):
    """What became of a message."""

    ACCEPTED = "accepted"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"

    @property
    def open(self) -> bool:
        """Whether an answer is still owed."""
        return self in (TurnStatus.ACCEPTED, TurnStatus.RUNNING)


class EventType(StrEnum):
    """The events of the stream, as in the HTTP reference."""

    ACCEPTED = "turn.accepted"
    PROGRESS = "agent.progress"
    STARTED = "turn.started"
    DELTA = "turn.delta"
    TOOL = "turn.tool"
    COMPLETED = "turn.completed"
    FAILED = "turn.failed"
    STOPPED = "turn.stopped"


@dataclass(frozen=True)
class Event:
    """One piece of a turn as it streams."""

    type: EventType
    turn_id: UUID
    data: Mapping[str, Any]
    seq: int = 0
    """Its number in the conversation; 0 while it is not stored."""


@dataclass(frozen=True)
class Conversation:
    """A thread of turns; OpenClaw calls it a session."""

    id: UUID
    user_id: UUID
    title: str | None
    created_at: datetime
    updated_at: datetime
    last_seq: int

    @property
    def session_key(self) -> str:
        """OpenClaw's name for it."""
        return f"agent:main:web:{self.id}"


@dataclass(frozen=True)
class Attachment:
    """A file that is sent with a message; its content is in the object store."""

    id: UUID
    name: str
    """As its sender called it: a plain name, for people and for the agent."""
    media_type: str
    size: int
    """Bytes."""

    @property
    def is_image(self) -> bool:
        """Whether it says so: then the model sees it."""
        return self.media_type.startswith("image/")

    def as_data(self) -> dict[str, Any]:
        """As it stands in the turn's row, on the stream and in the transcript."""
        return {"id": str(self.id), "name": self.name, "media_type": self.media_type, "size": self.size}


@dataclass(frozen=True)
class Turn:
    """One message and the agent's answer."""

    id: UUID
    conversation_id: UUID
    user_id: UUID
    text: str
    attachments: Sequence[Mapping[str, Any]]
    """Of each what `Attachment.as_data` says."""
    status: TurnStatus
    attempt: int
    run_id: str | None
    stop_requested: bool
    answer: str | None
    usage: Mapping[str, int] | None
    error: Mapping[str, Any] | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def session_key(self) -> str:
        """OpenClaw's name for the conversation."""
        return f"agent:main:web:{self.conversation_id}"

    @property
    def message_key(self) -> str:
        """OpenClaw's idempotency key for this attempt: the same after any crash of ours."""
        return f"{self.id}:{self.attempt}"


@dataclass(frozen=True)
class RunningTurn:
    """A turn that is being answered now."""

    id: UUID
    conversation_id: UUID
    text: str
    started_at: datetime
    """Of this attempt."""


@dataclass(frozen=True)
class Fault:
    """Why a turn failed, in plain words."""

    code: str
    message: str
    retryable: bool

    def as_data(self) -> dict[str, Any]:
        """As it stands in the turn's row and on the stream."""
        return {"code": self.code, "message": self.message, "retryable": self.retryable}


_NO_ROOM = re.compile(
    r"\b(?:database or disk is full|SQLITE_FULL|ENOSPC|EDQUOT|no space left on device"
    r"|disk quota exceeded)\b",
    re.IGNORECASE,
)


def no_room(words: str) -> Fault | None:
    """The fault where OpenClaw's own words say that its disk is full; None where they say something else."""
    if _NO_ROOM.search(words) is None:
        return None
    return Fault(
        "disk_full",
        "Your agent's disk is full, so it cannot work. Restart your agent: it then has a little room to "
        "remove files that you name. You can also restore an earlier snapshot of its files.",
        retryable=True,
    )


def check_message(text: str, *, may_be_empty: bool = False) -> str:
    """The message as it will be sent. Raises InvalidInput, TooLarge."""
    if not text.strip() and not may_be_empty:
        raise InvalidInput("The message is empty.")
    if "\x00" in text:
        raise InvalidInput("The message contains a zero byte, which no agent can read.")
    size = len(text.encode("utf-8", errors="surrogatepass"))
    if size > MAX_MESSAGE_BYTES:
        raise TooLarge(
            f"This message has {size / 1024:.0f} KB; at most {MAX_MESSAGE_BYTES // 1024} KB fit into one. "
            "Split it, or put the text into a file of the workspace."
        )
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidInput("The message contains characters that are not valid Unicode.") from None
    return text


def check_idempotency_key(key: str | None) -> str:
    """The sender's key. Raises InvalidInput."""
    if not key or len(key) > MAX_IDEMPOTENCY_KEY or not key.isprintable():
        raise InvalidInput(
            "Send an Idempotency-Key header, a UUID for instance: the same each time you send this message."
        )
    return key


def check_attachments(attachments: Sequence[Attachment]) -> None:
    """Whether one message can have them all. Raises TooLarge."""
    if len(attachments) > MAX_ATTACHMENTS:
        raise TooLarge(f"One message has at most {MAX_ATTACHMENTS} files. Send the rest with another one.")
    for one in attachments:
        if one.is_image and one.size > MAX_IMAGE_BYTES:
            raise TooLarge(
                f"The image {one.name} has {megabytes(one.size)}; your agent can look at images of at most "
                f"{megabytes(MAX_IMAGE_BYTES)}. Send a smaller copy."
            )
    total = sum(one.size for one in attachments)
    if total > MAX_ATTACHED_BYTES:
        raise TooLarge(
            f"These files have {megabytes(total)} together; one message takes "
            f"{megabytes(MAX_ATTACHED_BYTES)}. Send some of them with another one, or put them into the "
            "workspace."
        )


def file_name(text: str) -> str:
    """A plain name from one that somebody made up: no path, no control characters, at most 120 characters.

    A dot in front stays (`.env`), except before names with a meaning of their own to OpenClaw, to us or to
    git.
    """
    name = text.replace("\\", "/").rsplit("/", 1)[-1]
    name = " ".join("".join(letter if letter.isprintable() else " " for letter in name).split())
    stem, dot, ending = name.rpartition(".")
    if len(name) > _LONGEST_NAME and dot and len(ending) < 20:
        name = f"{stem[: _LONGEST_NAME - len(ending) - 1]}.{ending}"
    name = name[:_LONGEST_NAME].strip().rstrip(". ")
    return name if name.strip(".") and not _RESERVED.match(name) else name.strip(". ") or "file"


def media_type(text: str | None) -> str:
    """The type without its parameters; `application/octet-stream` for what is none."""
    plain = (text or "").partition(";")[0].strip().lower()
    return plain if _MEDIA_TYPE.fullmatch(plain) else "application/octet-stream"


def megabytes(size: int) -> str:
    """For people: "6 MB", "17.2 MB"; rounded up, so that it is never "16 MB of 16 MB"."""
    return f"{math.ceil(size / 1024 / 1024 * 10) / 10:g} MB"


def attachment_key(user_id: UUID, attachment_id: UUID) -> str:
    """Where in the object store an attachment's content is."""
    return f"users/{user_id}/attachments/{attachment_id}"


def transcript_key(user_id: UUID, conversation_id: UUID) -> str:
    """Where in the object store a conversation's transcript is."""
    return f"users/{user_id}/sessions/{conversation_id}.jsonl"


def title_of(text: str) -> str:
    """A conversation's title from its first message: the first line, cut at a word."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    if len(line) <= TITLE_LENGTH:
        return line
    return line[:TITLE_LENGTH].rsplit(" ", 1)[0].rstrip(",;:.") + "…"


def merge_deltas(events: Sequence[Event]) -> list[Event]:
    """The same events with neighbouring pieces of text joined, so that a batch costs few rows."""
    merged: list[Event] = []
    for event in events:
        last = merged[-1] if merged else None
        if (
            last is not None
            and event.type is EventType.DELTA
            and last.type is EventType.DELTA
            and last.turn_id == event.turn_id
        ):
            # One that begins the answer anew makes the piece before it void.
            joined = {**last.data, "text": last.data["text"] + event.data["text"]}
            merged[-1] = event if event.data.get("replace") else Event(EventType.DELTA, event.turn_id, joined)
        else:
            merged.append(event)
    return merged
