"""Where the platform waits for a supervisor that can inherit nothing: a unix socket in an agent's folder.

It is the platform that listens, in a folder that it alone writes (the agent sees it read-only); it never
connects to a path. One call is taken, before anything of the agent's runs; then the name is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from pathlib import Path
from types import TracebackType

import structlog

log = structlog.get_logger(__name__)

NAME = "control"
_CREDENTIALS = struct.Struct("3i")


class Rendezvous:
    """Open it, start the one who is to call, await `taken`, close it."""

    def __init__(self, folder: Path, uid: int | None) -> None:
        """`uid` is the only one who may call; None: this process's own. Raises OSError. Blocks, briefly."""
        self._uid = os.getuid() if uid is None else uid
        self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._unlink()
            # Not by the folder's own path: a socket's address has room for 107 bytes.
            path = Path(f"/proc/self/fd/{self._folder}") / NAME
            self._listener.bind(str(path))
            if uid is not None:
                os.chown(path, os.getuid(), uid)
            path.chmod(0o660 if uid is not None else 0o600)
            self._listener.setblocking(False)
            self._listener.listen(1)
        except BaseException:
            self.close()
            raise

    async def taken(self) -> tuple[socket.socket, int]:
        """The caller's connection, and its process id in this process's eyes (0: not visible).

        Waits for as long as nobody calls: the caller has to limit the time.
        """
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(self._listener)
            pid, uid, _ = _CREDENTIALS.unpack(
                connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            )
            if uid == self._uid:
                return connection, pid
            connection.close()
            log.warning("stranger_called_instead_of_a_supervisor", uid=uid, expected=self._uid)

    def close(self) -> None:
        """Take the name and the listener away; closing twice does nothing."""
        self._listener.close()
        if self._folder >= 0:
            self._unlink()
            os.close(self._folder)
            self._folder = -1

    def _unlink(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(NAME, dir_fd=self._folder)

    def __enter__(self) -> Rendezvous:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
