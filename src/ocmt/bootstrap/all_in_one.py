"""Runs everything in one process, as `ocmt up` does."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable

from ocmt.bootstrap.agent_features import AgentFeatures
from ocmt.bootstrap.features import Features
from ocmt.bootstrap.management import compose_management
from ocmt.bootstrap.orchestrator import MakeRuntime, compose_orchestrator
from ocmt.bootstrap.platform import Announce, open_platform
from ocmt.platform.http.addresses import parse_networks
from ocmt.platform.reachable import ReachablePaths
from ocmt.runtimes.base import RunsImages
from ocmt.services.all_in_one import all_in_one_app
from ocmt.services.management import Management
from ocmt.services.orchestrator import Orchestrator
from ocmt.services.server import serve, stop_signal
from ocmt.settings import Settings


async def run_all_in_one(
    settings: Settings,
    listener: socket.socket,
    paths: ReachablePaths,
    *,
    announce: Announce,
    ready: Callable[[Management, Orchestrator], Awaitable[None]],
    make_runtime: MakeRuntime | None = None,
) -> None:
    """Everything in this process, until SIGINT or SIGTERM; then all that was started ends within 10 seconds.

    `ready` is awaited once requests are answered. `make_runtime`: another runtime than the settings name.
    Raises SetupProblem where something is missing.
    """
    stop = stop_signal()
    async with open_platform(settings, paths, announce) as platform:
        features = Features.over(platform)
        agent_features = AgentFeatures.over(platform)
        management = compose_management(platform, features, lambda: agent_features)
        orchestrator = compose_orchestrator(platform, features, agent_features, make_runtime)
        if platform.alone:
            await orchestrator.agents.expire_leases()
        if isinstance(orchestrator.runtime, RunsImages):
            await orchestrator.revisions.know(orchestrator.runtime.own_image)
        app = all_in_one_app(
            management,
            orchestrator,
            platform.database,
            url=settings.url,
            agent_url=settings.agent_url,
            ui_dir=settings.ui_dir,
            proxies=parse_networks(settings.trusted_proxies),
        )
        async with orchestrator.running() as broken:
            await serve(
                app,
                listener,
                stop=stop,
                ready=lambda: ready(management, orchestrator),
                broken=broken,
                closing=orchestrator.stream.closing,
            )
