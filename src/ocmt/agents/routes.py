"""HTTP edge of the user's own agent: `GET|PATCH /agent`, `GET /agent/schedule`, `POST /agent/wake|…`.

Looking wakes nothing and holds nothing awake.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, StrictBool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ocmt.agents import schedule
from ocmt.agents.holds import words
from ocmt.agents.model import Agent, Policy
from ocmt.agents.service import Agents
from ocmt.errors import DiskFull
from ocmt.platform.free_space import WORDS, FreeSpace
from ocmt.platform.http import json_body, principal
from ocmt.runtimes.base import START_STEPS, AgentRuntime, Isolation

ModelOf = Callable[[UUID], Awaitable[Mapping[str, str]]]
"""user → {"kind": "user" | "platform" | "demo", "label"}: which model answers."""


ChangeEgress = Callable[[Request, bool], Awaitable[None]]
"""Keeps whether the asking user wants the internet for their agent. Raises: Refused."""


class AgentPatch(BaseModel):
    """What a user may change about the agent."""

    model_config = ConfigDict(extra="forbid")

    egress: StrictBool


def routes(
    agents: Agents,
    runtime: AgentRuntime,
    model_of: ModelOf,
    policy: Policy,
    change_egress: ChangeEgress,
    space: FreeSpace | None = None,
) -> list[Route]:
    """The routes, to be mounted at the root of the orchestrator."""

    async def show(request: Request, status: int = 200) -> Response:
        user_id = principal(request).user_id
        agent = await agents.find(user_id)
        isolation = await runtime.probe()
        told = describe(agent, isolation, await model_of(user_id), policy)
        if space is not None and space.low:
            told["error"] = {"code": DiskFull.code, "message": WORDS}
        return JSONResponse(told, status)

    async def get_agent(request: Request) -> Response:
        return await show(request)

    async def get_schedule(request: Request) -> Response:
        user_id = principal(request).user_id
        agent = await agents.find(user_id)
        return JSONResponse(schedule.describe(agent, await agents.schedule_of(user_id)))

    async def patch_agent(request: Request) -> Response:
        patch = await json_body(request, AgentPatch)
        await change_egress(request, patch.egress)
        return await show(request)

    async def wake(request: Request) -> Response:
        await agents.ask_awake(principal(request).user_id)
        return await show(request, 202)

    async def hibernate(request: Request) -> Response:
        await agents.ask_stopped(principal(request).user_id)
        return await show(request, 202)

    async def restart(request: Request) -> Response:
        await agents.ask_restart(principal(request).user_id)
        return await show(request, 202)

    return [
        Route("/agent", get_agent, methods=["GET"]),
        Route("/agent", patch_agent, methods=["PATCH"]),
        Route("/agent/schedule", get_schedule, methods=["GET"]),
        Route("/agent/wake", wake, methods=["POST"]),
        Route("/agent/hibernate", hibernate, methods=["POST"]),
        Route("/agent/restart", restart, methods=["POST"]),
    ]


def describe(agent: Agent, isolation: Isolation, model: Mapping[str, str], policy: Policy) -> dict[str, Any]:
    """An agent as its user sees it."""
    return {
        "state": agent.state.value,
        "since": agent.since.isoformat(),
        "progress": agent.progress,
        "steps": [{"step": step, "text": text} for step, text in START_STEPS.items()],
        "kept_awake_by": [
            {
                "reason": hold.reason,
                "reference": hold.reference,
                "until": hold.until.isoformat() if hold.until else None,
                "text": words(hold),
            }
            for hold in agent.holds
        ],
        "next_wake_at": agent.next_wake_at.isoformat() if agent.next_wake_at else None,
        "isolation": {
            "level": isolation.level,
            "summary": isolation.summary,
            "guarantees": list(isolation.guarantees),
            "missing": list(isolation.missing),
            "is_boundary": isolation.is_boundary,
        },
        "image": agent.image,
        "revision": agent.revision,
        "model": dict(model),
        "egress": policy.reaches_internet(agent),
        "egress_policy": policy.egress_of(agent.plan),
        "error": agent.error,
        "retry_at": agent.retry_at.isoformat() if agent.retry_at else None,
        "files": {
            "saved_at": agent.saved.at.isoformat() if agent.saved.at else None,
            "generation": agent.saved.generation or None,
            "problem": agent.saved.problem,
        },
        "plan": agent.plan.name,
        "pause_after_seconds": policy.of(agent.plan).pause_after.total_seconds(),
        "stop_after_seconds": policy.of(agent.plan).stop_after.total_seconds(),
    }
