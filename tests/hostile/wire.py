"""A client that sends any bytes, and reads what comes back strictly: RFC 9112, and RFC 6455's frames."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

_STATUS = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2}) [\t\x20-\x7e]*")
_HEADER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+: ?[\t\x20-\x7e\x80-\xff]*")
_CHUNK = re.compile(rb"[0-9a-f]{1,16}")
_MOST_HEAD = 64 * 1024


class Malformed(Exception):
    """What came is no HTTP, or no frames."""


@dataclass(frozen=True)
class Answer:
    """One answer, without those of 1xx before it but for 101."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def header(self, name: bytes) -> bytes | None:
        """The value; fails where it is there twice."""
        found = [value for key, value in self.headers if key == name]
        assert len(found) <= 1, self
        return found[0] if found else None


@dataclass
class Connection:
    """One to the server."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    received: bytearray = field(default_factory=bytearray)
    ended: bool = False

    async def send(self, pieces: Sequence[bytes]) -> None:
        """One after the other; what the server hangs up on is left."""
        with contextlib.suppress(ConnectionError):
            for number, piece in enumerate(pieces):
                if number:
                    await asyncio.sleep(0)
                self.writer.write(piece)
                await self.writer.drain()

    async def read(self, seconds: float) -> bool:
        """Wait for more, or the end; whether one of them came in time."""
        if self.ended:
            return False
        try:
            async with asyncio.timeout(seconds):
                data = await self.reader.read(65536)
        except TimeoutError:
            return False
        except ConnectionError:
            data = b""
        self.received += data
        self.ended = not data
        return True

    async def answer(self, seconds: float) -> Answer:
        """The next one, which has to come in time; taken out of what was received."""
        async with asyncio.timeout(seconds):
            while True:
                found, rest = answers(bytes(self.received), most=1)
                if found:
                    self.received[:] = rest
                    return found[0]
                if self.ended:
                    raise Malformed(f"no answer, only {bytes(self.received)!r}")
                await self.read(seconds)

    async def end(self, seconds: float) -> bool:
        """Whether the server ends it in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self.ended:
                    await self.read(seconds)
        return self.ended

    def abort(self) -> None:
        """Hang up."""
        self.writer.transport.abort()


@contextlib.asynccontextmanager
async def connection(port: int) -> AsyncIterator[Connection]:
    """A new one, aborted at the end."""
    opened = await open_connection(port)
    try:
        yield opened
    finally:
        opened.abort()


async def open_connection(port: int) -> Connection:
    """A new one, to be aborted."""
    return Connection(*await asyncio.open_connection("127.0.0.1", port))


async def ask(port: int, request: bytes, *, seconds: float = 30) -> Answer:
    """One request on a connection of its own, and its answer."""
    async with connection(port) as opened:
        await opened.send([request])
        return await opened.answer(seconds)


def answers(data: bytes, *, most: int = 1_000) -> tuple[list[Answer], bytes]:
    """Those that are whole, and what is left. Raises: Malformed, for what can not become one either."""
    found: list[Answer] = []
    while data and len(found) < most:
        head, end, rest = data.partition(b"\r\n\r\n")
        if not end:
            if len(data) > _MOST_HEAD or not (b"HTTP/1.1 "[: len(data)] == data[:9]):
                raise Malformed(f"no beginning of an answer: {data[:200]!r}")
            break
        first, *lines = head.split(b"\r\n")
        status = _STATUS.fullmatch(first)
        if status is None or not all(map(_HEADER.fullmatch, lines)):
            raise Malformed(f"no head of an answer: {head[:500]!r}")
        pairs = (line.partition(b":") for line in lines)
        headers = tuple((name.lower(), value.strip()) for name, _, value in pairs)
        number = int(status[1])
        body, left = _body(number, headers, rest)
        if body is None:
            break
        data = left
        if number >= 200 or number == 101:
            found.append(Answer(number, headers, body))
        if number == 101:
            break
    return found, data


def _body(status: int, headers: Sequence[tuple[bytes, bytes]], rest: bytes) -> tuple[bytes | None, bytes]:
    """It and what is behind it; None where it is not whole yet."""
    if status < 200 or status in (204, 304):
        return b"", rest
    lengths = [value for name, value in headers if name == b"content-length"]
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    if len(lengths) + len(codings) != 1 or not all(value.isdigit() for value in lengths):
        raise Malformed(f"how long is that? {headers!r}")
    if lengths:
        length = int(lengths[0])
        return (rest[:length], rest[length:]) if len(rest) >= length else (None, rest)
    body = b""
    while True:
        size, end, rest = rest.partition(b"\r\n")
        if not end:
            return None, rest
        if not _CHUNK.fullmatch(size):
            raise Malformed(f"no chunk: {size[:200]!r}")
        length = int(size, 16)
        if len(rest) < length + 2:
            return None, rest
        if rest[length : length + 2] != b"\r\n":
            raise Malformed("a chunk of another length")
        body, rest = body + rest[:length], rest[length + 2 :]
        if not length:
            return body, rest


@dataclass(frozen=True)
class Frame:
    """One that a server sent."""

    opcode: int
    final: bool
    payload: bytes


def frames(data: bytes) -> tuple[list[Frame], bytes]:
    """Those of a server that are whole, and what is left. Raises: Malformed."""
    found: list[Frame] = []
    while len(data) >= 2:
        first, second = data[0], data[1]
        opcode, length, head = first & 0x0F, second & 0x7F, 2
        if first & 0x70 or second & 0x80 or opcode not in (0, 1, 2, 8, 9, 10):
            raise Malformed(f"no frame of a server: {data[:20]!r}")
        if opcode >= 8 and (length > 125 or not first & 0x80):
            raise Malformed(f"no control frame: {data[:20]!r}")
        if length >= 126:
            head = 4 if length == 126 else 10
            if len(data) < head:
                break
            length = int.from_bytes(data[2:head], "big")
        if len(data) < head + length:
            break
        payload, data = data[head : head + length], data[head + length :]
        if opcode == 8 and payload:
            code = int.from_bytes(payload[:2], "big")
            if len(payload) < 2 or not (1000 <= code <= 1014 or 3000 <= code <= 4999) or code in (1005, 1006):
                raise Malformed(f"no close frame: {payload!r}")
            payload[2:].decode()
        found.append(Frame(opcode, bool(first & 0x80), payload))
        if opcode == 8:
            if data:
                raise Malformed(f"something behind a close frame: {data[:50]!r}")
            break
    return found, data


def frame(
    opcode: int, payload: bytes = b"", *, final: bool = True, masked: bool = True, reserved: int = 0
) -> bytes:
    """One of a client."""
    first = bytes([final << 7 | reserved << 4 | opcode])
    size, mask = len(payload), masked << 7
    if size < 126:
        head = bytes([mask | size])
    elif size < 1 << 16:
        head = bytes([mask | 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([mask | 127]) + size.to_bytes(8, "big")
    if not masked:
        return first + head + payload
    key = b"\x37\xfa\x21\x3d"
    mask_of_all = int.from_bytes((key * (size // 4 + 1))[:size])
    return first + head + key + (int.from_bytes(payload) ^ mask_of_all).to_bytes(size)
