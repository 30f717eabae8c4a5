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
    if folder.exists():
        return folder, "already there"
    with new_folder(folder) as partial:
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(place.project / "agent" / name, partial / name)
        # No install scripts: nothing that npm fetches runs on the host, only in sandboxes.
        place.commands.run(
            [node.program, node.npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            "Installing OpenClaw",
            cwd=partial,
            timeout=30 * _MINUTES,
            path=[node.program.parent],
        )
    return folder, "from npm"
