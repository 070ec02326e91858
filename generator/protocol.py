"""Write `protocol.py`: the operations and the schemas of the document as Python literals.

The handwritten layer builds its requests and checks responses by these two tables. So the tables come from the
published document, not from the prepared one, and keep every keyword that decides validity. They must be quick to
import: no code, and no import but `typing`.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, Final

from openapi_python_client.strings import ClassName

from generator.document import (
    LISTS_OF_SCHEMAS,
    MAPS_OF_SCHEMAS,
    ONE_SCHEMA,
    Json,
    Operation,
    error_of,
    json_schema,
    operations_of,
    other_successes_of,
    schemas_of,
    success_of,
)

_SCALAR_KEYWORDS: Final = (
    "type", "required", "enum", "const", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
    "minLength", "maxLength", "pattern", "minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties",
)  # fmt: skip
# Formats that narrow what is valid beyond the type; other formats are dropped.
_CHECKED_FORMATS: Final = ("int32", "int64", "date", "date-time")
_COMPONENT: Final = re.compile(r"#/components/schemas/([^/]+)")

_HEADER: Final = '''"""The protocol as data: every operation and schema of the document this client was generated from.

A `$ref` names an entry of `SCHEMAS`. This file is generated; change the document instead.
"""

from typing import Any

'''


def reduced(schema: Any) -> Any:
    """Return a schema with only the keywords that decide validity; references become the schema's name."""
    if not isinstance(schema, dict):
        return {}  # `true`; a `false` schema allows no value and is in no real document
    kept: Json = {}
    if "$ref" in schema:
        kept["$ref"] = schema_name(schema["$ref"])
    kept.update({keyword: schema[keyword] for keyword in _SCALAR_KEYWORDS if keyword in schema})
    _exclude_bounds(kept)
    _name_type(kept, schema)
    if schema.get("format") in _CHECKED_FORMATS:
        kept["format"] = schema["format"]
    kept.update({keyword: reduced(schema[keyword]) for keyword in ONE_SCHEMA if isinstance(schema.get(keyword), dict)})
    if isinstance(schema.get("additionalProperties"), bool):
        kept["additionalProperties"] = schema["additionalProperties"]
    kept.update(
        {keyword: [reduced(part) for part in schema[keyword]] for keyword in LISTS_OF_SCHEMAS if keyword in schema}
    )
    for keyword in MAPS_OF_SCHEMAS:
        if keyword in schema:
            kept[keyword] = {name: reduced(part) for name, part in schema[keyword].items()}
    return _with_null(kept) if schema.get("nullable") else kept


def schema_name(reference: str) -> str:
    """Return the name of the component schema a reference points to, or the reference itself."""
    match = _COMPONENT.fullmatch(reference)
    return match[1] if match else reference


def _name_type(kept: Json, schema: Json) -> None:
    """Add the type that the document omits: `properties` implies object, `items` implies array."""
    for keyword, name in (("properties", "object"), ("items", "array")):
        if keyword in schema and "$ref" not in schema:
            kept.setdefault("type", name)


def _exclude_bounds(schema: Json) -> None:
    """Rewrite the exclusive bounds of OpenAPI 3.0 (a boolean beside the bound) as those of 3.1 (the bound itself)."""
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(schema.get(exclusive), bool) and schema.pop(exclusive) and bound in schema:
            schema[exclusive] = schema.pop(bound)


def _with_null(schema: Json) -> Json:
    """Rewrite `nullable` of OpenAPI 3.0 as the null type of 3.1."""
    if isinstance(schema.get("type"), str):
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


class Tables:
    """Both tables of one document. A body without a name gets the name that the generator gives its class."""

    def __init__(self, document: Json) -> None:
        self.schemas: dict[str, Any] = {name: reduced(schema) for name, schema in schemas_of(document).items()}
        self.operations: dict[str, Json] = {op.operation_id: self._entry(op) for op in operations_of(document)}

    def _entry(self, operation: Operation) -> Json:
        status, response = success_of(operation)
        others = other_successes_of(operation)
        return {
            "method": operation.method.upper(),
            "path": operation.path,
            "parameters": [_parameter(parameter) for parameter in operation.parameters],
            "request": self._named(json_schema((operation.body or {}).get("content")), f"{operation.name}_body"),
            "success": status,
            **({"other_success": others} if others else {}),
            "response": self._named(response, f"{operation.name}_response_{status}"),
            "error": self._named(error_of(operation), f"{operation.name}_error"),
            "security": operation.security,
            "module": operation.module,
        }

    def _named(self, schema: Json | None, name: str) -> str | None:
        if schema is None:
            return None
        if set(schema) - {"description", "summary"} == {"$ref"}:
            return schema_name(schema["$ref"])
        class_name = str(ClassName(name, "field_"))
        self.schemas[class_name] = reduced(schema)
        return class_name


def _parameter(parameter: Json) -> Json:
    entry: Json = {
        "name": parameter["name"],
        "in": parameter["in"],
        "required": parameter.get("required", False),
        "schema": reduced(parameter.get("schema", {"type": "string"})),
    }
    if "explode" in parameter:
        entry["explode"] = parameter["explode"]
    return entry


def render(tables: Tables, version: str, digest: str) -> str:
    """Return the source of `protocol.py`, before formatting."""
    parts = [
        f"SPEC_VERSION = {version!r}",
        f"SPEC_SHA256 = {digest!r}",
        f"SCHEMAS: dict[str, Any] = {tables.schemas!r}",
        f"OPERATIONS: dict[str, dict[str, Any]] = {tables.operations!r}",
    ]
    return _HEADER + "\n\n".join(parts) + "\n"


def fingerprint(document: Json) -> str:
    """Return the SHA-256 of the document's content. Comments, layout, and YAML or JSON do not change it."""
    return hashlib.sha256(as_json(document, sort_keys=True).encode()).hexdigest()


def as_json(document: Json, *, sort_keys: bool = False) -> str:
    """Return the document as compact JSON."""
    return json.dumps(document, sort_keys=sort_keys, separators=(",", ":"))
