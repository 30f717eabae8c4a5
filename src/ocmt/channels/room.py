"""The whole room, wired: what bootstrap opens, and what tests open with a channel of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from ocmt.channels.answering import AnswerKeeper
from ocmt.channels.base import Channel
from ocmt.channels.delivering import DeliveryWorker
from ocmt.channels.endpoints import Endpoints
from ocmt.channels.history import Deliveries
from ocmt.channels.intake import Intake
from ocmt.channels.model import Seal
from ocmt.channels.outbox import OutboxWorker
from ocmt.channels.service import Channels
from ocmt.channels.writer import Writer
from ocmt.chat.service import Chat
from ocmt.platform.clock import Clock
from ocmt.platform.database import Database, Hints
from ocmt.platform.storage import Budgets


@dataclass(frozen=True)
class ChannelRoom:
    """Of one process. Nothing runs by itself: see `run_deliveries`, `run_outbox`."""

    channels: Channels
    deliveries: Deliveries
    intake: Intake
    endpoints: Endpoints
    worker: DeliveryWorker
    answers: AnswerKeeper
    outbox: OutboxWorker
    hints: Hints

    @classmethod
    def over(
        cls,
        database: Database,
        clock: Clock,
        hints: Hints,
        chat: Chat,
        *,
        kinds: Mapping[str, Channel],
        seal: Seal,
        url: str,
        budgets: Budgets | None = None,
    ) -> Self:
        """Wire it. `kinds`: the channels by name; `url`: our public address; `budgets`: what each user may
        keep where the plan does not say."""
        endpoints = Endpoints(database, clock, seal, kinds)
        return cls(
            channels=Channels(database, clock, kinds, seal, url=url),
            deliveries=Deliveries(database, clock, budgets),
            intake=Intake(kinds, endpoints, Writer(database, clock, budgets=budgets), clock),
            endpoints=endpoints,
            worker=DeliveryWorker(database, clock, hints, chat, endpoints),
            answers=AnswerKeeper(database, clock, hints, endpoints),
            outbox=OutboxWorker(database, clock, hints, endpoints),
            hints=hints,
        )

    async def run_deliveries(self) -> None:
        """Make turns of what comes in, and take up their answers, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.worker.run(), name="deliveries: turns")
            tasks.create_task(self.answers.run(), name="deliveries: answers")
            tasks.create_task(self.answers.show_typing(), name="deliveries: typing")
            tasks.create_task(self.endpoints.listen(self.hints), name="deliveries: endpoints")
            tasks.create_task(self.deliveries.keep_sweeping(), name="deliveries: sweep")

    async def run_outbox(self) -> None:
        """Send what is owed, until cancelled."""
        await self.outbox.run()
