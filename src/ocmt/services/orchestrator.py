"""The Agent Orchestrator: agents, chat, the credential broker; and what runs in the background for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from uuid import UUID

import structlog
from starlette.applications import Starlette
from starlette.routing import Mount

from ocmt.agents.routes import routes as agent_routes
from ocmt.bootstrap import Features
from ocmt.chat.routes import routes as chat_routes
from ocmt.platform.http import exception_handlers

log = structlog.get_logger(__name__)


def orchestrator_app(features: Features) -> Starlette:
    """The ASGI application; authentication is the middleware's that the process puts in front."""

    async def model_of(user_id: UUID) -> Mapping[str, str]:
        model = await features.broker.model_for(user_id)
        return {"kind": model.kind, "label": model.label}

    return Starlette(
        routes=[
            *agent_routes(features.agents, features.runtime, model_of, features.policy),
            *chat_routes(features.chat, features.stream),
            Mount("/broker/anthropic", app=features.broker.app()),
        ],
        exception_handlers=exception_handlers(),
    )


@asynccontextmanager
async def running(features: Features) -> AsyncIterator[asyncio.Future[None]]:
    """Drives agents and answers turns while the context is open; stops every agent at its end.

    Yields a future that fails when a background task has ended: the process should end then too.
    """
    broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    tasks = [
        asyncio.create_task(features.reconciler.run(), name="reconciler"),
        asyncio.create_task(features.worker.run(), name="turns"),
        asyncio.create_task(features.transcripts.run(), name="transcripts"),
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
        features.stream.closing.set()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await features.reconciler.close()
