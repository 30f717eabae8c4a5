"""Every attempt at every level: what was promised holds. And from outside of a sandbox they get there."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ocmt.runtimes.probe import NO_QUOTA
from ocmt.runtimes.tools import Tools, own_python

from ..conftest import DOCKER_URL, REACHABLE, need_docker
from .promises import ATTEMPTS, DOCKER, LEVELS, NOT_THERE, REFUSED, SANDBOX_ROOT, SANDBOX_USER, Attempt

ROOT = Path(__file__).parents[3]
FROM_SPARES = "sandbox (root) from warm spares"
"""The same promises, to agents that run in a sandbox which was there before them."""
ORDINARY = 0x6FFFFFFF
"""A user id that no account has, for the level of an ordinary user where the tests run as root."""
ANSWER_LIMIT = 60.0
STOPPED = {
    NOT_THERE: {
        *("ENOENT", "ENOTDIR", "ESRCH", "ECONNREFUSED", "ENETUNREACH", "EHOSTUNREACH"),
        "EADDRNOTAVAIL",  # a sandbox without IPv6
    },
    REFUSED: {
        *("EPERM", "EACCES", "EROFS", "ENOSYS", "EAFNOSUPPORT", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT"),
        *("HTTP 400", "HTTP 403", "ITSELF"),
    },
}
"""What an attempt may meet, and has then got nowhere; what is refused may also not be there at all."""
MOST_PROCESSES, MOST_MEGABYTES = 64, 2 * 256
"""Of the bombs, as `stage.BOUNDS` has it; where there is swap an agent may have as much of it as memory."""
QUICK, QUICK_ENOUGH = 0.5, 5.0
"""Seconds in which a neighbour answers while a bomb goes off, mostly and in any case. On a quiet machine
0.01; where that took longer before the bomb, five times as long is quick as well."""


class Staged:
    """A process with a runtime at that level, a neighbour, and everything that is to be attacked."""

    def __init__(
        self, level: str, folder: Path, installed: Tools, image: str | None, *, spares: bool = False
    ) -> None:
        self._folder = folder
        python, paths = own_python(), [ROOT, ROOT / "src", Path(sysconfig.get_path("purelib"))]
        self._drop: dict[str, Any] = {}
        if level == SANDBOX_USER and os.geteuid() == 0:
            self._drop = {"user": ORDINARY, "group": ORDINARY, "extra_groups": []}
            home = python.parent.parent
            python = REACHABLE.view(home) / python.relative_to(home)
            paths = [REACHABLE.view(path) for path in paths]
        self._furnish(installed, python)
        asked = {
            "runtime": "docker" if level == DOCKER else "sandbox",
            "folder": str(folder),
            "bwrap": str(folder / "bubblewrap" / installed.bwrap.relative_to(self._wheel(installed))),
            "spares": spares,
            "docker": DOCKER_URL,
            "image": image,
        }
        with (folder / "stage.log").open("wb") as log:
            self._process = subprocess.Popen(
                [python, "-m", "tests.runtimes.escapes.stage", json.dumps(asked)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={
                    "PATH": os.environ["PATH"],
                    "HOME": str(folder),
                    "PYTHONPATH": ":".join(map(str, paths)),
                },
                cwd=folder,
                **self._drop,
            )
        self.said = self._answer()

    def _furnish(self, installed: Tools, python: Path) -> None:
        """Copies that anybody may use: the stand-in in Node's place, bubblewrap."""
        node = self._folder / "node" / "bin" / "node"
        node.parent.mkdir(parents=True)
        program = (Path(__file__).parent.with_name("stand_in.py")).read_text()
        node.write_text(f"#!{python} -IS\n{program}")
        node.chmod(0o755)
        openclaw = self._folder / "openclaw" / "node_modules" / "openclaw"
        openclaw.mkdir(parents=True)
        (openclaw / "openclaw.mjs").touch()
        shutil.copytree(self._wheel(installed), self._folder / "bubblewrap")
        if self._drop:
            os.chown(self._folder, ORDINARY, ORDINARY)

    @staticmethod
    def _wheel(installed: Tools) -> Path:
        """The folder that has to come along: the wheel's program finds its library two folders up."""
        return installed.bwrap.parents[2] if len(installed.bwrap.parents) > 4 else installed.bwrap.parent

    def attempt(self, name: str, *, outside: bool = False) -> dict[str, Any]:
        """What came of it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"attempt": name, "outside": outside}).encode() + b"\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], ANSWER_LIMIT)
        line = self._process.stdout.readline() if ready else b""
        assert line, (self._folder / "stage.log").read_text()[-4000:]
        found = json.loads(line)
        assert isinstance(found, dict)
        return found

    def close(self) -> None:
        """End it in order."""
        with self._process as process:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(SANDBOX_ROOT, marks=pytest.mark.sandbox),
        pytest.param(FROM_SPARES, marks=pytest.mark.sandbox),
        pytest.param(SANDBOX_USER, marks=pytest.mark.sandbox),
        pytest.param(DOCKER, marks=pytest.mark.docker),
    ],
)
def kind(request: pytest.FixtureRequest) -> str:
    if request.param in (SANDBOX_ROOT, FROM_SPARES) and os.geteuid() != 0:
        pytest.skip("only root can give agents user ids of their own and hard limits")
    if request.param == DOCKER:
        need_docker()
    return str(request.param)


@pytest.fixture(scope="module")
def level(kind: str) -> str:
    return SANDBOX_ROOT if kind == FROM_SPARES else kind


@pytest.fixture(scope="module")
def staged(kind: str, level: str, installed: Tools, request: pytest.FixtureRequest) -> Iterator[Staged]:
    image = request.getfixturevalue("docker_image") if level == DOCKER else None
    # Short: a socket's address has room for 107 bytes, and this one holds those that are attacked.
    folder = Path(tempfile.mkdtemp(prefix="ocmt-esc-"))
    folder.chmod(0o755)
    try:
        staged = Staged(level, folder, installed, image, spares=kind == FROM_SPARES)
        try:
            yield staged
        finally:
            staged.close()
    finally:
        shutil.rmtree(folder)


def test_it_is_the_level_that_it_should_be(staged: Staged, level: str) -> None:
    assert staged.said["level"] == level


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: attempt.name)
def test_what_is_promised_holds(staged: Staged, level: str, attempt: Attempt) -> None:
    found = staged.attempt(attempt.name)
    outcomes, promise = found["outcomes"], attempt.promise(level)
    assert outcomes
    if promise in STOPPED:
        allowed = STOPPED[NOT_THERE] | (STOPPED[REFUSED] if promise == REFUSED else {"EACCES"})
        assert not {way: outcome for way, outcome in outcomes.items() if outcome not in allowed}
        assert found["knocks"] == 0
    else:
        own_disk = not any(line.startswith(NO_QUOTA) for line in staged.said["missing"])
        _check_bomb(attempt.name, outcomes, bounded=promise.startswith("bounded"), own_disk=own_disk)
        assert found["pings"] >= 5
        assert found["usual_ping"] < max(QUICK, 5 * found["ping_before"])
        assert found["slowest_ping"] < QUICK_ENOUGH


def _check_bomb(name: str, outcomes: dict[str, str], *, bounded: bool, own_disk: bool) -> None:
    if name == "disk_filler" and own_disk:
        # The kernel itself says no; the number of empty files is bounded by the disk's inodes alone.
        assert outcomes.pop("one_file") in ("EFBIG", "ENOSPC")
        assert outcomes.pop("empty_files") == "REACHED None"
        # Who writes through a map to a full disk is ended by the kernel (SIGBUS).
        assert outcomes.pop("mapped_files") == "ENDED: None"
        assert set(outcomes.values()) == {"ENOSPC"}
        assert len(outcomes) == 4
    elif name == "disk_filler":
        assert outcomes.pop("one_file") == "EFBIG"
        assert len(outcomes) == 6
        reasons = ("its files take more than the 32 MiB of disk", "its folders are nested more than 100 deep")
        assert not {
            way: outcome
            for way, outcome in outcomes.items()
            if not (outcome.startswith("ENDED") and any(reason in outcome for reason in reasons))
        }
    elif name == "fork_bomb":
        assert 0 < int(outcomes["processes at once"]) < MOST_PROCESSES
    elif bounded:
        assert int(outcomes["megabytes"]) < MOST_MEGABYTES
    else:
        assert int(outcomes["megabytes"]) > MOST_MEGABYTES, "it is bounded after all: promise it"


@pytest.mark.parametrize(
    "attempt",
    [
        attempt
        for attempt in ATTEMPTS
        if attempt.succeeds_outside and set(attempt.promises) <= {NOT_THERE, REFUSED}
    ],
    ids=lambda attempt: attempt.name,
)
def test_from_outside_of_a_sandbox_it_gets_there(staged: Staged, attempt: Attempt) -> None:
    """Else it would prove nothing that it gets nowhere from inside."""
    outcomes = staged.attempt(attempt.name, outside=True)["outcomes"]
    assert any(outcome.startswith("REACHED") for outcome in outcomes.values()), outcomes


def test_the_table_in_the_documentation_is_this_one() -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if "|" in line
    ]
    header = next(number for number, row in enumerate(rows) if tuple(row[1:4]) == LEVELS)
    table = [row for row in rows[header + 2 :] if len(row) == 5]
    assert table == [
        [attempt.words, *attempt.promises, f"`test_what_is_promised_holds[…-{attempt.name}]`"]
        for attempt in ATTEMPTS
    ]
