"""Rules for merged documents whose extensions were not merged into the schemas that they extend."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from openapi_python_client.strings import pascal_case

from generator.document import Json, resolve, schemas_of
from generator.rules.places import Place, become, everywhere

_SUFFIX: Final = "Extension"
_MERGEABLE: Final = frozenset(("type", "description", "properties", "required", "additionalProperties"))
# Operation id in a merged document: the id in the base document, under which clients know the operation.
_RENAMED: Final = {
    "updateTenantObserveMode": "updateTenant",
    "updatePolicyActionQuotas": "updatePolicy",
}
_PREFIX: Final = "#/components/schemas/"


def fold_extensions(document: Json, counts: Counter[str]) -> None:
    """Fold each schema `NameExtension` into the schema `Name`, and replace references to it by references to `Name`.

    The members of an extension become optional members of the base. A member that the base has already keeps its
    definition. A schema that has required members and is referred to is not an extension.
    """
    schemas = schemas_of(document)
    referenced = set(_references(document))
    for name in [name for name in schemas if name.endswith(_SUFFIX)]:
        base, extension = schemas.get(name.removesuffix(_SUFFIX)), schemas[name]
        if base is None or not isinstance(extension, dict) or (name in referenced and extension.get("required")):
            continue
        if _fold(schemas, name.removesuffix(_SUFFIX), extension):
            del schemas[name]
            _redirect(document, name, name.removesuffix(_SUFFIX))
            counts["extension schemas folded into their base"] += 1
    for name in [name for name in schemas if name.endswith(_SUFFIX) and "enum" in schemas[name]]:
        if name not in referenced:
            del schemas[name]
            counts["extension enums without a base dropped"] += 1


def merge_closed_parts(document: Json, counts: Counter[str]) -> None:
    """Merge `allOf` parts if one of them is closed: as a separate part it would reject the members of the others."""

    def rule(schema: Json, place: Place) -> None:
        parts = [resolve(document, part) for part in schema.get("allOf", [])]
        if len(parts) < 2 or not all(set(part) <= _MERGEABLE and "properties" in part for part in parts):
            return
        members = {name: member for part in parts for name, member in part["properties"].items()}
        closed = [part for part in parts if part.get("additionalProperties") is False]
        if not any(set(members) - set(part["properties"]) for part in closed):
            return
        required = [name for part in [*parts, schema] for name in part.get("required", [])]
        merged = {"type": "object", "properties": {**members, **schema.get("properties", {})}}
        kept = {key: value for key, value in schema.items() if key == "description"}
        become(schema, {**kept, **merged, "required": list(dict.fromkeys(required)), "additionalProperties": False})
        counts["closed parts of allOf merged"] += 1

    everywhere(document, rule)


def restore_operation_ids(document: Json, counts: Counter[str]) -> None:
    """Give operations that an extension has renamed the id of the base document again.

    Their bodies and responses are those of the base with the members of the extension, after the rules above.
    """
    operations = [
        operation
        for item in document.get("paths", {}).values()
        for operation in item.values()
        if isinstance(operation, dict)
    ]
    known = {operation.get("operationId") for operation in operations}
    for operation in operations:
        base_id = _RENAMED.get(operation.get("operationId", ""))
        if base_id is not None and base_id not in known:
            operation["operationId"] = base_id
            counts["operation ids of the base document restored"] += 1


def _fold(schemas: Json, base_name: str, extension: Json) -> bool:
    base = schemas[base_name]
    if "properties" in base and "properties" in extension:
        for member, schema in extension["properties"].items():
            base["properties"].setdefault(member, _typed(schemas, base_name, member, schema))
        return True
    if "enum" in base and "enum" in extension:
        base["enum"] += [value for value in extension["enum"] if value not in base["enum"]]
        return True
    return False


def _typed(schemas: Json, base_name: str, member: str, schema: Any) -> Any:
    """Return the schema of a member; for an object that names no members, the component named like `BaseMember`."""
    component = base_name + pascal_case(member)
    if component in schemas and schema.get("type") == "object" and not schema.get("properties"):
        return {"$ref": _PREFIX + component}
    return schema


def _references(node: Any) -> list[str]:
    if isinstance(node, list):
        return [name for part in node for name in _references(part)]
    if not isinstance(node, dict):
        return []
    own = node.get("$ref")
    names = [own.removeprefix(_PREFIX)] if isinstance(own, str) and own.startswith(_PREFIX) else []
    return names + [name for part in node.values() for name in _references(part)]


def _redirect(node: Any, name: str, base_name: str) -> None:
    if isinstance(node, dict):
        if node.get("$ref") == _PREFIX + name:
            node["$ref"] = _PREFIX + base_name
        node = list(node.values())
    if isinstance(node, list):
        for part in node:
            _redirect(part, name, base_name)
