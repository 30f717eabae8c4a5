"""Agents in real sandboxes: they start, answer, are held still, end without a trace, and cannot get out."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest
import uvloop

from ocmt.errors import Unavailable
from ocmt.runtimes import paging, sandbox
from ocmt.runtimes.bubblewrap import View
from ocmt.runtimes.processes import descendants
from ocmt.runtimes.sandbox import SandboxRuntime
from ocmt.runtimes.tools import Tools

from .conftest import Counter, a_spec, connect, inside, make_runtime

pytestmark = [pytest.mark.anyio, pytest.mark.sandbox]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can set hard limits")


def alive(pids: set[int]) -> set[int]:
    return {pid for pid in pids if is_alive(pid)}


@pytest.fixture
def started() -> Callable[[], set[int]]:
    """The processes that this test has started. The test run has others, its database server for one."""
    before = set(descendants(os.getpid()))
    return lambda: set(descendants(os.getpid())) - before


async def everything_ends_with_a_killed_platform(folder: Path, tools: Tools, *what: str) -> None:
    """A platform of its own is started and killed. `what`: see platform_to_kill."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.runtimes.platform_to_kill", str(folder), str(tools.bwrap), *what],
        stdout=subprocess.PIPE,
        text=True,
    ) as platform:
        assert platform.stdout is not None
        assert await asyncio.to_thread(platform.stdout.readline) == "running\n"
        processes = descendants(platform.pid)
        assert len(processes) >= 4
        platform.send_signal(signal.SIGKILL)
    async with asyncio.timeout(5):
        while alive(processes):
            await asyncio.sleep(0.01)


