"""Disks of agents whose size the kernel enforces. Takes root and loop devices, as the images do."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import structlog

from ocmt.errors import SetupProblem, Unavailable
from ocmt.platform.work import Effort
from ocmt.runtimes import agent_disks, loop_mounts
from ocmt.runtimes.agent_disks import ALMOST, AgentDisks, image_of, use_of
from ocmt.runtimes.bubblewrap import View
from ocmt.runtimes.excess import TO_TIDY_UP
from ocmt.runtimes.folders import FIRST_UID, AgentFolder
from ocmt.runtimes.sandbox import SandboxRuntime
from ocmt.runtimes.tools import Tools

from .conftest import Counter, a_spec, inside, make_runtime

MEBIBYTE = 1024**2
ALLOWED = 100 * MEBIBYTE
UID = FIRST_UID + 1


def fill(path: Path) -> int:
    """As the agent, write until the disk is full; returns the bytes."""
    program = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--inh-caps=-all"]
    done = subprocess.run(
        [*program, "sh", "-c", 'cat /dev/zero > "$0"', str(path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "No space left" in done.stderr
    return path.stat().st_size


def loop_device_of(place: Path) -> str:
    device = place.stat().st_dev
    return Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name


@pytest.fixture
def agents(folder: Path) -> Path:
    folder.chmod(0o711)
    path = folder / "agents"
    path.mkdir(mode=0o711)
    return path


def disks_in(agents: Path) -> AgentDisks:
    made = AgentDisks(agents, lambda path: path, structlog.get_logger())
    made.probe()
    if made.obstacle is not None:
        pytest.skip(f"no images on this machine: {made.obstacle}")
    return made


@pytest.fixture
def disks(agents: Path) -> Iterator[AgentDisks]:
    if os.geteuid() != 0:
        pytest.skip("images of disks take root")
    made = disks_in(agents)
    yield made
    made.close()


def prepared(disks: AgentDisks, agents: Path, name: str = "one", allowed: int = ALLOWED) -> AgentFolder:
    assert disks.attach(name, allowed=allowed)
    disks.limit(name, allowed)
    folder = AgentFolder(agents / name, UID)
    folder.prepare("{}", compile_cache=None)
    return folder


class TestBound:
    def test_an_agent_cannot_write_more_than_it_may(self, disks: AgentDisks, agents: Path) -> None:
        agent = prepared(disks, agents)
        assert ALLOWED - 2 * ALMOST < fill(agent.root / "workspace" / "large") <= ALLOWED

    def test_hard_links_hide_nothing_from_the_kernel(self, disks: AgentDisks, agents: Path) -> None:
        agent = prepared(disks, agents)
        place = agent.root / "workspace"
        (place / "a").touch()
        for number in range(20_000):
            (place / str(number)).hardlink_to(place / "a")
        assert fill(place / "large") < ALLOWED

    def test_files_that_are_deleted_but_open_count(self, disks: AgentDisks, agents: Path) -> None:
        agent = prepared(disks, agents)
        with (agent.root / "tmp" / "hidden").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, ALLOWED // 2)
            (agent.root / "tmp" / "hidden").unlink()
            assert fill(agent.root / "workspace" / "large") <= ALLOWED // 2

    def test_restarts_never_raise_it(self, disks: AgentDisks, agents: Path) -> None:
        agent = prepared(disks, agents)
        for number in range(8):
            fill(agent.root / "workspace" / f"large-{number}")
            disks.limit("one", ALLOWED)
        assert use_of(agent.root).used <= ALLOWED + TO_TIDY_UP + ALMOST

    def test_a_full_disk_leaves_room_to_tidy_up_until_it_is_not_full(
        self, disks: AgentDisks, agents: Path
    ) -> None:
        agent = prepared(disks, agents)
        fill(agent.root / "workspace" / "large")
        (agent.root / "tmp" / "scratch").write_bytes(b"x")
        assert disks.limit("one", ALLOWED)
        assert use_of(agent.root).left > TO_TIDY_UP - ALMOST
        assert not (agent.root / "tmp").exists()
        (agent.root / "workspace" / "large").unlink()
        assert not disks.limit("one", ALLOWED)
        assert use_of(agent.root).left <= ALLOWED

    def test_the_platform_can_still_write_the_configuration(self, disks: AgentDisks, agents: Path) -> None:
        agent = prepared(disks, agents)
        fill(agent.root / "workspace" / "large")
        agent.prepare('{"another": "one"}', compile_cache=None)
        assert "another" in (agent.root / "config" / "openclaw.json").read_text()

    def test_also_where_every_name_is_taken(
        self, disks: AgentDisks, agents: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(agent_disks, "_USUAL", 20 * MEBIBYTE)
        agent = prepared(disks, agents, allowed=20 * MEBIBYTE)
        names = (agent.root / "workspace" / str(number) for number in itertools.count())
        with pytest.raises(OSError, match="No space left"):
            all(name.write_bytes(b"") == 0 for name in names)
        assert use_of(agent.root).files_left == 0
        agent.prepare('{"another": "one"}', compile_cache=None)
        assert "another" in (agent.root / "config" / "openclaw.json").read_text()

    def test_a_larger_plan_gives_more_and_a_smaller_one_less(self, disks: AgentDisks, agents: Path) -> None:
        agent = prepared(disks, agents)
        disks.limit("one", 2 * ALLOWED)
        assert 2 * ALLOWED - 2 * ALMOST < use_of(agent.root).left <= 2 * ALLOWED
        disks.limit("one", ALLOWED // 2)
        assert ALLOWED // 2 - 2 * ALMOST < use_of(agent.root).left <= ALLOWED // 2

    def test_an_image_grows_with_what_is_in_it(
        self, disks: AgentDisks, agents: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(agent_disks, "_USUAL", 20 * MEBIBYTE)
        agent = prepared(disks, agents)
        (agent.root / "workspace" / "diary").write_text("mine")
        disks.limit("one", 20 * ALLOWED)
        assert use_of(agent.root).left > 19 * ALLOWED
        assert (agent.root / "workspace" / "diary").read_text() == "mine"

    def test_an_image_takes_no_more_of_the_disk_than_it_holds(self, disks: AgentDisks, agents: Path) -> None:
        agent = prepared(disks, agents)
        large = agent.root / "workspace" / "large"
        large.write_bytes(os.urandom(30 * MEBIBYTE))
        os.sync()
        held = image_of(agents, "one").stat().st_blocks * 512
        assert held < 100 * MEBIBYTE
        large.unlink()
        os.sync()
        os.sync()
        assert image_of(agents, "one").stat().st_blocks * 512 < held - 25 * MEBIBYTE

    def test_a_restore_has_room_for_old_and_new_files(self, disks: AgentDisks, agents: Path) -> None:
        agent = prepared(disks, agents)
        fill(agent.root / "workspace" / "large")
        disks.make_room("one")
        (agent.root / ".fresh").write_bytes(bytes(ALLOWED - 2 * ALMOST))
        (agent.root / "workspace" / "large").unlink()
        disks.limit("one", ALLOWED)
        assert fill(agent.root / "workspace" / "more") < 3 * ALMOST


class TestMovingIn:
    def plain(self, agents: Path, name: str = "one") -> Path:
        agent = AgentFolder(agents / name, UID)
        agent.prepare('{"old": "one"}', compile_cache=None)
        work = agent.root / "workspace"
        (work / "diary").write_text("mine")
        os.chown(work / "diary", UID, UID)
        (work / "again").hardlink_to(work / "diary")
        (work / "link").symlink_to("/etc/passwd")
        (agent.root / "snapshot.json").write_text("mark")
        return agent.root

    def check(self, root: Path) -> None:
        work = root / "workspace"
        assert (work / "diary").read_text() == "mine"
        assert (work / "diary").stat().st_uid == UID
        assert (work / "again").samefile(work / "diary")
        assert (work / "link").readlink() == Path("/etc/passwd")
        assert (root / "snapshot.json").read_text() == "mark"
        assert "old" in (root / "config" / "openclaw.json").read_text()
        assert root.stat().st_mode & 0o777 == 0o710

    def test_everything_comes_along(self, disks: AgentDisks, agents: Path) -> None:
        root = self.plain(agents)
        assert disks.attach("one", allowed=ALLOWED)
        assert root.stat().st_dev != agents.stat().st_dev
        self.check(root)
        assert not list((agents / ".disks").glob("*.old"))

    @pytest.mark.parametrize("step", ["make_image", "_move_in", "sync_one", "rename", "mount", "old renamed"])
    def test_a_crash_at_any_step_leaves_the_files_complete_in_one_place(
        self, disks: AgentDisks, agents: Path, monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        class Crash(BaseException):
            pass

        def crash(*_: object, **__: object) -> None:
            raise Crash

        root = self.plain(agents)
        with monkeypatch.context() as patched:
            if step in ("make_image", "sync_one"):
                patched.setattr(agent_disks, step, crash)
            elif step == "_move_in":
                patched.setattr(agent_disks, "sync_file_system", crash)
            elif step == "rename":
                patched.setattr(Path, "rename", crash)
            elif step == "mount":
                patched.setattr(AgentDisks, "_mount", crash)
            else:
                real = loop_mounts.mount_image

                def mount(image: Path, place: Path) -> None:
                    if place == root:
                        raise Crash
                    real(image, place)

                patched.setattr(loop_mounts, "mount_image", mount)
            with pytest.raises(Crash):
                disks.attach("one", allowed=ALLOWED)
        later = disks_in(agents)
        assert later.attach("one", allowed=ALLOWED)
        self.check(root)
        later.close()

    def test_what_cannot_be_copied_stays_where_it_is(
        self, disks: AgentDisks, agents: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        root = self.plain(agents)

        def fail(*_: object, **__: object) -> None:
            raise OSError(errno.EIO, "cp: what")

        monkeypatch.setattr(agent_disks, "run", fail)
        monkeypatch.setattr(agent_disks, "make_image", lambda path, *_, **__: path.touch())
        monkeypatch.setattr(AgentDisks, "_move_in", fail)
        assert not disks.attach("one", allowed=ALLOWED)
        self.check(root)
        assert not image_of(agents, "one").exists()

    def test_one_that_went_read_only_is_checked_and_mounted_anew(
        self, disks: AgentDisks, agents: Path
    ) -> None:
        agent = prepared(disks, agents)
        (agent.root / "workspace" / "diary").write_text("mine")
        os.sync()
        device = loop_device_of(agent.root)
        Path(f"/sys/fs/ext4/{device}/trigger_fs_error").write_text("as a full disk below does")
        with pytest.raises(OSError, match="Read-only"):
            (agent.root / "workspace" / "more").touch()
        disks.limit("one", ALLOWED)
        assert (agent.root / "workspace" / "diary").read_text() == "mine"
        (agent.root / "workspace" / "more").touch()

    def test_an_image_that_cannot_be_mended_is_said_to_be(self, disks: AgentDisks, agents: Path) -> None:
        prepared(disks, agents)
        disks.close()
        image_of(agents, "one").write_bytes(bytes(MEBIBYTE))
        with pytest.raises(Unavailable, match="cannot be mounted"):
            disks_in(agents).attach("one")


class TestStillInUse:
    """An agent's processes may outlast the platform that started them, by what the kernel still writes."""

    def test_it_is_mounted_as_the_same_file_system(self, disks: AgentDisks, agents: Path) -> None:
        agent = prepared(disks, agents)
        with (agent.root / "workspace" / "late").open("w") as late:
            device = loop_device_of(agent.root)
            disks.close()
            again = disks_in(agents)
            again.attach("one", allowed=ALLOWED)
            assert loop_device_of(agent.root) == device
            late.write("written")
            late.flush()
            assert (agent.root / "workspace" / "late").read_text() == "written"
        again.close()

    def test_it_is_neither_checked_nor_grown_meanwhile(
        self, disks: AgentDisks, agents: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        agent = prepared(disks, agents)
        size = image_of(agents, "one").stat().st_size
        monkeypatch.setattr(loop_mounts, "_RELEASE_SECONDS", 0.2)
        with (agent.root / "workspace" / "late").open("w"):
            disks.close()
            again = disks_in(agents)
            again.attach("one", allowed=ALLOWED)
            loop_mounts.unmount(agent.root, at_once=True)
            with pytest.raises(OSError, match="still uses"):
                again._grow("one", agent.root, image_of(agents, "one"), 2 * size)
        assert image_of(agents, "one").stat().st_size == size
        again.attach("one", allowed=ALLOWED)
        again.limit("one", ALLOWED)
        again.close()


class TestForgetting:
    def test_nothing_is_left(self, disks: AgentDisks, agents: Path) -> None:
        agent = prepared(disks, agents)
        disks.forget("one")
        assert not image_of(agents, "one").exists()
        assert agent.root.stat().st_dev == agents.stat().st_dev


@pytest.mark.anyio
class TestRuntime:
    async def test_an_agent_in_its_sandbox_meets_the_end_of_its_disk(self, runtime: SandboxRuntime) -> None:
        isolation = await runtime.probe()
        if not any("whose size the kernel enforces" in line for line in isolation.guarantees):
            pytest.skip(f"no images on this machine: {isolation.missing}")
        spec = a_spec(disk_bytes=ALLOWED)
        await runtime.start(spec, {})
        total = await inside(
            runtime,
            spec.user_id,
            """
            import os
            number = os.open("/home/agent/workspace/large", os.O_WRONLY | os.O_CREAT)
            answer = 0
            try:
                while True:
                    answer += os.write(number, bytes(1 << 20))
            except OSError:
                pass
            """,
        )
        assert total <= ALLOWED
        await runtime.stop(spec.user_id, {}, grace=1)
        found = {
            entry.path
            for entry in runtime.files(spec.user_id, spec.slot).scan(
                lambda *_: True, Effort(message="too many")
            )
        }
        assert "workspace/large" in found

    async def test_files_are_found_by_a_platform_that_starts_anew(
        self,
        folder: Path,
        tools: Tools,
        broker: Counter,
        view: View,
    ) -> None:
        spec = a_spec(disk_bytes=ALLOWED)
        for turn in range(2):
            runtime = make_runtime(folder, tools, broker, view)
            await runtime.probe()
            if turn:
                found = {
                    one.path
                    for one in runtime.files(spec.user_id, spec.slot).scan(
                        lambda *_: True, Effort(message="too many")
                    )
                }
                assert "workspace/diary" in found
                assert spec.user_id in await runtime.remembered()
            await runtime.start(spec, {})
            code = "open('/home/agent/workspace/diary', 'a').close(); answer = True"
            assert await inside(runtime, spec.user_id, code)
            await runtime.close()

    async def test_without_its_disk_an_agent_is_never_taken_for_an_empty_one(
        self,
        folder: Path,
        tools: Tools,
        broker: Counter,
        view: View,
    ) -> None:
        runtime = make_runtime(folder, tools, broker, view)
        name = uuid4()
        image = image_of(folder / "data" / "agents", str(name))
        image.parent.mkdir(parents=True)
        image.write_bytes(bytes(4096))
        runtime._disks = None
        with pytest.raises(SetupProblem):
            list(runtime.files(name, 1).scan(lambda *_: True, Effort(message="too many")))
        shutil.rmtree(image.parent)
