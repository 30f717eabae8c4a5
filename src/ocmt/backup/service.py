"""Create, verify, restore.

Which order makes the pair of database and objects consistent: the snapshot of the database is opened first,
the objects are listed and read after it. Whoever writes objects puts them there before the row that points to
them commits, so whatever a row of the snapshot needs was in the store when the snapshot was opened; objects
are replaced whole, so none is read half. What came later is more than the rows know of, and harmless. What
vanished between (pruned, or its conversation deleted) is an error only where a row of the snapshot needs it.
The secrets are read after the snapshot, too: a key exists before anything that is sealed with it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

import asyncpg

from ocmt.backup import database as rows
from ocmt.backup.database import NeededObjects
from ocmt.backup.file import existing_file, flush_to_disk, new_file
from ocmt.backup.model import (
    About,
    Cost,
    Item,
    Part,
    PartEnd,
    Summary,
    Writer,
    checked_passphrase,
    read_backup,
)
from ocmt.errors import Conflict, NotFound, SetupProblem, Unavailable
from ocmt.platform import installation
from ocmt.platform.clock import Clock
from ocmt.platform.database import Connection, connect
from ocmt.platform.migrations import applied_revision, revisions
from ocmt.platform.objects import Objects
from ocmt.platform.secrets import Secrets
from ocmt.platform.work import OTHER

# As chat writes them: derived from the rows, so one without its row is of a later moment, and left out.
_TRANSCRIPT = re.compile(r"users/[0-9a-f-]{36}/sessions/([0-9a-f-]{36})\.jsonl")


_TURN_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Report:
    """What a backup file holds."""

    file: Path
    created_at: str
    program: str
    revision: str
    tables: int
    secrets: int
    objects: int
    size: int
    """Of the file, in bytes."""


@dataclass(frozen=True)
class _Needs:
    """Without which the rows of a snapshot would be of no use."""

    objects: frozenset[str]
    secrets: bool


async def _needs_none(_snapshot: Connection) -> set[str]:
    return set()


@dataclass
class Backups:
    """Backups of one installation, whose parts are given."""

    dsn: str
    objects: Objects
    secrets: Secrets
    clock: Clock
    program: str
    """This program's version."""
    needed_objects: NeededObjects = _needs_none
    cost: Cost = field(default_factory=Cost)

    async def create(self, path: Path, passphrase: str, *, replace: bool = False) -> Report:
        """Write a backup of this moment, read it back, and give it its name.

        Raises: InvalidInput for a weak passphrase, Conflict where there is such a file or where an object
        that is needed vanished meanwhile, SetupProblem, Unavailable.
        """
        checked_passphrase(passphrase)
        with new_file(path, replace=replace) as file:
            writer = await OTHER.run(Writer, file.write, passphrase, self.cost)
            needs = await self._write_database(writer)
            await self._write_secrets(writer, needs)
            await self._write_objects(writer, set(needs.objects))
            writer.finish()
            await OTHER.run(flush_to_disk, file)
            return await _verified(path, file, passphrase)

    async def restore(self, backup: OpenBackup, *, force: bool = False) -> None:
        """Make this installation what the backup's was.

        The database changes in one transaction. Where that fails, what was put into the stores is taken out
        again; with `force` the stores may have held something else, which is gone then: restore again.
        Raises: Conflict where this installation is not empty (unless `force`: all it holds is replaced) or
        runs, SetupProblem, Unavailable.
        """
        connection = await connect(self.dsn)
        try:
            await rows.check_nobody_else(connection, self.clock)
            await rows.check_ours(connection)
            if not force:
                await self._check_empty(connection)
            async with _restore_errors(), _database_errors():
                await self._restore(connection, backup.items(), force=force)
        finally:
            await connection.close(timeout=5)

    async def _write_database(self, writer: Writer) -> _Needs:
        connection = await connect(self.dsn)
        try:
            async with _database_errors(), connection.transaction(isolation="repeatable_read", readonly=True):
                revision = await applied_revision(connection)  # the first statement: the snapshot's moment
                if revision is None:
                    raise SetupProblem("There is nothing to back up yet: the database has no schema.")
                moment = self.clock.now().isoformat(timespec="seconds")
                writer.begin(About(moment, self.program, revision))
                await rows.write_tables(connection, writer)
                return _Needs(
                    objects=frozenset(await self.needed_objects(connection)),
                    secrets=await _needs_secrets(connection),
                )
        finally:
            await connection.close(timeout=5)

    async def _write_secrets(self, writer: Writer, needs: _Needs) -> None:
        names = [name for name in await self.secrets.names() if name != installation.SECRET]
        if needs.secrets and not names:
            raise SetupProblem(
                "The database holds what only a secret opens, and there are no secrets here: name the "
                "installation's own data folder by --data."
            )
        for name in names:
            value = await self.secrets.get(name)
            if value is not None:
                writer.part(Part("secret", name))
                writer.data(value)
                writer.end_part()

    async def _write_objects(self, writer: Writer, needed: set[str]) -> None:
        for key in await self.objects.list(""):
            if key == installation.OBJECT:
                continue  # a restored copy is an installation of its own
            pieces = _readable(self.objects.get_pieces(key), key)
            try:
                first = await anext(pieces, b"")
            except NotFound:
                continue
            writer.part(Part("object", key))
            writer.data(first)
            async for piece in pieces:
                writer.data(piece)
            writer.end_part()
            needed.discard(key)
        if needed:
            raise Conflict(
                f"The object {min(needed)} is needed, and is not in the store: it was removed meanwhile, and "
                "another try will do, or it was lost.",
                detail=f"{len(needed)} objects",
            )

    async def _check_empty(self, connection: Connection) -> None:
        secrets = set(await self.secrets.names()) - {installation.SECRET}
        objects = set(await self.objects.list("")) - {installation.OBJECT}
        if await rows.holds_users(connection) or secrets or objects:
            raise Conflict(
                "This installation is not empty. Restore into an empty data folder and database, or replace "
                "all that is here with --force."
            )

    async def _restore(self, connection: Connection, items: Iterator[Item], *, force: bool) -> None:
        written: list[str] = []
        secrets: dict[str, bytes] = {}
        try:
            async with connection.transaction():
                about = next(items)
                assert isinstance(about, About)
                revocations = await rows.find_revocations(connection)
                await rows.make_schema(connection, about.revision)
                for part in items:
                    if isinstance(part, Part):
                        await self._restore_part(connection, part, _data(items), secrets, written)
                for name, value in secrets.items():
                    await self.secrets.put(name, value)
                if force:
                    await self._remove_others(set(written), set(secrets))
                await self.objects.persist(written)
                await rows.settle(connection, revocations)
                await installation.forget_marks(self.objects, self.secrets)
        except BaseException:
            if not force:
                await self._take_back(written, secrets)
            raise

    async def _restore_part(
        self,
        connection: Connection,
        part: Part,
        data: AsyncIterator[bytes],
        secrets: dict[str, bytes],
        written: list[str],
    ) -> None:
        match part.kind:
            case "table":
                await rows.load_table(connection, part, data)
            case "sequences":
                await rows.set_sequences(connection, await _whole(data))
            case "secret":
                secrets[part.name] = await _whole(data)
            case "object":
                if await self._is_of_the_moment(connection, part.name):
                    written.append(part.name)
                    await self.objects.put_pieces(part.name, data)
        async for _ in data:
            pass  # what was not wanted

    async def _is_of_the_moment(self, connection: Connection, key: str) -> bool:
        transcript = _TRANSCRIPT.fullmatch(key)
        if transcript is None:
            return True
        return bool(await rows.queries.conversation_exists(connection, id=UUID(transcript[1])))

    async def _remove_others(self, keys: set[str], names: set[str]) -> None:
        for key in set(await self.objects.list("")) - keys:
            await self.objects.delete(key)
        for name in set(await self.secrets.names()) - names:
            await self.secrets.delete(name)

    async def _take_back(self, keys: list[str], names: dict[str, bytes]) -> None:
        for key in keys:
            await self.objects.delete(key)
        for name in names:
            await self.secrets.delete(name)


