"""Snapshots: complete or absent, verified, refused to whoever lost the lease, and never silently empty."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from ocmt.agents.snapshots.keeping import Limits
from ocmt.agents.snapshots.manifest import parse
from ocmt.agents.snapshots.restoring import SnapshotDamaged
from ocmt.agents.snapshots.retention import NONE, Retention
from ocmt.agents.snapshots.service import Snapshots, Standing
from ocmt.agents.snapshots.store import AT_ONCE
from ocmt.errors import LeaseLost, LimitReached, NotFound, Unavailable
from ocmt.platform.database import Database
from ocmt.runtimes.agent_files import FilesOnDisk, FreshFolder
from ocmt.runtimes.folders import AgentFolder
from tests.accounts import make_user
from tests.agents.snapshots.snapshotting import Bench, lease_of, taken_over

pytestmark = pytest.mark.anyio


class TestTaking:
    """What a snapshot is."""

    async def test_the_first_one_holds_everything(self, bench: Bench) -> None:
        bench.write("workspace/notes/a.txt", "hello")
        bench.write("workspace/empty", "")
        bench.write("state/openclaw.sqlite", b"\0\1")
        bench.write("home/.gitconfig", "[user]")
        (bench.workspace / "link").symlink_to("../../../etc/passwd")
        (bench.workspace / "folder").mkdir()
        snapshot = await bench.take(image="2026.9.6")
        assert (snapshot.generation, snapshot.files, snapshot.size) == (1, 5, 15)  # config's {} is one
        assert snapshot.image == "2026.9.6"
        assert await bench.content_of() == bench.content()
        row = await bench.row()
        assert (row["snapshot_generation"], row["snapshot_at"]) == (1, snapshot.created_at)

    async def test_only_what_changed_is_written(self, bench: Bench) -> None:
        for number in range(20):
            bench.write(f"workspace/{number}", f"content {number}")
        await bench.take()
        before = len(bench.objects.calls)
        bench.write("workspace/7", "changed")
        await bench.take()
        written = {key for method, key in bench.objects.calls[before:] if method.startswith("put")}
        digest = hashlib.sha256(b"changed").hexdigest()
        assert written == {
            bench.key(f".blobs/{digest}"),
            bench.key(".snapshots/00000002.json"),
            bench.key(".snapshots/plain"),
            bench.key("workspace/7"),
        }

    async def test_where_nothing_changed_nothing_is_written(self, bench: Bench) -> None:
        bench.write("workspace/a", "x")
        first = await bench.take()
        before = len(bench.objects.calls)
        assert await bench.take() == first
        assert not any(method.startswith("put") for method, _ in bench.objects.calls[before:])
        assert await bench.generations() == [1]

    async def test_a_new_image_is_a_new_generation(self, bench: Bench) -> None:
        await bench.take(image="1")
        assert (await bench.take(image="2")).generation == 2

    async def test_a_change_that_the_times_do_not_show_is_found_when_asked_for(self, bench: Bench) -> None:
        """As of a file that is written through a memory map; here its mark is made to lie."""
        bench.write("workspace/a", "old!")
        await bench.take()
        bench.write("workspace/a", "new!")
        status = (bench.workspace / "a").stat()
        digest = hashlib.sha256(b"old!").hexdigest()
        known = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, digest]
        lie = {"version": 1, "generation": 1, "known": {"workspace/a": known}}
        bench.files.write_mark(json.dumps(lie).encode())
        await bench.take()
        assert (await bench.content_of())["workspace/a"] == b"old!"
        await bench.take(reread=True)
        assert (await bench.content_of())["workspace/a"] == b"new!"

    async def test_the_same_content_is_kept_once(self, bench: Bench) -> None:
        for number in range(200):
            bench.write(f"workspace/{number}", "the same")
        await bench.take()
        assert len(bench.blobs()) == 2

    async def test_large_files_go_through_in_pieces(self, bench: Bench) -> None:
        data = os.urandom(1024 * 1024) * 9
        bench.write("workspace/large", data)
        await bench.take()
        assert ("put_pieces", bench.key(f".blobs/{hashlib.sha256(data).hexdigest()}")) in bench.objects.calls
        assert bench.objects.stored[bench.key("workspace/large")] == data
        assert (await bench.content_of())["workspace/large"] == data

    @pytest.mark.parametrize("name", [b"line\nbreak", b"\xff\xfe no text", b"a\\b", b"x#1", "ü".encode()])
    async def test_a_strange_name_survives(self, bench: Bench, name: bytes) -> None:
        bench.write(f"workspace/{os.fsdecode(name)}", "here")
        await bench.take()
        assert (await bench.content_of())[f"workspace/{os.fsdecode(name)}"] == b"here"

    async def test_what_cannot_be_kept_is_named(self, bench: Bench) -> None:
        os.mkfifo(bench.workspace / "pipe")
        await bench.take()
        manifest = parse(bench.objects.stored[bench.manifests()[0]])
        assert manifest.left_out == (("workspace/pipe", "a named pipe"),)

    async def test_the_agent_says_what_not_to_keep(self, bench: Bench) -> None:
        bench.write("workspace/.ocmtignore", "node_modules/\n*.iso\n")
        bench.write("workspace/node_modules/x", "x")
        bench.write("workspace/big.iso", "x")
        bench.write("workspace/a", "x")
        bench.write("state/cache/x", "x")
        await bench.take()
        assert set(await bench.content_of()) == {"workspace/.ocmtignore", "workspace/a"}

    async def test_a_limit_is_said_in_plain_words_and_nothing_is_written(self, bench: Bench) -> None:
        bench.snapshots = Snapshots(
            bench.database, bench.objects, bench.clock, limits=Limits(file_bytes=1024**2)
        )
        with (bench.workspace / "huge").open("wb") as file:
            file.truncate(2**40)
        with pytest.raises(LimitReached, match="workspace/huge has 1048576 MB; your plan allows 1 MB"):
            await bench.take()
        assert bench.objects.stored == {}

    async def test_people_find_a_plain_copy(self, bench: Bench) -> None:
        bench.write("workspace/notes/a.txt", "one")
        bench.write("workspace/line\nbreak", "not in the plain copy")
        bench.write("state/x", "two")
        bench.write("home/y", "three")
        await bench.take()
        (bench.workspace / "notes" / "a.txt").unlink()
        (bench.workspace / "notes").rmdir()
        bench.write("workspace/notes", "now a file")
        bench.objects.stored[bench.key("sessions/1.jsonl")] = b"another room's"
        await bench.take()
        plain = {
            key.removeprefix(bench.key("")): data
            for key, data in bench.objects.stored.items()
            if "/." not in key
        }
        assert plain == {
            "workspace/notes": b"now a file",
            "config/state/x": b"two",
            "config/home/y": b"three",
            "config/openclaw.json": b"{}",
            "sessions/1.jsonl": b"another room's",
        }


class TestDatabases:
    """A SQLite database that is being written when the agent is held still."""

    WRITER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("pragma journal_mode = wal")
connection.execute("pragma synchronous = normal")
connection.execute("create table rows (number integer primary key, text text)")
number = 0
while True:
    connection.execute("begin")
    for _ in range(20):
        number += 1
        connection.execute("insert into rows values (?, ?)", (number, "x" * 500))
        connection.execute("update rows set text = ? where number = ?", ("y" * 700, number // 2))
    connection.execute("commit")
    print(number, flush=True)
"""

    @pytest.mark.parametrize("commits", [1, 3, 40, 150])
    async def test_holds_every_committed_row(self, bench: Bench, commits: int) -> None:
        path = bench.root / "state" / "openclaw.sqlite"
        writer = subprocess.Popen(
            [sys.executable, "-c", self.WRITER, str(path)], stdout=subprocess.PIPE, text=True
        )
        try:
            assert writer.stdout is not None
            for _ in range(commits):
                committed = int(writer.stdout.readline())
            writer.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, writer.pid, os.WSTOPPED | os.WNOWAIT)
            assert path.with_name("openclaw.sqlite-wal").stat().st_size > 0
            await bench.take()
            content = await bench.content_of()
        finally:
            writer.kill()
            writer.communicate()
        assert "state/openclaw.sqlite-shm" not in content
        restored = bench.root.with_name("elsewhere") / "state" / "openclaw.sqlite"
        with sqlite3.connect(restored) as connection:
            assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
            ((count, newest),) = connection.execute("select count(*), max(number) from rows").fetchall()
        connection.close()
        assert count == newest >= committed
        assert count % 20 == 0, "no half of a transaction"


