"""Archives that are sent in are checked before anything is kept; meanwhile their agent stays awake."""

from __future__ import annotations

import asyncio
import errno
import io
import itertools
import json
import zipfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ocmt.agents.service import Agents
from ocmt.agents.snapshots.keeping import Limits
from ocmt.agents.snapshots.manifest import Entry, Manifest
from ocmt.errors import DiskFull, InvalidInput, LimitReached, OcmtError, TooLarge, Unavailable
from ocmt.platform.free_space import FreeSpace, Space
from ocmt.platform.http.download import Download
from ocmt.platform.places import Places, Rates
from tests.accounts import make_user
from tests.agents.snapshots.snapshotting import Bench

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
X = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
"""SHA-256 of `x`."""
WORKSPACE = Entry("workspace", "folder", 0o700)
FILE = Entry("workspace/a", "file", 0o600, 1, 1, X)


def a_zip(
    *entries: Entry, changes: dict[str, Any] | None = None, members: dict[str, bytes] | None = None
) -> bytes:
    manifest = json.loads(Manifest(1, NOW, None, tuple(sorted((WORKSPACE, *entries)))).render())
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", json.dumps(manifest | (changes or {})))
        for name, content in (members or {}).items():
            archive.writestr(name, content)
    return data.getvalue()


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 1000):
        yield data[start : start + 1000]


async def refused(bench: Bench, data: bytes) -> OcmtError:
    with pytest.raises(OcmtError) as error:
        await bench.transfers.receive(bench.user_id, pieces(data))
    assert (await bench.row())["import_asked"] is None
    assert not [key for key in bench.objects.stored if "/.imports/" in key]
    return error.value


async def test_links_are_kept_as_links_wherever_they_lead(bench: Bench) -> None:
    link = Entry("workspace/link", "link", 0o777, target="/etc/passwd")
    data = a_zip(FILE, link, members={"workspace/a": b"x"})
    assert await bench.transfers.receive(bench.user_id, pieces(data)) == 1
    await bench.transfers.carry_out(bench.lease, bench.files, Limits())
    assert bench.content() == {"workspace/a": b"x", "workspace/link": "/etc/passwd"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK",
        b"PK\5\6" + b"\xff" * 18,
        a_zip(FILE, members={"workspace/a": b"x"})[:-30],
        a_zip(FILE),
        a_zip(FILE, members={"workspace/a": b"y"}),
        a_zip(FILE, members={"workspace/a": b""}),
        a_zip(changes={"version": 2}),
        a_zip(Entry("workspace/../../etc/x", "file", 0o600, 1, 1, X)),
        a_zip(Entry("/etc/x", "file", 0o600, 1, 1, X)),
        a_zip(Entry("elsewhere/x", "folder", 0o700)),
        a_zip(Entry("workspace/l", "link", target="/etc"), Entry("workspace/l/x", "file", 0o600, 1, 1, X)),
    ],
)
async def test_what_is_damaged_or_leads_out_of_the_folder_is_refused(bench: Bench, data: bytes) -> None:
    assert isinstance(await refused(bench, data), InvalidInput)


async def test_what_unpacks_to_more_than_it_says_is_damaged(bench: Bench) -> None:
    data = a_zip(FILE, members={"workspace/a": b"x" * 50_000_000})
    assert len(data) < 100_000
    # Of its content only as much is unpacked as the manifest says, which has the right hash.
    assert await bench.transfers.receive(bench.user_id, pieces(data)) == 1
    await bench.transfers.carry_out(bench.lease, bench.files, Limits())
    assert bench.content() == {"workspace/a": b"x"}


async def test_more_than_the_plan_allows_is_refused(bench: Bench) -> None:
    bench.snapshots.limits = Limits(files=10, total_bytes=1000, file_bytes=1000)
    large = Entry("workspace/a", "file", 0o600, 1001, 1, X)
    many = [Entry(f"workspace/{number}", "folder", 0o700) for number in range(10)]
    assert isinstance(await refused(bench, a_zip(large)), LimitReached)
    assert isinstance(await refused(bench, a_zip(*many)), LimitReached)
    long = a_zip(changes={"padding": "x" * 2_000_000})
    assert isinstance(await refused(bench, long), TooLarge | InvalidInput)
    directory = a_zip(members={f"{number:0200}": b"" for number in range(6000)})
    assert isinstance(await refused(bench, directory), InvalidInput)


