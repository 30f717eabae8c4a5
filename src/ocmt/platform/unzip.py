"""Reads zip files that came from outside: the only place in the program that decompresses what others made.

Python's `zipfile` trusts a zip in ways that cost memory: it makes an object of every directory entry before
anybody can count them, and it bounds the output of one compression method only. This reader knows the two
methods that people use, refuses everything unusual before it reads any content, and never holds more output
than it was asked for.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import IO, NamedTuple

PIECE = 1024 * 1024
_INPUT = 64 * 1024
_STORED, _DEFLATED = 0, 8
_ENCRYPTED, _UTF8 = 1 << 0, 1 << 11
_KNOWN_FLAGS = 0b110 | 1 << 3 | _UTF8
"""Effort of compression, sizes that follow the content, and names in UTF-8."""
_BEST_RATIO = 1100
"""Deflate makes at most 1032 bytes of one."""

_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s4B4HL2L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")


class BadZip(Exception):
    """This is no zip file that may be read here; the text says why, for the log."""


class Member(NamedTuple):
    """Where the content of one file lies in a zip."""

    offset: int
    """Where its local header begins."""
    end: int
    """Where the next member, or the directory, begins."""
    packed: int
    """Bytes in the zip."""
    size: int
    """Bytes of the content, as the zip says."""
    crc: int
    deflated: bool


def read_directory(file: IO[bytes], *, most_members: int, most_bytes: int) -> dict[str, Member]:
    """Return name → member of a zip file.

    Raises: BadZip for a directory that is larger than `most_bytes`, has more than `most_members` entries, or
    has anything in it that could not be read with bounded effort; OSError.
    """
    count, start, size = _find_directory(file)
    if count > most_members or size > most_bytes:
        raise BadZip(f"its directory is too large: {count} entries, {size} bytes")
    file.seek(start)
    data = file.read(size)
    if len(data) != size:
        raise BadZip("its directory is cut short")
    found: list[tuple[str, int, Member]] = []
    at = 0
    for _ in range(count):
        at = _read_entry(data, at, found)
    if at != size:
        raise BadZip("its directory has another size than it says")
    return _without_overlaps(found, start)


def pieces(file: IO[bytes], name: str, member: Member, most: int) -> Iterator[bytes]:
    """Yield the content of a member in pieces of at most 1 MiB, `most` bytes in all.

    Ends early where the content is shorter. Raises: BadZip where it is damaged, OSError.
    """
    start = _content_start(file, name, member)
    crc, given = 0, 0
    for piece in (_inflated if member.deflated else _stored)(file, start, member, most):
        crc, given = zlib.crc32(piece, crc), given + len(piece)
        yield piece
    if given == member.size and crc != member.crc:
        raise BadZip(f"{name!a:.200} has another checksum")


def _find_directory(file: IO[bytes]) -> tuple[int, int, int]:
    """Return (entries, offset, bytes) of the directory, which must end where the end record begins."""
    length = file.seek(0, 2)
    if length < _END.size:
        raise BadZip("it is too short")
    end = length - _END.size
    file.seek(end)
    sign, disk, first_disk, here, count, size, start, comment = _END.unpack(file.read(_END.size))
    if sign != b"PK\5\6" or comment:
        raise BadZip("it does not end as a zip without a comment does")
    if 0xFFFF in (disk, first_disk, here, count) or 0xFFFFFFFF in (size, start):
        end, disk, first_disk, here, count, size, start = _find_large_directory(file, end)
    if disk or first_disk or here != count:
        raise BadZip("it is one part of several")
    if start + size != end or count * _ENTRY.size > size:
        raise BadZip("its directory is not where it says")
    return count, start, size


def _find_large_directory(file: IO[bytes], end: int) -> tuple[int, int, int, int, int, int, int]:
    place = end - _LOCATOR.size - _END64.size
    if place < 0:
        raise BadZip("it is too short")
    file.seek(place)
    sign, rest, _, _, disk, first_disk, here, count, size, start = _END64.unpack(file.read(_END64.size))
    located, locator_disk, where, disks = _LOCATOR.unpack(file.read(_LOCATOR.size))
    if sign != b"PK\6\6" or located != b"PK\6\7" or rest != _END64.size - 12:
        raise BadZip("its large end record is damaged")
    if where != place or locator_disk or disks != 1:
        raise BadZip("its large end record is elsewhere")
    return place, disk, first_disk, here, count, size, start


def _read_entry(data: bytes, at: int, found: list[tuple[str, int, Member]]) -> int:
    """Read one directory entry; returns where the next one begins."""
    if at + _ENTRY.size > len(data):
        raise BadZip("its directory is cut short")
    (
        sign, _, _, _, _, flags, method, _, _, crc, packed, size, name_length, extra_length, comment_length,
        disk, _, _, offset,
    ) = _ENTRY.unpack_from(data, at)  # fmt: skip
    name_at = at + _ENTRY.size
    extra_at = name_at + name_length
    next_at = extra_at + extra_length + comment_length
    if sign != b"PK\1\2" or next_at > len(data):
        raise BadZip("its directory is damaged")
    raw = data[name_at:extra_at]
    if flags & ~_KNOWN_FLAGS or method not in (_STORED, _DEFLATED):
        raise BadZip(f"{raw!r:.200} is encrypted or packed by an unusual method ({method}, flags {flags})")
    extra = data[extra_at : extra_at + extra_length]
    size, packed, offset = _large_numbers(extra, size, packed, offset)
    if disk or (size != packed if method == _STORED else size > packed * _BEST_RATIO):
        raise BadZip(f"{raw!r:.200} has sizes that cannot be")
    try:
        name = raw.decode("utf-8" if flags & _UTF8 else "cp437")
    except UnicodeDecodeError as error:
        raise BadZip(f"{raw!r:.200} is no name") from error
    found.append((name, len(raw), Member(offset, 0, packed, size, crc, method == _DEFLATED)))
    return int(next_at)


def _large_numbers(extra: bytes, size: int, packed: int, offset: int) -> tuple[int, int, int]:
    """Return the three numbers, each from the extra field where the entry itself has no room for it."""
    numbers = [size, packed, offset]
    wanted = [place for place, number in enumerate(numbers) if number == 0xFFFFFFFF]
    at = 0
    while wanted and at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        field = extra[at + 4 : at + 4 + length]
        if kind == 1:
            if len(field) < 8 * len(wanted):
                raise BadZip("a large number is missing")
            for place, number in zip(wanted, struct.unpack_from(f"<{len(wanted)}Q", field), strict=True):
                numbers[place] = number
            return numbers[0], numbers[1], numbers[2]
        at += 4 + length
    if wanted:
        raise BadZip("a large number is missing")
    return size, packed, offset


def _without_overlaps(found: list[tuple[str, int, Member]], directory: int) -> dict[str, Member]:
    found.sort(key=lambda item: item[2].offset)
    members: dict[str, Member] = {}
    for place, (name, name_length, member) in enumerate(found):
        end = found[place + 1][2].offset if place + 1 < len(found) else directory
        if member.offset + _LOCAL.size + name_length + member.packed > end:
            raise BadZip(f"{name!a:.200} overlaps what follows it")
        if name in members:
            raise BadZip(f"{name!a:.200} is in it twice")
        members[name] = member._replace(end=end)
    return members


def _content_start(file: IO[bytes], name: str, member: Member) -> int:
    file.seek(member.offset)
    head = file.read(_LOCAL.size)
    if len(head) != _LOCAL.size:
        raise BadZip(f"{name!a:.200} is cut short")
    sign, _, flags, method, _, _, _, _, _, name_length, extra_length = _LOCAL.unpack(head)
    try:
        named = file.read(name_length).decode("utf-8" if flags & _UTF8 else "cp437")
    except UnicodeDecodeError:
        named = ""
    start = member.offset + _LOCAL.size + name_length + extra_length
    if (
        sign != b"PK\3\4"
        or named != name
        or flags & ~_KNOWN_FLAGS
        or method != (_DEFLATED if member.deflated else _STORED)
        or start + member.packed > member.end
    ):
        raise BadZip(f"{name!a:.200} is not what the directory says")
    return int(start)


def _stored(file: IO[bytes], start: int, member: Member, most: int) -> Iterator[bytes]:
    left, at = min(member.packed, most), start
    while left:
        file.seek(at)  # others may have read from the same file meanwhile
        piece = file.read(min(left, PIECE))
        if not piece:
            raise BadZip("it is cut short")
        left, at = left - len(piece), at + len(piece)
        yield piece


def _inflated(file: IO[bytes], start: int, member: Member, most: int) -> Iterator[bytes]:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    at, packed, left = start, member.packed, most
    data = b""
    while left and not inflater.eof:
        if not data and packed:
            file.seek(at)
            data = file.read(min(packed, _INPUT))
            if not data:
                raise BadZip("it is cut short")
            at, packed = at + len(data), packed - len(data)
        fed = bool(data)
        try:
            piece = inflater.decompress(data, min(left, PIECE))
        except zlib.error as error:
            raise BadZip("its content is damaged") from error
        data = inflater.unconsumed_tail
        if piece:
            left -= len(piece)
            yield piece
        elif not fed:
            return  # no input and no output: the content ends without its end mark
