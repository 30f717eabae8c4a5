"""A channel whose vendor is a list in memory: signatures, pieces and faults as a test wants them."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from mimetypes import guess_type
from typing import Any
from uuid import UUID

from ocmt.channels.base import (
    Accepted,
    Answered,
    Attachment,
    Connected,
    Endpoint,
    Ignored,
    Incoming,
    Message,
    Received,
    SendFailed,
)
from ocmt.chat.controls import may_be_urgent
from ocmt.errors import InvalidInput, OcmtError, TooLarge, Unauthenticated, Unavailable

PIECE = 100
"""Characters of one message."""


@dataclass
class Sent:
    """A message that the vendor has got."""

    thread: str
    text: str
    key: str


@dataclass
class FakeChannel:
    """Webhooks are JSON: `id`, `thread`, `sender`, `text`, `private`; `x-signature` is their HMAC.

    `together` and `wait` are as in Accepted, `context` and `unreadable` as in Message.
    """

    name: str = "fake"
    label: str = "Fake"
    answers: bool = True
    pairs: bool = False
    fields: Mapping[str, str] = field(default_factory=lambda: {"token": "The token"})
    required: frozenset[str] = frozenset({"token"})
    before: Sequence[str] = ("Get a token.",)
    after: Sequence[str] = ("Paste the address.",)
    sent: list[Sent] = field(default_factory=list)
    typed: list[str] = field(default_factory=list)
    """Threads in which typing was shown."""
    tries: int = 0
    faults: list[SendFailed] = field(default_factory=list)
    """Of the next tries to send, one each."""
    takes_it: bool = False
    """Whether the vendor has got a message all the same when a fault comes."""
    files: dict[str, bytes | OcmtError | list[bytes | OcmtError]] = field(default_factory=dict)
    """By name: what is in them, or why they cannot be had; of a list each time the next, the last stays."""
    fetched: list[str] = field(default_factory=list)
    """Names, in order."""
    hangs: asyncio.Event | None = None
    """The vendor answers when this is set; it has got the message before."""
    away: bool = False
    """Whether the vendor's API is down for `connect` and `disconnect`."""
    refuses: set[str] = field(default_factory=set)
    """Tokens that may not register a webhook."""
    webhooks: dict[tuple[UUID, str], str] = field(default_factory=dict)
    """Addresses that are registered, by endpoint and token."""

    def sign(self, body: bytes, secret: str = "token") -> str:  # noqa: S107 - a double
        """The signature that `receive` expects."""
        return hmac.digest(secret.encode(), body, "sha256").hex()

    def receive(self, request: Incoming, endpoint: Endpoint, now: datetime) -> Received:
        """See Channel."""
        given = request.headers.get("x-signature", "")
        expected = self.sign(request.body, endpoint.secrets["token"])
        if not hmac.compare_digest(given.encode(), expected.encode()):
            raise Unauthenticated("The signature is wrong.")
        try:
            data = json.loads(request.body)
        except ValueError:
            raise InvalidInput("This is no JSON.") from None
        if not isinstance(data, dict):
            raise InvalidInput("This is no object.")
        if "challenge" in data:
            return Answered(str(data["challenge"]).encode("utf-8", "replace"))
        if "id" not in data:
            return Ignored()
        together, wait = data.get("together"), data.get("wait", 0)
        return Accepted(
            str(data["id"]),
            str(data.get("thread", "main")),
            may_be_urgent(str(data.get("text", ""))),
            str(together) if together else None,
            float(wait) if type(wait) in (int, float) and 0 <= wait < 60 else 0.0,
        )

    def read(self, body: bytes, endpoint: Endpoint) -> Message | None:
        """See Channel."""
        data = json.loads(body)
        if "text" not in data:
            return None
        thread = str(data.get("thread", "main"))
        sender = str(data.get("sender", "ada"))
        return Message(
            sender=sender,
            sender_name=sender.title(),
            text=str(data["text"]),
            thread=thread,
            title=f"Fake: {thread}",
            attachments=[
                Attachment(name, name, guess_type(name)[0] or "application/octet-stream")
                for name in data.get("files", [])
            ],
            reply={"thread": thread},
            private=bool(data.get("private", True)),
            context=str(data.get("context", "")),
            unreadable=str(data.get("unreadable", "")),
        )

    def read_together(self, bodies: Sequence[bytes], endpoint: Endpoint) -> Message | None:
        """See Gathers."""
        found = [one for body in bodies if (one := self.read(body, endpoint)) is not None]
        if not found:
            return None
        texts = [one.text for one in found if one.text]
        return replace(
            found[0], text="\n".join(texts), attachments=[file for one in found for file in one.attachments]
        )

    async def connect(self, fields: Mapping[str, str]) -> Connected:
        """See Channel."""
        if self.away:
            raise Unavailable("The vendor does not answer.")
        if not fields.get("token"):
            raise InvalidInput("The token is missing.")
        return Connected("@fake", {"token": fields["token"]}, {"bot": f"of {fields['token']}"})

    async def register(self, endpoint: Endpoint, url: str) -> None:
        """See Channel. Also where it is refused something stays there."""
        self.webhooks[endpoint.id, endpoint.secrets["token"]] = url
        if endpoint.secrets["token"] in self.refuses:
            raise InvalidInput("This token may not do that.")

    async def disconnect(self, endpoint: Endpoint) -> None:
        """See Channel."""
        if self.away:
            raise Unavailable("The vendor does not answer.")
        self.webhooks.pop((endpoint.id, endpoint.secrets["token"]), None)

    def split(self, text: str) -> list[str]:
        """See Channel."""
        return [text[start : start + PIECE] for start in range(0, len(text), PIECE)]

    async def send(self, endpoint: Endpoint, reply: Mapping[str, Any], text: str, *, key: str) -> None:
        """See Channel."""
        self.tries += 1
        fault = self.faults.pop(0) if self.faults else None
        if fault is None or self.takes_it:
            self.sent.append(Sent(reply["thread"], text, key))
        if self.hangs is not None:
            await self.hangs.wait()
        if fault is not None:
            raise fault

    async def typing(self, endpoint: Endpoint, reply: Mapping[str, Any]) -> None:
        """See Channel."""
        self.typed.append(reply["thread"])

    async def fetch(self, endpoint: Endpoint, attachment: Attachment, *, most: int) -> bytes:
        """See Channel. A file that nobody has put there has its name as its content."""
        self.fetched.append(attachment.name)
        content = self.files.get(attachment.name, attachment.name.encode())
        if isinstance(content, list):
            content = content.pop(0) if len(content) > 1 else content[0]
        if isinstance(content, OcmtError):
            raise content
        if len(content) > most:
            raise TooLarge(f"The file is larger than {most} bytes.")
        return content
