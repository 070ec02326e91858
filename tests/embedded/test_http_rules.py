"""The HTTP layer of the embedded server, without a socket: which headers, statuses and bodies each response has."""

from __future__ import annotations

import json
from typing import Any

import pytest

import cycles
from cycles.embedded.errors import ApiError
from cycles.embedded.http import Application, Request, Response, trace_id_of
from cycles.embedded.ledger import Ledger
from cycles.embedded.operator import Operator
from cycles.embedded.routes import Route, find, find_admin, find_webhook, operation_of
from cycles.embedded.tables import Tables
from cycles.embedded.validation import (
    MAX_BODY_BYTES,
    MAX_ID_LENGTH,
    MAX_MESSAGE,
    MAX_NESTING,
    NEXT_SHAPES,
    SHAPES,
    checked,
    decode,
    require_id_length,
    require_level,
)

NOW = 1_700_000_000_000
KEY, ADMIN = "cyc_live_0123456789", "admin"
TRACE = "0af7651916cd43dd8448eb211c80319c"
RESERVE: dict[str, Any] = {
    "idempotency_key": "k", "subject": {"tenant": "acme"}, "action": {"kind": "a", "name": "b"},
    "estimate": {"unit": "TOKENS", "amount": 1},
}  # fmt: skip


class Place:
    """An application with one budget, key and admin key."""

    def __init__(self, *, is_next: bool = False) -> None:
        self.ledger = Ledger(Tables(), cycles.ManualClock(NOW), has_policies=is_next)
        self.application = Application(self.ledger, ADMIN, is_next=is_next)
        self.operator = Operator(self.ledger)
        self.operator.set_budget("tenant:acme", cycles.tokens(100))
        self.operator.set_api_key(KEY, tenant="acme")

    def __call__(self, method: str, target: str, body: Any = None, **headers: str) -> Response:
        given = (
            {"x-cycles-api-key": KEY, "content-type": "application/json"}
            if body is not None
            else {"x-cycles-api-key": KEY}
        )
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        return self.application.handle(Request(method=method, target=target, headers=given, body=content))


def error_of(response: Response) -> tuple[int, str, str]:
    body = json.loads(response.body)
    ids = (response.headers["X-Request-Id"], response.headers["X-Cycles-Trace-Id"])
    assert (body["request_id"], body["trace_id"]) == ids
    return response.status, body["error"], body["message"]


HARDENED = {
    "Cache-Control": "no-cache, no-store, max-age=0, must-revalidate", "Pragma": "no-cache", "Expires": "0",
    "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "X-XSS-Protection": "0",
}  # fmt: skip


def test_the_headers_of_a_response() -> None:
    place = Place()
    response = place("GET", "/v1/balances?tenant=acme", x_cycles_trace_id=TRACE)
    expected = {
        **HARDENED, "Date": "Tue, 14 Nov 2023 22:13:20 GMT", "X-Cycles-Trace-Id": TRACE, "X-RateLimit-Remaining": "-1",
        "X-RateLimit-Reset": "0", "X-Cycles-Tenant": "acme", "Content-Type": "application/json",
    }  # fmt: skip
    assert {name: value for name, value in response.headers.items() if name != "X-Request-Id"} == expected
    assert (response.status, b": " in response.body, len(response.headers["X-Request-Id"])) == (200, False, 36)
    admin = place("GET", "/v1/reservations?tenant=acme", x_admin_api_key=ADMIN)
    assert (admin.status, "X-Cycles-Tenant" in admin.headers) == (200, False)
    assert {"X-Cycles-Tenant", "X-RateLimit-Reset"}.isdisjoint(
        place("GET", "/v1/balances", x_cycles_api_key="").headers
    )
    assert "X-RateLimit-Reset" not in place("GET", "/other").headers


