"""An installation's identity: the database, the secret store, and the object store say whose they are.

The database holds the id. The first process that starts marks its two stores with it, and from then on a
process whose stores carry another id, or none, does not start: it would seal with keys that nobody else has,
and look for files where they never were. While a process runs, a store that suddenly lacks something is asked
for its mark before anybody is told that the thing is gone: a folder that is not mounted has lost nothing.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from ocmt.errors import NotFound, OcmtError, SetupProblem, Unavailable
from ocmt.platform.database import Connection, Database
from ocmt.platform.objects import Objects
from ocmt.platform.queries import load_queries
from ocmt.platform.secrets import Secrets

SECRET = "installation-id"  # noqa: S105  # a secret's name
OBJECT = ".installation"
_LOOKED_RECENTLY = 10.0
"""Seconds for which a store that carried the right mark is believed by whoever writes to it."""

queries = load_queries("ocmt.platform")

Evidence = Callable[[Connection, Objects, Secrets], Awaitable[str | None]]
"""Looks for something in the database that the stores must hold; returns what they lack, or None."""


@dataclass(frozen=True)
class Places:
    """Where the three parts are, in words for an operator that fit into a sentence."""

    database: str
    secrets: str
    objects: str


class NotTogether(SetupProblem):
    """The database, the secret store, and the object store do not belong together."""

    code = "not_together"


@dataclass(frozen=True)
class Stores:
    """The two stores of one installation, which answer only while they carry its mark."""

    installation: UUID
    objects: Objects
    secrets: Secrets


async def open_stores(
    database: Database,
    objects: Objects,
    secrets: Secrets,
    places: Places,
    *,
    evidence: Sequence[Evidence] = (),
) -> Stores:
    """Return the stores once it is certain that they belong to this database.

    Stores that nobody has marked yet are marked, unless the `evidence` says that they lack something.

    Raises: NotTogether with one line that names the part that does not fit; Unavailable.
    """
    async with database.transaction() as connection:
        row = await queries.lock_installation(connection)
        installation: UUID = row["id"]
        await _compare(installation, objects, secrets, places, marked=row["marked"])
        if not row["marked"]:
            for look in evidence:
                if (lacking := await look(connection, objects, secrets)) is not None:
                    raise NotTogether(f"{_begin(places.database)} needs {lacking}. {_WHAT_TO_DO}")
            await mark_stores(installation, objects, secrets)
            await queries.note_marked(connection)
    return Stores(installation, MarkedObjects(objects, installation), MarkedSecrets(secrets, installation))


async def check_stores(database: Database, objects: Objects | None, secrets: Secrets, places: Places) -> bool:
    """Compare the marks and write nothing; return whether there are any yet. `objects` None: no such folder.

    Raises: NotTogether with one line that names the part that does not fit; Unavailable.
    """
    async with database.connection() as connection:
        row = await queries.find_installation(connection)
    await _compare(row["id"], objects, secrets, places, marked=row["marked"])
    return bool(row["marked"])


async def _compare(
    installation: UUID, objects: Objects | None, secrets: Secrets, places: Places, *, marked: bool
) -> None:
    found = [
        (places.secrets, await _secret_mark(secrets, places)),
        (places.objects, None if objects is None else await _object_mark(objects, places)),
    ]
    for place, mark in found:
        if mark not in (None, installation.hex):
            raise NotTogether(
                f"{place} belongs to another installation than {places.database}. {_WHAT_TO_DO}"
            )
        if mark is None and marked:
            raise NotTogether(f"{_begin(place)} does not belong to {places.database}. {_WHAT_TO_DO}")


_WHAT_TO_DO = (
    "Nothing was changed. Name this installation's own data folder with --data or OCMT_DATA_DIR, or its own "
    "database with DATABASE_URL. If you moved the parts yourself and are sure that they belong together, run "
    "`ocmt db adopt`."
)


async def mark_stores(installation: UUID, objects: Objects, secrets: Secrets) -> None:
    """Write the installation's id into both stores, over another one."""
    await secrets.put(SECRET, installation.hex.encode())
    await objects.put(OBJECT, f"{installation.hex}\n".encode())
    await objects.persist([OBJECT])


async def adopt(
    database: Database,
    objects: Objects,
    secrets: Secrets,
    places: Places,
    *,
    evidence: Sequence[Evidence] = (),
) -> UUID:
    """Declare that these parts belong together, as after moving them by hand; return the installation's id.

    Raises: NotTogether where the stores lack something that the database needs; Unavailable.
    """
    async with database.transaction() as connection:
        row = await queries.lock_installation(connection)
        if row["marked"] and not set(await secrets.names()) - {SECRET}:
            raise NotTogether(
                f"{_begin(places.secrets)} is empty, so it is not the one of this installation. Nothing was "
                "changed: name the right data folder, or restore a backup."
            )
        for look in evidence:
            if (lacking := await look(connection, objects, secrets)) is not None:
                raise NotTogether(
                    f"{_begin(places.database)} needs {lacking}. Nothing was changed: restore a backup."
                )
        installation: UUID = row["id"]
        await mark_stores(installation, objects, secrets)
        await queries.note_marked(connection)
    return installation


