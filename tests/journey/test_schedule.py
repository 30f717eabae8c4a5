"""An agent plans something, is put to sleep, and does it all the same, in time: everything real.

Slow because OpenClaw starts twice, and because the job must be far enough away for the agent to be stopped
before it is woken for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ocmt.testing.anthropic import FakeAnthropic, Streamed
from ocmt.testing.installation import Installation, Person
from tests.openclaw.peers import Calls

pytestmark = [pytest.mark.anyio, pytest.mark.journey, pytest.mark.timeout(240)]

KEY = "sk-ant-test-0123456789abcdef"
AHEAD = timedelta(seconds=75)
WAKE_AHEAD = timedelta(seconds=55)
"""More than a start takes on a machine that runs other tests as well; the rest is for falling asleep."""


@pytest.fixture(scope="module")
async def anthropic(anyio_backend: str) -> AsyncIterator[FakeAnthropic]:
    async with FakeAnthropic(keys={KEY}) as provider:
        yield provider


@pytest.fixture(scope="module")
def environment(anthropic: FakeAnthropic) -> dict[str, str]:
    return {
        "ANTHROPIC_API_KEY": KEY,
        "OCMT_ANTHROPIC_URL": anthropic.url,
        "OCMT_AGENT_PAUSE_AFTER": "2s",
        "OCMT_AGENT_STOP_AFTER": "1h",
        "OCMT_AGENT_WAKE_AHEAD": f"{WAKE_AHEAD.total_seconds():.0f}s",
    }


def reminder() -> dict[str, Any]:
    due = (datetime.now(UTC) + AHEAD).isoformat().replace("+00:00", "Z")
    job = {
        "name": "Tea",
        "schedule": {"kind": "at", "at": due},
        "sessionTarget": "isolated",
        "payload": {"kind": "agentTurn", "message": "Remind me of the tea."},
        "delivery": {"mode": "none"},
        "deleteAfterRun": False,
    }
    return {"id": "automations", "args": {"action": "add", "job": job}}


async def test_a_sleeping_agent_does_in_time_what_it_has_planned(
    installation: Installation, anna: Person, conversation: str, anthropic: FakeAnthropic
) -> None:
    anthropic.script(Calls("tool_call", reminder), Streamed("I shall remind you."))
    events = await anna.ask(conversation, "remind me of the tea in a minute")
    assert events[-1].type == "turn.completed", events[-1]
    await anna.call("POST", "/agent/hibernate")
    stopped = await anna.wait_for_state("stopped")
    due = datetime.fromisoformat(stopped["next_wake_at"])
    (job,) = (await anna.call("GET", "/agent/schedule"))["jobs"]
    assert (job["name"], job["last_run_at"]) == ("Tea", None), "it told what it has planned before it slept"
    calls = len(anthropic.seen)

    anthropic.script(Streamed("Your tea!"))
    awake = await anna.wait_for_state("awake", timeout=90)
    assert [hold["reason"] for hold in awake["kept_awake_by"]] == ["cron"]
    assert datetime.fromisoformat(awake["since"]) < due
    rests = await anna.wait_for_state("paused", timeout=90)
    assert rests["next_wake_at"] is None
    (job,) = (await anna.call("GET", "/agent/schedule"))["jobs"]
    assert (job["last_status"], job["late"]) == ("ok", False)
    began = datetime.fromisoformat(job["last_run_at"])
    assert timedelta(0) <= began - due < timedelta(seconds=10)
    assert len(anthropic.seen) == calls + 1, "it ran once"
