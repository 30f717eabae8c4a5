"""As whom a helper server runs: as ourselves, or, when we are root, as somebody without privileges."""

from __future__ import annotations

import os
import pwd
import shutil
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
