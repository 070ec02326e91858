"""Where a request goes: its provider, its path in the endpoint tables, and its address upstream. No I/O.

The raw path is what is forwarded, and its decoded form is what is looked up, so that no spelling of a paid path looks
like a free one.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final
from urllib.parse import unquote, urlsplit

from attrs import frozen

from cycles.providers._provider import PROVIDERS, provider_named
from cycles.proxy._agent_tree import AGENT_HEADER
from cycles.proxy._routes import ROUTES, Route, vertex_upstream

_SCHEME: Final = "http://"
_VERSION: Final = re.compile(r"^/v\d[^/]*(?=/)")
_LAST_VERSION: Final = re.compile(r"/v\d[^/]*$")
_DEPLOYMENT: Final = re.compile(r"/deployments/([^/]+)(?=/)")
_PUBLISHED: Final = re.compile(r"(?:/projects/[^/]+/locations/[^/]+)?/publishers/([^/]+)/models/([^/:]+):([A-Za-z]+)/?")
_REGION: Final = re.compile(r"/locations/([a-z0-9-]{1,40})(?=/)")
_HOP_BY_HOP: Final = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer".split()
) | {b"transfer-encoding", b"upgrade"}
_NOT_CHANGED: Final = _HOP_BY_HOP | {b"content-length", b"content-encoding"}
"""Headers of a response that are not those of a changed body."""
KEY_HEADER: Final = "x-cycles-proxy-key"
_ONCE: Final = ("host", "origin", KEY_HEADER, AGENT_HEADER, "content-length")
"""Headers of which a second one would count for the proxy or the upstream alone."""
_NOT_UPSTREAM: Final = _HOP_BY_HOP | {
    b"host",
    KEY_HEADER.encode(),
    AGENT_HEADER.encode(),
    b"expect",
    b"accept-encoding",
}
_DECODED: Final = (b"gzip", b"deflate", b"identity")
"""Codings of responses that httpx decodes without another package."""

Headers = Sequence[tuple[bytes, bytes]]


@frozen
class Target:
    """Where a request goes.

    Attributes:
        route: The route.
        provider: The wire format, as `cycles.providers` names it; error responses have its shape.
        path: The path as the endpoint tables have it.
        url: The address upstream, with the query.
        base_url: The upstream's base URL.
        model: The model that the path names beside those of Gemini, or None.
        is_model_fixed: Whether that model counts although the body names another.
        streams: Whether the path says that the response is a stream.
    """

    route: Route
    provider: str
    path: str
    url: str
    base_url: str
    model: str | None = None
    streams: bool = False
    is_model_fixed: bool = False


class RejectedError(Exception):
    """A request that reaches no upstream: a status and the reason.

    Attributes:
        detail: What was denied, for the summary, for example ``POST /v1/audio/x``.
        failure: Why a call that never left failed, for the summary; None: it is no such call.
    """

    def __init__(self, status: int, message: str, name: str = "openai", reason: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.name = name  # whose error shape the response has
        self.reason = reason
        self.detail: str | None = None
        self.failure: str | None = None


def provider_name(raw_path: str) -> str:
    """Return the shape of an error response from the first segment that names a route; OpenAI's by default."""
    names = (ROUTES[segment].provider for segment in raw_path.split("/")[:3] if segment in ROUTES)
    return next(names, "openai")


def origin_form(target: str, host: str | None) -> str:
    """Return the path of a request target.

    RFC 9112, section 3.2.2, lets a program send the whole address. The proxy may have names that it does not know, such
    as that of its container, so the header Host decides. Another target is returned unchanged: no route has its name.

    Args:
        target: As it arrived, without the query.
        host: The header Host.
    """
    authority, _, path = target[len(_SCHEME) :].partition("/")
    is_own = target[: len(_SCHEME)].lower() == _SCHEME and authority == host and "@" not in authority
    return f"/{path}" if is_own else target


