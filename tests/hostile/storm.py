"""Cases, many at a time, and what must hold for each of them whatever it is."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from tests.hostile.genuine import Request
from tests.hostile.mutations import Case, odd_frames, upgrade, webhook
from tests.hostile.stage import ANSWER_SECONDS, Stage
from tests.hostile.wire import Connection, Malformed, answers, frames, open_connection

AT_ONCE = 32
QUIET = 0.1
"""Seconds without an answer after which a case is looked at again when the server has given up on it."""
SETTLED = 0.005
"""Seconds after an answer in which another one may come."""
GIVEN_UP = 60.0
"""Seconds in which the server has to end what does not go on, however busy the machine is."""


@dataclass
class Storm:
    """A generative fuzz of the intake and of the upgrade."""

    stage: Stage
    seed: int
    statuses: Counter[int] = field(default_factory=Counter)
    closed: int = 0
    """Connections that the server ended without an answer."""
    taken: list[tuple[UUID, Request]] = field(default_factory=list)
    """Genuine ones that were answered 200, with their endpoints."""
    _waiting: set[asyncio.Task[None]] = field(default_factory=set)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def run(self, seconds: float) -> None:
        """For so long; returns once every case has come to its end."""
        until = time.monotonic() + seconds
        async with asyncio.TaskGroup() as tasks:
            for _ in range(AT_ONCE):
                tasks.create_task(self._go_on(until))
        if self._waiting:
            done, late = await asyncio.wait(self._waiting, timeout=2 * GIVEN_UP)
            assert not late
            for task in done:
                task.result()

    async def _go_on(self, until: float) -> None:
        while time.monotonic() < until:
            for task in [task for task in self._waiting if task.done()]:
                self._waiting.discard(task)
                task.result()
            await self._try(next(self._numbers))

    async def _try(self, number: int) -> None:
        dice = random.Random(f"{self.seed}/{number}")
        case = self._case(dice, number)
        opened = await open_connection(self.stage.port)
        waits = False
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await opened.send(case.pieces)
                waits = not await self._answered(opened, case)
                if not waits:
                    await self._frames(opened, dice)
                    self._judge(opened, case)
        except Exception as error:
            opened.abort()
            raise self._failure(case, number, opened, repr(error)) from error
        # Some of those that are answered are left open as well.
        if not opened.ended and not _is_socket(opened) and (waits or dice.random() < 0.02):
            self._waiting.add(asyncio.create_task(self._see_its_end(opened, case, number)))
        else:
            opened.abort()

    def _case(self, dice: random.Random, number: int) -> Case:
        stage = self.stage
        if dice.random() < 0.7:
            return webhook(dice, stage.doors, stage.host)
        behind = dice.choice(stage.doors).request(stage.host).wire()
        return upgrade(dice, stage.handshake(number % len(stage.cookies)), behind)

    async def _answered(self, opened: Connection, case: Case) -> bool:
        """Whether it is, or at its end, and goes on to say nothing."""
        if case.genuine is not None:
            while not answers(bytes(opened.received))[0] and not opened.ended:
                await opened.read(ANSWER_SECONDS)
            return True
        while await opened.read(QUIET if not opened.received else SETTLED):
            pass
        found, rest = answers(bytes(opened.received))
        return opened.ended or (bool(found) and (not rest or found[-1].status == 101))

    async def _frames(self, opened: Connection, dice: random.Random) -> None:
        if _is_socket(opened) and not opened.ended:
            await opened.send([odd_frames(dice)])
            while await opened.read(0.02):
                pass

    async def _see_its_end(self, opened: Connection, case: Case, number: int) -> None:
        try:
            until = time.monotonic() + GIVEN_UP
            while not opened.ended and not _is_socket(opened) and time.monotonic() < until:
                await opened.read(1)
            if not opened.ended and not _is_socket(opened):
                raise self._failure(case, number, opened, f"it hangs: not ended after {GIVEN_UP:.0f} s")
            try:
                self._judge(opened, case)
            except Exception as error:
                raise self._failure(case, number, opened, repr(error)) from error
        finally:
            opened.abort()

    def _judge(self, opened: Connection, case: Case) -> None:
        found, rest = answers(bytes(opened.received))
        self.closed += not found
        for answer in found:
            self.statuses[answer.status] += 1
            assert answer.status < 500, answer
        if found and found[-1].status == 101:
            frames(rest)
        elif rest and opened.ended:
            raise Malformed(f"an answer that breaks off: {rest[:500]!r}")
        if case.genuine is not None:
            assert [answer.status for answer in found] == [200], found
            (door,) = [door for door in self.stage.doors if door.path == case.genuine.target]
            self.taken.append((door.endpoint, case.genuine))

    def _failure(self, case: Case, number: int, opened: Connection, why: str) -> AssertionError:
        return AssertionError(
            f"OCMT_HOSTILE_SEED={self.seed}, case {number} ({case.what}): {why}\n"
            f"sent, in pieces: {list(case.pieces)!r}\nreceived: {bytes(opened.received)[:5_000]!r}"
        )


def _is_socket(opened: Connection) -> bool:
    """Whether it has become a WebSocket, which may stay as long as it likes."""
    return any(answer.status == 101 for answer in answers(bytes(opened.received))[0])


async def many(times: int, at_once: int, do: Callable[[int], object]) -> None:
    """Await `do(number)` so often, so many at a time."""
    numbers = iter(range(times))

    async def go_on() -> None:
        for number in numbers:
            await do(number)  # type: ignore[misc]

    async with asyncio.TaskGroup() as tasks:
        for _ in range(at_once):
            tasks.create_task(go_on())
