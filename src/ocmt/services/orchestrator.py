"""The Agent Orchestrator: agents, chat, the credential broker; and what runs in the background for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request

from ocmt.agents.egress import Egress
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
from ocmt.identity.audit.service import Audit
from ocmt.identity.guards import actor_of
from ocmt.platform.clock import SystemClock
from ocmt.platform.database import Connection
from ocmt.platform.free_space import FreeSpace
from ocmt.platform.http import exception_handlers, principal
from ocmt.privacy.eraser import Eraser
from ocmt.runtimes.base import AgentRuntime, HoldsAll
from ocmt.services.floods import Floods, WriteRates

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Orchestrator:
    """The rooms that this service opens."""

    agents: Agents
    policy: Policy
    egress: Egress
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
    audit: Audit
    space: FreeSpace | None = None
    """Of the disk below all of it; None: nobody watches."""

    def app(self) -> Starlette:
        """The ASGI application; authentication is the middleware's that the process puts in front."""

        async def model_of(user_id: UUID) -> Mapping[str, str]:
            model = await self.broker.model_for(user_id)
            return {"kind": model.kind, "label": model.label}

        async def change_egress(request: Request, wanted: bool) -> None:
            me = principal(request)
            await self.egress.check(me.user_id, wanted)
            note = self._noting(request, "agent.egress")

            async def record(connection: Connection) -> None:
                await note(connection, {"before": not wanted, "after": wanted})

            await self.egress.change(me.user_id, wanted, record)

        app = Starlette(
            routes=[
                *agent_routes(self.agents, self.runtime, model_of, self.policy, change_egress, self.space),
                *snapshot_routes(self.snapshots, self.transfers),
                *chat_routes(self.chat, self.stream),
                *gateway_routes(self.sockets, self.pages),
                *channel_routes(self.channels.channels, self.channels.deliveries, self._noting),
            ],
            exception_handlers=exception_handlers(),
            middleware=[Middleware(WriteRates, floods=self.floods)],
        )
        # Its redirects are made of what the request says about scheme and host.
        app.router.redirect_slashes = False
        return app

    def _noting(self, request: Request, action: str) -> Callable[..., Awaitable[None]]:
        """Return what writes an action of whoever asks into the audit log, in the caller's transaction."""
        me = principal(request)
        actor = actor_of(me, request)

        async def note(connection: Connection, details: Mapping[str, Any]) -> None:
            await self.audit.record(connection, action, actor=actor, subject_id=me.user_id, **details)

        return note

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
        if self.space is not None and isinstance(self.runtime, HoldsAll):
            watch = self.space.keep_watch(self.runtime.hold_all, self.runtime.let_all_go_on, SystemClock())
            tasks.append(asyncio.create_task(watch, name="disk"))

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
