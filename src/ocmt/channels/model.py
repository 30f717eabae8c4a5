"""Deliveries, senders and what is owed to a channel: types and rules, pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID

from ocmt.errors import InvalidInput

MAX_ENDPOINTS = 20
"""Of one user."""
MAX_BODY = 1024 * 1024
"""Bytes of one webhook."""
MAX_ID = 200
"""Characters of an external id, a thread, a sender."""
DELIVERY_TRIES = 8
PATIENCE = timedelta(days=1)
"""How long a message waits for a limit of its user's to be free again."""
OUTBOX_TRIES = 10
CODE_LIFE = timedelta(hours=1)
CODE_PAUSE = timedelta(minutes=1)
"""Between two codes for the same sender."""
MAX_CODES = 5
"""Of one endpoint at a time: strangers cannot fill its owner's list."""
MAX_STRANGERS = 50
"""Senders of one endpoint who wait to be let in, all together."""
STRANGER_LIFE = timedelta(days=7)
WAITING_KEPT = 20
"""The latest messages of a sender that go on when they are let in."""
KEEP = timedelta(days=30)
"""How long a delivery that has ended is kept: to be looked at, to be run again, to be known as known."""
MOST_FORGOTTEN = 100_000
"""Ids of one endpoint that stay known after their deliveries are forgotten, where nothing proves their
time."""
KEEP_BODY = timedelta(days=1)
"""How long the body of a delivery that was given up or ignored is kept; it can run again for as long."""
KEEP_WAITING_BODY = timedelta(days=7)
"""The same of a delivery whose sender is not let in yet."""
_FIRST_PAUSE = 5.0
_LONGEST_PAUSE = 600.0
_CODE_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
"""Without those that look like others."""
CODE_LENGTH = 8
_SURROGATES = re.compile("[\ud800-\udfff]")


class State(StrEnum):
    """What became of a delivery."""

    ACCEPTED = "accepted"
    ANSWERING = "answering"
    DONE = "done"
    IGNORED = "ignored"
    WAITING = "waiting"
    """Its sender is not let in yet."""
    DEAD = "dead"

    @property
    def open(self) -> bool:
        """Whether something is still to be done by itself."""
        return self in (State.ACCEPTED, State.ANSWERING)


ENDED = tuple(state for state in State if not state.open)


class Seal(Protocol):
    """Encrypts what must not be readable in the database."""

    async def seal(self, user_id: UUID, plain: bytes, bound_to: bytes) -> bytes:
        """Opens for the same user and `bound_to` only."""

    async def unseal(self, user_id: UUID, sealed: bytes, bound_to: bytes) -> bytes:
        """Raises: SetupProblem where it does not open."""


@dataclass(frozen=True)
class Connection:
    """An endpoint as its user sees it."""

    id: UUID
    user_id: UUID
    channel: str
    name: str
    settings: Mapping[str, Any]
    active: bool
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class Sender:
    """Somebody who has written to an endpoint."""

    sender: str
    name: str
    state: str
    """pending, approved, blocked."""
    code_expires_at: datetime | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class Delivery:
    """One webhook and what became of it."""

    id: UUID
    external_id: str
    thread: str
    sender: str | None
    received_at: datetime
    state: str
    attempts: int
    replays: int
    next_at: datetime
    error: Mapping[str, Any] | None
    conversation_id: UUID | None
    turn_id: UUID | None
    finished_at: datetime | None
    size: int
    """Bytes of the webhook's body that are still kept."""
    body_dropped: bool
    """The body was dropped to make room, so it cannot run again."""
    sent: int
    """Messages of the answer that were sent; likewise `pending` and `dead`."""
    pending: int
    dead: int
    may_be_double: bool
    """Of the answer: nobody knows whether a try had gone through before the next one."""
    last_error: Mapping[str, Any] | None


def bound_to(endpoint_id: UUID) -> bytes:
    """What the sealed secrets of an endpoint are bound to."""
    return b"channel endpoint " + endpoint_id.bytes


def clean(text: str, most: int | None = None) -> str:
    """The text as the database can hold it: without NUL and halves of characters; cut after `most`."""
    text = text.replace("\x00", "")
    if _SURROGATES.search(text):
        # Two halves that belong together are one character.
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text if most is None else text[:most]


def one_line(text: str) -> str:
    """Cleaned, and short enough to stand within a sentence."""
    return " ".join(clean(text, MAX_ID).split())


def clean_json(value: Any) -> Any:
    """The same for every text in it; what is no JSON becomes text."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        return {clean(str(key)): clean_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [clean_json(inner) for inner in value]
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float) and value == value and abs(value) != float("inf"):
        return value
    return clean(str(value))


def short_id(text: str) -> str:
    """An id of a sender's own as the database and a path can hold it; another one becomes its hash."""
    if text.strip(".") and len(text) <= MAX_ID and clean(text) == text:
        return text
    return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def pause(failures: int, chance: float, asked: float | None = None) -> timedelta:
    """Before the next try, after that many: doubling, with jitter from `chance` (0 to 1).

    `asked`: seconds that the other side wants us to wait at least.
    """
    seconds = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** (min(failures, 20) - 1)) * (0.75 + chance / 2)
    return timedelta(seconds=max(seconds, min(asked or 0.0, 24 * 3600.0)))


def fault(code: str, message: str) -> dict[str, str]:
    """As it stands in an `error` column."""
    return {"code": code, "message": clean(message, 1000)}


def code_of(numbers: bytes) -> str:
    """A pairing code from random bytes: `ABCDEFGH`."""
    return "".join(_CODE_LETTERS[number % len(_CODE_LETTERS)] for number in numbers[:CODE_LENGTH])


def shown_code(code: str) -> str:
    """As it is told: `ABCD-EFGH`."""
    return f"{code[:4]}-{code[4:]}"


def code_hash(endpoint_id: UUID, code: str) -> bytes:
    """As it is kept, of a code as somebody typed it. Raises: InvalidInput where it can be none."""
    plain = "".join(code.split()).replace("-", "").upper()
    if len(plain) != CODE_LENGTH or not plain.isascii():
        raise InvalidInput("A code has eight letters and digits, like ABCD-EFGH.")
    return hashlib.sha256(endpoint_id.bytes + plain.encode()).digest()
