"""Makes turns of what came in, and puts their answers into the outbox.

Every step can be done again: a turn's idempotency key is the delivery's, and what is written is guarded by
the lease's token. So a process may die between any two lines. Within a thread one delivery is worked on at a
time.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import structlog
from uuid_utils.compat import uuid7

from ocmt.channels.base import Channel, CountsOnce, Endpoint, Gathers, Message
from ocmt.channels.claims import Claims
from ocmt.channels.endpoints import Endpoints, queries
from ocmt.channels.files import MOST_NAMED, Brought, Files
from ocmt.channels.gathering import Gathering
from ocmt.channels.model import (
    DELIVERY_TRIES,
    MAX_ID,
    PATIENCE,
    State,
    clean,
    clean_json,
    fault,
    one_line,
    pause,
    short_id,
)
from ocmt.channels.pairing import Pairing, Verdict
from ocmt.channels.steering import STOPPED_CODE, Steering, steers
from ocmt.channels.wording import for_person
from ocmt.chat.controls import Does
from ocmt.chat.model import TITLE_LENGTH, Turn
from ocmt.chat.service import Chat
from ocmt.errors import Conflict, InvalidInput, LimitReached, NotFound, OcmtError, Unavailable
from ocmt.platform.clock import Clock
from ocmt.platform.database import Connection, Database, Hints, notify

DELIVERIES_CHANNEL = "deliveries"
OUTBOX_CHANNEL = "outbox"
"""LISTEN channels (in queries.sql, too): something came in; something is owed."""
PARALLEL = 16
_THREAD_TRIES = 3
_WHILE_FULL = 4
"""As after so many failures: about 40 seconds."""

log = structlog.get_logger(__name__)


class DeliveryWorker:
    """Works on deliveries, in any number of processes. What follows a turn's end is `answering`'s."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        hints: Hints,
        chat: Chat,
        endpoints: Endpoints,
    ) -> None:
        self._database = database
        self._clock = clock
        self._chat = chat
        self._endpoints = endpoints
        self._pairing = Pairing(clock)
        self._files = Files(chat.attachments, database, clock)
        self._gathering = Gathering(database, clock)
        self._steering = Steering(clock, chat)
        self._claims = Claims(
            database,
            clock,
            hints,
            channel=DELIVERIES_CHANNEL,
            parallel=PARALLEL,
            claim=lambda connection, now, until, most: queries.claim_deliveries(
                connection, now=now, until=until, limit=most
            ),
            work_on=self._work_on,
        )

    async def run(self) -> None:
        """Until cancelled; what is under way then is taken up again when its lease has run out."""
        await self._claims.run()

    async def _work_on(self, row: Any) -> None:
        try:
            try:
                await self._turn_of(row)
            except OcmtError as error:
                await self._failed(row, error)
            except Exception:
                log.exception("delivery_failed", delivery_id=str(row["id"]))
                await self._failed(row, Unavailable("Something went wrong on our side."))
        except OcmtError as error:
            log.warning("delivery_left", delivery_id=str(row["id"]), error=error.message)
        except Exception:
            # The lease runs out, and it is found again; the worker must go on with the others.
            log.exception("delivery_left", delivery_id=str(row["id"]))

    async def _turn_of(self, row: Any) -> None:
        connected = await self._endpoints.connected(row["endpoint_id"])
        if connected is None:
            # Gone with its deliveries, or its owner was suspended just now: then none is claimed again.
            raise Unavailable("This channel is not connected any more.")
        channel, endpoint = connected
        if isinstance(channel, CountsOnce) and channel.counts_once(endpoint) and await self._is_copy(row):
            await self._ignore(row, "copy", "It came before, and nothing in it says that it was sent again.")
            return
        bodies = await self._gathering.bodies(row)
        if bodies is None:
            return
        message = read(channel, bodies, endpoint)
        steering = steers(message) if message is not None else None
        if row["urgent"] and steering is None:
            await self._in_turn(row)
            return
        if message is None:
            await self._ignore(row, "nothing_to_say", "There is nothing in it for the agent.")
            return
        empty = not clean(message.text + message.context).strip() and not message.attachments
        if empty and not message.unreadable:
            await self._ignore(row, "empty", "The message is empty.", message)
            return
        if channel.pairs and not await self._let_in(row, channel, endpoint, message):
            return
        if steering is not None:
            await self._steer(row, channel, endpoint, message, *steering)
            return
        if empty:
            await self._not_read(row, channel, endpoint, message)
            return
        try:
            turn = await self._post(row, channel, endpoint, message)
        except OcmtError as error:
            told = message if can_answer(channel, endpoint.settings) else None
            await self._failed(row, error, told)
            return
        async with self._database.connection() as connection:
            waits = await queries.delivery_answering(
                connection,
                user_id=row["user_id"],
                id=row["id"],
                token=row["lease_token"],
                turn_id=turn.id,
                conversation_id=turn.conversation_id,
                sender=sender_of(message),
                reply=clean_json(message.reply),
            )
            if waits is None and await self._was_stopped(connection, row):
                # A stop phrase came between its turn and this line.
                await self._chat.stop(row["user_id"], turn.id)
            # It may have ended before we had written that we wait for it.
            await notify(connection, "conversations", str(turn.conversation_id))

    async def _was_stopped(self, connection: Connection, row: Any) -> bool:
        why = await queries.why_closed(connection, user_id=row["user_id"], id=row["id"])
        return bool(why == STOPPED_CODE)

    async def _is_copy(self, row: Any) -> bool:
        if row["replays"]:  # its owner wants it run again
            return False
        where = {name: row[name] for name in ("user_id", "endpoint_id", "external_id")}
        async with self._database.connection() as connection:
            return bool(await queries.was_forgotten(connection, **where))

    async def _in_turn(self, row: Any) -> None:
        """Give it back: it only looked like a control word, and waits for what is before it."""
        async with self._database.connection() as connection:
            mine = {"user_id": row["user_id"], "id": row["id"], "token": row["lease_token"]}
            await queries.delivery_in_turn(connection, **mine)
            await notify(connection, DELIVERIES_CHANNEL, "")

    async def _steer(
        self, row: Any, channel: Channel, endpoint: Endpoint, message: Message, command: str, does: Does
    ) -> None:
        """Do what a control word says, and tell its sender in one line, all in one transaction."""
        async with self._database.transaction() as connection:
            if not await self._close(connection, row, State.DONE, None, message):
                return
            line = await self._steering.act(connection, row, message, command, does)
            await self._tell(connection, row, channel, endpoint, message, line)

    async def _not_read(self, row: Any, channel: Channel, endpoint: Endpoint, message: Message) -> None:
        """There is nothing in it that an agent could read: in private its sender hears that."""
        line = f"I cannot read this kind of message ({one_line(message.unreadable)}). Write it as text."
        async with self._database.transaction() as connection:
            closed = await self._close(connection, row, State.IGNORED, fault("not_readable", line), message)
            if closed and message.private:
                await self._tell(connection, row, channel, endpoint, message, line)

    async def _tell(
        self,
        connection: Connection,
        row: Any,
        channel: Channel,
        endpoint: Endpoint,
        message: Message,
        line: str,
    ) -> None:
        if can_answer(channel, endpoint.settings):
            reply = clean_json(message.reply)
            await owe(connection, self._clock, row, run=row["replays"], texts=[line], reply=reply)

    async def _let_in(self, row: Any, channel: Channel, endpoint: Endpoint, message: Message) -> bool:
        """Whether its sender may speak to the agent; else the delivery ends here."""
        async with self._database.transaction() as connection:
            verdict = await self._pairing.look(connection, endpoint, sender_of(message), message)
            if verdict.approved:
                return True
            state = State.WAITING if verdict.waits else State.IGNORED
            closed = await self._close(connection, row, state, verdict.why, message)
            if closed and verdict.notice and can_answer(channel, endpoint.settings):
                await owe(
                    connection,
                    self._clock,
                    row,
                    run=-1,
                    texts=[verdict.notice],
                    reply=clean_json(message.reply),
                )
            _log_stranger(row, verdict)
            return False

    async def _post(self, row: Any, channel: Channel, endpoint: Endpoint, message: Message) -> Turn:
        """The turn, in the conversation of the thread."""
        key = f"delivery:{row['id']}" + (f":{row['replays']}" if row["replays"] else "")
        brought: Brought | None = None
        for attempt in range(_THREAD_TRIES):
            conversation_id = await self._conversation(row, message)
            if message.attachments:
                # Of a try that died behind its post: its files need not be there any more.
                known = await self._chat.accepted(row["user_id"], conversation_id, key)
                if known is not None:
                    return known
            brought = brought or await self._files.bring(row, channel, endpoint, message)
            text = text_of(message, brought.missing)
            try:
                return await self._chat.post(
                    row["user_id"],
                    conversation_id,
                    text,
                    key=key,
                    attachments=brought.ids,
                    commands=False,  # whoever writes over a channel is not the owner
                )
            except (Conflict, InvalidInput):
                # Held up for longer than its lease: whoever had it then has sent it, with the same files.
                known = await self._chat.accepted(row["user_id"], conversation_id, key)
                if known is None:
                    raise
                return known
            except NotFound:  # it was deleted this moment, and its mapping with it
                if attempt == _THREAD_TRIES - 1:
                    raise
        raise AssertionError

    async def _conversation(self, row: Any, message: Message) -> UUID:
        where = {name: row[name] for name in ("user_id", "endpoint_id", "thread")}
        async with self._database.connection() as connection:
            known: UUID | None = await queries.find_thread(connection, **where)
        if known is not None:
            return known
        made = await self._chat.create_conversation(row["user_id"], _title(message.title))
        async with self._database.connection() as connection:
            kept: UUID = await queries.keep_thread(
                connection, conversation_id=made.id, now=self._clock.now(), **where
            )
        if kept != made.id:  # somebody else was quicker
            await self._chat.delete(row["user_id"], made.id)
        return kept

    async def _ignore(self, row: Any, code: str, why: str, message: Message | None = None) -> None:
        async with self._database.connection() as connection:
            await self._close(connection, row, State.IGNORED, fault(code, why), message)

    async def _close(
        self,
        connection: Connection,
        row: Any,
        state: State,
        error: Mapping[str, Any] | None,
        message: Message | None,
        *,
        failed: bool = False,
    ) -> bool:
        closed = await queries.delivery_closed(
            connection,
            user_id=row["user_id"],
            id=row["id"],
            token=row["lease_token"],
            state=state.value,
            error=error,
            sender=sender_of(message) if message else None,
            reply=clean_json(message.reply) if message else None,
            failed=int(failed),
            now=self._clock.now(),
        )
        return closed is not None

    async def _failed(self, row: Any, error: OcmtError, told: Message | None = None) -> None:
        """To be tried again, or dead: kept with the reason, and to be run again by hand.

        `told`: whose sender hears the reason then, for there will be no answer.
        """
        temporary = error.retryable or isinstance(error, LimitReached)
        # A limit of the user's is waited for, and no fault of the delivery's: open turns end.
        waits = isinstance(error, LimitReached) and self._clock.now() - row["received_at"] < PATIENCE
        failures = row["attempts"] + (0 if waits else 1)
        why = fault(error.code, error.message)
        log.info("delivery_not_taken", delivery_id=str(row["id"]), failures=failures, **why)
        async with self._database.transaction() as connection:
            if waits or (temporary and failures < DELIVERY_TRIES):
                await queries.delivery_later(
                    connection,
                    user_id=row["user_id"],
                    id=row["id"],
                    token=row["lease_token"],
                    failed=failures - row["attempts"],
                    next_at=self._clock.now()
                    + pause(_WHILE_FULL if waits else failures, chance(), error.retry_after),
                    error=why,
                )
                return
            log.warning("delivery_dead", delivery_id=str(row["id"]), **why)
            if await self._close(connection, row, State.DEAD, why, told, failed=True) and told:
                reply = clean_json(told.reply)
                line = for_person(error.code, error.message)
                await owe(connection, self._clock, row, run=-1, texts=[line], reply=reply)


