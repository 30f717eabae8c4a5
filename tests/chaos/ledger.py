"""The ledger of a chaos run: what was promised to whom, against what came of it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections import Counter
from pathlib import Path
from uuid import UUID

import pytest

from ocmt.agents.snapshots.service import Snapshots
from ocmt.chat import log
from ocmt.chat.model import Turn, TurnStatus
from ocmt.chat.service import Chat
from ocmt.errors import OcmtError
from ocmt.platform.clock import SystemClock
from ocmt.platform.database import Database
from ocmt.platform.leases import Lease
from ocmt.platform.objects import LocalObjects
from ocmt.runtimes.agent_files import FilesOnDisk
from ocmt.testing.objects import MemoryObjects
from ocmt.testing.world import World, folder_of
from tests.chaos.stage import REPLICAS, Stage
from tests.chaos.world import notes_of

SETTLE_SECONDS = 90.0
ENDS = ("turn.completed", "turn.failed", "turn.stopped")


async def settled(stage: Stage) -> None:
    """No turn is open, no job waits, and every agent sleeps."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        with contextlib.suppress(OcmtError):
            async with stage.database.connection() as connection:
                turns = await connection.fetch(
                    "select id, status, attempt, user_id from turns where status in ('accepted', 'running')"
                )
                awake = await connection.fetch(
                    "select user_id, state, desired, lease_owner, lease_expires_at, retry_at, failures,"
                    " error, array(select reason from holds where holds.user_id = agents.user_id)"
                    " from agents where state <> 'stopped'"
                )
            jobs = [
                job for it in stage.world.gateways.values() for job in it.cron.jobs.values() if job.enabled
            ]
            if not turns and not awake and not jobs:
                return
            if time.monotonic() >= deadline:
                for slot in range(REPLICAS):
                    stage.replicas.signal(slot, signal.SIGUSR1)
                await asyncio.sleep(1)
                pytest.fail(f"stuck: {turns} {awake} {jobs}\n{_last_words(stage)}")
        await asyncio.sleep(0.3)


def _last_words(stage: Stage) -> str:
    return "\n".join(path.read_text()[-20_000:] for path in sorted(stage.folder.glob("replica-*.log")))


async def reconciled(database: Database, accepted: list[Turn], *, hostile: bool = False) -> Counter[str]:
    """Every accepted turn has ended once, in its row and in its stream, and with its own answer.

    How often they ended how: a status, and of a failed one its words. What a `hostile` agent answers is its
    own affair.
    """
    ends_of_all: Counter[str] = Counter()
    chat = Chat(database, SystemClock(), MemoryObjects())
    assert len({turn.id for turn in accepted}) == len(accepted)
    for turn in accepted:
        page = await chat.history(turn.user_id, turn.conversation_id, limit=1_000)
        now = next(found for found in page.turns if found.id == turn.id)
        ends_of_all[f"failed: {(now.error or {}).get('message')}" if now.error else now.status.value] += 1
        events = [
            event
            for event in await log.read(
                database, user_id=turn.user_id, conversation_id=turn.conversation_id, after=0, limit=100_000
            )
            if event.turn_id == turn.id
        ]
        ends = [event.type.value for event in events if event.type.value in ENDS]
        assert ends == [f"turn.{now.status.value}"], f"turn {turn.id} ended as {ends}"
        behind = events[[event.type.value in ENDS for event in events].index(True) + 1 :]
        assert not behind, f"behind the end of turn {turn.id} ({ends}) came {behind}"
        if now.status is TurnStatus.COMPLETED and not hostile:
            assert now.answer == f"You said: {turn.text}"
    return ends_of_all


def all_jobs_ran(world: World) -> int:
    """Every job ran to its end, and began anew only where its agent had died; returns how many there were."""
    count = 0
    for agent in world.gateways.values():
        for job in agent.cron.jobs.values():
            count += 1
            assert job.last_status == "ok", job
            assert len(job.started) <= 1 + agent.deaths, job
    return count


async def all_is_saved(stage: Stage, accepted: list[Turn]) -> None:
    """The newest snapshot of each agent that sleeps restores to all that it has written, and that is all that
    it has answered."""
    snapshots = Snapshots(stage.database, LocalObjects(stage.folder / "objects"), SystemClock())
    chat = Chat(stage.database, SystemClock(), MemoryObjects())
    elsewhere = stage.folder / "elsewhere"
    for user_id in {turn.user_id for turn in accepted}:
        async with stage.database.connection() as connection:
            token = await connection.fetchval("select lease_token from agents where user_id = $1", user_id)
        lease = Lease(user_id, token, "ledger", SystemClock().now())
        written = _notes(stage.world.disk, user_id)
        if written:
            await snapshots.restore(lease, FilesOnDisk(folder_of(elsewhere, user_id)))
        assert _notes(elsewhere, user_id) == written, f"agent {user_id} was stopped unsaved"
        answered = [turn for turn in accepted if turn.user_id == user_id]
        for turn in answered:
            page = await chat.history(user_id, turn.conversation_id, limit=1_000)
            now = next(found for found in page.turns if found.id == turn.id)
            assert now.answer is None or now.answer in written, f"{now.answer!r} is nowhere"


def _notes(disk: Path, user_id: UUID) -> list[str]:
    path = notes_of(disk, user_id)
    return path.read_text().splitlines() if path.exists() else []
