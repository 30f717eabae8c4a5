"""Answers one turn: wakes the agent, sends the message, writes what streams back, and ends the turn.

A turn found `running` that this process did not start was left by a crash: the gateway is asked what became
of it before anything is sent again. Which turns there are to answer is `worker`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import NoReturn
from uuid import UUID

import structlog

from ocmt.agents.gateway import (
    Aborted,
    Delta,
    Failed,
    Final,
    GatewayClient,
    GatewayError,
    RunEvent,
    Status,
    Tool,
)
from ocmt.agents.lifecycle import Driver
from ocmt.agents.service import Agents
from ocmt.agents.starting import AgentFailed
from ocmt.chat import log as event_log
from ocmt.chat.attachments import Attachments, NotCarried, Stopped
from ocmt.chat.controls import STOPPED
from ocmt.chat.model import MAX_ATTEMPTS, Event, EventType, Fault, Turn, TurnStatus, no_room
from ocmt.chat.run import Ended, GatewayLost, Run
from ocmt.chat.service import accepted_event, queries, turn_from_row
from ocmt.errors import LeaseLost, OcmtError, Unavailable
from ocmt.platform.clock import Clock
from ocmt.platform.database import Database
from ocmt.platform.storage import Budgets

logger = structlog.get_logger(__name__)

UsageOf = Callable[[UUID, UUID], Awaitable[dict[str, int] | None]]
"""(user, turn) → what its model calls have used."""
Explain = Callable[[UUID, UUID], Awaitable[Fault | None]]
"""(user, turn) → why its last model call failed, in plain words; None where the model is not to blame."""

BUSY_RETRIES = 20
"""How often a gateway is asked again that answers "not now" to a message (it may just be waking)."""
BUSY_DELAY = 0.25
MAX_ANSWER = 8 * 1024 * 1024
"""Characters of one attempt: what an agent has to say is not trusted, and all of it is kept."""

SMALL_ANSWER = 64 * 1024
"""Characters of an answer that is kept although no room is left."""

INTERNAL = Fault("internal", "Something went wrong on our side while your agent worked.", retryable=True)
TOO_LONG = Fault(
    "answer_too_long", "Your agent's answer grew beyond all measure, so it was stopped.", retryable=True
)
FULL = Fault(
    "storage_full",
    "Your agent was stopped, because your conversations take all of the room that your plan allows. Delete "
    "conversations that you do not need, or ask your administrator for a larger plan. Then try again.",
    retryable=True,
)
CRASHED = Fault("agent_crashed", "Your agent stopped several times while it worked on this.", retryable=True)


class Answerer:
    """Answers turns, each with an agent that this process drives."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        agents: Agents,
        *,
        usage_of: UsageOf,
        explain: Explain,
        turn_timeout: timedelta,
        attachments: Attachments,
        budgets: Budgets | None = None,
    ) -> None:
        self._database = database
        self._budgets = budgets or Budgets()
        self._attachments = attachments
        self._clock = clock
        self._agents = agents
        self._usage_of = usage_of
        self._explain = explain
        self._turn_timeout = turn_timeout.total_seconds()

    async def answer(self, driver: Driver, run: Run) -> None:
        """Answer a turn to its end, through up to MAX_ATTEMPTS deaths of the gateway. Raises LeaseLost."""
        lease_token = driver.lease.token
        writing = event_log.TurnWriter(self._database, self._clock, run.turn, lease_token, self._budgets)
        with driver.in_use():
            async with writing as writer:
                run.writer = writer
                try:
                    ended = await self._through_crashes(driver, run, writer)
                    run.writer = None  # nothing comes behind the end
                    await self._finish(run.turn, writer, lease_token, ended)
                finally:
                    run.writer = None

    async def _through_crashes(self, driver: Driver, run: Run, writer: event_log.TurnWriter) -> Ended:
        for _ in range(MAX_ATTEMPTS):
            try:
                await self._attempt(driver, run, writer)
            except Ended as ended:
                return ended
            except AgentFailed as error:
                return Ended(TurnStatus.FAILED, fault=Fault(error.code, error.message, retryable=True))
            except GatewayLost as error:
                logger.warning("gateway lost during a turn", turn_id=str(run.turn.id), reason=str(error))
                run.recovering = True
            except OcmtError:
                raise
            except Exception:
                # Found again it would only happen again: better an end that the user can read.
                logger.exception("answering crashed", turn_id=str(run.turn.id))
                return Ended(TurnStatus.FAILED, fault=INTERNAL)
        return Ended(TurnStatus.FAILED, fault=CRASHED)

    async def _attempt(self, driver: Driver, run: Run, writer: event_log.TurnWriter) -> NoReturn:
        """One attempt at the turn. Ends by raising Ended, GatewayLost or AgentFailed."""

        def report(step: str, text: str) -> None:
            writer.put(EventType.PROGRESS, step=step, text=text)

        if run.recovering:
            # OpenClaw takes an interrupted run up again by itself: it must be found also to be stopped.
            gateway = await driver.awake(report)
        else:
            gateway = await self._unless_stopped(run, lambda: driver.awake(report))
        with gateway.run_events(run.turn.session_key) as events:
            going_on = (
                await self._recover(gateway, run, writer, driver.lease.token) if run.recovering else None
            )
            if run.stop.is_set() and going_on is None:
                raise Ended(TurnStatus.STOPPED)
            # Before it is sent: whatever dies from here on, the turn is known to have been under way.
            await self._mark_started(run, going_on or run.turn.message_key, driver.lease.token)
            run_id = going_on or await self._send(driver, gateway, run)
            turn = run.turn
            writer.put(EventType.STARTED, attempt=turn.attempt)
            try:
                async with asyncio.timeout(self._turn_timeout):
                    await self._follow(gateway, events, run, run_id, writer)
            except TimeoutError:
                await _abort(gateway, turn, run_id)
                raise Ended(
                    TurnStatus.FAILED,
                    fault=Fault(
                        "turn_timeout",
                        f"Your agent worked on this for {self._turn_timeout / 60:.0f} minutes, "
                        "so it was stopped.",
                        retryable=True,
                    ),
                ) from None

    async def _unless_stopped(
        self, run: Run, waking: Callable[[], Awaitable[GatewayClient]]
    ) -> GatewayClient:
        """Wait for the agent, but no longer than the user wants an answer."""
        if run.stop.is_set():
            raise Ended(TurnStatus.STOPPED)
        wake = asyncio.ensure_future(waking())
        stop = asyncio.create_task(run.stop.wait())
        try:
            await asyncio.wait([wake, stop], return_when=asyncio.FIRST_COMPLETED)
            if not wake.done():
                raise Ended(TurnStatus.STOPPED)
            return wake.result()
        finally:
            for task in (wake, stop):
                if not task.done():
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task

    async def _recover(
        self, gateway: GatewayClient, run: Run, writer: event_log.TurnWriter, lease_token: int
    ) -> str | None:
        """What became of a turn left running: ended; still running, by its run id; or None, send it again."""
        turn = run.turn
        try:
            outcome = await gateway.outcome(
                session_key=turn.session_key,
                run_id=turn.run_id or turn.message_key,
                message_key=turn.message_key,
            )
        except (GatewayError, Unavailable) as error:
            raise GatewayLost(str(error)) from error
        if outcome.status == "finished":
            raise Ended(TurnStatus.COMPLETED, answer=outcome.text or "")
        if outcome.status == "stopped":
            raise Ended(TurnStatus.STOPPED)
        if outcome.status == "failed":
            raise Ended(TurnStatus.FAILED, fault=await self._why(turn, outcome.text or "its run failed"))
        if turn.attempt >= MAX_ATTEMPTS:
            raise Ended(TurnStatus.FAILED, fault=CRASHED)
        run_id = outcome.run_id if outcome.status == "running" else None
        run.behind = run_id is not None
        async with writer.held() as unwritten, self._database.transaction() as connection:
            row = await queries.turn_taken_up_again(
                connection,
                user_id=turn.user_id,
                id=turn.id,
                attempt=turn.attempt,
                run_id=run_id,
                lease_token=lease_token,
            )
            if row is None:
                raise LeaseLost("Another replica answers this turn now.", detail=f"turn {turn.id}")
            run.turn = turn_from_row(row)
            again = [*unwritten, accepted_event(run.turn)]
            await event_log.append(
                connection,
                self._clock,
                user_id=turn.user_id,
                conversation_id=turn.conversation_id,
                events=again,
                lease_token=lease_token,
            )
        return run_id

    async def _send(self, driver: Driver, gateway: GatewayClient, run: Run) -> str:
        """Hand the message to the gateway; a gateway that says "not now" is asked again for a few seconds."""
        turn = run.turn
        for _ in range(BUSY_RETRIES):
            try:
                async with self._attachments.carried(turn, run.stop) as attached:
                    sent = await gateway.send_chat(
                        session_key=turn.session_key,
                        message=turn.text,
                        idempotency_key=turn.message_key,
                        attachments=attached,
                        commands=run.commands,
                    )
                if sent.status == "stopped":
                    # A phrase that only OpenClaw takes for a stop: there is no run to wait for.
                    raise Ended(TurnStatus.COMPLETED, answer=STOPPED)
                return sent.run_id
            except GatewayError as error:
                if not error.retryable:
                    logger.warning("message refused", turn_id=str(turn.id), reason=str(error)[:1000])
                    refused = Fault("agent_refused", "Your agent did not take this message.", retryable=True)
                    fault = no_room(error.message) or refused
                    raise Ended(TurnStatus.FAILED, fault=fault) from error
                await self._clock.sleep(BUSY_DELAY)
                await driver.awake()
            except Unavailable as error:
                raise GatewayLost(str(error)) from error
            except NotCarried as error:
                raise Ended(TurnStatus.FAILED, fault=error.fault) from error
            except Stopped:
                raise Ended(TurnStatus.STOPPED) from None
        fault = Fault("agent_busy", "Your agent does not take messages just now.", retryable=True)
        raise Ended(TurnStatus.FAILED, fault=fault)

    async def _mark_started(self, run: Run, run_id: str, lease_token: int) -> None:
        async with self._database.connection() as connection:
            row = await queries.turn_started(
                connection,
                user_id=run.turn.user_id,
                id=run.turn.id,
                attempt=run.turn.attempt,
                run_id=run_id,
                now=self._clock.now(),
                lease_token=lease_token,
            )
        if row is None:
            raise LeaseLost("Another replica answers this turn now.", detail=f"turn {run.turn.id}")
        run.commands = row["commands"]
        if row["stop_requested"]:
            run.stop.set()

    async def _follow(
        self,
        gateway: GatewayClient,
        events: AsyncIterator[RunEvent],
        run: Run,
        run_id: str,
        writer: event_log.TurnWriter,
    ) -> NoReturn:
        """Write the run's events until it ends; pass a stop on to the gateway."""
        stoppers = [
            asyncio.create_task(_abort_when(event, gateway, run, run_id)) for event in (run.stop, writer.full)
        ]
        try:
            while True:
                try:
                    event = await anext(events)
                except (Unavailable, StopAsyncIteration) as error:
                    raise GatewayLost(str(error)) from error
                writer.check()
                if writer.full.is_set() and not (
                    isinstance(event, Final) and len(event.text) <= SMALL_ANSWER
                ):
                    # A short answer that is whole already costs less than to ask for it again.
                    await _abort(gateway, run.turn, run_id)
                    raise Ended(TurnStatus.FAILED, fault=FULL)
                if event.run_id == run_id:
                    await self._take(gateway, event, run, writer)
        finally:
            for stopper in stoppers:
                stopper.cancel()
            await asyncio.wait(stoppers)

    async def _take(
        self, gateway: GatewayClient, event: RunEvent, run: Run, writer: event_log.TurnWriter
    ) -> None:
        match event:
            case Delta():
                anew = event.replace or run.behind
                run.behind = False
                run.said += len(event.message if anew else event.text)
                if run.said > MAX_ANSWER:
                    await _abort(gateway, run.turn, event.run_id)
                    raise Ended(TurnStatus.FAILED, fault=TOO_LONG)
                await writer.put_delta(event.message if anew else event.text, replace=anew)
            case Tool():
                writer.put(
                    EventType.TOOL,
                    call_id=event.call_id,
                    name=event.name,
                    phase=event.phase,
                    summary=event.summary,
                    failed=event.failed,
                )
            case Final():
                if len(event.text) > MAX_ANSWER:
                    raise Ended(TurnStatus.FAILED, fault=TOO_LONG)
                raise Ended(TurnStatus.COMPLETED, answer=event.text)
            case Aborted():
                if run.stop.is_set():
                    raise Ended(TurnStatus.STOPPED)
                fault = Fault("agent_aborted", "Your agent broke off its work on this.", retryable=True)
                raise Ended(TurnStatus.FAILED, fault=fault)
            case Failed():
                raise Ended(TurnStatus.FAILED, fault=await self._why(run.turn, event.message))
            case Status():
                if event.text:
                    writer.put(EventType.PROGRESS, step="note", text=event.text)

    async def _why(self, turn: Turn, words: str) -> Fault:
        """The broker knows better than OpenClaw why a model call failed."""
        fault = await self._explain(turn.user_id, turn.id)
        return (
            fault
            or no_room(words)
            or Fault("agent_error", f"Your agent could not answer: {words}", retryable=True)
        )

    async def _finish(self, turn: Turn, writer: event_log.TurnWriter, lease_token: int, ended: Ended) -> None:
        """The end of the turn, its row and its last event, in one transaction."""
        usage = await self._usage_of(turn.user_id, turn.id)
        match ended.status:
            case TurnStatus.COMPLETED:
                last = Event(EventType.COMPLETED, turn.id, {"message": ended.answer, "usage": usage})
            case TurnStatus.STOPPED:
                last = Event(EventType.STOPPED, turn.id, {})
            case _:
                assert ended.fault is not None
                last = Event(EventType.FAILED, turn.id, ended.fault.as_data())
        async with writer.held() as unwritten, self._database.transaction() as connection:
            # Before its row says so: behind an end nothing is taken any more.
            await event_log.append(
                connection,
                self._clock,
                user_id=turn.user_id,
                conversation_id=turn.conversation_id,
                events=[*unwritten, last],
                lease_token=lease_token,
            )
            written = await queries.turn_finished(
                connection,
                user_id=turn.user_id,
                id=turn.id,
                attempt=turn.attempt,
                status=ended.status.value,
                answer=ended.answer,
                usage=usage,
                error=ended.fault.as_data() if ended.fault else None,
                now=self._clock.now(),
                lease_token=lease_token,
            )
            if written is None:
                raise LeaseLost("Another replica answers this turn now.", detail=f"turn {turn.id}")
        await self._agents.touch(turn.user_id)
        logger.info("turn ended", turn_id=str(turn.id), status=ended.status.value, attempt=turn.attempt)


async def _abort_when(event: asyncio.Event, gateway: GatewayClient, run: Run, run_id: str) -> None:
    await event.wait()
    await _abort(gateway, run.turn, run_id)


async def _abort(gateway: GatewayClient, turn: Turn, run_id: str) -> None:
    try:
        await gateway.abort(session_key=turn.session_key, run_id=run_id)
    except (GatewayError, Unavailable) as error:
        # The stream of events tells what became of the run; a gateway that is gone has nothing to stop.
        logger.info("stop not taken", turn_id=str(turn.id), error=str(error))