async def forget_marks(objects: Objects, secrets: Secrets) -> None:
    """Remove the marks, as after a restore: whoever starts next marks the stores again."""
    await secrets.delete(SECRET)
    await objects.delete(OBJECT)


async def _secret_mark(secrets: Secrets, places: Places) -> str | None:
    try:
        found = await secrets.get(SECRET)
    except SetupProblem as error:
        raise NotTogether(f"{_begin(places.secrets)} cannot be opened. {error.message}") from error
    return None if found is None else found.decode(errors="replace")


async def _object_mark(objects: Objects, places: Places) -> str | None:
    try:
        return (await objects.get(OBJECT)).decode(errors="replace").strip()
    except NotFound:
        return None
    except OSError as error:
        raise SetupProblem(f"{_begin(places.objects)} cannot be read: {error.strerror or error}.") from error


def _begin(place: str) -> str:
    return place[0].upper() + place[1:]


class StoreAway(OSError):
    """The store does not carry this installation's mark: it is another one, or it is not mounted."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the {what} store does not carry this installation's mark: is it mounted?")


class MarkedObjects:
    """An object store that answers only while it carries its installation's mark; see `Objects`.

    The mark itself is not listed. Raises StoreAway (an OSError, so a temporary fault) for what is missing
    or is to be written while the mark is not there.
    """

    def __init__(self, objects: Objects, installation: UUID) -> None:
        self._objects = objects
        self._mark = installation.hex.encode()
        self._looked: float | None = None

    async def check(self) -> None:
        """Look for the mark now. Raises: StoreAway, OSError."""
        self._looked = None
        try:
            found = await self._objects.get(OBJECT)
        except NotFound:
            found = b""
        if found.strip() != self._mark:
            raise StoreAway("object")
        self._looked = time.monotonic()

    async def _check_now_and_then(self) -> None:
        if self._looked is None or time.monotonic() - self._looked > _LOOKED_RECENTLY:
            await self.check()

    async def put(self, key: str, data: bytes) -> None:
        """See Objects."""
        await self._check_now_and_then()
        await self._objects.put(key, data)

    async def put_if_absent(self, key: str, data: bytes) -> bool:
        """See Objects."""
        await self._check_now_and_then()
        return await self._objects.put_if_absent(key, data)

    async def put_pieces(self, key: str, pieces: AsyncIterator[bytes]) -> None:
        """See Objects."""
        await self._check_now_and_then()
        await self._objects.put_pieces(key, pieces)

    async def get(self, key: str) -> bytes:
        """See Objects."""
        try:
            return await self._objects.get(key)
        except NotFound:
            await self.check()
            raise

    async def get_many(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        """See Objects."""
        found = await self._objects.get_many(keys)
        if None in found:
            await self.check()
        return found

    async def get_pieces(self, key: str) -> AsyncIterator[bytes]:
        """See Objects."""
        try:
            async for piece in self._objects.get_pieces(key):
                yield piece
        except NotFound:
            await self.check()
            raise

    async def delete(self, key: str) -> None:
        """See Objects."""
        await self._check_now_and_then()
        await self._objects.delete(key)

    async def list(self, prefix: str) -> list[str]:
        """See Objects."""
        return sorted(await self.sizes(prefix))

    async def sizes(self, prefix: str) -> dict[str, int]:
        """See Objects."""
        found = await self._objects.sizes(prefix)
        if not found:
            await self.check()
        found.pop(OBJECT, None)
        return found

    async def persist(self, keys: Sequence[str]) -> None:
        """See Objects."""
        await self._objects.persist(keys)


class MarkedSecrets:
    """A secret store that answers only while it carries its installation's mark; see `Secrets`.

    The mark itself is not listed. Raises Unavailable for what is missing or is to be written while the mark
    is not there, so that no key is made anew because its store is away.
    """

    def __init__(self, secrets: Secrets, installation: UUID) -> None:
        self._secrets = secrets
        self._mark = installation.hex.encode()

    async def check(self) -> None:
        """Look for the mark now. Raises: Unavailable."""
        try:
            found = await self._secrets.get(SECRET)
        except (OcmtError, OSError) as error:
            raise _secrets_away(repr(error)) from error
        if found != self._mark:
            raise _secrets_away("the secret store does not carry this installation's mark: is it mounted?")

    async def get(self, name: str) -> bytes | None:
        """See Secrets."""
        found = await self._secrets.get(name)
        if found is None:
            await self.check()
        return found

    async def put(self, name: str, value: bytes) -> None:
        """See Secrets."""
        await self.check()
        await self._secrets.put(name, value)

    async def delete(self, name: str) -> None:
        """See Secrets."""
        await self.check()
        await self._secrets.delete(name)

    async def ensure(self, name: str, make: Callable[[], bytes]) -> bytes:
        """See Secrets."""
        found = await self._secrets.get(name)
        if found is not None:
            return found
        await self.check()
        return await self._secrets.ensure(name, make)

    async def names(self) -> list[str]:
        """See Secrets."""
        found = await self._secrets.names()
        if SECRET not in found:
            await self.check()
        return [name for name in found if name != SECRET]


def _secrets_away(detail: str) -> Unavailable:
    return Unavailable(
        "The server cannot reach its secret store just now. Nothing is lost. Try again in a moment.",
        detail=detail,
        retry_after=5,
    )
