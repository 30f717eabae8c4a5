"""Rules of sign-up, invitations, approvals and impersonation, each with its row in the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from uuid_utils.compat import uuid7

from ocmt.errors import Conflict, InvalidInput, NotFound, Refused
from ocmt.identity import letters
from ocmt.identity.audit.model import Actor
from ocmt.identity.entrance.model import Browser, RuleKind, listing
from ocmt.identity.entrance.service import Entered
from ocmt.identity.letters import Letter
from ocmt.identity.model import new_token, normalise_email, token_hash
from ocmt.identity.service import Identity
from ocmt.platform.clock import Clock
from ocmt.platform.database import Database
from ocmt.platform.principal import Principal, Role
from ocmt.platform.queries import load_queries

_queries = load_queries("ocmt.identity.administration")

INVITED_FOR = timedelta(days=7)
LEAST_REASON = 10


@dataclass(frozen=True)
class Rule:
    """An address or a domain whose people may make an account."""

    kind: RuleKind
    value: str
    created_at: datetime


@dataclass(frozen=True)
class Invitation:
    """Somebody who may make an account by proving their address."""

    id: UUID
    email: str
    role: Role
    created_at: datetime
    expires_at: datetime
    accepted_at: datetime | None
    revoked_at: datetime | None


class Administration:
    """Of one process; stateless."""

    def __init__(self, database: Database, identity: Identity, clock: Clock) -> None:
        self._database = database
        self._identity = identity
        self._audit = identity.audit
        self._clock = clock

    # Rules

    async def rules(self) -> Sequence[Rule]:
        """All of them, by kind and value."""
        async with self._database.connection() as connection:
            return [Rule(**row) async for row in _queries.list_rules(connection)]

    async def put_rule(self, kind: RuleKind, value: str, *, actor: Actor | None = None) -> None:
        """Let an address or a domain in. Doing it twice succeeds. Raises: InvalidInput."""
        value = listing(kind, value)
        async with self._database.transaction() as connection:
            fresh = await _queries.put_rule(
                connection,
                kind=kind,
                value=value,
                now=self._clock.now(),
                created_by=actor.by if actor else None,
            )
            if fresh is not None:
                await self._audit.record(connection, "sign_up.rule_added", actor=actor, after={kind: value})

    async def drop_rule(self, kind: RuleKind, value: str, *, actor: Actor | None = None) -> None:
        """Take a rule away; who came by it stays. Doing it twice succeeds."""
        async with self._database.transaction() as connection:
            gone = await _queries.drop_rule(connection, kind=kind, value=listing(kind, value))
            if gone is not None:
                await self._audit.record(
                    connection, "sign_up.rule_removed", actor=actor, before={kind: value}
                )

    # Invitations

    async def invitations(self, *, after: UUID | None = None, limit: int = 100) -> Sequence[Invitation]:
        """A page of them, newest first, behind the one `after`."""
        async with self._database.connection() as connection:
            rows = _queries.list_invitations(connection, after=after, limit=limit)
            return [Invitation(**row) async for row in rows]

    async def invite(
        self, email: str, role: Role, *, actor: Actor | None = None
    ) -> tuple[Invitation, Letter]:
        """Invite somebody; the letter is the caller's to deliver.

        Raises: InvalidInput, Conflict, LimitReached.
        """
        address, now = normalise_email(email), self._clock.now()
        if actor is not None:
            await self._identity.post.admit("invitation", actor.by)
        invitation = Invitation(uuid7(), address, role, now, now + INVITED_FOR, None, None)
        async with self._database.transaction() as connection:
            if await _queries.has_user(connection, email=address):
                raise Conflict(f"There is a user {address} already.")
            await _queries.add_invitation(
                connection,
                id=invitation.id,
                email=address,
                role=role,
                token_hash=token_hash(new_token()),
                invited_by=actor.by if actor else None,
                now=now,
                expires_at=invitation.expires_at,
            )
            await self._audit.record(
                connection, "user.invited", actor=actor, after={"email": address, "role": role}
            )
        url = self._identity.address.url
        return invitation, letters.invitation(address, url, days=INVITED_FOR.days)

    async def revoke(self, invitation_id: UUID, *, actor: Actor | None = None) -> None:
        """Take an invitation back. Raises: NotFound where there is none that is open."""
        async with self._database.transaction() as connection:
            gone = await _queries.revoke_invitation(connection, id=invitation_id, now=self._clock.now())
            if gone is None:
                raise NotFound("There is no such open invitation.")
            await self._audit.record(
                connection, "user.invitation_revoked", actor=actor, before={"email": gone["email"]}
            )

    # Impersonation

    async def impersonate(self, me: Principal, user_id: UUID, reason: str, browser: Browser) -> Entered:
        """A session that sees what a user sees, for an hour. They read of it in their own audit log.

        Raises: InvalidInput without a reason, NotFound, Refused for administrators, oneself and who is shut
        out.
        """
        reason = " ".join(reason.split())
        if len(reason) < LEAST_REASON or len(reason) > 500:
            raise InvalidInput(f"Write why, in {LEAST_REASON} to 500 characters: the user will read it.")
        user = await self._identity.user(user_id)
        if user.role == "admin" or user.id == me.user_id or user.status != "active":
            raise Refused("Only active users who are no administrators can be impersonated.")
        async with self._database.transaction() as connection:
            return await self._identity.entrance.impersonate(
                connection, me, user, reason=reason, browser=browser
            )
