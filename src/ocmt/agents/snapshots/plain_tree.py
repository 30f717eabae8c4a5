"""The plain tree: a copy of the newest snapshot in the object store, for people and tools.

`users/{id}/workspace/…` are the agent's files, `users/{id}/config/…` its configuration, state and home.
Nothing is restored from it. Links, folders, and names that an object cannot have (line breaks, no UTF-8)
are not in it.
"""

from __future__ import annotations

import hashlib
import json

from ocmt.agents.snapshots.manifest import Entry, Manifest
from ocmt.agents.snapshots.store import UserObjects
from ocmt.agents.snapshots.uploading import LARGE, all_or_first_error
from ocmt.errors import InvalidInput
from ocmt.platform.objects import checked_key
from ocmt.platform.work import FILES


async def refresh_plain_tree(store: UserObjects, manifest: Manifest, shown: Manifest | None) -> None:
    """Make the plain tree that of `manifest`.

    `shown`: what it shows now, so that only what differs is written. None: that is not known, because there
    is none or a refresh was cut short; then all of it is written anew.
    Raises: Unavailable.
    """
    there = None if shown is not None else await store.plain_keys()
    changed, gone = await FILES.run(_difference, store, manifest, shown, there, of=store.user_id)
    await store.put(store.plain_state_key, _state(manifest.generation, complete=False))
    # First what is gone: where a file was there may be a folder now.
    await all_or_first_error(store.delete(key) for key in gone)
    await all_or_first_error(_copy(store, key, entry) for key, entry in changed.items())
    await store.put(store.plain_state_key, _state(manifest.generation, complete=True))


def shown_generation(state: bytes | None) -> int | None:
    """Which generation the plain tree shows; None where it shows none, or a mixture."""
    try:
        read = json.loads(state) if state is not None else {}
        return int(read["generation"]) if read.get("complete") is True else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _state(generation: int, *, complete: bool) -> bytes:
    return json.dumps({"generation": generation, "complete": complete}).encode()


def _difference(
    store: UserObjects, manifest: Manifest, shown: Manifest | None, there: set[str] | None
) -> tuple[dict[str, Entry], set[str]]:
    """What to write, and which keys to delete. Blocks."""
    wanted = _plain(store, manifest)
    if shown is None:
        return wanted, (there or set()) - wanted.keys()
    before = _plain(store, shown)
    changed = {key: entry for key, entry in wanted.items() if not _same(entry, before.get(key))}
    return changed, before.keys() - wanted.keys()


def _plain(store: UserObjects, manifest: Manifest) -> dict[str, Entry]:
    plain = {}
    for entry in manifest.entries:
        if entry.kind == "file":
            try:
                plain[checked_key(store.plain_key(entry.path))] = entry
            except InvalidInput:
                continue
    return plain


def _same(entry: Entry, other: Entry | None) -> bool:
    return other is not None and entry.sha256 == other.sha256


async def _copy(store: UserObjects, key: str, entry: Entry) -> None:
    sha256 = entry.sha256 or hashlib.sha256().hexdigest()
    if entry.size > LARGE:
        await store.put_pieces(key, store.get_blob_pieces(sha256))
        return
    data = await store.get_blob(sha256)
    if data is not None:  # a content that was lost meanwhile is the next restore's to report
        await store.put(key, data)
