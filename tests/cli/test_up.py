"""What `ocmt up` takes of the machine before anything runs."""

from __future__ import annotations

import errno
import resource
import socket

import pytest

from ocmt.cli import process, up
from ocmt.errors import SetupProblem
from ocmt.settings import Settings


def has_ipv6() -> bool:
    with socket.socket(socket.AF_INET6) as probe:
        return probe.connect_ex(("::1", 9)) != errno.EADDRNOTAVAIL


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")


def listening() -> tuple[socket.socket, Settings]:
    listener = process.listen(Settings(port=0))
    return listener, Settings(port=listener.getsockname()[1])


@needs_ipv6
def test_nobody_else_can_be_localhost_on_our_port() -> None:
    listener, settings = listening()
    with listener, up._keep_namesake(settings), socket.socket(socket.AF_INET6) as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="Address already in use"):
            squatter.bind(("::1", settings.port))
        # Browsers that try ::1 first are refused at once and come to us.
        with socket.create_connection(("localhost", settings.port), 2) as visitor:
            assert visitor.getpeername()[0] == "127.0.0.1"


@needs_ipv6
def test_somebody_who_is_localhost_already_is_said_in_plain_words() -> None:
    listener, settings = listening()
    with listener, socket.socket(socket.AF_INET6) as squatter:
        squatter.bind(("::1", settings.port))
        with pytest.raises(SetupProblem, match="::1"):
            up._keep_namesake(settings)
        by_number = settings.model_copy(update={"public_url": f"http://127.0.0.1:{settings.port}"})
        with up._keep_namesake(by_number):
            pass


def test_files_are_allowed_for_many_agents() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        process.allow_many_files()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(process.MOST_FILES, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