def freeze_at(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    where: str,
    meanwhile: Callable[[], Awaitable[None]],
) -> None:
    """The first such call to the store takes so long that something happens before it does anything."""
    real = getattr(bench.objects, method)

    async def frozen(key: Any, *given: Any) -> Any:
        if where in str(key):
            monkeypatch.setattr(bench.objects, method, real)
            await meanwhile()
        return await real(key, *given)

    monkeypatch.setattr(bench.objects, method, frozen)


class TestLeases:
    """Whoever has lost the lease changes nothing that counts."""

    async def test_a_stale_holder_is_refused_before_it_reads_anything(self, bench: Bench) -> None:
        await taken_over(bench.database, bench.user_id)
        with pytest.raises(LeaseLost):
            await bench.take()
        with pytest.raises(LeaseLost):
            await bench.restore()
        with pytest.raises(LeaseLost):
            await bench.snapshots.tidy(bench.lease, bench.files)
        assert bench.objects.stored == {}

    @pytest.mark.parametrize(
        ("method", "where"),
        [
            ("sizes", "/.blobs/"),
            ("put_if_absent", "/.blobs/"),
            ("get_many", "/.blobs/"),
            ("put_if_absent", ".json"),
            ("persist", ""),
        ],
    )
    async def test_a_holder_that_was_frozen_at_work_does_no_harm(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch, method: str, where: str
    ) -> None:
        """It thaws when another one, on another machine, has gone on from where it was."""
        bench.write("workspace/a", "first")
        await bench.take()
        other = AgentFolder(bench.root.with_name("other machine"), None)
        snapshots = Snapshots(bench.database, bench.objects, bench.clock)
        leases = []
        bench.write("workspace/a", "of the frozen one")

        async def go_on() -> None:
            leases.append(await taken_over(bench.database, bench.user_id))
            await snapshots.restore(leases[0], FilesOnDisk(other))
            (other.root / "workspace" / "a").write_text("of the new one")
            await snapshots.take(leases[0], FilesOnDisk(other))

        freeze_at(bench, monkeypatch, method, where, go_on)
        # What it wrote has been cleared away meanwhile, or its row is refused.
        with pytest.raises((LeaseLost, Unavailable)):
            await bench.take()
        newest, oldest = await bench.generations()
        bench.lease = leases[0]
        assert (await bench.content_of(newest))["workspace/a"] == b"of the new one"
        assert (await bench.content_of(oldest))["workspace/a"] == b"first"
        # What it has left is no generation, and the next one clears it away.
        (other.root / "workspace" / "a").write_text("later")
        await snapshots.take(bench.lease, FilesOnDisk(other))
        assert len(await bench.generations()) == len(bench.manifests()) == 3
        assert len(bench.blobs()) == 4

    async def test_a_holder_that_was_frozen_before_it_tidies_deletes_nothing(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It has listed what nobody needs; then another one needs it again."""
        again = "once and again"
        bench.write("workspace/a", again)
        await bench.take()
        bench.write("workspace/a", "in between")
        bench.snapshots = Snapshots(
            bench.database, bench.objects, bench.clock, retention=Retention(1, NONE, NONE, NONE)
        )
        other = AgentFolder(bench.root.with_name("other machine"), None)
        snapshots = Snapshots(bench.database, bench.objects, bench.clock)

        async def go_on() -> None:
            bench.lease = await taken_over(bench.database, bench.user_id)
            await snapshots.restore(bench.lease, FilesOnDisk(other))
            (other.root / "workspace" / "a").write_text(again)
            await snapshots.save(bench.lease, FilesOnDisk(other))

        await bench.snapshots.save(bench.lease, bench.files)
        lease = bench.lease
        freeze_at(bench, monkeypatch, "sizes", "/.blobs/", go_on)
        with pytest.raises(LeaseLost):
            await bench.snapshots.tidy(lease, bench.files)
        assert (await bench.content_of())["workspace/a"] == again.encode()

    async def test_one_that_thaws_among_its_deletions_asks_before_it_goes_on(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for number in range(40):
            bench.write(f"workspace/{number}", f"content {number}")
        await bench.take()
        shutil.rmtree(bench.workspace)
        bench.workspace.mkdir()
        bench.snapshots = Snapshots(
            bench.database, bench.objects, bench.clock, retention=Retention(1, NONE, NONE, NONE)
        )
        await bench.snapshots.save(bench.lease, bench.files)
        before = len(bench.blobs())

        async def freeze() -> None:
            await taken_over(bench.database, bench.user_id)
            await bench.clock.advance(60)

        freeze_at(bench, monkeypatch, "delete", "/.blobs/", freeze)
        with pytest.raises(LeaseLost):
            await bench.snapshots.tidy(bench.lease, bench.files)
        assert before - len(bench.blobs()) <= AT_ONCE, "those that were under way"

    async def test_another_users_snapshots_are_not_touched(self, bench: Bench, tmp_path: Path) -> None:
        bert = await Bench.make(
            await make_user(bench.database, "bert@example.org"),
            bench.database,
            bench.clock,
            tmp_path / "bert",
        )
        bert.objects = bench.objects
        bert.snapshots = bench.snapshots
        bench.write("workspace/a", "anna's")
        bert.write("workspace/a", "bert's")
        await bench.take()
        await bert.take()
        assert await bert.generations() == await bench.generations() == [1]
        assert (await bench.content_of())["workspace/a"] == b"anna's"
        assert (await bert.content_of())["workspace/a"] == b"bert's"


class TestRestoring:
    """Back to an older state, whole or not at all."""

    async def test_any_kept_generation_comes_back(self, bench: Bench) -> None:
        contents = {}
        for number in (1, 2, 3):
            bench.write("workspace/a", f"version {number}")
            bench.write(f"workspace/only in {number}", "x")
            await bench.take()
            contents[number] = bench.content()
            (bench.workspace / f"only in {number}").unlink()
        for number in (2, 3, 1):
            assert (await bench.restore(number)).generation == number
            assert bench.content() == contents[number]
        assert (await bench.restore()).generation == 3

    async def test_what_was_restored_becomes_the_newest_when_it_is_saved(self, bench: Bench) -> None:
        for text in ("one", "two"):
            bench.write("workspace/a", text)
            await bench.take()
        await bench.restore(1)
        assert await bench.snapshots.standing(bench.user_id, bench.files) == Standing(2, 2)
        assert (await bench.take()).generation == 3
        assert (await bench.content_of(3))["workspace/a"] == b"one"

    async def test_a_generation_that_never_was_is_not_found(self, bench: Bench) -> None:
        bench.write("workspace/a", "x")
        with pytest.raises(NotFound):
            await bench.restore()
        await bench.take()
        with pytest.raises(NotFound):
            await bench.restore(7)
        assert bench.content()["workspace/a"] == b"x"

    @pytest.mark.parametrize("harm", ["corrupt", "lose", "tear"])
    @pytest.mark.parametrize("what", ["content", "large content", "manifest"])
    async def test_damage_is_found_named_and_another_offered(
        self, bench: Bench, harm: str, what: str
    ) -> None:
        bench.write("workspace/a", "good")
        await bench.take()
        data = os.urandom(9 * 1024 * 1024) if what == "large content" else b"only in two"
        bench.write("workspace/b", data)
        await bench.take()
        present = bench.content()
        name = (
            ".snapshots/00000002.json" if what == "manifest" else f".blobs/{hashlib.sha256(data).hexdigest()}"
        )
        getattr(bench.objects, harm)(bench.key(name))
        with pytest.raises(SnapshotDamaged, match="Generation 1 can be restored") as error:
            await bench.restore()
        assert error.value.damaged == ["manifest" if what == "manifest" else "workspace/b"]
        assert error.value.good == 1
        assert bench.content() == present, "nothing was changed"
        await bench.restore(error.value.good)
        assert bench.content()["workspace/a"] == b"good"

    async def test_a_damaged_generation_is_not_offered(self, bench: Bench) -> None:
        for text in ("one", "two", "three", "four"):
            bench.write("workspace/a", text)
            await bench.take()
        bench.objects.lose(bench.key(f".blobs/{hashlib.sha256(b'four').hexdigest()}"))
        bench.objects.corrupt(bench.key(f".blobs/{hashlib.sha256(b'three').hexdigest()}"))
        bench.objects.lose(bench.key(".snapshots/00000002.json"))
        with pytest.raises(SnapshotDamaged) as error:
            await bench.restore()
        assert error.value.good == 1
        bench.objects.lose(bench.key(f".blobs/{hashlib.sha256(b'one').hexdigest()}"))
        with pytest.raises(SnapshotDamaged, match="No older one can be restored either"):
            await bench.restore()
        assert bench.content()["workspace/a"] == b"four"

    async def test_a_manifest_in_the_place_of_another_is_not_believed(self, bench: Bench) -> None:
        for text in ("one", "two"):
            bench.write("workspace/a", text)
            await bench.take()
        first, second = bench.manifests()
        bench.objects.stored[second] = bench.objects.stored[first]
        with pytest.raises(SnapshotDamaged):
            await bench.restore()

    async def test_a_store_that_does_not_answer_is_no_damage(self, bench: Bench) -> None:
        bench.write("workspace/a", "x")
        await bench.take()
        bench.objects.error = OSError
        for number in range(2):
            bench.objects.fail_at = len(bench.objects.calls) + number
            with pytest.raises(Unavailable):
                await bench.restore()
            assert bench.content()["workspace/a"] == b"x"

    async def test_the_next_snapshot_mends_what_the_store_has_lost(self, bench: Bench) -> None:
        bench.write("workspace/a", "precious")
        bench.write("workspace/b", "other")
        first = await bench.take()
        for harm in ("lose", "tear"):
            getattr(bench.objects, harm)(bench.key(f".blobs/{hashlib.sha256(b'precious').hexdigest()}"))
            assert await bench.take() == first
            assert (await bench.content_of())["workspace/a"] == b"precious"
        bench.objects.lose(bench.manifests()[0])
        assert (await bench.take()).generation == 2
        assert (await bench.content_of())["workspace/a"] == b"precious"

    async def test_a_restore_that_is_cancelled_leaves_no_thread_at_work(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bench.write("workspace/a", "one")
        await bench.take()
        entered, leave = threading.Event(), threading.Event()
        put_in_place = FreshFolder.put_in_place

        def slowly(fresh: FreshFolder) -> None:
            entered.set()
            leave.wait(10)
            put_in_place(fresh)

        monkeypatch.setattr(FreshFolder, "put_in_place", slowly)
        (bench.workspace / "a").unlink()
        restoring = asyncio.create_task(bench.restore())
        await asyncio.to_thread(entered.wait, 10)
        restoring.cancel()
        assert not (await asyncio.wait([restoring], timeout=0.05))[0], "it waits for its thread"
        leave.set()
        with pytest.raises(asyncio.CancelledError):
            await restoring
        assert bench.content()["workspace/a"] == b"one"
        assert (await bench.snapshots.standing(bench.user_id, bench.files)).behind, (
            "and says it was cut short"
        )


class TestGoingOn:
    """An agent that goes on while it is being saved."""

    async def test_all_is_read_before_it_may_go_on(self, bench: Bench) -> None:
        bench.write("workspace/a", "then")
        await bench.snapshots.save(
            bench.lease, bench.files, read=lambda: bench.write("workspace/a", "meanwhile")
        )
        assert (await bench.content_of())["workspace/a"] == b"then"
        await bench.take()
        assert (await bench.content_of())["workspace/a"] == b"meanwhile"

    @pytest.mark.parametrize("late", [False, True])
    async def test_what_it_did_is_not_lost_where_the_process_dies_at_the_row(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch, late: bool
    ) -> None:
        bench.write("workspace/a", "one")
        await bench.take()
        bench.write("workspace/a", "two")
        add = bench.snapshots._rows.add

        async def dies(*given: Any) -> None:
            if late:
                await add(*given)
            raise Died

        monkeypatch.setattr(bench.snapshots._rows, "add", dies)
        with pytest.raises(Died):
            await bench.snapshots.save(
                bench.lease, bench.files, read=lambda: bench.write("workspace/a", "three")
            )
        monkeypatch.undo()
        assert not (await bench.snapshots.standing(bench.user_id, bench.files)).behind
        assert (await bench.take()).generation == 3
        assert (await bench.content_of())["workspace/a"] == b"three"

    async def test_one_that_is_cancelled_before_all_is_read_leaves_no_generation(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bench.write("workspace/a", "one")
        arrived = asyncio.Event()

        async def wait() -> None:
            arrived.set()
            await asyncio.Event().wait()

        freeze_at(bench, monkeypatch, "put_if_absent", "/.blobs/", wait)
        saving = asyncio.create_task(bench.take())
        await arrived.wait()
        saving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await saving
        assert await bench.generations() == []
        assert (await bench.take()).generation == 1


class TestProblems:
    """Why nothing is saved any more, for the user to see."""

    async def test_a_limit_is_noted_and_forgotten_at_the_next_good_save(self, bench: Bench) -> None:
        bench.write("workspace/a", "x")
        saved = await bench.take()
        bench.write("workspace/b", "x")
        await bench.clock.advance(60)
        with pytest.raises(LimitReached):
            await bench.take(limits=Limits(files=5))
        row = await bench.row()
        assert row["save_problem"] == {
            "code": "limit_reached",
            "message": "There are more than the 5 files and folders that your plan allows. "
            "Delete some, or list folders in .ocmtignore.",
        }
        assert row["saved_at"] == saved.created_at
        (bench.workspace / "b").unlink()
        assert await bench.take(limits=Limits(files=6)) == saved
        row = await bench.row()
        assert (row["save_problem"], row["saved_at"]) == (None, bench.clock.now())

    async def test_a_store_that_is_away_is_noted_too(self, bench: Bench) -> None:
        bench.objects.error = OSError
        bench.objects.fail_at = 0
        with pytest.raises(Unavailable):
            await bench.take()
        assert "cannot be reached" in (await bench.row())["save_problem"]["message"]
        await bench.take()
        assert (await bench.row())["save_problem"] is None


class TestStanding:
    """Whether the folder here is the newest."""

    async def test_a_folder_is_as_new_as_its_last_snapshot_or_newer(self, bench: Bench) -> None:
        assert await bench.snapshots.standing(bench.user_id, bench.files) == Standing(0, 0)
        bench.write("workspace/a", "x")
        await bench.take()
        bench.write("workspace/a", "y")
        standing = await bench.snapshots.standing(bench.user_id, bench.files)
        assert standing == Standing(1, 1)
        assert not standing.behind

    async def test_a_folder_that_missed_snapshots_taken_elsewhere_is_behind(self, bench: Bench) -> None:
        bench.write("workspace/a", "x")
        await bench.take()
        other = FilesOnDisk(AgentFolder(bench.root.with_name("other"), None))
        assert (await bench.snapshots.standing(bench.user_id, other)).behind
        await bench.snapshots.restore(bench.lease, other)
        (bench.root.with_name("other") / "workspace" / "a").write_text("newer")
        await bench.snapshots.take(bench.lease, other)
        assert (await bench.snapshots.standing(bench.user_id, bench.files)).behind
        await bench.restore()
        assert bench.content()["workspace/a"] == b"newer"
        assert not (await bench.snapshots.standing(bench.user_id, bench.files)).behind

    async def test_a_folder_whose_files_were_half_exchanged_is_behind(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bench.write("workspace/a", "x")
        await bench.take()
        rename = Path.rename

        def crash(path: Path, target: Path) -> Path:
            if path.name == "workspace":
                raise OSError("the machine has died")
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", crash)
        with pytest.raises(Unavailable):
            await bench.restore()
        monkeypatch.undo()
        assert (await bench.snapshots.standing(bench.user_id, bench.files)).behind
        await bench.restore()
        assert bench.content()["workspace/a"] == b"x"


class TestOldGenerations:
    """What is kept, and that nothing which is needed goes."""

    @pytest.fixture
    def few(self, bench: Bench) -> Bench:
        bench.snapshots = Snapshots(
            bench.database, bench.objects, bench.clock, retention=Retention(2, timedelta(days=7), NONE, NONE)
        )
        return bench

    async def test_old_ones_go_with_what_only_they_needed(self, few: Bench) -> None:
        few.write("workspace/always", "in all of them")
        for number in range(1, 6):
            few.write("workspace/a", f"version {number}")
            few.write("workspace/back again", "then" if number in (1, 5) else f"{number}")
            await few.take()
            await few.clock.advance(4 * 86400)
        assert await few.generations() == [5, 4]
        assert len(few.manifests()) == 2
        assert (await few.content_of(4))["workspace/a"] == b"version 4"
        assert (await few.content_of(5))["workspace/back again"] == b"then"
        gone = {hashlib.sha256(f"version {number}".encode()).hexdigest() for number in (1, 2, 3)}
        assert not gone & {key.rpartition("/")[2] for key in few.blobs()}

    async def test_young_ones_stay_however_many(self, few: Bench) -> None:
        for number in range(6):
            few.write("workspace/a", f"{number}")
            await few.take()
        assert len(await few.generations()) == 6
        assert (await few.content_of(1))["workspace/a"] == b"0"

    async def test_a_damaged_newest_manifest_costs_no_older_generation_its_contents(self, few: Bench) -> None:
        for number in range(1, 5):
            few.write("workspace/a", f"{number}")
            await few.take()
        few.objects.corrupt(few.manifests()[-1])
        few.write("workspace/a", "5")
        await few.take()
        for number in (1, 2, 3, 5):
            assert (await few.content_of(number))["workspace/a"] == f"{number}".encode()


class TestCrashes:
    """The process, the database or the store dies at any step: before it, or just after it."""

    async def check_all(self, bench: Bench, expected: dict[int, bytes]) -> None:
        """Every generation that there is can be restored, and is what it was."""
        for generation in await bench.generations():
            content = (await bench.content_of(generation))["workspace/a"]
            assert content == expected.get(generation, b"at first")

    @pytest.mark.parametrize("late", [False, True])
    @pytest.mark.parametrize("error", [None, OSError])
    async def test_at_every_call_to_the_store(
        self, bench: Bench, late: bool, error: type[OSError] | None
    ) -> None:
        """Some 25 crashes of one agent, one after the other, each a step later."""
        bench.snapshots = Snapshots(
            bench.database, bench.objects, bench.clock, retention=Retention(2, timedelta(hours=1), NONE, NONE)
        )
        if error is not None:
            bench.objects.error = error
        expected: dict[int, bytes] = {}
        bench.write("workspace/a", "at first")
        await bench.take()
        step = crashes = 0
        while True:
            bench.write("workspace/a", f"at step {step}")
            bench.write(f"workspace/{step}", f"{step}")
            (bench.workspace / f"{step - 2}").unlink(missing_ok=True)
            await bench.clock.advance(1800)
            before = await bench.generations()
            bench.objects.late = late
            bench.objects.fail_at = len(bench.objects.calls) + step
            failed = await self.fails(bench)
            survived = bench.objects.fail_at >= len(bench.objects.calls)
            bench.objects.fail_at = None
            new = set(await bench.generations()) - set(before)
            assert len(new) <= 1
            expected |= dict.fromkeys(new, f"at step {step}".encode())
            await self.check_all(bench, expected)
            snapshot = await bench.take()
            expected[snapshot.generation] = f"at step {step}".encode()
            await self.check_all(bench, expected)
            assert (await bench.snapshots.list(bench.user_id))[0] == snapshot
            if survived:
                assert not failed
                break
            crashes += failed
            step += 1
        assert step >= 15
        assert crashes >= 5
        assert len(bench.manifests()) == len(await bench.generations()), "nothing unfinished is left"

    async def fails(self, bench: Bench) -> bool:
        try:
            await bench.take()
        except (bench.objects.error, Unavailable):
            return True
        return False

    @pytest.mark.parametrize("late", [False, True])
    @pytest.mark.parametrize("where", ["rows.add", "rows.drop", "rows.times", "files.write_mark"])
    async def test_at_the_database_and_at_the_mark(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch, where: str, late: bool
    ) -> None:
        bench.write("workspace/a", "one")
        await bench.take()
        bench.write("workspace/a", "two")
        room, method = where.split(".")
        target = bench.snapshots._rows if room == "rows" else FilesOnDisk
        real = getattr(target, method)

        async def dies(*given: object) -> None:
            if late:
                await real(*given)
            raise Died

        def dies_here(*given: object) -> None:
            if late:
                real(*given)
            raise Died

        monkeypatch.setattr(target, method, dies if room == "rows" else dies_here)
        if where == "rows.drop":
            bench.snapshots._retention = Retention(1, NONE, NONE, NONE)
        with pytest.raises(Died):
            await bench.take()
        monkeypatch.undo()
        for generation in await bench.generations():
            assert (await bench.content_of(generation))["workspace/a"] in (b"one", b"two")
        if (await bench.snapshots.standing(bench.user_id, bench.files)).behind:
            await bench.restore()
        assert bench.content()["workspace/a"] == b"two", "nothing of the agent's is lost"
        snapshot = await bench.take()
        assert (await bench.content_of())["workspace/a"] == b"two"
        assert (await bench.generations())[0] == snapshot.generation

    async def test_a_content_that_an_earlier_crash_left_torn_is_written_anew(self, bench: Bench) -> None:
        torn = bench.key(f".blobs/{hashlib.sha256(b'the content').hexdigest()}")
        for data in (b"the", b"the cXntent"):
            bench.objects.stored[torn] = data
            bench.write("workspace/a", "the content")
            await bench.take()
            assert bench.objects.stored[torn] == b"the content"
            bench.files.write_mark(None)
            (bench.workspace / "a").unlink()
            await bench.take()
            bench.objects.stored.pop(torn, None)

    async def test_a_store_that_loses_what_it_is_given_makes_no_generation(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bench.write("workspace/a", "x")

        async def forget(key: str, data: bytes) -> bool:
            return True

        async def forget_too(key: str, data: bytes) -> None:
            pass

        monkeypatch.setattr(bench.objects, "put_if_absent", forget)
        monkeypatch.setattr(bench.objects, "put", forget_too)
        with pytest.raises(Unavailable, match="could not be read back"):
            await bench.take()
        assert await bench.generations() == []
        monkeypatch.undo()
        assert (await bench.take()).generation == 1

    async def test_a_plain_copy_that_was_cut_short_is_made_anew(self, bench: Bench) -> None:
        bench.write("workspace/a", "one")
        await bench.take()
        bench.write("workspace/a", "two")
        await bench.snapshots.save(bench.lease, bench.files)
        bench.objects.stored[bench.key("workspace/left over")] = b"x"
        bench.objects.stored[bench.key(".snapshots/plain")] = b'{"generation": 2, "complete": false}'
        bench.write("workspace/a", "one")
        await bench.take()
        assert bench.objects.stored[bench.key("workspace/a")] == b"one"
        assert bench.key("workspace/left over") not in bench.objects.stored


class Died(BaseException):
    """The process has died here."""


class TestWishes:
    """What its user asks for, the lease's holder does while the agent is stopped."""

    async def test_a_wish_is_carried_out_once(self, bench: Bench) -> None:
        bench.write("workspace/a", "one")
        await bench.take()
        bench.write("workspace/a", "two")
        await bench.take()
        bench.write("workspace/a", "not saved yet")
        assert await bench.snapshots.carry_out_wish(bench.lease, bench.files) is None
        await bench.snapshots.ask_restore(bench.user_id, 1)
        assert await bench.snapshots.restore_asked(bench.user_id) == 1
        done = await bench.snapshots.carry_out_wish(bench.lease, bench.files)
        assert done is not None
        assert done.generation == 4
        assert bench.content()["workspace/a"] == b"one"
        assert (await bench.content_of(3))["workspace/a"] == b"not saved yet"
        assert await bench.snapshots.restore_asked(bench.user_id) is None

    async def test_what_is_not_there_cannot_be_wished_for(self, bench: Bench, database: Database) -> None:
        await bench.take()
        for user_id in (bench.user_id, await make_user(database, "bert@example.org"), UUID(int=1)):
            with pytest.raises(NotFound):
                await bench.snapshots.ask_restore(user_id, 9)
        with pytest.raises(NotFound):
            await bench.snapshots.ask_restore(await make_user(database, "carla@example.org"), 1)

    async def test_a_wish_that_cannot_be_granted_is_dropped_and_said(self, bench: Bench) -> None:
        bench.write("workspace/a", "one")
        await bench.take()
        bench.write("workspace/a", "two")
        await bench.snapshots.ask_restore(bench.user_id, 1)
        bench.objects.lose(bench.key(f".blobs/{hashlib.sha256(b'one').hexdigest()}"))
        with pytest.raises(SnapshotDamaged):
            await bench.snapshots.carry_out_wish(bench.lease, bench.files)
        assert await bench.snapshots.restore_asked(bench.user_id) is None
        assert bench.content()["workspace/a"] == b"two"


class TestTakingAway:
    """Export and import."""

    async def test_what_is_exported_can_be_brought_in_elsewhere(
        self, bench: Bench, database: Database, tmp_path: Path
    ) -> None:
        bench.write("workspace/notes/ü.txt", "text")
        bench.write(f"workspace/{os.fsdecode(bytes([255]))}\n", "strange")
        bench.write("workspace/large", os.urandom(9 * 1024 * 1024))
        (bench.workspace / "link").symlink_to("notes")
        await bench.take()
        with (tmp_path / "export.zip").open("wb") as file:
            await bench.snapshots.export(bench.user_id, 1, file)
        bert = await Bench.make(
            await make_user(database, "bert@example.org"), database, bench.clock, tmp_path / "bert"
        )
        bert.write("workspace/old", "x")
        with (tmp_path / "export.zip").open("rb") as file:
            await bert.snapshots.bring_in(bert.lease, bert.files, file)
        assert bert.content() == bench.content()
        assert (await bert.take()).generation == 1
        shutil.unpack_archive(tmp_path / "export.zip", tmp_path / "by hand")
        assert (tmp_path / "by hand" / "workspace" / "notes" / "ü.txt").read_text() == "text"

    async def test_a_damaged_generation_is_not_exported(self, bench: Bench, tmp_path: Path) -> None:
        bench.write("workspace/a", "x")
        await bench.take()
        bench.objects.corrupt(bench.key(f".blobs/{hashlib.sha256(b'x').hexdigest()}"))
        with (tmp_path / "export.zip").open("wb") as file:
            with pytest.raises(SnapshotDamaged):
                await bench.snapshots.export(bench.user_id, 1, file)
            with pytest.raises(NotFound):
                await bench.snapshots.export(bench.user_id, 2, file)


async def test_a_lease_is_needed_but_not_which(bench: Bench) -> None:
    """Given back and taken again, with another token."""
    bench.write("workspace/a", "x")
    await bench.take()
    async with bench.database.connection() as connection:
        await connection.execute("update agents set lease_owner = null")
    bench.lease = await lease_of(bench.database, bench.user_id)
    assert (await bench.take()).generation == 1
