"""Error responses, as users see them: the right class, every fact of the response, and never the key."""

from __future__ import annotations

import copy
import json
import logging
import pickle
from typing import Any

import pytest

import cycles
from cycles import _errors
from cycles._wire.wire import Wire
from tests.support.inside import runtime_of
from tests.support.stub import Stub, hang_up, ok

from .conftest import KEY, Caller, Make

CODES = {
    "INVALID_REQUEST": (400, cycles.ProtocolError),
    "UNIT_MISMATCH": (400, cycles.UnitMismatchError),
    "UNAUTHORIZED": (401, cycles.UnauthorizedError),
    "FORBIDDEN": (403, cycles.ForbiddenError),
    "NOT_FOUND": (404, cycles.NotFoundError),
    "BUDGET_EXCEEDED": (409, cycles.BudgetExceededError),
    "BUDGET_FROZEN": (409, cycles.BudgetFrozenError),
    "BUDGET_CLOSED": (409, cycles.BudgetClosedError),
    "OVERDRAFT_LIMIT_EXCEEDED": (409, cycles.OverdraftLimitExceededError),
    "DEBT_OUTSTANDING": (409, cycles.DebtOutstandingError),
    "TENANT_CLOSED": (409, cycles.TenantClosedError),
    "RESERVATION_FINALIZED": (409, cycles.ReservationFinalizedError),
    "IDEMPOTENCY_MISMATCH": (409, cycles.IdempotencyMismatchError),
    "MAX_EXTENSIONS_EXCEEDED": (409, cycles.MaxExtensionsExceededError),
    "RESERVATION_EXPIRED": (410, cycles.ReservationExpiredError),
    "LIMIT_EXCEEDED": (429, cycles.RateLimitedError),
    "INTERNAL_ERROR": (500, cycles.ServerError),
}
DENIED = {code for code, (status, _) in CODES.items() if status == 409}


def refusal(code: str | None, **members: Any) -> dict[str, Any]:
    return {"error": code, "message": f"no: {code}", "request_id": "req-1", **members}


def refused(call: Caller, operation: str, status: int, body: Any, headers: Any = ()) -> Any:
    with Stub() as stub, pytest.raises(cycles.ProtocolError) as caught:
        call(operation, stub, ok(body, status, headers))
    return caught.value


@pytest.mark.parametrize("code", CODES)
def test_every_code_has_its_class(call: Caller, code: str) -> None:
    status, kind = CODES[code]
    body = refusal(code, trace_id="a" * 32, details={"scope": "tenant:acme"})
    error = refused(call, "decide", status, body, [("Retry-After", "3")])
    assert type(error) is kind
    assert (error.status, error.code, error.request_id, error.trace_id) == (status, code, "req-1", "a" * 32)
    assert (error.details, error.retry_after_ms) == ({"scope": "tenant:acme"}, 3000)
    assert error.message == f"no: {code}"
    assert error.retryable is (status in (429, 500))


@pytest.mark.parametrize("code", sorted(DENIED))
def test_any_conflict_on_a_reserve_is_a_denial(call: Caller, code: str) -> None:
    error = refused(call, "create", 409, refusal(code))
    assert isinstance(error, cycles.ReservationDeniedError)
    assert error.code == code
    if issubclass(CODES[code][1], cycles.ReservationDeniedError):
        assert type(error) is CODES[code][1]


@pytest.mark.parametrize("operation", ["create", "extend", "decide", "balances"])
@pytest.mark.parametrize("code", ["BRAND_NEW", "budget_exceeded", ""])
def test_an_unknown_code_is_a_protocol_error(call: Caller, operation: str, code: str) -> None:
    error = refused(call, operation, 422, refusal(code))
    assert type(error) is cycles.ProtocolError
    assert error.code == (code or None)
    assert not error.retryable


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, cycles.ProtocolError),
        (401, cycles.UnauthorizedError),
        (404, cycles.NotFoundError),
        (409, cycles.ProtocolError),
        (410, cycles.ProtocolError),  # a page is no expiry
        (429, cycles.RateLimitedError),
        (503, cycles.ServerError),
    ],
)
def test_without_a_code_the_status_decides(call: Caller, status: int, kind: Any) -> None:
    headers = [("X-Request-Id", "req-9"), ("X-Cycles-Trace-Id", "b" * 32)]
    error = refused(call, "decide", status, b"<html>", headers)
    assert type(error) is kind
    assert (error.code, error.request_id, error.trace_id) == (None, "req-9", "b" * 32)


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("BUDGET_EXCEEDED", cycles.BudgetExceededError),
        ("BUDGET_FROZEN", cycles.BudgetFrozenError),
        ("ACTION_QUOTA_EXCEEDED", cycles.ActionQuotaExceededError),
        ("ACTION_KIND_DENIED", cycles.ActionNotPermittedError),
        ("NOT_FOUND", cycles.ReservationDeniedError),
        (None, cycles.ReservationDeniedError),
    ],
)
def test_a_denial_that_comes_as_a_decision(call: Caller, reason: str | None, kind: Any) -> None:
    body: dict[str, Any] = {"decision": "DENY", "affected_scopes": [], "reason_code": reason, "retry_after_ms": 250}
    error = refused(call, "create", 200, body)
    assert type(error) is kind
    assert (error.status, error.reason_code, error.retry_after_ms) == (200, reason, 250)


def test_a_silent_server_is_a_transport_error_with_a_cause(call: Caller) -> None:
    with Stub() as stub, pytest.raises(cycles.TransportError) as caught:
        call("decide", stub, hang_up())
    assert type(caught.value) is cycles.TransportError
    assert caught.value.cause is not None
    assert caught.value.trace_id


