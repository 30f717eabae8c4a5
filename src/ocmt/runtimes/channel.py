"""The platform's end of the control channel to a supervisor: messages, and the sockets that come with them.

All that arrives is from inside a sandbox and untrusted: sizes, shapes and kinds of socket are checked,
whatever is not expected closes the channel. A message's shape is judged here, its sense by `supervised.py`.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
from collections.abc import Callable
from functools import cache
from typing import Any

from ocmt.errors import OcmtError, Unavailable

MAX_MESSAGE = 64 * 1024
_MESSAGES_AT_ONCE = 16
_SO_NETNS_COOKIE = 71


class Misbehaviour(OcmtError):
    """Something inside a sandbox has broken the rules of the control channel; the sandbox must end."""

    code = "agent_misbehaved"


class Channel:
    """One control channel, read by the running event loop."""

    def __init__(
        self,
        end: socket.socket,
        *,
        on_message: Callable[[dict[str, Any], int | None], None],
        on_closed: Callable[[Misbehaviour | None], None],
    ) -> None:
        """`on_message` owns the file descriptor that it is given and may raise Misbehaviour."""
        end.setblocking(False)
        self._end = end
        self._on_message = on_message
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(end.fileno(), self._readable)

    def send(self, body: dict[str, object], attached: int | None = None) -> None:
        """The descriptor stays the caller's.

        Raises: Unavailable where the supervisor is gone or has stopped reading.
        """
        data = json.dumps(body).encode()
        if len(data) > MAX_MESSAGE:
            raise Unavailable("The agent's environment is too large.", detail=f"{len(data)} bytes")
        try:
            if attached is None:
                self._end.send(data)
            else:
                socket.send_fds(self._end, [data], [attached])
        except OSError as error:
            raise Unavailable("The agent does not answer just now.", detail=repr(error)) from error

    def close(self) -> None:
        """Close it without a word to `on_closed`; the supervisor takes that for the platform's end."""
        if self._end.fileno() >= 0:
            self._loop.remove_reader(self._end.fileno())
            self._end.close()

    def drain(self) -> None:
        """Take the messages that are there already, so that a last report is not missed."""
        if self._end.fileno() >= 0:
            self._readable()

    def _readable(self) -> None:
        for _ in range(_MESSAGES_AT_ONCE):
            try:
                if self._end.fileno() < 0 or not self._receive():
                    return
            except Misbehaviour as error:
                self._ended(error)

    def _ended(self, error: Misbehaviour | None) -> None:
        self.close()
        self._on_closed(error)

    def _receive(self) -> bool:
        """One message; False where there is none left for now."""
        try:
            data, descriptors, flags, _ = socket.recv_fds(
                self._end, MAX_MESSAGE + 1, 4, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return False
        except OSError:
            data, descriptors, flags = b"", [], 0
        try:
            if not data:
                self._ended(None)
                return False
            if (
                flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)
                or len(data) > MAX_MESSAGE
                or len(descriptors) > 1
            ):
                raise Misbehaviour("The agent broke the rules of its channel.", detail="oversized message")
            body = _parse(data)
            attached = descriptors.pop() if descriptors else None
            self._on_message(body, attached)
        finally:
            for number in descriptors:
                os.close(number)
        return True


def _parse(data: bytes) -> dict[str, Any]:
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Misbehaviour("The agent broke the rules of its channel.", detail="not JSON") from error
    if not isinstance(body, dict) or not isinstance(body.get("event"), str):
        raise Misbehaviour("The agent broke the rules of its channel.", detail="not an event")
    return body


def checked_socket(descriptor: int | None, *, port: int, listening: bool) -> socket.socket:
    """The socket behind a descriptor from inside, if it is just what was asked for: TCP over IPv4 on
    127.0.0.1:port, listening or connected to there, and not of the platform's own network namespace.

    Owns the descriptor. Returns it non-blocking. Raises: Misbehaviour.
    """
    if descriptor is None:
        raise Misbehaviour("The agent broke the rules of its channel.", detail="a socket was missing")
    try:
        found = socket.socket(fileno=descriptor)
    except OSError as error:
        os.close(descriptor)
        raise Misbehaviour("The agent broke the rules of its channel.", detail="not a socket") from error
    try:
        fault = _fault(found, port, listening)
    except OSError as error:
        fault = repr(error)
    if fault:
        found.close()
        raise Misbehaviour("The agent broke the rules of its channel.", detail=fault)
    found.setblocking(False)
    return found


def _fault(found: socket.socket, port: int, listening: bool) -> str | None:
    if (found.family, found.type, found.proto) != (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP):
        return f"a socket of another kind: {found.family!r} {found.type!r} {found.proto}"
    if bool(found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)) is not listening:
        return "a listener for a connection, or the other way round"
    address = found.getsockname() if listening else found.getpeername()
    if address != ("127.0.0.1", port):
        return f"a socket of another address: {address}"
    cookie = _namespace_of(found)
    if cookie is not None and cookie == _own_namespace():
        return "a socket of the platform's own network"
    return None


@cache
def _own_namespace() -> int | None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as own:
        return _namespace_of(own)


def _namespace_of(found: socket.socket) -> int | None:
    """The cookie of a socket's network namespace; None on kernels before 5.14."""
    try:
        raw: bytes = found.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
    except OSError:
        return None
    return int(struct.unpack("Q", raw)[0])
