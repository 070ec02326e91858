"""Write `checks.py`: one function per body and parameter, which recognizes valid values without a call for each member.

`cycles/_core/messages/schema.py` decides what is valid and says what is wrong. A function returns True only for a value
that is surely valid; of every other value, and of a part that it does not know, it says False, and the checker of
`schema.py` decides. Of a document, nothing but literals becomes code: names and strings as `ascii` writes them, and
integers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from openapi_python_client.strings import PythonIdentifier

from cycles._core.messages.schema import python_pattern
from generator.protocol import Tables

_Schema = Mapping[str, Any]

_LOWEST, _HIGHEST = -(2**63), 2**63 - 1
_MOST_DEPTH: Final = 16  # Python compiles no more than 20 nested loops
_NO_WORD: Final = re.compile(r"\W+", re.ASCII)

_KEYWORDS: Final[Mapping[str, frozenset[str]]] = {
    "string": frozenset({"minLength", "maxLength", "pattern", "enum", "const"}),
    "integer": frozenset({"minimum", "maximum"}),
    "number": frozenset({"minimum", "maximum"}),
    "boolean": frozenset(),
    "array": frozenset({"minItems", "maxItems", "items"}),
    "object": frozenset({"minProperties", "maxProperties", "properties", "required", "additionalProperties", "anyOf"}),
}
"""What is written for each type. A part with another keyword is not recognized."""

_LIMITS: Final = frozenset(
    name for keywords in _KEYWORDS.values() for name in keywords if name.startswith(("min", "max"))
)

_HEAD: Final = '''"""One function per body and parameter, which recognizes valid values.

