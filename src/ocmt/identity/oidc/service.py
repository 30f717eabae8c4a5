"""Signs people in by another provider: an attempt that is bound to the browser, then the account it opens.

A provider is asked between two transactions, never in one. What becomes of the sign-in is the entrance's to
say; here it is only decided whose account it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

import structlog
from uuid_utils.compat import uuid7

from ocmt.errors import LimitReached, NotFound, Unauthenticated
from ocmt.identity.audit.model import Actor
from ocmt.identity.entrance.model import Browser
from ocmt.identity.entrance.service import Outcome, user_of
from ocmt.identity.limits import OIDC_STARTS_FROM
from ocmt.identity.model import User, has_token, new_token, token_hash
from ocmt.identity.oidc import model
from ocmt.identity.oidc.clients import Ask, Clients, printable
from ocmt.identity.oidc.model import Account, Profile, Provider
from ocmt.identity.service import Identity
from ocmt.platform.clock import Clock
from ocmt.platform.database import Connection, Database
from ocmt.platform.principal import Principal
from ocmt.platform.queries import load_queries
from ocmt.platform.rates import Rates

_queries = load_queries("ocmt.identity.oidc")
_log = structlog.get_logger(__name__)
_LONGEST_TOKEN = 200
_TOO_LATE = "This sign-in took too long or was begun in another browser: begin it again."


@dataclass(frozen=True)
class Answer:
    """What the browser brings back from a provider."""

    state: str
    code: str = ""
    error: str = ""
    issuer: str | None = None


@dataclass(frozen=True)
class Linked:
    """The provider was connected to the account of who is signed in; there is no new session."""

    provider: str


@dataclass(frozen=True)
class _Attempt:
    ask: Ask
    user_id: UUID | None


class Oidc:
    """The providers of this installation; what they said of themselves is kept in memory."""

    def __init__(
        self,
        database: Database,
        identity: Identity,
        rates: Rates,
        clock: Clock,
        clients: Clients,
    ) -> None:
        self._database = database
        self._identity = identity
        self._rates = rates
        self._clock = clock
        self._clients = clients

    @property
    def providers(self) -> Sequence[Provider]:
        """Those that the sign-in page offers, in the order of the settings."""
        return [provider for provider, _ in self._clients.values()]

    def redirect_uri(self, provider: Provider) -> str:
        """Where the provider sends people back to: must be entered there, to the letter."""
        return redirect_uri(self._identity.address.url, provider.id)

    def provider(self, id: str) -> Provider:
        """Raises: NotFound."""
        if id not in self._clients:
            raise NotFound("There is no such sign-in provider.")
        return self._clients[id][0]

    # Signing in

    async def begin(
        self, provider: Provider, browser: Browser, *, asker: str, linker: Principal | None = None
    ) -> str:
        """Where to send a browser whose secret is `asker`. `linker`: who connects the provider to their
        account, instead of signing in.

        Raises: LimitReached, ProviderUnavailable.
        """
        await self._rates.take(OIDC_STARTS_FROM, browser.address or "unknown")
        state, nonce, verifier = new_token(), new_token(), new_token()
        ask = Ask(state, nonce, verifier, self.redirect_uri(provider))
        url = await self._clients[provider.id][1].authorization_url(ask)
        now = self._clock.now()
        async with self._database.transaction() as connection:
            await _queries.forget_attempts(connection, now=now)
            await _queries.add_attempt(
                connection,
                state_hash=token_hash(state),
                provider=provider.id,
                browser_hash=token_hash(asker),
                nonce=nonce,
                verifier=verifier,
                user_id=linker.user_id if linker else None,
                now=now,
                expires_at=now + model.ATTEMPT_LIFETIME,
            )
        return url

    async def finish(
        self,
        provider: Provider,
        answer: Answer,
        browser: Browser,
        *,
        asker: str | None,
        principal: Principal | None,
        tell: Callable[[str], None],
    ) -> Outcome | Linked:
        """Take a provider's answer: open a session, or connect the provider to `principal`'s account.

        `tell`: called with the address of a user who had an account already, to which the provider was
        connected.

        Raises: every error of `model`, LimitReached.
        """
        attempt = await self._use_attempt(provider, answer.state, asker)
        if answer.error == "access_denied":
            raise model.Cancelled(f"You did not sign in at {provider.label}.")
        if answer.error or not answer.code:
            raise model.ProviderRejected(
                f"{provider.label} did not take our request: your administrator finds the reason in the log.",
                detail=f"authorization endpoint: {printable(answer.error)}",
            )
        client = self._clients[provider.id][1]
        profile = await client.profile(attempt.ask, answer.code, issuer=answer.issuer)
        if attempt.user_id is None:
            return await self._sign_in(provider, profile, browser, tell)
        # The very user who began, and not an administrator who has come to look through their eyes since.
        if principal is None or principal.user_id != attempt.user_id or principal.session_id is None:
            raise _expired()
        if principal.impersonator_id is not None:
            raise _expired()
        if await self._link(provider, profile, principal, browser):
            tell(principal.email)
        return Linked(provider.id)

    async def _use_attempt(self, provider: Provider, state: str, asker: str | None) -> _Attempt:
        if not state or len(state) > _LONGEST_TOKEN:
            raise _expired()
        async with self._database.transaction() as connection:
            found = await _queries.use_attempt(connection, state_hash=token_hash(state))
        if found is None:
            raise model.AttemptOver(_TOO_LATE)
        if (
            found["expires_at"] <= self._clock.now()
            or found["provider"] != provider.id
            or not has_token(asker, found["browser_hash"])
        ):
            raise _expired()
        ask = Ask(state, found["nonce"], found["verifier"], self.redirect_uri(provider))
        return _Attempt(ask, found["user_id"])

    async def _sign_in(
        self, provider: Provider, profile: Profile, browser: Browser, tell: Callable[[str], None]
    ) -> Outcome:
        entrance = self._identity.entrance
        began = self._clock.now()
        async with self._database.transaction() as connection:
            user, linkable, connected = await self._owner(connection, provider, profile, browser)
            outcome = None
            if user is not None and linkable:
                outcome = await entrance.enter(connection, user, method=provider.method, browser=browser)
        # Only now: an account that waits for its approval has been made all the same.
        if outcome is None:
            raise _refusal(provider, user, linkable)
        if connected and user is not None and user.created_at < began:
            tell(user.email)
        return outcome

    async def _owner(
        self, connection: Connection, provider: Provider, profile: Profile, browser: Browser
    ) -> tuple[User | None, bool, bool]:
        """Whose account this opens, whether it may, and whether the provider was connected to it now."""
        # Before the entrance's lock, as `_link` does: two locks in two orders would wait for each other.
        await _queries.lock_account(connection, provider=provider.id, subject=profile.subject)
        user = await self._known(connection, provider, profile)
        if user is not None:
            return user, True, False
        user = await self._identity.entrance.admit(
            connection, profile.email, method=provider.method, browser=browser
        )
        if user is None or user.status not in ("active", "pending"):
            return user, True, False
        untouched = await _queries.is_untouched(connection, user_id=user.id)
        if not model.may_link(profile, untouched=untouched):
            return user, False, False
        await self._add(connection, provider, profile, user.id, browser, used=True)
        return user, True, True

    async def _known(self, connection: Connection, provider: Provider, profile: Profile) -> User | None:
        found = await _queries.find_account(
            connection, provider=provider.id, issuer=provider.issuer, subject=profile.subject
        )
        user = user_of(found)
        if user is not None:
            await _queries.use_account(
                connection,
                provider=provider.id,
                issuer=provider.issuer,
                subject=profile.subject,
                user_id=user.id,
                email=profile.email,
                now=self._clock.now(),
            )
        return user

    # Accounts at providers

    async def _link(
        self, provider: Provider, profile: Profile, principal: Principal, browser: Browser
    ) -> bool:
        """Whether it was connected now."""
        async with self._database.transaction() as connection:
            await _queries.lock_account(connection, provider=provider.id, subject=profile.subject)
            found = await _queries.find_account(
                connection, provider=provider.id, issuer=provider.issuer, subject=profile.subject
            )
            if found is not None and found["id"] != principal.user_id:
                raise model.AlreadyLinked(
                    f"This account at {provider.label} is connected to another user here."
                )
            if found is None:
                await self._add(connection, provider, profile, principal.user_id, browser, used=False)
        return found is None

    async def _add(
        self,
        connection: Connection,
        provider: Provider,
        profile: Profile,
        user_id: UUID,
        browser: Browser,
        *,
        used: bool,
    ) -> None:
        if await _queries.count_accounts(connection, user_id=user_id) >= model.MOST_ACCOUNTS:
            raise LimitReached(f"At most {model.MOST_ACCOUNTS} accounts at providers can be connected.")
        now = self._clock.now()
        await _queries.add_account(
            connection,
            account_id=uuid7(),
            provider=provider.id,
            issuer=provider.issuer,
            subject=profile.subject,
            user_id=user_id,
            email=profile.email,
            now=now,
            last_used_at=now if used else None,
        )
        await self._identity.audit.record(
            connection,
            "oidc.linked",
            actor=Actor.oneself(user_id, browser.address),
            subject_id=user_id,
            after={"provider": provider.id, "email": profile.email},
        )

    async def accounts(self, user_id: UUID) -> Sequence[Account]:
        """A user's own, oldest first."""
        async with self._database.connection() as connection:
            rows = _queries.list_accounts(connection, user_id=user_id)
            return [Account(**row) async for row in rows]

    async def unlink(self, user_id: UUID, account_id: UUID, *, actor: Actor) -> None:
        """Disconnect one of a user's own. Raises: NotFound where that user has none by this id."""
        async with self._database.transaction() as connection:
            ended = await _queries.end_account(connection, account_id=account_id, user_id=user_id)
            if ended is None:
                raise NotFound("There is no such account.")
            await self._identity.audit.record(
                connection,
                "oidc.unlinked",
                actor=actor,
                subject_id=user_id,
                before=dict(ended),
            )


def redirect_uri(url: str, provider_id: str) -> str:
    """Where a provider sends people back to, of an installation at `url`."""
    return f"{url}/api/v1/auth/oidc/{provider_id}/callback"


def _expired() -> Unauthenticated:
    return model.AttemptExpired(_TOO_LATE)


def _refusal(provider: Provider, user: User | None, linkable: bool) -> Exception:
    if user is not None and user.status == "pending":
        return model.AwaitsApproval("Your account waits for an administrator's approval.")
    if user is not None and user.status == "active" and not linkable:
        return model.LinkNeeded(
            f"Sign in by a link first, then connect {provider.label} to your account under Settings."
        )
    return model.NotAdmitted("This account may not sign in: ask your administrator.")
