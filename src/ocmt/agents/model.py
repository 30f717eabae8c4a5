"""What an agent is and when it sleeps: the state machine and the rules of idleness, as pure code.

Nothing here waits, reads a clock or touches the database; `lifecycle` makes happen what is decided here, and
`queries.sql` repeats the idle rule inside the transaction that commits a pause.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Literal
from uuid import UUID

from ocmt.errors import Conflict


class State(StrEnum):
    """What is true of an agent, as last written by the holder of its lease."""

    STOPPED = "stopped"
    STARTING = "starting"
    AWAKE = "awake"
    PAUSED = "paused"
    STOPPING = "stopping"
    FAILED = "failed"


ENDED = frozenset({State.STOPPED, State.FAILED})
"""Nothing of such an agent runs."""
SETTLED = frozenset({State.AWAKE, State.PAUSED, State.FAILED})
"""Such an agent can be stopped; the others have stopped, or are on their way."""


class Event(StrEnum):
    """What can happen to an agent."""

    START = "start"
    """Somebody needs it: a sandbox is being made."""
    HELLO = "hello"
    """The gateway itself said that it is ready; a process that merely exists is not."""
    PAUSE = "pause"
    RESUME = "resume"
    STOP = "stop"
    GONE = "gone"
    """No process of it is left, as intended."""
    CRASH = "crash"
    """No process of it is left, and nobody asked for that; or it never got as far as hello."""
    ORPHANED = "orphaned"
    """A new lease holder cleared away what an earlier one left."""


TRANSITIONS: Mapping[tuple[State, Event], State] = {
    (State.STOPPED, Event.START): State.STARTING,
    (State.FAILED, Event.START): State.STARTING,
    (State.STARTING, Event.HELLO): State.AWAKE,
    (State.STARTING, Event.CRASH): State.FAILED,
    (State.AWAKE, Event.CRASH): State.FAILED,
    # A paused agent had nothing to do: losing it costs a longer wake, not an error.
    (State.PAUSED, Event.CRASH): State.STOPPED,
    (State.AWAKE, Event.PAUSE): State.PAUSED,
    (State.PAUSED, Event.RESUME): State.AWAKE,
    (State.STARTING, Event.STOP): State.STOPPING,
    (State.AWAKE, Event.STOP): State.STOPPING,
    (State.PAUSED, Event.STOP): State.STOPPING,
    (State.FAILED, Event.STOP): State.STOPPING,
    (State.STOPPING, Event.GONE): State.STOPPED,
    (State.STARTING, Event.ORPHANED): State.STOPPED,
    (State.AWAKE, Event.ORPHANED): State.STOPPED,
    (State.PAUSED, Event.ORPHANED): State.STOPPED,
    (State.STOPPING, Event.ORPHANED): State.STOPPED,
}
"""The whole machine. What is not in here cannot happen."""


def after(state: State, event: Event) -> State:
    """The state that follows. Raises Conflict where the event cannot happen in this state."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise Conflict(f"An agent that is {state} cannot {event}.") from None


@dataclass(frozen=True)
class Hold:
    """A named reason why an agent must stay awake."""

    reason: str
    """turn, socket, delivery, cron, transfer, operator, approval, job"""
    reference: str
    until: datetime | None
    """None: for as long as the thing itself lasts (a turn)."""
    note: str | None = None
    """In the words of whoever holds it."""


EgressPolicy = Literal["off", "opt-in", "on"]
"""Who reaches the internet: no agent; agents whose users have switched it on; every agent."""


@dataclass(frozen=True)
class Plan:
    """What an agent may use and when it sleeps; None: as the installation's settings say."""

    name: str = "free"
    memory_bytes: int | None = None
    cpus: float | None = None
    pids: int | None = None
    disk_bytes: int | None = None
    pause_after: timedelta | None = None
    stop_after: timedelta | None = None
    max_awake: timedelta | None = None
    snapshot_files: int | None = None
    """So many files, folders and links are kept."""
    snapshot_bytes: int | None = None
    snapshot_file_bytes: int | None = None
    """Of the largest of them."""
    egress: EgressPolicy | None = None
    kept_snapshot_bytes: int | None = None
    """Of all generations together, equal contents once."""
    conversations: int | None = None
    conversation_bytes: int | None = None
    """Of messages, answers and events."""
    delivery_bytes: int | None = None
    """Of webhooks that were received, and of what is owed to the channels."""
    attachment_bytes: int | None = None


@dataclass(frozen=True)
class Saved:
    """How far an agent's files are saved."""

    at: datetime | None = None
    """All files of that moment are; None: they never were."""
    generation: int = 0
    problem: Mapping[str, str] | None = None
    """{"code", "message"}: why those of later moments are not."""


