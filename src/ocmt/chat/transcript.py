"""Writes every conversation as JSONL into the object store, from the platform's own record of turns.

OpenClaw keeps its conversations in SQLite; these files are for people and tools:
`users/{user id}/sessions/{conversation id}.jsonl`, one line for the conversation and one for each message.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import structlog

from ocmt.chat import log
from ocmt.chat.model import Conversation, Turn, transcript_key
from ocmt.chat.service import conversation_from_row, queries, turn_from_row
from ocmt.errors import OcmtError
from ocmt.platform.database import Database, Hints
from ocmt.platform.objects import Objects
from ocmt.platform.queries import every

logger = structlog.get_logger(__name__)

POLL_INTERVAL = 5.0
BATCH = 20


def render(conversation: Conversation, turns: Sequence[Turn]) -> bytes:
    """The transcript: JSON lines, oldest first."""
    lines: list[dict[str, Any]] = [
        {
            "type": "conversation",
            "id": str(conversation.id),
            "title": conversation.title,
            "created_at": conversation.created_at.isoformat(),
        }
    ]
    for turn in turns:
        common = {"type": "message", "turn_id": str(turn.id)}
        attached = {"attachments": list(turn.attachments)} if turn.attachments else {}
        asked = {"role": "user", "text": turn.text, **attached, "at": turn.created_at.isoformat()}
        lines.append(common | asked)
        answer = {"role": "assistant", "text": turn.answer, "status": turn.status.value, "usage": turn.usage}
        at = {"at": turn.finished_at.isoformat()} if turn.finished_at else {}
        error = {"error": turn.error} if turn.error else {}
        lines.append(common | answer | at | error)
    return b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines)


class TranscriptWriter:
    """Brings the transcripts up to date whenever a turn has ended. Stateless: a crash only delays it."""

    def __init__(self, database: Database, objects: Objects, hints: Hints) -> None:
        self._database = database
        self._objects = objects
        self._hints = hints

    async def run(self) -> None:
        """Write until cancelled."""
        with self._hints.subscribe(log.CHANNEL) as hinted:
            while True:
                try:
                    while await self.write_due() == BATCH:
                        pass
                except (OcmtError, OSError) as error:
                    logger.warning("transcripts not written", error=str(error))
                await hinted.wait(POLL_INTERVAL)

    async def write_due(self) -> int:
        """Write those that are behind; returns how many."""
        async with self._database.connection() as connection:
            due = [
                conversation_from_row(row)
                for row in await every(queries.find_unwritten(connection, limit=BATCH))
            ]
        for conversation in due:
            await self._write(conversation)
        return len(due)

    async def _write(self, conversation: Conversation) -> None:
        async with self._database.connection() as connection:
            rows = await every(
                queries.all_turns(connection, user_id=conversation.user_id, conversation_id=conversation.id)
            )
        turns = [turn_from_row(row) for row in rows]
        key = transcript_key(conversation.user_id, conversation.id)
        await self._objects.put(key, render(conversation, turns))
        async with self._database.connection() as connection:
            written = await queries.transcript_written(
                connection, user_id=conversation.user_id, id=conversation.id, seq=conversation.last_seq
            )
        if written is None:
            # It was deleted meanwhile, and its transcript with it.
            await self._objects.delete(key)
