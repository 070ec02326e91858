"""The public registry of action kinds over HTTP (protocol 0.1.26)."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl

from cycles._core.action_kinds import RISK_CLASSES
from cycles.embedded import admin_forms as forms
from cycles.embedded.action_policies import ActionPolicies
from cycles.embedded.errors import ApiError
from cycles.embedded.records import Body

_VERSION: Final = "0.1.26"
_MAX_KIND: Final = 64


def respond(actions: ActionPolicies, operation: str, kind: str, target: str) -> Body:
    """Return one page of the registry, or one kind.

    Raises:
        ApiError: INVALID_REQUEST for a wrong parameter, NOT_FOUND for a kind that the registry does not have.
    """
    rows = actions.registry()
    if operation == "actionKind":
        if len(kind) > _MAX_KIND:
            raise ApiError("INVALID_REQUEST", f"kind: must have 1 to {_MAX_KIND} characters")
        found = [row for row in rows if row["kind"] == kind]
        if not found:
            raise ApiError("NOT_FOUND", f"no such action kind: {kind}")
        return found[0]
    query = dict(parse_qsl(target.partition("?")[2], keep_blank_values=True))
    risk_class = forms.choice(query, "risk_class", RISK_CLASSES)
    with_deprecated = forms.flag(query, "deprecated")
    chosen = [
        row for row in rows if risk_class in (None, row["risk_class"]) and (with_deprecated or not row["deprecated"])
    ]
    return {"version": _VERSION, **forms.page("kinds", chosen, lambda row: str(row["kind"]), query)}
