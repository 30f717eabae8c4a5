"""Sets up second factors and checks codes: at the door (a challenge), and again for what must not be done
unasked.

Wrong codes count per account, whoever tries them and from wherever; a right one is used up by being right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from ocmt.errors import Conflict, NotFound, Refused
from ocmt.identity.audit.model import Actor
from ocmt.identity.audit.service import Audit
from ocmt.identity.entrance.model import Browser
from ocmt.identity.entrance.service import Entered, Entrance
from ocmt.identity.mfa import model
from ocmt.identity.mfa.model import MfaState
from ocmt.platform.argon import ArgonGate, hash_code, verify_code
from ocmt.platform.clock import Clock
from ocmt.platform.database import Connection, Database
from ocmt.platform.principal import Principal
from ocmt.platform.queries import load_queries
from ocmt.platform.rates import Rates
from ocmt.platform.sealing import new_key, seal, unseal
from ocmt.platform.secrets import Secrets

_queries = load_queries("ocmt.identity.mfa")
SEAL_KEY = "identity-seal-key"


class WrongCode(Refused):
    """It is not the code of now, or it was used already."""

    code = "wrong_code"


class Mfa:
    """Codes of all users."""

    def __init__(
        self,
        database: Database,
        secrets: Secrets,
        rates: Rates,
        audit: Audit,
        entrance: Entrance,
        clock: Clock,
        gate: ArgonGate,
        *,
        issuer: str,
    ) -> None:
        """`issuer`: how authenticator apps call this installation."""
        self._database = database
        self._secrets = secrets
        self._rates = rates
        self._audit = audit
        self._entrance = entrance
        self._clock = clock
        self._gate = gate
        self._issuer = issuer

    async def state(self, me: Principal) -> MfaState:
        """What the user has."""
        async with self._database.connection() as connection:
            totp = await _queries.find_totp(connection, user_id=me.user_id)
            factors = await self._entrance.factors(connection, me.user_id)
            demanded = await self._entrance.demands_second_factor(connection, me.user_id)
        return MfaState(
            totp=factors.totp,
            totp_since=totp["confirmed_at"] if totp else None,
            passkeys=factors.passkeys,
            backup_codes=factors.backup_codes,
            demanded=demanded,
        )

    # Setting up

    async def begin(self, me: Principal) -> tuple[str, str]:
        """A new secret, of no use until a code of it was given back; (secret, URI for the QR code).

        Raises: Conflict where one is in use.
        """
        secret = model.new_secret()
        sealed = seal(await self._key(), secret.encode(), model.secret_binding(me.user_id))
        async with self._database.connection() as connection:
            begun = await _queries.begin_totp(
                connection, user_id=me.user_id, sealed=sealed, now=self._clock.now()
            )
        if begun is None:
            raise Conflict("You have an authenticator app already: remove it first.")
        return secret, model.provisioning_uri(secret, account=me.email, issuer=self._issuer)

    async def confirm(self, me: Principal, code: str, *, address: str | None = None) -> Sequence[str]:
        """The app works: from now on its codes are asked for. Returns backup codes, shown this once, if
        there were none.

        Raises: WrongCode, NotFound where nothing was begun, Conflict where it was confirmed already.
        """
        await self._rates.take(model.CODES, str(me.user_id))
        codes = model.new_backup_codes()
        hashed = await self._hashed(me.user_id, codes)
        async with self._database.transaction() as connection:
            row = await _queries.find_totp(connection, user_id=me.user_id)
            if row is None:
                raise NotFound("Begin setting up your authenticator app first.")
            if row["confirmed_at"] is not None:
                raise Conflict("Your authenticator app is set up already.")
            if not await self._is_totp(connection, me.user_id, row, model.plain(code)):
                raise _wrong()
            await _queries.confirm_totp(connection, user_id=me.user_id, now=self._clock.now())
            fresh = not await _queries.count_backup_codes(connection, user_id=me.user_id)
            if fresh:
                await self._replace_codes(connection, me.user_id, hashed)
            await self._entrance.prove_again(connection, me, method="totp")
            await self._record(connection, "mfa.totp_added", me, address)
        await self._rates.forgive(model.CODES, str(me.user_id))
        return codes if fresh else []

    async def remove(self, me: Principal, *, address: str | None = None) -> None:
        """Forget the authenticator app, and the backup codes with the last factor that they stood in for.

        Raises: NotFound, Refused where a second factor is demanded and this is the only one.
        """
        async with self._database.transaction() as connection:
            removed = await _queries.remove_totp(connection, user_id=me.user_id)
            if removed is None:
                raise NotFound("You have no authenticator app here.")
            await self._entrance.keep_demanded(connection, me.user_id)
            await self._entrance.forget_lonely_codes(connection, me.user_id)
            if removed["confirmed_at"] is not None:
                await self._record(connection, "mfa.totp_removed", me, address)

    async def new_codes(self, me: Principal, *, address: str | None = None) -> Sequence[str]:
        """New backup codes, shown this once; those before are void. Raises: Refused without another
        factor."""
        codes = model.new_backup_codes()
        hashed = await self._hashed(me.user_id, codes)
        async with self._database.transaction() as connection:
            factors = await self._entrance.factors(connection, me.user_id)
            if not (factors.totp or factors.passkeys):
                raise Refused("Backup codes stand in for another factor: set up an app or a passkey first.")
            await self._replace_codes(connection, me.user_id, hashed)
            await self._record(connection, "mfa.backup_codes_made", me, address)
        return codes

    # Checking

    async def complete(self, challenge: str, code: str, browser: Browser) -> Entered:
        """The second step of a sign-in. Raises: Unauthenticated where the challenge is gone, WrongCode,
        LimitReached."""
        user = await self._entrance.challenged(challenge)
        method = await self._check(user.id, code)
        async with self._database.transaction() as connection:
            entered = await self._entrance.complete(connection, challenge, method=method, browser=browser)
        await self._rates.forgive(model.CODES, str(user.id))
        return entered

    async def prove_again(self, me: Principal, code: str) -> None:
        """Step-up: the session of a signed-in user counts as recent again. Raises: WrongCode,
        LimitReached."""
        method = await self._check(me.user_id, code)
        async with self._database.transaction() as connection:
            await self._entrance.prove_again(connection, me, method=method)
        await self._rates.forgive(model.CODES, str(me.user_id))

    async def _check(self, user_id: UUID, typed: str) -> str:
        """By what method the code is right; it is used up. Raises: WrongCode, LimitReached."""
        await self._rates.take(model.CODES, str(user_id))
        code = model.plain(typed)
        if model.is_totp(code):
            async with self._database.transaction() as connection:
                row = await _queries.find_totp(connection, user_id=user_id)
                in_use = row is not None and row["confirmed_at"] is not None
                if in_use and await self._is_totp(connection, user_id, row, code):
                    return "totp"
        elif model.is_backup(code) and await self._use_backup(user_id, code):
            return "backup_code"
        raise _wrong()

    async def _is_totp(self, connection: Connection, user_id: UUID, row: Any, code: str) -> bool:
        """Whether it is a code of the app that `row` (find_totp) keeps; it is used up by that."""
        if not model.is_totp(code):
            return False
        secret = unseal(await self._key(), row["sealed"], model.secret_binding(user_id)).decode()
        step = model.matching_step(secret, code, self._clock.now(), after=row["last_step"])
        return step is not None and (
            await _queries.take_step(connection, user_id=user_id, step=step) is not None
        )

    async def _use_backup(self, user_id: UUID, code: str) -> bool:
        name = model.lookup(await self._key(), user_id, code)
        async with self._database.connection() as connection:
            rows = [row async for row in _queries.find_backup_codes(connection, user_id=user_id, lookup=name)]
        for row in rows:
            phc = row["code_hash"]
            if await self._gate.run(lambda phc=phc: verify_code(phc, code)):  # type: ignore[misc]
                async with self._database.transaction() as connection:
                    used = await _queries.use_backup_code(
                        connection, id=row["id"], user_id=user_id, now=self._clock.now()
                    )
                    if used is None:
                        return False
                    await self._audit.record(
                        connection, "mfa.backup_code_used", actor=Actor.oneself(user_id), subject_id=user_id
                    )
                return True
        return False

    # Keeping

    async def _hashed(self, user_id: UUID, codes: Sequence[str]) -> list[tuple[str, bytes]]:
        key = await self._key()
        bare = [model.plain(code) for code in codes]
        hashes = await self._gate.run(lambda: [hash_code(code) for code in bare])
        return [(phc, model.lookup(key, user_id, code)) for phc, code in zip(hashes, bare, strict=True)]

    async def _replace_codes(
        self, connection: Connection, user_id: UUID, hashed: Sequence[tuple[str, bytes]]
    ) -> None:
        await _queries.forget_backup_codes(connection, user_id=user_id)
        await _queries.add_backup_codes(
            connection,
            user_id=user_id,
            ids=[uuid7() for _ in hashed],
            hashes=[phc for phc, _ in hashed],
            lookups=[name for _, name in hashed],
            now=self._clock.now(),
        )

    async def _record(self, connection: Connection, action: str, me: Principal, address: str | None) -> None:
        await self._audit.record(
            connection, action, actor=Actor.oneself(me.user_id, address), subject_id=me.user_id
        )

    async def _key(self) -> bytes:
        return await self._secrets.ensure(SEAL_KEY, new_key)


def _wrong() -> WrongCode:
    return WrongCode("This code is wrong, or it was used already. Try the next one.")
