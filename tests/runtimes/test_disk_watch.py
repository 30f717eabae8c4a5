"""How much of the disk an agent takes, and when it is looked at. The rest is in `escapes`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
import structlog

from ocmt.runtimes import disk_watch
from ocmt.runtimes.disk_watch import LEAST, TO_TIDY_UP, measure, watch
from ocmt.testing.clock import VirtualClock

MEGABYTE = 1024 * 1024


class Agent:
    process = 0
    paused = False

    def __init__(self) -> None:
        self.words: list[str] = []

    def condemn(self, words: str) -> None:
        self.words.append(words)


class TestMeasuring:
    def test_each_file_counts_once_and_never_for_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "large").write_bytes(b"x" * MEGABYTE)
        (tmp_path / "again").hardlink_to(tmp_path / "large")
        (tmp_path / "empty").touch()
        (tmp_path / "link").symlink_to("/usr")
        assert MEGABYTE + 2 * LEAST <= measure([tmp_path], 0) <= MEGABYTE + 3 * LEAST

    def test_a_sparse_file_counts_as_what_it_has_on_the_disk(self, tmp_path: Path) -> None:
        with (tmp_path / "sparse").open("wb") as file:
            file.truncate(100 * MEGABYTE)
        assert measure([tmp_path], 0) < MEGABYTE

    def test_a_shut_folder_is_looked_into(self, tmp_path: Path) -> None:
        (tmp_path / "shut").mkdir()
        (tmp_path / "shut" / "large").write_bytes(b"x" * MEGABYTE)
        (tmp_path / "shut").chmod(0)
        assert measure([tmp_path], 0) >= MEGABYTE

    def test_what_is_nested_too_deep_is_too_much(self, tmp_path: Path) -> None:
        deepest = tmp_path / "/".join(["deeper"] * (disk_watch.DEPTH + 5))
        deepest.mkdir(parents=True)
        assert measure([tmp_path], 0) > 2**60

    def test_a_folder_that_is_not_there_holds_nothing(self, tmp_path: Path) -> None:
        assert measure([tmp_path, tmp_path / "none"], 0) == 0

    def test_a_deleted_file_that_is_still_open_counts(self, tmp_path: Path) -> None:
        with (tmp_path / "hidden").open("wb") as file:
            file.write(b"x" * MEGABYTE)
            file.flush()
            os.fsync(file.fileno())
            (tmp_path / "hidden").unlink()
            assert measure([tmp_path], os.getpid()) >= MEGABYTE
        assert measure([tmp_path], 0) == 0


@pytest.mark.anyio
class TestWatching:
    async def passed(self, clock: VirtualClock, seconds: int) -> None:
        for _ in range(seconds):
            await clock.advance(1)
            await asyncio.sleep(0.02)  # real time, for the thread that looks

    async def test_who_passes_the_bound_is_ended_with_words(
        self, tmp_path: Path, clock: VirtualClock
    ) -> None:
        agent = Agent()
        watching = asyncio.create_task(watch(agent, [tmp_path], MEGABYTE, clock, structlog.get_logger()))
        await self.passed(clock, 2)
        assert agent.words == []
        (tmp_path / "large").write_bytes(b"x" * 2 * MEGABYTE)
        await self.passed(clock, 20)
        assert watching.done()
        assert agent.words == [
            "Your agent was stopped: its files take more than the 1 MiB of disk that it may use. "
            "When it starts again, have it remove some before it writes more."
        ]

    async def test_who_starts_with_too_much_may_tidy_up_but_not_go_on(
        self, tmp_path: Path, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = 10 * MEGABYTE
        monkeypatch.setattr(disk_watch, "measure", lambda *_: found)
        agent = Agent()
        watching = asyncio.create_task(watch(agent, [tmp_path], MEGABYTE, clock, structlog.get_logger()))
        await self.passed(clock, 40)
        assert agent.words == []
        found += TO_TIDY_UP + 1
        await self.passed(clock, 40)
        assert watching.done()
        assert len(agent.words) == 1

    async def test_a_paused_one_is_left_alone(
        self, tmp_path: Path, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        looks: list[object] = []

        def look(*_: object) -> int:
            looks.append(None)
            return 0

        monkeypatch.setattr(disk_watch, "measure", look)
        agent = Agent()
        agent.paused = True
        watching = asyncio.create_task(watch(agent, [tmp_path], MEGABYTE, clock, structlog.get_logger()))
        await self.passed(clock, 60)
        assert looks == []
        watching.cancel()
        await asyncio.wait([watching])
