"""OpenClaw's gateway protocol (version 4) without any I/O: building and reading of frames, nothing else.

What arrives comes from inside an agent, so it may be anything: reading raises ProtocolError and no other
exception, and what is read is made of our own types, and of text that a database takes. Facts of the wire:
docs/openclaw.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

PROTOCOL_VERSION = 4
SCOPES = ("operator.read", "operator.write", "operator.admin", "operator.approvals")
MAX_TEXT = 4 * 1024 * 1024
"""Characters of one text that we take from a gateway; what is longer is cut."""
MAX_CONTAINERS = 500_000
"""Lists and objects of one frame: empty ones by the million take seconds, in which nobody is served."""
MAX_NAME = 200
MAX_REMARK = 2_000
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
"""What JSON can say and PostgreSQL refuses: a zero byte, and the half of a character that is left where
JavaScript has cut a text in two."""


class ProtocolError(Exception):
    """The gateway sent something that is not of its protocol."""


@dataclass(frozen=True)
class Fault:
    """Why a request was refused."""

    code: str
    message: str
    retryable: bool = False
    retry_after: float | None = None
    """Seconds."""
    reason: str | None = None
    """The machine-readable part of the details, such as `startup-sidecars` or `gateway-suspending`."""


@dataclass(frozen=True)
class Response:
    """The answer to the request with this id: `fault` is None where it succeeded."""

    id: str
    payload: Mapping[str, Any] = field(default_factory=dict)
    fault: Fault | None = None


@dataclass(frozen=True)
class Event:
    """Something that the gateway tells unasked."""

    name: str
    payload: Mapping[str, Any]


@dataclass(frozen=True)
class Status:
    """The run came to another phase; `text` is what the agent says by the way, not part of its answer."""

    run_id: str
    phase: str
    text: str | None = None


@dataclass(frozen=True)
class Delta:
    """A new piece of the answer, and the answer so far.

    With `replace` the answer so far is not what went before plus this piece: a failed call of the model is
    repeated, and what it had said is void.
    """

    run_id: str
    text: str
    message: str
    replace: bool = False


@dataclass(frozen=True)
class Tool:
    """A tool call of the agent."""

    run_id: str
    call_id: str
    name: str
    phase: Literal["start", "update", "result"]
    summary: str
    """One line for the user: `Write to hello.txt (8 chars)`, or why it failed."""
    failed: bool = False


@dataclass(frozen=True)
class Final:
    """The run ended well. The text may be empty: some messages need no answer."""

    run_id: str
    text: str
    usage: Mapping[str, int] | None = None


@dataclass(frozen=True)
class Failed:
    """The run ended without an answer."""

    run_id: str
    message: str
    http_status: int | None = None
    """What the model's provider answered, where that was the reason."""


@dataclass(frozen=True)
class Aborted:
    """The run was stopped; `text` is what it had said by then."""

    run_id: str
    text: str = ""


RunEvent = Status | Delta | Tool | Final | Failed | Aborted


def request_frame(request_id: str, method: str, params: Mapping[str, Any]) -> str:
    """One request, as it goes over the wire."""
    frame = {"type": "req", "id": request_id, "method": method, "params": params}
    return json.dumps(frame, ensure_ascii=False, separators=(",", ":"))


def connect_params(token: str, *, version: str) -> dict[str, Any]:
    """The parameters of `connect`: who we are, what we may do, what we understand."""
    return {
        "minProtocol": PROTOCOL_VERSION,
        "maxProtocol": PROTOCOL_VERSION,
        "client": {"id": "gateway-client", "version": version, "platform": "linux", "mode": "backend"},
        "role": "operator",
        "scopes": list(SCOPES),
        "caps": [],
        "auth": {"password": token},
    }


def read_frame(data: str | bytes) -> Response | Event | None:
    """What arrived; None for a kind of frame that this version does not know. Raises ProtocolError."""
    whole = data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass")
    if whole.count(b"[") + whole.count(b"{") > MAX_CONTAINERS:
        raise ProtocolError("made of too many parts")
    try:
        frame = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("not JSON") from error
    return frame_of(frame)


def frame_of(frame: Any) -> Response | Event | None:
    """Return the frame that a JSON value is, as `read_frame` does. Raises: ProtocolError."""
    if not isinstance(frame, dict):
        raise ProtocolError("not an object")
    match frame.get("type"):
        case "res":
            return _read_response(frame)
        case "event":
            return Event(_required(frame, "event"), _object(frame.get("payload")))
        case str():
            return None
        case _:
            raise ProtocolError("a frame without a type")


def read_challenge(frame: Response | Event | None) -> None:
    """Check that a connection begins as it must. Raises ProtocolError."""
    if not isinstance(frame, Event) or frame.name != "connect.challenge":
        raise ProtocolError("the connection did not begin with a challenge")


