"""Hands every room's share of an export to `privacy`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from uuid import UUID

from ocmt.bootstrap.features import Features
from ocmt.errors import NotFound
from ocmt.privacy.model import Export, Part

if TYPE_CHECKING:
    from ocmt.bootstrap.agent_features import AgentFeatures

_PAGE = 200


def exports(features: Features, agent_features: Callable[[], AgentFeatures]) -> list[Export]:
    """What of each room is a user's. `agent_features` is called when somebody asks for an export."""
    accounts = features.accounts

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
        from ocmt.chat.transcript import render

        chat, cursor = agent_features().chat, None
        while page := await chat.conversations(user_id, before=cursor, limit=_PAGE):
            for conversation in page:
                turns = await chat.all_turns(user_id, conversation.id)
                yield f"conversations/{conversation.id}.jsonl", render(conversation, turns)
            cursor = (page[-1].updated_at, page[-1].id)

    async def attachments(user_id: UUID) -> AsyncIterator[Part]:
        kept, missing = agent_features().chat.attachments, []
        for one in await kept.sent(user_id):
            try:
                _, content = await kept.content(user_id, one.id)
            except NotFound:  # deleted this moment, or lost
                missing.append(one.as_data())
            else:
                yield f"attachments/{one.id}/{one.name}", content
        if missing:
            yield "attachments/missing.json", _json(missing)

    async def channels(user_id: UUID) -> AsyncIterator[Part]:
        yield "channels.json", _json(await agent_features().deliveries.everything(user_id))

    async def files(user_id: UUID) -> AsyncIterator[Part]:
        of_agents = agent_features()
        newest = await of_agents.snapshots.list(user_id, limit=1)
        if newest:
            async with of_agents.transfers.archive(user_id, newest[0].generation) as download:
                yield "files.zip", download.file

    return [account, trail, conversations, attachments, channels, files]


def _json(value: Any, *, indent: int | None = 2) -> bytes:
    return json.dumps(value, default=str, ensure_ascii=False, indent=indent).encode()
