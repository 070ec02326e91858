"""A denial says what was requested, for which subject, and which scope had too little left."""

from __future__ import annotations

from typing import Any

import pytest

import cycles
from cycles._core.messages.denial_message import denial_message
from cycles._core.messages.errors import error_of
from cycles._core.messages.outcome import RejectedResponse
from cycles._core.messages.reserve_request import ReserveRequest
from cycles._core.protocol import CREATE_RESERVATION
from cycles._core.results import Balance
from cycles._core.subjects import Action, Subject

REQUEST = ReserveRequest(
    estimate=cycles.usd(2),
    action=Action("llm.completion", "m"),
    subject=Subject(tenant="acme", agent="bot"),
    ttl_ms=60_000,
)
START = "requested $2.00 on tenant:acme/agent:bot"


@pytest.mark.parametrize(
    ("details", "expected"),
    [
        (None, START),
        ({"scope": "tenant:acme"}, f"{START}; rejected by tenant:acme"),
        ({"scope": "tenant:acme", "remaining": 98_000_000}, f"{START}; tenant:acme has $0.98 left"),
        (
            {"scope": "tenant:acme", "available": {"unit": "USD_MICROCENTS", "amount": -1_000_000}},
            f"{START}; tenant:acme has -$0.01 left",
        ),
        ({"scope": "tenant:acme", "remaining": "?", "available": 98_000_000}, f"{START}; tenant:acme has $0.98 left"),
        ({"scope": 5, "remaining": 1}, START),
        ({"scope": "tenant:acme", "remaining": {"unit": 5}}, f"{START}; rejected by tenant:acme"),
    ],
)
def test_details(details: dict[str, Any] | None, expected: str) -> None:
    assert denial_message(REQUEST, details) == expected


def balance(path: str, unit: str, amount: int) -> Balance:
    scope = path.rpartition("/")[2]
    return Balance.read({"scope": scope, "scope_path": path, "remaining": {"unit": unit, "amount": amount}})


def test_the_first_balance_that_is_too_small() -> None:
    balances = [
        balance("tenant:acme", "TOKENS", 1),
        balance("tenant:acme", "USD_MICROCENTS", 200_000_000),
        balance("tenant:acme/agent:bot", "USD_MICROCENTS", 98_000_000),
    ]
    assert denial_message(REQUEST, balances=balances) == f"{START}; tenant:acme/agent:bot has $0.98 left"


@pytest.mark.parametrize(
    ("scope", "left"),
    [
        ("tenant:acme/agent:bot", "tenant:acme/agent:bot has $0.98 left"),
        ("agent:bot", "tenant:acme/agent:bot has $0.98 left"),
        ("tenant:acme", "tenant:acme has $0.97 left"),
        ("tenant:acme/app:web", "rejected by tenant:acme/app:web"),
    ],
)
def test_the_balance_of_the_scope_that_denied(scope: str, left: str) -> None:
    tenant = balance("tenant:acme", "USD_MICROCENTS", 97_000_000)
    balances = [tenant, balance("tenant:acme/agent:bot", "USD_MICROCENTS", 98_000_000)]
    assert denial_message(REQUEST, {"deny_detail": {"blocked_by_scope": scope}}, balances) == f"{START}; {left}"


@pytest.mark.parametrize(("code", "hint"), [("BUDGET_EXCEEDED", "a larger budget lets it"), ("BUDGET_FROZEN", START)])
def test_only_a_budget_that_is_too_small_is_to_be_made_larger(code: str, hint: str) -> None:
    error = error_of(RejectedResponse(409, code, "$2.00 is needed"), CREATE_RESERVATION, REQUEST)
    assert isinstance(error, cycles.ReservationDeniedError)
    assert error.hint is not None
    assert error.hint.startswith(hint)


def test_the_error_of_a_denied_reservation_says_it() -> None:
    with cycles.EmbeddedServer({"tenant:acme": cycles.usd(1)}) as server, server.client(tenant="acme") as client:
        with pytest.raises(cycles.BudgetExceededError, match=r"\$2\.00 is needed; a larger budget lets"):
            client.reserve(cycles.usd(2), action=("llm.completion", "m"), subject={"agent": "bot"}).acquire()
        body = {
            "error": "BUDGET_EXCEEDED",
            "message": "m",
            "request_id": "r",
            "details": {"scope": "tenant:acme", "remaining": {"unit": "USD_MICROCENTS", "amount": 98_000_000}},
        }
        server.faults.status("reserve", 409, body=body)
        with pytest.raises(
            cycles.BudgetExceededError, match=r"requested \$2\.00 on tenant:acme; tenant:acme has \$0\.98 left"
        ):
            client.reserve(cycles.usd(2), action=("llm.completion", "m")).acquire()
