"""An OpenClaw gateway as a double on the wire: a real socket, scripted answers, and faults to order.

    async with FakeGateway(clock) as gateway:
        gateway.script(Say("Hello"), UseTool("write", "Write to hello.txt"), Say("Done."))
        client = await GatewayClient.connect(gateway.dial, token=gateway.token, clock=clock, timeout=5)

Each message takes the next script; without one the answer is `You said: …`. The double is kept honest by
`tests/openclaw/test_contract.py`, which runs on it and on the real gateway. Shapes: docs/openclaw.md.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self
from uuid import uuid4

from websockets.exceptions import ConnectionClosed

from ocmt.chat.controls import asks_to_stop
from ocmt.platform.clock import Clock
from ocmt.testing.gateway_cron import FakeCron
from ocmt.testing.gateway_steps import (
    Die,
    Disconnect,
    Fail,
    Hold,
    Remark,
    Retract,
    Say,
    SendRaw,
    Step,
    UseTool,
    Wait,
)
from ocmt.testing.gateway_wire import Answer, GatewayServer, unavailable

__all__ = [
    "Die",
    "Disconnect",
    "Fail",
    "FakeGateway",
    "Hold",
    "Remark",
    "Retract",
    "Say",
    "SendRaw",
    "Step",
    "UseTool",
    "Wait",
]

RESUME_DELAY = 3.0
"""Seconds after a restart in which the real gateway takes an interrupted turn up again."""


@dataclass
class _Run:
    id: str
    session_key: str
    text: str = ""
    task: asyncio.Task[None] | None = None
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))


@dataclass
class _Session:
    messages: list[dict[str, Any]] = field(default_factory=list)
    run: _Run | None = None
    status: str | None = None
    last_run_id: str | None = None
    answer: tuple[Step, ...] = ()
    """The script of the run under way, for its resumption."""


class _Ended(Exception):
    """A run is over before its script is."""


class FakeGateway(GatewayServer):
    """See the module. All attributes may be changed at any time; they act on what comes next."""

    def __init__(self, clock: Clock, *, token: str = "gateway-token") -> None:  # noqa: S107
        super().__init__(clock, token=token)
        self.busy: list[str] = []
        """While not empty it refuses to be suspended, naming these."""
        self.refuse_messages = 0
        """So many messages are refused as if it was suspended."""
        self._sessions: dict[str, _Session] = {}
        self._runs: dict[str, str] = {}
        self._scripts: deque[tuple[Step, ...]] = deque()
        self._numbers = itertools.count(1)
        self.cron = FakeCron(clock, tell=lambda payload: self._broadcast("cron", payload), spawn=self._spawn)
        """What the agent has planned; it runs on the clock, as long as the gateway lives."""

    # For tests

    def script(self, *steps: Step) -> None:
        """The answer to the next message that has none yet; it ends well after the last step."""
        self._scripts.append(steps)

    @property
    def dead(self) -> bool:
        """Whether it was killed, or killed itself, and has not come back."""
        return self._dead

    def messages(self, session_key: str | None = None) -> list[str]:
        """What `chat.send` has brought, in order, repeated keys included."""
        sent = [params for method, params in self.received if method == "chat.send"]
        return [params["message"] for params in sent if session_key in (None, params["sessionKey"])]

    def attached(self) -> list[tuple[str, str, bytes]]:
        """Name, media type and content of all files that came with messages, repeated keys included."""
        sent = [params for method, params in self.received if method == "chat.send"]
        return [
            (one["fileName"], one["mimeType"], base64.b64decode(one["content"], validate=True))
            for params in sent
            for one in params.get("attachments", [])
        ]

    async def kill(self) -> None:
        """Die as by SIGKILL: connections break, runs stop where they are, only the history is kept."""
        self._dead = True
        self.cron.stop()
        self._runs.clear()
        self.suspension = None
        for session in self._sessions.values():
            run, session.run = session.run, None
            if run is not None and run.task is not None and run.task is not asyncio.current_task():
                run.task.cancel()
        await self.disconnect()

    async def restart(self) -> None:
        """Come back after `kill`; interrupted turns resume by themselves after RESUME_DELAY.

        The resumption takes the next script; with none it repeats its own, without the faults in it.
        """
        self._dead = False
        self.cron.start()
        for session_key, session in self._sessions.items():
            if session.status == "running":
                self._spawn(self._resume(session_key, session))

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self.cron.start()
        return self

    def _methods(self) -> Mapping[str, Answer]:
        return {
            "chat.send": self._chat_send,
            "chat.history": self._chat_history,
            "chat.abort": self._chat_abort,
            "gateway.suspend.prepare": self._prepare,
            "gateway.suspend.resume": self._resume_suspended,
            **self.cron.methods(),
        }

    def _chat_send(self, params: dict[str, Any]) -> dict[str, Any]:
        if self.refuse_messages > 0:
            self.refuse_messages -= 1
            words = "chat.send unavailable during gateway suspension"
            return {"error": unavailable(words, 1000, "gateway-suspending")}
        session_key, message, key = params["sessionKey"], params["message"], params["idempotencyKey"]
        attached = params.get("attachments", [])
        if not message and not attached:
            return {"error": {"code": "INVALID_REQUEST", "message": "message or attachment required"}}
        if key in self._runs:
            if self._runs[key] == "error":
                return {"error": {"code": "UNAVAILABLE", "message": "Agent failed before reply"}}
            return {"payload": {"runId": key, "status": self._runs[key]}}
        if not params.get("suppressCommandInterpretation") and asks_to_stop(message):
            # As OpenClaw does it: no run, no status, and nothing in the history.
            return self._chat_abort({"sessionKey": session_key})
        session = self._sessions.setdefault(session_key, _Session())
        session.messages.append(self._entry("user", message, idempotencyKey=f"{key}:user"))
        run = _Run(key, session_key)
        if session.run is None:
            script = self._scripts.popleft() if self._scripts else (Say("You said: "), Say(message))
            self._begin(session, run, script)
        else:  # it joins the run under way, and ends without an answer of its own
            self._runs[key] = "ok"
            self._spawn(self._chat(run, state="final"))
        return {"payload": {"runId": key, "status": "started"}}

    def _chat_history(self, params: dict[str, Any]) -> dict[str, Any]:
        session = self._sessions.get(params["sessionKey"], _Session())
        run = session.run
        info: dict[str, Any] = {
            "key": params["sessionKey"],
            "hasActiveRun": run is not None,
            "activeRunIds": [run.id] if run else [],
        }
        info |= {"status": session.status} if session.status else {}
        info |= {"lastRunId": session.last_run_id} if session.last_run_id else {}
        payload: dict[str, Any] = {
            "sessionKey": params["sessionKey"],
            "messages": session.messages[-params.get("limit", 200) :],
            "sessionInfo": info,
        }
        if run is not None:
            payload["inFlightRun"] = {"runId": run.id, "text": run.text}
        return {"payload": payload}

    def _chat_abort(self, params: dict[str, Any]) -> dict[str, Any]:
        session = self._sessions.get(params["sessionKey"])
        run = session.run if session else None
        if session is None or run is None or params.get("runId") not in (None, run.id):
            return {"payload": {"ok": True, "aborted": False, "runIds": []}}
        assert run.task is not None
        run.task.cancel()
        session.run, session.status, session.last_run_id = None, "killed", run.id
        self._runs[run.id] = "ok"
        mark = {"openclawAbort": {"aborted": True, "origin": "rpc", "runId": run.id}}
        session.messages.append(self._entry("assistant", run.text, run_id=run.id, stopReason="stop", **mark))
        self._spawn(self._chat(run, state="aborted", stopReason="rpc", message=_message(run.text)))
        return {"payload": {"ok": True, "aborted": True, "runIds": [run.id]}}

    def _prepare(self, params: dict[str, Any]) -> dict[str, Any]:
        working = [session.run.id for session in self._sessions.values() if session.run]
        blockers = [*self.busy, *(["1 active chat run(s)"] if working else []), *self.cron.blockers()]
        if blockers:
            told = [{"kind": "chat-run", "count": 1, "message": words} for words in blockers]
            busy = {"status": "busy", "reason": "active-work", "retryAfterMs": 20000, "blockers": told}
            return {"payload": busy}
        request_id = params["requestId"]
        if self.suspension and self.suspension[0] != request_id:
            words = "another gateway suspension is already prepared"
            return {"error": unavailable(words, 119_998, "gateway-suspension-conflict")}
        self.suspension = self.suspension or (request_id, str(uuid4()))
        self.cron.hold_still()
        ready = {"status": "ready", "suspensionId": self.suspension[1], "activeCount": 0, "blockers": []}
        return {"payload": ready}

    def _resume_suspended(self, params: dict[str, Any]) -> dict[str, Any]:
        resumed = self.suspension is not None and self.suspension[1] == params["suspensionId"]
        if resumed:
            self.suspension = None
            self.cron.go_on()
        return {"payload": {"ok": True, "status": "running", "resumed": resumed}}

    # Runs

    def _begin(self, session: _Session, run: _Run, steps: tuple[Step, ...]) -> None:
        session.run, session.status, session.answer = run, "running", steps
        self._runs[run.id] = "in_flight"
        run.task = self._spawn(self._play(session, run, steps))

    async def _resume(self, session_key: str, session: _Session) -> None:
        await self._clock.sleep(RESUME_DELAY)
        if self._dead or session.run is not None or session.status != "running":
            return  # it has died again meanwhile, or come back twice
        run = _Run(str(uuid4()), session_key)
        notice = "[System] Your previous turn was interrupted by a gateway restart."
        origin = {"kind": "internal_system", "sourceTool": "main_session_restart_recovery"}
        session.messages.append(
            self._entry("user", notice, idempotencyKey=f"{run.id}:user", provenance=origin)
        )
        same = tuple(step for step in session.answer if not isinstance(step, Die | Disconnect | Hold))
        self._begin(session, run, self._scripts.popleft() if self._scripts else same)

    async def _play(self, session: _Session, run: _Run, steps: tuple[Step, ...]) -> None:
        await self._chat(run, state="status", phase="preparing_workspace")
        await self._chat(run, state="status", phase="starting_model")
        try:
            for step in steps:
                await self._step(session, run, step)
        except _Ended:
            return
        session.run, session.status, session.last_run_id = None, "done", run.id
        self._runs[run.id] = "ok"
        usage = {"input": 100, "output": 42, "cacheRead": 0, "cacheWrite": 0}
        session.messages.append(
            self._entry("assistant", run.text, run_id=run.id, stopReason="stop", usage=usage)
        )
        await self._chat(run, state="final", stopReason="stop", message=_message(run.text))

    async def _step(self, session: _Session, run: _Run, step: Step) -> None:
        match step:
            case Say(text):
                run.text += text
                await self._chat(run, state="delta", deltaText=text, message=_message(run.text))
            case Retract():
                run.text = ""
                await self._chat(run, state="delta", deltaText="", replace=True, message=_message(""))
            case Remark(text):
                await self._item(run, kind="preamble", phase="end", title="Preamble", progressText=text)
            case UseTool():
                await self._use_tool(session, run, step)
            case Wait(seconds):
                await self._clock.sleep(seconds)
            case Hold(until):
                await until.wait()
            case Fail(message, http_status):
                session.run, session.status, session.last_run_id = None, "failed", run.id
                self._runs[run.id] = "error"
                detail = {"provider": "anthropic", "httpStatus": http_status}
                await self._chat(run, state="error", errorMessage=message, errorDetail=detail)
                await self._chat(run, state="error", errorMessage=f"Agent failed before reply: {message}")
                raise _Ended
            case Disconnect():
                await self.disconnect()
            case Die():
                await self.kill()
                raise _Ended
            case SendRaw(data):
                for connection in list(self._connections):
                    with suppress(ConnectionClosed):
                        await connection.send(data)

    async def _use_tool(self, session: _Session, run: _Run, step: UseTool) -> None:
        call_id = f"toolu_{next(self._numbers)}"
        item = {"kind": "tool", "name": step.name, "toolCallId": call_id, "title": step.title}
        await self._item(run, **item, phase="start", status="running")
        call = {"type": "toolCall", "id": call_id, "name": step.name, "arguments": {}}
        asked = self._entry("assistant", "", run_id=run.id, stopReason="toolUse")
        session.messages.append(asked | {"content": [call]})
        session.messages.append(self._entry("toolResult", step.error or "ok", run_id=run.id))
        ended = {"status": "failed", "error": step.error} if step.error else {"status": "completed"}
        await self._item(run, **item, phase="end", **ended)

    async def _item(self, run: _Run, **data: Any) -> None:
        await self._tell_of(run, "agent", {"stream": "item", "data": data})

    async def _chat(self, run: _Run, **payload: Any) -> None:
        await self._tell_of(run, "chat", payload)

    async def _tell_of(self, run: _Run, event: str, payload: Mapping[str, Any]) -> None:
        about = {"runId": run.id, "sessionKey": run.session_key, "agentId": "main", "seq": next(run.numbers)}
        await self._broadcast(event, {**about, **payload})

    def _entry(self, role: str, text: str, *, run_id: str | None = None, **more: Any) -> dict[str, Any]:
        content: object = text if role == "user" else [{"type": "text", "text": text}]
        meta: dict[str, Any] = {"id": str(uuid4()), "seq": next(self._numbers)}
        meta |= {"runId": run_id} if run_id else {}
        shown = {"role": role, "content": content, "timestamp": self._milliseconds()}
        return shown | more | {"__openclaw": meta}


def _message(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}
