"""Any response gives a typed outcome within the deadline, and never an exception of another library."""

from __future__ import annotations

import gzip
import json
import time
from typing import Any

import pytest

import cycles
from tests.support.short import some
from tests.support.stub import Answer, Stub, drip, hang_up, ok, raw, reply, reset, stall

from .conftest import ANSWERS, CREATED, Caller

OPERATIONS = ["create", "commit", "extend", "release"]
ATTEMPTS = {"create": 2, "commit": 1, "extend": 2, "release": 1}
SHORT_S = 0.25  # the timeout of an attempt that must end
ON_TIME_S = (
    60.0  # far more than two such attempts; what stalls would never end, and what drips would end with a response
)


def whole(operation: str, **changes: Any) -> dict[str, Any]:
    return {**ANSWERS[operation], **changes}


def seen(call: Caller, operation: str, stub: Stub, answer: Answer) -> Any:
    """What the user sees, within the deadline: a result, or an error of this SDK that explains itself."""
    before = time.monotonic()
    try:
        outcome = call(operation, stub, answer)
    except cycles.CyclesError as error:
        outcome = error
        assert len(str(outcome)) > 10
    assert time.monotonic() - before < ON_TIME_S
    return outcome


def is_inconclusive(call: Caller, operation: str, stub: Stub, answer: Answer) -> None:
    """The user learns that the outcome is unknown, and what is pending stays pending."""
    outcome = seen(call, operation, stub, answer)
    if operation in ("create", "extend"):
        assert isinstance(outcome, cycles.TransportError), outcome
    elif operation == "commit":
        assert outcome.status == "pending"
        assert call.guard.state == "pending"
        assert [each.amount for each in call.client.pending()] == [cycles.tokens(7)]
    else:
        assert outcome is None  # the client goes on in the background


BODIES: dict[str, bytes] = {
    "empty": b"",
    "html": b"<html><body>Welcome to the hotel WiFi</body></html>",
    "cut json": b'{"decision": "ALLOW", "reserv',
    "text": b"OK",
    "null": b"null",
    "number": b"17",
    "text json": b'"ACTIVE"',
    "list": b"[]",
    "empty object": b"{}",
    "nan": b'{"remaining_ttl_ms": NaN}',
    "bad utf-8": b'{"status": "\xff\xfe"}',
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "deep object": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "endless number": b'{"expires_at_ms": ' + b"9" * 5_000 + b"}",
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_body_that_is_no_response(call: Caller, operation: str) -> None:
    for name, body in BODIES.items():
        with Stub(ok(body)) as stub:
            try:
                is_inconclusive(call, operation, stub, ok(body))
            except AssertionError as error:
                raise AssertionError(name) from error
        call.guard = None


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("status", some([101, 201, 204, 206, 301, 304, 399, 600, 999]))
def test_a_status_that_is_inconclusive(call: Caller, operation: str, status: int) -> None:
    """Not even with the right body: only the exact status counts."""
    body = b"" if status in (204, 304) else json.dumps(ANSWERS[operation]).encode()
    with Stub() as stub:
        is_inconclusive(call, operation, stub, raw(reply(body, status)))


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, b""),
        (404, b"<html>"),
        (408, b'{"error": 5}'),
        (418, b"[]"),
        (429, b""),
        (499, b"{"),
        (500, b'{"error": null}'),
        (520, b"<html>"),
        (529, b""),
        (599, b"null"),
    ],
)
def test_an_error_response_without_a_code(call: Caller, operation: str, status: int, body: bytes) -> None:
    with Stub() as stub:
        outcome = seen(call, operation, stub, ok(body, status))
    if operation == "commit":
        assert outcome.status == "pending"  # an amount is never given up for an answer like this
    elif operation == "release":
        assert outcome is None
    else:
        assert isinstance(outcome, cycles.ProtocolError)
        assert (outcome.status, outcome.code) == (status, None)
        assert outcome.retryable is (status >= 500 or status == 429)
        kinds = {404: cycles.NotFoundError, 429: cycles.RateLimitedError}
        kind = cycles.ServerError if status >= 500 else kinds.get(status, cycles.ProtocolError)
        assert type(outcome) is kind


