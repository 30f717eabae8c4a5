"""Named SQL: what each sign gives back, and that a wrong parameter is an error, not a null."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocmt.platform.database import Database
from ocmt.platform.queries import Queries, load_queries

pytestmark = pytest.mark.anyio

SQL = """
-- name: make#
create table things (name text primary key, data jsonb);

-- name: add!
-- A cast's colons are not a parameter's.
insert into things (name, data) values (:name, :data::jsonb);

-- name: add_many*!
insert into things (name) values (:name);

-- name: upsert<!
insert into things (name) values (:name) on conflict (name) do update set name = excluded.name returning name;

-- name: find^
select name, data from things where name = :name or name = upper(:name);

-- name: count$
select count(*) from things where name <> ':name';

-- name: everything
select name from things order by name;
"""


@pytest.fixture
def queries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Queries:
    package = tmp_path / "things_feature"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "queries.sql").write_text(SQL)
    monkeypatch.syspath_prepend(str(tmp_path))
    return load_queries("things_feature")


async def test_each_sign_gives_its_kind_of_answer(queries: Queries, database: Database) -> None:
    async with database.transaction() as connection:
        await queries.make(connection)
        assert await queries.add(connection, name="a", data={"n": [1]}) == "INSERT 0 1"
        await queries.add_many(connection, [{"name": "b"}, {"name": "c"}])
        assert await queries.upsert(connection, name="c") == "c"
        found = await queries.find(connection, name="a")
        assert (found["name"], found["data"]) == ("a", {"n": [1]})
        assert await queries.find(connection, name="z") is None
        assert await queries.count(connection) == 3
        assert [row["name"] async for row in queries.everything(connection)] == ["a", "b", "c"]


async def test_a_missing_a_surplus_and_a_positional_parameter_are_errors(
    queries: Queries, database: Database
) -> None:
    async with database.connection() as connection:
        with pytest.raises(TypeError, match="find takes exactly the parameters name"):
            await queries.find(connection)
        with pytest.raises(TypeError):
            await queries.find(connection, name="a", user_id=1)
        with pytest.raises(ValueError, match="positional"):
            await queries.find(connection, "a")
        with pytest.raises(AttributeError):
            await queries.remove(connection)