@dataclass(frozen=True)
class Agent:
    """One agent's row."""

    user_id: UUID
    slot: int
    runtime: str
    desired: State
    state: State
    since: datetime
    progress: Mapping[str, str] | None
    runtime_state: dict[str, Any]
    egress: bool
    """Whether its user wants it to reach the internet. Policy.reaches_internet says whether it does."""
    last_active_at: datetime
    failures: int
    retry_at: datetime | None
    error: Mapping[str, str] | None
    next_wake_at: datetime | None
    restart_asked: bool
    image: str | None
    lease_token: int
    schedule_unread: bool = False
    """It has been awake since it was last asked what it has planned."""
    revision: int | None = None
    """What it ran last; None: none yet, or a runtime that knows no revisions."""
    plan: Plan = Plan()
    saved: Saved = Saved()
    holds: Sequence[Hold] = field(default=())
    shut_out: bool = False
    """Its user may not use the platform (suspended, being deleted): it must not run, whatever wants it."""

    @property
    def wanted(self) -> bool:
        """Whether it is to be awake: somebody needs it, or nobody knows what it has planned before it died.

        For the latter nobody starts one that was given up. `find_due_agents` says the same in SQL.
        """
        given_up = self.state is State.FAILED and self.retry_at is None
        needed = self.desired is State.AWAKE or (self.schedule_unread and not given_up)
        return needed and not self.shut_out


@dataclass(frozen=True)
class Policy:
    """When an agent sleeps, and how often a failing one is tried again."""

    pause_after: timedelta = timedelta(minutes=30)
    stop_after: timedelta = timedelta(hours=4)
    max_awake: timedelta = timedelta(hours=24)
    """Awake for so long without a pause it is stopped, whatever else keeps it awake; a turn ends first."""
    job_awake: timedelta = timedelta(hours=4)
    """Idle for so long it may sleep although a program runs that its gateway does not know of."""
    memory_bytes: int = 2 * 1024**3
    """What an agent may use whose plan does not say."""
    wake_timeout: timedelta = timedelta(seconds=120)
    max_failures: int = 5
    """Consecutive failures after which only a person's request starts it again."""
    steady_after: timedelta = timedelta(seconds=60)
    """Awake for that long, earlier failures are forgotten."""
    busy_retry: timedelta = timedelta(seconds=15)
    """How long to leave a gateway in peace that answered `busy` to the question whether it may sleep."""
    page_out_after: timedelta = timedelta(seconds=60)
    """Paused for so long its memory is freed, where the runtime can; then a wake takes half a second more."""
    paged_out_bytes: int = 64 * 1024**2
    """What a paged-out agent still holds."""
    evict_after: timedelta = timedelta(seconds=30)
    """How long an agent must have been idle to be stopped for another that finds no room."""
    snapshot_every: timedelta = timedelta(minutes=5)
    """So long after the last time the files of an agent at work are saved again, between turns."""
    egress: EgressPolicy = "off"
    """Whether agents reach the internet whose plan does not say."""

    def egress_of(self, plan: Plan) -> EgressPolicy:
        """Return the policy for the internet of agents with that plan."""
        return plan.egress or self.egress

    def reaches_internet(self, agent: Agent) -> bool:
        """Return whether that agent may reach the internet now."""
        policy = self.egress_of(agent.plan)
        return policy == "on" or (policy == "opt-in" and agent.egress)

    def of(self, plan: Plan) -> Policy:
        """The policy for an agent of that plan."""
        return replace(
            self,
            pause_after=plan.pause_after or self.pause_after,
            stop_after=plan.stop_after or self.stop_after,
            max_awake=plan.max_awake or self.max_awake,
        )

    wake_ahead: timedelta = timedelta(seconds=20)
    """A stopped agent is woken that long before its next job, to be ready in time."""
    no_stop_before: timedelta = timedelta(minutes=3)
    """An agent whose next job is due that soon is paused, where it can be, and not stopped."""
    cron_awake: timedelta = timedelta(hours=2)
    """A run by schedule that takes longer keeps its agent awake no more."""


class Rest(StrEnum):
    """What idleness allows."""

    STAY = "stay"
    PAUSE = "pause"
    STOP = "stop"
    END = "end"
    """Not because it is idle, but because it never is."""


def rest(agent: Agent, now: datetime, policy: Policy, *, can_pause: bool) -> Rest:
    """How far this agent may go to sleep now, before its gateway has been asked."""
    if _awake_for_too_long(agent, now, policy):
        return Rest.END
    if agent.holds or agent.state not in (State.AWAKE, State.PAUSED):
        return Rest.STAY
    idle = now - agent.last_active_at
    if idle >= policy.stop_after:
        return Rest.STOP
    if can_pause and agent.state is State.AWAKE and idle >= policy.pause_after:
        return Rest.PAUSE
    return Rest.STAY


def _awake_for_too_long(agent: Agent, now: datetime, policy: Policy) -> bool:
    """Turns end by their own limit, and whoever is just writing is left to it."""
    return (
        agent.state is State.AWAKE
        and now - agent.since >= policy.max_awake
        and now - agent.last_active_at >= policy.evict_after
        and not any(hold.reason == "turn" for hold in agent.holds)
    )


def retry_delay(failures: int) -> timedelta:
    """How long to wait before start number `failures + 1`: 1 s, 2 s, 4 s, … at most a minute."""
    return timedelta(seconds=min(60, 2 ** max(0, failures - 1)))


def failures_after_crash(agent: Agent, now: datetime, policy: Policy) -> int:
    """Consecutive failures, this one included."""
    steady = agent.state is State.AWAKE and now - agent.since >= policy.steady_after
    return 1 if steady else agent.failures + 1
