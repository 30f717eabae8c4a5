"""Waking an agent that is stopped, beside a bare gateway that is started; and what a stopped agent leaves."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from statistics import median
from uuid import uuid4

import psutil

from benchmarks.bare import BareGateway
from benchmarks.person import MESSAGE, Timekeeper
from benchmarks.results import Result
from benchmarks.starting import memory_of
from ocmt.testing.installation import Installation, Person

RATIO_TARGET = 1.10
PROGRESS_TARGET = 200.0
PEER = "the bare gateway: spawn → hello → chat.send → first delta"


@dataclass(frozen=True)
class Start:
    """One start from nothing, by either side."""

    first: float
    """Seconds from the message (or the spawn) to the first piece of the answer."""
    processor: float
    """Seconds of processor time that OpenClaw and its helpers used: what others do hardly changes it."""
    progress: float = 0.0
    """Seconds to the first line of progress."""


async def measure(
    installation: Installation, person: Person, timekeeper: Timekeeper, bare: BareGateway, rounds: int
) -> list[Result]:
    """Turn and turn about, after one start of each that fills the state folders and compile caches."""
    await _wake(installation, person, timekeeper)
    await _start(bare)
    woken: list[Start] = []
    started: list[Start] = []
    left: list[float] = []
    left_memory: list[float] = []
    for number in range(rounds):
        woken.append(await _wake(installation, person, timekeeper))
        asleep = agent_processes(installation)
        left.append(len(asleep))
        left_memory.append(memory_of(asleep).pss)
        started.append(await _start(bare))
        print(f"  wake {number + 1}: {woken[-1].first:.2f} s, bare {started[-1].first:.2f} s")
    ours = [start.first for start in woken]
    theirs = [start.first for start in started]
    progress = [1000 * start.progress for start in woken]
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
            more={
                "samples": _rounded(ours),
                "peer_samples": _rounded(theirs),
                "processor_seconds": round(median(start.processor for start in woken), 2),
                "peerprocessor_seconds": round(median(start.processor for start in started), 2),
            },
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


async def _wake(installation: Installation, person: Person, timekeeper: Timekeeper) -> Start:
    """Wake the agent by a message; it is stopped again afterwards."""
    timed = await timekeeper.ask()
    assert timed.progress is not None, "the agent was not stopped"
    processor = processor_seconds(agent_processes(installation))
    await person.call("POST", "/agent/hibernate")
    await person.wait_for_state("stopped")
    return Start(timed.first, processor, timed.progress)


async def _start(bare: BareGateway) -> Start:
    """The same with the bare gateway."""
    began = time.monotonic()
    await bare.start()
    to_hello = time.monotonic() - began
    answered = await bare.ask(str(uuid4()), MESSAGE)
    gateway = psutil.Process(bare.pid)
    processor = processor_seconds([gateway, *gateway.children(recursive=True)])
    await bare.stop()
    return Start(to_hello + answered.first, processor)


def processor_seconds(processes: list[psutil.Process]) -> float:
    """What they have used, and those of their children that have ended."""
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:4])
    return total


def agent_processes(installation: Installation) -> list[psutil.Process]:
    """What runs below the platform beside PostgreSQL: the agents' sandboxes."""
    below = psutil.Process(installation.pid).children(recursive=True)
    return [process for process in below if process.is_running() and process.name() != "postgres"]


def _rounded(samples: list[float]) -> list[float]:
    return [round(sample, 2) for sample in samples]
