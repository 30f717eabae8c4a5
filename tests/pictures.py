"""Pictures for tests, made here so that no binary lies in the repository."""

from __future__ import annotations

import random
import struct
import zlib


def png(width: int, height: int, *, noise: bool = False) -> bytes:
    """A picture: a calm one, or noise that no compression makes smaller."""
    chance = random.Random(0)
    rows = bytearray()
    for y in range(height):
        rows.append(0)
        if noise:
            rows += chance.randbytes(3 * width)
        else:
            for x in range(width):
                rows += bytes((60 + 150 * x // width, 90 + 90 * y // height, 200 - 90 * x // width))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    content = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(rows), 1)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + content
