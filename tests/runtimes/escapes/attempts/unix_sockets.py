"""Sockets in the file system: another user's, the platform's."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from tests.runtimes.escapes.attempts.tries import Outcomes, greeted_by


def attempt(given: dict[str, Any]) -> Outcomes:
    outcomes: Outcomes = {}
    for name, path in given["unix"].items():
        link = Path(given["own"]) / f"socket-{name}"
        link.unlink(missing_ok=True)
        link.symlink_to(path)
        for way, where in {
            "its path": path,
            "process 1's root": f"/proc/1/root{path}",
            "a link of its own": str(link),
        }.items():
            if len(where) < 108:  # an address has no room for more
                outcomes[f"{name} by {way}"] = greeted_by(socket.AF_UNIX, where)
    return outcomes
