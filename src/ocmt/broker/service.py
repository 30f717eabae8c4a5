"""The broker: authenticates an agent's model call, chooses the key, checks the limits, has it answered.

Bare ASGI, because every token of every answer passes here. Read `_call` first. What the agent is told of a
failure is chosen for OpenClaw's behaviour; what the user is told is the ledger's fault of the call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import aiohttp
import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from ocmt.broker.admission import Admission, Bounds, Seat
from ocmt.broker.model import (
    MODEL_INFO,
    ModelInfo,
    RunningTurn,
    Timeouts,
    model_not_served,
    not_served,
    turn_of,
    unsendable,
)
from ocmt.broker.policy import clean_key, is_key, refused, served_betas
from ocmt.broker.relay import COUNT_TOKENS, MESSAGES, MODEL_CALLS, MODEL_FAULTS, Call, Relay
from ocmt.broker.request import ModelRequest, read, understood
from ocmt.broker.upstream import Upstream
from ocmt.broker.wire import (
    Answer,
    ClientGone,
    Reply,
    ended_by_us,
    header,
    last_words,
    while_connected,
)
from ocmt.errors import InvalidInput, OcmtError
from ocmt.platform.clock import Clock
from ocmt.usage.model import CLIENT_GONE, CallRefused, Fault, KeySource, Limits, NewCall, Tokens
from ocmt.usage.service import Ledger
from ocmt.vault.model import ANTHROPIC_API_KEY
from ocmt.vault.service import FoundKey, ModelKeys

log = structlog.get_logger(__name__)

LARGEST_REQUEST = 32 * 1024 * 1024


@dataclass(frozen=True)
class _Choice:
    source: KeySource
    key: str = field(default="", repr=False)
    fault: Fault | None = None
    found: FoundKey | None = None
    """Of the vault; None: it is the platform's, or there is none."""