def test_responses_before_the_key_is_checked() -> None:
    place = Place()
    page = place("GET", "/v1/%2F", x_cycles_api_key="")
    assert (page.status, page.headers) == (
        400, {"Date": "Tue, 14 Nov 2023 22:13:20 GMT", "Content-Type": "text/html;charset=utf-8"},
    )  # fmt: skip
    assert page.body.startswith(b"<!doctype html>")
    empty = place("GET", "/v1//x", x_cycles_api_key="")
    assert (empty.status, empty.body, sorted(empty.headers)) == (
        403,
        b"",
        ["Date", "X-Cycles-Trace-Id", "X-Request-Id"],
    )
    missing = place("GET", "/v1/nope", x_cycles_api_key="")
    said = "the API key is missing; send it in the header X-Cycles-API-Key"
    assert error_of(missing) == (401, "UNAUTHORIZED", said)
    assert missing.headers["Content-Type"] == "application/json;charset=UTF-8"
    assert error_of(place("GET", "/v1/nope")) == (404, "NOT_FOUND", "unknown path: /v1/nope; paths begin with /v1")
    assert len(error_of(place("GET", "/" + "x" * 300))[2]) == len("unknown path: ; paths begin with /v1") + 200


@pytest.mark.parametrize(
    ("method", "target", "allow"),
    [
        ("PUT", "/v1/reservations", "POST, GET, HEAD"),
        ("GET", "/v1/decide", "POST"),
        ("HEAD", "/v1/decide", "POST"),
        ("POST", "/v1/reservations/x", "GET, HEAD"),
        ("GET", "/v1/reservations/x/commit", "POST"),
        ("DELETE", "/v1/evidence/x", "GET, HEAD"),
    ],
)
def test_a_method_that_a_path_does_not_have(method: str, target: str, allow: str) -> None:
    place = Place()
    response = place(method, target)
    assert (response.status, response.headers["Allow"]) == (405, allow)
    if method != "HEAD":
        said = f"unknown method for this path: {method}; use {allow}"
        assert error_of(response) == (405, "INVALID_REQUEST", said)
    options = place("OPTIONS", target)
    assert (options.status, options.body, options.headers["Allow"]) == (200, b"", allow.replace(" ", "") + ",OPTIONS")
    assert place("OPTIONS", "/v1/nope").status == 404


@pytest.mark.parametrize(
    ("method", "path", "found"),
    [
        ("POST", "/v1/decide", Route("decide")),
        ("GET", "/v1/reservations/a%20b", Route("get", "a b")),
        ("HEAD", "/v1/reservations/x", Route("get", "x")),
        ("POST", "/v1/reservations/x/release", Route("release", "x")),
        ("GET", "/v1/.well-known/cycles-jwks.json", Route("jwks", None, True)),
        ("GET", "/v1/evidence/x", Route("evidence", "x", True)),
        ("POST", "/v1/evidence/x", Route(None, None, True, ("GET", "HEAD"))),
        ("GET", "/v1/reservations//", Route(None)),
        ("GET", "/v1/reservations/x/", Route(None)),
        ("GET", "/v1/reservations/x/y/commit", Route(None)),
        ("GET", "/v1", Route(None)),
        ("GET", "/v2/balances", Route(None)),
        ("GET", "x/v1/balances", Route(None)),
        ("GET", "/v1/decide/x", Route(None)),
    ],
)
def test_the_route_of_a_request(method: str, path: str, found: Route) -> None:
    assert find(method, path) == found
    assert operation_of(method, path) == found.operation


@pytest.mark.parametrize(
    ("method", "path", "found"),
    [
        ("GET", "/v1/admin/tenants", Route("listTenants")),
        ("GET", "/v1/admin/tenants/", Route("listTenants")),
        ("GET", "/v1/admin/tenants/a%20b", Route("getTenant", "a b")),
        ("POST", "/v1/admin/tenants/bulk-action", Route("bulkActionTenants")),
        ("GET", "/v1/admin/budgets/lookup", Route("lookupBudget")),
        ("PUT", "/v1/admin/tenants", Route(None, allow=("GET", "POST"))),
        ("PUT", "/v1/admin/tenants/x", Route(None, allow=("GET", "PATCH"))),
        ("GET", "/v1/admin/tenants/bulk-action", Route("getTenant", "bulk-action")),
        ("DELETE", "/v1/admin/tenants/bulk-action", Route(None, allow=("GET", "PATCH", "POST"))),
        ("GET", "/v1/admin/nope", Route(None)),
        ("GET", "/v1/admin/", Route(None)),
        ("GET", "/v1/tenants", Route(None)),
        ("GET", "/v1/auth/introspect", Route("introspectAuth")),
        ("POST", "/v1/auth/introspect", Route(None, allow=("GET",))),
        ("GET", "/v1/auth/tenants", Route(None)),
    ],
)
def test_the_route_of_an_admin_operation(method: str, path: str, found: Route) -> None:
    assert find_admin(method, path) == found