WRONG: dict[str, list[dict[str, Any]]] = {
    "create": [
        {"decision": None},
        {"decision": 5},
        {"decision": {}},
        {"affected_scopes": "tenant:acme"},
        {"affected_scopes": [5]},
        {"affected_scopes": None},
        {"reservation_id": 7},
        {"reservation_id": ""},
        {"reservation_id": "."},
        {"reservation_id": ".."},
        {"reservation_id": "\ud800"},
        {"reservation_id": None},
        {"expires_at_ms": True},
        {"expires_at_ms": "1700000000000"},
        {"expires_at_ms": 1.5},
        {"expires_at_ms": 2**63},
        {"remaining_ttl_ms": False},
        {"remaining_ttl_ms": "60000"},
        {"reserved": {"unit": "TOKENS"}},
        {"reserved": {"unit": "TOKENS", "amount": True}},
        {"reserved": {"unit": "TOKENS", "amount": "5"}},
        {"reserved": 100},
        {"caps": []},
        {"caps": {"max_tokens": "5"}},
        {"caps": {"tool_allowlist": "web"}},
        {"balances": {}},
        {"balances": [5]},
        {"balances": [{}]},
    ],
    "commit": [
        {"status": None},
        {"status": 5},
        {"charged": None},
        {"charged": {}},
        {"charged": 7},
        {"charged": {"unit": "TOKENS", "amount": None}},
        {"charged": {"unit": "TOKENS", "amount": True}},
        {"charged": {"unit": "TOKENS", "amount": -1}},
        {"charged": {"unit": "TOKENS", "amount": 2**63}},
        {"charged": {"unit": 5, "amount": 1}},
        {"released": {"unit": "TOKENS", "amount": "1"}},
        {"balances": "none"},
    ],
    "extend": [
        {"status": None},
        {"expires_at_ms": None},
        {"expires_at_ms": "x"},
        {"expires_at_ms": True},
        {"remaining_ttl_ms": "x"},
        {"remaining_ttl_ms": True},
        {"balances": [{"scope": 5}]},
    ],
    "release": [{"status": None}, {"released": None}, {"released": {"unit": "TOKENS"}}, {"released": [1]}],
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_members_of_the_wrong_kind(call: Caller, operation: str) -> None:
    for change in WRONG[operation]:
        with Stub() as stub:
            try:
                is_inconclusive(call, operation, stub, ok(whole(operation, **change)))
            except AssertionError as error:
                raise AssertionError(f"{change}") from error
        call.guard = None


@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_is_newer_than_this_sdk_is_fine(call: Caller, operation: str) -> None:
    news = {
        "x_new": {"deep": [1, None]},
        "balances": None,
        "cycles_evidence": None,
        "caps": None,
        "retry_after_ms": None,
    }
    status = {} if operation == "create" else {"status": "SOMETHING_NEW"}
    unit = {"unit": "JOULES", "amount": 3}
    amounts = {
        "create": {"reserved": unit},
        "commit": {"charged": unit, "released": unit},
        "release": {"released": unit},
    }
    answer = whole(operation, **news, **status, **amounts.get(operation, {}))
    with Stub() as stub:
        outcome = call(operation, stub, ok(answer))
        requests = len(stub.requests)
    if operation == "create":
        assert outcome.reserved == cycles.Amount("JOULES", 3)
        assert (outcome.state, outcome.balances, outcome.is_capped) == ("active", [], False)
        assert requests == 1
    elif operation == "commit":
        assert (outcome.status, outcome.charged) == ("committed", cycles.Amount("JOULES", 3))
        assert outcome.response.extra == {"x_new": {"deep": [1, None]}} | _unknown(outcome.response, news)
    else:
        assert outcome.status == "SOMETHING_NEW"


def _unknown(response: Any, news: dict[str, Any]) -> dict[str, Any]:
    known = {"balances", "cycles_evidence"} & set(dir(response))
    return {name: value for name, value in news.items() if name not in known and name != "x_new"}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    "answer",
    [
        hang_up(),
        reset(),
        reset(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{}"),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"),
        raw(b"SSH-2.0-OpenSSH_9.6\r\n"),
        raw(b"HTTP/1.1 2000 OK\r\n\r\n"),
        raw(b"HTTP/1.1 -1 OK\r\n\r\n"),
        raw(b"\x00" * 4096),
        raw(b"HTTP/1.1 200 OK\r\n" + b"X-Long: " + b"a" * 200_000 + b"\r\n\r\n"),
        ok(gzip.compress(b"{}")[:-5], headers=[("Content-Encoding", "gzip")]),
        ok(b"not gzip", headers=[("Content-Encoding", "gzip")]),
        ok(b"\x1b", headers=[("Content-Encoding", "br")]),
    ],
    ids=[
        "hang up", "reset", "reset in the body", "cut body", "cut chunk", "not http", "status of four digits",
        "negative status", "zeros", "long header", "cut gzip", "no gzip", "brotli",
    ],
)  # fmt: skip
def test_a_connection_that_misbehaves(call: Caller, operation: str, answer: Answer) -> None:
    with Stub() as stub:
        is_inconclusive(call, operation, stub, answer)


