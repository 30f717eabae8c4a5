"""What of a request reaches an agent's gateway, and how much one user may send. Pure.

Nothing of the request is passed on but what is named here: no cookie, no token, no address of the user's, no
header that the gateway would trust. What it does trust is added: that the platform knows its owner.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ocmt.errors import InvalidInput
from ocmt.openclaw.config import GATEWAY_PORT, OWNER, OWNER_HEADER, OWNER_ORIGIN, PROXY_HEADER
from ocmt.platform.http.headers import is_token, media_type, raw_fields, retry_after

Headers = Iterable[tuple[bytes, bytes]]

SOMEWHERE = "203.0.113.1"
"""What the gateway hears of the user's address, which is nobody's business in there; it wants one that is not
its own machine's. Source: RFC 5737, TEST-NET-3."""
MAX_PATH = 1_000
MAX_SUBPROTOCOLS = 10

_ROUTES: Mapping[str, str] = {
    "/healthz": "GET",
    "/readyz": "GET",
    "/v1/models": "GET",
    "/v1/chat/completions": "POST",
    "/v1/responses": "POST",
}
"""The gateway's own addresses that its user may use: those that talk, none that configures."""
_SENT_ON = (
    b"content-type",
    b"accept",
    b"x-openclaw-session-key",
    b"x-openclaw-agent-id",
    b"x-openclaw-model",
)
_SHOWN = frozenset({"application/json", "text/event-stream", "text/plain"})
"""Media types that an answer may have at our address. Everything else is data that no browser shows."""
_STATUSES = frozenset(
    {200, 201, 202, 204, 400, 403, 404, 405, 408, 409, 413, 415, 422, 429, 500, 501, 502, 503, 504}
)
"""Statuses that are passed on. None of them makes a browser or a program go elsewhere, ask for a password, or
change how it talks to our address."""


@dataclass(frozen=True)
class Limits:
    """What one user's programs may do together."""

    sockets: int = 10
    frame_bytes: int = 25 * 1024**2
    """Of one message: as much as OpenClaw takes itself."""
    bytes_per_second: int = 4 * 1024**2
    burst_bytes: int = 64 * 1024**2
    messages_per_second: int = 200
    burst_messages: int = 2_000


def handshake(headers: Headers) -> bytes:
    """The request to the gateway that begins a WebSocket. Raises: InvalidInput.

    Without extensions: what is compressed could not be bounded by anybody on the way. The subprotocols that
    the client offers are named again; the answer may choose one of them (`platform.http.handshake`).
    """
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in found and name.startswith(b"sec-websocket-"):
            raise InvalidInput("This is no WebSocket handshake: a header comes twice.")
        found[name] = value
    key = found.get(b"sec-websocket-key", b"")
    if found.get(b"sec-websocket-version") != b"13" or not _is_key(key):
        raise InvalidInput("This is no WebSocket handshake of version 13 (RFC 6455).")
    lines = [
        b"GET / HTTP/1.1",
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: " + key,
        *_subprotocols(found.get(b"sec-websocket-protocol", b"")),
        *(b"%s: %s" % pair for pair in identity_headers(from_page=b"origin" in found)),
    ]
    return b"\r\n".join([*lines, b"", b""])


def _subprotocols(offered: bytes) -> list[bytes]:
    if not offered:
        return []
    names = [name.strip(b" \t") for name in offered.split(b",")]
    if len(names) > MAX_SUBPROTOCOLS or not all(map(is_token, names)):
        raise InvalidInput("This is no WebSocket handshake: its subprotocols are no list of names.")
    return [b"Sec-WebSocket-Protocol: " + b", ".join(names)]


def identity_headers(*, from_page: bool = False) -> list[tuple[bytes, bytes]]:
    """Who asks, in the words of OpenClaw's `trusted-proxy` mode. `from_page`: a browser's page does."""
    named = {
        "Host": f"127.0.0.1:{GATEWAY_PORT}",
        OWNER_HEADER: OWNER,
        PROXY_HEADER: "1",
        "X-Forwarded-For": SOMEWHERE,
        **({"Origin": OWNER_ORIGIN} if from_page else {}),
    }
    return [(name.encode(), value.encode()) for name, value in named.items()]


def may_ask(method: str, path: str) -> bool:
    """Whether that is one of the gateway's addresses for its user. `path`: as it came, nothing decoded."""
    return len(path) <= MAX_PATH and _ROUTES.get(path) == method


def sent_on(headers: Headers) -> list[tuple[bytes, bytes]]:
    """The headers of a request that the gateway is to see."""
    return [*identity_headers(), *((name, value) for name, value in headers if name in _SENT_ON)]


def status_back(status: int) -> int | None:
    """Return the status of our answer for that of the agent's; None where it is not the agent's to give."""
    if status in _STATUSES:
        return status
    return {2: 200, 4: 400, 5: 502}.get(status // 100)


def sent_back(headers: Headers) -> list[tuple[bytes, bytes]]:
    """The headers of our answer, written anew from what the agent's says.

    The agent is not trusted: what it says is data on our address, never a page that could act there. Of its
    headers only two are read, and of these only what is well-formed.
    """
    named: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        named.setdefault(name.lower(), []).append(value)
    kinds, pauses = named.get(b"content-type", []), named.get(b"retry-after", [])
    pause = retry_after(pauses[0]) if len(pauses) == 1 else None
    return raw_fields(
        {
            "content-type": media_type(kinds[0] if len(kinds) == 1 else None, among=_SHOWN),
            **({"retry-after": pause} if pause is not None else {}),
            "cache-control": "no-store",
            "content-security-policy": "sandbox; default-src 'none'",
            "x-content-type-options": "nosniff",
            "x-accel-buffering": "no",
        }
    )


def _is_key(key: bytes) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except binascii.Error:
        return False
