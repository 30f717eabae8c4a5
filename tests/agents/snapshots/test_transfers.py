"""Archives that are sent in are checked before anything is kept; meanwhile their agent stays awake."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from ocmt.agents.service import Agents
from ocmt.agents.snapshots.keeping import Limits
from ocmt.agents.snapshots.manifest import Entry, Manifest
from ocmt.agents.snapshots.transfers import AT_ONCE
from ocmt.errors import InvalidInput, LimitReached, OcmtError, TooLarge, Unavailable
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


async def test_the_agent_is_kept_awake_while_it_lasts_and_not_too_many_last(bench: Bench) -> None:
    await bench.take()
    agents = Agents(bench.database, bench.clock, runtime="sandbox")
    release = asyncio.Event()

    async def take_away() -> None:
        async with bench.transfers.archive(bench.user_id, 1):
            await release.wait()

    under_way = [asyncio.create_task(take_away()) for _ in range(AT_ONCE)]
    async with asyncio.timeout(10):
        while len((await agents.find(bench.user_id)).holds) < AT_ONCE:
            await asyncio.sleep(0.01)
    assert {hold.reason for hold in (await agents.find(bench.user_id)).holds} == {"transfer"}
    with pytest.raises(Unavailable):
        await take_away()
    release.set()
    await asyncio.gather(*under_way)
    assert (await agents.find(bench.user_id)).holds == ()


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
