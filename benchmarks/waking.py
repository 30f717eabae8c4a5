"""Waking an agent that is stopped, beside a bare gateway that is started; and what a stopped agent leaves."""

from __future__ import annotations

import time
from statistics import median
from uuid import uuid4

import psutil

from benchmarks.bare import BareGateway
from benchmarks.person import MESSAGE, Timekeeper
from benchmarks.results import Result
from benchmarks.starting import memory_of
from ocmt.testing.installation import Installation, Person

RATIO_TARGET = 1.15
PROGRESS_TARGET = 200.0
PEER = "the bare gateway: spawn → hello → chat.send → first delta"


async def measure(
    installation: Installation, person: Person, timekeeper: Timekeeper, bare: BareGateway, rounds: int
) -> list[Result]:
    """Turn and turn about, after one start of each that fills the state folders and compile caches."""
    await _wake(person, timekeeper)
    await _start(bare)
    ours: list[float] = []
    theirs: list[float] = []
    progress: list[float] = []
    left: list[float] = []
    left_memory: list[float] = []
    for number in range(rounds):
        first, shown = await _wake(person, timekeeper)
        ours.append(first)
        progress.append(1000 * shown)
        asleep = _agent_processes(installation)
        left.append(len(asleep))
        left_memory.append(memory_of(asleep).pss)
        theirs.append(await _start(bare))
        print(f"  wake {number + 1}: {first:.2f} s, bare {theirs[-1]:.2f} s, progress {progress[-1]:.0f} ms")
    ratio = median(ours) / median(theirs)
    return [
        Result(
            "wake_from_stopped",
            "s",
            ours,
            target=f"ratio ≤ {RATIO_TARGET}",
            met=ratio <= RATIO_TARGET,
            peer=PEER,
            peer_samples=theirs,
            more={"samples": _rounded(ours), "peer_samples": _rounded(theirs)},
        ),
        Result(
            "first_progress",
            "ms",
            progress,
            target=f"≤ {PROGRESS_TARGET:g} ms",
            met=max(progress) <= PROGRESS_TARGET,
        ),
        Result("sleeping_agent_processes", "processes", left, target="none", met=not any(left)),
        Result("sleeping_agent_memory", "MB", left_memory, target="none", met=not any(left_memory)),
    ]


async def _wake(person: Person, timekeeper: Timekeeper) -> tuple[float, float]:
    """Seconds to the first piece of the answer and to the first line of progress; stopped again after it."""
    timed = await timekeeper.ask()
    assert timed.progress is not None, "the agent was not stopped"
    await person.call("POST", "/agent/hibernate")
    await person.wait_for_state("stopped")
    return timed.first, timed.progress


async def _start(bare: BareGateway) -> float:
    """The same with the bare gateway."""
    began = time.monotonic()
    await bare.start()
    to_hello = time.monotonic() - began
    answered = await bare.ask(str(uuid4()), MESSAGE)
    await bare.stop()
    return to_hello + answered.first


def _agent_processes(installation: Installation) -> list[psutil.Process]:
    """What runs below the platform beside PostgreSQL."""
    below = psutil.Process(installation.pid).children(recursive=True)
    return [process for process in below if process.is_running() and process.name() != "postgres"]


def _rounded(samples: list[float]) -> list[float]:
    return [round(sample, 2) for sample in samples]
