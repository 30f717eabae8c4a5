"""Gives out tickets for the agents' own host name, and knows whose visit a cookie there stands for."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from ocmt.errors import Unauthenticated
from ocmt.identity.entrance.model import SESSION_ABSOLUTE
from ocmt.identity.entrance.service import Entrance
from ocmt.identity.model import new_token, token_hash
from ocmt.identity.visits.model import MOST_VISITS, TICKET_LIFETIME
from ocmt.platform.clock import Clock
from ocmt.platform.database import Database
from ocmt.platform.principal import Principal
from ocmt.platform.queries import load_queries

_queries = load_queries("ocmt.identity.visits")
_LONGEST_TOKEN = 200
_OVER = "This sign-in took too long, or was begun in another browser. Begin it again."


class Visits:
    """Of all processes: the state is in the database."""

    def __init__(self, database: Database, entrance: Entrance, clock: Clock) -> None:
        self._database = database
        self._entrance = entrance
        self._clock = clock

    async def ticket(self, principal: Principal, binding: str) -> str:
        """Return a token that opens one visit, for a minute, in the browser with that binding.

        Raises: Unauthenticated where the principal has no login session (any more).
        """
        token, now = new_token(), self._clock.now()
        async with self._database.transaction() as connection:
            added = await _queries.add_ticket(
                connection,
                token_hash=token_hash(token),
                user_id=principal.user_id,
                session_id=principal.session_id,
                binding=binding,
                now=now,
                expires_at=now + TICKET_LIFETIME,
            )
            if added is None:
                raise Unauthenticated("Sign in first.")
            await _queries.crowd_out(
                connection,
                user_id=principal.user_id,
                session_id=principal.session_id,
                newest=token_hash(token),
                now=now,
                most=MOST_VISITS,
            )
        return token

    async def redeem(self, ticket: str, binding: str) -> str:
        """Use a ticket up; the value of the visit's cookie. Raises: Unauthenticated."""
        token, now = new_token(), self._clock.now()
        async with self._database.connection() as connection:
            found = await _queries.redeem(
                connection,
                token_hash=token_hash(ticket[:_LONGEST_TOKEN]),
                binding=binding,
                visit_hash=token_hash(token),
                now=now,
                expires_at=now + SESSION_ABSOLUTE,
            )
        if found is None:
            raise Unauthenticated(_OVER)
        return token

    def now(self) -> datetime:
        """Return the time by the clock of this room."""
        return self._clock.now()

    async def authenticate(self, token: str) -> Principal | None:
        """Return who visits with this cookie; None once the login session behind it has ended.

        A visit is no recent sign-in and administers nothing, and using it does not prolong the session.
        """
        if len(token) > _LONGEST_TOKEN:
            return None
        async with self._database.connection() as connection:
            found = await _queries.find_visit(connection, token_hash=token_hash(token), now=self._clock.now())
        if found is None:
            return None
        return replace(self._entrance.principal_of(found), role="user", authenticated_at=None)
