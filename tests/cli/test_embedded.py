"""Commands on a data folder with its own database, while `ocmt up` runs there and while it does not.

Slow (a server is made and started): run as separate processes, because that is what it is about.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from ocmt.platform.embedded_postgres import EmbeddedPostgres
from ocmt.platform.folder_lock import processes_in
from ocmt.testing.installation import surroundings

pytestmark = pytest.mark.anyio


@pytest.fixture
def data() -> Iterator[Path]:
    """A data folder. Not pytest's: as root the server runs as somebody else, who must get through."""
    folder = Path(tempfile.mkdtemp(prefix="ocmt-cli-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


def ocmt(command: str, data: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ocmt", *command.split(), "--data", str(data)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=surroundings(),
    )


async def test_a_command_borrows_the_running_database_or_starts_it_for_its_moment(
    data: Path, postgres_binaries: Path
) -> None:
    data = data / "installation"
    added = ocmt("users add ada@example.org", data)
    assert (added.returncode, added.stderr) == (0, "")
    assert data.stat().st_mode & 0o777 == 0o700
    assert processes_in(data / "postgres" / "data", "postgres") == []

    data.chmod(0o711)  # this process, unlike `ocmt up`, has no mounts of its own to let the server through
    server = EmbeddedPostgres(
        data / "postgres", binaries=postgres_binaries, log=structlog.get_logger("tests")
    )
    await server.start()
    try:
        listed = ocmt("users list --json", data)
        assert (listed.returncode, listed.stderr) == (0, "")
        assert [user["email"] for user in json.loads(listed.stdout)] == ["ada@example.org"]
        assert server.pid is not None
    finally:
        await server.stop()
