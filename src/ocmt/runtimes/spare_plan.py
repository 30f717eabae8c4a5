"""What a warm spare loads ahead: recorded from one start of this very OpenClaw, by an agent of nobody's.

The record is made in a sandbox like the agents', by `supervisor/record.mjs`, from the second start of a fresh
state folder, because that is what wakes are. A plan knows neither names nor numbers of OpenClaw's own: which
modules, which threads and which waiting processes there are, the record tells.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from ocmt.errors import Unavailable
from ocmt.platform.clock import Clock
from ocmt.platform.work import STARTS
from ocmt.runtimes.base import AgentRuntime, AgentSpec

Dial = Callable[[], Awaitable[socket.socket]]
START_TIMEOUT = 180.0
SETTLE = 20.0
"""Seconds that the gateway gets after it listens, to load what it loads afterwards."""
STOP_GRACE = 30.0
LOOK = 0.1
NOBODY = UUID(int=2)
RECORD = "ocmt-record"
_LAUNCHERS = ("/openclaw.mjs", "/dist/entry.js", "/supervisor/record.mjs")
"""What may not be loaded ahead: it starts OpenClaw, or it is ours."""
_MOST_OF_ONE_KIND = 4


@dataclass(frozen=True)
class Recipe:
    """What spares are made of."""

    count: int
    """How many wait at any time."""
    config: str
    """A configuration like that of the agents, for the start that is recorded."""
    disk_bytes: int
    """The most that one file of an agent may have who is served by a spare."""
    switches: Mapping[str, str]
    """The part of an agent's environment that is no secret and the same for all."""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Throw-away ones, for the start that is recorded. No spare sees them."""
    exercise: Callable[[Dial], Awaitable[None]] | None = None
    """Has the gateway that is recorded do what a first turn does. Raises nothing that matters."""


@dataclass
class _Thread:
    """What one thread of the recorded start has noted."""

    argv: list[str]
    main: bool
    given: bool
    """Whether it was told something of its own at its birth; such a one cannot be made ahead."""
    limits: Mapping[str, float]
    process: str
    modules: list[str] = field(default_factory=list)
    children: list[tuple[list[str], list[str]]] = field(default_factory=list)
    cache: str | None = None


def plan_of(notes: Mapping[str, str], openclaw: str) -> dict[str, Any]:
    """The plan (JSON) from the files of a record: name → its lines. `openclaw` says for which it is good.

    Raises: Unavailable where the record is none of a gateway's start.
    """
    threads = [_thread(name, text) for name, text in sorted(notes.items())]
    gateway = next((one for one in threads if one.main and one.argv[1].endswith("/openclaw.mjs")), None)
    if gateway is None or gateway.cache is None:
        raise Unavailable("OpenClaw's start could not be recorded.", detail=f"{len(notes)} threads")
    workers: dict[str, dict[str, Any]] = {}
    for one in threads:
        if one.main or one.given or one.process != gateway.process or not one.argv[1].startswith("/"):
            continue
        entry = f"file://{one.argv[1]}"
        kind = workers.setdefault(
            entry, {"entry": entry, "modules": [], "count": 0, "limits": dict(one.limits)}
        )
        kind["count"] = min(kind["count"] + 1, _MOST_OF_ONE_KIND)
        kind["modules"] = list(dict.fromkeys([*kind["modules"], *_ahead(one.modules, entry)]))
    children: dict[str, dict[str, Any]] = {}
    for argv, stdio in gateway.children:
        waiting = children.setdefault(json.dumps(argv), {"argv": argv, "stdio": stdio, "count": 0})
        waiting["count"] = min(waiting["count"] + 1, _MOST_OF_ONE_KIND)
    return {
        "openclaw": openclaw,
        "cache": gateway.cache,
        "modules": list(_ahead(gateway.modules)),
        "workers": list(workers.values()),
        "children": list(children.values()),
    }


def _thread(name: str, text: str) -> _Thread:
    first, *rest = (json.loads(line) for line in text.splitlines())
    one = _Thread(first["argv"], first["main"], first["given"], first["limits"], name.partition("-")[0])
    for fact in rest:
        one.modules += fact.get("modules", [])
        one.cache = fact.get("cache", one.cache)
        if "child" in fact:
            one.children.append((fact["child"], fact["stdio"]))
    return one


def _ahead(modules: Iterable[str], *but: str) -> Iterator[str]:
    """In the order in which they were loaded, so that whatever OpenClaw imports first is first here."""
    for url in dict.fromkeys(modules):
        if url not in but and not url.endswith((*_LAUNCHERS, ".json")):
            yield url


async def record(
    runtime: AgentRuntime, folder: Path, recipe: Recipe, openclaw: str, clock: Clock
) -> dict[str, Any]:
    """Start the gateway twice in `runtime`, of which `folder` is the data folder; the plan of the second.

    Owns the runtime. Takes as long as two cold starts. Raises: SetupProblem where no sandbox can be made,
    Unavailable where the gateway does not start.
    """
    recording = {
        "NODE_OPTIONS": "--import=/supervisor/record.mjs",
        "OCMT_RECORD": f"/tmp/{RECORD}",  # noqa: S108 - the sandbox's own
    }
    environment = {**recipe.switches, **recipe.secrets}
    try:
        for addition in ({}, recording):
            spec = AgentSpec(NOBODY, 0, recipe.config, environment | addition)
            await _start_once(runtime, spec, recipe.exercise, clock)
    finally:
        await runtime.close()
    made = folder / "agents" / str(NOBODY) / "tmp" / RECORD
    notes = await STARTS.run(lambda: {file.name: file.read_text() for file in made.glob("*.jsonl")})
    return plan_of(notes, openclaw)


async def _start_once(
    runtime: AgentRuntime,
    spec: AgentSpec,
    exercise: Callable[[Dial], Awaitable[None]] | None,
    clock: Clock,
) -> None:
    await runtime.start(spec, {})
    try:
        async with asyncio.timeout(START_TIMEOUT):
            while (seen := await runtime.observe(spec.user_id, {})).phase == "starting":
                await clock.sleep(LOOK)
        if seen.phase != "running":
            raise Unavailable("OpenClaw did not start.", detail=seen.log_tail)
        if exercise is not None:
            await exercise(lambda: runtime.dial(spec.user_id, {}))
        await clock.sleep(SETTLE)
    except TimeoutError as error:
        raise Unavailable("OpenClaw took too long to start.") from error
    finally:
        await runtime.stop(spec.user_id, {}, grace=STOP_GRACE)


def read_plan(path: Path, openclaw: str) -> dict[str, Any] | None:
    """The plan that lies there, if it is one for this OpenClaw. Blocks."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        plan: dict[str, Any] = json.loads(path.read_text())
        if plan.get("openclaw") == openclaw:
            return plan
    return None


def write_plan(path: Path, plan: Mapping[str, Any]) -> None:
    """Complete or not at all, for agents to read. Blocks."""
    unfinished = path.with_name(f".{path.name}")
    unfinished.write_text(json.dumps(plan))
    unfinished.chmod(0o644)
    unfinished.replace(path)
