"""The way to PostgreSQL: a pool, transactions, and hints by LISTEN/NOTIFY.

Everything shared between replicas is a row; hints only make it fast, so whoever waits for one also polls.
The pool does not reset sessions when they come back: inside a transaction use `set local` only, and take no
session-level advisory locks.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Self, TypeAlias

import asyncpg
import structlog
from asyncpg.pool import PoolConnectionProxy

from ocmt.errors import DiskFull, InvalidInput, LimitReached, OcmtError, SetupProblem, Unavailable
from ocmt.platform.clock import Clock, happens
from ocmt.platform.database_faults import FULL, MALFORMED, Place, fault_of

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"

ACQUIRE_SECONDS = 10.0
STATEMENT_SECONDS = 30.0
_CONNECT_SECONDS = 10.0
_LISTEN_CHECK_SECONDS = 30.0
_LISTEN_RETRY_SECONDS = (0.2, 1.0, 5.0)
_MOST_NAMED = 1_000
DISK_IS_FULL = "There is no room left on the database's disk. Try again once an administrator has made some."

_TRANSIENT = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # it is shut down, or a statement took too long
    asyncpg.InsufficientResourcesError,  # its disk or its memory is full, or too many are connected
    asyncpg.PostgresSystemError,
    asyncpg.ReadOnlySQLTransactionError,  # it is no longer the primary server
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    TimeoutError,  # it has stopped answering at all
)
_NO_TEXT = (asyncpg.CharacterNotInRepertoireError, asyncpg.UntranslatableCharacterError)
"""Text that PostgreSQL does not take: whatever field it came in, its sender has to mend it."""
_UNREACHABLE = (*_TRANSIENT, OSError)
_NOT_CONNECTED = (*_UNREACHABLE, asyncpg.PostgresError, ValueError, asyncpg.InterfaceError)
"""What a new connection can fail by; a ValueError is what asyncpg makes of a malformed address."""
_REFUSED = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError)
"""What a pool meets when a password or a database is changed while it runs."""
_BOUND_REACHED = "OC001"
"""What a table's own bound raises (`bound_rows` in migration 0017), with the sentence for the user."""

log = structlog.get_logger(__name__)


