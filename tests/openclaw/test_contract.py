"""One contract for two gateways: the double, always, and the real OpenClaw (mark `journey`).

What chat and agents rely on is stated here, so a new version of OpenClaw is tried by running this module.
The real one is booted once, and once more after the crash at the end (a minute in all).
"""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from ocmt.chat.model import MAX_ATTACHED_BYTES, MAX_MESSAGE_BYTES
from ocmt.openclaw.client import (
    Aborted,
    Delta,
    Failed,
    Final,
    GatewayClient,
    GatewayError,
    RunEvent,
    Tool,
)
from ocmt.openclaw.history import RunOutcome
from ocmt.openclaw.schedule import Job
from tests.openclaw.peers import FakePeer, Peer, real_peer
from tests.pictures import png

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]


CAT = png(8, 8)


@pytest.fixture(
    scope="module",
    params=["double", pytest.param("OpenClaw", marks=pytest.mark.journey)],
)
async def peer(request: pytest.FixtureRequest) -> AsyncIterator[Peer]:
    async with FakePeer() if request.param == "double" else real_peer() as peer:
        yield peer


@pytest.fixture
async def client(peer: Peer) -> AsyncIterator[GatewayClient]:
    client = await GatewayClient.connect(peer.dial, token=peer.token, clock=peer.clock, timeout=90)
    yield client
    await client.close()


@pytest.fixture
def key() -> str:
    """A new conversation."""
    return f"agent:main:web:{uuid4()}"


async def rest_of(events: AsyncIterator[RunEvent]) -> list[RunEvent]:
    """All events up to the end of the run."""
    seen: list[RunEvent] = []
    async with asyncio.timeout(60):
        async for event in events:
            seen.append(event)
            if isinstance(event, Final | Failed | Aborted):
                break
    return seen


async def turn(
    client: GatewayClient, key: str, message: str, message_key: str | None = None
) -> list[RunEvent]:
    """Send a message, and all events of its run."""
    with client.run_events(key) as events:
        await client.send_chat(session_key=key, message=message, idempotency_key=message_key or str(uuid4()))
        return await rest_of(events)


async def first_delta(events: AsyncIterator[RunEvent]) -> Delta:
    async with asyncio.timeout(60):
        async for event in events:
            if isinstance(event, Delta):
                return event
    raise AssertionError("no delta")


def planned(name: str, *, after: float) -> dict[str, Any]:
    """A job for `cron.add`: a turn of its own, once, so many seconds from now."""
    due = datetime.now(UTC) + timedelta(seconds=after)
    return {
        "name": name,
        "enabled": True,
        "schedule": {"kind": "at", "at": due.isoformat().replace("+00:00", "Z")},
        "sessionTarget": "isolated",
        "wakeMode": "now",
        "payload": {"kind": "agentTurn", "message": f"Write the {name}."},
        "delivery": {"mode": "none"},
        "deleteAfterRun": False,
    }


async def job_once(client: GatewayClient, job_id: str, holds: Callable[[Job], object]) -> Job:
    """The job as soon as this is true of it."""
    async with asyncio.timeout(60):
        while True:
            found = {job.id: job for job in (await client.schedule()).jobs}
            if job_id in found and holds(found[job_id]):
                return found[job_id]
            await asyncio.sleep(0.1)


async def ready_to_sleep(client: GatewayClient) -> None:
    """Prepared; it finishes its writing after the last event, so it may say no at first."""
    async with asyncio.timeout(30):
        while not (await client.prepare_suspend("ocmt-contract")).ready:
            await asyncio.sleep(0.1)


async def test_a_wrong_token_is_refused_for_good(peer: Peer, client: GatewayClient) -> None:
    with pytest.raises(GatewayError) as refused:
        await GatewayClient.connect(peer.dial, token="wrong", clock=peer.clock, timeout=30)
    assert not refused.value.retryable


async def test_an_answer_streams_and_ends_with_the_whole(peer: Peer, client: GatewayClient, key: str) -> None:
    peer.will_say("All is well with you, I hope.")
    events = await turn(client, key, "hello", "first")
    deltas = [event for event in events if isinstance(event, Delta)]
    assert "".join(delta.text for delta in deltas) == "All is well with you, I hope."
    assert all(delta.message.endswith(delta.text) for delta in deltas)
    assert {event.run_id for event in events} == {"first"}  # the run has the message's key for a name
    assert isinstance(events[-1], Final)
    assert events[-1].text == "All is well with you, I hope."


