"""What a snapshot is: the manifest of one generation, its JSON, and the rules around it. Pure.

A manifest names every file, folder and link with the hash of its content, which lies beside it in the object
store as a blob. Manifests are read back from a store that may have been damaged, or from a file that somebody
uploads, so `parse` takes nothing for granted: a manifest that it lets pass can be unpacked without leaving
the agent's folder.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple

from ocmt.errors import InvalidInput
from ocmt.runtimes.base import FILE_TREES, FoundFile, LeftOut

VERSION = 1
LONGEST_PATH = 4000
LONGEST_NAME = 255
LONGEST_TARGET = 4095
"""In bytes, as file systems count."""
DEEPEST = 101
MOST_LEFT_OUT = 1000
"""A snapshot names 100 at most."""
RACY_NS = 100_000_000
"""A file whose inode changed in the last 0.1 s before it was looked at may change again without its times
telling: the kernel's clock for them ticks up to 10 ms apart."""

_ENTRIES, _END = b'"entries":[\n', b"\n]}\n"
_LONG = 1024 * 1024
_AT_A_TIME = 256
_HASH = re.compile(r"[0-9a-f]{64}")
_SINCE = {"sha256", "since"}

Kind = Literal["file", "folder", "link"]

Span = tuple[int, int]
"""The first and the last generation that may need a content."""


class Entry(NamedTuple):
    """One path of a snapshot."""

    path: str
    """`workspace/notes/a.txt`; what is no UTF-8 is in it as lone surrogates, as Python has it."""
    kind: Kind
    mode: int = 0o600
    """The permission bits; of links always 0o777."""
    size: int = 0
    """Bytes; of files only."""
    mtime_ns: int = 0
    """Of files only: a folder's changes with every temporary file in it."""
    sha256: str | None = None
    """Of files only, in hexadecimal."""
    target: str | None = None
    """Of links only."""


@dataclass(frozen=True)
class Manifest:
    """All of one generation."""

    generation: int
    created_at: datetime
    image: str | None
    """Which revision of the agent's image it ran; None where that is not known."""
    entries: tuple[Entry, ...]
    """Sorted by path, a folder before what is in it."""
    left_out: tuple[LeftOut, ...] = ()
    """What could not be kept, each with the reason."""
    older: Mapping[str, Span] = field(default_factory=dict)
    """Blobs that this generation does not need but an older one does → which do."""
    since: Mapping[str, int] = field(default_factory=dict)
    """Its own blobs → the first generation that may need them. Not named: perhaps all before it."""

    @property
    def files(self) -> int:
        """How many regular files."""
        return sum(entry.kind == "file" for entry in self.entries)

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(entry.size for entry in self.entries)

    @property
    def blobs(self) -> dict[str, int]:
        """Hash → size of all contents."""
        return {entry.sha256: entry.size for entry in self.entries if entry.sha256 is not None}

    def content(self) -> str:
        """A hash over what is kept, whenever and in whatever generation it is."""
        # As json.dumps([entries, left_out]), a few at a time: it would let no other thread run meanwhile.
        digest = hashlib.sha256(b"[[")
        for first in range(0, len(self.entries), _AT_A_TIME):
            digest.update(b"," if first else b"")
            digest.update(_dumps(self.entries[first : first + _AT_A_TIME])[1:-1])
        digest.update(b"]," + _dumps(self.left_out) + b"]")
        return digest.hexdigest()

    def render(self) -> bytes:
        """As it lies in the object store: JSON, one line an entry."""
        head: dict[str, Any] = {
            "version": VERSION,
            "generation": self.generation,
            "created_at": self.created_at.isoformat(),
            "image": self.image,
            "files": self.files,
            "bytes": self.size,
            "left_out": [list(thing) for thing in self.left_out],
            "older": dict(self.older),
        }
        lines = b",\n".join(_dumps(self._entry_data(entry)) for entry in self.entries)
        return _dumps(head)[:-1] + b"," + _ENTRIES + lines + _END

    def _entry_data(self, entry: Entry) -> dict[str, Any]:
        data: dict[str, Any] = {"path": entry.path, "kind": entry.kind}
        if entry.kind == "link":
            return data | {"target": entry.target}
        data["mode"] = entry.mode
        if entry.kind == "file":
            data |= {"size": entry.size, "mtime_ns": entry.mtime_ns, "sha256": entry.sha256}
            if entry.sha256 is not None and entry.sha256 in self.since:
                data["since"] = self.since[entry.sha256]
        return data


def _dumps(data: Any) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode()  # ASCII: lone surrogates are escaped


