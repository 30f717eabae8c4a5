"""The part of the composition that hands every room's share to `privacy`: what to export, and how to be
quiet."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import asdict
from typing import Any
from uuid import UUID

from ocmt.agents.model import State
from ocmt.agents.service import Agents
from ocmt.bootstrap.features import Features
from ocmt.chat.service import Chat
from ocmt.chat.transcript import render
from ocmt.errors import OcmtError
from ocmt.privacy.model import Export, Part, Quiet

_PAGE = 200


def exports(features: Features) -> list[Export]:
    """What of each room is a user's."""
    accounts, chat, transfers = features.accounts, features.chat, features.transfers

    async def account(user_id: UUID) -> AsyncIterator[Part]:
        identity = accounts.identity
        yield "account.json", _json(asdict(await identity.user(user_id)))
        yield "sessions.json", _json([asdict(one) for one in await identity.entrance.sessions(user_id)])
        yield "api-keys.json", _json([asdict(one) for one in await accounts.api_keys.list(user_id)])
        yield "vault-items.json", _json([asdict(one) for one in await features.vault.list(user_id)])
        yield "groups.json", _json([asdict(one) for one in await features.groups.list(user_id)])
        yield "shares.json", _json([asdict(one) for one in await features.groups.shares(user_id)])
        yield "usage-this-month.json", _json(asdict(await features.ledger.used_this_month(user_id)))

    async def trail(user_id: UUID) -> AsyncIterator[Part]:
        lines, before = [], None
        while rows := await accounts.identity.audit.page(user_id=user_id, before=before, limit=500):
            for row in rows:
                shown = {"id": row.id, "at": row.at, "action": row.action, "details": row.details}
                lines.append(_json(shown, indent=None) + b"\n")
            before = rows[-1].id
        yield "audit.jsonl", b"".join(lines)

    async def conversations(user_id: UUID) -> AsyncIterator[Part]:
        cursor = None
        while page := await chat.conversations(user_id, before=cursor, limit=_PAGE):
            for conversation in page:
                turns = await chat.all_turns(user_id, conversation.id)
                yield f"conversations/{conversation.id}.jsonl", render(conversation, turns)
            cursor = (page[-1].updated_at, page[-1].id)

    async def files(user_id: UUID) -> AsyncIterator[Part]:
        newest = await features.snapshots.list(user_id, limit=1)
        if newest:
            async with transfers.archive(user_id, newest[0].generation) as (file, _):
                yield "files.zip", file

    return [account, trail, conversations, files]


def quiet(agents: Agents, chat: Chat) -> Quiet:
    """Stops a user's turns and then their agent; whether it has come to rest."""

    async def is_quiet(user_id: UUID) -> bool:
        for turn in await chat.open_turns(user_id):
            with suppress(OcmtError):  # it has ended meanwhile
                await chat.stop(user_id, turn)
        found = await agents.find_all([user_id])
        if not found:
            return True
        with suppress(OcmtError):  # it still works: the next look will find it stopped
            await agents.ask_stopped(user_id)
        (agent,) = await agents.find_all([user_id])
        return agent.state in (State.STOPPED, State.FAILED)

    return is_quiet


def _json(value: Any, *, indent: int | None = 2) -> bytes:
    return json.dumps(value, default=str, ensure_ascii=False, indent=indent).encode()
