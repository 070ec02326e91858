"""Checkers compiled from the schemas of the protocol: they say what is wrong with a value.

One closure per part of a schema is made when a value is not recognized as valid. The generator writes the functions
that recognize valid bodies (`checks.py` of a generated package), so most processes compile nothing.

There are two readings of a schema (`docs/protocol/responses.md#success`). A *request* must satisfy it exactly, so that
the server does not reject it. A *response* needs its required members with their types and bounds, and its optional
members with their types; null counts as absent, and members and enum values that are newer than this SDK pass.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from typing import Any, Final, TypeAlias

from cycles._core.values.json_values import is_text

Check: TypeAlias = Callable[[Any, str], str | None]
"""Takes a value and its path; returns what is wrong with it, or None."""

_Test: TypeAlias = Callable[[Any], str | None]
"""The same without a path: what is wrong begins where the value is (`.name: ...`, `[0]: ...`, `: ...`).

Most values are valid, so a path is only built for a failure.
"""

_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}
_LOWEST, _HIGHEST = -(2**63), 2**63 - 1


class Checkers(dict[str, Check]):
    """The checkers of one set of component schemas by name; `responses` selects the tolerant reading."""

    def __init__(self, schemas: Mapping[str, Mapping[str, Any]], *, responses: bool) -> None:
        super().__init__()
        self._schemas = schemas
        self._responses = responses
        self._tests: dict[tuple[str, bool], _Test] = {}
        self._inlined: dict[int, tuple[Mapping[str, Any], Check]] = {}  # a schema kept here keeps its id

    def __missing__(self, name: str) -> Check:
        return self.setdefault(name, _placed(self._named(name, True)))

    def inline(self, schema: Mapping[str, Any]) -> Check:
        """The checker of a schema that has no name, such as a parameter's."""
        known = self._inlined.get(id(schema))
        if known is None:
            known = self._inlined[id(schema)] = schema, _placed(self._compile(schema))
        return known[1]

    def _named(self, name: str, bounds: bool) -> _Test:
        test = self._tests.get((name, bounds))
        if test is None:
            test = self._tests[name, bounds] = self._compile(self._schemas[name], bounds=bounds)
        return test

    def _compile(self, schema: Mapping[str, Any], *, bounds: bool = True) -> _Test:
        if "$ref" in schema:  # looked up when it is used: a schema may refer to itself
            return lambda value: self._named(schema["$ref"], bounds)(value)
        tests = [_type(schema)] if "type" in schema else []
        if schema.get("type") == "string" and not self._responses:
            tests.append(_unicode)
        if schema.get("format") == "date-time":
            tests.append(_date_time)
        if bounds:
            tests += _bounds(schema)
        if "pattern" in schema and bounds:
            tests.append(_pattern(schema["pattern"]))
        if "enum" in schema and not self._responses:
            tests.append(_enum(schema["enum"]))
        if "const" in schema and not self._responses:
            tests.append(_enum([schema["const"]]))
        if "properties" in schema or "additionalProperties" in schema or "required" in schema:
            tests = [self._object(schema, _all(tests), only_type=len(tests) == 1)]
        if "items" in schema:
            tests.append(self._array(schema["items"]))
        tests += [self._compile(part, bounds=bounds) for part in schema.get("allOf", ())]
        for word in ("anyOf", "oneOf"):
            if word in schema:
                tests.append(self._alternatives(schema[word], bounds))
        keywords = set(schema) - {"enum"} if self._responses else set(schema)
        is_quick = keywords <= _QUICK and schema.get("format") != "date-time"
        return _quick(schema, _all(tests), bounds) if is_quick else _all(tests)

    def _alternatives(self, branches: list[Mapping[str, Any]], bounds: bool) -> _Test:
        """At least one branch holds; that not more than one of `oneOf` does is for the server to know."""
        if all(set(branch) == {"required"} for branch in branches):
            return _anything if self._responses else _any_required(branches)
        tests = [self._compile(branch, bounds=bounds) for branch in branches]

        def test(value: Any) -> str | None:
            problems = [each(value) for each in tests]
            return None if None in problems else problems[0]

        return test

    def _object(self, schema: Mapping[str, Any], before: _Test, *, only_type: bool) -> _Test:
        required = tuple(schema.get("required", ()))
        strict = not self._responses
        members = {
            name: self._compile(member, bounds=strict or name in required)
            for name, member in schema.get("properties", {}).items()
        }
        rest = schema.get("additionalProperties", True)
        others = self._compile(rest) if isinstance(rest, Mapping) and rest else None
        closed = rest is False and strict

        def test(value: Any) -> str | None:
            if (not only_type or type(value) is not dict) and (problem := before(value)) is not None:
                return problem
            for name in required:
                if value.get(name) is None:
                    return f".{name}: is required"
            for name, item in value.items():
                member = members.get(name, others)
                if member is None:
                    if closed:
                        return f".{name}: no such member"
                elif item is not None or (strict and name in members):
                    problem = member(item)
                    if problem is not None:
                        return f".{name}{problem}"
            return None

        return test

    def _array(self, items: Mapping[str, Any]) -> _Test:
        each = self._compile(items)

        def test(value: Any) -> str | None:
            for index, item in enumerate(value):
                problem = each(item)
                if problem is not None:
                    return f"[{index}]{problem}"
            return None

        return test


