"""The platform itself: how long its second start takes, and how much memory it needs then."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import psutil

from benchmarks.results import Result
from ocmt.testing.installation import Installation

READY_TARGET = 5.0
MEMORY_TARGET = 200.0
SETTLE = 1.0
MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Memory:
    """In MB (10^6 bytes)."""

    rss: float
    pss: float


async def measure(installation: Installation, rounds: int) -> list[Result]:
    """Start it, and again `rounds` times: the first makes the database and does not count. Leaves it on."""
    await installation.start()
    seconds: list[float] = []
    platform: list[Memory] = []
    database: list[float] = []
    for _ in range(rounds):
        await installation.stop()
        seconds.append(await installation.start())
        await asyncio.sleep(SETTLE)
        platform.append(memory_of([psutil.Process(installation.pid)]))
        database.append(memory_of(psutil.Process(installation.pid).children(recursive=True)).pss)
    started = Result(
        "second_start",
        "s",
        seconds,
        target=f"≤ {READY_TARGET:g} s to the line `ready`",
        met=max(seconds) <= READY_TARGET,
    )
    rss = [memory.rss for memory in platform]
    size = Result(
        "platform_memory",
        "MB",
        rss,
        target=f"RSS ≤ {MEMORY_TARGET:g} MB after the start",
        met=max(rss) <= MEMORY_TARGET,
        more={
            "pss": round(max(memory.pss for memory in platform), 1),
            "postgresql_pss": round(max(database), 1),
        },
    )
    return [started, size]


def memory_of(processes: list[psutil.Process]) -> Memory:
    """The memory of all of them together; one that has ended meanwhile has none."""
    rss = pss = 0
    for process in processes:
        try:
            full = process.memory_full_info()
        except psutil.NoSuchProcess:
            continue
        rss += full.rss
        pss += full.pss
    return Memory(rss / MEGABYTE, pss / MEGABYTE)
