"""With a key: Claude answers, the provider refuses in plain words, an agent does in time what it has planned
though it sleeps, and a gateway dies in mid-sentence.

Slow for the same reason as the first day: three real starts of OpenClaw, and a job far enough away for the
agent to be stopped before it is woken for it. The provider is the shipped double.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
import pytest

from ocmt.testing.anthropic import Failed, FakeAnthropic, Streamed
from ocmt.testing.installation import Installation, Person
from tests.openclaw.peers import Calls

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.journey,
    pytest.mark.timeout(240),
]

KEY = "sk-ant-test-0123456789abcdef"
OWN_KEY = "sk-ant-own-fedcba9876543210"
AHEAD = timedelta(seconds=90)
WAKE_AHEAD = timedelta(seconds=70)
"""More than a start takes on a machine that runs other tests as well; the rest is for falling asleep."""


@pytest.fixture(scope="module")
async def anthropic(anyio_backend: str) -> AsyncIterator[FakeAnthropic]:
    async with FakeAnthropic(keys={KEY, OWN_KEY}) as provider:
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


def gateway(installation: Installation) -> psutil.Process:
    """The OpenClaw gateway of the only agent that runs."""
    children = psutil.Process(installation.pid).children(recursive=True)
    return next(process for process in children if process.name().startswith("openclaw-gatewa"))


async def test_with_a_key_claude_answers_and_the_agent_never_holds_it(
    installation: Installation, anna: Person, conversation: str, anthropic: FakeAnthropic
) -> None:
    anthropic.script(Streamed("I am Claude.", input_tokens=100, output_tokens=7))
    events = await anna.ask(conversation, "who are you?")
    assert events[-1].data["message"] == "I am Claude."
    assert events[-1].data["usage"] == {"input_tokens": 100, "output_tokens": 7, "calls": 1}
    agent = await anna.call("GET", "/agent")
    assert agent["model"]["kind"] == "platform"
    assert KEY not in "\n".join(gateway(installation).environ().values())
    assert all(KEY not in line for line in installation.output)
    assert anthropic.seen[-1].headers["x-api-key"] == KEY


async def test_a_refused_key_is_said_plainly_and_the_next_message_works(
    anna: Person, conversation: str, anthropic: FakeAnthropic
) -> None:
    anthropic.script(Failed(401, "authentication_error", "invalid x-api-key"))
    events = await anna.ask(conversation, "hello?")
    assert (events[-1].type, events[-1].data["code"]) == ("turn.failed", "provider_key_refused")
    assert "refused this installation's API key" in events[-1].data["message"]
    anthropic.script(Streamed("Here again."))
    history = await anna.call("GET", f"/agent/conversations/{conversation}/turns")
    await anna.call("POST", f"/agent/turns/{history['items'][-1]['id']}/retry")
    retried = await anna.answer(conversation, history["items"][-1]["id"], after=events[-1].seq)
    assert retried[-1].data["message"] == "Here again."


async def test_an_overloaded_provider_is_tried_again_and_the_user_knows(
    anna: Person, conversation: str, anthropic: FakeAnthropic
) -> None:
    overloaded = Failed(529, "overloaded_error", "Overloaded")
    anthropic.script(overloaded, Streamed("Better now."))
    events = await anna.ask(conversation, "busy?")
    assert events[-1].data["message"] == "Better now."
    told = [event.data["text"] for event in events if event.type == "agent.progress"]
    assert any("overloaded" in text for text in told)


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
    async with asyncio.timeout(120):  # it may pause once more before the job is due
        while (await anna.wait_for_state("paused", timeout=90))["next_wake_at"] is not None:
            await asyncio.sleep(0.1)
    (job,) = (await anna.call("GET", "/agent/schedule"))["jobs"]
    assert (job["last_status"], job["late"]) == ("ok", False)
    began = datetime.fromisoformat(job["last_run_at"])
    assert timedelta(0) <= began - due < timedelta(seconds=10)
    assert len(anthropic.seen) == calls + 1, "it ran once"


async def test_a_gateway_that_dies_in_mid_sentence_is_started_again_and_the_turn_ends_once(
    installation: Installation, anna: Person, conversation: str, anthropic: FakeAnthropic
) -> None:
    forever = asyncio.Event()
    anthropic.script(Streamed("One two three.", hold=forever), Streamed("All three: one two three."))
    turn = await anna.post(conversation, "count to three")
    ends: list[str] = []
    async with asyncio.timeout(120):
        async for event in anna.events(conversation):
            if event.data["turn_id"] != turn["id"]:
                continue
            if event.type == "turn.delta" and not ends:
                ends.append("killed")
                gateway(installation).kill()
            if event.type in ("turn.completed", "turn.failed", "turn.stopped"):
                ends.append(event.type)
                break
    forever.set()
    assert ends == ["killed", "turn.completed"]
    assert event.data["message"] == "All three: one two three."


async def test_a_users_own_key_comes_before_the_platforms(
    anna: Person, conversation: str, anthropic: FakeAnthropic
) -> None:
    await anna.call("PUT", "/api/v1/vault/items/anthropic_api_key", {"value": OWN_KEY})
    anthropic.script(Streamed("Yours."))
    assert (await anna.ask(conversation, "whose key?"))[-1].data["message"] == "Yours."
    assert anthropic.seen[-1].headers["x-api-key"] == OWN_KEY
    assert (await anna.call("GET", "/agent"))["model"]["kind"] == "user"
