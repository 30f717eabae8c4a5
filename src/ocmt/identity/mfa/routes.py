"""Second factors over HTTP: at the door, for what takes a recent sign-in, and their set-up."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, get_args

from fastapi import APIRouter, BackgroundTasks, Depends, Request, Response, status
from pydantic import BaseModel, ConfigDict, Field

from ocmt.errors import LimitReached, Refused, Unauthenticated
from ocmt.identity.browsers import asker_of, browser_of, challenge_of, set_asker
from ocmt.identity.entrance.model import SecondFactors, is_recent
from ocmt.identity.guards import Me, not_too_often, require_recent
from ocmt.identity.mfa import model
from ocmt.identity.mfa.service import Mfa
from ocmt.identity.model import new_token
from ocmt.identity.routes import SignedIn, let_in
from ocmt.identity.service import Identity
from ocmt.platform.clock import Clock
from ocmt.platform.principal import Principal


class CodeBody(BaseModel):
    """A code of the authenticator app (six digits) or a backup code."""

    model_config = ConfigDict(extra="forbid")

    code: str = Field(min_length=1, max_length=50, examples=["123456", "GSJD-32XC"])


Way = Literal["passkey", "totp", "backup_code", "link"]


class StepUpView(BaseModel):
    """The ways in which an account can prove once more whose it is."""

    methods: list[Way] = Field(
        description="`link`: there is no second factor, so a link by mail is the proof."
    )
    recent: bool = Field(description="Whether the last proof still counts, so that none is due.")


class MfaView(BaseModel):
    """What one has, beside the first proof."""

    totp: bool
    totp_since: datetime | None
    passkeys: int
    backup_codes: int = Field(description="How many are left.")
    demanded: bool = Field(description="Whether this account must have a second factor.")


class TotpView(BaseModel):
    """What the authenticator app is to be shown. It counts once a code of it was given back."""

    secret: str
    uri: str
    qr_svg: str


class BackupCodes(BaseModel):
    """Backup codes, shown this once."""

    codes: list[str]


def routes(mfa: Mfa, identity: Identity, clock: Clock) -> APIRouter:
    """The routes, to be mounted under `/api/v1`."""
    whole = APIRouter()
    whole.routes += _door(mfa, identity, clock).routes
    whole.routes += _own(mfa, identity, clock).routes
    return whole


def _door(mfa: Mfa, identity: Identity, clock: Clock) -> APIRouter:
    router = APIRouter(prefix="/auth", tags=["sign-in"], dependencies=[Depends(not_too_often(identity))])

    @router.post("/mfa")
    async def second_factor(body: CodeBody, request: Request, response: Response) -> SignedIn:
        """The second step of a sign-in: opens the session."""
        challenge = challenge_of(request, identity.address)
        if challenge is None:
            raise Unauthenticated("There is no sign-in to be completed here: begin it again.")
        entered = await mfa.complete(challenge, body.code, browser_of(request))
        return SignedIn.model_validate((await let_in(identity, request, response, entered)).model_dump())

    @router.get("/step-up")
    async def ways_to_prove(me: Me) -> StepUpView:
        """How you can prove once more that it is you: only what this account has."""
        return StepUpView(methods=await _ways(mfa, me), recent=is_recent(me.authenticated_at, clock.now()))

    @router.post("/step-up/link", status_code=status.HTTP_202_ACCEPTED, response_class=Response)
    async def link_to_prove(me: Me, request: Request, background: BackgroundTasks) -> Response:
        """Mail a link to your own address: opened in this browser, it proves once more that it is you."""
        if me.via != "session":
            raise Refused("This takes a browser's session; no token may do it.")
        if await _ways(mfa, me) != ["link"]:
            raise Refused("Use your passkey, your authenticator app or a backup code.")
        asker = asker_of(request, identity.address) or new_token()
        letter = await identity.prepare_link(me.email, asker=asker)
        if letter is None:
            raise LimitReached("We have sent you several links already. Try again in 15 minutes.")
        background.add_task(identity.deliver, letter)
        response = Response(status_code=status.HTTP_202_ACCEPTED, background=background)
        set_asker(response, identity.address, asker)
        return response

    @router.post("/step-up", status_code=status.HTTP_204_NO_CONTENT, response_class=Response)
    async def step_up(body: CodeBody, me: Me) -> Response:
        """Prove once more that it is you, for what takes a recent sign-in."""
        await mfa.prove_again(me, body.code)
        return Response(status_code=status.HTTP_204_NO_CONTENT)

    return router


async def _ways(mfa: Mfa, me: Principal) -> list[Way]:
    state = await mfa.state(me)
    factors = SecondFactors(state.totp, state.passkeys, state.backup_codes)
    return [way for way in get_args(Way) if way in (factors.methods or ("link",))]


def _own(mfa: Mfa, identity: Identity, clock: Clock) -> APIRouter:
    router = APIRouter(prefix="/mfa", tags=["second factor"])

    @router.get("")
    async def get_state(me: Me) -> MfaView:
        """What one has set up."""
        state = await mfa.state(me)
        return MfaView(
            totp=state.totp,
            totp_since=state.totp_since,
            passkeys=state.passkeys,
            backup_codes=state.backup_codes,
            demanded=state.demanded,
        )

    @router.post("/totp", status_code=status.HTTP_201_CREATED)
    async def begin_totp(me: Me, response: Response) -> TotpView:
        """Begin to set up an authenticator app. Takes a recent sign-in."""
        require_recent(me, clock)
        secret, uri = await mfa.begin(me)
        response.headers["cache-control"] = "no-store"
        return TotpView(secret=secret, uri=uri, qr_svg=model.qr_code(uri))

    @router.post("/totp/confirm")
    async def confirm_totp(body: CodeBody, me: Me, request: Request, response: Response) -> BackupCodes:
        """Give back a code of the app: from now on it is asked for. Answers with the first backup codes."""
        codes = await mfa.confirm(me, body.code, address=browser_of(request).address)
        response.headers["cache-control"] = "no-store"
        return BackupCodes(codes=list(codes))

    @router.delete("/totp", status_code=status.HTTP_204_NO_CONTENT, response_class=Response)
    async def remove_totp(me: Me, request: Request) -> Response:
        """Forget the authenticator app. Takes a recent sign-in."""
        require_recent(me, clock)
        await mfa.remove(me, address=browser_of(request).address)
        return Response(status_code=status.HTTP_204_NO_CONTENT)

    @router.post("/backup-codes", status_code=status.HTTP_201_CREATED)
    async def new_backup_codes(me: Me, request: Request, response: Response) -> BackupCodes:
        """New backup codes; those before are void. Takes a recent sign-in."""
        require_recent(me, clock)
        codes = await mfa.new_codes(me, address=browser_of(request).address)
        response.headers["cache-control"] = "no-store"
        return BackupCodes(codes=list(codes))

    return router
