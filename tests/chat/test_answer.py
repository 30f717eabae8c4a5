"""An accepted message is answered once, or ends with an error that says why, whatever dies in between."""

from datetime import timedelta
from uuid import UUID

import pytest

from ocmt.chat.model import MAX_ATTEMPTS, Event, Fault, TurnStatus
from ocmt.platform.database import Database
from ocmt.runtimes.base import AgentSpec
from ocmt.testing.clock import VirtualClock
from ocmt.testing.gateway import Die, Disconnect, Fail, FakeGateway, Hold, Retract, Say, UseTool, Wait
from ocmt.testing.misbehaving import DiesMidTurn, FlakyRuntime, NeverRuntime
from ocmt.testing.runtimes import FakeRuntime, MakeGateway
from tests.agents.replica import Gateways, until
from tests.chat.conftest import BuildOffice, Office

pytestmark = pytest.mark.anyio


def shown(events: list[Event]) -> str:
    """The answer as the screen shows it in the end, from the pieces alone."""
    text = ""
    for event in events:
        if event.type == "turn.accepted" or event.data.get("replace"):
            text = ""
        if event.type == "turn.delta":
            text += event.data["text"]
    return text


def types(events: list[Event]) -> list[str]:
    """Without progress, and with neighbouring pieces as one."""
    kinds = [event.type.value for event in events if event.type != "agent.progress"]
    return [kind for place, kind in enumerate(kinds) if place == 0 or kind != kinds[place - 1]]


# Streaming


async def test_an_answer_streams_in_batches_and_complete(
    office: Office, anna: UUID, gateways: Gateways
) -> None:
    pieces = [f"{number} " for number in range(300)]
    gateways.of(anna).script(*map(Say, pieces))
    turn = await office.ended(await office.post(anna, "count"))
    events = await office.events(turn)
    assert types(events) == ["turn.accepted", "turn.started", "turn.delta", "turn.completed"]
    assert shown(events) == turn.answer == "".join(pieces)
    assert sum(event.type == "turn.delta" for event in events) < 100
    assert events[-1].data == {"message": turn.answer, "usage": {"calls": 1}}
    assert turn.status is TurnStatus.COMPLETED


async def test_the_first_piece_is_on_its_way_at_once(office: Office, anna: UUID, gateways: Gateways) -> None:
    hold = Hold()
    gateways.of(anna).script(Say("At"), hold, Say(" last"))
    turn = await office.post(anna, "hello")
    await office.seen(turn, "turn.delta", lambda event: event.data["text"] == "At")
    hold.until.set()
    assert (await office.ended(turn)).answer == "At last"


async def test_tools_and_a_model_call_that_was_repeated_are_shown_as_they_were(
    office: Office, anna: UUID, gateways: Gateways
) -> None:
    gateways.of(anna).script(
        Say("No, wai"), Retract(), UseTool("write", "Write to hello.txt"), Say("I wrote it.")
    )
    turn = await office.ended(await office.post(anna, "write hello.txt"))
    events = await office.events(turn)
    assert shown(events) == turn.answer == "I wrote it."
    phases = [(event.data["name"], event.data["phase"]) for event in events if event.type == "turn.tool"]
    assert phases == [("write", "start"), ("write", "result")]


async def test_what_no_database_takes_does_not_break_an_answer(
    office: Office, anna: UUID, gateways: Gateways
) -> None:
    gateways.of(anna).script(Say("zero \x00 byte, "), Say("half \ud83d character"))
    turn = await office.ended(await office.post(anna, "say something strange"))
    assert turn.status is TurnStatus.COMPLETED
    assert turn.answer == "zero \ufffd byte, half \ufffd character"


# One after the other, and beside each other


async def test_a_conversation_is_answered_in_order_and_others_beside_it(
    office: Office, anna: UUID, gateways: Gateways
) -> None:
    hold = Hold()
    gateways.of(anna).script(hold, Say("one"))
    first = await office.post(anna, "first")
    await office.seen(first, "turn.started")
    await until(lambda: gateways.of(anna).messages() == ["first"])
    second = await office.post(anna, "second", first.conversation_id)
    beside = await office.post(anna, "beside")
    assert (await office.ended(beside)).answer == "You said: beside"
    assert (await office.turn(second)).status is TurnStatus.ACCEPTED
    hold.until.set()
    assert (await office.ended(first)).answer == "one"
    assert (await office.ended(second)).answer == "You said: second"
    assert gateways.of(anna).messages() == ["first", "beside", "second"]


# Stopping


async def test_a_message_can_be_stopped_before_the_agent_is_awake(
    build_office: BuildOffice, anna: UUID, clock: VirtualClock, gateways: Gateways
) -> None:
    office = build_office(runtime=NeverRuntime(clock, make_gateway=gateways.make))
    async with office.open():
        turn = await office.post(anna, "hello")
        await office.seen(turn, "agent.progress")
        await office.chat.stop(anna, turn.id)
        assert (await office.ended(turn)).status is TurnStatus.STOPPED
    assert gateways.of(anna).messages() == []


