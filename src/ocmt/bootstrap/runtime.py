"""The part of the composition that is the agents' runtime: which one, with what, and for how many."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from functools import partial
from pathlib import Path
from uuid import UUID

import structlog

from ocmt.broker.service import Broker
from ocmt.errors import SetupProblem
from ocmt.openclaw.config import GATEWAY_SWITCHES, gateway_environment, render_config
from ocmt.openclaw.exercise import exercise
from ocmt.platform.clock import Clock
from ocmt.platform.http import Closer, serve_on
from ocmt.runtimes.base import AgentRuntime
from ocmt.runtimes.bubblewrap import View
from ocmt.runtimes.docker import DockerRuntime
from ocmt.runtimes.egress import EgressProxy, Gate
from ocmt.runtimes.sandbox import SandboxRuntime
from ocmt.runtimes.spare_plan import Recipe
from ocmt.runtimes.spares import SPARE_BYTES
from ocmt.runtimes.tools import find_tools
from ocmt.settings import Settings


def memory_for_agents(settings: Settings) -> int:
    """What all awake agents may have together: what waiting spares take is not theirs."""
    whole = settings.agents_memory or _memory_of_machine(settings.agent_memory)
    spares = settings.warm_spares * SPARE_BYTES if settings.runtime == "sandbox" else 0
    return max(settings.agent_memory, whole - spares)


def _memory_of_machine(least: int) -> int:
    """Three quarters of the memory that this machine, or the group around us, has; one agent's at least."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # there is none of that kind, or no limit (`max`)
            sizes.append(int(Path(limit).read_text()))
    return max(least, min(sizes) * 3 // 4)


def runtime_of(settings: Settings, clock: Clock, view: View, broker: Broker, gate: Gate) -> AgentRuntime:
    """The runtime that the settings name, with doors to the broker and to the world. Raises SetupProblem."""
    if settings.runtime == "process":
        raise SetupProblem(
            f"The runtime {settings.runtime} is not there yet: use `sandbox`, the default. "
            "`ocmt doctor` tells what it needs on this machine."
        )
    egress = EgressProxy(structlog.get_logger("ocmt.runtimes.egress"), gate=gate, ports=settings.egress_ports)

    async def broker_door(user_id: UUID, listener: socket.socket) -> Closer:
        return await serve_on(listener, broker.app(user_id=user_id))

    doors = {"broker": broker_door, "egress": egress.door}
    if settings.runtime == "docker":
        return DockerRuntime(
            data_dir=settings.data_dir.resolve(),
            doors=doors,
            clock=clock,
            log=structlog.get_logger("ocmt.runtimes.docker"),
            url=settings.docker_url,
            image=settings.agent_image,
        )
    return SandboxRuntime(
        data_dir=settings.data_dir.resolve(),
        tools=find_tools(settings.cache_dir),
        doors=doors,
        clock=clock,
        log=structlog.get_logger("ocmt.runtimes.sandbox"),
        view=view,
        recipe=_recipe(settings, clock),
    )


def _recipe(settings: Settings, clock: Clock) -> Recipe | None:
    """Of warm spares, where some are wanted."""
    if not settings.warm_spares:
        return None
    token = secrets.token_urlsafe()
    throw_away = gateway_environment(gateway_token=token, broker_token=secrets.token_urlsafe())
    return Recipe(
        count=settings.warm_spares,
        config=render_config(model=settings.model),
        disk_bytes=settings.agent_disk,
        switches=GATEWAY_SWITCHES,
        secrets=throw_away,
        exercise=partial(exercise, token=token, clock=clock),
    )
