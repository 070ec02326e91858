"""Derive the scopes of a subject, and match scopes. See `docs/protocol/server.md#scopes`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cycles._core.subjects import LEVELS
from cycles._errors import InvalidRequestError


def derive(subject: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the scopes of a subject, shallowest first. Absent levels are skipped, values are lower-cased."""
    scopes: list[str] = []
    path = ""
    for level in LEVELS:
        value = subject.get(level)
        if value is not None:
            segment = f"{level}:{value.lower()}"
            path = f"{path}/{segment}" if path else segment
            scopes.append(path)
    return tuple(scopes)


def normalise(scope: str) -> str:
    """Return a scope such as ``tenant:Acme/agent:Bot`` in the form that the ledger stores.

    Raises:
        InvalidRequestError: if the scope does not consist of ``level:value`` segments in the protocol's order.
    """
    ranks = []
    for segment in scope.split("/"):
        level, colon, value = segment.partition(":")
        if level not in LEVELS or not colon or not value:
            raise InvalidRequestError(
                f"scope {scope!r:.120}: {segment!r:.80} is not level:value; write it like 'tenant:acme/agent:bot' "
                f"with levels {', '.join(LEVELS)}"
            )
        ranks.append(LEVELS.index(level))
    if ranks != sorted(set(ranks)):
        raise InvalidRequestError(f"scope {scope!r:.120} repeats a level or has another order; use {', '.join(LEVELS)}")
    return scope.lower()


def leaf(scope: str) -> str:
    """Return the last segment of a scope."""
    return scope.rpartition("/")[2]


def wanted_segments(levels: Mapping[str, str]) -> frozenset[str]:
    """Return the segments of the levels of a query. An empty value matches nothing."""
    return frozenset(f"{level}:{value.lower()}" for level, value in levels.items())


def has_segments(scope: str, wanted: frozenset[str]) -> bool:
    """Return whether the scope has every wanted segment."""
    return wanted.issubset(scope.split("/"))
