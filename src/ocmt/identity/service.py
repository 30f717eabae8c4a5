"""What can be done with users, sign-in links and login sessions, by the rules of `model.py`.

There is no cache of sessions: one indexed query a request keeps a sign-out or a suspension true at once, in
every replica. Nothing here tells an asker which addresses have a user.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from uuid_utils.compat import uuid7

from ocmt.errors import Conflict, NotFound, Refused, Unauthenticated
from ocmt.identity import model
from ocmt.identity.model import Letter, LinkDemand, LoginSession, User
from ocmt.identity.origin import PublicAddress
from ocmt.platform.clock import Clock
from ocmt.platform.database import Connection, Database
from ocmt.platform.http import Principal
from ocmt.platform.mail import Mail
from ocmt.platform.queries import load_queries

_queries = load_queries("ocmt.identity")
_log = structlog.get_logger(__name__)

_LONGEST_TOKEN = 200
_MAIL_TIMEOUT = 60.0
_KEEP: Any = object()


class Identity:
    """The identity service of one process; stateless, all state is in the database."""

    def __init__(self, database: Database, mail: Mail, clock: Clock, *, public_url: str) -> None:
        """Raises: SetupProblem where `public_url` is no address to sign in over safely."""
        self._database = database
        self._mail = mail
        self._clock = clock
        self.address = PublicAddress.parse(public_url)

    # Sign-in links

    async def request_link(self, email: str) -> None:
        """Send a link to an address, if it is one that may sign in; nobody learns whether.

        Raises: InvalidInput where it is no address at all.
        """
        letter = await self.prepare_link(email)
        if letter is not None:
            await self.deliver(letter)

    async def prepare_link(self, email: str) -> Letter | None:
        """The part of `request_link` that may take the caller's time: the same work for every address.

        Also an address that gets no link has a row, whose token nobody has: it counts for the limits.
        """
        address = model.normalise_email(email)
        now = self._clock.now()
        token = model.new_token()
        async with self._database.transaction() as connection:
            await _queries.lock_address(connection, email=address)
            user = _user(await _queries.find_user(connection, email=address))
            empty = not await _queries.any_user(connection)
            demand = await _queries.link_demand(
                connection, email=address, known=user is not None, since=now - model.LINK_WINDOW
            )
            if not model.may_ask_for_link(LinkDemand(**demand)):
                _log.warning("sign_in_link_withheld", asked_for_overall=demand["overall"])
                return None
            await _queries.forget_links(connection, before=now - model.LINK_KEPT)
            await self._add_link(connection, token, address, model.LINK_LIFETIME)
        if not model.may_sign_in(user.status if user else None, installation_is_empty=empty):
            return None
        return model.sign_in_letter(address, self.address.sign_in_link(token))

    async def deliver(self, letter: Letter) -> None:
        """Send the mail. Called after the answer, whose delay would tell that there was one to send."""
        try:
            async with asyncio.timeout(_MAIL_TIMEOUT):
                await self._mail.send(letter.to, letter.subject, letter.text)
        except Exception as error:  # the asker got their answer; what is left is to tell the operator
            _log.exception("sign_in_mail_failed", error=type(error).__name__)

    async def make_link(self, email: str | None, *, ttl: timedelta = model.LINK_LIFETIME) -> str:
        """A sign-in link to hand over in person; a URL. `email` None: the start link, which signs in the
        first administrator and makes them if there is nobody yet. A new start link voids the unused ones.

        Raises: InvalidInput, NotFound for an address without a user, Refused for a suspended one.
        """
        token = model.new_token()
        address = None if email is None else model.normalise_email(email)
        async with self._database.transaction() as connection:
            if address is None:
                await _queries.void_start_links(connection)
            else:
                user = await self._require_user(connection, address)
                if user.status != "active":
                    raise Refused(f"{address} is suspended: lift that first.")
            await self._add_link(connection, token, address, ttl)
        return self.address.sign_in_link(token)

    async def _add_link(
        self, connection: Connection, token: str, email: str | None, lifetime: timedelta
    ) -> None:
        now = self._clock.now()
        await _queries.add_link(
            connection, token_hash=model.token_hash(token), email=email, now=now, expires_at=now + lifetime
        )

    # Login sessions

    async def sign_in(self, token: str, *, user_agent: str | None) -> tuple[User, str]:
        """Use a link up and open a login session; returns the user and the session's token.

        Raises: Unauthenticated for a link that is used, expired or none of ours, Refused for a person
        who is not, or not any more, let in. Either way the link is used up.
        """
        session_token = model.new_token()
        async with self._database.transaction() as connection:
            link = None
            if len(token) <= _LONGEST_TOKEN:
                link = await _queries.use_link(
                    connection, token_hash=model.token_hash(token), now=self._clock.now()
                )
            user = await self._admit(connection, link["email"]) if link is not None else None
            if user is not None:
                await self._open_session(connection, user, session_token, user_agent)
        # Only now, so that a refusal does not roll the use of the link back.
        if link is None:
            raise Unauthenticated("This sign-in link was used already or has expired: ask for a new one.")
        if user is None:
            raise Refused("This account may not sign in: ask your administrator.")
        _log.info("signed_in", user_id=str(user.id))
        return user, session_token

    async def _admit(self, connection: Connection, email: str | None) -> User | None:
        """The user whom a link with this address signs in, made where policy says so; None: nobody."""
        await _queries.lock_users(connection)
        found = await (
            _queries.first_admin(connection) if email is None else _queries.find_user(connection, email=email)
        )
        empty = not await _queries.any_user(connection)
        user = _user(found)
        if not model.may_sign_in(user.status if user else None, installation_is_empty=empty):
            return None
        return user or await self._insert_user(
            connection, email or model.DEFAULT_ADMIN, name=None, admin=True
        )

    async def _open_session(
        self, connection: Connection, user: User, token: str, user_agent: str | None
    ) -> None:
        now = self._clock.now()
        await _queries.forget_sessions(connection, user_id=user.id, before=now - model.SESSION_ABSOLUTE)
        await _queries.add_session(
            connection,
            session_id=uuid7(),
            user_id=user.id,
            token_hash=model.token_hash(token),
            user_agent=model.shorten_user_agent(user_agent),
            now=now,
            expires_at=model.session_expiry(now, now),
        )

    async def authenticate(self, session_token: str) -> Principal | None:
        """Who holds this session token; None where it is none, has ended, or its user is suspended.

        Using a session prolongs it (see `model.session_expiry`).
        """
        if len(session_token) > _LONGEST_TOKEN:
            return None
        now = self._clock.now()
        async with self._database.connection() as connection:
            found = await _queries.find_session(
                connection, token_hash=model.token_hash(session_token), now=now
            )
            if found is None:
                return None
            if model.touch_is_due(found["last_seen_at"], now):
                await _queries.touch_session(
                    connection,
                    session_id=found["id"],
                    user_id=found["user_id"],
                    now=now,
                    expires_at=model.session_expiry(found["created_at"], now),
                )
        return Principal(
            user_id=found["user_id"],
            session_id=found["id"],
            email=found["email"],
            is_admin=found["is_admin"],
        )

    async def sessions(self, user_id: UUID) -> Sequence[LoginSession]:
        """A user's live sessions, most recently used first, at most 100."""
        async with self._database.connection() as connection:
            rows = _queries.list_sessions(connection, user_id=user_id, now=self._clock.now())
            return [LoginSession(**row) async for row in rows]

    async def end_session(self, user_id: UUID, session_id: UUID) -> None:
        """End one of a user's own sessions. Raises: NotFound where that user has none by this id."""
        async with self._database.connection() as connection:
            ended = await _queries.end_session(
                connection, user_id=user_id, session_id=session_id, now=self._clock.now()
            )
        if ended is None:
            raise NotFound("There is no such session.")

    async def sign_out(self, principal: Principal) -> None:
        """End the session that a principal came with. Signing out twice succeeds."""
        if principal.session_id is None:
            return
        async with self._database.connection() as connection:
            await _queries.end_session(
                connection,
                user_id=principal.user_id,
                session_id=principal.session_id,
                now=self._clock.now(),
            )

    # Users

    async def user(self, user_id: UUID) -> User:
        """Raises: NotFound."""
        async with self._database.connection() as connection:
            user = _user(await _queries.get_user(connection, user_id=user_id))
        if user is None:
            raise NotFound("There is no such user.")
        return user

    async def user_by_email(self, email: str) -> User:
        """Raises NotFound."""
        async with self._database.connection() as connection:
            return await self._require_user(connection, email)

    async def users(self, *, after: UUID | None = None, limit: int = 100) -> Sequence[User]:
        """A page of all users, oldest first, that begins behind the user `after`. For administrators."""
        async with self._database.connection() as connection:
            rows = _queries.list_users(connection, after=after, limit=limit)
            return [User(**row) async for row in rows]

    async def add_user(self, email: str, admin: bool = False, *, name: str | None = None) -> User:
        """Let an address in. The first user of an installation is an administrator in any case.

        Raises: InvalidInput, Conflict where there is a user with this address.
        """
        address, name = model.normalise_email(email), model.normalise_name(name)
        async with self._database.transaction() as connection:
            await _queries.lock_users(connection)
            first = not await _queries.any_user(connection)
            return await self._insert_user(connection, address, name=name, admin=admin or first)

    async def _insert_user(
        self, connection: Connection, email: str, *, name: str | None, admin: bool
    ) -> User:
        added = _user(
            await _queries.add_user(
                connection, user_id=uuid7(), email=email, name=name, is_admin=admin, now=self._clock.now()
            )
        )
        if added is None:
            raise Conflict(f"There is a user {email} already.")
        _log.info("user_added", user_id=str(added.id), is_admin=admin)
        return added

    async def change_user(self, user_id: UUID, *, name: str | None = _KEEP, email: str = _KEEP) -> User:
        """Change what users may change of themselves; what is not given stays.

        Raises: InvalidInput, NotFound, Refused for an address that is not theirs to set, Conflict for
        another user's.
        """
        async with self._database.transaction() as connection:
            await _queries.lock_users(connection)
            user = _user(await _queries.get_user(connection, user_id=user_id))
            if user is None:
                raise NotFound("There is no such user.")
            address = user.email if email is _KEEP else model.normalise_email(email)
            if address != user.email and not model.may_change_address(user):
                raise Refused("Ask your administrator to change your e-mail address.")
            changed = _user(
                await _queries.update_user(
                    connection,
                    user_id=user_id,
                    name=user.name if name is _KEEP else model.normalise_name(name),
                    email=address,
                )
            )
        if changed is None:
            raise Conflict(f"There is another user {address} already.")
        return changed

    async def suspend(self, email: str) -> User:
        """Shut a user out: no sign-in, and all their sessions end now. Suspending twice succeeds.

        Raises: NotFound, Conflict for the last active administrator.
        """
        async with self._database.transaction() as connection:
            await _queries.lock_users(connection)
            user = await self._require_user(connection, model.normalise_email(email))
            if user.is_admin and user.status == "active" and await _queries.count_admins(connection) == 1:
                raise Conflict(f"{user.email} is the last administrator: add another one first.")
            await _queries.set_status(connection, user_id=user.id, status="suspended")
            await _queries.end_sessions(connection, user_id=user.id, now=self._clock.now())
        _log.info("user_suspended", user_id=str(user.id))
        return await self.user(user.id)

    async def reinstate(self, email: str) -> User:
        """Let a suspended user in again; they sign in anew. Raises: NotFound."""
        async with self._database.transaction() as connection:
            user = await self._require_user(connection, model.normalise_email(email))
            await _queries.set_status(connection, user_id=user.id, status="active")
        _log.info("user_reinstated", user_id=str(user.id))
        return await self.user(user.id)

    async def _require_user(self, connection: Connection, email: str) -> User:
        user = _user(await _queries.find_user(connection, email=email))
        if user is None:
            raise NotFound(f"There is no user {email}.")
        return user


def _user(row: Any) -> User | None:
    return None if row is None else User(**row)
