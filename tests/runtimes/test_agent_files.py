"""Files of an agent that means harm: read without being led astray, replaced whole, removed to the last."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocmt.errors import LimitReached
from ocmt.platform.work import Abandoned, Effort
from ocmt.runtimes.agent_files import DEPTH, FilesOnDisk
from ocmt.runtimes.base import FilesChanged, FoundFile, KeepsFiles, LeftOut
from ocmt.runtimes.folders import FIRST_UID, AgentFolder
from ocmt.runtimes.removal import remove_tree
from ocmt.runtimes.sandbox import SandboxRuntime

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
UID = FIRST_UID + 7


@pytest.fixture
def agent(tmp_path: Path) -> AgentFolder:
    """An agent's folder as it is before the first start."""
    folder = AgentFolder(tmp_path / "a", None)
    folder.prepare("{}", compile_cache=None)
    return folder


@pytest.fixture
def workspace(agent: AgentFolder) -> Path:
    return agent.root / "workspace"


@pytest.fixture
def files(agent: AgentFolder) -> FilesOnDisk:
    return FilesOnDisk(agent)


def unbounded() -> Effort:
    return Effort(message="too many")


def everything(path: str, is_folder: bool) -> bool:
    return True


def found(files: FilesOnDisk) -> dict[str, FoundFile]:
    return {
        thing.path: thing for thing in files.scan(everything, unbounded()) if isinstance(thing, FoundFile)
    }


def left_out(files: FilesOnDisk) -> dict[str, str]:
    return {
        thing.path: thing.reason
        for thing in files.scan(everything, unbounded())
        if isinstance(thing, LeftOut)
    }


def content(files: FilesOnDisk, path: str) -> bytes:
    return b"".join(files.read(found(files)[path]))


def test_the_sandbox_keeps_files_on_a_disk_that_is_ours() -> None:
    assert issubclass(SandboxRuntime, KeepsFiles)


