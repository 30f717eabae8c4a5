"""What a sandbox can see, wherever Node, Python and the data folder lie: nothing private.

Each test starts a real agent in a process of its own, as root and as an ordinary user, and has that agent
look for a file of the platform's by its inode, over everything that it can see.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ocmt.runtimes.tools import Tools, own_python

from .conftest import REACHABLE
from .escapes.test_escapes import ORDINARY, Staged
from .layout import prepare

pytestmark = pytest.mark.sandbox
ROOT = Path(__file__).parents[2]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount, and write to /usr/local")
LEFT_OUT = shutil.ignore_patterns(
    "site-packages", "dist-packages", "test", "tests", "idlelib", "tkinter", "ensurepip", "__pycache__",
    "config-*", "lib2to3", "*.a",
)  # fmt: skip


@pytest.fixture(scope="module")
def python_copy() -> Iterator[Path]:
    """A Python that is installed in a folder of its own: `bin`, `lib/pythonX.Y`, and its shared library."""
    folder = Path(tempfile.mkdtemp(prefix="ocmt-python-"))
    folder.chmod(0o755)
    install_python(folder)
    yield folder
    shutil.rmtree(folder)


def install_python(prefix: Path) -> None:
    program = own_python()
    (prefix / "bin").mkdir(parents=True, exist_ok=True)
    shutil.copy(program, prefix / "bin" / program.name)
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    modules = Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix}))
    shutil.copytree(modules, prefix / "lib" / name, ignore=LEFT_OUT, dirs_exist_ok=True)
    packages = prefix / "lib" / name / "site-packages" / "of-the-operator"
    packages.mkdir(parents=True)
    (packages / "note").write_text("not for agents")


@dataclass
class Layout:
    """Where things lie, below one temporary folder; by default as a user has them who knows nothing."""

    place: Path
    installed: Tools
    uid: int | None
    python: Path = field(init=False)
    home: Path = field(init=False)
    data: Path = field(init=False)
    node: Path = field(init=False)
    openclaw: Path = field(init=False)
    more: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.home = self.place / "home" / "ben"
        self.data = self.home / ".local" / "share" / "ocmt"
        self.openclaw = self.home / ".cache" / "ocmt" / "openclaw" / "1"
        self.node = self.home / ".cache" / "ocmt" / "node" / "bin" / "node"
        self.python = own_python()
        self.secret: Path | None = None

    def look(self, *, mounts: Sequence[tuple[Path | str, Path]] = ()) -> dict[str, Any]:
        """Make the folders, start an agent, and tell what it found.

        With `mounts`, they are made first: what lies on them does not exist outside of that process.
        """
        if self.home.is_relative_to(self.place):
            self.home.mkdir(parents=True, exist_ok=True)
        if mounts:
            self.more["mounts"] = [(str(source), str(target)) for source, target in mounts]
            self.more["make"] = {str(path): content for path, content in self._programs().items()}
        else:
            self.data.mkdir(parents=True, exist_ok=True)
            prepare({"make": self._programs()})
        bwrap = self.place / "bwrap" / self.installed.bwrap.relative_to(Staged._wheel(self.installed))
        shutil.copytree(Staged._wheel(self.installed), self.place / "bwrap")
        asked = {
            "data": str(self.data),
            "node": str(self.node),
            "openclaw": str(self.openclaw),
            "python": str(self.python),
            "bwrap": str(bwrap),
            "secret": str(self.secret or self.data / "secrets" / "master.key"),
            **self.more,
        }
        running, paths = own_python(), [ROOT, ROOT / "src", Path(sysconfig.get_path("purelib"))]
        if self.uid is not None:
            subprocess.run(["chown", "-R", f"{self.uid}:{self.uid}", self.place], check=True)
            prefix = running.parent.parent
            running = REACHABLE.view(prefix) / running.relative_to(prefix)
            paths = [REACHABLE.view(path) for path in paths]
            if self.python == own_python():
                asked["python"] = str(running)
        drop: dict[str, Any] = {}
        if self.uid is not None:
            drop = {"user": self.uid, "group": self.uid, "extra_groups": []}
        answer = subprocess.run(
            [running, "-m", "tests.runtimes.layout", json.dumps(asked)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd="/",
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.home),
                "PYTHONPATH": ":".join(map(str, paths)),
            },
            **drop,
        )
        assert answer.returncode == 0, answer.stderr[-3000:]
        said: dict[str, Any] = json.loads(answer.stdout)
        return said

    def _programs(self) -> dict[Path, str]:
        stand_in = (Path(__file__).parent / "stand_in.py").read_text()
        python = self.python
        if python.is_relative_to(self.place):  # below /tmp, where the sandbox has a folder of its own
            python = Path("/opt/python/bin", python.name)
        elif self.uid is not None:
            python = REACHABLE.view(python.parent.parent) / python.relative_to(python.parent.parent)
        return {
            self.node: f"#!{python} -IS\n{stand_in}",
            self.node.parent.parent / "lib/node_modules/npm/bin/npm-cli.js": "npm",
            self.openclaw / "node_modules/openclaw/openclaw.mjs": "",
        }

    def use_python(self, copy: Path, prefix: Path) -> None:
        """Have the Python that the supervisor runs on installed there."""
        shutil.copytree(copy, prefix, symlinks=True, dirs_exist_ok=True)
        self.python = prefix / "bin" / own_python().name


@pytest.fixture(params=["root", "user"])
def layout(request: pytest.FixtureRequest, installed: Tools) -> Iterator[Layout]:
    if request.param == "root" and os.geteuid() != 0:
        pytest.skip("not root")
    uid = ORDINARY if request.param == "user" and os.geteuid() == 0 else None
    place = Path(tempfile.mkdtemp(prefix="ocmt-layout-"))
    place.chmod(0o755)
    yield Layout(place, installed, uid)
    shutil.rmtree(place)


Change = Callable[[Layout, Path], None]


def node_in(prefix: str) -> Change:
    def change(layout: Layout, python: Path) -> None:
        layout.node = layout.home / prefix / "bin" / "node"

    return change


def python_in(prefix: str) -> Change:
    def change(layout: Layout, python: Path) -> None:
        layout.use_python(python, layout.home / prefix)

    return change


def both_in(prefix: str) -> Change:
    def change(layout: Layout, python: Path) -> None:
        node_in(prefix)(layout, python)
        python_in(prefix)(layout, python)

    return change


def both_through_a_link_to(prefix: str) -> Change:
    """The folder that is named is a symbolic link to a folder that contains the data folder."""

    def change(layout: Layout, python: Path) -> None:
        layout.use_python(python, layout.home / prefix)
        (layout.place / "current").symlink_to(layout.home / prefix)
        layout.node = layout.place / "current" / "bin" / "node"
        layout.python = layout.place / "current" / "bin" / layout.python.name

    return change


def cache_in_the_data_folder(layout: Layout, python: Path) -> None:
    layout.openclaw = layout.data / "cache" / "openclaw" / "1"
    layout.node = layout.data / "cache" / "node" / "bin" / "node"
    layout.use_python(python, layout.data / "cache" / "python")


def data_folder_through_a_link(layout: Layout, python: Path) -> None:
    node_in(".local")(layout, python)
    layout.data.mkdir(parents=True)
    (layout.place / "data").symlink_to(layout.data)
    layout.data = layout.place / "data"


def data_folder_is_the_home_folder(layout: Layout, python: Path) -> None:
    """As of a service's own user, whose programs then lie in the data folder."""
    layout.data = layout.home
    both_in(".local")(layout, python)


