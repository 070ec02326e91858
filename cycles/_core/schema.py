"""Checkers compiled from the schemas of the protocol: one closure per schema, made when first used.

Two readings of one schema (semantics 8). A *request* is held to the letter, so that nothing leaves that the server
must refuse. An *answer* is read for what it proves: required members with their types and bounds, optional members
with their types, null as absent; whatever is newer than this SDK (members, enum values) passes.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

Check: TypeAlias = Callable[[Any, str], str | None]
"""Takes a value and its path; answers what is wrong with it, or None."""

_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}
_INT64: Final = (-(2**63), 2**63 - 1)


class Checkers:
    """The checkers of one set of component schemas; `answers` chooses the tolerant reading."""

    def __init__(self, schemas: Mapping[str, Mapping[str, Any]], *, answers: bool) -> None:
        self._schemas = schemas
        self._answers = answers
        self._compiled: dict[tuple[str, bool], Check] = {}

    def __getitem__(self, name: str) -> Check:
        return self._named(name, True)

    def inline(self, schema: Mapping[str, Any]) -> Check:
        """The checker of a schema that has no name, such as a parameter's."""
        return self._compile(schema)

    def _named(self, name: str, bounds: bool) -> Check:
        try:
            return self._compiled[name, bounds]
        except KeyError:
            return self._compiled.setdefault((name, bounds), self._compile(self._schemas[name], bounds=bounds))

    def _compile(self, schema: Mapping[str, Any], *, bounds: bool = True) -> Check:
        if "$ref" in schema:
            return self._reference(schema["$ref"], bounds)
        checks = [self._type(schema)]
        if bounds:
            checks += _bounds(schema)
        if "pattern" in schema and bounds:
            checks.append(_pattern(schema["pattern"]))
        if "enum" in schema and not self._answers:
            checks.append(_enum(schema["enum"]))
        if "const" in schema and not self._answers:
            checks.append(_enum([schema["const"]]))
        if "properties" in schema or "additionalProperties" in schema or "required" in schema:
            checks.append(self._object(schema))
        if "items" in schema:
            checks.append(self._array(schema["items"]))
        checks += [self._compile(part, bounds=bounds) for part in schema.get("allOf", ())]
        for word in ("anyOf", "oneOf"):
            if word in schema:
                checks.append(self._alternatives(schema[word], bounds))
        return _all(checks)

    def _alternatives(self, branches: list[Mapping[str, Any]], bounds: bool) -> Check:
        """At least one branch holds; that not more than one of `oneOf` does is for the server to know."""
        if all(set(branch) == {"required"} for branch in branches):
            return _anything if self._answers else _any_required(branches)
        tests = [self._compile(branch, bounds=bounds) for branch in branches]

        def check(value: Any, path: str) -> str | None:
            problems = [test(value, path) for test in tests]
            return None if None in problems else problems[0]

        return check

    def _reference(self, name: str, bounds: bool) -> Check:
        # Looked up when used, so that a schema may refer to itself.
        return lambda value, path: self._named(name, bounds)(value, path)

    def _type(self, schema: Mapping[str, Any]) -> Check:
        names = schema.get("type")
        if names is None:
            return _anything
        wanted = [names] if isinstance(names, str) else list(names)
        allowed = tuple(kind for name in wanted for kind in _TYPES[name])
        no_bool = bool not in allowed
        int64 = "integer" in wanted
        shown = " or ".join(wanted)

        def check(value: Any, path: str) -> str | None:
            if not isinstance(value, allowed) or (no_bool and isinstance(value, bool)):
                return f"{path}: must be {shown}, got {_short(value)}"
            if int64 and isinstance(value, int) and not _INT64[0] <= value <= _INT64[1]:
                return f"{path}: {value} does not fit in 64 bits"
            return None

        return check

    def _object(self, schema: Mapping[str, Any]) -> Check:
        required = tuple(schema.get("required", ()))
        strict = not self._answers
        members = {
            name: self._compile(member, bounds=strict or name in required)
            for name, member in schema.get("properties", {}).items()
        }
        rest = schema.get("additionalProperties", True)
        others = self._compile(rest) if isinstance(rest, Mapping) and rest else None
        closed = rest is False and strict

        def check(value: Any, path: str) -> str | None:
            for name in required:
                if value.get(name) is None:
                    return f"{_join(path, name)}: is required"
            for name, item in value.items():
                test = members.get(name, others)
                if test is None:
                    if closed:
                        return f"{_join(path, name)}: no such member"
                elif item is not None or (strict and name in members):
                    problem = test(item, _join(path, name))
                    if problem is not None:
                        return problem
            return None

        return check

    def _array(self, items: Mapping[str, Any]) -> Check:
        test = self._compile(items)

        def check(value: Any, path: str) -> str | None:
            for index, item in enumerate(value):
                problem = test(item, f"{path}[{index}]")
                if problem is not None:
                    return problem
            return None

        return check


def _all(checks: list[Check]) -> Check:
    checks = [check for check in checks if check is not _anything]
    if len(checks) == 1:
        return checks[0]

    def check(value: Any, path: str) -> str | None:
        for test in checks:
            problem = test(value, path)
            if problem is not None:
                return problem
        return None

    return check


def _anything(value: Any, path: str) -> str | None:
    return None


def _bounds(schema: Mapping[str, Any]) -> list[Check]:
    def number(limit: Any, low: bool) -> Check:
        def check(value: Any, path: str) -> str | None:
            if isinstance(value, int | float) and (value < limit if low else value > limit):
                return f"{path}: must be {limit} or {'more' if low else 'less'}, got {value}"
            return None

        return check

    def size(limit: int, low: bool, kind: type, what: str) -> Check:
        def check(value: Any, path: str) -> str | None:
            if isinstance(value, kind) and (len(value) < limit if low else len(value) > limit):  # type: ignore[arg-type]
                return f"{path}: must have at {'least' if low else 'most'} {limit} {what}, has {len(value)}"  # type: ignore[arg-type]
            return None

        return check

    made: list[Check] = []
    for word, low in (("minimum", True), ("maximum", False)):
        if word in schema:
            made.append(number(schema[word], low))
    for suffix, kind, what in (
        ("Length", str, "characters"),
        ("Items", list, "items"),
        ("Properties", dict, "members"),
    ):
        for word, low in (("min", True), ("max", False)):
            if word + suffix in schema:
                made.append(size(schema[word + suffix], low, kind, what))
    return made


def _pattern(pattern: str) -> Check:
    search = re.compile(pattern).search

    def check(value: Any, path: str) -> str | None:
        if isinstance(value, str) and not search(value):
            return f"{path}: must match {pattern}, got {_short(value)}"
        return None

    return check


def _enum(values: list[Any]) -> Check:
    def check(value: Any, path: str) -> str | None:
        if value not in values:
            return f"{path}: must be one of {', '.join(map(str, values))}, got {_short(value)}"
        return None

    return check


def _any_required(branches: list[Mapping[str, Any]]) -> Check:
    alternatives = [tuple(branch.get("required", ())) for branch in branches]

    def check(value: Any, path: str) -> str | None:
        if any(all(name in value for name in names) for names in alternatives):
            return None
        wanted = ", ".join(" and ".join(names) for names in alternatives)
        return f"{path}: give at least one of {wanted}"

    return check


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _short(value: Any) -> str:
    text = reprlib.repr(value)  # bounded: the value may be huge or nested beyond recursion
    return text if len(text) <= 60 else f"{text[:57]}..."