def is_alive(pid: int) -> bool:
    """A zombie is not: it waits for whatever is process 1 of this machine."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_an_agent_starts_answers_and_leaves_nothing_behind(
    runtime: SandboxRuntime, started: Callable[[], set[int]]
) -> None:
    spec = a_spec()
    assert (await runtime.observe(spec.user_id, {})).phase == "absent"

    state = await runtime.start(spec, {})
    assert await inside(runtime, spec.user_id, "answer = 6 * 7") == 42
    assert (await runtime.observe(spec.user_id, state)).phase == "running"
    processes = started()
    assert processes

    assert await runtime.stop(spec.user_id, state, grace=5) == {}
    assert (await runtime.observe(spec.user_id, state)).phase == "absent"
    assert not alive(processes)


async def test_it_runs_under_uvloop_too(folder: Path, tools: Tools, broker: Counter, view: View) -> None:
    async def life() -> None:
        runtime = make_runtime(folder, tools, broker, view)
        spec = a_spec()
        await runtime.start(spec, {})
        assert await inside(runtime, spec.user_id, "answer = 1") == 1
        await runtime.pause(spec.user_id, {})
        await runtime.resume(spec.user_id, {})
        await runtime.close()

    def run() -> None:
        uvloop.run(life())

    await asyncio.to_thread(run)


async def test_starting_and_stopping_twice_changes_nothing(runtime: SandboxRuntime) -> None:
    spec = a_spec()
    first = await runtime.start(spec, {})
    assert await runtime.start(spec, {}) == first
    await runtime.stop(spec.user_id, first, grace=5)
    assert await runtime.stop(spec.user_id, first, grace=5) == {}


async def test_files_outlive_the_sandbox_and_the_configuration_is_renewed(runtime: SandboxRuntime) -> None:
    spec = a_spec()
    for count in (1, 2):
        await runtime.start(spec, {})
        code = """
            import os
            for folder in ("/home/agent", "/home/agent/workspace", "/home/agent/state", "/tmp"):
                open(folder + "/kept", "a").write("x")
            config = open(os.environ["OPENCLAW_CONFIG_PATH"]).read()
            answer = [open("/home/agent/workspace/kept").read(), config]
        """
        assert await inside(runtime, spec.user_id, code) == ["x" * count, spec.config]
        await runtime.stop(spec.user_id, {}, grace=5)


class TestWhatAnAgentSees:
    async def test_of_the_machine_only_programs_and_its_own_files(
        self, runtime: SandboxRuntime, folder: Path
    ) -> None:
        (folder / "private").write_text("of another tenant")
        spec = a_spec()
        await runtime.start(spec, {})
        code = f"""
            import os
            def attempt(path, mode="r"):
                try:
                    open(path, mode).close()
                    return True
                except OSError:
                    return False
            answer = dict(
                roots=sorted(set(os.listdir("/")) - {{"lib32", "libx32"}}),
                private=attempt({str(folder / "private")!r}),
                shadow=attempt("/etc/shadow"),
                sys=os.path.exists("/sys"),
                system=[path for path in ("/usr/x", "/x", "/etc/x", "/dev/x", "/opt/node/x", "/supervisor/x",
                        "/home/agent/config/x", "/home/agent/config/openclaw.json") if attempt(path, "a")],
                name=(os.uname().nodename, os.getuid(), os.getgid(), os.getgroups()),
                environment=sorted(os.environ),
            )
        """
        seen = await inside(runtime, spec.user_id, code)
        assert {"usr", "bin", "lib", "etc", "proc", "dev", "tmp", "home", "opt"} <= set(seen["roots"])
        assert not {"work", "srv", "media", "mnt", "boot"} & set(seen["roots"])
        assert not seen["private"]
        assert not seen["shadow"]
        assert not seen["sys"]
        assert seen["system"] == []
        name, uid, gid, groups = seen["name"]
        assert (name, uid, gid) == ("agent", 1000, 1000)
        assert set(groups) <= {1000, 65534}
        assert set(seen["environment"]) == {
            "HOME", "LANG", "LOGNAME", "OPENCLAW_CONFIG_PATH", "OPENCLAW_STATE_DIR", "PATH", "SECRET",
            "SHELL", "STAND_IN", "TMPDIR", "USER",
        }  # fmt: skip

    async def test_no_process_but_its_own(self, runtime: SandboxRuntime) -> None:
        spec = a_spec()
        await runtime.start(spec, {})
        seen = await inside(
            runtime, spec.user_id, "import os; answer = [p for p in os.listdir('/proc') if p.isdigit()]"
        )
        assert len(seen) <= 3

    async def test_no_network_but_the_broker(self, runtime: SandboxRuntime, broker: Counter) -> None:
        spec = a_spec()
        await runtime.start(spec, {})
        code = """
            import socket
            def knock(*address):
                try:
                    with socket.create_connection(address, 2) as connection:
                        return connection.recv(10).decode()
                except OSError as error:
                    return error.strerror
            answer = [
                [name for _, name in socket.if_nameindex()],
                knock("127.0.0.1", 18990),
                knock("127.0.0.1", 18991),
                knock("192.0.2.1", 80),
            ]
        """
        names, by_broker, by_egress, outside = await inside(runtime, spec.user_id, code)
        assert names == ["lo"]
        assert by_broker == "hello"
        assert by_egress == "Connection refused"
        assert outside == "Network is unreachable"
        assert broker.knocks == 1
        assert [user_id for user_id, _ in broker.listeners] == [spec.user_id]

    async def test_no_way_to_more_rights(self, runtime: SandboxRuntime) -> None:
        spec = a_spec()
        await runtime.start(spec, {})
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
                disguised=call(41 if x86 else 198, (1 << 32) | 40, 1, 0),
                packet=attempt(socket.socket, 17, socket.SOCK_RAW),
                trace_supervisor=call(101 if x86 else 117, 16, supervisor, 0, 0),
                supervisor_descriptors=attempt(os.listdir, f"/proc/{supervisor}/fd"),
                supervisor_memory=attempt(open, f"/proc/{supervisor}/mem"),
                capabilities=[int(status[name], 16) for name in ("CapPrm", "CapEff", "CapInh", "CapBnd")],
            )
        """
        assert await inside(runtime, spec.user_id, code) == {
            "unshare": "EPERM",
            "clone": "EPERM",
            "clone3": "ENOSYS",
            "keyctl": "EPERM",
            "vsock": "EAFNOSUPPORT",
            "disguised": "EAFNOSUPPORT",
            "packet": "EAFNOSUPPORT",
            "trace_supervisor": "EPERM",
            "supervisor_descriptors": "EACCES",
            "supervisor_memory": "EACCES",
            "capabilities": [0, 0, 0, 0],
        }

    async def test_tools_that_agents_need_work(self, runtime: SandboxRuntime) -> None:
        spec = a_spec()
        await runtime.start(spec, {})
        code = """
            import subprocess
            script = '''
                set -e
                cd /home/agent/workspace && echo hello > hello.txt && test "$(id -un)" = agent
                if command -v git > /dev/null; then git init -q . && git add . ; fi
                if command -v python3 > /dev/null; then python3 -c "import os; os.system('true')"; fi
                sleep 0 & wait; cat hello.txt | tr a-z A-Z
            '''
            done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
            answer = [done.returncode, done.stdout, done.stderr]
        """
        code, output, faults = await inside(runtime, spec.user_id, code)
        assert (code, output) == (0, "HELLO\n"), faults


