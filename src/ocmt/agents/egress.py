"""Which agents reach the internet and how much they exchange in a day: the operator's policy, then the wish
of the user."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import UUID

from ocmt.agents.model import Policy
from ocmt.agents.service import Agents, queries
from ocmt.errors import Refused
from ocmt.platform.clock import Clock
from ocmt.platform.database import Connection, Database

_KEPT = timedelta(days=32)
Record = Callable[[Connection], Awaitable[None]]
"""Writes down that a user has changed their wish, in the transaction of the change."""


class Egress:
    """The internet of all agents. The runtimes ask here before every connection, and for every few bytes."""

    def __init__(
        self, database: Database, clock: Clock, agents: Agents, policy: Policy, *, daily_bytes: int
    ) -> None:
        """Args: `daily_bytes` is what one agent may exchange with the internet in a day (UTC)."""
        self._database = database
        self._clock = clock
        self._agents = agents
        self._policy = policy
        self._daily_bytes = daily_bytes

    async def allows(self, user_id: UUID) -> bool:
        """Return whether that user's agent may reach the internet now."""
        return self._policy.reaches_internet(await self._agents.find(user_id))

    async def change(self, user_id: UUID, wanted: bool, record: Record) -> bool:
        """Keep whether its user wants the agent to reach the internet; return whether that is a change.

        Switching it on takes effect when the agent next starts, switching it off within seconds.
        Raises: Refused as `check` does.
        """
        await self.check(user_id, wanted)
        async with self._database.transaction() as connection:
            changed = await queries.set_egress(connection, user_id=user_id, egress=wanted)
            if changed is None:
                return False
            await record(connection)
        return True

    async def check(self, user_id: UUID, wanted: bool) -> None:
        """Raises: Refused where the operator's policy leaves the user no choice."""
        agent = await self._agents.find(user_id)
        policy = self._policy.egress_of(agent.plan)
        if wanted and policy == "off":
            raise Refused("The operator of this installation does not let your agent reach the internet.")
        if not wanted and policy == "on":
            raise Refused("The operator of this installation lets your agent reach the internet.")

    async def spend(self, user_id: UUID, size: int) -> bool:
        """Book bytes before they flow. False: the day's (UTC) are used up, and nothing was booked."""
        today = self._clock.now().date()
        async with self._database.connection() as connection:
            booked = await queries.spend_egress(
                connection,
                user_id=user_id,
                day=today,
                bytes=size,
                most=self._daily_bytes,
                keep_from=today - _KEPT,
            )
        return booked is not None

    async def give_back(self, user_id: UUID, size: int) -> None:
        """Take booked bytes back that were not exchanged."""
        today = self._clock.now().date()
        async with self._database.connection() as connection:
            await queries.give_egress_back(connection, user_id=user_id, day=today, bytes=size)
