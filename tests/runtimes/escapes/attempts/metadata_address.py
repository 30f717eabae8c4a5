"""A cloud's metadata service, which hands out credentials: directly, and through the proxy, in disguise."""

from __future__ import annotations

import socket
from typing import Any

from tests.runtimes.escapes.attempts.tries import Outcomes, greeted_by, through_the_proxy

DIRECT = ("169.254.169.254", "100.100.100.200", "168.63.129.16", "192.0.0.192")
DISGUISED = (
    *("169.254.169.254", "2852039166", "0xa9fea9fe", "169.254.43518", "[::ffff:169.254.169.254]"),
    *("[64:ff9b::a9fe:a9fe]", "[2002:a9fe:a9fe::1]", "[fd00:ec2::254]", "100.100.100.200", "168.63.129.16"),
)


def attempt(given: dict[str, Any]) -> Outcomes:
    outcomes = {f"{host} directly": greeted_by(socket.AF_INET, (host, 80)) for host in DIRECT}
    outcomes["fd00:ec2::254 directly"] = greeted_by(socket.AF_INET6, ("fd00:ec2::254", 80))
    for host in DISGUISED:
        outcomes[f"{host} by a tunnel"] = through_the_proxy(f"{host}:80", port=given["proxy"])
        outcomes[f"{host} by a request"] = through_the_proxy(
            f"http://{host}/latest/meta-data/", method="GET", port=given["proxy"]
        )
    return outcomes
