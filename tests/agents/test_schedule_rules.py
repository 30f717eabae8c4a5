"""The rules of waking for a schedule, by table: pure, without a database."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from ocmt.agents.model import Agent, Policy, Rest, State
from ocmt.agents.schedule import (
    LEAST_SLEEP,
    PAUSED_AHEAD,
    describe,
    is_due,
    keeps_awake,
    plan,
    same,
    short_rest,
)
from ocmt.openclaw.schedule import Job, Schedule

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
POLICY = Policy()
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
JOB = Job("1", "report", "every", "3600", enabled=True, next_run_at=NOW + HOUR)


def agent(state: State, next_wake_at: datetime | None, *, idle: timedelta = HOUR) -> Agent:
    return Agent(
        user_id=uuid4(),
        slot=1,
        runtime="fake",
        desired=state,
        state=state,
        since=NOW - HOUR,
        progress=None,
        runtime_state={},
        egress=False,
        last_active_at=NOW - idle,
        failures=0,
        retry_at=None,
        error=None,
        next_wake_at=next_wake_at,
        restart_asked=False,
        image=None,
        lease_token=1,
    )


@pytest.mark.parametrize(
    ("state", "wait", "due"),
    [
        (State.PAUSED, timedelta(0), True),
        (State.PAUSED, PAUSED_AHEAD, True),
        (State.PAUSED, 2 * PAUSED_AHEAD, False),
        (State.PAUSED, -HOUR, True),
        (State.STOPPED, POLICY.wake_ahead, True),
        (State.STOPPED, POLICY.wake_ahead + SECOND, False),
        (State.STOPPED, -HOUR, True),
        (State.AWAKE, -HOUR, False),
        (State.FAILED, -HOUR, False),
        (State.STARTING, -HOUR, False),
    ],
)
def test_who_is_woken_when(state: State, wait: timedelta, due: bool) -> None:
    assert is_due(agent(state, NOW + wait), NOW, POLICY) is due


def test_without_a_plan_nobody_is_woken() -> None:
    assert not is_due(agent(State.PAUSED, None), NOW, POLICY)


@pytest.mark.parametrize(
    ("told", "awake"),
    [
        (Schedule(), False),
        (Schedule(next_run_at=NOW + 30 * SECOND), True),
        (Schedule(next_run_at=NOW + 31 * SECOND), False),
        (Schedule(next_run_at=NOW - MINUTE), True),
        (Schedule(next_run_at=NOW - 6 * MINUTE), False),
        (Schedule(jobs=(replace(JOB, running_since=NOW - HOUR),)), True),
        (Schedule(jobs=(replace(JOB, running_since=NOW - 3 * HOUR),)), False),
    ],
    ids=["nothing", "due soon", "due later", "due just now", "never begins", "runs", "runs for ever"],
)
def test_what_keeps_an_agent_awake(told: Schedule, awake: bool) -> None:
    assert keeps_awake(told, NOW, POLICY, awake_since=NOW - HOUR) is awake


def test_what_was_missed_long_ago_keeps_it_awake_until_openclaw_has_decided() -> None:
    missed = Schedule(next_run_at=NOW - 24 * HOUR)
    assert keeps_awake(missed, NOW, POLICY, awake_since=NOW - SECOND)
    assert not keeps_awake(missed, NOW, POLICY, awake_since=NOW - 6 * MINUTE)


@pytest.mark.parametrize(
    ("step", "wait", "state", "can_pause", "taken"),
    [
        (Rest.STOP, None, State.AWAKE, True, Rest.STOP),
        (Rest.STOP, HOUR, State.AWAKE, True, Rest.STOP),
        (Rest.STOP, MINUTE, State.AWAKE, True, Rest.PAUSE),
        (Rest.STOP, MINUTE, State.AWAKE, False, Rest.STAY),
        (Rest.STOP, MINUTE, State.PAUSED, True, Rest.STAY),
        (Rest.STOP, -MINUTE, State.AWAKE, True, Rest.STOP),
        (Rest.PAUSE, MINUTE, State.AWAKE, True, Rest.PAUSE),
        (Rest.STAY, MINUTE, State.AWAKE, True, Rest.STAY),
    ],
)
def test_a_short_sleep_is_a_pause(
    step: Rest, wait: timedelta | None, state: State, can_pause: bool, taken: Rest
) -> None:
    asleep = agent(state, NOW + wait if wait is not None else None)
    assert short_rest(step, asleep, NOW, POLICY, can_pause=can_pause) is taken


def test_one_that_is_not_idle_enough_to_pause_stays() -> None:
    policy = replace(POLICY, pause_after=2 * HOUR)
    asleep = agent(State.AWAKE, NOW + MINUTE)
    assert short_rest(Rest.STOP, asleep, NOW, policy, can_pause=True) is Rest.STAY


def test_a_gateway_that_always_says_now_is_not_woken_at_once_again() -> None:
    kept = plan(Schedule(next_run_at=NOW - HOUR), None, awake_since=NOW, now=NOW)
    assert kept.next_wake_at == NOW + LEAST_SLEEP


def run_of(due: datetime, *, awake_since: datetime, began: datetime, deferred: bool = False) -> object:
    """`late_for` of a job that was due, in an agent awake since then, and began at last."""
    job = replace(JOB, next_run_at=due)
    before = plan(Schedule(jobs=(job,)), None, awake_since=NOW - HOUR, now=due - HOUR).schedule
    if deferred:
        put_off = replace(job, next_run_at=awake_since + 2 * MINUTE)
        before = plan(Schedule(jobs=(put_off,)), before, awake_since=awake_since, now=awake_since).schedule
    done = replace(job, last_run_at=began, last_status="ok", next_run_at=due + 24 * HOUR)
    (line,) = plan(Schedule(jobs=(done,)), before, awake_since=awake_since, now=began).schedule["jobs"]
    return line["late_for"]


def test_late_is_what_was_missed_asleep_and_began_long_after() -> None:
    due = NOW + HOUR
    assert run_of(due, awake_since=due - MINUTE, began=due) is None
    assert run_of(due, awake_since=due + SECOND, began=due + 2 * SECOND) is None
    assert run_of(due, awake_since=due + HOUR, began=due + HOUR) == due.isoformat()
    # Awake all the time, and run many times since: nothing is known to have been late.
    assert run_of(due, awake_since=due - HOUR, began=due + 5 * HOUR) is None


def test_a_run_put_off_by_openclaw_after_a_start_is_measured_from_its_first_time() -> None:
    due = NOW + HOUR
    began = due + 10 * SECOND + 2 * MINUTE
    assert run_of(due, awake_since=due + 10 * SECOND, began=began, deferred=True) == due.isoformat()


def test_a_late_run_stays_so_until_the_next_one() -> None:
    late = replace(JOB, last_run_at=NOW)
    before = plan(Schedule(jobs=(late,)), None, awake_since=NOW, now=NOW).schedule
    before["jobs"][0]["late_for"] = "2030-01-01T11:00:00+00:00"
    again = plan(Schedule(jobs=(late,)), before, awake_since=NOW, now=NOW + MINUTE).schedule
    assert again["jobs"][0]["late_for"] == "2030-01-01T11:00:00+00:00"
    on_time = replace(late, last_run_at=NOW + HOUR)
    later = plan(Schedule(jobs=(on_time,)), again, awake_since=NOW, now=NOW + HOUR).schedule
    assert later["jobs"][0]["late_for"] is None


def done_of(
    due: datetime, *, awake_since: datetime, now: datetime, kind: str = "at"
) -> list[tuple[object, ...]]:
    """What is called done of a job that was due then and is gone now."""
    job = replace(JOB, kind=kind, next_run_at=due)
    before = plan(Schedule(jobs=(job,)), None, awake_since=NOW - HOUR, now=NOW - MINUTE).schedule
    after = plan(Schedule(), before, awake_since=awake_since, now=now).schedule
    again = plan(Schedule(), after, awake_since=awake_since, now=now).schedule
    assert again["done"] == after["done"], "it is told once"
    return [(job["name"], job["due_at"], job["began_at"], job["late"]) for job in after["done"]]


def test_what_ran_once_and_is_gone_is_told_and_whether_it_was_late() -> None:
    on_time = done_of(NOW, awake_since=NOW - 20 * SECOND, now=NOW + MINUTE)
    assert on_time == [("report", NOW.isoformat(), NOW.isoformat(), False)]
    later = NOW + HOUR
    late = done_of(NOW, awake_since=later, now=later + MINUTE)
    assert late == [("report", NOW.isoformat(), later.isoformat(), True)]


def test_what_was_removed_before_its_time_or_comes_again_is_not_done() -> None:
    assert done_of(NOW + HOUR, awake_since=NOW, now=NOW + MINUTE) == []
    assert done_of(NOW, awake_since=NOW - MINUTE, now=NOW + MINUTE, kind="every") == []


def test_of_what_is_done_the_last_ten_are_kept() -> None:
    jobs = tuple(replace(JOB, id=str(number), kind="at", next_run_at=NOW) for number in range(15))
    before = plan(Schedule(jobs=jobs), None, awake_since=NOW - HOUR, now=NOW - MINUTE).schedule
    assert len(plan(Schedule(), before, awake_since=NOW, now=NOW + MINUTE).schedule["done"]) == 10


def test_two_plans_that_say_the_same_are_the_same() -> None:
    one = plan(Schedule(jobs=(JOB,)), None, awake_since=NOW, now=NOW).schedule
    other = plan(Schedule(jobs=(JOB,)), one, awake_since=NOW, now=NOW + MINUTE).schedule
    assert same(one, other)
    assert not same(None, one)
    assert not same(one, plan(Schedule(), one, awake_since=NOW, now=NOW).schedule)


def test_a_heartbeat_is_shown_with_its_cost_and_not_as_a_job() -> None:
    beat = replace(JOB, id="2", name="Heartbeat (main)", timing="1800", key="heartbeat:main")
    kept = plan(Schedule(jobs=(JOB, beat)), None, awake_since=NOW, now=NOW).schedule
    told = describe(agent(State.STOPPED, None), kept)
    assert [job["name"] for job in told["jobs"]] == ["report"]
    assert told["heartbeat"] == {"on": True, "turns_per_day": 48}
    kept = plan(Schedule(jobs=(replace(beat, enabled=False),)), None, awake_since=NOW, now=NOW).schedule
    assert describe(agent(State.STOPPED, None), kept)["heartbeat"] == {"on": False, "turns_per_day": 0}
    assert describe(agent(State.STOPPED, None), None)["jobs"] == []
