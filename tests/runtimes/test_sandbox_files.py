"""The files of an agent in a real sandbox: read while it is held still, replaced while it is stopped."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

import pytest

from ocmt.platform.work import Effort
from ocmt.runtimes.base import AgentSpec, FoundFile, LeftOut
from ocmt.runtimes.bubblewrap import View
from ocmt.runtimes.sandbox import SandboxRuntime
from tests.runtimes.conftest import a_spec, inside

pytestmark = [pytest.mark.anyio, pytest.mark.sandbox]

MISCHIEF = """
import os, socket
os.chdir("/home/agent/workspace")
os.makedirs("notes", exist_ok=True)
open("notes/a.txt", "w").write("the agent's own")
os.chmod("notes/a.txt", 0o600)
answer = {}
for name, attempt in {
    "link": lambda: os.symlink("/etc/shadow", "shadow"),
    "hard link": lambda: os.link("/etc/passwd", "passwd"),
    "hard link across": lambda: os.link("/home/agent/config/openclaw.json", "config.json"),
    "pipe": lambda: os.mkfifo("pipe"),
    "device": lambda: os.mknod("device", 0o60000 | 0o666, os.makedev(254, 0)),
    "mark": lambda: open("/home/agent/snapshot.json", "w").write("{}"),
}.items():
    try:
        attempt()
        answer[name] = "done"
    except OSError as error:
        answer[name] = error.__class__.__name__
"""


async def test_files_are_read_while_the_agent_is_paused(runtime: SandboxRuntime) -> None:
    spec = a_spec()
    await runtime.start(spec, {})
    tried = await inside(runtime, spec.user_id, MISCHIEF)
    assert tried["link"] == tried["pipe"] == "done"
    assert tried["hard link across"] != "done"
    assert tried["device"] != "done"
    await runtime.pause(spec.user_id, {})
    files = runtime.files(spec.user_id, spec.slot)
    things = {
        thing.path: thing for thing in files.scan(lambda path, is_folder: True, Effort(message="too many"))
    }
    note, shadow = things["workspace/notes/a.txt"], things["workspace/shadow"]
    assert isinstance(note, FoundFile)
    assert b"".join(files.read(note)) == b"the agent's own"
    assert isinstance(shadow, FoundFile)
    assert (shadow.kind, shadow.target) == ("link", "/etc/shadow")
    assert things["workspace/pipe"] == LeftOut("workspace/pipe", "a named pipe")
    assert files.read_mark() is None, "what the agent wrote is not where the platform looks"
    await runtime.resume(spec.user_id, {})


async def test_an_agent_finds_replaced_files_its_own(runtime: SandboxRuntime) -> None:
    spec = a_spec()
    await runtime.start(spec, {})
    await inside(runtime, spec.user_id, MISCHIEF)
    await runtime.stop(spec.user_id, {}, grace=1)
    files = runtime.files(spec.user_id, spec.slot)
    fresh = files.fresh()
    fresh.add_folders([("workspace", 0o700), ("workspace/notes", 0o750), ("home", 0o700), ("state", 0o700)])
    fresh.add_file("workspace/notes/a.txt", 0o640, 1_000_000_000, [b"as it was"])
    fresh.put_in_place()
    files.write_mark(b"{}")
    files.clear_away()
    await runtime.start(spec, {})
    found = await inside(
        runtime,
        spec.user_id,
        """
        import os
        os.chdir("/home/agent/workspace")
        status = os.stat("notes/a.txt")
        answer = [open("notes/a.txt").read(), os.listdir("."), status.st_mode & 0o777, int(status.st_mtime)]
        answer.append(status.st_uid == os.getuid())
        open("notes/a.txt", "a").write(", and more")
        os.mkdir("notes/new")
        answer.append(sorted(os.listdir("/home/agent")))
        """,
    )
    assert found == [
        "as it was", ["notes"], 0o640, 1, True, ["config", "state", "workspace"],
    ]  # fmt: skip
    root = runtime._data / "agents" / str(spec.user_id)
    assert not [path for path in root.iterdir() if "fresh" in path.name]


async def put(runtime: SandboxRuntime, spec: AgentSpec, links: dict[str, str], folders: list[str]) -> None:
    """As the restore of an archive does, whose manifest its user may have written."""

    def work() -> None:
        fresh = runtime.files(spec.user_id, spec.slot).fresh()
        fresh.add_folders([(path, 0o700) for path in folders])
        for path, target in links.items():
            fresh.add_link(path, target)
        fresh.put_in_place()

    await asyncio.to_thread(work)


class TestLinksWhereFoldersAreMounted:
    """bubblewrap follows a link at a mount point, also out of what will be the sandbox: `/oldroot`."""

    @pytest.mark.parametrize("at", ["/newroot/supervisor", "../../supervisor"])
    @pytest.mark.parametrize("name", ["workspace", "state", "config"])
    async def test_nothing_of_the_sandbox_is_covered(
        self, runtime: SandboxRuntime, name: str, at: str
    ) -> None:
        await runtime.probe()
        spec = a_spec()
        await put(runtime, spec, {f"home/{name}": at}, ["home", "workspace", "state"])
        await runtime.start(spec, {})
        found = await inside(
            runtime,
            spec.user_id,
            f"""
            import os
            mounts = [line.split()[4] for line in open("/proc/self/mountinfo")]
            answer = ["main.py" in os.listdir("/supervisor"), "/home/agent/{name}" in mounts]
            """,
        )
        assert found == [True, True]

    async def test_no_folder_of_the_machine_comes_in(
        self, runtime: SandboxRuntime, folder: Path, view: View
    ) -> None:
        await runtime.probe()
        spec = a_spec()
        agents = folder / "data" / "agents"
        secret = Path(tempfile.mkdtemp(prefix="ocmt-not-for-agents-"))
        try:
            secret.chmod(0o755)
            (secret / "secret").touch()
            links = {
                "home/state": f"/oldroot{view(agents) / str(spec.user_id)}",
                "state/config": f"/oldroot{secret}",
            }
            await put(runtime, spec, links, ["home", "state", "workspace"])
            await runtime.start(spec, {})
            found = await inside(
                runtime, spec.user_id, "import os; answer = os.listdir('/home/agent/config')"
            )
            assert "secret" not in found
        finally:
            shutil.rmtree(secret)
