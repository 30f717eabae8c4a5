"""What `ocmt up` takes of the machine before anything runs."""

from __future__ import annotations

import errno
import resource
import socket
from pathlib import Path

import pytest

from ocmt.cli import process, up
from ocmt.errors import SetupProblem
from ocmt.platform.folder_lock import FolderLock
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


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7"])
def test_a_listener_for_strangers_without_a_public_address_is_refused(host: str) -> None:
    with pytest.raises(SetupProblem, match="OCMT_BEHIND_PROXY"):
        process.require_safe_address(Settings(host=host))
    process.require_safe_address(Settings(host=host, behind_proxy=True))
    process.require_safe_address(Settings(host=host, public_url="https://agents.example.org"))


def test_commands_know_the_address_of_a_running_server(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, port=8591)
    lock = FolderLock(tmp_path / process.IN_USE)
    assert process.address_of_running(tmp_path) is None
    lock.acquire("in use")
    assert process.address_of_running(tmp_path) is None, "it is only starting"
    process.keep_address(settings)
    process.keep_address(settings)
    assert process.address_of_running(tmp_path) == "http://localhost:8591"
    lock.release()
    assert process.address_of_running(tmp_path) is None, "what an ended process has left is not believed"
    process.forget_address(settings)
    process.forget_address(settings)
