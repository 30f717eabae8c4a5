"""OpenClaw, pinned by agent/package-lock.json, installed once per lock into the cache for all clones."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from ocmt.setup.folders import new_folder
from ocmt.setup.node import Node
from ocmt.setup.place import Place

# Measured: 647 MB in 39,000 files, plus what npm keeps of the downloads.
SPACE = 1_200_000_000
_UNFINISHED = (".openclaw-lifecycle-pending", ".openclaw-lifecycle-lock", "dist/openclaw-install-guard")
_MINUTES = 60.0


def version(project: Path) -> str:
    """The pinned version of OpenClaw."""
    return str(json.loads((project / "agent" / "package.json").read_text())["dependencies"]["openclaw"])


def folder_for(project: Path, cache: Path) -> Path:
    """Where this lock's OpenClaw is: its version and the start of the lock's hash name the folder."""
    lock = (project / "agent" / "package-lock.json").read_bytes()
    return cache / "openclaw" / f"{version(project)}-{hashlib.sha256(lock).hexdigest()[:12]}"


def get_openclaw(place: Place, node: Node) -> tuple[Path, str]:
    """The folder with `node_modules/openclaw`, and where it came from."""
    folder = folder_for(place.project, place.cache)
    if _is_finished(folder):
        return folder, "already there"
    with new_folder(folder) as partial:
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(place.project / "agent" / name, partial / name)
        # No install scripts: of what npm fetches, nothing but OpenClaw itself runs outside of a sandbox.
        argv: list[str | Path] = [node.program, node.npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        _run(place, node, argv, partial)
        _finish(place, node, partial)
    return folder, "from npm"


def _finish(place: Place, node: Node, folder: Path) -> None:
    """Has OpenClaw do what its install script would have: it refuses to start before, and agents may not
    write there. Shows, too, that it runs here."""
    program = folder / "node_modules" / "openclaw" / "openclaw.mjs"
    answer = _run(place, node, [node.program, program, "--version"], folder)
    if version(place.project) not in answer or not _is_finished(folder):
        raise place.commands.problem("OpenClaw", "It does not run on this machine, or is not complete.")


def _is_finished(folder: Path) -> bool:
    package = folder / "node_modules" / "openclaw"
    return package.exists() and not any((package / name).exists() for name in _UNFINISHED)


def _run(place: Place, node: Node, argv: list[str | Path], folder: Path) -> str:
    return place.commands.run(
        argv, "Installing OpenClaw", cwd=folder, timeout=30 * _MINUTES, path=[node.program.parent]
    )
