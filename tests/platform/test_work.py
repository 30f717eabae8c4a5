"""Threads for calls that block: bounded, fair, cancellable, and never waited for at the end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time

import pytest

from ocmt.errors import LimitReached, Unavailable
from ocmt.platform.work import Abandoned, Effort, Workers

pytestmark = pytest.mark.anyio


async def test_a_call_runs_in_a_thread_and_its_result_comes_back() -> None:
    workers = Workers("test", 2)
    assert await workers.run(lambda a, b: a + b, 1, 2) == 3
    assert await workers.run(threading.current_thread) is not threading.current_thread()


async def test_an_error_reaches_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        await Workers("test", 1).run(lambda: 1 // 0)


async def test_one_owner_has_one_thread_at_a_time_and_others_go_on() -> None:
    workers, release = Workers("test", 3), threading.Event()
    running: list[int] = []

    def hold() -> None:
        running.append(1)
        release.wait(10)

    greedy = [asyncio.create_task(workers.run(hold, of="greedy")) for _ in range(5)]
    assert await asyncio.wait_for(workers.run(lambda: "quick", of="other"), 5) == "quick"
    assert len(running) == 1
    release.set()
    await asyncio.gather(*greedy)
    assert len(running) == 5


async def test_owners_take_turns() -> None:
    workers, release = Workers("test", 1), threading.Event()
    order: list[str] = []
    first = asyncio.create_task(workers.run(release.wait, 10, of="first"))
    await asyncio.sleep(0)
    many = [asyncio.create_task(workers.run(order.append, f"a{n}", of="a")) for n in range(3)]
    one = asyncio.create_task(workers.run(order.append, "b", of="b"))
    await asyncio.sleep(0)
    release.set()
    await asyncio.gather(first, *many, one)
    assert order == ["a0", "b", "a1", "a2"]


async def test_an_owner_with_too_many_calls_waiting_is_refused() -> None:
    workers, release = Workers("test", 1, waiting=2), threading.Event()
    running = asyncio.create_task(workers.run(release.wait, 10, of="a"))
    while not workers.at_work():
        await asyncio.sleep(0.001)
    waiting = [asyncio.create_task(workers.run(int, of="a")) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="at once"):
        await workers.run(int, of="a")
    release.set()
    await asyncio.gather(running, *waiting)


async def test_a_call_that_waits_never_begins_once_its_caller_has_gone() -> None:
    workers, release = Workers("test", 1), threading.Event()
    began: list[int] = []
    first = asyncio.create_task(workers.run(release.wait, 10))
    waiting = asyncio.create_task(workers.run(began.append, 1))
    await asyncio.sleep(0)
    waiting.cancel()
    release.set()
    await first
    await workers.run(int)
    assert not began


async def test_work_whose_caller_has_gone_ends_at_its_next_step() -> None:
    workers, effort, ended = Workers("test", 1), Effort(message="too much"), threading.Event()

    def for_ever() -> None:
        try:
            while True:
                effort.spend()
        except Abandoned:
            ended.set()
            raise

    task = asyncio.create_task(workers.run(for_ever, effort=effort))
    while not workers.at_work():
        await asyncio.sleep(0.001)
    task.cancel()
    assert await workers.run(ended.wait, 5)


def test_an_effort_ends_by_steps() -> None:
    effort = Effort(steps=10, message="That is too much.")
    effort.spend(10)
    with pytest.raises(LimitReached, match="too much"):
        effort.spend()


def test_an_effort_ends_by_time() -> None:
    effort = Effort(seconds=-1, message="That takes too long.")
    with pytest.raises(LimitReached, match="too long"):
        effort.spend()


def test_a_process_that_ends_waits_for_no_thread() -> None:
    program = """
import asyncio, time
from ocmt.platform.work import Workers
async def main():
    task = asyncio.create_task(Workers("test", 1).run(time.sleep, 60))
    await asyncio.sleep(0.1)
asyncio.run(main())
"""
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], timeout=30, check=False)
    assert done.returncode == 0
    assert time.monotonic() - begun < 25
