"""`ocmt users`: what an operator does with users from the server's own shell."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from cyclopts import App, Parameter

from ocmt.cli.database import open_identity
from ocmt.cli.output import AsJson, DataDir, print_json, print_table
from ocmt.identity.model import User

app = App(name="users", help="Add, list and suspend users; make sign-in links.")

_PAGE = 500
_COLUMNS = ("email", "name", "role", "status", "created_at")
Email = Annotated[str, Parameter(help="The user's e-mail address.")]


@app.command
async def add(
    email: Email,
    /,
    *,
    name: Annotated[str | None, Parameter(help="What to call them.")] = None,
    admin: Annotated[bool, Parameter(negative=(), help="Make them an administrator.")] = False,
    data: DataDir = None,
    json: AsJson = False,
) -> None:
    """Let somebody sign in. The first user is an administrator in any case."""
    async with open_identity(data, create=True) as identity:
        added = await identity.add_user(email, "admin" if admin else "user", name=name)
    _print_user(added, "added", as_json=json)


@app.command(name="list")
async def list_users(*, data: DataDir = None, json: AsJson = False) -> None:
    """List all users, oldest first."""
    users: list[User] = []
    async with open_identity(data) as identity:
        while page := await identity.users(after=users[-1].id if users else None, limit=_PAGE):
            users += page
    if json:
        print_json([asdict(user) for user in users])
    else:
        print_table([asdict(user) for user in users], _COLUMNS, empty="There are no users yet.")


@app.command
async def suspend(
    email: Email,
    /,
    *,
    lift: Annotated[bool, Parameter(negative=(), help="Let a suspended user in again.")] = False,
    data: DataDir = None,
    json: AsJson = False,
) -> None:
    """Shut a user out; all their sessions end now. Their data stays."""
    async with open_identity(data) as identity:
        found = await identity.user_by_email(email)
        user = await identity.administer(found.id, status="active" if lift else "suspended")
    _print_user(user, "may sign in again" if lift else "is suspended", as_json=json)


@app.command
async def login_link(
    email: Email,
    /,
    *,
    port: Annotated[
        int | None, Parameter(help="The port of the server, where it does not run on this data folder.")
    ] = None,
    data: DataDir = None,
    json: AsJson = False,
) -> None:
    """Print a sign-in link for a user, to be handed over in person; it works once, for 15 minutes."""
    async with open_identity(data, port=port) as identity:
        link = await identity.make_link(email)
    if json:
        print_json({"email": email, "link": link})
    else:
        print(link)


def _print_user(user: User, done: str, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(user))
    else:
        role = " (administrator)" if user.is_admin else ""
        print(f"{user.email}{role} {done}")
