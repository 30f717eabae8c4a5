"""Database, secret store, and object store belong together, or nothing starts and nothing is written."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ocmt.errors import NotFound, Unavailable
from ocmt.platform.database import Database
from ocmt.platform.installation import (
    OBJECT,
    SECRET,
    NotTogether,
    Places,
    StoreAway,
    Stores,
    adopt,
    check_stores,
    forget_marks,
    open_stores,
)
from ocmt.platform.objects import LocalObjects
from ocmt.platform.secrets import LocalSecrets

pytestmark = pytest.mark.anyio

PLACES = Places("the database D", "the secret store S", "the object store O")


class Folder:
    """One data folder with its two stores."""

    def __init__(self, path: Path) -> None:
        self.objects = LocalObjects(path / "objects")
        self.secrets = LocalSecrets(path / "secrets")

    async def open(self, database: Database) -> Stores:
        return await open_stores(database, self.objects, self.secrets, PLACES)

    async def content(self) -> tuple[list[str], list[str]]:
        return await self.objects.list(""), await self.secrets.names()


async def test_the_first_start_marks_its_stores_and_every_later_one_finds_them(
    database: Database, tmp_path: Path
) -> None:
    home = Folder(tmp_path)
    first = await home.open(database)
    assert (await home.open(database)).installation == first.installation
    assert await check_stores(database, home.objects, home.secrets, PLACES)


async def test_another_empty_folder_is_refused_and_left_as_it_is(database: Database, tmp_path: Path) -> None:
    await Folder(tmp_path / "home").open(database)
    other = Folder(tmp_path / "other")
    with pytest.raises(NotTogether, match="secret store S does not belong to the database D") as refused:
        await other.open(database)
    assert "--data" in refused.value.message
    assert await other.content() == ([], [])


async def test_another_installations_folder_is_refused_by_name(
    database: Database, dsn: str, tmp_path: Path
) -> None:
    home, foreign = Folder(tmp_path / "home"), Folder(tmp_path / "foreign")
    await home.open(database)
    await foreign.secrets.put(SECRET, b"0" * 32)
    with pytest.raises(NotTogether, match="belongs to another installation"):
        await foreign.open(database)


@pytest.mark.parametrize("lost", ["secrets", "objects"])
async def test_one_store_alone_that_lies_elsewhere_is_named(
    database: Database, tmp_path: Path, lost: str
) -> None:
    home, other = Folder(tmp_path / "home"), Folder(tmp_path / "other")
    await home.open(database)
    setattr(home, lost, getattr(other, lost))
    with pytest.raises(NotTogether, match=f"The {lost.removesuffix('s')} store"):
        await home.open(database)


async def test_secrets_under_another_master_key_are_named(database: Database, tmp_path: Path) -> None:
    home = Folder(tmp_path)
    await home.open(database)
    (tmp_path / "secrets" / "master.key").write_bytes(b"k" * 32)
    again = Folder(tmp_path)
    with pytest.raises(NotTogether, match="another master key"):
        await again.open(database)


async def test_a_start_that_dies_between_the_marks_is_finished_by_the_next(
    database: Database, tmp_path: Path
) -> None:
    home = Folder(tmp_path)
    async with database.connection() as connection:
        installation = await connection.fetchval("select id from installation")
    await home.secrets.put(SECRET, installation.hex.encode())
    assert (await home.open(database)).installation == installation


async def test_of_two_first_starts_with_two_folders_exactly_one_succeeds(
    database: Database, tmp_path: Path
) -> None:
    folders = [Folder(tmp_path / name) for name in ("a", "b", "c")]
    outcomes = await asyncio.gather(*(one.open(database) for one in folders), return_exceptions=True)
    assert sum(isinstance(outcome, Stores) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, NotTogether) for outcome in outcomes) == 2


async def test_stores_that_lack_what_the_database_needs_are_not_marked(
    database: Database, tmp_path: Path
) -> None:
    home = Folder(tmp_path)

    async def lacks(*_parts: object) -> str:
        return "the secret x, which is not in the secret store"

    with pytest.raises(NotTogether, match="needs the secret x"):
        await open_stores(database, home.objects, home.secrets, PLACES, evidence=[lacks])
    with pytest.raises(NotTogether, match="needs the secret x"):
        await adopt(database, home.objects, home.secrets, PLACES, evidence=[lacks])
    assert await home.content() == ([], [])


async def test_parts_that_were_moved_by_hand_can_be_adopted(database: Database, tmp_path: Path) -> None:
    await Folder(tmp_path / "old").open(database)
    new = Folder(tmp_path / "new")
    with pytest.raises(NotTogether, match="is empty"):
        await adopt(database, new.objects, new.secrets, PLACES)
    await new.secrets.put("moved", b"here")
    assert await adopt(database, new.objects, new.secrets, PLACES) == (await new.open(database)).installation


async def test_after_a_restore_the_marks_are_made_anew(database: Database, tmp_path: Path) -> None:
    home = Folder(tmp_path)
    await home.open(database)
    await forget_marks(home.objects, home.secrets)
    assert await home.content() == ([], [])


async def test_the_marks_are_not_listed(database: Database, tmp_path: Path) -> None:
    stores = await Folder(tmp_path).open(database)
    await stores.objects.put("a", b"1")
    await stores.secrets.put("b", b"2")
    assert await stores.objects.list("") == ["a"]
    assert await stores.secrets.names() == ["b"]


async def test_what_is_missing_is_gone_only_where_the_store_is_the_right_one(
    database: Database, tmp_path: Path
) -> None:
    home = Folder(tmp_path)
    stores = await home.open(database)
    with pytest.raises(NotFound):
        await stores.objects.get("missing")
    assert await stores.objects.get_many(["missing"]) == [None]
    assert await stores.secrets.get("missing") is None
    await home.objects.delete(OBJECT)
    await home.secrets.delete(SECRET)
    for call in (
        stores.objects.get("missing"),
        stores.objects.get_many(["missing"]),
        stores.objects.sizes("users/"),
        anext(stores.objects.get_pieces("missing")),
        stores.objects.put("new", b""),
        stores.objects.put_if_absent("new", b""),
        stores.objects.delete("new"),
    ):
        with pytest.raises(StoreAway):
            await call
    for secret in (
        stores.secrets.get("missing"),
        stores.secrets.put("new", b""),
        stores.secrets.ensure("key", lambda: b"another"),
        stores.secrets.delete("new"),
        stores.secrets.names(),
    ):
        with pytest.raises(Unavailable, match="secret store"):
            await secret
    assert await home.content() == ([], [])
