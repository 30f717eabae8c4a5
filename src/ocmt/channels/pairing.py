"""Who may speak to an agent over a channel: whom its owner let in, by the code that the sender was told.

A code is told in private only, kept hashed, and of use to nobody but the owner, who types it in.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from ocmt.channels.base import Endpoint, Message
from ocmt.channels.endpoints import queries
from ocmt.channels.model import (
    CODE_LENGTH,
    CODE_LIFE,
    CODE_PAUSE,
    MAX_CODES,
    MAX_STRANGERS,
    STRANGER_LIFE,
    clean,
    code_hash,
    code_of,
    fault,
    shown_code,
)
from ocmt.platform.clock import Clock
from ocmt.platform.database import Connection


@dataclass(frozen=True)
class Verdict:
    """What becomes of a message."""

    approved: bool = False
    waits: bool = False
    """Until its sender is let in; else it is ignored."""
    why: Mapping[str, str] = field(default_factory=dict)
    notice: str | None = None
    """To be told to the sender."""


APPROVED = Verdict(approved=True)
BLOCKED = Verdict(why=fault("blocked", "Its sender is blocked."))
STRANGER = Verdict(why=fault("stranger", "Its sender is not let in, and wrote in a group."))
TOO_MANY = Verdict(why=fault("too_many_strangers", "Too many others wait to be let in."))
WAITS = Verdict(waits=True, why=fault("not_let_in", "Its sender waits to be let in."))


class Pairing:
    """The rule; all that it knows is in the database."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def look(
        self, connection: Connection, endpoint: Endpoint, sender: str, message: Message
    ) -> Verdict:
        """Whether that sender may speak; a stranger is written down, in the caller's transaction."""
        who = {"user_id": endpoint.user_id, "endpoint_id": endpoint.id}
        known = await queries.find_sender(connection, sender=sender, **who)
        if known is not None and known["state"] == "approved":
            return APPROVED
        if known is not None and known["state"] == "blocked":
            return BLOCKED
        await queries.lock_endpoint(connection, user_id=endpoint.user_id, id=endpoint.id)
        # As it is now that nobody else lets anybody in.
        known = await queries.find_sender(connection, sender=sender, **who)
        if known is not None and known["state"] != "pending":
            return APPROVED if known["state"] == "approved" else BLOCKED
        now = self._clock.now()
        await queries.drop_stale_senders(connection, before=now - STRANGER_LIFE, **who)
        name = clean(message.sender_name, 200)
        if not message.private:
            await queries.note_stranger(
                connection, sender=sender, name=name, now=now, most=MAX_STRANGERS, **who
            )
            return STRANGER
        if known is not None and known["told_at"] is not None and known["told_at"] > now - CODE_PAUSE:
            return WAITS
        if await queries.count_codes(connection, sender=sender, now=now, **who) >= MAX_CODES:
            return TOO_MANY
        code = code_of(secrets.token_bytes(CODE_LENGTH))
        await queries.tell_code(
            connection,
            sender=sender,
            name=name,
            code_hash=code_hash(endpoint.id, code),
            expires_at=now + CODE_LIFE,
            now=now,
            **who,
        )
        notice = f"This agent is private. Its owner can let you in with the code {shown_code(code)}."
        return Verdict(waits=True, why=WAITS.why, notice=notice)
