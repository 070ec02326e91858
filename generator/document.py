"""Read a protocol document and navigate it: references, operations, keywords that hold schemas.

A document is JSON data, also if its file is YAML. YAML is read as YAML 1.2, so `NO` and `on` are strings.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

from openapi_python_client.strings import PythonIdentifier
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from generator import GenerationError

Json = dict[str, Any]

METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
NOT_METHODS: Final = ("summary", "description", "servers", "parameters", "$ref")

# Where JSON Schema keeps further schemas: as one schema, as a list of them, as a mapping to them.
ONE_SCHEMA: Final = ("items", "additionalProperties", "not", "contains", "propertyNames")
LISTS_OF_SCHEMAS: Final = ("allOf", "anyOf", "oneOf", "prefixItems")
MAPS_OF_SCHEMAS: Final = ("properties", "patternProperties")


def read(path: Path) -> Json:
    """Read YAML or JSON into JSON data: string keys (also for unquoted status codes), no dates, no anchors."""
    try:
        loaded = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise GenerationError(f"cannot read {path}: {error.strerror}") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise GenerationError(f"{path} is neither YAML nor JSON: {error}") from error
    if not isinstance(loaded, dict) or "openapi" not in loaded or not isinstance(loaded.get("paths"), dict):
        raise GenerationError(f"{path} is not an OpenAPI 3 document: it needs the members openapi, info and paths")
    document: Json = json.loads(json.dumps(loaded, default=_date_as_string))
    document["openapi"] = str(document["openapi"])
    info = document.setdefault("info", {})
    info["version"] = str(info.get("version", "0"))
    info.setdefault("title", "API")
    return document


def _date_as_string(value: object) -> str:
    if isinstance(value, date):
        return value.isoformat()
    raise GenerationError(f"an OpenAPI document cannot contain {value!r}; put it in quotes")


def resolve(document: Json, node: Json) -> Json:
    """Follow `$ref`s within this document, and return the first node that is not a reference."""
    seen: set[str] = set()
    while "$ref" in node:
        reference = node["$ref"]
        if reference in seen:
            raise GenerationError(f"$ref {reference} leads back to itself")
        seen.add(reference)
        node = lookup(document, reference)
    return node


def lookup(document: Json, reference: str) -> Json:
    """Return the object that a reference points to."""
    if not reference.startswith("#/"):
        raise GenerationError(f"$ref {reference} leaves the document; bundle the documents into one file first")
    node: Any = document
    for part in reference[2:].split("/"):
        key = part.replace("~1", "/").replace("~0", "~")
        node = node[int(key)] if isinstance(node, list) and key.isdigit() else (node or {}).get(key)
        if node is None:
            raise GenerationError(f"$ref {reference} points to nothing in the document")
    if not isinstance(node, dict):
        raise GenerationError(f"$ref {reference} does not point to an object")
    return node


def schemas_of(document: Json) -> Json:
    """Return the component schemas of a document, by name."""
    components: Json = document.setdefault("components", {})
    schemas: Json = components.setdefault("schemas", {})
    return schemas


@dataclass(frozen=True)
class Operation:
    """One operation: the parameters of its path are merged in, and everything but schemas is dereferenced."""

    operation_id: str
    method: str
    path: str
    tag: str
    parameters: list[Json]
    body: Json | None
    responses: dict[str, Json]
    security: list[str]

    @property
    def name(self) -> str:
        """Name of the generated module."""
        return str(PythonIdentifier(self.operation_id, "field_"))

    @property
    def module(self) -> str:
        """Dotted name of the generated module, below the package."""
        return f"api.{PythonIdentifier(self.tag, 'tag')}.{self.name}"


def operations_of(document: Json) -> Iterator[Operation]:
    """Return every operation, in the order of the document."""
    for path, item in document["paths"].items():
        item = resolve(document, item)
        for method, operation in item.items():
            if method not in NOT_METHODS and not method.startswith("x-"):
                yield _operation(document, path, method, item, operation)


def _operation(document: Json, path: str, method: str, item: Json, operation: Json) -> Operation:
    if method not in METHODS:
        raise GenerationError(
            f"{path}: the generator knows no method {method!r}; remove the operation from the document"
        )
    body = operation.get("requestBody")
    return Operation(
        operation_id=operation.get("operationId") or derived_operation_id(path, method),
        method=method,
        path=path,
        tag=(operation.get("tags") or ["default"])[0],
        parameters=_parameters(document, item, operation),
        body=resolve(document, body) if body else None,
        responses={status: resolve(document, response) for status, response in operation.get("responses", {}).items()},
        security=_security(document, operation),
    )


def derived_operation_id(path: str, method: str) -> str:
    """Return the operation id that the generator derives if the document gives none."""
    return f"{method}_{path.translate({ord('{'): None, ord('}'): None}).replace('/', '_').strip('_')}"


def _parameters(document: Json, item: Json, operation: Json) -> list[Json]:
    merged: dict[tuple[str, str], Json] = {}
    for parameter in [*operation.get("parameters", []), *item.get("parameters", [])]:
        parameter = resolve(document, parameter)
        merged.setdefault((parameter["name"], parameter["in"]), parameter)
    return list(merged.values())


def _security(document: Json, operation: Json) -> list[str]:
    requirements: list[Json] = operation.get("security", document.get("security")) or []
    return list(dict.fromkeys(scheme for requirement in requirements for scheme in requirement))


def json_schema(content: Json | None) -> Json | None:
    """Return the schema of the JSON variant of a request or response body; None if there is none."""
    variants: Json = content or {}
    for media_type, variant in variants.items():
        name = media_type.split(";")[0].strip().lower()
        if name == "application/json" or name.endswith("+json"):
            schema = variant.get("schema")
            return {} if isinstance(schema, bool) else schema
    return None


def success_of(operation: Operation) -> tuple[int, Json | None]:
    """Return the status of a success, and the schema of its body."""
    for status in sorted(operation.responses):
        if status.startswith("2"):
            return int(status.upper().replace("X", "0")), json_schema(operation.responses[status].get("content"))
    default = operation.responses.get("default", {})
    return 200, json_schema(default.get("content"))


def other_successes_of(operation: Operation) -> list[int]:
    """Return the further statuses of a success with the same body, such as 201 for "created" beside 200."""
    status, schema = success_of(operation)
    codes = [code for code in sorted(operation.responses) if code.startswith("2") and code.isdigit()]
    return [
        int(code)
        for code in codes
        if int(code) != status and json_schema(operation.responses[code].get("content")) == schema
    ]


def error_of(operation: Operation) -> Json | None:
    """Return the schema of an error body: the first one that the operation documents."""
    errors = [status for status in sorted(operation.responses) if status[0] in "45"]
    for status in [*errors, "default"]:
        schema = json_schema(operation.responses.get(status, {}).get("content"))
        if schema is not None:
            return schema
    return None
