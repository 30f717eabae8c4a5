"""People: they write, ask for reminders, stop and send to sleep. What was accepted is remembered."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from dataclasses import dataclass, field
from uuid import UUID

from ocmt.agents.service import Agents
from ocmt.chat.model import Turn
from ocmt.chat.service import Chat
from ocmt.errors import OcmtError
from tests.chaos.world import REMIND_ME


@dataclass
class Load:
    """All of them."""

    chat: Chat
    agents: Agents
    users: list[UUID]
    conversations: dict[UUID, list[UUID]]
    dice: random.Random
    accepted: list[Turn] = field(default_factory=list)
    unsure: int = 0

    async def run(self, until: float) -> None:
        number = 0
        while time.monotonic() < until:
            number += 1
            user = self.dice.choice(self.users)
            try:
                what = self.dice.random()
                if what < 0.85:
                    await self._write(user, number)
                elif what < 0.92 and self.accepted:
                    turn = self.dice.choice(self.accepted[-20:])
                    await self.chat.stop(turn.user_id, turn.id)
                elif what < 0.96:
                    await self.agents.ask_stopped(user)
                else:
                    await self.agents.ask_restart(user)
            except OcmtError:
                self.unsure += 1  # refused, or a database that is away: the person is told, and tries again
            await asyncio.sleep(self.dice.uniform(0.0, 0.12))

    async def _write(self, user: UUID, number: int) -> None:
        conversation = self.dice.choice(self.conversations[user])
        text = f"message {number}"
        if self.dice.random() < 0.15:
            text = f"{REMIND_ME} by {text} in {self.dice.uniform(0.5, 8):.2f}"
        for _ in range(40):
            with contextlib.suppress(OcmtError):
                self.accepted.append(await self.chat.post(user, conversation, text, key=text))
                return
            await asyncio.sleep(
                0.25
            )  # the same key again: it is accepted once, whatever became of the answer
