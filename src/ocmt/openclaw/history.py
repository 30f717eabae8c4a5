"""What a conversation's history says about a run: pure reading of `chat.history`, for turns after a crash.

OpenClaw takes a turn that a crash interrupted up again by itself, a few seconds after its start, under a run
id of its own. So nothing may be sent again before the history has been asked. Facts: docs/openclaw.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from ocmt.openclaw.protocol import MAX_NAME, read_usage, storable, string, text_of

OutcomeStatus = Literal["finished", "running", "resuming", "failed", "stopped", "unknown"]


@dataclass(frozen=True)
class RunOutcome:
    """What became of a run.

    `finished`: `text` is its answer. `running`: follow the events of `run_id`, which may be another run than
    the one that was asked about. `resuming`: OpenClaw is about to take it up again. `failed` and `stopped`:
    it ended without an answer. `unknown`: the gateway has never had it, or has lost it; sending is safe.
    """

    status: OutcomeStatus
    run_id: str | None = None
    text: str | None = None


@dataclass(frozen=True)
class HistoryMessage:
    """One entry of a conversation, as OpenClaw shows it."""

    role: str
    """`user`, `assistant` or `toolResult`."""
    text: str
    timestamp: datetime | None = None
    run_id: str | None = None
    """The run that wrote it; also of a message that started a run (there it is the idempotency key)."""
    stop_reason: str | None = None
    """Of an assistant's entry: `stop`, `toolUse`, `error`, `length`; None for a passing remark."""
    internal: bool = False
    """Written by OpenClaw itself, such as the notice with which it resumes a turn."""
    aborted: bool = False
    usage: Mapping[str, int] | None = None

    @property
    def ends_run(self) -> bool:
        """Whether this is the last word of a run."""
        return self.role == "assistant" and self.stop_reason not in (None, "toolUse")


@dataclass(frozen=True)
class History:
    """A conversation, oldest first, and what runs in it now."""

    messages: tuple[HistoryMessage, ...] = ()
    active_run_ids: tuple[str, ...] = ()
    active: bool = False
    """Whether anything runs; a run that is being resumed has no name yet for some seconds."""
    session_status: str | None = None
    """`running`, `done`, `failed`, …; `running` without an active run: interrupted, and about to resume."""
    last_run_id: str | None = None


def read_history(payload: Mapping[str, Any]) -> History:
    """The answer of `chat.history`. Never raises; what makes no sense is left out."""
    session = _object(payload.get("sessionInfo"))
    in_flight = string(_object(payload.get("inFlightRun")), "runId", MAX_NAME)
    names = (name for name in _list(session.get("activeRunIds")) if isinstance(name, str))
    listed = [storable(name, MAX_NAME) for name in names]
    active_run_ids = tuple(dict.fromkeys([*filter(None, [in_flight]), *listed]))
    return History(
        messages=tuple(
            _message(entry) for entry in _list(payload.get("messages")) if isinstance(entry, dict)
        ),
        active_run_ids=active_run_ids,
        active=session.get("hasActiveRun") is True or bool(active_run_ids),
        session_status=string(session, "status") or None,
        last_run_id=string(session, "lastRunId") or None,
    )


def settle(history: History, *, run_id: str, message_key: str) -> RunOutcome:
    """What became of the run that the message with this idempotency key started (or that `run_id` names)."""
    begun = {run_id, message_key}
    turn = _turn(history.messages, begun)
    if not turn:
        still = next((active for active in history.active_run_ids if active in begun), None)
        return RunOutcome("running", still) if still else RunOutcome("unknown")
    runs = begun | {entry.run_id for entry in turn if entry.internal and entry.run_id}
    resumed = max((place for place, entry in enumerate(turn) if entry.internal), default=0)
    last = next(
        (
            entry
            for entry in reversed(turn[resumed:])
            if entry.ends_run and (entry.run_id is None or entry.run_id in runs)
        ),
        None,
    )
    if last is not None:
        return _ended(last)
    if history.active_run_ids:
        known = [active for active in history.active_run_ids if active in runs]
        return RunOutcome("running", next(iter([*known, *history.active_run_ids])))
    if history.active or history.session_status == "running":
        return RunOutcome("resuming")
    if history.session_status == "failed" and history.last_run_id in runs:
        return RunOutcome("failed", history.last_run_id)
    return RunOutcome("unknown")


def _ended(last: HistoryMessage) -> RunOutcome:
    if last.aborted:
        return RunOutcome("stopped", last.run_id, last.text)
    if last.stop_reason == "error":
        return RunOutcome("failed", last.run_id, last.text)
    return RunOutcome("finished", last.run_id, last.text)


def _turn(messages: Sequence[HistoryMessage], begun: set[str]) -> Sequence[HistoryMessage]:
    """The entries of one turn: from its message (or its first trace) to the next message of a person."""
    first = next((place for place, entry in enumerate(messages) if entry.run_id in begun), None)
    if first is None:
        return ()
    rest = range(first + 1, len(messages))
    end = next(
        (place for place in rest if messages[place].role == "user" and not messages[place].internal), None
    )
    return messages[first:end]


def _message(entry: dict[str, Any]) -> HistoryMessage:
    meta = _object(entry.get("__openclaw"))
    key = string(entry, "idempotencyKey") or string(meta, "idempotencyKey")
    run_id = string(meta, "runId") or (key.removesuffix(":user") if key.endswith(":user") else "")
    return HistoryMessage(
        role=string(entry, "role"),
        text=text_of(entry),
        timestamp=_moment(entry.get("timestamp")),
        run_id=run_id or None,
        stop_reason=string(entry, "stopReason") or None,
        internal=string(_object(entry.get("provenance")), "kind") == "internal_system",
        aborted=_object(entry.get("openclawAbort")).get("aborted") is True,
        usage=read_usage(entry.get("usage")),
    )


def _moment(milliseconds: object) -> datetime | None:
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, int | float):
        return None
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
