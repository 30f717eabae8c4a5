"""How an agent's row follows what has become of it: lost, failed, cleared away after another, put to rest.

The driver (`lifecycle`) notices and decides, and holds the lock meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from ocmt.agents.admission import Admission
from ocmt.agents.model import Agent, Event, Policy, State, failures_after_crash, retry_delay
from ocmt.agents.running import Running
from ocmt.agents.saving import Saving
from ocmt.agents.service import Agents, Change
from ocmt.agents.starting import AgentFailed
from ocmt.platform.clock import Clock
from ocmt.platform.leases import Lease
from ocmt.runtimes.base import Observation, RuntimeState


class Ending:
    """One agent's ends, under its driver's lease."""

    def __init__(
        self,
        lease: Lease,
        agents: Agents,
        running: Running,
        saving: Saving,
        clock: Clock,
        policy: Policy,
        admission: Admission,
    ) -> None:
        self._lease = lease
        self._agents = agents
        self._running = running
        self._saving = saving
        self._clock = clock
        self._policy = policy
        self._admission = admission

    def broken(self, agent: Agent) -> bool:
        """Whether the row says something that is not so: to be asked by the lock's holder, or before it."""
        if agent.state in (State.STARTING, State.STOPPING):
            return True  # who did that has died, or met an error
        return agent.state in (State.AWAKE, State.PAUSED) and self._running.living is None

    def runs_on(self, agent: Agent) -> bool:
        """Whether the row says paused of one that runs: that was committed, and the answer got lost."""
        running = self._running
        return agent.state is State.PAUSED and running.living is not None and running.frozen is None

    async def end(self, runtime_state: RuntimeState, *, grace: float) -> None:
        """All that runs of it, with `grace` seconds to shut down; its memory is free. Raises Unavailable."""
        self._saving.give_way()
        await self._running.end(runtime_state, grace=grace)
        await self._saving.end()
        self._admission.leave(self._lease.key)

    async def lost(self, agent: Agent, seen: Observation | None = None) -> Agent:
        """Its gateway has gone, or a change of it was cut short: end what is left. Raises: LeaseLost.

        `seen`: what its runtime has just said of it.
        """
        seen = seen or await self._running.runtime.observe(agent.user_id, agent.runtime_state)
        await self.end(agent.runtime_state, grace=1)
        if agent.state is State.AWAKE:
            return await self.failed(seen.reason or "Your agent stopped unexpectedly.", final=False)
        return await self.cleared(agent, {})

    async def cleared(self, agent: Agent, runtime_state: RuntimeState) -> Agent:
        """Nothing of it is left, as nobody intended. One that is not wanted has yet to be put to rest."""
        if not agent.wanted and agent.state is State.STOPPING:
            return agent
        event, desired = (Event.ORPHANED, State.AWAKE) if agent.wanted else (Event.STOP, State.STOPPED)
        change = Change(event, runtime_state=runtime_state, desired=desired)
        return await self._agents.apply(agent, self._lease, change)

    async def put_to_rest(self, agent: Agent) -> None:
        """Nothing of it is left; it has stopped once its files are saved, and is stopping until then."""
        if agent.state is not State.STOPPING or self._clock.now() < self._saving.leave_until:
            return
        await self.end(agent.runtime_state, grace=1)

        async def gone() -> bool:
            await self._agents.apply(agent, self._lease, Change(Event.GONE, runtime_state={}))
            return True

        await self._saving.before_stop(agent, gone)

    async def failed(self, words: str, *, final: bool) -> Agent:
        """It crashed, or never came to a hello; `words` for its user. `final`: trying again is of no use."""
        agent = await self._agents.find(self._lease.key)
        now = self._clock.now()
        failures = failures_after_crash(agent, now, self._policy)
        given_up = final or failures >= self._policy.max_failures
        return await self._agents.apply(
            agent,
            self._lease,
            Change(
                Event.CRASH,
                error={"code": AgentFailed.code, "message": words},
                failures=failures,
                retry_at=None if given_up else now + retry_delay(failures),
                runtime_state={},
                # Or one that failed around its pause would wait for a retry that only the wanted get.
                desired=None if agent.desired is State.STOPPED else State.AWAKE,
            ),
        )


def awake_for_too_long(limit: timedelta) -> Mapping[str, str]:
    """What its user reads of an agent that was stopped although something kept it awake."""
    hours = limit.total_seconds() / 3600
    return {
        "code": "awake_too_long",
        "message": f"Your agent was put to sleep after {hours:.3g} hours awake, the most that its plan "
        "allows. Its files are saved; your next message wakes it.",
    }
