"""Which addresses are anybody's to ask: those of the public internet, and no others."""

from __future__ import annotations

import ipaddress
from typing import Final

_NEVER: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "100.64.0.0/10",  # carriers' NAT; some clouds' metadata
        "168.63.129.16/32",  # a cloud's metadata on a public address
        "192.0.0.0/24",  # protocol assignments
        "192.88.99.0/24",  # relays into 6to4
        "198.18.0.0/15",  # benchmarks
        "240.0.0.0/4",  # reserved, broadcast
        "::/96",  # IPv4-compatible, unspecified, loopback
        "::ffff:0:0/96",  # IPv4-mapped
        "64:ff9b::/96",  # NAT64: an IPv4 address in disguise
        "64:ff9b:1::/48",  # local NAT64
        "100::/64",  # discard
        "2001::/23",  # protocol assignments, Teredo
        "2002::/16",  # 6to4
        "fec0::/10",  # site-local
    )
)
"""What the standard library may take for public, by its version, or what leads elsewhere."""


def is_public(address: str) -> bool:
    """Whether the address (as a resolver gives it) is of the public internet."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    inside = any(parsed in network for network in _NEVER)  # another version is in none
    return parsed.is_global and not parsed.is_multicast and not inside
