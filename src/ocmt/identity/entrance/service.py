"""Lets people in: an account by the sign-up policy, then a session, or first a challenge for a second factor.

There is no cache of sessions: one indexed query a request keeps a sign-out or a suspension true at once, in
every replica.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog
from uuid_utils.compat import uuid7

from ocmt.errors import NotFound, Refused, Unauthenticated
from ocmt.identity.audit.model import Actor
from ocmt.identity.audit.service import Audit
from ocmt.identity.entrance import model
from ocmt.identity.entrance.model import Admission, Browser, Newcomer, SecondFactors, Session, SignUpPolicy
from ocmt.identity.model import User, new_token, shorten_user_agent, token_hash
from ocmt.platform.clock import Clock
from ocmt.platform.database import Connection, Database
from ocmt.platform.principal import Principal
from ocmt.platform.queries import load_queries

_queries = load_queries("ocmt.identity.entrance")
_users = load_queries("ocmt.identity")
_log = structlog.get_logger(__name__)
_LONGEST_TOKEN = 200

NOT_ADMITTED = "This account may not sign in: ask your administrator."
_CHALLENGE_OVER = "This sign-in took too long or was tried too often: begin it again."
PENDING = "Your account waits for an administrator's approval: you will be able to sign in after that."


@dataclass(frozen=True)
class Entered:
    """A session was opened; `token` is its cookie's value."""

    user: User
    token: str


@dataclass(frozen=True)
class SecondFactorNeeded:
    """Half way in: `token` goes with the second proof, by one of `methods`."""

    token: str
    methods: tuple[str, ...]


Outcome = Entered | SecondFactorNeeded


