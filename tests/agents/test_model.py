"""The state machine and the rules of idleness, by table and by property."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocmt.agents.model import (
    TRANSITIONS,
    Agent,
    Event,
    Hold,
    Policy,
    Rest,
    State,
    after,
    failures_after_crash,
    rest,
    retry_delay,
)
from ocmt.errors import Conflict

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
POLICY = Policy(pause_after=timedelta(minutes=5), stop_after=timedelta(minutes=30))

AWAKE = Agent(
    user_id=UUID(int=1),
    slot=1,
    runtime="sandbox",
    desired=State.AWAKE,
    state=State.AWAKE,
    since=NOW - timedelta(hours=1),
    progress=None,
    runtime_state={},
    egress=False,
    last_active_at=NOW,
    failures=0,
    retry_at=None,
    error=None,
    next_wake_at=None,
    restart_asked=False,
    image=None,
    lease_token=1,
)


@pytest.mark.parametrize(
    ("story", "ends"),
    [
        ([Event.START, Event.HELLO], State.AWAKE),
        ([Event.START, Event.HELLO, Event.PAUSE], State.PAUSED),
        ([Event.START, Event.HELLO, Event.PAUSE, Event.RESUME], State.AWAKE),
        ([Event.START, Event.HELLO, Event.PAUSE, Event.STOP, Event.GONE], State.STOPPED),
        ([Event.START, Event.HELLO, Event.STOP, Event.GONE, Event.START], State.STARTING),
        ([Event.START, Event.CRASH], State.FAILED),
        ([Event.START, Event.CRASH, Event.START, Event.HELLO], State.AWAKE),
        ([Event.START, Event.HELLO, Event.CRASH], State.FAILED),
        ([Event.START, Event.HELLO, Event.PAUSE, Event.CRASH], State.STOPPED),
        ([Event.START, Event.HELLO, Event.CRASH, Event.STOP, Event.GONE], State.STOPPED),
        ([Event.START, Event.ORPHANED], State.STOPPED),
        ([Event.START, Event.HELLO, Event.ORPHANED], State.STOPPED),
    ],
    ids=lambda value: "-".join(event.value for event in value) if isinstance(value, list) else None,
)
def test_the_life_of_an_agent(story: list[Event], ends: State) -> None:
    state = State.STOPPED
    for event in story:
        state = after(state, event)
    assert state is ends


@pytest.mark.parametrize(
    ("state", "event"),
    [
        (State.STOPPED, Event.HELLO),
        (State.STOPPED, Event.PAUSE),
        (State.STARTING, Event.PAUSE),
        (State.STARTING, Event.START),
        (State.PAUSED, Event.HELLO),
        (State.FAILED, Event.RESUME),
        (State.STOPPING, Event.START),
    ],
)
def test_what_can_not_happen_is_refused(state: State, event: Event) -> None:
    with pytest.raises(Conflict):
        after(state, event)


def test_every_state_can_be_reached_and_left() -> None:
    assert {after for after in TRANSITIONS.values()} == set(State)
    assert {before for before, _ in TRANSITIONS} == set(State)


@pytest.mark.parametrize(
    ("idle", "state", "can_pause", "expected"),
    [
        (timedelta(minutes=4), State.AWAKE, True, Rest.STAY),
        (timedelta(minutes=5), State.AWAKE, True, Rest.PAUSE),
        (timedelta(minutes=5), State.AWAKE, False, Rest.STAY),
        (timedelta(minutes=20), State.PAUSED, True, Rest.STAY),
        (timedelta(minutes=30), State.PAUSED, True, Rest.STOP),
        (timedelta(minutes=30), State.AWAKE, True, Rest.STOP),
        (timedelta(minutes=30), State.AWAKE, False, Rest.STOP),
        (timedelta(hours=9), State.STARTING, True, Rest.STAY),
        (timedelta(hours=9), State.STOPPED, True, Rest.STAY),
        (timedelta(hours=9), State.FAILED, True, Rest.STAY),
    ],
)
def test_idleness_decides_how_far_it_sleeps(
    idle: timedelta, state: State, can_pause: bool, expected: Rest
) -> None:
    agent = replace(AWAKE, state=state, last_active_at=NOW - idle)
    assert rest(agent, NOW, POLICY, can_pause=can_pause) is expected


@given(idle=st.timedeltas(timedelta(0), timedelta(days=400)), state=st.sampled_from(State))
def test_a_hold_keeps_it_awake_however_long_it_is_idle(idle: timedelta, state: State) -> None:
    held = replace(AWAKE, state=state, last_active_at=NOW - idle, holds=(Hold("turn", "x", None),))
    assert rest(held, NOW, POLICY, can_pause=True) is Rest.STAY


@pytest.mark.parametrize(
    ("awake_for", "idle", "state", "reason", "expected"),
    [
        (timedelta(hours=24), timedelta(hours=1), State.AWAKE, "socket", Rest.END),
        (timedelta(hours=24), timedelta(hours=1), State.AWAKE, "operator", Rest.END),
        (timedelta(hours=23), timedelta(hours=1), State.AWAKE, "socket", Rest.STAY),
        (timedelta(hours=24), timedelta(hours=1), State.AWAKE, "turn", Rest.STAY),
        (timedelta(hours=24), timedelta(seconds=5), State.AWAKE, "socket", Rest.STAY),
        (timedelta(hours=24), timedelta(hours=1), State.PAUSED, "socket", Rest.STAY),
    ],
)
def test_awake_for_too_long_it_ends_whatever_holds_it_but_between_two_turns(
    awake_for: timedelta, idle: timedelta, state: State, reason: str, expected: Rest
) -> None:
    agent = replace(
        AWAKE,
        state=state,
        since=NOW - awake_for,
        last_active_at=NOW - idle,
        holds=(Hold(reason, "x", None),),
    )
    assert rest(agent, NOW, POLICY, can_pause=True) is expected


@given(st.integers(1, 200))
def test_waiting_grows_with_failures_up_to_a_minute(failures: int) -> None:
    assert timedelta(seconds=1) <= retry_delay(failures) <= timedelta(minutes=1)
    assert retry_delay(failures) <= retry_delay(failures + 1)


def test_a_long_steady_life_forgives_earlier_failures() -> None:
    shaky = replace(AWAKE, failures=3, since=NOW - timedelta(seconds=10))
    steady = replace(AWAKE, failures=3, since=NOW - timedelta(seconds=61))
    assert failures_after_crash(shaky, NOW, POLICY) == 4
    assert failures_after_crash(steady, NOW, POLICY) == 1
