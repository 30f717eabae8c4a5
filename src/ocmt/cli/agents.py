"""`ocmt agents`: what an operator does with agents from the server's own shell."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, timedelta
from typing import Annotated, Any

from cyclopts import App, Parameter, Token

from ocmt.agents.holds import MAX_OPERATOR_HOLD, OPERATOR
from ocmt.agents.service import Agents
from ocmt.cli.database import Opened, open_installation
from ocmt.cli.output import AsJson, DataDir, print_json, print_table
from ocmt.errors import NotFound
from ocmt.platform.clock import SystemClock
from ocmt.platform.telemetry import harmless
from ocmt.runtimes.agent_disks import logs_beside
from ocmt.runtimes.folders import AgentFolder, last_lines
from ocmt.runtimes.output import log_files
from ocmt.settings import parse_duration

app = App(name="agents", help="List, wake, hold and hibernate agents; read their logs.")

_PAGE = 500
_MAX_NOTE = 200
_COLUMNS = ("email", "state", "desired", "since", "last_active_at", "revision", "failures", "error")


def _hold_time(_kind: type, tokens: Sequence[Token]) -> timedelta:
    try:
        asked = parse_duration(tokens[0].value)
    except OverflowError:
        asked = None
    if not isinstance(asked, timedelta) or not timedelta(0) < asked <= MAX_OPERATOR_HOLD:
        raise ValueError("an agent is held for at most 7d at a time")
    return asked


Email = Annotated[str, Parameter(help="The e-mail address of the agent's user.")]


@app.command(name="list")
async def list_agents(*, data: DataDir = None, json: AsJson = False) -> None:
    """List all agents."""
    found: list[dict[str, Any]] = []
    async with open_installation(data) as opened:
        agents = _agents(opened)
        while page := await agents.every_agent(after=found[-1]["user_id"] if found else None, limit=_PAGE):
            found += page
    if json:
        print_json(found)
    else:
        print_table(found, _COLUMNS, empty="There are no agents yet.")


@app.command
async def wake(email: Email, /, *, data: DataDir = None) -> None:
    """Ask for an agent to be awake; the running `ocmt up` makes it so."""
    async with open_installation(data) as opened:
        user = await opened.identity.user_by_email(email)
        await _agents(opened).ask_awake(user.id)
    print(f"the agent of {user.email} shall wake")


@app.command
async def hibernate(email: Email, /, *, data: DataDir = None) -> None:
    """Ask for an agent to sleep; refused while it answers."""
    async with open_installation(data) as opened:
        user = await opened.identity.user_by_email(email)
        await _agents(opened).ask_stopped(user.id)
    print(f"the agent of {user.email} shall sleep")


@app.command
async def hold(
    email: Email,
    /,
    *,
    ttl: Annotated[
        timedelta,
        Parameter(name="--for", help="How long, like 90s, 30m or 2h; at most 7d.", converter=_hold_time),
    ],
    reason: Annotated[str | None, Parameter(help="Words that its user reads, too.")] = None,
    data: DataDir = None,
    json: AsJson = False,
) -> None:
    """Keep an agent awake for a while, once it is; a second hold takes the place of the first."""
    clock = SystemClock()
    async with open_installation(data) as opened:
        user = await opened.identity.user_by_email(email)
        agents = _agents(opened)
        await agents.find(user.id)
        note = reason[:_MAX_NOTE] if reason else None
        await agents.hold(user.id, "operator", OPERATOR, ttl=ttl, note=note)
    until = clock.now() + ttl
    if json:
        print_json({"email": user.email, "reason": "operator", "note": note, "until": until})
    else:
        print(f"the agent of {user.email} is kept awake until {until.astimezone(UTC):%Y-%m-%d %H:%M} UTC")


@app.command
async def release(email: Email, /, *, data: DataDir = None, json: AsJson = False) -> None:
    """Take back what `hold` asked for; what else keeps the agent awake stays."""
    async with open_installation(data) as opened:
        user = await opened.identity.user_by_email(email)
        released = await _agents(opened).release(user.id, "operator", OPERATOR)
    if json:
        print_json({"email": user.email, "released": released})
    else:
        print(f"the agent of {user.email} " + ("is released" if released else "was not held by an operator"))


@app.command
async def logs(
    email: Email,
    /,
    *,
    lines: Annotated[int, Parameter(help="How many, from the end.")] = 200,
    data: DataDir = None,
) -> None:
    """Print the last words of an agent's OpenClaw."""
    async with open_installation(data) as opened:
        user = await opened.identity.user_by_email(email)
        agents, name = opened.settings.data_dir / "agents", str(user.id)
        places = (AgentFolder(agents / name, uid=None).logs, logs_beside(agents, name))
    text = last_lines([file for place in places for file in log_files(place)], lines)
    if not text:
        raise NotFound(f"The agent of {user.email} has not said anything yet.")
    # The agent's own words, on the terminal of whoever administers this machine.
    print(harmless(text))


def _agents(opened: Opened) -> Agents:
    return Agents(opened.database, SystemClock(), runtime=opened.settings.runtime)