class TestLooking:
    """What a scan finds."""

    def test_all_trees_are_found_with_all_that_is_in_them(self, files: FilesOnDisk, workspace: Path) -> None:
        (workspace / "b").mkdir()
        (workspace / "b" / "c.txt").write_text("text")
        (workspace / "b" / "c.txt").chmod(0o640)
        (workspace.parent / "tmp" / "x").touch()
        (workspace.parent / "logs" / "x").touch()
        there = found(files)
        assert set(there) == {
            "config", "config/openclaw.json", "home", "state",
            "workspace", "workspace/b", "workspace/b/c.txt",
        }  # fmt: skip
        assert there["workspace/b/c.txt"].kind == "file"
        assert there["workspace/b/c.txt"].size == 4
        assert there["workspace/b/c.txt"].mode == 0o640
        assert there["workspace/b"].kind == "folder"

    def test_an_agent_that_was_never_here_has_no_files(self, tmp_path: Path) -> None:
        files = FilesOnDisk(AgentFolder(tmp_path / "nobody", None))
        assert list(files.scan(everything, unbounded())) == []
        assert files.read_mark() is None
        assert files.peek("workspace/x", 10) is None

    def test_what_is_not_wanted_is_not_looked_into(self, files: FilesOnDisk, workspace: Path) -> None:
        (workspace / "node_modules" / "deep").mkdir(parents=True)
        asked = []

        def keep(path: str, is_folder: bool) -> bool:
            asked.append(path)
            return not path.endswith("node_modules")

        assert not any("node_modules" in thing.path for thing in files.scan(keep, unbounded()))
        assert "workspace/node_modules/deep" not in asked

    def test_a_link_is_kept_as_a_link(self, files: FilesOnDisk, workspace: Path) -> None:
        (workspace / "passwd").symlink_to("/etc/passwd")
        (workspace / "etc").symlink_to("/etc")
        there = found(files)
        assert there["workspace/passwd"].kind == "link"
        assert there["workspace/passwd"].target == "/etc/passwd"
        assert not any(path.startswith("workspace/etc/") for path in there)

    def test_a_tree_that_was_replaced_by_a_link_is_refused(self, files: FilesOnDisk, workspace: Path) -> None:
        workspace.rmdir()
        workspace.symlink_to("/etc")
        with pytest.raises(OSError, match="workspace"):
            list(files.scan(everything, unbounded()))

    @pytest.mark.timeout(10)
    def test_pipes_sockets_and_devices_are_named_and_left_out(
        self, files: FilesOnDisk, workspace: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        os.mkfifo(workspace / "pipe")
        monkeypatch.chdir(workspace)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("socket")
        assert left_out(files) == {
            "workspace/pipe": "a named pipe",
            "workspace/socket": "a socket",
        }
        assert files.peek("workspace/pipe", 10) is None, "and nobody waits for the other end"

    @as_root
    def test_a_file_of_somebody_else_is_left_out(self, tmp_path: Path) -> None:
        agent = AgentFolder(tmp_path / "a", UID)
        agent.prepare("{}", compile_cache=None)
        secret = tmp_path / "secret"
        secret.write_text("the host's")
        # Were the kernel to let it make a hard link out of its sandbox: the owner tells.
        os.link(secret, agent.root / "workspace" / "mine")
        files = FilesOnDisk(agent)
        assert left_out(files) == {"workspace/mine": "a file that belongs to somebody else"}
        assert files.peek("workspace/mine", 10) is None

    def test_two_names_of_one_file_are_two_files(self, files: FilesOnDisk, workspace: Path) -> None:
        (workspace / "one").write_text("same")
        os.link(workspace / "one", workspace / "two")
        assert content(files, "workspace/one") == content(files, "workspace/two") == b"same"

    @pytest.mark.parametrize(
        "name", [b"line\nbreak", b"\xff\xfe no text", b"-rf", b"a\\b", "ü".encode(), b"\x1b[2J"]
    )
    def test_a_strange_name_survives(self, files: FilesOnDisk, workspace: Path, name: bytes) -> None:
        Path(os.fsdecode(os.fsencode(workspace) + b"/" + name)).write_text("here")
        assert content(files, f"workspace/{os.fsdecode(name)}") == b"here"

    def test_folders_can_only_be_nested_so_deep(self, files: FilesOnDisk, workspace: Path) -> None:
        nest(workspace, DEPTH - 1)
        assert len(found(files)) > DEPTH
        nest(workspace, DEPTH + 400)
        with pytest.raises(LimitReached, match="nested more than 100 deep"):
            list(files.scan(everything, unbounded()))

    def test_a_path_can_only_be_so_long(self, files: FilesOnDisk, workspace: Path) -> None:
        nest(workspace, 20, name="x" * 250)
        assert set(left_out(files).values()) == {"a path that is too long"}

    def test_every_name_counts_on_all_levels_whether_it_is_kept_or_not(
        self, files: FilesOnDisk, workspace: Path
    ) -> None:
        folder = workspace
        for level in range(10):
            folder = folder / "0"
            folder.mkdir()
            (folder / "one").write_text(str(level))
            for number in range(100):
                os.link(folder / "one", folder / f"name {number}")
        held: list[str] = []

        def keep_folders(path: str, is_folder: bool) -> bool:
            held.append(path)
            return is_folder

        assert len(list(files.scan(keep_folders, Effort(steps=2000, message="too many")))) == 14
        held.clear()
        with pytest.raises(LimitReached, match="too many"):
            list(files.scan(keep_folders, Effort(steps=500, message="too many")))
        assert len(held) < 20, "it stops while it lists, not after all has been listed"

    def test_of_names_that_wait_only_the_names_are_held(self, files: FilesOnDisk, workspace: Path) -> None:
        (workspace / "one").write_text("")
        for number in range(20_000):
            os.link(workspace / "one", workspace / f"{number}")
        tracemalloc.start()
        scan = files.scan(everything, unbounded())
        for _ in range(12):
            next(scan)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 20_000 * 150, "a name of 5 characters takes 54 bytes, its stat_result 500 and more"

    def test_a_scan_ends_once_its_caller_has_gone(self, files: FilesOnDisk, workspace: Path) -> None:
        for number in range(10):
            (workspace / f"{number}").mkdir()
        effort = Effort(message="too many")
        scan = files.scan(everything, effort)
        next(scan)
        effort.abandon()
        with pytest.raises(Abandoned):
            list(scan)

    def test_no_descriptor_is_left_open(self, files: FilesOnDisk, workspace: Path) -> None:
        nest(workspace, 10)
        before = len(list(Path("/proc/self/fd").iterdir()))
        scan = files.scan(everything, unbounded())
        for _ in range(8):
            next(scan)
        assert isinstance(scan, Iterator)
        del scan
        list(files.scan(everything, unbounded()))
        assert len(list(Path("/proc/self/fd").iterdir())) == before


def nest(folder: Path, depth: int, name: str = "d") -> None:
    """Folders in folders, deeper than a path may be long."""
    number = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, dir_fd=number)
        deeper = os.open(name, os.O_RDONLY, dir_fd=number)
        os.close(number)
        number = deeper
    os.close(number)


