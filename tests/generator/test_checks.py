"""The generated checks accept nothing that the checkers reject, and recognize what the documents allow."""

from __future__ import annotations

import contextlib
import enum
import importlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, strategies as st

import cycles
from cycles._core.messages.schema import Checkers
from generator.checks import render
from generator.samples import DEEPEST, Samples

PACKAGES = ("cycles_client", "cycles_admin_client")
SCHEMAS: dict[str, dict[str, Any]] = {
    package: importlib.import_module(f"{package}.protocol").SCHEMAS for package in PACKAGES
}
SOURCES: dict[str, str] = {}
for _package in PACKAGES:
    _file = importlib.import_module(f"{_package}.checks").__file__
    assert _file is not None
    SOURCES[_package] = Path(_file).read_text(encoding="utf-8")
Recognizes = Callable[[Any], bool]


def loaded(source: str, schemas: Any) -> dict[bool, dict[str, Recognizes]]:
    """The functions of a source, by the names of their schemas: those of responses (True) and requests (False)."""
    names: dict[str, Any] = {"SCHEMAS": schemas}
    exec(source.replace("from .protocol import SCHEMAS\n", ""), names)
    return {False: names["REQUESTS"], True: names["RESPONSES"]}


class Text(str):
    __slots__ = ()


class Kind(enum.StrEnum):
    TOKENS = "TOKENS"


def limits_of(part: Any) -> set[int]:
    """Every integer in a schema: its limits."""
    if isinstance(part, dict):
        return {limit for member in part.values() for limit in limits_of(member)}
    return {part} if type(part) is int else set()


LIMITS = sorted({0, 1, 2**63, -(2**63)} | set().union(*map(limits_of, SCHEMAS.values())))
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


def difference(package: str, responses: bool, recognizes: dict[str, Recognizes]) -> str | None:
    """The first value that a function recognizes and its checker rejects."""
    samples, checkers = Samples(SCHEMAS[package]), Checkers(SCHEMAS[package], responses=responses)
    for name, valid in recognizes.items():
        for everything in (False, True):
            sample = samples.of({"$ref": name}, full=everything)
            for value in (sample, *edited(sample)):
                if valid(value) and checkers[name](value, "p") is not None:
                    return f"{name}: {value!r:.500}"
    return None


@pytest.mark.parametrize("responses", [False, True])
@pytest.mark.parametrize("package", PACKAGES)
def test_a_check_recognizes_no_edit_of_a_valid_value_that_the_checker_rejects(package: str, responses: bool) -> None:
    assert difference(package, responses, loaded(SOURCES[package], None)[responses]) is None


@pytest.mark.parametrize("package", PACKAGES)
def test_a_check_of_a_parameter_decides_as_the_checker(package: str) -> None:
    names: dict[str, Any] = {}
    exec(SOURCES[package].replace("from .protocol import SCHEMAS\n", "SCHEMAS = None\n"), names)
    checkers, samples = Checkers(SCHEMAS[package], responses=False), Samples(SCHEMAS[package])
    operations = importlib.import_module(f"{package}.protocol").OPERATIONS
    assert any(entry["parameters"] for entry in operations.values())
    for operation, entry in operations.items():
        recognizes = names["PARAMETERS"][operation]
        for parameter in entry["parameters"]:
            sample = samples.of(parameter["schema"], full=True)
            for value in (sample, *edited(sample)):
                problem = checkers.inline(parameter["schema"])(value, "p")
                assert recognizes[parameter["name"]](value) <= (problem is None), (operation, parameter, value)
            assert recognizes[parameter["name"]](sample) is (checkers.inline(parameter["schema"])(sample, "p") is None)


