"""The generated checks accept nothing that the checkers reject, and say what the checkers say."""

from __future__ import annotations

import contextlib
import enum
import re
import sys
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, strategies as st

from cycles._core import quick_check, schema as schema_module
from cycles._core.schema import CHECKS_BEFORE_QUICK, Check, Checkers
from cycles._wire.wire import runtime_tables
from cycles_admin_client import protocol as admin_tables
from generator.samples import DEEPEST, Samples

TABLES: dict[str, dict[str, Any]] = {"runtime": runtime_tables().SCHEMAS, "admin": admin_tables.SCHEMAS}
NEVER = 10**9


class Text(str):
    __slots__ = ()


class Kind(enum.StrEnum):
    TOKENS = "TOKENS"


def limits_of(part: Any) -> set[int]:
    """Every integer in a schema: its limits."""
    if isinstance(part, dict):
        return {limit for member in part.values() for limit in limits_of(member)}
    return {part} if type(part) is int else set()


LIMITS = sorted({0, 1, 2**63, -(2**63)} | set().union(*map(limits_of, TABLES.values())))
SIZES = [size for size in LIMITS if 0 <= size <= 2048]
ODD: list[Any] = [
    *[None, True, False, 1.0, 1.5, float("nan"), float("inf"), 10**30, object()],
    *["", "x", "TOKENS", Text("TOKENS"), Kind.TOKENS, "é", "\ud800", "é\ud800", "a\n", "0" * 64, "0" * 64 + "\n"],
    *["2026-01-02T03:04:05", "2026-01-02T03:04:05Z"],
    *[
        [],
        [None],
        ["x", 1],
        ["x", "\ud800"],
        {},
        {"x": None},
        {"x": 1},
        {"x": "x"},
        {1: "x"},
        ("x",),
        b"TOKENS",
        MappingProxyType({}),
    ],
    *[limit + more for limit in LIMITS for more in (-1, 0, 1)],
    *["x" * (size + more) for size in SIZES for more in (-1, 0, 1) if size + more > 1],
    *[["x"] * (size + more) for size in SIZES if size < 99 for more in (0, 1)],
    *[{f"x{n}": "x" for n in range(size + more)} for size in SIZES if size < 99 for more in (0, 1)],
]


@pytest.fixture
def checkers(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Checkers]:
    """Makes checkers that use the generated functions after so many checks."""

    def make(schemas: dict[str, Any], *, responses: bool, before: int) -> Checkers:
        monkeypatch.setattr(schema_module, "CHECKS_BEFORE_QUICK", before)
        return Checkers(schemas, responses=responses)

    return make


def both(schemas: dict[str, Any], name: str, responses: bool) -> tuple[Check, Check]:
    """The checker of a schema, and the generated function over it."""
    made = Checkers(schemas, responses=responses)
    full = schema_module._placed(made._compile({"$ref": name}))
    quick = made._quick({"$ref": name}, full)
    assert quick is not None
    return full, quick


def edited(value: Any) -> Iterator[Any]:
    """Every value that differs from a valid one in one place."""
    yield from ODD
    if isinstance(value, dict):
        for name in value:
            yield {other: member for other, member in value.items() if other != name}
            yield {name: value[name]}
            yield from ({**value, name: member} for member in edited(value[name]))
        yield from ({**value, "unknown": member} for member in (None, "x", 1))
    elif isinstance(value, list) and value:
        yield from ([*value, other] for other in edited(value[0]))


def difference(tables: str, responses: bool) -> str | None:
    """The first value on which a generated function and its checker disagree."""
    schemas = TABLES[tables]
    samples = Samples(schemas)
    for name in schemas:
        full, quick = both(schemas, name, responses)
        for everything in (False, True):
            valid = samples.of({"$ref": name}, full=everything)
            for value in (valid, *edited(valid)):
                if full(value, "p") != quick(value, "p"):
                    return f"{name}: {value!r:.500}"
    return None


@pytest.mark.parametrize("responses", [False, True])
@pytest.mark.parametrize("tables", TABLES)
def test_a_generated_check_decides_as_the_checker_for_every_edit_of_a_valid_value(tables: str, responses: bool) -> None:
    assert difference(tables, responses) is None


