"""Whatever is sent to the intake of webhooks and to the upgrade: the real server, sockets and PostgreSQL.

`OCMT_HOSTILE_SECONDS` and `OCMT_HOSTILE_SEED` say for how long and what; `make chaos` gives it ten minutes.
What fails says its seed and its bytes. Slow because the server's patience with what never ends is waited for.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from uuid import UUID

import pytest

from tests.hostile.mutations import FORGED
from tests.hostile.stage import Stage
from tests.hostile.storm import Storm

SECONDS = float(os.environ.get("OCMT_HOSTILE_SECONDS", "10"))
SEED = int(os.environ.get("OCMT_HOSTILE_SEED", str(random.SystemRandom().randrange(10**6))))
MEMORY = 96 * 1024**2 + SECONDS * 100 * 1024
"""Bytes that a storm may leave behind: caches, what the allocator keeps, what the gateway's double knows."""

pytestmark = [pytest.mark.anyio, pytest.mark.chaos, pytest.mark.timeout(300 + 2 * SECONDS)]


async def test_whatever_is_sent_no_crash_no_5xx_no_hang(stage: Stage) -> None:
    print(f"hostile: seed {SEED}, {SECONDS:.0f} s")
    await stage.is_well()
    before = stage.memory()
    storm = Storm(stage, SEED)
    await storm.run(SECONDS)
    grown = stage.memory() - before
    print(
        f"hostile: {sum(storm.statuses.values())} answers {dict(sorted(storm.statuses.items()))},"
        f" {storm.closed} ended without one, {grown / 1e6:.0f} MB more"
    )
    await stage.is_well()
    kept = await stage.kept()
    only_what_was_signed_is_kept(stage, kept)
    what_was_taken_is_kept_once(storm, kept)
    assert grown < MEMORY, f"seed {SEED}"


def only_what_was_signed_is_kept(stage: Stage, kept: list[tuple[UUID, str, bytes]]) -> None:
    """Telegram signs nothing: there what was forged is known by its text."""
    doors = {door.endpoint: door for door in stage.doors}
    for endpoint, _, body in kept:
        assert FORGED.encode() not in body, f"seed {SEED}: {body!r}"
        door = doors[endpoint]
        assert door.channel == "telegram" or body in door.signed, f"seed {SEED}: {door.channel} {body!r}"


def what_was_taken_is_kept_once(storm: Storm, kept: list[tuple[UUID, str, bytes]]) -> None:
    """By its body, or by its id, which a mutation may have taken before."""
    bodies = Counter((endpoint, body) for endpoint, _, body in kept)
    ids = Counter((endpoint, external_id) for endpoint, external_id, _ in kept)
    for endpoint, request in storm.taken:
        times = max(bodies[endpoint, request.body], ids[endpoint, request.external_id])
        assert times == 1, f"seed {SEED}: {request.wire()!r}"
