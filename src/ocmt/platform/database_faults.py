"""What is wrong when the database fails: in words for its operator, and in words for everybody else.

Each fault has two sentences. The operator's names the place and what to correct; it is for the terminal and
the log. Everybody's says whose turn it is and that nothing is lost, and never names a host or a role.
"""

from __future__ import annotations

import errno
import socket
import ssl
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import asyncpg

MALFORMED = (
    "DATABASE_URL is malformed. Write it like postgresql://user:password@host:5432/database, and "
    "percent-encode characters such as @, / and : in the password."
)


@dataclass(frozen=True)
class Place:
    """Where a database is, without the password."""

    server: str
    user: str
    database: str

    @classmethod
    def of(cls, dsn: str) -> Place:
        """Return what can be read of an address, however wrong it is."""
        try:
            parts = urlsplit(dsn)
            server = f"{parts.hostname or 'the local socket'}{f':{parts.port}' if parts.port else ''}"
            user, database = unquote(parts.username or ""), unquote(parts.path.lstrip("/"))
        except ValueError:
            return cls("the server", "", "")
        return cls(server, user, database)


@dataclass(frozen=True)
class Fault:
    """One kind of failure. `{server}`, `{user}` and `{database}` stand for the place."""

    operator: str
    everybody: str

    def for_operator(self, place: Place) -> str:
        """Return the operator's sentence about that place."""
        user = place.user or "that DATABASE_URL names"
        return self.operator.format(
            server=place.server, user=user, database=place.database or "that it names"
        )


_MEND = "The operator of this server has to correct that. Nothing that was accepted is lost."
_AGAIN = "Try again in a moment."

REFUSED = Fault(
    "The database at {server} refuses the user {user}: correct the user name or the password in "
    "DATABASE_URL, or the server's pg_hba.conf.",
    f"The server's database refuses its sign-in. {_MEND}",
)
UNKNOWN_DATABASE = Fault(
    "There is no database {database} at {server}: make it with createdb, or correct DATABASE_URL.",
    f"The server's database does not exist. {_MEND}",
)
NOT_PERMITTED = Fault(
    "The user {user} may not use the database {database} at {server}: grant it, or correct DATABASE_URL.",
    f"The server's database does not permit what is needed. {_MEND}",
)
CLOSED = Fault(
    "Nothing answers at {server}: start PostgreSQL there, or correct the host and port in DATABASE_URL.",
    f"The server's database does not run just now. {_AGAIN}",
)
NO_HOST = Fault(
    "The host of the database, {server}, is not known: correct the host in DATABASE_URL, or the name "
    "service.",
    f"The server cannot find its database. {_MEND}",
)
NO_ROUTE = Fault(
    "The database at {server} cannot be reached from this machine: check the network and the firewall.",
    f"The server cannot reach its database just now. {_AGAIN}",
)
SILENT = Fault(
    "The database at {server} does not answer in time: check that it runs, and the firewall between.",
    f"The database does not answer just now. {_AGAIN}",
)
NO_TLS = Fault(
    "No TLS connection to the database at {server} can be made: check sslmode in DATABASE_URL and the "
    "server's certificate.",
    f"The server cannot connect to its database safely. {_MEND}",
)
NO_PERMISSION = Fault(
    "The socket of the database ({server}) belongs to another user: run this as that user.",
    f"The server may not connect to its database. {_MEND}",
)
FULL = Fault(
    "The disk of the database is full. Make room there; everything goes on by itself.",
    "The server's disk is full, so nothing can be stored just now. Tell your administrator, then try again.",
)
TOO_MANY = Fault(
    "The database at {server} takes no more connections: raise its max_connections, or lower "
    "OCMT_DATABASE_POOL.",
    f"The server's database is busy just now. {_AGAIN}",
)
READ_ONLY = Fault(
    "The database at {server} only permits reading: it is a standby, or its disk was made read-only.",
    f"The server's database does not take anything new just now. {_AGAIN}",
)
STARTING = Fault(
    "The database at {server} is starting or stopping just now: try again in a moment.",
    f"The server's database is just starting. {_AGAIN}",
)
NOT_POSTGRESQL = Fault(
    "What answers at {server} is not PostgreSQL, or cut the connection: correct the host and port in "
    "DATABASE_URL.",
    f"The database does not answer just now. {_AGAIN}",
)
OTHER = Fault(
    "The database at {server} failed just now: try again in a moment, and read its log if this goes on.",
    f"The database does not answer just now. {_AGAIN}",
)

_BY_CLASS: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], Fault], ...] = (
    ((asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError), REFUSED),
    (asyncpg.InvalidCatalogNameError, UNKNOWN_DATABASE),
    (asyncpg.InsufficientPrivilegeError, NOT_PERMITTED),
    (asyncpg.DiskFullError, FULL),
    (asyncpg.TooManyConnectionsError, TOO_MANY),
    ((asyncpg.CannotConnectNowError, asyncpg.AdminShutdownError), STARTING),
    (asyncpg.ReadOnlySQLTransactionError, READ_ONLY),
    (socket.gaierror, NO_HOST),
    (ssl.SSLError, NO_TLS),
    (TimeoutError, SILENT),
    ((ConnectionRefusedError, FileNotFoundError), CLOSED),
    (PermissionError, NO_PERMISSION),
)
_BY_NUMBER = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
    errno.ECONNREFUSED: CLOSED,
    errno.ETIMEDOUT: SILENT,
    errno.ENETUNREACH: NO_ROUTE,
    errno.EHOSTUNREACH: NO_ROUTE,
}


def fault_of(error: BaseException) -> Fault:
    """Return the kind of failure that an error of asyncpg or of the system is."""
    for kinds, fault in _BY_CLASS:
        if isinstance(error, kinds):
            return fault
    if isinstance(error, OSError) and error.errno in _BY_NUMBER:
        return _BY_NUMBER[error.errno]
    if isinstance(error, ConnectionError) and "SSL" in str(error):
        return NO_TLS
    if isinstance(
        error, (ConnectionError, asyncpg.ConnectionDoesNotExistError, asyncpg.ProtocolViolationError)
    ):
        return NOT_POSTGRESQL
    if isinstance(error, OSError) and "Connect call failed" in str(error):
        return CLOSED  # asyncio joins the errors of several addresses into one without a number
    return OTHER