@pytest.mark.parametrize(
    ("wrong", "instead"),
    [
        (r"type\((\w+)\) is not str", r"not hasattr(\1, 'lower')"),
        (r"type\((\w+)\) is not int", r"not isinstance(\1, int)"),
        (r"type\((\w+)\) is not bool", r"\1 not in (0, 1)"),
        (r"type\((\w+)\) is not list", r"not isinstance(\1, (list, tuple))"),
        (r"type\((\w+)\) is not dict", r"not hasattr(\1, 'keys')"),
        (r"not (-?\d+) <= (\w+) <= (\d+)", r"\2 > \3"),
        (r"not (-?\d+) <= (\w+) <= (\d+)", r"\2 < \1"),
        (r"not 1000 <=", r"not 999 <="),
        (r"len\((\w+)\) < (\d+)", r"False"),
        (r"len\((\w+)\) > (\d+)", r"len(\1) > \2 + 1"),
        (r"len\((\w+)\) != (\w+)", r"False"),
        (r"(\w+) not in \{[^}]*\}", r"False"),
        (r" != '[^']*'", r" is None"),
        (r" or not \(\w+\.isascii\(\) or is_text\(\w+\)\)", r""),
        (r"is_text\(\w+\)", r"True"),
        (r"not call\d+\(\w+\)", r"False"),
        (r"call\d+\(\w+\) is not None", r"False"),
        (r"\) and (\w+) is not None", r") and \1"),
        (r"if (\w+) is not None:", r"if \1:"),
        (r"for (\w+) in (v\d+):", r"for \1 in \2[:1]:"),
        (r"for (\w+) in (v\d+).values\(\):", r"for \1 in ():"),
        (r"not \('tenant' in .*\): return", r"False: return"),
        (r"except KeyError:\n.*", r"except KeyError: return None"),
    ],
)
def test_a_wrong_generated_check_is_noticed(wrong: str, instead: str, monkeypatch: pytest.MonkeyPatch) -> None:
    changed: set[str] = set()

    def plant(source: str, shown: str) -> Any:
        planted = re.sub(wrong, instead, source)
        if planted != source:
            changed.add(planted)
        return compile(planted, shown, "exec")

    monkeypatch.setattr(quick_check, "_code", plant)
    assert any(difference(tables, responses) for tables in TABLES for responses in (False, True))
    assert changed


@pytest.mark.parametrize("responses", [False, True])
@pytest.mark.parametrize("tables", TABLES)
def test_a_generated_check_recognizes_valid_values_itself(
    tables: str, responses: bool, checkers: Callable[..., Checkers], monkeypatch: pytest.MonkeyPatch
) -> None:
    schemas = TABLES[tables]
    samples = Samples(schemas)
    monkeypatch.setattr(schema_module, "_placed", lambda test: lambda value, path: "the checker was asked")
    made = checkers(schemas, responses=responses, before=0)
    for name in schemas:
        for everything in (False, True):
            value = samples.of({"$ref": name}, full=everything)
            if both_accept(schemas, name, responses, value):
                assert made[name](value, "") is None, name


def both_accept(schemas: dict[str, Any], name: str, responses: bool, value: Any) -> bool:
    return Checkers(schemas, responses=responses)._compile({"$ref": name})(value) is None


NAMES = st.sampled_from(["a", "b", "'", '"', "\\", "\n", "') or print(1) #", "{x}", "é", "\ud800", "value", "full"])
COUNTS = st.integers(0, 3)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 4) | st.just(2**63) | st.floats() | NAMES | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


def _with(kind: str, **keywords: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"type": st.just(kind)}, optional=keywords)