A function returns True for a value that is surely valid by `SCHEMAS` of `protocol.py`, and False for one that needs a
closer look. `REQUESTS` and `PARAMETERS` read a schema exactly, so that a server does not reject it. `RESPONSES` lets
newer members and values pass, and null for an optional member. This file is generated; change the document instead.
"""

import re
from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import Any

from .protocol import SCHEMAS

__all__ = ["PARAMETERS", "REQUESTS", "RESPONSES", "SCHEMAS"]


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_date_time(value: str) -> bool:
    try:
        return datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


@cache
def _search(pattern: str) -> Callable[[str], object]:
    return re.compile(pattern).search
'''


def render(tables: Tables) -> str:
    """Return the source of `checks.py`, before formatting."""
    entries = tables.operations.values()
    requests = _names(entry["request"] for entry in entries)
    responses = _names(entry[kind] for entry in entries for kind in ("response", "error"))
    writer = _Writer(tables.schemas)
    both = [
        f"{table}: dict[str, Callable[[Any], bool]] = {{{', '.join(writer.entries(names, strict=strict))}}}"
        for table, names, strict in (("REQUESTS", requests, True), ("RESPONSES", responses, False))
    ]
    parameters = [f"{name!a}: {{{writer.parameters(entry)}}}" for name, entry in tables.operations.items()]
    both.append(f"PARAMETERS: dict[str, dict[str, Callable[[Any], bool]]] = {{{', '.join(parameters)}}}")
    return "\n\n".join([_HEAD, *writer.functions.values(), *both]) + "\n"


def _names(names: Iterable[str | None]) -> list[str]:
    return list(dict.fromkeys(name for name in names if name is not None))


class _Writer:
    """Writes functions. One that calls others has them written too, after itself."""

    def __init__(self, schemas: Mapping[str, _Schema]) -> None:
        self.functions: dict[str, str] = {}  # by name; the text is empty while a function is being written
        self.schemas = schemas
        self._names: dict[tuple[str, bool, bool], str] = {}
        self._parameters: dict[str, str] = {}  # function by schema

    def entries(self, names: Iterable[str], *, strict: bool) -> list[str]:
        """Return the entries of a table, after their functions are written."""
        return [f"{name!a}: {self.function(name, strict, True)}" for name in names]

    def parameters(self, entry: Mapping[str, Any]) -> str:
        """Return the entries of the parameters of an operation. Those with one schema have one function."""
        return ", ".join(f"{each['name']!a}: {self._parameter(each)}" for each in entry["parameters"])

    def _parameter(self, parameter: Mapping[str, Any]) -> str:
        shown = repr(parameter["schema"])
        if shown not in self._parameters:
            self._parameters[shown] = self._new(parameter["name"], "_parameter")
            self._write(self._parameters[shown], True, parameter["schema"], True)
        return self._parameters[shown]

    def function(self, name: str, strict: bool, bounds: bool) -> str:
        """Return the name of the function of a schema. It is written if it is new."""
        key = name, strict, bounds or not _LIMITS & self.schemas[name].keys()
        if key not in self._names:
            self._names[key] = self._new(name, "_request" if strict else "_response")
            self._write(self._names[key], strict, self.schemas[name], key[2])
        return self._names[key]

    def _new(self, name: str, suffix: str) -> str:
        words = str(PythonIdentifier(_NO_WORD.sub("_", name), "field_")).removesuffix(suffix) + suffix
        return words if words not in self.functions else f"{words}_{len(self.functions)}"

    def _write(self, function: str, strict: bool, schema: _Schema, bounds: bool) -> None:
        self.functions[function] = ""  # it may refer to itself
        self.functions[function] = _Body(self, function, strict).text(schema, bounds)


class _Body:
    """Writes the lines of one function, which return False unless a value is surely valid."""

    def __init__(self, writer: _Writer, name: str, strict: bool) -> None:
        self._function = writer.function
        self._schemas = writer.schemas
        self._strict = strict
        self._variables = 0
        self._lines = [f"def {name}(value: Any) -> bool:"]

    def text(self, schema: _Schema, bounds: bool) -> str:
        """Return the source of the function."""
        self._write(schema, "value", bounds, 1)
        self._add("return True", 1)
        return "\n".join(self._lines)

    def _write(self, schema: _Schema, value: str, bounds: bool, depth: int) -> None:
        """Write the test of a variable that may contain any value."""
        target = self._target(schema)
        kind = _type_of(target)
        if not target:
            return
        if kind is None or depth > _MOST_DEPTH:
            self._add("return False", depth)
        elif kind in ("array", "object") and target is not schema:
            self._reject(f"not {self._function(schema['$ref'], self._strict, bounds)}({value})", depth)
        elif kind != target["type"]:
            self._add(f"if {value} is not None:", depth)
            self._write({**target, "type": kind}, value, bounds, depth + 1)
        elif kind in ("array", "object"):
            self._container(target, value, bounds, depth)
        else:
            self._reject(" or ".join(self._scalar(target, value, bounds)), depth)

    def _target(self, schema: _Schema) -> _Schema:
        """Return the schema to which references lead. One that leads to itself has no type, so it is not known."""
        seen: set[str] = set()
        while "$ref" in schema and schema["$ref"] not in seen:
            seen.add(schema["$ref"])
            schema = self._schemas[schema["$ref"]]
        return schema

    def _scalar(self, schema: _Schema, value: str, bounds: bool) -> Iterable[str]:
        """What is true of a string, number or boolean that may be invalid."""
        kind = schema["type"]
        if kind == "boolean":
            yield f"type({value}) is not bool"
        elif kind == "string":
            yield f"type({value}) is not str"
            yield from self._text(schema, value, bounds)
        elif kind == "integer":
            yield f"type({value}) is not int"
            low, high = schema.get("minimum", _LOWEST), schema.get("maximum", _HIGHEST)
            low, high = (max(low, _LOWEST), min(high, _HIGHEST)) if bounds else (_LOWEST, _HIGHEST)
            yield f"not {low} <= {value} <= {high}"
        else:
            yield f"type({value}) is not float and type({value}) is not int"
            if bounds and "minimum" in schema:
                yield f"not {value} >= {schema['minimum']}"
            if bounds and "maximum" in schema:
                yield f"not {value} <= {schema['maximum']}"

    def _text(self, schema: _Schema, value: str, bounds: bool) -> Iterable[str]:
        if schema.get("format") == "date-time":
            yield f"not _is_date_time({value})"
        if bounds:
            yield from _sizes(schema, value, "Length")
            if "pattern" in schema:
                yield f"not _search({python_pattern(schema['pattern'])!a})({value})"
        if self._strict:
            allowed = [schema["const"]] if "const" in schema else schema.get("enum")
            if allowed is None or not all(map(str.isascii, allowed)):
                yield f"not ({value}.isascii() or _is_text({value}))"
            if "enum" in schema:
                yield f"{value} not in {_set(schema['enum'])}"
            if "const" in schema:
                yield f"{value} != {schema['const']!a}"

    def _container(self, schema: _Schema, value: str, bounds: bool, depth: int) -> None:
        kind, what = ("list", "Items") if schema["type"] == "array" else ("dict", "Properties")
        self._reject(
            " or ".join([f"type({value}) is not {kind}", *(_sizes(schema, value, what) if bounds else ())]), depth
        )
        if kind == "dict":
            self._members(schema, value, depth)
        elif self._target(schema.get("items", {})):
            item = self._variable()
            self._add(f"for {item} in {value}:", depth)
            self._write(schema["items"], item, True, depth + 1)

    def _members(self, schema: _Schema, value: str, depth: int) -> None:
        members: Mapping[str, _Schema] = schema.get("properties", {})
        required = dict.fromkeys(schema.get("required", ()))
        rest = schema.get("additionalProperties", True)
        for name in required:
            member, its = self._variable(), members.get(name, {})
            self._add(f"{member} = {value}.get({name!a})", depth)
            if not self._target(its) or isinstance(self._target(its).get("type"), list):
                self._reject(f"{member} is None", depth)
            self._write(its, member, True, depth)
        optional = [name for name in members if name not in required]
        if self._strict:
            self._optional_of_request(members, optional, len(members.keys() & required), rest, value, depth)
        else:
            for name in filter(lambda name: self._target(members[name]), optional):
                member = self._variable()
                self._add(f"{member} = {value}.get({name!a})", depth)
                self._add(f"if {member} is not None:", depth)
                self._write(members[name], member, False, depth + 1)
        if isinstance(rest, Mapping) and self._target(rest):
            self._others(rest, members, value, depth)
        if self._strict and "anyOf" in schema:
            branches = [" and ".join(f"{name!a} in {value}" for name in each["required"]) for each in schema["anyOf"]]
            self._reject(f"not ({' or '.join(branch or 'True' for branch in branches)})", depth)

    def _optional_of_request(
        self, members: Mapping[str, _Schema], optional: list[str], fixed: int, rest: Any, value: str, depth: int
    ) -> None:
        """Write the tests of members that may be absent but not null. A closed object has no others."""
        counts = rest is False and bool(optional)
        count = self._variable()
        if counts:
            self._add(f"{count} = {fixed}", depth)
        for name in optional:
            member = self._variable()
            self._add(f"if {name!a} in {value}:", depth)
            if counts:
                self._add(f"{count} += 1", depth + 1)
            self._add(f"{member} = {value}[{name!a}]", depth + 1)
            self._write(members[name], member, True, depth + 1)
        if rest is False:
            self._reject(f"len({value}) != {count if counts else fixed}", depth)

    def _others(self, rest: _Schema, members: Iterable[str], value: str, depth: int) -> None:
        """Write the test of the members that `properties` does not name. They may be null."""
        name, member = self._variable(), self._variable()
        if members:
            self._add(f"for {name}, {member} in {value}.items():", depth)
            self._add(f"if {member} is not None and {name} not in {_set(members)}:", depth + 1)
        else:
            self._add(f"for {member} in {value}.values():", depth)
            self._add(f"if {member} is not None:", depth + 1)
        self._write(rest, member, True, depth + 2)

    def _variable(self) -> str:
        self._variables += 1
        return f"v{self._variables}"

    def _reject(self, wrong: str, depth: int) -> None:
        self._add(f"if {wrong}: return False", depth)

    def _add(self, text: str, depth: int) -> None:
        self._lines.append("    " * depth + text)


def _type_of(schema: _Schema) -> str | None:
    """Return the type of a schema that is known, without null; None if something of it is not known."""
    kinds = schema.get("type")
    kind = kinds
    if isinstance(kinds, list):
        others = [each for each in kinds if each != "null"]
        kind = others[0] if len(others) == 1 and len(kinds) == 2 else None
    if not isinstance(kind, str) or kind not in _KEYWORDS or (kind != kinds and {"enum", "const"} & schema.keys()):
        return None
    allowed = [*schema.get("enum", ()), *([schema["const"]] if "const" in schema else [])]
    known = (
        schema.keys() - {"type", "format"} <= _KEYWORDS[kind]
        and all(type(schema[name]) is int for name in _LIMITS & schema.keys())
        and all(type(value) is str for value in allowed)
        and all(branch.keys() == {"required"} for branch in schema.get("anyOf", ()))
    )
    return kind if known else None


def _sizes(schema: _Schema, value: str, what: str) -> Iterable[str]:
    if schema.get(f"min{what}", 0) > 0:
        yield f"len({value}) < {schema[f'min{what}']}"
    if f"max{what}" in schema:
        yield f"len({value}) > {schema[f'max{what}']}"


def _set(values: Iterable[str]) -> str:
    return "{" + ", ".join(map(ascii, values)) + "}" if values else "()"
