"""Brings a message's files from the channel's API to where chat keeps them.

It can be done again: a file's id follows from its delivery, so a second try takes the first one's place.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid5

from ocmt.channels.base import Attachment, Channel, Endpoint, Message, SendFailed
from ocmt.channels.endpoints import queries
from ocmt.channels.model import DELIVERY_TRIES, one_line
from ocmt.chat.attachments import Attachments
from ocmt.chat.model import MAX_ATTACHED_BYTES, MAX_ATTACHMENTS, MAX_IMAGE_BYTES
from ocmt.chat.model import Attachment as Kept
from ocmt.errors import InvalidInput, LimitReached, NotFound, TooLarge, Unavailable
from ocmt.platform.clock import Clock
from ocmt.platform.database import Database

AT_ONCE = 3
"""Messages whose files are in this process's memory, one file at a time."""
SECONDS = 240.0
"""For all files of a message, and the wait for room before them."""
LEASE = timedelta(seconds=300)
"""Of its delivery meanwhile."""
MOST_NAMED = 20
"""Files that are named in a message's text because they did not come with it."""


@dataclass(frozen=True)
class Brought:
    """What became of a message's files."""

    ids: list[UUID]
    """Of attachments that chat keeps."""
    missing: list[str]
    """Of each that did not come a line for the agent: dropping it silently would be a lie."""


class Files:
    """Of one process."""

    def __init__(self, attachments: Attachments, database: Database, clock: Clock) -> None:
        self._attachments = attachments
        self._database = database
        self._clock = clock
        self._room = asyncio.Semaphore(AT_ONCE)

    async def bring(self, row: Any, channel: Channel, endpoint: Endpoint, message: Message) -> Brought:
        """All of a claimed delivery's files, whose lease is made longer.

        Raises: Unavailable while one may still be had later (at the delivery's last try it is left out), and
        where the delivery is somebody else's by now.
        """
        if not message.attachments:
            return Brought([], [])
        await self._prolong(row)  # before the wait for room, which counts
        last = row["attempts"] + 1 >= DELIVERY_TRIES
        try:
            async with asyncio.timeout(SECONDS), self._room:
                return await self._bring(row, channel, endpoint, message, last=last)
        except TimeoutError:
            if last:
                return Brought([], [_missing(one, "it took too long") for one in message.attachments])
            raise Unavailable("The files of this message took too long.") from None

    async def _bring(
        self, row: Any, channel: Channel, endpoint: Endpoint, message: Message, *, last: bool
    ) -> Brought:
        brought, left = Brought([], []), MAX_ATTACHED_BYTES
        for number, one in enumerate(message.attachments):
            if len(brought.ids) == MAX_ATTACHMENTS:
                brought.missing.append(_missing(one, f"a message takes {MAX_ATTACHMENTS} files"))
                continue
            attachment_id = uuid5(row["id"], f"{row['replays']}:{number}")
            try:
                # Of a try that came as far and had to wait with the message itself.
                kept = await self._attachments.waiting(row["user_id"], attachment_id)
                kept = kept or await self._fetch(row["user_id"], channel, endpoint, one, attachment_id, left)
            except TooLarge:
                brought.missing.append(_missing(one, "it is too large"))
            except (InvalidInput, LimitReached) as error:
                brought.missing.append(_missing(one, error.message))
            except (SendFailed, Unavailable, NotFound) as error:
                permanent = isinstance(error, SendFailed) and error.permanent
                if not permanent and not last:
                    raise Unavailable(
                        error.message, detail=error.detail, retry_after=error.retry_after
                    ) from error
                brought.missing.append(_missing(one, error.message))
            else:
                left -= kept.size
                brought.ids.append(kept.id)
        return brought

    async def _fetch(
        self,
        user_id: UUID,
        channel: Channel,
        endpoint: Endpoint,
        attachment: Attachment,
        attachment_id: UUID,
        left: int,
    ) -> Kept:
        most = min(left, MAX_IMAGE_BYTES) if attachment.media_type.startswith("image/") else left
        content = await channel.fetch(endpoint, attachment, most=most)
        return await self._attachments.keep(
            user_id,
            attachment.name,
            attachment.media_type,
            _in_one_piece(content),
            attachment_id=attachment_id,
        )

    async def _prolong(self, row: Any) -> None:
        async with self._database.connection() as connection:
            mine = await queries.prolong_delivery(
                connection,
                user_id=row["user_id"],
                id=row["id"],
                token=row["lease_token"],
                until=self._clock.now() + LEASE,
            )
        if mine is None:
            raise Unavailable("Somebody else works on this message now.")


def _missing(attachment: Attachment, why: str) -> str:
    name, kind = one_line(attachment.name), one_line(attachment.media_type)
    return f"[Attached, but not passed on to you: {name} ({kind}): {why.rstrip('.')}]"


async def _in_one_piece(content: bytes) -> AsyncIterator[bytes]:
    yield content
