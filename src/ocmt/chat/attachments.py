"""Files that are sent with messages: kept in the object store from the moment they are uploaded.

An upload is begun (a row without a size), its content is put, then it is complete: whatever dies in between
leaves a row that the sweep finds. A message takes complete ones, each once; they go with it.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from uuid_utils.compat import uuid7

from ocmt.chat.model import (
    MAX_ATTACHED_BYTES,
    MAX_UNSENT,
    UNSENT_LIFE,
    Attachment,
    Fault,
    Turn,
    attachment_key,
    check_attachments,
    file_name,
    media_type,
    megabytes,
)
from ocmt.errors import InvalidInput, LimitReached, NotFound, OcmtError, TooLarge, Unavailable
from ocmt.platform.clock import Clock, again
from ocmt.platform.database import Connection, Database
from ocmt.platform.objects import Objects, reaching
from ocmt.platform.queries import every, load_queries
from ocmt.platform.storage import Budgets, Store, lock

queries = load_queries(__package__)

GONE = "There is no such attachment."
UNKNOWN = "There is no such attachment, or it was sent already. Upload the file again."
STORE_SECONDS = 120.0
"""In which the store gives or removes one file, at most 16 MiB."""
UPLOAD_SECONDS = 1800.0
"""In which one comes: whoever sends it may have a slow line."""
CARRIED_AT_ONCE = 3
"""Turns whose files are in this process's memory: at most 16 MiB each, and a third more as base64."""
_PAUSES = (1.0, 4.0)
"""Seconds, between tries to read a file that is to be carried."""
_SWEEP_EVERY = timedelta(hours=1)
_AT_ONCE = 200

log = structlog.get_logger(__name__)