def virtual_environment(layout: Layout, python: Path) -> None:
    """Node as nodeenv puts it there; Python is that of `~/.local`, from which the environment was made."""
    layout.node = layout.home / "clone" / ".venv" / "bin" / "node"
    layout.use_python(python, layout.home / ".local")


WORKING = {
    "as by default": lambda *_: None,
    "Node in ~/.local": node_in(".local"),
    "Node in ~": node_in("."),
    "Node in ~/.local/share, beside the data folder": node_in(".local/share"),
    "Python in ~/.local": python_in(".local"),
    "Python in ~": python_in("."),
    "both in ~/.local": both_in(".local"),
    "both in ~": both_in("."),
    "a virtual environment": virtual_environment,
    "a link to ~/.local": both_through_a_link_to(".local"),
    "a link to ~": both_through_a_link_to("."),
    "the cache folder inside the data folder": cache_in_the_data_folder,
    "the data folder through a link": data_folder_through_a_link,
    "the data folder is the home folder": data_folder_is_the_home_folder,
}


@pytest.mark.parametrize("name", WORKING)
def test_an_agent_starts_and_sees_nothing_private(name: str, layout: Layout, python_copy: Path) -> None:
    WORKING[name](layout, python_copy)
    said = layout.look()
    assert said["level"].startswith("sandbox"), said
    assert "found" in said, said
    found = said["found"]
    assert found["secret"] == []
    assert found["packages"] == []
    assert found["npm"]
    assert found["node"] == ["bin", "lib", "node", "npm", "npx"]


@pytest.fixture
def rooted(installed: Tools) -> Iterator[Layout]:
    """As root, for layouts that need mounts of their own."""
    place = Path(tempfile.mkdtemp(prefix="ocmt-layout-"))
    place.chmod(0o755)
    yield Layout(place, installed, None)
    shutil.rmtree(place)


@pytest.fixture
def in_usr_local() -> Iterator[Path]:
    """An empty folder that all sandboxes would see, as a part of /usr."""
    folder = Path(tempfile.mkdtemp(prefix="ocmt-layout-", dir="/usr/local"))
    folder.chmod(0o755)
    yield folder
    folder.rmdir()