@dataclass(frozen=True)
class OpenBackup:
    """A backup whose whole content was read and found right; kept open, so that none takes its place."""

    report: Report
    file: BinaryIO
    passphrase: str

    def items(self) -> Iterator[Item]:
        """What it holds, from the beginning; checked once more."""
        self.file.seek(0)
        return read_backup(self.file.read, self.passphrase)


@asynccontextmanager
async def open_backup(path: Path, passphrase: str) -> AsyncIterator[OpenBackup]:
    """A backup to restore, once all of it is verified.

    Raises: BackupDamaged, NotFound, SetupProblem where it cannot be read or a newer program made it.
    """
    with existing_file(path) as file:
        report = await _verified(path, file, passphrase)
        if report.revision not in [number for number, _ in revisions()]:
            raise SetupProblem(
                f"This backup was made by a newer OCMT (schema {report.revision}): update this one first."
            )
        yield OpenBackup(report, file, passphrase)


async def verify(path: Path, passphrase: str) -> Report:
    """Read all of a backup, of whatever version. Raises BackupDamaged, NotFound, SetupProblem."""
    with existing_file(path) as file:
        return await _verified(path, file, passphrase)


async def _verified(path: Path, file: BinaryIO, passphrase: str) -> Report:
    file.seek(0)
    about: About | None = None
    summary: Summary | None = None
    unseen = 0
    for item in read_backup(file.read, passphrase):
        if isinstance(item, About):
            about = item
        elif isinstance(item, Summary):
            summary = item
        elif isinstance(item, bytes) and (unseen := unseen + len(item)) > _TURN_BYTES:
            unseen = 0
            await asyncio.sleep(0)  # for whoever wants to interrupt us
    assert about is not None, "read_backup raises before that"
    assert summary is not None
    return Report(
        file=path,
        created_at=about.created_at,
        program=about.program,
        revision=about.revision,
        tables=summary.parts.get("table", 0),
        secrets=summary.parts.get("secret", 0),
        objects=summary.parts.get("object", 0),
        size=file.tell(),
    )


