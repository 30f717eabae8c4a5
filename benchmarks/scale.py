"""A thousand agents of one orchestrator: what it costs to know them, keep some awake, wake many at once.

The orchestrator is the production composition in a process of its own, over a real database; its agents are
doubles that speak the gateway's protocol, in this process: what is measured is the platform and not OpenClaw.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from uuid import UUID

from uuid_utils.compat import uuid7

from benchmarks.person import MESSAGE
from benchmarks.results import Result
from benchmarks.stage import Direct, Held, Stage, Usage, open_stage

AWAKE = 0.1
"""Of all agents."""
STORM = 100
"""Agents that get a message at once."""
WARM_UP = 10
"""Agents that are woken and stopped before anything is measured: what a process makes once is no agent's."""
SETTLE = 12.0
"""Seconds; for ten a database server keeps what it has counted to itself, while it has nothing to do."""
SETTLE_AWAKE = 25.0
"""After a wake: within fifteen an agent is asked for its schedule once."""
SETTLE_ASLEEP = 4.0
"""After a stop: the lease is given back, what lies in the object store is tidied."""
IDLE = 10.0
IDLE_TIMES = 3
PROCESSOR_TARGET = 2.0
MEMORY_TARGET = 10.0


async def measure(folder: Path, agents: int, storms: int, *, profile: Path | None = None) -> list[Result]:
    """All of it, in about two minutes. `profile`: a folder for where the orchestrator's time goes."""
    async with open_stage(folder, profile=profile) as stage:
        await _wake_and_stop(stage, await stage.register(WARM_UP))
        await asyncio.sleep(SETTLE)
        nobody, files = await stage.held(), stage.process.num_fds()
        users = await stage.register(agents)
        await asyncio.sleep(SETTLE)
        all_asleep = await stage.usage(IDLE)
        known, known_blocks = (await stage.held()).since(nobody, agents)
        left = [stage.process.num_fds() - files, len(stage.process.children())]
        awake, asleep = users[: int(agents * AWAKE)], users[int(agents * AWAKE) :]

        before = await stage.held()
        await _wake(stage, awake)
        await asyncio.sleep(SETTLE_AWAKE)
        each_awake, awake_blocks = (await stage.held()).since(before, len(awake))
        stage.turn_profile()
        some_awake = [await stage.usage(IDLE) for _ in range(IDLE_TIMES)]
        stage.turn_profile()

        storm = await _measure_storms(stage, asleep, storms)
    return [
        _wake_result(storm),
        Result(
            "idle_processor",
            "% of a core",
            [usage.percent for usage in some_awake],
            target=f"≤ {PROCESSOR_TARGET:g} % with {len(awake)} of {agents} agents awake",
            met=median(usage.percent for usage in some_awake) <= PROCESSOR_TARGET,
            more={
                "all_asleep": round(all_asleep.percent, 2),
                "postgresql": round(_median_percent(some_awake), 2),
                "postgresql_all_asleep": round(_median_percent([all_asleep]), 2),
            },
        ),
        Result(
            "idle_transactions",
            "per second",
            [usage.transactions / usage.seconds for usage in some_awake],
            target="no more than 10, however many are awake",
            met=max(usage.transactions / usage.seconds for usage in some_awake) <= 10,
            more={"all_asleep": round(all_asleep.transactions / all_asleep.seconds, 2)},
        ),
        Result(
            "known_agent_memory",
            "KB",
            [known],
            target=f"≤ {MEMORY_TARGET:g} KB of the orchestrator's for each that sleeps",
            met=known <= MEMORY_TARGET,
            more={
                "blocks": round(known_blocks, 2),
                "each_awake": round(each_awake, 1),
                "blocks_each_awake": round(awake_blocks),
                **_left(storm),
            },
        ),
        Result(
            "sleeping_agents_hold",
            "descriptors and processes",
            [float(sum(left))],
            target=f"none for all {agents}",
            met=not any(left),
        ),
    ]


@dataclass
class _Storm:
    """Milliseconds from the message (or the start) of each agent, all rounds together."""

    ours: list[float] = field(default_factory=list)
    hello: list[float] = field(default_factory=list)
    peer: list[float] = field(default_factory=list)
    peer_hello: list[float] = field(default_factory=list)
    accepted: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)
    """Of each round: until the last was."""
    well: int = 0
    """How many turns of ours were answered."""
    held: list[Held] = field(default_factory=list)
    """By the orchestrator, once the agents of a round are asleep again."""
    processor: list[float] = field(default_factory=list)
    """Of the orchestrator, by agent."""
    database_processor: list[float] = field(default_factory=list)
    """Of the database's, by agent."""