@pytest.mark.parametrize("echo", ["message", "details", "code", "ids"])
def test_a_key_that_the_server_echoes_is_redacted(call: Caller, caplog: pytest.LogCaptureFixture, echo: str) -> None:
    caplog.set_level(logging.DEBUG)
    bodies = {
        "message": refusal("UNAUTHORIZED", message=f"key {KEY} is unknown"),
        "details": refusal("UNAUTHORIZED", details={"given": [{KEY: f"<{KEY}>"}]}),
        "code": refusal(f"NO_{KEY}"),
        "ids": refusal("UNAUTHORIZED", request_id=f"of {KEY}", trace_id=f"of {KEY}"),
    }
    error = refused(call, "create", 401, bodies[echo])
    everything = [str(error), repr(error), repr(error.args), repr(error.__dict__), repr(error.details), caplog.text]
    assert not [text for text in everything if KEY in text]
    assert KEY not in repr(pickle.dumps(error))


def test_a_key_in_the_detail_of_a_decision_to_deny_is_redacted(call: Caller, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    detail = {"suggested_fix": f"replace {KEY}", "blocked_by_scope": f"tenant:{KEY}"}
    body = json.dumps({"decision": "DENY", "deny_detail": detail, "affected_scopes": ["tenant:acme"]}).encode()
    with Stub() as stub:
        decided = call("decide", stub, ok(body))
    assert decided.deny_detail.suggested_fix.startswith("replace ")
    assert KEY not in f"{decided} {decided!r} {decided.deny_detail.to_dict()} {caplog.text}"


@pytest.mark.parametrize(
    ("keys", "message", "shown"),
    [
        (["k"], "check the key 'k': kk", "check the key '[api key]': kk"),
        (["test"], "the latest test-key: test", "the latest [api key]-key: [api key]"),
        (["a.c"], "abc a.c", "abc [api key]"),
        (["longer-key"], "xlonger-keyx", "x[api key]x"),
        (["12345678"], "x12345678x", "x[api key]x"),
        (["1234567"], "x1234567x", "x1234567x"),
        (["key-1234-and-more", "key-1234"], "key-1234-and-more", "[api key]"),
    ],
)
def test_a_short_key_is_hidden_as_a_whole_word_only(keys: list[str], message: str, shown: str) -> None:
    """A key of one letter would otherwise be found in most words of a message."""
    wire = Wire("")
    for key in keys:
        wire.use_key(key)
    assert wire.redact(message) == shown


@pytest.mark.parametrize("operation", ["create", "commit", "decide"])
def test_a_key_in_a_response_that_does_not_match_the_schema_is_redacted(
    call: Caller, caplog: pytest.LogCaptureFixture, operation: str
) -> None:
    caplog.set_level(logging.DEBUG)
    body = json.dumps({"decision": [KEY], "status": [KEY], "charged": KEY, "affected_scopes": KEY}).encode()
    with Stub() as stub:
        try:
            seen: Any = call(operation, stub, ok(body))
        except cycles.CyclesError as error:
            seen = error
    assert KEY not in f"{seen} {seen!r} {caplog.text} {call.client.pending()}"


def test_the_key_is_in_no_repr(make: Make) -> None:
    with Stub() as stub:
        client = make(stub.url)
        texts = [
            repr(client),
            str(client),
            repr(client.config),
            repr(client.reserve(cycles.tokens(1), action=("a", "b"))),
        ]
        texts += [repr(vars(client)), repr(runtime_of(client).channel.wire), repr(client.aio)]
    assert not [text for text in texts if KEY in text]


def test_a_key_that_cannot_be_one_is_not_shown_either() -> None:
    with pytest.raises(cycles.ConfigurationError) as caught:
        cycles.Cycles(base_url="http://localhost", api_key=f"{KEY}\n")
    assert KEY not in str(caught.value)


def every_error() -> list[cycles.CyclesError]:
    facts = {"status": 409, "code": "X", "reason_code": "Y", "request_id": "r", "trace_id": "t", "details": {"a": [1]}}
    facts |= {"retry_after_ms": 5, "retryable": True}
    special: dict[type, dict[str, Any]] = {
        cycles.LeaseLostError: {"reservation_id": "res"},
        cycles.ReservationNotActiveError: {"reservation_id": "res"},
        cycles.ToolNotAllowedError: {"tool": "web"},
        cycles.StepsExhaustedError: {"limit": 3},
        _errors.EvidenceRejectedError: {"rule": "json"},
    }
    errors = []
    for kind in vars(_errors).values():
        if isinstance(kind, type) and issubclass(kind, cycles.CyclesError):
            given = special.get(kind, {})
            if issubclass(kind, cycles.ProtocolError):
                given = facts
            elif issubclass(kind, cycles.TransportError):
                given = {"cause": OSError(5, "io"), "status": 200, "request_id": "r", "trace_id": "t"}
            errors.append(kind("words", **given))
    return errors


@pytest.mark.parametrize("error", every_error(), ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_errors_pickle_and_copy(error: cycles.CyclesError, way: Any) -> None:
    error.add_note("noted")
    again = way(error)
    assert type(again) is type(error)
    assert (str(again), again.args) == (str(error), error.args)
    assert {n: repr(v) for n, v in vars(again).items()} == {n: repr(v) for n, v in vars(error).items()}


def test_the_tree() -> None:
    for name in cycles.__all__:
        kind = getattr(cycles, name)
        if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, Warning):
            assert issubclass(kind, cycles.CyclesError), name
    assert issubclass(cycles.ConfigurationError, ValueError)
    assert issubclass(cycles.InvalidRequestError, ValueError)
    assert issubclass(cycles.AmbiguousResponseError, cycles.TransportError)
    assert issubclass(cycles.UncommittedGuardWarning, UserWarning)
    assert not issubclass(cycles.TransportError, cycles.ProtocolError)
