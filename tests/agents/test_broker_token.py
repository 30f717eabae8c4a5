"""An agent's token for the broker is worth something only while the holder of its lease has it running."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from ocmt.agents.model import State
from ocmt.errors import Unavailable
from ocmt.platform.database import Database, Hints
from ocmt.runtimes.base import AgentSpec, RuntimeState
from ocmt.testing.clock import VirtualClock
from ocmt.testing.runtimes import FakeRuntime
from tests.agents.replica import Gateways, Replica, time_flies, until

pytestmark = pytest.mark.anyio


class Telling(FakeRuntime):
    """Remembers what agents were started with."""

    tokens: list[str]

    async def start(self, spec: AgentSpec, state: RuntimeState) -> RuntimeState:
        self.tokens.append(spec.environment["ANTHROPIC_API_KEY"])
        return await super().start(spec, state)


@pytest.fixture
def runtime(clock: VirtualClock, gateways: Gateways) -> Telling:
    runtime = Telling(clock, make_gateway=gateways.make)
    runtime.tokens = []
    return runtime


@pytest.fixture
async def other(clock: VirtualClock, database: Database, hints: Hints) -> AsyncIterator[Replica]:
    """Another replica, on another machine."""
    gateways = Gateways(clock)
    runtime = FakeRuntime(clock, make_gateway=gateways.make)
    other = Replica.build(
        clock=clock, database=database, hints=hints, runtime=runtime, gateways=gateways, owner="b"
    )
    yield other
    await other.reconciler.close()
    await gateways.close()


async def execute(database: Database, statement: str) -> None:
    async with database.connection() as connection:
        await connection.execute(statement)


async def test_it_works_while_the_agent_runs_and_while_it_is_held_still(
    replica: Replica, runtime: Telling, anna: UUID, database: Database
) -> None:
    await (await replica.driver(anna)).awake()
    assert await replica.agents.owner_of_token(runtime.tokens[0]) == anna
    for state in ("starting", "paused"):
        await execute(database, f"update agents set state = '{state}'")
        assert await replica.agents.owner_of_token(runtime.tokens[0]) == anna, state
    for token in ("", "x", runtime.tokens[0][:-1], runtime.tokens[0].upper()):
        assert await replica.agents.owner_of_token(token) is None
    await execute(database, "update agents set state = 'awake'")


@pytest.mark.parametrize("state", ["stopped", "failed", "stopping"])
async def test_it_is_void_in_every_state_in_which_the_agent_is_not_to_run(
    replica: Replica, runtime: Telling, anna: UUID, database: Database, state: str
) -> None:
    await (await replica.driver(anna)).awake()
    await execute(database, f"update agents set state = '{state}'")
    assert await replica.agents.owner_of_token(runtime.tokens[0]) is None
    await execute(database, "update agents set state = 'awake'")


async def test_it_is_void_after_the_stop_and_the_next_start_has_another(
    replica: Replica, runtime: Telling, anna: UUID, clock: VirtualClock
) -> None:
    await replica.agents.ask_awake(anna)
    async with replica.running(), time_flies(clock):

        async def is_(state: State) -> bool:
            return (await replica.agents.find(anna)).state is state

        await until(lambda: is_(State.AWAKE))
        await replica.agents.ask_stopped(anna)
        await until(lambda: is_(State.STOPPED))
        assert await replica.agents.owner_of_token(runtime.tokens[0]) is None
        await replica.agents.ask_awake(anna)
        await until(lambda: is_(State.AWAKE))
        first, second = runtime.tokens
        assert await replica.agents.owner_of_token(first) is None
        assert await replica.agents.owner_of_token(second) == anna


async def test_it_is_void_for_a_suspended_user(
    replica: Replica, runtime: Telling, anna: UUID, database: Database
) -> None:
    await (await replica.driver(anna)).awake()
    await execute(database, "update users set status = 'suspended'")
    assert await replica.agents.owner_of_token(runtime.tokens[0]) is None


async def test_an_expired_lease_makes_it_wait_and_a_lost_one_voids_it(
    replica: Replica, other: Replica, runtime: Telling, anna: UUID, database: Database
) -> None:
    await (await replica.driver(anna)).awake()
    (token,) = runtime.tokens
    await execute(database, "update agents set lease_expires_at = now() - interval '1 second'")
    with pytest.raises(Unavailable):
        await replica.agents.owner_of_token(token)
    assert await other.leases.take(anna)
    assert await replica.agents.owner_of_token(token) is None, "whatever the row still says of its state"
    await execute(database, "update agents set state = 'awake'")
    assert await other.agents.owner_of_token(token) is None


async def test_a_given_back_lease_voids_it(
    replica: Replica, runtime: Telling, anna: UUID, database: Database
) -> None:
    driver = await replica.driver(anna)
    await driver.awake()
    await replica.leases.release(driver.lease)
    assert await replica.agents.owner_of_token(runtime.tokens[0]) is None
