"""One opened model call: answer it, tell the user of trouble on the way, close it in the ledger.

Whatever happens to the answer, the call is booked, and booked before the agent can see the answer's end: who
asks for a turn's usage or fault then finds all of it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from uuid import UUID

import aiohttp
import structlog
from prometheus_client import Counter
from starlette.types import Scope

from ocmt.broker import demo
from ocmt.broker.admission import Seat
from ocmt.broker.events import UsageReader, as_tokens, split_events, tokens_in
from ocmt.broker.model import STOPS_THE_AGENT, Timeouts, fault_of, notice_of, trouble, unsendable
from ocmt.broker.request import ModelRequest, estimate_tokens, read
from ocmt.broker.upstream import Betas, Upstream, error_in, passed_back
from ocmt.broker.wire import Answer, Reply, ended_by_us, last_words
from ocmt.platform.clock import Clock
from ocmt.platform.telemetry import REGISTRY
from ocmt.platform.work import PARSING
from ocmt.usage.model import Fault, KeySource, Tokens
from ocmt.usage.service import Ledger

log = structlog.get_logger(__name__)

MESSAGES = "/v1/messages"
COUNT_TOKENS = "/v1/messages/count_tokens"
MODEL_CALLS = Counter("ocmt_model_calls", "Model calls made, by whose key.", ["key"], registry=REGISTRY)
MODEL_FAULTS = Counter(
    "ocmt_model_faults", "Model calls that failed or were refused, by reason.", ["code"], registry=REGISTRY
)
_NOTICE_SECONDS = 2
_DRAIN_SECONDS = 5
_EVENT_STREAM = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]


@dataclass
class Call:
    """One model call under way, and what is known so far of how it ends."""

    id: UUID
    user_id: UUID
    turn_id: UUID | None
    source: KeySource
    key: str = field(repr=False)
    request: ModelRequest = field(repr=False)
    seat: Seat = field(repr=False)
    """Holds the request's body until the provider has it."""
    betas: Betas = field(repr=False)
    path: str = MESSAGES
    status: int | None = None
    fault: Fault | None = None
    tokens: Tokens | None = None
    reader: UsageReader = field(default_factory=UsageReader)
    booking: asyncio.Task[None] | None = None


