"""Hosts whose responses report their cost, and hosts that cost nothing because the user says so."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlsplit

from attrs import frozen

from cycles._errors import InvalidRequestError

_REPORTING: Final = ("openrouter.ai", "api.perplexity.ai", "api.x.ai")
_PORTS: Final = {"http": 80, "https": 443}


@frozen
class FreeHost:
    """A host that costs nothing.

    Attributes:
        host: A name, perhaps with ``*``.
        port: None: every port.
    """

    host: str
    port: int | None


@lru_cache
def reports_cost(url: str) -> bool:
    """Return whether the host of a base URL, or a subdomain of it, is a gateway that reports what a response cost."""
    host, _ = _place(url)
    return any(host == known or host.endswith(f".{known}") for known in _REPORTING)


def free_hosts_of(given: Any) -> tuple[FreeHost, ...]:
    """Return the hosts that cost nothing.

    Raises:
        InvalidRequestError: for a string in place of a list, and for a value that is no host.
    """
    if not isinstance(given, Sequence) or isinstance(given, str | bytes):
        raise InvalidRequestError(f"free_hosts must be a list of hosts such as ['localhost:11434'], got {given!r:.80}")
    return tuple(each if isinstance(each, FreeHost) else _free_host(each) for each in given)


def _free_host(given: Any) -> FreeHost:
    wrong = InvalidRequestError(
        f"free_hosts must have hosts such as 'localhost:11434' or '*.gpu.internal', without a path, got {given!r:.80}"
    )
    if not isinstance(given, str) or not given or any(part in given for part in "/ @?#"):
        raise wrong
    try:
        parts = urlsplit(f"//{given}")
        port = parts.port
    except ValueError:
        raise wrong from None
    if not parts.hostname:
        raise wrong
    return FreeHost(parts.hostname.lower(), port)


def is_free(url: str, hosts: Sequence[FreeHost]) -> bool:
    """Return whether a base URL has a host that costs nothing."""
    if not hosts:
        return False
    host, port = _place(url)
    return any(fnmatchcase(host, free.host) and free.port in (None, port) for free in hosts)


@lru_cache
def _place(url: str) -> tuple[str, int | None]:
    try:
        parts = urlsplit(url)
        return (parts.hostname or "").lower(), parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return "", None
