"""Values that cannot be sent: rejected where they are passed, and omitted where an error would lose an amount."""

from __future__ import annotations

import json
from collections import UserDict, defaultdict
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, strategies as st

from cycles._core.values.json_values import MAX_DEPTH, clean_json, clean_object, salvage_json
from cycles._errors import InvalidRequestError


class Colour(StrEnum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Broken(dict[str, Any]):
    def items(self) -> Any:
        raise RuntimeError("lazy value went away")


LOOP: dict[str, Any] = {}
LOOP["self"] = LOOP

POISON = [
    (datetime(2026, 1, 1, tzinfo=UTC), "isoformat"),
    (date(2026, 1, 1), "isoformat"),
    (Decimal("0.1"), r"str\(\)"),
    (b"raw", "base64"),
    ({1, 2}, "sorted list"),
    (frozenset([1]), "sorted list"),
    (UUID(int=1), r"str\(\)"),
    (object(), "JSON"),
    (float("nan"), "nan"),
    (float("-inf"), "-inf"),
    (2**63, "64 bits"),
    ("half \ud800", "surrogate"),
    ({1: "x"}, "must be a string"),
    (LOOP, "contains itself"),
    (1j, "JSON"),
]


@pytest.mark.parametrize(("value", "says"), POISON)
def test_a_value_that_is_no_json_is_rejected_when_it_is_passed(value: Any, says: str) -> None:
    with pytest.raises(InvalidRequestError, match=says) as caught:
        clean_json({"run": {"steps": [1, value]}}, "metadata")
    assert str(caught.value).startswith("metadata.run.steps[1]")


@pytest.mark.parametrize("value", [value for value, _ in POISON])
def test_a_value_that_is_no_json_is_omitted_at_settlement_and_the_rest_is_kept(value: Any) -> None:
    kept, left_out = salvage_json({"model": "m", "run": {"bad": value, "good": 1}})
    assert kept["model"] == "m"
    assert kept["run"]["good"] == 1
    assert left_out
    assert all(place.startswith("metadata.run.bad") for place in left_out)
    json.dumps(kept, allow_nan=False).encode()


def test_members_after_one_that_is_omitted_are_kept() -> None:
    kept, left_out = salvage_json({"a": b"x", 1: 2, "b": {2: 3, "c": 4}, "d": 5})
    assert (kept, left_out) == ({"b": {"c": 4}, "d": 5}, ["metadata.a", "metadata[1]", "metadata.b[2]"])


def test_a_value_that_raises_while_it_is_read_is_omitted() -> None:
    assert salvage_json(Broken(x=1)) == (None, ["metadata"])


def test_items_of_a_list_keep_their_order() -> None:
    assert salvage_json([1, b"x", 3], "custom") == ([1, None, 3], ["custom[1]"])


def test_what_is_json_at_heart_is_taken_as_plain_values() -> None:
    given_ = UserDict({"c": Colour.RED, "l": Level.HIGH, "t": (1, 2), "d": defaultdict(int, a=1), Colour.RED: None})
    plain = clean_json(given_, "metadata")
    assert plain == {"c": "red", "l": 3, "t": [1, 2], "d": {"a": 1}, "red": None}
    assert [type(value) for value in plain.values()] == [str, int, list, dict, type(None)]


def test_the_copy_does_not_follow_its_original() -> None:
    given_ = {"tags": ["a"]}
    plain = clean_json(given_, "metadata")
    given_["tags"].append("b")
    assert plain == {"tags": ["a"]}


def test_metadata_must_be_a_mapping() -> None:
    with pytest.raises(InvalidRequestError, match="metadata must be a mapping"):
        clean_object(["a"], "metadata")


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_every_json_value_passes_unchanged(value: Any) -> None:
    assert clean_json(value, "metadata") == value
    assert salvage_json(value) == (value, [])


@pytest.mark.parametrize("wrap", [lambda value: [value], lambda value: (value,), lambda value: {"in": value}])
def test_levels_of_each_kind_are_counted(wrap: Any) -> None:
    value: Any = 1
    for _ in range(MAX_DEPTH):
        value = wrap(value)
    clean_json(value, "metadata")
    with pytest.raises(InvalidRequestError, match="is nested too deeply: it has more than 32 levels"):
        clean_json(wrap(value), "metadata")


def test_a_list_that_contains_itself_is_rejected_and_never_sent() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InvalidRequestError, match="contains itself"):
        clean_json(loop, "metadata")
    _, omitted = salvage_json({"a": 1, "loop": loop})
    assert [name.startswith("metadata.loop[0]") for name in omitted] == [True]
