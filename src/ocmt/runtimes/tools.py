"""What a sandbox is made of: the programs that `make setup` has put into the cache, found by its manifest.

`<cache>/tools.json` is the agreement with the set-up:
`{"node": path, "openclaw": path, "bwrap": path, "compile_cache": path | null, "postgres": path | null}`.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from ocmt.errors import SetupProblem

MANIFEST = "tools.json"


@dataclass(frozen=True)
class Tools:
    """Programs of this machine, all of them absolute paths."""

    node: Path
    """The executable, in the folder `bin` of its installation."""
    openclaw: Path
    """The folder that contains `node_modules/openclaw`."""
    bwrap: Path
    python: Path
    """A Python of 3.11 or newer with its standard library, for the supervisor."""
    compile_cache: Path | None = None
    """What `prime_compile_cache` has made; copied into new agents, so that their first wake is quicker."""

    def of(self, image: str | None) -> Tools | None:
        """These with another OpenClaw of the same cache: `2026.9.6`, or the whole name of its folder.

        None: it is not there. The set-up names the folders `VERSION-HASH`, of the hash of what was installed.
        """
        if image in (None, self.openclaw.name):
            return self
        with contextlib.suppress(OSError):
            named = [
                folder
                for folder in self.openclaw.parent.iterdir()
                if image in (folder.name, folder.name.rpartition("-")[0]) and _is_there(folder)
            ]
            if named:
                return self._with(max(named, key=lambda folder: (folder == self.openclaw, folder.name)))
        return None

    def _with(self, openclaw: Path) -> Tools:
        primed = None
        if self.compile_cache is not None and self.compile_cache.name.startswith(self.openclaw.name):
            of_this = self.compile_cache.name.removeprefix(self.openclaw.name)
            primed = self.compile_cache.with_name(openclaw.name + of_this)
        return replace(self, openclaw=openclaw, compile_cache=primed if primed and primed.is_dir() else None)


def _is_there(openclaw: Path) -> bool:
    return (openclaw / "node_modules" / "openclaw" / "openclaw.mjs").is_file()


def own_python() -> Path:
    """The interpreter below any virtual environment that runs this process."""
    return Path(os.path.realpath(getattr(sys, "_base_executable", sys.executable)))


def control_ui(cache_dir: Path) -> Path | None:
    """The folder of OpenClaw's own pages; None where no OpenClaw is installed."""
    try:
        folder = find_tools(cache_dir).openclaw / "node_modules" / "openclaw" / "dist" / "control-ui"
    except SetupProblem:
        return None
    return folder if (folder / "index.html").is_file() else None


def find_tools(cache_dir: Path) -> Tools:
    """The tools that the set-up has noted in its manifest.

    Raises: SetupProblem where the manifest is missing, damaged or names something that is gone.
    """
    manifest = cache_dir / MANIFEST
    try:
        noted = json.loads(manifest.read_text())
        node, openclaw, bwrap = (Path(noted[name]) for name in ("node", "openclaw", "bwrap"))
        primed = Path(noted["compile_cache"]) if noted.get("compile_cache") else None
    except FileNotFoundError as error:
        raise SetupProblem(
            "OpenClaw is not installed yet: run `make setup`.", detail=str(manifest)
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SetupProblem(f"{manifest} is damaged: run `make setup` again.", detail=repr(error)) from error
    for path in (node, openclaw / "node_modules" / "openclaw" / "openclaw.mjs", bwrap):
        if not path.is_file():
            raise SetupProblem(f"{path} is missing: run `make setup` again.")
    if primed is not None and not primed.is_dir():
        primed = None
    return Tools(node=node, openclaw=openclaw, bwrap=bwrap, python=own_python(), compile_cache=primed)
