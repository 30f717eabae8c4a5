"""Drops a user's wish about their files where it cannot be granted, so that no agent starts for ever."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog

from ocmt.errors import InvalidInput, LeaseLost, OcmtError

log = structlog.get_logger(__name__)

_COMES_AGAIN = frozenset(
    {
        errno.E2BIG,
        errno.EEXIST,
        errno.EFBIG,
        errno.EILSEQ,
        errno.EINVAL,
        errno.EISDIR,
        errno.ELOOP,
        errno.EMLINK,
        errno.ENAMETOOLONG,
        errno.ENOTDIR,
        errno.ENOTEMPTY,
        errno.EOPNOTSUPP,
        errno.EOVERFLOW,
    }
)
"""What the system says about the names and contents themselves, rather than about its own state."""


@asynccontextmanager
async def dropped_where_hopeless(drop: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """While a wish is carried out: await `drop` where it fails in a way that would come again.

    What is temporary (a lost lease, a store or a disk that cannot be reached) leaves the wish as it is.
    Raises: the error itself; InvalidInput in the place of one that is no OcmtError, or of a disk's refusal.
    """
    try:
        yield
    except LeaseLost:
        raise
    except OcmtError as error:
        if error.kind == "temporary" and not _refused_by_disk(error.__cause__):
            raise
        await drop()
        if error.kind == "temporary":
            raise _cannot_be(error) from error
        raise
    except Exception as error:
        log.exception("a wish about an agent's files was dropped")
        await drop()
        raise _cannot_be(error) from error


def _refused_by_disk(cause: BaseException | None) -> bool:
    return isinstance(cause, OSError) and cause.errno in _COMES_AGAIN


def _cannot_be(error: Exception) -> InvalidInput:
    return InvalidInput(
        "These files cannot be put in place on this server, so the request was dropped. "
        "Choose another snapshot or archive.",
        detail=repr(error),
    )
