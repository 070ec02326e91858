"""Routes, responses of the web framework, headers of every response, and the paths without a key."""

from __future__ import annotations

import re

import pytest

from cycles.embedded.framework import MAX_HEAD_BYTES

from .kit import Api, Response, Target

INVALID = (400, "INVALID_REQUEST")
UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
HEX32 = re.compile(r"[0-9a-f]{32}")


# --- routes -----------------------------------------------------------------------------------------------------------


@pytest.mark.embedded_only("the reference server returns 500")
@pytest.mark.parametrize("path", ["/", "/v1", "/v1/", "/v1/nothing", "/v2/decide", "/v1/decide/", "/v1/admins"])
def test_an_unknown_path_is_a_404(target: Target, path: str) -> None:
    assert target.api.get(path).outcome == (404, "NOT_FOUND")
    assert target.anonymous.get(path).outcome == (401, "UNAUTHORIZED")  # the key is checked first


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
def test_a_wrong_method_is_a_405(target: Target, method: str, path: str, allow: str) -> None:
    response = target.api.call(method, path)
    assert (response.status, response.headers["Allow"]) == (405, allow)
    assert target.anonymous.call(method, path).status == 401


def test_an_id_is_one_decoded_segment(target: Target) -> None:
    assert target.api.row("a%20commit").outcome == (404, "NOT_FOUND")
    assert target.api.row("a%20commit").mentions("a commit")


@pytest.mark.parametrize("path", ["/v1/balances?tenant=tenant-a", "/v1/reservations"])
def test_head_is_a_get_without_its_body(target: Target, path: str) -> None:
    response = target.api.call("HEAD", path)
    assert (response.status, response.body) == (200, {})
    assert response.headers["X-Cycles-Tenant"] == "tenant-a"
    assert target.anonymous.call("HEAD", path).status == 401


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/balances", {"GET", "HEAD", "OPTIONS"}),
        ("/v1/reservations", {"POST", "GET", "HEAD", "OPTIONS"}),
        ("/v1/reservations/x/commit", {"POST", "OPTIONS"}),
    ],
)
def test_options_names_the_methods_of_a_path(target: Target, path: str, methods: set[str]) -> None:
    response = target.api.call("OPTIONS", path)
    assert (response.status, set(response.headers["Allow"].split(","))) == (200, methods)
    assert "Content-Type" not in response.headers
    assert target.anonymous.call("OPTIONS", path).status == 401


# --- responses of the web framework -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rid", ["a;b", "a%3Bb", "a%25b", "/a"])
def test_a_suspicious_path_is_an_empty_403(target: Target, rid: str) -> None:
    for api in (target.api, target.anonymous):
        response = api.row(rid)
        assert (response.status, response.body) == (403, {})
        assert "Content-Type" not in response.headers
        assert HEX32.fullmatch(response.headers["X-Cycles-Trace-Id"])
        assert "X-Cycles-Tenant" not in response.headers


@pytest.mark.parametrize("rid", ["a%2Fb", "a%00b", "a%5Cb"])
def test_an_encoded_separator_is_a_400_page(target: Target, rid: str) -> None:
    assert_page(target.api.row(rid))


def test_a_head_that_is_too_large_is_a_400_page(target: Target) -> None:
    assert_page(target.api.balances(tenant="x" * MAX_HEAD_BYTES))
    assert_page(target.api.get("/v1/balances", headers={"X-Long": "x" * MAX_HEAD_BYTES}))


def assert_page(response: Response) -> None:
    assert response.status == 400
    assert response.headers["Content-Type"].startswith("text/html")
    assert "X-Request-Id" not in response.headers


def test_an_accept_header_without_json_is_an_empty_403_after_the_operation(target: Target) -> None:
    response = target.api.reserve(headers={"Accept": "text/plain"})
    assert (response.status, response.body) == (403, {})
    assert (response.headers["X-Cycles-Tenant"], "Content-Type" in response.headers) == ("tenant-a", False)
    assert target.numbers() == (999_000, 1_000, 0, 0)
    assert target.api.row("unknown").outcome == (404, "NOT_FOUND")
    for accept in ("*/*", "application/*", "text/plain, application/json;q=0.5", "application/vnd.x+json"):
        assert target.api.get("/v1/reservations", headers={"Accept": accept}).status == 200
    assert target.anonymous.get("/v1/reservations", headers={"Accept": "text/plain"}).outcome == (401, "UNAUTHORIZED")


# --- headers of every response ---------------------------------------------------------------------------------------


def test_headers_of_a_success(target: Target) -> None:
    headers = target.api.reserve(headers={"X-Request-Id": "mine"}).headers
    assert UUID4.fullmatch(headers["X-Request-Id"])
    assert HEX32.fullmatch(headers["X-Cycles-Trace-Id"])
    assert headers["X-Cycles-Tenant"] == "tenant-a"
    assert (headers["X-RateLimit-Remaining"], headers["X-RateLimit-Reset"]) == ("-1", "0")
    assert headers["Content-Type"] == "application/json"
    assert headers["Date"].endswith("GMT")


@pytest.mark.parametrize("path", ["/v1/balances", "/v1/nothing", "/v1/reservations/unknown"])
def test_headers_of_an_error_response_with_a_key(target: Target, path: str) -> None:
    response = target.api.get(path)
    assert response.body["request_id"] == response.headers["X-Request-Id"]
    assert response.body["trace_id"] == response.headers["X-Cycles-Trace-Id"]
    assert response.headers["X-Cycles-Tenant"] == "tenant-a"
    assert response.headers["X-RateLimit-Remaining"] == "-1"


def test_headers_of_a_401(target: Target) -> None:
    response = target.anonymous.balances()
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


def test_evidence_and_signing_keys_are_404(target: Target) -> None:
    for api in (target.anonymous, target.api):
        assert api.get("/v1/.well-known/cycles-jwks.json").outcome == (404, "NOT_FOUND")
        response = api.get(f"/v1/evidence/{'0' * 64}")
        assert response.outcome == (404, "NOT_FOUND")
        assert "X-Cycles-Tenant" not in response.headers
    for bad in ("0" * 63, "0" * 65, "A" * 64, "g" * 64):
        assert target.anonymous.get(f"/v1/evidence/{bad}").outcome == INVALID


@pytest.mark.embedded_only("it would block the address for a minute")
def test_public_paths_allow_three_hundred_requests_a_minute(target: Target) -> None:
    for _ in range(300):
        assert target.anonymous.get("/v1/evidence/x").status == 400
    target.clock.advance(400)
    response = target.anonymous.get("/v1/.well-known/cycles-jwks.json")
    assert response.outcome == (429, "LIMIT_EXCEEDED")
    assert response.headers["X-RateLimit-Remaining"] == "0"
    assert response.headers["Retry-After"] == "60"  # of 59.6 s: a client that waits for it is not too early
    assert int(response.headers["X-RateLimit-Reset"]) > target.clock.now_ms() // 1000
    assert target.api.balances().status == 200
    target.clock.advance(59_600)
    assert target.anonymous.get("/v1/evidence/x").status == 400
