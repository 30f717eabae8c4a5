"""The Agent Orchestrator: agents, chat, the credential broker; and what runs in the background for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

import structlog
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount

from ocmt.agents.model import Policy
from ocmt.agents.reconciler import Reconciler
from ocmt.agents.revisions.service import Revisions
from ocmt.agents.routes import routes as agent_routes
from ocmt.agents.service import Agents
from ocmt.agents.snapshots.routes import routes as snapshot_routes
from ocmt.agents.snapshots.service import Snapshots
from ocmt.agents.snapshots.transfers import Transfers
from ocmt.broker.service import Broker
from ocmt.channels.room import ChannelRoom
from ocmt.channels.routes import routes as channel_routes
from ocmt.chat.routes import routes as chat_routes
from ocmt.chat.service import Chat
from ocmt.chat.stream import EventStream
from ocmt.chat.transcript import TranscriptWriter
from ocmt.chat.worker import TurnWorker
from ocmt.gateway.pages import ControlUi
from ocmt.gateway.routes import routes as gateway_routes
from ocmt.gateway.service import Sockets
from ocmt.identity.audit.retention import Retention
from ocmt.platform.http import exception_handlers
from ocmt.privacy.eraser import Eraser
from ocmt.runtimes.base import AgentRuntime
from ocmt.services.floods import Floods, WriteRates

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Orchestrator:
    """The rooms that this service opens."""

    agents: Agents
    policy: Policy
    runtime: AgentRuntime
    reconciler: Reconciler
    broker: Broker
    chat: Chat
    stream: EventStream
    worker: TurnWorker
    transcripts: TranscriptWriter
    snapshots: Snapshots
    transfers: Transfers
    revisions: Revisions
    eraser: Eraser
    retention: Retention
    sockets: Sockets
    pages: ControlUi
    channels: ChannelRoom
    floods: Floods

    def app(self) -> Starlette:
        """The ASGI application; authentication is the middleware's that the process puts in front."""

        async def model_of(user_id: UUID) -> Mapping[str, str]:
            model = await self.broker.model_for(user_id)
            return {"kind": model.kind, "label": model.label}

        return Starlette(
            routes=[
                *agent_routes(self.agents, self.runtime, model_of, self.policy),
                *snapshot_routes(self.snapshots, self.transfers),
                *chat_routes(self.chat, self.stream),
                *gateway_routes(self.sockets, self.pages),
                *channel_routes(self.channels.channels, self.channels.deliveries),
                Mount("/broker/anthropic", app=self.broker.app()),
            ],
            exception_handlers=exception_handlers(),
            middleware=[Middleware(WriteRates, floods=self.floods)],
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Future[None]]:
        """Drives agents and answers turns while the context is open; stops every agent at its end.

        Yields a future that fails when a background task has ended: the process should end then too.
        """
        broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        tasks = [
            asyncio.create_task(self.reconciler.run(), name="reconciler"),
            asyncio.create_task(self.worker.run(), name="turns"),
            asyncio.create_task(self.transcripts.run(), name="transcripts"),
            asyncio.create_task(self.chat.attachments.keep_sweeping(), name="attachments"),
            asyncio.create_task(self.eraser.run(), name="deletions"),
            asyncio.create_task(self.retention.run(), name="retention"),
            asyncio.create_task(self.sockets.run(), name="sockets"),
            asyncio.create_task(self.channels.run_deliveries(), name="deliveries"),
            asyncio.create_task(self.channels.run_outbox(), name="outbox"),
        ]

        def ended(task: asyncio.Task[None]) -> None:
            if task.cancelled():
                return
            error = task.exception() or RuntimeError("it returned")
            log.critical("a background task ended", task=task.get_name(), exc_info=error)
            if not broken.done():
                broken.set_exception(error)

        for task in tasks:
            task.add_done_callback(ended)
        try:
            yield broken
        finally:
            broken.cancel()
            self.stream.closing.set()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await self.reconciler.close()
            await self.runtime.close()
            await self.broker.drain()
