"""Members and operations of protocol 0.1.26, for tables that are generated from a document of 0.1.25.

Tables that contain them already stay unchanged. Nothing here is required, and a member is sent only if the caller
passes it, because a server of 0.1.25 rejects members that it does not know.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Final

from cycles._core.action_kinds import RISK_CLASSES
from cycles._core.protocol import GET_ACTION_KIND, LIST_ACTION_KINDS

_TEXT: Final[dict[str, Any]] = {"type": "string"}

_SCHEMAS: Final[dict[str, Any]] = {
    "ActionPolicyKeys": {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "host": {"type": "string", "maxLength": 253},
            "recipient_domain": {"type": "string", "maxLength": 253},
            "resource_type": {"type": "string", "maxLength": 128},
            "path_prefix": {"type": "string", "maxLength": 512},
            "custom": {
                "type": "object",
                "maxProperties": 8,
                "additionalProperties": {"type": "string", "maxLength": 256},
            },
        },
    },
    "ActionKind": {
        "type": "object",
        "required": ["kind", "risk_class"],
        "properties": {
            "kind": _TEXT,
            "risk_class": {"type": "string", "enum": list(RISK_CLASSES)},
            "description": _TEXT,
            "mcp_tool_prefixes": {"type": "array", "items": _TEXT},
            "deprecated": {"type": "boolean"},
            "replacement_kind": _TEXT,
        },
    },
    "ActionKindRegistry": {
        "type": "object",
        "required": ["version", "kinds"],
        "properties": {
            "version": _TEXT,
            "kinds": {"type": "array", "items": {"$ref": "ActionKind"}},
            "next_cursor": _TEXT,
            "has_more": {"type": "boolean"},
        },
    },
}
_MEMBERS: Final[dict[str, dict[str, Any]]] = {
    "Action": {"policy_keys": {"$ref": "ActionPolicyKeys"}},
    "ReservationCreateRequest": {
        "observe_mode": {"type": "string", "enum": ["DISABLED", "OBSERVE", "ENFORCE"]},
    },
}


def _parameter(name: str, place: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": place, "required": place == "path", "schema": schema}


def _read(path: str, parameters: list[dict[str, Any]], response: str) -> dict[str, Any]:
    return {
        "method": "GET",
        "path": path,
        "parameters": parameters,
        "request": None,
        "success": 200,
        "response": response,
        "error": "ErrorResponse",
        "security": [],
    }


_OPERATIONS: Final[dict[str, Any]] = {
    LIST_ACTION_KINDS: _read(
        "/v1/action-kinds",
        [
            _parameter("risk_class", "query", {"type": "string", "enum": list(RISK_CLASSES)}),
            _parameter("deprecated", "query", {"type": "boolean"}),
            _parameter("cursor", "query", _TEXT),
            _parameter("limit", "query", {"type": "integer", "minimum": 1, "maximum": 100}),
        ],
        "ActionKindRegistry",
    ),
    GET_ACTION_KIND: _read(
        "/v1/action-kinds/{kind}",
        [_parameter("kind", "path", {"type": "string", "minLength": 1, "maxLength": 64})],
        "ActionKind",
    ),
}


def extended(tables: Any) -> Any:
    """Return the tables with the members and operations of 0.1.26 that they lack."""
    schemas = {**_SCHEMAS, **tables.SCHEMAS}
    for name, members in _MEMBERS.items():
        base = schemas.get(name, {})
        if base.get("properties"):
            schemas[name] = {**base, "properties": {**members, **base["properties"]}}
    return SimpleNamespace(SCHEMAS=schemas, OPERATIONS={**_OPERATIONS, **tables.OPERATIONS})
