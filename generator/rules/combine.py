"""Rules for anyOf, oneOf and allOf: reduce them to what a class can express. Every reduction is counted.

A branch that only requires members adds no structure. Alternatives beside `properties` become one superset. If the
generator could only guess between two alternatives, they become a dict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from openapi_python_client.strings import ClassName

from generator.document import Json, resolve, schemas_of
from generator.rules.places import Place, become, everywhere

_ALTERNATIVES: Final = ("anyOf", "oneOf")
_SAYS_STRUCTURE: Final = frozenset(
    ("$ref", "properties", "allOf", "anyOf", "oneOf", "enum", "const", "items", "additionalProperties", "format")
)  # fmt: skip
_CONDITIONS: Final = (
    "not", "if", "then", "else", "dependentRequired", "dependentSchemas", "dependencies", "contains", "propertyNames",
    "patternProperties", "unevaluatedProperties", "unevaluatedItems", "discriminator",
)  # fmt: skip


def drop_conditions(document: Json, counts: Counter[str]) -> None:
    """Drop conditions: a class cannot express them, and the tables keep them for the checkers."""

    def rule(schema: Json, place: Place) -> None:
        for keyword in _CONDITIONS:
            if schema.pop(keyword, None) is not None:
                counts["conditions left to the schema"] += 1

    everywhere(document, rule)


def merge_alternatives(document: Json, counts: Counter[str]) -> None:
    """Drop alternatives beside members that only require something, and merge the others into a superset."""

    def rule(schema: Json, place: Place) -> None:
        for keyword in _ALTERNATIVES:
            branches = schema.get(keyword)
            if branches is None:
                continue
            kept = [branch for branch in branches if not _only_requires(branch)]
            counts["required-only alternatives dropped"] += len(branches) - len(kept)
            schema[keyword] = kept
            if not kept:
                del schema[keyword]
            elif "properties" in schema or "allOf" in schema or len(kept) < len(branches):
                if all(_is_object(document, branch) for branch in kept):
                    _merge_into(document, schema, keyword)
                    counts["alternatives merged into a superset"] += len(kept)
                else:
                    become(schema, {key: value for key, value in schema.items() if key == "description"})
                    counts["alternatives passed through unchanged"] += 1
                    return

    everywhere(document, rule)


def _only_requires(branch: Json) -> bool:
    structure = {key for key in branch if key in _SAYS_STRUCTURE}
    if structure == {"properties"} and "required" in branch:
        return all(not member for member in branch["properties"].values())
    return not structure and branch.get("type", "object") == "object" and ("required" in branch or not branch)


def _is_object(document: Json, branch: Json) -> bool:
    """Return whether a branch, and every alternative inside it, is an object (or null)."""
    target = resolve(document, branch)
    inner = [part for keyword in ("allOf", *_ALTERNATIVES) for part in target.get(keyword, [])]
    if not all(_is_object(document, part) for part in inner):
        return False
    return target.get("type", "object" if inner or "properties" in target else None) in ("object", "null")


def _merge_into(document: Json, schema: Json, keyword: str) -> None:
    branches = schema.pop(keyword)
    members: Json = schema.setdefault("properties", {})
    own = set(members)
    for branch in branches:
        if resolve(document, branch).get("type") == "null":
            continue
        for name, member in members_of(document, branch):
            if name not in members:
                members[name] = member
            elif name not in own and members[name] != member:
                members[name] = {"anyOf": [*_alternatives(members[name]), member]}
    schema["type"] = "object"


def _alternatives(member: Json) -> list[Json]:
    return list(member["anyOf"]) if set(member) == {"anyOf"} else [member]


def members_of(document: Json, schema: Json) -> Iterator[tuple[str, Json]]:
    """Return the members of an object: its own, and those of the schemas it refers to."""
    schema = resolve(document, schema)
    for keyword in ("allOf", *_ALTERNATIVES):
        for part in schema.get(keyword, []):
            yield from members_of(document, part)
    yield from schema.get("properties", {}).items()


def flatten_compositions(document: Json, counts: Counter[str]) -> None:
    """Splice nested allOf parts and fold in parts that only constrain, so that every remaining part has members."""

    def rule(schema: Json, place: Place) -> None:
        if "$ref" in schema and ("properties" in schema or "allOf" in schema):
            schema["allOf"] = [{"$ref": schema.pop("$ref")}, *schema.get("allOf", [])]
        if "allOf" not in schema:
            return
        parts = [part for part in _spliced(schema["allOf"]) if not _is_map(document, part)]
        structured = [part for part in parts if _SAYS_STRUCTURE & set(part)]
        required = [name for part in parts if part not in structured for name in part.get("required", [])]
        counts["constraining parts of allOf folded in"] += len(parts) - len(structured)
        if required:
            schema["required"] = list(dict.fromkeys([*schema.get("required", []), *required]))
        _recompose(document, schema, structured)

    everywhere(document, rule)


def _spliced(parts: list[Json]) -> Iterator[Json]:
    for part in parts:
        nested = part.get("allOf")
        if nested is None:
            yield part
            continue
        yield from _spliced(nested)
        rest = {key: value for key, value in part.items() if key not in ("allOf", "description")}
        if rest:
            yield rest


def _is_map(document: Json, part: Json) -> bool:
    target = resolve(document, part)
    return (
        "$ref" in part
        and target.get("type") == "object"
        and not (_SAYS_STRUCTURE - {"additionalProperties"}) & set(target)
    )


def _recompose(document: Json, schema: Json, parts: list[Json]) -> None:
    references = [part for part in parts if "$ref" in part]
    scalar = [part for part in references if not _has_members(document, part)]
    if scalar and not any("properties" in part for part in (schema, *parts)):
        # A scalar type and its constraints: keep the type alone.
        rest = {key: value for key, value in schema.items() if key in ("description",)}
        become(schema, {**rest, "allOf": [scalar[0]]})
    elif not parts:
        del schema["allOf"]
    elif len(parts) == 1 and not references and "properties" not in schema:
        del schema["allOf"]
        for key, value in parts[0].items():
            schema.setdefault(key, value)
    elif _conflict(document, [*parts, {"properties": schema.get("properties", {})}]):
        _flatten(document, schema, parts)
    else:
        # A single reference is an alias, unless `required` or members of the schema itself make it a class.
        own = "properties" in schema or "required" in schema
        schema["allOf"] = [*parts, {"type": "object"}] if own and len(parts) == 1 else parts


def _conflict(document: Json, parts: list[Json]) -> bool:
    """Return whether two parts define a member differently. The generator rejects most such schemas."""
    seen: Json = {}
    pairs = [pair for part in parts for pair in members_of(document, part)]
    return any(seen.setdefault(name, member) != member for name, member in pairs)


def _flatten(document: Json, schema: Json, parts: list[Json]) -> None:
    """Make one object with the members of all parts. If two parts differ, the later one is used."""
    members = dict(pair for part in parts for pair in members_of(document, part))
    required = [name for part in parts for name in _required(document, part)]
    schema["properties"] = {**members, **schema.get("properties", {})}
    schema["required"] = list(dict.fromkeys([*required, *schema.get("required", [])]))
    schema["type"] = "object"
    del schema["allOf"]


def _has_members(document: Json, part: Json) -> bool:
    target = resolve(document, part)
    return any(key in target for key in ("properties", "allOf", "anyOf", "oneOf")) or target.get("type") == "object"


def settle_guesses(document: Json, counts: Counter[str]) -> None:
    """Replace alternatives of objects by a dict if the generator could only guess between them."""

    def rule(schema: Json, place: Place) -> None:
        for keyword in _ALTERNATIVES:
            objects = [leaf for leaf in _leaves(document, schema.get(keyword, [])) if _is_object(document, leaf)]
            if not _distinct(document, objects):
                become(schema, {key: value for key, value in schema.items() if key == "description"})
                counts["alternatives passed through unchanged"] += 1
                return

    everywhere(document, rule)


def name_alternatives(document: Json, counts: Counter[str]) -> None:
    """Make an inline object among alternatives a component, under the name that its class would have.

    The generator may process an alternative more than once, and then fails because its class exists already.
    """

    def rule(schema: Json, place: Place) -> None:
        for keyword in _ALTERNATIVES:
            for number, branch in enumerate(schema.get(keyword, [])):
                name = str(ClassName(place.below("part", f"type_{number}").name, "field_"))
                if ("properties" in branch or "allOf" in branch) and name not in schemas_of(document):
                    schemas_of(document)[name] = branch
                    schema[keyword][number] = {"$ref": f"#/components/schemas/{name}"}
                    counts["alternatives named"] += 1

    everywhere(document, rule)


def _leaves(document: Json, branches: list[Json]) -> Iterator[Json]:
    """Return the alternatives and those inside them, without null."""
    for branch in branches:
        target = resolve(document, branch)
        inner = [part for keyword in _ALTERNATIVES for part in target.get(keyword, [])]
        if inner:
            yield from _leaves(document, inner)
        elif target.get("type") != "null":
            yield target


def _distinct(document: Json, objects: list[Json]) -> bool:
    """Return whether each object requires a member that no later one has. The generator uses the first that parses."""
    members: list[set[str]] = [{name for name, _ in members_of(document, one)} for one in objects]
    required: list[set[str]] = [set(_required(document, one)) for one in objects]
    pairs: list[tuple[int, int]] = [(i, j) for i in range(len(objects)) for j in range(i + 1, len(objects))]
    return all(required[i] - members[j] for i, j in pairs)


def _required(document: Json, schema: Any) -> Iterator[str]:
    schema = resolve(document, schema)
    yield from schema.get("required", [])
    for part in schema.get("allOf", []):
        yield from _required(document, part)
