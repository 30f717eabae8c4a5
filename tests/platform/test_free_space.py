"""The floor of free space, with virtual readings, and on a real file system of a few megabytes."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from ocmt.errors import DiskFull
from ocmt.platform.database import _unavailable
from ocmt.platform.free_space import GIBIBYTE, FreeSpace, GuardedObjects, Space, read_folders
from ocmt.testing.clock import VirtualClock
from ocmt.testing.objects import MemoryObjects


class Disk:
    """A reading that a test changes; each look is a fresh one."""

    def __init__(self, free: int, size: int = 100 * GIBIBYTE, floor: int | None = None) -> None:
        self.free, self.size, self.now = free, size, 0.0
        self.space = FreeSpace(lambda: [Space(self.free, self.size)], floor=floor, monotonic=self.tick)

    def tick(self) -> float:
        self.now += 1
        return self.now


class TestTheFloor:
    @pytest.mark.parametrize(
        ("free", "size", "floor", "low"),
        [
            (2 * GIBIBYTE, 100 * GIBIBYTE, None, False),
            (2 * GIBIBYTE - 1, 100 * GIBIBYTE, None, True),
            (GIBIBYTE, 10 * GIBIBYTE, None, False),
            (GIBIBYTE // 2 - GIBIBYTE // 50, 10 * GIBIBYTE, None, True),
            (0, 10 * GIBIBYTE, 0, False),
            (99, 100, 100, True),
            (100, 100, 100, False),
        ],
    )
    def test_is_a_part_of_the_disk_or_what_the_setting_says(
        self, free: int, size: int, floor: int | None, low: bool
    ) -> None:
        assert Disk(free, size, floor).space.low is low

    def test_is_passed_upward_only_with_a_margin(self) -> None:
        disk = Disk(99, floor=100)
        assert disk.space.low
        disk.free = 105
        assert disk.space.low
        disk.free = 111
        assert not disk.space.low
        disk.free = 105
        assert not disk.space.low

    def test_counts_for_each_disk(self) -> None:
        both = [Space(1000, 1000), Space(10, 1000)]
        assert FreeSpace(lambda: both, floor=100).low

    def test_a_disk_that_cannot_be_read_is_not_full(self, tmp_path: Path) -> None:
        assert not FreeSpace(read_folders(tmp_path / "none"), floor=2**60).low
        assert FreeSpace(read_folders(tmp_path, tmp_path / "none"), floor=2**60).low

    def test_says_it_once_in_plain_words(self) -> None:
        with pytest.raises(DiskFull, match="almost full") as caught:
            Disk(0).space.check()
        assert caught.value.retryable
        assert caught.value.code == "disk_full"
        assert caught.value.status == 503


@pytest.mark.anyio
class TestTheWatch:
    async def test_holds_at_every_look_and_lets_go_once(self, clock: VirtualClock) -> None:
        disk = Disk(1000, floor=100)
        done: list[str] = []

        async def hold() -> None:
            done.append("hold")

        async def go_on() -> None:
            done.append("go on")

        watching = asyncio.create_task(disk.space.keep_watch(hold, go_on, clock))
        await clock.advance(3)
        assert done == []
        disk.free = 50
        for _ in range(3):
            await clock.advance(1)
        disk.free = 1000
        for _ in range(3):
            await clock.advance(1)
        assert done == ["hold", "hold", "hold", "go on"]
        watching.cancel()
        await asyncio.wait([watching])

    async def test_goes_on_after_a_fault(self, clock: VirtualClock) -> None:
        disk = Disk(50, floor=100)
        done: list[str] = []

        async def hold() -> None:
            done.append("hold")
            raise OSError("no descriptors")

        async def go_on() -> None:
            done.append("go on")

        watching = asyncio.create_task(disk.space.keep_watch(hold, go_on, clock))
        for _ in range(2):
            await clock.advance(1)
        disk.free = 1000
        await clock.advance(1)
        assert done[0] == "hold"
        assert done[-1] == "go on"
        watching.cancel()
        await asyncio.wait([watching])


@pytest.mark.anyio
class TestObjects:
    async def test_take_nothing_new_below_the_floor(self) -> None:
        disk = Disk(1000, floor=100)
        objects = GuardedObjects(MemoryObjects(), disk.space)

        async def pieces() -> AsyncIterator[bytes]:
            yield b"a"
            disk.free = 50
            yield b"b"

        await objects.put("users/a/one", b"1")
        with pytest.raises(DiskFull):
            await objects.put_pieces("users/a/two", pieces())
        with pytest.raises(DiskFull):
            await objects.put("users/a/three", b"3")
        with pytest.raises(DiskFull):
            await objects.put_if_absent("users/a/three", b"3")
        assert await objects.get("users/a/one") == b"1"
        assert await objects.list("users/a/") == ["users/a/one"]
        await objects.delete("users/a/one")
        disk.free = 1000
        await objects.put("users/a/three", b"3")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk takes root")
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)]
    mounted = subprocess.run(command, check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


class TestARealDisk:
    def test_is_low_when_it_is_filled_and_recovers_when_it_is_freed(self, small_disk: Path) -> None:
        now = 0.0

        def monotonic() -> float:
            nonlocal now
            now += 1
            return now

        space = FreeSpace(read_folders(small_disk), floor=2 * 1024**2, monotonic=monotonic)
        assert not space.low
        (small_disk / "large").write_bytes(bytes(15 * 1024**2))
        assert space.low
        (small_disk / "large").unlink()
        assert not space.low


@pytest.mark.parametrize(
    "error",
    [asyncpg.DiskFullError("could not extend file"), OSError(28, "No space left on device")],
)
def test_a_full_disk_of_the_database_is_said_to_be_full(error: Exception) -> None:
    told = _unavailable(error)
    assert isinstance(told, DiskFull)
    assert "disk is full" in told.message
