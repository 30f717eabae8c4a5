"""The kernel's key rings, which all processes of a user id share, whatever namespaces they are in."""

from __future__ import annotations

from typing import Any

from tests.runtimes.escapes.attempts.tries import Outcomes, called

USER_KEYRING, USER_SESSION_KEYRING, SESSION_KEYRING = -4, -5, -3
GET_KEYRING_ID, JOIN_SESSION, DESCRIBE = 0, 1, 6


def attempt(given: dict[str, Any]) -> Outcomes:
    secret = b"escape"
    return {
        "finding a ring": called(250, 219, GET_KEYRING_ID, USER_KEYRING, 0),
        "joining a session": called(250, 219, JOIN_SESSION, 0),
        "describing a ring": called(250, 219, DESCRIBE, USER_SESSION_KEYRING, 0, 0),
        "adding a key": called(248, 217, b"user", secret, secret, len(secret), USER_KEYRING),
        "asking for a key": called(249, 218, b"user", secret, 0, SESSION_KEYRING),
    }
