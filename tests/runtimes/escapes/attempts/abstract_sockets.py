"""Abstract sockets, which no file's rights protect: the platform's, another user's."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from tests.runtimes.escapes.attempts.tries import Outcomes, greeted_by


def attempt(given: dict[str, Any]) -> Outcomes:
    table = Path("/proc/net/unix").read_text()
    outcomes: Outcomes = {}
    for name, address in given["abstract"].items():
        outcomes[name] = greeted_by(socket.AF_UNIX, "\0" + address)
        outcomes[f"seeing {name}"] = "REACHED the table" if address in table else "ENOENT"
    return outcomes
