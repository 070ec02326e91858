"""What the host of a request says: whose bill it is on, whether responses report their cost, whether it is free."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlsplit

from attrs import frozen

from cycles._errors import InvalidRequestError

_REPORTING: Final = ("openrouter.ai", "api.perplexity.ai", "api.x.ai")
_PROVIDERS: Final = {
    "api.openai.com": "openai",
    "openai.azure.com": "azure",
    "services.ai.azure.com": "azure",
    "cognitiveservices.azure.com": "azure",
    "api.anthropic.com": "anthropic",
    "googleapis.com": "google",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral",
    "api.x.ai": "x-ai",
    "openrouter.ai": "openrouter",
    "api.deepseek.com": "deepseek",
    "api.perplexity.ai": "perplexity",
    "api.together.xyz": "together",
    "api.fireworks.ai": "fireworks",
    "api.cerebras.ai": "cerebras",
}
"""Hosts with the wire format of an SDK, and who sends the bill, as `genai-prices` names it."""
_LOCAL: Final = ("localhost", "127.0.0.1", "::1")
_OLLAMA_PORT: Final = 11434
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
def billed_by(url: str, own: str, *, is_copied: bool) -> str | None:
    """Return the provider on whose bill a request is, by the host of its base URL; None if the host is not known.

    Args:
        url: The base URL; without a host it is that of the SDK.
        own: The provider of the SDK, which is assumed to bill for gateways and fakes on this machine.
        is_copied: Whether others have its wire format, so that an unknown host says nothing.
    """
    host, port = _place(url)
    if not host or (host in _LOCAL and port != _OLLAMA_PORT):
        return own
    found = next((name for known, name in _PROVIDERS.items() if host == known or host.endswith(f".{known}")), None)
    return found or (None if is_copied else own)


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
