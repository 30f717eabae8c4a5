"""Mounts image files through loop devices. Takes root; makes system calls only, and decides nothing.

The programs `mount` and `losetup` would do the same, but they take ten times as long, and a loop device that
they set up outlives a process that is killed. Here every device clears itself with its last mount.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import struct
import time
from pathlib import Path

_CONTROL = "/dev/loop-control"
_GET_FREE, _CONFIGURE, _GET_STATUS = 0x4C82, 0x4C0A, 0x4C05  # linux/loop.h
_AUTOCLEAR = 4
_NOSUID, _NODEV, _NOATIME, _BIND = 0x2, 0x4, 0x400, 0x1000
_DETACH = 2
_CONFIG = struct.Struct("=II 5Q 4I 64s 64s 32s 2Q 8Q")
"""struct loop_config: descriptor, block size, struct loop_info64, reserved."""
_STATUS = struct.Struct("=5Q 4I 64s 64s 32s 2Q")
"""struct loop_info64: it begins with the device and the inode of the file."""
_OPTIONS = b"noinit_itable,discard,errors=remount-ro"
"""`noinit_itable`: the kernel would otherwise write the whole inode table, which makes the image less sparse.
`discard`: what is removed in the image is freed on the disk below."""
_ATTEMPTS = 20
_RELEASE_SECONDS = 10.0
_LOOK_AGAIN = 0.05
_libc = ctypes.CDLL(None, use_errno=True)


def mount_image(image: Path, place: Path) -> None:
    """Mount the ext4 file system in `image` at `place`. Blocks for milliseconds, longer after a crash.

    Where it is still mounted somewhere, as by a process on its way out that a platform before this one has
    left, it is the same file system: two that know nothing of each other would destroy it.
    Raises: OSError.
    """
    device, name = _attached(image)
    try:
        flags = ctypes.c_ulong(_NOSUID | _NODEV | _NOATIME)
        _check(_libc.mount(name.encode(), os.fsencode(place), b"ext4", flags, _OPTIONS), str(place))
    finally:
        os.close(device)


def bind(source: Path, place: Path) -> None:
    """Have what is mounted at `source` seen at `place`, too. Raises: OSError."""
    _check(
        _libc.mount(os.fsencode(source), os.fsencode(place), None, ctypes.c_ulong(_BIND), None), str(place)
    )


def unmount(place: Path, *, at_once: bool = False) -> None:
    """Unmount what is mounted there. `at_once`: even while it is in use; it ends with its last user then.

    Raises: OSError, EBUSY where it is in use.
    """
    _check(_libc.umount2(os.fsencode(place), _DETACH if at_once else 0), str(place))


def mounted_image(place: Path) -> Path | None:
    """Return the image that is mounted at `place`; None where nothing is. Raises: OSError."""
    try:
        here, above = place.stat(), place.parent.stat()
    except FileNotFoundError:
        return None
    if here.st_dev == above.st_dev:
        return None
    number = f"{os.major(here.st_dev)}:{os.minor(here.st_dev)}"
    try:
        return Path(Path(f"/sys/dev/block/{number}/loop/backing_file").read_text().rstrip("\n"))
    except FileNotFoundError as error:
        raise OSError(errno.EBUSY, "another file system is mounted there", str(place)) from error


def wait_until_free(image: Path) -> None:
    """Return once no loop device has that image, so that it may be checked or changed as a file.

    Blocks. Raises: OSError, EBUSY where one still has it after a while.
    """
    end = time.monotonic() + _RELEASE_SECONDS
    while any(_has(name, image) for name in _candidates(image)):
        if time.monotonic() > end:
            raise OSError(errno.EBUSY, "a process still uses the disk", str(image))
        time.sleep(_LOOK_AGAIN)


def _candidates(image: Path) -> list[str]:
    """The loop devices that have a file of that name, in whatever folder."""
    found = []
    for told in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if image.name in told.read_text(errors="surrogateescape"):
                found.append(f"/dev/{told.parent.parent.name}")
    return found


def _has(name: str, image: Path) -> bool:
    try:
        device = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return _holds(device, image)
    finally:
        os.close(device)


def _holds(device: int, image: Path) -> bool:
    try:
        told = fcntl.ioctl(device, _GET_STATUS, bytes(_STATUS.size))
    except OSError:
        return False  # it has none any more
    number, inode = _STATUS.unpack(told)[:2]
    # The kernel's encoding of a device's number differs from that of the C library beyond 8 bits.
    major, minor = (number >> 8) & 0xFFF, (number & 0xFF) | ((number >> 12) & 0xFFF00)
    status = image.stat()
    return (os.makedev(major, minor), inode) == (status.st_dev, status.st_ino)


def _attached(image: Path) -> tuple[int, str]:
    """A loop device with that image; it clears itself once its last descriptor and mount are gone.

    The one that has it already, if there is one. Nobody else attaches images of this data folder meanwhile.
    """
    for name in _candidates(image):
        with contextlib.suppress(OSError):
            device = os.open(name, os.O_RDWR | os.O_CLOEXEC)
            if _holds(device, image):
                return device, name
            os.close(device)
    file = os.open(image, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        config = _CONFIG.pack(
            file, 4096, *(0,) * 5, 0, 0, 0, _AUTOCLEAR, os.fsencode(image)[-63:], b"", b"", *(0,) * 10
        )
        for _ in range(_ATTEMPTS):
            control = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
            try:
                name = f"/dev/loop{fcntl.ioctl(control, _GET_FREE)}"
            finally:
                os.close(control)
            device = os.open(name, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _CONFIGURE, config)
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:  # then somebody else was given the same one
                    raise
            else:
                return device, name
        raise OSError(errno.EBUSY, "no loop device could be had", str(image))
    finally:
        os.close(file)


def _check(outcome: int, what: str) -> None:
    if outcome != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
