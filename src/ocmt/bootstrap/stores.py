"""Opens the secret store and the object store of an installation, and makes sure that they are its own."""

from __future__ import annotations

from ocmt.errors import SetupProblem
from ocmt.platform import installation
from ocmt.platform.database import Connection, Database
from ocmt.platform.installation import Evidence, Places, Stores
from ocmt.platform.migrations import schema_is_current
from ocmt.platform.objects import LocalObjects, Objects
from ocmt.platform.secrets import LocalSecrets, Secrets
from ocmt.settings import Settings


async def stores_of(settings: Settings, database: Database) -> Stores:
    """Return the stores in the data folder, once it is certain that they belong to the database.

    Raises: NotTogether with one line that names the part that does not fit; SetupProblem; Unavailable.
    """
    objects, secrets = plain_stores(settings)
    return await installation.open_stores(database, objects, secrets, _places(settings), evidence=EVIDENCE)


async def adopt_stores(settings: Settings, database: Database) -> str:
    """Declare that the stores in the data folder belong to the database; return the installation's id.

    Raises: NotTogether where the stores lack something that the database needs; SetupProblem; Unavailable.
    """
    objects, secrets = plain_stores(settings)
    return (await installation.adopt(database, objects, secrets, _places(settings), evidence=EVIDENCE)).hex


async def check_stores(settings: Settings, dsn: str) -> str:
    """Say in words whether the stores in the data folder are the database's; write nothing.

    Raises: NotTogether with one line that names the part that does not fit; Unavailable.
    """
    if not await schema_is_current(dsn):
        return "not looked at: the schema is behind this program"
    folder = settings.data_dir / "objects"
    objects = LocalObjects(folder) if folder.is_dir() else None
    database = await Database.open(dsn, pool_size=1)
    try:
        secrets = LocalSecrets(settings.data_dir / "secrets")
        marked = await installation.check_stores(database, objects, secrets, _places(settings))
    finally:
        await database.close()
    return "database, secrets, and objects are of one installation" if marked else "nothing was started yet"


def plain_stores(settings: Settings) -> tuple[LocalObjects, LocalSecrets]:
    """Return the two stores as they are, whoever they belong to. Raises: SetupProblem."""
    folder = settings.data_dir / "objects"
    try:
        return LocalObjects(folder), LocalSecrets(settings.data_dir / "secrets")
    except OSError as error:
        raise SetupProblem(
            f"The folder {folder} cannot be used ({error.strerror}). Run this as the user who owns it, or "
            "name another data folder with --data."
        ) from error


async def _lacks_vault_key(connection: Connection, _objects: Objects, secrets: Secrets) -> str | None:
    # Late, as in the next one: this is asked once in an installation's life.
    from ocmt.vault.keys import find_unopened_key

    return await find_unopened_key(connection, secrets)


async def _lacks_snapshot(connection: Connection, objects: Objects, _secrets: Secrets) -> str | None:
    from ocmt.agents.snapshots.rows import find_newest_manifest

    key = await find_newest_manifest(connection)
    if key is None or (await objects.get_many([key]))[0] is not None:
        return None
    return f"the file {key}, which is not in the object store"


EVIDENCE: tuple[Evidence, ...] = (_lacks_vault_key, _lacks_snapshot)
"""Asked before stores are marked: an installation from before the marks must not take an empty folder."""


def _places(settings: Settings) -> Places:
    named = settings.database_url is not None
    return Places(
        database="the database in DATABASE_URL" if named else f"the database in {settings.data_dir}/postgres",
        secrets=f"the secret store {settings.data_dir}/secrets",
        objects=f"the object store {settings.data_dir}/objects",
    )
