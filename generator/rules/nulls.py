"""Rules for null, booleans and types: several ways to write a schema become the one that the generator reads well."""

from __future__ import annotations

from collections import Counter
from typing import Any

from openapi_python_client.strings import ClassName

from generator.document import LISTS_OF_SCHEMAS, MAPS_OF_SCHEMAS, Json, schemas_of
from generator.rules.places import Place, become, everywhere, schema_slots

NULL: Json = {"type": "null"}
_STRUCTURE = ("object", "array")


def replace_booleans(document: Json, counts: Counter[str]) -> None:
    """Replace the schemas `true` and `false` by an empty object, except in `additionalProperties`."""

    def rule(schema: Json, place: Place) -> None:
        for keyword in MAPS_OF_SCHEMAS:
            for name, part in schema.get(keyword, {}).items():
                if isinstance(part, bool):
                    schema[keyword][name] = {}
                    counts["boolean schemas replaced"] += 1
        for keyword in LISTS_OF_SCHEMAS:
            if keyword in schema:
                schema[keyword] = [{} if isinstance(part, bool) else part for part in schema[keyword]]
        if isinstance(schema.get("items"), bool):
            schema["items"] = {}

    for holder, key in schema_slots(document):
        if isinstance(holder[key], bool):
            holder[key] = {}
            counts["boolean schemas replaced"] += 1
    everywhere(document, rule)


def name_types(document: Json, counts: Counter[str]) -> None:
    """Complete untyped arrays, unwrap one-element type lists, and rewrite `nullable` of 3.0 as the null type of 3.1."""

    def rule(schema: Json, place: Place) -> None:
        if schema.pop("nullable", False):
            _allow_null(schema)
            counts["nullable rewritten"] += 1
        types = schema.get("type")
        if isinstance(types, list) and len(types) == 1:
            schema["type"] = types[0]
        if "prefixItems" in schema:
            schema.pop("prefixItems")
            schema["items"] = {}
            counts["tuples made plain lists"] += 1
        if schema.get("type") == "array":
            schema.setdefault("items", {})

    everywhere(document, rule)


def _allow_null(schema: Json) -> None:
    if isinstance(schema.get("type"), str) and "enum" not in schema:
        schema["type"] = [schema["type"], "null"]
        return
    inner = {key: value for key, value in schema.items() if key != "description"}
    outer = {key: value for key, value in schema.items() if key == "description"}
    become(schema, {**outer, "oneOf": [inner, dict(NULL)]})


def separate_null(document: Json, counts: Counter[str]) -> None:
    """Separate an object, array or enum that may be null into the structure and null, so that its name stays.

    Without this rule the generator would name the class `...Type0`, or make an enum three times.
    """
    nullable = {name for name, schema in schemas_of(document).items() if _strip_null(schema)}
    counts["nullable components"] += len(nullable)

    references: list[Json] = []

    def rule(schema: Json, place: Place) -> None:
        if schema.get("$ref", "").rsplit("/", 1)[-1] in nullable and place.kind != "composed":
            references.append(schema)
        elif place.kind in ("member", "part", "body") and _strip_null(schema):
            _move_to_component(document, schema, place)
            counts["nullable structures separated"] += 1
        elif place.kind == "parameter":
            _strip_null(schema)

    everywhere(document, rule)
    for schema in references:  # not during the walk, which would visit the new schemas too
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        become(schema, {**rest, "oneOf": [{"$ref": schema["$ref"]}, dict(NULL)]})


def _strip_null(schema: Json) -> bool:
    """Remove null from an object, array or enum. Return whether there was one."""
    found = False
    if isinstance(schema.get("enum"), list) and None in schema["enum"]:
        schema["enum"] = [value for value in schema["enum"] if value is not None]
        found = True
    types = schema.get("type")
    structured = "enum" in schema or "properties" in schema or any(kind in (types or []) for kind in _STRUCTURE)
    if isinstance(types, list) and "null" in types and structured:
        rest = [kind for kind in types if kind != "null"]
        schema["type"] = rest[0] if len(rest) == 1 else rest
        found = True
    return found


def _move_to_component(document: Json, schema: Json, place: Place) -> None:
    inner: dict[str, Any] = {key: value for key, value in schema.items() if key != "description"}
    outer = {key: value for key, value in schema.items() if key == "description"}
    name = str(ClassName(place.name, "field_"))
    if schema.get("type") != "array" and name not in schemas_of(document):
        schemas_of(document)[name] = inner
        inner = {"$ref": f"#/components/schemas/{name}"}
    become(schema, {**outer, "oneOf": [inner, dict(NULL)]})
