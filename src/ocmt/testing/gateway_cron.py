"""What the gateway's double has planned: jobs that run on the clock, and what becomes of missed ones.

As measured on the real one (docs/openclaw.md): suspended it begins nothing, and begins what became due as
soon as it goes on; at a start it puts off what it missed by two minutes; what a crash cut short is over.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from ocmt.platform.clock import Clock
from ocmt.testing.gateway_wire import Answer

CATCH_UP_DELAY = timedelta(minutes=2)
"""From a start to the first of the jobs that were missed; the next ones follow CATCH_UP_STAGGER apart."""
CATCH_UP_STAGGER = timedelta(seconds=5)
DECISION_DELAY = 2.0
"""Seconds after a start until it is decided what becomes of what was missed."""
INTERRUPTED = "cron: job interrupted by gateway restart"


@dataclass
class PlannedJob:
    """One job. `seconds`: how long its runs take on the clock; with `until` they wait for that as well."""

    id: str
    name: str
    next_run_at: datetime | None
    every: timedelta | None = None
    seconds: float = 1.0
    until: asyncio.Event | None = None
    enabled: bool = True
    running_since: datetime | None = None
    last_run_at: datetime | None = None
    last_status: str | None = None
    last_error: str | None = None
    started: list[datetime] = field(default_factory=list)
    """When its runs began."""

    def listed(self) -> dict[str, Any]:
        """As `cron.list` with `compact` has it."""
        timing: dict[str, Any] = {"kind": "at", "at": (self.next_run_at or datetime.now(UTC)).isoformat()}
        if self.every is not None:
            timing = {"kind": "every", "everyMs": self.every / timedelta(milliseconds=1)}
        return {
            "id": self.id,
            "name": self.name,
            "enabled": self.enabled,
            "scheduleKind": timing["kind"],
            "schedule": timing,
            "nextRunAtMs": _milliseconds(self.next_run_at),
            "lastRunAtMs": _milliseconds(self.last_run_at),
            "lastRunStatus": self.last_status,
            "lastRunError": self.last_error,
            **({"runningAtMs": _milliseconds(self.running_since)} if self.running_since else {}),
        }


class FakeCron:
    """The jobs of one gateway."""

    def __init__(
        self,
        clock: Clock,
        *,
        tell: Callable[[Mapping[str, Any]], Awaitable[None]],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self.clock = clock
        self._tell = tell
        self._spawn = spawn
        self.jobs: dict[str, PlannedJob] = {}
        self.until: asyncio.Event | None = None
        """What runs of jobs wait for that a client adds."""
        self.refuses = False
        """Fault: it does not tell what is planned."""
        self._numbers = itertools.count(1)
        self._alive = False
        self._held = False
        self._timer: asyncio.Task[None] | None = None
        self._deciding: asyncio.Task[None] | None = None
        """What becomes of what was missed; until then nothing begins."""
        self._runs: dict[str, asyncio.Task[None]] = {}

    def add(
        self,
        name: str,
        *,
        after: float,
        every: float | None = None,
        seconds: float = 1.0,
        until: asyncio.Event | None = None,
    ) -> PlannedJob:
        """Plan a job for `after` seconds from now, and then again every so many seconds, if said."""
        job = PlannedJob(
            f"job-{next(self._numbers)}",
            name,
            self.clock.now() + timedelta(seconds=after),
            every=timedelta(seconds=every) if every is not None else None,
            seconds=seconds,
            until=until,
        )
        self.jobs[job.id] = job
        self._changed("added", job)
        return job

    def methods(self) -> Mapping[str, Answer]:
        """What it answers to."""
        return {
            "cron.status": self._status,
            "cron.list": self._list,
            "cron.add": self._add,
            "cron.remove": self._remove,
        }

    def blockers(self) -> list[str]:
        """What of it speaks against a suspension."""
        return [f"{len(self._runs)} active cron run(s)"] if self._runs else []

    def hold_still(self) -> None:
        """Begin nothing."""
        self._held = True
        self._arm()

    def go_on(self) -> None:
        """Begin what is due, and what will be."""
        self._held = False
        self._arm()

    def stop(self) -> None:
        """The gateway has died: what ran is cut short."""
        self._alive = self._held = False
        if self._deciding is not None:
            self._deciding.cancel()
            self._deciding = None
        self._arm()
        for run in self._runs.values():
            run.cancel()
        self._runs.clear()

    def start(self) -> None:
        """The gateway has come back: what was missed, or cut short, is put off, a moment later."""
        self._alive = True
        for job in self.jobs.values():
            if job.running_since is not None:
                job.running_since = None
                job.last_status, job.last_error = "error", INTERRUPTED
        missed = [job for job in self._planned() if job.next_run_at <= self.clock.now()]  # type: ignore[operator]
        if missed:
            self._deciding = self._spawn(self._put_off(missed))
        else:
            self._arm()

    async def _put_off(self, missed: list[PlannedJob]) -> None:
        await self.clock.sleep(DECISION_DELAY)
        now = self.clock.now()
        for number, job in enumerate(missed):
            job.next_run_at = now + CATCH_UP_DELAY + number * CATCH_UP_STAGGER
            await self._send("scheduled", job)
        self._deciding = None
        self._arm()

    def _planned(self) -> list[PlannedJob]:
        """What has a time, and does not run; the next one first."""
        waiting = [
            (job.next_run_at, job.id, job)
            for job in self.jobs.values()
            if job.enabled and job.next_run_at is not None and job.id not in self._runs
        ]
        return [job for _, _, job in sorted(waiting)]

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        planned = self._planned()
        if planned and self._alive and not self._held and self._deciding is None:
            self._timer = self._spawn(self._begin_next(planned[0]))

    async def _begin_next(self, job: PlannedJob) -> None:
        assert job.next_run_at is not None
        await self.clock.sleep((job.next_run_at - self.clock.now()).total_seconds())
        self._runs[job.id] = self._spawn(self._run(job))
        self._timer = None
        self._arm()

    async def _run(self, job: PlannedJob) -> None:
        began = self.clock.now()
        job.running_since = began
        job.started.append(began)
        await self._tell({"action": "started", "jobId": job.id})
        await self.clock.sleep(job.seconds)
        if job.until is not None:
            await job.until.wait()
        job.running_since, job.last_run_at = None, began
        job.last_status, job.last_error = "ok", None
        job.enabled = job.every is not None
        job.next_run_at = max(began + job.every, self.clock.now()) if job.every is not None else None
        del self._runs[job.id]
        self._changed("finished", job)

    def _changed(self, action: str, job: PlannedJob) -> None:
        self._spawn(self._send(action, job))
        self._arm()

    async def _send(self, action: str, job: PlannedJob) -> None:
        await self._tell({"action": action, "jobId": job.id, "job": job.listed()})

    def _status(self, params: dict[str, Any]) -> dict[str, Any]:
        if self.refuses:
            return {"error": {"code": "INVALID_REQUEST", "message": "unknown method: cron.status"}}
        planned = [job.next_run_at for job in self.jobs.values() if job.enabled and job.next_run_at]
        wake = _milliseconds(min(planned)) if planned else None
        return {"payload": {"enabled": True, "jobs": len(self.jobs), "nextWakeAtMs": wake}}

    def _list(self, params: dict[str, Any]) -> dict[str, Any]:
        listed = [job.listed() for job in self.jobs.values()][: params.get("limit", 50)]
        return {"payload": {"jobs": listed, "total": len(self.jobs), "hasMore": len(listed) < len(self.jobs)}}

    def _add(self, params: dict[str, Any]) -> dict[str, Any]:
        timing = params["schedule"]
        if timing["kind"] == "at":
            due = datetime.fromisoformat(timing["at"])
            after = (due - self.clock.now()).total_seconds()
            job = self.add(params["name"], after=after, seconds=0, until=self.until)
        else:
            every = timing["everyMs"] / 1000
            job = self.add(params["name"], after=every, every=every)
        return {"payload": job.listed()}

    def _remove(self, params: dict[str, Any]) -> dict[str, Any]:
        job = self.jobs.pop(params["id"], None)
        if job is not None:
            self._changed("removed", job)
        return {"payload": {"ok": True, "removed": job is not None}}


def _milliseconds(moment: datetime | None) -> int | None:
    return int(moment.timestamp() * 1000) if moment else None
