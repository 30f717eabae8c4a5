"""The one way out for mails: each kind is held to its bounds (`letters.py`)."""

from __future__ import annotations

import asyncio
from uuid import UUID

import structlog

from ocmt.errors import LimitReached
from ocmt.identity.letters import BOUNDS, ONCE, Kind, Letter
from ocmt.platform.mail import Mail
from ocmt.platform.rates import Rates

_log = structlog.get_logger(__name__)
_TIMEOUT = 60.0


class Post:
    """Sends letters."""

    def __init__(self, mail: Mail, rates: Rates) -> None:
        self._mail = mail
        self._rates = rates

    async def admit(self, kind: Kind, by: UUID) -> None:
        """Count a letter that a user wants to be sent, whether or not it then is. Raises: LimitReached."""
        rate = BOUNDS[kind].by
        if rate is not None:
            await self._rates.take(rate, str(by))

    async def deliver(self, letter: Letter) -> None:
        """Send it, or drop it where its address has had enough.

        Called after the answer, whose delay would tell that there was something to send. Whoever caused the
        letter does not hear of its fate, which would tell them about somebody else's address.
        """
        try:
            await self._count(letter)
        except LimitReached:
            _log.warning("mail_withheld", kind=letter.kind)
            return
        try:
            async with asyncio.timeout(_TIMEOUT):
                await self._mail.send(letter.to, letter.subject, letter.text)
        except Exception as error:  # the asker got their answer; what is left is to tell the operator
            _log.exception("mail_failed", kind=letter.kind, error=type(error).__name__)

    async def _count(self, letter: Letter) -> None:
        bounds = BOUNDS[letter.kind]
        if bounds.once:
            await self._rates.take(ONCE, f"{letter.kind} {letter.to} {letter.about}")
        if bounds.to is not None:
            await self._rates.take(bounds.to, letter.to)
