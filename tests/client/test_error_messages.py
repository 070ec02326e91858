"""Errors that a user can act on, and that survive a process pool and a log file."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import pickle
import socket
import ssl
import threading
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

import cycles
from tests.lease.server import LeaseServer
from tests.support.stub import Stub, ok


class Unpicklable(Exception):
    """An exception whose constructor cannot be called with its args, as many libraries have them."""

    def __init__(self, code: int, *, request: object) -> None:
        super().__init__(f"code {code}")
        self.request = request


class Recursive:
    """An object whose own code fails while it is dumped."""

    def __getstate__(self) -> object:
        raise RecursionError("it has itself as a member")


CAUSES: list[BaseException] = [
    OSError(5, "io"),
    ConnectionRefusedError(111, "refused"),
    ssl.SSLError(1, "wrong version"),
    ssl.SSLCertVerificationError("self-signed"),
    socket.gaierror(-2, "unknown name"),
    httpx.ConnectError("no", request=httpx.Request("GET", "http://localhost")),
    UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"),
    Unpicklable(5, request=lambda: None),
    Unpicklable(6, request="which can be dumped, and not be loaded"),
    Unpicklable(7, request=threading.Lock()),
    Unpicklable(8, request=Recursive()),
]


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: type(cause).__name__)
@pytest.mark.parametrize("kind", [cycles.TransportError, cycles.AmbiguousResponseError])
def test_a_transport_error_pickles_with_every_cause(kind: type[cycles.TransportError], cause: BaseException) -> None:
    error = kind("no usable response", cause=cause, trace_id="t", request_sent=False)
    for again in (pickle.loads(pickle.dumps(error)), copy.deepcopy(error)):
        assert type(again) is kind
        assert str(again) == "no usable response"
        assert str(cause) in str(again.cause)
        assert (again.trace_id, again.request_sent, again.retryable) == ("t", False, True)


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({}, "m"),
        ({"code": "NOT_FOUND"}, "m [NOT_FOUND]"),
        ({"reason_code": "BUDGET_FROZEN"}, "m [BUDGET_FROZEN]"),
        ({"code": "NOT_FOUND", "reason_code": "OTHER"}, "m [NOT_FOUND]"),
        ({"code": "m"}, "m"),
        ({"code": "m", "reason_code": "OTHER", "status": 409}, "m [HTTP 409]"),
        ({"hint": "do this", "status": 503}, "m; do this [HTTP 503]"),
        ({"request_id": "r" * 200}, f"m [request {'r' * 128}]"),
        ({"request_id": ""}, "m"),
        ({"code": "C", "status": 409, "request_id": "r"}, "m [C, HTTP 409, request r]"),
    ],
    ids=ascii,
)
def test_the_text_of_an_error_response(members: dict[str, Any], text: str) -> None:
    error = cycles.ProtocolError("m", **members)
    assert [str(error), str(copy.copy(error)), str(pickle.loads(pickle.dumps(error)))] == [text] * 3
    longer = cycles.ProtocolError("m" * 501, **members)
    assert (str(longer)[:501].rstrip(" ;["), longer.message) == ("m" * 500, "m" * 501)
    error.args = ("told otherwise", 5)
    assert str(error) == "told otherwise 5"


def test_the_details_of_an_error_are_those_of_its_response() -> None:
    given = {"scope": "tenant:acme"}
    error = cycles.ProtocolError("m", details=given)
    given["scope"] = "changed"
    assert (error.details, cycles.ProtocolError("m").details) == ({"scope": "tenant:acme"}, {})
    cycles.ProtocolError("m").details["x"] = 1
    assert cycles.ProtocolError("m").details == {}


def test_a_quota_that_the_server_does_not_name_is_none() -> None:
    assert cycles.ActionQuotaExceededError("m").quota is None
    named = SimpleNamespace(quota_violation=5)
    assert cycles.ActionQuotaExceededError("m", deny_detail=named).quota == 5


def test_a_transport_error_is_retryable() -> None:
    assert cycles.TransportError("x").retryable
    assert cycles.AmbiguousResponseError("x").retryable
    assert cycles.TransportError("x").request_sent


WRONG_HEADERS: list[tuple[Any, str]] = [
    ({"X-Team": "a\r\nX-Cycles-API-Key: other"}, "the value of X-Team must be ASCII text without line breaks"),
    ({"X-Team": "a\nb"}, "the value of X-Team must be ASCII text without line breaks"),
    ({"X-Team": "caf\u00e9"}, "the value of X-Team must be ASCII text without line breaks"),
    ({"X-Team": 5}, "the value of X-Team must be ASCII text without line breaks"),
    ({"X\nTeam": "a"}, "'X\\nTeam' is not the name of an HTTP header"),
    ({"": "a"}, "'' is not the name of an HTTP header"),
    ({"x-cycles-api-key": "other"}, "the client sends x-cycles-api-key itself; remove it"),
    ({"Content-Type": "text/plain"}, "the client sends Content-Type itself; remove it"),
    ({"Host": "other"}, "the client sends Host itself; remove it"),
    ({"User-Agent": "me"}, "the client sends User-Agent itself; remove it"),
    ({"traceparent": "00-0"}, "the client sends traceparent itself; remove it"),
]


@pytest.mark.parametrize(("headers", "message"), WRONG_HEADERS)
def test_a_wrong_extra_header_is_rejected_before_anything_is_sent(headers: Any, message: str) -> None:
    with Stub() as stub, make(stub.url) as client:
        with pytest.raises(cycles.InvalidRequestError) as caught:
            client.raw("getBalances", tenant="acme", extra_headers=headers)
        assert str(caught.value) == f"extra_headers: {message}"
        assert not stub.requests


def test_an_extra_header_is_sent_beside_the_key() -> None:
    with Stub(ok({"balances": []})) as stub, make(stub.url) as client:
        client.raw("getBalances", tenant="acme", extra_headers={"X-Admin-API-Key": "admin"})
        [request] = stub.requests
    assert (request.headers["x-admin-api-key"], request.headers["x-cycles-api-key"]) == ("admin", "cyc_live_1")


def make(url: str, **settings: Any) -> cycles.Cycles:
    return cycles.Cycles(base_url=url, api_key="cyc_live_1", tenant="acme", journal=False, **settings)


@pytest.mark.parametrize("nasty", ["a\nb", "a\r\nERROR forged", "a\u2028b", "a\x1b[31m", "x" * 100_000])
def test_a_log_record_is_one_line_for_any_message(nasty: str, caplog: pytest.LogCaptureFixture) -> None:
    body = json.dumps({"error": "BUDGET_EXCEEDED", "message": nasty, "request_id": "r"}).encode()
    caplog.set_level(logging.INFO, "cycles")
    with Stub(ok(body, 409)) as stub, make(stub.url) as client, pytest.raises(cycles.BudgetExceededError):
        client.reserve(cycles.usd(1), action=("a", "b")).acquire()
    assert caplog.messages
    for line in caplog.messages:
        assert line.isprintable()
        assert len(line) < 3_000


def test_the_notice_that_an_old_server_lacks_a_field_appears_once_per_client() -> None:
    seen: list[Any] = []
    with LeaseServer(remaining_ms=None) as server, make(server.url) as client:
        client.on_event(seen.append)
        for _ in range(3):
            client.reserve(cycles.tokens(9), action=("a", "b")).acquire().commit(cycles.tokens(1))
    notices = [event for event in seen if isinstance(event, cycles.events.LeaseNotice) and event.kind == "fallback"]
    assert len(notices) == 1


@pytest.mark.parametrize("end", ["commit", "release"])
@pytest.mark.parametrize("is_async", [False, True])
def test_a_replay_says_how_the_first_run_ended(end: str, is_async: bool) -> None:
    clock = cycles.ManualClock(start_ms=1_700_000_000_000)
    server = cycles.EmbeddedServer(budgets={"tenant:acme": cycles.usd(10)}, clock=clock)
    with server.client(tenant="acme", journal=False) as client:
        again = client.reserve(cycles.usd(2), action=("job.run", "nightly"), idempotency_key="job-7")
        first = again.acquire()
        clock.advance(5_000)
        first.commit(cycles.usd("1.50")) if end == "commit" else first.release()
        with pytest.raises(cycles.ReservationNotActiveError) as caught:
            asyncio.run(acquire(again)) if is_async else again.acquire()
    error = caught.value
    how = "committed $1.50" if end == "commit" else "released"
    assert f"reservation {first.reservation_id} {how} at 2023-11-14T22:13:25Z" in str(error)
    assert "use a new key for new work" in str(error)
    assert error.status == ("COMMITTED" if end == "commit" else "RELEASED")
    assert error.committed == (cycles.usd("1.50") if end == "commit" else None)
    assert error.finalized_at_ms == 1_700_000_005_000


def test_a_replay_of_a_run_whose_end_no_calendar_has_says_how_it_ended() -> None:
    ids = {"reservation_id": "r-1", "expires_at_ms": 10**17, "affected_scopes": ["tenant:acme"]}
    replayed = {**ids, "decision": "ALLOW", "remaining_ttl_ms": 0}
    subject, action = {"tenant": "acme"}, {"kind": "a", "name": "b"}
    ended = {**ids, "status": "RELEASED", "subject": subject, "action": action, "scope_path": "tenant:acme"}
    ended |= {"reserved": cycles.usd(2).to_dict(), "created_at_ms": 1, "finalized_at_ms": 10**17}
    with Stub(ok(replayed), ok(ended)) as stub, make(stub.url) as client:
        again = client.reserve(cycles.usd(2), action=("a", "b"), idempotency_key="job-7")
        with pytest.raises(cycles.ReservationNotActiveError, match=r"r-1 released, so the block does not") as caught:
            again.acquire()
    assert (caught.value.status, caught.value.finalized_at_ms) == ("RELEASED", 10**17)


async def acquire(reservation: cycles.Reservation) -> None:
    await reservation


def test_a_replay_of_an_expired_run_says_so() -> None:
    clock = cycles.ManualClock(start_ms=1_700_000_000_000)
    server = cycles.EmbeddedServer(budgets={"tenant:acme": cycles.usd(10)}, clock=clock)
    with server.client(tenant="acme", journal=False) as client:
        body = {
            "idempotency_key": "job-8",
            "subject": {"tenant": "acme"},
            "action": {"kind": "job.run", "name": "nightly"},
            "estimate": cycles.usd(2).to_dict(),
            "ttl_ms": 60_000,
        }
        client.raw("createReservation", body=body)
        clock.advance(600_000)
        with pytest.raises(cycles.ReservationNotActiveError, match="expired") as caught:
            client.reserve(cycles.usd(2), action=("job.run", "nightly"), idempotency_key="job-8").acquire()
    assert caught.value.status == "EXPIRED"


def denied(status: int, body: dict[str, Any], **options: Any) -> cycles.ReservationDeniedError:
    with (
        Stub(ok(body, status)) as stub,
        make(stub.url) as client,
        pytest.raises(cycles.ReservationDeniedError) as caught,
    ):
        client.reserve(cycles.usd(2), action=("a", "b"), subject={"agent": "bot"}).acquire()
    return caught.value


def rejection(code: str | None, message: str, **members: Any) -> dict[str, Any]:
    return {"error": code, "message": message, "request_id": "r", **members}


def test_a_denial_says_what_was_requested_and_for_which_subject() -> None:
    error = denied(409, rejection("BUDGET_EXCEEDED", "BUDGET_EXCEEDED"))
    assert "; requested $2.00 on tenant:acme/agent:bot; the remaining budget is smaller" in str(error)


def test_a_denial_does_not_repeat_what_the_server_says() -> None:
    """The built-in server names what is left and what is needed."""
    with (
        cycles.EmbeddedServer({"tenant:told": cycles.usd(1)}) as server,
        server.client(tenant="told") as client,
        pytest.raises(cycles.BudgetExceededError) as caught,
    ):
        client.reserve(cycles.usd(2), action=("a", "b")).acquire()
    said, _, ids = str(caught.value).partition(" [")
    assert said == (
        "the budget is too small: tenant:told has $1.00 left, and $2.00 is needed; "
        "a larger budget lets it pass: cycles fund SCOPE AMOUNT; client.balances() lists what is left"
    )
    assert ids.startswith("BUDGET_EXCEEDED, HTTP 409, request ")


LEFT = {"unit": "USD_MICROCENTS", "amount": 98_000_000}


@pytest.mark.parametrize(
    "details",
    [
        {"scope": "tenant:acme", "remaining": LEFT},
        {"scope": "tenant:acme", "remaining": 98_000_000},
        {"deny_detail": {"blocked_by_scope": "tenant:acme"}, "remaining": LEFT},
    ],
)
def test_a_denial_says_which_scope_rejected_it_and_what_is_left(details: dict[str, Any]) -> None:
    error = denied(409, rejection("BUDGET_EXCEEDED", "BUDGET_EXCEEDED", details=details))
    assert "requested $2.00 on tenant:acme/agent:bot; tenant:acme has $0.98 left" in str(error)


def test_a_denial_that_comes_as_a_decision_says_which_scope_rejected_it() -> None:
    balance = {
        "scope": "tenant:acme",
        "scope_path": "tenant:acme",
        "remaining": {"unit": "USD_MICROCENTS", "amount": 98_000_000},
    }
    body = {"decision": "DENY", "affected_scopes": [], "reason_code": "BUDGET_EXCEEDED"}
    error = denied(200, {**body, "deny_detail": {"blocked_by_scope": "tenant:acme"}, "balances": [balance]})
    assert "requested $2.00 on tenant:acme/agent:bot; tenant:acme has $0.98 left" in str(error)
    error = denied(200, {**body, "deny_detail": {"blocked_by_scope": "tenant:acme"}})
    assert "requested $2.00 on tenant:acme/agent:bot; rejected by tenant:acme" in str(error)


def failed(status: int, body: Any, path: str = "") -> cycles.ProtocolError:
    with Stub(ok(body, status), ok(body, status)) as stub, make(stub.url + path) as client:
        return caught_by(client)


def caught_by(client: cycles.Cycles) -> cycles.ProtocolError:
    with pytest.raises(cycles.ProtocolError) as caught:
        client.decide(cycles.usd(2), action=("a", "b"))
    return caught.value


def test_an_empty_403_is_not_reported_as_a_wrong_tenant() -> None:
    error = failed(403, b"")
    assert not isinstance(error, cycles.ForbiddenError)
    assert "tenant" not in str(error)
    assert "a proxy or the server's web framework rejected the request; check base_url" in str(error)
    assert isinstance(failed(403, rejection("FORBIDDEN", "another tenant")), cycles.ForbiddenError)


def test_a_suspended_tenant_is_not_reported_as_a_wrong_key() -> None:
    for error in (
        failed(401, rejection("UNAUTHORIZED", "TENANT_SUSPENDED")),
        failed(403, rejection("TENANT_SUSPENDED", "the tenant is suspended")),
    ):
        assert "check api_key" not in str(error)
        assert "the tenant of this key is suspended; the key is right, an operator can reactivate the tenant" in str(
            error
        )
    assert "check api_key" in str(failed(401, rejection("UNAUTHORIZED", "KEY_NOT_FOUND")))


def test_a_server_whose_store_is_down_is_not_reported_as_a_wrong_key() -> None:
    error = failed(401, rejection("UNAUTHORIZED", "INTERNAL_ERROR"))
    assert isinstance(error, cycles.ServerError)
    assert error.retryable
    assert "check api_key" not in str(error)
    assert "probably because its store is down; the key may be right, retry" in str(error)


@pytest.mark.parametrize("status", [404, 500])
def test_a_base_url_that_ends_in_v1_is_named_as_the_likely_cause(status: int) -> None:
    advice = "base_url ends in /v1, which the client adds itself: remove it"
    assert advice in str(failed(status, rejection(None, "no such path"), "/v1"))
    assert advice in str(failed(status, b"<html>", "/v1/"))
    assert advice not in str(failed(status, rejection(None, "no such path"), "/api"))
    assert advice not in str(failed(400, rejection("INVALID_REQUEST", "x"), "/v1"))
