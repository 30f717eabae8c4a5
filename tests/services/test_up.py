"""`ocmt up` as a process, without any agent: what is in its way, how it ends, what it leaves.

Slow as tests go (a database server is made and started), so one installation serves most of it, in order.
"""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from ocmt.settings import load_settings
from ocmt.testing.installation import Installation, Person

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

NOBODY = 65534
# Reads what root reads (this interpreter may be in root's home), and writes no more than anybody.
AS_ANYBODY = [
    "setpriv",
    f"--reuid={NOBODY}",
    f"--regid={NOBODY}",
    "--clear-groups",
    "--inh-caps=+dac_read_search",
    "--ambient-caps=+dac_read_search",
]


def temporary() -> Iterator[Path]:
    if not (load_settings().cache_dir / "tools.json").is_file():
        pytest.skip("needs what `make setup` fetches")
    folder = Path(tempfile.mkdtemp(prefix="ocmt-up-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


folder = pytest.fixture(temporary)
shared_folder = pytest.fixture(temporary, scope="module")


@pytest.fixture(scope="module")
async def installation(anyio_backend: str, shared_folder: Path) -> AsyncIterator[Installation]:
    async with Installation(shared_folder / "data") as running:
        yield running


def up(
    *arguments: str, prefix: tuple[str, ...] | list[str] = (), environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """`ocmt up` that is expected to end by itself, soon."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OCMT_", "DATABASE_URL", "ANTHROPIC_"))
    }
    return subprocess.run(
        [*prefix, sys.executable, "-m", "ocmt", "up", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=kept | {"OCMT_CACHE_DIR": str(load_settings().cache_dir)} | (environment or {}),
        stdin=subprocess.DEVNULL,
    )


def assert_one_line(ended: subprocess.CompletedProcess[str], *, naming: str, advising: str) -> None:
    words = (ended.stdout + ended.stderr).strip()
    assert ended.returncode == 1, words
    assert len(words.splitlines()) == 1, words
    assert naming in words
    assert advising in words
    assert "Traceback" not in words


def test_a_port_that_is_taken_is_said_in_one_line(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = up("--data", str(folder / "data"), "--port", str(port))
    assert_one_line(ended, naming=f"Port {port} is in use", advising="--port")
    assert not (folder / "data").exists(), "nothing was begun"


def test_a_data_folder_that_can_not_be_is_said_in_one_line(folder: Path) -> None:
    (folder / "file").touch()
    ended = up("--data", str(folder / "file" / "data"), "--port", "0")
    assert_one_line(ended, naming=str(folder / "file" / "data"), advising="--data")


def test_a_data_folder_of_somebody_else_is_said_in_one_line(folder: Path) -> None:
    data = folder / "data"
    data.mkdir(mode=0o755)
    if os.getuid() == 0:
        ended = up("--data", str(data), "--port", "0", prefix=AS_ANYBODY)
    else:
        data.chmod(0o555)
        ended = up("--data", str(data), "--port", "0")
    assert_one_line(ended, naming="can not be written (Permission denied)", advising="correct its owner")


async def test_it_runs_and_answers_on_its_port(installation: Installation) -> None:
    async with Person(installation.url) as anna:
        assert await anna.call("GET", "/readyz") == {"status": "ready"}
        me = await anna.sign_in(installation.link)
        assert me["is_admin"] is True


@pytest.mark.parametrize("environment", [{}, {"DATABASE_URL": "postgresql://elsewhere.invalid/ocmt"}])
async def test_a_second_one_on_the_same_data_says_so_in_one_line(
    installation: Installation, environment: dict[str, str]
) -> None:
    arguments = ("--data", str(installation.data), "--port", "0")
    ended = await asyncio.to_thread(partial(up, *arguments, environment=environment))
    assert_one_line(ended, naming=str(installation.data), advising="its own by --data")
    async with Person(installation.url) as anna:
        assert await anna.call("GET", "/readyz") == {"status": "ready"}, "the first one is not disturbed"
    link = await installation.command("users", "login-link", "admin@localhost")
    assert link.startswith(f"{installation.url}/sign-in#token="), "commands still know where it answers"


async def test_killed_it_takes_its_database_with_it_and_starts_again(installation: Installation) -> None:
    children = psutil.Process(installation.pid).children(recursive=True)
    assert any(child.name() == "postgres" for child in children)
    await installation.kill()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []
    await installation.start()
    async with Person(installation.url) as anna:
        assert await anna.call("GET", "/readyz") == {"status": "ready"}


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
async def test_it_ends_in_time_and_leaves_no_process(installation: Installation, how: signal.Signals) -> None:
    if installation.process is None or installation.process.returncode is not None:
        await installation.start()
    children = psutil.Process(installation.pid).children(recursive=True)
    async with Person(installation.url) as anna:
        await anna.sign_in(installation.link)
        conversation = await anna.conversation()
        reading = asyncio.create_task(anext(anna.events(conversation), None))
        await asyncio.sleep(0.1)  # an open stream does not keep it
        assert await installation.stop(how) < 10
        await asyncio.wait([reading], timeout=5)
    assert installation.process is not None
    assert installation.process.returncode == 0
    assert [child for child in children if child.is_running()] == []


async def test_an_ordinary_user_runs_it_as_well(folder: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("all the others have just shown that")
    plain = AS_ANYBODY[:4]
    tools = load_settings().cache_dir / "tools.json"
    look = f"open({str(tools)!r})"
    if subprocess.run([*plain, sys.executable, "-c", look], capture_output=True, check=False).returncode:
        pytest.skip("this interpreter, or what `make setup` fetched, is where only root reaches it")
    data = folder / "data"
    data.mkdir(mode=0o700)
    shutil.chown(data, NOBODY, NOBODY)
    process = await asyncio.create_subprocess_exec(
        *[*plain, sys.executable, "-m", "ocmt", "up", "--data", str(data), "--port", "0"],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "OCMT_CACHE_DIR": str(load_settings().cache_dir),
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    said: list[str] = []
    async with asyncio.timeout(60):
        async for line in process.stdout:
            said.append(line.decode())
            if line.startswith(b"ready "):
                process.send_signal(signal.SIGINT)
        await process.wait()
    assert process.returncode == 0, "".join(said)
