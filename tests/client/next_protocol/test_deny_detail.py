"""The details of a denial: in errors, guards and traces."""

from __future__ import annotations

import sys
from typing import Any

import pytest

import cycles
from cycles._core.messages.outcome import Success
from cycles._drivers.tracing import result_of
from tests.client.next_protocol.conftest import MAIL


def test_a_wrong_deny_detail_never_breaks_an_error(server: cycles.EmbeddedServer, client: cycles.Cycles) -> None:
    cases: list[Any] = [5, [], {"quota_violation": 3}, {"reason_code": {}}, {"quota_violation": {"used": "many"}}]
    cases += [{"budget_remaining": True}, {"quota_violation": {"limit": False}}]
    for wrong in cases:
        error = {"error": "ACTION_QUOTA_EXCEEDED", "message": "m", "request_id": "r"}
        server.faults.status("reserve", 409, body={**error, "details": {"deny_detail": wrong}})
        with pytest.raises(cycles.ActionQuotaExceededError) as caught:
            client.reserve(cycles.tokens(1), action=MAIL).acquire()
        assert (caught.value.deny_detail, caught.value.quota) == (None, None)


@pytest.mark.parametrize("status", [200, 409])
def test_details_that_are_nested_deeply_never_break_a_denial(
    server: cycles.EmbeddedServer, client: cycles.Cycles, status: int
) -> None:
    detail: dict[str, Any] = {}
    for _ in range(sys.getrecursionlimit() * 2 // 3):  # JSON of this depth can be read, and not be walked through
        detail = {"new": detail}
    body: dict[str, Any] = {"decision": "NEW", "affected_scopes": ["tenant:acme"], "deny_detail": detail}
    if status == 409:
        body = {"error": "POLICY_VIOLATION", "message": "m", "request_id": "r", "details": {"deny_detail": detail}}
    server.faults.status("reserve", status, body=body)
    with pytest.raises(cycles.ReservationDeniedError) as caught:
        client.reserve(cycles.tokens(1), action=MAIL).acquire()
    assert caught.value.status == status


def test_the_advice_of_the_server_is_in_the_message(server: cycles.EmbeddedServer, client: cycles.Cycles) -> None:
    detail = {"reason_code": "POLICY_VIOLATION", "suggested_fix": f"ask {client.config.api_key}", "new": 1}
    error = {"error": "POLICY_VIOLATION", "message": "m", "request_id": "r", "details": {"deny_detail": detail}}
    server.faults.status("reserve", 409, body=error)
    with pytest.raises(cycles.ReservationDeniedError, match=r"the server suggests: ask \[api key\]") as caught:
        client.reserve(cycles.tokens(1), action=MAIL).acquire()
    assert "requested 1 token on tenant:acme" in str(caught.value)
    assert caught.value.deny_detail.extra == {"new": 1}
    assert str(client.config.api_key) not in str(caught.value.details)


@pytest.mark.parametrize("options", [{"shadow": True}, {"on_observed": "run"}])
def test_the_reason_of_a_guard_may_be_in_the_detail_only(
    server: cycles.EmbeddedServer, client: cycles.Cycles, options: dict[str, Any]
) -> None:
    body = {"decision": "DENY", "affected_scopes": ["tenant:acme"], "deny_detail": {"reason_code": "POLICY_VIOLATION"}}
    server.faults.status("reserve", 200, body=body)
    seen: list[Any] = []
    client.on_event(seen.append)
    with client.reserve(cycles.tokens(1), action=MAIL, **options) as guard:
        guard.commit(cycles.tokens(1))
    assert guard.reason_code == "POLICY_VIOLATION"
    decided = [event for event in seen if isinstance(event, cycles.events.ShadowDecided | cycles.events.Observed)]
    assert [event.reason_code for event in decided] == ["POLICY_VIOLATION"]


@pytest.mark.parametrize(
    ("body", "error_type"),
    [
        (
            {"decision": "DENY", "reason_code": "BUDGET_EXCEEDED", "deny_detail": {"reason_code": "X"}},
            "BUDGET_EXCEEDED",
        ),
        ({"decision": "DENY", "deny_detail": {"reason_code": "POLICY_VIOLATION"}}, "POLICY_VIOLATION"),
        ({"decision": "DENY", "deny_detail": "text"}, "DENY"),
        ({"decision": "ALLOW", "deny_detail": {"reason_code": "X"}}, None),
    ],
)
def test_a_tracer_sees_the_reason_that_is_in_the_detail_only(body: dict[str, Any], error_type: str | None) -> None:
    assert result_of(Success(body, None, None, None, 0.0, b"")).error_type == error_type
