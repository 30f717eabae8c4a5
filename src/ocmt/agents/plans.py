"""Plans: what agents may use and when they sleep, as rows that an operator edits while everything runs.

A change counts at once for the idle times, at the next save for what is saved, and at the agent's next start
for memory, processors and processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from uuid import UUID

from ocmt.agents.model import Plan
from ocmt.agents.service import Agents, queries
from ocmt.errors import InvalidInput, NotFound
from ocmt.platform.database import Database
from ocmt.platform.queries import every


class Plans:
    """All plans, and who has which."""

    def __init__(self, database: Database, agents: Agents) -> None:
        self._database = database
        self._agents = agents

    async def all(self) -> Sequence[Plan]:
        """By name."""
        async with self._database.connection() as connection:
            return [Plan(**row) for row in await every(queries.list_plans(connection))]

    async def put(self, plan: Plan) -> None:
        """Make it, or change it. Raises InvalidInput."""
        check(plan)
        async with self._database.connection() as connection:
            await queries.put_plan(connection, **asdict(plan))

    async def assign(self, user_id: UUID, name: str) -> None:
        """Give a user's agent that plan. Raises NotFound for an unknown one."""
        await self._agents.find(user_id)
        async with self._database.connection() as connection:
            if await queries.assign_plan(connection, user_id=user_id, plan=name) is None:
                raise NotFound(f"There is no plan {name!r}. `ocmt plans list` shows them.")


def check(plan: Plan) -> None:
    """Raises InvalidInput, with what is wrong."""
    if not plan.name.isascii() or not plan.name.replace("-", "a").isalnum() or len(plan.name) > 32:
        raise InvalidInput("A plan's name has up to 32 small letters, digits and hyphens.")
    if plan.name != plan.name.lower() or not plan.name[0].isalpha():
        raise InvalidInput("A plan's name has small letters and begins with one.")
    amounts = {
        "memory": plan.memory_bytes,
        "processors": plan.cpus,
        "processes": plan.pids,
        "disk": plan.disk_bytes,
        "files": plan.snapshot_files,
        "room for files": plan.snapshot_bytes,
        "room for a file": plan.snapshot_file_bytes,
        "room for snapshots": plan.kept_snapshot_bytes,
        "conversations": plan.conversations,
        "room for conversations": plan.conversation_bytes,
        "room for webhooks": plan.delivery_bytes,
        "room for attachments": plan.attachment_bytes,
    }
    for what, amount in amounts.items():
        if amount is not None and amount <= 0:
            raise InvalidInput(
                f"A plan without {what} is of no use: leave it out for the installation's own."
            )
    times = (plan.pause_after, plan.stop_after, plan.max_awake)
    if any(time is not None and time.total_seconds() < 1 for time in times):
        raise InvalidInput("An agent is left awake for a second at least.")
