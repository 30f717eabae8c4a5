"""The form of a backup file. Pure: bytes in, bytes out; no file, database or store is touched here.

    file    = header | chunk …
    header  = "ocmtback" | version (1) | log2 N, r, p of scrypt (1 each) | log2 of the chunk size (1)
              | salt (16) | check (16)
    chunk   = AES-256-GCM of a chunk's worth of the content, its tag behind it; the last one may be shorter
    content = record …,  record = kind (1) | length (4, big endian) | payload
    records = A(bout)  ( P(art)  D(ata)…  E(nd of the part) )…  Z (end of everything)

The key is scrypt's of the passphrase and the salt, so every file has its own and nonces can count: counter
(11) | last (1), the STREAM construction of https://eprint.iacr.org/2015/189. A chunk that was moved, left
out, added or changed does not open, nor does a file that ends early. `check` tells a wrong passphrase.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from ocmt.errors import InvalidInput, OcmtError

SHORTEST_PASSPHRASE = 12
LARGEST_DATA = 1024 * 1024
"""Bytes of one data record."""

_MAGIC = b"ocmtback"
_VERSION = 1
_HEADER = struct.Struct(">8sBBBBB16s")
_RECORD = struct.Struct(">cI")
_TAG_BYTES = 16
HEADER_BYTES = _HEADER.size + _TAG_BYTES
_LARGEST_JSON = 256 * 1024
_MOST_LOG2_N, _MOST_R, _MOST_P, _MOST_LOG2_CHUNK = 20, 16, 4, 24  # 2 GiB of memory, 16 MiB a chunk


class BackupDamaged(OcmtError):
    """The file is no backup, is not whole, was changed, or the passphrase is not its own."""

    code = "backup_damaged"


@dataclass(frozen=True)
class Cost:
    """How hard scrypt makes it to guess the passphrase: 128 · r · N bytes of memory. And the chunk size."""

    log2_n: int = 17
    r: int = 8
    p: int = 1
    log2_chunk: int = 18


@dataclass(frozen=True)
class About:
    """What the backup is of."""

    created_at: str
    """When its moment was, ISO 8601 in UTC."""
    program: str
    """The version of ocmt that wrote it."""
    revision: str
    """The revision of the database's schema."""


@dataclass(frozen=True)
class Part:
    """What the data after this are: a table's rows (COPY's text), sequences (JSON), a secret, an object."""

    kind: Literal["table", "sequences", "secret", "object"]
    name: str
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class PartEnd:
    """The part's manifest entry: written behind it, so that nobody needs to hold a part to write it."""

    size: int
    """Bytes."""
    sha256: str


@dataclass(frozen=True)
class Summary:
    """The manifest's end: how many parts of each kind, their bytes, and a hash over all of their entries."""

    parts: dict[str, int]
    size: int
    sha256: str


Item = About | Part | bytes | PartEnd | Summary


def checked_passphrase(passphrase: str) -> str:
    """The passphrase itself. Raises InvalidInput for one that is guessed too easily."""
    if len(passphrase) < SHORTEST_PASSPHRASE:
        raise InvalidInput(f"The passphrase has at least {SHORTEST_PASSPHRASE} characters.")
    return passphrase


class Writer:
    """Makes a file of what it is told, in the order of the records above; `write` takes its bytes."""

    def __init__(self, write: Callable[[bytes], object], passphrase: str, cost: Cost | None = None) -> None:
        cost = cost or Cost()
        salt = os.urandom(16)
        header = _HEADER.pack(_MAGIC, _VERSION, cost.log2_n, cost.r, cost.p, cost.log2_chunk, salt)
        self._write = write
        self._cipher = _Cipher(_forms(passphrase)[0], header)
        self._chunk = 1 << cost.log2_chunk
        self._pending = bytearray()
        self._tally = _Tally()
        write(header + self._cipher.check())

    def begin(self, about: About) -> None:
        """The first record."""
        self._record_json(b"A", about)

    def part(self, part: Part) -> None:
        """The records up to the next `end_part` are this part's."""
        self._record_json(b"P", part)
        self._tally.begin(part)

    def data(self, data: bytes) -> None:
        """More of the part; any number of bytes."""
        self._tally.add(data)
        for start in range(0, len(data), LARGEST_DATA):
            self._record(b"D", data[start : start + LARGEST_DATA])

    def end_part(self) -> PartEnd:
        """The part is complete."""
        end = self._tally.end()
        self._record_json(b"E", end)
        return end

    def finish(self) -> Summary:
        """The file is complete; nothing may follow."""
        summary = self._tally.summary()
        self._record_json(b"Z", summary)
        self._write(self._cipher.seal(bytes(self._pending), last=True))
        self._pending.clear()
        return summary

    def _record_json(self, kind: bytes, record: About | Part | PartEnd | Summary) -> None:
        payload = json.dumps(asdict(record), ensure_ascii=False).encode()
        if len(payload) > _LARGEST_JSON:
            raise InvalidInput("A name in this installation is too long for a backup.")
        self._record(kind, payload)

    def _record(self, kind: bytes, payload: bytes) -> None:
        self._pending += _RECORD.pack(kind, len(payload))
        self._pending += payload
        # The last chunk is sealed as such: so one is always held back.
        while len(self._pending) > self._chunk:
            self._write(self._cipher.seal(bytes(self._pending[: self._chunk]), last=False))
            del self._pending[: self._chunk]


