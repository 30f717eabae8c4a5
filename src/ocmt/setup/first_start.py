"""OpenClaw's first start, in a sandbox: shows that agents will start here, and leaves Node's compile cache.

Runs once for each OpenClaw and Node, in the virtual environment. That it fails does not fail the set-up:
agents start without a primed cache, too, and where they cannot start at all, `ocmt doctor` says why.
"""

from __future__ import annotations

from pathlib import Path

from ocmt.errors import SetupProblem
from ocmt.setup.folders import discard
from ocmt.setup.node import Node
from ocmt.setup.place import Place

_MINUTES = 60.0


def first_start(place: Place, node: Node, openclaw: Path) -> tuple[Path | None, str]:
    """The primed compile cache (None: there is none), and what happened. Needs the manifest to be written."""
    folder = place.cache / "compile-cache"
    target = folder / f"{openclaw.name}-node-{node.version}"
    if target.exists():
        return target, "already done"
    folder.mkdir(exist_ok=True)
    for leftover in folder.glob(".priming-*"):
        discard(leftover)
    program: list[str | Path] = [place.environment_python, "-m", "ocmt.cli.prime", target]
    try:
        place.commands.run(program, "First start", cwd=place.project, timeout=5 * _MINUTES)
    except SetupProblem:
        return None, f"did not succeed, see {place.commands.log}"
    return target, "done"
