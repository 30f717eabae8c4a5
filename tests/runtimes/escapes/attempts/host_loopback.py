"""Services that listen on the machine's loopback: directly, by its other addresses, through the proxy."""

from __future__ import annotations

import socket
from typing import Any

from tests.runtimes.escapes.attempts.tries import Outcomes, greeted_by, through_the_proxy


def attempt(given: dict[str, Any]) -> Outcomes:
    outcomes: Outcomes = {}
    for name, port in given["ports"].items():
        for host in ("127.0.0.1", "127.8.8.8", "0.0.0.0", *given["addresses"], "172.17.0.1"):
            outcomes[f"{name} at {host}"] = greeted_by(socket.AF_INET, (host, port))
        outcomes[f"{name} at ::1"] = greeted_by(socket.AF_INET6, ("::1", port))
        for host in ("127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0", "2130706433", "127.1"):
            outcomes[f"{name} through the proxy at {host}"] = through_the_proxy(
                f"{host}:{port}", port=given["proxy"]
            )
    return outcomes
