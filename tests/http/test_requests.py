"""What is sent: exactly what was requested, to the byte, and nothing at all where it could only be refused."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

import pytest

import cycles
from tests.support.inside import state_of
from tests.support.stub import Stub, hang_up, ok

from .conftest import ACTION, ANSWERS, CREATED, KEY, Caller, Make

T = cycles.tokens


def only(stub: Stub) -> Any:
    (request,) = stub.requests
    return request


def without_key(body: Any) -> Any:
    assert re.fullmatch("[0-9a-f]{32}", body.pop("idempotency_key"))
    return body


def test_the_headers_of_a_request(call: Caller) -> None:
    with Stub() as stub:
        call("create", stub, ok(CREATED))
    headers = only(stub).headers
    assert headers.pop("host") == f"127.0.0.1:{stub.port}"
    assert headers.pop("content-length") == str(len(only(stub).body))
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-01", headers.pop("traceparent"))
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert headers == {
        "content-type": "application/json",
        "user-agent": f"cycles-sdk/{cycles.__version__} python/{python}",
        "x-cycles-api-key": KEY,
    }


def test_nothing_is_sent_that_was_not_requested(call: Caller) -> None:
    with Stub() as stub:
        call("create", stub, ok(CREATED))
        create = only(stub)
    assert (create.method, create.target) == ("POST", "/v1/reservations")
    assert without_key(create.json()) == {
        "subject": {"tenant": "acme"},
        "action": {"kind": ACTION[0], "name": ACTION[1]},
        "estimate": {"unit": "TOKENS", "amount": 100},
        "ttl_ms": 60_000,
    }


@pytest.mark.parametrize(
    ("operation", "body"),
    [("extend", {"extend_by_ms": 60_000}), ("release", {})],
)
def test_the_body_of(call: Caller, operation: str, body: Any) -> None:
    with Stub() as stub:
        call(operation, stub, ok(ANSWERS[operation]))
    request = stub.requests[-1]
    assert request.target == f"/v1/reservations/res-1/{operation}"
    assert without_key(request.json()) == body


def test_the_body_of_a_commit(call: Caller) -> None:
    with Stub() as stub:
        call("commit", stub, ok(ANSWERS["commit"]))
    body: Any = stub.requests[-1].json()
    assert isinstance(body["metrics"].pop("latency_ms"), int)
    assert without_key(body) == {"actual": {"unit": "TOKENS", "amount": 7}, "metrics": {}}


def test_everything_that_can_be_requested(make: Make) -> None:
    with Stub(ok(CREATED)) as stub:
        guard = make(stub.url).reserve(
            cycles.usd("0.05"),
            action=cycles.Action("tool", "web", tags=["a", "b"]),
            subject={"agent": "bot", "dimensions": {"run": "7"}},
            ttl_ms=1_000,
            grace_period_ms=0,
            overage_policy="REJECT",
            metadata={"deep": {"list": [1, None, "é"]}},
            idempotency_key="k 1",
            lease_policy="warn",
        )
        held = guard.acquire()
        state_of(held).claim("left to the test")
    request = only(stub)
    assert request.json() == {
        "idempotency_key": "k 1",
        "subject": {"tenant": "acme", "agent": "bot", "dimensions": {"run": "7"}},
        "action": {"kind": "tool", "name": "web", "tags": ["a", "b"]},
        "estimate": {"unit": "USD_MICROCENTS", "amount": 5_000_000},
        "ttl_ms": 1_000,
        "grace_period_ms": 0,
        "overage_policy": "REJECT",
        "metadata": {"deep": {"list": [1, None, "é"]}},
    }
    assert b" " not in request.body.replace(b"k 1", b"")


def test_one_trace_runs_through_a_guard(call: Caller) -> None:
    with Stub() as stub:
        call("commit", stub, ok(ANSWERS["commit"]))
    traces = {request.headers["traceparent"][3:35] for request in stub.requests}
    assert traces == {call.guard.trace_id}


@pytest.mark.parametrize("key", ["a", "x" * 256, "ключ", "🔑", 'a"b\\c', "a/b?c#d", " "])
def test_a_key_may_be_any_text(make: Make, key: str) -> None:
    with Stub(ok(ANSWERS["decide"])) as stub:
        make(stub.url).decide(T(1), action=ACTION, idempotency_key=key)
    assert only(stub).json()["idempotency_key"] == key
    assert "x-idempotency-key" not in only(stub).headers


@pytest.mark.parametrize(
    ("given", "target"),
    [("a/b", "a%2Fb"), ("é", "%C3%A9"), ("a b", "a%20b"), ("?x=1", "%3Fx%3D1"), ("%2e", "%252e"), ("...", "..."),
     ("a\r\nb", "a%0D%0Ab"), ("#", "%23")],
)  # fmt: skip
def test_an_id_is_one_segment_of_the_path(make: Make, given: str, target: str) -> None:
    with Stub(ok(ANSWERS["release"])) as stub:
        make(stub.url).release_reservation(given)
    assert only(stub).target == f"/v1/reservations/{target}/release"


LONG = "x" * 129
Invalid = Callable[[cycles.Cycles], Any]

WRONG_OPTIONS: list[tuple[str, Any, str]] = [
    ("ttl_ms", 999, "ttl_ms.*1000"),
    ("ttl_ms", 86_400_001, "ttl_ms.*86400000"),
    ("ttl_ms", True, "ttl_ms"),
    ("ttl_ms", 1e3, "ttl_ms"),
    ("ttl_ms", "60000", "ttl_ms"),
    ("ttl_ms", None, "ttl_ms"),
    ("grace_period_ms", -1, "grace_period_ms.*0"),
    ("grace_period_ms", 60_001, "grace_period_ms.*60000"),
    ("overage_policy", "MAYBE", "overage_policy.*REJECT"),
    ("metadata", "text", "metadata"),
    ("metadata", [], "metadata"),
    ("metadata", {1: 2}, "metadata"),
    ("metadata", {"a": object()}, "metadata.a"),
    ("metadata", {"a": {"b": float("nan")}}, "metadata.a.b"),
    ("metadata", {"a": 2**63}, "metadata.a"),
    ("metadata", {"a": "\ud800"}, "metadata.a"),
    ("idempotency_key", "", "idempotency_key.*1 to 256"),
    ("idempotency_key", "x" * 257, "idempotency_key.*256"),
    ("idempotency_key", "a\nb", "idempotency_key.*control"),
    ("idempotency_key", "a\x7f", "idempotency_key.*control"),
    ("idempotency_key", 5, "idempotency_key"),
    ("idempotency_key", "\ud800", "idempotency_key"),
    ("lease_policy", "panic", "lease_policy.*warn"),
    ("on_unavailable", "shrug", "on_unavailable.*allow"),
    ("wait", -1, "wait"),
    ("actual", 5, "actual"),
    ("actual", cycles.usd(1), r"actual must be in the unit of the estimate, TOKENS: got \$1.00"),
    ("subject", {"tenant": LONG}, "subject.tenant.*128"),
    ("subject", {"tenant": 5}, "subject.tenant"),
    ("subject", {"tenent": "a"}, "subject.tenent"),
    ("subject", {"agent": "\ud800"}, "subject.agent"),
    ("subject", {"dimensions": {"a": "x" * 257}}, "subject.dimensions.a.*256"),
    ("subject", {"dimensions": {"a": 5}}, "subject.dimensions.a"),
    ("subject", {"dimensions": {str(i): "x" for i in range(17)}}, "subject.dimensions.*16"),
    ("subject", {"dimensions": "x"}, "subject.dimensions"),
    ("subject", "acme", "subject"),
]
INVALID: list[tuple[str, Invalid, str]] = [
    ("estimate", lambda c: c.reserve(5, action=ACTION), "estimate"),  # type: ignore[arg-type]
    ("kind", lambda c: c.reserve(T(1), action=("x" * 65, "a")), "action.kind.*64"),
    ("name", lambda c: c.reserve(T(1), action=("a", "x" * 257)), "action.name.*256"),
    ("half of a pair", lambda c: c.reserve(T(1), action=("a", "\ud800")), "action.name"),
    ("no pair", lambda c: c.reserve(T(1), action="abc"), "action"),  # type: ignore[arg-type]
    ("three", lambda c: c.reserve(T(1), action=("a", "b", "c")), "action"),  # type: ignore[arg-type]
    ("tags", lambda c: c.reserve(T(1), action=cycles.Action("a", "b", ["t"] * 11)), "action.tags.*10"),
    ("tag", lambda c: c.reserve(T(1), action=cycles.Action("a", "b", ["t" * 65])), r"action.tags\[0\].*64"),
    ("decide", lambda c: c.decide(T(1), action=ACTION, idempotency_key=""), "idempotency_key"),
    ("record", lambda c: c.record(5, action=ACTION), "actual"),  # type: ignore[arg-type]
    ("record metrics", lambda c: c.record(T(1), action=ACTION, metrics={"tokens_input": -1}), "tokens_input"),
    ("record policy", lambda c: c.record(T(1), action=ACTION, overage_policy="NO"), "overage_policy"),
    ("commit id", lambda c: c.commit_reservation(".", T(1)), "reservation_id"),
    ("get", lambda c: c.reservation(".."), "reservation_id"),
    ("extend", lambda c: c.extend_reservation("res-1", 0), "extend_by_ms.*1"),
    ("evidence", lambda c: c.evidence("zz"), "evidence_id"),
    ("status", lambda c: c.reservations(status="GONE"), "status"),
    ("limit", lambda c: c.reservations(limit=0), "limit"),
    ("sort", lambda c: c.reservations(sort_by="mood"), "sort_by"),
]


@pytest.mark.parametrize(("name", "value", "says"), WRONG_OPTIONS, ids=[f"{n}={v!r:.20}" for n, v, _ in WRONG_OPTIONS])
def test_a_wrong_option_names_itself_and_its_bound(make: Make, name: str, value: Any, says: str, shut: Stub) -> None:
    options: dict[str, Any] = {name: value}
    with pytest.raises(cycles.InvalidRequestError, match=says):
        make(shut.url).reserve(T(1), action=ACTION, **options)
    assert shut.connections == 0


@pytest.mark.parametrize("bad", ["", ".", "..", None, 5, "\ud800", "x" * 129])
def test_an_id_that_is_none_never_leaves(make: Make, bad: Any, shut: Stub) -> None:
    with pytest.raises(cycles.InvalidRequestError, match="reservation_id"):
        make(shut.url).release_reservation(bad)
    assert shut.connections == 0


@pytest.mark.parametrize(("what", "invalid", "names"), INVALID, ids=[what for what, *_ in INVALID])
def test_what_is_invalid_names_itself_and_never_leaves(
    make: Make, what: str, invalid: Invalid, names: str, shut: Stub
) -> None:
    with pytest.raises(cycles.InvalidRequestError, match=f"(?s){names}"):
        invalid(make(shut.url))
    assert shut.connections == 0


@pytest.fixture(scope="module")
def shut() -> Any:
    """A server that must get no request."""
    with Stub(hang_up()) as stub:
        yield stub


def test_the_public_reads_carry_no_key(make: Make) -> None:
    with Stub(ok({"keys": []})) as stub:
        make(stub.url).evidence_keys()
    assert "x-cycles-api-key" not in only(stub).headers
