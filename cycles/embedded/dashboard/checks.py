"""Which requests the dashboard rejects, and the headers that keep other sites out of it.

A page of another site can send requests to loopback, and after DNS rebinding even read the responses. So every request
must name this server as its host, must not come from another origin, and must have the token to change something.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

_POLICY: Final = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "connect-src": "'self'",
    "img-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
HEADERS: Final = {
    "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in _POLICY.items()),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is loopback."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def problem_of(headers: Mapping[str, str], listening: frozenset[str]) -> str | None:
    """Return why a request is rejected, or None.

    Args:
        headers: Names in lower case.
        listening: The addresses and names that the server listens on.
    """
    given = headers.get("host", "")
    host = _host(given)
    if host is None or not (is_loopback(host) or host in listening):
        return f"the header Host names another server: {given[:80]!r}; open the address that the server printed"
    origin = headers.get("origin")
    if origin is not None and origin.lower() != f"http://{given.lower()}":
        return f"the request comes from another origin: {origin[:80]!r}; use the dashboard's own page"
    if headers.get("sec-fetch-site", "").lower() == "cross-site":
        return "the request comes from another site; type the address of the dashboard into the address bar"
    return None


def _host(given: str) -> str | None:
    """Return the host of a Host header without its port, or None if the header is malformed."""
    try:
        parts = urlsplit(f"//{given}")
        if parts.netloc != given or parts.username is not None or parts.path:
            return None
        _ = parts.port  # raises for a port that is no number
        return parts.hostname
    except ValueError:
        return None


def has_token(headers: Mapping[str, str], token: str) -> bool:
    """Return whether the header Authorization holds the token."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())
