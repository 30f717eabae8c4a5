"""Which tests `make test` runs: all, or all but the journeys, where these passed on exactly these files.

Journeys (the real OpenClaw, a real browser, a minute of chaos) take long. As Go does with its tests and Bazel
with all, what has passed is not run again until something has changed: the sources, the tests, the locks, the
tools of this machine. `make test FRESH=1` runs them all the same; a fresh clone has nothing noted.

Prints the marker expression for pytest; with `--passed` notes that they passed.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from ocmt.setup.folders import cache_folder

PROJECT = Path(__file__).resolve().parent.parent
INPUTS = ("agent", "pyproject.toml", "scripts", "src", "tests", "ui", "uv.lock")
MADE = {"__pycache__", "node_modules", "dist", ".vite"}
ALL = ""
WITHOUT_JOURNEYS = "not journey and not browser and not chaos"


def fingerprint(project: Path, tools: Path) -> str:
    """SHA-256 of what the journeys depend on: the clone's files, and `tools` (what is installed)."""
    whole = hashlib.sha256(sys.version.encode())
    for path in (*_files(project), tools):
        content = path.read_bytes() if path.is_file() else b""
        whole.update(f"{path}\0{hashlib.sha256(content).hexdigest()}\0".encode())
    return whole.hexdigest()


def _files(project: Path) -> Iterator[Path]:
    for name in INPUTS:
        top = project / name
        if top.is_dir():
            yield from sorted(path for path in top.rglob("*") if path.is_file() and not MADE & {*path.parts})
        else:
            yield top


def main(*, passed: bool, fresh: bool) -> None:
    """See the module."""
    begun, done = (PROJECT / ".pytest_cache" / f"journeys-{word}" for word in ("begun", "passed"))
    now = fingerprint(PROJECT, cache_folder() / "tools.json")
    if passed:
        # Not where something was changed while they ran.
        if begun.is_file() and begun.read_text() == now:
            begun.replace(done)
    elif not fresh and done.is_file() and done.read_text() == now:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(done.stat().st_mtime))
        print(f"Journeys: passed on exactly these files on {when}; FRESH=1 runs them again.", file=sys.stderr)
        print(WITHOUT_JOURNEYS)
    else:
        begun.parent.mkdir(exist_ok=True)
        begun.write_text(now)
        print(ALL)


if __name__ == "__main__":
    main(passed="--passed" in sys.argv, fresh="--fresh" in sys.argv)
