"""What users can do with conversations and turns. The answering itself is `worker`'s.

A message is accepted when its turn is committed; from then on it is answered exactly once, or ends with an
error that says why, whatever dies in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from ocmt.chat import attachments as files
from ocmt.chat import log
from ocmt.chat.attachments import Attachments
from ocmt.chat.controls import NOTHING_RUNS, STOPPED, asks_to_stop
from ocmt.chat.model import (
    MAX_OPEN_TURNS,
    STOP_BYTES,
    Conversation,
    Event,
    EventType,
    RunningTurn,
    Turn,
    TurnStatus,
    check_idempotency_key,
    check_message,
    title_of,
    transcript_key,
)
from ocmt.errors import Conflict, InvalidInput, LimitReached, NotFound
from ocmt.platform.clock import Clock
from ocmt.platform.database import Connection, Database, notify
from ocmt.platform.objects import Objects
from ocmt.platform.queries import every, load_queries
from ocmt.platform.storage import Budgets, Store, full, lock

queries = load_queries(__package__)

UNKNOWN = "There is no such conversation or message."
TURNS_CHANNEL = "turns"
"""LISTEN channel (in queries.sql, too): the worker has something to do; the payload is the user id."""


@dataclass(frozen=True)
class TurnPage:
    """A piece of a conversation's history."""

    turns: Sequence[Turn]
    """Oldest first."""
    tools: dict[UUID, list[dict[str, Any]]]
    """The latest state of each tool call, by turn."""
    older: UUID | None
    """The cursor of the page before this one."""
    resume_after: int
    """Stream the events behind this number to see the open turns complete."""