@pytest.mark.parametrize(
    ("method", "path", "found"),
    [
        ("GET", "/v1/admin/webhooks/x/deliveries", Route("listWebhookDeliveries", "x")),
        ("POST", "/v1/admin/webhooks/bulk-action", Route("bulkActionWebhooks")),
        ("POST", "/v1/admin/webhooks/x/replay", Route("replayEvents", "x")),
        ("POST", "/v1/webhooks/x/replay", Route(None)),
        ("GET", "/v1/webhooks/x%2Fy", Route("getTenantWebhook", "x/y")),
        ("GET", "/v1/webhooks/x/test", Route(None, allow=("POST",))),
        ("GET", "/v1/events", Route("listTenantEvents")),
        ("GET", "/v1/events/x", Route(None)),
        ("GET", "/v1/admin/events/x", Route("getEvent", "x")),
        ("GET", "/v2/webhooks", Route(None)),
    ],
)
def test_the_route_of_a_request_for_webhooks(method: str, path: str, found: Route) -> None:
    assert find_webhook(method, path) == found
    assert operation_of(method, path) == found.operation


# --- bodies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("media_type", "status"),
    [
        ("application/json", 200),
        (" Application/JSON ; charset=utf-8", 200),
        ("application/problem+json", 200),
        ("application/a.b-c_1+json", 200),
        ("", 415),
        ("text/plain", 415),
        ("application/jsonx", 415),
        ("application/+json", 415),
        ("xapplication/json", 415),
    ],
)
def test_the_declared_type_of_a_body(media_type: str, status: int) -> None:
    response = Place()("POST", "/v1/decide", RESERVE, content_type=media_type)
    assert response.status == status
    if status == 415:
        said = "the body is not declared as JSON; send it with Content-Type: application/json"
        assert error_of(response) == (415, "INVALID_REQUEST", said)


def test_a_body_that_is_missing() -> None:
    place = Place()
    for headers, status in (({"content_type": ""}, 400), ({"content_type": "text/plain"}, 415), ({}, 400)):
        assert place("POST", "/v1/decide", b"", **headers).status == status
    assert error_of(place("POST", "/v1/decide", b""))[2].startswith("the body is not JSON: ")


def test_the_key_of_the_header_is_that_of_the_body() -> None:
    place = Place()
    assert place("POST", "/v1/decide", RESERVE, x_idempotency_key="k").status == 200
    said = "X-Idempotency-Key differs from idempotency_key of the body; send the same key or omit the header"
    for key in ("", "K", "k "):
        assert error_of(place("POST", "/v1/decide", RESERVE, x_idempotency_key=key)) == (400, "INVALID_REQUEST", said)


def test_the_statuses_and_errors_of_writes() -> None:
    place = Place()
    event = {name: value for name, value in RESERVE.items() if name != "estimate"}
    assert place("POST", "/v1/events", {**event, "actual": RESERVE["estimate"]}).status == 201
    made = place("POST", "/v1/reservations", RESERVE)
    rid = json.loads(made.body)["reservation_id"]
    assert made.status == 200
    assert place("POST", f"/v1/reservations/{rid}/release", {"idempotency_key": "r"}).status == 200
    foreign = place("POST", "/v1/decide", {**RESERVE, "subject": {"tenant": "other"}})
    said = "subject.tenant is not the tenant of the API key; omit it, or send a key of that tenant"
    assert error_of(foreign) == (403, "FORBIDDEN", said)
    assert place("POST", "/v1/decide", {**RESERVE, "subject": {"agent": "x"}, "idempotency_key": "n"}).status == 200
    none = error_of(place("POST", "/v1/decide", {**RESERVE, "subject": {"dimensions": {}}}))
    assert none[2].startswith("subject: at least one of tenant, workspace, ")
    other = error_of(place("POST", "/v1/reservations", {**RESERVE, "estimate": {"unit": "TOKENS", "amount": 2}}))
    assert other == (409, "IDEMPOTENCY_MISMATCH", "the idempotency key was used with another payload; send a new key")
    unit = place(
        "POST", "/v1/decide", {**RESERVE, "idempotency_key": "u", "estimate": {"unit": "CREDITS", "amount": 1}}
    )
    details = {"scope": "tenant:acme", "requested_unit": "CREDITS", "expected_units": ["TOKENS"]}
    assert json.loads(unit.body)["details"] == details
    refused = place("POST", "/v1/reservations", {**RESERVE, "idempotency_key": "z"}, accept="text/html")
    assert (refused.status, refused.body, "Content-Type" in refused.headers) == (403, b"", False)
    assert len(place.ledger.tables.reservations) == 2  # the operation ran