class TestReading:
    """A file is read only if it is still the one that was found."""

    def test_a_file_is_read_in_pieces(self, files: FilesOnDisk, workspace: Path) -> None:
        data = os.urandom(3_000_000)
        (workspace / "large").write_bytes(data)
        pieces = list(files.read(found(files)["workspace/large"]))
        assert len(pieces) > 1
        assert b"".join(pieces) == data

    def test_a_file_that_became_a_link_is_not_read(self, files: FilesOnDisk, workspace: Path) -> None:
        (workspace / "a").write_text("x")
        seen = found(files)["workspace/a"]
        (workspace / "a").unlink()
        (workspace / "a").symlink_to("/etc/passwd")
        with pytest.raises(FilesChanged, match="workspace/a changed"):
            list(files.read(seen))

    def test_a_folder_on_the_way_that_became_a_link_is_not_passed(
        self, files: FilesOnDisk, workspace: Path
    ) -> None:
        (workspace / "etc").mkdir()
        (workspace / "etc" / "hostname").write_text("x")
        seen = found(files)["workspace/etc/hostname"]
        (workspace / "etc").rename(workspace / "was")
        (workspace / "etc").symlink_to("/etc")
        with pytest.raises(FilesChanged):
            list(files.read(seen))
        assert files.peek("workspace/etc/hostname", 10) is None

    @pytest.mark.timeout(10)
    def test_a_file_that_became_a_pipe_keeps_nobody_waiting(
        self, files: FilesOnDisk, workspace: Path
    ) -> None:
        (workspace / "a").write_text("x")
        seen = found(files)["workspace/a"]
        (workspace / "a").unlink()
        os.mkfifo(workspace / "a")
        with pytest.raises(FilesChanged):
            list(files.read(seen))

    def test_a_file_that_grows_or_shrinks_is_not_believed(self, files: FilesOnDisk, workspace: Path) -> None:
        for change in (b"xxxxx", b""):
            (workspace / "a").write_bytes(b"four")
            seen = found(files)["workspace/a"]
            (workspace / "a").write_bytes(change)
            with pytest.raises(FilesChanged):
                list(files.read(seen))

    def test_a_file_that_is_written_while_it_is_read_is_not_believed(
        self, files: FilesOnDisk, workspace: Path
    ) -> None:
        (workspace / "a").write_bytes(b"x" * 3_000_000)
        os.utime(workspace / "a", ns=(1, 1))
        pieces = files.read(found(files)["workspace/a"])
        next(pieces)
        with (workspace / "a").open("r+b") as file:
            file.write(b"y")
        with pytest.raises(FilesChanged):
            list(pieces)

    def test_only_so_much_of_a_file_is_peeked_at(self, files: FilesOnDisk, workspace: Path) -> None:
        (workspace / "a").write_text("0123456789")
        assert files.peek("workspace/a", 4) == b"0123"
        assert files.peek("workspace/missing", 4) is None


