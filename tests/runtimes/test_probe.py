"""What is said about the isolation: nothing better than what was found."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from ocmt.errors import SetupProblem
from ocmt.runtimes.bubblewrap import View
from ocmt.runtimes.probe import Findings, advise, judge
from ocmt.runtimes.sandbox import SandboxRuntime
from ocmt.runtimes.tools import Tools

from .conftest import Counter, a_spec, make_runtime

FINE = Findings(own_uid=True, hardened=True)


def test_the_levels() -> None:
    assert judge(FINE, (), root=True).level == "sandbox (root)"
    assert judge(FINE, ("no hard limits",), root=False).level == "sandbox (user)"


def test_what_is_missing_is_not_guaranteed() -> None:
    isolation = judge(FINE, ("no hard memory limit: …", "no system call filter: …"), root=True)
    assert isolation.missing[:2] == ("no hard memory limit: …", "no system call filter: …")
    assert not any("filter" in line or "limits" in line for line in isolation.guarantees)
    assert "limits" not in isolation.summary


@pytest.mark.parametrize(
    "found",
    [
        Findings(failure="bwrap: No permissions to create new namespace"),
        Findings(holes=("connect_out is 'done'",), own_uid=True, hardened=True),
        Findings(own_uid=False, hardened=True),
    ],
)
def test_a_sandbox_that_does_not_hold_is_none(found: Findings) -> None:
    isolation = judge(found, (), root=True)
    assert isolation.level == "none"
    assert not isolation.is_boundary
    assert isolation.missing


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        ("bwrap: Can't mount proc on /newroot/proc: Operation not permitted", "systempaths=unconfined"),
        ("bwrap: No permissions to create new namespace", "namespaces is not permitted"),
        ("/bin/sh: 8: exec: setpriv: not found", "util-linux"),
        ("bwrap: Can't find source path /root/x: Permission denied", "cannot be reached"),
        ("bwrap: Unknown option --disable-userns", "Unknown option"),
    ],
)
def test_failures_come_with_advice(failure: str, words: str) -> None:
    assert words in advise(failure, root=True)


@pytest.mark.anyio
@pytest.mark.sandbox
class TestARealOne:
    async def test_here(self, runtime: SandboxRuntime) -> None:
        isolation = await runtime.probe()
        assert isolation.level == ("sandbox (root)" if os.geteuid() == 0 else "sandbox (user)")
        assert isolation.is_boundary
        assert await runtime.probe() is isolation

    async def test_without_a_working_bubblewrap_nothing_is_started(
        self, folder: Path, tools: Tools, broker: Counter, view: View
    ) -> None:
        broken = folder / "bwrap"
        broken.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
        broken.chmod(0o755)
        runtime = make_runtime(folder, dataclasses.replace(tools, bwrap=broken), broker, view)
        isolation = await runtime.probe()
        assert isolation.level == "none"
        assert "namespaces is not permitted" in isolation.summary
        with pytest.raises(SetupProblem, match="namespaces is not permitted"):
            await runtime.start(a_spec(), {})
        await runtime.close()


class TestAClosedFolder:
    """It is named as it is called outside, with its mode and the command that mends it."""

    def test_the_folder_that_is_in_the_way(self, folder: Path) -> None:
        folder.chmod(0o755)
        place = folder / "agents" / ".etc" / "passwd"
        place.parent.mkdir(parents=True)
        place.touch(mode=0o644)
        place.parent.chmod(0o700)
        said = advise(f"bwrap: Can't find source path {place}: Permission denied", root=True)
        assert f"{place.parent} has the mode 0700" in said
        assert f"chmod o+rx {place.parent}" in said

    def test_by_its_own_name(self, folder: Path, tools: Tools, broker: Counter) -> None:
        def elsewhere(path: Path) -> Path:
            return Path("/run/ocmt-view/2") / path.relative_to(folder)

        runtime = make_runtime(folder, tools, broker, elsewhere)
        seen = runtime._view(folder / "data" / "agents" / ".etc")
        failure = f"bwrap: Can't find source path {seen}/passwd: Permission denied"
        said = runtime._in_real_names(failure)
        assert said == f"bwrap: Can't find source path {folder}/data/agents/.etc/passwd: Permission denied"
