"""The HTTP proxy that the caller of the run has configured: tunnels and upstream requests go through it. No I/O."""

from __future__ import annotations

import ipaddress
from base64 import b64encode
from collections.abc import Mapping
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from attrs import field, frozen

from cycles._errors import ConfigurationError

_VARIABLES: Final = ("HTTPS_PROXY", "ALL_PROXY", "HTTP_PROXY")
"""In this order: the first that is set names the proxy of tunnels."""
_SCHEMES: Final = {"http": 80, "https": 443}


@frozen
class CallerProxy:
    """One HTTP proxy.

    Attributes:
        url: Its address.
        host: Its host.
        port: Its port.
        encrypted: Whether TLS is spoken to it.
        credentials: The value of `Proxy-Authorization`; None: it needs none.
        bypassed: What the caller's `NO_PROXY` excludes.
    """

    url: str = field(repr=False)
    host: str
    port: int
    encrypted: bool
    credentials: str | None = field(repr=False)
    bypassed: tuple[str, ...] = ()

    def serves(self, host: str) -> bool:
        """Return whether connections to a host go through this proxy."""
        return not any(_excludes(entry, host) for entry in self.bypassed)


def caller_proxy(environ: Mapping[str, str]) -> CallerProxy | None:
    """Return the proxy of the caller; None if there is none.

    Raises:
        ConfigurationError: for a proxy that is not HTTP, such as SOCKS.
    """
    found: CallerProxy | None = None
    for name in _VARIABLES:
        value = environ.get(name.lower()) or environ.get(name)
        if value and found is None:
            found = _proxy(name, value, environ)
        elif value:
            _checked(name, value)
    return found


def _checked(name: str, value: str) -> SplitResult:
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, or half of an IPv6 address
        parts, usable = urlsplit("http:"), False
    if parts.scheme not in _SCHEMES:
        raise ConfigurationError(
            f"{name} is a {parts.scheme}:// proxy, which is not supported: set it to an http:// or https:// proxy, or "
            "unset it"
        )
    if not usable:
        raise ConfigurationError(f"{name} is not the address of a proxy: write http://HOST:PORT, or unset it")
    return parts


def _proxy(name: str, value: str, environ: Mapping[str, str]) -> CallerProxy:
    parts = _checked(name, value)
    assert parts.hostname is not None
    credentials = None
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        credentials = f"Basic {b64encode(pair.encode()).decode()}"
    excluded = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    return CallerProxy(
        parts.geturl(),
        parts.hostname,
        parts.port or _SCHEMES[parts.scheme],
        parts.scheme == "https",
        credentials,
        tuple(entry.strip().lower() for entry in excluded.replace(" ", ",").split(",") if entry.strip()),
    )


def _excludes(entry: str, host: str) -> bool:
    if entry == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        pass
    name = entry.rpartition(":")[0] or entry if entry.count(":") == 1 else entry
    name = name.removeprefix("*").removeprefix(".")
    return host == name or host.endswith(f".{name}")
