"""As whom a helper server runs: as ourselves, or, when we are root, as somebody without privileges."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ocmt.errors import SetupProblem


@dataclass(frozen=True)
class ServerUser:
    """A user and group on this machine; `dropped`: not the one that we run as."""

    uid: int
    gid: int
    dropped: bool

    def launcher(self, *, die_with_parent: str) -> list[str]:
        """What goes before a command so that it runs as this user, gains nothing, and gets the signal
        `die_with_parent` (`INT`, `KILL`) when the thread that started it ends."""
        setpriv = shutil.which("setpriv", path="/usr/bin:/bin:/usr/sbin:/sbin")
        if setpriv is None:
            raise SetupProblem("The program setpriv is missing: install the package util-linux.")
        drop = [f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups"] if self.dropped else []
        return [setpriv, f"--pdeathsig={die_with_parent}", "--no-new-privs", *drop, "--"]

    def start(
        self, command: Sequence[str], output: int, *, die: str, pass_fds: tuple[int, ...] = ()
    ) -> subprocess.Popen[bytes]:
        """Start a program as this user, tied to the life of the thread that calls this and out of the
        terminal's reach: Ctrl-C is for us, who stop it when we are done. What it says goes to `output`."""
        return subprocess.Popen(  # noqa: S603
            [*self.launcher(die_with_parent=die), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=pass_fds,
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "LC_MESSAGES": "C", "TZ": "UTC"},
            start_new_session=True,
        )

    def own(self, folder: Path) -> None:
        """Make sure of a folder with mode 0700 that is this user's, and no link. Raises: SetupProblem."""
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (os.geteuid(), self.uid):
            raise SetupProblem(f"{folder} is in the way: it belongs to somebody else. Remove it.")
        if self.dropped:
            os.chown(folder, self.uid, self.gid)
        folder.chmod(0o700)


def choose_server_user(data: Path) -> ServerUser:
    """The owner of that folder where it exists; else ourselves, or for root `postgres`, else `nobody`.

    Raises: SetupProblem where the folder belongs to a user whom we cannot become.
    """
    try:
        owner = data.stat()
    except FileNotFoundError:
        owner = None
    if os.geteuid() != 0:
        if owner is not None and owner.st_uid != os.geteuid():
            raise SetupProblem(
                f"{data} belongs to another user (uid {owner.st_uid}): start ocmt as that user."
            )
        return ServerUser(os.geteuid(), os.getegid(), dropped=False)
    if owner is not None:
        if owner.st_uid == 0:
            raise SetupProblem(f"{data} belongs to root, but the database refuses to run as root.")
        return ServerUser(owner.st_uid, owner.st_gid, dropped=True)
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return ServerUser(entry.pw_uid, entry.pw_gid, dropped=True)
    raise SetupProblem("The database refuses to run as root, and there is no user `nobody` to run it as.")
