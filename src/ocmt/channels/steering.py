"""Control words over a channel: they act at once, past the queue of their thread, and never become a turn."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from ocmt.channels.base import Message
from ocmt.channels.endpoints import queries
from ocmt.channels.model import fault, one_line
from ocmt.chat.controls import NOTHING_RUNS, STOPPED, Does, asks_to_stop, command_in
from ocmt.chat.service import Chat
from ocmt.errors import NotFound
from ocmt.platform.clock import Clock
from ocmt.platform.database import Connection
from ocmt.platform.queries import every

STOPPED_CODE = "stopped"
_STOPPED = fault(STOPPED_CODE, "It was stopped before it was answered.")
HELP = (
    "Write as you would to a person. /stop ends the running answer, /new begins a new conversation, /status "
    "tells whether an answer is under way, and /whoami tells who you are here."
)
GREETING = "Hello! Write a message, and the agent answers. /help lists what else you can send."
NEW = "Your next message begins a new conversation."
WORKING = "An answer is under way. /stop ends it."


def steers(message: Message) -> tuple[str, Does] | None:
    """The control word that a message is, if it is one, with the command as it was typed. Pure."""
    if not message.attachments and asks_to_stop(message.text):
        return "/stop", Does.STOP
    found = command_in(message.text)
    if found is None or found[1] is Does.MESSAGE:
        return None
    if message.attachments and found[1] is not Does.OWNER:
        return None  # the caption of a picture: a request
    return found


class Steering:
    """Of one process."""

    def __init__(self, clock: Clock, chat: Chat) -> None:
        self._clock = clock
        self._chat = chat

    async def act(self, connection: Connection, row: Any, message: Message, command: str, does: Does) -> str:
        """Do it, in the caller's transaction; returns the one line that its sender reads."""
        match does:
            case Does.STOP:
                return STOPPED if await self._stop(connection, row) else NOTHING_RUNS
            case Does.NEW:
                await self._stop(connection, row)
                await queries.drop_thread(connection, **_thread(row))
                return NEW
            case Does.STATUS:
                return WORKING if await self._open(connection, row) else NOTHING_RUNS
            case Does.HELP:
                return HELP
            case Does.START:
                return GREETING
            case Does.WHOAMI:
                name = one_line(message.sender_name or message.sender)
                return f"You are {name} ({one_line(message.sender)})."
            case _:
                return f"Only the owner of this agent can use {command}, and only in the web chat."

    async def _stop(self, connection: Connection, row: Any) -> bool:
        """Stop the thread's conversation, and what waits for it; whether there was anything."""
        stopped = 0
        conversation_id: UUID | None = await queries.find_thread(connection, **_thread(row))
        if conversation_id is not None:
            try:
                stopped = await self._chat.stop_all(connection, row["user_id"], conversation_id)
            except NotFound:  # it is being deleted
                stopped = 0
        waiting = await every(
            queries.stop_thread(
                connection,
                id=row["id"],
                received_at=row["received_at"],
                error=_STOPPED,
                now=self._clock.now(),
                **_thread(row),
            )
        )
        return bool(stopped or waiting)

    async def _open(self, connection: Connection, row: Any) -> bool:
        conversation_id: UUID | None = await queries.find_thread(connection, **_thread(row))
        if conversation_id is None:
            return False
        return await self._chat.has_open_turns(connection, row["user_id"], conversation_id)


def _thread(row: Any) -> dict[str, Any]:
    return {name: row[name] for name in ("user_id", "endpoint_id", "thread")}
