"""OpenClaw, pinned by agent/package-lock.json, installed once per lock into the cache for all clones."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from ocmt.platform.linked import libraries, names_beside
from ocmt.setup.folders import new_folder
from ocmt.setup.node import Node
from ocmt.setup.place import Place

# Measured: 647 MB in 39,000 files, plus what npm keeps of the downloads.
SPACE = 1_200_000_000
_UNFINISHED = (".openclaw-lifecycle-pending", ".openclaw-lifecycle-lock", "dist/openclaw-install-guard")
_MINUTES = 60.0
_NODE = Path("/opt/node")


def version(project: Path) -> str:
    """The pinned version of OpenClaw."""
    return str(json.loads((project / "agent" / "package.json").read_text())["dependencies"]["openclaw"])


def folder_for(project: Path, cache: Path) -> Path:
    """Where this lock's OpenClaw is: its version and the start of the lock's hash name the folder."""
    lock = (project / "agent" / "package-lock.json").read_bytes()
    return cache / "openclaw" / f"{version(project)}-{hashlib.sha256(lock).hexdigest()[:12]}"


def get_openclaw(place: Place, node: Node, bwrap: Path | None) -> tuple[Path, str]:
    """The folder with `node_modules/openclaw`, and where it came from.

    `bwrap` makes the sandbox in which it is started once; None: this machine allows none, and then OpenClaw
    is not started at all until it does.
    """
    folder = folder_for(place.project, place.cache)
    if is_finished(folder) or (bwrap is None and _is_there(folder)):
        return folder, "already there"
    with new_folder(folder) as partial:
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(place.project / "agent" / name, partial / name)
        # No install scripts: of what npm fetches, nothing but OpenClaw itself runs outside of a sandbox.
        argv: list[str | Path] = [node.program, node.npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        _run(place, node, argv, partial)
        if bwrap is not None:
            _finish(place, node, bwrap, partial)
    return folder, "from npm"


def _finish(place: Place, node: Node, bwrap: Path, folder: Path) -> None:
    """Has OpenClaw do what its install script would have: it refuses to start before, and agents may not
    write there. Shows, too, that it runs here.

    It runs in a sandbox that sees Node, the system's programs and this one folder, and no network: nothing
    that npm has fetched ever runs with the rights of whoever installs OCMT."""
    answer = _run(place, node, sandboxed(bwrap, node.program, folder), folder)
    if version(place.project) not in answer or not is_finished(folder):
        raise place.commands.problem("OpenClaw", "It does not run on this machine, or is not complete.")


def sandboxed(bwrap: Path, node: Path, folder: Path) -> list[str | Path]:
    """The command that starts the OpenClaw in that folder, once, to tell its version."""
    argv: list[str | Path] = [
        bwrap,
        "--unshare-all",
        "--die-with-parent",
        "--new-session",
        "--cap-drop",
        "ALL",
    ]
    argv += ["--clearenv", "--setenv", "HOME", "/tmp", "--setenv", "PATH", "/usr/bin:/bin"]  # noqa: S108
    argv += ["--ro-bind", "/usr", "/usr", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]  # noqa: S108
    for name in ("bin", "lib", "lib32", "lib64"):
        host = Path("/", name)
        if host.is_symlink():
            argv += ["--symlink", host.readlink(), host]
        elif host.is_dir():
            argv += ["--ro-bind", host, host]
    if Path("/etc/ld.so.cache").exists():
        argv += ["--ro-bind", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    for library in (beside for needed in libraries(node) for beside in names_beside(needed)):
        if not str(library).startswith(("/usr/", "/lib")):
            argv += ["--ro-bind", library.resolve(), library]
        if library.is_relative_to(node.parent.parent):
            argv += ["--ro-bind", library.resolve(), _NODE / library.relative_to(node.parent.parent)]
    argv += ["--ro-bind", node.resolve(), _NODE / "bin" / "node", "--bind", folder, "/opt/openclaw"]
    argv += ["--chdir", "/opt/openclaw", "--", _NODE / "bin" / "node"]
    return [*argv, "/opt/openclaw/node_modules/openclaw/openclaw.mjs", "--version"]


def is_finished(folder: Path) -> bool:
    """Whether OpenClaw is there and has been started once."""
    package = folder / "node_modules" / "openclaw"
    return package.exists() and not any((package / name).exists() for name in _UNFINISHED)


def _is_there(folder: Path) -> bool:
    return (folder / "node_modules" / "openclaw").exists()


def _run(place: Place, node: Node, argv: list[str | Path], folder: Path) -> str:
    return place.commands.run(
        argv, "Installing OpenClaw", cwd=folder, timeout=30 * _MINUTES, path=[node.program.parent]
    )
