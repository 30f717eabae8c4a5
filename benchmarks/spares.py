"""Wakes from a warm spare through the whole platform, beside a bare gateway that is started.

An installation of its own, whose one spare is waited for before each wake. The first start records what
OpenClaw loads, which takes as long as two starts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from uuid import uuid4

from benchmarks.bare import BareGateway
from benchmarks.person import MESSAGE, Timed, Timekeeper
from benchmarks.results import Result
from benchmarks.starting import memory_of
from benchmarks.waking import agent_processes
from ocmt.testing.installation import Installation, Person

HELLO_TARGET = 0.5
READY_WITHIN = 300.0
POLL = 0.5
SETTLE = 3.0
"""Seconds between a spare that is ready and the wake."""


async def measure(
    folder: Path, environment: Mapping[str, str], bare: BareGateway, rounds: int
) -> list[Result]:
    """Turn and turn about, after one start of each that fills the state folders and compile caches."""
    installation = Installation(folder, {**environment, "OCMT_WARM_SPARES": "1"})
    woken: list[Timed] = []
    hellos: list[float] = []
    firsts: list[float] = []
    waiting: list[float] = []
    try:
        await installation.start()
        async with bare, Person(installation.url) as person:
            await person.sign_in(installation.link)
            async with Timekeeper(person, await person.conversation()) as timekeeper:
                for number in range(1 + rounds):
                    await _until_ready(installation, 1 + number)
                    spare = memory_of(agent_processes(installation)).pss
                    timed = await timekeeper.ask()
                    await person.call("POST", "/agent/hibernate")
                    await person.wait_for_state("stopped")
                    began = time.monotonic()
                    await bare.start()
                    hello = time.monotonic() - began
                    first = hello + (await bare.ask(str(uuid4()), MESSAGE)).first
                    await bare.stop()
                    print(f"  spare {number}: {timed.started:.2f} s to hello, bare {hello:.2f} s")
                    if number:
                        woken.append(timed)
                        hellos.append(hello)
                        firsts.append(first)
                        waiting.append(spare)
        assert not _lines(installation, "warm_spare_of_no_use"), "a wake did not come from its spare"
    finally:
        await installation.stop()
    started = [timed.started for timed in woken]
    return [
        Result(
            "spare_wake_to_hello",
            "s",
            started,
            target=f"ratio ≤ {HELLO_TARGET}",
            met=median(started) / median(hellos) <= HELLO_TARGET,
            peer="the bare gateway: spawn → hello (ours: message sent → the agent has it)",
            peer_samples=hellos,
        ),
        Result(
            "spare_wake_to_first",
            "s",
            [timed.first for timed in woken],
            target="none asked for",
            met=True,
            peer="the bare gateway: spawn → hello → chat.send → first delta",
            peer_samples=firsts,
        ),
        Result("spare_memory", "MB", waiting, target="none asked for", met=True),
    ]


async def _until_ready(installation: Installation, spares: int) -> None:
    """Return once so many spares have been made."""
    async with asyncio.timeout(READY_WITHIN):
        while _lines(installation, "warm_spare_ready") < spares:
            await asyncio.sleep(POLL)
    await asyncio.sleep(SETTLE)


def _lines(installation: Installation, event: str) -> int:
    return sum(event in line for line in installation.output)
