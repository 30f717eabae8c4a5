"""What an agent has planned, read from the gateway's answers to `cron.status` and `cron.list`.

Pure reading. The agent is not trusted: every text is cut, every number checked, and of very many jobs only
the next ones are kept. What a job is to do (its payload) is neither asked for nor read. Shapes:
docs/openclaw.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ocmt.openclaw.protocol import string

STATUS = "cron.status"
LIST = "cron.list"
CHANGED = "cron"
"""The event that tells of every change: a job added or removed, a run begun or ended."""

MAX_JOBS = 100
LIST_PARAMS: Mapping[str, Any] = {
    "compact": True,
    "includeDisabled": True,
    "limit": MAX_JOBS,
    "sortBy": "nextRunAtMs",
    "sortDir": "asc",
}

_MAX_NAME = 200
_MAX_TEXT = 300
_EARLIEST = 946_684_800_000
"""The year 2000, in milliseconds: what is before is no time of a job."""
_LATEST = 4_102_444_800_000
"""The year 2100."""


@dataclass(frozen=True)
class Job:
    """One thing that the agent does by itself at a time."""

    id: str
    name: str
    kind: str
    """`at`, `every`, `cron`: by time; anything else happens at no known time."""
    timing: str
    """A time (RFC 3339), a number of seconds, or a cron expression with its time zone; may be empty."""
    enabled: bool
    next_run_at: datetime | None = None
    """While it runs, the time for which it does."""
    running_since: datetime | None = None
    last_run_at: datetime | None = None
    last_status: str | None = None
    """ok, error, skipped"""
    last_error: str | None = None
    key: str = ""
    """`heartbeat:main` and the like for what OpenClaw plans by itself."""


@dataclass(frozen=True)
class Schedule:
    """All that an agent has planned."""

    enabled: bool = True
    next_run_at: datetime | None = None
    """Of all jobs, those beyond MAX_JOBS included."""
    jobs: tuple[Job, ...] = ()
    left_out: int = 0
    """How many more jobs there are."""


def read_schedule(status: Mapping[str, Any], listed: Mapping[str, Any]) -> Schedule:
    """The schedule, of the two answers. Never raises: what makes no sense is left out."""
    found = listed.get("jobs")
    jobs = tuple(
        job for entry in (found if isinstance(found, list) else [])[:MAX_JOBS] if (job := _job(entry))
    )
    enabled = status.get("enabled") is not False
    total = listed.get("total")
    known = total if isinstance(total, int) and not isinstance(total, bool) else len(jobs)
    return Schedule(
        enabled=enabled,
        next_run_at=moment(status.get("nextWakeAtMs")) if enabled else None,
        jobs=jobs,
        left_out=min(max(0, known - len(jobs)), 1_000_000),
    )


def moment(milliseconds: object) -> datetime | None:
    """A time in milliseconds since 1970; None for anything that is none between the years 2000 and 2100."""
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, int | float):
        return None
    if not _EARLIEST <= milliseconds <= _LATEST:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _job(entry: object) -> Job | None:
    if not isinstance(entry, dict) or not (job_id := string(entry, "id", _MAX_NAME)):
        return None
    schedule = entry.get("schedule")
    schedule = schedule if isinstance(schedule, dict) else {}
    kind = string(entry, "scheduleKind", 20) or string(schedule, "kind", 20)
    return Job(
        id=job_id,
        name=string(entry, "displayName", _MAX_NAME)
        or string(entry, "name", _MAX_NAME)
        or "A job without a name",
        kind=kind,
        timing=_timing(kind, schedule),
        enabled=entry.get("enabled") is not False,
        next_run_at=moment(entry.get("nextRunAtMs")),
        running_since=moment(entry.get("runningAtMs")),
        last_run_at=moment(entry.get("lastRunAtMs")),
        last_status=string(entry, "lastRunStatus", 20) or None,
        last_error=string(entry, "lastRunError", _MAX_TEXT) or None,
        key=string(entry, "declarationKey", _MAX_NAME),
    )


def _timing(kind: str, schedule: Mapping[str, Any]) -> str:
    match kind:
        case "at":
            return string(schedule, "at", 40)
        case "every":
            every = schedule.get("everyMs")
            if isinstance(every, bool) or not isinstance(every, int | float):
                return ""
            # A comparison first: a hostile number may be infinite, NaN or too large for a float.
            return f"{every / 1000:g}" if 0 < every <= _LATEST else ""
        case "cron":
            expression, zone = string(schedule, "expr", 100), string(schedule, "tz", 60)
            return f"{expression} ({zone})" if expression and zone else expression
        case _:
            return ""
