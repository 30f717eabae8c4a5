"""Mail: by a real SMTP conversation, or into the outbox with one line on the terminal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from email import message_from_bytes
from pathlib import Path

import pytest

from ocmt.errors import InvalidInput, SetupProblem, Unavailable
from ocmt.platform.mail import LocalOutbox, SmtpMail

pytestmark = pytest.mark.anyio

SENDER = "OCMT <ocmt@example.org>"


class SmtpServer:
    """Speaks just enough SMTP; `refuse` makes it answer RCPT with that line."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.refuse: bytes | None = None
        self.port = 0

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 ready\r\n")
        while line := await reader.readline():
            word = line[:4].upper()
            if word == b"DATA":
                writer.write(b"354 go on\r\n")
                self.received.append(await reader.readuntil(b"\r\n.\r\n"))
                writer.write(b"250 taken\r\n")
            elif word == b"RCPT" and self.refuse:
                writer.write(self.refuse + b"\r\n")
            elif word == b"QUIT":
                writer.write(b"221 bye\r\n")
                break
            else:
                writer.write(b"250 fine\r\n")
            await writer.drain()
        writer.close()


@pytest.fixture
async def smtp() -> AsyncIterator[SmtpServer]:
    served = SmtpServer()
    server = await asyncio.start_server(served.talk, "127.0.0.1", 0)
    served.port = server.sockets[0].getsockname()[1]
    yield served
    server.close()


async def test_a_mail_goes_out_as_plain_text(smtp: SmtpServer) -> None:
    await SmtpMail(f"smtp://127.0.0.1:{smtp.port}", SENDER).send("a@example.org", "Grüße", "Guten Tag")
    message = message_from_bytes(smtp.received[0])
    assert (message["from"], message["to"]) == (SENDER, "a@example.org")
    assert message["message-id"].endswith("@example.org>")
    assert message.get_content_type() == "text/plain"


async def test_an_address_that_the_server_refuses_is_the_users_to_mend(smtp: SmtpServer) -> None:
    smtp.refuse = b"550 no such mailbox"
    with pytest.raises(InvalidInput, match="does not accept this address"):
        await SmtpMail(f"smtp://127.0.0.1:{smtp.port}", SENDER).send("a@example.org", "s", "t")


async def test_a_server_that_is_away_is_worth_a_retry(smtp: SmtpServer) -> None:
    with pytest.raises(Unavailable):
        await SmtpMail("smtp://127.0.0.1:1", SENDER).send("a@example.org", "s", "t")


@pytest.mark.parametrize("to", ["nobody", "a@b\r\nBcc: c@d", "a@b, c@d", "<a@b>", ""])
async def test_what_is_no_single_address_is_refused(tmp_path: Path, to: str) -> None:
    with pytest.raises(InvalidInput):
        await LocalOutbox(tmp_path, SENDER, announce=print).send(to, "s", "t")


@pytest.mark.parametrize("url", ["", "mail.example.org", "http://mail.example.org", "smtp://", "smtp://h:x"])
def test_a_wrong_setting_is_said_plainly(url: str) -> None:
    with pytest.raises(SetupProblem, match="smtp_url must look like"):
        SmtpMail(url, SENDER)


async def test_the_outbox_keeps_private_files_and_shows_the_link(tmp_path: Path) -> None:
    shown: list[str] = []
    outbox = LocalOutbox(tmp_path / "outbox", SENDER, announce=shown.append)
    await outbox.send("a@example.org", "Sign in", "Open this:\nhttp://localhost:8080/sign-in#token=x\nBye")
    await outbox.send("a@example.org", "News", "Nothing to open.")
    kept = sorted((tmp_path / "outbox").glob("*.eml"))
    assert shown == [
        "mail for a@example.org: Sign in: http://localhost:8080/sign-in#token=x",
        f"mail for a@example.org: News: {kept[1]}",
    ]
    assert [path.stat().st_mode & 0o777 for path in kept] == [0o600, 0o600]
    assert message_from_bytes(kept[0].read_bytes())["subject"] == "Sign in"
