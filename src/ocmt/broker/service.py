"""The broker: authenticates an agent's model call, opens it in the ledger, relays it, books what it used.

Bare ASGI, because every token of every answer passes here. Read `_call` first. What the agent is told of a
failure is chosen for OpenClaw's behaviour; what the user is told is the ledger's fault of the call.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from uuid import UUID

import aiohttp
import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from ocmt.broker import demo
from ocmt.broker.events import UsageReader, as_tokens, tokens_in
from ocmt.broker.model import (
    MODEL_INFO,
    STOPS_THE_AGENT,
    ModelInfo,
    RunningTurn,
    Timeouts,
    fault_of,
    notice_of,
    trouble,
    turn_of,
)
from ocmt.broker.request import ModelRequest, estimate_tokens, parse, read_request
from ocmt.broker.upstream import Upstream, error_in, passed_back
from ocmt.broker.wire import Admission, Answer, ClientGone, Reply, ended_by_us, header, while_connected
from ocmt.errors import InvalidInput, OcmtError
from ocmt.platform.clock import Clock
from ocmt.usage.model import CLIENT_GONE, CallRefused, Fault, KeySource, Limits, NewCall, Tokens
from ocmt.usage.service import Ledger
from ocmt.vault.model import ANTHROPIC_API_KEY
from ocmt.vault.service import Vault

log = structlog.get_logger(__name__)

MESSAGES = "/v1/messages"
COUNT_TOKENS = "/v1/messages/count_tokens"
LARGEST_REQUEST = 32 * 1024 * 1024
_NOTICE_SECONDS = 2
_LAST_WORDS_SECONDS = 5
_EVENT_STREAM = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]


@dataclass
class _Call:
    """One model call under way, and what is known so far of how it ends."""

    id: UUID
    user_id: UUID
    turn_id: UUID | None
    source: KeySource
    key: str
    request: ModelRequest
    body: bytes
    status: int | None = None
    fault: Fault | None = None
    tokens: Tokens | None = None
    reader: UsageReader = field(default_factory=UsageReader)
    booking: asyncio.Task[None] | None = None


@dataclass(frozen=True)
class _Choice:
    source: KeySource
    key: str = field(default="", repr=False)
    fault: Fault | None = None


class Broker:
    """Model calls of all agents.

    `authenticate` knows the agents' tokens, `running_turns` (oldest first) what an agent works on, and
    `notice` shows its user a line of progress. The session belongs to the caller.
    """

    def __init__(
        self,
        *,
        vault: Vault,
        ledger: Ledger,
        clock: Clock,
        authenticate: Callable[[str], Awaitable[UUID | None]],
        running_turns: Callable[[UUID], Awaitable[list[RunningTurn]]],
        notice: Callable[[UUID, str], Awaitable[None]],
        platform_key: str | None,
        anthropic_url: str,
        turn_call_limit: int,
        daily_token_limit: int,
        demo_model: bool,
        session: aiohttp.ClientSession,
        timeouts: Timeouts | None = None,
    ) -> None:
        self._vault = vault
        self._ledger = ledger
        self._clock = clock
        self._authenticate = authenticate
        self._running_turns = running_turns
        self._notice = notice
        self._platform_key = platform_key
        self.limits = Limits(turn_calls=turn_call_limit, daily_tokens=daily_token_limit)
        self._demo_model = demo_model
        self._timeouts = timeouts or Timeouts()
        self._upstream = Upstream(session, anthropic_url, self._timeouts)
        self._admission = Admission()
        self._bookings: set[asyncio.Task[None]] = set()

    async def model_for(self, user_id: UUID) -> ModelInfo:
        """What answers this user now."""
        if self._demo_model:
            return MODEL_INFO["demo"]
        if any(item.name == ANTHROPIC_API_KEY for item in await self._vault.list(user_id)):
            return MODEL_INFO["user"]
        return MODEL_INFO["platform" if self._platform_key else "demo"]

    def app(self, *, user_id: UUID | None = None) -> ASGIApp:
        """The ASGI app. With `user_id` it serves that user's agent only: another's token is refused."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                await self._serve(scope, receive, Reply(send), owner=user_id)

        return app

    async def drain(self) -> None:
        """Wait until what ended is booked; for the shutdown, before the database closes."""
        if self._bookings:
            await asyncio.wait(self._bookings, timeout=_LAST_WORDS_SECONDS)

    async def _serve(self, scope: Scope, receive: Receive, reply: Reply, *, owner: UUID | None) -> None:
        try:
            path = _path(scope)
            user_id = await self._who(scope, owner)
            with self._admission.seat(user_id) as seat:
                body = await seat.read_body(
                    scope, receive, limit=LARGEST_REQUEST, timeout=self._timeouts.body
                )
                if path == COUNT_TOKENS:
                    await while_connected(receive, reply, self._count_tokens(user_id, scope, body, reply))
                else:
                    await self._call(user_id, scope, receive, body, reply)
        except ClientGone:
            return
        except Answer as answer:
            await self._last_words(reply, answer)
        except OcmtError as error:
            await self._last_words(reply, _for_agent(error))
        except Exception:
            log.exception("model call crashed")
            await self._last_words(reply, Answer(500, "api_error", "The platform had an internal error."))

    async def _who(self, scope: Scope, owner: UUID | None) -> UUID:
        token = header(scope, b"x-api-key") or header(scope, b"authorization").removeprefix(b"Bearer ")
        user_id = await self._authenticate(token.decode("latin-1")) if 0 < len(token) <= 512 else None
        if user_id is None or (owner is not None and user_id != owner):
            raise Answer(401, "authentication_error", "This token is not an agent's token.")
        return user_id

    async def _call(self, user_id: UUID, scope: Scope, receive: Receive, body: bytes, reply: Reply) -> None:
        request = read_request(body)
        choice = await self._choose(user_id)
        turns = await self._running_turns(user_id)
        turn = turn_of(turns, session_key=request.session_key, words=request.words)
        try:
            call_id = await self._ledger.open_call(
                NewCall(
                    user_id=user_id,
                    turn_id=turn.turn_id if turn else None,
                    provider="demo" if choice.source == "demo" else "anthropic",
                    model=request.model,
                    key_source=choice.source,
                    estimated_tokens=request.estimated_tokens,
                    counted_from=turn.started_at if turn else None,
                ),
                self.limits,
            )
        except CallRefused as refused:
            log.warning("model call refused", user_id=str(user_id), code=refused.fault.code)
            raise ended_by_us() from refused
        call = _Call(
            call_id, user_id, turn.turn_id if turn else None, choice.source, choice.key, request, body
        )
        try:
            if choice.fault:
                call.fault, call.tokens = choice.fault, Tokens()
                await self._booked(call)
                raise ended_by_us()
            answer = self._demo(call, reply) if call.source == "demo" else self._relay(call, scope, reply)
            await while_connected(receive, reply, answer)
        except ClientGone:
            call.fault = call.fault or Fault(CLIENT_GONE, "The agent ended the call.")
            raise
        finally:
            await self._booked(call)

    async def _choose(self, user_id: UUID) -> _Choice:
        if self._demo_model:
            return _Choice("demo")
        try:
            own = await self._vault.get(user_id, ANTHROPIC_API_KEY)
        except OcmtError as error:
            if error.retryable:
                raise
            return _Choice("user", fault=Fault(error.code, error.message))
        if own:
            return _Choice("user", own)
        return _Choice("platform", self._platform_key) if self._platform_key else _Choice("demo")

    async def _relay(self, call: _Call, scope: Scope, reply: Reply) -> None:
        """Call the provider and pass its answer on, whatever becomes of it."""
        try:
            async with (
                asyncio.timeout(self._timeouts.total),
                self._upstream.post(
                    MESSAGES, scope, call.body, key=call.key, streamed=call.request.stream
                ) as response,
            ):
                call.status = response.status
                if response.status == 200 and response.content_type == "text/event-stream":
                    await self._stream(call, response, reply)
                elif response.status == 200:
                    await self._whole(call, response, reply)
                else:
                    await self._error(call, response, reply)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            call.tokens = Tokens()
            await self._failed(call, reply, trouble("unreachable"))
        except TimeoutError:
            await self._failed(call, reply, trouble("timeout"))
        except aiohttp.ClientError:
            await self._failed(call, reply, trouble("broke_off"))

    async def _stream(self, call: _Call, response: aiohttp.ClientResponse, reply: Reply) -> None:
        await reply.start(200, passed_back(response.headers))
        async for piece in self._upstream.pieces(response):
            call.reader.feed(piece)
            if call.reader.error and not call.fault:
                call.fault = fault_of(200, *call.reader.error, call.source)
                await self._tell(call)
            if call.reader.complete or call.fault:
                # Before the agent can see the end: who then asks for the turn's usage finds all of it.
                await self._booked(call)
            await reply.piece(piece)
        if call.reader.complete or call.fault:
            await reply.end()
        else:
            await self._failed(call, reply, trouble("broke_off"))

    async def _whole(self, call: _Call, response: aiohttp.ClientResponse, reply: Reply) -> None:
        body = await self._upstream.whole(response)
        try:
            counts = tokens_in(json.loads(body)["usage"])
        except (ValueError, KeyError, TypeError, RecursionError):
            counts = {}
        if counts:
            call.tokens = as_tokens(counts)
        await self._booked(call)
        await reply.whole(200, body, passed_back(response.headers))

    async def _error(self, call: _Call, response: aiohttp.ClientResponse, reply: Reply) -> None:
        body = (await self._upstream.whole(response)).replace(call.key.encode(), b"[key]")
        call.tokens = Tokens()
        call.fault = fault_of(response.status, *error_in(body), call.source)
        log.warning("provider error", status=response.status, code=call.fault.code, user_id=str(call.user_id))
        await self._tell(call)
        await self._booked(call)
        if call.fault.code in STOPS_THE_AGENT:
            await reply.give(ended_by_us())
        elif response.status < 400:
            await reply.give(Answer(500, "api_error", "The provider gave no answer."))
        else:
            await reply.whole(response.status, body, passed_back(response.headers))

    async def _failed(self, call: _Call, reply: Reply, fault: Fault) -> None:
        """No whole answer came: book it, tell the user, and have the agent try again."""
        call.fault = call.fault or fault
        log.warning("provider trouble", code=call.fault.code, user_id=str(call.user_id))
        await self._tell(call)
        await self._booked(call)
        await self._last_words(reply, Answer(529, "overloaded_error", "The provider gave no whole answer."))

    async def _demo(self, call: _Call, reply: Reply) -> None:
        """Answer from the demo model, with the pace of a real one."""
        call.status = 200
        answer = demo.answer(parse(call.body))
        if not call.request.stream:
            message = demo.message(answer, call.request.model, len(call.body))
            call.tokens = as_tokens(tokens_in(message["usage"]))
            await self._booked(call)
            await reply.json(200, message)
            return
        await reply.start(200, _EVENT_STREAM)
        for wait, piece in demo.stream(answer, call.request.model, len(call.body)):
            if wait:
                await self._clock.sleep(wait)
            call.reader.feed(piece)
            if call.reader.complete:
                await self._booked(call)
            await reply.piece(piece)
        await reply.end()

    async def _count_tokens(self, user_id: UUID, scope: Scope, body: bytes, reply: Reply) -> None:
        parse(body)
        choice = await self._choose(user_id)
        if choice.fault:
            raise ended_by_us()
        if choice.source == "demo":
            await reply.json(200, {"input_tokens": estimate_tokens(len(body))})
            return
        try:
            async with (
                asyncio.timeout(self._timeouts.first_byte),
                self._upstream.post(COUNT_TOKENS, scope, body, key=choice.key, streamed=True) as response,
            ):
                counted = (await self._upstream.whole(response)).replace(choice.key.encode(), b"[key]")
        except (TimeoutError, aiohttp.ClientError) as error:
            raise Answer(529, "overloaded_error", "The provider gave no whole answer.") from error
        if response.status != 200:
            fault = fault_of(response.status, *error_in(counted), choice.source)
            if fault.code in STOPS_THE_AGENT:
                raise ended_by_us()
        await reply.whole(response.status, counted, passed_back(response.headers))

    async def _tell(self, call: _Call) -> None:
        """Show the user that the agent tries again; an answer must not fail or wait for that."""
        text = notice_of(call.fault) if call.fault else None
        if text is None or call.turn_id is None:
            return
        try:
            async with asyncio.timeout(_NOTICE_SECONDS):
                await self._notice(call.turn_id, text)
        except Exception:
            log.exception("notice failed", turn_id=str(call.turn_id))

    async def _booked(self, call: _Call) -> None:
        """Close the call in the ledger, whatever happens to this task; the first closing counts.

        Waits only a moment: a slow database must not hold up an answer.
        """
        if call.booking is None:
            call.booking = asyncio.create_task(self._book(call))
            self._bookings.add(call.booking)
            call.booking.add_done_callback(self._bookings.discard)
        await asyncio.wait({call.booking}, timeout=self._timeouts.booking)

    async def _book(self, call: _Call) -> None:
        tokens = call.tokens or call.reader.tokens
        try:
            await self._ledger.close_call(
                call.id, user_id=call.user_id, status=call.status, tokens=tokens, fault=call.fault
            )
        except Exception:
            # The row stays open: it counts as a call, with its estimate, and is shown as unfinished.
            log.exception("model call left open in the ledger", call_id=str(call.id))

    async def _last_words(self, reply: Reply, answer: Answer) -> None:
        """Answer an agent that may not be listening any more. Unfinished answers end with the connection."""
        try:
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                await reply.give(answer)
        except TimeoutError:
            log.info("agent did not take its answer", status=answer.status)


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