async def test_an_answer_can_be_stopped_in_the_middle(office: Office, anna: UUID, gateways: Gateways) -> None:
    gateways.of(anna).script(Say("Once upon a time"), Hold())
    turn = await office.post(anna, "tell me a story")
    await office.seen(turn, "turn.delta")
    await office.chat.stop(anna, turn.id)
    assert (await office.ended(turn)).status is TurnStatus.STOPPED
    assert types(await office.events(turn))[-1] == "turn.stopped"
    assert any(method == "chat.abort" for method, _ in gateways.of(anna).received)


async def test_an_agent_that_never_stops_talking_is_stopped(
    office: Office, anna: UUID, gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ocmt.chat.answer.MAX_ANSWER", 100)
    gateways.of(anna).script(Say("x" * 60), Say("y" * 60), Hold())
    turn = await office.ended(await office.post(anna, "talk"))
    assert turn.error is not None
    assert (turn.status, turn.error["code"]) == (TurnStatus.FAILED, "answer_too_long")
    assert any(method == "chat.abort" for method, _ in gateways.of(anna).received)


async def test_an_agent_that_works_too_long_is_stopped(
    build_office: BuildOffice, anna: UUID, gateways: Gateways
) -> None:
    """This deadline is real time."""
    office = build_office(turn_timeout=timedelta(seconds=0.2))
    gateways.of(anna).script(Hold())
    async with office.open():
        turn = await office.ended(await office.post(anna, "think hard"))
    assert turn.error is not None
    assert (turn.status, turn.error["code"]) == (TurnStatus.FAILED, "turn_timeout")
    assert any(method == "chat.abort" for method, _ in gateways.of(anna).received)


# Failing


async def test_an_agent_that_does_not_start_is_an_error_that_can_be_retried(
    build_office: BuildOffice, anna: UUID, clock: VirtualClock, gateways: Gateways
) -> None:
    office = build_office(runtime=FlakyRuntime(clock, failures=5, make_gateway=gateways.make))
    async with office.open():
        turn = await office.ended(await office.post(anna, "hello"))
        assert turn.error == {
            "code": "agent_failed",
            "message": "The agent's sandbox did not start.",
            "retryable": True,
        }
        assert (await office.events(turn))[-1].type == "turn.failed"
        again = await office.ended(await office.chat.retry(anna, turn.id))
        assert (again.status, again.attempt) == (TurnStatus.COMPLETED, 2)


async def test_the_brokers_word_for_a_failure_is_better_than_openclaws(
    office: Office, anna: UUID, gateways: Gateways
) -> None:
    gateways.of(anna).script(Fail())
    office.fault.append(Fault("provider_key_refused", "Anthropic does not accept your key.", retryable=False))
    turn = await office.ended(await office.post(anna, "hello"))
    assert turn.error == office.fault[0].as_data()


async def test_without_such_a_word_openclaws_own_is_passed_on(
    office: Office, anna: UUID, gateways: Gateways
) -> None:
    gateways.of(anna).script(Fail("context window exceeded"))
    turn = await office.ended(await office.post(anna, "hello"))
    assert turn.error is not None
    assert turn.error["message"] == "Your agent could not answer: context window exceeded"


# Dying


async def test_an_answer_that_was_finished_meanwhile_is_fetched_and_not_asked_for_again(
    office: Office, anna: UUID, gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Only the connection breaks; the agent itself is not stopped with it, as by a fault of the platform's.
    async def lives_on(*_: object, **__: object) -> dict[str, object]:
        return {}

    gateways.of(anna).script(Say("All of "), Disconnect(), Say("it."))
    monkeypatch.setattr(office.replica.runtime, "stop", lives_on)
    turn = await office.ended(await office.post(anna, "hello"))
    assert (turn.status, turn.answer) == (TurnStatus.COMPLETED, "All of it.")
    assert gateways.of(anna).messages() == ["hello"]


@pytest.mark.parametrize("fault", [Die(), Disconnect()], ids=["dies", "hangs up"])
async def test_a_turn_whose_gateway_was_lost_is_taken_up_again_and_sent_only_once(
    office: Office, anna: UUID, gateways: Gateways, fault: Die | Disconnect
) -> None:
    gateways.of(anna).script(Say("Half "), fault, Wait(60), Say("and whole."))
    turn = await office.ended(await office.post(anna, "hello"))
    assert (turn.status, turn.answer, turn.attempt) == (TurnStatus.COMPLETED, "Half and whole.", 2)
    assert shown(await office.events(turn)) == turn.answer
    assert gateways.of(anna).messages() == ["hello"], "OpenClaw itself goes on with it"


class Forgetful(FakeGateway):
    """Loses its conversations when it dies."""

    async def kill(self) -> None:
        await super().kill()
        self._sessions.clear()


@pytest.fixture
def forgetful(gateways: Gateways, anna: UUID, clock: VirtualClock) -> FakeGateway:
    gateways._gateways[anna] = Forgetful(clock)
    return gateways.of(anna)


async def test_a_message_that_the_gateway_has_lost_is_sent_once_more(
    office: Office, anna: UUID, forgetful: FakeGateway
) -> None:
    forgetful.script(Say("Half "), Die())
    turn = await office.ended(await office.post(anna, "hello"))
    assert (turn.answer, turn.attempt) == ("You said: hello", 2)
    assert forgetful.messages() == ["hello", "hello"]
    keys = [params["idempotencyKey"] for method, params in forgetful.received if method == "chat.send"]
    assert keys == [f"{turn.id}:1", f"{turn.id}:2"]


async def test_a_message_that_kills_every_gateway_is_given_up(
    office: Office, anna: UUID, forgetful: FakeGateway
) -> None:
    for _ in range(MAX_ATTEMPTS + 2):
        forgetful.script(Die())
    turn = await office.ended(await office.post(anna, "drop dead"))
    assert turn.error is not None
    assert (turn.status, turn.error["code"]) == (TurnStatus.FAILED, "agent_crashed")
    assert turn.error["retryable"] is True
    assert len(forgetful.messages()) == MAX_ATTEMPTS


@pytest.mark.parametrize("remembers", [True, False], ids=["goes on with it", "has lost it"])
async def test_a_turn_survives_the_death_of_the_platform(
    build_office: BuildOffice,
    anna: UUID,
    database: Database,
    clock: VirtualClock,
    gateways: Gateways,
    runtime: FakeRuntime,
    remembers: bool,
) -> None:
    if not remembers:
        gateways._gateways[anna] = Forgetful(clock)
    first = build_office(owner="first")
    gateways.of(anna).script(Say("Half "), Wait(60), Say("and whole."))
    async with first.open():
        turn = await first.post(anna, "hello")
        await first.seen(turn, "turn.delta")
        await first.die()
        await gateways.of(anna).kill()  # the sandbox dies with its parent
        async with database.connection() as connection:
            await connection.execute("update agents set lease_expires_at = now() - interval '1 second'")
        second = build_office(owner="second", runtime=FakeRuntime(clock, make_gateway=runtime_of(gateways)))
        async with second.open():
            turn = await second.ended(turn)
            events = await second.events(turn)
    assert (turn.status, turn.attempt) == (TurnStatus.COMPLETED, 2)
    assert turn.answer == ("Half and whole." if remembers else "You said: hello")
    assert shown(events) == turn.answer
    assert len(gateways.of(anna).messages()) == (1 if remembers else 2)
    assert types(events).count("turn.completed") == 1


def runtime_of(gateways: Gateways) -> MakeGateway:
    """A new process's way to the gateways that have run before."""

    async def make(spec: AgentSpec) -> FakeGateway:
        gateway = gateways.of(spec.user_id)
        await gateway.restart()
        return gateway

    return make


async def test_stopped_while_it_was_interrupted_it_does_not_go_on_in_secret(
    office: Office, anna: UUID, gateways: Gateways
) -> None:
    gateway = gateways.of(anna)
    gateway.script(Say("Half "), Wait(600))
    turn = await office.post(anna, "hello")
    await office.seen(turn, "turn.delta")
    await gateway.kill()
    await office.chat.stop(anna, turn.id)
    assert (await office.ended(turn)).status is TurnStatus.STOPPED
    assert not any(session.run for session in gateway._sessions.values())


async def test_who_lost_the_lease_writes_nothing_more(
    office: Office, anna: UUID, database: Database, gateways: Gateways
) -> None:
    hold = Hold()
    gateways.of(anna).script(Say("one"), hold, Say("two"))
    turn = await office.post(anna, "count")
    await office.seen(turn, "turn.delta")
    async with database.connection() as connection:
        await connection.execute(
            "update agents set lease_owner = 'somebody', lease_token = lease_token + 1, "
            "lease_expires_at = now() + interval '1 hour'"
        )
    before = await office.events(turn)
    hold.until.set()

    async def ended() -> bool:
        return (await office.replica.runtime.observe(anna, {})).phase == "absent"

    await until(ended)
    assert await office.events(turn) == before
    assert (await office.turn(turn)).status is TurnStatus.RUNNING, "it is another replica's to end"


@pytest.mark.parametrize(("deaths", "status"), [(1, TurnStatus.COMPLETED), (99, TurnStatus.FAILED)])
async def test_an_agent_that_dies_mid_turn_ends_the_turn_once_whatever_happens(
    build_office: BuildOffice,
    clock: VirtualClock,
    anna: UUID,
    gateways: Gateways,
    deaths: int,
    status: TurnStatus,
) -> None:
    office = build_office(runtime=DiesMidTurn(clock, times=deaths, make_gateway=gateways.make))
    async with office.open():
        turn = await office.ended(await office.post(anna, "hello"))
        events = await office.events(turn)
    assert turn.status is status
    assert [kind for kind in types(events) if kind in ("turn.completed", "turn.failed")] == [f"turn.{status}"]
