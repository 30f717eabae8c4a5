"""Warm spares of the stand-in: nothing is recorded, and nothing takes long to load."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ocmt.runtimes.sandbox import SandboxRuntime
from ocmt.runtimes.spare_plan import Recipe, write_plan
from ocmt.runtimes.tools import Tools


def a_recipe(folder: Path, tools: Tools, mode: str = "", *, count: int = 1) -> Recipe:
    """For a runtime with that folder, whose record is made already. `mode`: see the stand-in."""
    spares = folder / "data" / "agents" / ".spares"
    spares.mkdir(parents=True, exist_ok=True)
    write_plan(spares / "plan.json", {"openclaw": tools.openclaw.name})
    switches = {"SWITCH": "on", "SPARE": mode}
    return Recipe(count, "{}", 8 * 1024**3, switches, {"SECRET": "none"})


async def ready(runtime: SandboxRuntime, count: int = 1) -> None:
    """Wait until so many wait."""
    await runtime.probe()
    async with asyncio.timeout(20):
        while len(runtime.spares.waiting) < count:
            await asyncio.sleep(0.02)
