"""What comes from an agent's gateway is bounded in rate, and large frames do not hold the event loop."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from ocmt.openclaw import incoming
from ocmt.openclaw.incoming import Incoming
from ocmt.openclaw.protocol import Event, ProtocolError, Response, read_frame

pytestmark = pytest.mark.anyio


def history(messages: int, text: str) -> str:
    content = [{"role": "assistant", "content": [{"type": "text", "text": text}]} for _ in range(messages)]
    return json.dumps({"type": "res", "id": "1", "ok": True, "payload": {"messages": content}})


@pytest.mark.parametrize(
    "text",
    ["x" * 1000, '\u00e9\U0001f600\n"\\' * 200, "\ud800 half", "a\\u0041\\\\"],
    ids=["x", "é", "half", "\\"],
)
async def test_a_large_frame_says_the_same_as_a_small_one(text: str) -> None:
    small, large = history(2, text), history(2000, text)
    assert await Incoming().read(small) == read_frame(small)
    assert len(large) > 100_000
    found = await Incoming().read(large + " " * 300_000)
    assert isinstance(found, Response)
    assert found == read_frame(large)


@pytest.mark.parametrize(
    "frame",
    [
        '{"type": "event", "event": "x", "payload": ' + "[" * 5_000_000,
        '{"type": "event", "event": "x", "payload": [' + "{}," * 3_000_000 + "{}]}",
        '{"type": "event", "event": "x", "payload": {"a": "' + "x" * 1_000_000,
        "x" * 1_000_000,
        "[" + "1," * 1_000_000 + "1]",
        '{"type": "event", "event": "x", "seq": ' + "9" * 1_000_000 + "}",
    ],
    ids=["deep", "many", "no end", "nonsense", "no object", "a huge number"],
)
async def test_a_large_frame_that_makes_no_sense_ends_the_connection_and_not_the_process(frame: str) -> None:
    with pytest.raises(ProtocolError):
        await Incoming().read(frame)


async def test_a_large_frame_does_not_hold_the_event_loop() -> None:
    parts = ",".join(f'{{"k{number % 977}": [{number}, "x"]}}' for number in range(480_000))
    frame = f'{{"type": "event", "event": "x", "payload": {{"a": [{parts}]}}}}'
    assert 8_000_000 < len(frame) < 16 * 1024 * 1024
    begun = time.perf_counter()
    json.loads(frame)
    in_one_go = time.perf_counter() - begun
    longest = 0.0

    async def look() -> None:
        nonlocal longest
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            longest = max(longest, time.perf_counter() - last)
            last = time.perf_counter()

    looking = asyncio.create_task(look())
    with pytest.raises(ProtocolError, match="too many parts"):
        await Incoming().read(frame)
    looking.cancel()
    assert longest < in_one_go / 2


async def test_frames_have_a_rate_and_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(incoming, "BURST_FRAMES", 10)
    monkeypatch.setattr(incoming, "FRAMES_PER_SECOND", 1)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    reading = Incoming()
    frame = '{"type": "event", "event": "tick", "payload": {}}'
    for _ in range(10):
        assert isinstance(await reading.read(frame), Event)
    assert not slept, "what comes at a usual rate waits for nothing"
    for _ in range(3):
        await reading.read(frame)
    assert [round(seconds) for seconds in slept] == [1, 2, 3]


async def test_bytes_have_a_rate_too(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(incoming, "BURST_BYTES", 2010)
    monkeypatch.setattr(incoming, "BYTES_PER_SECOND", 1000)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    reading = Incoming()
    frame = json.dumps({"type": "event", "event": "x", "payload": {"a": "x" * 940}})
    for _ in range(3):
        await reading.read(frame)
    assert [round(seconds) for seconds in slept] == [1]
