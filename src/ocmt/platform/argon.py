"""Argon2id, a few at a time: each takes tens of megabytes, so a storm of them waits in line and is bounded.

Imported lazily: argon2 is needed by who signs in with a code, not by every start.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ocmt.errors import LimitReached
from ocmt.platform.work import Workers

T = TypeVar("T")


class ArgonGate:
    """`at_once` computations in threads, `waiting` more in line; whoever comes then is asked to come
    again."""

    def __init__(self, *, at_once: int = 2, waiting: int = 256) -> None:
        # Threads of its own: who gives up waiting leaves a computation behind that still takes its place.
        self._threads = Workers("argon", at_once)
        self._most = waiting
        self._waiting = 0

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work`, which runs in a thread. Raises: LimitReached where too many wait already."""
        if self._waiting >= self._most:
            raise LimitReached("Too many people sign in just now. Try again in a few seconds.", retry_after=5)
        self._waiting += 1
        try:
            return await self._threads.run(work)
        finally:
            self._waiting -= 1


def hash_code(code: str) -> str:
    """A PHC string. 19 MiB, two passes: OWASP's least, enough for what is random already."""
    from argon2 import PasswordHasher

    return PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1).hash(code)


def verify_code(phc: str, code: str) -> bool:
    """Whether that string is of that code, with whatever parameters it was made."""
    from argon2 import PasswordHasher
    from argon2.exceptions import InvalidHashError, VerificationError

    try:
        return PasswordHasher().verify(phc, code)
    except (VerificationError, InvalidHashError):
        return False
