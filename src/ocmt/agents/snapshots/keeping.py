"""What of an agent's files is kept in a snapshot: what `.ocmtignore` leaves, what never is, and how much."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ocmt.agents.model import Plan
from ocmt.agents.snapshots.patterns import Matcher, Pattern
from ocmt.errors import LimitReached
from ocmt.platform.work import Effort
from ocmt.runtimes.base import FoundFile, LeftOut

IGNORE_FILE = "workspace/.ocmtignore"
MOST_STEPS = 30_000_000
"""What the patterns of one agent may cost in one scan: about a step for each character of a name."""
TOO_MUCH_TO_MATCH = (
    "Your .ocmtignore takes too much work for this many files. Use fewer or shorter patterns in it."
)
BYTES_OF_A_NAME = 256
"""A path and a link's target may have so many bytes each on average, counted over all files allowed."""
FEWEST_NAME_BYTES = 1024**2
LONG_NAMES = (
    "The names and links of your agent's files are too long together. Use shorter names, or list folders in "
    ".ocmtignore."
)
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

    @property
    def target(self) -> str | None:
        """Of a link only."""


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
        total = names = 0
        for number, entry in enumerate(entries, 1):
            total += entry.size
            names += name_bytes(entry)
            self.allow(entry.path, entry.size, files=number, total_bytes=total)
            if names > self.name_bytes:
                raise LimitReached(LONG_NAMES)

    @property
    def name_bytes(self) -> int:
        """Bytes that all paths and link targets may have together: they are held in memory."""
        return max(FEWEST_NAME_BYTES, BYTES_OF_A_NAME * self.files)


class Keeping:
    """Which paths are kept. Call it with (path, whether it is a folder).

    It is meant for a walk through the folders, each before what is in it: the state of the patterns at every
    folder on the way down is remembered.
    """

    def __init__(self, patterns: Sequence[Pattern] = (), effort: Effort | None = None) -> None:
        """Args: `effort` counts what the patterns cost; None: at most `MOST_STEPS`."""
        effort = effort or Effort(steps=MOST_STEPS, message=TOO_MUCH_TO_MATCH)
        self._matcher = Matcher(patterns, effort) if patterns else None
        self._way: list[tuple[str, int]] = []
        """The folders that lead to the last path, with a slash at the end, and the state in each of them."""

    def __call__(self, path: str, is_folder: bool) -> bool:
        """Whether to look at it; what is in a folder that is not kept is not looked at, as in git.

        Raises: LimitReached where the patterns cost too much.
        """
        if never_kept(path):
            return False
        if self._matcher is None or not path.startswith("workspace/"):
            return True
        folder_end = path.rindex("/") + 1
        state = self._state_in(path[:folder_end])
        return self._matcher.keeps(self._matcher.step(state, path[folder_end:]), is_folder=is_folder)

    def _state_in(self, folder: str) -> int:
        assert self._matcher is not None
        way = self._way
        if not way:
            way.append(("workspace/", self._matcher.begin))
        while not folder.startswith(way[-1][0]):
            way.pop()
        prefix, state = way[-1]
        while len(prefix) < len(folder):
            end = folder.index("/", len(prefix))
            state = self._matcher.enter(state, folder[len(prefix) : end])
            prefix = folder[: end + 1]
            way.append((prefix, state))
        return state


def never_kept(path: str) -> bool:
    """What can be dropped whatever the agent says: caches, temporary files, shared memory of databases."""
    if path in NEVER or path.endswith(NEVER_NAMED):
        return True
    if path.startswith("config/"):
        return path != "config/openclaw.json"
    return path.endswith("-shm") and (path.startswith("state/") or path.endswith(SHARED_MEMORY))


def gather(scan: Iterable[FoundFile | LeftOut], limits: Limits) -> tuple[list[FoundFile], list[LeftOut]]:
    """All that was found, as long as it is within the limits: stops at the first thing too many.

    Raises: LimitReached with words that say which limit, and by what.
    """
    found: list[FoundFile] = []
    left_out: list[LeftOut] = []
    total = names = 0
    most_names = limits.name_bytes
    for thing in scan:
        if isinstance(thing, LeftOut):
            if len(left_out) < MOST_LEFT_OUT:
                left_out.append(thing)
            continue
        found.append(thing)
        total += thing.size
        names += name_bytes(thing)
        if names > most_names:
            raise LimitReached(LONG_NAMES)
        if thing.size > limits.file_bytes or len(found) > limits.files or total > limits.total_bytes:
            limits.allow(thing.path, thing.size, files=len(found), total_bytes=total)
    return found, left_out


def name_bytes(thing: Sized) -> int:
    """About how many bytes its names take."""
    size = len(thing.path) if thing.path.isascii() else 4 * len(thing.path)
    if thing.target is not None:
        size += len(thing.target) if thing.target.isascii() else 4 * len(thing.target)
    return size


def megabytes(size: int) -> str:
    """For a person: `512 MB`."""
    return f"{size / 1024**2:.0f} MB" if size >= 1024**2 else f"{size} bytes"


def _shown(path: str) -> str:
    shown = path if path.isprintable() else ascii(path)[1:-1]
    return shown if len(shown) <= 200 else f"{shown[:100]}…{shown[-90:]}"