class Entrance:
    """The door of one process; stateless, all state is in the database."""

    def __init__(
        self,
        database: Database,
        audit: Audit,
        clock: Clock,
        policy: SignUpPolicy,
        *,
        mfa_for_admins: bool = False,
    ) -> None:
        self._database = database
        self._audit = audit
        self._clock = clock
        self.policy = policy
        self._mfa_for_admins = mfa_for_admins

    def now(self) -> datetime:
        """Return the time by which sessions are counted."""
        return self._clock.now()

    # Who is let in

    async def admit(
        self, connection: Connection, email: str, *, method: str, browser: Browser
    ) -> User | None:
        """The user of an address that was proved by `method`; made where the policy says so. None: nobody is
        let in.

        The user may be of any status: `refusal` says what that means. `email` is normalised.
        """
        await _users.lock_users(connection)
        found = user_of(await _users.find_user(connection, email=email))
        if found is not None:
            return found
        admission = await self._admission(connection, email)
        if admission is None:
            return None
        await _queries.accept_invitations(connection, email=email, now=self._clock.now())
        user = user_of(
            await _users.add_user(
                connection,
                user_id=uuid7(),
                email=email,
                name=None,
                role=admission.role,
                status=admission.status,
                now=self._clock.now(),
            )
        )
        assert user is not None, "nobody else adds users under the lock"
        await self._audit.record(
            connection,
            "user.signed_up",
            actor=Actor.oneself(user.id, browser.address),
            subject_id=user.id,
            method=method,
            after={"email": email, "role": user.role, "status": user.status},
        )
        return user

    async def would_admit(self, connection: Connection, email: str) -> bool:
        """Whether an address would be let in if it were proved: for mails that are not worth sending else."""
        found = user_of(await _users.find_user(connection, email=email))
        # Asked in any case: the time of the answer is not to tell whether there is such a user.
        admission = await self._admission(connection, email)
        return found.status == "active" if found is not None else admission is not None

    async def _admission(self, connection: Connection, email: str) -> Admission | None:
        invitation = await _queries.find_invitation(connection, email=email, now=self._clock.now())
        newcomer = Newcomer(
            email,
            invited_as=invitation["role"] if invitation else None,
            listed=await _queries.is_listed(connection, email=email, domain=model.domain_of(email)),
        )
        return model.admission(self.policy, newcomer)

    async def user(self, connection: Connection, user_id: UUID) -> User | None:
        """Of any status."""
        return user_of(await _users.get_user(connection, user_id=user_id))

    async def enter(
        self, connection: Connection, user: User, *, method: str, browser: Browser
    ) -> Outcome | None:
        """Open a session for a user who proved themselves by `method`, or a challenge. None: they may not
        come in.

        Returns rather than raises, so that the use of the proof is not rolled back with the transaction.
        """
        if user.status != "active":
            return None
        factors = await self.factors(connection, user.id)
        if not model.second_factor_due([method], factors):
            return await self._open(connection, user, [method], browser)
        token, now = new_token(), self._clock.now()
        await _queries.forget_challenges(connection, now=now)
        await _queries.add_challenge(
            connection,
            token_hash=token_hash(token),
            user_id=user.id,
            methods=[method],
            now=now,
            expires_at=now + model.CHALLENGE_LIFETIME,
        )
        return SecondFactorNeeded(token, factors.methods)

    # The second factor

    async def factors(self, connection: Connection, user_id: UUID) -> SecondFactors:
        """What a user can show beside their first proof."""
        return SecondFactors(**await _queries.second_factors(connection, user_id=user_id))

    async def demands_second_factor(self, connection: Connection, user_id: UUID) -> bool:
        """Whether that user must have one."""
        user = await self.user(connection, user_id)
        return user is not None and self._demands(user.mfa_required, user.role)

    async def keep_demanded(self, connection: Connection, user_id: UUID) -> None:
        """Called after a second factor was removed: raises Refused where one is demanded and none is left."""
        if await self.demands_second_factor(connection, user_id):
            factors = await self.factors(connection, user_id)
            if not factors.methods:
                raise Refused("Your administrator asks for a second factor: set up another one first.")

    async def forget_lonely_codes(self, connection: Connection, user_id: UUID) -> None:
        """Called after a second factor was removed: backup codes go with the last one they stood in for."""
        if not (await self.factors(connection, user_id)).methods:
            await _queries.forget_backup_codes(connection, user_id=user_id)

    def _demands(self, required: bool, role: str) -> bool:
        return required or (self._mfa_for_admins and role == "admin")

    async def challenged(self, token: str) -> User:
        """Whose challenge this is; counts an attempt, whatever becomes of it.

        Raises: Unauthenticated where it is none, or has expired, or was tried too often.
        """
        async with self._database.connection() as connection:
            found = await _queries.find_challenge(
                connection,
                token_hash=token_hash(token[:_LONGEST_TOKEN]),
                now=self._clock.now(),
                most=model.CHALLENGE_ATTEMPTS,
            )
            user = await self.user(connection, found["user_id"]) if found else None
        if user is None or user.status != "active":
            raise Unauthenticated(_CHALLENGE_OVER)
        return user

    async def complete(self, connection: Connection, token: str, *, method: str, browser: Browser) -> Entered:
        """The second proof was right: the challenge is used up, and a session opened.

        Raises: Unauthenticated where the challenge is gone.
        """
        found = await _queries.end_challenge(connection, token_hash=token_hash(token), now=self._clock.now())
        user = await self.user(connection, found["user_id"]) if found else None
        if found is None or user is None or user.status != "active":
            raise Unauthenticated(_CHALLENGE_OVER)
        return await self._open(connection, user, [*found["methods"], method], browser)

    async def prove_again(self, connection: Connection, principal: Principal, *, method: str) -> None:
        """A signed-in user has proved once more who they are: their session is recent from now on."""
        await _queries.prove_again(
            connection,
            session_id=principal.session_id,
            user_id=principal.user_id,
            method=method,
            now=self._clock.now(),
        )

    async def lock_vault(self, principal: Principal) -> None:
        """Reveal nothing of the vault in this session until its user has proved again who they are."""
        async with self._database.connection() as connection:
            await _queries.lock_vault(connection, session_id=principal.session_id, user_id=principal.user_id)

    # Sessions

    async def _open(
        self, connection: Connection, user: User, methods: list[str], browser: Browser
    ) -> Entered:
        now = self._clock.now()
        await _queries.forget_sessions(connection, user_id=user.id, before=now - model.SESSION_ABSOLUTE)
        session_id, token = await self._add(
            connection, user, methods, browser, expires_at=model.session_expiry(now, now)
        )
        await _queries.crowd_out(connection, user_id=user.id, now=now, most=model.MOST_SESSIONS)
        await self._audit.record(
            connection,
            "session.opened",
            actor=Actor.oneself(user.id, browser.address),
            subject_id=user.id,
            session=str(session_id),
            methods=methods,
        )
        _log.info("signed_in", user_id=str(user.id), methods=methods)
        return Entered(user, token)

    async def impersonate(
        self, connection: Connection, admin: Principal, user: User, *, reason: str, browser: Browser
    ) -> Entered:
        """A session of an administrator's that looks through a user's eyes, for an hour at most."""
        session_id, token = await self._add(
            connection,
            user,
            ["impersonation"],
            browser,
            expires_at=self._clock.now() + model.IMPERSONATION,
            impersonator_id=admin.user_id,
            impersonator_session_id=admin.session_id,
            reason=reason,
        )
        await self._audit.record(
            connection,
            "session.impersonated",
            actor=Actor.oneself(admin.user_id, browser.address),
            subject_id=user.id,
            session=str(session_id),
            reason=reason,
        )
        return Entered(user, token)

    async def _add(
        self,
        connection: Connection,
        user: User,
        methods: list[str],
        browser: Browser,
        *,
        expires_at: Any,
        impersonator_id: UUID | None = None,
        impersonator_session_id: UUID | None = None,
        reason: str | None = None,
    ) -> tuple[UUID, str]:
        session_id, token = uuid7(), new_token()
        await _queries.add_session(
            connection,
            session_id=session_id,
            user_id=user.id,
            token_hash=token_hash(token),
            user_agent=shorten_user_agent(browser.user_agent),
            address=browser.address,
            methods=methods,
            now=self._clock.now(),
            expires_at=expires_at,
            impersonator_id=impersonator_id,
            impersonator_session_id=impersonator_session_id,
            reason=reason,
        )
        return session_id, token

    async def authenticate(self, session_token: str) -> Principal | None:
        """Who holds this session token; None where it is none, has ended, or its user is not active (any
        more).

        Using a session prolongs it (see `model.session_expiry`).
        """
        if len(session_token) > _LONGEST_TOKEN:
            return None
        now = self._clock.now()
        async with self._database.connection() as connection:
            found = await _queries.find_session(connection, token_hash=token_hash(session_token), now=now)
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
        return self.principal_of(found)

    def principal_of(self, found: Mapping[str, Any]) -> Principal:
        """Return who holds a live session, from its row and its owner's (`find_session`)."""
        impersonator: UUID | None = found["impersonator_id"]
        demanded = self._demands(found["mfa_required"], found["role"])
        return Principal(
            user_id=found["user_id"],
            session_id=found["id"],
            email=found["email"],
            role=found["role"],
            name=found["name"],
            user_since=found["user_since"],
            authenticated_at=None if impersonator else found["authenticated_at"],
            must_enrol=impersonator is None and model.must_enrol(found["methods"], demanded=demanded),
            impersonator_id=impersonator,
            vault_locked=found["vault_locked"],
        )

    async def sessions(self, user_id: UUID) -> Sequence[Session]:
        """A user's live sessions, most recently used first, at most 100."""
        async with self._database.connection() as connection:
            rows = _queries.list_sessions(connection, user_id=user_id, now=self._clock.now())
            return [Session(**row) async for row in rows]

    async def end_session(
        self, principal: Principal, session_id: UUID, *, address: str | None = None
    ) -> None:
        """End one of a user's own sessions. Raises: NotFound where that user has none by this id."""
        async with self._database.transaction() as connection:
            ended = await _queries.end_session(
                connection, user_id=principal.user_id, session_id=session_id, now=self._clock.now()
            )
            if ended is None:
                raise NotFound("There is no such session.")
            await self._audit.record(
                connection,
                "session.ended",
                actor=Actor(principal.impersonator_id or principal.user_id, principal.user_id, address),
                subject_id=principal.user_id,
                session=str(session_id),
            )

    async def end_all(self, connection: Connection, user_id: UUID) -> None:
        """End a user's sessions, and those in which they look through other users' eyes.

        The caller's transaction says why in the audit log.
        """
        await _queries.end_sessions(connection, user_id=user_id, now=self._clock.now())

    async def end_impersonations(self, connection: Connection, user_id: UUID) -> None:
        """End the sessions in which this user looks through other users' eyes."""
        await _queries.end_impersonations(connection, user_id=user_id, now=self._clock.now())

    async def sign_out(self, principal: Principal, *, address: str | None = None) -> None:
        """End the session that a principal came with. Signing out twice succeeds."""
        if principal.session_id is None:
            return
        try:
            await self.end_session(principal, principal.session_id, address=address)
        except NotFound:
            return


def refusal(user: User | None) -> Refused:
    """Why somebody who has proved an address is not let in all the same."""
    return Refused(PENDING if user is not None and user.status == "pending" else NOT_ADMITTED)


def user_of(row: Any) -> User | None:
    """A user's row."""
    return None if row is None else User(**row)