class Relay:
    """Answers opened calls, from the provider or from the demo model."""

    def __init__(
        self,
        upstream: Upstream,
        ledger: Ledger,
        clock: Clock,
        notice: Callable[[UUID, str], Awaitable[None]],
        timeouts: Timeouts,
    ) -> None:
        self._upstream = upstream
        self._ledger = ledger
        self._clock = clock
        self._notice = notice
        self._timeouts = timeouts
        self._bookings: set[asyncio.Task[None]] = set()

    async def answer(self, call: Call, scope: Scope, reply: Reply) -> None:
        """Answer the call. Leaves it to the caller to book a call that was cut short."""
        if call.source == "demo":
            await self._demo(call, reply)
        else:
            await self._provider(call, scope, reply)

    async def book(self, call: Call) -> None:
        """Close the call in the ledger, whatever happens to this task; the first closing counts.

        Waits only a moment: a slow database must not hold up an answer.
        """
        if call.booking is None:
            call.booking = asyncio.create_task(self._close(call))
            self._bookings.add(call.booking)
            call.booking.add_done_callback(self._bookings.discard)
        await asyncio.wait({call.booking}, timeout=self._timeouts.booking)

    async def drain(self) -> None:
        """Wait, at most a few seconds, until all that ended is booked."""
        if self._bookings:
            await asyncio.wait(self._bookings, timeout=_DRAIN_SECONDS)

    async def _provider(self, call: Call, scope: Scope, reply: Reply) -> None:
        """Call the provider and pass its answer on, whatever becomes of it."""
        # A count comes all at once and at once; so does what is streamed begin.
        prompt = call.request.stream or call.path == COUNT_TOKENS
        try:
            async with (
                asyncio.timeout(self._timeouts.total),
                self._upstream.post(
                    call.path, scope, call.seat.body, key=call.key, streamed=prompt, betas=call.betas
                ) as response,
            ):
                call.status = response.status
                # The answer may take a quarter of an hour, in which nobody needs the question.
                call.seat.give_back()
                if response.status != 200:
                    await self._error(call, response, reply)
                elif call.path == MESSAGES and response.content_type == "text/event-stream":
                    await self._stream(call, response, reply)
                else:
                    await self._whole(call, response, reply)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            call.tokens = Tokens()
            await self._failed(call, reply, trouble("unreachable"))
        except TimeoutError:
            await self._failed(call, reply, trouble("timeout"))
        except aiohttp.ClientError:
            await self._failed(call, reply, trouble("broke_off"))
        except ValueError as error:
            # The HTTP client's word for what cannot be sent: a key, or an address of the settings.
            # Without a traceback: its last line can be the key.
            log.warning("model call cannot be sent", kind=type(error).__name__, user_id=str(call.user_id))
            call.fault, call.tokens = call.fault or unsendable(call.source), Tokens()
            await self.book(call)
            await reply.give(ended_by_us())

    async def _stream(self, call: Call, response: aiohttp.ClientResponse, reply: Reply) -> None:
        await reply.start(200, passed_back(response.headers))
        # An event that is not whole is of no use to the agent, and of harm if the stream breaks there: its
        # turn would fail where it could try again. So events pass whole; the bytes are the same.
        held = b""
        async for piece in self._upstream.pieces(response):
            call.reader.feed(piece)
            if call.reader.error and not call.fault:
                call.fault = fault_of(200, *call.reader.error, call.source)
                await self._tell(call)
            if call.reader.complete or call.fault:
                # Before the agent can see the end: who then asks for the turn's usage finds all of it.
                await self.book(call)
            events, held = split_events(held + piece)
            if events:
                await reply.piece(events)
        if call.reader.complete or call.fault:
            await reply.end(held)
        else:
            await self._failed(call, reply, trouble("broke_off"))

    async def _whole(self, call: Call, response: aiohttp.ClientResponse, reply: Reply) -> None:
        body = await self._upstream.whole(response, hold=call.seat.take)
        if call.path == COUNT_TOKENS:
            call.tokens = Tokens()
        elif counts := await PARSING.run(_usage_in, body, of=call.user_id):
            call.tokens = as_tokens(counts)
        await self.book(call)
        await reply.whole(200, body, passed_back(response.headers))

    async def _error(self, call: Call, response: aiohttp.ClientResponse, reply: Reply) -> None:
        body = (await self._upstream.error(response)).replace(call.key.encode(), b"[key]")
        call.tokens = Tokens()
        call.fault = fault_of(response.status, *error_in(body), call.source)
        log.warning("provider error", status=response.status, code=call.fault.code, user_id=str(call.user_id))
        await self._tell(call)
        await self.book(call)
        if call.fault.code in STOPS_THE_AGENT:
            await reply.give(ended_by_us())
        elif response.status < 400:
            await reply.give(Answer(500, "api_error", "The provider gave no answer."))
        else:
            await reply.whole(response.status, body, passed_back(response.headers))

    async def _failed(self, call: Call, reply: Reply, fault: Fault) -> None:
        """No whole answer came: book it, tell the user, and have the agent try again."""
        call.fault = call.fault or fault
        log.warning("provider trouble", code=call.fault.code, user_id=str(call.user_id))
        await self._tell(call)
        await self.book(call)
        # OpenClaw tries again where it reads this word; another one in a stream would end the turn.
        await last_words(reply, Answer(529, "overloaded_error", "Overloaded"))

    async def _demo(self, call: Call, reply: Reply) -> None:
        """Answer from the demo model, with the pace of a real one."""
        call.status = 200
        if call.path == COUNT_TOKENS:
            call.tokens = Tokens()
            await self.book(call)
            await reply.json(200, {"input_tokens": estimate_tokens(len(call.seat.body))})
            return
        answer = await read(call.seat.body, call.user_id, lambda tree, _: demo.answer(tree))
        if not call.request.stream:
            message = demo.message(answer, call.request.model, len(call.seat.body))
            call.tokens = as_tokens(tokens_in(message["usage"]))
            await self.book(call)
            await reply.json(200, message)
            return
        await reply.start(200, _EVENT_STREAM)
        for wait, piece in demo.stream(answer, call.request.model, len(call.seat.body)):
            if wait:
                await self._clock.sleep(wait)
            call.reader.feed(piece)
            if call.reader.complete:
                await self.book(call)
            await reply.piece(piece)
        await reply.end()

    async def _tell(self, call: Call) -> None:
        """Show the user that the agent tries again; an answer must not fail or wait for that."""
        text = notice_of(call.fault) if call.fault else None
        if text is None or call.turn_id is None:
            return
        try:
            async with asyncio.timeout(_NOTICE_SECONDS):
                await self._notice(call.turn_id, text)
        except Exception:
            log.exception("notice failed", turn_id=str(call.turn_id))

    async def _close(self, call: Call) -> None:
        if call.fault:
            MODEL_FAULTS.labels(call.fault.code).inc()
        tokens = call.tokens or call.reader.tokens
        try:
            await self._ledger.close_call(
                call.id, user_id=call.user_id, status=call.status, tokens=tokens, fault=call.fault
            )
        except Exception:
            # The row stays open: it counts as a call, with its estimate, and is shown as unfinished.
            log.exception("model call left open in the ledger", call_id=str(call.id))


def _usage_in(body: bytes) -> dict[str, int]:
    try:
        return tokens_in(json.loads(body)["usage"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
