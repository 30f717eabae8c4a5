"""`ocmt plans`: what agents may use and when they sleep, by plan."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Annotated, Any

from cyclopts import App, Parameter

from ocmt.agents.model import EgressPolicy, Plan
from ocmt.agents.plans import Plans
from ocmt.agents.service import Agents
from ocmt.cli.database import Opened, open_installation
from ocmt.cli.output import AsJson, DataDir, print_json, print_table
from ocmt.errors import InvalidInput
from ocmt.platform.clock import SystemClock
from ocmt.settings import parse_duration

app = App(name="plans", help="What agents may use and when they sleep: list, edit, assign.")

_COLUMNS = (
    "name",
    "memory_bytes",
    "cpus",
    "pids",
    "disk_bytes",
    "pause_after",
    "stop_after",
    "max_awake",
    "snapshot_files",
    "snapshot_bytes",
    "snapshot_file_bytes",
    "egress",
    "kept_snapshot_bytes",
    "conversations",
    "conversation_bytes",
    "delivery_bytes",
    "attachment_bytes",
)
_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}


@app.command(name="list")
async def list_plans(*, data: DataDir = None, json: AsJson = False) -> None:
    """List all plans; what a plan leaves open is as the installation's settings say."""
    async with open_installation(data) as opened:
        plans = [_shown(plan) for plan in await _plans(opened).all()]
    if json:
        print_json(plans)
    else:
        print_table(plans, _COLUMNS, empty="There are no plans.")


@app.command(name="set")
async def set_plan(
    name: str,
    /,
    *,
    memory: Annotated[str | None, Parameter(help="Of one agent: 2G, 1536M.")] = None,
    cpus: Annotated[float | None, Parameter(help="Processors of one agent.")] = None,
    pids: Annotated[int | None, Parameter(help="Processes of one agent.")] = None,
    disk: Annotated[str | None, Parameter(help="Of one agent's files together: 8G.")] = None,
    pause_after: Annotated[str | None, Parameter(help="Idle for so long it is paused: 90s, 30m, 4h.")] = None,
    stop_after: Annotated[str | None, Parameter(help="Idle for so long it is stopped.")] = None,
    max_awake: Annotated[str | None, Parameter(help="Awake for so long it is stopped, idle or not.")] = None,
    snapshot_files: Annotated[int | None, Parameter(help="So many files of one agent are saved.")] = None,
    snapshot_size: Annotated[str | None, Parameter(help="All of them together: 10G.")] = None,
    snapshot_file_size: Annotated[str | None, Parameter(help="Each of them: 512M.")] = None,
    egress: Annotated[
        EgressPolicy | None, Parameter(help="Who reaches the internet: off, opt-in (its user decides), on.")
    ] = None,
    snapshots_size: Annotated[str | None, Parameter(help="All snapshots together: 4G.")] = None,
    conversations: Annotated[int | None, Parameter(help="Number of conversations of one user.")] = None,
    conversations_size: Annotated[str | None, Parameter(help="Messages, answers and events: 512M.")] = None,
    deliveries_size: Annotated[str | None, Parameter(help="Received webhooks: 256M.")] = None,
    attachments_size: Annotated[str | None, Parameter(help="Files sent with messages: 1G.")] = None,
    data: DataDir = None,
    json: AsJson = False,
) -> None:
    """Make a plan, or change all of one; what is not named is as the installation's settings say."""
    plan = Plan(
        name,
        memory_bytes=_size(memory) if memory else None,
        cpus=cpus,
        pids=pids,
        disk_bytes=_size(disk) if disk else None,
        pause_after=_duration(pause_after) if pause_after else None,
        stop_after=_duration(stop_after) if stop_after else None,
        max_awake=_duration(max_awake) if max_awake else None,
        snapshot_files=snapshot_files,
        snapshot_bytes=_size(snapshot_size) if snapshot_size else None,
        snapshot_file_bytes=_size(snapshot_file_size) if snapshot_file_size else None,
        egress=egress,
        kept_snapshot_bytes=_size(snapshots_size) if snapshots_size else None,
        conversations=conversations,
        conversation_bytes=_size(conversations_size) if conversations_size else None,
        delivery_bytes=_size(deliveries_size) if deliveries_size else None,
        attachment_bytes=_size(attachments_size) if attachments_size else None,
    )
    async with open_installation(data) as opened:
        await _plans(opened).put(plan)
    if json:
        print_json(_shown(plan))
    else:
        print(
            f"{name} is set; memory, processors, processes, disk and the internet count from an agent's next "
            "start, but the internet is taken away at once"
        )


@app.command
async def assign(email: str, name: str, /, *, data: DataDir = None) -> None:
    """Give a user's agent a plan."""
    async with open_installation(data) as opened:
        user = await opened.identity.user_by_email(email)
        await _plans(opened).assign(user.id, name)
    print(f"the agent of {user.email} has the plan {name}")


def _plans(opened: Opened) -> Plans:
    agents = Agents(opened.database, SystemClock(), runtime=opened.settings.runtime)
    return Plans(opened.database, agents)


def _shown(plan: Plan) -> dict[str, Any]:
    times = {
        name: None if time is None else f"{time.total_seconds():.0f}s"
        for name in ("pause_after", "stop_after", "max_awake")
        for time in (getattr(plan, name),)
    }
    return asdict(plan) | times


def _size(text: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMG]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if found is None:
        raise InvalidInput("Write a size like 2G, 1536M or a number of bytes.")
    return int(float(found[1]) * _UNITS[found[2].upper()])


def _duration(text: str) -> Any:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise InvalidInput(f"This is no duration: {error}.") from error