async def test_secrets_are_on_no_command_line_and_in_no_environment_of_the_host(
    runtime: SandboxRuntime,
    started: Callable[[], set[int]],
) -> None:
    spec = a_spec()
    await runtime.start(spec, {})
    await inside(runtime, spec.user_id, "answer = 1")
    tree = sorted(started())
    commands = b"".join(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in tree)
    assert b"bwrap" in commands
    assert b"a-very-secret-token" not in commands
    launcher = next(pid for pid in tree if b"bwrap" in Path(f"/proc/{pid}/cmdline").read_bytes())
    environment = Path(f"/proc/{launcher}/environ").read_bytes()
    assert [entry.split(b"=")[0] for entry in environment.split(b"\0") if entry] in (
        [b"PATH"],
        [b"PATH", b"PWD"],
    )


class TestTheEnd:
    async def test_who_ignores_the_request_is_killed_with_all_its_daemons(
        self, runtime: SandboxRuntime, started: Callable[[], set[int]]
    ) -> None:
        spec = a_spec("stubborn")
        await runtime.start(spec, {})
        daemon = "import subprocess; subprocess.Popen(['setsid', 'sleep', '600']); answer = 1"
        await inside(runtime, spec.user_id, daemon)
        processes = started()
        began = time.monotonic()
        await runtime.stop(spec.user_id, {}, grace=0.3)
        assert time.monotonic() - began < 3
        assert not alive(processes)

    async def test_several_end_together(
        self, runtime: SandboxRuntime, started: Callable[[], set[int]]
    ) -> None:
        specs = [a_spec("stubborn", slot=slot) for slot in (1, 2, 3)]
        for spec in specs:
            await runtime.start(spec, {})
            await connect_and_close(runtime, spec.user_id)
        processes = started()
        began = time.monotonic()
        await runtime.close()
        assert time.monotonic() - began < 8
        assert not alive(processes)
        with pytest.raises(Unavailable):
            await runtime.start(specs[0], {})

    async def test_agents_end_with_a_platform_that_was_killed(self, folder: Path, tools: Tools) -> None:
        """With an agent that would ignore every request."""
        await everything_ends_with_a_killed_platform(folder, tools)


async def connect_and_close(runtime: SandboxRuntime, user_id: object) -> None:
    (await connect(runtime, user_id)).close()  # type: ignore[arg-type]


