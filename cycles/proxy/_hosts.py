"""Host names and addresses of tunnels: their one form, and which addresses belong to this machine."""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import Final, TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAME: Final = re.compile(r"(?=.{1,253}$)[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*")
_NUMBER: Final = re.compile(r"(?:.*\.)?(?:\d+|0x[0-9a-f]*)")


def normalized_host(text: str) -> str:
    """Return a host name or address in the form in which hosts are compared: lower case, without a final dot.

    Raises:
        ValueError: if it is neither.
    """
    host = text.lower().removesuffix(".")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if (address := address_of(host)) is not None:
        return str(address)
    if _NAME.fullmatch(host) is None or _NUMBER.fullmatch(host):
        raise ValueError(f"{text!r:.80} is not a host name")
    return host


def address_of(host: str) -> Address | None:
    """Return the address that a host is, in any form that a resolver accepts; None if it is a name."""
    try:
        address: Address = ipaddress.ip_address(host)
    except ValueError:
        if _NUMBER.fullmatch(host) is None:
            return None
        try:
            return ipaddress.IPv4Address(socket.inet_aton(host))
        except (OSError, ValueError):
            return None
    mapped = getattr(address, "ipv4_mapped", None)
    return address if mapped is None else mapped


def is_public(address: Address) -> bool:
    """Return whether an address can be that of a provider."""
    return address.is_global


def is_own(address: Address) -> bool:
    """Return whether a connection to an address ends at this machine or on its link."""
    if address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0))  # only an address of this machine can be bound
        except OSError:
            return False
    return True
