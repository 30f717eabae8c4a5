"""Any program that signs its webhooks: as Standard Webhooks says, or with a plain HMAC of the body.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md. Answers are POSTed
to a `callback_url`, signed in the same way.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import json
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ocmt.channels.base import (
    Accepted,
    Attachment,
    Connected,
    Endpoint,
    Incoming,
    Message,
    Received,
    SendFailed,
)
from ocmt.channels.model import short_id
from ocmt.channels.wire import (
    WRONG_SIGNATURE,
    NotPublic,
    check_moment,
    moment_of,
    object_of,
    public_session,
    retry_after,
)
from ocmt.chat.controls import may_be_urgent
from ocmt.errors import InvalidInput, Unauthenticated
from ocmt.platform.internet import is_public

if TYPE_CHECKING:
    import aiohttp

SECONDS = 15.0
"""For a callback's answer."""
PIECE = 100_000
"""Characters of one callback."""
_NOT_PUBLIC = "Answers are sent to a public address that begins with https://."
_PREFIX = "whsec_"
_MODES = ("standard", "hmac")


class Signed:
    """The channel `signed`."""

    name = "signed"
    label = "Signed webhook"
    fields: Mapping[str, str] = {
        "mode": "How it is signed: standard (Standard Webhooks) or hmac",
        "callback_url": "Where answers are sent to (https)",
    }
    required = frozenset[str]()
    before: Sequence[str] = (
        "Find out how the program that is to send signs its webhooks. standard: as Standard Webhooks says, "
        "https://www.standardwebhooks.com, for which there are libraries. hmac: with HMAC-SHA256 of the "
        "body.",
        "To have the answers, choose an https address that takes them. Without one they are in the "
        "conversation only.",
    )
    after: Sequence[str] = (
        "Enter the webhook's address and the secret in the program that sends.",
        "standard: the headers webhook-id, webhook-timestamp (seconds, at most five minutes off) and "
        "webhook-signature: v1, a comma, and base64 of the HMAC-SHA256 of id.timestamp.body. The key is "
        "what is behind whsec_, decoded from base64.",
        "hmac: the header X-Signature-256: sha256= and the HMAC-SHA256 of the body in hex. The key is the "
        "secret as it is, with whsec_. The same body counts once, whatever the headers say: put a time or a "
        "number into it, or use standard, to say the same thing twice.",
        "The body is POSTed: JSON with text and, if you like, thread (a conversation of its own for each) "
        "and sender; or anything else, which the agent reads as it is.",
        "Answers are POSTed as JSON with id, thread and text, signed as in standard, whichever way you "
        "chose.",
    )
    answers = True
    pairs = False

    def __init__(
        self,
        session: Callable[[], aiohttp.ClientSession],
        now: Callable[[], datetime] | None = None,
        *,
        local: bool,
    ) -> None:
        """`now`: the time that callbacks are signed with. `local`: all users are on this very machine, so
        that its own addresses are no secret to them; only then callbacks go over `session`."""
        self._session = session
        self._local = local
        self._now = now or (lambda: datetime.now(UTC))

    def receive(self, request: Incoming, endpoint: Endpoint, now: datetime) -> Received:
        """See Channel."""
        if endpoint.settings.get("mode") == "hmac":
            external_id = _plain(request, endpoint)
        else:
            external_id = self._standard(request, endpoint, now)
        data = object_of(request.body)
        # Only a short body can be a control word, and is looked at.
        urgent = len(request.body) < 400 and may_be_urgent(_text(data, request.body))
        return Accepted(short_id(external_id), _said(data, "thread", "default"), urgent)

    def read(self, body: bytes, endpoint: Endpoint) -> Message | None:
        """See Channel."""
        data = object_of(body)
        thread, sender = _said(data, "thread", "default"), _said(data, "sender", "webhook")
        return Message(
            sender=sender,
            sender_name=sender,
            text=_text(data, body),
            thread=thread,
            title=f"Webhook: {thread}",
            reply={"thread": thread},
        )

    def counts_once(self, endpoint: Endpoint) -> bool:
        """See CountsOnce: a plain HMAC has no time in it."""
        return endpoint.settings.get("mode") == "hmac"

    async def connect(self, fields: Mapping[str, str]) -> Connected:
        """See Channel. A secret that there is already stays."""
        mode = fields.get("mode") or "standard"
        if mode not in _MODES:
            raise InvalidInput("The mode is one of: standard, hmac.")
        callback = fields.get("callback_url") or None
        if callback is not None:
            check_callback(callback, local=self._local)
        known = fields.get("secret")
        secret = known or _PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()
        settings: dict[str, Any] = {"mode": mode, "answers": callback is not None}
        if callback is not None:
            settings["callback_url"] = callback
        return Connected("Signed webhook", {"secret": secret}, settings, shown=None if known else secret)

    async def register(self, endpoint: Endpoint, url: str) -> None:
        """See Channel: the user tells the program that sends."""

    async def disconnect(self, endpoint: Endpoint) -> None:
        """See Channel: there is nothing to be removed."""

    def split(self, text: str) -> list[str]:
        """See Channel."""
        return [text[start : start + PIECE] for start in range(0, len(text), PIECE)]

    async def send(self, endpoint: Endpoint, reply: Mapping[str, Any], text: str, *, key: str) -> None:
        """See Channel. To a public address only, whatever the callback's name leads to by now."""
        import aiohttp

        callback = endpoint.settings.get("callback_url")
        if not isinstance(callback, str):
            raise SendFailed("This webhook has no address for answers.", permanent=True)
        body = json.dumps({"id": key, "thread": reply.get("thread"), "text": text}).encode()
        moment = int(self._now().timestamp())
        headers = {
            "content-type": "application/json",
            "webhook-id": key,
            "webhook-timestamp": str(moment),
            "webhook-signature": sign(endpoint.secrets["secret"], key, str(moment), body),
        }
        try:
            async with (
                self._calling() as session,
                session.post(
                    callback,
                    data=body,
                    headers=headers,
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=SECONDS),
                ) as response,
            ):
                status, after = response.status, retry_after(response.headers)
        except (aiohttp.ClientConnectorError, aiohttp.InvalidURL) as error:
            if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, NotPublic):
                raise SendFailed(_NOT_PUBLIC, permanent=True, detail=repr(error)) from error
            raise SendFailed("The address for answers can not be reached.", detail=repr(error)) from error
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise SendFailed(
                "The address for answers did not answer.", uncertain=True, detail=repr(error)
            ) from error
        if 200 <= status < 300:
            return
        # 410: its owner wants no more of them, as Standard Webhooks says.
        permanent = 300 <= status < 500 and status not in (408, 409, 425, 429)
        raise SendFailed(
            f"The address for answers said {status}.",
            permanent=permanent,
            uncertain=status >= 500,
            retry_after=after,
        )

    async def typing(self, endpoint: Endpoint, reply: Mapping[str, Any]) -> None:
        """See Channel: nobody looks."""

    async def fetch(self, endpoint: Endpoint, attachment: Attachment, *, most: int) -> bytes:
        """See Channel: there are no files."""
        raise SendFailed("A signed webhook has no files.", permanent=True)

    @asynccontextmanager
    async def _calling(self) -> AsyncIterator[aiohttp.ClientSession]:
        if self._local:
            yield self._session()
        else:
            async with public_session() as session:
                yield session

    def _standard(self, request: Incoming, endpoint: Endpoint, now: datetime) -> str:
        external_id = request.headers.get("webhook-id", "")
        stamp = request.headers.get("webhook-timestamp", "")
        moment = moment_of(stamp)
        given = request.headers.get("webhook-signature", "")
        if not external_id:
            raise Unauthenticated(WRONG_SIGNATURE)
        expected = sign(endpoint.secrets["secret"], external_id, stamp, request.body).encode()
        # All of them are compared: which one fits is nobody's business. So many are a key's rotation.
        fits = [hmac.compare_digest(one.encode(), expected) for one in given.split(" ")[:10]]
        if not any(fits):
            raise Unauthenticated(WRONG_SIGNATURE)
        check_moment(moment, now)
        return external_id


