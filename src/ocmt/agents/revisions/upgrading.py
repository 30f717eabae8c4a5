"""Starts an agent on the revision that it should run: saved before, judged after, and back together.

The order is what makes it safe to be killed at any line. The snapshot, then the row that says which revision
is being tried and which snapshot belongs to it, then the start. The row stays open until the agent has
passed, or until that snapshot is back in its place; while it is open, nothing starts before it is settled.
See docs/decisions/0018-revisions.md.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from ocmt.agents.files import FileKeeper
from ocmt.agents.model import Agent
from ocmt.agents.revisions.model import MAX_ATTEMPTS, Revision, Standing, wanted, way_back
from ocmt.agents.revisions.service import Revisions
from ocmt.agents.starting import StartFailed, failed_by
from ocmt.errors import LeaseLost, OcmtError
from ocmt.openclaw.client import GatewayClient
from ocmt.platform.leases import Lease
from ocmt.runtimes.base import AgentRuntime, RunsImages, RuntimeState

log = structlog.get_logger(__name__)

Started = tuple[GatewayClient, RuntimeState]
Show = Callable[[str, str], Awaitable[None]]
"""Awaited with (step, text)."""


class Attempt(Protocol):
    """One attempt to start the agent; what does not come up is gone again when it raises StartFailed."""

    async def __call__(self, revision: Revision | None, *, repair: bool, trial: bool) -> Started:
        """None: whatever the runtime has. With `trial` it must pass the health gate, too."""


@dataclass(frozen=True)
class Upgrades:
    """Of one agent, under its driver's lease."""

    lease: Lease
    revisions: Revisions
    runtime: AgentRuntime
    files: FileKeeper
    show: Show

    async def settle(self, agent: Agent) -> None:
        """Where an upgrade has not passed, put the files from before it back. Nothing of the agent may run.

        Raises: StartFailed, LeaseLost, Unavailable.
        """
        trial = (await self.revisions.standing(self.lease)).trial
        if trial is None:
            return
        if not trial.refused and trial.attempt >= MAX_ATTEMPTS:
            await self.revisions.refuse(self.lease, f"begun {trial.attempt} times, and never came to an end")
        if trial.generation is not None:
            await self.show("files", "Going back to your files from before the upgrade")
            try:
                await self.files.go_back(agent, trial.generation)
            except LeaseLost:
                raise
            except OcmtError as error:
                raise failed_by(error) from error
        await self.revisions.close(self.lease)

    async def start(self, agent: Agent, attempt: Attempt, *, repair: bool) -> Started:
        """On the revision that it should run, or on the one that it ran before. Settle before.

        Raises: StartFailed, LeaseLost, Unavailable.
        """
        if not isinstance(self.runtime, RunsImages) or not (revisions := await self.revisions.all()):
            return await attempt(None, repair=repair, trial=False)
        here = await self._installed(self.runtime, revisions)
        while True:
            standing = await self.revisions.standing(self.lease)
            to = self._choose(standing, revisions, here)
            back = way_back(agent.user_id, standing, revisions, here, to)
            if to.number == standing.ran or back is None:
                return await attempt(to, repair=repair, trial=False)
            if not await self._begin(agent, to):
                return await attempt(back, repair=repair, trial=False)
            try:
                return await _mended(attempt, to)
            except StartFailed as failure:
                if not failure.by_agent:
                    raise  # says nothing about the revision, so it is tried again
                log.warning(
                    "agent goes back from a revision",
                    user_id=str(agent.user_id),
                    revision=to.number,
                    reason=failure.words,
                    detail=failure.detail,
                )
                await self.revisions.refuse(self.lease, failure.words)
                await self.settle(agent)

    async def _installed(self, runtime: RunsImages, revisions: list[Revision]) -> set[str]:
        try:
            return {image for image in {each.image for each in revisions} if await runtime.has_image(image)}
        except OcmtError as error:
            raise failed_by(error) from error

    def _choose(self, standing: Standing, revisions: list[Revision], here: set[str]) -> Revision:
        """Raises StartFailed where there is nothing that it could run."""
        user_id = self.lease.key
        to = wanted(user_id, standing, revisions, here)
        best = wanted(user_id, standing, revisions, {revision.image for revision in revisions})
        if best is not None and best.image not in here:
            log.warning(f"{best} is not installed on this machine, and not tried", user_id=str(user_id))
        if to is None:
            words = "No OpenClaw here is for your agent to run: an administrator sees `ocmt revisions list`."
            raise StartFailed(words, detail="no revision fits", final=True)
        if to.image not in here:
            raise StartFailed(
                f"Your agent runs {to}, which is not installed on this machine. An administrator installs it "
                "with `make setup`, or withdraws it with `ocmt revisions withdraw`.",
                detail=to.image,
                final=True,
            )
        return to

    async def _begin(self, agent: Agent, to: Revision) -> bool:
        """Whether there is a way back now, so that it can be tried."""
        await self.show("files", "Saving your files before an upgrade")
        try:
            generation = await self.files.keep(agent)
        except LeaseLost:
            raise
        except OcmtError as error:
            log.warning(
                "agent not saved, so it is not upgraded",
                user_id=str(agent.user_id),
                revision=to.number,
                error=error.message,
                detail=error.detail,
            )
            return False
        await self.revisions.open(self.lease, to.number, generation)
        return True


async def _mended(attempt: Attempt, to: Revision) -> Started:
    """On that revision; by OpenClaw's own doctor, where it refuses the configuration that it finds."""
    try:
        return await attempt(to, repair=False, trial=True)
    except StartFailed as failure:
        if not failure.repairable:
            raise
    return await attempt(to, repair=True, trial=True)