class Database:
    """A pool of connections to one database. Open it with `open`, close it with `close`."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self._pool = pool
        # First come, first served: the pool itself lets who asks just now pass those that wait, and of eighty
        # at once some waited fifteen times as long as the others.
        self._turns = asyncio.Semaphore(pool.get_max_size())

    @classmethod
    async def open(cls, dsn: str, *, pool_size: int = 10) -> Self:
        """Connect. `json` and `jsonb` columns read and write Python objects, times are in UTC.

        Raises: Unavailable where the server does not answer or refuses us, SetupProblem for a malformed
        address; each with a sentence for the operator.
        """
        try:
            pool = await asyncpg.create_pool(
                dsn,
                min_size=1,
                max_size=pool_size,
                init=_prepare,
                reset=_keep_session,
                timeout=_CONNECT_SECONDS,
                command_timeout=STATEMENT_SECONDS + 5,
                server_settings={
                    "application_name": "ocmt",
                    "statement_timeout": f"{STATEMENT_SECONDS:.0f}s",
                    "timezone": "UTC",
                },
            )
        except _NOT_CONNECTED as error:
            raise _not_connected(error, dsn) from error
        return cls(pool)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """`begin` … `commit`, or `rollback` on any exception.

        Raises: Unavailable when the pool can give no connection within 10 s, or when the server went away,
        has no room left, gave up on a statement after 30 s, or asks for the transaction to be repeated.
        """
        async with self.connection() as connection, connection.transaction():
            yield connection

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection on which every statement commits by itself. Raises as `transaction` does."""
        await self._wait_for_turn()
        try:
            connection = await self._acquire()
            try:
                yield connection
            except _TRANSIENT as error:
                raise _unavailable(error) from error
            except _NO_TEXT as error:
                raise InvalidInput(
                    "There is a character in it that cannot be stored: NUL, or half of one."
                ) from error
            except asyncpg.UnknownPostgresError as error:
                if error.sqlstate == _BOUND_REACHED:
                    raise LimitReached(str(error)) from error
                raise
            except asyncpg.InternalClientError as error:
                # The server ended the connection in the middle of something: it is of no use anymore.
                connection.terminate()
                raise _unavailable(error) from error
            except (asyncpg.InterfaceError, OSError) as error:
                if _is_lost(connection):
                    raise _unavailable(error) from error
                raise
            finally:
                await self._give_back(connection)
        finally:
            self._turns.release()

    async def _acquire(self) -> PoolConnectionProxy[asyncpg.Record]:
        try:
            return await self._pool.acquire()
        except (*_UNREACHABLE, *_REFUSED) as error:
            raise _unavailable(error) from error

    async def _wait_for_turn(self) -> None:
        if not self._turns.locked():
            await self._turns.acquire()  # at once
            return
        try:
            async with asyncio.timeout(ACQUIRE_SECONDS):
                await self._turns.acquire()
        except TimeoutError as error:
            raise _unavailable(error) from error

    async def _give_back(self, connection: PoolConnectionProxy[asyncpg.Record]) -> None:
        """Whatever was to be done has ended by now: a connection that does not come back is replaced."""
        try:
            await self._pool.release(connection)
        except (*_UNREACHABLE, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            log.warning("database_connection_dropped", error=type(error).__name__)

    async def close(self) -> None:
        """Wait up to 5 s for what is under way, then cut it off."""
        try:
            await asyncio.wait_for(self._pool.close(), 5)
        except TimeoutError:
            self._pool.terminate()


async def connect(dsn: str) -> asyncpg.Connection[asyncpg.Record]:
    """One connection outside any pool, for set-up and LISTEN. The caller closes it.

    Raises: Unavailable where the server does not answer or refuses us, SetupProblem for a malformed address;
    each with a sentence for the operator.
    """
    try:
        connection = await asyncpg.connect(
            dsn,
            timeout=_CONNECT_SECONDS,
            command_timeout=STATEMENT_SECONDS + 5,
            server_settings={"application_name": "ocmt", "timezone": "UTC"},
        )
    except _NOT_CONNECTED as error:
        raise _not_connected(error, dsn) from error
    await _prepare(connection)
    return connection


async def notify(connection: Connection, channel: str, payload: str) -> None:
    """Hint every listener of `channel` once the caller's transaction commits. `payload`: under 8000 bytes."""
    await connection.execute("select pg_notify($1, $2)", channel, payload)


async def _prepare(connection: Connection) -> None:
    for kind in ("json", "jsonb"):
        await connection.set_type_codec(kind, schema="pg_catalog", encoder=_encode, decoder=json.loads)


def _encode(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


async def _keep_session(_connection: Connection) -> None:
    """No reset query on release: a third of a short query's time (asyncpg still rolls back what is open)."""


def _is_lost(connection: Connection) -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        return True  # the pool took it out of our hands already, as it does with a broken one


def _not_connected(error: BaseException, dsn: str) -> OcmtError:
    if isinstance(error, ValueError):  # asyncpg's own words would quote the password
        return SetupProblem(MALFORMED)
    words = fault_of(error).for_operator(Place.of(dsn))
    return Unavailable(words, detail=f"{type(error).__name__}: {error}", retry_after=2)


def _unavailable(error: BaseException) -> Unavailable:
    fault = fault_of(error)
    detail = f"{type(error).__name__}: {error}"
    if fault is FULL:
        return DiskFull(fault.everybody, detail=detail, retry_after=30)
    return Unavailable(fault.everybody, detail=detail, retry_after=2)


class Subscription:
    """Hints for one waiter; several that come while nobody waits count as one."""

    def __init__(self, clock: Clock, payload: str | None) -> None:
        self._clock = clock
        self._hinted = asyncio.Event()
        self._coming: set[str] | None = set()
        self.named: set[str] | None = set()
        """The payloads that the last wait returned for; None: there may have been any."""
        self.payload = payload

    @property
    def hinted(self) -> bool:
        """Whether the next wait will return at once."""
        return self._hinted.is_set()

    def hint(self, payload: str | None = None) -> None:
        """Wake the waiter, or let its next wait return at once. `payload` None: for reasons unknown."""
        if payload is None or self._coming is None or len(self._coming) >= _MOST_NAMED:
            self._coming = None
        else:
            self._coming.add(payload)
        self._hinted.set()

    async def wait(self, timeout: float) -> bool:
        """True: hinted since the last wait. False: `timeout` seconds passed without a hint."""
        was_hinted = await happens(self._hinted, timeout, self._clock)
        self._hinted.clear()
        self.named, self._coming = self._coming, set()
        return was_hinted


class Hints:
    """One LISTEN connection for the whole process, which comes back by itself.

    A hint can be lost (and one too many can come, as after a reconnect): poll as well.
    """

    def __init__(self, dsn: str, clock: Clock) -> None:
        self._dsn = dsn
        self._clock = clock
        # By channel and payload: of a thousand that follow a thousand things, a hint concerns one.
        self._subscriptions: dict[str, dict[str | None, set[Subscription]]] = {}
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to listen, in the background."""
        self._task = asyncio.create_task(self._keep_listening(), name="hints")

    async def close(self) -> None:
        """Stop listening."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    @contextmanager
    def subscribe(self, channel: str, payload: str | None = None) -> Iterator[Subscription]:
        """Hints of `channel` with exactly that payload (None: any), until the block ends."""
        subscription = Subscription(self._clock, payload)
        if channel not in self._subscriptions:
            self._changed.set()
        of_channel = self._subscriptions.setdefault(channel, {})
        of_channel.setdefault(payload, set()).add(subscription)
        try:
            yield subscription
        finally:
            of_channel[payload].discard(subscription)
            if not of_channel[payload]:
                del of_channel[payload]
            if not of_channel:
                del self._subscriptions[channel]
                self._changed.set()

    def _on_notification(self, _connection: object, _pid: int, channel: str, payload: object) -> None:
        of_channel = self._subscriptions.get(channel, {})
        for which in (str(payload), None):
            for subscription in of_channel.get(which, ()):
                subscription.hint(str(payload))

    async def _keep_listening(self) -> None:
        failures = 0
        while True:
            try:
                connection = await connect(self._dsn)
                try:
                    failures = 0
                    await self._listen(connection)
                finally:
                    connection.terminate()
            except (
                OcmtError,
                asyncpg.PostgresError,
                asyncpg.InterfaceError,
                OSError,
                TimeoutError,
            ) as error:
                pause = _LISTEN_RETRY_SECONDS[min(failures, len(_LISTEN_RETRY_SECONDS) - 1)]
                failures += 1
                reason = error.message if isinstance(error, OcmtError) else type(error).__name__
                log.warning("hints_lost", error=reason, retry_in=pause)
                await self._clock.sleep(pause)

    async def _listen(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        listening: set[str] = set()
        connection.add_termination_listener(lambda _connection: self._changed.set())
        while not connection.is_closed():
            self._changed.clear()
            wanted = set(self._subscriptions)
            for channel in listening - wanted:
                await connection.remove_listener(channel, self._on_notification)
            for channel in wanted - listening:
                await connection.add_listener(channel, self._on_notification)
                # What was notified before we listened is made up for by one hint.
                for subscriptions in self._subscriptions.get(channel, {}).values():
                    for subscription in subscriptions:
                        subscription.hint()
            listening = wanted
            if not await happens(self._changed, _LISTEN_CHECK_SECONDS, self._clock):
                await connection.execute("select 1")  # a connection that died silently shows itself here
        raise Unavailable("The database closed the connection that listens.")
