"""The bytes of a request, the checks before it, and the generated functions by their ids."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import cycles
from cycles._core.messages.outcome import Reply
from cycles._core.messages.requests import Call, CallOptions
from cycles._wire import generated
from cycles._wire.wire import USER_AGENT, Tables, Wire, runtime_tables, tables_of
from cycles_client import checks, protocol
from cycles_client.api.balances import get_balances
from cycles_client.models import BalanceResponse

AGENT = (b"User-Agent", USER_AGENT.encode())
JSON = (b"Content-Type", b"application/json")
KEY = (b"X-Cycles-API-Key", b"the-key-1")
TRACE = "0123456789abcdef0123456789abcdef"
PARENT = (b"traceparent", f"00-{TRACE}-0123456789abcdef-01".encode())
BODY = {"a": 1}


@pytest.fixture
def wire() -> Wire:
    return Wire("the-key-1", headers={"X-Team": "red"})


def options(trace_id: str | None = None, **headers: str) -> CallOptions:
    return CallOptions(trace_id, headers={name.replace("_", "-"): value for name, value in headers.items()})


TEAM, B_TEAM = (b"X-Team", b"red"), (b"x-team", b"b")


@pytest.mark.parametrize(
    ("call", "headers"),
    [
        (Call("getBalances"), [AGENT, TEAM, KEY]),
        (Call("decide", body=BODY), [AGENT, TEAM, KEY, JSON]),
        (Call("decide", body={}), [AGENT, TEAM, KEY, JSON]),
        (Call("getEvidenceJwks"), [AGENT, TEAM]),
        (Call("getEvidenceJwks", body=BODY), [AGENT, TEAM, JSON]),
        (Call("getBalances", options=options(TRACE)), [AGENT, TEAM, KEY, PARENT]),
        (Call("getBalances", options=options(x_a="1", x_b="2")), [AGENT, TEAM, KEY, (b"x-a", b"1"), (b"x-b", b"2")]),
        (Call("getBalances", options=options(TRACE, x_team="blue")), [AGENT, KEY, (b"x-team", b"blue"), PARENT]),
        (Call("getBalances", options=options(TRACE), trace_headers={"a": "b"}), [AGENT, TEAM, KEY, (b"a", b"b")]),
        (Call("getBalances", options=options(TRACE), trace_headers={}), [AGENT, TEAM, KEY]),
        (
            Call("getBalances", options=options(x_team="b"), trace_headers={"a": "c"}),
            [AGENT, KEY, B_TEAM, (b"a", b"c")],
        ),
        (Call("getEvidenceJwks", options=options(x_team="b")), [AGENT, B_TEAM]),
    ],
)
def test_the_headers_of_a_call_come_in_one_order(wire: Wire, call: Call, headers: list[tuple[bytes, bytes]]) -> None:
    assert list(wire.prepare(call).headers) == headers


@pytest.mark.parametrize("headers", [{"X-Cycles-API-Key": "k"}, {"content-type": "a"}, {"a b": "c"}, {"a": "b\n"}])
def test_a_header_that_the_client_sends_itself_is_rejected(wire: Wire, headers: dict[str, str]) -> None:
    with pytest.raises(cycles.InvalidRequestError, match=r"^extra_headers: "):
        wire.prepare(Call("getBalances", options=CallOptions(headers=headers)))
    with pytest.raises(cycles.InvalidRequestError, match=r"^default_headers: "):
        Wire("k", headers=headers)


def test_a_wire_may_send_its_key_under_another_name() -> None:
    wire = Wire("", key_header="X-Admin-API-Key")
    assert list(wire.prepare(Call("getBalances")).headers) == [AGENT]
    wire.use_key("key-one-1")
    assert list(wire.prepare(Call("getBalances")).headers) == [AGENT, (b"X-Admin-API-Key", b"key-one-1")]
    assert repr(wire) == "<Wire>"
    with pytest.raises(cycles.InvalidRequestError, match="the client sends x-admin-api-key itself"):
        wire.prepare(Call("getBalances", options=options(x_admin_api_key="k")))


def test_the_last_four_keys_are_hidden_in_what_a_server_repeats() -> None:
    wire = Wire("long-key-0")
    for key in ("long-key-1", "long-key-2", "long-key-0", "long-key-3", "long-key-4"):
        wire.use_key(key)
    assert list(wire.prepare(Call("getBalances")).headers)[1] == (b"X-Cycles-API-Key", b"long-key-4")
    shown = wire.redact(" ".join(f"long-key-{n}" for n in range(5)))
    assert shown == "[api key] long-key-1 [api key] [api key] [api key]"
    assert Wire("").redact("long-key-1") == "long-key-1"


@pytest.mark.parametrize(
    ("call", "target"),
    [
        (Call("getReservation", {"reservation_id": "a-1"}), "/v1/reservations/a-1"),
        (Call("getReservation", {"reservation_id": "a/ü"}), "/v1/reservations/a%2F%C3%BC"),
        (Call("getBalances"), "/v1/balances"),
        (
            Call("getBalances", query={"include_children": True, "limit": 5}),
            "/v1/balances?include_children=true&limit=5",
        ),
        (Call("getBalances", query={"include_children": False}), "/v1/balances?include_children=false"),
        (Call("getBalances", query={"tenant": "a&b c"}), "/v1/balances?tenant=a%26b+c"),
        (Call("listReservations", query={"include": ["a", "b"]}), "/v1/reservations?include=a%2Cb"),
        (Call("listReservations", query={"include": ("a",)}), "/v1/reservations?include=a"),
        (Call("listReservations", query={"status": ["A", "B"]}), "/v1/reservations?status=A&status=B"),
        (
            Call("listReservations", query={"from": datetime(2026, 1, 2, 3, 4, 5, 678_900, UTC)}),
            "/v1/reservations?from=2026-01-02T03%3A04%3A05.678Z",
        ),
        (
            Call("listReservations", query={"to": datetime(2026, 1, 2, 3, tzinfo=timezone(timedelta(hours=2)))}),
            "/v1/reservations?to=2026-01-02T01%3A00%3A00.000Z",
        ),
    ],
)
def test_ids_and_parameters_become_the_target(wire: Wire, call: Call, target: str) -> None:
    assert wire.prepare(call).target == target


def test_the_method_and_the_body_of_a_request(wire: Wire) -> None:
    request = wire.prepare(Call("decide", body={"a": [1, "é"]}))
    assert (request.method, request.content) == ("POST", b'{"a":[1,"\\u00e9"]}')
    request = wire.prepare(Call("getBalances"))
    assert (request.method, request.content) == ("GET", b"")
    assert wire.needs_key(Call("getBalances"))
    assert not wire.needs_key(Call("getEvidenceJwks"))


RESERVE = {
    "idempotency_key": "k",
    "subject": {"tenant": "acme"},
    "action": {"kind": "a", "name": "b"},
    "estimate": {"unit": "TOKENS", "amount": 5},
}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (Call("getBalances", query={"tenant": "a", "limit": 5}), None),
        (Call("getBalances", query={"limit": 5_000}), "limit"),
        (Call("getBalances", query={"limit": "five"}), "limit"),
        (Call("getBalances", query={"tenant": 5}), "tenant"),
        (
            Call("getBalances", query={"nobody": 5}),
            "nobody is not a parameter of getBalances: use one of tenant, workspace, ",
        ),
        (Call("getReservation", {"reservation_id": 5}), "reservation_id"),  # type: ignore[dict-item]
        (Call("listReservations", query={"from": datetime(2026, 1, 1, tzinfo=UTC)}), None),
        (Call("listReservations", query={"include": "a,b"}), None),
        (Call("listReservations", query={"include": [5]}), "include"),
        (Call("listReservations", query={"from": datetime(2026, 1, 1, tzinfo=UTC), "limit": 5_000}), "limit"),
        (Call("listReservations", query={"include": "a,b", "limit": 5_000}), "limit"),
        (Call("createReservation", body=RESERVE), None),
        (Call("createReservation", body={**RESERVE, "ttl_ms": 5}), "ttl_ms"),
        (Call("createReservation", body=[]), "must be"),  # type: ignore[arg-type]
        (Call("createReservation"), None),
        (Call("nothing"), "operation: the protocol has no 'nothing'; regenerate cycles_client if it is new"),
        (Call("x" * 100), f"operation: the protocol has no '{'x' * 79}; regenerate cycles_client if it is new"),
    ],
)
def test_a_call_is_checked_against_its_schema(wire: Wire, call: Call, message: str | None) -> None:
    if message is None:
        assert wire.check(call) is None  # type: ignore[func-returns-value]
        return
    with pytest.raises(cycles.InvalidRequestError) as caught:
        wire.check(call)
    assert str(caught.value).startswith(message)


def kind_of(wire: Wire, operation: str, status: int, body: bytes) -> str:
    return type(wire.classify_response(Call(operation), Reply(status, (), body, 0.0, 0.0))).__name__


def test_a_response_is_a_success_with_a_status_of_its_operation() -> None:
    def tables() -> Tables:
        known = runtime_tables()
        changed = {**known.OPERATIONS["getBalances"], "other_success": (202,)}
        return Tables({**known.OPERATIONS, "getBalances": changed}, known.SCHEMAS)

    body = b'{"balances":[],"has_more":false}'
    for wire, expected in ((Wire("k"), "Ambiguous"), (Wire("k", tables), "Success")):
        kinds = [kind_of(wire, "getBalances", status, body) for status in (200, 201, 202, 404, 500)]
        assert kinds == ["Success", "Ambiguous", expected, "RejectedResponse", "RejectedResponse"]


def test_a_response_may_have_members_that_are_newer_than_this_release() -> None:
    body = b'{"decision":"ALLOW","newer":1,"caps":{"max_tokens":5,"newer":1}}'
    for wire in (Wire("k"), Wire("k", lambda: Tables(protocol.OPERATIONS, protocol.SCHEMAS))):
        assert kind_of(wire, "decide", 200, body) == "Success"
    request = {**RESERVE, "newer": 1}
    with pytest.raises(cycles.InvalidRequestError, match="newer"):
        Wire("k").check(Call("decide", body=request))


def test_a_key_of_an_unknown_type_hides_no_other_one() -> None:
    wire = Wire("k")
    bodies = [b'{"keys":[5,{"kty":"new"}]}', b'{"keys":[]}', b'{"keys":{}}', b"{}"]
    kinds = [kind_of(wire, "getEvidenceJwks", 200, body) for body in bodies]
    assert kinds == ["Success", "Success", "Ambiguous", "Ambiguous"]
    check = wire.item_check("getEvidenceJwks")
    assert check(5, "key") is not None
    known = {"kid": "1", "kty": "OKP", "crv": "Ed25519", "x": "a" * 43, "alg": "EdDSA", "use": "sig"}
    assert check({**known, "cycles_nbf_ms": 1, "cycles_exp_ms": None, "status": "newer", "newer": 1}, "key") is None


def test_a_key_that_a_server_repeats_is_hidden(wire: Wire) -> None:
    body = b'{"error":"the-key-1","message":"not the-key-1","request_id":"r"}'
    outcome: Any = wire.classify_response(Call("getBalances"), Reply(401, (), body, 0.0, 0.0))
    assert (outcome.code, outcome.message, outcome.request_id) == ("[api key]", "not [api key]", "r")
    wire.use_key("the-key-2")  # the response to a request with the key before it is still on its way
    outcome = wire.classify_response(Call("getBalances"), Reply(401, (), body, 0.0, 0.0))
    assert (outcome.code, outcome.message) == ("[api key]", "not [api key]")


@pytest.mark.parametrize(
    ("body", "message", "is_conformant"),
    [
        ({"error": "BUDGET_FROZEN", "message": "m", "request_id": "r"}, "m", True),
        (
            {"error": "BUDGET_FROZEN", "message": 5, "request_id": "r"},
            "the server returned status 409 without an error of the protocol",
            False,
        ),
    ],
)
def test_an_error_is_checked_against_its_schema(
    wire: Wire, body: dict[str, Any], message: str, is_conformant: bool
) -> None:
    reply = Reply(409, (), json.dumps(body).encode(), 0.0, 0.0)
    outcome: Any = wire.classify_response(Call("getBalances"), reply)
    assert (outcome.code, outcome.message, outcome.conformant) == ("BUDGET_FROZEN", message, is_conformant)


def test_replaced_tables_are_used_without_the_generated_recognizers() -> None:
    own = SimpleNamespace(OPERATIONS=protocol.OPERATIONS, SCHEMAS=dict(protocol.SCHEMAS))
    assert tables_of(own, checks) == Tables(own.OPERATIONS, own.SCHEMAS)
    found = tables_of(protocol, checks)
    assert (found.REQUESTS, found.RESPONSES, found.PARAMETERS) == (checks.REQUESTS, checks.RESPONSES, checks.PARAMETERS)


@pytest.mark.parametrize("given", ["getBalances", get_balances])
def test_an_operation_is_found_by_its_id_or_module(given: Any) -> None:
    assert generated.find(given) == "getBalances"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("getBalance", "operation: the protocol has no 'getBalance'; did you mean getBalances?"),
        (
            "getReservations",
            "operation: the protocol has no 'getReservations'; did you mean getReservation or listReservations or "
            "extendReservation?",
        ),
        ("zzz", f"operation: the protocol has no 'zzz'; use one of {', '.join(protocol.OPERATIONS)}"),
        (5, f"operation: the protocol has no '5'; use one of {', '.join(protocol.OPERATIONS)}"),
        (ModuleType("zzz"), f"operation: the protocol has no 'zzz'; use one of {', '.join(protocol.OPERATIONS)}"),
    ],
)
def test_an_unknown_operation_is_named_with_similar_ones(given: Any, message: str) -> None:
    with pytest.raises(cycles.InvalidRequestError) as caught:
        generated.find(given)
    assert str(caught.value) == message


def test_only_what_changes_nothing_is_a_read() -> None:
    assert generated.is_read("getBalances")
    assert not generated.is_read("decide")


def call_of(operation: str, headers: Any = None, **arguments: Any) -> Call:
    return generated.call_of(operation, arguments, headers or {}, options(TRACE, x_a="1", x_b="2"))


def test_the_arguments_of_a_generated_function_become_a_call() -> None:
    call = call_of("commitReservation", {"X-A": "3"}, reservation_id="a/b c", body=BODY, x_idempotency_key="k")
    assert (call.operation, call.path, call.query, call.body) == (
        "commitReservation",
        {"reservation_id": "a/b c"},
        {},
        BODY,
    )
    assert call.options.trace_id == TRACE
    assert call.options.headers == {"x-b": "2", "X-Idempotency-Key": "k", "X-A": "3"}
    call = call_of("getBalances", tenant="acme", include_children=True)
    assert (call.path, call.query, call.body) == ({}, {"tenant": "acme", "include_children": True}, None)
    assert call.options.headers == {"x-a": "1", "x-b": "2"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: call_of("getBalances", [("a", "b")]), "extra_headers must be a mapping of names to values, got list"),
        (lambda: call_of("getBalances", nobody=1), "getBalances: got an unexpected keyword argument 'nobody'"),
        (lambda: call_of("getReservation"), "getReservation: missing 1 required positional argument: 'reservation_id'"),
        (lambda: call_of("decide", body=5), "decide: 'int' object has no attribute 'to_dict'"),
    ],
)
def test_arguments_that_make_no_request_are_named(make: Callable[[], Call], message: str) -> None:
    with pytest.raises(cycles.InvalidRequestError) as caught:
        make()
    assert str(caught.value) == message


def test_the_body_of_a_success_becomes_a_model() -> None:
    model = generated.model_of("getBalances", {"balances": [], "has_more": False})
    assert isinstance(model, BalanceResponse)
    assert (model.balances, model.has_more) == ([], False)
    with pytest.raises(cycles.AmbiguousResponseError) as caught:
        generated.model_of("getBalances", {"balances": 5})
    assert str(caught.value) == "getBalances: the generated model cannot read the response"
    assert caught.value.__cause__ is not None