def _plain(request: Incoming, endpoint: Endpoint) -> str:
    given = request.headers.get("x-signature-256", "")
    key = endpoint.secrets["secret"].encode()
    expected = "sha256=" + hmac.digest(key, request.body, "sha256").hex()
    if not hmac.compare_digest(given.encode(), expected.encode()):
        raise Unauthenticated(WRONG_SIGNATURE)
    # Nothing but the body is signed, so nothing else says which delivery it is: whoever got hold of one
    # could send
    # it again under any header. The same body counts once, whenever it comes again (`counts_once`).
    return hashlib.sha256(request.body).hexdigest()


def sign(secret: str, message_id: str, timestamp: str, body: bytes) -> str:
    """The signature, as Standard Webhooks says: `v1,…`."""
    signed = message_id.encode("utf-8", "surrogatepass") + b"." + timestamp.encode() + b"." + body
    return "v1," + base64.b64encode(hmac.digest(_key(secret), signed, "sha256")).decode()


def check_callback(url: str, *, local: bool) -> None:
    """An address that answers may be sent to: https; or, where all users are `local`, this very machine.

    A private address would be one that the server reaches and its user must not. Where a name leads is looked
    at when an answer is sent. Raises: InvalidInput.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise InvalidInput("This is not an address.") from None
    if not host or len(url) > 2000 or not url.isprintable() or parts.username or parts.password:
        raise InvalidInput("This is not an address that answers can be sent to.")
    if local and _is_loopback(host):
        return
    if parts.scheme != "https" or _is_private(host):
        raise InvalidInput(_NOT_PUBLIC)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_private(host: str) -> bool:
    try:
        return host == "localhost" or not is_public(ipaddress.ip_address(host))
    except ValueError:
        return False


def _key(secret: str) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return secret.encode()


def _text(data: Mapping[str, Any], body: bytes) -> str:
    text = data.get("text")
    return text if isinstance(text, str) else body.decode("utf-8", "replace")


def _said(data: Mapping[str, Any], name: str, else_: str) -> str:
    value = data.get(name)
    return short_id(value) if isinstance(value, str) and value else else_