def parse(data: bytes) -> Manifest:
    """Read a manifest. Raises: InvalidInput that says what is wrong with it."""
    try:
        read = _loads(data)
    except (ValueError, RecursionError) as error:
        raise _refused(f"it is no JSON ({error})") from error
    if not isinstance(read, dict):
        raise _refused("it is no object")
    if read.get("version") != VERSION:
        raise _refused(f"its version is {read.get('version')!r:.40}, and only {VERSION} is known here")
    created_at = _time(read.get("created_at"))
    image = read.get("image")
    if image is not None and not isinstance(image, str):
        raise _refused("its image is no text")
    items = _items(read, "entries")
    entries = tuple(map(_entry, items))
    _check_tree(entries)
    manifest = Manifest(
        _number(read, "generation", least=1),
        created_at,
        image,
        tuple(sorted(entries)),
        tuple(_left_out(item) for item in _items(read, "left_out", most=MOST_LEFT_OUT)),
        _older(read.get("older")),
        {
            item["sha256"]: _number(item, "since", least=1)
            for item in items
            if item["kind"] == "file" and "since" in item
        },
    )
    if (read.get("files"), read.get("bytes")) != (manifest.files, manifest.size):
        raise _refused("its totals are not those of its entries")
    return manifest


def _loads(data: bytes) -> Any:
    """Read JSON; where it is long and has a line for each entry, line by line, for the parser lets no other
    thread run while it reads."""
    head, entries, rest = data.partition(_ENTRIES)
    if len(data) > _LONG and entries and rest.endswith(_END):
        try:
            read = json.loads(head + b'"entries":[]}')
            read["entries"] = [json.loads(line) for line in rest[: -len(_END)].split(b",\n")]
        except (ValueError, TypeError):
            return json.loads(data)
        return read
    return json.loads(data)


def _refused(reason: str) -> InvalidInput:
    return InvalidInput(f"This snapshot's manifest is damaged: {reason}.")


def _time(text: object) -> datetime:
    try:
        time = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise _refused(f"its time is {text!r:.60}")
    return time


def _items(data: Mapping[str, Any], name: str, *, most: int | None = None) -> list[Any]:
    items = data.get(name)
    if not isinstance(items, list) or (most is not None and len(items) > most):
        raise _refused(f"it has no list of {name}, or a very long one")
    return items


def _number(data: Mapping[str, Any], name: str, *, least: int = 0, most: int = 2**63 - 1) -> int:
    number = data.get(name)
    if type(number) is not int or not least <= number <= most:
        raise _refused(f"{name} is {number!r:.40}")
    return number


def _entry(item: object) -> Entry:
    if not isinstance(item, dict):
        raise _refused("an entry is no object")
    path, kind = item.get("path"), item.get("kind")
    checked = _path(path)
    if kind == "link":
        target = item.get("target")
        if not isinstance(target, str) or not 0 < _bytes(target) <= LONGEST_TARGET:
            raise _refused(f"the link {checked!a:.200} leads nowhere")
        return Entry(checked, "link", 0o777, target=target)
    mode = _number(item, "mode", most=0o777)
    if kind == "folder":
        return Entry(checked, "folder", mode)
    if kind != "file":
        raise _refused(f"{checked!a} is {kind!r:.40}, not a file, folder or link")
    sha256 = item.get("sha256")
    if not isinstance(sha256, str) or not _HASH.fullmatch(sha256):
        raise _refused(f"the hash of {checked!a} is {sha256!r:.80}")
    size, mtime_ns = _number(item, "size"), _number(item, "mtime_ns", least=-(2**63))
    return Entry(checked, "file", mode, size, mtime_ns, sha256)


def _path(path: object) -> str:
    """Relative, plain, below one of the agent's folders."""
    if not isinstance(path, str) or not 0 < _bytes(path) <= LONGEST_PATH:
        raise _refused(f"{path!a:.80} is no path")
    segments = path.split("/")
    if segments[0] not in FILE_TREES or len(segments) > DEEPEST:
        raise _refused(f"{path!a:.200} is not in the agent's folder")
    if any(segment in ("", ".", "..") for segment in segments):
        raise _refused(f"{path!a:.200} leads out of the agent's folder")
    if len(path) * 4 > LONGEST_NAME and any(_bytes(segment) > LONGEST_NAME for segment in segments):
        raise _refused(f"{path!a:.200} has too long a name")
    return path


