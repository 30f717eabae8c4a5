"""Threads for calls that block: bounded, fair, cancellable, and never waited for at the end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest
import structlog

from ocmt.errors import LimitReached, Unavailable
from ocmt.platform.telemetry import REGISTRY
from ocmt.platform.work import FILES, Abandoned, DaemonExecutor, Effort, Workers, to_the_end

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


BURN = "exec('while True: pass')"


@pytest.mark.parametrize("runner", ["asyncio.run", "uvloop.run"])
@pytest.mark.parametrize(
    "work",
    [
        'asyncio.create_task(Workers("test", 1).run(time.sleep, 60))',
        f'asyncio.create_task(Workers("test", 1).run(lambda: {BURN}))',
        "asyncio.create_task(asyncio.to_thread(time.sleep, 60))",
        f"[asyncio.create_task(asyncio.to_thread(lambda: {BURN})) for _ in range(6)]",
        'asyncio.create_task(to_the_end(Workers("test", 1), time.sleep, 60))',
        f'asyncio.create_task(to_the_end(Workers("test", 1), lambda: {BURN}))',
    ],
)
def test_a_process_that_ends_waits_for_no_thread(work: str, runner: str) -> None:
    program = f"""
import asyncio, time, uvloop
from ocmt.platform import work
from ocmt.platform.work import Workers, to_the_end
work.LAST_SECONDS = 0.5
async def main():
    work.use_daemon_threads()
    task = {work}
    await asyncio.sleep(0.1)
    work.process_ends()
{runner}(main())
"""
    done = subprocess.run([sys.executable, "-c", program], timeout=30, check=False)
    assert done.returncode == 0


async def test_the_default_executor_does_what_libraries_expect_of_it() -> None:
    executor = DaemonExecutor(2)
    assert executor.submit(lambda a, b=0: a + b, 1, b=2).result(10) == 3
    with pytest.raises(ZeroDivisionError):
        executor.submit(lambda: 1 // 0).result(10)
    release = threading.Event()
    running = [executor.submit(release.wait, 10) for _ in range(2)]
    waiting = executor.submit(int)
    assert waiting.cancel()
    executor.shutdown(wait=True)
    release.set()
    assert [one.result(10) for one in running] == [True, True]


async def test_a_call_to_the_end_is_waited_for_though_its_caller_has_gone() -> None:
    workers, release, done = Workers("test", 1), threading.Event(), list[int]()

    def write() -> None:
        release.wait(10)
        done.append(1)

    task = asyncio.create_task(to_the_end(workers, write))
    while not workers.at_work():
        await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.sleep(0.05)
    assert not task.done()
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done


async def test_a_call_that_takes_long_is_counted_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocmt.platform.work.LONG_SECONDS", 0.02)
    workers, release = Workers("slowly", 1), threading.Event()
    with structlog.testing.capture_logs() as logs:
        tasks = [asyncio.create_task(workers.run(release.wait, 10, of=of)) for of in ("carol", "eve")]
        tasks[0].cancel()  # nobody waits for it any more, and yet it holds the thread
        async with asyncio.timeout(10):
            while not logs:
                await asyncio.sleep(0.005)
        assert workers.waiting() == 0
        release.set()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert [(line["pool"], line["owner"], line["log_level"]) for line in logs] == [
        ("slowly", "eve", "warning")
    ]
    assert REGISTRY.get_sample_value("ocmt_work_long_calls_total", {"pool": "slowly"}) == 1


async def test_what_runs_and_waits_is_a_metric() -> None:
    release = threading.Event()
    tasks = [asyncio.create_task(FILES.run(release.wait, 10, of="carol")) for _ in range(3)]
    while not FILES.at_work():
        await asyncio.sleep(0.001)
    pool = {"pool": "files"}
    assert REGISTRY.get_sample_value("ocmt_work_running", pool) == 1
    assert REGISTRY.get_sample_value("ocmt_work_waiting", pool) == 2
    longest = REGISTRY.get_sample_value("ocmt_work_longest_seconds", pool)
    assert longest is not None
    assert longest > 0
    release.set()
    await asyncio.gather(*tasks)


def test_work_that_takes_long_leaves_the_interpreter_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("ocmt.platform.work.time.sleep", pauses.append)
    brief = Effort(message="")
    for _ in range(1000):
        brief.spend()
    assert not pauses
    monkeypatch.setattr("ocmt.platform.work._POLITE_AFTER", -1)
    long = Effort(message="")
    for _ in range(1000):
        long.spend()
    assert pauses
