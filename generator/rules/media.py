"""Rules for media types: a body of a media type that the generator does not know becomes bytes."""

from __future__ import annotations

from collections import Counter
from typing import Final

from generator.document import Json
from generator.rules.places import inline_operations

_BYTES: Final = "application/octet-stream"
_READ: Final = ("application/json", _BYTES)
_SENT: Final = (*_READ, "application/x-www-form-urlencoded", "multipart/form-data")


def name_media(document: Json, counts: Counter[str]) -> None:
    """Make a body a file, so that its bytes are passed unchanged, if the generator knows none of its media types."""
    components = document["components"]
    operations = [operation for _, operation in inline_operations(document)]
    sent = [operation.get("requestBody", {}) for operation in operations]
    read = [response for operation in operations for response in operation.get("responses", {}).values()]
    for body in [*sent, *components.get("requestBodies", {}).values()]:
        _as_bytes(body, _SENT, counts)
    for body in [*read, *components.get("responses", {}).values()]:
        if "$ref" not in body:
            body.setdefault("description", "")
        _as_bytes(body, (*_READ, "text/"), counts)


def _as_bytes(body: Json, known: tuple[str, ...], counts: Counter[str]) -> None:
    content = body.get("content")
    names = [media_type.split(";")[0].strip().lower() for media_type in content or ()]
    if names and not any(media_type.startswith(known) or media_type.endswith("+json") for media_type in names):
        body["content"] = {_BYTES: {"schema": {"type": "string", "format": "binary"}}}
        counts["media types read as bytes"] += 1