def read_hello(response: Response) -> None:
    """Check that the gateway agreed to our version. Raises ProtocolError."""
    if response.payload.get("type") != "hello-ok" or response.payload.get("protocol") != PROTOCOL_VERSION:
        raise ProtocolError(f"the gateway does not speak version {PROTOCOL_VERSION}")


def read_run_event(event: Event) -> tuple[str, RunEvent] | None:
    """The session key and what happened in a run of it; None where it is not about a run. Never raises."""
    session_key, run_id = event.payload.get("sessionKey"), event.payload.get("runId")
    if not isinstance(session_key, str) or not isinstance(run_id, str) or not 0 < len(run_id) <= MAX_NAME:
        return None
    read = {"chat": _read_chat, "agent": _read_agent}.get(event.name)
    told = read(run_id, event.payload) if read else None
    return (session_key, told) if told else None


def text_of(message: object) -> str:
    """The text of a message: its content as it is, or its text blocks one after the other."""
    content = _object(message).get("content")
    if isinstance(content, str):
        return storable(content, MAX_TEXT)
    if not isinstance(content, list):
        return ""
    blocks = (_object(block) for block in content)
    return "".join(string(block, "text") for block in blocks if block.get("type") == "text")[:MAX_TEXT]


def string(thing: Mapping[str, Any], name: str, most: int = MAX_TEXT) -> str:
    """The string under this name, at most so many characters of it; empty where there is none."""
    value = thing.get(name)
    return storable(value, most) if isinstance(value, str) else ""


def storable(text: str, most: int) -> str:
    """The text as a database takes it, at most so many characters of it."""
    return _UNSTORABLE.sub("\ufffd", text[:most])


def _read_response(frame: dict[str, Any]) -> Response:
    request_id = _required(frame, "id")
    if frame.get("ok") is True:
        return Response(request_id, payload=_object(frame.get("payload")))
    error = _object(frame.get("error"))
    fault = Fault(
        code=string(error, "code", MAX_NAME) or "UNKNOWN",
        message=string(error, "message", MAX_REMARK) or "no reason given",
        retryable=error.get("retryable") is True,
        retry_after=seconds(error.get("retryAfterMs")),
        reason=string(_object(error.get("details")), "reason", MAX_NAME) or None,
    )
    return Response(request_id, fault=fault)


def _read_chat(run_id: str, payload: Mapping[str, Any]) -> RunEvent | None:
    message = payload.get("message")
    match payload.get("state"):
        case "status":
            return Status(run_id, string(payload, "phase", MAX_NAME))
        case "delta":
            replace = payload.get("replace") is True
            return Delta(run_id, string(payload, "deltaText"), text_of(message), replace)
        case "final":
            return Final(run_id, text_of(message), read_usage(_object(message).get("usage")))
        case "error":
            status = _object(payload.get("errorDetail")).get("httpStatus")
            words = string(payload, "errorMessage", MAX_REMARK) or "no reason given"
            return Failed(run_id, words, status if isinstance(status, int) else None)
        case "aborted":
            return Aborted(run_id, text_of(message))
        case _:
            return None


def _read_agent(run_id: str, payload: Mapping[str, Any]) -> RunEvent | None:
    if payload.get("stream") != "item":
        return None
    item = _object(payload.get("data"))
    match item.get("kind"), item.get("phase"):
        case "preamble", "end":
            return Status(run_id, "commentary", string(item, "progressText", MAX_REMARK))
        case "tool", ("start" | "update" | "end") as phase:
            call_id = string(item, "toolCallId", MAX_NAME) or string(item, "itemId", MAX_NAME)
            failed = item.get("status") == "failed"
            summary = (failed and string(item, "error")) or string(item, "title") or string(item, "name")
            return Tool(
                run_id,
                call_id,
                string(item, "name", MAX_NAME),
                "result" if phase == "end" else phase,
                summary[:1000],
                failed,
            )
        case _:
            return None


def read_usage(usage: object) -> Mapping[str, int] | None:
    """Tokens by kind (`input`, `output`, `cacheRead`, `cacheWrite`), where told."""
    counted = {
        kind: number
        for kind in ("input", "output", "cacheRead", "cacheWrite")
        if isinstance(number := _object(usage).get(kind), int) and not isinstance(number, bool)
    }
    return counted or None


def _required(frame: Mapping[str, Any], name: str) -> str:
    value = frame.get(name)
    if not isinstance(value, str) or not value:
        raise ProtocolError(f"a frame without {name}")
    return value


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def seconds(milliseconds: object) -> float | None:
    """A number of milliseconds as seconds; None for anything but one between nothing and an hour."""
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, int | float):
        return None
    # A comparison, not a division: a hostile number may be infinite, NaN or too large for a float.
    return milliseconds / 1000 if 0 <= milliseconds <= 3_600_000 else None
