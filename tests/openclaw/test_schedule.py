"""What a gateway says of its schedule, read with suspicion."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocmt.openclaw.schedule import MAX_JOBS, Job, Schedule, moment, read_schedule

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
NOON_MS = 1_795_521_600_000

EVERY = {
    "id": "a",
    "name": "Morning news",
    "enabled": True,
    "scheduleKind": "every",
    "schedule": {"kind": "every", "everyMs": 1_800_000},
    "nextRunAtMs": NOON_MS,
    "lastRunAtMs": None,
    "lastRunStatus": None,
}


def jobs(*entries: object, **status: Any) -> Schedule:
    return read_schedule(
        {"enabled": True, "nextWakeAtMs": NOON_MS, **status}, {"jobs": list(entries), "total": len(entries)}
    )


def test_a_schedule_is_its_jobs_and_the_next_time() -> None:
    told = jobs(EVERY)
    assert told == Schedule(
        enabled=True,
        next_run_at=NOON,
        jobs=(Job("a", "Morning news", "every", "1800", enabled=True, next_run_at=NOON),),
    )


@pytest.mark.parametrize(
    ("kind", "schedule", "timing"),
    [
        ("at", {"at": "2026-11-24T12:00:00Z"}, "2026-11-24T12:00:00Z"),
        ("every", {"everyMs": 90_500}, "90.5"),
        ("cron", {"expr": "0 9 * * 1", "tz": "Europe/Vienna"}, "0 9 * * 1 (Europe/Vienna)"),
        ("cron", {"expr": "0 9 * * 1"}, "0 9 * * 1"),
        ("stream", {"command": ["rm"]}, ""),
        ("every", {"everyMs": float("inf")}, ""),
        ("every", {"everyMs": True}, ""),
        ("every", {}, ""),
    ],
)
def test_each_kind_of_timing(kind: str, schedule: dict[str, Any], timing: str) -> None:
    (job,) = jobs(EVERY | {"scheduleKind": kind, "schedule": schedule}).jobs
    assert (job.kind, job.timing) == (kind, timing)


def test_a_run_under_way_and_the_last_one() -> None:
    (job,) = jobs(
        EVERY
        | {
            "runningAtMs": NOON_MS,
            "lastRunAtMs": NOON_MS,
            "lastRunStatus": "error",
            "lastRunError": "x" * 9000,
        }
    ).jobs
    assert (job.running_since, job.last_run_at, job.last_status) == (NOON, NOON, "error")
    assert job.last_error is not None
    assert len(job.last_error) == 300


def test_a_scheduler_that_is_off_wakes_nobody() -> None:
    assert jobs(EVERY, enabled=False).next_run_at is None


def test_of_very_many_jobs_the_first_are_kept_and_the_others_counted() -> None:
    told = read_schedule({}, {"jobs": [EVERY] * (MAX_JOBS + 5), "total": 5000})
    assert (len(told.jobs), told.left_out) == (MAX_JOBS, 5000 - MAX_JOBS)


def test_entries_that_make_no_sense_are_left_out() -> None:
    assert [job.id for job in jobs(EVERY, None, 7, {}, {"id": 9}, EVERY | {"id": "b"}).jobs] == ["a", "b"]


@pytest.mark.parametrize("value", [None, True, "1", 0, -1, 1e300, float("nan"), float("inf"), 10**400, []])
def test_what_is_no_time_is_none(value: object) -> None:
    assert moment(value) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from([*EVERY, "runningAtMs", "lastRunError", "jobs", "total", "enabled", "nextWakeAtMs"])
ANSWERS = st.dictionaries(NAMES, JSON | st.lists(st.dictionaries(NAMES, JSON), max_size=3))


@given(ANSWERS, ANSWERS)
def test_nonsense_is_read_as_nothing_and_never_raises(status: dict[str, Any], listed: dict[str, Any]) -> None:
    told = read_schedule(status, listed)
    assert told.left_out >= 0
    for job in told.jobs:
        assert len(job.name) <= 200
        assert "\x00" not in job.name
