"""Finds accepted turns and has them answered, one at a time in each conversation.

Any replica may see a turn; the one that drives the agent answers it (`answer`).
"""

from __future__ import annotations

import asyncio
from uuid import UUID

import structlog

from ocmt.agents.reconciler import Reconciler
from ocmt.chat.answer import Answerer
from ocmt.chat.model import EventType, Turn
from ocmt.chat.run import Run
from ocmt.chat.service import TURNS_CHANNEL, queries, turn_from_row
from ocmt.errors import LeaseLost, OcmtError
from ocmt.platform.clock import Clock
from ocmt.platform.database import Database, Hints, Subscription
from ocmt.platform.queries import every

logger = structlog.get_logger(__name__)

POLL_INTERVAL = 1.0
MAX_PARALLEL_TURNS = 200
"""Of this process; further ones wait in the database."""


class TurnWorker:
    """Answers the turns of the agents that this process drives."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        hints: Hints,
        reconciler: Reconciler,
        answerer: Answerer,
    ) -> None:
        self._database = database
        self._clock = clock
        self._hints = hints
        self._reconciler = reconciler
        self._answerer = answerer
        self._runs: dict[UUID, Run] = {}
        self._tasks: dict[UUID, asyncio.Task[None]] = {}
        self._ended: set[UUID] = set()
        """Turns whose work here ended while the database was being asked: its answer may still list them."""

    async def run(self) -> None:
        """Answer turns until cancelled; what is under way then is found again at the next start."""
        try:
            with self._hints.subscribe(TURNS_CHANNEL) as hinted:
                while True:
                    try:
                        await self._look(hinted)
                    except OcmtError as error:
                        logger.warning("could not look for turns", error=str(error))
                    await hinted.wait(POLL_INTERVAL)
        finally:
            tasks = list(self._tasks.values())
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)

    async def note(self, turn_id: UUID, text: str) -> None:
        """Show the user a line of progress about a turn that runs here; others are none of our business."""
        for run in self._runs.values():
            if run.turn.id == turn_id and run.writer is not None:
                run.writer.put(EventType.PROGRESS, step="model", text=text)

    async def _look(self, hinted: Subscription) -> None:
        self._ended.clear()
        async with self._database.connection() as connection:
            rows = await every(queries.find_work(connection, limit=MAX_PARALLEL_TURNS))
        for row in rows:
            turn = turn_from_row(row)
            run = self._runs.get(turn.conversation_id)
            if turn.id in self._ended:
                hinted.hint()
            elif run is None and len(self._runs) < MAX_PARALLEL_TURNS:
                self._begin(turn, hinted)
            elif run is not None and run.turn.id == turn.id and turn.stop_requested:
                run.stop.set()

    def _begin(self, turn: Turn, hinted: Subscription) -> None:
        run = Run(turn)
        self._runs[turn.conversation_id] = run
        task = asyncio.create_task(self._answer(run, hinted), name=f"turn {turn.id}")
        self._tasks[turn.conversation_id] = task

    async def _answer(self, run: Run, hinted: Subscription) -> None:
        turn = run.turn
        try:
            driver = await self._reconciler.drive(turn.user_id)
            if driver is not None:
                await self._answerer.answer(driver, run)
                # The next turn of this conversation need not wait for the poll.
                hinted.hint()
        except LeaseLost as error:
            logger.info("turn left to another", turn_id=str(turn.id), reason=error.detail or error.message)
        except Exception:
            # The turn stays open in the database and is found again; the worker must go on with the others.
            logger.exception("answering a turn failed", turn_id=str(turn.id))
            await self._clock.sleep(POLL_INTERVAL)
        finally:
            self._ended.add(turn.id)
            del self._runs[turn.conversation_id], self._tasks[turn.conversation_id]
