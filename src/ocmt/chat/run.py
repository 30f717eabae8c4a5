"""A turn that is being answered, and the ways in which that ends."""

from __future__ import annotations

import asyncio

from ocmt.chat.log import TurnWriter
from ocmt.chat.model import Fault, Turn, TurnStatus


class Ended(Exception):
    """The turn is over, with this status."""

    def __init__(self, status: TurnStatus, *, answer: str | None = None, fault: Fault | None = None) -> None:
        super().__init__(status)
        self.status = status
        self.answer = answer
        self.fault = fault


class GatewayLost(Exception):
    """The gateway died, or the connection to it, while the turn ran."""


class Run:
    """A turn that this process answers now."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        self.stop = asyncio.Event()
        self.writer: TurnWriter | None = None
        self.recovering = turn.status is TurnStatus.RUNNING
        self.behind = False
        """Whether the run said what we did not hear: then its next piece is taken with all before it."""
        self.said = 0
        self.commands = False
        """Whether OpenClaw may interpret commands in the message; known once the turn is started."""
        if turn.stop_requested:
            self.stop.set()
