"""Requests: fields, bodies, routes, the order of checks, keys, and the headers of every response."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from cycles.embedded.framework import MAX_HEAD_BYTES
from cycles.embedded.validation import MAX_BODY_BYTES

from .kit import ABSENT, Api, Response, World, fresh_key

INVALID = (400, "INVALID_REQUEST")
UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
HEX32 = re.compile(r"[0-9a-f]{32}")


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
def test_lenient_values_are_rejected(world: World, fields: dict[str, Any]) -> None:
    assert_invalid(world.api.reserve(**fields), next(iter(fields)))
    assert world.numbers() == (1_000_000, 0, 0, 0)


def test_values_at_the_limits_are_accepted(world: World) -> None:
    fields = {
        "idempotency_key": " " * 256,
        "subject": {"tenant": "tenant-a", "agent": "A-z_0.9" + "x" * 121, "dimensions": {" any key ": "v" * 256}},
        "action": {"kind": "k" * 64, "name": "n" * 256, "tags": ["t" * 64] * 10},
    }
    assert world.api.reserve(0, ttl_ms=1000, grace_period_ms=60_000, metadata={}, **fields).status == 200
    assert world.api.event(0, client_time_ms=2**63 - 1, metrics={}, metadata=None, **fields).status == 201
    assert world.api.decide(0, metadata={"deep": [[[{}]]]}, **fields).status == 200


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
def test_the_limits_of_metadata(world: World, metadata: str, outcome: tuple[int, str | None]) -> None:
    body = json.dumps(world.api.who({"actual": {"unit": "TOKENS", "amount": 7}}))
    assert raw(world.api, (body[:-1] + f', "metadata": {metadata}}}').encode()).outcome == outcome


@pytest.mark.embedded_only("the reference server accepts it")
def test_a_number_beyond_a_float_is_a_400(api: Api) -> None:
    assert raw(api, b'{"idempotency_key": 1e999}').outcome == INVALID
    assert raw(api, b'{"idempotency_key": 1e999}').mentions("does not fit")


def test_an_absent_body_is_a_400(api: Api) -> None:
    assert raw(api, b"", None).outcome == INVALID


@pytest.mark.embedded_only("the reference server has no bound")
def test_a_body_that_is_too_big_is_a_413(world: World) -> None:
    assert raw(world.api, b" " * (MAX_BODY_BYTES + 1)).outcome == (413, "INVALID_REQUEST")
    assert world.api.balances().status == 200


def test_the_last_of_repeated_members_counts(world: World) -> None:
    body = json.dumps(world.api.who({"actual": {"unit": "TOKENS", "amount": 7}}))
    response = raw(world.api, (body[:-1] + ', "actual": {"unit": "TOKENS", "amount": 9}}').encode())
    assert response.numbers == (999_991, 0, 9, 0)


@pytest.mark.embedded_only("the reference server returns 500")
@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonp"])
def test_a_body_without_a_json_content_type_is_a_415(world: World, content_type: str | None) -> None:
    response = raw(world.api, b"{}", content_type)
    assert response.outcome == (415, "INVALID_REQUEST")


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON", "application/x+json"])
def test_json_content_types_are_accepted(api: Api, content_type: str) -> None:
    assert raw(api, b"{}", content_type).outcome == INVALID


# --- routes -----------------------------------------------------------------------------------------------------------


@pytest.mark.embedded_only("the reference server returns 500")
@pytest.mark.parametrize("path", ["/", "/v1", "/v1/", "/v1/nothing", "/v2/decide", "/v1/decide/", "/v1/admin/budgets"])
def test_an_unknown_path_is_a_404(world: World, path: str) -> None:
    assert world.api.get(path).outcome == (404, "NOT_FOUND")
    assert world.anonymous.get(path).outcome == (401, "UNAUTHORIZED")  # the key is checked first


@pytest.mark.embedded_only("the reference server returns 500")
@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v1/decide", "POST"),
        ("DELETE", "/v1/reservations", "POST, GET, HEAD"),
        ("POST", "/v1/balances", "GET, HEAD"),
        ("PUT", "/v1/reservations/x/commit", "POST"),
        ("PATCH", "/v1/reservations/x", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_a_405(world: World, method: str, path: str, allow: str) -> None:
    response = world.api.call(method, path)
    assert (response.status, response.headers["Allow"]) == (405, allow)
    assert world.anonymous.call(method, path).status == 401


def test_an_id_is_one_decoded_segment(world: World) -> None:
    assert world.api.row("a%20commit").outcome == (404, "NOT_FOUND")
    assert world.api.row("a%20commit").mentions("a commit")


@pytest.mark.parametrize("path", ["/v1/balances?tenant=tenant-a", "/v1/reservations"])
def test_head_is_a_get_without_its_body(world: World, path: str) -> None:
    response = world.api.call("HEAD", path)
    assert (response.status, response.body) == (200, {})
    assert response.headers["X-Cycles-Tenant"] == "tenant-a"
    assert world.anonymous.call("HEAD", path).status == 401


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/balances", {"GET", "HEAD", "OPTIONS"}),
        ("/v1/reservations", {"POST", "GET", "HEAD", "OPTIONS"}),
        ("/v1/reservations/x/commit", {"POST", "OPTIONS"}),
    ],
)
def test_options_names_the_methods_of_a_path(world: World, path: str, methods: set[str]) -> None:
    response = world.api.call("OPTIONS", path)
    assert (response.status, set(response.headers["Allow"].split(","))) == (200, methods)
    assert "Content-Type" not in response.headers
    assert world.anonymous.call("OPTIONS", path).status == 401


# --- responses of the web framework -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rid", ["a;b", "a%3Bb", "a%25b", "/a"])
def test_a_suspicious_path_is_an_empty_403(world: World, rid: str) -> None:
    for api in (world.api, world.anonymous):
        response = api.row(rid)
        assert (response.status, response.body) == (403, {})
        assert "Content-Type" not in response.headers
        assert HEX32.fullmatch(response.headers["X-Cycles-Trace-Id"])
        assert "X-Cycles-Tenant" not in response.headers


@pytest.mark.parametrize("rid", ["a%2Fb", "a%00b", "a%5Cb"])
def test_an_encoded_separator_is_a_400_page(world: World, rid: str) -> None:
    assert_page(world.api.row(rid))


def test_a_head_that_is_too_large_is_a_400_page(world: World) -> None:
    assert_page(world.api.balances(tenant="x" * MAX_HEAD_BYTES))
    assert_page(world.api.get("/v1/balances", headers={"X-Long": "x" * MAX_HEAD_BYTES}))


def assert_page(response: Response) -> None:
    assert response.status == 400
    assert response.headers["Content-Type"].startswith("text/html")
    assert "X-Request-Id" not in response.headers


def test_an_accept_header_without_json_is_an_empty_403_after_the_operation(world: World) -> None:
    response = world.api.reserve(headers={"Accept": "text/plain"})
    assert (response.status, response.body) == (403, {})
    assert (response.headers["X-Cycles-Tenant"], "Content-Type" in response.headers) == ("tenant-a", False)
    assert world.numbers() == (999_000, 1_000, 0, 0)
    assert world.api.row("unknown").outcome == (404, "NOT_FOUND")
    for accept in ("*/*", "application/*", "text/plain, application/json;q=0.5", "application/vnd.x+json"):
        assert world.api.get("/v1/reservations", headers={"Accept": accept}).status == 200
    assert world.anonymous.get("/v1/reservations", headers={"Accept": "text/plain"}).outcome == (401, "UNAUTHORIZED")


# --- which check comes first ------------------------------------------------------------------------------------------


def test_the_header_key_must_equal_the_body_key(world: World) -> None:
    key = fresh_key()
    assert world.api.reserve(idempotency_key=key, headers={"X-Idempotency-Key": key}).status == 200
    for other in (fresh_key(), ""):
        assert world.api.reserve(headers={"X-Idempotency-Key": other}).outcome == INVALID
        assert world.api.commit("unknown", headers={"X-Idempotency-Key": other}).outcome == INVALID
    assert world.api.reserve(idempotency_key=ABSENT, headers={"X-Idempotency-Key": key}).outcome == INVALID
    # and the header is not part of the stored payload
    assert world.api.reserve(idempotency_key=key).status == 200


def test_a_header_mismatch_precedes_403_and_404(world: World) -> None:
    wrong = {"X-Idempotency-Key": "other"}
    rid = world.api.held()
    assert world.other.commit(rid, headers=wrong).outcome == INVALID
    assert world.api.reserve(subject={"tenant": "tenant-b"}, headers=wrong).outcome == INVALID


def test_the_body_is_checked_before_the_id_and_the_tenant(world: World) -> None:
    assert world.api.commit("x" * 129, actual=None).mentions("actual")
    assert world.api.commit("x" * 129).mentions("reservation_id")
    subject = {"tenant": "tenant-b", "agent": "a b"}
    assert world.api.reserve(subject=subject).outcome == INVALID


def test_another_tenants_subject_is_403_before_the_ledger(world: World) -> None:
    for kind in KINDS:
        for tenant in ("tenant-b", "Tenant-A", "nobody"):
            assert getattr(world.api, kind)(subject={"tenant": tenant}).outcome == (403, "FORBIDDEN")


# --- keys -------------------------------------------------------------------------------------------------------------


def keyed(world: World, key: str | None) -> Response:
    headers = {} if key is None else {"X-Cycles-API-Key": key}
    return world.anonymous.get("/v1/balances?tenant=tenant-a", headers=headers)


def test_the_reasons_for_a_401_in_order(world: World) -> None:
    now = world.clock.now_ms()
    secret = "cyc_live_abcdefghij"
    wrong = secret[:14] + "-wrong"
    assert keyed(world, None).mentions("missing")
    assert keyed(world, "").mentions("missing")
    steps: list[tuple[dict[str, Any], str, str]] = [
        ({"tenant": "tenant-a", "status": "REVOKED", "expires_at_ms": 0}, wrong, "KEY_REVOKED"),
        ({"tenant": "tenant-a", "status": "EXPIRED"}, wrong, "KEY_EXPIRED"),
        ({"tenant": "tenant-a", "expires_at_ms": now - 1}, wrong, "KEY_EXPIRED"),
        ({"tenant": None}, wrong, "INVALID_KEY"),
        ({"tenant": None}, secret, "KEY_NOT_OWNED_BY_TENANT"),
        ({"tenant": "tenant-s"}, secret, "TENANT_SUSPENDED"),
        ({"tenant": "tenant-c"}, secret, "TENANT_CLOSED"),
        ({"tenant": "tenant-a", "status": "SLEEPY"}, secret, "INTERNAL_ERROR"),
    ]
    world.ledger.set_tenant("tenant-s", status="SUSPENDED")
    world.ledger.set_tenant("tenant-c", status="CLOSED")
    for record, key, message in steps:
        world.ledger.set_api_key(secret, **record)
        response = keyed(world, key)
        assert (*response.outcome, response.body["message"]) == (401, "UNAUTHORIZED", message)
    world.ledger.set_api_key(secret, tenant="tenant-a", expires_at_ms=now)
    assert keyed(world, secret).status == 200
    assert keyed(world, "cyc_live_zzzzzzzz").body["message"] == "KEY_NOT_FOUND"


def test_keys_with_a_common_prefix_are_distinct(world: World) -> None:
    world.ledger.set_api_key("cyc_live_same_beginning_1", tenant="tenant-a")
    world.ledger.set_api_key("cyc_live_same_beginning_2", tenant="tenant-b", status="REVOKED")
    assert keyed(world, "cyc_live_same_beginning_1").status == 200
    assert keyed(world, "cyc_live_same_beginning_2").body["message"] == "KEY_REVOKED"


def test_a_key_of_a_tenant_with_an_unknown_status_still_works(world: World) -> None:
    world.ledger.set_tenant("tenant-a", status="???")
    assert world.api.balances().status == 200


def test_the_key_is_checked_before_the_body(world: World) -> None:
    assert raw(world.anonymous, b"{").outcome == (401, "UNAUTHORIZED")


# --- the admin key ----------------------------------------------------------------------------------------------------

ADMIN_CALLS: list[Callable[[Api, dict[str, str]], Response]] = [
    lambda api, headers: api.get("/v1/reservations?tenant=tenant-a", headers=headers),
    lambda api, headers: api.get("/v1/reservations/x", headers=headers),
    lambda api, headers: api.release("x", headers=headers),
]


@pytest.mark.new_tenants
def test_the_admin_key_works_for_list_get_and_release(world: World) -> None:
    mine, theirs = world.api.held(), world.other.held()
    for rid in (mine, theirs):
        assert world.admin.row(rid).status == 200
        released = world.admin.release(rid)
        assert released.status == 200
        assert "X-Cycles-Tenant" not in released.headers
    assert [row["reservation_id"] for row in world.admin.rows(tenant="tenant-b").body["reservations"]] == [theirs]
    for missing in ({}, {"tenant": " "}):
        assert world.admin.rows(**missing).outcome == INVALID


@pytest.mark.parametrize("call", ADMIN_CALLS)
def test_a_wrong_admin_key_is_401_even_with_a_valid_api_key(world: World, call: Callable[..., Response]) -> None:
    assert call(world.api, {"X-Admin-API-Key": "wrong"}).outcome == (401, "UNAUTHORIZED")
    assert call(world.api, {"X-Admin-API-Key": ""}).status != 401  # a blank key counts as absent


def test_other_operations_ignore_the_admin_key(world: World) -> None:
    rid = world.api.held()
    for response in (
        world.admin.reserve(),
        world.admin.decide(),
        world.admin.event(),
        world.admin.commit(rid),
        world.admin.extend(rid),
        world.admin.balances(),
    ):
        assert response.outcome == (401, "UNAUTHORIZED")
    assert world.api.reserve(headers={"X-Admin-API-Key": "wrong"}).status == 200


# --- headers of every response ---------------------------------------------------------------------------------------


def test_headers_of_a_success(world: World) -> None:
    headers = world.api.reserve(headers={"X-Request-Id": "mine"}).headers
    assert UUID4.fullmatch(headers["X-Request-Id"])
    assert HEX32.fullmatch(headers["X-Cycles-Trace-Id"])
    assert headers["X-Cycles-Tenant"] == "tenant-a"
    assert (headers["X-RateLimit-Remaining"], headers["X-RateLimit-Reset"]) == ("-1", "0")
    assert headers["Content-Type"] == "application/json"
    assert headers["Date"].endswith("GMT")


@pytest.mark.parametrize("path", ["/v1/balances", "/v1/nothing", "/v1/reservations/unknown"])
def test_headers_of_an_error_response_with_a_key(world: World, path: str) -> None:
    response = world.api.get(path)
    assert response.body["request_id"] == response.headers["X-Request-Id"]
    assert response.body["trace_id"] == response.headers["X-Cycles-Trace-Id"]
    assert response.headers["X-Cycles-Tenant"] == "tenant-a"
    assert response.headers["X-RateLimit-Remaining"] == "-1"


def test_headers_of_a_401(world: World) -> None:
    response = world.anonymous.balances()
    assert response.body["request_id"] == response.headers["X-Request-Id"]
    assert response.body["trace_id"] == response.headers["X-Cycles-Trace-Id"]
    for absent in ("X-Cycles-Tenant", "X-RateLimit-Remaining", "WWW-Authenticate", "Set-Cookie"):
        assert absent not in response.headers
    assert response.headers["Content-Type"] == "application/json;charset=UTF-8"


GOOD = "0af7651916cd43dd8448eb211c80319c"
OTHER = "11111111111111111111111111111111"
SPAN = "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"traceparent": f"00-{GOOD}-{SPAN}-01"}, GOOD),
        ({"traceparent": f"00-{GOOD}-{SPAN}-01", "X-Cycles-Trace-Id": OTHER}, GOOD),
        ({"traceparent": f"00-{GOOD.upper()}-{SPAN}-01"}, GOOD),
        ({"X-Cycles-Trace-Id": GOOD}, GOOD),
        ({"X-Cycles-Trace-Id": GOOD.upper()}, GOOD),
        ({"traceparent": f"01-{GOOD}-{SPAN}-01", "X-Cycles-Trace-Id": OTHER}, OTHER),
        ({"traceparent": f"00-{'0' * 32}-{SPAN}-01", "X-Cycles-Trace-Id": OTHER}, OTHER),
        ({"traceparent": f"00-{GOOD}-{'0' * 16}-01", "X-Cycles-Trace-Id": OTHER}, OTHER),
        ({"traceparent": f"00-{GOOD}-{SPAN}-1", "X-Cycles-Trace-Id": OTHER}, OTHER),
        ({"traceparent": f"00-{GOOD}-{SPAN}-01-x", "X-Cycles-Trace-Id": OTHER}, OTHER),
        ({"X-Cycles-Trace-Id": "0" * 32}, None),
        ({"X-Cycles-Trace-Id": GOOD[:-1]}, None),
        ({"X-Cycles-Trace-Id": GOOD[:-1] + "g"}, None),
    ],
)
def test_the_trace_id_of_a_response(api: Api, headers: dict[str, str], expected: str | None) -> None:
    for response in (api.get("/v1/reservations?limit=1", headers=headers), api.get("/v1/balances", headers=headers)):
        trace = response.headers["X-Cycles-Trace-Id"]
        assert HEX32.fullmatch(trace)
        assert (trace == expected) if expected else (trace not in (GOOD, OTHER, "0" * 32))


# --- paths that need no key -------------------------------------------------------------------------------------------


def test_evidence_and_signing_keys_are_404(world: World) -> None:
    for api in (world.anonymous, world.api):
        assert api.get("/v1/.well-known/cycles-jwks.json").outcome == (404, "NOT_FOUND")
        response = api.get(f"/v1/evidence/{'0' * 64}")
        assert response.outcome == (404, "NOT_FOUND")
        assert "X-Cycles-Tenant" not in response.headers
    for bad in ("0" * 63, "0" * 65, "A" * 64, "g" * 64):
        assert world.anonymous.get(f"/v1/evidence/{bad}").outcome == INVALID


@pytest.mark.embedded_only("it would block the address for a minute")
def test_public_paths_allow_three_hundred_requests_a_minute(world: World) -> None:
    for _ in range(300):
        assert world.anonymous.get("/v1/evidence/x").status == 400
    response = world.anonymous.get("/v1/.well-known/cycles-jwks.json")
    assert response.outcome == (429, "LIMIT_EXCEEDED")
    assert response.headers["X-RateLimit-Remaining"] == "0"
    assert 1 <= int(response.headers["Retry-After"]) <= 60
    assert int(response.headers["X-RateLimit-Reset"]) > world.clock.now_ms() // 1000
    assert world.api.balances().status == 200
    world.clock.advance(60_000)
    assert world.anonymous.get("/v1/evidence/x").status == 400
