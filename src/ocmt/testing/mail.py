"""A mail box instead of a mail server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SentMail:
    """One mail as it was handed over."""

    to: str
    subject: str
    text: str


class MemoryMail:
    """See `ocmt.platform.mail.Mail`; `fault` is raised instead of sending, where it is set."""

    def __init__(self) -> None:
        self.sent: list[SentMail] = []
        self.fault: Exception | None = None

    async def send(self, to: str, subject: str, text: str) -> None:
        """See Mail."""
        if self.fault is not None:
            raise self.fault
        self.sent.append(SentMail(to, subject, text))
