"""The port that every channel is an adapter of: Telegram, Slack, GitHub, anything that signs its webhooks.

A channel is one file. `receive` and `read` are pure and see only bytes that a stranger may have sent;
the others talk to the vendor's API, each call with a timeout of its own. A channel keeps nothing: what it
must remember (a bot's token, its name) is in `Endpoint`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, runtime_checkable
from uuid import UUID

from ocmt.errors import OcmtError


@dataclass(frozen=True)
class Endpoint:
    """One connected channel of one user: where its webhooks arrive and what it takes to answer."""

    id: UUID
    user_id: UUID
    channel: str
    secrets: Mapping[str, str] = field(repr=False)
    """What must not be shown: `token`, `signing_secret`, …; the channel's own names. Kept sealed."""
    settings: Mapping[str, Any]
    """What may be shown: the bot's name, its own id, …; the channel's own names."""


@dataclass(frozen=True)
class Incoming:
    """A webhook as it arrived."""

    headers: Mapping[str, str]
    """Names in lower case; a repeated one has its last value."""
    body: bytes
    """Raw: signatures are over these very bytes."""


@dataclass(frozen=True)
class Accepted:
    """It is genuine and is to be kept."""

    external_id: str
    """The sender's own id of it, at most 200 characters: the same delivery again has the same."""
    thread: str
    """What it belongs to (a chat, a thread), at most 200 characters: within one, the order is kept."""
    urgent: bool = field(default=False, compare=False)
    """It may be a control word: then it does not wait for what is before it in its thread."""
    together: str | None = field(default=None, compare=False)
    """What it may be one message with: neighbors of the same thread with the same mark (at most 200
    characters) that arrive soon after one another; of one that begins with `album:`, wherever they are."""
    wait: float = field(default=0.0, compare=False)
    """Seconds in which something that belongs to it may still come."""


@dataclass(frozen=True)
class Answered:
    """It is genuine and wants this answer and nothing else (Slack's `url_verification`)."""

    body: bytes
    content_type: str = "text/plain; charset=utf-8"


@dataclass(frozen=True)
class Ignored:
    """It is genuine and nothing for us: acknowledged, not kept."""


Received = Accepted | Answered | Ignored


@dataclass(frozen=True)
class Attachment:
    """A file that came with a message; `fetch` gets its content."""

    reference: str
    """The channel's own: a file id, an address."""
    name: str
    media_type: str
    size: int | None = None
    """Bytes, where the sender said."""


@dataclass(frozen=True)
class Message:
    """What somebody said, for the agent."""

    sender: str
    """The channel's id of who said it, which is what the owner approves."""
    sender_name: str
    text: str
    thread: str
    """As in Accepted."""
    title: str
    """Of the conversation that it belongs to, in words: "Telegram: Ada"."""
    attachments: Sequence[Attachment] = ()
    reply: Mapping[str, Any] = field(default_factory=dict)
    """What `send` needs to answer it (chat id, message id, thread): JSON."""
    private: bool = True
    """Between the sender and the bot alone: only there a pairing code is told."""
    context: str = ""
    """What stands beside the sender's own words: quotes, forwarded messages, places, contacts. Text for the
    agent, bounded and marked as material (`quoting`)."""
    unreadable: str = ""
    """In words, what of it cannot be read ("a gift"): said to the sender where nothing else is left."""


@dataclass(frozen=True)
class Connected:
    """What `connect` found out."""

    name: str
    """For the user: "@my_bot"."""
    secrets: Mapping[str, str] = field(repr=False)
    settings: Mapping[str, Any]
    """`answers: False` among them: over this endpoint no answer can be sent."""
    shown: str | None = field(default=None, repr=False)
    """A secret that we made and that the user must enter at the vendor: shown this once."""


@runtime_checkable
class Gathers(Protocol):
    """A channel whose vendor delivers as several webhooks what people send as one thing."""

    def read_together(self, bodies: Sequence[bytes], endpoint: Endpoint) -> Message | None:
        """One message from bodies that `receive` accepted with the same `together`, oldest first.

        As `Channel.read` otherwise. What addresses the bot in one of them counts for all.
        """


