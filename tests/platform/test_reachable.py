"""Root's private folders: reachable for one unprivileged process, and opened to nobody else."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ocmt.errors import SetupProblem
from ocmt.platform.reachable import VIEW_FOLDER, ReachablePaths

pytestmark = pytest.mark.anyio

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has folders that it must make reachable")

DATABASE_BELOW_A_PRIVATE_FOLDER = """
import asyncio, shutil, sys
from pathlib import Path
from ocmt.platform.embedded_postgres import EmbeddedPostgres
from ocmt.platform.postgres_binaries import program_root
from ocmt.platform.reachable import ReachablePaths
from ocmt.platform.telemetry import configure_logging

configure_logging(level="error")
private, binaries = map(Path, sys.argv[1:])
private.mkdir(mode=0o700)
# Programs that root keeps to itself, as in a virtual environment below /root.
root = program_root(binaries)
shutil.copytree(root / "bin", private / "server" / "bin")
paths = ReachablePaths()
paths.enter()
alias = paths.view(private / "server")
assert alias != private / "server" and (alias / "bin" / "postgres").exists(), alias
assert paths.view(private / "server") == alias
assert paths.view(private / "server" / "bin") == alias / "bin"

async def main():
    server = EmbeddedPostgres(private / "pg", binaries=binaries, view=paths.view, settings={"fsync": "off"})
    await server.start()
    await server.stop()
    await server.start()
    print("started", flush=True)
    await server.stop()

asyncio.run(main())
"""


@as_root
async def test_a_database_below_a_folder_of_root_alone(
    open_folder: Path, postgres_binaries: Path, run_script: Callable[..., subprocess.Popen[str]]
) -> None:
    private = open_folder / "private"
    before = set(VIEW_FOLDER.glob("*"))  # what this process itself, running other tests, has mounted
    process = run_script(DATABASE_BELOW_A_PRIVATE_FOLDER, private, postgres_binaries)
    output, _ = await asyncio.to_thread(process.communicate, None, 60)

    assert output == "started\n"
    assert private.stat().st_mode & 0o777 == 0o700
    assert set(VIEW_FOLDER.iterdir()) == before, "the mounts show outside of the process"


@as_root
async def test_without_the_right_to_mount_it_says_what_to_do(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "data").mkdir()
    paths = ReachablePaths()  # not entered: as where the process may not
    with pytest.raises(SetupProblem, match="use a folder that others can pass through, like /var/lib/ocmt"):
        paths.view(tmp_path / "data")


async def test_a_path_that_others_reach_stays_what_it_is(open_folder: Path) -> None:
    (open_folder / "data").mkdir(mode=0o700)
    assert ReachablePaths().view(open_folder / "data") == open_folder / "data"
