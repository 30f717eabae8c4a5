"""One person's first day, with everything real: `ocmt up`, PostgreSQL, the sandbox, OpenClaw, the demo model.

Slow because OpenClaw takes some ten seconds of processor time for every start; so one installation and one
agent serve the whole story, told in order.
"""

import asyncio
import json
from pathlib import Path

import psutil
import pytest

from ocmt.testing.installation import Installation, Person, StreamEvent

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.journey,
    pytest.mark.timeout(240),
]

AGENT_NAMES = ("bwrap", "node", "openclaw", "python")
SLEEPY = {"OCMT_AGENT_PAUSE_AFTER": "2s", "OCMT_AGENT_STOP_AFTER": "1h", "OCMT_LOG_LEVEL": "info"}


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    return SLEEPY


def answer_of(events: list[StreamEvent]) -> str:
    assert events[-1].type == "turn.completed", events[-1]
    return str(events[-1].data["message"])


def agent_processes(installation: Installation) -> list[str]:
    children = psutil.Process(installation.pid).children(recursive=True)
    return [name for child in children if (name := child.name()).startswith(AGENT_NAMES)]


async def test_the_first_user_is_the_administrator_and_the_link_works_once(
    installation: Installation, anna: Person
) -> None:
    me = await anna.call("GET", "/api/v1/me")
    assert me["is_admin"] is True
    async with Person(installation.url) as thief:
        token = installation.link.split("#token=")[1]
        await thief.call("POST", "/api/v1/auth/magic-link/verify", {"token": token}, status=401)


async def test_hello_wakes_the_agent_and_is_answered_as_a_stream(
    installation: Installation, anna: Person, conversation: str
) -> None:
    assert (await anna.call("GET", "/agent"))["state"] == "stopped"
    assert agent_processes(installation) == []
    events = await anna.ask(conversation, "hello")
    types = [event.type for event in events]
    assert types[0] == "turn.accepted"
    steps = [event.data["step"] for event in events if event.type == "agent.progress"]
    assert steps[0] == "sandbox"
    assert steps[-1] == "ready"
    assert types.index("turn.started") < types.index("turn.delta")
    text = "".join(event.data["text"] for event in events if event.type == "turn.delta")
    assert text == answer_of(events)
    assert "demo model" in text
    assert events[-1].data["usage"]["calls"] == 1
    agent = await anna.call("GET", "/agent")
    assert agent["model"]["kind"] == "demo"
    assert agent["isolation"]["is_boundary"] is True


async def test_the_agent_writes_a_file_when_asked_to(
    installation: Installation, anna: Person, conversation: str
) -> None:
    events = await anna.ask(conversation, "write hello.txt")
    assert any(event.type == "turn.tool" and event.data["name"] == "write" for event in events)
    answer_of(events)
    me = await anna.call("GET", "/api/v1/me")
    # As root the agent's disk is mounted where the platform alone sees it.
    seen_by_it = Path(f"/proc/{installation.pid}/root{installation.data}")
    written = list((seen_by_it / "agents" / me["id"]).rglob("workspace/hello.txt"))
    assert len(written) == 1


async def test_idle_it_pauses_and_the_next_message_wakes_it_at_once(anna: Person, conversation: str) -> None:
    paused = await anna.wait_for_state("paused")
    assert paused["kept_awake_by"] == []
    events = await anna.ask(conversation, "hello again")
    answer_of(events)
    assert not [event for event in events if event.data.get("step") == "sandbox"], "it was only paused"


async def test_a_long_answer_can_be_stopped(anna: Person, conversation: str) -> None:
    turn = await anna.post(conversation, "tell me a long story")
    seen = []
    async for event in anna.events(conversation):
        if event.data["turn_id"] != turn["id"]:
            continue
        seen.append(event.type)
        if event.type == "turn.delta" and seen.count("turn.delta") == 1:
            await anna.call("POST", f"/agent/turns/{turn['id']}/stop")
        if event.type in ("turn.stopped", "turn.completed", "turn.failed"):
            break
    assert seen[-1] == "turn.stopped"


async def test_a_stream_resumes_where_the_browser_left_it(anna: Person, conversation: str) -> None:
    turn = await anna.post(conversation, "count to 100")
    first: list[StreamEvent] = []
    async for event in anna.events(conversation):
        if event.data["turn_id"] == turn["id"]:
            first.append(event)
            if [e.type for e in first].count("turn.delta") == 3:
                break
    rest = await anna.answer(conversation, turn["id"], after=first[-1].seq)
    events = first + rest
    assert [event.seq for event in events] == sorted({event.seq for event in events})
    text = "".join(event.data["text"] for event in events if event.type == "turn.delta")
    assert text == answer_of(events)


async def test_a_looping_model_is_ended_by_the_call_limit(anna: Person, conversation: str) -> None:
    events = await anna.ask(conversation, "loop forever")
    assert events[-1].type == "turn.failed"
    assert events[-1].data["code"] == "turn_call_limit"
    assert "50" in events[-1].data["message"]


async def test_kill_9_mid_turn_loses_no_accepted_message(
    installation: Installation, anna: Person, conversation: str
) -> None:
    turn = await anna.post(conversation, "count to 50")
    async for event in anna.events(conversation):
        if event.data["turn_id"] == turn["id"] and event.type == "turn.delta":
            break
    before = set(psutil.Process(installation.pid).children(recursive=True))
    await installation.kill()
    _, alive = psutil.wait_procs(before, timeout=10)
    assert alive == [], "nothing outlives the platform"
    await installation.start()
    async with Person(installation.url) as anna_again:
        await anna_again.sign_in(installation.link)
        events = await anna_again.answer(conversation, turn["id"])
        assert "50" in answer_of(events)
        history = await anna_again.call("GET", f"/agent/conversations/{conversation}/turns")
        asked = [item for item in history["items"] if item["text"] == "count to 50"]
        assert len(asked) == 1, "answered once"

        await anna_again.call("POST", "/agent/hibernate")
        await anna_again.wait_for_state("stopped")
        assert agent_processes(installation) == [], "a stopped agent has no process"


async def test_conversations_are_jsonl_in_the_object_store(
    installation: Installation, data: Path, conversation: str
) -> None:
    async with asyncio.timeout(20):
        while not (found := list((data / "objects").rglob(f"{conversation}.jsonl"))):
            await asyncio.sleep(0.2)
    lines = [json.loads(line) for line in found[0].read_text().splitlines()]
    assert lines[0]["type"] == "conversation"
    assert lines[1] == lines[1] | {"role": "user", "text": "hello"}
    assert "demo model" in lines[2]["text"]


async def test_it_stops_within_ten_seconds_and_leaves_no_process(installation: Installation) -> None:
    children = psutil.Process(installation.pid).children(recursive=True)
    assert await installation.stop() < 10
    assert installation.process is not None
    assert installation.process.returncode == 0
    assert [child for child in children if child.is_running()] == []
