"""Refuses a sandbox or container that would show an agent what is private to the platform or its operator.

The guard looks at the finished list of host paths that are about to be bound. A path is compared with each
private folder in three ways, because two names can lead to one folder: by its real path, by its place within
its file system (which a bind mount does not change), and by device and inode.

- No path may be a private folder, or contain one. There is no exception to this.
- A path inside a private folder must be one of the paths that the caller permits by their exact names.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from ocmt.errors import SetupProblem

DATA = "OCMT's data folder"
HOME = "the home folder"
_SYSTEM = frozenset(
    Path("/", name)
    for name in (
        *("", "bin", "dev", "etc", "lib", "lib64", "opt", "proc", "run", "sbin", "sys", "tmp", "usr", "var"),
        *("usr/bin", "usr/games", "usr/lib", "usr/local", "usr/sbin"),
    )
)
"""What /etc/passwd names as the home of accounts that have none: it is everybody's, so it is not private."""


@dataclass(frozen=True)
class Private:
    """A folder that no agent may see."""

    path: Path
    what: str
    """In words, for the operator."""


def private_folders(data: Path, *others: Path) -> tuple[Private, ...]:
    """The data folder (and `others` of its kind), and the home folder of whoever runs this process."""
    folders = [Private(path, DATA) for path in dict.fromkeys(map(_real, (data, *others)))]
    folders += [Private(path, HOME) for path in home_folders()]
    return tuple(folders)


def home_folders() -> list[Path]:
    """The home folder by the environment and the one by the user database, where they exist."""
    named = [os.environ.get("HOME", "")]
    with contextlib.suppress(KeyError):  # A container's user often has no entry there.
        named.append(pwd.getpwuid(os.geteuid()).pw_dir)
    found = dict.fromkeys(_real(Path(name)) for name in named if name.startswith("/"))
    return [path for path in found if path not in _SYSTEM and path.is_dir()]


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


@dataclass(frozen=True)
class _Mount:
    device: str
    root: str
    """Which folder of the file system is mounted."""
    point: str


@dataclass(frozen=True)
class Spot:
    """Where a path leads, in three ways."""

    real: Path
    device: str
    """The file system, as `/proc/self/mountinfo` calls it."""
    within: PurePosixPath
    """The path within that file system."""
    inodes: tuple[tuple[int, int], ...]
    """(device, inode) of the path itself, then of each folder above it."""

    def contains(self, other: Spot) -> bool:
        """Whether the other is this, or lies below it."""
        return (
            other.real.is_relative_to(self.real)
            or (other.device == self.device and other.within.is_relative_to(self.within))
            or self.inodes[0] in other.inodes
        )


@dataclass(frozen=True)
class Leak:
    """A place at which an agent would see something private."""

    place: Path
    private: Private
    inside: bool
    """Whether the place lies inside the private folder; else it is that folder or contains it."""


class Guard:
    """Knows the private folders, and which exact paths inside of them agents may have."""

    def __init__(self, private: Sequence[Private], permitted: Iterable[Path] = ()) -> None:
        """`permitted` are real paths: one that is reached through a symbolic link permits nothing."""
        self._private = private
        self._permitted = frozenset(path for path in permitted if _real(path) == path)
        self._places: set[tuple[str, PurePosixPath]] | None = None

    def check(self, bound: Iterable[Path]) -> None:
        """Raises: SetupProblem where one of the bound paths would show something private."""
        table = _Table()
        secrets = tuple(_identity(private.path) for private in self._private)
        for path in dict.fromkeys(bound):
            key = (table.text, secrets, path, _identity(path))
            if key in _harmless:
                continue
            permitted = False
            for leak in self._leaks(table, path):
                if not leak.inside or not self._permits(table, table.spot(path)):
                    raise SetupProblem(_refusal(path, leak))
                permitted = True
            if not permitted:  # What is permitted differs from agent to agent.
                _remember(key)

    def parts(self, folder: Path) -> list[Path]:
        """The folder itself or, where something private lies below it, whatever else is in it.

        The parts are files, folders, and symbolic links.
        """
        table = _Table()
        key = (table.text, tuple(_identity(private.path) for private in self._private), folder, None)
        if key in _harmless:
            return [folder]
        hidden = {leak.place for leak in self._leaks(table, folder)}
        if not hidden:
            _remember(key)
        return list(_without(folder, hidden)) if hidden and folder not in hidden else [folder]

    def hides(self, path: Path) -> bool:
        """Whether the path lies in a private folder, so that `parts` leave it out."""
        return any(path.is_relative_to(private.path) for private in self._private)

    def _leaks(self, table: _Table, path: Path) -> Iterator[Leak]:
        try:
            spot = table.spot(path)
            for private in self._private:
                yield from _leaks_of(table, spot, table.spot(private.path, missing=True), private)
        except FileNotFoundError:
            return  # Nothing can be bound from there, and what binds it says so.
        except OSError as error:
            raise SetupProblem(f"{path} cannot be looked at: {error.strerror}.") from error

    def _permits(self, table: _Table, spot: Spot) -> bool:
        """By its own name, or by another that leads to it, as the platform has made one (`reachable.py`)."""
        if spot.real in self._permitted:
            return True
        if self._places is None:
            self._places = {(one.device, one.within) for one in table.existing(self._permitted)}
        return (spot.device, spot.within) in self._places


