"""The composition root: settings → platform → features → services. The only place that knows every room."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import UUID

import aiohttp

from ocmt.agents.admission import Admission
from ocmt.agents.files import FileKeeper
from ocmt.agents.holds import Holds
from ocmt.agents.lifecycle import Driver
from ocmt.agents.model import Agent, Policy
from ocmt.agents.reconciler import Reconciler
from ocmt.agents.revisions.service import Revisions
from ocmt.agents.service import Agents
from ocmt.agents.snapshots.service import Snapshots
from ocmt.agents.snapshots.transfers import Transfers
from ocmt.bootstrap_privacy import exports, quiet
from ocmt.bootstrap_runtime import memory_for_agents, runtime_of
from ocmt.broker.model import RunningTurn
from ocmt.broker.service import Broker
from ocmt.chat.answer import Answerer
from ocmt.chat.model import Fault
from ocmt.chat.service import Chat
from ocmt.chat.stream import EventStream
from ocmt.chat.transcript import TranscriptWriter
from ocmt.chat.worker import TurnWorker
from ocmt.errors import SetupProblem
from ocmt.groups.service import Groups
from ocmt.identity.accounts import Accounts
from ocmt.identity.oidc.clients import clients_of
from ocmt.identity.oidc.model import configure
from ocmt.openclaw.config import gateway_environment, render_config
from ocmt.platform import migrations
from ocmt.platform.argon import ArgonGate
from ocmt.platform.clock import Clock, SystemClock
from ocmt.platform.database import Database, Hints
from ocmt.platform.embedded_postgres import EmbeddedPostgres
from ocmt.platform.folder_lock import FolderLock
from ocmt.platform.http import client_session
from ocmt.platform.http.addresses import parse_networks
from ocmt.platform.leases import Lease, Leases
from ocmt.platform.mail import LocalOutbox, Mail, SmtpMail
from ocmt.platform.objects import LocalObjects, Objects
from ocmt.platform.postgres_binaries import find_binaries
from ocmt.platform.reachable import ReachablePaths
from ocmt.platform.secrets import LocalSecrets, Secrets
from ocmt.privacy.service import Privacy
from ocmt.runtimes.base import AgentRuntime, AgentSpec, ForgetsFiles, RunsImages
from ocmt.services.all_in_one import all_in_one_app, serve
from ocmt.services.management import Management
from ocmt.services.orchestrator import Orchestrator
from ocmt.settings import Settings
from ocmt.usage.service import Ledger
from ocmt.vault.group_keys import GroupKeys
from ocmt.vault.imported.service import ImportedVaults
from ocmt.vault.service import ModelKeys, Vault
from ocmt.vault.trial import Trial

Announce = Callable[[str], None]
"""Shows one line to the person who started the program."""
MakeRuntime = Callable[["Platform", Broker], AgentRuntime]
"""What runs the agents, over a platform that is open and the broker that they call."""


@dataclass(frozen=True)
class Platform:
    """What every feature stands on."""

    settings: Settings
    clock: Clock
    database: Database
    hints: Hints
    objects: Objects
    secrets: Secrets
    mail: Mail
    session: aiohttp.ClientSession
    paths: ReachablePaths
    alone: bool
    """Whether no other process can use this database: the embedded one, in a data folder that we locked."""


@asynccontextmanager
async def open_platform(
    settings: Settings, paths: ReachablePaths, announce: Announce
) -> AsyncIterator[Platform]:
    """Database (started and migrated if need be), stores, mail, and the HTTP client.

    Raises: SetupProblem with one line that says what to do.
    """
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        data = prepare_folder(settings.data_dir)
        # Also where the database is elsewhere: of two processes with the same agents' folders one would end
        # the other's agents as leftovers, and one that is thawed late would put old files under a running
        # agent.
        lock = FolderLock(data / ".in-use")
        lock.acquire(f"The data folder {data} is another `ocmt up`'s: give this one its own by --data")
        stack.callback(lock.release)
        if settings.database_url is not None:
            dsn = settings.database_url.get_secret_value()
        else:
            dsn = await _embedded_database(settings, data, paths, stack)
        if not await migrations.schema_is_current(dsn):
            await migrations.migrate(dsn)
        database = await Database.open(dsn, pool_size=settings.database_pool)
        stack.push_async_callback(database.close)
        hints = Hints(dsn, clock)
        await hints.start()
        stack.push_async_callback(hints.close)
        session = client_session()
        stack.push_async_callback(session.close)
        yield Platform(
            settings=settings,
            clock=clock,
            database=database,
            hints=hints,
            objects=LocalObjects(data / "objects"),
            secrets=LocalSecrets(data / "secrets"),
            mail=_mail(settings, data, announce),
            session=session,
            paths=paths,
            alone=settings.database_url is None,
        )


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
    stop = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    async with open_platform(settings, paths, announce) as platform:
        management, orchestrator = compose(platform, make_runtime)
        if platform.alone:
            await orchestrator.agents.expire_leases()
        if isinstance(orchestrator.runtime, RunsImages):
            revisions = Revisions(platform.database, orchestrator.agents, platform.clock)
            await revisions.know(orchestrator.runtime.own_image)
        app = all_in_one_app(
            management,
            orchestrator,
            platform.database,
            url=settings.url,
            ui_dir=settings.ui_dir,
            proxies=parse_networks(settings.trusted_proxies),
        )
        await serve(app, orchestrator, listener, stop=stop, ready=lambda: ready(management, orchestrator))


def compose(platform: Platform, make_runtime: MakeRuntime | None = None) -> tuple[Management, Orchestrator]:
    """The rooms, wired, and the two services over them. Nothing runs yet."""
    settings, clock, database = platform.settings, platform.clock, platform.database
    policy = Policy(
        pause_after=settings.agent_pause_after,
        stop_after=settings.agent_stop_after,
        max_awake=settings.agent_max_awake,
        page_out_after=settings.agent_page_out_after,
        memory_bytes=settings.agent_memory,
        wake_timeout=settings.wake_timeout,
        wake_ahead=settings.agent_wake_ahead,
        snapshot_every=settings.snapshot_every,
    )
    admission = Admission(memory_for_agents(settings), clock)
    agents = Agents(database, clock, runtime=settings.runtime)
    chat = Chat(database, clock, platform.objects)
    snapshots = Snapshots(database, platform.objects, clock)
    revisions = Revisions(database, agents, clock)
    holds = Holds(agents, clock)
    folder = settings.data_dir.resolve() / "transfers"
    transfers = Transfers(snapshots, database, platform.objects, agents, holds, folder)
    ledger = Ledger(database, clock)
    gate = ArgonGate()
    accounts = Accounts.over(
        database,
        platform.secrets,
        platform.mail,
        clock,
        public_url=settings.url,
        sign_up=settings.sign_up,
        allowed=settings.sign_up_allowed,
        mfa_for_admins=settings.mfa_for_admins,
        gate=gate,
        oidc=clients_of(
            [configure(name, **given.plain()) for name, given in settings.oidc.items()],
            platform.session,
            clock,
        ),
    )
    audit = accounts.identity.audit
    vault = Vault(database, platform.secrets, audit, clock)
    group_keys = GroupKeys(database, vault.master, audit, clock)
    groups = Groups(database, audit, clock, url=accounts.identity.address.url)

    async def running_turns(user_id: UUID) -> list[RunningTurn]:
        return [
            RunningTurn(turn.id, turn.text, turn.conversation_id, turn.started_at)
            for turn in await chat.running(user_id)
        ]

    async def notice(turn_id: UUID, text: str) -> None:
        await worker.note(turn_id, text)

    key = settings.anthropic_api_key
    broker = Broker(
        keys=ModelKeys(vault, group_keys, database, clock),
        ledger=ledger,
        clock=clock,
        authenticate=agents.owner_of_token,
        running_turns=running_turns,
        notice=notice,
        platform_key=key.get_secret_value() if key else None,
        anthropic_url=settings.anthropic_url,
        turn_call_limit=settings.turn_call_limit,
        daily_token_limit=settings.daily_token_limit,
        demo_model=settings.demo_model,
        session=platform.session,
    )
    if make_runtime is None:
        runtime = runtime_of(settings, clock, platform.paths.view, broker)
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
        return AgentSpec(
            user_id=agent.user_id,
            slot=agent.slot,
            config=render_config(
                model=settings.model,
                egress=agent.egress,
                turn_timeout=int(settings.turn_timeout.total_seconds()),
            ),
            environment=gateway_environment(
                gateway_token=gateway_token, broker_token=broker_token, egress=agent.egress
            ),
            egress=agent.egress,
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
        database, clock, agents, usage_of=usage_of, explain=explain, turn_timeout=settings.turn_timeout
    )
    worker = TurnWorker(database, clock, platform.hints, reconciler, answerer)

    async def forget(user_id: UUID) -> None:
        await groups.give_up(user_id)
        if isinstance(runtime, ForgetsFiles):
            await runtime.forget(user_id)

    privacy = Privacy(
        database,
        platform.objects,
        accounts.identity,
        accounts.rates,
        clock,
        exports=exports(accounts, vault, groups, ledger, chat, snapshots, transfers),
        quiet=quiet(agents, chat),
        forget=forget,
        folder=folder,
    )
    management = Management(
        accounts=accounts,
        vault=vault,
        groups=groups,
        group_keys=group_keys,
        privacy=privacy,
        imported_vaults=ImportedVaults(database, vault, audit, clock, gate),
        trial=Trial(platform.session, settings.anthropic_url, settings.openai_url),
        ledger=ledger,
        limits=broker.limits,
    )
    orchestrator = Orchestrator(
        agents=agents,
        policy=policy,
        runtime=runtime,
        reconciler=reconciler,
        broker=broker,
        chat=chat,
        stream=EventStream(chat, database, platform.hints, clock),
        worker=worker,
        transcripts=TranscriptWriter(database, platform.objects, platform.hints),
        snapshots=snapshots,
        transfers=transfers,
        privacy=privacy,
    )
    return management, orchestrator


def prepare_folder(folder: Path) -> Path:
    """The data folder, made if need be. Raises SetupProblem where it can not be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        probe = folder / ".writable"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise SetupProblem(
            f"The data folder {folder} can not be written ({error.strerror}). "
            "Choose another with --data or OCMT_DATA_DIR, or correct its owner."
        ) from error
    return folder.resolve()


async def _embedded_database(
    settings: Settings, data: Path, paths: ReachablePaths, stack: AsyncExitStack
) -> str:
    binaries = find_binaries(settings.cache_dir)
    if binaries is None:
        raise SetupProblem("No PostgreSQL was found. Run `make setup`, or set DATABASE_URL.")
    server = EmbeddedPostgres(
        data / "postgres", binaries=binaries, view=paths.view, cache_dir=settings.cache_dir
    )
    dsn = await server.start()
    stack.push_async_callback(server.stop)
    return dsn


def _mail(settings: Settings, data: Path, announce: Announce) -> Mail:
    if settings.smtp_url is not None:
        return SmtpMail(settings.smtp_url.get_secret_value(), settings.mail_from)
    return LocalOutbox(data / "outbox", settings.mail_from, announce)