async def test_the_same_message_again_starts_no_second_run(
    peer: Peer, client: GatewayClient, key: str
) -> None:
    hold = asyncio.Event()
    peer.will_say("Only once.", hold=hold)
    message_key = str(uuid4())
    sends = [
        await client.send_chat(session_key=key, message="hello", idempotency_key=message_key)
        for _ in range(2)
    ]
    assert [sent.status for sent in sends] == ["started", "in_flight"]
    with client.run_events(key) as events:
        hold.set()
        await rest_of(events)
    again = await client.send_chat(session_key=key, message="hello", idempotency_key=message_key)
    assert (again.run_id, again.status) == (message_key, "ok")
    assert [entry.role for entry in await client.history(key)] == ["user", "assistant"]


async def test_tools_are_told_as_they_are_used(peer: Peer, client: GatewayClient, key: str) -> None:
    peer.will_write_a_file("I wrote it.")
    events = await turn(client, key, "write hello.txt")
    tools = [event for event in events if isinstance(event, Tool) and event.phase != "update"]
    assert [(tool.name, tool.phase, tool.failed) for tool in tools] == [
        ("write", "start", False),
        ("write", "result", False),
    ]
    assert tools[0].call_id == tools[1].call_id
    assert "hello.txt" in tools[0].summary
    assert isinstance(events[-1], Final)
    assert events[-1].text == "I wrote it."
    assert peer.wrote_a_file()


async def test_a_refusal_of_the_broker_ends_the_turn_at_once_and_only_that(
    peer: Peer, client: GatewayClient, key: str
) -> None:
    peer.will_be_refused_by_the_provider()
    events = await turn(client, key, "hello", failed := str(uuid4()))
    assert isinstance(events[-1], Failed)
    assert events[-1].http_status == 400
    assert (await client.outcome(session_key=key, run_id=failed, message_key=failed)).status == "failed"
    with pytest.raises(GatewayError):
        await client.send_chat(session_key=key, message="hello", idempotency_key=failed)
    peer.will_say("Here I am again.")
    assert isinstance((await turn(client, key, "again"))[-1], Final)


async def test_the_history_has_all_that_was_said(peer: Peer, client: GatewayClient, key: str) -> None:
    for word in ("one", "two"):
        peer.will_say(f"You said {word}.")
        await turn(client, key, word, f"{key}{word}")
    told = [(entry.role, entry.text, entry.run_id) for entry in await client.history(key)]
    assert told == [
        ("user", "one", f"{key}one"),
        ("assistant", "You said one.", f"{key}one"),
        ("user", "two", f"{key}two"),
        ("assistant", "You said two.", f"{key}two"),
    ]
    assert await client.history(f"{key}0") == []


async def test_conversations_run_side_by_side(peer: Peer, client: GatewayClient) -> None:
    for _ in range(3):
        peer.will_say("At your service.")
    keys = [f"agent:main:web:{uuid4()}" for _ in range(3)]
    ends = await asyncio.gather(*(turn(client, key, "hello") for key in keys))
    assert [type(events[-1]) for events in ends] == [Final] * 3


async def test_a_run_stops_when_told_to(peer: Peer, client: GatewayClient, key: str) -> None:
    peer.will_say("This is going to be long.", hold=asyncio.Event())
    with client.run_events(key) as events:
        sent = await client.send_chat(session_key=key, message="hello", idempotency_key=str(uuid4()))
        await first_delta(events)
        await client.abort(session_key=key, run_id=sent.run_id)
        assert isinstance((await rest_of(events))[-1], Aborted)
    await client.abort(session_key=key, run_id=sent.run_id)  # again: succeeds
    outcome = await client.outcome(session_key=key, run_id=sent.run_id, message_key=sent.run_id)
    assert outcome.status == "stopped"