def check_headers(raw_path: str, raw: Sequence[tuple[bytes, bytes]], headers: Mapping[str, str]) -> None:
    """Check the headers that decide who sends a request and where its body ends: there may be one of each.

    Args:
        raw_path: The path, for the shape of the error.
        raw: The headers as they arrived.
        headers: The same, by their names in lower case.

    Raises:
        RejectedError: 400, if there are several, or two lengths of the body.
    """
    if len(headers) < len(raw):
        counts = Counter(name.decode("latin-1").lower() for name, _ in raw)
        twice = next((name for name in _ONCE if counts[name] > 1), None)
        if twice is not None:
            message = f"the header {twice} is there {counts[twice]} times: send it once"
            raise RejectedError(400, message, provider_name(raw_path))
    if "content-length" in headers and "transfer-encoding" in headers:
        message = "the body has a Content-Length and a Transfer-Encoding: send one of them"
        raise RejectedError(400, message, provider_name(raw_path))


def check_caller(raw_path: str, headers: Mapping[str, str], key: str | None, *, captured: bool = False) -> str:
    """Check who sends a request, and return its path without the key.

    A captured request has the `Host` and the `Origin` of its provider; its tunnel had the key.

    Raises:
        RejectedError: 401 without the key; 403 for a foreign `Origin`, or for a foreign `Host` if no key is set.
    """
    name = provider_name(raw_path)
    origin = headers.get("origin")
    if origin is not None and not captured and not is_loopback(_host_of(origin.partition("://")[2])):
        raise RejectedError(403, "requests of web pages of another origin are not accepted", name)
    if key is None:
        if not captured and not is_loopback(_host_of(headers.get("host", ""))):
            raise RejectedError(403, "the Host header names no loopback address: use http://127.0.0.1:PORT", name)
        return raw_path
    first, _, rest = raw_path.removeprefix("/").partition("/")
    if hmac.compare_digest(unquote(first).encode(), key.encode()):
        return f"/{rest}"
    if hmac.compare_digest(headers.get(KEY_HEADER, "").encode(), key.encode()):
        return raw_path
    raise RejectedError(
        401,
        "the key of this proxy is missing or wrong: use the base URL that it printed, or the header X-Cycles-Proxy-Key",
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


def target_of(
    raw_path: str,
    query: str,
    upstreams: Mapping[str, str],
    mounts: Mapping[str, str] | None = None,
    host_url: str | None = None,
) -> Target:
    """Return where a request goes.

    Args:
        raw_path: The path without the key, still percent-encoded.
        query: The query string.
        upstreams: Base URL of each route.
        mounts: The part of a path that a base URL contains, if it is not that of the table.
        host_url: The address of the captured host, which is the upstream; None: the route's.

    Raises:
        RejectedError: 400 for dot segments and empty segments, 404 if the path names no route or has no upstream.
    """
    decoded = unquote(raw_path)
    segments = decoded.removesuffix("/").split("/")[1:]
    if not decoded.startswith("/") or any(part in ("", ".", "..") or "\\" in part for part in segments):
        raise RejectedError(400, "the path has empty or dot segments", provider_name(raw_path))
    route = ROUTES.get(segments[0]) if len(segments) > 1 else None
    if route is None:
        names = ", ".join(f"/{name}/" for name in ROUTES)
        raise RejectedError(404, f"the path must begin with a route: {names}")
    rest = raw_path.removeprefix(f"/{route.name}")
    found = _looked_up(route, unquote(rest))
    if host_url is not None:
        base, url = host_url, host_url + rest
    else:
        base = upstreams.get(route.name) or _own_upstream(route, unquote(rest))
        if not _LAST_VERSION.search(base):
            rest = _added(route, unquote(rest)) + rest
        url = _joined((mounts or {}).get(route.name, route.mount), base, rest)
    url = f"{url}?{query}" if query else url
    return Target(route, found.provider, found.path, url, base, found.model, found.streams, found.is_model_fixed)


def _added(route: Route, path: str) -> str:
    """Return the version that the provider's paths begin with and that a program has left out."""
    full = provider_named(route.provider).path(path)
    return full.removesuffix(path) if full.endswith(path) else ""


def _own_upstream(route: Route, path: str) -> str:
    """Return the provider's address for a path that names its region.

    Raises:
        RejectedError: 404 if there is none.
    """
    if route.is_vertex:
        region = _REGION.search(path)
        return vertex_upstream("global" if region is None else region[1])
    variables = " or ".join(route.variables)
    raise RejectedError(
        404,
        f"the route {route.name} has no upstream: set {variables} before the proxy starts, or pass "
        f"--upstream {route.name}=URL",
    )


def _joined(mount: str, base: str, rest: str) -> str:
    """Return the address upstream. The base URLs of some routes contain the version of the API."""
    if not mount:
        return base + rest
    if rest.startswith(f"{mount}/"):
        return base + rest.removeprefix(mount)
    return (base.removesuffix(mount) if base.endswith(mount) else _LAST_VERSION.sub("", base)) + rest


@frozen
class _Found:
    """What the endpoint tables need to know of a path."""

    provider: str
    path: str
    model: str | None = None
    streams: bool = False
    is_model_fixed: bool = False


def _looked_up(route: Route, path: str) -> _Found:
    """Return a path as the endpoint tables have it, perhaps with a deployment of Azure before it."""
    if route.is_vertex:
        return _of_vertex(route.provider, _unversioned(path))
    deployment = _DEPLOYMENT.search(path)
    model = None if deployment is None else deployment[1]
    return _Found(route.provider, provider_named(route.provider).path(path), model)


def _unversioned(path: str) -> str:
    found = _VERSION.match(path)
    return path if found is None else path[found.end() :]


def _of_vertex(own: str, path: str) -> _Found:
    """Find a path of Vertex AI: Gemini's methods, or those of another publisher with the model in the path."""
    found = _PUBLISHED.fullmatch(path)
    if found is None:
        return _Found(own, path.removeprefix("/"))
    publisher, model, method = found.groups()
    if publisher == own:
        return _Found(own, f"models/{model}:{method}")
    raw = provider_named(publisher).vertex.get(method) if publisher in PROVIDERS else None
    if raw is None:
        return _Found(own, path.removeprefix("/"))
    if model == "count-tokens":
        return _Found(publisher, f"{raw}/count_tokens")
    return _Found(publisher, raw, model, method.startswith("stream"), True)


def upstream_headers(raw: Headers, *, has_length: bool) -> list[tuple[bytes, bytes]]:
    """Return the headers to send upstream: without hop-by-hop headers, Host, and those of the proxy.

    Args:
        raw: The program's headers; their names are in lower case.
        has_length: Whether the length of the body stays that of the program.
    """
    dropped = _dropped(raw, _NOT_UPSTREAM if has_length else _NOT_UPSTREAM | {b"content-length"})
    kept = [pair for pair in raw if pair[0] not in dropped]
    accepted = [value for name, value in raw if name == b"accept-encoding"]
    return [*kept, (b"accept-encoding", _acceptable(b",".join(accepted)))]


@lru_cache
def _acceptable(value: bytes) -> bytes:
    codings = [part.strip() for part in value.split(b",")]
    return b", ".join(part for part in codings if part.partition(b";")[0].strip().lower() in _DECODED) or b"identity"


def client_headers(raw: Headers, *, changed: bool) -> list[tuple[bytes, bytes]]:
    """Return the headers of a response for the program.

    Args:
        raw: The upstream's headers.
        changed: Whether the bytes of the body are decoded or filtered.
    """
    headers = [(name.lower(), value) for name, value in raw]
    dropped = _dropped(headers, _NOT_CHANGED if changed else _HOP_BY_HOP)
    return [pair for pair in headers if pair[0] not in dropped]


def _dropped(headers: Headers, names: frozenset[bytes]) -> frozenset[bytes]:
    """Return names, and those that the header `Connection` adds to them."""
    listed = [word.strip().lower() for name, value in headers if name == b"connection" for word in value.split(b",")]
    return names.union(listed) if listed else names