PLAIN: list[dict[str, Any]] = [
    {},
    {"$ref": "Self"},
    {"$ref": "Other"},
    {"type": "boolean"},
    {"type": ["integer", "null"]},
]
SCHEMA: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.sampled_from(PLAIN)
    | _with("string", minLength=COUNTS, maxLength=COUNTS, enum=st.lists(NAMES | st.none()), const=NAMES)
    | _with("string", pattern=st.sampled_from(["^a", "a$", "'"]), format=st.sampled_from(["date-time", "uri"]))
    | _with("integer", minimum=st.integers(-1, 2) | st.just(0.5), maximum=st.integers(1, 3) | st.just(2**70))
    | _with("number", minimum=st.integers(-1, 2), maximum=st.integers(1, 3)),
    lambda inner: (
        _with("array", items=inner, minItems=COUNTS, maxItems=COUNTS)
        | _with(
            "object",
            properties=st.dictionaries(NAMES, inner, max_size=4),
            required=st.lists(NAMES, max_size=2),
            additionalProperties=st.booleans() | inner,
            minProperties=COUNTS,
            maxProperties=COUNTS,
            anyOf=st.lists(st.fixed_dictionaries({"required": st.lists(NAMES, max_size=2)}), min_size=1, max_size=2),
        )
        | st.fixed_dictionaries({"allOf": st.lists(inner, max_size=2)})
        | st.fixed_dictionaries({"oneOf": st.lists(inner, min_size=1, max_size=2)})
    ),
    max_leaves=8,
)


@given(SCHEMA, SCHEMA, st.booleans(), st.lists(JSON, min_size=1, max_size=5), st.data())
def test_a_generated_check_decides_as_the_checker_for_any_schema(
    self: dict[str, Any], other: dict[str, Any], responses: bool, values: list[Any], data: st.DataObject
) -> None:
    schemas = {
        "Self": self if "$ref" not in self else {},
        "Other": other if "$ref" not in other else {"type": "string"},
    }
    full, quick = both(schemas, "Self", responses)
    likely = None
    with contextlib.suppress(RecursionError, StopIteration):  # no value is valid
        likely = Samples(schemas).of({"$ref": "Self"}, full=data.draw(st.booleans()), depth=DEEPEST - 3)
    for value in (likely, *values, *_replaced(likely, values)):
        try:
            expected = full(value, "p")
        except RecursionError:  # a schema that is nothing but itself
            continue
        assert quick(value, "p") == expected


def _replaced(value: Any, others: list[Any]) -> Iterator[Any]:
    for other in others:
        if isinstance(value, dict):
            for name in value:
                yield {**value, name: other}
                yield from ({**value, name: inner} for inner in _replaced(value[name], others))
        elif isinstance(value, list):
            yield [*value, other]


def test_a_process_with_few_checks_generates_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def code(source: str, shown: str) -> Any:
        made.append(source)
        return compile(source, shown, "exec")

    monkeypatch.setattr(quick_check, "_code", code)
    checkers = Checkers(TABLES["runtime"], responses=False)
    for _ in range(CHECKS_BEFORE_QUICK):
        assert checkers["Amount"]({"unit": "TOKENS", "amount": 1}, "") is None
    assert made == []
    first = checkers["Amount"]
    for _ in range(50):
        assert first({"unit": "TOKENS", "amount": 1}, "") is None
        assert checkers["Amount"]({"unit": "TOKENS", "amount": 1}, "") is None
        assert checkers["Amount"]({"unit": "TOKENS"}, "p") == "p.amount: is required"
    assert len(made) == 1


def test_a_process_that_ends_is_checked_without_generated_code(monkeypatch: pytest.MonkeyPatch) -> None:
    checkers = Checkers(TABLES["runtime"], responses=False)
    with monkeypatch.context() as ending:
        ending.setitem(sys.modules, "cycles._core.quick_check", None)
        for _ in range(2 * CHECKS_BEFORE_QUICK):
            assert checkers["Amount"]({"unit": "TOKENS", "amount": 1}, "") is None
            assert checkers["Amount"]({"unit": "TOKENS"}, "p") == "p.amount: is required"


def test_names_and_texts_of_a_schema_never_become_code() -> None:
    evil = "'] and print('run') or value['\n\0é"
    member = {"type": "string", "enum": [evil], "pattern": "'", "const": evil}
    name = f"{evil}\ud800"
    schemas = {
        name: {"type": "object", "required": [name], "additionalProperties": False, "properties": {name: member}},
    }
    full, quick = both(schemas, name, False)
    assert quick({name: evil}, "") is None
    assert quick({name: "x"}, "") == full({name: "x"}, "")
    assert quick({}, "") == full({}, "")
