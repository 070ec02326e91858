"""Keep what can be sent of metrics and metadata: an amount must never be lost because of a label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cycles._core.values.json_values import salvage_json
from cycles._core.values.usage import Metrics, Usage, members_of, usable_members


def salvage_metrics(value: Metrics | Usage | Mapping[str, Any] | None) -> tuple[Metrics | None, list[str]]:
    """Return the usable members of the caller's metrics, and the names of the others. Never raises."""
    if value is None:
        return None, []
    if isinstance(value, Usage):
        value = value.metrics()
    if isinstance(value, Metrics):
        usable, omitted = usable_members(members_of(value))
        return Metrics(**usable), omitted
    if not isinstance(value, Mapping):
        return None, ["metrics"]
    try:
        members = dict(value.items())
    except Exception:  # a caller's own mapping may raise anything
        return None, ["metrics"]
    usable, omitted = usable_members(members)
    return (Metrics(**usable) if usable else None), omitted


def salvage_metadata(value: Any) -> tuple[dict[str, Any], list[str]]:
    """Return the usable members of the caller's metadata, and the places of the others. Never raises."""
    if value is None or (type(value) is dict and not value):
        return {}, []
    if not isinstance(value, Mapping):
        return {}, ["metadata"]
    kept, omitted = salvage_json(value, "metadata")
    return (kept if isinstance(kept, dict) else {}), omitted
