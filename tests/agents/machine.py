"""A machine that agents run on, as far as their files are concerned."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

from ocmt.runtimes.agent_files import FilesOnDisk
from ocmt.runtimes.base import AgentSpec, RuntimeState
from ocmt.runtimes.folders import AgentFolder
from ocmt.testing.clock import VirtualClock
from ocmt.testing.runtimes import FakeRuntime
from tests.agents.replica import Gateways


class MachineRuntime(FakeRuntime):
    """With a disk of its own, as one machine has."""

    def __init__(self, clock: VirtualClock, gateways: Gateways, disk: Path) -> None:
        super().__init__(clock, make_gateway=gateways.make)
        self._disk = disk

    def files(self, user_id: UUID, slot: int) -> FilesOnDisk:
        """See KeepsFiles."""
        return FilesOnDisk(self._folder(user_id))

    def _folder(self, user_id: UUID) -> AgentFolder:
        return AgentFolder(self._disk / str(user_id), None)

    async def start(self, spec: AgentSpec, state: RuntimeState) -> RuntimeState:
        self._folder(spec.user_id).prepare(spec.config, compile_cache=None)
        return await super().start(spec, state)

    def note(self, user_id: UUID) -> Path:
        return self._disk / str(user_id) / "workspace" / "note.txt"
