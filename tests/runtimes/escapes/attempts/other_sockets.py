"""Kinds of sockets that no network namespace bounds, or that see what is not theirs."""

from __future__ import annotations

import socket
from typing import Any

from tests.runtimes.escapes.attempts.tries import Outcomes, called, tried

VSOCK, ALG, BLUETOOTH, PACKET = 40, 38, 31, 17


def attempt(given: dict[str, Any]) -> Outcomes:
    families = {"the hypervisor's": VSOCK, "the kernel's ciphers": ALG, "bluetooth": BLUETOOTH}
    outcomes = {name: tried(socket.socket, family, socket.SOCK_STREAM) for name, family in families.items()}
    outcomes["the hypervisor's, disguised"] = called(41, 198, (1 << 32) | VSOCK, socket.SOCK_STREAM, 0)
    outcomes["whole packets"] = tried(socket.socket, PACKET, socket.SOCK_RAW)
    outcomes["raw ones"] = tried(socket.socket, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    return outcomes
