"""What each agent of a chaos run has: a gateway that keeps notes on its disk, and plans jobs when told to.

The machines themselves are `ocmt.testing.world`: a replica is killed and held up at random, so what it runs
must live elsewhere, in the test's own process.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from ocmt.platform.clock import SystemClock
from ocmt.testing.world import ReachableGateway, World, folder_of

REMIND_ME = "remind me in"
"""A message that begins so plans a job in so many seconds."""
NOTES = "workspace/notes.txt"
"""What each agent writes: a line for each answer and for each run of a job."""


def make_world(path: Path, disk: Path) -> World:
    """One whose gateways keep notes."""
    clock = SystemClock()
    return World(path, disk, lambda user_id: Gateway(clock, notes_of(disk, user_id)))


def notes_of(disk: Path, user_id: UUID) -> Path:
    """Where that agent's notes are."""
    return folder_of(disk, user_id).root / NOTES


class Gateway(ReachableGateway):
    """One that keeps notes, and that is told to plan jobs."""

    def __init__(self, clock: SystemClock, notes: Path) -> None:
        super().__init__(clock)
        self._notes = notes

    def _chat_send(self, params: dict[str, Any]) -> dict[str, Any]:
        message = params["message"]
        if message.startswith(REMIND_ME) and all(job.name != message for job in self.cron.jobs.values()):
            self.cron.add(message, after=float(message.split()[-1]), seconds=0.2)
        return super()._chat_send(params)

    def _prepare(self, params: dict[str, Any]) -> dict[str, Any]:
        interrupted = any(it.status == "running" and it.run is None for it in self._sessions.values())
        self.busy = ["1 turn to take up again"] if interrupted else []
        return super()._prepare(params)

    def _entry(self, role: str, text: str, *, run_id: str | None = None, **more: Any) -> dict[str, Any]:
        if role == "assistant" and more.get("stopReason") == "stop":
            self._note(text)
        return super()._entry(role, text, run_id=run_id, **more)

    async def _broadcast(self, event: str, payload: Mapping[str, Any]) -> None:
        if event == "cron" and payload["action"] == "finished":
            self._note(payload["job"]["name"])
        await super()._broadcast(event, payload)

    def _note(self, line: str) -> None:
        with self._notes.open("a") as file:
            file.write(line + "\n")