class TestPausing:
    async def test_a_paused_agent_can_be_stopped(
        self, runtime: SandboxRuntime, started: Callable[[], set[int]]
    ) -> None:
        spec = a_spec()
        await runtime.start(spec, {})
        await runtime.pause(spec.user_id, {})
        processes = started()
        await runtime.stop(spec.user_id, {}, grace=5)
        assert not alive(processes)

    async def test_an_agent_that_does_not_hold_still_goes_on(
        self, runtime: SandboxRuntime, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def for_ever(*_: object) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(sandbox, "PAUSE_TIMEOUT", 0.05)
        monkeypatch.setattr(sandbox, "stop_tree", for_ever)
        spec = a_spec()
        await runtime.start(spec, {})
        with pytest.raises(Unavailable):
            await runtime.pause(spec.user_id, {})
        assert await inside(runtime, spec.user_id, "answer = 1") == 1

    async def test_one_that_was_paged_out_goes_on(self, runtime: SandboxRuntime) -> None:
        if os.geteuid() != 0 or paging.room_in_swap() == 0:
            pytest.skip("paging out takes root and a machine with free swap")
        spec = a_spec(memory_bytes=512 * 1024**2)
        await runtime.start(spec, {})
        await inside(runtime, spec.user_id, "answer = 1")
        assert not await runtime.page_out(spec.user_id, {}), "only a paused one"
        await runtime.pause(spec.user_id, {})
        assert await runtime.page_out(spec.user_id, {})
        await runtime.resume(spec.user_id, {})
        assert await inside(runtime, spec.user_id, "answer = 2") == 2


def folder_of(runtime: SandboxRuntime, user_id: object) -> Path:
    return runtime._data / "agents" / str(user_id)


class TestLimits:
    async def test_processes(self, runtime: SandboxRuntime) -> None:
        spec = a_spec(pids=40)
        await runtime.start(spec, {})
        code = """
            import subprocess
            started = []
            try:
                for _ in range(60):
                    started.append(subprocess.Popen(["sleep", "60"]))
                answer = "no limit"
            except OSError as error:
                answer = error.strerror
            for process in started:
                process.kill()
        """
        assert await inside(runtime, spec.user_id, code) == "Resource temporarily unavailable"

    @as_root
    async def test_memory(self, runtime: SandboxRuntime) -> None:
        spec = a_spec(memory_bytes=96 * 1024**2)
        await runtime.start(spec, {})
        code = """
            import subprocess
            done = subprocess.run(["sh", "-c", "head -c 300m /dev/zero | tail"], capture_output=True)
            answer = done.returncode
        """
        assert await inside(runtime, spec.user_id, code) != 0

    @as_root
    async def test_every_agent_has_a_host_uid_of_its_own(self, runtime: SandboxRuntime) -> None:
        uids = set()
        for slot in (1, 2):
            spec = a_spec(slot=slot)
            await runtime.start(spec, {})
            await inside(runtime, spec.user_id, "open('/home/agent/workspace/mine', 'w').close()")
            uids.add((folder_of(runtime, spec.user_id) / "workspace" / "mine").stat().st_uid)
        assert uids == {0x70000001, 0x70000002}

    async def test_output_is_bounded_and_its_end_kept(self, runtime: SandboxRuntime) -> None:
        spec = a_spec("chatty")
        await runtime.start(spec, {})
        logs = runtime._folder(spec.user_id, spec.slot).logs
        async with asyncio.timeout(20):
            while not (logs / "gateway.log.1").exists():
                await asyncio.sleep(0.05)
        assert sum(file.stat().st_size for file in logs.iterdir()) < 9 * 1024**2
        assert (await runtime.logs(spec.user_id, {}, lines=1)).startswith("xxx")


async def expect_jobs(runtime: SandboxRuntime, user_id: UUID, names: list[str]) -> None:
    """Wait until these programs are what runs: a shell that starts one has its own name for a moment."""
    async with asyncio.timeout(10):
        while await runtime.jobs(user_id) != names:
            await asyncio.sleep(0.02)


class TestWhatItLeavesRunning:
    """Programs outside of the gateway's own tree, however they got there."""

    @pytest.mark.parametrize(
        "command",
        [
            "setsid nohup sleep 600 >/dev/null 2>&1 &",
            "nohup sleep 600 >/dev/null 2>&1 &",
            "setsid -f sleep 600",
            "(sleep 600 &)",
            "sh -c 'setsid sh -c \"sleep 600; true\" &'",
        ],
    )
    async def test_a_detached_program_is_seen_until_it_ends(
        self, command: str, runtime: SandboxRuntime
    ) -> None:
        spec = a_spec()
        await runtime.start(spec, {})
        assert await runtime.jobs(spec.user_id) == []
        code = f"import subprocess; subprocess.run({command!r}, shell=True); answer = 1"
        await inside(runtime, spec.user_id, code)
        names = await runtime.jobs(spec.user_id)
        assert len(names) == 1
        assert names[0] in ("sleep", "sh", "setsid", "nohup")
        await runtime.pause(spec.user_id, {})
        assert len(await runtime.jobs(spec.user_id)) == 1
        await runtime.resume(spec.user_id, {})
        await inside(
            runtime, spec.user_id, "import subprocess; answer = subprocess.call(['pkill', '-f', 'sleep 600'])"
        )
        async with asyncio.timeout(5):
            while await runtime.jobs(spec.user_id):
                await asyncio.sleep(0.01)

    async def test_what_the_gateway_itself_runs_is_none_of_them(self, runtime: SandboxRuntime) -> None:
        spec = a_spec()
        await runtime.start(spec, {})
        code = "import subprocess; subprocess.Popen(['sleep', '600'], start_new_session=True); answer = 1"
        await inside(runtime, spec.user_id, code)
        assert await runtime.jobs(spec.user_id) == []

    async def test_a_name_is_made_harmless(self, runtime: SandboxRuntime) -> None:
        spec = a_spec()
        await runtime.start(spec, {})
        code = r"""
            import os, shutil, subprocess
            program = "/home/agent/<b>\n\x1b[2J"
            shutil.copy("/usr/bin/sleep", program)
            subprocess.run(["sh", "-c", '"$0" 600 &', program]); answer = 1
        """
        await inside(runtime, spec.user_id, code)
        await expect_jobs(runtime, spec.user_id, ["b2J"])

    async def test_nobody_who_does_not_run_has_any(self, runtime: SandboxRuntime) -> None:
        assert await runtime.jobs(a_spec().user_id) == []
