"""Links to another's socket, laid where the platform might look for ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.runtimes.escapes.attempts.tries import Outcomes, tried


def attempt(given: dict[str, Any]) -> Outcomes:
    """Laying them in its own folders is allowed; what the platform makes of them, whoever asks finds out."""
    outcomes: Outcomes = {}
    for folder in given["own_folders"]:
        for name in ("control", "gateway.sock", "openclaw.json", "logs"):
            link = Path(folder) / name
            link.unlink(missing_ok=True)
            link.symlink_to(given["unix"]["the platform's"])
    for folder in ("/run/ocmt", "/home/agent/config", "/supervisor", "/opt/openclaw", "/etc", "/run", "/"):
        for name in ("control", "openclaw.json", "main.py", "planted"):
            link = Path(folder) / name
            outcomes[f"moving {link} away"] = tried(link.rename, link.with_name("moved"))
            if outcomes[f"moving {link} away"] == "ENOENT":
                outcomes[f"planting {link}"] = tried(link.symlink_to, given["unix"]["the platform's"])
    return outcomes
