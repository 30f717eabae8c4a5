"""Which revision an agent should run: a pure function of the rows, the user's id and what is installed here.

Agents move up by themselves. They move down only where an operator withdraws what they run, or pins them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from ocmt.errors import InvalidInput

EVERYBODY = 100
"""Percent."""

MAX_ATTEMPTS = 3
"""So often an upgrade may end without a verdict, as where the platform was killed; then it is refused."""

_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@+-]{0,199}")


@dataclass(frozen=True)
class Revision:
    """What agents run: an OpenClaw with a configuration."""

    number: int
    image: str
    """A version of OpenClaw as the cache has it, or a container's image: what the runtime understands."""
    share: int
    """Percent of the users whose agents run it; 100: everybody's."""
    created_at: datetime
    withdrawn: bool = False
    config: Mapping[str, Any] = field(default_factory=dict)
    """Merged into the configuration that the platform renders (RFC 7396)."""

    def __str__(self) -> str:
        return f"revision {self.number} (OpenClaw {self.image})"


@dataclass(frozen=True)
class Trial:
    """An agent's upgrade that has begun and is not settled: its files are to be put back before it starts."""

    revision: int
    generation: int | None
    attempt: int
    refused: bool


@dataclass(frozen=True)
class Standing:
    """What is known of one agent."""

    ran: int | None = None
    """The revision that it ran last, and that passed; None: none yet."""
    pin: int | None = None
    refused: frozenset[int] = frozenset()
    """Those that it did not come up on."""
    trial: Trial | None = None


def place(user_id: UUID, number: int) -> int:
    """The user's place in the roll-out of that revision, 0 to 99: whoever's is below the share is in it.

    Each revision asks others first, so that not always the same users are the first ones.
    """
    digest = hashlib.sha256(f"{number}:{user_id}".encode()).digest()
    return int.from_bytes(digest[:8]) % 100


def wanted(
    user_id: UUID, standing: Standing, revisions: Sequence[Revision], here: Collection[str]
) -> Revision | None:
    """The revision that this agent should run, of those whose images are `here`; or, whether it is here or
    not, the one that it runs already. None: there is none.
    """
    fit = [
        each
        for each in revisions
        if each.image in here and not each.withdrawn and each.number not in standing.refused
    ]
    ran = next((each for each in revisions if each.number == standing.ran), None)
    if standing.pin is not None:
        pinned = [each for each in fit if each.number == standing.pin]
        # One that cannot have what it is pinned to stays where it is.
        stays = [] if ran is None or ran.withdrawn else [ran]
        if pinned or stays:
            return (pinned or stays)[0]
    offered = [each for each in fit if place(user_id, each.number) < each.share]
    if ran is not None and not ran.withdrawn:
        offered.append(ran)
    return max(offered, key=lambda each: each.number, default=ran)


def way_back(
    user_id: UUID, standing: Standing, revisions: Sequence[Revision], here: Collection[str], to: Revision
) -> Revision | None:
    """What it would run if it did not come up on `to`. None: nothing, so there is nothing to try out."""
    without = replace(standing, refused=standing.refused | {to.number})
    back = wanted(user_id, without, revisions, here)
    return back if back is not None and back.image in here and back.number != to.number else None


def state_of(revision: Revision, revisions: Sequence[Revision]) -> str:
    """In one word: `withdrawn`; `current`, what all are offered; `earlier`, what all were offered; `canary`,
    what some are; `added`, what nobody is."""
    if revision.withdrawn:
        return "withdrawn"
    if revision.share < EVERYBODY:
        return "canary" if revision.share else "added"
    full = [each.number for each in revisions if each.share == EVERYBODY and not each.withdrawn]
    return "current" if revision.number == max(full) else "earlier"


def check(image: str, share: int) -> None:
    """Raises InvalidInput, with what is wrong."""
    if not _IMAGE.fullmatch(image):
        raise InvalidInput("An image is a version of OpenClaw like 2026.9.6, or a container's image.")
    if not 0 <= share <= EVERYBODY:
        raise InvalidInput("A share is a number of percent, 0 to 100.")
