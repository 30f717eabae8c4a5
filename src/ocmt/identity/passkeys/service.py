"""Registers passkeys and checks their answers. What was asked is a row that is used once, within five
minutes.

The library is imported when it is needed: it takes a moment, and most requests need none of it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Literal
from uuid import UUID

import structlog
from uuid_utils.compat import uuid7

from ocmt.errors import Conflict, LimitReached, NotFound, Unauthenticated
from ocmt.identity.audit.model import Actor
from ocmt.identity.audit.service import Audit
from ocmt.identity.entrance.model import Browser
from ocmt.identity.entrance.service import Entrance, Outcome, refusal
from ocmt.identity.model import has_token, one_line, token_hash
from ocmt.identity.origin import PublicAddress
from ocmt.identity.passkeys import model
from ocmt.identity.passkeys.model import NotAccepted, Passkey
from ocmt.platform.clock import Clock
from ocmt.platform.database import Connection, Database
from ocmt.platform.principal import Principal
from ocmt.platform.queries import every, load_queries

_queries = load_queries("ocmt.identity.passkeys")
_log = structlog.get_logger(__name__)

Purpose = Literal["register", "sign_in"]

_MALFORMED = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
"""What reading an answer by its fields can raise; RecursionError: JSON that is nested too deep."""


class Passkeys:
    """Those of all users."""

    def __init__(
        self, database: Database, audit: Audit, entrance: Entrance, clock: Clock, address: PublicAddress
    ) -> None:
        self._database = database
        self._audit = audit
        self._entrance = entrance
        self._clock = clock
        self._origins = sorted(address.origins)
        self._host = address.host

    # One's own

    async def list(self, user_id: UUID) -> Sequence[Passkey]:
        """A user's passkeys, oldest first."""
        async with self._database.connection() as connection:
            return [Passkey(**row) async for row in _queries.list_passkeys(connection, user_id=user_id)]

    async def registration(self, me: Principal) -> dict[str, Any]:
        """What the browser is to ask an authenticator for a new one (PublicKeyCredentialCreationOptionsJSON).

        Raises: LimitReached.
        """
        from webauthn import generate_registration_options, options_to_json
        from webauthn.helpers.structs import (
            AuthenticatorSelectionCriteria,
            PublicKeyCredentialDescriptor,
            ResidentKeyRequirement,
            UserVerificationRequirement,
        )

        async with self._database.connection() as connection:
            rows = await every(_queries.credential_ids(connection, user_id=me.user_id))
        if len(rows) >= model.MOST_PASSKEYS:
            raise LimitReached(f"You have {model.MOST_PASSKEYS} passkeys: remove one that you do not need.")
        options = generate_registration_options(
            rp_id=self._host,
            rp_name="OCMT",
            user_name=me.email,
            user_id=me.user_id.bytes,
            challenge=await self._ask("register", me.user_id),
            authenticator_selection=AuthenticatorSelectionCriteria(
                resident_key=ResidentKeyRequirement.REQUIRED,
                user_verification=UserVerificationRequirement.REQUIRED,
            ),
            exclude_credentials=[PublicKeyCredentialDescriptor(id=row["credential_id"]) for row in rows],
        )
        answer: dict[str, Any] = json.loads(options_to_json(options))
        return answer

    async def register(
        self, me: Principal, name: str, credential: Mapping[str, Any], *, address: str | None = None
    ) -> UUID:
        """Keep a new one. Raises: NotAccepted, InvalidInput, Conflict."""
        from webauthn import verify_registration_response

        name = one_line(name, "the passkey")
        challenge = await self._asked(credential, "register", me.user_id)
        try:
            made = verify_registration_response(
                credential=dict(credential),
                expected_challenge=challenge,
                expected_rp_id=self._host,
                expected_origin=self._origins,
                require_user_verification=True,
            )
        except Exception as error:  # a stranger's bytes, read by four libraries: each has errors of its own
            raise _not_accepted(error) from error
        if len(made.credential_id) > model.LONGEST_ID:
            raise _not_accepted(None)
        number = uuid7()
        async with self._database.transaction() as connection:
            added = await _queries.add_passkey(
                connection,
                id=number,
                user_id=me.user_id,
                credential_id=made.credential_id,
                public_key=made.credential_public_key,
                sign_count=made.sign_count,
                name=name,
                transports=[],
                backed_up=made.credential_backed_up,
                now=self._clock.now(),
            )
            if added is None:
                raise Conflict("This passkey is registered already.")
            await self._entrance.prove_again(connection, me, method="passkey")
            await self._record(connection, "passkey.added", me.user_id, address, name=name)
        return number

    async def rename(self, user_id: UUID, number: UUID, name: str, *, address: str | None = None) -> None:
        """Raises: NotFound, InvalidInput."""
        name = one_line(name, "the passkey")
        async with self._database.transaction() as connection:
            renamed = await _queries.rename_passkey(connection, id=number, user_id=user_id, name=name)
            if renamed is None:
                raise NotFound("There is no such passkey.")
            await self._record(connection, "passkey.renamed", user_id, address, name=name)

    async def remove(self, user_id: UUID, number: UUID, *, address: str | None = None) -> None:
        """Raises: NotFound, Refused where a second factor is demanded and this is the only one."""
        async with self._database.transaction() as connection:
            gone = await _queries.drop_passkey(connection, id=number, user_id=user_id)
            if gone is None:
                raise NotFound("There is no such passkey.")
            await self._entrance.keep_demanded(connection, user_id)
            await self._entrance.forget_lonely_codes(connection, user_id)
            await self._record(connection, "passkey.removed", user_id, address, name=gone["name"])

    # At the door

    async def question(self, asker: str) -> dict[str, Any]:
        """What the browser is to ask for (PublicKeyCredentialRequestOptionsJSON): any passkey of this site.
        `asker`: the browser's secret; no other may bring the answer."""
        from webauthn import generate_authentication_options, options_to_json
        from webauthn.helpers.structs import UserVerificationRequirement

        options = generate_authentication_options(
            rp_id=self._host,
            challenge=await self._ask("sign_in", None, asker),
            user_verification=UserVerificationRequirement.REQUIRED,
        )
        answer: dict[str, Any] = json.loads(options_to_json(options))
        return answer

    async def sign_in(
        self,
        credential: Mapping[str, Any],
        browser: Browser,
        *,
        asker: str | None,
        challenge: str | None,
    ) -> Outcome:
        """Open a session by a passkey alone; with `challenge` as the second step of a sign-in that waits for
        it. Where that one has ended, or is somebody else's, the passkey still is enough by itself.

        Raises: NotAccepted, Refused for who is not let in.
        """
        user_id = await self._proved(credential, browser.address, asker)
        try:
            waiting = await self._entrance.challenged(challenge) if challenge is not None else None
        except Unauthenticated:
            waiting = None
        async with self._database.transaction() as connection:
            if challenge is not None and waiting is not None and waiting.id == user_id:
                return await self._entrance.complete(connection, challenge, method="passkey", browser=browser)
            user = await self._entrance.user(connection, user_id)
            outcome = (
                await self._entrance.enter(connection, user, method="passkey", browser=browser)
                if user is not None
                else None
            )
        if outcome is None:
            raise refusal(user)
        return outcome

    async def prove_again(
        self, me: Principal, credential: Mapping[str, Any], browser: Browser, *, asker: str | None
    ) -> None:
        """Step-up. Raises: NotAccepted, also for somebody else's passkey."""
        if await self._proved(credential, browser.address, asker) != me.user_id:
            raise _not_accepted(None)
        async with self._database.transaction() as connection:
            await self._entrance.prove_again(connection, me, method="passkey")

    async def _proved(self, credential: Mapping[str, Any], address: str | None, asker: str | None) -> UUID:
        """Whose passkey has answered what was asked, just now. Raises: NotAccepted."""
        from webauthn import verify_authentication_response
        from webauthn.helpers import base64url_to_bytes

        challenge = await self._asked(credential, "sign_in", None, asker)
        try:
            credential_id = base64url_to_bytes(credential["id"])
        except _MALFORMED as error:
            raise _not_accepted(error) from error
        async with self._database.connection() as connection:
            known = await _queries.find_passkey(connection, credential_id=credential_id)
        if known is None:
            raise _not_accepted(None)
        try:
            shown = verify_authentication_response(
                credential=dict(credential),
                expected_challenge=challenge,
                expected_rp_id=self._host,
                expected_origin=self._origins,
                credential_public_key=known["public_key"],
                credential_current_sign_count=0,  # compared below, to be written down
                require_user_verification=True,
            )
        except Exception as error:  # as above
            raise _not_accepted(error) from error
        user_id: UUID = known["user_id"]
        async with self._database.transaction() as connection:
            used = await _queries.passkey_used(
                connection,
                id=known["id"],
                user_id=user_id,
                sign_count=shown.new_sign_count,
                backed_up=shown.credential_backed_up,
                now=self._clock.now(),
            )
            if used is None:
                await self._record(connection, "passkey.counter_went_back", user_id, address)
        if used is None:
            raise _not_accepted(None)
        return user_id

    # Questions

    async def _ask(self, purpose: Purpose, user_id: UUID | None, asker: str | None = None) -> bytes:
        challenge, now = secrets.token_bytes(32), self._clock.now()
        async with self._database.connection() as connection:
            await _queries.forget_challenges(connection, now=now)
            await _queries.add_challenge(
                connection,
                challenge=challenge,
                purpose=purpose,
                user_id=user_id,
                browser_hash=token_hash(asker) if asker else None,
                now=now,
                expires_at=now + model.CHALLENGE_LIFETIME,
            )
        return challenge

    async def _asked(
        self,
        credential: Mapping[str, Any],
        purpose: Purpose,
        user_id: UUID | None,
        asker: str | None = None,
    ) -> bytes:
        """The challenge that a credential answers, used up by that. Raises: NotAccepted."""
        from webauthn.helpers import base64url_to_bytes

        try:
            said = json.loads(base64url_to_bytes(credential["response"]["clientDataJSON"]))
            challenge = base64url_to_bytes(said["challenge"])
        except _MALFORMED as error:
            raise _not_accepted(error) from error
        async with self._database.connection() as connection:
            asked = await _queries.use_challenge(connection, challenge=challenge, now=self._clock.now())
        if asked is None or asked["purpose"] != purpose or asked["user_id"] != user_id:
            raise _not_accepted(None)
        bound: bytes | None = asked["browser_hash"]
        if bound is not None and not has_token(asker, bound):
            raise _not_accepted(None)
        return challenge

    async def _record(
        self, connection: Connection, action: str, user_id: UUID, address: str | None, **details: Any
    ) -> None:
        await self._audit.record(
            connection, action, actor=Actor.oneself(user_id, address), subject_id=user_id, **details
        )


def _not_accepted(error: Exception | None) -> NotAccepted:
    if error is not None:
        _log.info("passkey_not_accepted", reason=type(error).__name__)
    return NotAccepted("This passkey was not accepted. Try again, or sign in another way.")
