"""`ocmt revisions`: which OpenClaw agents run, rolled out to one user, a share of them, or all."""

from __future__ import annotations

import json as json_format
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from ocmt.agents.revisions.model import EVERYBODY, state_of
from ocmt.agents.revisions.service import Count, Revisions
from ocmt.agents.service import Agents
from ocmt.cli.database import Opened, open_installation
from ocmt.cli.output import AsJson, DataDir, print_json, print_table
from ocmt.errors import InvalidInput, SetupProblem
from ocmt.platform.clock import SystemClock
from ocmt.runtimes.tools import find_tools
from ocmt.settings import Settings

app = App(name="revisions", help="Which OpenClaw agents run: list, add, roll out, pin, withdraw.")

_COLUMNS = ("number", "image", "state", "share", "agents", "pinned", "failed", "installed", "created_at")

Number = Annotated[int, Parameter(help="The revision's number, as `list` shows it.")]
Email = Annotated[str, Parameter(help="The e-mail address of the agent's user.")]


@app.command(name="list")
async def list_revisions(*, data: DataDir = None, json: AsJson = False) -> None:
    """List all revisions: who is offered them, who runs them, and how many agents went back from them."""
    async with open_installation(data) as opened:
        revisions = _revisions(opened)
        known, counts = await revisions.all(), await revisions.counts()
    shown: list[dict[str, Any]] = []
    for revision in known:
        count = counts.get(revision.number, Count())
        row = asdict(revision) | asdict(count)
        row |= {
            "state": state_of(revision, known),
            "installed": _is_installed(opened.settings, revision.image),
        }
        if not json:
            row |= {"share": f"{revision.share} %", "failed": f"{count.failed} of {count.tried}"}
        shown.append(row)
    if json:
        print_json(shown)
    else:
        print_table(shown, _COLUMNS, empty="There are no revisions yet: `ocmt up` notes the first one.")


@app.command
async def add(
    image: Annotated[str, Parameter(help="A version of OpenClaw like 2026.9.6, or a container's image.")],
    /,
    *,
    share: Annotated[int, Parameter(help="Percent of the users to offer it to.")] = 0,
    config: Annotated[
        Path | None, Parameter(help="A JSON file, merged into OpenClaw's configuration (null removes).")
    ] = None,
    data: DataDir = None,
    json: AsJson = False,
) -> None:
    """Add a revision, offered to nobody unless told otherwise: roll it out, or pin somebody to it."""
    patch = _patch(config) if config else {}
    async with open_installation(data) as opened:
        # By its whole name, so that `ocmt up` does not take what it brings for another one.
        image = _folder(opened.settings, image) or image
        revision = await _revisions(opened).add(image, share=share, config=patch)
        installed = _is_installed(opened.settings, image)
    if json:
        print_json(asdict(revision) | {"installed": installed})
        return
    print(f"{revision} is added, for {share} % of the users")
    if installed is False:
        print("it is not installed on this machine, and not tried here before it is")


@app.command
async def roll_out(
    number: Number,
    /,
    *,
    share: Annotated[int, Parameter(help="Percent of the users; 100: all.")] = EVERYBODY,
    data: DataDir = None,
) -> None:
    """Offer a revision to a share of the users. Agents move to it when they next start, and stay on it."""
    async with open_installation(data) as opened:
        await _revisions(opened).roll_out(number, share)
    print(f"revision {number} is offered to {share} % of the users")


@app.command
async def withdraw(number: Number, /, *, data: DataDir = None) -> None:
    """Take a revision back: agents that run it move to another one when they next start."""
    async with open_installation(data) as opened:
        await _revisions(opened).withdraw(number)
    print(f"revision {number} is withdrawn")


@app.command
async def retry(number: Number, /, *, data: DataDir = None, json: AsJson = False) -> None:
    """Offer a revision again to the agents that did not come up on it."""
    async with open_installation(data) as opened:
        agents = await _revisions(opened).retry(number)
    if json:
        print_json({"number": number, "agents": agents})
    else:
        print(f"revision {number} will be tried again by {agents} agents")


@app.command
async def pin(email: Email, number: Number, /, *, data: DataDir = None) -> None:
    """Have one user's agent run that revision, whatever the shares say."""
    async with open_installation(data) as opened:
        user = await opened.identity.user_by_email(email)
        await _revisions(opened).pin(user.id, number)
    print(f"the agent of {user.email} is pinned to revision {number}, from its next start on")


@app.command
async def unpin(email: Email, /, *, data: DataDir = None) -> None:
    """Have one user's agent go by the shares again."""
    async with open_installation(data) as opened:
        user = await opened.identity.user_by_email(email)
        await _revisions(opened).unpin(user.id)
    print(f"the agent of {user.email} is not pinned")


def _revisions(opened: Opened) -> Revisions:
    clock = SystemClock()
    agents = Agents(opened.database, clock, runtime=opened.settings.runtime)
    return Revisions(opened.database, agents, clock)


def _is_installed(settings: Settings, image: str) -> bool | None:
    """Whether it is on this machine; None where only the runtime can tell."""
    return _folder(settings, image) is not None if settings.runtime == "sandbox" else None


def _folder(settings: Settings, image: str) -> str | None:
    """The name of its folder in the cache: of its version and of what was installed with it."""
    if settings.runtime != "sandbox":
        return None
    try:
        tools = find_tools(settings.cache_dir).of(image)
    except SetupProblem:
        return None
    return tools.openclaw.name if tools else None


def _patch(file: Path) -> Mapping[str, Any]:
    try:
        patch = json_format.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{file} cannot be read as JSON: {error}.") from error
    if not isinstance(patch, dict):
        raise InvalidInput(f"{file} must hold a JSON object.")
    return patch
