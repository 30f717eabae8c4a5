"""What can be done with users and sign-in links, by the rules of `model.py`.

Nothing here tells an asker which addresses have a user. Who has proved an address is let in by the
`entrance`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any, Self
from uuid import UUID

import structlog
from uuid_utils.compat import uuid7

from ocmt.errors import Conflict, LimitReached, NotFound, Refused, Unauthenticated
from ocmt.identity import letters, limits, model
from ocmt.identity.audit.model import Actor
from ocmt.identity.audit.service import Audit
from ocmt.identity.entrance.model import Browser, SignUpMode, SignUpPolicy
from ocmt.identity.entrance.service import Entrance, Outcome, refusal
from ocmt.identity.entrance.service import user_of as _user
from ocmt.identity.letters import Letter
from ocmt.identity.model import Status, User
from ocmt.identity.origin import PublicAddress
from ocmt.identity.post import Post
from ocmt.platform.clock import Clock
from ocmt.platform.database import Connection, Database
from ocmt.platform.mail import Mail
from ocmt.platform.principal import Principal, Role
from ocmt.platform.queries import load_queries
from ocmt.platform.rates import Rates
from ocmt.platform.tags import require_seen

_queries = load_queries("ocmt.identity")
_log = structlog.get_logger(__name__)

_LONGEST_TOKEN = 200
_KEEP: Any = object()


ShutOut = Callable[[Connection, UUID], Awaitable[None]]
"""What another room does, in the same transaction, when a user is shut out: their agent is stopped."""


async def _nothing_else(_connection: Connection, _user_id: UUID) -> None:
    return None


class _Withheld(Exception):
    """There was no room in a purse."""


class ConfirmationNeeded(Conflict):
    """Another browser has asked for this link: the person must say that it was them."""

    code = "confirmation_needed"


class Identity:
    """The identity service of one process; stateless, all state is in the database."""

    def __init__(
        self,
        database: Database,
        mail: Mail,
        clock: Clock,
        *,
        audit: Audit,
        rates: Rates,
        entrance: Entrance,
        address: PublicAddress,
        shut_out: ShutOut,
    ) -> None:
        self._database = database
        self._shut_out = shut_out
        self.post = Post(mail, rates)
        self._clock = clock
        self.audit = audit
        self.rates = rates
        self.entrance = entrance
        self.address = address

    @classmethod
    def over(
        cls,
        database: Database,
        mail: Mail,
        clock: Clock,
        *,
        public_url: str | PublicAddress,
        sign_up: SignUpMode = "invitation",
        allowed: Sequence[str] = (),
        mfa_for_admins: bool = False,
        shut_out: ShutOut | None = None,
    ) -> Self:
        """The room with its audit log and its entrance. `shut_out`: what other rooms do at a suspension.

        Raises: SetupProblem where `public_url` is no address to sign in over safely, InvalidInput for what
        is no address or domain to let in.
        """
        address = PublicAddress.parse(public_url) if isinstance(public_url, str) else public_url
        audit = Audit(database, clock)
        policy = SignUpPolicy.parse(sign_up, allowed)
        entrance = Entrance(database, audit, clock, policy, mfa_for_admins=mfa_for_admins)
        rates = Rates(database, clock)
        return cls(
            database,
            mail,
            clock,
            audit=audit,
            rates=rates,
            entrance=entrance,
            address=address,
            shut_out=shut_out or _nothing_else,
        )

    # Sign-in links

    async def request_link(self, email: str, *, asker: str | None = None) -> None:
        """Send a link to an address, if it is one that may sign in; nobody learns whether.

        Raises: InvalidInput where it is no address at all.
        """
        letter = await self.prepare_link(email, asker=asker)
        if letter is not None:
            await self.deliver(letter)

    async def prepare_link(self, email: str, *, asker: str | None = None) -> Letter | None:
        """The part of `request_link` that may take the caller's time: the same work for every address.

        Also an address that gets no link has a row, whose token nobody has: it counts for the limits.
        `asker`: the secret of the browser that asks, which may then use the link without being asked back.
        """
        address = model.normalise_email(email)
        now = self._clock.now()
        token = model.new_token()
        try:
            await self.rates.take(limits.LINKS_TO, address)
        except LimitReached:
            _log.warning("sign_in_link_withheld")
            return None
        known = await self._is_known(address)
        withheld = False
        try:
            await self.rates.take(limits.LINKS_TO_USERS if known else limits.LINKS_TO_STRANGERS, "")
        except LimitReached:
            withheld = True
        # The same statements follow in any case: what is withheld is only rolled back.
        with suppress(_Withheld):
            async with self._database.transaction() as connection:
                await _queries.forget_links(connection, before=now - model.LINK_KEPT)
                await self._add_link(
                    connection, token, address, model.LINK_LIFETIME, asker or model.new_token()
                )
                admitted = await self.entrance.would_admit(connection, address)
                if withheld:
                    raise _Withheld
            minutes = int(model.LINK_LIFETIME.total_seconds() // 60)
            link = self.address.sign_in_link(token)
            return letters.sign_in(address, link, minutes=minutes) if admitted else None
        _log.warning("sign_in_link_withheld")
        return None

    async def _is_known(self, address: str) -> bool:
        async with self._database.connection() as connection:
            return await _queries.find_user(connection, email=address) is not None

    async def deliver(self, letter: Letter) -> None:
        """Send the mail, within its bounds. See `Post.deliver`."""
        await self.post.deliver(letter)

    async def notify(self, user: Principal, what: str) -> None:
        """Have a user hear by mail of something that was done in their name: `A passkey was added`."""
        await self.deliver(letters.notice(user.email, what, self.address.url))

    async def make_link(self, email: str, *, ttl: timedelta = model.LINK_LIFETIME) -> str:
        """Return a sign-in link, to be handed over in person.

        Raises: InvalidInput, NotFound for an address without a user, Refused for a suspended one.
        """
        token, address = model.new_token(), model.normalise_email(email)
        async with self._database.transaction() as connection:
            user = await self._require_user(connection, address)
            if user.status != "active":
                raise Refused(f"{address} is {user.status}: lift that first.")
            await self._add_link(connection, token, address, ttl, None)
        return self.address.sign_in_link(token)

    async def make_start_link(self) -> str | None:
        """Return the link that makes the first administrator; None where there is one already.

        A new start link voids those before it, and none works once there is an administrator.
        """
        token = model.new_token()
        async with self._database.transaction() as connection:
            await _queries.lock_users(connection)
            await _queries.void_start_links(connection)
            if await _queries.any_admin(connection):
                return None
            await self._add_link(connection, token, None, model.START_LINK_LIFETIME, None)
        return self.address.sign_in_link(token)

    async def first_administrator(self) -> User | None:
        """Return the active administrator whose account is the oldest; None where there is none."""
        async with self._database.connection() as connection:
            return _user(await _queries.first_admin(connection))

    async def _add_link(
        self, connection: Connection, token: str, email: str | None, lifetime: timedelta, asker: str | None
    ) -> None:
        now = self._clock.now()
        await _queries.add_link(
            connection,
            token_hash=model.token_hash(token),
            email=email,
            browser_hash=model.token_hash(asker) if asker else None,
            now=now,
            expires_at=now + lifetime,
        )

    async def sign_in(
        self, token: str, browser: Browser, *, asker: str | None = None, confirmed: bool = False
    ) -> Outcome:
        """Use a link up: opens a login session, or asks for the second factor.

        `asker`: the secret of the browser that uses it. Raises: Unauthenticated for a link that is used,
        expired or none of ours; ConfirmationNeeded (the link stays good) where another browser has asked for
        it and the person has not said that it was them; Refused for a person who is not, or not any more,
        let in, and Conflict while they wait for their approval: then the link is used up.
        """
        if len(token) > _LONGEST_TOKEN:
            raise _used_up()
        hashed, now = model.token_hash(token), self._clock.now()
        async with self._database.transaction() as connection:
            link = await _queries.find_link(connection, token_hash=hashed, now=now)
            if link is None:
                raise _used_up()
            bound = link["browser_hash"] is not None
            if bound and not confirmed and not model.has_token(asker, link["browser_hash"]):
                raise ConfirmationNeeded("This link was asked for in another browser. Was that you?")
            if await _queries.use_link(connection, token_hash=hashed, now=now) is None:
                raise _used_up()
            if link["email"] is None:
                user: User | None = await self._make_first_administrator(connection)
            else:
                user = await self.entrance.admit(connection, link["email"], method="link", browser=browser)
            outcome = (
                await self.entrance.enter(connection, user, method="link", browser=browser) if user else None
            )
        # Only now, so that a refusal does not roll the use of the link back.
        if outcome is None:
            raise refusal(user)
        return outcome

    async def _make_first_administrator(self, connection: Connection) -> User:
        """Make the user whom the start link signs in. Raises: Unauthenticated where there is one already."""
        await _queries.lock_users(connection)
        if await _queries.any_admin(connection):
            raise _used_up()
        return await self._insert_user(connection, model.DEFAULT_ADMIN, name=None, role="admin", actor=None)

    # Users

    async def user(self, user_id: UUID) -> User:
        """Raises: NotFound."""
        async with self._database.connection() as connection:
            return await self._get(connection, user_id)

    async def user_by_email(self, email: str) -> User:
        """Raises NotFound."""
        async with self._database.connection() as connection:
            return await self._require_user(connection, email)

    async def users(
        self, *, after: UUID | None = None, search: str | None = None, limit: int = 100
    ) -> Sequence[User]:
        """A page of all users, oldest first, that begins behind the user `after`; of those with `search` in
        their address or name. For administrators."""
        async with self._database.connection() as connection:
            rows = _queries.list_users(connection, after=after, search=search or None, limit=limit)
            return [User(**row) async for row in rows]

    async def addresses(self, user_ids: Collection[UUID]) -> Mapping[UUID, str]:
        """Those users' addresses, as far as there still are such users. For administrators."""
        async with self._database.connection() as connection:
            rows = _queries.addresses(connection, user_ids=list(user_ids))
            return {row["id"]: row["email"] async for row in rows}

    async def add_user(
        self, email: str, role: Role = "user", *, name: str | None = None, actor: Actor | None = None
    ) -> User:
        """Let an address in. The first user of an installation is an administrator in any case.

        Raises: InvalidInput, Conflict where there is a user with this address.
        """
        address, name = model.normalise_email(email), model.normalise_name(name)
        async with self._database.transaction() as connection:
            await _queries.lock_users(connection)
            first = not await _queries.any_user(connection)
            return await self._insert_user(
                connection, address, name=name, role="admin" if first else role, actor=actor
            )

    async def _insert_user(
        self, connection: Connection, email: str, *, name: str | None, role: Role, actor: Actor | None
    ) -> User:
        added = _user(
            await _queries.add_user(
                connection,
                user_id=uuid7(),
                email=email,
                name=name,
                role=role,
                status="active",
                now=self._clock.now(),
            )
        )
        if added is None:
            raise Conflict(f"There is a user {email} already.")
        after = {"email": email, "name": name, "role": role}
        await self.audit.record(connection, "user.added", actor=actor, subject_id=added.id, after=after)
        return added

    async def change_user(
        self,
        user_id: UUID,
        *,
        name: str | None = _KEEP,
        email: str = _KEEP,
        seen: str | None = None,
        actor: Actor | None = None,
    ) -> User:
        """Change what users may change of themselves, who have `seen` a certain state (`own_tag`); what is
        not given stays.

        Raises: InvalidInput, NotFound, Refused for an address that is not theirs to set, Conflict for
        another user's, PreconditionFailed.
        """
        async with self._database.transaction() as connection:
            await _queries.lock_users(connection)
            user = await self._get(connection, user_id)
            require_seen(seen, model.own_tag(user.name, user.email))
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
            if changed != user:
                await self.audit.record(
                    connection,
                    "user.changed",
                    actor=actor,
                    subject_id=user_id,
                    before={"name": user.name, "email": user.email},
                    after={"name": changed.name, "email": changed.email},
                )
        return changed

    async def administer(
        self,
        user_id: UUID,
        *,
        role: Role | None = None,
        status: Status | None = None,
        mfa_required: bool | None = None,
        seen: str | None = None,
        actor: Actor | None = None,
    ) -> User:
        """Change what administrators may change of a user, who have `seen` a certain state (`User.tag`):
        all of it or nothing. What is None stays; setting what is set already succeeds.

        A status other than active shuts the user out: all their sessions and tokens end now, those in which
        they look through other users' eyes as well, and their agent is stopped. Access tokens say the role,
        so with another role they end, too.

        Raises: NotFound, Conflict for the last active administrator, PreconditionFailed.
        """
        async with self._database.transaction() as connection:
            await _queries.lock_users(connection)
            before = await self._get(connection, user_id)
            require_seen(seen, before.tag)
            after = replace(
                before,
                role=role or before.role,
                status=status or before.status,
                mfa_required=before.mfa_required if mfa_required is None else mfa_required,
            )
            shut_out = after.status not in {"active", before.status}
            if not (after.is_admin and after.status == "active"):
                await self._refuse_the_last(connection, before)
            if shut_out:
                await self.entrance.end_all(connection, user_id)
                await self._shut_out(connection, user_id)
            elif before.is_admin and not after.is_admin:
                await self.entrance.end_impersonations(connection, user_id)
            await _queries.administer(
                connection,
                user_id=user_id,
                role=after.role,
                status=after.status,
                mfa_required=after.mfa_required,
                tokens_end=self._clock.now() if shut_out or after.role != before.role else None,
            )
            for name in ("role", "mfa_required", "status"):
                was, now = getattr(before, name), getattr(after, name)
                if was != now:
                    await self.audit.record(
                        connection,
                        f"user.{name}",
                        actor=actor,
                        subject_id=user_id,
                        before={name: was},
                        after={name: now},
                    )
        return after

    async def _refuse_the_last(self, connection: Connection, user: User) -> None:
        if user.is_admin and user.status == "active" and await _queries.count_admins(connection) == 1:
            raise Conflict(f"{user.email} is the last administrator: add another one first.")

    async def _get(self, connection: Connection, user_id: UUID) -> User:
        user = await self.entrance.user(connection, user_id)
        if user is None:
            raise NotFound("There is no such user.")
        return user

    async def _require_user(self, connection: Connection, email: str) -> User:
        user = _user(await _queries.find_user(connection, email=model.normalise_email(email)))
        if user is None:
            raise NotFound(f"There is no user {email}.")
        return user


def _used_up() -> Unauthenticated:
    return Unauthenticated("This sign-in link was used already or has expired: ask for a new one.")
