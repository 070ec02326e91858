"""The variables that bring a program's requests to the proxy. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, urlsplit

from cycles.proxy._routes import UNROUTED, base_urls, covers_provider, is_provider
from cycles.proxy._settings import ProxySettings

_LOOPBACK: Final = "127.0.0.1,localhost"
TUNNEL_USER: Final = "cycles"
"""The user name in the address of the tunnel; its password is the key."""

SHELL_KEY: Final = "$CYCLES_PROXY_KEY"
"""In place of the key in lines for a shell: the key is never printed."""


def _quoted(key: str) -> str:
    return key if key == SHELL_KEY else quote(key, safe="")


def with_key(url: str, key: str | None) -> str:
    """Return the address of the proxy with the key as its first segment."""
    return url if key is None else f"{url}/{_quoted(key)}"


def route_variables(url: str, key: str | None, environ: Mapping[str, str], settings: ProxySettings) -> dict[str, str]:
    """Return the variables of the routes."""
    prefix = with_key(url, key)
    return {**base_urls(prefix, environ, settings.flagged), "CYCLES_PROXY_URL": prefix}


def tunnel_variables(url: str, key: str | None) -> dict[str, str]:
    """Return the variables of the tunnel."""
    parts = urlsplit(url)
    user = "" if key is None else f"{TUNNEL_USER}:{_quoted(key)}@"
    proxy = f"http://{user}{parts.netloc}"
    return {"HTTPS_PROXY": proxy, "https_proxy": proxy, "NODE_USE_ENV_PROXY": "1"}


def share_variables(url: str, key: str, environ: Mapping[str, str], settings: ProxySettings) -> dict[str, str]:
    """Return the variables of routes and tunnel with the secret of a share."""
    found = route_variables(url, key, environ, settings)
    return found | tunnel_variables(url, key) if settings.tunnel else found


def command_environment(
    environ: Mapping[str, str], url: str, key: str | None, ledger: Mapping[str, str], settings: ProxySettings
) -> dict[str, str]:
    """Return the environment of the command: routes, tunnel, ledger, and no other proxy for loopback."""
    found = dict(environ) | route_variables(url, key, environ, settings) | dict(ledger)
    if settings.tunnel:
        found |= tunnel_variables(url, key)
    for name in ("NO_PROXY", "no_proxy"):
        given = environ.get(name) or environ.get("NO_PROXY") or environ.get("no_proxy") or ""
        found[name] = _no_proxy(given, settings)
    return found


def past_the_proxy(environ: Mapping[str, str]) -> list[str]:
    """Return the variables with an address of models that no route replaces, and that the tunnel does not reject."""
    return [name for name in UNROUTED if environ.get(name) and not _is_rejected(environ[name])]


def _is_rejected(url: str) -> bool:
    try:
        return is_provider((urlsplit(url).hostname or "").lower())
    except ValueError:
        return False


def _no_proxy(given: str, settings: ProxySettings) -> str:
    """Return the hosts to which the program connects itself: never those of providers."""
    entries = [entry.strip() for entry in given.replace(" ", ",").split(",") if entry.strip()]
    if settings.sealed:
        entries = []  # the program reaches loopback only; the tunnel knows what the caller has excluded
    elif settings.tunnel:
        entries = [entry for entry in entries if not covers_provider(entry)]
    return ",".join([*entries, *(name for name in _LOOPBACK.split(",") if name not in entries)])
