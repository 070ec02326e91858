"""Read and change the bodies of requests and responses, and the errors of SDKs: what `_call` needs to know of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

from cycles._errors import InvalidRequestError
from cycles._usage.catalogue import without_prefix
from cycles.providers._endpoints import normalized
from cycles.providers._provider import Endpoint

_UNSENT: Final = (
    "ConnectError",
    "ConnectTimeout",
    "PoolTimeout",
    "UnsupportedProtocol",
    "InvalidURL",
    "LocalProtocolError",
    "ClientConnectorError",
    "EndpointConnectionError",
    "ConnectTimeoutError",
    "ProxyConnectionError",
    "ConnectionTimeoutError",
    "InvalidUrlClientError",
    "GoogleAuthError",
)
"""Errors of httpx, aiohttp, botocore and google-auth, with their subclasses, after which no byte has left."""
_BROKEN: Final = ("TransportError", "ClientConnectionError")
"""Errors of connections of httpx and aiohttp, with their subclasses."""
_CLOSED: Final = "client has been closed"
_LARGEST_BODY: Final = 64 * 1024 * 1024
"""Bytes of a streamed JSON body that are kept to read its usage."""


def was_sent(error: BaseException | None) -> bool:
    """Return whether an attempt that failed may have reached the provider and got no status."""
    if error is None or any(getattr(error, name, None) is not None for name in ("status_code", "response", "code")):
        return False
    causes = _with_causes(error)  # httpx-aiohttp calls each lost connection a timeout: what aiohttp raised counts
    for current in [one for one in causes if type(one).__module__.startswith("aiohttp.")][:1] or causes:
        if _is_one_of(_UNSENT, current):
            return False
        if type(current) is RuntimeError and _CLOSED in str(current):  # httpx has no class for it
            return False
    return True


def may_be_billed(raised: BaseException) -> bool:
    """Return whether a framework's call without a response may have been sent: it was left, or its connection broke.

    Frameworks hide what httpx raised behind an error of their own, which may have a status that no server has sent.
    """
    broken = next((error for error in _with_causes(raised) if _is_one_of(_BROKEN, error)), None)
    return not isinstance(raised, Exception) or was_sent(broken)


def _is_one_of(names: Iterable[str], error: BaseException) -> bool:
    """Return whether an error is of one of these classes or their subclasses, whose libraries are not imported here."""
    return any(base.__name__ in names for base in type(error).__mro__)


def _with_causes(error: BaseException) -> list[BaseException]:
    """Return an error and what it was raised from."""
    chain = [error]
    while len(chain) < 8 and (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    return chain


def parsed_json(content: str | bytes | bytearray) -> Any:
    """Return the JSON of a body; None if it is none, or too large or too deep to keep."""
    if len(content) > _LARGEST_BODY:
        return None
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def model_of(path: str, body: Mapping[str, Any]) -> str | None:
    model = body.get("model")
    if not isinstance(model, str) and ":" in path:
        model = without_prefix(normalized(path).strip("/").rpartition(":")[0])
    return without_prefix(model) if isinstance(model, str) and model else None


def number_at(body: Mapping[str, Any], name: str) -> int | None:
    found: Any = body
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def thinking_budget(endpoint: Endpoint, body: Mapping[str, Any]) -> int:
    """Return the thinking tokens of a request, which its output limit must contain; 0 if it sets none."""
    return max(0, *(number_at(body, path) or 0 for path in endpoint.thinking), 0)


def limit_of(endpoint: Endpoint, body: Mapping[str, Any]) -> int | None:
    limits = [n for name in endpoint.limits if (n := number_at(body, name)) is not None]
    return min(limits) if limits else None


def check_limits(endpoint: Endpoint, body: Mapping[str, Any], *, least: Literal[0, 1]) -> None:
    """Check that each output limit of a request is an integer of `least` or more, or absent.

    Raises:
        InvalidRequestError: naming the limit.
    """
    for name in endpoint.limits:
        found: Any = body
        for part in name.split("."):
            if not isinstance(found, Mapping | None):
                raise InvalidRequestError(f"the member that contains {part} must be an object, got {found!r:.80}")
            found = None if found is None else found.get(part)
        if found is not None and (isinstance(found, bool) or not isinstance(found, int) or found < least):
            kind = "a positive" if least else "a non-negative"
            raise InvalidRequestError(f"{name} must be {kind} integer, got {found!r:.80}")


def tier_of(endpoint: Endpoint, body: Mapping[str, Any]) -> dict[str, str]:
    """Return what of a request selects its price: its service tier, speed and region."""
    tier, speed = body.get(endpoint.tier), body.get("speed")
    tier = tier.get("type") if isinstance(tier, Mapping) else tier
    if tier == "auto":  # the tier of the project's settings, which may be the dearest
        tier = "priority"
    found = {"service_tier": tier.lower()} if isinstance(tier, str) else {}
    if isinstance(speed, str):
        found["speed"] = speed
    if isinstance(region := body.get("inference_geo"), str) and region != "global":
        found["inference_geo"] = region
    return found


def with_limits(body: Mapping[str, Any], limits: Mapping[str, int]) -> dict[str, Any]:
    """Return a copy of a body with these limits; what the body contains is not changed in place."""
    changed = dict(body)
    for name, limit in limits.items():
        outer, _, inner = name.partition(".")
        changed[outer] = {**(changed.get(outer) or {}), inner: limit} if inner else limit
    return changed


def with_other_limits(
    body: Mapping[str, Any], names: Iterable[str], limits: Mapping[str, int], original: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a copy of a body that was sent with output limits, with those of its next attempt.

    Args:
        body: What was sent.
        names: All output limits that its endpoint knows.
        limits: Those to set; the others become what the program has set, or are removed.
        original: The body of the program.
    """
    changed = dict(body)
    for name in names:
        outer, _, inner = name.partition(".")
        holder = dict(changed.get(outer) or {}) if inner else changed
        wanted = limits.get(name, number_at(original, name))
        if wanted is not None:
            holder[inner or outer] = wanted
        elif number_at(body, name) is not None:
            del holder[inner or outer]
        if inner and (holder or outer in changed):
            changed[outer] = holder
    return changed