def _bytes(text: str) -> int:
    """Return how many bytes a name has on a disk; 0 for one that no disk takes."""
    if text.isascii():
        return 0 if "\0" in text else len(text)
    try:
        # As `os.fsencode` does with the UTF-8 that this program requires.
        encoded = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return 0
    if 0 in encoded or encoded.decode("utf-8", "surrogateescape") != text:
        return 0  # another way to write the name of another file
    return len(encoded)


def _check_tree(entries: Sequence[Entry]) -> None:
    """No path twice, and nothing below what is no folder: no file can be written through a link."""
    kinds = {entry.path: entry.kind for entry in entries}
    if len(kinds) != len(entries):
        raise _refused("a path is in it twice")
    for path, kind in kinds.items():
        parent = path.rpartition("/")[0]
        if parent and kinds.get(parent) != "folder":
            raise _refused(f"{path!a:.200} is in no folder")
        if not parent and kind != "folder":
            raise _refused(f"{path!a} is no folder")
    sizes: dict[str, int] = {}
    for entry in entries:
        if entry.sha256 is not None and sizes.setdefault(entry.sha256, entry.size) != entry.size:
            raise _refused(f"{entry.path!a:.200} has the hash of another size")


def _left_out(item: object) -> LeftOut:
    if not isinstance(item, list) or len(item) != 2 or not all(isinstance(word, str) for word in item):
        raise _refused("what was left out is not named")
    return LeftOut(*item)


def _older(data: object) -> dict[str, Span]:
    if not isinstance(data, dict) or not all(_HASH.fullmatch(name) for name in data):
        raise _refused("its older contents are not named")
    return {name: _span(name, span) for name, span in data.items()}


def _span(name: str, span: object) -> Span:
    # Before generations were thinned out only the last one was named.
    first, last = span if isinstance(span, list) and len(span) == 2 else (1, span)
    named = {"first": first, name: last}
    return _number(named, "first", least=1), _number(named, name, least=1)


# What of a scan is known from the last time


class Known(NamedTuple):
    """A file as it was when its content was last hashed here."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    sha256: str


@dataclass(frozen=True)
class Mark:
    """What the platform notes beside an agent's folder: at which generation it stands, or beyond."""

    generation: int = 0
    """0: at none. A row that is ahead of it has newer files than this folder."""
    known: Mapping[str, Known] = field(default_factory=dict)
    manifest: str | None = None
    """Noted before the row is written: it stands there if that generation came to be, with this manifest.
    None: it did."""
    before: int = 0
    """And otherwise there."""

    def stands_at(self, generation: int, manifest: str | None) -> int:
        """Where the folder stands, if that is the newest generation's row."""
        if self.manifest is None or (self.generation, self.manifest) == (generation, manifest):
            return self.generation
        return self.before

    def render(self) -> bytes:
        """JSON."""
        known = {path: list(item) for path, item in self.known.items()}
        data = {"version": VERSION, "generation": self.generation, "known": known}
        if self.manifest is not None:
            data |= {"manifest": self.manifest, "before": self.before}
        return _dumps(data)


def parse_mark(data: bytes | None) -> Mark:
    """Only the platform writes it, but a disk may have lost some of it: then it says nothing."""
    if data is None:
        return Mark()
    try:
        read = json.loads(data)
        if read["version"] != VERSION:
            return Mark()
        known = {path: Known(*item) for path, item in read["known"].items()}
        return Mark(int(read["generation"]), known, read.get("manifest"), int(read.get("before", 0)))
    except (ValueError, KeyError, TypeError, AttributeError):
        return Mark()


def known_hash(found: FoundFile, mark: Mark) -> str | None:
    """The hash of a file that has not changed since it was last hashed, by size, times and inode."""
    known = mark.known.get(found.path)
    # FoundFile and Known have these four in the same order.
    return known.sha256 if known is not None and known[:4] == found[3:7] else None


def remember(found: Iterable[FoundFile], hashes: Mapping[str, str], *, looked_at_ns: int) -> dict[str, Known]:
    """What can be known the next time. `looked_at_ns`: when the scan began, in the clock of file times."""
    return {
        item.path: Known(item.size, item.mtime_ns, item.ctime_ns, item.inode, hashes[item.path])
        for item in found
        if item.kind == "file" and item.ctime_ns < looked_at_ns - RACY_NS
    }


def entry_of(found: FoundFile, sha256: str | None) -> Entry:
    """A found thing as it stands in a manifest."""
    path, kind, mode, size, mtime_ns, _, _, target = found
    if kind == "file":
        return Entry(path, kind, mode, size, mtime_ns, sha256)
    return Entry(path, kind, 0o777 if kind == "link" else mode, target=target)