class NotCarried(Exception):
    """A turn's files cannot be read; `fault` says why, for the turn."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


class Stopped(Exception):
    """The user wants no answer any more."""


class Attachments:
    """Of all users; every call takes the user's id and sees only theirs."""

    def __init__(
        self, database: Database, clock: Clock, objects: Objects, budgets: Budgets | None = None
    ) -> None:
        """`budgets`: what each user may keep where the plan does not say."""
        self._database = database
        self._budgets = budgets or Budgets()
        self._clock = clock
        self._objects = objects
        self._carrying = asyncio.Semaphore(CARRIED_AT_ONCE)

    async def keep(
        self,
        user_id: UUID,
        name: str,
        kind: str | None,
        pieces: AsyncIterator[bytes],
        *,
        attachment_id: UUID | None = None,
        size: int | None = None,
    ) -> Attachment:
        """Keep a file until a message takes it, a day at most. `kind`: its media type, as its sender says.
        `size`: its bytes, where its sender says them; more of them are not taken.

        With the `attachment_id` of one that is not sent yet, it takes that one's place. Raises: InvalidInput
        for an empty one, TooLarge, LimitReached, Unavailable.
        """
        attachment_id = attachment_id or uuid7()
        # What an upload may come to is counted before its first byte, so parallel ones cannot pass a limit.
        reserved = MAX_ATTACHED_BYTES if size is None else min(max(size, 0), MAX_ATTACHED_BYTES)
        async with self._database.transaction() as connection:
            used = await lock(connection, user_id, Store.ATTACHMENTS, self._budgets)
            unsent = await queries.count_unsent(connection, user_id=user_id, id=attachment_id)
            if unsent >= MAX_UNSENT:
                raise LimitReached(
                    f"You have {MAX_UNSENT} files that are not sent yet. Send or remove some of them first."
                )
            counted = await queries.find_reserved(connection, user_id=user_id, id=attachment_id)
            used.require(reserved - (counted or 0), more_items=int(counted is None))
            begun = await queries.begin_attachment(
                connection,
                id=attachment_id,
                user_id=user_id,
                name=file_name(name),
                media_type=media_type(kind),
                reserved=reserved,
                now=self._clock.now(),
            )
        if begun is None:
            raise LimitReached(UNKNOWN)
        try:
            return await self._fill(user_id, attachment_id, pieces, most=reserved)
        except BaseException:
            # Also where whoever sends it has left: or its place would be taken for a day.
            await asyncio.shield(asyncio.ensure_future(self._abandon(user_id, attachment_id)))
            raise

    async def _fill(
        self, user_id: UUID, attachment_id: UUID, pieces: AsyncIterator[bytes], *, most: int
    ) -> Attachment:
        counted = _Counted(pieces, most)
        async with _reaching(UPLOAD_SECONDS):
            await self._objects.put_pieces(attachment_key(user_id, attachment_id), aiter(counted))
        if counted.size == 0:
            raise InvalidInput("The file is empty.")
        async with self._database.connection() as connection:
            row = await queries.complete_attachment(
                connection, user_id=user_id, id=attachment_id, size=counted.size
            )
        if row is None:  # its user is gone, or it was sent or removed meanwhile
            raise NotFound(UNKNOWN)
        return Attachment(**row)

    async def _abandon(self, user_id: UUID, attachment_id: UUID) -> None:
        """Remove what came of one, unless a message has it; if that cannot be done, the sweep does it."""
        try:
            async with self._database.connection() as connection:
                if await queries.was_sent(connection, user_id=user_id, id=attachment_id):
                    return
            await self._remove(user_id, attachment_id)
        except OcmtError as error:
            log.warning("attachment_not_removed", attachment_id=str(attachment_id), error=error.message)

    async def waiting(self, user_id: UUID, attachment_id: UUID) -> Attachment | None:
        """One that is whole and not sent yet, for a day more; None where there is none such."""
        async with self._database.connection() as connection:
            row = await queries.renew_attachment(
                connection, user_id=user_id, id=attachment_id, now=self._clock.now()
            )
        return None if row is None else Attachment(**row)

    async def find(self, user_id: UUID, attachment_id: UUID) -> Attachment:
        """Raises: NotFound, for an unknown one and for somebody else's alike."""
        async with self._database.connection() as connection:
            found = await _find(connection, user_id, [attachment_id])
        if not found:
            raise NotFound(GONE)
        return found[0]

    async def content(self, user_id: UUID, attachment_id: UUID) -> tuple[Attachment, bytes]:
        """One with its content. Raises: NotFound, Unavailable."""
        found = await self.find(user_id, attachment_id)
        async with _reaching():
            return found, await self._objects.get(attachment_key(user_id, attachment_id))

    async def pieces(self, user_id: UUID, attachment_id: UUID) -> AsyncIterator[bytes]:
        """The content of one that was found, as fast as it is taken.

        Raises: NotFound, Unavailable; before the first piece only.
        """
        pieces = aiter(self._objects.get_pieces(attachment_key(user_id, attachment_id)))
        async with _reaching():
            first = await anext(pieces)

        async def all_of_them() -> AsyncIterator[bytes]:
            yield first
            async for piece in pieces:
                yield piece

        return all_of_them()

    @asynccontextmanager
    async def carried(self, turn: Turn, stop: asyncio.Event) -> AsyncIterator[list[dict[str, str]]]:
        """A turn's files as OpenClaw takes them, in memory while the context is open: of few turns at a time.

        Raises at its beginning only: NotCarried; Stopped where `stop` was set before there was room.
        """
        if not turn.attachments:
            yield []
            return
        await _acquire(self._carrying, stop)
        try:
            yield [await self._carry(turn.user_id, one) for one in turn.attachments]
        finally:
            self._carrying.release()

    async def _carry(self, user_id: UUID, told: Mapping[str, Any]) -> dict[str, str]:
        for pause in (*_PAUSES, None):
            try:
                found, content = await self.content(user_id, UUID(told["id"]))
            except NotFound:
                words = f"The file {told['name']} is not there any more."
                raise NotCarried(Fault("attachment_gone", words, retryable=False)) from None
            except Unavailable as error:
                if pause is None:
                    raise NotCarried(Fault("files_unavailable", error.message, retryable=True)) from error
                await self._clock.sleep(pause)
            else:
                encoded = base64.b64encode(content).decode()
                return {"fileName": found.name, "mimeType": found.media_type, "content": encoded}
        raise AssertionError

    async def drop(self, user_id: UUID, attachment_id: UUID) -> None:
        """Remove one that is not sent. Raises: NotFound."""
        async with self._database.connection() as connection:
            dropped = await queries.drop_unsent_attachment(
                connection, user_id=user_id, id=attachment_id, now=self._clock.now()
            )
        if dropped is None:
            raise NotFound(UNKNOWN)
        await self.sweep_now(user_id)

    async def sent(self, user_id: UUID) -> list[Attachment]:
        """All that messages have, the oldest first."""
        async with self._database.connection() as connection:
            return [
                Attachment(**row)
                for row in await every(queries.list_attachments(connection, user_id=user_id))
            ]

    async def sweep(self, user_id: UUID | None = None) -> int:
        """Remove what no message has and none will have, of one user or of all; how many.

        What the store does not remove stays for the next time. Raises: Unavailable without the database.
        """
        now = self._clock.now()
        async with self._database.connection() as connection:
            loose = await every(
                queries.loose_attachments(
                    connection, user_id=user_id, before=now - UNSENT_LIFE, now=now, limit=_AT_ONCE
                )
            )
        removed = 0
        for row in loose:
            try:
                await self._remove(row["user_id"], row["id"])
                removed += 1
            except OcmtError as error:
                log.warning("attachment_not_removed", attachment_id=str(row["id"]), error=error.message)
        return removed

    async def sweep_now(self, user_id: UUID) -> None:
        """That for a user whose files were just let go, as far as it can be done at once."""
        try:
            await self.sweep(user_id)
        except OcmtError as error:
            log.warning("attachments_not_swept", error=error.message)

    async def _remove(self, user_id: UUID, attachment_id: UUID) -> None:
        async with _reaching():
            await self._objects.delete(attachment_key(user_id, attachment_id))
        # Its row last: with it, a crash here is only a delay.
        async with self._database.connection() as connection:
            await queries.drop_attachment(connection, user_id=user_id, id=attachment_id)

    async def keep_sweeping(self) -> None:
        """That for all, every hour, until cancelled."""

        async def all_of_them() -> None:
            while await self.sweep() == _AT_ONCE:
                pass

        await again(self._clock, _SWEEP_EVERY, all_of_them, log, "attachments_not_swept")


