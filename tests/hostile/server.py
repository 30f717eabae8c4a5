"""`ocmt up` as it is, with agents that are doubles and short patience: `python -m tests.hostile.server`.

A process of its own, so that its memory, its connections and its log can be looked at. Settings come from the
environment. Prints one line of JSON once it answers: its port, and a link to sign in for each of some people.
"""

from __future__ import annotations

import gc
import json
import logging
import socket
from collections import deque
from contextlib import suppress
from typing import Any

import uvloop
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from ocmt.bootstrap.all_in_one import run_all_in_one
from ocmt.bootstrap.platform import Platform
from ocmt.channels.intake import Intake
from ocmt.cli.process import allow_many_files, listen, say
from ocmt.openclaw.config import OWNER, OWNER_HEADER
from ocmt.platform import telemetry
from ocmt.platform.clock import Clock
from ocmt.platform.http import protocol
from ocmt.platform.reachable import ReachablePaths
from ocmt.runtimes.base import AgentRuntime, AgentSpec
from ocmt.services.management import Management
from ocmt.services.orchestrator import Orchestrator
from ocmt.settings import Settings, load_settings
from ocmt.testing.gateway import FakeGateway, Say, UseTool
from ocmt.testing.runtimes import FakeRuntime

PEOPLE = ("anna@example.org", "bert@example.org", "cora@example.org", "dora@example.org")
FLOOD = "report steps without end"
"""A message to which an agent answers so:"""
FLOOD_STEPS = 20_000
HEAD_SECONDS = 2.0
"""Instead of the real ones, and likewise:"""
BODY_SECONDS = 4.0
INTAKE_SECONDS = 2.0


def hurry() -> None:
    """Less patience, so that a test sees its end."""
    protocol.HEAD_SECONDS = HEAD_SECONDS
    protocol.BODY_SECONDS = BODY_SECONDS
    # A parameter's default, and the composition gives it no other.
    vars(Intake)["__init__"].__kwdefaults__["patience"] = INTAKE_SECONDS


class Gateway(FakeGateway):
    """One that says to its user's own programs again what they say, and that remembers little of what it is
    told: it is in the process whose memory is looked at."""

    def __init__(self, clock: Clock, *, token: str) -> None:
        super().__init__(clock, token=token)
        self.received = deque(maxlen=100)  # type: ignore[assignment]

    def _chat_send(self, params: dict[str, Any]) -> dict[str, Any]:
        if params["message"] == FLOOD:
            self.script(*[UseTool("exec", "x" * 200) for _ in range(FLOOD_STEPS)], Say("Yes."))
        else:
            self.script(Say("Yes."))
        return super()._chat_send({**params, "message": params["message"][:100]})

    async def _serve(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        if connection.request.headers.get(OWNER_HEADER) != OWNER:
            await super()._serve(connection)
            return
        with suppress(ConnectionClosed):
            async for message in connection:
                await connection.send(message)


def make_runtime(platform: Platform, _broker: Any) -> AgentRuntime:
    async def gateway(spec: AgentSpec) -> FakeGateway:
        token = spec.environment["OPENCLAW_GATEWAY_PASSWORD"]
        return await Gateway(platform.clock, token=token).__aenter__()

    return FakeRuntime(platform.clock, make_gateway=gateway)


async def run(settings: Settings, listener: socket.socket) -> None:
    """Until SIGTERM."""

    async def ready(management: Management, _: Orchestrator) -> None:
        identity = management.accounts.identity
        for number, email in enumerate(PEOPLE):
            await identity.add_user(email, "user" if number else "admin")
        links = [await identity.make_link(email) for email in PEOPLE]
        gc.freeze()
        say(json.dumps({"port": settings.port, "links": links}))

    await run_all_in_one(
        settings, listener, ReachablePaths(), announce=lambda _: None, ready=ready, make_runtime=make_runtime
    )


def main() -> None:
    settings = load_settings()
    listener = listen(settings)
    allow_many_files()
    telemetry.configure_logging("json", "warning")
    # The double's own library: what it thinks of odd frames is no word of ours.
    logging.getLogger("websockets").setLevel(logging.CRITICAL)
    hurry()
    uvloop.run(run(settings.model_copy(update={"port": listener.getsockname()[1]}), listener))


if __name__ == "__main__":
    main()
