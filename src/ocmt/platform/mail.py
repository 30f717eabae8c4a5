"""Mail as a port: by SMTP, or, where nobody set that up, into a local folder with a line on the terminal."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, urlsplit

import structlog
from uuid_utils.compat import uuid7

from ocmt.errors import InvalidInput, SetupProblem, Unavailable
from ocmt.platform.work import OTHER

if TYPE_CHECKING:
    import smtplib
    import ssl
    from email.message import EmailMessage

_TIMEOUT_SECONDS = 20
_AT_ONCE = 4
_LOOPBACK = ("localhost", "127.0.0.1", "::1")

log = structlog.get_logger(__name__)


class Mail(Protocol):
    """Sends plain text to one address."""

    async def send(self, to: str, subject: str, text: str) -> None:
        """Hand one mail over. Raises: InvalidInput for an address that cannot be written to, Unavailable
        where the mail could not be handed over just now."""


class SmtpMail:
    """`smtp://user:password@host:587` (STARTTLS; plain only to this machine) or `smtps://…:465`.

    Raises: SetupProblem for an address that is neither.
    """

    def __init__(self, url: str, sender: str) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
            raise SetupProblem("The setting smtp_url must look like smtp://user:password@host:587.")
        self._host = parts.hostname
        self._direct_tls = parts.scheme == "smtps"
        self._port = port or (465 if self._direct_tls else 587)
        self._login = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
        self._sender = sender
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def send(self, to: str, subject: str, text: str) -> None:
        """See Mail. At most four at once; each within 20 s a step."""
        import smtplib  # late, with `email`: a tenth of a start that many a process does without

        message = _compose(self._sender, to, subject, text)
        async with self._slots:
            try:
                await OTHER.run(self._deliver, message)
            except smtplib.SMTPRecipientsRefused as error:
                refusal = "The mail server does not accept this address."
                raise InvalidInput(refusal, detail=str(error)) from error
            except (smtplib.SMTPException, OSError) as error:
                raise Unavailable(
                    "The mail could not be sent just now. Try again in a minute.",
                    detail=f"{self._host}:{self._port}: {type(error).__name__}: {error}",
                    retry_after=60,
                ) from error

    def check(self) -> str | None:
        """Connect and sign in without sending anything; return what is wrong, or None. Blocks."""
        import smtplib

        where = f"the mail server {self._host}:{self._port}"
        try:
            with self._connected():
                return None
        except smtplib.SMTPAuthenticationError:
            return f"{where} refuses the user name or the password"
        except (smtplib.SMTPException, OSError) as error:
            return f"{where} does not answer as one: {error}"

    def _deliver(self, message: EmailMessage) -> None:
        with self._connected() as server:
            server.send_message(message)

    @contextmanager
    def _connected(self) -> Iterator[smtplib.SMTP]:
        import ssl

        tls = ssl.create_default_context()
        with self._connect(tls) as server:
            if not self._direct_tls and self._host not in _LOOPBACK:
                server.starttls(context=tls)
                server.ehlo()
            if self._login:
                server.login(*self._login)
            yield server

    def _connect(self, tls: ssl.SSLContext) -> smtplib.SMTP:
        import smtplib

        if self._direct_tls:
            server: smtplib.SMTP = smtplib.SMTP_SSL(
                self._host, self._port, timeout=_TIMEOUT_SECONDS, context=tls
            )
        else:
            server = smtplib.SMTP(self._host, self._port, timeout=_TIMEOUT_SECONDS)
        server.ehlo()
        return server


class LocalOutbox:
    """Keeps every mail as a file (`*.eml`, mode 0600) and announces it in one line, with its first link where
    there is one: whoever reads that terminal runs the installation."""

    def __init__(self, folder: Path, sender: str, announce: Callable[[str], None]) -> None:
        self._folder = folder
        self._sender = sender
        self._announce = announce

    async def send(self, to: str, subject: str, text: str) -> None:
        """See Mail."""
        message = _compose(self._sender, to, subject, text)
        path = self._folder / f"{uuid7()}.eml"
        await OTHER.run(_keep, path, bytes(message))
        link = re.search(r"https?://\S+", text)
        self._announce(f"mail for {to}: {subject}: {link.group() if link else path}")


def _compose(sender: str, to: str, subject: str, text: str) -> EmailMessage:
    from email.message import EmailMessage
    from email.utils import formatdate, make_msgid

    if not re.fullmatch(r"[^@\s,;<>\"]+@[^@\s,;<>\"]+", to):
        raise InvalidInput("This is not an e-mail address.")
    message = EmailMessage()
    message["From"] = sender
    message["To"] = to
    message["Subject"] = subject
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(domain=re.sub(r".*@|>.*", "", sender) or "localhost")
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(text)
    return message


def _keep(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
