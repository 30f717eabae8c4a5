"""Supervises a private PostgreSQL server: what `ocmt up` stands on where no database is given.

The server listens on a unix socket only, in a folder that nobody else may enter, asks for a password, stops
with this process (also when that is killed), and comes back after any kind of end. As root it runs as an
unprivileged user, because PostgreSQL refuses root. One ocmt per folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from urllib.parse import quote

import asyncpg
import structlog
from structlog.typing import FilteringBoundLogger

from ocmt.errors import SetupProblem, Unavailable
from ocmt.platform.database import connect
from ocmt.platform.folder_lock import FolderLock, alive, processes_in
from ocmt.platform.postgres_binaries import all_binaries, find_binaries, major_version, program_root
from ocmt.platform.server_user import ServerUser, choose_server_user

__all__ = ["EmbeddedPostgres", "find_binaries"]

_USER = _DATABASE = "ocmt"
_LONGEST_SOCKET_FOLDER = 85  # sun_path holds 107 bytes; `/.s.PGSQL.5432` and its lock take 20
_POLL_SECONDS = 0.01
_INIT_SECONDS = 120.0
_START_SECONDS = 120.0  # recovery after an unclean stop included
_STOP_SECONDS = 8.0
_RESTARTS = 5
_RESTART_WINDOW = 60.0
_WATCH_SECONDS = 0.5

_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "shared_buffers": "32MB",
    "max_connections": "50",
    "work_mem": "4MB",
    "maintenance_work_mem": "32MB",
    "effective_cache_size": "256MB",
    "max_wal_size": "256MB",
    "min_wal_size": "32MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_logical_replication_workers": "0",
    "max_worker_processes": "2",
    "max_parallel_workers": "0",
    "max_parallel_workers_per_gather": "0",
    "autovacuum_max_workers": "1",
    "jit": "off",
    "huge_pages": "off",
    "log_min_messages": "warning",
    # No user's data in the log: neither statements nor the values in an error's detail.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_line_prefix": "%m [%p] ",
}
_SETTINGS_FROM_18 = {"io_method": "sync"}  # no processes for input and output


class EmbeddedPostgres:
    """One server in one folder. `start`, then `stop`; both may be called again.

    `binaries`: the folder of initdb and postgres (`find_binaries`); where the data was made by another
    major version, one that fits is looked for here and in `cache_dir`. `view`: makes a path reachable for the
    unprivileged user (`ReachablePaths.view`); needed as root only. `settings`: PostgreSQL's, over our own.
    """

    def __init__(
        self,
        folder: Path,
        *,
        binaries: Path,
        log: FilteringBoundLogger | None = None,
        view: Callable[[Path], Path] | None = None,
        settings: Mapping[str, str] | None = None,
        cache_dir: Path | None = None,
    ) -> None:
        self._folder = folder.absolute()
        self._binaries = binaries
        self._log = log or structlog.get_logger(__name__)
        self._view = view or (lambda path: path)
        self._settings = dict(settings or {})
        self._cache_dir = cache_dir
        self._lock = FolderLock(self._folder / "lock")
        self._process: subprocess.Popen[bytes] | None = None
        self._short_sockets: Path | None = None
        self._watch: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The server's process, while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    async def start(self) -> str:
        """Make the database if there is none yet, start the server, and return its DSN (with the password).

        Raises: SetupProblem with one plain line: the folder is in use, not writable or full, the data is of
        another version, the server does not start.
        """
        try:
            return await self._start()
        except OSError as error:
            await self.stop()
            raise _folder_problem(self._folder, error) from error
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop the server: cleanly within 8 s, by force after that. No process is left. Idempotent."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        process, self._process = self._process, None
        if process is not None:
            for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
                if process.poll() is not None:
                    break
                process.send_signal(number)
                seconds = _STOP_SECONDS if number == signal.SIGINT else 2
                await _until(lambda: process.poll() is not None, seconds)
        if self._short_sockets is not None:
            shutil.rmtree(self._short_sockets, ignore_errors=True)
            self._short_sockets = None
        self._lock.release()

    async def _start(self) -> str:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock.acquire("another ocmt uses this data folder")
        await self._end_leftovers()
        user = choose_server_user(self._data)
        # Root's folder can be passed through, but what is in it is private to its owners.
        self._folder.chmod(0o711 if user.dropped else 0o700)
        binaries, major = self._fitting_binaries()
        password = self._password()
        if not self._data.exists():
            await self._initialise(user, binaries, major, password)
        sockets = self._socket_folder(user)
        spawn = partial(self._spawn, user, binaries, major, sockets)
        self._process = spawn()
        await self._wait_until_ready(self._process)
        dsn = f"postgresql://{_USER}:{password}@/{_DATABASE}?host={quote(str(sockets), safe='')}"
        await self._ensure_database(dsn)
        self._watch = asyncio.create_task(self._keep_running(spawn), name="database")
        self._log.debug("database_ready", folder=str(self._folder), version=major)
        return dsn

    async def _keep_running(self, spawn: Callable[[], subprocess.Popen[bytes]]) -> None:
        """A server that ends by itself (out of memory, killed) is started again, a few times a minute."""
        restarts: deque[float] = deque(maxlen=_RESTARTS)
        while self._process is not None:
            if self._process.poll() is None:
                await asyncio.sleep(_WATCH_SECONDS)
                continue
            now = asyncio.get_running_loop().time()
            if len(restarts) == _RESTARTS and now - restarts[0] < _RESTART_WINDOW:
                self._log.critical(
                    "database_given_up", code=self._process.returncode, log=str(self._log_file)
                )
                return
            restarts.append(now)
            self._log.error("database_ended", code=self._process.returncode, log=str(self._log_file))
            try:
                await self._end_leftovers()
                self._process = spawn()
                await self._wait_until_ready(self._process)
            except (OSError, SetupProblem) as error:
                self._log.error("database_not_restarted", error=str(error))
                await asyncio.sleep(_WATCH_SECONDS)

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _seen(self, path: Path) -> Path:
        """That path as the server's user can reach it."""
        if path.is_relative_to(self._folder):
            return self._view(self._folder) / path.relative_to(self._folder)
        return self._view(path)

    @property
    def _log_file(self) -> Path:
        return self._folder / "server.log"

    async def _end_leftovers(self) -> None:
        """We hold the lock, so a server that still runs here lost its parent: let it end, or end it.

        A `postmaster.pid` without any such server is stale, whatever other process has that number by now.
        """
        staging = self._folder / "data.new"
        for number in (None, signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            left = [pid for folder in (self._data, staging) for pid in processes_in(folder, "postgres")]
            if not left:
                break
            self._log.warning("database_left_running", pids=left)
            if number is not None:
                for pid in left:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
            await _until(_all_gone(left), 3)
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        shutil.rmtree(staging, ignore_errors=True)

    def _fitting_binaries(self) -> tuple[Path, int]:
        major = major_version(self._binaries)
        if major is None:
            raise SetupProblem(f"The database server in {self._binaries} does not run.")
        made_by = self._data / "PG_VERSION"
        if not made_by.exists():
            return self._binaries, major
        wanted = int(made_by.read_text().strip())
        if wanted == major:
            return self._binaries, major
        for other in all_binaries(self._cache_dir):
            if major_version(other) == wanted:
                return other, wanted
        raise SetupProblem(
            f"The database in {self._folder} was made by PostgreSQL {wanted}, and this machine has "
            f"{major}: install PostgreSQL {wanted}."
        )

    def _password(self) -> str:
        path = self._folder / "password"
        if path.is_file():
            return path.read_text().strip()
        if self._data.exists():
            raise SetupProblem(f"The file {path} is missing; without it the database cannot be opened.")
        password = secrets.token_urlsafe(32)
        fresh = path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(password)
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(path)
        return password

    async def _initialise(self, user: ServerUser, binaries: Path, major: int, password: str) -> None:
        """initdb beside the final place, then one rename: interrupted at any point, it starts anew."""
        staging = self._folder / "data.new"
        user.own(staging)
        locale = (
            ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
            if major >= 17
            else ["--locale=C.UTF-8", "--lc-messages=C"]
        )
        # The password goes by an anonymous file: never on a disk where the server's user could leave it.
        password_file = os.memfd_create("password")
        try:
            os.write(password_file, password.encode())
            command = [
                str(self._program(binaries, "initdb")),
                f"--pgdata={self._seen(staging)}",
                f"--username={_USER}",
                "--auth=scram-sha-256",
                f"--pwfile=/proc/self/fd/{password_file}",
                "--data-checksums",
                "--encoding=UTF8",
                "--no-instructions",
                *locale,
                *(["--no-sync"] if self._settings.get("fsync") == "off" else []),
            ]
            with tempfile.TemporaryFile() as output:
                process = user.start(command, output.fileno(), die="KILL", pass_fds=(password_file,))
                try:
                    await _until(lambda: process.poll() is not None, _INIT_SECONDS)
                finally:
                    process.kill()
                    process.wait()
                if process.returncode != 0:
                    output.seek(0)
                    raise self._failure("could not be made", output.read().decode(errors="replace"))
        finally:
            os.close(password_file)
        staging.rename(self._data)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _socket_folder(self, user: ServerUser) -> Path:
        folder = self._folder / "socket"
        if max(len(os.fsencode(path)) for path in (folder, self._seen(folder))) > (_LONGEST_SOCKET_FOLDER):
            # The path of a unix socket is short by nature: a private folder of our own elsewhere.
            name = hashlib.sha256(os.fsencode(self._folder)).hexdigest()[:16]
            folder = self._short_sockets = Path(tempfile.gettempdir()) / f"ocmt-{name}"
        user.own(folder)
        return folder

    def _spawn(self, user: ServerUser, binaries: Path, major: int, sockets: Path) -> subprocess.Popen[bytes]:
        quoted = str(self._seen(sockets)).replace('"', '""')
        settings = {**_SETTINGS, **(_SETTINGS_FROM_18 if major >= 18 else {}), **self._settings}
        settings["unix_socket_directories"] = f'"{quoted}"'
        command = [str(self._program(binaries, "postgres")), "-D", str(self._seen(self._data))]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with contextlib.suppress(FileNotFoundError):
            self._log_file.rename(self._log_file.with_suffix(".log.1"))
        output = os.open(self._log_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        try:
            return user.start(command, output, die="INT")
        finally:
            os.close(output)

    def _program(self, binaries: Path, name: str) -> Path:
        root = program_root(binaries)
        return self._view(root) / binaries.relative_to(root) / name

    async def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        """The server writes `ready` into its pid file once it accepts connections."""
        pid_file = self._data / "postmaster.pid"

        def is_ready() -> bool:
            with contextlib.suppress(FileNotFoundError):
                lines = [line.strip() for line in pid_file.read_text().split("\n")]
                return lines[0] == str(process.pid) and lines[7:8] == ["ready"]
            return False

        await _until(lambda: process.poll() is not None or is_ready(), _START_SECONDS)
        if process.poll() is not None or not is_ready():
            raise self._failure("did not start", self._log_file.read_text(errors="replace"))

    async def _ensure_database(self, dsn: str) -> None:
        try:
            connection = await connect(dsn)
        except Unavailable as error:
            if not isinstance(error.__cause__, asyncpg.InvalidCatalogNameError):
                raise SetupProblem(f"The database server refuses us: {error.detail}.") from error
            connection = await connect(dsn.replace(f"@/{_DATABASE}?", "@/postgres?"))
            try:
                await connection.execute(f"create database {_DATABASE}")
            finally:
                await connection.close(timeout=5)
        else:
            await connection.close(timeout=5)

    def _failure(self, what: str, output: str) -> SetupProblem:
        lines = [line for line in output.strip().splitlines() if line.strip()]
        if "No space left on device" in output:
            return SetupProblem(f"The disk that holds {self._folder} is full. Make room and start again.")
        telling = [line for line in lines if any(word in line for word in ("FATAL", "PANIC", "rror:"))]
        last = (telling or lines or ["it said nothing"])[-1].strip()
        return SetupProblem(f"The database {what}: {last}", detail="\n".join(lines[-20:]))


def _all_gone(pids: list[int]) -> Callable[[], bool]:
    return lambda: not any(alive(pid) for pid in pids)


async def _until(condition: Callable[[], bool], seconds: float) -> None:
    """Return once the outside world has come to that, or the time is over."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 (another process: nothing tells us)
                await asyncio.sleep(_POLL_SECONDS)


def _folder_problem(folder: Path, error: OSError) -> SetupProblem:
    match error:
        case PermissionError() | OSError(errno=errno.EROFS):
            return SetupProblem(f"The folder {folder} is not writable for this user.", detail=str(error))
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return SetupProblem(f"The disk that holds {folder} is full. Make room and start again.")
        case _:
            return SetupProblem(f"The folder {folder} cannot be used: {error.strerror or error}.")
