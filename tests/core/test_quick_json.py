"""The short ways to read a response and to write a request give what the long ways give."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, strategies as st

from cycles._core.messages.outcome import _value
from cycles._errors import InvalidRequestError
from cycles._wire import wire

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1")
BROKEN = ("", " ", "{", '{"a"', "[1,]", "1 2", '"\x00"', "NaN", '{"a": 1}x', "[" * 100_000, "9" * 5_000, '"\\ud800"')


def plainly(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return {}


def same(left: Any, right: Any) -> bool:
    return bool(repr(left) == repr(right))  # NaN is not equal to itself; 1 and True are


@given(VALUES, st.sampled_from(ENCODINGS), st.sampled_from(("", " ", "\n")), st.booleans())
def test_a_body_is_read_as_json_reads_it(value: Any, encoding: str, around: str, escaped: bool) -> None:
    text = f"{around}{json.dumps(value, ensure_ascii=escaped)}{around}"
    body = text.encode(encoding, "replace")
    assert same(_value(body)[0], plainly(body))


@pytest.mark.parametrize("text", BROKEN, ids=lambda text: repr(text[:9]))
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_broken_body_is_read_as_json_reads_it(text: str, encoding: str) -> None:
    body = text.encode(encoding)
    value, problem = _value(body)
    assert same(value, plainly(body))
    assert (problem is None) == (text in ("NaN", '"\\ud800"') and value != {})


@pytest.mark.parametrize(
    ("body", "problem"),
    [(b"", "its body is empty"), (b" \n", "its body is empty"), (b"<p>busy</p>", "its body is not JSON")],
)
def test_what_is_wrong_with_a_body_is_said(body: bytes, problem: str) -> None:
    assert _value(body) == ({}, problem)


@given(st.binary(max_size=12))
def test_any_bytes_are_read_as_json_reads_them(body: bytes) -> None:
    assert same(_value(body)[0], plainly(body))


@given(VALUES)
def test_a_request_is_written_as_json_writes_it(value: Any) -> None:
    assert wire._json(value) == json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def circular() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["again"] = [value]
    return value


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (circular(), "Circular reference detected"),
        ({"a": float("nan")}, "Out of range float"),
        ({"a": object()}, "is not JSON serializable"),
        ({("a",): 1}, "keys must be str"),
    ],
)
def test_a_request_that_is_not_json_names_the_reason(value: Any, problem: str) -> None:
    with pytest.raises(InvalidRequestError, match=problem):
        wire._json(value)


@given(st.text() | st.from_regex(r"[a-z0-9-]+", fullmatch=True))
def test_a_plain_id_is_its_own_quoted_form(value: str) -> None:
    assert not wire._is_url_safe(value) or (quote(value, safe="") == value and value not in ("", ".", ".."))


def test_the_id_of_a_reservation_is_plain() -> None:
    assert wire._is_url_safe("01234567-89ab-cdef-0123-456789abcdef")
    assert not any(map(wire._is_url_safe, ("", "-", "a/b", "a.b", "é", "a b", 1, None)))
