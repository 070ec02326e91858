"""Where a request goes: its provider, its path in the endpoint tables, and its address upstream. No I/O.

The raw path is what is forwarded, and its decoded form is what is looked up, so that no spelling of a paid path looks
like a free one.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import unquote, urlsplit

from attrs import frozen

from cycles.providers._endpoints import Provider
from cycles.proxy._settings import PROVIDERS

_VERSION: Final = re.compile(r"^/v\d[^/]*(?=/)")
_LAST_VERSION: Final = re.compile(r"/v\d[^/]*$")
_HOP_BY_HOP: Final = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
KEY_HEADER: Final = "x-cycles-proxy-key"
_DECODED: Final = ("gzip", "deflate", "identity")
"""Codings of responses that httpx decodes without another package."""

Headers = list[tuple[str, str]]


@frozen
class Target:
    """Where a request goes.

    Attributes:
        name: ``"openai"``, ``"anthropic"`` or ``"gemini"``.
        provider: The provider as `cycles.providers` names it.
        path: The path as the endpoint tables have it.
        url: The address upstream, with the query.
        base_url: The upstream's base URL.
    """

    name: str
    provider: Provider
    path: str
    url: str
    base_url: str


class RejectedError(Exception):
    """A request that reaches no upstream: a status and the reason."""

    def __init__(self, status: int, message: str, name: str = "openai", reason: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.name = name  # whose error shape the response has
        self.reason = reason


def provider_name(raw_path: str) -> str:
    """Return the first segment that names a provider, for the shape of an error response; OpenAI's by default."""
    return next((segment for segment in raw_path.split("/")[:3] if segment in PROVIDERS), "openai")


def check_caller(raw_path: str, headers: Mapping[str, str], key: str | None) -> str:
    """Check who sends a request, and return its path without the key.

    Raises:
        RejectedError: 401 without the key; 403 for a foreign `Origin`, or for a foreign `Host` if no key is set.
    """
    name = provider_name(raw_path)
    origin = headers.get("origin")
    if origin is not None and not is_loopback(urlsplit(origin).hostname):
        raise RejectedError(403, "requests of web pages of another origin are not accepted", name)
    if key is None:
        if not is_loopback(_host_of(headers.get("host", ""))):
            raise RejectedError(403, "the Host header names no loopback address: use http://127.0.0.1:PORT", name)
        return raw_path
    first, _, rest = raw_path.removeprefix("/").partition("/")
    if hmac.compare_digest(unquote(first).encode(), key.encode()):
        return f"/{rest}"
    if hmac.compare_digest(headers.get(KEY_HEADER, "").encode(), key.encode()):
        return raw_path
    raise RejectedError(
        401,
        "the key of this proxy is missing: use the base URL that it printed, or the header X-Cycles-Proxy-Key",
        name,
    )


def _host_of(header: str) -> str | None:
    try:
        return urlsplit(f"//{header}").hostname
    except ValueError:
        return None


def is_loopback(host: str | None) -> bool:
    """Return whether a host name or address is this machine only."""
    if host is None:
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def target_of(raw_path: str, query: str, upstreams: Mapping[str, str]) -> Target:
    """Return where a request goes.

    Args:
        raw_path: The path without the key, still percent-encoded.
        query: The query string.
        upstreams: Base URL of each provider.

    Raises:
        RejectedError: 400 for dot segments and empty segments, 404 if the path names no provider.
    """
    decoded = unquote(raw_path)
    segments = decoded.removesuffix("/").split("/")[1:]
    if not decoded.startswith("/") or any(part in ("", ".", "..") or "\\" in part for part in segments):
        raise RejectedError(400, "the path has empty or dot segments", provider_name(raw_path))
    name = segments[0] if len(segments) > 1 else ""
    if name not in PROVIDERS:
        raise RejectedError(404, "the path must begin with /openai/v1/, /anthropic/ or /gemini/")
    rest = raw_path.removeprefix(f"/{name}")
    base = upstreams[name]
    url = f"{_joined(name, base, rest)}{f'?{query}' if query else ''}"
    return Target(name, PROVIDERS[name], _looked_up(name, unquote(rest)), url, base)


def _joined(name: str, base: str, rest: str) -> str:
    """Return the address upstream. OpenAI's base URLs contain the version, the others do not."""
    if name != "openai":
        return base + rest
    return base + rest.removeprefix("/v1") if rest.startswith("/v1/") else _LAST_VERSION.sub("", base) + rest


def _looked_up(name: str, path: str) -> str:
    """Return a path as the endpoint tables have it: with ``/v1`` for Anthropic, without version for the others."""
    found = _VERSION.match(path)
    unversioned = path if found is None else path[found.end() :]
    if name == "openai":
        return unversioned
    if name == "anthropic":
        return path if found is None else f"/v1{unversioned}"
    uploads = path.removeprefix("/upload")
    if uploads != path and (version := _VERSION.match(uploads)):
        return uploads[version.end() + 1 :]
    return unversioned.removeprefix("/")


def upstream_headers(raw: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Return the headers to send upstream: without hop-by-hop headers, Host, and the key of the proxy."""
    headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in raw]
    dropped = _dropped(headers) | {"host", KEY_HEADER, "expect", "accept-encoding"}
    kept = [(name, value) for name, value in headers if name not in dropped]
    accepted = [value for name, value in headers if name == "accept-encoding"]
    return [*kept, ("accept-encoding", _acceptable(",".join(accepted)))]


def _acceptable(value: str) -> str:
    codings = [part.strip() for part in value.split(",")]
    return ", ".join(part for part in codings if part.partition(";")[0].strip().lower() in _DECODED) or "identity"


def client_headers(raw: Iterable[tuple[bytes, bytes]], *, changed: bool) -> list[tuple[bytes, bytes]]:
    """Return the headers of a response for the program.

    Args:
        raw: The upstream's headers.
        changed: Whether the bytes of the body are decoded or filtered.
    """
    headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in raw]
    dropped = _dropped(headers) | ({"content-length", "content-encoding"} if changed else frozenset())
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers if name not in dropped]


def _dropped(headers: Headers) -> frozenset[str]:
    listed = (word.strip().lower() for name, value in headers if name == "connection" for word in value.split(","))
    return _HOP_BY_HOP | frozenset(listed)