@pytest.mark.parametrize(
    ("operation", "answer"),
    [
        ("create", stall()),
        ("create", drip(reply(CREATED))),
        ("commit", stall()),
        ("commit", stall(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{")),
        ("commit", drip(reply(ANSWERS["commit"]))),
        ("commit", stall(b"HTTP/1.1 100 Continue\r\n\r\n")),
        ("extend", stall(b"HTTP/1.1 200 OK\r\n")),
        ("extend", drip(reply(ANSWERS["extend"]))),
        ("release", stall(b"HTTP/1.1 103 Early Hints\r\n\r\n")),
        ("release", drip(reply(ANSWERS["release"]))),
    ],
)
def test_a_server_that_takes_its_time_is_left_at_the_deadline(call: Caller, operation: str, answer: Answer) -> None:
    with Stub() as stub:
        call.timeout_s = SHORT_S
        is_inconclusive(call, operation, stub, answer)


@pytest.mark.parametrize("status", [200, 502])
def test_a_huge_response_is_rejected(call: Caller, status: int) -> None:
    def flood(sock: Any, ended: Any) -> bool:
        sock.sendall(f"HTTP/1.1 {status} OK\r\nContent-Length: 100000000\r\n\r\n".encode())
        for _ in range(100):
            sock.sendall(b" " * 1_000_000)
        return False

    for operation in ("create", "commit"):
        with Stub() as stub:
            is_inconclusive(call, operation, stub, flood)
        call.guard = None


def test_a_compressed_response_is_read(call: Caller) -> None:
    body = gzip.compress(json.dumps(ANSWERS["commit"]).encode())
    with Stub() as stub:
        assert call("commit", stub, ok(body, headers=[("Content-Encoding", "gzip")])).status == "committed"


@pytest.mark.parametrize("operation", [*OPERATIONS, "decide", "balances", "event"])
@pytest.mark.parametrize("status", some([301, 302, 303, 307, 308]))
def test_a_redirect_never_takes_the_key_elsewhere(call: Caller, operation: str, status: int) -> None:
    with Stub() as elsewhere, Stub() as stub:
        answer = ok(b"", status, [("Location", f"{elsewhere.url}/v1/reservations")])
        call.timeout_s = SHORT_S  # a read is repeated until then
        seen(call, operation, stub, answer)
    assert (elsewhere.connections, elsewhere.requests) == (0, [])


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2", 2000),
        ("0", 0),
        (" 7 ", 7000),
        (None, None),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("Wed, 21 Oct 2025 07:28:00 GMT", None),
        ("9" * 40, None),
        ("١", None),
    ],
)
def test_retry_after_is_whole_seconds_or_nothing(call: Caller, text: str | None, ms: int | None) -> None:
    headers = [] if text is None else [("Retry-After", text.encode().decode("latin-1"))]
    body = {"error": "LIMIT_EXCEEDED", "message": "slow down", "request_id": "r-1"}
    with Stub() as stub, pytest.raises(cycles.RateLimitedError) as caught:
        call("create", stub, ok(body, 429, headers))
    assert (caught.value.retry_after_ms, caught.value.retryable) == (ms, True)
    assert len(stub.requests) == 1  # a 429 is not retried behind the caller's back


@pytest.mark.parametrize("operation", ["decide", "balances"])
@pytest.mark.parametrize(
    "answer", [ok(b"<html>"), hang_up(), stall(), ok(b"", 503)], ids=["html", "gone", "mute", "503"]
)
def test_reads_and_questions_end_typed_and_on_time(call: Caller, operation: str, answer: Answer) -> None:
    with Stub() as stub:
        call.timeout_s = SHORT_S
        assert isinstance(seen(call, operation, stub, answer), cycles.CyclesError)


@pytest.mark.parametrize("decision", ["MAYBE", "allow", "ALLOW_TOMORROW"])
def test_an_unknown_decision_fails_closed(call: Caller, decision: str) -> None:
    with Stub() as stub, pytest.raises(cycles.ReservationDeniedError, match=decision):
        call("create", stub, ok(whole("create", decision=decision)), ok(ANSWERS["release"]))
    assert [request.target for request in stub.requests] == ["/v1/reservations", "/v1/reservations/res-1/release"]


@pytest.mark.parametrize("operation", ["create", "extend"])
def test_what_is_sent_again_is_the_same_to_the_byte(call: Caller, operation: str) -> None:
    with Stub() as stub:
        call(operation, stub, hang_up(), ok(ANSWERS[operation]))
        first, second = stub.requests[-2:]
    assert (first.target, first.body) == (second.target, second.body)
    assert first.headers == second.headers


def test_the_responses_these_tests_start_from_are_right(call: Caller) -> None:
    for operation, answer in ANSWERS.items():
        with Stub() as stub:
            status = 201 if operation == "event" else 200
            assert not isinstance(seen(call, operation, stub, ok(answer, status)), Exception), operation
        call.guard = None
