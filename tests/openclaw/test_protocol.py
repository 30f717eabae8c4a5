"""Frames: what we send, what we make of what arrives, and that nothing that arrives does harm."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocmt.openclaw import protocol
from ocmt.openclaw.history import read_history, settle
from ocmt.openclaw.protocol import (
    Aborted,
    Delta,
    Event,
    Failed,
    Fault,
    Final,
    ProtocolError,
    Response,
    Status,
    Tool,
)

KEY = "agent:main:web:0193"
ABOUT = {"runId": "r1", "sessionKey": KEY, "agentId": "main", "seq": 7}


def said(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "text", "text": text}], "timestamp": 1795447289452}


def item(**data: Any) -> dict[str, Any]:
    return {**ABOUT, "stream": "item", "data": data}


TOOL = {"kind": "tool", "name": "exec", "toolCallId": "t1", "title": "Exec exit 3"}

# As recorded from OpenClaw 2026.9.6.
RUN_EVENTS = [
    ("chat", {**ABOUT, "state": "status", "phase": "starting_model"}, Status("r1", "starting_model")),
    (
        "chat",
        {**ABOUT, "state": "delta", "deltaText": " you", "message": said("Hi you")},
        Delta("r1", " you", "Hi you"),
    ),
    (
        "chat",
        {**ABOUT, "state": "delta", "deltaText": "", "replace": True, "message": said("")},
        Delta("r1", "", "", replace=True),
    ),
    (
        "chat",
        {**ABOUT, "state": "final", "stopReason": "stop", "message": said("Hi you")},
        Final("r1", "Hi you"),
    ),
    ("chat", {**ABOUT, "state": "final"}, Final("r1", "")),
    (
        "chat",
        {**ABOUT, "state": "error", "errorMessage": "No.", "errorDetail": {"httpStatus": 400}},
        Failed("r1", "No.", 400),
    ),
    ("chat", {**ABOUT, "state": "aborted", "stopReason": "rpc", "message": said("Hi")}, Aborted("r1", "Hi")),
    (
        "agent",
        item(**TOOL, phase="start", status="running"),
        Tool("r1", "t1", "exec", "start", "Exec exit 3"),
    ),
    (
        "agent",
        item(**TOOL, phase="update", status="running"),
        Tool("r1", "t1", "exec", "update", "Exec exit 3"),
    ),
    (
        "agent",
        item(**TOOL, phase="end", status="failed", error="Exit code 3"),
        Tool("r1", "t1", "exec", "result", "Exit code 3", failed=True),
    ),
    (
        "agent",
        item(kind="preamble", phase="end", title="Preamble", progressText="Let me look."),
        Status("r1", "commentary", "Let me look."),
    ),
]


@pytest.mark.parametrize(("name", "payload", "expected"), RUN_EVENTS)
def test_events_of_a_run_are_told(name: str, payload: dict[str, Any], expected: protocol.RunEvent) -> None:
    assert protocol.read_run_event(Event(name, payload)) == (KEY, expected)


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        ("tick", {}),
        ("agent", {**ABOUT, "stream": "lifecycle", "data": {"phase": "start"}}),
        ("agent", {**ABOUT, "stream": "assistant", "data": {"text": "Hi", "delta": "Hi"}}),
        ("chat", {**ABOUT, "state": "something new"}),
        ("chat", {"state": "final", "runId": "r1"}),
        ("chat", {**ABOUT, "runId": 7, "state": "final"}),
    ],
)
def test_other_events_are_passed_over(name: str, payload: dict[str, Any]) -> None:
    assert protocol.read_run_event(Event(name, payload)) is None


@pytest.mark.parametrize("bad", ["\\u0000", "\\ud83d", "\\ude00"])
def test_what_no_database_takes_is_replaced(bad: str) -> None:
    frame = protocol.read_frame(
        '{"type": "event", "event": "chat", "payload": {"sessionKey": "s", "runId": "r1", "state": "delta",'
        f' "deltaText": "a{bad}b", "message": {{"content": "a{bad}b"}}}}}}'
    )
    assert isinstance(frame, Event)
    assert protocol.read_run_event(frame) == ("s", Delta("r1", "a\ufffdb", "a\ufffdb"))
    history = read_history({"sessionInfo": {"activeRunIds": [json.loads(f'"r{bad}"')]}})
    assert history.active_run_ids == ("r\ufffd",)


def test_a_whole_character_of_two_halves_stays() -> None:
    assert protocol.string(json.loads('{"text": "\\ud83d\\ude00"}'), "text") == "\U0001f600"


def test_names_and_remarks_are_cut() -> None:
    named = item(kind="tool", phase="start", name="n" * 9999, toolCallId="t" * 9999, title="x" * 9999)
    told = protocol.read_run_event(Event("agent", named))
    assert told is not None
    assert isinstance(told[1], Tool)
    assert [len(text) for text in (told[1].name, told[1].call_id, told[1].summary)] == [200, 200, 1000]
    assert protocol.read_run_event(Event("chat", {**ABOUT, "runId": "r" * 201, "state": "final"})) is None


def test_a_refusal_says_when_to_ask_again() -> None:
    error = {
        "code": "UNAVAILABLE",
        "message": "gateway starting; retry shortly",
        "retryable": True,
        "retryAfterMs": 500,
        "details": {"reason": "startup-sidecars"},
    }
    frame = protocol.read_frame(json.dumps({"type": "res", "id": "4", "ok": False, "error": error}))
    fault = Fault("UNAVAILABLE", "gateway starting; retry shortly", True, 0.5, "startup-sidecars")
    assert frame == Response("4", fault=fault)


def test_frames_of_a_later_version_are_passed_over() -> None:
    assert protocol.read_frame('{"type":"gossip","about":"you"}') is None


@pytest.mark.parametrize(
    "data",
    ["", "nonsense", "[]", "{}", '{"type":"res"}', '{"type":"event","event":7}', b"\xff\xfe", "[" * 100_000],
)
def test_what_is_no_frame_is_an_error_of_the_protocol(data: str | bytes) -> None:
    with pytest.raises(ProtocolError):
        protocol.read_frame(data)


@pytest.mark.parametrize("as_bytes", [False, True])
def test_a_frame_of_too_many_parts_is_not_read(as_bytes: bool) -> None:
    frame = '{"type": "event", "event": "chat", "payload": {"a": [' + ",".join(["[]"] * 600_000) + "]}}"
    with pytest.raises(ProtocolError, match="too many parts"):
        protocol.read_frame(frame.encode() if as_bytes else frame)


def test_a_request_goes_out_as_one_object() -> None:
    frame = json.loads(protocol.request_frame("1", "chat.send", {"message": "Grüße\n"}))
    assert frame == {"type": "req", "id": "1", "method": "chat.send", "params": {"message": "Grüße\n"}}


@pytest.mark.parametrize(
    "payload", [{"type": "hello-ok", "protocol": 5}, {}, {"type": "hello-no", "protocol": 4}]
)
def test_only_our_version_is_a_hello(payload: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        protocol.read_hello(Response("1", payload=payload))


# A hostile agent: any bytes, any JSON, and JSON that nearly is what we expect.

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def nearly(example: object) -> st.SearchStrategy[Any]:
    """Like the example, with parts of it left out or replaced by anything."""
    mutated: st.SearchStrategy[Any]
    if isinstance(example, dict):
        mutated = st.fixed_dictionaries({}, optional={name: nearly(part) for name, part in example.items()})
    elif isinstance(example, list):
        mutated = st.lists(st.one_of(*map(nearly, example)) if example else json_values, max_size=3)
    else:
        mutated = st.just(example)
    return mutated | json_values


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes | str) -> None:
    with contextlib.suppress(ProtocolError):
        protocol.read_frame(data)


FRAMES: list[dict[str, Any]] = [
    {"type": "event", "event": name, "payload": payload} for name, payload, _ in RUN_EVENTS
]
FRAMES.append(
    {"type": "res", "id": "1", "ok": False, "error": {"code": "X", "retryAfterMs": 500, "details": {}}}
)


@given(st.one_of(*map(nearly, FRAMES)))
def test_nearly_right_frames_are_read_or_refused(frame: object) -> None:
    try:
        read = protocol.read_frame(json.dumps(frame))
    except ProtocolError:
        return
    if isinstance(read, Event):
        protocol.read_run_event(read)


HISTORY = {
    "messages": [
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "Hi"}],
            "timestamp": 1795447989355,
            "stopReason": "stop",
            "idempotencyKey": "r1:user",
            "usage": {"input": 1, "output": 2},
            "provenance": {"kind": "internal_system"},
            "openclawAbort": {"aborted": True},
            "__openclaw": {"runId": "r1"},
        }
    ],
    "sessionInfo": {"hasActiveRun": True, "activeRunIds": ["r1"], "status": "running", "lastRunId": "r1"},
    "inFlightRun": {"runId": "r1"},
}


@given(nearly(HISTORY))
def test_any_history_is_read(payload: object) -> None:
    if isinstance(payload, dict):
        settle(read_history(payload), run_id="r1", message_key="r1")