async def _measure_storms(stage: Stage, asleep: Sequence[UUID], rounds: int) -> _Storm:
    """Platform and peer in turn, each time with agents that were never awake."""
    storm = _Storm()
    async with Direct(stage) as direct:
        for number in range(rounds):
            users = asleep[number * STORM :][:STORM]
            assert len(users) == STORM, "not enough agents that sleep for so many storms"
            stage.turn_profile()
            await _storm(stage, users, storm)
            stage.turn_profile()
            await _stop(stage, users)
            await asyncio.sleep(SETTLE_ASLEEP)
            storm.held.append(await stage.held())
            others = [uuid7() for _ in range(STORM)]
            began = await direct.start(others)
            storm.peer += _since(began, [stage.gateways[user].got_message for user in others])
            storm.peer_hello += _since(began, [stage.gateways[user].said_hello for user in others])
            print(
                f"  storm {number + 1}: p50 {median(storm.ours[-STORM:]):.0f} ms, last answered after "
                f"{storm.answered[-1]:.0f} ms; peer p50 {median(storm.peer[-STORM:]):.0f} ms"
            )
    return storm


async def _storm(stage: Stage, users: Sequence[UUID], storm: _Storm) -> None:
    places = [(await stage.chat.create_conversation(user)).id for user in users]
    began: list[float] = []
    accepted: list[float] = []

    async def post(user: UUID, place: UUID) -> None:
        await stage.chat.post(user, place, MESSAGE, key=str(place))
        accepted.append(time.monotonic())

    async with stage.measured() as used:
        began = [time.monotonic()] * len(users)
        await asyncio.gather(*map(post, users, places))
        storm.well += await stage.until_answered(users)
        storm.answered += _since(began[:1], [time.monotonic()])
    storm.accepted += _since(began, accepted)
    storm.ours += _since(began, [stage.gateways[user].got_message for user in users])
    storm.hello += _since(began, [stage.gateways[user].said_hello for user in users])
    storm.processor.append(1000 * used[0].processor / len(users))
    storm.database_processor.append(1000 * used[0].database_processor / len(users))


def _wake_result(storm: _Storm) -> Result:
    return Result(
        "wake_storm_100",
        "ms",
        storm.ours,
        target=f"all {STORM} at once are woken and answered; no other was set",
        met=storm.well == len(storm.ours),
        peer="the same doubles, started and connected to without platform: start → message handed over",
        peer_samples=storm.peer,
        more={
            **_percentiles("", storm.ours),
            **_percentiles("peer_", storm.peer),
            **_percentiles("hello_", storm.hello),
            **_percentiles("peer_hello_", storm.peer_hello),
            "accepted_p50": round(median(storm.accepted)),
            "last_answered": [round(each) for each in storm.answered],
            "processor_ms_per_wake": round(median(storm.processor), 1),
            "postgresql_ms_per_wake": round(median(storm.database_processor), 1),
        },
    )


def _left(storm: _Storm) -> dict[str, float]:
    """Of each agent that was awake and sleeps again, from round to round: the first makes room for all."""
    again = len(storm.held) - 1
    if not again:
        return {}
    memory, blocks = storm.held[-1].since(storm.held[0], again * STORM)
    return {"left_of_each_that_was_awake": round(memory, 2), "blocks_left": round(blocks, 2)}


async def _wake_and_stop(stage: Stage, users: Sequence[UUID]) -> None:
    await _wake(stage, users)
    await _stop(stage, users)


async def _wake(stage: Stage, users: Sequence[UUID]) -> None:
    for user in users:
        await stage.agents.ask_awake(user)
    await stage.until("awake", users)


async def _stop(stage: Stage, users: Sequence[UUID]) -> None:
    for user in users:
        await stage.agents.ask_stopped(user)
    await stage.until("stopped", users)


def _since(began: Sequence[float], ended: Sequence[float]) -> list[float]:
    """Milliseconds."""
    return [1000 * (end - begin) for begin, end in zip(began, ended, strict=True)]


def _percentiles(name: str, samples: Sequence[float]) -> dict[str, int]:
    cut = quantiles(samples, n=100)
    return {f"{name}p{number}": round(cut[number - 1]) for number in (50, 95, 99)}


def _median_percent(usages: Sequence[Usage]) -> float:
    """Of a processor, that the database's processes used."""
    return median(100 * usage.database_processor / usage.seconds for usage in usages)