def read(channel: Channel, bodies: Sequence[bytes], endpoint: Endpoint) -> Message | None:
    """The one message in bodies that belong together."""
    if len(bodies) > 1 and isinstance(channel, Gathers):
        return channel.read_together(bodies, endpoint)
    return channel.read(bodies[0], endpoint)


def text_of(message: Message, missing: Sequence[str] = ()) -> str:
    """What the agent reads; `missing`: of each file that did not come with it a line."""
    said = "\n\n".join(
        part
        for part in (clean(message.text), clean(message.context), "\n".join(missing[:MOST_NAMED]))
        if part.strip()
    )
    if message.private:
        return said
    return f"{one_line(message.sender_name or message.sender)}: {said}".rstrip()


def can_answer(channel: Channel, settings: Mapping[str, Any]) -> bool:
    """Whether an answer can go back over this endpoint."""
    return channel.answers and settings.get("answers") is not False


async def owe(
    connection: Connection, clock: Clock, row: Any, *, run: int, texts: list[str], reply: Mapping[str, Any]
) -> None:
    """Messages for the outbox, in the caller's transaction. `run`: the delivery's replays; -1: a notice."""
    for part, text in enumerate(texts):
        await queries.owe(
            connection,
            id=uuid7(),
            user_id=row["user_id"],
            endpoint_id=row["endpoint_id"],
            delivery_id=row["id"],
            run=run,
            part=part,
            thread=row["thread"],
            reply=reply,
            text=clean(text),
            now=clock.now(),
        )
    if texts:
        await notify(connection, OUTBOX_CHANNEL, "")


def sender_of(message: Message) -> str:
    """The channel's id of who said it, as the database can hold it."""
    return short_id(message.sender)


def chance() -> float:
    """0 to 1, for jitter."""
    return secrets.randbelow(1001) / 1000


def _title(title: str) -> str | None:
    """As a conversation can have it; None: its first message will be it."""
    printable = "".join(letter if letter.isprintable() else " " for letter in clean(title, MAX_ID))
    return " ".join(printable.split())[:TITLE_LENGTH].strip() or None


def _log_stranger(row: Any, verdict: Verdict) -> None:
    log.info("sender_not_let_in", delivery_id=str(row["id"]), why=verdict.why["code"])
