"""Compare schemas member by member, with the direction of each: sent, read, or both."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from generator.diff import Change
from generator.diff.values import READ, SENT, null_change, openness_change, type_changes, value_changes
from generator.document import Json
from generator.protocol import Tables

_ALTERNATIVES: Final = ("anyOf", "oneOf")


class SchemaComparison:
    """Compares the schemas of two documents."""

    def __init__(self, old: Tables, new: Tables) -> None:
        self.old = old
        self.new = new
        self.renamed = renames(old.schemas, new.schemas)
        self.directions = _directions(old)
        for name, ways in _directions(new).items():
            self.directions.setdefault(name, set()).update(ways)

    def changes(self) -> Iterator[Change]:
        """Return schemas that were added, removed, renamed or changed."""
        for name, schema in self.old.schemas.items():
            ways = self.directions.get(name, set())
            if name in self.renamed:
                twin = self.renamed[name]
                reason = "code that imports the class fails; class_overrides in generator-config.yml keep its name"
                yield Change("schema", "renamed", name, f"now {twin}", True, reason, (name,))
                yield from self.compare(twin, schema, self.new.schemas[twin], ways, (name,))
            elif name not in self.new.schemas:
                yield Change("schema", "removed", name, "", True, "code that imports its class fails", (name,))
            else:
                yield from self.compare(name, schema, self.new.schemas[name], ways, (name,))
        for name in self.new.schemas:
            if name not in self.old.schemas and name not in self.renamed.values():
                yield Change("schema", "added", name)

    def compare(
        self, where: str, old: Any, new: Any, ways: set[str], names: tuple[str, ...], *, optional: bool = False
    ) -> Iterator[Change]:
        """Return the differences of two schemas at one place, which is sent, read or both."""
        old, old_null = _without_null(old)
        new, new_null = _without_null(new)
        if old_null != new_null:
            yield null_change(where, new_null, ways, names, optional=optional)
        if self._refer_to_the_same(old, new):
            return
        old, new = _resolved(self.old, old), _resolved(self.new, new)
        if old.get("type") != new.get("type"):
            yield from type_changes(where, old, new, ways, names)
            return
        yield from value_changes(where, old, new, ways, names)
        yield from self._members(where, old, new, ways, names)
        for keyword in ("items", "additionalProperties"):
            if isinstance(old.get(keyword), dict) and isinstance(new.get(keyword), dict):
                yield from self.compare(f"{where}[]", old[keyword], new[keyword], ways, names)
            elif keyword == "additionalProperties" and old.get(keyword, True) != new.get(keyword, True):
                yield openness_change(where, new.get(keyword, True), ways, names)
        for keyword in _ALTERNATIVES:
            if old.get(keyword) != new.get(keyword):
                reason = "a value that one of them allowed may no longer be allowed"
                yield Change("alternatives", "changed", where, keyword, True, reason, names)

    def _refer_to_the_same(self, old: Json, new: Json) -> bool:
        return "$ref" in old and "$ref" in new and self.renamed.get(old["$ref"], old["$ref"]) == new["$ref"]

    def _members(self, where: str, old: Json, new: Json, ways: set[str], names: tuple[str, ...]) -> Iterator[Change]:
        before, after = old.get("properties", {}), new.get("properties", {})
        needed_before, needed = set(old.get("required", [])), set(new.get("required", []))
        for name in before:
            place = f"{where}.{name}"
            mentioned = (name, *names)
            if name not in after:
                yield _member_removed(place, name in needed_before, ways, mentioned)
                continue
            if (name in needed) != (name in needed_before):
                yield _requirement_change(place, name in needed, ways, mentioned)
            optional = name not in needed_before
            yield from self.compare(place, before[name], after[name], ways, mentioned, optional=optional)
        for name in after:
            if name not in before:
                yield _member_added(f"{where}.{name}", name in needed, ways, names)


def renames(old: dict[str, Any], new: dict[str, Any]) -> dict[str, str]:
    """Return schemas that were renamed: the old name, and the name of the new schema with the same content."""
    removed = [name for name in old if name not in new]
    added = [name for name in new if name not in old]
    pairs: dict[str, str] = {}
    for name in removed:
        twins = [other for other in added if other not in pairs.values() and _same(old[name], new[other])]
        if twins and old[name] not in ({}, {"type": "string"}):
            pairs[name] = twins[0]
    return pairs


def _same(old: Any, new: Any) -> bool:
    """Return whether two schemas are equal or share most members: a rename often adds a member too."""
    if old == new:
        return True
    before, after = set(old.get("properties", {})), set(new.get("properties", {}))
    return len(before & after) >= 2 and len(before & after) * 4 >= 3 * len(before | after)


def _member_removed(where: str, needed: bool, ways: set[str], names: tuple[str, ...]) -> Change:
    if SENT in ways:
        return Change("member", "removed", where, "", True, "servers may reject requests that have it", names)
    reason = "responses without it are invalid to old clients" if needed else "old clients read it as absent"
    return Change("member", "removed", where, "required" if needed else "optional", needed, reason, names)


def _member_added(where: str, needed: bool, ways: set[str], names: tuple[str, ...]) -> Change:
    breaking = needed and SENT in ways
    reason = "old clients do not send it" if breaking else ""
    if needed and ways == {READ}:
        reason = "responses of servers that do not send it yet are invalid to a client of the new version"
    return Change("member", "added", where, "required" if needed else "optional", breaking, reason, names)


def _requirement_change(where: str, needed: bool, ways: set[str], names: tuple[str, ...]) -> Change:
    breaking = (needed and SENT in ways) or (not needed and READ in ways)
    reason = "old clients may not send it" if needed else "responses without it are invalid to old clients"
    detail = "now required" if needed else "now optional"
    return Change("member", "changed", where, detail, breaking, reason if breaking else "", names)


def _without_null(schema: Any) -> tuple[Json, bool]:
    """Return the schema without null, and whether it allowed null in any notation."""
    if not isinstance(schema, dict):
        return {}, False
    types = schema.get("type")
    if isinstance(types, list) and "null" in types:
        rest = [kind for kind in types if kind != "null"]
        return {**schema, "type": rest[0] if len(rest) == 1 else rest}, True
    for keyword in _ALTERNATIVES:
        branches = schema.get(keyword, [])
        rest = [branch for branch in branches if branch != {"type": "null"}]
        if len(rest) < len(branches):
            others = {key: value for key, value in schema.items() if key != keyword}
            return ({**others, **rest[0]} if len(rest) == 1 else {**others, keyword: rest}), True
    return schema, False


def _resolved(tables: Tables, schema: Json) -> Json:
    """Follow references and merge compositions, so that members can be compared in every notation."""
    seen: set[str] = set()
    while "$ref" in schema and schema["$ref"] not in seen:
        seen.add(schema["$ref"])
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        schema = {**tables.schemas.get(schema["$ref"], {}), **rest}
    if "allOf" not in schema:
        return schema
    merged: Json = {key: value for key, value in schema.items() if key != "allOf"}
    properties, required = dict(merged.get("properties", {})), list(merged.get("required", []))
    for part in (_resolved(tables, part) for part in schema["allOf"]):
        properties = {**part.get("properties", {}), **properties}
        required += part.get("required", [])
        merged = {**part, **merged}
    return {**merged, **({"properties": properties, "required": required} if properties else {})}


def _directions(tables: Tables) -> dict[str, set[str]]:
    """Return for every schema whether it is sent, read, or both."""
    ways: dict[str, set[str]] = {}
    for entry in tables.operations.values():
        for key, way in (("request", SENT), ("response", READ)):
            if entry[key]:
                _mark(tables, {"$ref": entry[key]}, way, ways)
        for parameter in entry["parameters"]:
            _mark(tables, parameter["schema"], SENT, ways)
    for name in tables.schemas:
        ways.setdefault(name, {READ})  # errors, and other schemas that only responses refer to
    return ways


def _mark(tables: Tables, node: Any, way: str, ways: dict[str, set[str]]) -> None:
    if isinstance(node, list):
        for part in node:
            _mark(tables, part, way, ways)
    if not isinstance(node, dict):
        return
    name = node.get("$ref")
    if isinstance(name, str) and way not in ways.setdefault(name, set()):
        ways[name].add(way)
        _mark(tables, tables.schemas.get(name), way, ways)
    for part in node.values():
        _mark(tables, part, way, ways)
