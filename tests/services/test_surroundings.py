"""`ocmt up` starts, the first time and again, whatever the umask, the locale and the time zone are."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ocmt.settings import load_settings

from .test_up import AS_ANYBODY, NOBODY, temporary

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(180)]
folder = pytest.fixture(temporary)
START_LIMIT = 90.0


def start(data: Path, *, umask: int, who: str, environment: dict[str, str] | None = None) -> list[str]:
    """What `ocmt up` says until it is ready; it is ended then."""
    prefix = AS_ANYBODY if who == "user" and os.geteuid() == 0 else []
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OCMT_", "DATABASE_URL", "ANTHROPIC_", "LC_", "LANG", "TZ", "PYTHONUTF8"))
    }
    command = [
        *prefix,
        sys.executable,
        "-m",
        "ocmt",
        "up",
        "--data",
        str(data),
        "--port",
        "0",
        "--demo-model",
    ]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        umask=umask,
        env=kept | {"OCMT_CACHE_DIR": str(load_settings().cache_dir)} | (environment or {}),
    ) as process:
        try:
            return _until_ready(process)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _until_ready(process: subprocess.Popen[bytes]) -> list[str]:
    assert process.stdout is not None
    said = b""
    end = time.monotonic() + START_LIMIT
    while b"\nready " not in said and time.monotonic() < end:
        if select.select([process.stdout], [], [], 1)[0]:
            part = os.read(process.stdout.fileno(), 65536)
            if not part:
                break
            said += part
    return said.decode("utf-8").splitlines()


def own(folder: Path, who: str) -> None:
    if who == "user" and os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)


def level(said: list[str]) -> str:
    return next((line for line in said if line.startswith("agents run in:")), "\n".join(said[-20:]))


@pytest.fixture(params=["root", "user"])
def who(request: pytest.FixtureRequest) -> str:
    if request.param == "root" and os.geteuid() != 0:
        pytest.skip("not root")
    return str(request.param)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o027, 0o077])
def test_a_first_start_and_the_next(umask: int, who: str, folder: Path) -> None:
    own(folder, who)
    data = folder / "data"
    for again in (umask, 0o022):
        said = start(data, umask=again, who=who)
        assert any(line.startswith("ready ") for line in said), said
        if who == "root" or os.geteuid() != 0:
            # With the capability that AS_ANYBODY keeps, bubblewrap refuses: for an ordinary user's sandboxes
            # under these umasks see tests/runtimes/test_mounts.py.
            assert level(said).startswith("agents run in: sandbox")
    open_to_all = [
        path
        for path in (data, *data.rglob("*"))
        if not path.is_symlink() and path.lstat().st_mode & 0o002 and not path.is_socket()
    ]
    assert open_to_all == []
    assert data.stat().st_mode & 0o777 == 0o700


@pytest.fixture(scope="module")
def latin_locale(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A locale whose encoding is not UTF-8, made for this test."""
    if shutil.which("localedef") is None:
        pytest.skip("there is no localedef to make a locale with")
    folder = tmp_path_factory.mktemp("locales")
    made = subprocess.run(
        ["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(folder / "en_US.ISO-8859-1")],
        capture_output=True,
        check=False,
    )
    if not (folder / "en_US.ISO-8859-1").is_dir():
        pytest.skip(f"no locale can be made here: {made.stderr.decode()[:200]}")
    return {"LOCPATH": str(folder), "LC_ALL": "en_US.ISO-8859-1"}


@pytest.mark.parametrize(
    "environment",
    [
        {"LANG": "C"},
        {"LC_ALL": "POSIX", "TZ": "Mars/Phobos"},
        {"LC_ALL": "tr_TR.UTF-8", "TZ": ":/nonexistent"},
        {"LC_ALL": "tr_TR.ISO-8859-9", "TZ": "XYZ+23:59:59"},
        {"LANG": "", "LC_ALL": "", "TZ": ""},
        {"LC_ALL": "de_DE@euro", "LANGUAGE": "de:tr", "TZ": "Asia/Kathmandu"},
    ],
    ids=lambda environment: " ".join(f"{name}={value}" for name, value in environment.items()),
)
def test_any_locale_and_time_zone(environment: dict[str, str], folder: Path) -> None:
    said = start(folder / "data-ä", umask=0o022, who="root", environment=environment)
    assert level(said).startswith("agents run in: sandbox")


def test_a_locale_with_another_encoding(latin_locale: dict[str, str], folder: Path) -> None:
    said = start(folder / "data-ä", umask=0o022, who="root", environment=latin_locale)
    assert level(said).startswith("agents run in: sandbox")