async def for_message(connection: Connection, user_id: UUID, ids: Sequence[UUID]) -> list[Attachment]:
    """Those attachments, in that order, if one message can have them. Raises: InvalidInput, TooLarge."""
    if len(set(ids)) != len(ids):
        raise InvalidInput("An attachment is named twice.")
    found = await _find(connection, user_id, ids) if ids else []
    if len(found) != len(ids):
        raise InvalidInput(UNKNOWN)
    check_attachments(found)
    return found


async def take(
    connection: Connection, user_id: UUID, attachments: Sequence[Attachment], *, turn_id: UUID, clock: Clock
) -> None:
    """Give them to a turn, in the transaction that makes it. Raises: InvalidInput where another has them."""
    if not attachments:
        return
    ids = [one.id for one in attachments]
    taken = await every(
        queries.send_attachments(connection, user_id=user_id, ids=ids, turn_id=turn_id, now=clock.now())
    )
    if len(taken) != len(ids):
        raise InvalidInput(UNKNOWN)


async def _find(connection: Connection, user_id: UUID, ids: Sequence[UUID]) -> list[Attachment]:
    rows = await every(queries.find_attachments(connection, user_id=user_id, ids=list(ids)))
    known = {row["id"]: Attachment(**row) for row in rows}
    return [known[one] for one in ids if one in known]


class _Counted:
    """The pieces of a file, while they are not too many."""

    def __init__(self, pieces: AsyncIterator[bytes], most: int) -> None:
        """Args: `most` is what its sender said, in bytes, or the most that one message can have."""
        self._pieces = pieces
        self._most = most
        self.size = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._pieces:
            self.size += len(piece)
            if self.size > MAX_ATTACHED_BYTES:
                raise TooLarge(
                    f"The file is too large: with a message you can send {megabytes(MAX_ATTACHED_BYTES)}. "
                    "Put a larger one into the workspace."
                )
            if self.size > self._most:
                raise InvalidInput("The file has more bytes than its Content-Length says.")
            if piece:
                yield piece


async def _acquire(room: asyncio.Semaphore, stop: asyncio.Event) -> None:
    """Raises: Stopped where `stop` is set before there is room."""
    acquiring, stopped = asyncio.ensure_future(room.acquire()), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait([acquiring, stopped], return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        if not acquiring.cancel():
            room.release()
        raise
    finally:
        stopped.cancel()
    if not acquiring.done():
        acquiring.cancel()
        raise Stopped


@asynccontextmanager
async def _reaching(seconds: float = STORE_SECONDS) -> AsyncIterator[None]:
    with reaching("Files cannot be stored or read just now."):
        async with asyncio.timeout(seconds):
            yield
