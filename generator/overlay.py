"""Merge the additions of a newer protocol version into a document that lacks them: see `openapi-next.yaml`.

The client offers them, but no server has to, and a published document may be older. What the document has already stays
unchanged, so that no document needs an edit, and one that contains all additions is read as it is.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from generator.document import Json, schemas_of
from generator.rules.layout import named_operations


def merged(document: Json, additions: Json) -> Json:
    """Return a copy of a document with the schemas, members and operations of `additions` that it lacks.

    Members are only added to a schema that names members, and only operations whose schemas all exist.
    """
    copy, more = deepcopy(document), deepcopy(additions)
    schemas = schemas_of(copy)
    for name, schema in schemas_of(more).items():
        if "type" in schema:
            schemas.setdefault(name, schema)
        elif isinstance(schemas.get(name, {}).get("properties"), dict):  # it only names further members
            separate = schemas.get(f"{name}Extension", {}).get("properties", {})
            known = {**separate, **schemas[name]["properties"]}
            schemas[name]["properties"].update(
                {key: part for key, part in schema["properties"].items() if key not in known}
            )
    paths = copy["paths"]
    ids = named_operations(copy).keys()
    for path, item in more["paths"].items():
        for method, operation in item.items():
            if operation["operationId"] not in ids and _references(operation) <= schemas.keys():
                paths.setdefault(path, {}).setdefault(method, operation)
    return copy


def _references(node: Any) -> set[str]:
    """Return the names of the schemas that a part of a document refers to."""
    if isinstance(node, dict):
        own = {node["$ref"].rpartition("/")[2]} if "$ref" in node else set()
        return own.union(*map(_references, node.values()))
    return set().union(*map(_references, node)) if isinstance(node, list) else set()