@runtime_checkable
class CountsOnce(Protocol):
    """A channel with deliveries that prove no time: a copy of one must not count, however old it is."""

    def counts_once(self, endpoint: Endpoint) -> bool:
        """Whether the ids of this endpoint's deliveries stay known after the deliveries are forgotten."""


class SendFailed(OcmtError):
    """The channel's API did not take it.

    `kind` temporary (the default): try again, after `retry_after` where it said so; `permanent=True`: never.
    `uncertain`: it may have taken it all the same (a timeout behind the request), so a second try may double.
    """

    code = "channel_failed"
    status = 502

    def __init__(
        self,
        message: str,
        *,
        permanent: bool = False,
        uncertain: bool = False,
        detail: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, detail=detail, retry_after=retry_after)
        self.permanent = permanent
        self.uncertain = uncertain


class Channel(Protocol):
    """One kind of channel."""

    @property
    def name(self) -> str:
        """The word in addresses and rows: `telegram`."""

    @property
    def label(self) -> str:
        """For people: `Telegram`."""

    @property
    def fields(self) -> Mapping[str, str]:
        """What the user fills in to connect one: name → label, "" values never. Secret ones end in
        `token` or `secret`."""

    @property
    def before(self) -> Sequence[str]:
        """What a person does at the vendor before they fill in `fields`: steps in plain words, addresses
        among them as `https://…`."""

    @property
    def after(self) -> Sequence[str]:
        """What they do once it is connected, beside the webhook's address and, where there is one, the secret
        that is shown once."""

    @property
    def required(self) -> Collection[str]:
        """Names of fields that must be filled in; with the others the form may be left as it is."""

    @property
    def answers(self) -> bool:
        """Whether an agent's answer can be sent back over it; an endpoint's settings may say no."""

    @property
    def pairs(self) -> bool:
        """Whether each sender has to be let in by the owner. False: who has the secret is trusted."""

    def receive(self, request: Incoming, endpoint: Endpoint, now: datetime) -> Received:
        """Check the signature, constant time, on the raw body; pure and quick (the hot path).

        Raises: Unauthenticated for a signature that is missing, wrong or stale (over 5 minutes), InvalidInput
        for a genuine body that makes no sense.
        """

    def read(self, body: bytes, endpoint: Endpoint) -> Message | None:
        """The message in a body that `receive` accepted; None: nothing that the agent should see (edits, a
        group's chatter that does not mention the bot). Never raises for what `receive` accepted."""

    async def connect(self, fields: Mapping[str, str]) -> Connected:
        """Check what the user filled in, and find out whose it is. Nothing is changed at the vendor.

        Calling it again for the same endpoint, with all its secrets and settings as `fields`, is how it is
        repaired. Raises: InvalidInput (what the vendor says is wrong with it), Unavailable.
        """

    async def register(self, endpoint: Endpoint, url: str) -> None:
        """Have the vendor send its webhooks to `url`, which has the endpoint's id in it, where its API can.

        The endpoint is known at that address by then, for vendors try it at once. Registering it again, or at
        another `url`, changes the webhook that there is. Raises: InvalidInput, Unavailable.
        """

    async def disconnect(self, endpoint: Endpoint) -> None:
        """Remove the webhook there. Succeeds where it is gone. Raises: Unavailable."""

    def split(self, text: str) -> list[str]:
        """An answer in pieces that one message of this channel can hold, none empty."""

    async def send(self, endpoint: Endpoint, reply: Mapping[str, Any], text: str, *, key: str) -> None:
        """Send one piece. `key`: the same at every try, for APIs that know duplicates. Raises: SendFailed."""

    async def typing(self, endpoint: Endpoint, reply: Mapping[str, Any]) -> None:
        """Show that an answer is on its way, for some seconds. Raises: SendFailed, of no consequence."""

    async def fetch(self, endpoint: Endpoint, attachment: Attachment, *, most: int) -> bytes:
        """A file's content. Raises: TooLarge over `most` bytes, SendFailed."""