class TestReplacing:
    """New files take the place of the old ones when they are complete."""

    def fill(self, files: FilesOnDisk) -> None:
        fresh = files.fresh()
        fresh.add_folders([("workspace", 0o700), ("workspace/closed", 0o500), ("workspace/d", 0o755)])
        fresh.add_file("workspace/d/run", 0o750, 1_234_567_890_123_456_789, [b"one", b"two"])
        fresh.add_file("workspace/closed/a", 0o400, 5, [])
        fresh.add_link("workspace/link", "/etc/passwd")
        fresh.put_in_place()

    def test_everything_is_as_it_was_kept(
        self, agent: AgentFolder, files: FilesOnDisk, workspace: Path
    ) -> None:
        (workspace / "old").write_text("gone afterwards")
        self.fill(files)
        run = workspace / "d" / "run"
        assert run.read_bytes() == b"onetwo"
        assert stat.S_IMODE(run.stat().st_mode) == 0o750
        assert run.stat().st_mtime_ns == 1_234_567_890_123_456_789
        assert stat.S_IMODE((workspace / "closed").stat().st_mode) == 0o500
        assert (workspace / "link").readlink() == Path("/etc/passwd")
        assert not (workspace / "old").exists()
        files.clear_away()
        files.clear_away()
        assert {path.name for path in agent.root.iterdir()} == {"config", "logs", "tmp", "workspace"}

    def test_configuration_and_temporary_files_stay(self, agent: AgentFolder, files: FilesOnDisk) -> None:
        (agent.root / "tmp" / "cache").touch()
        self.fill(files)
        assert (agent.root / "config" / "openclaw.json").read_text() == "{}"
        assert (agent.root / "tmp" / "cache").exists()

    def test_a_machine_that_never_saw_the_agent_gets_its_files(self, tmp_path: Path) -> None:
        agent = AgentFolder(tmp_path / "agents" / "b", None)
        self.fill(FilesOnDisk(agent))
        agent.prepare("{}", compile_cache=None)
        assert (agent.root / "workspace" / "d" / "run").exists()

    @as_root
    def test_as_root_all_of_it_belongs_to_the_agent(self, tmp_path: Path) -> None:
        agent = AgentFolder(tmp_path / "a", UID)
        self.fill(FilesOnDisk(agent))
        paths = [agent.root / "workspace", *(agent.root / "workspace").rglob("*")]
        assert {path.lstat().st_uid for path in paths} == {UID}
        assert {path.lstat().st_gid for path in paths} == {UID}
        assert agent.root.stat().st_uid == 0
        assert stat.S_IMODE(agent.root.stat().st_mode) == 0o710

    def test_what_is_not_put_in_place_leaves_nothing(
        self, agent: AgentFolder, files: FilesOnDisk, workspace: Path
    ) -> None:
        (workspace / "old").write_text("stays")
        fresh = files.fresh()
        fresh.add_folders([("workspace", 0o700)])
        fresh.discard()
        fresh.discard()
        assert (workspace / "old").read_text() == "stays"
        assert not list(agent.root.glob(".fresh*"))

    def test_what_a_crash_left_behind_is_removed_by_the_next(
        self, agent: AgentFolder, files: FilesOnDisk
    ) -> None:
        files.fresh().add_folders([("workspace", 0o700)])
        second = files.fresh()
        assert len(list(agent.root.glob(".fresh*"))) == 1
        second.discard()

    def test_nobody_else_can_enter_while_it_is_made(self, agent: AgentFolder, files: FilesOnDisk) -> None:
        fresh = files.fresh()
        (folder,) = agent.root.glob(".fresh*")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        fresh.discard()

    def test_special_bits_are_not_given_back(self, files: FilesOnDisk, workspace: Path) -> None:
        fresh = files.fresh()
        fresh.add_folders([("workspace", 0o700)])
        fresh.add_file("workspace/tool", 0o4755, 0, [b""])
        fresh.put_in_place()
        assert stat.S_IMODE((workspace / "tool").stat().st_mode) == 0o755

    def test_the_mark_is_the_platforms_own(self, agent: AgentFolder, files: FilesOnDisk) -> None:
        files.write_mark(b"one")
        files.write_mark(b"two")
        assert files.read_mark() == b"two"
        mark = agent.root / "snapshot.json"
        assert stat.S_IMODE(mark.stat().st_mode) == 0o600
        assert mark.stat().st_uid == os.geteuid()
        files.write_mark(None)
        files.write_mark(None)
        assert files.read_mark() is None


class TestRemoving:
    """Whatever an agent has built, it goes."""

    def test_folders_nested_deeper_than_anything_can_recurse(self, tmp_path: Path) -> None:
        top = tmp_path / "top"
        top.mkdir()
        nest(top, 3000)
        remove_tree(top)
        assert not top.exists()

    def test_what_a_link_points_to_stays(self, tmp_path: Path) -> None:
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "file").touch()
        top = tmp_path / "top"
        (top / "a" / "b").mkdir(parents=True)
        (top / "a" / "b" / "link").symlink_to(tmp_path / "other")
        (top / "file").touch()
        os.mkfifo(top / "a" / "pipe")
        remove_tree(top)
        remove_tree(top)
        assert (tmp_path / "other" / "file").exists()
        assert not top.exists()

    def test_folders_that_were_closed_to_us(self, tmp_path: Path) -> None:
        top = tmp_path / "top"
        (top / "a" / "b").mkdir(parents=True)
        (top / "a" / "b" / "c").touch()
        (top / "a" / "b").chmod(0)
        (top / "a").chmod(0)
        remove_tree(top)
        assert not top.exists()
