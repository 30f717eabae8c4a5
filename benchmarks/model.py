"""The model's double with a stopwatch: when did the call arrive, when was all of its answer written."""

from __future__ import annotations

import time
from dataclasses import dataclass

from aiohttp import web

from ocmt.testing.anthropic import Seen, Streamed


@dataclass
class StopwatchModel(Streamed):
    """Answers at once, with a few words; notes the times of the latest call (monotonic seconds)."""

    asked_at: float = 0.0
    answered_at: float = 0.0

    async def play(self, request: web.Request, seen: Seen) -> web.StreamResponse:
        """See Scripted."""
        self.asked_at = time.monotonic()
        response = await super().play(request, seen)
        self.answered_at = time.monotonic()
        return response
