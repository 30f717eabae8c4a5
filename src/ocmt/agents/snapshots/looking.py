"""Looks at an agent's files and describes them: the part of a snapshot whose cost the agent decides.

Everything here blocks. It runs in a thread of the pool for files, and its effort is bounded.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from operator import itemgetter

from ocmt.agents.snapshots.keeping import IGNORE_FILE, Keeping, Limits, gather
from ocmt.agents.snapshots.manifest import Known, Manifest, Mark, entry_of, known_hash, parse_mark, remember
from ocmt.agents.snapshots.patterns import LONGEST_IGNORE_FILE, parse_ignore
from ocmt.agents.snapshots.retention import succeed
from ocmt.platform.work import Effort
from ocmt.runtimes.base import AgentFiles, FoundFile, LeftOut

NAMES_FOR_A_FILE = 4
"""So many names are looked at for each file that is allowed, whether they are kept or not."""
FEWEST_NAMES = 10_000
SCAN_SECONDS = 120.0


@dataclass(frozen=True)
class Looked:
    """What a scan gave."""

    found: list[FoundFile]
    left_out: list[LeftOut]
    mark: Mark
    at_ns: int
    known: dict[str, str]
    """Path to hash of the files that have not changed since they were last hashed here."""


@dataclass(frozen=True)
class Described:
    """What is to be kept of them."""

    manifest: Manifest
    content: str
    known: dict[str, Known]


def scan_effort(limits: Limits) -> Effort:
    """Return how much one scan may cost."""
    steps = max(FEWEST_NAMES, NAMES_FOR_A_FILE * limits.files)
    return Effort(steps=steps, seconds=SCAN_SECONDS, message=_too_much_to_scan(limits))


def look(files: AgentFiles, limits: Limits, effort: Effort) -> Looked:
    """Scan an agent's files. Raises: LimitReached, FilesChanged, Abandoned, OSError."""
    at_ns = time.time_ns()  # of the same clock as the times of files
    ignored = files.peek(IGNORE_FILE, LONGEST_IGNORE_FILE)
    keep = Keeping(parse_ignore(ignored or b""))
    found, left_out = gather(files.scan(keep, effort), limits)
    mark = parse_mark(files.read_mark())
    known = ((item.path, known_hash(item, mark)) for item in found if item.kind == "file")
    return Looked(found, left_out, mark, at_ns, {path: name for path, name in known if name is not None})


def describe(looked: Looked, hashes: Mapping[str, str], began: datetime, image: str | None) -> Described:
    """Return what a snapshot of them says."""
    found = sorted(looked.found, key=itemgetter(0))
    entries = tuple(entry_of(item, hashes.get(item.path)) for item in found)
    manifest = Manifest(1, began, image, entries, tuple(looked.left_out))
    known = remember(looked.found, hashes, looked_at_ns=looked.at_ns)
    return Described(manifest, manifest.content(), known)


def number(
    manifest: Manifest, generation: int, previous: Manifest | None, kept: Collection[int]
) -> tuple[Manifest, bytes]:
    """Return the manifest as that generation's, and as it is stored."""
    numbered = succeed(replace(manifest, generation=generation), previous, kept)
    return numbered, numbered.render()


def _too_much_to_scan(limits: Limits) -> str:
    return (
        f"There are too many files to look through: your plan allows {limits.files:,} files, and "
        f"{NAMES_FOR_A_FILE} times as many names are looked at. Delete some, or list their folders in "
        ".ocmtignore."
    )