class Broker:
    """Model calls of all agents.

    `authenticate` knows the agents' tokens, `running_turns` (oldest first) what an agent works on,
    `reaches_internet` whether an agent may reach it now, and `notice` shows its user a line of progress.
    `models` are those that the platform's key may be used for. The session belongs to the caller.
    """

    def __init__(
        self,
        *,
        keys: ModelKeys,
        ledger: Ledger,
        clock: Clock,
        authenticate: Callable[[str], Awaitable[UUID | None]],
        running_turns: Callable[[UUID], Awaitable[list[RunningTurn]]],
        notice: Callable[[UUID, str], Awaitable[None]],
        reaches_internet: Callable[[UUID], Awaitable[bool]],
        platform_key: str | None,
        models: Sequence[str],
        anthropic_url: str,
        limits: Limits,
        demo_model: bool,
        session: aiohttp.ClientSession,
        timeouts: Timeouts | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        self._keys = keys
        self._ledger = ledger
        self._authenticate = authenticate
        self._running_turns = running_turns
        self._reaches_internet = reaches_internet
        self._platform_key = clean_key(platform_key or "")
        self._models = tuple(models)
        self._limits = limits
        self._demo_model = demo_model
        self._timeouts = timeouts or Timeouts()
        self._upstream = Upstream(session, anthropic_url, self._timeouts)
        self._relay = Relay(self._upstream, ledger, clock, notice, self._timeouts)
        self._admission = Admission(clock, bounds)

    async def model_for(self, user_id: UUID) -> ModelInfo:
        """What answers this user now."""
        if self._demo_model:
            return MODEL_INFO["demo"]
        source = await self._keys.source(user_id, ANTHROPIC_API_KEY)
        if source is not None:
            return MODEL_INFO[source]
        return MODEL_INFO["platform" if self._platform_key else "demo"]

    def app(self, *, user_id: UUID) -> ASGIApp:
        """Return the ASGI app for the listener of that user's agent, where no other agent's token works."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                reply = Reply(send, patience=self._timeouts.taking)
                await self._serve(scope, receive, reply, owner=user_id)

        return app

    async def drain(self) -> None:
        """Wait until what ended is booked; for the shutdown, before the database closes."""
        await self._relay.drain()

    async def _serve(self, scope: Scope, receive: Receive, reply: Reply, *, owner: UUID) -> None:
        try:
            # First of all: whoever is inside may knock without a token as often as with one.
            self._admission.knock(owner)
            path = _path(scope)
            user_id = await self._who(scope, owner)
            with self._admission.seat(user_id) as seat:
                await seat.read_body(
                    scope,
                    receive,
                    limit=LARGEST_REQUEST,
                    timeout=self._timeouts.body,
                    grace=self._timeouts.grace,
                )
                await self._call(user_id, path, scope, receive, reply, seat)
        except ClientGone:
            return
        except Answer as answer:
            await last_words(reply, answer)
        except OcmtError as error:
            await last_words(reply, _for_agent(error))
        except Exception:
            log.exception("model call crashed")
            await last_words(reply, Answer(500, "api_error", "The platform had an internal error."))

    async def _who(self, scope: Scope, owner: UUID) -> UUID:
        token = header(scope, b"x-api-key") or header(scope, b"authorization").removeprefix(b"Bearer ")
        user_id = await self._authenticate(token.decode("latin-1")) if 0 < len(token) <= 512 else None
        if user_id is None or user_id != owner:
            raise Answer(401, "authentication_error", "This token is not an agent's token.")
        return user_id

    async def _call(
        self,
        user_id: UUID,
        path: str,
        scope: Scope,
        receive: Receive,
        reply: Reply,
        seat: Seat,
    ) -> None:
        request = await read(seat.body, user_id, understood)
        choice, turns = await asyncio.gather(self._choose(user_id), self._running_turns(user_id))
        turn = turn_of(turns, session_key=request.session_key, words=request.words)
        new = NewCall(
            user_id=user_id,
            turn_id=turn.turn_id if turn else None,
            provider="demo" if choice.source == "demo" else "anthropic",
            model=request.model,
            key_source=choice.source,
            estimated_tokens=request.estimated_tokens if path == MESSAGES else 0,
            counted_from=turn.started_at if turn else None,
        )
        own_key = choice.source == "user"
        betas = header(scope, b"anthropic-beta")
        internet = bool(betas or any(vars(request.beyond).values())) and await self._reaches_internet(user_id)
        forbidden = self._forbidden(request, choice, own_key=own_key, internet=internet)
        try:
            call_id = await self._ledger.open_call(new, self._limits, forbidden=forbidden)
        except CallRefused as refusal:
            MODEL_FAULTS.labels(refusal.fault.code).inc()
            log.warning("model call refused", user_id=str(user_id), code=refusal.fault.code)
            raise ended_by_us() from refusal
        MODEL_CALLS.labels(choice.source).inc()
        call = Call(
            call_id,
            user_id,
            turn.turn_id if turn else None,
            choice.source,
            choice.key,
            request,
            seat,
            betas=lambda asked: served_betas(asked, own_key=own_key, internet=internet),
            path=path,
        )
        if choice.fault:
            call.fault, call.tokens = choice.fault, Tokens()
            await self._relay.book(call)
            raise ended_by_us()
        try:
            await while_connected(receive, reply, self._relay.answer(call, scope, reply))
        except ClientGone:
            call.fault = call.fault or Fault(CLIENT_GONE, "The agent ended the call.")
            raise
        except asyncio.CancelledError:
            call.fault = call.fault or Fault("interrupted", "The platform was stopped meanwhile. Try again.")
            raise
        except Answer as answer:
            call.fault = call.fault or Fault("too_much_at_once", answer.message)
            raise
        except Exception:
            call.fault = call.fault or Fault("internal", "The platform had an internal error.")
            raise
        finally:
            await self._relay.book(call)
            if choice.found is not None:
                await self._keys.used(choice.found)

    def _forbidden(
        self, request: ModelRequest, choice: _Choice, *, own_key: bool, internet: bool
    ) -> Fault | None:
        """Why the call may not be made at all, whatever the limits say."""
        if choice.source == "demo":
            return None
        if asked := refused(request.beyond, own_key=own_key, internet=internet):
            return not_served(asked)
        if choice.source == "platform" and request.model not in self._models:
            return model_not_served(request.model, self._models)
        return None

    async def _choose(self, user_id: UUID) -> _Choice:
        if self._demo_model:
            return _Choice("demo")
        try:
            found = await self._keys.find(user_id, ANTHROPIC_API_KEY)
        except OcmtError as error:
            if error.retryable:
                raise
            return _Choice("user", fault=Fault(error.code, error.message))
        if found is not None:
            key = clean_key(found.value)
            return _Choice(found.source, key, None if is_key(key) else unsendable(found.source), found)
        if not self._platform_key:
            return _Choice("demo")
        usable = is_key(self._platform_key)
        return _Choice("platform", self._platform_key, None if usable else unsendable("platform"))


def _path(scope: Scope) -> str:
    """Which of the two things that agents may ask for this is. Raises Answer for everything else."""
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    if scope["method"] != "POST" or path not in (MESSAGES, COUNT_TOKENS):
        raise Answer(404, "not_found_error", "Not found.")
    return path


def _for_agent(error: OcmtError) -> Answer:
    if isinstance(error, InvalidInput):
        return Answer(400, "invalid_request_error", error.message)
    if error.retryable:
        return Answer(529, "overloaded_error", "The platform is busy.", retry_after=1)
    log.error("model call failed", code=error.code, detail=error.detail)
    return Answer(500, "api_error", "The platform had an internal error.")
