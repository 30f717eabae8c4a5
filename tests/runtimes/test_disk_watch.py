"""How much of the disk an agent takes, and when it is looked at. The rest is in `escapes`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
import structlog

from ocmt.errors import LimitReached
from ocmt.platform.work import Effort
from ocmt.runtimes import disk_watch
from ocmt.runtimes.disk_watch import LEAST, TooMuchToWatch, check_before_start, watch
from ocmt.runtimes.excess import TO_TIDY_UP, Excess, read_excess, write_excess
from ocmt.runtimes.folders import AgentFolder
from ocmt.testing.clock import VirtualClock

MEGABYTE = 1024 * 1024


def measure(folders: list[Path], process: int = 0) -> int:
    return disk_watch.measure(folders, process, Effort(message="never"))


class Agent:
    process = 0
    paused = False

    def __init__(self) -> None:
        self.words: list[str] = []

    def condemn(self, words: str) -> None:
        self.words.append(words)


class TestMeasuring:
    def test_each_file_counts_once_and_each_name_at_least_a_block(self, tmp_path: Path) -> None:
        (tmp_path / "large").write_bytes(b"x" * MEGABYTE)
        (tmp_path / "again").hardlink_to(tmp_path / "large")
        (tmp_path / "empty").touch()
        (tmp_path / "link").symlink_to("/usr")
        assert MEGABYTE + 3 * LEAST <= measure([tmp_path]) <= MEGABYTE + 4 * LEAST

    def test_a_thousand_hard_links_are_a_thousand_names(self, tmp_path: Path) -> None:
        (tmp_path / "one").touch()
        for number in range(1000):
            (tmp_path / str(number)).hardlink_to(tmp_path / "one")
        assert measure([tmp_path]) >= 1001 * LEAST

    def test_a_sparse_file_counts_as_what_it_has_on_the_disk(self, tmp_path: Path) -> None:
        with (tmp_path / "sparse").open("wb") as file:
            file.truncate(100 * MEGABYTE)
        assert measure([tmp_path]) < MEGABYTE

    def test_a_shut_folder_is_looked_into(self, tmp_path: Path) -> None:
        (tmp_path / "shut").mkdir()
        (tmp_path / "shut" / "large").write_bytes(b"x" * MEGABYTE)
        (tmp_path / "shut").chmod(0)
        assert measure([tmp_path]) >= MEGABYTE

    def test_what_is_nested_too_deep_cannot_be_watched(self, tmp_path: Path) -> None:
        deepest = tmp_path / "/".join(["deeper"] * (disk_watch.DEPTH + 5))
        deepest.mkdir(parents=True)
        with pytest.raises(TooMuchToWatch, match="nested"):
            measure([tmp_path])

    def test_nor_what_has_too_many_names(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(disk_watch, "MOST_NAMES", 10)
        (tmp_path / "one").touch()
        for number in range(10):
            (tmp_path / str(number)).hardlink_to(tmp_path / "one")
        with pytest.raises(TooMuchToWatch, match="too many files") as caught:
            measure([tmp_path])
        assert not caught.value.hasty

    def test_nor_too_many_open_files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(disk_watch, "MOST_OPEN", 10)
        with pytest.raises(TooMuchToWatch, match="open"):
            measure([tmp_path], os.getpid())

    def test_a_look_ends_when_its_time_is_over(self, tmp_path: Path) -> None:
        for number in range(200):
            (tmp_path / str(number)).touch()
        with pytest.raises(TooMuchToWatch) as caught:
            disk_watch.measure([tmp_path], 0, Effort(seconds=-1, message=disk_watch._TOO_SLOW))
        assert caught.value.hasty

    def test_a_folder_that_is_not_there_holds_nothing(self, tmp_path: Path) -> None:
        assert measure([tmp_path, tmp_path / "none"]) == 0

    def test_a_deleted_file_that_is_still_open_counts(self, tmp_path: Path) -> None:
        with (tmp_path / "hidden").open("wb") as file:
            file.write(b"x" * MEGABYTE)
            file.flush()
            os.fsync(file.fileno())
            (tmp_path / "hidden").unlink()
            assert measure([tmp_path], os.getpid()) >= MEGABYTE
        assert measure([tmp_path]) == 0


@pytest.fixture
def folder(tmp_path: Path) -> AgentFolder:
    (tmp_path / "agent" / "workspace").mkdir(parents=True)
    return AgentFolder(tmp_path / "agent", None)


class Watching:
    """A watch over one run of an agent, in virtual time."""

    def __init__(self, folder: AgentFolder, clock: VirtualClock, allowed: int = MEGABYTE) -> None:
        self.agent = Agent()
        self._clock = clock
        self._task = asyncio.create_task(watch(self.agent, folder, allowed, clock, structlog.get_logger()))

    async def passed(self, seconds: int) -> None:
        for _ in range(seconds):
            await self._clock.advance(1)
            await asyncio.sleep(0.02)  # real time, for the thread that looks

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


@pytest.mark.anyio
class TestWatching:
    async def test_who_passes_the_bound_is_ended_with_words(
        self, folder: AgentFolder, clock: VirtualClock
    ) -> None:
        run = Watching(folder, clock)
        await run.passed(2)
        assert run.agent.words == []
        (folder.root / "workspace" / "large").write_bytes(b"x" * 2 * MEGABYTE)
        await run.passed(20)
        assert run.agent.words == [
            "Your agent was stopped: its files take more than the 1 MiB of disk that it may use. "
            "When it starts again, have it remove some before it writes more."
        ]
        await run.end()

    async def test_who_starts_with_too_much_may_tidy_up_but_not_go_on(
        self, folder: AgentFolder, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = 10 * MEGABYTE
        monkeypatch.setattr(disk_watch, "measure", lambda *_: found)
        run = Watching(folder, clock)
        await run.passed(40)
        assert run.agent.words == []
        found += TO_TIDY_UP + 1
        await run.passed(40)
        assert len(run.agent.words) == 1
        await run.end()

    async def test_a_restart_never_raises_the_bound(
        self, folder: AgentFolder, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Like dave of the findings: 55 MiB more in each of many runs."""
        found = 0
        monkeypatch.setattr(disk_watch, "measure", lambda *_: found)
        ends = refusals = 0
        for _ in range(12):
            try:
                check_before_start(folder, MEGABYTE)
            except LimitReached:
                refusals += 1
                continue
            run = Watching(folder, clock)
            await run.passed(20)
            found += 55 * MEGABYTE
            await run.passed(20)
            ends += len(run.agent.words)
            await run.end()
        assert ends == 2
        assert refusals == 9
        assert found <= MEGABYTE + 3 * 55 * MEGABYTE

    async def test_what_is_removed_is_not_given_back_while_it_is_over(
        self, folder: AgentFolder, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = 1000 * MEGABYTE
        monkeypatch.setattr(disk_watch, "measure", lambda *_: found)
        run = Watching(folder, clock)
        await run.passed(20)
        found = 500 * MEGABYTE
        await run.passed(20)
        assert read_excess(folder.root) == Excess(500 * MEGABYTE + TO_TIDY_UP)
        found = 600 * MEGABYTE
        await run.passed(20)
        assert len(run.agent.words) == 1
        await run.end()

    async def test_who_is_back_under_the_allowance_is_as_before(
        self, folder: AgentFolder, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = 10 * MEGABYTE
        monkeypatch.setattr(disk_watch, "measure", lambda *_: found)
        run = Watching(folder, clock)
        await run.passed(20)
        found = 0
        await run.passed(20)
        assert read_excess(folder.root) is None
        found = 2 * MEGABYTE
        await run.passed(20)
        assert len(run.agent.words) == 1
        await run.end()

    async def test_a_cost_of_a_look_never_delays_the_look_at_a_suspect(
        self, folder: AgentFolder, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        free, looks = 10**12, 0

        def look(*_: object) -> int:
            nonlocal looks
            looks += 1
            asyncio.run_coroutine_threadsafe(clock.advance(30), loop).result()  # as long as it takes
            return 0

        loop = asyncio.get_running_loop()
        monkeypatch.setattr(disk_watch, "measure", look)
        monkeypatch.setattr(disk_watch, "_free", lambda _: disk_watch._Free(free, 0))
        run = Watching(folder, clock)
        await run.passed(2)
        before = looks
        for _ in range(5):
            free -= 2 * MEGABYTE
            await run.passed(2)
        assert looks - before >= 5
        await run.end()

    async def test_two_looks_that_take_too_long_end_the_agent_one_does_not(
        self, folder: AgentFolder, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        slow = True

        def look(*_: object) -> int:
            if slow:
                raise TooMuchToWatch("too slow", hasty=True)
            return 0

        monkeypatch.setattr(disk_watch, "measure", look)
        monkeypatch.setattr(disk_watch, "_free", lambda _: disk_watch._Free(0, 0))
        run = Watching(folder, clock)
        await run.passed(2)
        slow = False
        await run.passed(40)
        assert run.agent.words == []
        slow = True
        await run.passed(60)
        assert run.agent.words == ["too slow"]
        await run.end()

    async def test_too_many_files_end_it_and_keep_it_from_starting_until_there_are_fewer(
        self, folder: AgentFolder, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(disk_watch, "MOST_NAMES", 10)
        for number in range(20):
            (folder.root / "workspace" / str(number)).touch()
        run = Watching(folder, clock)
        await run.passed(3)
        assert "too many files" in run.agent.words[0]
        await run.end()
        with pytest.raises(LimitReached, match="Restore an earlier snapshot"):
            check_before_start(folder, MEGABYTE)
        for number in range(15):
            (folder.root / "workspace" / str(number)).unlink()
        check_before_start(folder, MEGABYTE)

    async def test_one_whose_excess_cannot_be_noted_is_ended_all_the_same(
        self, folder: AgentFolder, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        found = 0
        monkeypatch.setattr(disk_watch, "measure", lambda *_: found)
        monkeypatch.setattr(disk_watch, "write_excess", full)
        run = Watching(folder, clock)
        await run.passed(2)
        found = 2 * MEGABYTE
        await run.passed(20)
        assert len(run.agent.words) == 1
        await run.end()

    async def test_a_paused_one_is_left_alone(
        self, folder: AgentFolder, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        looks: list[object] = []

        def look(*_: object) -> int:
            looks.append(None)
            return 0

        monkeypatch.setattr(disk_watch, "measure", look)
        run = Watching(folder, clock)
        run.agent.paused = True
        await run.passed(60)
        assert looks == []
        await run.end()


class TestTheNote:
    def test_is_written_complete_and_removed(self, tmp_path: Path) -> None:
        assert read_excess(tmp_path) is None
        write_excess(tmp_path, Excess(5, unwatched=True))
        assert read_excess(tmp_path) == Excess(5, unwatched=True)
        write_excess(tmp_path, None)
        assert read_excess(tmp_path) is None

    def test_one_that_was_cut_off_counts_as_one(self, tmp_path: Path) -> None:
        (tmp_path / "disk-excess.json").write_text('{"by')
        assert read_excess(tmp_path) == Excess(0, unwatched=True)

    def test_what_is_in_tmp_goes_before_a_start_is_refused(self, folder: AgentFolder) -> None:
        (folder.root / "tmp").mkdir()
        (folder.root / "tmp" / "large").write_bytes(b"x" * 3 * MEGABYTE)
        write_excess(folder.root, Excess(2 * MEGABYTE))
        check_before_start(folder, MEGABYTE)
        (folder.root / "workspace" / "large").write_bytes(b"x" * 3 * MEGABYTE)
        with pytest.raises(LimitReached, match="larger plan"):
            check_before_start(folder, MEGABYTE)
