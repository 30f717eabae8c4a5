"""What goes wrong, by the dice: all that can die dies, and all that can be slow or away is."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import psutil

from tests.chaos.stage import REPLICAS, Stage


class Faults:
    """What goes wrong, by the dice."""

    def __init__(self, stage: Stage, dice: random.Random):
        self._stage = stage
        self._replicas = stage.replicas
        self._world = stage.world
        self._postmaster = stage.postmaster
        self._order = random.Random(dice.random())
        self._dice = dice
        self.happened: Counter[str] = Counter()

    async def run(self, until: float) -> None:
        kinds: list[tuple[Callable[[], Awaitable[None]], int]] = [
            (self.replica_killed, 3),
            (self.replica_held_up, 3),
            (self.gateway_dies, 6),
            (self.database_held_up, 1),
            (self.database_crashes, 1),
            (self.network_cut, 2),
            (self.objects_down, 2),
            (self.objects_slow, 1),
        ]
        while time.monotonic() < until:
            await asyncio.sleep(self._order.uniform(0.3, 1.5))
            (fault,) = self._order.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])
            self.happened[fault.__name__] += 1
            await fault()

    async def replica_killed(self) -> None:
        slot = self._dice.randrange(REPLICAS)
        if slot in self._replicas.processes:
            await self._replicas.kill(slot)
        await asyncio.sleep(self._dice.uniform(0, 1))
        await self._replicas.start(slot)

    async def replica_held_up(self) -> None:
        """At times for longer than its leases last."""
        slot = self._dice.randrange(REPLICAS)
        self._replicas.signal(slot, signal.SIGSTOP)
        await asyncio.sleep(self._dice.uniform(0.2, 4))
        self._replicas.signal(slot, signal.SIGCONT)

    async def gateway_dies(self) -> None:
        alive = self._world.alive()
        if alive:
            await self._world.crash(self._dice.choice(alive))

    async def database_held_up(self) -> None:
        processes = [self._postmaster(), *self._postmaster().children()]
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
        await asyncio.sleep(self._dice.uniform(0.2, 3))
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    async def database_crashes(self) -> None:
        """A server process dies: PostgreSQL ends all connections and recovers."""
        children = [child for child in self._postmaster().children() if "ocmt" in "".join(child.cmdline())]
        if children:
            self._dice.choice(children).kill()

    async def network_cut(self) -> None:
        """Between one replica and the database; when it is mended, connections go on or have broken."""
        relay = self._dice.choice(self._stage.relays)
        relay.cut()
        await asyncio.sleep(self._dice.uniform(0.2, 4))
        if self._dice.random() < 0.5:
            await relay.hang_up()
        relay.mend()

    async def objects_down(self) -> None:
        """For all replicas."""
        await self._trouble_with_objects("down")

    async def objects_slow(self) -> None:
        """For all replicas."""
        await self._trouble_with_objects("slow")

    async def _trouble_with_objects(self, trouble: str) -> None:
        sign = self._stage.folder / "objects-trouble"
        sign.write_text(trouble)
        await asyncio.sleep(self._dice.uniform(0.2, 4))
        sign.unlink()
