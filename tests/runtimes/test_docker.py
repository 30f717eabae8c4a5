"""Agents in real containers: they start, answer, are held still, end without a trace, and cannot get out."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import aiodocker
import pytest
import uvloop

from ocmt.errors import NotYet, SetupProblem, Unavailable
from ocmt.runtimes import docker as docker_module
from ocmt.runtimes import supervised
from ocmt.runtimes.base import Observation
from ocmt.runtimes.docker import DockerRuntime
from ocmt.runtimes.docker_container import USER_LABEL
from ocmt.runtimes.folders import FIRST_UID

from .conftest import DOCKER_URL, Counter, a_spec, connect, inside, make_docker_runtime

pytestmark = [pytest.mark.anyio, pytest.mark.docker]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give agents user ids of their own")


async def containers_of(user_id: UUID) -> list[dict[str, Any]]:
    """What Docker says of all containers of a user."""
    async with aiodocker.Docker(DOCKER_URL) as client:
        wanted = json.dumps({"label": [f"{USER_LABEL}={user_id}"]})
        found = await client.containers.list(all="true", filters=wanted)
        return [dict(await one.show()) for one in found]


async def until(runtime: DockerRuntime, user_id: UUID, phase: str) -> Observation:
    async with asyncio.timeout(15):
        while (seen := await runtime.observe(user_id, {})).phase != phase:
            await asyncio.sleep(0.01)
    return seen


async def test_an_agent_starts_answers_and_leaves_nothing_behind(docker: DockerRuntime) -> None:
    spec = a_spec()
    state = await docker.start(spec, {})
    assert await inside(docker, spec.user_id, "answer = 6 * 7") == 42
    assert (await docker.observe(spec.user_id, state)).phase == "running"
    (container,) = await containers_of(spec.user_id)
    assert container["Name"].endswith(str(spec.user_id))

    assert await docker.stop(spec.user_id, state, grace=5) == {}
    assert await containers_of(spec.user_id) == []


async def test_it_runs_under_uvloop_too(folder: Path, docker_image: str, broker: Counter) -> None:
    async def life() -> None:
        runtime = make_docker_runtime(folder, docker_image, broker)
        spec = a_spec()
        try:
            await runtime.start(spec, {})
            assert await inside(runtime, spec.user_id, "answer = 1") == 1
            await runtime.pause(spec.user_id, {})
            await runtime.resume(spec.user_id, {})
        finally:
            await runtime.close()

    def run() -> None:
        uvloop.run(life())

    await asyncio.to_thread(run)


async def test_files_outlive_the_container_and_the_configuration_is_renewed(docker: DockerRuntime) -> None:
    spec = a_spec()
    for count in (1, 2):
        await docker.start(spec, {})
        code = """
            import os
            for folder in ("/home/agent", "/home/agent/workspace", "/home/agent/state",
                           "/tmp/node-compile-cache"):
                open(folder + "/kept", "a").write("x")
            config = open(os.environ["OPENCLAW_CONFIG_PATH"]).read()
            sizes = [len(open(folder + "/kept").read()) for folder in
                     ("/home/agent", "/home/agent/workspace", "/home/agent/state", "/tmp/node-compile-cache")]
            answer = [sizes, os.listdir("/tmp"), config]
        """
        assert await inside(docker, spec.user_id, code) == [[count] * 4, ["node-compile-cache"], spec.config]
        await docker.stop(spec.user_id, {}, grace=5)


async def test_it_is_hardened_as_inspected(docker: DockerRuntime) -> None:
    spec = a_spec(slot=7, memory_bytes=256 * 1024**2, cpus=0.5, pids=64)
    await docker.start(spec, {})
    (container,) = await containers_of(spec.user_id)
    host = container["HostConfig"]
    assert host["NetworkMode"] == "none"
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert host["Privileged"] is False
    assert host["SecurityOpt"] == ["no-new-privileges"]  # and no other seccomp profile than Docker's own
    assert host["Init"] is True
    assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (256 * 1024**2, 500_000_000, 64)
    assert host["PidMode"] == ""
    assert host["IpcMode"] == "private"
    assert "nosuid" in host["Tmpfs"]["/tmp"]
    assert not host["PortBindings"]
    own = str(container["Config"]["User"])
    assert own == (
        f"{FIRST_UID + 7}:{FIRST_UID + 7}" if os.geteuid() == 0 else f"{os.getuid()}:{os.getuid()}"
    )
    writable = {one["Destination"] for one in container["Mounts"] if one["RW"]}
    assert writable == {
        "/home/agent", "/home/agent/workspace", "/home/agent/state", "/tmp/node-compile-cache",
    }  # fmt: skip
    assert all(str(spec.user_id) in one["Source"] for one in container["Mounts"])
    assert "a-very-secret-token" not in json.dumps(container)


class TestWhatAnAgentSees:
    async def test_of_the_machine_only_the_image_and_its_own_files(
        self, docker: DockerRuntime, folder: Path
    ) -> None:
        other, spec = a_spec(slot=2), a_spec()
        await docker.start(other, {})
        await docker.start(spec, {})
        theirs = folder / "data" / "agents" / str(other.user_id) / "workspace"
        code = f"""
            import os
            def attempt(path, mode="r"):
                try:
                    open(path, mode).close()
                    return True
                except OSError:
                    return False
            mounts = [line.split() for line in open("/proc/self/mountinfo")]
            answer = dict(
                theirs=os.path.exists({str(theirs)!r}),
                named=[line[3] for line in mounts if {str(other.user_id)!r} in line[3]],
                docker=[path for path in ("/var/run/docker.sock", {DOCKER_URL.removeprefix("unix://")!r})
                        if os.path.exists(path)],
                system=[path for path in ("/usr/x", "/x", "/etc/x", "/etc/passwd", "/opt/node/x",
                        "/supervisor/main.py", "/run/ocmt/x", "/home/agent/config/x", "/sys/x",
                        "/home/agent/config/openclaw.json", "/proc/sys/kernel/hostname")
                        if attempt(path, "a")],
                control=os.listdir("/run/ocmt"),
                me=[os.uname().nodename, os.getuid() != 0, os.getgroups()],
                passwd=str(os.getuid()) in open("/etc/passwd").read(),
                environment=sorted(os.environ),
            )
        """
        seen = await inside(docker, spec.user_id, code)
        assert seen["theirs"] is False
        assert seen["named"] == []
        assert seen["docker"] == []
        assert seen["system"] == []
        assert seen["control"] == []
        assert seen["me"][:2] == ["agent", True]
        assert 0 not in seen["me"][2]
        assert seen["passwd"]
        assert set(seen["environment"]) == {
            "HOME", "LANG", "LOGNAME", "OPENCLAW_CONFIG_PATH", "OPENCLAW_STATE_DIR", "PATH", "SECRET",
            "SHELL", "STAND_IN", "TMPDIR", "USER",
        }  # fmt: skip

    async def test_no_process_but_its_own(self, docker: DockerRuntime) -> None:
        spec = a_spec()
        await docker.start(spec, {})
        code = "import os; answer = [p for p in os.listdir('/proc') if p.isdigit()]"
        assert len(await inside(docker, spec.user_id, code)) <= 3

    async def test_no_network_but_the_broker(self, docker: DockerRuntime, broker: Counter) -> None:
        spec = a_spec()
        await docker.start(spec, {})
        with (
            socket.create_server(("127.0.0.1", 0)) as host,
            socket.socket(socket.AF_UNIX) as abstract,
        ):
            abstract.bind(f"\0ocmt-{spec.user_id}")
            abstract.listen()
            code = f"""
                import errno, socket
                def knock(*address):
                    try:
                        with socket.create_connection(address, 2) as connection:
                            return connection.recv(10).decode()
                    except OSError as error:
                        return errno.errorcode[error.errno]
                def abstract(name):
                    try:
                        socket.socket(socket.AF_UNIX).connect(name)
                        return "connected"
                    except OSError as error:
                        return errno.errorcode[error.errno]
                def again():
                    "Undo a connection, as that lets a socket forget where it came from, and make another."
                    import ctypes
                    with socket.create_connection(("127.0.0.1", 18990), 2) as connection:
                        ctypes.CDLL(None).connect(connection.fileno(), bytes(16), 16)
                        try:
                            connection.connect(("127.0.0.1", {host.getsockname()[1]}))
                            return "connected"
                        except OSError as error:
                            return errno.errorcode[error.errno]
                answer = dict(
                    names=[name for _, name in socket.if_nameindex()],
                    broker=knock("127.0.0.1", 18990),
                    egress=knock("127.0.0.1", 18991),
                    host=knock("127.0.0.1", {host.getsockname()[1]}),
                    metadata=knock("169.254.169.254", 80),
                    bridge=knock("172.17.0.1", 80),
                    outside=knock("192.0.2.1", 80),
                    abstract=abstract("\\0ocmt-{spec.user_id}"),
                    again=again(),
                )
            """
            seen = await inside(docker, spec.user_id, code)
        assert seen == {
            "names": ["lo"],
            "broker": "hello",
            "egress": "ECONNREFUSED",
            "host": "ECONNREFUSED",
            "metadata": "ENETUNREACH",
            "bridge": "ENETUNREACH",
            "outside": "ENETUNREACH",
            "abstract": "ECONNREFUSED",
            "again": "ECONNREFUSED",
        }
        assert {user_id for user_id, _ in broker.listeners} == {spec.user_id}

    async def test_no_way_to_more_rights(self, docker: DockerRuntime) -> None:
        spec = a_spec()
        await docker.start(spec, {})
        code = """
            import ctypes, errno, os, socket
            libc = ctypes.CDLL(None, use_errno=True)
            def call(number, *arguments):
                ctypes.set_errno(0)
                libc.syscall(number, *map(ctypes.c_long, arguments))  # of an int only half is written
                return errno.errorcode.get(ctypes.get_errno(), "done")
            supervisor = os.getppid()
            def attempt(function, *arguments):
                try:
                    function(*arguments)
                    return "done"
                except OSError as error:
                    return errno.errorcode[error.errno]
            status = dict(line.split(":", 1) for line in open("/proc/self/status"))
            x86 = os.uname().machine == "x86_64"
            answer = dict(
                unshare=call(272 if x86 else 97, 0x10000000),
                clone=call(56 if x86 else 220, 0x10000000 | 17, 0, 0, 0, 0),
                clone3=call(435, 0, 0),
                keyctl=call(250 if x86 else 219, 0, 0),
                vsock=attempt(socket.socket, 40, socket.SOCK_STREAM),
                packet=attempt(socket.socket, 17, socket.SOCK_RAW),
                supervisor_descriptors=attempt(os.listdir, f"/proc/{supervisor}/fd"),
                supervisor_memory=attempt(open, f"/proc/{supervisor}/mem"),
                capabilities=[int(status[name], 16) for name in ("CapPrm", "CapEff", "CapInh", "CapBnd")],
                no_new_privileges=int(status["NoNewPrivs"]),
            )
        """
        assert await inside(docker, spec.user_id, code) == {
            "unshare": "EPERM",
            "clone": "EPERM",
            "clone3": "ENOSYS",
            "keyctl": "EPERM",
            "vsock": "EAFNOSUPPORT",
            "packet": "EAFNOSUPPORT",
            "supervisor_descriptors": "EACCES",
            "supervisor_memory": "EACCES",
            "capabilities": [0, 0, 0, 0],
            "no_new_privileges": 1,
        }

    @as_root
    async def test_nobody_else_on_the_machine_comes_to_its_files(
        self, docker: DockerRuntime, folder: Path
    ) -> None:
        spec = a_spec(slot=3)
        await docker.start(spec, {})
        await inside(docker, spec.user_id, "open('/home/agent/workspace/mine', 'w'); answer = 1")
        root = folder / "data" / "agents" / str(spec.user_id)
        assert (root / "workspace" / "mine").stat().st_uid == FIRST_UID + 3
        assert root.stat().st_mode & 0o007 == 0
        assert root.stat().st_gid == FIRST_UID + 3


class TestLimits:
    async def test_a_fork_bomb_stays_in_its_container(self, docker: DockerRuntime) -> None:
        spec = a_spec(pids=24)
        await docker.start(spec, {})
        code = """
            import os, time
            answer = 0
            for _ in range(200):
                try:
                    child = os.fork()
                except OSError:
                    break
                if not child:
                    time.sleep(600)
                answer += 1
        """
        assert 0 < await inside(docker, spec.user_id, code) < 24
        await docker.stop(spec.user_id, {}, grace=0.5)
        assert await containers_of(spec.user_id) == []

    async def test_a_memory_bomb_ends_in_its_container(self, docker: DockerRuntime) -> None:
        spec = a_spec(memory_bytes=64 * 1024**2)
        await docker.start(spec, {})
        code = """
            import subprocess
            bomb = "x = [bytearray(8 * 1024**2) for _ in range(100)]"
            answer = subprocess.run(["/usr/bin/python3", "-c", bomb]).returncode
        """
        try:
            assert await inside(docker, spec.user_id, code) == -signal.SIGKILL
        except (json.JSONDecodeError, ConnectionError):  # the kernel chose the gateway: also the agent's own
            assert (await until(docker, spec.user_id, "exited")).exit_code == 137

    async def test_tmp_has_a_bound(self, docker: DockerRuntime) -> None:
        spec = a_spec()
        await docker.start(spec, {})
        code = "import os; s = os.statvfs('/tmp'); answer = s.f_blocks * s.f_frsize"
        assert await inside(docker, spec.user_id, code) == 256 * 1024**2


class TestTheEnd:
    async def test_of_one_that_has_ended_no_container_is_left(self, docker: DockerRuntime) -> None:
        spec = a_spec("exit 78")
        await docker.start(spec, {})
        assert (await until(docker, spec.user_id, "exited")).exit_code == 78
        assert await containers_of(spec.user_id) == []

    async def test_who_ignores_the_request_is_killed(self, docker: DockerRuntime) -> None:
        spec = a_spec("stubborn")
        await docker.start(spec, {})
        await inside(
            docker,
            spec.user_id,
            "import subprocess; subprocess.Popen(['setsid', 'sleep', '600']); answer = 1",
        )
        began = time.monotonic()
        await docker.stop(spec.user_id, {}, grace=0.3)
        assert time.monotonic() - began < 4
        assert await containers_of(spec.user_id) == []

    async def test_who_is_removed_behind_our_back_has_ended(self, docker: DockerRuntime) -> None:
        spec = a_spec()
        await docker.start(spec, {})
        await (await connect_open(docker, spec.user_id))()
        (container,) = await containers_of(spec.user_id)
        async with aiodocker.Docker(DOCKER_URL) as client:
            await client.containers.container(container["Id"]).delete(force=True)
        assert (await until(docker, spec.user_id, "exited")).exit_code == 137
        await docker.start(spec, {})
        assert await inside(docker, spec.user_id, "answer = 2") == 2

    async def test_several_end_together(self, docker: DockerRuntime) -> None:
        specs = [a_spec("stubborn", slot=slot) for slot in (1, 2, 3)]
        await asyncio.gather(*(docker.start(spec, {}) for spec in specs))
        for spec in specs:
            await inside(docker, spec.user_id, "answer = 1")
        began = time.monotonic()
        await docker.close()
        assert time.monotonic() - began < 8
        for spec in specs:
            assert await containers_of(spec.user_id) == []
        with pytest.raises(Unavailable):
            await docker.start(specs[0], {})

    async def test_agents_end_with_a_platform_that_was_killed_the_frozen_at_its_next_start(
        self, folder: Path, docker_image: str, broker: Counter
    ) -> None:
        """A platform of its own is started, with a running and a paused agent, and killed."""
        with subprocess.Popen(
            [sys.executable, "-m", "tests.runtimes.docker_to_kill", str(folder), docker_image],
            stdout=subprocess.PIPE,
            text=True,
        ) as platform:
            assert platform.stdout is not None
            running, paused = map(UUID, (await asyncio.to_thread(platform.stdout.readline)).split())
            platform.send_signal(signal.SIGKILL)
        async with asyncio.timeout(10):
            while (await containers_of(running))[0]["State"]["Running"]:
                await asyncio.sleep(0.02)
        assert (await containers_of(paused))[0]["State"]["Paused"]
        next_run = make_docker_runtime(folder, docker_image, broker)
        await next_run.probe()
        assert await containers_of(running) == await containers_of(paused) == []
        await next_run.close()


async def connect_open(runtime: DockerRuntime, user_id: UUID) -> Any:
    """Wait until the gateway listens; returns what closes the connection."""
    connection = await connect(runtime, user_id)

    async def close() -> None:
        connection.close()

    return close


class TestDialling:
    async def test_an_agent_whose_container_is_being_made(self, docker: DockerRuntime) -> None:
        await docker.probe()
        spec = a_spec()
        starting = asyncio.create_task(docker.start(spec, {}))
        while (await docker.observe(spec.user_id, {})).phase == "absent":
            await asyncio.sleep(0)
        assert (await docker.observe(spec.user_id, {})).step == "sandbox"
        with pytest.raises(NotYet):
            await docker.dial(spec.user_id, {})
        await starting


class TestPausing:
    async def test_a_paused_agent_can_be_stopped(self, docker: DockerRuntime) -> None:
        spec = a_spec()
        await docker.start(spec, {})
        await docker.pause(spec.user_id, {})
        await docker.stop(spec.user_id, {}, grace=5)
        assert await containers_of(spec.user_id) == []


class Cable:
    """A way to the daemon that can be cut."""

    def __init__(self, path: Path) -> None:
        self.url = f"unix://{path}"
        self._path = path
        self._cut = False
        self._open: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Cable:
        self._server = await asyncio.start_unix_server(self._pass, self._path)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        self._server.close()
        await self._server.wait_closed()

    def cut(self) -> None:
        self._cut = True
        for writer in self._open:
            writer.close()

    def mend(self) -> None:
        self._cut = False

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut:
            writer.close()
            return
        there, back = await asyncio.open_unix_connection(DOCKER_URL.removeprefix("unix://"))
        self._open |= {writer, back}
        await asyncio.gather(self._copy(reader, back), self._copy(there, writer))
        self._open -= {writer, back}

    async def _copy(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                target.write(data)
                await target.drain()
        except ConnectionError:
            return
        finally:
            target.close()


class TestADaemonThatGoesAway:
    @pytest.fixture
    async def cable(self, folder: Path, docker_image: str) -> AsyncIterator[Cable]:
        async with Cable(folder / "cable") as cable:
            yield cable

    async def test_an_agent_goes_on_and_is_not_taken_for_ended(
        self,
        folder: Path,
        docker_image: str,
        broker: Counter,
        cable: Cable,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(docker_module, "END_LIMIT", 0.3)
        runtime = make_docker_runtime(folder, docker_image, broker, url=cable.url)
        spec = a_spec()
        await runtime.start(spec, {})
        await inside(runtime, spec.user_id, "answer = 1")
        cable.cut()
        assert await inside(runtime, spec.user_id, "answer = 2") == 2
        with pytest.raises(Unavailable):
            await runtime.pause(spec.user_id, {})
        await runtime.resume(spec.user_id, {})
        assert await inside(runtime, spec.user_id, "answer = 3") == 3
        with pytest.raises(Unavailable):
            await runtime.stop(spec.user_id, {}, grace=0.2)
        assert (await runtime.observe(spec.user_id, {})).phase != "absent"
        cable.mend()
        async with asyncio.timeout(10):
            while (await runtime.observe(spec.user_id, {})).phase != "exited":
                await asyncio.sleep(0.01)
        assert await runtime.stop(spec.user_id, {}, grace=0.2) == {}
        assert await containers_of(spec.user_id) == []
        await runtime.close()

    async def test_a_platform_can_end_without_it(
        self, folder: Path, docker_image: str, broker: Counter, cable: Cable
    ) -> None:
        runtime = make_docker_runtime(folder, docker_image, broker, url=cable.url)
        spec = a_spec("stubborn")
        await runtime.start(spec, {})
        cable.cut()
        began = time.monotonic()
        await runtime.close()
        assert time.monotonic() - began < 8
        cable.mend()
        next_run = make_docker_runtime(folder, docker_image, broker, url=cable.url)
        await next_run.probe()
        assert await containers_of(spec.user_id) == []
        await next_run.close()


async def test_the_level_is_found_by_running_a_container(docker: DockerRuntime) -> None:
    isolation = await docker.probe()
    assert isolation.level == "docker"
    assert isolation.is_boundary
    assert any("no network" in line for line in isolation.guarantees)
    assert any("second filter" in line for line in isolation.guarantees)
    assert isolation is await docker.probe()


async def test_an_image_of_another_version_is_said_in_one_line(
    docker: DockerRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervised, "PROTOCOL", -1)
    with pytest.raises(SetupProblem, match="build it again"):
        await docker.probe()


async def test_a_missing_image_is_said_in_one_line(folder: Path, docker_image: str, broker: Counter) -> None:
    runtime = make_docker_runtime(folder, "ocmt-test-never", broker)
    with pytest.raises(SetupProblem, match="docker build -t ocmt-test-never") as caught:
        await runtime.probe()
    assert "\n" not in caught.value.message
    await runtime.close()