def _leaks_of(table: _Table, spot: Spot, secret: Spot, private: Private) -> Iterator[Leak]:
    if spot.contains(secret):
        yield Leak(_place_of(spot, secret), private, inside=False)
    elif secret.contains(spot):
        yield Leak(spot.real, private, inside=True)
    for mounted in table.below(spot.real):
        if mounted.contains(secret):
            yield Leak(_place_of(mounted, secret), private, inside=False)
        elif mounted.device == secret.device and mounted.within.is_relative_to(secret.within):
            yield Leak(mounted.real, private, inside=mounted.real == spot.real)


_harmless: dict[object, None] = {}
"""Paths that showed nothing private, with all that could change that: mounts, and where names lead."""


def _remember(key: object) -> None:
    if len(_harmless) >= 1000:
        _harmless.clear()
    _harmless[key] = None


def _identity(path: Path) -> tuple[str, int, int]:
    """Where a name leads now."""
    real = os.path.realpath(path)
    try:
        found = os.lstat(real)
    except OSError:
        return real, 0, 0
    return real, found.st_dev, found.st_ino


def _place_of(spot: Spot, secret: Spot) -> Path:
    """The path below the spot at which the secret is seen; the spot itself where only its inode tells."""
    if secret.real.is_relative_to(spot.real):
        return secret.real
    if secret.device == spot.device and secret.within.is_relative_to(spot.within):
        return spot.real / secret.within.relative_to(spot.within)
    return spot.real


def _without(folder: Path, hidden: set[Path]) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        paths = sorted(Path(entry.path) for entry in entries)
    for path in paths:
        if path in hidden:
            continue
        if not path.is_symlink() and any(place.is_relative_to(path) for place in hidden):
            yield from _without(path, hidden)
        else:
            yield path


def _refusal(path: Path, leak: Leak) -> str:
    if not leak.inside and leak.place == _real(path):
        why = f"is {leak.private.what}, {leak.private.path}"
    elif leak.inside:
        why = f"lies inside {leak.private.what}, {leak.private.path}"
    else:
        why = f"contains {leak.private.what}, {leak.private.path}"
    return (
        f"No agent is started: it would be given {path}, which {why}. Move one of the two: OCMT_DATA_DIR "
        "sets the data folder, OCMT_CACHE_DIR that of the installed programs."
    )


class _Table:
    """The mounts of this process, as they are now."""

    def __init__(self) -> None:
        self.text = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
        self._spots: dict[Path, Spot] = {}

    @cached_property
    def _mounts(self) -> dict[str, _Mount]:
        return dict(_mount(line) for line in self.text.splitlines())

    def spot(self, path: Path, *, missing: bool = False) -> Spot:
        """Where the path leads, or (`missing`) would lead if it existed.

        Raises: OSError where there is no such path, or where it cannot be told on which mount it lies.
        """
        real = _real(path)
        if real not in self._spots:
            try:
                self._spots[real] = self._look(real)
            except FileNotFoundError:
                if not missing:
                    raise
                above = self.spot(real.parent, missing=True)
                return Spot(real, above.device, above.within / real.name, ((-1, -1), *above.inodes))
        return self._spots[real]

    def existing(self, paths: Iterable[Path]) -> Iterator[Spot]:
        """The spots of those paths that there are."""
        for path in paths:
            with contextlib.suppress(OSError):
                yield self.spot(path)

    def _look(self, real: Path) -> Spot:
        number = os.open(real, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            about = Path(f"/proc/self/fdinfo/{number}").read_text()
            found = os.fstat(number)
        finally:
            os.close(number)
        mount = self._mounts.get(_field(about, "mnt_id"))
        if mount is None or not real.is_relative_to(mount.point):
            raise OSError(0, "it is not known on which mount it lies")
        above = (parent.stat() for parent in real.parents)
        return Spot(
            real,
            mount.device,
            PurePosixPath(mount.root, real.relative_to(mount.point)),
            ((found.st_dev, found.st_ino), *((one.st_dev, one.st_ino) for one in above)),
        )

    def below(self, folder: Path) -> Iterator[Spot]:
        """Where something is mounted below the folder: a bind is recursive, so it is seen there too."""
        prefix = f"{str(folder).rstrip('/')}/"
        for mount in self._mounts.values():
            if not mount.point.startswith(prefix):
                continue
            point = Path(mount.point)
            try:
                found = os.lstat(point)
            except OSError:
                own: tuple[tuple[int, int], ...] = ((-1, -1),)
            else:
                own = ((found.st_dev, found.st_ino),)
            yield Spot(point, mount.device, PurePosixPath(mount.root), own)


def _field(text: str, name: str) -> str:
    found = re.search(rf"^{name}:\s*(\d+)$", text, re.MULTILINE)
    return found[1] if found else ""


def _mount(line: str) -> tuple[str, _Mount]:
    number, _, device, root, point, *_ = line.split(" ")
    return number, _Mount(device, _plain(root), _plain(point))


def _plain(text: str) -> str:
    """The kernel writes blanks and the like as three octal digits."""
    if "\\" not in text:
        return text
    raw = re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), os.fsencode(text))
    return os.fsdecode(raw)


def place_inside(path: Path) -> tuple[str, str, tuple[int, int]]:
    """File system, path within it, and (device, inode) of a path: for whoever looks for it from elsewhere.

    Raises: OSError.
    """
    spot = _Table().spot(path)
    return spot.device, str(spot.within), spot.inodes[0]
