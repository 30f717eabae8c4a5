"""Another user's files, and the platform's: by every path that might lead there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tests.runtimes.escapes.attempts.tries import Outcomes, tried


def attempt(given: dict[str, Any]) -> Outcomes:
    own = Path(given["own"])
    outcomes: Outcomes = {}
    for name, path in given["files"].items():
        link, hard = own / f"to-{name}", own / f"hard-{name}"
        for old in (link, hard):
            old.unlink(missing_ok=True)
        link.symlink_to(path)
        ways = {
            "its path": path,
            "process 1's root": f"/proc/1/root{path}",
            "its parent's root": f"/proc/{os.getppid()}/root{path}",
            "climbing": f"{own}{'/..' * 30}{path}",
            "process 1's folder": f"/proc/1/cwd{path}",
            "a link of its own": str(link),
        }
        for way, where in ways.items():
            outcomes[f"{name} by {way}"] = tried(lambda where=where: Path(where).read_text())
        outcomes[f"{name} by a hard link"] = tried(os.link, path, hard)
        outcomes[f"writing over {name}"] = tried(lambda path=path: Path(path).open("a").close())
        outcomes[f"the folder of {name}"] = tried(os.listdir, os.path.dirname(path))  # noqa: PTH120
    return outcomes
