"""`ocmt channels`: what an operator does with webhooks from the server's own shell."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import datetime, timedelta
from json import loads
from typing import Annotated, Any
from uuid import UUID

from cyclopts import App, Parameter, Token

from ocmt.channels.history import Deliveries
from ocmt.cli.database import Opened, open_installation
from ocmt.cli.output import AsJson, DataDir, print_json, print_table
from ocmt.errors import InvalidInput
from ocmt.platform.clock import SystemClock
from ocmt.platform.telemetry import harmless
from ocmt.settings import parse_duration

app = App(name="channels", help="Connect and list channels, and what came in there; run deliveries again.")

_COLUMNS = ("email", "id", "channel", "name", "open", "dead", "owed", "created_at")
_LONGEST_INPUT = 65536
_DELIVERY_COLUMNS = ("id", "received_at", "state", "attempts", "replays", "sent", "pending", "dead", "why")


def _time_back(_kind: type, tokens: list[Token] | tuple[Token, ...]) -> timedelta:
    try:
        asked = parse_duration(tokens[0].value)
    except OverflowError:
        asked = None
    if not isinstance(asked, timedelta) or not timedelta(0) < asked <= timedelta(days=3650):
        raise ValueError("write a duration like 90s, 30m or 4h")
    return asked


Endpoint = Annotated[UUID, Parameter(help="The channel's id, as `ocmt channels list` shows it.")]


@app.command(name="list")
async def list_channels(
    email: Annotated[str | None, Parameter(help="Those of this user alone.")] = None,
    /,
    *,
    data: DataDir = None,
    json: AsJson = False,
) -> None:
    """List channels with what is open, dead and owed there."""
    async with open_installation(data) as opened:
        found = await _deliveries(opened).endpoints(email)
    if json:
        print_json(found)
    else:
        shown = [{**row, "name": harmless(row["name"])} for row in found]
        print_table(shown, _COLUMNS, empty="There are no channels yet.")


@app.command
async def connect(
    email: Annotated[str, Parameter(help="The user whose agent it is for.")],
    channel: Annotated[str, Parameter(help="telegram, slack, github or signed.")],
    /,
    *,
    name: Annotated[str | None, Parameter(help="What to call it.")] = None,
    sender: Annotated[list[str] | None, Parameter(help="The channel's id of somebody to let in.")] = None,
    data: DataDir = None,
    json: AsJson = False,
) -> None:
    """Connect a channel for somebody, as for a bot that moves here: its webhook takes the place of polling.

    The fields come as a JSON object on standard input, where nobody else sees them: {"bot_token": "…"}.
    """
    from ocmt.bootstrap.channels import ChannelSeal, kinds_of_channels
    from ocmt.channels.service import Channels
    from ocmt.platform.http import HttpClient

    fields = _fields(sys.stdin.read(_LONGEST_INPUT))
    clock = SystemClock()
    async with open_installation(data) as opened, HttpClient() as http:
        user = await opened.identity.user_by_email(email)
        settings = opened.settings
        kinds = kinds_of_channels(settings, http, clock)
        seal = ChannelSeal((await opened.stores()).secrets)
        channels = Channels(opened.database, clock, kinds, seal, url=settings.url)
        made = await channels.connect(user.id, channel, fields, name)
        # At once: the secret is not told again, whatever goes wrong with the rest.
        if json:
            print_json({"id": made.connection.id, "webhook_url": made.webhook_url, "secret": made.secret})
        else:
            print(f"{harmless(made.connection.name)} is connected as {made.connection.id}")
            print(f"Its webhook: {made.webhook_url}")
            if made.secret is not None:
                print(f"Its secret, shown this once: {made.secret}")
        for one in sender or []:
            await channels.set_sender(user.id, made.connection.id, one, "approved")


def _fields(text: str) -> dict[str, str]:
    try:
        fields = loads(text)
    except ValueError:
        fields = None
    if not isinstance(fields, dict) or not all(isinstance(value, str) for value in fields.values()):
        raise InvalidInput('Give the fields on standard input, as a JSON object of texts: {"bot_token": "…"}')
    return fields


@app.command
async def deliveries(
    endpoint: Endpoint,
    /,
    *,
    state: Annotated[str | None, Parameter(help="Those in this state alone: dead, for instance.")] = None,
    limit: Annotated[int, Parameter(help="How many, the latest first.")] = 50,
    data: DataDir = None,
    json: AsJson = False,
) -> None:
    """List what came in at a channel and what became of it."""
    async with open_installation(data) as opened:
        room = _deliveries(opened)
        owner = await room.owner(endpoint)
        page = await room.page(owner, endpoint, state=state, limit=max(1, min(limit, 1000)))
    found: list[dict[str, Any]] = [asdict(one) for one in page]
    if json:
        print_json(found)
    else:
        for one in found:
            error = one["error"] or one["last_error"]
            one["why"] = harmless(str(error.get("message"))) if error else None
        print_table(found, _DELIVERY_COLUMNS, empty="Nothing came in there.")


@app.command
async def replay(
    endpoint: Endpoint,
    delivery: Annotated[UUID | None, Parameter(help="One delivery; without it those of `--last`.")] = None,
    /,
    *,
    last: Annotated[
        timedelta | None, Parameter(help="How far back, like 30m or 4h.", converter=_time_back)
    ] = None,
    state: Annotated[list[str] | None, Parameter(help="In which states; dead ones if not said.")] = None,
    data: DataDir = None,
    json: AsJson = False,
) -> None:
    """Run deliveries again, as new turns; the running `ocmt up` does it."""
    if (delivery is None) == (last is None):
        raise InvalidInput("Name one delivery, or say --last.")
    clock = SystemClock()
    async with open_installation(data) as opened:
        room = _deliveries(opened)
        owner = await room.owner(endpoint)
        if delivery is not None:
            await room.replay(owner, endpoint, delivery)
            count = 1
        else:
            since: datetime = clock.now() - (last or timedelta())
            count = await room.replay_many(owner, endpoint, since=since, states=state or ["dead"])
    if json:
        print_json({"endpoint": endpoint, "count": count})
    else:
        print(f"{count} {'delivery runs' if count == 1 else 'deliveries run'} again")


def _deliveries(opened: Opened) -> Deliveries:
    return Deliveries(opened.database, SystemClock())
