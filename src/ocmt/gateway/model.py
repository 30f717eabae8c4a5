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

Headers = Iterable[tuple[bytes, bytes]]

SOMEWHERE = "203.0.113.1"
"""What the gateway hears of the user's address, which is nobody's business in there; it wants one that is not
its own machine's. Source: RFC 5737, TEST-NET-3."""
MAX_PATH = 1_000

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
_SENT_BACK = frozenset({b"content-type", b"retry-after"})


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

    Without extensions: what is compressed could not be bounded by anybody on the way.
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
        *(b"%s: %s" % pair for pair in identity_headers(from_page=b"origin" in found)),
    ]
    return b"\r\n".join([*lines, b"", b""])


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


def sent_back(headers: Headers) -> list[tuple[bytes, bytes]]:
    """The headers of its answer that the user is to see.

    The agent is not trusted: what it says is data on our address, never a page that could act there.
    """
    kept = [(name.lower(), value) for name, value in headers if name.lower() in _SENT_BACK]
    return [
        *kept,
        (b"cache-control", b"no-store"),
        (b"content-security-policy", b"sandbox; default-src 'none'"),
        (b"x-content-type-options", b"nosniff"),
        (b"x-accel-buffering", b"no"),
    ]


def _is_key(key: bytes) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except binascii.Error:
        return False
