"""A supervisor calls the platform: the right one, once, at a name that nobody can bend."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ocmt.runtimes.rendezvous import NAME, Rendezvous

pytestmark = pytest.mark.anyio
CALL = """
import os, socket, sys
os.setgroups([])
os.setgid(4242)
os.setuid(4242)
caller = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
caller.connect(sys.argv[1])
caller.recv(1)
"""


def a_caller(folder: Path) -> socket.socket:
    caller = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    caller.connect(str(folder / NAME))
    return caller


async def test_the_first_call_is_taken_and_the_name_is_gone(folder: Path) -> None:
    with Rendezvous(folder, None) as rendezvous, a_caller(folder) as caller:
        connection, pid = await rendezvous.taken()
        assert pid == os.getpid()
        caller.send(b"hello")
        assert connection.recv(5) == b"hello"
        connection.close()
    assert list(folder.iterdir()) == []
    rendezvous.close()


async def test_what_an_earlier_run_left_there_is_replaced_and_never_followed(folder: Path) -> None:
    elsewhere = folder / "elsewhere"
    elsewhere.write_text("precious")
    (folder / NAME).symlink_to(elsewhere)
    with Rendezvous(folder, None):
        assert (folder / NAME).is_socket()
    assert elsewhere.read_text() == "precious"


async def test_a_folder_that_is_a_link_is_refused(folder: Path) -> None:
    (folder / "real").mkdir()
    (folder / "link").symlink_to(folder / "real")
    with pytest.raises(OSError, match="Not a directory"):
        Rendezvous(folder / "link", None)


async def test_a_long_path_will_do(folder: Path) -> None:
    deep = folder / ("x" * 120)
    deep.mkdir()
    with Rendezvous(deep, None):
        assert (deep / NAME).is_socket()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a stranger")
async def test_a_stranger_is_sent_away(folder: Path) -> None:
    folder.chmod(0o755)
    with Rendezvous(folder, 4242) as rendezvous:
        assert (folder / NAME).stat().st_mode & 0o777 == 0o660
        taking = asyncio.create_task(rendezvous.taken())
        with a_caller(folder) as root:
            root.settimeout(5)
            assert await asyncio.to_thread(root.recv, 1) == b""
        assert not taking.done()
        with subprocess.Popen([sys.executable, "-I", "-S", "-c", CALL, str(folder / NAME)]) as caller:
            async with asyncio.timeout(10):
                connection, pid = await taking
            assert pid == caller.pid
            connection.close()
