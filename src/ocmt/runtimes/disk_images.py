"""Makes, checks, and tries image files with an ext4 file system, by the programs of e2fsprogs. Blocks."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

MEBIBYTE = 1024**2
_MAKE = ("mkfs.ext4", "-q", "-F", "-b", "4096", "-J", "size=16", "-E")
_LAZY = "lazy_itable_init=1,lazy_journal_init=1,nodiscard"
CHECK_SECONDS = 120
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def make_image(image: Path, size: int, *, reserved: int, journal: bool) -> None:
    """A sparse file with an empty file system. Raises: OSError."""
    image.touch(mode=0o600, exist_ok=False)
    os.truncate(image, size)
    percent = f"{100 * reserved / size:.4f}"
    if journal:
        run([*_MAKE, _LAZY, "-m", percent, str(image)], seconds=CHECK_SECONDS)
    else:
        run(
            ["mkfs.ext4", "-q", "-F", "-b", "4096", "-O", "^has_journal", "-m", percent, str(image)],
            seconds=20,
        )


def had_errors(place: Path) -> bool:
    """Whether the kernel has noted errors in the mounted file system, as after writing to a full disk.

    It takes no writes then. Newer kernels do not say so in statvfs(2).
    """
    if os.statvfs(place).f_flag & os.ST_RDONLY:
        return True
    device = place.stat().st_dev
    name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
    try:
        return int(Path(f"/sys/fs/ext4/{name}/errors_count").read_text()) > 0
    except (OSError, ValueError):
        return False


def check_image(image: Path) -> None:
    """Have e2fsck mend what it can without asking. Raises: OSError."""
    run(["e2fsck", "-f", "-p", str(image)], seconds=CHECK_SECONDS, good=(0, 1, 2))


def filled(file: Path, most: int) -> str | None:
    """Write until the disk is full; returns what is wrong where it does not become full."""
    with file.open("wb", buffering=0) as writing:
        try:
            for _ in range(most // MEBIBYTE):
                writing.write(bytes(MEBIBYTE))
        except OSError as error:
            if error.errno == errno.ENOSPC:
                return None
            raise
    return "an image of 8 MiB took 16 MiB"


def run(command: list[str], *, seconds: float, good: tuple[int, ...] = (0,)) -> None:
    """Raises: OSError with the program's last words."""
    program = shutil.which(command[0], path=_PATH)
    if program is None:
        raise OSError(errno.ENOENT, f"the program {command[0]} is missing: install e2fsprogs")
    try:
        done = subprocess.run(  # noqa: S603 - our own command line
            [program, *command[1:]],
            env={"PATH": _PATH, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise OSError(errno.ETIMEDOUT, f"{command[0]} took longer than {seconds:.0f} s") from error
    if done.returncode not in good:
        words = (done.stderr or done.stdout).decode("utf-8", "replace").strip()[-300:]
        raise OSError(errno.EIO, f"{command[0]}: {words or f'exit code {done.returncode}'}")
