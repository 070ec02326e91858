"""One schema, checked strictly for requests and tolerantly for responses. See `docs/protocol/responses.md#success`."""

from __future__ import annotations

from typing import Any

import pytest

from cycles._core.messages.schema import Checkers

SCHEMAS: dict[str, Any] = {
    "Amount": {
        "type": "object",
        "required": ["unit", "amount"],
        "additionalProperties": False,
        "properties": {"unit": {"type": "string", "enum": ["A"]}, "amount": {"type": "integer", "minimum": 0}},
    },
    "Thing": {
        "type": "object",
        "required": ["name", "cost"],
        "additionalProperties": False,
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 3},
            "cost": {"$ref": "Amount"},
            "left": {"type": "integer", "minimum": 0},
            "tags": {"type": "array", "maxItems": 2, "items": {"type": "string"}},
            "labels": {"type": "object", "additionalProperties": {"type": "string", "maxLength": 2}},
            "maybe": {"type": ["integer", "null"]},
            "share": {"type": "number", "maximum": 1},
            "due": {"type": "string", "format": "date-time"},
            "both": {"allOf": [{"type": "integer", "minimum": 3}, {"type": "integer", "maximum": 5}]},
            "either": {"anyOf": [{"type": "string"}, {"type": "integer", "minimum": 0}]},
        },
        "anyOf": [{"required": ["name"]}, {"required": ["left"]}],
    },
}
GOOD = {"name": "n", "cost": {"unit": "A", "amount": 1}}


@pytest.mark.parametrize(
    ("change", "request_problem", "answer_problem"),
    [
        ({}, None, None),
        ({"name": None}, "name: is required", "name: is required"),
        ({"name": ""}, "at least 1 characters", "at least 1 characters"),
        ({"cost": {"unit": "A"}}, "cost.amount: is required", "cost.amount: is required"),
        ({"cost": {"unit": "A", "amount": True}}, "must be integer", "must be integer"),
        ({"cost": {"unit": "A", "amount": "1"}}, "must be integer", "must be integer"),
        ({"cost": {"unit": "A", "amount": 1.0}}, "must be integer", "must be integer"),
        ({"cost": {"unit": "A", "amount": -1}}, "0 or more", "0 or more"),
        ({"cost": {"unit": "A", "amount": 2**63}}, "64 bits", "64 bits"),
        ({"maybe": -(2**63) - 1}, "64 bits", "64 bits"),
        ({"maybe": -(2**63)}, None, None),
        ({"maybe": 2**63 - 1}, None, None),
        ({"cost": {"unit": "NEW", "amount": 1}}, "one of A", None),
        ({"cost": {"unit": "A", "amount": 1, "new": 1}}, "no such member", None),
        ({"left": -1}, "0 or more", None),
        ({"left": "1"}, "must be integer", "must be integer"),
        ({"left": None}, "must be integer", None),
        ({"maybe": None}, None, None),
        ({"tags": ["a", 1]}, "tags[1]: must be string", "tags[1]: must be string"),
        ({"tags": "ab"}, "must be array", "must be array"),
        ({"tags": ["a", "b", "c"]}, "at most 2 items", None),
        ({"labels": {"k": "abc"}}, "labels.k: must have at most 2", "labels.k: must have at most 2"),
        ({"share": 1}, None, None),
        ({"share": 1.5}, "share: must be 1 or less, got 1.5", None),
        ({"due": "2026-11-30T08:00:00Z"}, None, None),
        ({"due": "2026-11-30T08:00:00"}, "due: must be a date and time with a zone", "due: must be a date and time"),
        ({"due": "soon"}, "due: must be a date and time with a zone, got 'soon'", "due: must be a date and time"),
        ({"both": 2}, "both: must be 3 or more", None),
        ({"both": 6}, "both: must be 5 or less", None),
        ({"both": "4"}, "both: must be integer", "both: must be integer"),
        ({"either": "a"}, None, None),
        ({"either": 0}, None, None),
        ({"either": -1}, "either: must be string", None),
        ({"either": None}, "either: must be string", None),
        ({"either": []}, "either: must be string", "either: must be string"),
        ({"new": object()}, "no such member", None),
    ],
)
def test_a_request_must_match_the_schema_exactly_and_a_response_may_have_more(
    change: dict[str, Any], request_problem: str | None, answer_problem: str | None
) -> None:
    value = {**GOOD, **change}
    for responses, expected in ((False, request_problem), (True, answer_problem)):
        problem = Checkers(SCHEMAS, responses=responses)["Thing"](value, "")
        if expected is None:
            assert problem is None
        else:
            assert problem is not None
            assert expected in problem


def test_what_is_wrong_is_named_without_repeating_a_whole_body() -> None:
    problem = Checkers(SCHEMAS, responses=True)["Thing"]({"name": "n", "cost": ["x" * 100_000] * 50}, "")
    assert problem is not None
    assert len(problem) < 200
