"""`python -m benchmarks`: all of it, in about half an hour on two quiet cores."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import tempfile
from pathlib import Path

import psutil

from benchmarks import (
    intake,
    management,
    relays,
    results,
    scale,
    snapshots,
    spares,
    starting,
    tabs,
    turns,
    waking,
)
from benchmarks.bare import BareGateway
from benchmarks.model import StopwatchModel
from benchmarks.person import Timekeeper
from ocmt.runtimes.paging import room_in_swap
from ocmt.runtimes.tools import find_tools
from ocmt.settings import load_settings
from ocmt.testing.anthropic import FakeAnthropic
from ocmt.testing.installation import Installation, Person

KEY = "sk-ant-test-of-the-benchmarks"
PAUSE_AFTER = "4s"
"""Longer than a bare turn between two of the agent's, or its next would find it paused."""
WITH_OPENCLAW = ("wakes", "turns", "pauses", "swap")
"""What can be left out; the platform must start for any of them."""
ROOMS = (*WITH_OPENCLAW, "spares", "snapshots", "scale", "management", "relays", "tabs", "intake")
SWAP = 1_500_000_000
"""Bytes of free swap, and root: without them the last room is left out."""
QUIET = 5.0
"""Percent of all processors that others may use."""


def main() -> None:
    """Measure, show, and write `results.json`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--starts", type=int, default=3, help="rounds of the platform's start")
    parser.add_argument("--wakes", type=int, default=5, help="rounds of waking from stopped")
    parser.add_argument("--turns", type=int, default=40, help="turns of each side")
    parser.add_argument("--pauses", type=int, default=20, help="rounds of waking from a pause")
    parser.add_argument("--swaps", type=int, default=6, help="rounds of waking from swap")
    parser.add_argument("--spares", type=int, default=4, help="rounds of waking from a warm spare, as root")
    parser.add_argument("--snapshots", type=int, default=5, help="rounds of each kind of snapshot")
    parser.add_argument("--agents", type=int, default=1000, help="how many one orchestrator knows")
    parser.add_argument("--storms", type=int, default=3, help="rounds of waking a hundred at once")
    parser.add_argument("--services", type=int, default=5, help="rounds of starts and loads of the API")
    parser.add_argument("--relays", type=int, default=5, help="rounds of each relay of WebSockets")
    parser.add_argument("--intakes", type=int, default=3, help="rounds of taking webhooks")
    parser.add_argument("--kills", type=int, default=100, help="kills of the intake under load")
    parser.add_argument(
        "--profile", type=Path, help="a folder for where the orchestrator's time goes at scale"
    )
    parser.add_argument("--only", nargs="+", choices=ROOMS, default=ROOMS, help="leave the others out")
    parser.add_argument("--dry", action="store_true", help="do not write results.json")
    options = parser.parse_args()

    busy = psutil.cpu_percent(interval=2)
    if busy > QUIET:
        print(f"warning: others use {busy:.0f} % of this machine; the numbers will be worse than they are")
    with tempfile.TemporaryDirectory(prefix="ocmt-bench-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)  # the database's user passes through
        measured = asyncio.run(_measure(Path(folder), options))
    for result in measured:
        print(result.line(), *(f"\n    {name}: {value}" for name, value in result.more.items()))
    if not options.dry:
        results.save(measured, busy=busy)
        print(f"written: {results.FILE}")


async def _measure(folder: Path, options: argparse.Namespace) -> list[results.Result]:
    # As Ctrl-C does: whatever was started is ended.
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    measured: list[results.Result] = []
    async with FakeAnthropic(keys={KEY}) as anthropic:
        anthropic.otherwise = model = StopwatchModel()
        if set(options.only) & set(WITH_OPENCLAW):
            measured += await _measure_one_agent(folder, options, anthropic, model)
        if "spares" in options.only and os.geteuid() == 0:
            bare = _bare(folder / "bare beside spares", anthropic)
            measured += await spares.measure(folder / "spares", _settings(anthropic), bare, options.spares)
    if "snapshots" in options.only:
        measured += await snapshots.measure(folder / "snapshots", options.snapshots)
    if "scale" in options.only:
        measured += await scale.measure(
            folder / "scale", options.agents, options.storms, profile=options.profile
        )
    if "management" in options.only:
        measured += await management.measure(folder / "management", options.services)
    if "relays" in options.only:
        measured += await relays.measure(folder / "relays", options.relays)
    if "tabs" in options.only:
        measured += await tabs.measure(folder / "tabs")
    if "intake" in options.only:
        measured += await intake.measure(folder / "intake", options.intakes, options.kills)
    return measured


async def _measure_one_agent(
    folder: Path, options: argparse.Namespace, anthropic: FakeAnthropic, model: StopwatchModel
) -> list[results.Result]:
    installation = Installation(folder / "platform", _settings(anthropic))
    bare = _bare(folder / "bare", anthropic)
    try:
        measured = await starting.measure(installation, options.starts)
        async with bare, Person(installation.url) as person:
            await person.sign_in(installation.link)
            async with Timekeeper(person, await person.conversation()) as timekeeper:
                if "wakes" in options.only:
                    measured += await waking.measure(installation, person, timekeeper, bare, options.wakes)
                if "turns" in options.only:
                    measured.append(await turns.measure_overhead(timekeeper, bare, model, options.turns))
                if "pauses" in options.only:
                    measured.append(
                        await turns.measure_pause(installation, person, timekeeper, options.pauses)
                    )
                if "swap" in options.only and os.geteuid() == 0 and room_in_swap() > SWAP:
                    measured += await turns.measure_paged_out(installation, person, timekeeper, options.swaps)
    finally:
        await installation.stop()
    return measured


def _settings(anthropic: FakeAnthropic) -> dict[str, str]:
    """Of the measured platforms."""
    return {
        "ANTHROPIC_API_KEY": KEY,
        "OCMT_ANTHROPIC_URL": anthropic.url,
        "OCMT_AGENT_PAUSE_AFTER": PAUSE_AFTER,
        "OCMT_AGENT_STOP_AFTER": "1h",
        "OCMT_AGENT_PAGE_OUT_AFTER": "8s",
        "OCMT_DAILY_TOKEN_LIMIT": "1000000000",
    }


def _bare(folder: Path, anthropic: FakeAnthropic) -> BareGateway:
    settings = load_settings()
    tools = find_tools(settings.cache_dir)
    return BareGateway(folder, tools, model=settings.model, model_url=anthropic.url, model_key=KEY)


if __name__ == "__main__":
    main()
