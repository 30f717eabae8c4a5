"""The user interface: built by Vite from ui/ into ui/dist, again only when its sources changed."""

from __future__ import annotations

from pathlib import Path

from ocmt.errors import SetupProblem
from ocmt.setup.folders import digest, discard, files_below, write_whole
from ocmt.setup.node import Node
from ocmt.setup.place import Place

_NOT_SOURCES = frozenset({"node_modules", "dist", "coverage", "test-results", ".vite"})
_MINUTES = 60.0


def sources(project: Path) -> str:
    """A hash over all that the built user interface depends on."""
    return digest(project, files_below(project / "ui", without=_NOT_SOURCES))


def build_interface(place: Place, node: Node) -> str:
    """Makes ui/dist; returns what was done."""
    folder = place.project / "ui"
    if not (folder / "package-lock.json").exists():
        raise SetupProblem(
            f"{folder} has no package-lock.json: this clone is not complete. Run `git checkout ui`."
        )
    modules, built = folder / "node_modules", folder / "dist"
    now = sources(place.project)
    if _read(built / ".sources") == now and (built / "index.html").exists():
        return "already built"
    lock = digest(folder, [folder / "package-lock.json"])
    if _read(modules / ".lock") != lock:
        discard(modules / ".lock")
        _npm(
            place,
            node,
            ["ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            "Installing the user interface's libraries",
        )
        write_whole(modules / ".lock", lock)
    discard(built / ".sources")
    _npm(place, node, ["run", "build"], "Building the user interface")
    write_whole(built / ".sources", now)
    return "built"


def _npm(place: Place, node: Node, words: list[str], what: str) -> None:
    place.commands.run(
        [node.program, node.npm, *words],
        what,
        cwd=place.project / "ui",
        timeout=30 * _MINUTES,
        path=[node.program.parent],
    )


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""
