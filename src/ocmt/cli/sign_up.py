"""`ocmt sign-up`: who may make an account, from the server's own shell."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from ocmt.cli.database import open_installation
from ocmt.cli.output import AsJson, DataDir, print_json, print_table
from ocmt.errors import NotFound
from ocmt.identity.administration.service import Administration, Invitation
from ocmt.identity.entrance.model import RuleKind
from ocmt.identity.model import normalise_email
from ocmt.platform.clock import SystemClock

app = App(name="sign-up", help="Who may make an account: rules and invitations.")

_PAGE = 500
Listed = Annotated[str, Parameter(help="An address (ada@example.org) or a domain (example.org).")]
Email = Annotated[str, Parameter(help="Whom to invite.")]


@app.command(name="list")
async def list_all(*, data: DataDir = None, json: AsJson = False) -> None:
    """List the rules that let people in, and the invitations that are open."""
    async with _administration(data) as administration:
        rules = [asdict(rule) for rule in await administration.rules()]
        invitations = [asdict(one) async for one in _open_invitations(administration)]
    if json:
        print_json({"rules": rules, "invitations": invitations})
        return
    print_table(rules, ("kind", "value", "created_at"), empty="There are no rules.")
    print_table(invitations, ("email", "role", "expires_at"), empty="There are no open invitations.")


@app.command
async def allow(value: Listed, /, *, data: DataDir = None) -> None:
    """List an address or a domain; it counts where OCMT_SIGN_UP is `allowlist` or `approval`."""
    async with _administration(data) as administration:
        await administration.put_rule(_kind_of(value), value)
    print(f"{value} is listed.")


@app.command
async def forbid(value: Listed, /, *, data: DataDir = None) -> None:
    """Take an address or a domain off the list; who came by it stays."""
    async with _administration(data) as administration:
        await administration.drop_rule(_kind_of(value), value)
    print(f"{value} is not listed.")


@app.command
async def invite(
    email: Email,
    /,
    *,
    role: Annotated[Literal["user", "auditor", "admin"], Parameter(help="What they shall be.")] = "user",
    data: DataDir = None,
    json: AsJson = False,
) -> None:
    """Invite somebody for a week. No mail is sent: tell them to ask for a link on the sign-in page."""
    async with _administration(data) as administration:
        invitation, _ = await administration.invite(email, role)
    if json:
        print_json(asdict(invitation))
    else:
        print(f"{invitation.email} may sign in until {invitation.expires_at:%Y-%m-%d}, then as {role}.")


@app.command
async def revoke(email: Email, /, *, data: DataDir = None) -> None:
    """Take an invitation back."""
    async with _administration(data) as administration:
        async for one in _open_invitations(administration):
            if one.email == normalise_email(email):
                await administration.revoke(one.id)
                print(f"{one.email} is not invited any more.")
                return
    raise NotFound(f"There is no open invitation of {email}.")


async def _open_invitations(administration: Administration) -> AsyncIterator[Invitation]:
    """All that are open, newest first."""
    after = None
    while page := await administration.invitations(after=after, limit=_PAGE):
        for one in page:
            if one.accepted_at is None and one.revoked_at is None:
                yield one
        after = page[-1].id


def _kind_of(value: str) -> RuleKind:
    return "address" if "@" in value.strip().removeprefix("@") else "domain"


@asynccontextmanager
async def _administration(data: Path | None) -> AsyncIterator[Administration]:
    async with open_installation(data, create=True) as opened:
        yield Administration(opened.database, opened.identity, SystemClock())
