"""All of identity, wired: the sub-rooms over one database, and their routes. Composition only; `bootstrap`
calls it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from fastapi import APIRouter
from starlette.types import ASGIApp

from ocmt.identity.administration.routes import routes as administration_routes
from ocmt.identity.administration.service import Administration
from ocmt.identity.api_keys.routes import routes as api_key_routes
from ocmt.identity.api_keys.service import ApiKeys
from ocmt.identity.audit.routes import routes as audit_routes
from ocmt.identity.entrance.model import SignUpMode
from ocmt.identity.mfa.routes import routes as mfa_routes
from ocmt.identity.mfa.service import Mfa
from ocmt.identity.middleware import Authentication, Bearer
from ocmt.identity.oidc.clients import Clients
from ocmt.identity.oidc.routes import routes as oidc_routes
from ocmt.identity.oidc.service import Oidc
from ocmt.identity.origin import PublicAddress
from ocmt.identity.passkeys.routes import routes as passkey_routes
from ocmt.identity.passkeys.service import Passkeys
from ocmt.identity.routes import routes as identity_routes
from ocmt.identity.service import Identity, ShutOut
from ocmt.identity.tokens.keys import PublicKeys, SigningKeys
from ocmt.identity.tokens.routes import routes as token_routes
from ocmt.identity.tokens.routes import well_known
from ocmt.identity.tokens.service import Issuer, Revocations, Verifier
from ocmt.platform.argon import ArgonGate
from ocmt.platform.clock import Clock
from ocmt.platform.database import Database
from ocmt.platform.http.addresses import Network
from ocmt.platform.mail import Mail
from ocmt.platform.rates import Rates
from ocmt.platform.secrets import Secrets


@dataclass(frozen=True)
class Accounts:
    """The rooms of identity."""

    identity: Identity
    mfa: Mfa
    oidc: Oidc
    api_keys: ApiKeys
    issuer: Issuer
    verifier: Verifier
    passkeys: Passkeys
    administration: Administration
    rates: Rates
    clock: Clock

    @classmethod
    def over(
        cls,
        database: Database,
        secrets: Secrets,
        mail: Mail,
        clock: Clock,
        *,
        public_url: str | PublicAddress,
        sign_up: SignUpMode = "invitation",
        allowed: Sequence[str] = (),
        mfa_for_admins: bool = False,
        gate: ArgonGate | None = None,
        oidc: Clients | None = None,
        shut_out: ShutOut | None = None,
    ) -> Self:
        """Raises: SetupProblem, InvalidInput: see `Identity.over`."""
        identity = Identity.over(
            database,
            mail,
            clock,
            public_url=public_url,
            sign_up=sign_up,
            allowed=allowed,
            mfa_for_admins=mfa_for_admins,
            shut_out=shut_out,
        )
        rates = identity.rates
        url = identity.address.url
        return cls(
            identity=identity,
            mfa=Mfa(
                database,
                secrets,
                rates,
                identity.audit,
                identity.entrance,
                clock,
                gate or ArgonGate(),
                issuer=f"OCMT {url.partition('://')[2]}",
            ),
            oidc=Oidc(database, identity, rates, clock, oidc or {}),
            api_keys=ApiKeys(database, identity.audit, clock),
            issuer=Issuer(SigningKeys(secrets, database, clock), clock, issuer=url),
            verifier=Verifier(PublicKeys(secrets, clock), Revocations(database, clock), clock, issuer=url),
            passkeys=Passkeys(database, identity.audit, identity.entrance, clock, identity.address),
            administration=Administration(database, identity, clock),
            rates=rates,
            clock=clock,
        )

    @property
    def bearers(self) -> Sequence[Bearer]:
        """The kinds of token by which programs show who they are."""
        return (self.api_keys, self.verifier)

    def authentication(self, app: ASGIApp, proxies: Sequence[Network] = ()) -> ASGIApp:
        """`app` behind the middleware that finds out who asks; `proxies`: see `Authentication`."""
        identity = self.identity
        return Authentication(
            app,
            identity.entrance,
            identity.address,
            bearers=self.bearers,
            proxies=proxies,
            tell=identity.notify,
        )

    def routes(self) -> APIRouter:
        """All routes below `/api/v1`."""
        whole = APIRouter()
        for room in (
            identity_routes(self.identity, self.clock),
            mfa_routes(self.mfa, self.identity, self.clock),
            oidc_routes(self.oidc, self.identity, self.clock),
            passkey_routes(self.passkeys, self.identity, self.clock),
            token_routes(self.issuer),
            api_key_routes(self.api_keys, self.identity, self.clock),
            audit_routes(self.identity, self.clock),
            administration_routes(self.administration, self.identity, self.clock),
        ):
            # Not `include_router`: each router within a router is searched anew with every request.
            whole.routes += room.routes
        return whole

    def well_known(self) -> APIRouter:
        """The routes at the root: what others check our tokens by."""
        return well_known(self.issuer)
