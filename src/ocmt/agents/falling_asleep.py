"""Going to sleep: who is asked before an agent is paused or stopped, and in which order.

The policy by the clock, the gateway itself, and the row once more in the transaction that says so. Only
when all agree is anything held still or ended; where one does not, the gateway takes work again. The driver
(`lifecycle`) asks for it and lends its lock and its resume.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import timedelta
from functools import partial

import structlog

from ocmt.agents import jobs
from ocmt.agents.admission import Admission
from ocmt.agents.cron import CronWatch
from ocmt.agents.ending import Ending, awake_for_too_long
from ocmt.agents.model import SETTLED, Agent, Event, Policy, Rest, State, rest
from ocmt.agents.running import Running
from ocmt.agents.saving import Saving
from ocmt.agents.schedule import Projection, short_rest
from ocmt.agents.service import Agents, Change
from ocmt.agents.suspension import may_be_frozen, take_work_or_close
from ocmt.errors import LimitReached, OcmtError
from ocmt.openclaw.client import GatewayClient
from ocmt.platform.clock import Clock
from ocmt.platform.leases import Lease

log = structlog.get_logger(__name__)


def told_to_stop(agent: Agent) -> bool:
    """Whether somebody asked for its sleep; what holds it comes first, and what it planned when it failed."""
    settled = agent.state in SETTLED and not (agent.state is State.FAILED and agent.wanted)
    held = any(hold.reason != jobs.REASON for hold in agent.holds)  # who asks has a program ended, too
    return agent.desired is State.STOPPED and settled and not held


class FallingAsleep:
    """One agent's way to sleep. Its row changes only under its driver's lock."""

    def __init__(
        self,
        lease: Lease,
        agents: Agents,
        running: Running,
        saving: Saving,
        ending: Ending,
        cron: CronWatch,
        clock: Clock,
        policy: Policy,
        admission: Admission,
        *,
        hand: Callable[[], AbstractAsyncContextManager[None]],
        resume: Callable[[], Awaitable[object]],
    ) -> None:
        """`hand`: the driver's lock, as long as the lease is ours. `resume`: from a pause that went wrong."""
        self._user_id = lease.key
        self._lease = lease
        self._agents = agents
        self._running = running
        self._saving = saving
        self._ending = ending
        self._cron = cron
        self._clock = clock
        self._policy = policy
        self._admission = admission
        self._hand = hand
        self._resume = resume
        self._leave_until = clock.now()
        """A gateway that said no is not asked again before."""

    async def look(self, agent: Agent) -> None:
        """Let it sleep, or sleep deeper, where it has been idle for long enough."""
        can_pause = self._running.can_pause
        now = self._clock.now()
        policy = self._policy.of(agent.plan)
        slept_enough = agent.state is State.PAUSED and now - agent.since >= policy.page_out_after
        if slept_enough and await self._running.page_out(again_after=policy.page_out_after):
            self._admission.shrink(self._user_id, policy.paged_out_bytes)
        step = rest(agent, now, policy, can_pause=can_pause)
        step = short_rest(step, agent, now, policy, can_pause=can_pause)
        if step is Rest.STAY or now < max(self._leave_until, self._saving.leave_until):
            return
        if step is Rest.PAUSE:
            await self._pause(policy.pause_after)
        elif step is Rest.STOP:
            await self.stop(idle_for=policy.stop_after)
        else:
            log.warning("agent stopped after its longest time awake", user_id=str(self._user_id))
            await self.stop(idle_for=None, notice=awake_for_too_long(policy.max_awake))

    async def _pause(self, idle_for: timedelta) -> None:
        async with self._hand():
            agent = await self._agents.find(self._user_id)
            gateway = self._running.gateway
            if agent.state is not State.AWAKE or gateway is None:
                return
            if await self._is_left_to_work(agent, await self._running.jobs()):
                return

            async def commit(plan: Projection | None) -> bool:
                return await self._agents.apply_pause(agent, self._lease, plan, idle_for=idle_for)

            if not await self._may_sleep(agent, gateway, commit):
                return
            try:
                await self._running.pause(agent.runtime_state)
            except OcmtError as error:
                log.warning("agent not paused", user_id=str(self._user_id), error=str(error))
                self._leave_until = self._clock.now() + self._policy.busy_retry
                await self._resume()
            else:
                self._saving.beside_pause(agent)

    async def stop(self, *, idle_for: timedelta | None, notice: Mapping[str, str] | None = None) -> None:
        """Stop it where everybody agrees. `idle_for`: and where it has been idle for so long.

        `notice`: to its user, who did not ask for it; then its gateway tells what it has planned, but neither
        that nor a hold can refuse.
        """
        async with self._hand():
            agent = await self._agents.find(self._user_id)
            if agent.state not in SETTLED:
                return
            gateway = self._running.gateway if agent.state is State.AWAKE else None
            left_running = await self._running.jobs()
            if idle_for is not None and await self._is_left_to_work(agent, left_running):
                return
            if idle_for is None:
                await self._agents.release(self._user_id, jobs.REASON, jobs.REFERENCE)

            async def commit(plan: Projection | None) -> bool:
                stop = partial(
                    self._agents.apply_stopping,
                    agent,
                    self._lease,
                    plan,
                    idle_for=idle_for,
                    forced=notice is not None,
                )
                return await self._saving.before_stop(agent, stop)

            if notice is not None and gateway is not None:
                planned = await self._cron.before_sleep(agent, gateway)
                agreed = await commit(planned.plan if planned else None)
            else:
                agreed = await self._may_sleep(agent, gateway, commit)
            if not agreed:
                return
            await self._ending.end(agent.runtime_state, grace=10)
            stopping = replace(agent, state=State.STOPPING)
            told = jobs.ended(left_running, notice)
            gone = Change(Event.GONE, error=told, failures=0, runtime_state={})
            await self._agents.apply(stopping, self._lease, gone)

    async def _is_left_to_work(self, agent: Agent, names: Sequence[str]) -> bool:
        """Whether it stays awake for programs that its gateway does not know of; then its row says so."""
        now = self._clock.now()
        if not names or not jobs.keeps_awake(agent, now, self._policy.of(agent.plan)):
            return False
        self._leave_until = now + self._policy.busy_retry
        with contextlib.suppress(LimitReached):  # then so much else keeps it awake
            await self._agents.hold(
                self._user_id, jobs.REASON, jobs.REFERENCE, ttl=jobs.LOOK_AGAIN, note=jobs.named(names)
            )
        return True

    async def _may_sleep(
        self,
        agent: Agent,
        gateway: GatewayClient | None,
        commit: Callable[[Projection | None], Awaitable[bool]],
    ) -> bool:
        """Whether gateway and row agree to its sleep; where only the gateway does, it takes work again."""
        if gateway is None:
            return await commit(None)
        planned = await self._cron.before_sleep(agent, gateway)
        if planned is None or not await may_be_frozen(gateway, self._user_id):
            self._leave_until = self._clock.now() + self._policy.busy_retry
            return False
        committed = False
        try:
            committed = await planned.unless_changed(commit)
        finally:
            if not committed:
                await take_work_or_close(gateway, self._user_id)
        return committed
