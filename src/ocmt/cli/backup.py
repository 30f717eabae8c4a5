"""`ocmt backup`: all of an installation in one encrypted file, while it runs; and back from it."""

from __future__ import annotations

import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from getpass import getpass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from ocmt.agents.snapshots.rows import keys_of_all_manifests, unsaved_work
from ocmt.backup import service
from ocmt.backup.model import checked_passphrase
from ocmt.backup.service import Backups, Report, open_backup
from ocmt.bootstrap.stores import plain_stores, stores_of
from ocmt.cli.database import open_dsn
from ocmt.cli.output import AsJson, DataDir, print_json
from ocmt.errors import InvalidInput, SetupProblem
from ocmt.platform.clock import SystemClock
from ocmt.platform.database import Database, connect
from ocmt.platform.migrations import schema_is_current
from ocmt.settings import load_settings

app = App(name="backup", help="Everything in one encrypted file, and back from it.")

_LONGEST_PASSPHRASE = 4096
PassphraseFile = Annotated[
    Path | None,
    Parameter(help="A file, readable by you alone, that holds the passphrase; without it you are asked."),
]


@app.command
async def create(
    file: Annotated[Path, Parameter(help="The backup to make.")],
    /,
    *,
    passphrase_file: PassphraseFile = None,
    force: Annotated[bool, Parameter(negative=(), help="Replace a file of that name.")] = False,
    data: DataDir = None,
    json: AsJson = False,
) -> None:
    """Put database, secrets and objects of this moment into one file; works while all runs."""
    passphrase = checked_passphrase(_passphrase(passphrase_file, twice=True))
    async with _backups(data, create=False) as backups:
        report = await backups.create(file, passphrase, replace=force)
        unsaved = await _unsaved_work(backups.dsn)
    _print(report, "made and verified", as_json=json)
    if unsaved is not None and not json:
        print(unsaved)


@app.command
async def verify(
    file: Annotated[Path, Parameter(help="The backup to read.")],
    /,
    *,
    passphrase_file: PassphraseFile = None,
    json: AsJson = False,
) -> None:
    """Read all of a backup and tell whether it is whole."""
    report = await service.verify(file, _passphrase(passphrase_file, twice=False))
    _print(report, "is whole", as_json=json)


@app.command
async def restore(
    file: Annotated[Path, Parameter(help="The backup to restore.")],
    /,
    *,
    passphrase_file: PassphraseFile = None,
    force: Annotated[bool, Parameter(negative=(), help="Replace all that this installation holds.")] = False,
    data: DataDir = None,
    json: AsJson = False,
) -> None:
    """Make an empty installation what the backup's was. `ocmt up` must not run."""
    async with (
        open_backup(file, _passphrase(passphrase_file, twice=False)) as backup,
        _backups(data, create=True) as backups,
    ):
        await backups.restore(backup, force=force)
    _print(backup.report, "restored", as_json=json)


@asynccontextmanager
async def _backups(data: Path | None, *, create: bool) -> AsyncIterator[Backups]:
    settings = load_settings(data_dir=data)
    async with open_dsn(settings, create=create) as dsn:
        objects, secrets = plain_stores(settings)
        if not create and await schema_is_current(dsn):  # an older schema knows no marks
            database = await Database.open(dsn, pool_size=1)
            try:
                await stores_of(settings, database)
            finally:
                await database.close()
        yield Backups(
            dsn,
            objects,
            secrets,
            SystemClock(),
            program=version("ocmt"),
            needed_objects=keys_of_all_manifests,
        )


async def _unsaved_work(dsn: str) -> str | None:
    connection = await connect(dsn)
    try:
        return await unsaved_work(connection)
    finally:
        await connection.close(timeout=5)


def _passphrase(file: Path | None, *, twice: bool) -> str:
    """From the file or the terminal: never from the command line or the environment, which others can see."""
    if file is not None:
        return _read_passphrase(file)
    if not sys.stdin.isatty():
        raise InvalidInput("Nobody is here to be asked for the passphrase: name a file by --passphrase-file.")
    try:
        passphrase = getpass("Passphrase of the backup: ")
        again = getpass("Once more: ") if twice else passphrase
    except EOFError:
        raise InvalidInput("No passphrase was entered. Try again.") from None
    if again != passphrase:
        raise InvalidInput("The two are not the same. Try again.")
    return passphrase


def _read_passphrase(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            found = file.stat()
            content = opened.read(_LONGEST_PASSPHRASE + 1)
    except OSError as error:
        raise SetupProblem(f"The passphrase file {file} cannot be read: {error.strerror}.") from error
    if stat.S_ISREG(found.st_mode) and found.st_mode & 0o077:
        raise SetupProblem(
            f"The passphrase file {file} is open to other users (mode {found.st_mode & 0o777:04o}): "
            "chmod 600 it."
        )
    try:
        passphrase = content.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise SetupProblem(f"The passphrase file {file} is not UTF-8 text.") from error
    if len(content) > _LONGEST_PASSPHRASE or "\n" in passphrase:
        raise SetupProblem(f"The passphrase file {file} holds more than one line.")
    return passphrase


def _print(report: Report, done: str, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(report))
        return
    print(
        f"{report.file} {done}: of {report.created_at}, {report.tables} tables, {report.objects} objects, "
        f"{report.secrets} secrets, {report.size / 1e6:.1f} MB"
    )
