"""Wires the Agent Orchestrator: what drives agents, answers turns and brokers model calls."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from uuid import UUID

from ocmt.agents.admission import Admission
from ocmt.agents.egress import Egress
from ocmt.agents.files import FileKeeper
from ocmt.agents.lifecycle import Driver
from ocmt.agents.model import Agent, Policy, State
from ocmt.agents.reconciler import Reconciler
from ocmt.agents.revisions.service import Revisions
from ocmt.agents.service import Agents
from ocmt.bootstrap.agent_features import AgentFeatures
from ocmt.bootstrap.channels import ChannelSeal, kinds_of_channels
from ocmt.bootstrap.features import Features
from ocmt.bootstrap.platform import Platform
from ocmt.bootstrap.runtime import memory_for_agents, runtime_of
from ocmt.broker.model import RunningTurn
from ocmt.broker.service import Broker
from ocmt.channels.room import ChannelRoom
from ocmt.chat.answer import Answerer
from ocmt.chat.model import Fault
from ocmt.chat.service import Chat
from ocmt.chat.stream import EventStream
from ocmt.chat.transcript import TranscriptWriter
from ocmt.chat.worker import TurnWorker
from ocmt.errors import OcmtError
from ocmt.gateway.pages import ControlUi
from ocmt.gateway.service import Sockets
from ocmt.identity.audit.retention import Retention
from ocmt.identity.visits.model import BEGIN
from ocmt.openclaw.config import gateway_environment, render_config
from ocmt.platform.leases import Lease, Leases
from ocmt.privacy.eraser import Eraser
from ocmt.privacy.model import Quiet
from ocmt.runtimes.base import AgentRuntime, AgentSpec, ForgetsFiles
from ocmt.runtimes.tools import control_ui
from ocmt.services.floods import Floods
from ocmt.services.orchestrator import Orchestrator
from ocmt.vault.service import ModelKeys

MakeRuntime = Callable[[Platform, Broker], AgentRuntime]
"""What runs the agents, over a platform that is open and the broker that they call."""


def compose_orchestrator(
    platform: Platform,
    features: Features,
    agent_features: AgentFeatures,
    make_runtime: MakeRuntime | None = None,
) -> Orchestrator:
    """The rooms that it opens, wired. Nothing runs yet. `make_runtime`: another than the settings name."""
    settings, clock, database = platform.settings, platform.clock, platform.database
    policy = Policy(
        pause_after=settings.agent_pause_after,
        stop_after=settings.agent_stop_after,
        max_awake=settings.agent_max_awake,
        job_awake=settings.agent_job_awake,
        page_out_after=settings.agent_page_out_after,
        memory_bytes=settings.agent_memory,
        wake_timeout=settings.wake_timeout,
        wake_ahead=settings.agent_wake_ahead,
        snapshot_every=settings.snapshot_every,
        egress=settings.egress,
    )
    admission = Admission(memory_for_agents(settings), clock)
    agents, chat, ledger = agent_features.agents, agent_features.chat, features.ledger
    snapshots, transfers = agent_features.snapshots, agent_features.transfers
    revisions = Revisions(database, agents, clock)
    egress = Egress(database, clock, agents, policy, daily_bytes=settings.egress_daily_bytes)

    async def running_turns(user_id: UUID) -> list[RunningTurn]:
        return [
            RunningTurn(turn.id, turn.text, turn.conversation_id, turn.started_at)
            for turn in await chat.running(user_id)
        ]

    async def notice(turn_id: UUID, text: str) -> None:
        await worker.note(turn_id, text)

    key = settings.anthropic_api_key
    broker = Broker(
        keys=ModelKeys(features.vault, features.group_keys, database, clock),
        ledger=ledger,
        clock=clock,
        authenticate=agents.owner_of_token,
        running_turns=running_turns,
        notice=notice,
        reaches_internet=egress.allows,
        models=settings.models or (settings.model,),
        platform_key=key.get_secret_value() if key else None,
        anthropic_url=settings.anthropic_url,
        limits=features.limits,
        demo_model=settings.demo_model,
        session=platform.http.session_for_model_calls(),
    )
    if make_runtime is None:
        runtime = runtime_of(settings, clock, platform.paths.view, broker, egress)
    else:
        runtime = make_runtime(platform, broker)

    def driver_for(lease: Lease) -> Driver:
        return Driver(
            lease,
            agents=agents,
            runtime=runtime,
            spec_of=spec_of,
            clock=clock,
            policy=policy,
            admission=admission,
            files=FileKeeper(snapshots, runtime, lease, transfers),
            revisions=revisions,
            starts=starts,
        )

    def spec_of(agent: Agent, broker_token: str, gateway_token: str) -> AgentSpec:
        internet = policy.reaches_internet(agent)
        return AgentSpec(
            user_id=agent.user_id,
            slot=agent.slot,
            config=render_config(
                model=settings.model,
                egress=internet,
                turn_timeout=int(settings.turn_timeout.total_seconds()),
            ),
            environment=gateway_environment(
                gateway_token=gateway_token, broker_token=broker_token, egress=internet
            ),
            egress=internet,
            memory_bytes=agent.plan.memory_bytes or settings.agent_memory,
            disk_bytes=agent.plan.disk_bytes or settings.agent_disk,
            **{name: value for name in ("cpus", "pids") if (value := getattr(agent.plan, name)) is not None},
        )

    # A start is bound by the processor: more at once than there are cores only makes all of them late.
    starts = asyncio.Semaphore(max(1, len(os.sched_getaffinity(0))))
    owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    leases = Leases(
        database,
        table="agents",
        key="user_id",
        owner=owner,
    )
    reconciler = Reconciler(
        agents,
        leases,
        driver_for,
        platform.hints,
        clock,
        admission,
        alone=platform.alone,
        wake_ahead=policy.wake_ahead,
    )

    async def usage_of(user_id: UUID, turn_id: UUID) -> dict[str, int] | None:
        return asdict(await ledger.turn_usage(user_id, turn_id))

    async def explain(user_id: UUID, turn_id: UUID) -> Fault | None:
        fault = await ledger.last_fault(user_id, turn_id)
        return Fault(fault.code, fault.message, fault.retryable) if fault else None

    answerer = Answerer(
        database,
        clock,
        agents,
        usage_of=usage_of,
        explain=explain,
        turn_timeout=settings.turn_timeout,
        attachments=chat.attachments,
        budgets=features.budgets,
    )
    worker = TurnWorker(database, clock, platform.hints, reconciler, answerer)

    channels = ChannelRoom.over(
        database,
        clock,
        platform.hints,
        chat,
        kinds=kinds_of_channels(settings, platform.http, clock),
        seal=ChannelSeal(platform.secrets),
        url=settings.url,
        budgets=features.budgets,
    )

    async def forget(user_id: UUID) -> None:
        await features.groups.give_up(user_id)
        await channels.channels.leave(user_id)
        if isinstance(runtime, ForgetsFiles):
            await runtime.forget(user_id)

    async def remembered() -> list[UUID]:
        return await runtime.remembered() if isinstance(runtime, ForgetsFiles) else []

    return Orchestrator(
        agents=agents,
        policy=policy,
        egress=egress,
        runtime=runtime,
        revisions=revisions,
        reconciler=reconciler,
        broker=broker,
        chat=chat,
        stream=EventStream(chat, database, platform.hints, clock),
        worker=worker,
        transcripts=TranscriptWriter(database, platform.objects, platform.hints),
        snapshots=snapshots,
        transfers=transfers,
        floods=Floods(clock),
        eraser=Eraser(
            database,
            platform.objects,
            features.accounts.identity.audit,
            clock,
            quiet=quiet(agents, chat),
            forget=forget,
            remembered=remembered,
        ),
        retention=Retention(features.accounts.identity.audit, clock, settings.audit_keep),
        channels=channels,
        audit=features.accounts.identity.audit,
        sockets=Sockets(agents, reconciler.drive, clock, owner=owner),
        pages=ControlUi(
            control_ui(settings.cache_dir), strangers_to=BEGIN if settings.agent_url is not None else "/"
        ),
        space=platform.space,
    )


def quiet(agents: Agents, chat: Chat) -> Quiet:
    """Stops a user's turns and then their agent; whether it has come to rest."""

    async def is_quiet(user_id: UUID) -> bool:
        for turn in await chat.open_turns(user_id):
            with suppress(OcmtError):  # it has ended meanwhile
                await chat.stop(user_id, turn)
        found = await agents.find_all([user_id])
        if not found:
            return True
        with suppress(OcmtError):  # it still works: the next look will find it stopped
            await agents.ask_stopped(user_id)
        (agent,) = await agents.find_all([user_id])
        return agent.state in (State.STOPPED, State.FAILED)

    return is_quiet
