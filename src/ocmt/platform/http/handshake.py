"""The answer to a WebSocket handshake, read from one side and written anew for the other. Sans-I/O.

The other side may be an agent, so nothing of its answer is passed on. h11 reads it; what must be right is
compared (RFC 6455 4.1); and the bytes that go out are made of the client's own key, and at most of the name
of one subprotocol that the client itself offered.
"""

from __future__ import annotations

import base64
import hashlib

import h11

from ocmt.platform.http.headers import is_token

MAX_HEAD = 16 * 1024
"""Bytes that the other side may send before its answer is complete."""
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class HandshakeFailed(Exception):
    """The other side did not answer as a WebSocket server does."""


class ClientHandshake:
    """One handshake, from the client's side: what to send, and what the other side has to say to it."""

    def __init__(self, head: bytes) -> None:
        """`head`: the request, which we have written ourselves."""
        reader = h11.Connection(h11.SERVER)
        reader.receive_data(head)
        request = reader.next_event()
        assert isinstance(request, h11.Request), "we have written it"
        headers = dict(request.headers)
        key = headers[b"sec-websocket-key"]
        self._accept = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
        self._offered = frozenset(_items(headers.get(b"sec-websocket-protocol", b"")))
        self._protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        self.request = (self._protocol.send(request) or b"") + (
            self._protocol.send(h11.EndOfMessage()) or b""
        )
        """The bytes to send."""
        self._read = 0

    def feed(self, data: bytes) -> tuple[bytes, bytes] | None:
        """Take the next bytes of the other side; None where its answer is not complete yet.

        Returns the answer for the client, and what came behind it. Raises: HandshakeFailed.
        """
        self._read += len(data)
        try:
            self._protocol.receive_data(data)
            while (event := self._protocol.next_event()) is not h11.NEED_DATA:
                if not isinstance(event, h11.InformationalResponse):
                    status = getattr(event, "status_code", "nothing")
                    raise HandshakeFailed(f"it answered {status}")
                if event.status_code == 101:
                    return self._answer(event), self._protocol.trailing_data[0]
        except h11.RemoteProtocolError as error:
            raise HandshakeFailed(f"its answer is no HTTP: {error}") from error
        if self._read > MAX_HEAD:
            raise HandshakeFailed("an endless head")
        return None

    def _answer(self, answer: h11.InformationalResponse) -> bytes:
        named: dict[bytes, list[bytes]] = {}
        for name, value in answer.headers:
            named.setdefault(name, []).append(value)
        if answer.http_version != b"1.1":
            raise HandshakeFailed("its answer is not HTTP/1.1")
        if named.get(b"sec-websocket-accept") != [self._accept]:
            raise HandshakeFailed("its Sec-WebSocket-Accept does not belong to our key")
        if b"sec-websocket-extensions" in named:
            raise HandshakeFailed("it wants an extension, and none was offered")
        if any(value.lower() != b"websocket" for value in named.get(b"upgrade", ())):
            raise HandshakeFailed("it upgrades to something else")
        if {b"content-length", b"transfer-encoding"} & named.keys():
            raise HandshakeFailed("its answer announces a body")
        lines = [
            b"HTTP/1.1 101 Switching Protocols",
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Accept: " + self._accept,
        ]
        chosen = named.get(b"sec-websocket-protocol", [])
        if chosen:
            if len(chosen) > 1 or chosen[0] not in self._offered:
                raise HandshakeFailed("it wants a subprotocol that was not offered")
            # The name that the client wrote, not the bytes that came back.
            lines.append(
                b"Sec-WebSocket-Protocol: " + next(each for each in self._offered if each == chosen[0])
            )
        return b"\r\n".join([*lines, b"", b""])


def _items(value: bytes) -> list[bytes]:
    items = [item.strip(b" \t") for item in value.split(b",")]
    return [item for item in items if is_token(item)]