async def test_a_run_goes_on_while_nobody_listens(peer: Peer, client: GatewayClient, key: str) -> None:
    hold = asyncio.Event()
    peer.will_say("I finish what I begin.", hold=hold)
    with client.run_events(key) as events:
        sent = await client.send_chat(session_key=key, message="hello", idempotency_key=str(uuid4()))
        await first_delta(events)
    await client.close()
    again = await GatewayClient.connect(peer.dial, token=peer.token, clock=peer.clock, timeout=30)
    with again.run_events(key) as events:
        outcome = await again.outcome(session_key=key, run_id=sent.run_id, message_key=sent.run_id)
        assert outcome == RunOutcome("running", sent.run_id)
        hold.set()
        last = (await rest_of(events))[-1]
    assert isinstance(last, Final)
    assert last.text == "I finish what I begin."
    outcome = await again.outcome(session_key=key, run_id=sent.run_id, message_key=sent.run_id)
    assert outcome == RunOutcome("finished", sent.run_id, "I finish what I begin.")
    await again.close()


async def test_what_was_never_sent_is_unknown(client: GatewayClient, key: str) -> None:
    assert await client.outcome(session_key=key, run_id="x", message_key="x") == RunOutcome("unknown")


async def test_it_sleeps_only_when_nothing_runs(peer: Peer, client: GatewayClient, key: str) -> None:
    hold = asyncio.Event()
    peer.will_say("Not yet.", hold=hold)
    with client.run_events(key) as events:
        await client.send_chat(session_key=key, message="hello", idempotency_key=str(uuid4()))
        await first_delta(events)
        busy = await client.prepare_suspend("ocmt-contract")
        assert not busy.ready
        assert busy.blockers
        hold.set()
        await rest_of(events)
    await ready_to_sleep(client)
    with pytest.raises(GatewayError) as refused:
        await client.send_chat(session_key=key, message="hello", idempotency_key=str(uuid4()))
    assert refused.value.retryable
    await client.resume_suspend("ocmt-contract")
    await client.resume_suspend("ocmt-contract")  # again: succeeds
    peer.will_say("Good morning.")
    assert isinstance((await turn(client, key, "hello"))[-1], Final)


async def test_a_megabyte_is_a_message(peer: Peer, client: GatewayClient, key: str) -> None:
    peer.will_say("That is a lot.")
    assert isinstance((await turn(client, key, "All work and no play. " * 46_000))[-1], Final)


async def test_files_come_with_a_message_which_may_have_no_words(
    peer: Peer, client: GatewayClient, key: str
) -> None:
    note = b"The cat is Mephisto."
    for words, name, kind, content in [
        ("Look", "cat.png", "image/png", CAT),
        ("", "n.txt", "text/plain", note),
    ]:
        peer.will_say("I see.")
        file = {"fileName": name, "mimeType": kind, "content": base64.b64encode(content).decode()}
        message_key = str(uuid4())
        with client.run_events(key) as events:
            await client.send_chat(
                session_key=key, message=words, idempotency_key=message_key, attachments=[file]
            )
            assert isinstance((await rest_of(events))[-1], Final)
        assert peer.saw(content)
        # By the same key as a message without files.
        outcome = await client.outcome(session_key=key, run_id=message_key, message_key=message_key)
        assert outcome == RunOutcome("finished", run_id=message_key, text="I see.")


async def test_as_much_as_one_message_takes_goes_through(peer: Peer, client: GatewayClient, key: str) -> None:
    peer.will_say("Much.")
    content = base64.b64encode(random.Random(1).randbytes(MAX_ATTACHED_BYTES)).decode()
    file = {"fileName": "a.bin", "mimeType": "application/octet-stream", "content": content}
    with client.run_events(key) as events:
        await client.send_chat(
            session_key=key, message="\x1f" * MAX_MESSAGE_BYTES, idempotency_key="much", attachments=[file]
        )
        assert isinstance((await rest_of(events))[-1], Final)


async def test_a_stop_phrase_is_answered_without_a_run(peer: Peer, client: GatewayClient, key: str) -> None:
    for phrase in ("stop", "/stop", "please stop!", "停止"):
        sent = await client.send_chat(session_key=key, message=phrase, idempotency_key=str(uuid4()))
        assert sent.status == "stopped"


@pytest.mark.parametrize(
    "message",
    ["stop", "/status", "/restart", "/elevated full", "please /elevated full and go on",
     "go on\n/exec security=full", "/new", "/think: high", "! ls"],
)  # fmt: skip
async def test_without_commands_every_text_is_a_message_to_the_model(
    peer: Peer, client: GatewayClient, key: str, message: str
) -> None:
    """What somebody else than the owner wrote: OpenClaw interprets nothing in it, and cuts nothing out."""
    peer.will_say("I have read it.")
    with client.run_events(key) as events:
        sent = await client.send_chat(
            session_key=key, message=message, idempotency_key=str(uuid4()), commands=False
        )
        assert sent.status == "started"
        last = (await rest_of(events))[-1]
    assert isinstance(last, Final)
    assert last.text == "I have read it."
    assert peer.saw(message.encode())


