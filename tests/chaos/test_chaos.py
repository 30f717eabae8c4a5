"""Three replicas and fifty agents under a load of turns and jobs by schedule, beside a hostile tenant, while
all that can die, dies: nothing is lost, nothing doubled, nothing stuck.

Slow because it is real processes for a while: `OCMT_CHAOS_SECONDS` and `OCMT_CHAOS_SEED` change how long and
what happens, `make chaos` runs many seeds. The seed is printed: the same kinds of faults come in one order.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from ocmt.agents.service import Agents
from ocmt.chat.model import TurnStatus
from ocmt.chat.service import Chat
from ocmt.platform.clock import SystemClock
from ocmt.testing import gateway, gateway_cron
from ocmt.testing.objects import MemoryObjects
from tests.accounts import make_user
from tests.chaos.faults import Faults
from tests.chaos.ledger import all_is_saved, all_jobs_ran, reconciled, settled
from tests.chaos.load import Load
from tests.chaos.stage import Stage, open_stage
from tests.chaos.tenant import Tenant

pytestmark = [pytest.mark.anyio, pytest.mark.chaos, pytest.mark.timeout(900)]

SECONDS = float(os.environ.get("OCMT_CHAOS_SECONDS", "60"))
SEED = int(os.environ.get("OCMT_CHAOS_SEED", str(random.SystemRandom().randrange(10**6))))
USERS = 50


@pytest.fixture
async def stage(postgres_binaries: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    """A database server of its own (it will be maltreated), the world, and three replicas."""
    monkeypatch.setattr(gateway, "RESUME_DELAY", 0.2)
    monkeypatch.setattr(gateway_cron, "CATCH_UP_DELAY", timedelta(seconds=2))
    monkeypatch.setattr(gateway_cron, "CATCH_UP_STAGGER", timedelta(seconds=0.2))
    monkeypatch.setattr(gateway_cron, "DECISION_DELAY", 0.2)
    async with open_stage(postgres_binaries) as opened:
        yield opened


async def test_nothing_is_lost_nothing_doubled_nothing_stuck(stage: Stage) -> None:
    print(f"chaos: seed {SEED}, {SECONDS:.0f} s")
    dice = random.Random(SEED)
    clock = SystemClock()
    chat = Chat(stage.database, clock, MemoryObjects())
    agents = Agents(stage.database, clock, runtime="world")
    users = [await make_user(stage.database, f"user{number}@example.org") for number in range(USERS)]
    conversations = {user: [(await chat.create_conversation(user)).id for _ in range(2)] for user in users}
    load = Load(chat, agents, users, conversations, random.Random(dice.random()))
    faults = Faults(stage, random.Random(dice.random()))
    mallory = await make_user(stage.database, "mallory@example.org")
    tenant = Tenant(chat, agents, stage.world, mallory, random.Random(dice.random()))

    until = time.monotonic() + SECONDS
    await asyncio.gather(load.run(until), faults.run(until), tenant.run(until))
    tenant.clean()
    await stage.replicas.revive()

    await settled(stage)
    assert stage.world.violations == []
    ends = await reconciled(stage.database, load.accepted)
    hostile = await reconciled(stage.database, tenant.accepted, hostile=True)
    jobs = all_jobs_ran(stage.world)
    await all_is_saved(stage, load.accepted)
    print(
        f"chaos: {len(load.accepted)} turns {dict(ends)}, {jobs} jobs, {stage.world.starts} starts,"
        f" {dict(faults.happened)}, {stage.replicas.ended} replicas ended by themselves"
    )
    print(f"chaos: the hostile tenant did {dict(tenant.did)}: {len(tenant.accepted)} turns {dict(hostile)}")
    # Who writes to an agent that keeps dying may be told so; the people of nearly all others notice nothing.
    well = ends[TurnStatus.COMPLETED.value] + ends[TurnStatus.STOPPED.value]
    assert well >= 0.9 * len(load.accepted)