@as_root
class TestMountedElsewhere:
    def test_everything_in_usr_local(self, rooted: Layout, in_usr_local: Path) -> None:
        rooted.data = in_usr_local / "share" / "ocmt"
        rooted.node = in_usr_local / "bin" / "node"
        said = rooted.look(mounts=[("tmpfs", in_usr_local)])
        assert said["level"].startswith("sandbox"), said
        assert said["found"]["secret"] == []

    def test_a_home_folder_in_usr_local_with_all_programs(self, rooted: Layout, in_usr_local: Path) -> None:
        """As of a service's own user; what it needs is bound by name although /usr is bound as well."""
        rooted.home = in_usr_local / "ocmt"
        rooted.data = rooted.home / "data"
        rooted.node = rooted.home / ".local" / "bin" / "node"
        rooted.openclaw = rooted.home / "openclaw"
        said = rooted.look(mounts=[("tmpfs", in_usr_local)])
        assert said["level"].startswith("sandbox"), said
        assert said["found"]["secret"] == []
        assert said["found"]["npm"]

    @pytest.mark.parametrize("what", ["data", "home", "secrets"])
    def test_a_second_name_of_a_private_folder_inside_usr(
        self, what: str, rooted: Layout, in_usr_local: Path
    ) -> None:
        rooted.data.mkdir(parents=True)
        (rooted.data / "secrets").mkdir()
        source = {"data": rooted.data, "home": rooted.home, "secrets": rooted.data / "secrets"}[what]
        said = rooted.look(mounts=[(source, in_usr_local)])
        assert said["level"].startswith("sandbox"), said
        assert said["found"]["secret"] == []

    @pytest.mark.parametrize("what", ["data", "home", "secrets"])
    def test_a_second_name_of_a_private_folder_inside_a_program(self, what: str, rooted: Layout) -> None:
        """It cannot be left out, so no agent is started."""
        (rooted.data / "secrets").mkdir(parents=True)
        inside = rooted.place / "elsewhere" / "openclaw"
        rooted.openclaw = inside
        source = {"data": rooted.data, "home": rooted.home, "secrets": rooted.data / "secrets"}[what]
        said = rooted.look(mounts=[(source, inside / "more")])
        assert said["level"] == "none"
        assert str(inside) in said["problem"]
        assert "OCMT_DATA_DIR" in said["problem"]

    def test_node_under_a_second_name_of_the_folder_above(self, rooted: Layout) -> None:
        (rooted.home / ".local").mkdir(parents=True)
        rooted.node = rooted.place / "node" / "bin" / "node"
        said = rooted.look(mounts=[(rooted.home / ".local", rooted.place / "node")])
        assert said["level"].startswith("sandbox"), said
        assert said["found"]["secret"] == []


@as_root
def test_a_data_folder_inside_a_program_is_refused(rooted: Layout) -> None:
    rooted.data = rooted.openclaw / "data"
    said = rooted.look()
    assert said["level"] == "none"
    assert "contains OCMT's data folder" in said["problem"]


@as_root
@pytest.mark.parametrize("name", ["openclaw", "npm"])
def test_a_program_that_is_a_link_to_the_data_folder_is_refused(name: str, rooted: Layout) -> None:
    rooted.data.mkdir(parents=True)
    link = rooted.openclaw if name == "openclaw" else rooted.node.parent.parent / "lib/node_modules/npm"
    link.parent.mkdir(parents=True)
    link.symlink_to(rooted.data)
    said = rooted.look()
    assert said["level"] == "none"
    assert "is OCMT's data folder" in said["problem"]


class TestFromInside:
    """The probe finds out by itself, whatever the guard has let pass."""

    @pytest.mark.parametrize("option", ["--ro-bind", "--bind"])
    @pytest.mark.parametrize("what", ["data", "home", "above"])
    def test_a_sandbox_that_shows_something_private_is_none(
        self, what: str, option: str, layout: Layout
    ) -> None:
        shown = {"data": layout.data, "home": layout.home, "above": layout.place}[what]
        layout.more["unguarded"] = [option, str(shown), "/opt/shown"]
        said = layout.look()
        assert said["level"] == "none"
        assert any("sees" in line and "data folder at /opt/shown" in line for line in said["missing"]), said
        assert "problem" in said


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o027, 0o077])
def test_an_agent_starts_under_any_umask(umask: int, layout: Layout) -> None:
    """The runtime by itself, without the command line's own umask."""
    layout.more["umask"] = umask
    said = layout.look()
    assert said["level"].startswith("sandbox"), said
    assert said["found"]["secret"] == []


@as_root
@pytest.mark.parametrize("folder", [".etc", ".supervisor", "."])
def test_modes_that_an_earlier_start_has_left_are_repaired(folder: str, rooted: Layout) -> None:
    place = rooted.data / "agents" / folder
    place.mkdir(parents=True)
    place.chmod(0o700)
    said = rooted.look()
    assert said["level"].startswith("sandbox"), said
