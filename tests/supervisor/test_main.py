"""The supervisor by itself, without a sandbox: its protocol, its sockets, its end."""

from __future__ import annotations

import ast
import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ocmt.runtimes.seccomp import compiled_filter
from ocmt.supervisor import main

GATEWAY = """
import os, signal, socket, sys, time
mode, port = sys.argv[1], int(sys.argv[2])
if mode == "exit":
    sys.exit(78)
if mode == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(sorted(os.environ), sorted(os.listdir("/proc/self/fd")), flush=True)
with socket.create_server(("127.0.0.1", port)) as listener:
    while True:
        connection, _ = listener.accept()
        connection.sendall(b"gateway")
        connection.close()
"""


class Platform:
    """The other end of the control channel."""

    def __init__(self) -> None:
        self.end, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.end.settimeout(10)
        file = str(main.__file__)
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", file, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdout=subprocess.PIPE,
            env={},
        )
        theirs.close()
        with socket.create_server(("127.0.0.1", 0)) as free, socket.create_server(("127.0.0.1", 0)) as other:
            self.port, self.door = free.getsockname()[1], other.getsockname()[1]

    def say(self, **body: Any) -> None:
        self.end.send(json.dumps(body).encode())

    def start(self, mode: str, **more: Any) -> None:
        command = [sys.executable, "-I", "-S", "-c", GATEWAY, mode, str(self.port)]
        self.say(
            op="start",
            command=command,
            environment={"SECRET": "s"},
            directory="/",
            port=self.port,
            listen={"broker": self.door},
            **more,
        )

    def hear(self) -> tuple[dict[str, Any], list[socket.socket]]:
        data, descriptors, _, _ = socket.recv_fds(self.end, 65536, 4)
        return (json.loads(data) if data else {}), [socket.socket(fileno=number) for number in descriptors]

    def hear_until(self, event: str) -> dict[str, Any]:
        while True:
            message, sockets = self.hear()
            for one in sockets:
                one.close()
            if message.get("event") == event:
                return message
            assert message, f"the supervisor ended before {event}"


@pytest.fixture
def platform() -> Iterator[Platform]:
    platform = Platform()
    yield platform
    platform.end.close()
    platform.process.wait(10)
    assert platform.process.stdout is not None
    platform.process.stdout.close()


