"""All agents held still while the server's disk is almost full, in real sandboxes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import uuid4

import pytest

from ocmt.errors import DiskFull
from ocmt.runtimes.base import HoldsAll
from ocmt.runtimes.sandbox import SandboxRuntime

from .conftest import a_spec, inside

pytestmark = [pytest.mark.anyio, pytest.mark.sandbox]

WRITER = """
import threading, time
def write():
    while True:
        with open("/home/agent/workspace/log", "a") as file:
            file.write("x" * 1000)
        time.sleep(0.01)
threading.Thread(target=write, daemon=True).start()
answer = True
"""


async def grows(path: Path) -> bool:
    before = path.stat().st_size
    await asyncio.sleep(0.5)
    return path.stat().st_size > before


async def test_nobody_writes_until_there_is_room_again(runtime: SandboxRuntime) -> None:
    assert isinstance(runtime, HoldsAll)
    spec, paused = a_spec(), a_spec(slot=2)
    for one in (spec, paused):
        await runtime.start(one, {})
        await inside(runtime, one.user_id, WRITER)
    await runtime.pause(paused.user_id, {})
    log, other = (runtime._folder(one.user_id, 1).root / "workspace" / "log" for one in (spec, paused))
    assert await grows(log)
    for _ in range(2):
        await runtime.hold_all()
    assert not await grows(log)
    with pytest.raises(DiskFull):
        await runtime.dial(spec.user_id, {})
    with pytest.raises(DiskFull):
        await runtime.start(a_spec(slot=3), {})
    with pytest.raises(DiskFull):  # what a restore would write comes before a start
        await asyncio.to_thread(runtime.files(uuid4(), 4).fresh)
    await runtime.let_all_go_on()
    assert await grows(log)
    assert not await grows(other)
    await runtime.resume(paused.user_id, {})
    assert await grows(other)


async def test_one_that_was_resumed_meanwhile_is_held_by_the_next_call(runtime: SandboxRuntime) -> None:
    spec = a_spec()
    await runtime.start(spec, {})
    await inside(runtime, spec.user_id, WRITER)
    log = runtime._folder(spec.user_id, 1).root / "workspace" / "log"
    await runtime.pause(spec.user_id, {})
    await runtime.hold_all()
    await runtime.resume(spec.user_id, {})
    assert await grows(log)
    await runtime.hold_all()
    assert not await grows(log)
    await runtime.stop(spec.user_id, {}, grace=1)
    await runtime.let_all_go_on()
