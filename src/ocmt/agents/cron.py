"""An agent's schedule and its driver: asked of the gateway while it is awake, kept in the row, acted on.

The gateway tells when its schedule changes; only then, and while a job runs or is nearly due, it is asked.
So the row is right when a whole server is lost, and an idle agent costs nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

import structlog

from ocmt.agents.model import Agent, Policy, State
from ocmt.agents.schedule import HOLD_AHEAD, Projection, is_due, keeps_awake, plan, same
from ocmt.agents.service import Agents
from ocmt.errors import Unavailable
from ocmt.openclaw.client import GatewayClient, GatewayError
from ocmt.platform.clock import Clock
from ocmt.platform.leases import Lease

log = structlog.get_logger(__name__)

LOOK_INTERVAL = timedelta(seconds=5)
"""Between two looks at a job that runs or is nearly due."""
SETTLING = timedelta(seconds=10)
"""After a start the gateway answers messages first, unless a job is near."""
HOLD_TTL = timedelta(seconds=60)
"""Renewed at each look."""
REFERENCE = "schedule"


@dataclass(frozen=True)
class Planned:
    """What a gateway said of its schedule before it was asked whether it may sleep."""

    plan: Projection | None
    """None: nothing new."""
    gateway: GatewayClient
    changes: int

    async def unless_changed(self, commit: Callable[[Projection | None], Awaitable[bool]]) -> bool:
        """Commit the sleep; False where the schedule has changed since, of which its event has told."""
        return self.gateway.schedule_changes == self.changes and await commit(self.plan)


class CronWatch:
    """What one driver does about its agent's schedule."""

    def __init__(self, agents: Agents, lease: Lease, clock: Clock, policy: Policy) -> None:
        self._agents = agents
        self._lease = lease
        self._clock = clock
        self._policy = policy
        self._seen: tuple[GatewayClient, int] | None = None
        self._looked_at = clock.now() - LOOK_INTERVAL

    async def is_due(self, agent: Agent) -> bool:
        """Whether this sleeping agent is to be woken for a job; if so it is held awake for it."""
        if not is_due(agent, self._clock.now(), self._policy):
            return False
        log.info("waking an agent for its schedule", user_id=str(agent.user_id), due=str(agent.next_wake_at))
        ttl = self._policy.wake_timeout + self._policy.wake_ahead + HOLD_TTL
        await self._agents.hold(agent.user_id, "cron", REFERENCE, ttl=ttl)
        return True

    async def look(self, agent: Agent, gateway: GatewayClient | None) -> Agent:
        """Keep what an awake agent has planned, and hold it for what runs or is nearly due."""
        now = self._clock.now()
        if agent.state is not State.AWAKE or gateway is None or now - self._looked_at < LOOK_INTERVAL:
            return agent
        held = any(hold.reason == "cron" for hold in agent.holds)
        soon = agent.next_wake_at is not None and agent.next_wake_at <= now + HOLD_AHEAD
        seen = (gateway, gateway.schedule_changes)
        if not held and not soon and (self._seen == seen or now - agent.since < SETTLING):
            return agent
        self._looked_at = now
        try:
            told = await gateway.schedule()
        except (GatewayError, Unavailable) as error:
            # A hold that is not renewed runs out by itself.
            log.info("gateway did not tell its schedule", user_id=str(agent.user_id), error=str(error))
            return agent
        before = await self._agents.schedule_of(agent.user_id)
        found = plan(told, before, awake_since=agent.since, now=now)
        if found.next_wake_at != agent.next_wake_at or not same(before, found.schedule):
            await self._agents.apply_schedule(self._lease, found)
        self._seen = seen
        if keeps_awake(told, now, self._policy, awake_since=agent.since):
            await self._agents.hold(agent.user_id, "cron", REFERENCE, ttl=HOLD_TTL)
        elif held:
            await self._agents.release(agent.user_id, "cron", REFERENCE)
        return await self._agents.find(agent.user_id)

    async def before_sleep(self, agent: Agent, gateway: GatewayClient) -> Planned | None:
        """What is to be kept while it sleeps; None where it does not answer, and so can not sleep now.

        Of a gateway that refuses to tell, what is known stays.
        """
        changes = gateway.schedule_changes
        try:
            told = await gateway.schedule()
        except (GatewayError, Unavailable) as error:
            log.warning("gateway did not tell its schedule", user_id=str(agent.user_id), error=str(error))
            return Planned(None, gateway, changes) if isinstance(error, GatewayError) else None
        before = await self._agents.schedule_of(agent.user_id)
        found = plan(told, before, awake_since=agent.since, now=self._clock.now())
        return Planned(found, gateway, changes)
