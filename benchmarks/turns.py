"""Turns of an agent that is awake, beside a direct client of a bare gateway; and after a pause of 5 s."""

from __future__ import annotations

import asyncio
import time
from statistics import median, quantiles
from uuid import uuid4

from benchmarks.bare import BareGateway
from benchmarks.model import StopwatchModel
from benchmarks.person import MESSAGE, Timed, Timekeeper
from benchmarks.results import Result
from benchmarks.starting import memory_of
from benchmarks.waking import agent_processes
from ocmt.runtimes.paging import swapped
from ocmt.testing.installation import Installation, Person

OVERHEAD_TARGET = 25.0
PAUSE_TARGET = 50.0
PAUSE = 5.0
PAGED_MEMORY_TARGET = 64.0
PAGED_FIRST_TARGET = 1.0
PAGED_GAP = 75.0
"""Seconds from one turn's end to the next's message."""
WARM_UP = 5
PAUSES, STAYS_AWAKE = "free", "awake"
"""Plans: the one that a user has, and one for the peer."""
SETTLE = 0.3
"""Seconds between two turns: what a gateway does after one must not slow down the other side's next."""
PARTS = ("accepted", "before_model", "after_model", "peer_before_model", "peer_after_model")
"""Of a turn: message → 202; message → the model is called; the model's answer is written → the turn's end."""


async def measure_overhead(
    timekeeper: Timekeeper, bare: BareGateway, model: StopwatchModel, rounds: int
) -> Result:
    """Whole turns, turn and turn about. Both gateways run; the agent's is left awake."""
    await asyncio.gather(timekeeper.ask(), bare.start())
    session = str(uuid4())
    ours: list[float] = []
    theirs: list[float] = []
    parts: dict[str, list[float]] = {name: [] for name in PARTS}
    for number in range(WARM_UP + rounds):
        began = time.monotonic()
        timed = await timekeeper.ask()
        before, after = model.asked_at - began, began + timed.whole - model.answered_at
        await asyncio.sleep(SETTLE)
        began = time.monotonic()
        answered = await bare.ask(session, MESSAGE)
        await asyncio.sleep(SETTLE)
        if number >= WARM_UP:
            ours.append(1000 * timed.whole)
            theirs.append(1000 * answered.whole)
            bare_before, bare_after = model.asked_at - began, began + answered.whole - model.answered_at
            spans = (timed.accepted, before, after, bare_before, bare_after)
            for name, span in zip(PARTS, spans, strict=True):
                parts[name].append(1000 * span)
    await bare.stop()
    more = {name: round(median(spans), 1) for name, spans in parts.items()}
    return Result(
        "turn_overhead",
        "ms",
        ours,
        target=f"p50 at most {OVERHEAD_TARGET:g} ms more",
        met=median(ours) - median(theirs) <= OVERHEAD_TARGET,
        peer="a direct client of the bare gateway: chat.send → final",
        peer_samples=theirs,
        more=more
        | {"p90": round(quantiles(ours, n=10)[-1], 1), "peer_p90": round(quantiles(theirs, n=10)[-1], 1)},
    )


async def measure_pause(
    installation: Installation, person: Person, timekeeper: Timekeeper, rounds: int
) -> Result:
    """A turn that finds its agent paused for 5 s, then one that finds it awake after as long, and so on.

    As long, because every 60 s OpenClaw ends a thread that its next turn must start again: a peer right
    behind the other turn would hardly ever pay for that, and the turn after a pause each time.
    """
    email = str((await person.call("GET", "/api/v1/me"))["email"])
    await installation.command("plans", "set", STAYS_AWAKE, "--pause-after", "1h")
    for _ in range(WARM_UP):
        await timekeeper.ask()
    paused: list[Timed] = []
    awake: list[Timed] = []
    for number in range(rounds):
        ended = time.monotonic()
        await installation.command("plans", "assign", email, PAUSES)
        await person.wait_for_state("paused")
        await asyncio.sleep(PAUSE)
        gap = time.monotonic() - ended
        paused.append(await timekeeper.ask())
        ended = time.monotonic()
        await installation.command("plans", "assign", email, STAYS_AWAKE)
        await asyncio.sleep(gap - (time.monotonic() - ended))
        awake.append(await timekeeper.ask())
        print(f"  pause {number + 1}: {paused[-1].first:.2f} s, awake {awake[-1].first:.2f} s")
    await installation.command("plans", "assign", email, PAUSES)
    ours, theirs = ([1000 * timed.first for timed in side] for side in (paused, awake))
    return Result(
        "wake_from_pause_5s",
        "ms",
        ours,
        target=f"at most {PAUSE_TARGET:g} ms more",
        met=median(ours) - median(theirs) <= PAUSE_TARGET,
        peer="a turn of the same agent, awake, after as long a time: message sent → first delta",
        peer_samples=theirs,
        more={
            "to_started": round(median(1000 * timed.started for timed in paused), 1),
            "peer_to_started": round(median(1000 * timed.started for timed in awake), 1),
        },
    )


async def measure_paged_out(
    installation: Installation, person: Person, timekeeper: Timekeeper, rounds: int
) -> list[Result]:
    """What a paged out agent still holds, and how long its first answer takes; then, awake, after as long.

    Longer than a minute each, because what OpenClaw does each minute is part of what a long pause meets.
    """
    email = str((await person.call("GET", "/api/v1/me"))["email"])
    await installation.command("plans", "set", STAYS_AWAKE, "--pause-after", "1h")
    held: list[float] = []
    paged: list[float] = []
    awake: list[float] = []
    for _ in range(WARM_UP):
        await timekeeper.ask()
    for number in range(rounds):
        ended = time.monotonic()
        await installation.command("plans", "assign", email, PAUSES)
        await person.wait_for_state("paused")
        before = memory_of(agent_processes(installation)).pss
        await asyncio.sleep(PAGED_GAP - (time.monotonic() - ended))
        assert _swapped(installation) > before * 1e6 / 3, "the agent was not paged out"
        held.append(memory_of(agent_processes(installation)).pss)
        paged.append((await timekeeper.ask()).first)
        ended = time.monotonic()
        await installation.command("plans", "assign", email, STAYS_AWAKE)
        await asyncio.sleep(PAGED_GAP - (time.monotonic() - ended))
        awake.append((await timekeeper.ask()).first)
        print(f"  swap {number + 1}: {paged[-1]:.2f} s, awake {awake[-1]:.2f} s, {held[-1]:.0f} MB held")
    await installation.command("plans", "assign", email, PAUSES)
    return [
        Result(
            "paged_out_agent_memory",
            "MB",
            held,
            target=f"≤ {PAGED_MEMORY_TARGET:g} MB",
            met=median(held) <= PAGED_MEMORY_TARGET,
        ),
        Result(
            "wake_from_swap",
            "s",
            paged,
            target=f"p50 ≤ {PAGED_FIRST_TARGET:g} s to the first piece",
            met=median(paged) <= PAGED_FIRST_TARGET,
            peer=f"a turn of the same agent, awake, after {PAGED_GAP:g} s, too: message sent → first delta",
            peer_samples=awake,
        ),
    ]


def _swapped(installation: Installation) -> int:
    """Bytes."""
    return swapped(process.pid for process in agent_processes(installation))