async def test_one_that_does_not_end_is_cut_off(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.snapshots.limits = Limits(total_bytes=1)
    monkeypatch.setattr("ocmt.agents.snapshots.transfers.MOST_BESIDE_FILES", 10_000)
    assert isinstance(await refused(bench, b"x" * 20_000), TooLarge)
    monkeypatch.setattr("ocmt.agents.snapshots.transfers.PIECE_SECONDS", 0.01)

    async def stalls() -> AsyncIterator[bytes]:
        yield b"PK"
        await asyncio.Event().wait()

    with pytest.raises(InvalidInput, match="Nothing more came"):
        await bench.transfers.receive(bench.user_id, stalls())


async def test_the_agent_is_kept_awake_while_it_lasts_and_one_user_has_one_transfer(bench: Bench) -> None:
    await bench.take()
    agents = Agents(bench.database, bench.clock, runtime="sandbox")
    async with bench.transfers.archive(bench.user_id, 1):
        assert [hold.reason for hold in (await agents.find(bench.user_id)).holds] == ["transfer"]
        with pytest.raises(Unavailable, match="being copied already"):
            async with bench.transfers.archive(bench.user_id, 1):
                pass
        with pytest.raises(Unavailable, match="being copied already"):
            await bench.transfers.receive(bench.user_id, pieces(b"PK"))
    assert (await agents.find(bench.user_id)).holds == ()


async def test_nothing_is_written_for_a_transfer_while_the_disk_is_almost_full(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight at once are larger than the floor that is left to the database."""
    await bench.take()
    free = 1000
    space = FreeSpace(lambda: [Space(free, 10_000)], floor=100, monotonic=itertools.count().__next__)
    monkeypatch.setattr(bench.transfers, "_space", space)

    async def fills() -> AsyncIterator[bytes]:
        nonlocal free
        yield bytes(2 * 1024**2)
        free = 50
        yield bytes(2 * 1024**2)
        raise AssertionError("more was taken")

    with pytest.raises(DiskFull):
        await bench.transfers.receive(bench.user_id, fills())
    with pytest.raises(DiskFull):
        async with bench.transfers.archive(bench.user_id, 1):
            pass
    free = 1000
    async with bench.transfers.archive(bench.user_id, 1) as ready:
        assert zipfile.ZipFile(ready.file).namelist()


async def test_an_archive_that_is_lost_before_it_is_in_place_is_said_and_forgotten(bench: Bench) -> None:
    bench.write("workspace/a", "mine")
    await bench.transfers.receive(bench.user_id, pieces(a_zip(FILE, members={"workspace/a": b"x"})))
    bench.objects.tear(bench.key(".imports/archive.zip"))
    with pytest.raises(InvalidInput, match="Send it again"):
        await bench.transfers.carry_out(bench.lease, bench.files, Limits())
    assert bench.content()["workspace/a"] == b"mine"
    assert not await bench.transfers.import_asked(bench.user_id)


async def test_the_last_wish_counts(bench: Bench) -> None:
    await bench.take()
    await bench.transfers.receive(bench.user_id, pieces(a_zip(FILE, members={"workspace/a": b"x"})))
    await bench.snapshots.ask_restore(bench.user_id, 1)
    assert not await bench.transfers.import_asked(bench.user_id)
    await bench.transfers.receive(bench.user_id, pieces(a_zip(FILE, members={"workspace/a": b"x"})))
    assert await bench.snapshots.restore_asked(bench.user_id) is None


async def others(bench: Bench, tmp_path: Path, count: int) -> list[Bench]:
    """More users of the same installation."""
    made = []
    for number in range(count):
        user_id = await make_user(bench.database, f"user{number}@example.org")
        one = await Bench.make(user_id, bench.database, bench.clock, tmp_path / f"user{number}")
        one.transfers = bench.transfers
        made.append(one)
    return made


async def test_slow_uploads_of_one_user_take_one_place(bench: Bench, tmp_path: Path) -> None:
    """Four uploads at 1.3 KB/s shut everybody out for as long as they lasted."""
    (eve,) = await others(bench, tmp_path, 1)
    data = a_zip(FILE, members={"workspace/a": b"x"})
    ended = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        for start in range(len(data)):
            yield data[start : start + 1]
            if ended.is_set():
                continue
            await asyncio.sleep(0.01)

    slow = [asyncio.create_task(bench.transfers.receive(bench.user_id, slowly())) for _ in range(20)]
    await asyncio.sleep(0.05)
    async with asyncio.timeout(20):
        assert await bench.transfers.receive(eve.user_id, pieces(data)) == 1
    ended.set()
    results = await asyncio.gather(*slow, return_exceptions=True)
    assert results.count(1) == 1
    assert sum(isinstance(result, Unavailable) for result in results) == 19


async def test_slow_uploads_of_many_users_give_way_one_by_one(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.transfers, "_places", Places(2, rates=Rates(crowded_grace=0.2)))
    *many, eve = await others(bench, tmp_path, 3)

    async def stalls() -> AsyncIterator[bytes]:
        yield b"PK"
        await asyncio.Event().wait()

    slow = [asyncio.create_task(bench.transfers.receive(one.user_id, stalls())) for one in many]
    await asyncio.sleep(0.05)
    async with asyncio.timeout(20):
        data = a_zip(FILE, members={"workspace/a": b"x"})
        assert await bench.transfers.receive(eve.user_id, pieces(data)) == 1
    assert [task.done() for task in slow].count(True) == 1
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)


async def test_a_slow_reader_gives_way_as_well(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.transfers, "_places", Places(1, rates=Rates(crowded_grace=0.2)))
    bench.write("workspace/a", b"x")
    await bench.take()
    (eve,) = await others(bench, tmp_path, 1)

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    async def receive() -> Any:
        await asyncio.Event().wait()

    download = Download(bench.transfers.archive(bench.user_id, 1), "files.zip")
    reading = asyncio.create_task(download({"type": "http"}, receive, send))
    await asyncio.sleep(0.3)
    assert not reading.done(), "while nobody waits it may be slow"
    async with asyncio.timeout(20):
        data = a_zip(FILE, members={"workspace/a": b"x"})
        assert await bench.transfers.receive(eve.user_id, pieces(data)) == 1
    with pytest.raises(Unavailable, match="too slow"):
        await reading


SURROGATES = ["workspace/\ud800", "workspace/\udfff", "workspace/\udcc3\udca4"]


@pytest.mark.parametrize("path", SURROGATES)
async def test_a_name_that_no_disk_takes_is_refused_at_once(bench: Bench, path: str) -> None:
    entry = Entry(path, "file", 0o600, 1, 1, X)
    assert isinstance(await refused(bench, a_zip(entry, members={f"contents/{X}": b"x"})), InvalidInput)


class TestWishes:
    """What cannot be granted is dropped, so that no agent starts for ever."""

    @pytest.mark.parametrize(
        "error",
        [
            UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"),
            OSError(errno.ENAMETOOLONG, "File name too long"),
            OSError(errno.EILSEQ, "Invalid or incomplete multibyte character"),
            OSError(errno.EEXIST, "File exists"),
            OverflowError("timestamp out of range"),
            KeyError("a fault of ours"),
        ],
        ids=repr,
    )
    @pytest.mark.parametrize("wish", ["import", "restore"])
    async def test_what_would_fail_again_is_dropped(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception, wish: str
    ) -> None:
        bench.write("workspace/a", "mine")
        await bench.take()
        data = a_zip(FILE, members={"workspace/a": b"x"})

        def fails(*_: object) -> None:
            raise error

        if wish == "import":
            await bench.transfers.receive(bench.user_id, pieces(data))
        else:
            await bench.snapshots.ask_restore(bench.user_id, 1)
        monkeypatch.setattr("ocmt.runtimes.agent_files.FreshFolder.add_file", fails)
        with pytest.raises(InvalidInput, match="dropped"):
            await self.carry_out(bench, wish)
        assert await self.wish(bench) == (None, None)
        monkeypatch.undo()
        await self.carry_out(bench, wish)
        assert bench.content()["workspace/a"] == b"mine"

    @pytest.mark.parametrize(
        "error", [OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EIO, "I/O error")], ids=repr
    )
    @pytest.mark.parametrize("wish", ["import", "restore"])
    async def test_what_may_go_well_the_next_time_is_kept(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception, wish: str
    ) -> None:
        bench.write("workspace/a", "x")
        await bench.take()

        def fails(*_: object) -> None:
            raise error

        if wish == "import":
            await bench.transfers.receive(bench.user_id, pieces(a_zip(FILE, members={"workspace/a": b"x"})))
        else:
            await bench.snapshots.ask_restore(bench.user_id, 1)
        monkeypatch.setattr("ocmt.runtimes.agent_files.FreshFolder.add_file", fails)
        with pytest.raises(Unavailable):
            await self.carry_out(bench, wish)
        assert await self.wish(bench) != (None, None)

    @pytest.mark.parametrize("wish", ["import", "restore"])
    async def test_a_workspace_that_cannot_be_saved_first_does_not_hold_the_agent_up_for_ever(
        self, bench: Bench, wish: str
    ) -> None:
        bench.write("workspace/a", "x")
        await bench.take()
        if wish == "import":
            await bench.transfers.receive(bench.user_id, pieces(a_zip(FILE, members={"workspace/a": b"x"})))
        else:
            await bench.snapshots.ask_restore(bench.user_id, 1)
        bench.snapshots.limits = Limits(files=2)
        with pytest.raises(LimitReached):
            await self.carry_out(bench, wish)
        assert await self.wish(bench) == (None, None)

    async def carry_out(self, bench: Bench, wish: str) -> None:
        if wish == "import":
            await bench.transfers.carry_out(bench.lease, bench.files, bench.snapshots.limits)
        else:
            await bench.snapshots.carry_out_wish(bench.lease, bench.files)

    async def wish(self, bench: Bench) -> tuple[object, object]:
        row = await bench.row()
        return row["import_asked"], row["restore_asked"]
