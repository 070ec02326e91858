"""Rule for merged documents whose extension schemas were not merged into the schemas that they extend."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from openapi_python_client.strings import pascal_case

from generator.document import Json, schemas_of

_SUFFIX: Final = "Extension"
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