@pytest.mark.parametrize("package", PACKAGES)
def test_each_body_has_a_check(package: str) -> None:
    entries = importlib.import_module(f"{package}.protocol").OPERATIONS.values()
    functions = loaded(SOURCES[package], None)
    assert functions[False].keys() == {entry["request"] for entry in entries} - {None}
    assert functions[True].keys() == {entry[kind] for entry in entries for kind in ("response", "error")} - {None}


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
        (r" or not \(\w+\.isascii\(\) or _is_text\(\w+\)\)", r""),
        (r"or _is_text\(\w+\)", r"or True"),
        (r"not _search\([^\n]*\)\(\w+\)", r"False"),
        (r"not _is_date_time\(\w+\)", r"False"),
        (r"not \w+_re(quest|sponse)(_\d+)?\(\w+\)", r"False"),
        (r"if (v\d+) is not None:", r"if \1:"),
        (r"for (\w+) in (v\d+):", r"for \1 in \2[:1]:"),
        (r"for (\w+) in (v\d+).values\(\):", r"for \1 in ():"),
        (r'if not \(\s+"tenant" in value[^)]*\):', r"if False:"),
        (r"\+= 1", r"+= 0"),
    ],
)
def test_a_wrong_check_is_noticed(wrong: str, instead: str) -> None:
    planted = {package: re.sub(wrong, instead, source) for package, source in SOURCES.items()}
    assert planted != SOURCES
    assert any(
        difference(package, responses, recognizes) or unrecognized(package, responses, recognizes)
        for package, source in planted.items()
        for responses, recognizes in loaded(source, None).items()
    )


def unrecognized(package: str, responses: bool, recognizes: dict[str, Recognizes]) -> str | None:
    """The first schema of which a valid value is not recognized."""
    samples, checkers = Samples(SCHEMAS[package]), Checkers(SCHEMAS[package], responses=responses)
    for name, valid in recognizes.items():
        for everything in (False, True):
            value = samples.of({"$ref": name}, full=everything)
            if checkers[name](value, "") is None and not valid(value):
                return f"{name}: {value!r:.500}"
    return None


@pytest.mark.parametrize("responses", [False, True])
@pytest.mark.parametrize("package", PACKAGES)
def test_a_check_recognizes_valid_values(package: str, responses: bool) -> None:
    assert unrecognized(package, responses, loaded(SOURCES[package], None)[responses]) is None


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


def checks_of(schemas: dict[str, Any], name: str, responses: bool) -> Recognizes:
    """The function that is written for one schema of a document."""
    body: dict[str, Any] = {"request": None, "response": name, "error": None} if responses else {"request": name}
    body["parameters"] = []
    tables: Any = SimpleNamespace(schemas=schemas, operations={"it": {"response": None, "error": None, **body}})
    return loaded(render(tables), schemas)[responses][name]


@given(SCHEMA, SCHEMA, st.booleans(), st.lists(JSON, min_size=1, max_size=5), st.data())
def test_a_check_of_any_schema_recognizes_no_value_that_the_checker_rejects(
    self: dict[str, Any], other: dict[str, Any], responses: bool, values: list[Any], data: st.DataObject
) -> None:
    schemas = {
        "Self": self if "$ref" not in self else {},
        "Other": other if "$ref" not in other else {"type": "string"},
    }
    full, valid = Checkers(schemas, responses=responses)["Self"], checks_of(schemas, "Self", responses)
    likely = None
    with contextlib.suppress(RecursionError, StopIteration):  # no value is valid
        likely = Samples(schemas).of({"$ref": "Self"}, full=data.draw(st.booleans()), depth=DEEPEST - 3)
    for value in (likely, *values, *_replaced(likely, values)):
        if valid(value):
            assert full(value, "p") is None


def _replaced(value: Any, others: list[Any]) -> Iterator[Any]:
    for other in others:
        if isinstance(value, dict):
            for name in value:
                yield {**value, name: other}
                yield from ({**value, name: inner} for inner in _replaced(value[name], others))
        elif isinstance(value, list):
            yield [*value, other]


def test_names_and_texts_of_a_schema_never_become_code() -> None:
    evil = "'] and print('run') or value['\n\0é"
    member = {"type": "string", "enum": [evil], "pattern": "'", "const": evil}
    name = f"{evil}\ud800"
    schemas = {
        name: {"type": "object", "required": [name], "additionalProperties": False, "properties": {name: member}},
    }
    valid = checks_of(schemas, name, False)
    assert valid({name: evil})
    assert not valid({name: "x"})
    assert not valid({})


def test_the_functions_of_other_schemas_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the checker knows a schema that a program puts in place of a generated one."""
    protocol = importlib.import_module("cycles_client.protocol")
    changed = {**protocol.SCHEMAS, "Amount": {"type": "object", "required": ["currency"]}}
    monkeypatch.setattr(protocol, "SCHEMAS", changed)
    with (
        cycles.Cycles(base_url="http://127.0.0.1:9", api_key="k", tenant="acme", journal=False) as client,
        pytest.raises(cycles.InvalidRequestError, match=r"estimate\.currency: is required"),
    ):
        client.decide(cycles.tokens(1), action=("a", "b"))