def _placed(test: _Test) -> Check:
    def check(value: Any, path: str) -> str | None:
        problem = test(value)
        if problem is None:
            return None
        return path + problem if path else problem.removeprefix(".")

    return check


def _all(tests: list[_Test]) -> _Test:
    """Every test in turn. A problem is never an empty text, so `or` stops at the first."""
    if not tests:
        return _anything
    first, *others = tests
    if not others:
        return first
    then = _all(others)
    return lambda value: first(value) or then(value)


def _anything(value: Any) -> str | None:
    return None


_QUICK: Final = frozenset({"type", "format", "minimum", "maximum", "minLength", "maxLength"})
"""What `_quick` knows; any other schema is tested in full."""


def _quick(schema: Mapping[str, Any], test: _Test, bounds: bool) -> _Test:
    """Return `test` with a fast path for valid strings and integers."""
    given = schema if bounds else {}
    if schema.get("type") == "string":
        least, most = given.get("minLength", 0), given.get("maxLength", _HIGHEST)
        return lambda value: (
            None if type(value) is str and least <= len(value) <= most and value.isascii() else test(value)
        )
    if schema.get("type") == "integer":
        low, high = max(_LOWEST, given.get("minimum", _LOWEST)), min(_HIGHEST, given.get("maximum", _HIGHEST))
        return lambda value: None if type(value) is int and low <= value <= high else test(value)
    return test


def _type(schema: Mapping[str, Any]) -> _Test:
    names = schema["type"]
    wanted = [names] if isinstance(names, str) else list(names)
    allowed = tuple(kind for name in wanted for kind in _TYPES[name])
    no_bool = bool not in allowed
    int64 = "integer" in wanted
    shown = " or ".join(wanted)

    def test(value: Any) -> str | None:
        if not isinstance(value, allowed) or (no_bool and isinstance(value, bool)):
            return f": must be {shown}, got {_short(value)}"
        if int64 and isinstance(value, int) and not _LOWEST <= value <= _HIGHEST:
            return f": must fit in 64 bits, got {_short(value)}"
        return None

    return test


def _unicode(value: Any) -> str | None:
    return None if is_text(value) else ": has half of a surrogate pair, which is no Unicode text"


def _date_time(value: Any) -> str | None:
    if not isinstance(value, str):
        return None
    try:
        if datetime.fromisoformat(value).tzinfo is not None:
            return None
    except ValueError:
        pass
    return f": must be a date and time with a zone, got {_short(value)}"


def _bounds(schema: Mapping[str, Any]) -> list[_Test]:
    def number(limit: Any, low: bool) -> _Test:
        def test(value: Any) -> str | None:
            if isinstance(value, int | float) and (value < limit if low else value > limit):
                return f": must be {limit} or {'more' if low else 'less'}, got {value}"
            return None

        return test

    def size(limit: int, low: bool, kind: type, what: str) -> _Test:
        def test(value: Any) -> str | None:
            if isinstance(value, kind) and (len(value) < limit if low else len(value) > limit):  # type: ignore[arg-type]
                return f": must have at {'least' if low else 'most'} {limit} {what}, has {len(value)}"  # type: ignore[arg-type]
            return None

        return test

    made: list[_Test] = []
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


_AT_END: Final = re.compile(r"(\\.|\[(?:\\.|[^\]\\])*\])|\$")
"""A `$` outside of classes."""


def python_pattern(pattern: str) -> str:
    """Return a pattern as Python reads it: its `$` also matches before a line feed at the end, a schema's does not."""
    return _AT_END.sub(lambda part: part[1] or r"\Z", pattern)


@cache  # compiling takes as long as ten checks, and most patterns are of members that are absent
def _search(pattern: str) -> Callable[[str], object]:
    return re.compile(python_pattern(pattern)).search


def _pattern(pattern: str) -> _Test:
    def test(value: Any) -> str | None:
        if isinstance(value, str) and not _search(pattern)(value):
            return f": must match {pattern}, got {_short(value)}"
        return None

    return test


def _enum(values: list[Any]) -> _Test:
    def test(value: Any) -> str | None:
        if value not in values:
            return f": must be one of {', '.join(map(str, values))}, got {_short(value)}"
        return None

    return test


def _any_required(branches: list[Mapping[str, Any]]) -> _Test:
    alternatives = [tuple(branch.get("required", ())) for branch in branches]

    def test(value: Any) -> str | None:
        if any(all(name in value for name in names) for names in alternatives):
            return None
        wanted = ", ".join(" and ".join(names) for names in alternatives)
        return f": give at least one of {wanted}"

    return test


def _short(value: Any) -> str:
    if isinstance(value, int) and not _LOWEST <= value <= _HIGHEST:
        return f"an integer of {value.bit_length()} bits"  # Python prints no integer of many thousand digits
    text = reprlib.repr(value)  # bounded: the value may be huge or nested beyond recursion
    return text if len(text) <= 60 else f"{text[:57]}..."
