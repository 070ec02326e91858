"""Parameters whose form on the wire the generated code would get wrong: the caller gives the text as it is sent."""

from __future__ import annotations

from collections import Counter
from typing import Final

from generator.document import Json, resolve
from generator.rules.places import become, inline_operations

# Sent as one text by the default style of their place.
_ONE_TEXT: Final = ("path", "header", "cookie")


def send_as_text(document: Json, counts: Counter[str]) -> None:
    """Joined arrays (`explode: false`), arrays outside the query, dates in headers and `content:` become plain text."""
    for parameter in _all(document):
        if "content" in parameter:
            parameter.pop("content")
            parameter["schema"] = {"type": "string"}
            counts["parameters sent as text"] += 1
            continue
        schema = resolve(document, parameter.get("schema", {}))
        if _is_joined(document, parameter, schema):
            parameter["schema"] = {"type": "string"}
            parameter["x-joined"] = True
            counts["parameters sent as text"] += 1


def send_as_it_comes(document: Json, counts: Counter[str]) -> None:
    """A body that may be one of several things, or null, is sent as the caller gives it: plain JSON."""
    bodies = [operation.get("requestBody", {}) for _, operation in inline_operations(document)]
    for body in [*bodies, *document["components"].get("requestBodies", {}).values()]:
        for variant in body.get("content", {}).values():
            schema = variant.get("schema", {})
            target = resolve(document, schema)
            if "anyOf" in target or "oneOf" in target or isinstance(target.get("type"), list):
                become(schema, {})
                counts["bodies sent as they come"] += 1


def _is_joined(document: Json, parameter: Json, schema: Json) -> bool:
    structured = not _is_scalar(document, schema)
    if parameter["in"] in _ONE_TEXT:
        return structured or (parameter["in"] != "path" and schema.get("format") in ("date", "date-time", "uuid"))
    exploded = parameter.get("explode", parameter.get("style", "form") == "form")
    repeated = schema.get("type") == "array" and _is_scalar(document, schema.get("items", {}))
    spread = "properties" in schema and parameter.get("style", "form") == "form"
    return structured and not (exploded and (repeated or spread))


def _is_scalar(document: Json, schema: Json) -> bool:
    """Whether a value of this is one word."""
    target = resolve(document, schema)
    parts = [part for keyword in ("allOf", "anyOf", "oneOf") for part in target.get(keyword, [])]
    if parts:
        return all(_is_scalar(document, part) for part in parts)
    types = target.get("type")
    named = types if isinstance(types, list) else [types]
    return "properties" not in target and all(kind not in ("array", "object", None) for kind in named)


def describe_in_schema(document: Json, counts: Counter[str]) -> None:
    """The generated docstrings show the words of the schema; what a parameter says of itself goes there."""
    for parameter in _all(document):
        words = parameter.get("description", "")
        if parameter.pop("x-joined", False):
            words = f"{words} Several values are joined with commas.".strip()
        schema = parameter.get("schema", {})
        if words and "$ref" not in schema:
            become(schema, {**schema, "description": words})
            counts["parameters described"] += 1


def _all(document: Json) -> list[Json]:
    shared = list(document["components"].get("parameters", {}).values())
    own = [
        p for _, operation in inline_operations(document) for p in operation.get("parameters", []) if "$ref" not in p
    ]
    return shared + own
