"""Named SQL: a feature's `queries.sql`, read once.

`-- name: find_user^` gives `await queries.find_user(connection, email=…)`. The sign says what comes back:
`^` a row or None, `$` a value or None, `!` the command's tag, `<!` what `returning` returned, none an async
iterator of rows, `*!` for a list of parameter sets. Parameters are `:name`; casts (`:data::jsonb`) are fine.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any, cast

import aiosql
from aiosql.adapters.asyncpg import AsyncPGAdapter
from aiosql.queries import Queries as _Queries

from ocmt.platform.database import Connection

if TYPE_CHECKING:
    from aiosql.types import AsyncDriverAdapterProtocol, QueryFn


class Queries:
    """The statements of one package's `queries.sql` as methods; a name that it lacks is an AttributeError.

    The file is read when the first of them is asked for: all of them together are a tenth of a start.
    """

    def __init__(self, package: str) -> None:
        self._package = package

    @functools.cached_property
    def _loaded(self) -> _Queries:
        return _read(self._package)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> QueryFn: ...

    else:

        def __getattr__(self, name: str) -> QueryFn:
            if name.startswith("_"):
                raise AttributeError(name)
            statement = getattr(self._loaded, name)
            setattr(self, name, statement)  # from now on this is not asked
            return statement


class _Adapter(AsyncPGAdapter):
    """aiosql's adapter without its search for a pool in every call, and strict about parameters' names."""

    def maybe_order_params(self, query_name: str, parameters: Any) -> Sequence[Any]:
        names = self.var_sorted[query_name]
        if not isinstance(parameters, Mapping) or parameters.keys() != set(names):
            raise TypeError(f"{query_name} takes exactly the parameters {', '.join(names) or 'none'}")
        return [parameters[name] for name in names]

    async def select(
        self, connection: Connection, name: str, sql: str, parameters: Any, record_class: Any = None
    ) -> AsyncIterator[Any]:
        for row in await connection.fetch(sql, *self.maybe_order_params(name, parameters)):
            yield row

    async def select_one(
        self, connection: Connection, name: str, sql: str, parameters: Any, record_class: Any = None
    ) -> Any:
        return await connection.fetchrow(sql, *self.maybe_order_params(name, parameters))

    async def select_value(self, connection: Connection, name: str, sql: str, parameters: Any) -> Any:
        return await connection.fetchval(sql, *self.maybe_order_params(name, parameters))

    async def insert_returning(self, connection: Connection, name: str, sql: str, parameters: Any) -> Any:
        row = await connection.fetchrow(sql, *self.maybe_order_params(name, parameters))
        return row[0] if row is not None and len(row) == 1 else row

    async def insert_update_delete(self, connection: Connection, name: str, sql: str, parameters: Any) -> str:
        return await connection.execute(sql, *self.maybe_order_params(name, parameters))

    async def insert_update_delete_many(
        self, connection: Connection, name: str, sql: str, parameters: Any
    ) -> None:
        await connection.executemany(sql, [self.maybe_order_params(name, one) for one in parameters])

    async def execute_script(self, connection: Connection, sql: str) -> str:
        return await connection.execute(sql)


async def every(rows: AsyncIterator[Any]) -> list[Any]:
    """All rows of a statement that gives many: `await every(queries.list_users(connection, …))`."""
    return [row async for row in rows]


def load_queries(package: str) -> Queries:
    """The statements of `queries.sql` in that package (`"ocmt.chat"`)."""
    return Queries(package)


def _read(package: str) -> _Queries:
    text = resources.files(package).joinpath("queries.sql").read_text("utf-8")
    adapter = cast("Callable[..., AsyncDriverAdapterProtocol]", _Adapter)
    return cast("_Queries", aiosql.from_str(text, adapter, mandatory_parameters=False))
