"""Each bound of the protocol's schemas holds in evidence: a value at the bound is accepted, one beyond it is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cycles._evidence.payload import payload_problem
from cycles_client import protocol
from tests.evidence.kit import REQUEST, reserve
from tests.evidence.test_rules import AMOUNT, COMMIT, RELEASE, decide, error

Build = Callable[[Any], Any]
VALUES: dict[str, Any] = {
    "Action": {"kind": "k", "name": "n"},
    "Amount": AMOUNT,
    "Balance": {"scope": "s", "scope_path": "s", "remaining": AMOUNT},
    "Caps": {},
    "SignedAmount": AMOUNT,
    "StandardMetrics": {},
    "Subject": {"tenant": "t"},
}
"""A valid value of each object inside the requests and responses."""
NOT_SIGNED = {"cycles_evidence", "policy_keys", "remaining_ttl_ms"}


def probes(schema: dict[str, Any], build: Build) -> Iterator[tuple[Any, Any]]:
    """Yield pairs: what has a value at a bound of a schema, and the same beyond that bound."""
    value: Any = {}
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        value, schema = VALUES.get(name, {}), protocol.SCHEMAS[name]
    match schema.get("type"):
        case "string":
            for word, beyond in (("maxLength", 1), ("minLength", -1)):
                if word in schema:
                    yield build("x" * schema[word]), build("x" * (schema[word] + beyond))
        case "integer":
            for word, beyond in (("maximum", 1), ("minimum", -1)):
                if word in schema:
                    yield build(schema[word]), build(schema[word] + beyond)
        case "array":
            item = VALUES.get(schema["items"].get("$ref", "").rpartition("/")[2], "x")
            if "maxItems" in schema:
                yield build([item] * schema["maxItems"]), build([item] * (schema["maxItems"] + 1))
            yield from probes(schema["items"], lambda each: build([each]))
        case "object":
            for absent in value.keys() & set(schema.get("required", ())):
                yield build(value), build({member: each for member, each in value.items() if member != absent})
            for member, of_member in schema.get("properties", {}).items():
                if member not in NOT_SIGNED:
                    yield from probes(of_member, inside(build, value, member))
            if "maxProperties" in schema:
                many = {f"n{number}": "x" for number in range(schema["maxProperties"] + 1)}
                yield build(dict(list(many.items())[1:])), build(many)
            if isinstance(of_others := schema.get("additionalProperties"), dict):
                yield from probes(of_others, lambda each: build({"x": each}))


def inside(build: Build, value: dict[str, Any], member: str) -> Build:
    """Return a function that builds what has a value as the member of another one."""
    return lambda each: build({**value, member: each})


def both(artifact: dict[str, Any], part: str) -> Build:
    """Return a function that puts members into the request or the response of an artifact."""
    ((kind, content),) = artifact["payload"].items()
    return lambda members: (kind, {**content, part: {**content[part], **members}})


PLACES = {
    "DecisionRequest": both(decide(REQUEST), "request"),
    "DecisionResponse": both(decide(decision="ALLOW_WITH_CAPS", caps={}), "response"),
    "ReservationCreateRequest": both(reserve(), "request"),
    "ReservationCreateResponse": both(reserve(decision="ALLOW_WITH_CAPS", caps={}), "response"),
    "CommitRequest": both({"payload": {"commit": COMMIT}}, "request"),
    "CommitResponse": both({"payload": {"commit": COMMIT}}, "response"),
    "ReleaseRequest": both({"payload": {"release": RELEASE}}, "request"),
    "ReleaseResponse": both({"payload": {"release": RELEASE}}, "response"),
}


@pytest.mark.parametrize("name", PLACES)
def test_a_value_at_a_bound_is_accepted_and_one_beyond_it_is_not(name: str) -> None:
    found = list(probes({"$ref": name}, PLACES[name]))
    assert found
    assert [payload for payload, _ in found if payload_problem(*payload) is not None] == []
    assert [payload for _, payload in found if payload_problem(*payload) is None] == []


@pytest.mark.parametrize("name", PLACES)
def test_each_required_member_of_a_request_or_a_response_is_required(name: str) -> None:
    kind, content = PLACES[name]({})
    part = "request" if name.endswith("Request") else "response"
    absent = protocol.SCHEMAS[name]["required"]
    problems = [
        payload_problem(kind, {**content, part: {m: v for m, v in content[part].items() if m != each}})
        for each in absent
    ]
    assert problems == [f"{kind}.{part}.{each}: is required" for each in absent]


@pytest.mark.parametrize("status", [399, 400, 599, 600])
def test_an_error_has_the_status_of_one(status: int) -> None:
    ((kind, content),) = error(http_status=status)["payload"].items()
    assert (payload_problem(kind, content) is None) == (status in (400, 599))
