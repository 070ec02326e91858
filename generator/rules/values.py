"""Rules for defaults, constants, enums and free-form maps."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, Final

from openapi_python_client.strings import snake_case

from generator.document import Json, resolve
from generator.rules.places import Place, become, everywhere, inline_operations

_TYPE_NAMES: Final = {bool: "boolean", int: "integer", float: "number", str: "string"}


def drop_defaults(document: Json, counts: Counter[str]) -> None:
    """Drop defaults. Generated code would send them, and so override what an operator has set on the server."""

    def rule(schema: Json, place: Place) -> None:
        if "default" in schema:
            value = schema.pop("default")
            schema["x-server-default"] = value if isinstance(value, str) else json.dumps(value)
            counts["defaults left to the server"] += 1

    everywhere(document, rule)


def loosen_constants(document: Json, counts: Counter[str]) -> None:
    """Replace a `const` by its type, because a newer server may send another value."""

    def rule(schema: Json, place: Place) -> None:
        if "const" in schema:
            value = schema.pop("const")
            schema.pop("enum", None)
            name = _TYPE_NAMES.get(type(value))
            if name:
                schema.setdefault("type", name)
            counts["constants loosened to their type"] += 1

    everywhere(document, rule)


def settle_enums(document: Json, counts: Counter[str]) -> None:
    """Replace an enum that cannot become a class (mixed types, fractions, booleans, colliding names) by its type."""

    def rule(schema: Json, place: Place) -> None:
        if "enum" not in schema:
            return
        schema.pop("x-enum-varnames", None)
        kinds = {type(value) for value in schema["enum"]}
        if len(kinds) == 1:
            schema.setdefault("type", _TYPE_NAMES.get(next(iter(kinds)), "string"))
        if not _can_be_class(schema["enum"], kinds):
            del schema["enum"]
            counts["enums replaced by their type"] += 1

    everywhere(document, rule)


def _can_be_class(values: list[Any], kinds: set[type]) -> bool:
    if kinds == {int}:
        return True
    if kinds != {str}:
        return False
    keys = [value.upper() if value and value[0].isalpha() else f"VALUE_{i}" for i, value in enumerate(values)]
    names = [snake_case(key).upper() for key in keys]
    return len(set(names)) == len(names) and all(name.isidentifier() for name in names)


def free_maps(document: Json, counts: Counter[str]) -> None:
    """Make a map that names no members a dict instead of a class."""

    def rule(schema: Json, place: Place) -> None:
        if place.kind not in ("body", "composed") and is_map(schema):
            become(schema, {key: schema[key] for key in ("description", "x-server-default") if key in schema})
            counts["maps made dicts"] += 1

    everywhere(document, rule)


def is_map(schema: Json) -> bool:
    """Return whether a schema is an object that names no members."""
    if any(schema.get(key) for key in ("properties", "allOf", "anyOf", "oneOf", "$ref", "enum")):
        return False
    return schema.get("type") == "object" or ("type" not in schema and "additionalProperties" in schema)


def allow_unknown_members(document: Json, counts: Counter[str]) -> None:
    """Allow unknown members in every schema that a response uses. Schemas that only requests use stay closed."""
    seen: set[int] = set()

    def open_up(schema: Json) -> None:
        target = resolve(document, schema)
        if id(target) in seen:
            return
        seen.add(id(target))
        if target.get("additionalProperties") is False:
            target["additionalProperties"] = True
            counts["response schemas opened to unknown members"] += 1
        for part in _inside(target):
            open_up(part)

    for schema in _response_schemas(document):
        open_up(schema)


def keep_clashing_closed(document: Json, counts: Counter[str]) -> None:
    """Close a schema with a member named `additional_properties`: that is the attribute that keeps unknown members."""

    def rule(schema: Json, place: Place) -> None:
        if "additional_properties" in schema.get("properties", {}):
            schema["additionalProperties"] = False
            counts["objects closed because of a name clash"] += 1

    everywhere(document, rule)


def _inside(schema: Json) -> list[Json]:
    parts = [*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")]
    for keyword in ("allOf", "anyOf", "oneOf"):
        parts.extend(schema.get(keyword, []))
    return [part for part in parts if isinstance(part, dict)]


def _response_schemas(document: Json) -> list[Json]:
    operations = [operation for _, operation in inline_operations(document)]
    return [schema for operation in operations for schema in _schemas_of_responses(document, operation)]


def _schemas_of_responses(document: Json, operation: Json) -> list[Json]:
    responses = [resolve(document, response) for response in operation.get("responses", {}).values()]
    variants = [variant for response in responses for variant in response.get("content", {}).values()]
    return [variant["schema"] for variant in variants if "schema" in variant]
