"""When an agent is to be woken for a job of its own, and how its schedule is kept and shown: pure rules.

An agent that sleeps is woken for its jobs by the platform, since its own clock stands still. What it has
planned stands in its row from before it fell asleep; `cron` asks its gateway and writes. All of it is the
agent's own word, bounded by `openclaw.schedule`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ocmt.agents.model import Agent, Policy, Rest, State
from ocmt.openclaw.schedule import Job, Schedule

HOLD_AHEAD = timedelta(seconds=30)
"""An awake agent does not fall asleep any more when a job is due that soon."""
OVERDUE_PATIENCE = timedelta(minutes=5)
"""For so long a job that should have begun keeps its agent awake; one that never begins does not for ever."""
LATE_AFTER = timedelta(seconds=60)
"""A job that begins so long after its time, because the agent slept, is called late."""
PAUSED_AHEAD = timedelta(seconds=1)
"""A paused agent is woken that long before its time: what is overdue begins two seconds late."""
LEAST_SLEEP = timedelta(seconds=5)
"""An agent that says that a job is overdue, and does not begin it, is not woken at once again."""

MAX_DONE = 10
HEARTBEAT = "heartbeat:"
"""How OpenClaw's own job begins that looks regularly whether there is something to do."""
OWN_JOBS = (HEARTBEAT, "skill-collection-review:")
"""Those of OpenClaw; that one is off by our configuration."""


@dataclass(frozen=True)
class Projection:
    """What is written into the row of an agent: the schedule, and when to wake for the next of it."""

    next_wake_at: datetime | None
    schedule: dict[str, Any]


def plan(
    told: Schedule, before: Mapping[str, Any] | None, *, awake_since: datetime, now: datetime
) -> Projection:
    """What is to be kept of what the gateway told. `before`: what was kept last; its marks go over."""
    jobs_before = {job["id"]: job for job in (before or {}).get("jobs", ())}
    jobs = [_kept(job, jobs_before.get(job.id), awake_since) for job in told.jobs]
    wake = told.next_run_at
    return Projection(
        next_wake_at=max(wake, now + LEAST_SLEEP) if wake is not None else None,
        schedule={
            "read_at": now.isoformat(),
            "enabled": told.enabled,
            "left_out": told.left_out,
            "jobs": jobs,
            "done": _done(told, before, awake_since, now),
        },
    )


def keeps_awake(told: Schedule, now: datetime, policy: Policy, *, awake_since: datetime) -> bool:
    """Whether a job runs, or is so nearly due that falling asleep is not worth it, or has yet to begin."""
    if any(job.running_since and now - job.running_since < policy.cron_awake for job in told.jobs):
        return True
    due = told.next_run_at
    # After a start it takes OpenClaw some seconds to decide what becomes of what it missed, however long ago.
    return due is not None and -OVERDUE_PATIENCE <= max(due, awake_since) - now <= HOLD_AHEAD


def is_due(agent: Agent, now: datetime, policy: Policy) -> bool:
    """Whether this sleeping agent is to be woken for a job of it: a paused one in the moment, a stopped one
    in time to be ready. One that failed waits for its retry."""
    if agent.next_wake_at is None:
        return False
    match agent.state:
        case State.PAUSED:
            return agent.next_wake_at <= now + PAUSED_AHEAD
        case State.STOPPED | State.STOPPING:
            return agent.next_wake_at <= now + policy.wake_ahead
        case _:
            return False


def short_rest(step: Rest, agent: Agent, now: datetime, policy: Policy, *, can_pause: bool) -> Rest:
    """The step towards sleep, in view of the next job: a start is not worth a short sleep, a pause is."""
    if step is not Rest.STOP or agent.next_wake_at is None:
        return step
    if not now < agent.next_wake_at <= now + policy.no_stop_before:
        return step
    idle_enough = now - agent.last_active_at >= policy.pause_after
    return Rest.PAUSE if can_pause and agent.state is State.AWAKE and idle_enough else Rest.STAY


def same(one: Mapping[str, Any] | None, other: Mapping[str, Any]) -> bool:
    """Whether two kept schedules say the same, whenever they were read."""
    return one is not None and {**one, "read_at": None} == {**other, "read_at": None}


def describe(agent: Agent, kept: Mapping[str, Any] | None) -> dict[str, Any]:
    """The schedule as its user sees it: `{jobs, done, next_run_at, left_out, read_at, heartbeat}`."""
    kept = kept or {}
    jobs = [job | {"late": job["late_for"] is not None} for job in kept.get("jobs", ())]
    return {
        "jobs": [job for job in jobs if not job["key"].startswith(OWN_JOBS)],
        "done": kept.get("done", []),
        "next_run_at": agent.next_wake_at.isoformat() if agent.next_wake_at else None,
        "left_out": kept.get("left_out", 0),
        "read_at": kept.get("read_at"),
        "heartbeat": _heartbeat([job for job in jobs if job["key"].startswith(HEARTBEAT)]),
    }


def _heartbeat(jobs: list[dict[str, Any]]) -> dict[str, Any]:
    """Off unless an enabled job says so; what it costs is a number of model calls that nobody asked for."""
    every = [
        float(job["timing"]) for job in jobs if job["enabled"] and job["kind"] == "every" and job["timing"]
    ]
    turns = sum(86_400 / seconds for seconds in every if seconds > 0)
    return {"on": bool(every), "turns_per_day": round(turns)}


def _kept(job: Job, before: Mapping[str, Any] | None, awake_since: datetime) -> dict[str, Any]:
    due = _missed(before, awake_since)
    last_run_at = _text(job.last_run_at)
    waits = before is not None and before["last_run_at"] == last_run_at
    late = due is not None and job.last_run_at is not None and job.last_run_at - due > LATE_AFTER
    return {
        "id": job.id,
        "key": job.key,
        "name": job.name,
        "kind": job.kind,
        "timing": job.timing,
        "enabled": job.enabled,
        "next_run_at": _text(job.next_run_at),
        "running_since": _text(job.running_since),
        "last_run_at": last_run_at,
        "last_status": job.last_status,
        "last_error": job.last_error,
        "missed": _text(due) if waits else None,
        "late_for": before["late_for"] if before and waits else _text(due) if late else None,
    }


def _done(
    told: Schedule, before: Mapping[str, Any] | None, awake_since: datetime, now: datetime
) -> list[dict[str, Any]]:
    """What was to run once, and is gone since its time; newest first."""
    if before is None or told.left_out:
        return list((before or {}).get("done", ()))
    there = {job.id for job in told.jobs}
    done = []
    for job in before["jobs"]:
        due = _time(job["missed"] or job["next_run_at"])
        if job["id"] in there or job["kind"] != "at" or due is None or due > now:
            continue
        began = _time(job["running_since"]) or max(due, awake_since)
        late = due < awake_since and began - due > LATE_AFTER
        done.append(
            {
                "id": job["id"],
                "name": job["name"],
                "due_at": _text(due),
                "began_at": _text(began),
                "late": late,
            }
        )
    return [*done, *before["done"]][:MAX_DONE]


def _missed(before: Mapping[str, Any] | None, awake_since: datetime) -> datetime | None:
    """When a run should have begun while the agent slept. After a start OpenClaw says another time for it."""
    due = _time((before["missed"] or before["next_run_at"]) if before else None)
    return due if due is not None and due < awake_since else None


def _text(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
