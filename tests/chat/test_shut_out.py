"""What becomes of an agent and of its work when its user is shut out."""

from __future__ import annotations

from uuid import UUID

import pytest

from ocmt.agents.model import State
from ocmt.agents.service import shut_out
from ocmt.chat.model import TurnStatus
from ocmt.platform.database import Database
from ocmt.testing.clock import VirtualClock
from ocmt.testing.gateway import Hold, Say
from ocmt.testing.misbehaving import NeverRuntime
from tests.agents.replica import Gateways, until
from tests.chat.conftest import BuildOffice, Office

pytestmark = pytest.mark.anyio


async def suspend(database: Database, user_id: UUID, status: str = "suspended") -> None:
    """As identity does it, in one transaction."""
    async with database.transaction() as connection:
        await connection.execute("update users set status = $2 where id = $1", user_id, status)
        await shut_out(connection, user_id)


async def stopped(office: Office, user_id: UUID) -> None:
    async def at_rest() -> bool:
        return (await office.replica.agents.find(user_id)).state is State.STOPPED

    await until(at_rest)
    assert (await office.replica.runtime.observe(user_id, {})).phase == "absent"


@pytest.mark.parametrize("status", ["suspended", "deleting", "pending"])
async def test_the_running_turn_ends_with_words_and_the_agent_at_once(
    office: Office, anna: UUID, gateways: Gateways, database: Database, status: str
) -> None:
    gateways.of(anna).script(Say("Once upon a time"), Hold())
    turn = await office.post(anna, "tell me a story")
    await office.seen(turn, "turn.delta")
    behind = await office.post(anna, "and another", turn.conversation_id)
    await suspend(database, anna, status)
    await stopped(office, anna)
    for each in (turn, behind):
        ended = await office.ended(each)
        assert ended.status is TurnStatus.FAILED
        assert ended.error is not None
        assert "may not use its agent" in ended.error["message"]


async def test_no_hold_no_restart_and_no_busy_gateway_keeps_it(
    office: Office, anna: UUID, gateways: Gateways, database: Database
) -> None:
    agents = office.replica.agents
    driver = await office.replica.driver(anna)
    await driver.awake()
    gateways.of(anna).busy = ["1 pending approval"]
    for reason in ("socket", "cron", "operator", "transfer"):
        await agents.hold(anna, reason, "for ever", ttl=office.replica.policy.max_awake)
    await suspend(database, anna)
    await stopped(office, anna)
    starts = office.replica.starts()
    # Whatever asks for it afterwards, a webhook, a job, a socket, an operator, starts nothing.
    await agents.ask_awake(anna)
    await agents.ask_restart(anna)
    await agents.hold(anna, "delivery", "d", ttl=office.replica.policy.max_awake)
    turn = await office.post(anna, "hello?")
    assert (await office.ended(turn)).status is TurnStatus.FAILED
    await office.replica.clock.sleep(30)
    assert office.replica.starts() == starts
    assert (await agents.find(anna)).state is State.STOPPED


async def test_a_paused_agent_is_ended_too(office: Office, anna: UUID, database: Database) -> None:
    await (await office.replica.driver(anna)).awake()

    async def paused() -> bool:
        return (await office.replica.agents.find(anna)).state is State.PAUSED

    await office.replica.clock.sleep(6 * 60)
    await until(paused)
    await suspend(database, anna)
    await stopped(office, anna)


async def test_a_start_that_is_under_way_is_given_up(
    build_office: BuildOffice, anna: UUID, clock: VirtualClock, gateways: Gateways, database: Database
) -> None:
    office = build_office(runtime=NeverRuntime(clock, make_gateway=gateways.make))
    async with office.open():
        turn = await office.post(anna, "hello")
        await office.seen(turn, "agent.progress")
        began = clock.monotonic()
        await suspend(database, anna)
        ended = await office.ended(turn)
        assert ended.status is TurnStatus.FAILED
        assert clock.monotonic() - began < 60, "not only at the end of the time for a start"
        await stopped(office, anna)


async def test_its_token_is_void_in_the_same_transaction(
    office: Office, anna: UUID, database: Database, gateways: Gateways
) -> None:
    await (await office.replica.driver(anna)).awake()
    row = await office.replica.row(anna)
    await suspend(database, anna)
    assert (await office.replica.row(anna))["broker_token_hash"] != row["broker_token_hash"]


async def test_whoever_is_let_in_again_has_an_agent_again(
    office: Office, anna: UUID, database: Database, gateways: Gateways
) -> None:
    await (await office.replica.driver(anna)).awake()
    await suspend(database, anna)
    await stopped(office, anna)
    async with database.connection() as connection:
        await connection.execute("update users set status = 'active' where id = $1", anna)
    gateways.of(anna).script(Say("Hello"))
    turn = await office.post(anna, "hello")
    assert (await office.ended(turn)).status is TurnStatus.COMPLETED
