"""Opens what every feature stands on: the database, the stores, mail, and the HTTP client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ocmt.bootstrap.stores import stores_of
from ocmt.errors import SetupProblem
from ocmt.platform import migrations
from ocmt.platform.clock import Clock, SystemClock
from ocmt.platform.database import Database, Hints
from ocmt.platform.embedded_postgres import EmbeddedPostgres
from ocmt.platform.folder_lock import FolderLock
from ocmt.platform.free_space import FreeSpace, GuardedObjects, read_folders
from ocmt.platform.http import HttpClient
from ocmt.platform.mail import LocalOutbox, Mail, SmtpMail
from ocmt.platform.objects import Objects
from ocmt.platform.postgres_binaries import find_binaries
from ocmt.platform.reachable import ReachablePaths
from ocmt.platform.secrets import Secrets
from ocmt.settings import Settings

Announce = Callable[[str], None]
"""Shows one line to the person who started the program."""


@dataclass(frozen=True)
class Platform:
    """What every feature stands on."""

    settings: Settings
    clock: Clock
    database: Database
    hints: Hints
    objects: Objects
    secrets: Secrets
    mail: Mail
    http: HttpClient
    paths: ReachablePaths
    scratch: Path
    """A folder on a disk, for archives that are gone when they are closed."""
    alone: bool
    """Whether no other process can use this database: the embedded one, in a data folder that we locked."""
    space: FreeSpace = field(default_factory=lambda: FreeSpace(list, floor=0))
    """Whether the disk of the data folder is almost full; by default it never is."""


@asynccontextmanager
async def open_platform(
    settings: Settings, paths: ReachablePaths, announce: Announce
) -> AsyncIterator[Platform]:
    """Database (started and migrated if need be), stores, mail, and the HTTP client, of the only process
    with this data folder.

    Raises: SetupProblem with one line that says what to do.
    """
    async with AsyncExitStack() as stack:
        data = prepare_folder(settings.data_dir)
        # Also where the database is elsewhere: of two processes with the same agents' folders one would end
        # the other's agents as leftovers, and one that is thawed late would put old files under a running
        # agent.
        lock = FolderLock(data / ".in-use")
        lock.acquire(f"The data folder {data} is another `ocmt up`'s: give this one its own by --data")
        stack.callback(lock.release)
        if settings.database_url is not None:
            dsn = settings.database_url.get_secret_value()
        else:
            dsn = await _embedded_database(settings, data, paths, stack)
        await migrations.check_not_too_new(dsn)
        if not await migrations.schema_is_current(dsn):
            await migrations.migrate(dsn)
        platform = await _platform(settings, dsn, data, paths, announce, stack)
        await platform.hints.start()
        yield platform


@asynccontextmanager
async def open_shared_platform(settings: Settings, announce: Announce) -> AsyncIterator[Platform]:
    """The same for one service of several, as in a container: over a database that others migrate and share.

    It listens for no hints. Raises: SetupProblem, Unavailable, as `open_platform` does.
    """
    if settings.database_url is None:
        raise SetupProblem("Set DATABASE_URL: a service by itself shares its database with the others.")
    async with AsyncExitStack() as stack:
        data = prepare_folder(settings.data_dir)
        dsn = settings.database_url.get_secret_value()
        await migrations.check_not_too_new(dsn)
        if not await migrations.schema_is_current(dsn, "pre"):
            raise SetupProblem("The database's schema is behind this program: run `ocmt db migrate`.")
        yield await _platform(settings, dsn, data, ReachablePaths(), announce, stack)


async def _platform(
    settings: Settings, dsn: str, data: Path, paths: ReachablePaths, announce: Announce, stack: AsyncExitStack
) -> Platform:
    clock = SystemClock()
    database = await Database.open(dsn, pool_size=settings.database_pool)
    stack.push_async_callback(database.close)
    stores = await stores_of(settings.model_copy(update={"data_dir": data}), database)
    hints = Hints(dsn, clock)
    stack.push_async_callback(hints.close)
    http = await stack.enter_async_context(HttpClient())
    space = FreeSpace(read_folders(data, data / "postgres"), floor=settings.disk_floor)
    return Platform(
        settings=settings,
        clock=clock,
        database=database,
        hints=hints,
        objects=GuardedObjects(stores.objects, space),
        secrets=stores.secrets,
        mail=_mail(settings, data, announce),
        http=http,
        paths=paths,
        scratch=data / "transfers",
        space=space,
        alone=settings.database_url is None,
    )


def prepare_folder(folder: Path) -> Path:
    """The data folder, made if need be. Raises SetupProblem where it can not be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        probe = folder / ".writable"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise SetupProblem(
            f"The data folder {folder} can not be written ({error.strerror}). "
            "Choose another with --data or OCMT_DATA_DIR, or correct its owner."
        ) from error
    return folder.resolve()


async def _embedded_database(
    settings: Settings, data: Path, paths: ReachablePaths, stack: AsyncExitStack
) -> str:
    binaries = find_binaries(settings.cache_dir)
    if binaries is None:
        raise SetupProblem("No PostgreSQL was found. Run `make setup`, or set DATABASE_URL.")
    server = EmbeddedPostgres(
        data / "postgres", binaries=binaries, view=paths.view, cache_dir=settings.cache_dir
    )
    dsn = await server.start()
    stack.push_async_callback(server.stop)
    return dsn


def _mail(settings: Settings, data: Path, announce: Announce) -> Mail:
    if settings.smtp_url is not None:
        return SmtpMail(settings.smtp_url.get_secret_value(), settings.mail_from)
    return LocalOutbox(data / "outbox", settings.mail_from, announce)
