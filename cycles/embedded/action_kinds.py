"""The public registry of action kinds over HTTP (protocol 0.1.26)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

from cycles._core.values.action_kinds import RISK_CLASSES
from cycles.embedded import admin_forms as forms
from cycles.embedded.action_policies import ActionPolicies
from cycles.embedded.errors import ApiError
from cycles.embedded.records import Body

_VERSION: Final = "0.1.26"
_MAX_KIND: Final = 64
_CACHED: Final = "public, max-age=3600"


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


def cached(body: Body, request: Mapping[str, str], headers: dict[str, str]) -> int:
    """Add the headers of a response that clients may cache, and return its status: 304 if the client has this body.

    Args:
        body: The body of the response.
        request: Headers of the request, names in lower case.
        headers: Headers of the response.
    """
    tag = f'"{hashlib.sha256(json.dumps(body).encode()).hexdigest()[:32]}"'
    headers |= {"ETag": tag, "Cache-Control": _CACHED}
    for name in ("Pragma", "Expires"):  # these forbid what Cache-Control allows
        headers.pop(name, None)
    known = [each.strip().removeprefix("W/") for each in request.get("if-none-match", "").split(",")]
    return 304 if tag in known or "*" in known else 200
