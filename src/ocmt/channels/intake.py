"""`POST /webhooks/{channel}/{endpoint_id}`: check, keep, commit, and only then say 200. Bare ASGI.

The sender proves itself by the channel's signature on the raw body; there are no cookies and no sessions.
Whatever a stranger sends is answered with 4xx; 5xx is said only where we ourselves can not, and means
"again".
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from uuid import UUID

import structlog
from prometheus_client import Counter
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ocmt.channels.base import Accepted, Answered, Channel, Endpoint, Incoming
from ocmt.channels.endpoints import Endpoints
from ocmt.channels.model import MAX_BODY
from ocmt.channels.writer import Writer
from ocmt.errors import InvalidInput, NotFound, OcmtError, SetupProblem, TooLarge, Unavailable
from ocmt.platform.bucket import Buckets
from ocmt.platform.clock import Clock
from ocmt.platform.http import problem
from ocmt.platform.http.headers import fields, media_type
from ocmt.platform.telemetry import REGISTRY

BURST = 2_000
"""Webhooks of one endpoint that are taken at once; then so many every second:"""
PER_SECOND = 200.0
PATIENCE = 10.0
"""Seconds in which a body has to be here."""
_PATH = re.compile(r"/webhooks/([a-z0-9_]{1,32})/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/?")

WEBHOOKS = Counter(
    "ocmt_webhooks",
    "Webhooks by channel and by how they were answered.",
    ["channel", "status"],
    registry=REGISTRY,
)
log = structlog.get_logger(__name__)


class _TooSlow(InvalidInput):
    """The body did not come in time."""

    code = "too_slow"
    status = 408


class _WrongMethod(InvalidInput):
    """Webhooks are POSTed."""

    code = "method_not_allowed"
    status = 405


class _WrongEncoding(InvalidInput):
    """Signatures are over the bytes as they are: compressed ones we do not take."""

    code = "unsupported_encoding"
    status = 415


class _Gone(Exception):
    """Who was sending has gone: nobody is there to be answered."""


class Intake:
    """The ASGI application of `/webhooks/`."""

    def __init__(
        self,
        channels: Mapping[str, Channel],
        endpoints: Endpoints,
        writer: Writer,
        clock: Clock,
        *,
        patience: float = PATIENCE,
    ) -> None:
        """`patience`: seconds in which a body has to be here."""
        self._channels = channels
        self._endpoints = endpoints
        self._writer = writer
        self._clock = clock
        self._patience = patience
        self._buckets = Buckets(clock, burst=BURST, per_second=PER_SECOND)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        path = _PATH.fullmatch(scope["path"])
        name = path[1] if path and path[1] in self._channels else "unknown"
        try:
            response = await self._answer(path, scope, receive)
        except _Gone:
            return
        except OcmtError as error:
            if error.status >= 500:
                log.warning("webhook_not_taken", channel=name, error=error.message, detail=error.detail)
            if isinstance(error, SetupProblem):  # ours to mend, and then it can come again
                error = Unavailable("This service can not take it just now.", retry_after=60)
            response = problem(error)
            if isinstance(error, _WrongMethod):
                response.headers["Allow"] = "POST"
        WEBHOOKS.labels(name, str(response.status_code)).inc()
        await response(scope, receive, send)

    async def _answer(self, path: re.Match[str] | None, scope: Scope, receive: Receive) -> Response:
        channel = self._channels.get(path[1]) if path else None
        if path is None or channel is None:
            raise NotFound("There is no such page.")
        if scope["method"] != "POST":
            raise _WrongMethod("Webhooks are sent with POST.")
        endpoint = await self._endpoints.get(UUID(path[2]))
        if endpoint is None or endpoint.channel != channel.name:
            raise NotFound("There is no such page.")
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            raise _WrongEncoding("Send the body as it is, without Content-Encoding.")
        body = await self._body(headers, receive)
        return await self._take(channel, endpoint, Incoming(headers, body))

    async def _take(self, channel: Channel, endpoint: Endpoint, incoming: Incoming) -> Response:
        try:
            received = channel.receive(incoming, endpoint, self._clock.now())
        except OcmtError:
            raise
        except Exception as error:
            log.exception("webhook_not_understood", channel=channel.name, endpoint_id=str(endpoint.id))
            raise InvalidInput("This webhook makes no sense.") from error
        if isinstance(received, Answered):
            # Text that somebody else chose must not become a page of ours.
            safe = {
                "X-Content-Type-Options": "nosniff",
                "Content-Security-Policy": "default-src 'none'; sandbox",
            }
            kind = media_type(received.content_type)
            return Response(received.body, headers=fields({"Content-Type": kind, **safe}))
        if isinstance(received, Accepted):
            # Behind the signature: strangers cannot use up what the sender may send.
            self._buckets.take(endpoint.id)
            await self._writer.keep(endpoint.id, received, incoming.body)
        return Response(status_code=200)

    async def _body(self, headers: Mapping[str, str], receive: Receive) -> bytes:
        announced = headers.get("content-length", "")
        if announced.isascii() and announced.isdigit() and int(announced[:20]) > MAX_BODY:
            raise TooLarge("A webhook has at most 1 MB.")
        pieces: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._patience):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise _Gone
                    piece = message.get("body", b"")
                    size += len(piece)
                    if size > MAX_BODY:
                        raise TooLarge("A webhook has at most 1 MB.")
                    pieces.append(piece)
                    if not message.get("more_body", False):
                        return b"".join(pieces)
        except TimeoutError:
            raise _TooSlow("The body did not come in time.") from None