def read_backup(read: Callable[[int], bytes], passphrase: str) -> Iterator[Item]:
    """What a file holds, in order, each part's hash checked behind it; ends after the Summary.

    `read(n)`: up to n bytes of the file, fewer only at its end. Raises BackupDamaged, often only at the end:
    whoever acts on an item before then acts on a file that may turn out to be incomplete.
    """
    content = _Content(_open_chunks(read, passphrase))
    tally = _Tally()
    kind, payload = content.record()
    if kind != b"A":
        raise _damaged("does not say what it is of")
    yield _parsed(About, payload)
    while True:
        kind, payload = content.record()
        if kind == b"Z":
            break
        if kind != b"P":
            raise _damaged("is out of order")
        part = _parsed(Part, payload)
        tally.begin(part)
        yield part
        while (record := content.record())[0] == b"D":
            tally.add(record[1])
            yield record[1]
        end = tally.end()
        if record[0] != b"E" or _parsed(PartEnd, record[1]) != end:
            raise _damaged(f"has a part that is not what was written: {part.kind} {part.name}")
        yield end
    summary = tally.summary()
    if _parsed(Summary, payload) != summary or not content.at_end():
        raise _damaged("does not hold what its end says")
    yield summary


def _open_chunks(read: Callable[[int], bytes], passphrase: str) -> Iterator[bytes]:
    header = read(HEADER_BYTES)
    if len(header) < HEADER_BYTES or not header.startswith(_MAGIC):
        raise BackupDamaged("This is not a backup of OCMT, or not a whole one.")
    _, version, log2_n, r, p, log2_chunk, _ = _HEADER.unpack(header[: _HEADER.size])
    if version != _VERSION:
        raise BackupDamaged("This backup was changed, or a newer OCMT made it: update this one first.")
    within = (
        1 <= log2_n <= _MOST_LOG2_N
        and 1 <= r <= _MOST_R
        and 1 <= p <= _MOST_P
        and log2_chunk <= _MOST_LOG2_CHUNK
    )
    if not within:
        raise _damaged("begins with numbers that cannot be")
    ciphers = (_Cipher(form, header[: _HEADER.size]) for form in _forms(passphrase))
    cipher = next((one for one in ciphers if header[_HEADER.size :] == one.check()), None)
    if cipher is None:
        raise BackupDamaged("The passphrase is not this backup's, or the file's beginning was changed.")
    size = (1 << log2_chunk) + _TAG_BYTES
    chunk = read(size)
    while True:
        following = read(size)
        yield cipher.open(chunk, last=not following)
        if not following:
            return
        chunk = following


def _forms(passphrase: str) -> list[str]:
    """Return the ways in which a keyboard may have written the passphrase, the usual one first, each once.

    An umlaut is one character on one system and two on another; older files have what was typed.
    """
    forms = [unicodedata.normalize("NFC", passphrase), passphrase, unicodedata.normalize("NFD", passphrase)]
    return list(dict.fromkeys(forms))


class _Cipher:
    """The key of one file, and the count of its chunks."""

    def __init__(self, passphrase: str, header: bytes) -> None:
        _, _, log2_n, r, p, _, salt = _HEADER.unpack(header)
        kdf = Scrypt(salt=salt, length=32, n=1 << log2_n, r=r, p=p)
        self._aead = AESGCM(kdf.derive(passphrase.encode()))
        self._header = header
        self._count = 0

    def check(self) -> bytes:
        return self._aead.encrypt(bytes(11) + b"\x02", b"", self._header)

    def seal(self, plain: bytes, *, last: bool) -> bytes:
        return self._aead.encrypt(self._nonce(last), plain, self._header)

    def open(self, sealed: bytes, *, last: bool) -> bytes:
        at = self._count + 1
        try:
            return self._aead.decrypt(self._nonce(last), sealed, self._header)
        except (InvalidTag, ValueError):
            raise _damaged(
                f"cannot be read from its chunk {at} on: it was changed, or its end is missing"
            ) from None

    def _nonce(self, last: bool) -> bytes:
        nonce = self._count.to_bytes(11, "big") + (b"\x01" if last else b"\x00")
        self._count += 1
        return nonce


class _Content:
    """The records of a stream of opened chunks."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._pending = bytearray()

    def record(self) -> tuple[bytes, bytes]:
        kind, length = _RECORD.unpack(self._take(_RECORD.size))
        if length > (LARGEST_DATA if kind == b"D" else _LARGEST_JSON):
            raise _damaged("has a record that is too long")
        return kind, self._take(length)

    def at_end(self) -> bool:
        return not self._pending and next(self._chunks, None) is None

    def _take(self, count: int) -> bytes:
        while len(self._pending) < count:
            chunk = next(self._chunks, None)
            if chunk is None:
                raise _damaged("ends in the middle of a record")
            self._pending += chunk
        taken = bytes(self._pending[:count])
        del self._pending[:count]
        return taken


class _Tally:
    """Counts and hashes what passes, the same way for who writes and who reads."""

    def __init__(self) -> None:
        self._parts: dict[str, int] = {}
        self._size = 0
        self._all = hashlib.sha256()

    def begin(self, part: Part) -> None:
        self._part, self._part_size, self._hash = part, 0, hashlib.sha256()

    def add(self, data: bytes) -> None:
        self._part_size += len(data)
        self._hash.update(data)

    def end(self) -> PartEnd:
        end = PartEnd(self._part_size, self._hash.hexdigest())
        self._parts[self._part.kind] = self._parts.get(self._part.kind, 0) + 1
        self._size += end.size
        self._all.update(json.dumps([asdict(self._part), asdict(end)]).encode())
        return end

    def summary(self) -> Summary:
        return Summary(self._parts, self._size, self._all.hexdigest())


def _parsed(form: type[Any], payload: bytes) -> Any:
    try:
        values = json.loads(payload)
        if form is Part:
            values["columns"] = tuple(values["columns"])
        return form(**values)
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged("has a record that cannot be read") from error


def _damaged(how: str) -> BackupDamaged:
    return BackupDamaged(f"This backup {how}. Use another one.")
