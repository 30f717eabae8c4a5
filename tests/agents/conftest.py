"""A replica on a real database, with well-behaved doubles."""

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest

from ocmt.platform.database import Database, Hints
from ocmt.testing.clock import VirtualClock
from ocmt.testing.runtimes import FakeRuntime
from tests.accounts import make_user
from tests.agents.replica import Gateways, Replica
from tests.agents.snapshots.snapshotting import Bench


@pytest.fixture
async def anna(database: Database) -> UUID:
    return await make_user(database, "anna@example.org")


@pytest.fixture
async def hints(dsn: str, clock: VirtualClock) -> AsyncIterator[Hints]:
    hints = Hints(dsn, clock)
    await hints.start()
    yield hints
    await hints.close()


@pytest.fixture
async def gateways(clock: VirtualClock) -> AsyncIterator[Gateways]:
    gateways = Gateways(clock)
    yield gateways
    await gateways.close()


@pytest.fixture
def runtime(clock: VirtualClock, gateways: Gateways) -> FakeRuntime:
    return FakeRuntime(clock, make_gateway=gateways.make)


@pytest.fixture
async def replica(
    clock: VirtualClock, database: Database, hints: Hints, runtime: FakeRuntime, gateways: Gateways
) -> AsyncIterator[Replica]:
    replica = Replica.build(clock=clock, database=database, hints=hints, runtime=runtime, gateways=gateways)
    yield replica
    await replica.reconciler.close()


@pytest.fixture
async def bench(anna: UUID, database: Database, clock: VirtualClock, tmp_path: Path) -> Bench:
    return await Bench.make(anna, database, clock, tmp_path / "agents" / str(anna))
