"""Where a request comes from. `X-Forwarded-For` counts only as far as proxies of ours have written it."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Sequence

from starlette.requests import HTTPConnection

from ocmt.errors import SetupProblem

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_KEPT_LENGTH = 200


def parse_networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Of the proxies in front of us (`10.0.0.0/8`, `35.191.0.1`). Raises SetupProblem."""
    try:
        return tuple(ipaddress.ip_network(text.strip(), strict=False) for text in texts if text.strip())
    except ValueError as error:
        raise SetupProblem(f"OCMT_TRUSTED_PROXIES is wrong: {error}.") from error


def client_address(connection: HTTPConnection, trusted: Sequence[Network]) -> str | None:
    """The nearest address that no trusted proxy has; None on a socket without addresses.

    Read from the right: what stands left of the first address that is not ours, anybody may have written.
    IPv6 is cut to /64, which is what one customer has.
    """
    if connection.client is None:
        return None
    lines = tuple(connection.headers.getlist("x-forwarded-for"))
    # What anybody may write at any length is not kept.
    nearest = _kept_nearest if sum(map(len, lines)) <= _KEPT_LENGTH else _nearest
    return nearest(connection.client.host, lines, tuple(trusted))


def _nearest(peer: str, lines: tuple[str, ...], trusted: tuple[Network, ...]) -> str | None:
    hop: str | None = peer
    forwarded = [part.strip() for line in lines for part in line.split(",")]
    while hop is not None and _is_trusted(hop, trusted) and forwarded:
        hop = forwarded.pop()
    return None if hop is None else _cut(hop)


_kept_nearest = functools.lru_cache(maxsize=4096)(_nearest)


def _is_trusted(text: str, trusted: Sequence[Network]) -> bool:
    address = _parse(text)
    return address is not None and any(address in network for network in trusted)


def _cut(text: str) -> str | None:
    address = _parse(text)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False).network_address)
    return None if address is None else str(address)


def _parse(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """A peer of version 4 is one, also where a listener on `::` shows it as `::ffff:10.1.2.3`."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
