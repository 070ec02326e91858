"""Generate one Python function per schema, which accepts valid values without a call for each member.

`cycles/_core/schema.py` decides what is valid and what is wrong. The function only recognizes values that are surely
valid. It forwards every other value to the checker of `schema.py`, and also the parts that it does not know.
Nothing of a schema becomes code but literals: names and strings as `ascii` writes them, and integers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, cast

from cycles._core.json_values import is_text

_Check = Callable[[Any, str], str | None]
_Schema = Mapping[str, Any]

_LOWEST, _HIGHEST = -(2**63), 2**63 - 1
_MOST_LINES: Final = 400
_MOST_DEPTH: Final = 16  # Python compiles no more than 20 nested loops
"""Parts of a schema beyond these are tested by calls, and so are those that refer to themselves."""

_KEYWORDS: Final[Mapping[str, frozenset[str]]] = {
    "string": frozenset({"minLength", "maxLength", "pattern", "enum", "const"}),
    "integer": frozenset({"minimum", "maximum"}),
    "number": frozenset({"minimum", "maximum"}),
    "boolean": frozenset(),
    "array": frozenset({"minItems", "maxItems", "items"}),
    "object": frozenset({"minProperties", "maxProperties", "properties", "required", "additionalProperties", "anyOf"}),
}
"""What is generated for each type. A part with another keyword is tested by a call."""

_LIMITS: Final = frozenset(
    name for keywords in _KEYWORDS.values() for name in keywords if name.startswith(("min", "max"))
)


def quick_check(
    schema: _Schema,
    full: _Check,
    *,
    schemas: Mapping[str, _Schema],
    strict: bool,
    test_of: Callable[[_Schema, bool], Callable[[Any], str | None]],
    search_of: Callable[[str], Callable[[str], object]],
) -> _Check:
    """Return a check that calls `full` unless the value is surely valid.

    Args:
        schema: What to check.
        full: The checker of the whole schema, which finds out what is wrong.
        schemas: The named schemas that others refer to.
        strict: Whether the schema is read as for a request.
        test_of: Returns the test of a part, with its bounds or without them.
        search_of: Returns the search of a pattern.
    """
    writer = _Writer(schemas, strict, test_of, search_of)
    writer.write(schema, "value", True, False, 2)
    names: dict[str, Any] = {**writer.names, "full": full, "is_text": is_text}
    source = "\n".join((*_HEAD, *writer.lines, *_FOOT))
    exec(_code(source, f"<quick check of {schema.get('$ref')!a}>"), names)  # noqa: S102 (templates and literals only)
    return cast("_Check", names["check"])


_HEAD: Final = ("def check(value, path):", "    try:")
_FOOT: Final = ("    except KeyError:", "        return full(value, path)")  # a required member is absent


@lru_cache(maxsize=256)  # each client has its checkers; compiling takes longer than all the rest
def _code(source: str, shown: str) -> Any:
    return compile(source, shown, "exec")  # `shown` instead of a file in profiles and tracebacks


class _Writer:
    """Writes the lines that return `full(value, path)` unless a value is surely valid."""

    def __init__(
        self,
        schemas: Mapping[str, _Schema],
        strict: bool,
        test_of: Callable[[_Schema, bool], Callable[[Any], str | None]],
        search_of: Callable[[str], Callable[[str], object]],
    ) -> None:
        self.lines: list[str] = []
        self.names: dict[str, Any] = {}
        self._schemas = schemas
        self._strict = strict
        self._test_of = test_of
        self._search_of = search_of
        self._open: list[str] = []  # the named schemas being written
        self._variables = 0

    def write(self, schema: _Schema, value: str, bounds: bool, null: bool, depth: int) -> None:
        """Write the test of the variable `value`; None is accepted only if `null` is true."""
        name = schema.get("$ref")
        if name is not None and name not in self._open:
            self._open.append(name)
            self.write(self._schemas[name], value, bounds, null, depth)
            self._open.pop()
        elif not schema:
            self._add_line("pass", depth) if null else self._reject(f"{value} is None", depth)
        elif len(self.lines) > _MOST_LINES or depth > _MOST_DEPTH or not self._is_known(schema):
            test = self._name(self._test_of(schema, bounds))
            missing = "{0} is not None and" if null else "{0} is None or"
            self._reject(f"{missing.format(value)} {test}({value}) is not None", depth)
        elif schema["type"] in ("array", "object"):
            self._container(schema, value, bounds, null, depth)
        else:
            wrong = " or ".join(self._scalar(schema, value, bounds))
            self._reject(f"({wrong}) and {value} is not None" if null else wrong, depth)

    def _is_known(self, schema: _Schema) -> bool:
        kind = schema.get("type")
        if not isinstance(kind, str) or kind not in _KEYWORDS or schema.get("format") == "date-time":
            return False
        allowed = [*schema.get("enum", ()), *([schema["const"]] if "const" in schema else [])]
        return (
            schema.keys() - {"type", "format"} <= _KEYWORDS[kind]
            and all(type(schema[name]) is int for name in _LIMITS & schema.keys())
            and all(type(value) is str for value in allowed)
            and all(branch.keys() == {"required"} for branch in schema.get("anyOf", ()))
        )

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
        if bounds:
            yield from _sizes(schema, value, "Length")
            if "pattern" in schema:
                yield f"not {self._name(self._search_of(schema['pattern']))}({value})"
        if self._strict:
            allowed = [schema[word] for word in ("const",) if word in schema] or schema.get("enum")
            if allowed is None or not all(map(str.isascii, allowed)):
                yield f"not ({value}.isascii() or is_text({value}))"
            if "enum" in schema:
                yield f"{value} not in {_set(schema['enum'])}"
            if "const" in schema:
                yield f"{value} != {schema['const']!a}"

    def _container(self, schema: _Schema, value: str, bounds: bool, null: bool, depth: int) -> None:
        kind, what = ("list", "Items") if schema["type"] == "array" else ("dict", "Properties")
        if null:
            self._add_line(f"if {value} is not None:", depth)
            depth += 1
        self._reject(
            " or ".join([f"type({value}) is not {kind}", *(_sizes(schema, value, what) if bounds else ())]), depth
        )
        if kind == "dict":
            self._members(schema, value, depth)
        elif schema.get("items"):
            item = self._variable()
            self._add_line(f"for {item} in {value}:", depth)
            self.write(schema["items"], item, True, False, depth + 1)

    def _members(self, schema: _Schema, value: str, depth: int) -> None:
        members: Mapping[str, _Schema] = schema.get("properties", {})
        required = dict.fromkeys(schema.get("required", ()))
        rest = schema.get("additionalProperties", True)
        count = self._variable() if self._strict and rest is False else None  # of the members that are known
        fixed = len(members.keys() & required)
        if count is not None and fixed < len(members):
            self._add_line(f"{count} = {fixed}", depth)
        for name in (*required, *(name for name in members if name not in required)):
            within = depth
            if name not in required:
                self._add_line(f"if {name!a} in {value}:", depth)
                within += 1
                if count is not None:
                    self._add_line(f"{count} += 1", within)
            member = self._variable()
            self._add_line(f"{member} = {value}[{name!a}]", within)
            optional = name not in required
            self.write(
                members.get(name, {}), member, self._strict or not optional, optional and not self._strict, within
            )
        if count is not None:
            self._reject(f"len({value}) != {count if fixed < len(members) else fixed}", depth)
        if isinstance(rest, Mapping) and rest:
            self._others(rest, members, value, depth)
        if self._strict and "anyOf" in schema:
            branches = [" and ".join(f"{name!a} in {value}" for name in each["required"]) for each in schema["anyOf"]]
            self._reject(f"not ({' or '.join(branch or 'True' for branch in branches)})", depth)

    def _others(self, rest: _Schema, members: Iterable[str], value: str, depth: int) -> None:
        """Write the test of the members that `properties` does not name."""
        name, member = self._variable(), self._variable()
        if members:
            self._add_line(f"for {name}, {member} in {value}.items():", depth)
            depth += 1
            self._add_line(f"if {name} not in {_set(members)}:", depth)
        else:
            self._add_line(f"for {member} in {value}.values():", depth)
        self.write(rest, member, True, True, depth + 1)

    def _name(self, function: object) -> str:
        name = f"call{len(self.names)}"
        self.names[name] = function
        return name

    def _variable(self) -> str:
        self._variables += 1
        return f"v{self._variables}"

    def _reject(self, wrong: str, depth: int) -> None:
        self._add_line(f"if {wrong}: return full(value, path)", depth)

    def _add_line(self, text: str, depth: int) -> None:
        self.lines.append("    " * depth + text)


def _sizes(schema: _Schema, value: str, what: str) -> Iterable[str]:
    if schema.get(f"min{what}", 0) > 0:
        yield f"len({value}) < {schema[f'min{what}']}"
    if f"max{what}" in schema:
        yield f"len({value}) > {schema[f'max{what}']}"


def _set(values: Iterable[str]) -> str:
    return "{" + ", ".join(map(ascii, values)) + "}" if values else "()"
