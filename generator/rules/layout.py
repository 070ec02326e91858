"""Rules for the layout of a document: references that the generator cannot follow, operations it would misread."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from typing import Any, Final

from generator import GenerationError
from generator.document import METHODS, Json, derived_operation_id, lookup, resolve, schemas_of

# Kinds of components whose references the generator follows for one step only.
_FOLLOWED: Final = ("parameters", "requestBodies", "responses")


def inline_path_items(document: Json, counts: Counter[str]) -> None:
    """Inline paths that are a `$ref`, because the generator skips them silently."""
    for path, item in document["paths"].items():
        if "$ref" in item:
            document["paths"][path] = {
                **deepcopy(resolve(document, item)),
                **{k: v for k, v in item.items() if k != "$ref"},
            }
            counts["path items inlined"] += 1
    document.pop("webhooks", None)


def check_references(document: Json, counts: Counter[str]) -> None:
    """Raise a `GenerationError` for a reference that leaves the document, has no target or leads back to itself."""
    _check_references(document, document)


def _check_references(document: Json, node: Any) -> None:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            resolve(document, {"$ref": node["$ref"]})
        node = list(node.values())
    if isinstance(node, list):
        for part in node:
            _check_references(document, part)


def lower_version(document: Json, counts: Counter[str]) -> None:
    """Change the version 3.2 or later to 3.1: the pipeline uses none of its additions, and the generator rejects it."""
    version: str = document["openapi"]
    minor = version.split(".")[1:2]
    if version.startswith("3.") and int(minor[0]) > 1:
        document["openapi"] = "3.1.0"
        counts["versions lowered to 3.1"] += 1


def undeclared_key(document: Json) -> str | None:
    """Return the key that operations without `security` send; None if there is no such operation or no key.

    A document may declare a key in a header and name no `security`, anywhere or, if it was merged from several, for
    some operations. Taken literally, these would be public. But a key that a public operation does not need is
    harmless, and a key that is missing is not. The usual key is the one that most other operations name first.
    """
    operations = named_operations(document).values()
    if "security" in document or all("security" in operation for operation in operations):
        return None
    schemes: Json = document.get("components", {}).get("securitySchemes", {})
    keys = [name for name, scheme in schemes.items() if scheme.get("type") == "apiKey" and scheme.get("in") == "header"]
    named = [operation["security"] for operation in operations if operation.get("security")]
    first = Counter(name for requirements in named for name in requirements[0])
    return max(keys, key=lambda name: first[name], default=None)


def named_operations(document: Json) -> dict[str, Json]:
    """Return the operations of a document by their ids, without what they have in common."""
    items = [(path, resolve(document, item)) for path, item in document["paths"].items()]
    return {
        item[method].get("operationId") or derived_operation_id(path, method): item[method]
        for path, item in items
        for method in METHODS
        if method in item
    }


def require_declared_key(document: Json, counts: Counter[str]) -> None:
    """Add the default security that a document with an API key scheme omits; see `undeclared_key`."""
    key = undeclared_key(document)
    if key is not None:
        document["security"] = [{key: []}]
        counts["security added from the declared API key"] += 1


def complete_operations(document: Json, counts: Counter[str]) -> None:
    """Copy ids, shared parameters and the default security into each operation."""
    for path, item in document["paths"].items():
        shared = item.pop("parameters", [])
        for method in METHODS:
            if method in item:
                _complete(document, item[method], shared)
                item[method].setdefault("operationId", derived_operation_id(path, method))
                counts["operations"] += 1


def _complete(document: Json, operation: Json, shared: list[Json]) -> None:
    if "security" not in operation and document.get("security"):
        operation["security"] = deepcopy(document["security"])
    own = [resolve(document, parameter) for parameter in operation.get("parameters", [])]
    taken = {(parameter["name"], parameter["in"]) for parameter in own}
    inherited = [deepcopy(resolve(document, parameter)) for parameter in shared]
    extra = [parameter for parameter in inherited if (parameter["name"], parameter["in"]) not in taken]
    if extra:
        operation["parameters"] = [*operation.get("parameters", []), *extra]


def shorten_reference_chains(document: Json, counts: Counter[str]) -> None:
    """Replace a component that is itself a `$ref` by its target."""
    for kind in _FOLLOWED:
        for name, component in document["components"].get(kind, {}).items():
            if "$ref" in component:
                document["components"][kind][name] = deepcopy(resolve(document, component))
                counts["reference chains shortened"] += 1


def redirect_references(document: Json, counts: Counter[str]) -> None:
    """Replace a reference to anything but a component (a `$defs` entry, a member) by a copy of its target."""
    for _ in range(10):  # a copy may contain further references; deeper nesting than this is a loop
        if not _inline_once(document, document, counts):
            return
    raise GenerationError("a schema outside components/schemas contains itself; make it a component schema")


def _inline_once(document: Json, node: Any, counts: Counter[str]) -> bool:
    if isinstance(node, list):
        return sum(_inline_once(document, part, counts) for part in node) > 0
    if not isinstance(node, dict):
        return False
    changed = False
    reference = node.get("$ref")
    if isinstance(reference, str) and not _is_component(reference):
        node.pop("$ref")
        node.update({**deepcopy(lookup(document, reference)), **node})
        counts["references inlined"] += 1
        changed = True
    return sum(_inline_once(document, part, counts) for part in node.values()) > 0 or changed


def _is_component(reference: str) -> bool:
    parts = reference.split("/")
    return len(parts) == 4 and parts[:2] == ["#", "components"]


def drop_definitions(document: Json, counts: Counter[str]) -> None:
    """Drop local definitions, which no reference names after `redirect_references`."""
    for schema in schemas_of(document).values():
        if isinstance(schema, dict) and (schema.pop("$defs", None) or schema.pop("definitions", None)):
            counts["local definitions resolved"] += 1
