"""Warm spares: a wake takes one, nobody finds anything of another in it, and whatever is wrong with it,
the agent starts all the same. Real sandboxes, with a stand-in for Node that waits as `spare.mjs` does.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ocmt.runtimes import spares
from ocmt.runtimes.bubblewrap import View
from ocmt.runtimes.folders import FIRST_UID
from ocmt.runtimes.processes import descendants
from ocmt.runtimes.sandbox import SandboxRuntime
from ocmt.runtimes.tools import Tools

from .conftest import Counter, a_spec, inside, make_runtime
from .test_sandbox import alive, everything_ends_with_a_killed_platform
from .warm import a_recipe, ready

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.sandbox,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount into a sandbox that runs already"),
]
Warm = Callable[..., Awaitable[SandboxRuntime]]
HOW = "import os; answer = os.environ.get('STAND_IN', '').split()[-1:] == ['warm']"
"""Whether the agent that answers came out of a spare."""


@pytest.fixture
async def warm(
    folder: Path, tools: Tools, broker: Counter, view: View, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Warm]:
    """Makes the runtime with spares that wait already."""
    monkeypatch.setattr(spares, "CALM", 0.0)
    made: list[SandboxRuntime] = []

    async def make(mode: str = "", *, count: int = 1) -> SandboxRuntime:
        runtime = make_runtime(folder, tools, broker, view, a_recipe(folder, tools, mode, count=count))
        made.append(runtime)
        await ready(runtime, count)
        return runtime

    yield make
    for runtime in made:
        await runtime.close()


def spare_folders(folder: Path) -> list[str]:
    return [path.name for path in (folder / "data" / "agents" / ".spares").iterdir() if path.is_dir()]


async def test_there_are_none_unless_they_are_asked_for(runtime: SandboxRuntime, folder: Path) -> None:
    spec = a_spec()
    await runtime.start(spec, {})
    assert await inside(runtime, spec.user_id, HOW) is False
    assert len(runtime.spares.waiting) == 0
    assert not (folder / "data" / "agents" / ".spares").exists()


class TestAWakeFromASpare:
    async def test_finds_the_agents_own_files_environment_and_place(
        self, warm: Warm, broker: Counter
    ) -> None:
        runtime = await warm()
        spec = a_spec()
        await runtime.start(spec, {})
        code = """
            import os, socket
            for folder in ("/home/agent", "/home/agent/workspace", "/home/agent/state", "/tmp"):
                open(folder + "/kept", "a").write("x")
            with socket.create_connection(("127.0.0.1", 18990), 2) as connection:
                greeting = connection.recv(10).decode()
            answer = dict(
                warm=os.environ["STAND_IN"].split(),
                secret=os.environ["SECRET"],
                directory=os.getcwd(),
                config=open(os.environ["OPENCLAW_CONFIG_PATH"]).read(),
                identity=(os.getuid(), os.getgid()),
                greeting=greeting,
            )
        """
        seen = await inside(runtime, spec.user_id, code)
        assert seen == {
            "warm": ["warm"],
            "secret": spec.environment["SECRET"],
            "directory": "/home/agent/workspace",
            "config": spec.config,
            "identity": [1000, 1000],
            "greeting": "hello",
        }
        assert [user_id for user_id, _ in broker.listeners] == [spec.user_id]

    async def test_leaves_the_files_to_their_owner_on_the_disk(self, warm: Warm, folder: Path) -> None:
        runtime = await warm()
        spec = a_spec(slot=7)
        await runtime.start(spec, {})
        await inside(runtime, spec.user_id, "answer = open('/home/agent/workspace/new', 'w').write('x')")
        root = folder / "data" / "agents" / str(spec.user_id)
        assert (root / "workspace" / "new").stat().st_uid == FIRST_UID + 7
        await runtime.stop(spec.user_id, {}, grace=5)

        plain = replace(spec, repair=True)  # whose start never takes a spare
        await runtime.start(plain, {})
        code = """
            import os
            path = "/home/agent/workspace/new"
            answer = [open(path).read(), os.access(path, os.W_OK)]
        """
        assert await inside(runtime, spec.user_id, code) == ["x", True]

    async def test_may_no_more_than_one_without(self, warm: Warm) -> None:
        runtime = await warm()
        spec = a_spec(disk_bytes=1024**3, pids=100)
        await runtime.start(spec, {})
        code = """
            import os, resource
            def attempt(path):
                try:
                    open(path, "a").close()
                    return True
                except OSError:
                    return False
            mounts = {line.split()[1]: line.split()[3].split(",") for line in open("/proc/mounts")}
            status = dict(line.split(":", 1) for line in open("/proc/self/status"))
            answer = dict(
                written=[path for path in ("/usr/x", "/x", "/etc/x", "/dev/x", "/supervisor/spare.mjs",
                         "/supervisor/plan.json", "/home/agent/config/x", "/home/agent/config/openclaw.json")
                         if attempt(path)],
                loose=[path for path in mounts if path.startswith(("/home", "/tmp"))
                       and not {"nosuid", "nodev"} <= set(mounts[path])],
                rights=(int(status["CapEff"], 16), int(status["NoNewPrivs"]), int(status["Seccomp"])),
                largest=resource.getrlimit(resource.RLIMIT_FSIZE),
                processes=resource.getrlimit(resource.RLIMIT_NPROC)[1],
            )
        """
        seen = await inside(runtime, spec.user_id, code)
        assert seen["written"] == seen["loose"] == []
        assert seen["rights"] == [0, 1, 2]
        assert seen["largest"] == [1024**3, 1024**3]
        assert seen["processes"] == 100

    async def test_may_have_more_memory_than_the_spare_had(self, warm: Warm) -> None:
        runtime = await warm()
        spec = a_spec(memory_bytes=4 * 1024**3)
        await runtime.start(spec, {})
        assert await inside(runtime, spec.user_id, HOW) is True

    async def test_can_be_held_still_and_go_on(self, warm: Warm) -> None:
        runtime = await warm()
        spec = a_spec()
        await runtime.start(spec, {})
        await runtime.pause(spec.user_id, {})
        assert (await runtime.observe(spec.user_id, {})).phase == "paused"
        await runtime.resume(spec.user_id, {})
        assert await inside(runtime, spec.user_id, HOW) is True


class TestNoTraceOfOneInAnother:
    async def test_a_spare_holds_nothing_of_anybody(self, warm: Warm) -> None:
        """Not even of the user who was served before it was made."""
        runtime = await warm()
        spec = a_spec()
        state = await runtime.start(spec, {})
        await inside(runtime, spec.user_id, "answer = open('/tmp/secret', 'w').write('of the first')")
        await ready(runtime)
        marks = (str(spec.user_id), spec.environment["SECRET"], "of the first")
        of_the_agent = descendants(state["pid"])
        waiting = descendants(os.getpid()) - of_the_agent
        seen = 0
        for pid in waiting:
            command, *others = (
                Path(f"/proc/{pid}/{name}").read_text() for name in ("cmdline", "environ", "mountinfo")
            )
            if "/supervisor/spare.mjs" in command and "bwrap" not in command:
                seen += 1
                assert not [mark for mark in marks if mark in "".join((command, *others))]
        assert seen == 1

    async def test_two_users_one_after_the_other_see_only_their_own(self, warm: Warm, folder: Path) -> None:
        runtime = await warm()
        first, second = a_spec(slot=1), a_spec(slot=2)
        await runtime.start(first, {})
        write = """
            for folder in ("/home/agent", "/home/agent/workspace", "/home/agent/state", "/tmp", "/dev/shm"):
                open(folder + "/of-the-first", "w").write("secret")
            answer = 1
        """
        await inside(runtime, first.user_id, write)
        await runtime.stop(first.user_id, {}, grace=5)
        await ready(runtime)
        await runtime.start(second, {})
        look = """
            import os
            found = []
            for top in ("/home", "/tmp", "/dev/shm", "/run", "/var"):
                for folder, folders, files in os.walk(top):
                    found += [os.path.join(folder, name) for name in files]
            answer = sorted(found), sorted(os.environ), [p for p in os.listdir("/proc") if p.isdigit()]
        """
        files, names, processes = await inside(runtime, second.user_id, look)
        assert files == ["/home/agent/config/openclaw.json"]
        assert "SWITCH" not in names
        assert len(processes) <= 3

    async def test_two_at_once_have_different_users_on_this_machine(self, warm: Warm) -> None:
        runtime = await warm(count=2)
        specs = [a_spec(slot=1), a_spec(slot=2)]
        owners = set()
        for spec in specs:
            state = await runtime.start(spec, {})
            assert await inside(runtime, spec.user_id, HOW) is True
            inner = max(descendants(state["pid"]))
            owners.add(Path(f"/proc/{inner}").stat().st_uid)
        assert len(owners) == 2
        assert not owners & {0, FIRST_UID + 1, FIRST_UID + 2}

    async def test_nothing_of_it_is_left_at_the_end(self, warm: Warm, folder: Path) -> None:
        runtime = await warm(count=2)
        processes = {pid for spare in runtime.spares.waiting for pid in descendants(spare.body.pid)}
        spec = a_spec()
        await runtime.start(spec, {})
        await runtime.stop(spec.user_id, {}, grace=5)
        await runtime.close()
        assert len(processes) >= 4
        assert not alive(processes)
        assert spare_folders(folder) == []


class TestAPlainStartInstead:
    @pytest.mark.parametrize("mode", ["hangs", "dies"])
    async def test_where_the_spare_does_not_take_over(
        self, warm: Warm, mode: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        runtime = await warm(mode) if mode == "hangs" else await warm()
        if mode == "dies":
            for spare in runtime.spares.waiting:
                os.kill(max(descendants(spare.body.pid)), signal.SIGKILL)
        spec = a_spec()
        await runtime.start(spec, {})
        assert await inside(runtime, spec.user_id, HOW) is False

    async def test_a_link_that_waits_in_the_agents_folder_is_moved_aside(
        self, warm: Warm, folder: Path
    ) -> None:
        """The agent owns its home; what is put where a folder is to be mounted is not followed."""
        runtime = await warm()
        spec = a_spec()
        home = folder / "data" / "agents" / str(spec.user_id) / "home"
        home.mkdir(parents=True)
        (home / "state").symlink_to("/tmp")
        await runtime.start(spec, {})
        program = "import os; answer = os.path.islink('/home/agent/state')"
        assert await inside(runtime, spec.user_id, program) is False

    async def test_where_the_spare_is_of_another_openclaw(
        self, warm: Warm, tools: Tools, folder: Path
    ) -> None:
        runtime = await warm()
        other = folder / "openclaw-2" / "node_modules" / "openclaw"
        other.mkdir(parents=True)
        (other / "openclaw.mjs").touch()
        spec = a_spec(image="openclaw-2")
        await runtime.start(spec, {})
        assert await inside(runtime, spec.user_id, HOW) is False
        assert len(runtime.spares.waiting) == 1

    async def test_after_one_whose_gateway_ended_before_it_listened(self, warm: Warm) -> None:
        runtime = await warm("fails")
        spec = a_spec()
        await runtime.start(spec, {})
        async with asyncio.timeout(10):
            while (await runtime.observe(spec.user_id, {})).phase != "exited":
                await asyncio.sleep(0.02)
        await runtime.stop(spec.user_id, {}, grace=1)
        await ready(runtime)
        await runtime.start(spec, {})
        assert await inside(runtime, spec.user_id, HOW) is False

    async def test_after_one_whose_gateway_never_listened(
        self, warm: Warm, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(spares, "LISTEN_TIMEOUT", 0.3)
        runtime = await warm("deaf")
        spec = a_spec()
        await runtime.start(spec, {})
        async with asyncio.timeout(10):
            while (seen := await runtime.observe(spec.user_id, {})).phase != "exited":
                await asyncio.sleep(0.02)
        assert "in time" in str(seen.reason)
        await runtime.stop(spec.user_id, {}, grace=1)
        await runtime.start(spec, {})
        assert await inside(runtime, spec.user_id, HOW) is False


async def test_spares_end_with_a_platform_that_was_killed(folder: Path, tools: Tools) -> None:
    await everything_ends_with_a_killed_platform(folder, tools, "spare")
