"""Which addresses are on the public internet, for whoever connects where a user or an agent wants to."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network

Address = IPv4Address | IPv6Address

_ALSO_REFUSED = [
    ip_network(network)
    for network in (
        "100.64.0.0/10",  # carrier-grade NAT; Alibaba's metadata
        "168.63.129.16/32",  # Azure's platform service, although a public address
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata
        "192.88.99.0/24",  # 6to4 relays
        "2001::/32",  # Teredo, wraps IPv4
        "2002::/16",  # 6to4, wraps IPv4
        "fec0::/10",  # site-local, deprecated
    )
]
_NAT64 = ip_network("64:ff9b::/96")


def is_public(address: Address) -> bool:
    """Whether that address is on the public internet, looked at through every wrapping of IPv4 in IPv6."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in _NAT64:
            return is_public(IPv4Address(address.packed[-4:]))
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not address.is_unspecified
        and not any(address in network for network in _ALSO_REFUSED if network.version == address.version)
    )