def test_it_imports_the_standard_library_only() -> None:
    tree = ast.parse(Path(str(main.__file__)).read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names


def test_doors_are_handed_over_before_the_gateway_runs_and_kept_by_nobody_inside(platform: Platform) -> None:
    assert platform.hear() == ({"event": "hello", "protocol": main.PROTOCOL, "hardened": True}, [])
    platform.start("serve")
    message, (listener,) = platform.hear()
    with listener:
        assert message == {"event": "listener", "name": "broker"}
        assert listener.getsockname() == ("127.0.0.1", platform.door)
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    assert platform.hear()[0] == {"event": "spawned"}
    assert platform.hear()[0] == {"event": "listening"}
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", platform.door))


def test_the_gateway_gets_its_environment_and_no_descriptor_of_ours(platform: Platform) -> None:
    platform.start("serve")
    platform.hear_until("listening")
    assert platform.process.stdout is not None
    printed = platform.process.stdout.readline().decode()
    assert printed.startswith("['LC_CTYPE', 'SECRET'] ") or printed.startswith("['SECRET'] ")
    assert (
        len(json.loads(printed[printed.index("] ") + 2 :].replace("'", '"'))) == 4
    )  # 0, 1, 2 and the listing


def test_a_dial_waits_for_the_gateway_and_brings_a_connection(platform: Platform) -> None:
    platform.start("serve")
    platform.say(op="dial", id=7)
    connection = None
    while connection is None:
        message, sockets = platform.hear()
        if message["event"] == "connected":
            assert message["id"] == 7
            (connection,) = sockets
        else:
            for one in sockets:
                one.close()
    with connection:
        connection.setblocking(True)
        assert connection.recv(10) == b"gateway"


def test_a_dial_that_waits_too_long_is_refused(platform: Platform) -> None:
    platform.say(op="dial", id=8)
    assert platform.hear_until("refused") == {"event": "refused", "id": 8}


def test_the_gateway_s_exit_is_reported_and_is_the_supervisor_s_end(platform: Platform) -> None:
    platform.start("exit")
    assert platform.hear_until("exited") == {"event": "exited", "code": 78}
    assert platform.hear() == ({}, [])
    assert platform.process.wait(10) == 78


def test_a_command_that_cannot_be_run(platform: Platform) -> None:
    platform.say(op="start", command=["/nonexistent"], environment={}, directory="/", port=1, listen={})
    assert "No such file" in platform.hear_until("failed")["message"]
    assert platform.process.wait(10) == 127


def test_stop_asks_first(platform: Platform) -> None:
    platform.start("serve")
    platform.hear_until("listening")
    platform.say(op="stop", grace=10)
    assert platform.hear_until("exited")["code"] == 128 + signal.SIGTERM


def test_stop_kills_who_does_not_listen(platform: Platform) -> None:
    platform.start("stubborn")
    platform.hear_until("listening")
    platform.say(op="stop", grace=0.05)
    assert platform.hear_until("exited")["code"] == 128 + signal.SIGKILL


def test_without_a_further_lease_the_gateway_is_killed(platform: Platform) -> None:
    """Also a stubborn one: another machine may be about to start the same agent."""
    platform.start("stubborn")
    platform.hear_until("listening")
    platform.say(op="lease", until=time.monotonic() + 0.3)
    assert platform.hear_until("exited")["code"] == 128 + signal.SIGKILL


def test_the_lease_counts_from_the_start(platform: Platform) -> None:
    platform.start("stubborn", lease=time.monotonic() + 0.5)
    assert platform.hear_until("exited")["code"] == 128 + signal.SIGKILL


def test_a_lease_that_is_renewed_in_time_keeps_it_alive(platform: Platform) -> None:
    platform.start("serve")
    platform.hear_until("listening")
    for _ in range(4):
        platform.say(op="lease", until=time.monotonic() + 0.4)
        time.sleep(0.2)
    platform.say(op="dial", id=1)
    platform.hear_until("connected")


def test_one_that_was_held_still_beyond_its_lease_and_has_a_new_one_goes_on(platform: Platform) -> None:
    platform.start("serve")
    platform.hear_until("listening")
    platform.say(op="lease", until=time.monotonic() + 0.2)
    os.kill(platform.process.pid, signal.SIGSTOP)
    time.sleep(0.4)
    platform.say(op="lease", until=time.monotonic() + 60)
    os.kill(platform.process.pid, signal.SIGCONT)
    platform.say(op="dial", id=1)
    platform.hear_until("connected")


def test_it_ends_with_the_platform(platform: Platform) -> None:
    platform.start("stubborn")
    platform.hear_until("listening")
    children = Path(f"/proc/{platform.process.pid}/task/{platform.process.pid}/children").read_text().split()
    platform.end.close()
    assert platform.process.wait(10) == 1
    for pid in children:
        handle = os.pidfd_open(int(pid)) if Path(f"/proc/{pid}").exists() else None
        if handle is not None:
            os.close(handle)
            assert Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"


class TestInAContainer:
    """Nothing is inherited there: the supervisor calls, and gets what it would have had."""

    @pytest.fixture
    def called(self, tmp_path: Path) -> Iterator[tuple[Platform, Path]]:
        path = tmp_path / "control"
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(str(path))
            listener.listen(1)
            listener.settimeout(10)
            caller = subprocess.Popen(
                [sys.executable, "-I", "-S", str(main.__file__), str(path)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={},
            )
            platform = Platform.__new__(Platform)
            platform.process = caller
            platform.end, _ = listener.accept()
            platform.end.settimeout(10)
        yield platform, path
        platform.end.close()
        caller.wait(10)

    def start(self, platform: Platform, code: str, **more: Any) -> str:
        """Run a program as the gateway; returns all that it writes."""
        reading, writing = os.pipe()
        command = [sys.executable, "-I", "-S", "-c", code]
        order = {"op": "start", "command": command, "environment": {}, "directory": "/", "port": 1}
        data = json.dumps(order | {"listen": {}} | more).encode()
        socket.send_fds(platform.end, [data], [writing])
        os.close(writing)
        with os.fdopen(reading) as output:
            return output.read()

    def test_it_calls_and_writes_where_it_is_told(self, called: tuple[Platform, Path]) -> None:
        platform, _ = called
        assert platform.hear() == ({"event": "hello", "protocol": main.PROTOCOL, "hardened": True}, [])
        code = "import os, sys; print(len(os.listdir('/proc/self/fd'))); print('oh', file=sys.stderr)"
        assert sorted(self.start(platform, code).split()) == ["4", "oh"]  # 0, 1, 2 and the listing
        assert platform.hear_until("exited")["code"] == 0

    def test_it_puts_on_the_filter_before_the_gateway_runs(self, called: tuple[Platform, Path]) -> None:
        platform, _ = called
        code = "print(*[line for line in open('/proc/self/status') if line.startswith(('Secc', 'NoNew'))])"
        written = self.start(platform, code, filter=base64.b64encode(compiled_filter()).decode())
        assert "NoNewPrivs:\t1" in written
        assert "Seccomp:\t2" in written

    def test_a_filter_that_is_none_ends_it_before_the_gateway_runs(
        self, called: tuple[Platform, Path]
    ) -> None:
        platform, _ = called
        written = self.start(platform, "print('ran')", filter=base64.b64encode(b"nonsense").decode())
        assert "Invalid argument" in written
        assert "ran" not in written.split()
        assert platform.process.wait(10) == 1