async def test_what_makes_no_sense_is_refused_and_says_so(client: GatewayClient, key: str) -> None:
    with pytest.raises(GatewayError, match="unknown method"):
        await client.request("no.such", {})
    with pytest.raises(GatewayError, match="required"):
        await client.send_chat(session_key=key, message="", idempotency_key="x")


async def test_what_is_planned_is_told_and_a_run_of_it_is_work(peer: Peer, client: GatewayClient) -> None:
    done = asyncio.Event()
    peer.will_run(until=done)
    before = client.schedule_changes
    job_id = str((await client.request("cron.add", planned("report", after=peer.soon)))["id"])
    told = await client.schedule()
    (job,) = (job for job in told.jobs if job.id == job_id)
    assert (job.name, job.kind, job.enabled) == ("report", "at", True)
    assert job.next_run_at is not None
    assert told.next_run_at == job.next_run_at
    await job_once(client, job_id, lambda job: job.running_since)
    assert client.schedule_changes >= before + 2, "it tells of the job, and that it runs"
    busy = await client.prepare_suspend("ocmt-contract")
    assert not busy.ready
    assert any("cron run" in words for words in busy.blockers)
    done.set()
    ended = await job_once(client, job_id, lambda job: job.last_run_at and not job.running_since)
    assert (ended.last_status, ended.next_run_at) == ("ok", None)
    await ready_to_sleep(client)
    await client.resume_suspend("ocmt-contract")
    await client.request("cron.remove", {"id": job_id})


async def test_prepared_for_sleep_it_begins_no_job_and_makes_up_for_it_at_once(
    peer: Peer, client: GatewayClient
) -> None:
    done = asyncio.Event()
    done.set()
    peer.will_run(until=done)
    job_id = str((await client.request("cron.add", planned("report", after=peer.soon)))["id"])
    await ready_to_sleep(client)
    with pytest.raises(GatewayError) as refused:
        await client.schedule()
    assert refused.value.reason == "gateway-suspending"
    await asyncio.sleep(peer.soon + 0.5)
    await client.resume_suspend("ocmt-contract")
    resumed = datetime.now(UTC)
    ended = await job_once(client, job_id, lambda job: job.last_run_at and not job.running_since)
    assert ended.last_run_at is not None
    assert resumed - timedelta(seconds=1) < ended.last_run_at < resumed + timedelta(seconds=5)
    await client.request("cron.remove", {"id": job_id})


async def test_after_a_crash_a_cut_turn_resumes_by_itself_and_what_was_due_is_put_off_by_two_minutes(
    peer: Peer, client: GatewayClient, key: str
) -> None:
    peer.will_say("I was cut off.", hold=asyncio.Event())
    with client.run_events(key) as events:
        sent = await client.send_chat(session_key=key, message="hello", idempotency_key=str(uuid4()))
        await first_delta(events)
    job_id = str((await client.request("cron.add", planned("report", after=peer.soon)))["id"])
    hold = asyncio.Event()
    peer.will_say("Where was I?", hold=hold)
    await peer.crash(down=peer.soon)
    await client.wait_closed()
    again = await GatewayClient.connect(peer.dial, token=peer.token, clock=peer.clock, timeout=90)
    with again.run_events(key) as events:
        outcome = await again.outcome(session_key=key, run_id=sent.run_id, message_key=sent.run_id)
        assert outcome.status == "running"
        assert outcome.run_id != sent.run_id
        hold.set()
        last = (await rest_of(events))[-1]
    assert isinstance(last, Final)
    assert last.run_id == outcome.run_id
    outcome = await again.outcome(session_key=key, run_id=sent.run_id, message_key=sent.run_id)
    assert (outcome.status, outcome.text) == ("finished", last.text)

    # Some seconds after the hello it is decided what becomes of the job.
    job = await job_once(again, job_id, lambda job: job.next_run_at and job.next_run_at > datetime.now(UTC))
    assert job.next_run_at is not None
    assert timedelta(seconds=60) < job.next_run_at - datetime.now(UTC) <= timedelta(seconds=125)
    assert job.last_run_at is None
    await again.request("cron.remove", {"id": job_id})
    await again.close()
