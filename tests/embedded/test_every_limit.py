"""Each bound of a request body that the specification names: what is at it passes, and what is beyond it does not."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from cycles.embedded.errors import ApiError
from cycles.embedded.validation import (
    MAX_BODY_BYTES,
    MAX_ID_LENGTH,
    MAX_NESTING,
    NEXT_SHAPES,
    checked,
    decode,
    require_id_length,
)
from cycles_client.protocol import OPERATIONS, SCHEMAS

REQUESTS = {
    "reserve": "createReservation",
    "decide": "decide",
    "commit": "commitReservation",
    "release": "releaseReservation",
    "extend": "extendReservation",
    "event": "createEvent",
}
LEAST = {
    "idempotency_key": "k",
    "subject": {"tenant": "t"},
    "action": {"kind": "k", "name": "n"},
    "estimate": {"unit": "TOKENS", "amount": 1},
    "actual": {"unit": "TOKENS", "amount": 1},
    "extend_by_ms": 1,
}
Path = tuple[str, ...]


def resolved(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    return SCHEMAS[schema["$ref"]] if "$ref" in schema else schema


def bounds(schema: Mapping[str, Any], path: Path = ()) -> Iterator[tuple[Path, Any, Any]]:
    """Yield each bound of a schema: the path of the member, a value at the bound, and one beyond it."""
    schema = resolved(schema)
    kind = schema.get("type")
    if "maxLength" in schema:
        yield path, "a" * schema["maxLength"], "a" * (schema["maxLength"] + 1)
    if "minLength" in schema:
        yield path, "a" * schema["minLength"], "a" * (schema["minLength"] - 1)
    if "minimum" in schema:
        yield path, schema["minimum"], schema["minimum"] - 1
    if kind == "integer":
        most = schema.get("maximum", 2**63 - 1 if schema.get("format") == "int64" else 2**31 - 1)
        yield path, most, most + 1
    if "maxItems" in schema:
        yield path, ["a"] * schema["maxItems"], ["a"] * (schema["maxItems"] + 1)
    if "maxProperties" in schema:
        names = [f"n{number}" for number in range(schema["maxProperties"] + 1)]
        yield path, dict.fromkeys(names[:-1], "a"), dict.fromkeys(names, "a")
    if kind == "array":
        for where, good, bad in bounds(schema["items"], path):
            if where == path:
                yield path, [good], [bad]
    for name, member in schema.get("properties", {}).items():
        yield from bounds(member, (*path, name))


def least(operation: str) -> dict[str, Any]:
    schema = resolved({"$ref": OPERATIONS[REQUESTS[operation]]["request"]})
    return {name: copy.deepcopy(LEAST[name]) for name in schema["required"]}


def with_member(body: dict[str, Any], path: Path, value: Any) -> dict[str, Any]:
    inner = body
    for name in path[:-1]:
        inner = inner.setdefault(name, {"unit": "TOKENS", "amount": 1} if name == "overage" else {})
    inner[path[-1]] = value
    return body


CASES = [
    (operation, *case) for operation, name in REQUESTS.items() for case in bounds({"$ref": OPERATIONS[name]["request"]})
]


def test_bounds_were_found() -> None:
    assert len(CASES) > 80
    assert {path[-1] for _, path, _, _ in CASES} >= {"idempotency_key", "tenant", "amount", "ttl_ms", "extend_by_ms"}


@pytest.mark.parametrize(
    ("operation", "path", "good", "bad"),
    CASES,
    ids=[f"{of}-{'.'.join(path)}-{n}" for n, (of, path, *_) in enumerate(CASES)],
)
def test_each_bound_of_a_request(operation: str, path: Path, good: Any, bad: Any) -> None:
    checked(operation, with_member(least(operation), path, good), NEXT_SHAPES)
    with pytest.raises(ApiError, match=re.escape(".".join(path))) as caught:
        checked(operation, with_member(least(operation), path, bad), NEXT_SHAPES)
    assert caught.value.status == 400


@pytest.mark.parametrize("operation", REQUESTS)
def test_each_required_member(operation: str) -> None:
    for name in least(operation):
        body = least(operation)
        del body[name]
        with pytest.raises(ApiError, match=name):
            checked(operation, body)


def test_a_body_of_the_most_bytes_and_levels_is_read() -> None:
    assert decode(b'"' + b"a" * (MAX_BODY_BYTES - 2) + b'"')
    with pytest.raises(ApiError) as caught:
        decode(b'"' + b"a" * (MAX_BODY_BYTES - 1) + b'"')
    assert caught.value.status == 413
    assert decode(b"[" * MAX_NESTING + b"]" * MAX_NESTING)
    with pytest.raises(ApiError, match=f"at most {MAX_NESTING} levels"):
        decode(b"[" * (MAX_NESTING + 1) + b"]" * (MAX_NESTING + 1))
    assert decode(b"[" + b"[]," * MAX_NESTING + b"[]]"), "many, but not deep"
    assert decode(b"[[]," + b"[" * (MAX_NESTING - 1) + b"]" * (MAX_NESTING - 1) + b"]")
    for before, after in ((b"[[],", b"]"), (b'{"a":[],"b":', b"}")):
        with pytest.raises(ApiError, match=f"at most {MAX_NESTING} levels"):
            decode(before + b"[" * MAX_NESTING + b"]" * MAX_NESTING + after)


def test_a_byte_order_mark_is_no_part_of_a_body() -> None:
    assert decode(b"\xef\xbb\xbf" + json.dumps({"a": 1}).encode()) == {"a": 1}


@pytest.mark.parametrize("character", ["a", "\u4e2d", "\U0001f600"], ids=["ascii", "basic", "beyond"])
def test_an_id_of_the_path_has_at_most_128_utf_16_units(character: str) -> None:
    most = MAX_ID_LENGTH // (len(character.encode("utf-16-le")) // 2)
    require_id_length(character * most)
    for wrong in ("", character * (most + 1)):
        with pytest.raises(ApiError, match="reservation_id: must have 1 to 128 characters"):
            require_id_length(wrong)


def test_a_name_that_is_no_member_is_wrong_with_null_too() -> None:
    wrong = ("other", "another")
    with pytest.raises(ApiError) as caught:
        checked("release", {"idempotency_key": "k", "reason": None, "other": None, "another": 1})
    assert caught.value.message == "; ".join(f"{name}: is not a member of this request" for name in wrong)
