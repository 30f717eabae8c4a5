"""One replica as a process of its own, to be killed and held up: agents and turns, no pages, no broker.

`python -m tests.chaos.replica DSN FOLDER OWNER`. All intervals are a tenth of the real ones, so that a minute
of this is as ten of the real thing.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from datetime import timedelta
from pathlib import Path
from uuid import UUID

from ocmt.agents import cron, schedule
from ocmt.agents import reconciler as reconciling
from ocmt.agents.admission import Admission
from ocmt.agents.files import FileKeeper
from ocmt.agents.lifecycle import Driver
from ocmt.agents.model import Agent, Policy
from ocmt.agents.reconciler import Reconciler
from ocmt.agents.revisions.service import Revisions
from ocmt.agents.service import Agents
from ocmt.agents.snapshots.service import Snapshots
from ocmt.chat import worker as working
from ocmt.chat.answer import Answerer
from ocmt.chat.attachments import Attachments
from ocmt.chat.model import Fault
from ocmt.chat.worker import TurnWorker
from ocmt.openclaw import client as gateway_client
from ocmt.platform import telemetry
from ocmt.platform.clock import SystemClock
from ocmt.platform.database import Database, Hints
from ocmt.platform.leases import Lease, Leases
from ocmt.runtimes.base import AgentSpec
from ocmt.testing.world import WorldRuntime
from tests.chaos.troubles import TroubledObjects

LEASE = timedelta(seconds=1.5)
POLICY = Policy(
    pause_after=timedelta(seconds=0.8),
    stop_after=timedelta(seconds=3),
    wake_timeout=timedelta(seconds=12),
    max_failures=1_000,
    busy_retry=timedelta(seconds=1),
    wake_ahead=timedelta(seconds=2),
    no_stop_before=timedelta(seconds=1),
)


def hurry() -> None:
    """A tenth of every interval."""
    reconciling.HEARTBEAT_INTERVAL = 0.4
    reconciling.LEASE_MARGIN = 0.2
    reconciling.LOOK_INTERVAL = 0.2
    working.POLL_INTERVAL = 0.3
    gateway_client.RESUME_PATIENCE = 10.0
    gateway_client.RESUME_INTERVAL = 0.1
    gateway_client.LOST_CHECK_DELAY = 0.1
    schedule.HOLD_AHEAD = vars(cron)["HOLD_AHEAD"] = timedelta(seconds=3)
    schedule.OVERDUE_PATIENCE = timedelta(seconds=30)
    schedule.PAUSED_AHEAD = timedelta(seconds=0.1)
    schedule.LEAST_SLEEP = timedelta(seconds=0.5)
    cron.LOOK_INTERVAL = timedelta(seconds=0.5)
    cron.SETTLING = timedelta(seconds=1)
    cron.HOLD_TTL = timedelta(seconds=6)


def tell_where_it_is() -> None:
    """For whoever looks for what is stuck: where each task waits."""
    for task in asyncio.all_tasks():
        calls, waiting = [], task.get_coro()
        while (frame := getattr(waiting, "cr_frame", None)) is not None:
            calls.append(f"{frame.f_code.co_name}:{frame.f_lineno}")
            waiting = waiting.cr_await  # type: ignore[union-attr]
        print(task.get_name(), " > ".join(calls), waiting, file=sys.stderr)


async def run(dsn: str, place: str, owner: str) -> None:
    """Until killed."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, tell_where_it_is)
    clock = SystemClock()
    database = await Database.open(dsn, pool_size=5)
    hints = Hints(dsn, clock)
    await hints.start()
    folder = Path(place)
    runtime = await WorldRuntime.connect(folder / "world", folder / "disk")
    agents = Agents(database, clock, runtime=runtime.name)
    leases = Leases(database, table="agents", key="user_id", owner=owner, duration=LEASE)
    admission = Admission(1024**5, clock)
    objects = TroubledObjects(folder / "objects", folder / "objects-trouble")
    snapshots = Snapshots(database, objects, clock)
    starts = asyncio.Semaphore(20)

    def spec_of(agent: Agent, broker_token: str, gateway_token: str) -> AgentSpec:
        environment = {"OPENCLAW_GATEWAY_PASSWORD": gateway_token, "ANTHROPIC_API_KEY": broker_token}
        return AgentSpec(agent.user_id, agent.slot, config="{}", environment=environment)

    def driver_for(lease: Lease) -> Driver:
        return Driver(
            lease,
            agents=agents,
            runtime=runtime,
            spec_of=spec_of,
            clock=clock,
            policy=POLICY,
            admission=admission,
            files=FileKeeper(snapshots, runtime, lease),
            revisions=Revisions(database, agents, clock),
            starts=starts,
        )

    async def usage_of(user_id: UUID, turn_id: UUID) -> dict[str, int] | None:
        return None

    async def explain(user_id: UUID, turn_id: UUID) -> Fault | None:
        return None

    reconciler = Reconciler(agents, leases, driver_for, hints, clock, admission, wake_ahead=POLICY.wake_ahead)
    answerer = Answerer(
        database,
        clock,
        agents,
        usage_of=usage_of,
        explain=explain,
        turn_timeout=timedelta(seconds=60),
        attachments=Attachments(database, clock, objects),
    )
    worker = TurnWorker(database, clock, hints, reconciler, answerer)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(reconciler.run())
        tasks.create_task(worker.run())


if __name__ == "__main__":
    telemetry.configure_logging("console", "warning")
    hurry()
    asyncio.run(run(*sys.argv[1:]))
