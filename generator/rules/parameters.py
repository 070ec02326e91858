"""Rules for parameters that the generated code would encode wrongly: the caller passes the encoded string instead."""

from __future__ import annotations

from collections import Counter
from typing import Final

from generator.document import Json, resolve
from generator.rules.places import become, inline_operations

# Places in which the default style sends a parameter as one string.
_ONE_STRING: Final = ("path", "header", "cookie")


def send_as_string(document: Json, counts: Counter[str]) -> None:
    """Make joined arrays (`explode: false`), arrays outside the query, dates in headers and `content:` strings."""
    for parameter in _all(document):
        if "content" in parameter:
            parameter.pop("content")
            parameter["schema"] = {"type": "string"}
            counts["parameters sent as strings"] += 1
            continue
        schema = resolve(document, parameter.get("schema", {}))
        if _is_joined(document, parameter, schema):
            parameter["schema"] = {"type": "string"}
            parameter["x-joined"] = True
            counts["parameters sent as strings"] += 1


def send_unchanged(document: Json, counts: Counter[str]) -> None:
    """Send a body that has alternatives, or may be null, as the JSON value that the caller passes."""
    bodies = [operation.get("requestBody", {}) for _, operation in inline_operations(document)]
    for body in [*bodies, *document["components"].get("requestBodies", {}).values()]:
        for variant in body.get("content", {}).values():
            schema = variant.get("schema", {})
            target = resolve(document, schema)
            if "anyOf" in target or "oneOf" in target or isinstance(target.get("type"), list):
                become(schema, {})
                counts["bodies sent unchanged"] += 1


def _is_joined(document: Json, parameter: Json, schema: Json) -> bool:
    structured = not _is_scalar(document, schema)
    if parameter["in"] in _ONE_STRING:
        return structured or (parameter["in"] != "path" and schema.get("format") in ("date", "date-time", "uuid"))
    exploded = parameter.get("explode", parameter.get("style", "form") == "form")
    repeated = schema.get("type") == "array" and _is_scalar(document, schema.get("items", {}))
    spread = "properties" in schema and parameter.get("style", "form") == "form"
    return structured and not (exploded and (repeated or spread))


def _is_scalar(document: Json, schema: Json) -> bool:
    """Return whether every value of the schema is a scalar."""
    target = resolve(document, schema)
    parts = [part for keyword in ("allOf", "anyOf", "oneOf") for part in target.get(keyword, [])]
    if parts:
        return all(_is_scalar(document, part) for part in parts)
    types = target.get("type")
    named = types if isinstance(types, list) else [types]
    return "properties" not in target and all(kind not in ("array", "object", None) for kind in named)


def describe_in_schema(document: Json, counts: Counter[str]) -> None:
    """Copy the description of a parameter into its schema, which the generated docstrings show."""
    for parameter in _all(document):
        description = parameter.get("description", "")
        if parameter.pop("x-joined", False):
            description = f"{description} Several values are joined with commas.".strip()
        schema = parameter.get("schema", {})
        if description and "$ref" not in schema:
            become(schema, {**schema, "description": description})
            counts["parameters described"] += 1


def _all(document: Json) -> list[Json]:
    shared = list(document["components"].get("parameters", {}).values())
    own = [
        p for _, operation in inline_operations(document) for p in operation.get("parameters", []) if "$ref" not in p
    ]
    return shared + own
