"""The platform's database, its address and password known: its socket, its port, its files."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from tests.runtimes.escapes.attempts.tries import Outcomes, greeted_by, through_the_proxy, tried


def attempt(given: dict[str, Any]) -> Outcomes:
    database = given["database"]
    return {
        "its socket": greeted_by(socket.AF_UNIX, database["socket"]),
        "the usual socket": greeted_by(socket.AF_UNIX, "/var/run/postgresql/.s.PGSQL.5432"),
        "its port": greeted_by(socket.AF_INET, ("127.0.0.1", database["port"])),
        "its port through the proxy": through_the_proxy(f"127.0.0.1:{database['port']}", port=given["proxy"]),
        "its password": tried(lambda: Path(database["password"]).read_text()),
    }
