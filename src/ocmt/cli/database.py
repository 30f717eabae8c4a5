"""The database of an installation, opened for the moment of one command.

It is the one that DATABASE_URL names, or else the data folder's own: where `ocmt up` runs on that folder its
server is shared, otherwise the server is started and stopped again. Kept apart from `bootstrap`, which opens
every room and takes seconds to import.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote
from uuid import UUID

import structlog

from ocmt.cli.process import address_of_running
from ocmt.errors import NotFound, SetupProblem
from ocmt.identity.service import Identity
from ocmt.platform import telemetry
from ocmt.platform.clock import SystemClock
from ocmt.platform.database import Connection, Database
from ocmt.platform.embedded_postgres import EmbeddedPostgres
from ocmt.platform.folder_lock import FolderLock
from ocmt.platform.installation import Stores
from ocmt.platform.mail import LocalOutbox
from ocmt.platform.migrations import check_not_too_new, migrate, schema_is_current
from ocmt.platform.postgres_binaries import find_binaries
from ocmt.platform.reachable import ReachablePaths
from ocmt.settings import Settings, load_settings

_SOCKET = ".s.PGSQL.5432"
_SOCKET_FOLDER_LINE = 4  # of postmaster.pid: https://www.postgresql.org/docs/current/storage-file-layout.html


@dataclass(frozen=True)
class Opened:
    """What commands work on."""

    settings: Settings
    database: Database
    identity: Identity

    async def stores(self) -> Stores:
        """Return the installation's stores. Raises: NotTogether, SetupProblem, Unavailable."""
        from ocmt.bootstrap.stores import stores_of  # late, as only some commands need the stores

        return await stores_of(self.settings, self.database)


@asynccontextmanager
async def open_identity(
    data: Path | None, *, port: int | None = None, create: bool = False
) -> AsyncIterator[Identity]:
    """The identity service alone; see `open_installation`."""
    async with open_installation(data, port=port, create=create) as opened:
        yield opened.identity


@asynccontextmanager
async def open_installation(
    data: Path | None, *, port: int | None = None, create: bool = False
) -> AsyncIterator[Opened]:
    """The installation's database and users. `create`: make the database if there is none.

    Raises: NotFound where there is none, SetupProblem where it cannot be opened or its schema is behind.
    """
    settings = load_settings(data_dir=data, port=port)
    running = None if port is not None else address_of_running(settings.data_dir)
    if running is not None:
        # The running process may have got its port and address from settings that this shell does not have.
        settings = settings.model_copy(update={"public_url": running})
    async with open_dsn(settings, create=create) as dsn, AsyncExitStack() as stack:
        await check_not_too_new(dsn)
        if not await schema_is_current(dsn):
            if settings.database_url is not None:
                raise SetupProblem("The database's schema is behind this program: run `ocmt db migrate`.")
            await migrate(dsn)
        database = await Database.open(dsn, pool_size=2)
        stack.push_async_callback(database.close)
        outbox = LocalOutbox(settings.data_dir / "outbox", settings.mail_from, print)
        identity = Identity.over(
            database,
            outbox,
            SystemClock(),
            public_url=settings.url,
            sign_up=settings.sign_up,
            allowed=settings.sign_up_allowed,
            mfa_for_admins=settings.mfa_for_admins,
            shut_out=_stop_agent,
        )
        yield Opened(settings, database, identity)


@asynccontextmanager
async def open_dsn(settings: Settings, *, create: bool) -> AsyncIterator[str]:
    """How to reach the database, which answers until the block ends. Raises as `open_identity` does."""
    telemetry.configure_logging(settings.log_format, "warning")
    if settings.database_url is not None:
        yield settings.database_url.get_secret_value()
        return
    folder = settings.data_dir / "postgres"
    if create:
        _make(settings.data_dir)
    elif not (folder / "data").exists():
        raise NotFound(
            f"There is no database in {settings.data_dir} yet: start `ocmt up`, or name the folder by --data."
        )
    if _in_use(folder):
        yield dsn_of_running(folder)
        return
    binaries = find_binaries(settings.cache_dir)
    if binaries is None:
        raise SetupProblem("No PostgreSQL was found. Run `make setup`, or set DATABASE_URL.")
    paths = ReachablePaths()
    paths.enter()
    server = EmbeddedPostgres(
        folder,
        binaries=binaries,
        log=structlog.get_logger(__name__),
        view=paths.view,
        cache_dir=settings.cache_dir,
    )
    try:
        yield await server.start()
    finally:
        await server.stop()


async def _stop_agent(connection: Connection, user_id: UUID) -> None:
    from ocmt.agents.service import shut_out  # late: few commands need it

    await shut_out(connection, user_id)


def _make(data: Path) -> None:
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SetupProblem(f"The data folder {data} cannot be made: {error.strerror}.") from error


def _in_use(folder: Path) -> bool:
    """Whether another process (`ocmt up`) supervises the server of this folder now."""
    if not (folder / "lock").exists():
        return False
    lock = FolderLock(folder / "lock")
    try:
        lock.acquire("in use")
    except SetupProblem:
        return True
    lock.release()
    return False


def running_dsn(settings: Settings) -> str | None:
    """Return how to reach the database without starting one; None where it does not run or is not there."""
    if settings.database_url is not None:
        return settings.database_url.get_secret_value()
    folder = settings.data_dir / "postgres"
    return dsn_of_running(folder) if _in_use(folder) else None


def dsn_of_running(folder: Path) -> str:
    """The way to the server that another process started there: its socket, and the folder's password."""
    sockets = [folder / "socket"]
    try:
        lines = (folder / "data" / "postmaster.pid").read_text().splitlines()
        sockets += [Path(line) for line in lines[_SOCKET_FOLDER_LINE : _SOCKET_FOLDER_LINE + 1] if line]
        password = (folder / "password").read_text().strip()
    except FileNotFoundError as error:
        raise SetupProblem("`ocmt up` is just starting or ending here: try again in a moment.") from error
    except PermissionError as error:
        raise SetupProblem(f"{folder} belongs to another user: run this as that user.") from error
    for socket in sockets:
        if (socket / _SOCKET).exists():
            return f"postgresql://ocmt:{quote(password, safe='')}@/ocmt?host={quote(str(socket), safe='')}"
    raise SetupProblem("`ocmt up` runs here, but its database does not answer: try again in a moment.")
