"""Make a value that satisfies a schema: every member filled, or only the required ones."""

from __future__ import annotations

import re
from typing import Any, Final

Json = dict[str, Any]

# Deeper than any member of real documents; it ends the optional members of recursive schemas.
DEEPEST: Final = 8
_STRINGS: Final = {
    "date-time": "2026-01-02T03:04:05+00:00",
    "date": "2026-01-02",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
_SCALARS: Final[dict[str, Any]] = {"integer": 7, "number": 1.5, "boolean": True, "null": None}


class Samples:
    """Make values for schemas that refer to each other, by name or by pointers to components."""

    def __init__(self, schemas: dict[str, Json]) -> None:
        self.schemas = schemas

    def of(self, schema: Json, *, full: bool, depth: int = 0) -> Any:
        """Return a value for a schema whose `$ref`s are names or pointers to components."""
        if "$ref" in schema:
            return self.of(self.schemas[schema["$ref"].rsplit("/", 1)[-1]], full=full, depth=depth)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return next(value for value in schema["enum"] if value is not None)
        if self._is_object(schema):
            return self._object(schema, full=full, depth=depth)
        for keyword in ("oneOf", "anyOf", "allOf"):
            if schema.get(keyword):
                return self.of(schema[keyword][0], full=full, depth=depth)
        return self._simple(schema, full=full, depth=depth)

    def _is_object(self, schema: Json) -> bool:
        return "properties" in schema or len(schema.get("allOf", [])) > 1

    def _object(self, schema: Json, *, full: bool, depth: int) -> Json:
        members, required = self._members(schema)
        wanted = members if full and depth < DEEPEST else required
        return {name: self.of(member, full=full, depth=depth + 1) for name, member in members.items() if name in wanted}

    def _members(self, schema: Json) -> tuple[Json, set[str]]:
        """Return members and required names of an object, with those of its `allOf` parts and of one alternative."""
        members: Json = {}
        required: set[str] = set()
        alternatives = [*schema.get("anyOf", [])[:1], *schema.get("oneOf", [])[:1]]
        for part in [*schema.get("allOf", []), *alternatives]:
            target = self.schemas[part["$ref"].rsplit("/", 1)[-1]] if "$ref" in part else part
            inner, needed = self._members(target)
            members.update(inner)
            required |= needed
        members.update(schema.get("properties", {}))
        return members, required | set(schema.get("required", []))

    def _simple(self, schema: Json, *, full: bool, depth: int) -> Any:
        kind = schema.get("type", "object" if "additionalProperties" in schema else None)
        if isinstance(kind, list):
            kind = next((name for name in kind if name != "null"), "null")
        if kind == "array":
            items = schema.get("items", True)
            return [self.of(items, full=full, depth=depth + 1)] if full and isinstance(items, dict) else []
        if kind == "object":
            return self._map(schema, full=full, depth=depth)
        if kind in ("integer", "number"):
            return _within(schema, _SCALARS[kind])
        return _SCALARS[kind] if kind in _SCALARS else _string(schema)

    def _map(self, schema: Json, *, full: bool, depth: int) -> Json:
        inner = schema.get("additionalProperties", True)
        if not full or inner is False or depth >= DEEPEST:
            return {}
        return {"a": self.of(inner, full=full, depth=depth + 1) if isinstance(inner, dict) else "text"}


def _within(schema: Json, number: Any) -> Any:
    """Return a number between the bounds."""
    return min(max(number, schema.get("minimum", number)), schema.get("maximum", number))


def _string(schema: Json) -> str:
    """Return a string of the right format and length. Of patterns, it fits those that count hex digits or letters."""
    text = _STRINGS.get(schema.get("format", ""), "text")
    pattern = schema.get("pattern")
    if pattern is None:
        return text.ljust(schema.get("minLength", 0), "t")[: schema.get("maxLength")]
    counted = re.search(r"\{(\d+)", pattern)
    candidates = ("0" * int(counted[1] if counted else 1), text)
    return next((candidate for candidate in candidates if re.search(pattern, candidate)), text)
