"""Visit every schema of a document, with its kind of place and the name that its class will get."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from openapi_python_client.strings import pascal_case

from generator.document import LISTS_OF_SCHEMAS, MAPS_OF_SCHEMAS, METHODS, ONE_SCHEMA, Json, schemas_of

Kind = Literal["component", "member", "part", "composed", "body", "parameter"]


@dataclass(frozen=True)
class Place:
    """Kind of place that contains a schema, and the name of its class. `composed` is a part of an `allOf`."""

    kind: Kind
    name: str

    def below(self, kind: Kind, name: str) -> Place:
        """Return the place of a schema inside this one."""
        return Place(kind, pascal_case(self.name) + pascal_case(name))


Rule = Callable[[Json, Place], None]


def everywhere(document: Json, rule: Rule) -> None:
    """Apply a rule to every schema, outer ones first."""
    for schema, place in list(roots(document)):
        visit(schema, place, rule)


def visit(schema: Json, place: Place, rule: Rule) -> None:
    """Apply a rule to a schema and everything inside it."""
    rule(schema, place)
    for keyword in MAPS_OF_SCHEMAS:
        for name, part in list(schema.get(keyword, {}).items()):
            if isinstance(part, dict):
                visit(part, place.below("member", name), rule)
    for keyword in ONE_SCHEMA:
        if isinstance(schema.get(keyword), dict):
            visit(schema[keyword], place.below("part", "item" if keyword == "items" else keyword), rule)
    for keyword in LISTS_OF_SCHEMAS:
        for number, part in enumerate(schema.get(keyword, [])):
            if isinstance(part, dict):
                visit(part, place.below("composed" if keyword == "allOf" else "part", f"type_{number}"), rule)


def roots(document: Json) -> Iterator[tuple[Json, Place]]:
    """Return every schema that is not inside another one, with its place."""
    for name, schema in schemas_of(document).items():
        yield schema, Place("component", name)
    components = document["components"]
    for name, parameter in components.get("parameters", {}).items():
        yield from _of_parameter(parameter, name)
    for keyword in ("requestBodies", "responses"):
        for name, body in components.get(keyword, {}).items():
            yield from _of_body(body, name)
    for operation_name, operation in inline_operations(document):
        yield from _of_operation(operation, operation_name)


def schema_slots(document: Json) -> Iterator[tuple[Json, str]]:
    """Return the mapping and the key of every schema that is not inside another one."""
    components = document["components"]
    yield from ((schemas_of(document), name) for name in schemas_of(document))
    operations = [operation for _, operation in inline_operations(document)]
    parameters = [*components.get("parameters", {}).values()]
    bodies = [*components.get("requestBodies", {}).values(), *components.get("responses", {}).values()]
    for operation in operations:
        parameters += operation.get("parameters", [])
        bodies += [operation.get("requestBody", {}), *operation.get("responses", {}).values()]
    variants = [variant for body in bodies for variant in body.get("content", {}).values()]
    yield from ((holder, "schema") for holder in [*parameters, *variants] if "schema" in holder)


def inline_operations(document: Json) -> Iterator[tuple[str, Json]]:
    """Return every operation of the document, with the name that the generator gives it."""
    for item in document["paths"].values():
        for method in METHODS:
            if method in item:
                yield item[method].get("operationId", method), item[method]


def _of_operation(operation: Json, name: str) -> Iterator[tuple[Json, Place]]:
    for parameter in operation.get("parameters", []):
        yield from _of_parameter(parameter, name)
    yield from _of_body(operation.get("requestBody", {}), f"{name}_body")
    for status, response in operation.get("responses", {}).items():
        yield from _of_body(response, f"{name}_response_{status}")


def _of_parameter(parameter: Json, name: str) -> Iterator[tuple[Json, Place]]:
    if isinstance(parameter.get("schema"), dict):
        yield parameter["schema"], Place("parameter", f"{name}_{parameter['name']}")


def _of_body(body: Json, name: str) -> Iterator[tuple[Json, Place]]:
    for variant in body.get("content", {}).values():
        if isinstance(variant.get("schema"), dict):
            yield variant["schema"], Place("body", name)


def become(schema: Json, other: dict[str, Any]) -> None:
    """Turn a schema into another one, in place."""
    schema.clear()
    schema.update(other)
