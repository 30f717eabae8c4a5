"""Webhooks as their vendors send them: what the attacks are made of."""

from __future__ import annotations

import hmac
import json
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar
from uuid import UUID, uuid4

from ocmt.channels.signed import sign
from ocmt.testing.github import signed

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Request:
    """One in its parts, which need not fit together."""

    target: bytes
    headers: Headers
    body: bytes
    method: bytes = b"POST"
    version: bytes = b"HTTP/1.1"
    external_id: str = ""
    """Under which it will be a row."""

    def head(self) -> bytes:
        """Up to the body."""
        lines = [self.method + b" " + self.target + b" " + self.version]
        lines += [name + b": " + value for name, value in self.headers]
        return b"\r\n".join([*lines, b"", b""])

    def wire(self) -> bytes:
        """As it goes over the wire."""
        return self.head() + self.body

    def having(self, name: bytes, *values: bytes) -> Request:
        """With these values of a header instead of those that there are."""
        others = [pair for pair in self.headers if pair[0].lower() != name.lower()]
        return replace(self, headers=[*others, *((name, value) for value in values)])


@dataclass
class Door(ABC):
    """One connected channel, and what opens it."""

    endpoint: UUID
    secret: str
    api: Any = None
    """The vendor's double, where it has one."""
    channel: ClassVar[str]
    proof: ClassVar[bytes]
    """The header with the signature."""
    stamp: ClassVar[bytes | None] = None
    """The header with the time, where that is signed."""
    signed: set[bytes] = field(default_factory=set)
    """All bodies that were signed."""

    @property
    def path(self) -> bytes:
        return f"/webhooks/{self.channel}/{self.endpoint}".encode()

    @abstractmethod
    def payload(self) -> tuple[str, Any]:
        """A new one, and its id."""

    @abstractmethod
    def prove(self, body: bytes, external_id: str, when: float) -> dict[str, str]:
        """The headers that make it genuine."""

    def request(self, host: str, *, body: bytes | None = None, age: float = 0, told: str = "") -> Request:
        """A new one; with that body instead of its own, so old, with that id."""
        external_id, payload = self.payload()
        external_id = told or external_id
        if body is None:
            body = json.dumps(payload).encode()
        self.signed.add(body)
        proof = self.prove(body, external_id, time.time() - age)
        headers = [
            (b"Host", host.encode()),
            (b"Content-Type", b"application/json"),
            *((name.encode(), value.encode("latin-1", "replace")) for name, value in proof.items()),
            (b"Content-Length", b"%d" % len(body)),
        ]
        return Request(self.path, headers, body, external_id=external_id)


class TelegramDoor(Door):
    """See ocmt.testing.telegram."""

    channel = "telegram"
    proof = b"X-Telegram-Bot-Api-Secret-Token"

    def payload(self) -> tuple[str, Any]:
        update = self.api.say("Hello")
        return str(update["update_id"]), update

    def prove(self, body: bytes, external_id: str, when: float) -> dict[str, str]:
        return {self.proof.decode(): self.secret}


class SlackDoor(Door):
    """See ocmt.testing.slack."""

    channel = "slack"
    proof = b"X-Slack-Signature"
    stamp = b"X-Slack-Request-Timestamp"

    def payload(self) -> tuple[str, Any]:
        event = self.api.say("Hello")
        return event["event_id"], event

    def prove(self, body: bytes, external_id: str, when: float) -> dict[str, str]:
        moment = str(int(when))
        digest = hmac.digest(self.secret.encode(), b"v0:" + moment.encode() + b":" + body, "sha256")
        return {"X-Slack-Request-Timestamp": moment, "X-Slack-Signature": "v0=" + digest.hex()}


class GitHubDoor(Door):
    """See ocmt.testing.github."""

    channel = "github"
    proof = b"X-Hub-Signature-256"

    def payload(self) -> tuple[str, Any]:
        event = self.api.comment("@ocmt-bot hello")
        return f"issue_comment:{event['comment']['id']}", event

    def prove(self, body: bytes, external_id: str, when: float) -> dict[str, str]:
        named = {"X-GitHub-Event": "issue_comment", "X-GitHub-Delivery": str(uuid4())}
        return {**signed(self.secret, body), **named}


class StandardDoor(Door):
    """https://github.com/standard-webhooks/standard-webhooks."""

    channel = "signed"
    proof = b"webhook-signature"
    stamp: ClassVar[bytes | None] = b"webhook-timestamp"

    def payload(self) -> tuple[str, Any]:
        number = uuid4().hex
        return f"msg_{number}", {"text": f"Hello {number}", "thread": "t", "sender": "cron"}

    def prove(self, body: bytes, external_id: str, when: float) -> dict[str, str]:
        moment = str(int(when))
        signature = sign(self.secret, external_id, moment, body)
        return {"webhook-id": external_id, "webhook-timestamp": moment, "webhook-signature": signature}


class HmacDoor(StandardDoor):
    """The same channel, with a plain HMAC."""

    proof = b"X-Signature-256"
    stamp = None

    def prove(self, body: bytes, external_id: str, when: float) -> dict[str, str]:
        digest = hmac.digest(self.secret.encode(), body, "sha256")
        return {"X-Signature-256": "sha256=" + digest.hex(), "X-Delivery-Id": external_id}