def test_reads_of_one_reservation_and_of_evidence() -> None:
    place = Place()
    long = place("GET", f"/v1/reservations/{'x' * 129}")
    said = "reservation_id: must have 1 to 128 characters, has 129"
    assert error_of(long) == (400, "INVALID_REQUEST", said)
    release = place(
        "POST", f"/v1/reservations/{'x' * 129}/release", {"idempotency_key": "k"}, x_idempotency_key="other"
    )
    assert error_of(release) == (400, "INVALID_REQUEST", said)  # before the header is compared
    assert error_of(place("GET", f"/v1/reservations/{'x' * 128}"))[0] == 404
    digits = "0123456789abcdef" * 4
    none = (404, "NOT_FOUND", f"evidence not found: {digits}; this server signs none")
    assert error_of(place("GET", f"/v1/evidence/{digits}", x_cycles_api_key="")) == none
    for wrong in (digits[1:], digits.upper(), digits + "0"):
        said = f"evidence_id must be 64 lower-case hex digits, got {wrong!r:.80}"
        assert error_of(place("GET", f"/v1/evidence/{wrong}")) == (400, "INVALID_REQUEST", said)
    said = "the server signs no evidence; pass evidence_key= to EmbeddedServer"
    assert error_of(place("GET", "/v1/.well-known/cycles-jwks.json")) == (404, "NOT_FOUND", said)


def test_the_operations_of_the_next_protocol() -> None:
    old, place = Place(), Place(is_next=True)
    for target in ("/v1/action-kinds", "/v1/action-kinds/llm.completion"):
        assert error_of(old("GET", target))[0] == 404
        assert error_of(old("GET", target, x_cycles_api_key=""))[0] == 401
        found = place("GET", target, x_cycles_api_key="")
        assert (found.status, found.headers["Cache-Control"]) == (200, "public, max-age=3600")
        assert {"Pragma", "Expires"}.isdisjoint(found.headers)
        known = place("GET", target, if_none_match=f'"x", W/{found.headers["ETag"]}')
        assert (known.status, known.body, known.headers["ETag"]) == (304, b"", found.headers["ETag"])
        assert place("GET", target, if_none_match='"x"').status == 200
    for number in range(1, 4):
        for each in (old, place):
            each.operator.set_action_kind(f"custom.{number}", replacement_kind="custom.new" if number == 1 else None)
        form = {**RESERVE, "idempotency_key": f"n{number}", "action": {"kind": f"custom.{number}", "name": "b"}}
        headers = place("POST", "/v1/decide", form).headers
        assert headers.get("X-Cycles-Deprecated-Kind") == ("custom.new" if number == 1 else None)
        assert "X-Cycles-Deprecated-Kind" not in old("POST", "/v1/decide", form).headers
    observed = {**RESERVE, "idempotency_key": "o", "observe_mode": "OBSERVE"}
    assert error_of(old("POST", "/v1/reservations", observed))[2] == "observe_mode: is not a member of this request"
    assert "reservation_id" not in json.loads(place("POST", "/v1/reservations", observed).body)


