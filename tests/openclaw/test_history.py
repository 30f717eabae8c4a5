"""What became of a run, told from histories as OpenClaw 2026.9.6 writes them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from ocmt.openclaw.history import RunOutcome, read_history, settle

RESUMED = "bda9e21e"


def asked(key: str, text: str = "do it", **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": text, "idempotencyKey": f"{key}:user", "__openclaw": {}, **more}


def told(run_id: str, text: str, stop: str | None = "stop", **more: Any) -> dict[str, Any]:
    content = [{"type": "text", "text": text}]
    entry = {"role": "assistant", "content": content, "__openclaw": {"runId": run_id}, **more}
    return entry | ({"stopReason": stop} if stop else {})


TOOL_CALL = told("k1", "", "toolUse") | {"content": [{"type": "toolCall", "name": "exec"}]}
TOOL_RESULT = {
    "role": "toolResult",
    "content": [{"type": "text", "text": "ok"}],
    "__openclaw": {"runId": "k1"},
}
NOTICE = asked(RESUMED, "[System] Your previous turn was interrupted", provenance={"kind": "internal_system"})
ABORTED = told("k1", "half", openclawAbort={"aborted": True, "runId": "k1"})

IDLE: dict[str, Any] = {"hasActiveRun": False, "activeRunIds": []}
BEFORE = [asked("k0"), told("k0", "earlier answer")]


def payload(*messages: dict[str, Any], **session: Any) -> dict[str, Any]:
    return {"messages": [*BEFORE, *messages], "sessionInfo": {**IDLE, **session}}


def active(run_id: str) -> dict[str, Any]:
    return {"hasActiveRun": True, "activeRunIds": [run_id]}


CASES = {
    "answered": (payload(asked("k1"), told("k1", "done")), RunOutcome("finished", "k1", "done")),
    "answered after tools": (
        payload(asked("k1"), told("k1", "Let me see.", None), TOOL_CALL, TOOL_RESULT, told("k1", "done")),
        RunOutcome("finished", "k1", "done"),
    ),
    "answered, and the next message too": (
        payload(asked("k1"), told("k1", "done"), asked("k2"), told("k2", "other")),
        RunOutcome("finished", "k1", "done"),
    ),
    "its beginning is no longer in the history": (
        {"messages": [TOOL_RESULT, told("k1", "done")], "sessionInfo": IDLE},
        RunOutcome("finished", "k1", "done"),
    ),
    "still at work": (payload(asked("k1"), TOOL_CALL, **active("k1")), RunOutcome("running", "k1")),
    "taken, but not yet in the history": (payload(**active("k1")), RunOutcome("running", "k1")),
    "interrupted by a crash": (payload(asked("k1"), TOOL_CALL, status="running"), RunOutcome("resuming")),
    "being resumed, under no name yet": (
        payload(asked("k1"), status="running", hasActiveRun=True),
        RunOutcome("resuming"),
    ),
    "resumed under another run": (
        payload(asked("k1"), NOTICE, **active(RESUMED)),
        RunOutcome("running", RESUMED),
    ),
    "about to be resumed under another run": (
        payload(asked("k1"), **active(RESUMED)),
        RunOutcome("running", RESUMED),
    ),
    "resumed and answered": (
        payload(asked("k1"), TOOL_CALL, NOTICE, told(RESUMED, "done"), status="done"),
        RunOutcome("finished", RESUMED, "done"),
    ),
    "stopped": (payload(asked("k1"), ABORTED, status="killed"), RunOutcome("stopped", "k1", "half")),
    "failed, with no trace but the session's": (
        payload(asked("k1"), status="failed", lastRunId="k1"),
        RunOutcome("failed", "k1"),
    ),
    "failed, with an entry of its own": (
        payload(asked("k1"), told("k1", "The agent run failed.", "error")),
        RunOutcome("failed", "k1", "The agent run failed."),
    ),
    "never arrived": (payload(), RunOutcome("unknown")),
    "never arrived, another turn runs": (payload(asked("k2"), **active("k2")), RunOutcome("unknown")),
    "a conversation that does not exist": ({"messages": [], "sessionInfo": IDLE}, RunOutcome("unknown")),
}


@pytest.mark.parametrize("case", CASES)
def test_outcome_of_a_run_that_was(case: str) -> None:
    history, expected = CASES[case]
    assert settle(read_history(history), run_id="k1", message_key="k1") == expected


def test_a_message_is_read_with_what_it_tells() -> None:
    entry = told(
        "k1", "Hi", timestamp=1795447985121, usage={"input": 100, "output": 42, "cost": {"input": 0}}
    )
    (message,) = read_history({"messages": [entry]}).messages
    assert (message.role, message.text, message.run_id) == ("assistant", "Hi", "k1")
    assert message.timestamp == datetime(2026, 11, 23, 15, 33, 5, 121000, tzinfo=UTC)
    assert message.usage == {"input": 100, "output": 42}
