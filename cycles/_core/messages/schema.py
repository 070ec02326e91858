"""Check values against the schemas of the protocol, and say what is wrong with them.

The generator writes the functions that recognize valid bodies (`checks.py` of a generated package). A schema is read
here only for a value that they do not recognize, so this is written to be short, and not to be fast.

There are two readings of a schema (`docs/protocol/responses.md#success`). A *request* must satisfy it exactly, so that
the server does not reject it. A *response* needs its required members with their types and bounds, and its optional
members with their types; null counts as absent, and members and enum values that are newer than this SDK pass.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import cache
from typing import Any, Final, TypeAlias

from cycles._core.values.json_values import is_text

Check: TypeAlias = Callable[[Any, str], str | None]
"""Takes a value and its path; returns what is wrong with it, or None."""

Schema: TypeAlias = Mapping[str, Any]

_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}
_SIZES: Final = (("Length", str, "characters"), ("Items", list, "items"), ("Properties", dict, "members"))
_LOWEST, _HIGHEST = -(2**63), 2**63 - 1


class Checkers:
    """The checks of one set of component schemas by name; `responses` selects the tolerant reading."""

    def __init__(self, schemas: Mapping[str, Schema], *, responses: bool) -> None:
        self._schemas = schemas
        self._is_strict = not responses

    def __getitem__(self, name: str) -> Check:
        return self.inline({"$ref": name})

    def inline(self, schema: Schema) -> Check:
        """The check of a schema that has no name, such as a parameter's."""

        def check(value: Any, path: str) -> str | None:
            problem = self._problem(schema, value)
            return None if problem is None else path + problem if path else problem.removeprefix(".")

        return check

    def _problem(self, schema: Schema, value: Any, *, bounds: bool = True) -> str | None:
        """Return the first problem: where it is, relative to the value, and what it is (`.name[0]: must be ...`)."""
        if "$ref" in schema:
            return self._problem(self._schemas[schema["$ref"]], value, bounds=bounds)
        return next(self._problems(schema, value, bounds), None)

    def _problems(self, schema: Schema, value: Any, bounds: bool) -> Iterator[str]:
        """Yield the problems of a value; what comes after the first one may take it for a value of the right type."""
        if "type" in schema:
            yield from _of_type(schema["type"], value)
        if self._is_strict and schema.get("type") == "string" and not is_text(value):
            yield ": has half of a surrogate pair, which is no Unicode text"
        if schema.get("format") == "date-time" and isinstance(value, str) and not _is_date_time(value):
            yield f": must be a date and time with a zone, got {_short(value)}"
        if bounds:
            yield from _out_of_bounds(schema, value)
        allowed = schema.get("enum", [schema["const"]] if "const" in schema else None)
        if self._is_strict and allowed is not None and value not in allowed:
            yield f": must be one of {', '.join(map(str, allowed))}, got {_short(value)}"
        if "properties" in schema or "additionalProperties" in schema or "required" in schema:
            yield from self._of_members(schema, value)
        for index, item in enumerate(value if "items" in schema else ()):
            if (problem := self._problem(schema["items"], item)) is not None:
                yield f"[{index}]{problem}"
        for part in schema.get("allOf", ()):
            if (problem := self._problem(part, value, bounds=bounds)) is not None:
                yield problem
        for word in ("anyOf", "oneOf"):
            if word in schema:
                yield from self._of_alternatives(schema[word], value, bounds)

    def _of_members(self, schema: Schema, value: Any) -> Iterator[str]:
        required, members = schema.get("required", ()), schema.get("properties", {})
        for name in required:
            if value.get(name) is None:
                yield f".{name}: is required"
        others = schema.get("additionalProperties", True)
        for name, item in value.items():
            member = members.get(name, others)
            if member is False and self._is_strict:
                yield f".{name}: no such member"
            # A member that is null counts as absent, but not one of a request that has a schema.
            elif isinstance(member, Mapping) and (item is not None or (self._is_strict and name in members)):
                bounds = self._is_strict or name in required or name not in members
                if (problem := self._problem(member, item, bounds=bounds)) is not None:
                    yield f".{name}{problem}"

    def _of_alternatives(self, branches: list[Schema], value: Any, bounds: bool) -> Iterator[str]:
        """At least one branch holds; that not more than one of `oneOf` does is for the server to know."""
        if all(set(branch) == {"required"} for branch in branches):
            wanted = [branch["required"] for branch in branches]
            if self._is_strict and not any(all(name in value for name in names) for names in wanted):
                yield f": give at least one of {', '.join(' and '.join(names) for names in wanted)}"
            return
        problems = [self._problem(branch, value, bounds=bounds) for branch in branches]
        if None not in problems:
            yield from filter(None, problems)


def _of_type(names: str | list[str], value: Any) -> Iterator[str]:
    wanted = [names] if isinstance(names, str) else names
    allowed = tuple(kind for name in wanted for kind in _TYPES[name])
    # A bool is an int in Python.
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        yield f": must be {' or '.join(wanted)}, got {_short(value)}"
    if "integer" in wanted and isinstance(value, int) and not _LOWEST <= value <= _HIGHEST:
        yield f": must fit in 64 bits, got {_short(value)}"


def _out_of_bounds(schema: Schema, value: Any) -> Iterator[str]:
    if isinstance(value, int | float):
        if "minimum" in schema and value < schema["minimum"]:
            yield f": must be {schema['minimum']} or more, got {value}"
        if "maximum" in schema and value > schema["maximum"]:
            yield f": must be {schema['maximum']} or less, got {value}"
    for suffix, kind, what in _SIZES:
        size = len(value) if isinstance(value, kind) else 0
        if isinstance(value, kind) and size < schema.get("min" + suffix, 0):
            yield f": must have at least {schema['min' + suffix]} {what}, has {size}"
        if size > schema.get("max" + suffix, _HIGHEST):
            yield f": must have at most {schema['max' + suffix]} {what}, has {size}"
    if "pattern" in schema and isinstance(value, str) and not _search(schema["pattern"])(value):
        yield f": must match {schema['pattern']}, got {_short(value)}"


def _is_date_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


_AT_END: Final = re.compile(r"(\\.|\[(?:\\.|[^\]\\])*\])|\$")
"""A `$` outside of classes."""


def python_pattern(pattern: str) -> str:
    """Return a pattern as Python reads it: its `$` also matches before a line feed at the end, a schema's does not."""
    return _AT_END.sub(lambda part: part[1] or r"\Z", pattern)


@cache  # compiling takes as long as ten checks
def _search(pattern: str) -> Callable[[str], object]:
    return re.compile(python_pattern(pattern)).search


def _short(value: Any) -> str:
    if isinstance(value, int) and not _LOWEST <= value <= _HIGHEST:
        return f"an integer of {value.bit_length()} bits"  # Python prints no integer of many thousand digits
    text = reprlib.repr(value)  # bounded: the value may be huge or nested beyond recursion
    return text if len(text) <= 60 else f"{text[:57]}..."