async def _data(items: Iterator[Item]) -> AsyncIterator[bytes]:
    """What follows up to the part's end."""
    for item in items:
        if isinstance(item, PartEnd):
            return
        assert isinstance(item, bytes)
        yield item


async def _readable(pieces: AsyncIterator[bytes], key: str) -> AsyncIterator[bytes]:
    """The same pieces; a fault of the store is told from one of the file that they are written to."""
    try:
        async for piece in pieces:
            yield piece
    except OSError as error:
        raise SetupProblem(f"The object {key} cannot be read: {error.strerror or error}.") from error


async def _whole(data: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in data])


@asynccontextmanager
async def _database_errors() -> AsyncIterator[None]:
    """asyncpg's errors as one line that says what to do."""
    try:
        yield
    except asyncpg.LockNotAvailableError as error:
        raise Unavailable("Another process is migrating the database. Try again in a minute.") from error
    except asyncpg.DiskFullError as error:
        raise SetupProblem("The disk of the database is full. Make room there, then try again.") from error
    except asyncpg.InsufficientPrivilegeError as error:
        raise SetupProblem(
            f"The database refuses us ({error}): use a role that owns it, or an empty database of its own."
        ) from error
    except (
        asyncpg.DataError,
        asyncpg.IntegrityConstraintViolationError,
        asyncpg.SyntaxOrAccessError,
    ) as error:
        raise SetupProblem(
            f"The database refuses this: {error}. Nothing was changed.", detail=type(error).__name__
        ) from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError, ConnectionError) as error:
        raise Unavailable(
            "The database failed meanwhile; nothing was changed. Try again in a moment.",
            detail=f"{type(error).__name__}: {error}",
        ) from error


@asynccontextmanager
async def _restore_errors() -> AsyncIterator[None]:
    """The stores' errors, likewise."""
    try:
        yield
    except OSError as error:
        raise SetupProblem(
            f"The objects or secrets cannot be written: {error.strerror or error}. The database was left as "
            "it was; correct that, then restore again."
        ) from error


async def _needs_secrets(connection: Connection) -> bool:
    """Whether a row can be read only with one of the secrets."""
    if await rows.queries.needs_secrets(connection):
        return True
    channels = await rows.queries.has_channels(connection)
    return bool(channels and await rows.queries.channels_need_secrets(connection))
