"""The one tree of errors: what went wrong, who can mend it, and whether to try again.

An error that leaves a room is one of these. `code` is what programs match on, `message` is one plain
sentence for the user that says what to do, `detail` is for the log only. The HTTP edge turns them into
RFC 9457 problems (`platform/http.py`), the command line into one line.
"""

from __future__ import annotations

from typing import ClassVar, Literal

Kind = Literal["temporary", "permanent", "policy"]


class OcmtError(Exception):
    """Base of all of our errors: permanent unless a subclass says otherwise."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    kind: ClassVar[Kind] = "permanent"

    def __init__(self, message: str, *, detail: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail
        self.retry_after = retry_after
        """Seconds until a retry can succeed; None where a retry is of no use or nobody knows."""

    @property
    def retryable(self) -> bool:
        """Whether the same request can succeed later without anybody changing anything."""
        return self.kind == "temporary"


class InvalidInput(OcmtError):
    """The request cannot be understood as it stands."""

    code = "invalid_input"
    status = 400


class Unauthenticated(OcmtError):
    """Nobody is signed in, or the login session has ended."""

    code = "unauthenticated"
    status = 401


class Refused(OcmtError):
    """Policy says no to a request that is well understood."""

    code = "refused"
    status = 403
    kind: ClassVar[Kind] = "policy"


class NotFound(OcmtError):
    """There is no such thing, or none that the asking user may know of: the two look the same."""

    code = "not_found"
    status = 404


class Conflict(OcmtError):
    """The thing is in a state that does not allow this."""

    code = "conflict"
    status = 409


class PreconditionFailed(OcmtError):
    """Somebody has changed the thing since the asker last saw it (If-Match)."""

    code = "precondition_failed"
    status = 412


class TooLarge(OcmtError):
    """The request is larger than the limit named in the message."""

    code = "too_large"
    status = 413
    kind: ClassVar[Kind] = "policy"


class LimitReached(OcmtError):
    """A rate, a budget or a quota is used up."""

    code = "limit_reached"
    status = 429
    kind: ClassVar[Kind] = "policy"


class Unavailable(OcmtError):
    """A part that we depend on does not answer just now."""

    code = "unavailable"
    status = 503
    kind: ClassVar[Kind] = "temporary"


class DiskFull(Unavailable):
    """There is no room on the server's disk. Once somebody has made some, the same request succeeds."""

    code = "disk_full"


class NotYet(Unavailable):
    """Not an error but an answer: ask again after `retry_after` seconds."""

    code = "not_yet"

    def __init__(self, message: str, *, retry_after: float, detail: str | None = None) -> None:
        super().__init__(message, detail=detail, retry_after=retry_after)


class LeaseLost(OcmtError):
    """Another replica drives this agent now; whatever we were about to write must not be written."""

    code = "lease_lost"
    status = 503
    kind: ClassVar[Kind] = "temporary"


class SetupProblem(OcmtError):
    """This machine lacks something, or something on it is in the way; the message says what to do."""

    code = "setup"
