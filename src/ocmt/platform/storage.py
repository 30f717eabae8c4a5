"""Budgets: how much of each store one user may keep, where it is counted, and the words when it is full.

The database counts by itself (migration 0017): every statement that adds or removes something moves the
user's row in `storage_used` in the same transaction. Whoever adds something locks that row first, with `lock`
or in its own statement, so that two writers cannot pass a limit together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from ocmt.errors import LimitReached
from ocmt.platform.database import Connection, Database
from ocmt.platform.queries import every, load_queries

_queries = load_queries("ocmt.platform")


class Store(StrEnum):
    """What a user keeps, each with a budget of its own."""

    CONVERSATIONS = "conversations"
    """Messages, answers and their events."""
    DELIVERIES = "deliveries"
    """Webhooks that were received, and what is owed to the channels."""
    ATTACHMENTS = "attachments"
    SNAPSHOTS = "snapshots"
    """All generations of the agent's files together; equal contents count once."""


@dataclass(frozen=True)
class Budgets:
    """The limits of one user where the plan does not say; bytes, but for `conversations`."""

    conversations: int = 5_000
    conversation_bytes: int = 512 * 1024**2
    delivery_bytes: int = 256 * 1024**2
    attachment_bytes: int = 1024**3
    snapshot_bytes: int | None = None
    """None: twice what the plan lets one generation have."""


@dataclass(frozen=True)
class Used:
    """How much of one store a user keeps, and the limits. A limit of None: there is none of that kind."""

    store: Store
    items: int
    bytes: int
    most_items: int | None
    most_bytes: int
    refused_at: datetime | None = None
    """When something was last refused because the store was full."""

    @property
    def left(self) -> int:
        """Bytes that still fit; never negative."""
        return max(0, self.most_bytes - self.bytes)

    def require(self, more_bytes: int, *, more_items: int = 0) -> None:
        """Raises: LimitReached, with what to do, where so much more does not fit."""
        if self.most_items is not None and self.items + more_items > self.most_items:
            raise full(self.store, items=self.most_items)
        if self.bytes + more_bytes > self.most_bytes:
            raise full(self.store, size=self.most_bytes)


_WAYS_OUT: Mapping[Store, str] = {
    Store.CONVERSATIONS: "delete conversations that you do not need",
    Store.DELIVERIES: "clear deliveries that have ended, or disconnect channels",
    Store.ATTACHMENTS: "delete conversations with files that you do not need",
    Store.SNAPSHOTS: "delete files of your agent, or list folders in .ocmtignore",
}


def full(store: Store, *, size: int = 0, items: int | None = None) -> LimitReached:
    """The sentence for a full store: what is full, what to delete, whom to ask."""
    amount = f"{items:,} {store}" if items is not None else f"{in_words(size)} of {_NAMES[store]}"
    return LimitReached(
        f"You keep all of the {amount} that your plan allows. To make room, {_WAYS_OUT[store]}. Or ask "
        "your administrator for a larger plan."
    )


_NAMES: Mapping[Store, str] = {
    Store.CONVERSATIONS: "conversations",
    Store.DELIVERIES: "received webhooks",
    Store.ATTACHMENTS: "attachments",
    Store.SNAPSHOTS: "saved files",
}


def in_words(size: int) -> str:
    """A size for people: "512 MB", "1.5 GB"."""
    for unit, factor in (("GB", 1024**3), ("MB", 1024**2), ("KB", 1024)):
        if size >= factor:
            return f"{size / factor:.1f}".removesuffix(".0") + f" {unit}"
    return f"{size} bytes"


async def lock(connection: Connection, user_id: UUID, store: Store, budgets: Budgets) -> Used:
    """Lock the user's count of a store until the transaction ends, and return it with the limits.

    What the caller adds behind this, and before the commit, no other writer can add at the same time.
    """
    row = await _queries.lock_storage(connection, user_id=user_id, store=store.value)
    if row is None:
        # The account was deleted a moment ago. The reference to it refuses whatever is added.
        return Used(store, 0, 0, None, 0)
    return _used(row, budgets)


async def note_bytes(connection: Connection, user_id: UUID, store: Store, size: int) -> None:
    """Set the bytes of a store that are counted elsewhere: those of snapshots are in the object store."""
    await _queries.set_storage_bytes(connection, user_id=user_id, store=store.value, bytes=size)


async def used(database: Database, user_id: UUID, budgets: Budgets) -> list[Used]:
    """Return what a user keeps in each store, in the order of `Store`."""
    async with database.connection() as connection:
        rows = await every(_queries.find_storage(connection, user_id=user_id))
    by_store = {row["store"]: _used(row, budgets) for row in rows}
    return [by_store[store] for store in Store if store in by_store]


def _used(row: Any, budgets: Budgets) -> Used:
    store = Store(row["store"])
    most_items = None
    match store:
        case Store.CONVERSATIONS:
            most_items = row["conversations"] or budgets.conversations
            most = row["conversation_bytes"] or budgets.conversation_bytes
        case Store.DELIVERIES:
            most = row["delivery_bytes"] or budgets.delivery_bytes
        case Store.ATTACHMENTS:
            most = row["attachment_bytes"] or budgets.attachment_bytes
            most_items = max(LEAST_ATTACHMENTS, most // ATTACHMENT_SHARE)
        case Store.SNAPSHOTS:
            generation = row["snapshot_bytes"] or SNAPSHOT_BYTES
            most = row["kept_snapshot_bytes"] or budgets.snapshot_bytes or 2 * generation
    return Used(store, row["items"], row["bytes"], most_items, most, row["refused_at"])


ATTACHMENT_SHARE = 20 * 1024
LEAST_ATTACHMENTS = 1_000
"""One file for each so many bytes of the budget, and so many at least: a file of one byte takes a row in the
database and a block of the disk as well."""
SNAPSHOT_BYTES = 2 * 1024**3
"""Of one generation, where the plan does not say."""
