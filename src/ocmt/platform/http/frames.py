"""Where WebSocket frames begin and end in a stream of bytes that somebody else reads. Sans-I/O, RFC 6455 5.2.

A relay of raw bytes needs to know little: whether it stands between two frames (only there it may add one of
its own), how large a frame is announced to be, and whether what passes is data or mere keep-alive.
"""

from __future__ import annotations

_CLOSE = 8


class FrameTooLarge(Exception):
    """A frame announces more than is allowed."""


class FrameMeter:
    """Follows one direction of a connection."""

    __slots__ = ("_head", "_left", "_most", "closing", "data_frames")

    def __init__(self, most: int) -> None:
        """`most`: bytes that one frame may carry."""
        self._most = most
        self._left = 0
        self._head = b""
        self.data_frames = 0
        """Frames so far that are no ping, pong or close."""
        self.closing = False
        """Whether a close frame has passed: nothing may follow it."""

    @property
    def between(self) -> bool:
        """Whether no frame is under way."""
        return not self._left and not self._head

    def feed(self, data: bytes) -> None:
        """The next bytes, in pieces of any size. Raises: FrameTooLarge."""
        size = len(data)
        left = self._left
        if left >= size:
            self._left = left - size
            return
        at = left
        if self._head:
            # Rare: a header in two pieces.
            data = self._head + data
            size += len(self._head)
            self._head = b""
        while at < size:
            if size - at < 2:
                break
            first, second = data[at], data[at + 1]
            length = second & 0x7F
            head = 2
            if length == 126:
                if size - at < 4:
                    break
                length = data[at + 2] << 8 | data[at + 3]
                head = 4
            elif length == 127:
                if size - at < 10:
                    break
                length = int.from_bytes(data[at + 2 : at + 10], "big")
                head = 10
            if second & 0x80:
                head += 4
            if length > self._most:
                raise FrameTooLarge
            opcode = first & 0x0F
            if opcode < _CLOSE:
                self.data_frames += 1
            elif opcode == _CLOSE:
                self.closing = True
            at += head + length
        if at >= size:
            self._left = at - size
        else:
            self._left = 0
            self._head = data[at:]


def close_frame(code: int, reason: str) -> bytes:
    """A server's close frame. `reason`: at most 123 bytes."""
    payload = code.to_bytes(2, "big") + reason.encode()[:123]
    return bytes((0x80 | _CLOSE, len(payload))) + payload


def masked_close_frame(code: int) -> bytes:
    """A client's close frame, under a mask of zeros: no secret is in it."""
    return bytes((0x80 | _CLOSE, 0x80 | 2, 0, 0, 0, 0)) + code.to_bytes(2, "big")
