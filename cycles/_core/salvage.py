"""Keep what can be sent of metrics and metadata: an amount must never be lost because of a label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cycles._core.json_values import salvage_json
from cycles._core.usage import Metrics, Usage
from cycles._errors import InvalidRequestError


def salvage_metrics(value: Metrics | Usage | Mapping[str, Any] | None) -> tuple[Metrics | None, list[str]]:
    """Return the usable members of the caller's metrics, and the names of the others. Never raises."""
    if value is None or isinstance(value, Metrics | Usage):
        return Metrics.of(value), []
    if not isinstance(value, Mapping):
        return None, ["metrics"]
    try:
        members = list(value.items())
    except Exception:  # a caller's own mapping may raise anything
        return None, ["metrics"]
    usable: dict[str, Any] = {}
    omitted: list[str] = []
    for name, member in members:
        kept = _usable_member(name, member, omitted)
        if kept is not None:
            usable[name] = kept
    return (Metrics(**usable) if usable else None), omitted


def _usable_member(name: Any, member: Any, omitted: list[str]) -> Any:
    try:
        return getattr(Metrics.of({name: member}), name)
    except (InvalidRequestError, TypeError):
        if name != "custom":
            omitted.append(f"metrics.{name}")
            return None
    kept, lost = salvage_json(member, "metrics.custom")
    omitted += lost or ([] if isinstance(kept, dict) else ["metrics.custom"])
    return kept if isinstance(kept, dict) and kept else None


def salvage_metadata(value: Any) -> tuple[dict[str, Any], list[str]]:
    """Return the usable members of the caller's metadata, and the places of the others. Never raises."""
    if value is None or (type(value) is dict and not value):
        return {}, []
    if not isinstance(value, Mapping):
        return {}, ["metadata"]
    kept, omitted = salvage_json(value, "metadata")
    return (kept if isinstance(kept, dict) else {}), omitted
