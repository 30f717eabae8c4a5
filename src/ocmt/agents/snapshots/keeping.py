"""What of an agent's files is kept in a snapshot: the patterns of `.ocmtignore`, what never is, and how much.

Patterns and names come from an untrusted agent, so they are matched without regular expressions: a pattern
like `*a*a*a*b` would hold Python up for years. Here a name costs at most its length times the pattern's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ocmt.agents.model import Plan
from ocmt.errors import LimitReached
from ocmt.runtimes.base import FoundFile, LeftOut

IGNORE_FILE = "workspace/.ocmtignore"
LONGEST_IGNORE_FILE = 32 * 1024
MOST_PATTERNS = 200
LONGEST_PATTERN = 256
MOST_LEFT_OUT = 100
"""So many things that could not be kept are named in a manifest."""

NEVER = frozenset(
    {
        "state/tmp",
        "state/cache",
        "home/.cache",
        "home/.npm",
        # Where the sandbox mounts the other folders: empty from here.
        "home/config",
        "home/state",
        "home/workspace",
    }
)
NEVER_NAMED = ("/node-compile-cache",)
SHARED_MEMORY = (".sqlite-shm", ".sqlite3-shm", ".db-shm", ".db3-shm")
"""SQLite makes these anew; what they hold is bound to processes that are gone."""


class Sized(Protocol):
    """Something with a path and a size."""

    @property
    def path(self) -> str:
        """Below the agent's folder."""

    @property
    def size(self) -> int:
        """In bytes."""


@dataclass(frozen=True)
class Limits:
    """How much of one agent is kept; a plan's numbers."""

    files: int = 50_000
    """Files, folders and links."""
    total_bytes: int = 2 * 1024**3
    file_bytes: int = 512 * 1024**2
    kept_bytes: int | None = None
    """Of all generations together, equal contents once; None: twice `total_bytes`."""

    @property
    def budget(self) -> int:
        """Bytes of all generations together."""
        return self.kept_bytes or 2 * self.total_bytes

    def of(self, plan: Plan) -> Limits:
        """Those of that plan; what it leaves open is as here."""
        return Limits(
            plan.snapshot_files or self.files,
            plan.snapshot_bytes or self.total_bytes,
            plan.snapshot_file_bytes or self.file_bytes,
            plan.kept_snapshot_bytes or self.kept_bytes,
        )

    def allow(self, path: str, size: int, *, files: int, total_bytes: int) -> None:
        """One more file of that size, which makes so many. Raises: LimitReached."""
        if size > self.file_bytes:
            raise LimitReached(
                f"{_shown(path)} has {megabytes(size)}; your plan allows {megabytes(self.file_bytes)} for a "
                "file. Delete it, or name it in .ocmtignore."
            )
        if files > self.files:
            raise LimitReached(
                f"There are more than the {self.files:,} files and folders that your plan allows. "
                "Delete some, or list folders in .ocmtignore."
            )
        if total_bytes > self.total_bytes:
            raise LimitReached(
                f"Together they have more than the {megabytes(self.total_bytes)} that your plan allows. "
                "Delete some, or list folders in .ocmtignore."
            )

    def check(self, entries: Iterable[Sized]) -> None:
        """All of a manifest. Raises: LimitReached."""
        total = 0
        for number, entry in enumerate(entries, 1):
            total += entry.size
            self.allow(entry.path, entry.size, files=number, total_bytes=total)


@dataclass(frozen=True)
class Pattern:
    """One line of `.ocmtignore`."""

    segments: tuple[str, ...]
    folders_only: bool
    keeps: bool
    """It began with `!`: what it matches is kept after all."""


class Keeping:
    """Which paths are kept. Call it with (path, whether it is a folder)."""

    def __init__(self, patterns: Sequence[Pattern] = ()) -> None:
        self._patterns = tuple(patterns)

    def __call__(self, path: str, is_folder: bool) -> bool:
        """Whether to look at it; what is in a folder that is not kept is not looked at, as in git."""
        if never_kept(path):
            return False
        if not self._patterns or not path.startswith("workspace/"):
            return True
        segments = path.split("/")[1:]
        for pattern in reversed(self._patterns):
            if (is_folder or not pattern.folders_only) and _matches(pattern.segments, segments):
                return pattern.keeps
        return True


def never_kept(path: str) -> bool:
    """What can be dropped whatever the agent says: caches, temporary files, shared memory of databases."""
    if path in NEVER or path.endswith(NEVER_NAMED):
        return True
    if path.startswith("config/"):
        return path != "config/openclaw.json"
    return path.endswith("-shm") and (path.startswith("state/") or path.endswith(SHARED_MEMORY))


