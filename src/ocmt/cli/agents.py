"""`ocmt agents`: what an operator does with agents from the server's own shell."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import App, Parameter

from ocmt.agents.service import Agents
from ocmt.cli.database import Opened, open_installation
from ocmt.cli.output import AsJson, DataDir, print_json, print_table
from ocmt.errors import NotFound
from ocmt.platform.clock import SystemClock
from ocmt.platform.telemetry import harmless
from ocmt.runtimes.folders import AgentFolder, last_lines
from ocmt.runtimes.output import log_files

app = App(name="agents", help="List, wake and hibernate agents; read their logs.")

_PAGE = 500
_COLUMNS = ("email", "state", "desired", "since", "last_active_at", "failures", "error")
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
        folder = AgentFolder(opened.settings.data_dir / "agents" / str(user.id), uid=None)
    text = last_lines(log_files(folder.logs), lines)
    if not text:
        raise NotFound(f"The agent of {user.email} has not said anything yet.")
    # The agent's own words, on the terminal of whoever administers this machine.
    print(harmless(text))


def _agents(opened: Opened) -> Agents:
    return Agents(opened.database, SystemClock(), runtime=opened.settings.runtime)
