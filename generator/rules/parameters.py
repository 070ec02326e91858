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
        if _is_joined(parameter, schema):
            parameter["schema"] = {"type": "string"}
            parameter["x-joined"] = True
            counts["parameters sent as text"] += 1


def _is_joined(parameter: Json, schema: Json) -> bool:
    if parameter["in"] not in _ONE_TEXT:
        return (
            schema.get("type") == "array"
            and parameter.get("explode", parameter.get("style", "form") == "form") is False
        )
    structured = schema.get("type") in ("array", "object") or "properties" in schema
    return structured or (parameter["in"] != "path" and schema.get("format") in ("date", "date-time", "uuid"))


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
