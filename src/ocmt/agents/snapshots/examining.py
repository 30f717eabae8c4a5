"""Reads an archive that came from outside, whole, and says what is in it. Runs in a child process.

`checking` starts it and hands over the archive as standard input; the memory and the time of this process are
limited. See docs/decisions/0031-outside-data.md.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
from dataclasses import dataclass, replace
from typing import IO, Any

from ocmt.agents.snapshots.keeping import Limits
from ocmt.agents.snapshots.manifest import Entry, Manifest, parse
from ocmt.errors import InvalidInput, OcmtError, TooLarge
from ocmt.platform.confined import limit_self
from ocmt.platform.unzip import BadZip, Member, pieces, read_directory

MANIFEST = "manifest.json"
FIXED_BYTES = 1024 * 1024
BYTES_OF_A_FILE = 320
"""This much of a manifest and of a zip's directory is read for each file that is allowed."""
MEMBERS_BESIDE = 1000
NAMED = 5
"""So many damaged files are named to the user."""


@dataclass(frozen=True)
class Found:
    """What is in an archive whose contents are all there and good."""

    manifest: Manifest
    """Only its entries: what else a foreign manifest says is of no use here."""
    members: dict[str, tuple[str, Member, int]]
    """Hash of a content to (name, member, bytes) in the zip."""

    def render(self) -> bytes:
        """Return it as text for the parent process."""
        return json.dumps({"manifest": self.manifest.render().decode(), "members": self.members}).encode()

    @classmethod
    def parse(cls, data: bytes) -> Found:
        """Read what `render` has written; the manifest is checked once more. Raises: InvalidInput."""
        read = json.loads(data)
        members = {
            sha256: (str(name), Member(*member), int(size))
            for sha256, (name, member, size) in read["members"].items()
        }
        return cls(parse(read["manifest"].encode()), members)


def member_name(entry: Entry) -> str:
    """Return the name of the zip's member that has the content of that file."""
    name = entry.path
    plain = name.isprintable() and not any(sign in name for sign in '\\:*?"<>|')
    return name if plain else f"contents/{entry.sha256}"


def examine(source: IO[bytes], limits: Limits) -> Found:
    """Read all of an archive.

    Raises: InvalidInput where it is none or is damaged, TooLarge, LimitReached.
    """
    most = FIXED_BYTES + BYTES_OF_A_FILE * limits.files
    try:
        members = read_directory(source, most_members=4 * limits.files + MEMBERS_BESIDE, most_bytes=most)
        data = b"".join(pieces(source, MANIFEST, members[MANIFEST], most + 1))
    except (BadZip, KeyError, OSError) as error:
        raise InvalidInput("This is no archive of an agent's files.", detail=repr(error)) from error
    if len(data) > most:
        raise TooLarge("The manifest of this archive is too large.")
    manifest = parse(data)
    del data
    limits.check(manifest.entries)
    contents: dict[str, tuple[str, Member, int]] = {}
    damaged = []
    for entry in manifest.entries:
        if entry.sha256 is None or entry.sha256 in contents:
            continue
        name = member_name(entry)
        if name in members and _is_good(source, name, members[name], entry):
            contents[entry.sha256] = (name, members[name], entry.size)
        else:
            damaged.append(entry.path)
            if len(damaged) > NAMED:
                break
    if damaged:
        raise InvalidInput(f"These files are missing or damaged in it: {named(damaged)}.")
    return Found(replace(manifest, left_out=(), older={}, since={}), contents)


def _is_good(source: IO[bytes], name: str, member: Member, entry: Entry) -> bool:
    digest = hashlib.sha256()
    try:
        for piece in pieces(source, name, member, entry.size):
            digest.update(piece)
    except (BadZip, OSError):
        return False
    return digest.hexdigest() == entry.sha256


def named(paths: list[str]) -> str:
    """Return the first few of them, for a person."""
    few = ", ".join(ascii(path)[1:-1][:200] for path in paths[:NAMED])
    return f"{few} and more" if len(paths) > NAMED else few


class _Input(io.RawIOBase):
    """Standard input, read by position: the file's own position belongs to the parent process."""

    def __init__(self) -> None:
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: os.fstat(0).st_size}[whence]
        self._at = start + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        size = os.preadv(0, [buffer], self._at)
        self._at += size
        return size


def main() -> None:
    """Examine standard input; write one JSON object: what was found, or the error."""
    memory, seconds, files, total_bytes, file_bytes = map(int, sys.argv[1:6])
    limit_self(memory, seconds)
    try:
        found = examine(io.BufferedReader(_Input(), 256 * 1024), Limits(files, total_bytes, file_bytes))
        head = json.dumps({"files": found.manifest.files}).encode()
        rest = found.render() if sys.argv[6] == "contents" else b""
    except OcmtError as error:
        head, rest = (
            json.dumps({"code": error.code, "message": error.message, "detail": error.detail}).encode(),
            b"",
        )
    sys.stdout.buffer.write(head + b"\n" + rest)
    sys.stdout.buffer.flush()
    os._exit(0)  # without freeing what it has read, object by object


if __name__ == "__main__":
    main()
