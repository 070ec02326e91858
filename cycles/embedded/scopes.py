"""Which scopes a subject touches (scope derivation), and how a scope is matched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cycles._core.subjects import LEVELS


def derive(subject: Mapping[str, Any]) -> tuple[str, ...]:
    """The scopes of a subject, shallowest first; levels that are not given are skipped, values lower-cased."""
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
    """An operator's scope (``tenant:Acme/agent:Bot``) as the ledger keeps it.

    Raises:
        ValueError: if it is not made of ``level:value`` segments in the protocol's order.
    """
    ranks = []
    for segment in scope.split("/"):
        level, colon, value = segment.partition(":")
        if level not in LEVELS or not colon or not value:
            raise ValueError(
                f"scope {scope!r}: {segment!r} is not level:value; write it like 'tenant:acme/agent:bot' "
                f"with levels {', '.join(LEVELS)}"
            )
        ranks.append(LEVELS.index(level))
    if ranks != sorted(set(ranks)):
        raise ValueError(f"scope {scope!r}: levels come once each, in the order {', '.join(LEVELS)}")
    return scope.lower()


def leaf(scope: str) -> str:
    """The last segment of a scope."""
    return scope.rpartition("/")[2]


def wanted_segments(levels: Mapping[str, str]) -> frozenset[str]:
    """The segments a scope must have to match the levels of a query; an empty value matches nothing."""
    return frozenset(f"{level}:{value.lower()}" for level, value in levels.items())


def has_segments(scope: str, wanted: frozenset[str]) -> bool:
    """True if every wanted segment is a whole segment of the scope."""
    return wanted.issubset(scope.split("/"))