@pytest.mark.parametrize(
    ("headers", "trace"),
    [
        ({"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}, TRACE),
        ({"traceparent": f"00-{TRACE.upper()}-00F067AA0BA902B7-FF"}, TRACE),
        ({"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "x-cycles-trace-id": "b" * 32}, TRACE),
        ({"traceparent": f"00-{'0' * 32}-00f067aa0ba902b7-01", "x-cycles-trace-id": "B" * 32}, "b" * 32),
        ({"traceparent": f"00-{TRACE}-{'0' * 16}-01", "x-cycles-trace-id": "b" * 32}, "b" * 32),
        ({"traceparent": f"01-{TRACE}-00f067aa0ba902b7-01"}, None),
        ({"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01-x"}, None),
        ({"x-cycles-trace-id": "0" * 32}, None),
        ({"x-cycles-trace-id": "b" * 31}, None),
        ({"x-cycles-trace-id": "g" * 32}, None),
        ({}, None),
    ],
)
def test_the_trace_id_of_a_request(headers: dict[str, str], trace: str | None) -> None:
    found = trace_id_of(headers)
    if trace is None:
        assert (len(found), found in headers.values(), trace_id_of(headers) == found) == (32, False, False)
    else:
        assert found == trace


# --- the form of a request ------------------------------------------------------------------------------------------


def test_the_bounds_of_bodies() -> None:
    assert (MAX_BODY_BYTES, MAX_NESTING, MAX_ID_LENGTH, MAX_MESSAGE) == (4_194_304, 500, 128, 2_000)
    for size in (1, 128):
        require_id_length("x" * size)
    require_id_length("\N{ROCKET}" * 64)
    for wrong in ("", "x" * 129, "\N{ROCKET}" * 65):
        with pytest.raises(ApiError, match="reservation_id: must have 1 to 128 characters"):
            require_id_length(wrong)
    require_level({"toolset": "x"})
    assert decode(b'{"a": [' + b"{}," * 600 + b"1]}")["a"][-1] == 1
    with pytest.raises(ApiError, match="the body is larger than 4194304 bytes; send less metadata"):
        decode(b" " * (MAX_BODY_BYTES + 1))
    assert decode(b" " * (MAX_BODY_BYTES - 1) + b"1") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("NaN", "NaN is not a JSON value"),
        ("-Infinity", "-Infinity is not a JSON value"),
        ("1e400", "1e400 does not fit into a number"),
        ("-1e400", "-1e400 does not fit into a number"),
        ("{", "Expecting property name"),
        ("\xff", "the body is not JSON"),
    ],
)
def test_a_body_that_is_no_json(text: str, message: str) -> None:
    with pytest.raises(ApiError, match=message) as caught:
        decode(text.encode("latin-1"))
    assert (caught.value.code, caught.value.status) == ("INVALID_REQUEST", 400)
    assert decode(b"1e300") == 1e300


def test_the_canonical_form_of_a_request() -> None:
    form = checked("reserve", {**RESERVE, "metadata": None, "ttl_ms": None})
    assert list(form.items()) == [
        ("idempotency_key", "k"), ("subject", {"tenant": "acme"}), ("action", {"kind": "a", "name": "b"}),
        ("estimate", {"unit": "TOKENS", "amount": 1}), ("grace_period_ms", 5_000), ("dry_run", False),
    ]  # fmt: skip
    null = checked("reserve", {**RESERVE, "grace_period_ms": None, "dry_run": None})
    assert (null["grace_period_ms"], null["dry_run"]) == (None, None)
    tagged = {"kind": "a", "name": "b", "tags": ["x"], "policy_keys": {"host": "h"}}
    metrics = {"tokens_input": 2**31 - 1, "custom": {"a": 1}}
    event = {**{name: RESERVE[name] for name in ("idempotency_key", "subject")}, "actual": RESERVE["estimate"]}
    assert checked("event", {**event, "action": tagged, "metrics": metrics}, NEXT_SHAPES)["action"] == tagged
    dimensions = {"subject": {"tenant": "a", "dimensions": {"x": "y"}}}
    assert checked("decide", {**RESERVE, **dimensions})["subject"] == dimensions["subject"]
    with pytest.raises(ApiError, match=r"action\.policy_keys: is not a member of this request"):
        checked("event", {**event, "action": tagged}, SHAPES)


SPLIT = "must be one or more letters, digits, '_', '.' or '-'"
ONE_OF = "must be one of USD_MICROCENTS, TOKENS, CREDITS, RISK_POINTS"
TAGS, INT64 = "must be a list of at most 10 strings", f"must be between 0 and {2**63 - 1}"
TTL = "must be between 1000 and 86400000"
POLICIES = "overage_policy: must be one of REJECT, ALLOW_IF_AVAILABLE, ALLOW_WITH_OVERDRAFT"


@pytest.mark.parametrize(
    ("operation", "members", "message"),
    [
        ("decide", {"idempotency_key": 5}, "idempotency_key: must be a string"),
        ("decide", {"idempotency_key": ""}, "idempotency_key: must have 1 to 256 characters"),
        ("decide", {"idempotency_key": "\N{ROCKET}" * 129}, "idempotency_key: must have 1 to 256 characters"),
        ("decide", {"subject": {"tenant": "a b"}}, f"subject.tenant: {SPLIT}"),
        ("decide", {"subject": {"tenant": "é"}}, f"subject.tenant: {SPLIT}"),
        ("decide", {"subject": {"tenant": ""}}, f"subject.tenant: {SPLIT}"),
        ("decide", {"subject": {"tenant": "a" * 129}}, "subject.tenant: must have 0 to 128 characters"),
        ("decide", {"subject": {"dimensions": {"a": 5}}}, "subject.dimensions.a: must be a string"),
        ("decide", {"subject": {"dimensions": 5}}, "subject.dimensions: must be an object of at most 16 entries"),
        ("decide", {"subject": []}, "subject: must be an object"),
        ("decide", {"action": {"kind": " ", "name": "b"}}, "action.kind: must not be blank"),
        ("decide", {"action": {"kind": "a", "name": "\t "}}, "action.name: must not be blank"),
        ("decide", {"action": {"kind": "\x00\x1f", "name": "b"}}, "action.kind: must not be blank"),
        ("decide", {"action": {"kind": "k" * 65, "name": "b"}}, "action.kind: must have 0 to 64 characters"),
        ("decide", {"action": {"kind": "a", "name": "b" * 257}}, "action.name: must have 0 to 256 characters"),
        ("decide", {"action": {"kind": "a", "name": "b", "tags": "x"}}, f"action.tags: {TAGS}"),
        ("decide", {"action": {"kind": "a", "name": "b", "tags": ["x", 5]}}, "action.tags[1]: must be a string"),
        ("decide", {"action": {"kind": "a"}}, "action.name: is required"),
        ("decide", {"estimate": {"unit": "EUR", "amount": 1}}, f"estimate.unit: {ONE_OF}"),
        ("decide", {"estimate": {"unit": [], "amount": 1}}, f"estimate.unit: {ONE_OF}"),
        ("decide", {"estimate": {"unit": "TOKENS", "amount": -1}}, f"estimate.amount: {INT64}"),
        ("decide", {"estimate": {"unit": "TOKENS", "amount": 1.0}}, "estimate.amount: must be an integer"),
        ("decide", {"estimate": {"unit": "TOKENS", "amount": True}}, "estimate.amount: must be an integer"),
        ("decide", {"metadata": []}, "metadata: must be an object"),
        ("decide", {"dry_run": True}, "dry_run: is not a member of this request"),
        ("reserve", {"dry_run": 1}, "dry_run: must be true or false"),
        ("reserve", {"overage_policy": "x"}, POLICIES),
        ("reserve", {"x": 1, "ttl_ms": 1}, f"x: is not a member of this request; ttl_ms: {TTL}"),
    ],
)  # fmt: skip
def test_the_message_about_a_wrong_member(operation: str, members: dict[str, Any], message: str) -> None:
    with pytest.raises(ApiError) as caught:
        checked(operation, {**RESERVE, **members})
    assert (caught.value.code, caught.value.message) == ("INVALID_REQUEST", message)


def test_the_message_about_many_wrong_members_is_short() -> None:
    for value, message in (([], "body: must be an object"), (None, "body: must be an object")):
        with pytest.raises(ApiError) as caught:
            checked("decide", value)
        assert caught.value.message == message
    with pytest.raises(ApiError) as caught:
        checked("decide", {**RESERVE, **{f"x{number}": 1 for number in range(500)}})
    assert len(caught.value.message) == 2_000