class Chat:
    """Conversations and turns of all users; every call takes the user's id and sees only theirs."""

    def __init__(
        self, database: Database, clock: Clock, objects: Objects, budgets: Budgets | None = None
    ) -> None:
        """`objects`: where transcripts and attachments are, which go with their conversations. `budgets`:
        what each user may keep where the plan does not say."""
        self._database = database
        self._budgets = budgets or Budgets()
        self._clock = clock
        self._objects = objects
        self.attachments = Attachments(database, clock, objects, self._budgets)

    async def create_conversation(self, user_id: UUID, title: str | None = None) -> Conversation:
        """A new, empty conversation. Raises: InvalidInput, LimitReached."""
        async with self._database.transaction() as connection:
            used = await lock(connection, user_id, Store.CONVERSATIONS, self._budgets)
            used.require(0, more_items=1)
            row = await queries.create_conversation(
                connection, id=uuid7(), user_id=user_id, title=_title(title) if title else None
            )
        return _conversation(row)

    async def conversation(self, user_id: UUID, conversation_id: UUID) -> Conversation:
        """Raises NotFound, for an unknown one and for somebody else's alike."""
        async with self._database.connection() as connection:
            row = await queries.find_conversation(connection, user_id=user_id, id=conversation_id)
        return _conversation(_known(row))

    async def conversations(
        self, user_id: UUID, *, before: tuple[datetime, UUID] | None = None, limit: int = 50
    ) -> list[Conversation]:
        """The latest used first; `before` is the (updated_at, id) of the last one on the page before."""
        async with self._database.connection() as connection:
            rows = await every(
                queries.list_conversations(
                    connection,
                    user_id=user_id,
                    before=before[0] if before else None,
                    before_id=before[1] if before else None,
                    limit=limit,
                )
            )
        return [_conversation(row) for row in rows]

    async def rename(self, user_id: UUID, conversation_id: UUID, title: str) -> Conversation:
        """Give it another title."""
        async with self._database.connection() as connection:
            row = await queries.rename_conversation(
                connection, user_id=user_id, id=conversation_id, title=_title(title)
            )
        return _conversation(_known(row))

    async def delete(self, user_id: UUID, conversation_id: UUID) -> None:
        """Delete it with all that is in it. Raises Conflict while a turn is under way."""
        transcript = transcript_key(user_id, conversation_id)
        await self.conversation(user_id, conversation_id)
        # Twice: a store that does not answer is told while nothing is lost yet, and what was written between
        # the two goes, too.
        await self._objects.delete(transcript)
        async with self._database.transaction() as connection:
            await self._locked(connection, user_id, conversation_id)
            if await queries.count_open_turns_in(connection, user_id=user_id, id=conversation_id):
                raise Conflict("Your agent is still answering in this conversation. Stop it first.")
            await queries.delete_conversation(connection, user_id=user_id, id=conversation_id)
        await self._objects.delete(transcript)
        await self.attachments.sweep_now(user_id)

    async def post(
        self,
        user_id: UUID,
        conversation_id: UUID,
        text: str,
        *,
        key: str | None,
        attachments: Sequence[UUID] = (),
        commands: bool = True,
    ) -> Turn:
        """Accept a message. The same key again gives the same turn, and no second answer.

        `attachments`: of files that were uploaded; with some, the text may be empty. `commands`: whether
        OpenClaw may interpret slash commands and directives in the text, which only the owner's own words may
        contain. A stop phrase stops the conversation at once and never goes to the agent.
        Raises: InvalidInput, TooLarge, NotFound, LimitReached, Conflict (same key, other message).
        """
        text = check_message(text, may_be_empty=bool(attachments))
        key = check_idempotency_key(key)
        now = self._clock.now()
        if not attachments and asks_to_stop(text):
            return await self._stop_phrase(user_id, conversation_id, text, key)
        async with self._database.transaction() as connection:
            conversation = await self._locked_for_message(connection, user_id, conversation_id)
            # Its text is kept twice, in its row and in its event.
            fits = conversation["bytes"] + 2 * len(text.encode()) < conversation["most"]
            found = await files.for_message(connection, user_id, attachments)
            row = await queries.create_turn(
                connection,
                id=uuid7(),
                user_id=user_id,
                conversation_id=conversation_id,
                idempotency_key=key,
                text=text,
                attachments=[one.as_data() for one in found],
                commands=commands,
                now=now,
                fits=fits,
                most=MAX_OPEN_TURNS,
            )
            if row is None:
                known = await self._known_turn(
                    connection, user_id, conversation_id, key=key, text=text, attachments=attachments
                )
                if known is not None:
                    return known
                if not fits:
                    raise full(Store.CONVERSATIONS, size=conversation["most"])
                raise _too_many_open()
            turn = _turn(row)
            await files.take(connection, user_id, found, turn_id=turn.id, clock=self._clock)
            if conversation["title"] is None:
                title = title_of(text) or title_of(found[0].name)
                await queries.name_conversation(connection, user_id=user_id, id=conversation_id, title=title)
            await self._accepted(connection, turn)
        return turn

    async def accepted(self, user_id: UUID, conversation_id: UUID, key: str) -> Turn | None:
        """The turn that was accepted there with this key, if one was."""
        async with self._database.connection() as connection:
            row = await queries.find_turn_by_key(
                connection, user_id=user_id, conversation_id=conversation_id, idempotency_key=key
            )
        return None if row is None else _turn(row)

    async def retry(self, user_id: UUID, turn_id: UUID) -> Turn:
        """Try a failed or stopped turn again; only the latest of a conversation can be.

        Raises: NotFound, Conflict, LimitReached.
        """
        async with self._database.transaction() as connection:
            turn = _turn(_known(await queries.find_turn(connection, user_id=user_id, id=turn_id)))
            await self._locked(connection, user_id, turn.conversation_id)
            latest = await every(
                queries.list_turns(
                    connection, user_id=user_id, conversation_id=turn.conversation_id, before=None, limit=1
                )
            )
            if latest[0]["id"] != turn_id:
                raise Conflict("Only the last message of a conversation can be tried again.")
            # Each try is told to the browsers anew, with the text.
            used = await lock(connection, user_id, Store.CONVERSATIONS, self._budgets)
            used.require(len(turn.text.encode()))
            if len(await every(queries.find_open_turns(connection, user_id=user_id))) >= MAX_OPEN_TURNS:
                raise _too_many_open()
            row = await queries.retry_turn(connection, user_id=user_id, id=turn_id)
            if row is None:
                raise Conflict("Only a message that failed or was stopped can be tried again.")
            turn = _turn(row)
            await self._accepted(connection, turn)
            await notify(connection, TURNS_CHANNEL, str(user_id))
        return turn

    async def stop(self, user_id: UUID, turn_id: UUID) -> Turn:
        """Stop a turn soon; one that has ended already stays as it is."""
        async with self._database.transaction() as connection:
            row = await queries.ask_stop(connection, user_id=user_id, id=turn_id)
            if row is None:
                row = _known(await queries.find_turn(connection, user_id=user_id, id=turn_id))
            await notify(connection, TURNS_CHANNEL, str(user_id))
        return _turn(row)

    async def stop_all(self, connection: Connection, user_id: UUID, conversation_id: UUID) -> int:
        """Stop every open turn of a conversation, in the caller's transaction; return their number."""
        # The lock makes a message that is being accepted this moment come before or after the stop.
        await self._locked(connection, user_id, conversation_id)
        stopped: int = await queries.ask_stop_all(
            connection, user_id=user_id, conversation_id=conversation_id
        )
        return stopped

    async def has_open_turns(self, connection: Connection, user_id: UUID, conversation_id: UUID) -> bool:
        """Whether an answer is owed there, in the caller's transaction."""
        return bool(await queries.count_open_turns_in(connection, user_id=user_id, id=conversation_id))

    async def history(
        self, user_id: UUID, conversation_id: UUID, *, before: UUID | None = None, limit: int = 50
    ) -> TurnPage:
        """The latest turns, or those before a cursor. Raises NotFound."""
        async with self._database.transaction() as connection:
            _known(await queries.find_conversation(connection, user_id=user_id, id=conversation_id))
            # First: a turn that ends in between is then listed as ended, and its end replayed in vain.
            resume_after = await queries.resume_point(
                connection, user_id=user_id, conversation_id=conversation_id
            )
            rows = await every(
                queries.list_turns(
                    connection, user_id=user_id, conversation_id=conversation_id, before=before, limit=limit
                )
            )
            turns = [_turn(row) for row in reversed(rows)]
            tool_rows = await every(
                queries.list_tool_events(
                    connection,
                    conversation_id=conversation_id,
                    turn_ids=[turn.id for turn in turns if not turn.status.open],
                )
            )
        tools: dict[UUID, dict[str, dict[str, Any]]] = {}
        for row in tool_rows:
            calls = tools.setdefault(row["turn_id"], {})
            call_id = str(row["data"].get("call_id"))
            calls[call_id] = {**calls.get(call_id, {}), **row["data"]}
        return TurnPage(
            turns=turns,
            tools={turn_id: list(calls.values()) for turn_id, calls in tools.items()},
            older=turns[0].id if len(turns) == limit else None,
            resume_after=resume_after,
        )

    async def running(self, user_id: UUID) -> list[RunningTurn]:
        """The turns that the user's agent is answering now, oldest first."""
        async with self._database.connection() as connection:
            rows = await every(queries.find_running_turns(connection, user_id=user_id))
        return [RunningTurn(**row) for row in rows]

    async def open_turns(self, user_id: UUID) -> list[UUID]:
        """Those that have not ended, oldest first."""
        async with self._database.connection() as connection:
            return [row["id"] for row in await every(queries.find_open_turns(connection, user_id=user_id))]

    async def all_turns(self, user_id: UUID, conversation_id: UUID) -> list[Turn]:
        """A whole conversation, oldest first, up to 10,000 turns. Empty also for somebody else's."""
        async with self._database.connection() as connection:
            rows = await every(
                queries.all_turns(connection, user_id=user_id, conversation_id=conversation_id)
            )
        return [turn_from_row(row) for row in rows]

    async def _locked_for_message(self, connection: Connection, user_id: UUID, conversation_id: UUID) -> Any:
        return _known(
            await queries.lock_for_message(
                connection,
                user_id=user_id,
                id=conversation_id,
                most_bytes=self._budgets.conversation_bytes,
            )
        )

    async def _locked(self, connection: Connection, user_id: UUID, conversation_id: UUID) -> Any:
        return _known(await queries.lock_conversation(connection, user_id=user_id, id=conversation_id))

    async def _known_turn(
        self,
        connection: Connection,
        user_id: UUID,
        conversation_id: UUID,
        *,
        key: str,
        text: str,
        attachments: Sequence[UUID],
    ) -> Turn | None:
        """The turn that was accepted with this key before, if one was. Raises: Conflict (other message)."""
        known = await queries.find_turn_by_key(
            connection, user_id=user_id, conversation_id=conversation_id, idempotency_key=key
        )
        if known is None:
            return None
        turn = _turn(known)
        if turn.text != text or [one["id"] for one in turn.attachments] != [str(one) for one in attachments]:
            raise Conflict("This Idempotency-Key was used for another message. Use a new one.")
        return turn

    async def _stop_phrase(self, user_id: UUID, conversation_id: UUID, text: str, key: str) -> Turn:
        """Stop what is open, and keep the phrase with its answer as a turn that has ended.

        Raises: LimitReached where it is not kept, because phrases have used up the budget and the room that
        they have beyond it; what was open is stopped all the same.
        """
        async with self._database.transaction() as connection:
            conversation = await self._locked_for_message(connection, user_id, conversation_id)
            known = await self._known_turn(
                connection, user_id, conversation_id, key=key, text=text, attachments=()
            )
            if known is not None:
                return known
            stopped = await self.stop_all(connection, user_id, conversation_id)
            if conversation["bytes"] < conversation["most"] + STOP_BYTES:
                answer = STOPPED if stopped else NOTHING_RUNS
                return await self._keep_ended(connection, user_id, conversation_id, text, key, answer)
        raise full(Store.CONVERSATIONS, size=conversation["most"])

    async def _keep_ended(
        self, connection: Connection, user_id: UUID, conversation_id: UUID, text: str, key: str, answer: str
    ) -> Turn:
        turn = _turn(
            await queries.create_ended_turn(
                connection,
                id=uuid7(),
                user_id=user_id,
                conversation_id=conversation_id,
                idempotency_key=key,
                text=text,
                answer=answer,
                now=self._clock.now(),
            )
        )
        ended = Event(EventType.COMPLETED, turn.id, {"message": turn.answer, "usage": None})
        await log.append(
            connection,
            self._clock,
            user_id=user_id,
            conversation_id=conversation_id,
            events=[accepted_event(turn), ended],
            lease_token=None,
        )
        return turn

    async def _accepted(self, connection: Connection, turn: Turn) -> None:
        await log.append(
            connection,
            self._clock,
            user_id=turn.user_id,
            conversation_id=turn.conversation_id,
            events=[accepted_event(turn)],
            lease_token=None,
        )


def accepted_event(turn: Turn) -> Event:
    """The event that begins an attempt; whatever the attempt before had streamed is void."""
    attached = {"attachments": list(turn.attachments)} if turn.attachments else {}
    return Event(EventType.ACCEPTED, turn.id, {"text": turn.text, "attempt": turn.attempt, **attached})


def _too_many_open() -> LimitReached:
    return LimitReached(
        f"Your agent has {MAX_OPEN_TURNS} messages waiting. Wait for an answer, or stop some."
    )


def _title(title: str) -> str:
    title = " ".join(title.split())
    if not title or len(title) > 200 or not title.isprintable():
        raise InvalidInput("A title has between 1 and 200 printable characters.")
    return title


def _known(row: Any) -> Any:
    if row is None:
        raise NotFound(UNKNOWN)
    return row


def _conversation(row: Any) -> Conversation:
    return Conversation(**{name: row[name] for name in Conversation.__dataclass_fields__})


def _turn(row: Any) -> Turn:
    values = {name: row[name] for name in Turn.__dataclass_fields__}
    return Turn(**{**values, "status": TurnStatus(values["status"])})


turn_from_row = _turn
conversation_from_row = _conversation
