"""One agent's files under its driver's lease: right before it starts, saved while it is still.

When they are saved beside a stop decides `saving`.

For runtimes whose agents' files the platform can read (`KeepsFiles`); with others there is nothing to do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

import structlog

from ocmt.agents.model import Agent
from ocmt.agents.snapshots.restoring import SnapshotDamaged
from ocmt.agents.snapshots.service import Read, Snapshots
from ocmt.agents.snapshots.transfers import Transfers
from ocmt.agents.starting import StartFailed
from ocmt.errors import InvalidInput, LeaseLost, LimitReached, NotFound, OcmtError, Unavailable
from ocmt.platform.leases import Lease
from ocmt.runtimes.base import AgentFiles, AgentRuntime, CanPause, KeepsFiles

log = structlog.get_logger(__name__)

NOT_READY = (
    "Your agent's files could not be made ready. An administrator finds the reason in the server's log."
)


class FileKeeper:
    """What a driver asks about its agent's files."""

    def __init__(
        self, snapshots: Snapshots, runtime: AgentRuntime, lease: Lease, transfers: Transfers | None = None
    ) -> None:
        """`transfers` None: nothing can be sent in."""
        self._snapshots = snapshots
        self._transfers = transfers
        self._runtime = runtime
        self._lease = lease
        self._made_ready = False
        self.can_save = isinstance(runtime, KeepsFiles)
        """Whether there is anything to save here."""

    async def make_ready(self, agent: Agent, show: Callable[[], Awaitable[None]]) -> None:
        """Before a start: bring back what the newest snapshot has and this machine lacks, and what the user
        wants back. Never starts an agent on files that are not its own latest.

        `show` is awaited if that takes longer. Raises: StartFailed, LeaseLost, Unavailable.
        """
        files = self._files_of(agent)
        if files is None:
            return
        self._made_ready = False
        try:
            if await self._is_behind(agent, files):
                await show()
                await self._snapshots.restore(self._lease, files)
            if await self._snapshots.restore_asked(agent.user_id) is not None:
                await show()
                await self._snapshots.carry_out_wish(self._lease, files, image=agent.image)
            if self._transfers is not None and await self._transfers.import_asked(agent.user_id):
                await show()
                limits = self._snapshots.limits.of(agent.plan)
                await self._transfers.carry_out(self._lease, files, limits, image=agent.image)
        except (SnapshotDamaged, NotFound, InvalidInput) as error:
            raise StartFailed(error.message, detail=error.detail or error.message, final=True) from error
        except OcmtError:
            raise
        except Exception as error:
            # A fault of ours or of the machine: it counts as a failed start, so it is tried less and less
            # often, and in the end the user is told.
            log.exception("an agent's files could not be made ready", user_id=str(agent.user_id))
            raise StartFailed(NOT_READY, detail=repr(error)) from error
        self._made_ready = True

    async def keep(self, agent: Agent) -> int | None:
        """Before an upgrade, while nothing of it runs: the generation of a snapshot of what lies there, None
        where the platform keeps no files. Raises: LeaseLost, LimitReached, Unavailable."""
        files = self._files_of(agent)
        if files is None:
            return None
        limits = self._snapshots.limits.of(agent.plan)
        saved = await self._snapshots.save(self._lease, files, image=agent.image, reread=True, limits=limits)
        return saved.generation

    async def go_back(self, agent: Agent, generation: int) -> None:
        """After one that failed: put that generation in the place of what it has left. Where the user wants
        another one, `make_ready` brings that. Raises: StartFailed, LeaseLost, Unavailable."""
        files = self._files_of(agent)
        if files is None:
            return
        if await self._snapshots.restore_asked(agent.user_id) is not None:
            return  # also where this one is damaged, and the user has chosen another
        try:
            await self._snapshots.restore(self._lease, files, generation)
        except (SnapshotDamaged, NotFound) as error:
            raise StartFailed(error.message, detail=error.detail or error.message, final=True) from error

    async def save(self, agent: Agent, read: Read) -> bool:
        """Save what there is of one that is held still; whether that was done. If not, its user is told why.

        `read` is called as soon as it may go on. Cancelled before that, nothing has been saved.
        Raises: LeaseLost.
        """
        files = self._files_of(agent)
        if files is None:
            return True
        limits = self._snapshots.limits.of(agent.plan)
        try:
            await self._snapshots.save(self._lease, files, image=agent.image, limits=limits, read=read)
        except LeaseLost:
            raise
        except OcmtError as error:
            log.info("agent not saved", user_id=str(agent.user_id), error=error.message, detail=error.detail)
            return False
        return True

    async def tidy(self, agent: Agent) -> None:
        """What is to be done after that, while it may run. Raises: LeaseLost."""
        files = self._files_of(agent)
        if files is None:
            return
        try:
            limits = self._snapshots.limits.of(agent.plan)
            await self._snapshots.tidy(self._lease, files, limits=limits)
        except Unavailable as error:
            log.warning("snapshots not tidied", user_id=str(agent.user_id), detail=error.detail)

    async def saved(self, agent: Agent, *, runs: bool) -> bool:
        """Before a stop: whether all there is has been saved and read back. One that `runs` is held still for
        it, and stays so where it was saved: `let_go` of it, or end it. Raises: LeaseLost."""
        files = self._files_of(agent)
        if files is None:
            return True
        held = runs and isinstance(self._runtime, CanPause)
        done = False
        try:
            if not self._made_ready and await self._is_behind(agent, files):
                return True  # it has not run on what lies here: to save that would be a step back
            if isinstance(self._runtime, CanPause) and held:
                await self._runtime.pause(agent.user_id, agent.runtime_state)
            # What is written through memory maps need not change a file's times: all is read again.
            limits = self._snapshots.limits.of(agent.plan)
            await self._snapshots.take(self._lease, files, image=agent.image, reread=True, limits=limits)
            done = True
        except LeaseLost:
            raise
        except LimitReached as error:
            # For ever: it would never sleep again. Its files stay on this machine, and what was saved before;
            # its user is told (`Agent.saved`).
            log.warning("agent stopped unsaved", user_id=str(agent.user_id), error=error.message)
            done = True
        except OcmtError as error:
            log.warning(
                "agent not saved, so it is not stopped",
                user_id=str(agent.user_id),
                error=error.message,
                detail=error.detail,
            )
        finally:
            if held and not done:
                # One that is gone has nothing to go on with; its driver sees that.
                with contextlib.suppress(Unavailable):
                    await self.let_go(agent)
        return done

    async def let_go(self, agent: Agent) -> None:
        """It goes on after all. Raises: Unavailable."""
        if isinstance(self._runtime, KeepsFiles) and isinstance(self._runtime, CanPause):
            await self._runtime.resume(agent.user_id, agent.runtime_state)

    def _files_of(self, agent: Agent) -> AgentFiles | None:
        """None where the platform cannot come to them."""
        runtime = self._runtime
        return runtime.files(agent.user_id, agent.slot) if isinstance(runtime, KeepsFiles) else None

    async def _is_behind(self, agent: Agent, files: AgentFiles) -> bool:
        return (await self._snapshots.standing(agent.user_id, files)).behind
