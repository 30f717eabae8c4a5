"""Programs that an agent has left running and that OpenClaw does not know of: pure rules and words.

A command such as `setsid nohup backup.sh &` leaves OpenClaw's own process tree, so its gateway calls itself
idle. While such a program runs, the agent is not put to sleep for being idle, until it has been idle for
`Policy.job_awake`. If the program is ended after all, the agent's user is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from ocmt.agents.model import Agent, Policy, State

REASON = "job"
REFERENCE = "detached"
LOOK_AGAIN = timedelta(seconds=60)
"""How long one look at the running programs keeps the agent awake; then they are looked at again."""
MOST_NAMES = 3


def keeps_awake(agent: Agent, now: datetime, policy: Policy) -> bool:
    """Whether a program that runs in the background is still a reason not to sleep.

    A paused agent's programs are held still with it, so they are no reason to keep it from being stopped.
    """
    return agent.state is State.AWAKE and now - agent.last_active_at < policy.job_awake


def named(names: Sequence[str]) -> str:
    """The programs, for people: `backup.sh, rsync and 2 more`."""
    different = list(dict.fromkeys(names))
    shown = ", ".join(different[:MOST_NAMES])
    more = len(different) - MOST_NAMES
    return f"{shown} and {more} more" if more > 0 else shown


def ended(names: Sequence[str], notice: Mapping[str, str] | None) -> Mapping[str, str] | None:
    """What the user reads of an agent that was stopped while these ran. `notice`: what is said anyway."""
    if not names:
        return notice
    told = (
        "A program that still ran in the background was ended when your agent went to sleep: "
        f"{named(names)}. Ask your agent to start it again if you need it."
    )
    if notice is None:
        return {"code": "job_ended", "message": told}
    return {**notice, "message": f"{notice['message']} {told}"}
