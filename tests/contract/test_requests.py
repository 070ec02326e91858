"""Requests: fields, bodies, and the order of checks."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cycles.embedded.validation import MAX_BODY_BYTES

from .kit import ABSENT, Api, Response, Target, fresh_key

INVALID = (400, "INVALID_REQUEST")


# --- fields -----------------------------------------------------------------------------------------------------------

KINDS = ("reserve", "decide", "event")
BAD_SHARED: list[tuple[str, dict[str, Any]]] = [
    ("idempotency_key", {"idempotency_key": ABSENT}),
    ("idempotency_key", {"idempotency_key": None}),
    ("idempotency_key", {"idempotency_key": ""}),
    ("idempotency_key", {"idempotency_key": "k" * 257}),
    ("idempotency_key", {"idempotency_key": "\N{ROCKET}" * 129}),  # counted in UTF-16 units
    ("subject", {"subject": ABSENT}),
    ("subject", {"subject": None}),
    ("subject", {"subject": "tenant-a"}),
    ("subject", {"subject": {}}),
    ("subject", {"subject": {"dimensions": {"a": "b"}}}),
    ("subject.team", {"subject": {"tenant": "tenant-a", "team": "x"}}),
    ("subject.agent", {"subject": {"tenant": "tenant-a", "agent": ""}}),
    ("subject.agent", {"subject": {"tenant": "tenant-a", "agent": "a b"}}),
    ("subject.agent", {"subject": {"tenant": "tenant-a", "agent": "a/b"}}),
    ("subject.agent", {"subject": {"tenant": "tenant-a", "agent": "a\n"}}),
    ("subject.agent", {"subject": {"tenant": "tenant-a", "agent": "é"}}),
    ("subject.agent", {"subject": {"tenant": "tenant-a", "agent": "a" * 129}}),
    ("subject.dimensions", {"subject": {"tenant": "tenant-a", "dimensions": {str(n): "" for n in range(17)}}}),
    ("subject.dimensions.k", {"subject": {"tenant": "tenant-a", "dimensions": {"k": "v" * 257}}}),
    ("action", {"action": ABSENT}),
    ("action.kind", {"action": {"name": "n"}}),
    ("action.name", {"action": {"kind": "k"}}),
    ("action.kind", {"action": {"kind": " \t", "name": "n"}}),
    ("action.name", {"action": {"kind": "k", "name": ""}}),
    ("action.kind", {"action": {"kind": "k" * 65, "name": "n"}}),
    ("action.name", {"action": {"kind": "k", "name": "n" * 257}}),
    ("action.tags", {"action": {"kind": "k", "name": "n", "tags": ["t"] * 11}}),
    ("action.tags[1]", {"action": {"kind": "k", "name": "n", "tags": ["", "t" * 65]}}),
    ("action.tags", {"action": {"kind": "k", "name": "n", "tags": "t"}}),
    ("action.extra", {"action": {"kind": "k", "name": "n", "extra": 1}}),
    ("metadata", {"metadata": []}),
    ("metadata", {"metadata": "text"}),
    ("surprise", {"surprise": 1}),
]
BAD_AMOUNTS: list[Any] = [
    None,
    5,
    {"unit": "TOKENS"},
    {"amount": 5},
    {"unit": "tokens", "amount": 5},
    {"unit": "", "amount": 5},
    {"unit": "EUR", "amount": 5},
    {"unit": "TOKENS", "amount": -1},
    {"unit": "TOKENS", "amount": 2**63},
    {"unit": "TOKENS", "amount": True},
    {"unit": "TOKENS", "amount": [5]},
    {"unit": "TOKENS", "amount": 5, "currency": "x"},
]
BAD_METRICS: list[tuple[str, Any]] = [
    ("metrics", []),
    ("metrics.tokens_input", {"tokens_input": -1}),
    ("metrics.tokens_output", {"tokens_output": 2**31}),
    ("metrics.model_version", {"model_version": "m" * 129}),
    ("metrics.custom", {"custom": []}),
    ("metrics.cost", {"cost": 1}),
]


def assert_invalid(response: Response, field: str) -> None:
    assert response.outcome == INVALID, response.body
    assert response.mentions(field)
    assert response.body.keys() == {"error", "message", "request_id", "trace_id"}


@pytest.mark.parametrize(("field", "fields"), BAD_SHARED)
def test_fields_of_every_request_with_a_subject(api: Api, field: str, fields: dict[str, Any]) -> None:
    for kind in KINDS:
        assert_invalid(getattr(api, kind)(**fields), field)


@pytest.mark.parametrize("name", ["n" * 256, "é" * 256, "\N{ROCKET}" * 128], ids=["ascii", "accents", "rockets"])
def test_the_longest_name_of_any_alphabet_is_valid(api: Api, name: str) -> None:
    assert api.decide(action={"kind": "k" * 64, "name": name}).status == 200


@pytest.mark.parametrize("bad", BAD_AMOUNTS)
def test_amounts(api: Api, bad: Any) -> None:
    assert_invalid(api.reserve(estimate=bad), "estimate")
    assert_invalid(api.decide(estimate=bad), "estimate")
    assert_invalid(api.event(actual=bad), "actual")
    assert_invalid(api.commit("x", actual=bad), "actual")


@pytest.mark.parametrize(("field", "metrics"), BAD_METRICS)
def test_metrics(api: Api, field: str, metrics: Any) -> None:
    assert_invalid(api.commit("x", metrics=metrics), field)
    assert_invalid(api.event(metrics=metrics), field)


@pytest.mark.parametrize(
    ("operation", "fields"),
    [
        ("reserve", {"ttl_ms": 999}),
        ("reserve", {"ttl_ms": 86_400_001}),
        ("reserve", {"grace_period_ms": -1}),
        ("reserve", {"grace_period_ms": 60_001}),
        ("reserve", {"overage_policy": "reject"}),
        ("reserve", {"overage_policy": ""}),
        ("reserve", {"dry_run": "yes"}),
        ("reserve", {"actual": {"unit": "TOKENS", "amount": 1}}),
        ("decide", {"ttl_ms": 60_000}),
        ("decide", {"overage_policy": "REJECT"}),
        ("decide", {"dry_run": False}),
        ("event", {"client_time_ms": -1}),
        ("event", {"client_time_ms": 2**63}),
        ("event", {"ttl_ms": 60_000}),
        ("event", {"overage_policy": "SOMETIMES"}),
    ],
)
def test_fields_of_one_operation(api: Api, operation: str, fields: dict[str, Any]) -> None:
    assert_invalid(getattr(api, operation)(**fields), next(iter(fields)))


def test_fields_of_commit_release_and_extend(api: Api) -> None:
    assert_invalid(api.commit("x", overage_policy="REJECT"), "overage_policy")
    assert_invalid(api.release("x", reason="r" * 257), "reason")
    assert_invalid(api.release("x", metadata={}), "metadata")
    for bad in (0, 86_400_001, None, ABSENT):
        assert_invalid(api.extend("x", extend_by_ms=bad), "extend_by_ms")
    for settle in (api.commit, api.release, api.extend):
        assert_invalid(settle("x", idempotency_key=ABSENT), "idempotency_key")


@pytest.mark.embedded_only("other servers accept lenient values")
@pytest.mark.parametrize(
    "fields",
    [
        {"idempotency_key": 12},
        {"subject": {"tenant": "tenant-a", "agent": 7}},
        {"subject": {"tenant": "tenant-a", "dimensions": {"k": 1}}},
        {"estimate": {"unit": 1, "amount": 5}},
        {"estimate": {"unit": " TOKENS ", "amount": 5}},
        {"estimate": {"unit": "TOKENS", "amount": "5"}},
        {"estimate": {"unit": "TOKENS", "amount": 5.0}},
        {"estimate": {"unit": "TOKENS", "amount": ""}},
        {"ttl_ms": "60000"},
        {"ttl_ms": 6e4},
        {"grace_period_ms": ""},
        {"dry_run": "true"},
        {"dry_run": 1},
    ],
)
def test_lenient_values_are_rejected(target: Target, fields: dict[str, Any]) -> None:
    assert_invalid(target.api.reserve(**fields), next(iter(fields)))
    assert target.numbers() == (1_000_000, 0, 0, 0)


def test_values_at_the_limits_are_accepted(target: Target) -> None:
    fields = {
        "idempotency_key": " " * 256,
        "subject": {"tenant": "tenant-a", "agent": "A-z_0.9" + "x" * 121, "dimensions": {" any key ": "v" * 256}},
        "action": {"kind": "k" * 64, "name": "n" * 256, "tags": ["t" * 64] * 10},
    }
    assert target.api.reserve(0, ttl_ms=1000, grace_period_ms=60_000, metadata={}, **fields).status == 200
    assert target.api.event(0, client_time_ms=2**63 - 1, metrics={}, metadata=None, **fields).status == 201
    assert target.api.decide(0, metadata={"deep": [[[{}]]]}, **fields).status == 200


def test_one_response_names_every_wrong_field(api: Api) -> None:
    response = api.reserve(idempotency_key=ABSENT, ttl_ms=1, surprise=True)
    for field in ("idempotency_key", "ttl_ms", "surprise"):
        assert_invalid(response, field)


# --- bodies -----------------------------------------------------------------------------------------------------------

NOT_JSON = [
    b"",
    b"null",
    b"[]",
    b'"text"',
    b"5",
    b"{",
    b"{} {}",
    b"{'a': 1}",
    b'{"a": NaN}',
    b"\xff\xfe",
    b"[" * 100_000,
]


def raw(api: Api, content: bytes, content_type: str | None = "application/json", path: str = "/v1/events") -> Response:
    headers = {} if content_type is None else {"Content-Type": content_type}
    return api.response(api.http.post(path, content=content, headers=headers))


@pytest.mark.parametrize("content", NOT_JSON, ids=range(len(NOT_JSON)))
def test_a_body_that_is_not_a_json_object_is_a_400(api: Api, content: bytes) -> None:
    assert raw(api, content).outcome == INVALID


@pytest.mark.parametrize(
    ("metadata", "outcome"),
    [
        ('{"a":' * 150 + "1" + "}" * 150, (201, None)),
        ('{"a":' * 400 + "1" + "}" * 400, (201, None)),
        ('{"a":' * 1200 + "1" + "}" * 1200, INVALID),
        ('{"a":' + "[" * 1200 + "]" * 1200 + "}", INVALID),
        ('{"a": [' + "{}," * 300 + "{}]}", (201, None)),  # many members, but not deep
        ('{"a": ' + "9" * 5000 + "}", INVALID),
        ('{"a": -Infinity}', INVALID),
        ('{"a": 123456789012345678901234567890}', (201, None)),
    ],
)
def test_the_limits_of_metadata(target: Target, metadata: str, outcome: tuple[int, str | None]) -> None:
    body = json.dumps(target.api.who({"actual": {"unit": "TOKENS", "amount": 7}}))
    assert raw(target.api, (body[:-1] + f', "metadata": {metadata}}}').encode()).outcome == outcome


@pytest.mark.embedded_only("the reference server has another bound")
@pytest.mark.parametrize(
    ("opens", "closes", "outcome"),
    [
        ('{"a":' * 498 + "[]", "}" * 498, (201, None)),
        ('{"a":' * 500 + "[]", "}" * 500, INVALID),
        ('{"a":' + "[" * 498, "]" * 498 + "}", (201, None)),
        ('{"a":' + "[" * 500, "]" * 500 + "}", INVALID),
        ('{"a":' + "[{}," * 497 + "1", "]" * 497 + "}", (201, None)),  # many more brackets than levels
    ],
)
def test_metadata_of_500_levels_and_more(target: Target, opens: str, closes: str, outcome: tuple[int, str]) -> None:
    test_the_limits_of_metadata(target, opens + closes, outcome)


@pytest.mark.embedded_only("the reference server accepts it")
def test_a_number_beyond_a_float_is_a_400(api: Api) -> None:
    assert raw(api, b'{"idempotency_key": 1e999}').outcome == INVALID
    assert raw(api, b'{"idempotency_key": 1e999}').mentions("does not fit")


def test_an_absent_body_is_a_400(api: Api) -> None:
    assert raw(api, b"", None).outcome == INVALID


@pytest.mark.embedded_only("the reference server has no bound")
def test_a_body_that_is_too_big_is_a_413(target: Target) -> None:
    assert raw(target.api, b" " * (MAX_BODY_BYTES + 1)).outcome == (413, "INVALID_REQUEST")
    assert target.api.balances().status == 200


def test_the_last_of_repeated_members_counts(target: Target) -> None:
    body = json.dumps(target.api.who({"actual": {"unit": "TOKENS", "amount": 7}}))
    response = raw(target.api, (body[:-1] + ', "actual": {"unit": "TOKENS", "amount": 9}}').encode())
    assert response.numbers == (999_991, 0, 9, 0)


@pytest.mark.embedded_only("the reference server returns 500")
@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonp"])
def test_a_body_without_a_json_content_type_is_a_415(target: Target, content_type: str | None) -> None:
    response = raw(target.api, b"{}", content_type)
    assert response.outcome == (415, "INVALID_REQUEST")


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON", "application/x+json"])
def test_json_content_types_are_accepted(api: Api, content_type: str) -> None:
    assert raw(api, b"{}", content_type).outcome == INVALID


# --- which check comes first ------------------------------------------------------------------------------------------


def test_the_header_key_must_equal_the_body_key(target: Target) -> None:
    key = fresh_key()
    assert target.api.reserve(idempotency_key=key, headers={"X-Idempotency-Key": key}).status == 200
    for other in (fresh_key(), ""):
        assert target.api.reserve(headers={"X-Idempotency-Key": other}).outcome == INVALID
        assert target.api.commit("unknown", headers={"X-Idempotency-Key": other}).outcome == INVALID
    assert target.api.reserve(idempotency_key=ABSENT, headers={"X-Idempotency-Key": key}).outcome == INVALID
    # and the header is not part of the stored payload
    assert target.api.reserve(idempotency_key=key).status == 200


def test_a_header_mismatch_precedes_403_and_404(target: Target) -> None:
    wrong = {"X-Idempotency-Key": "other"}
    rid = target.api.held()
    assert target.other.commit(rid, headers=wrong).outcome == INVALID
    assert target.api.reserve(subject={"tenant": "tenant-b"}, headers=wrong).outcome == INVALID


def test_the_body_is_checked_before_the_id_and_the_tenant(target: Target) -> None:
    assert target.api.commit("x" * 129, actual=None).mentions("actual")
    assert target.api.commit("x" * 129).mentions("reservation_id")
    subject = {"tenant": "tenant-b", "agent": "a b"}
    assert target.api.reserve(subject=subject).outcome == INVALID


def test_another_tenants_subject_is_403_before_the_ledger(target: Target) -> None:
    for kind in KINDS:
        for tenant in ("tenant-b", "Tenant-A", "nobody"):
            assert getattr(target.api, kind)(subject={"tenant": tenant}).outcome == (403, "FORBIDDEN")
