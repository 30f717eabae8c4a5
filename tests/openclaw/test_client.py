"""The client against a gateway that starts slowly, goes away, keeps silent or lies."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable
from typing import TypeVar

import pytest

from ocmt.errors import NotYet, Unavailable
from ocmt.openclaw import client as client_module
from ocmt.openclaw import streams as streams_module
from ocmt.openclaw.client import Final, GatewayClient, GatewayError
from ocmt.openclaw.history import RunOutcome
from ocmt.testing.clock import VirtualClock
from ocmt.testing.gateway import (
    RESUME_DELAY,
    Die,
    Disconnect,
    FakeGateway,
    Hold,
    Say,
    SendRaw,
    UseTool,
    Wait,
)
from ocmt.testing.gateway_wire import stream_to

pytestmark = pytest.mark.anyio

KEY = "agent:main:web:0193"
T = TypeVar("T")


@pytest.fixture
async def gateway(clock: VirtualClock) -> AsyncIterator[FakeGateway]:
    async with FakeGateway(clock) as gateway:
        yield gateway


async def connected(gateway: FakeGateway, clock: VirtualClock) -> GatewayClient:
    return await GatewayClient.connect(gateway.dial, token=gateway.token, clock=clock, timeout=10)


@pytest.fixture
async def client(gateway: FakeGateway, clock: VirtualClock) -> AsyncIterator[GatewayClient]:
    client = await connected(gateway, clock)
    yield client
    await client.close()


async def passing(clock: VirtualClock, work: Awaitable[T], step: float = 0.5) -> T:
    """The result of something that waits on the clock, while time passes."""
    task = asyncio.ensure_future(work)
    while not task.done():
        waiting = asyncio.ensure_future(clock.wait_for_sleepers())
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if not task.done():
            await clock.advance(step)
    return task.result()


class TestConnecting:
    async def test_waits_until_the_gateway_listens_and_is_ready(
        self, gateway: FakeGateway, clock: VirtualClock
    ) -> None:
        gateway.not_listening, gateway.starting = 2, 2
        steps: list[str] = []
        connecting = GatewayClient.connect(
            gateway.dial, token=gateway.token, clock=clock, timeout=30, on_step=steps.append
        )
        client = await passing(clock, connecting)
        assert gateway.dials == 5
        assert steps == ["hello"]
        assert clock.monotonic() >= 2 * 0.1 + 2 * 0.5  # as long as it was told to wait
        await client.close()

    async def test_gives_up_when_the_time_is_up(self, gateway: FakeGateway, clock: VirtualClock) -> None:
        gateway.starting = 1000
        with pytest.raises(Unavailable, match="within 10 seconds"):
            await passing(clock, connected(gateway, clock))
        assert clock.monotonic() <= 10

    async def test_a_wrong_token_is_final(self, gateway: FakeGateway, clock: VirtualClock) -> None:
        with pytest.raises(GatewayError, match="token mismatch"):
            await GatewayClient.connect(gateway.dial, token="other", clock=clock, timeout=10)
        assert gateway.dials == 1

    async def test_no_agent_is_final(self, gateway: FakeGateway, clock: VirtualClock) -> None:
        await gateway.kill()
        with pytest.raises(Unavailable, match="no agent"):
            await connected(gateway, clock)

    async def test_something_else_on_the_port_is_no_gateway(self, clock: VirtualClock) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"SSH-2.0-OpenSSH_9.6\r\n")
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()

        async def dial() -> socket.socket:
            return await stream_to(address)

        with pytest.raises(Unavailable):
            await passing(clock, GatewayClient.connect(dial, token="t", clock=clock, timeout=2))
        server.close()

    async def test_silence_at_the_hello_is_not_waited_out(
        self, gateway: FakeGateway, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(client_module, "HANDSHAKE_TIMEOUT", 0.05)
        gateway.unanswered.add("connect")
        with pytest.raises(Unavailable):
            await passing(clock, GatewayClient.connect(gateway.dial, token="t", clock=clock, timeout=0.5))


class TestRequests:
    async def test_silence_ends_in_an_error(self, gateway: FakeGateway, client: GatewayClient) -> None:
        gateway.unanswered.add("health")
        with pytest.raises(Unavailable, match="in time"):
            await client.request("health", {}, timeout=0.01)
        assert not client.closed

    async def test_a_lost_connection_ends_all_that_wait(
        self, gateway: FakeGateway, client: GatewayClient
    ) -> None:
        gateway.unanswered.add("health")
        waiting = [asyncio.ensure_future(client.request("health", {})) for _ in range(3)]
        while len(gateway.received) < 4:
            await asyncio.sleep(0)
        await gateway.disconnect()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(result, Unavailable) for result in results)
        await client.wait_closed()
        assert client.closed
        with pytest.raises(Unavailable, match="lost"):
            await client.request("health", {})

    async def test_unanswered_requests_are_limited(
        self, gateway: FakeGateway, client: GatewayClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(client_module, "MAX_PENDING", 1)
        gateway.unanswered.add("health")
        waiting = asyncio.ensure_future(client.request("health", {}))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="too many"):
            await client.request("health", {})
        waiting.cancel()

    async def test_closing_ends_it(self, client: GatewayClient) -> None:
        await client.close()
        assert client.closed


class TestRunEvents:
    async def test_end_with_the_connection(self, gateway: FakeGateway, client: GatewayClient) -> None:
        gateway.script(Say("Hel"), Disconnect(), Say("lo"))
        with client.run_events(KEY) as events:
            await client.send_chat(session_key=KEY, message="hi", idempotency_key="k")
            with pytest.raises(Unavailable, match="lost"):
                async for _ in events:
                    pass
        with client.run_events(KEY) as events, pytest.raises(Unavailable, match="lost"):
            await anext(events)

    async def test_are_those_of_the_conversation_only(
        self, gateway: FakeGateway, client: GatewayClient
    ) -> None:
        with client.run_events(KEY) as events:
            await client.send_chat(session_key=KEY + "-other", message="one", idempotency_key="k1")
            await client.send_chat(session_key=KEY, message="two", idempotency_key="k2")
            async for event in events:
                assert event.run_id == "k2"
                if isinstance(event, Final):
                    break

    @pytest.mark.parametrize("lie", ["{", b"\xff\xff", "[]", '{"type":"event"}', "x" * 1000])
    async def test_nonsense_ends_the_connection(
        self, gateway: FakeGateway, client: GatewayClient, lie: str | bytes
    ) -> None:
        gateway.script(Say("Hel"), SendRaw(lie), Hold())
        with client.run_events(KEY) as events:
            await client.send_chat(session_key=KEY, message="hi", idempotency_key="k")
            with pytest.raises(Unavailable, match="no sense"):
                async for _ in events:
                    pass
        assert client.closed

    async def test_too_large_a_frame_ends_the_connection(
        self, gateway: FakeGateway, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(client_module, "MAX_MESSAGE", 10_000)
        client = await connected(gateway, clock)
        gateway.script(Say("x" * 20_000), Hold())
        with client.run_events(KEY) as events:
            await client.send_chat(session_key=KEY, message="hi", idempotency_key="k")
            with pytest.raises(Unavailable):
                async for _ in events:
                    pass
        await client.close()

    async def test_a_slow_reader_is_told_so_and_others_go_on(
        self, gateway: FakeGateway, client: GatewayClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(streams_module, "MAX_QUEUED_EVENTS", 60)
        with client.run_events(KEY) as slow, client.run_events(KEY) as quick:
            for turn in ("k1", "k2"):
                gateway.script(*[Say("x")] * 40)
                await client.send_chat(session_key=KEY, message="hi", idempotency_key=turn)
                assert [event async for event in _until_final(quick)][-1] == Final(turn, "x" * 40)
            with pytest.raises(Unavailable, match="faster"):
                async for _ in slow:
                    pass

    async def test_a_slow_reader_does_not_have_much_text_kept_for_it(
        self, gateway: FakeGateway, client: GatewayClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(streams_module, "MAX_QUEUED_TEXT", 80_000)
        with client.run_events(KEY) as slow, client.run_events(KEY) as quick:
            for turn in ("k1", "k2"):
                gateway.script(*[Say("x" * 1000)] * 8)
                await client.send_chat(session_key=KEY, message="hi", idempotency_key=turn)
                assert [event async for event in _until_final(quick)][-1] == Final(turn, "x" * 8000)
            with pytest.raises(Unavailable, match="faster"):
                async for _ in slow:
                    pass


class TestAfterACrash:
    """`outcome`: what became of a run, when the platform or the gateway was away."""

    async def test_a_run_goes_on_without_us(
        self, gateway: FakeGateway, client: GatewayClient, clock: VirtualClock
    ) -> None:
        hold = asyncio.Event()
        gateway.script(Say("Hello"), Disconnect(), Hold(hold), Say(" you"))
        await client.send_chat(session_key=KEY, message="hi", idempotency_key="k")
        await client.wait_closed()
        again = await connected(gateway, clock)
        with again.run_events(KEY) as events:
            outcome = await again.outcome(session_key=KEY, run_id="k", message_key="k")
            assert outcome == RunOutcome("running", "k")
            hold.set()
            assert [event async for event in _until_final(events)][-1] == Final("k", "Hello you")
        outcome = await again.outcome(session_key=KEY, run_id="k", message_key="k")
        assert outcome == RunOutcome("finished", "k", "Hello you")
        await again.close()

    async def test_a_turn_that_the_gateway_died_in_is_found_under_the_run_that_resumes_it(
        self, gateway: FakeGateway, client: GatewayClient, clock: VirtualClock
    ) -> None:
        gateway.script(Say("Hello"), UseTool("exec", "Exec ls"), Die(), Wait(1), Say(" you"))
        await client.send_chat(session_key=KEY, message="hi", idempotency_key="k")
        await client.wait_closed()
        await gateway.restart()
        again = await connected(gateway, clock)
        with again.run_events(KEY) as events:
            asked = again.outcome(session_key=KEY, run_id="k", message_key="k")
            outcome = await passing(clock, asked, step=RESUME_DELAY)
            assert outcome.status == "running"
            assert outcome.run_id not in (None, "k")
            last = [event async for event in _until_final(events, clock)][-1]
        assert last == Final(str(outcome.run_id), "Hello you")
        outcome = await again.outcome(session_key=KEY, run_id="k", message_key="k")
        assert (outcome.status, outcome.text) == ("finished", "Hello you")
        assert gateway.messages() == ["hi"]
        await again.close()

    async def test_a_message_that_never_arrived_may_be_sent_again(
        self, client: GatewayClient, clock: VirtualClock
    ) -> None:
        asked = client.outcome(session_key=KEY, run_id="k", message_key="k")
        assert await passing(clock, asked) == RunOutcome("unknown")

    async def test_a_turn_that_is_never_resumed_is_given_up(
        self, gateway: FakeGateway, client: GatewayClient, clock: VirtualClock
    ) -> None:
        gateway.script(Die())
        await client.send_chat(session_key=KEY, message="hi", idempotency_key="k")
        await client.wait_closed()
        gateway._dead = False  # back, but without its recovery
        again = await connected(gateway, clock)
        asked = again.outcome(session_key=KEY, run_id="k", message_key="k")
        assert await passing(clock, asked, step=5) == RunOutcome("unknown")
        await again.close()


async def test_a_suspension_is_lifted_over_another_connection(
    gateway: FakeGateway, client: GatewayClient, clock: VirtualClock
) -> None:
    assert (await client.prepare_suspend("ocmt-1")).ready
    again = await connected(gateway, clock)
    with pytest.raises(GatewayError) as refused:
        await again.send_chat(session_key=KEY, message="hi", idempotency_key="k")
    assert (refused.value.retryable, refused.value.reason) == (True, "gateway-suspending")
    with pytest.raises(GatewayError):
        await again.prepare_suspend("ocmt-2")
    await again.resume_suspend("ocmt-1")
    assert gateway.suspension is None
    await again.close()


async def test_a_dial_that_says_not_yet_is_asked_again_when_it_said(clock: VirtualClock) -> None:
    async def dial() -> socket.socket:
        raise NotYet("not yet", retry_after=3)

    with pytest.raises(Unavailable):
        await passing(clock, GatewayClient.connect(dial, token="t", clock=clock, timeout=10))
    assert clock.monotonic() == pytest.approx(9)


async def _until_final(
    events: AsyncIterator[object], clock: VirtualClock | None = None
) -> AsyncIterator[object]:
    while True:
        event = await (anext(events) if clock is None else passing(clock, anext(events)))
        yield event
        if isinstance(event, Final):
            return