def parse_ignore(text: bytes) -> list[Pattern]:
    """The patterns of an `.ocmtignore`, which is written like a `.gitignore` at the top of the workspace.

    Understood: `*`, `?`, `**`, `[a-z]`, `[!a-z]`, a trailing `/` for folders only, a leading `!`, comments.
    Lines beyond the first 200 patterns, and those of over 256 characters, have no effect.
    """
    patterns: list[Pattern] = []
    for line in text[:LONGEST_IGNORE_FILE].decode("utf-8", "surrogateescape").splitlines():
        words = line.rstrip()
        if not words or words.startswith("#") or len(words) > LONGEST_PATTERN:
            continue
        keeps = words.startswith("!")
        words = words.removeprefix("!").removeprefix("\\")
        folders_only = words.endswith("/")
        anchored = "/" in words.rstrip("/")
        segments = [segment for segment in words.split("/") if segment]
        if segments and len(patterns) < MOST_PATTERNS:
            start = [] if anchored else ["**"]
            patterns.append(Pattern((*start, *segments), folders_only, keeps))
    return patterns


def _matches(pattern: Sequence[str], path: Sequence[str]) -> bool:
    """Whether the pattern's segments match all of the path's; `**` stands for any number of them."""
    # Which prefixes of the path the pattern's segments so far can match.
    reached = {0}
    for number, segment in enumerate(pattern):
        if segment == "**":
            # At the end it stands for what is inside, not for the folder itself.
            first = min(reached) + (number == len(pattern) - 1 and number > 0)
            reached = set(range(first, len(path) + 1))
        else:
            reached = {at + 1 for at in reached if at < len(path) and _matches_name(segment, path[at])}
        if not reached:
            return False
    return len(path) in reached


def _matches_name(pattern: str, name: str) -> bool:
    """One segment. Goes back to the last star only, so it takes at most len(pattern) * len(name) steps."""
    at = here = 0
    star = mark = -1
    while here < len(name):
        step = _one(pattern, at, name[here]) if at < len(pattern) and pattern[at] != "*" else 0
        if step:
            at += step
            here += 1
        elif at < len(pattern) and pattern[at] == "*":
            star, mark = at, here
            at += 1
        elif star >= 0:
            mark += 1
            at, here = star + 1, mark
        else:
            return False
    return all(sign == "*" for sign in pattern[at:])


def _one(pattern: str, at: int, character: str) -> int:
    """How many signs of the pattern match this one character; 0: none do."""
    sign = pattern[at]
    if sign == "?":
        return 1
    if sign == "\\" and at + 1 < len(pattern):
        return 2 if pattern[at + 1] == character else 0
    if sign == "[":
        end = pattern.find("]", at + 2)
        if end > 0:
            inside = pattern[at + 1 : end]
            negated = inside[0] in "!^" and len(inside) > 1
            return end + 1 - at if _in_class(inside[negated:], character) is not negated else 0
    return 1 if sign == character else 0


def _in_class(signs: str, character: str) -> bool:
    at = 0
    while at < len(signs):
        if signs[at + 1 : at + 2] == "-" and at + 2 < len(signs):
            if signs[at] <= character <= signs[at + 2]:
                return True
            at += 3
        else:
            if signs[at] == character:
                return True
            at += 1
    return False


def gather(scan: Iterable[FoundFile | LeftOut], limits: Limits) -> tuple[list[FoundFile], list[LeftOut]]:
    """All that was found, as long as it is within the limits: stops at the first thing too many.

    Raises: LimitReached with words that say which limit, and by what.
    """
    found: list[FoundFile] = []
    left_out: list[LeftOut] = []
    total = 0
    for thing in scan:
        if isinstance(thing, LeftOut):
            if len(left_out) < MOST_LEFT_OUT:
                left_out.append(thing)
            continue
        found.append(thing)
        total += thing.size
        if thing.size > limits.file_bytes or len(found) > limits.files or total > limits.total_bytes:
            limits.allow(thing.path, thing.size, files=len(found), total_bytes=total)
    return found, left_out


def megabytes(size: int) -> str:
    """For a person: `512 MB`."""
    return f"{size / 1024**2:.0f} MB" if size >= 1024**2 else f"{size} bytes"


def _shown(path: str) -> str:
    shown = path if path.isprintable() else ascii(path)[1:-1]
    return shown if len(shown) <= 200 else f"{shown[:100]}…{shown[-90:]}"
