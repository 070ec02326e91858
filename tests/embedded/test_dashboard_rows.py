"""What the rows of the dashboard show of a request, a reservation and a budget, and in which order budgets come."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest

from cycles.embedded.dashboard.handled import Handled, json_object
from cycles.embedded.dashboard.rows import SORTS, decision_row, request_row, reservation_row
from cycles.embedded.faults import Fault
from cycles.embedded.http import Request, Response
from cycles.embedded.records import Budget, Reservation

ACME: Final = "tenant:acme"
BOT: Final = "tenant:acme/agent:bot"
FORM: Final[dict[str, Any]] = {
    "subject": {"tenant": "Acme", "agent": "Bot"},
    "action": {"kind": "llm", "name": "m"},
    "estimate": {"unit": "TOKENS", "amount": 7},
}
DENIED: Final = {"decision": "DENY", "reason_code": "BUDGET_EXCEEDED"}
MISMATCH: Final = {"error": "IDEMPOTENCY_MISMATCH"}


def encoded(value: Any) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()


def handled(
    operation: str | None = "reserve",
    status: int | None = 200,
    form: Any = FORM,
    result: Any = b"{}",
    target: str = "/v1/x",
    **members: Any,
) -> Handled:
    """Return a request with its response; there is no response without a status."""
    request = Request(method="POST", target=target, headers={}, body=encoded(form))
    response = None if status is None else Response(status, {"X-Request-Id": "r-1"}, encoded(result))
    given: dict[str, Any] = {"number": 3, "at_ms": 50, "fault": None, "took_ms": 1.23456, "is_replay": False, **members}
    return Handled(operation=operation, request=request, response=response, **given)


def budget(scope: str = ACME, unit: str = "TOKENS", **members: Any) -> Budget:
    return Budget(scope=scope, unit=unit, **{"allocated": 10, **members})


# --- decisions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "decides", "denies"),
    [
        (handled(), True, False),
        (handled("decide", 200, result=DENIED), True, True),
        (handled("decide", 200, result={"decision": "ALLOW"}), True, False),
        (handled("event", 201), True, False),
        (handled("reserve", 404), True, True),
        (handled("reserve", 409), True, True),
        (handled("event", 409, result=MISMATCH), False, False),
        (handled("reserve", 400), False, False),
        (handled("reserve", 500), False, False),
        (handled("reserve", 202), False, False),
        (handled("reserve", None), False, False),
        (handled("commit", 200), False, False),
        (handled("commit", 409), False, False),
        (handled(None, 404), False, False),
        (handled("decide", 200, result=DENIED, is_replay=True), False, False),
    ],
)
def test_which_responses_decide_and_which_deny(one: Handled, decides: bool, denies: bool) -> None:
    assert (one.is_decision, one.is_denial) == (decides, denies)


def test_a_decision_shows_what_was_wanted_and_what_was_decided() -> None:
    result = {"decision": "ALLOW_WITH_CAPS", "reservation_id": "res-1", "caps": {"max_tokens": 7}}
    shown: dict[str, Any] = {
        "id": 3,
        "at_ms": 50,
        "operation": "reserve",
        "decision": "ALLOW_WITH_CAPS",
        "request_id": "r-1",
        "subject": FORM["subject"],
        "scope_path": BOT,
        "action": FORM["action"],
        "amount": {"unit": "TOKENS", "amount": 7},
        "reservation_id": "res-1",
        "caps": {"max_tokens": 7},
    }
    assert decision_row(handled(result=result)) == shown
    assert decision_row(handled(form={**FORM, "dry_run": True}, result=result)) == {**shown, "dry_run": True}
    for other in (False, "true", 1):
        assert decision_row(handled(form={**FORM, "dry_run": other}, result=result)) == shown
    event = handled("event", 201, form={"actual": {"unit": "TOKENS", "amount": 9}})
    assert decision_row(event) == {
        "id": 3,
        "at_ms": 50,
        "operation": "event",
        "decision": "ALLOW",
        "request_id": "r-1",
        "amount": {"unit": "TOKENS", "amount": 9},
    }


TEN: Final = {"unit": "TOKENS", "amount": 10}


@pytest.mark.parametrize(
    ("budgets", "rule"),
    [
        ((), {"rule": "no scope of the subject has a budget in TOKENS"}),
        ((budget(),), {}),
        ((budget(allocated=7),), {}),
        (
            (budget(), budget(BOT, allocated=6)),
            {
                "rule": "the remaining budget is too small",
                "denied_by": BOT,
                "remaining": {"unit": "TOKENS", "amount": 6},
                "missing": {"unit": "TOKENS", "amount": 1},
            },
        ),
        (
            (budget(status="FROZEN"), budget(BOT, status="CLOSED")),
            {"rule": "the budget is FROZEN", "denied_by": ACME, "remaining": TEN},
        ),
        (
            (budget(allocated=7, status="FROZEN"),),
            {"rule": "the budget is FROZEN", "denied_by": ACME, "remaining": {"unit": "TOKENS", "amount": 7}},
        ),
        ((budget(is_over_limit=True),), {"rule": "the budget is over its limit", "denied_by": ACME, "remaining": TEN}),
        (
            (budget(allocated=11, debt=1),),
            {"rule": "the budget has debt and no overdraft limit", "denied_by": ACME, "remaining": TEN},
        ),
        ((budget(allocated=11, debt=1, overdraft_limit=1),), {}),
        (
            (budget(allocated=2, status="CLOSED"),),
            {
                "rule": "the budget is CLOSED",
                "denied_by": ACME,
                "remaining": {"unit": "TOKENS", "amount": 2},
                "missing": {"unit": "TOKENS", "amount": 5},
            },
        ),
    ],
)
def test_a_denial_names_the_first_budget_that_denies_and_what_is_missing(
    budgets: tuple[Budget, ...], rule: dict[str, Any]
) -> None:
    row = decision_row(handled("decide", 200, result=DENIED, budgets=budgets))
    assert (row["decision"], row["reason"]) == ("DENY", "BUDGET_EXCEEDED")
    names = ("rule", "denied_by", "remaining", "missing")
    assert {name: row[name] for name in names if name in row} == rule


@pytest.mark.parametrize(
    ("form", "wanted"),
    [
        (FORM, ("TOKENS", 7)),
        ({"actual": {"unit": "USD_MICROCENTS", "amount": 0}}, ("USD_MICROCENTS", 0)),
        ({"estimate": {"unit": "TOKENS", "amount": 1}, "actual": {"unit": "TOKENS", "amount": 2}}, ("TOKENS", 1)),
        ({"estimate": {"unit": "TOKENS", "amount": "7"}}, None),
        ({"estimate": {"unit": "TOKENS"}}, None),
        ({"estimate": [7]}, None),
        ({"estimate": None, "actual": {"unit": "TOKENS", "amount": 2}}, None),
        ({}, None),
        (b"", None),
        (b"[1]", None),
        (b"{", None),
    ],
)
def test_the_amount_of_a_request(form: Any, wanted: tuple[str, int] | None) -> None:
    one = handled("reserve", 409, form=form, result={"error": "UNIT_MISMATCH"})
    assert one.wanted == wanted
    row = decision_row(one)
    assert row["reason"] == "UNIT_MISMATCH"
    assert ("rule" in row) == (wanted is not None)


@pytest.mark.parametrize(
    ("form", "result", "scopes"),
    [
        (FORM, {"balances": [{"scope_path": "tenant:x"}]}, (ACME, BOT)),
        ({"subject": {"tenant": "Acme", "agent": 5}}, {}, (ACME,)),
        ({"subject": {}}, {"balances": [{"scope_path": ACME}]}, ()),
        ({"subject": "acme"}, {"balances": [{"scope_path": ACME}, 5, {"other": 1}, {"scope_path": BOT}]}, (ACME, BOT)),
        ({}, {"balances": {"scope_path": ACME}}, ()),
        ({}, {}, ()),
        ({}, b"<html>", ()),
    ],
)
def test_the_scopes_of_a_request_are_those_of_its_subject_or_of_the_balances_in_its_response(
    form: Any, result: Any, scopes: tuple[str, ...]
) -> None:
    one = handled("commit", form=form, result=result)
    assert one.scopes == scopes
    assert request_row(one).get("scope_path") == (scopes[-1] if scopes else None)


@pytest.mark.parametrize("body", [b"", b"[1]", b"null", b'"x"', b"{", b"\xff", b"[" * 200_000])
def test_a_body_that_is_no_json_object_has_no_members(body: bytes) -> None:
    assert json_object(body) == {}


# --- requests ---------------------------------------------------------------------------------------------------------


def test_a_request_shows_its_response_and_its_size() -> None:
    target = "/v1/" + "x" * 196
    assert request_row(handled(target=target)) == {
        "id": 3,
        "at_ms": 50,
        "operation": "reserve",
        "method": "POST",
        "target": target,
        "status": 200,
        "took_ms": 1.235,
        "replay": False,
        "request_id": "r-1",
        "scope_path": BOT,
        "bytes": len(encoded(FORM)),
    }


def test_a_request_that_was_lost_shows_the_fault_and_no_status() -> None:
    lost = handled(None, None, form=b"", target="/v1/" + "x" * 197, fault=Fault(lost=True), is_replay=True)
    assert request_row(lost) == {
        "id": 3,
        "at_ms": 50,
        "method": "POST",
        "target": "/v1/" + "x" * 196,
        "took_ms": 1.235,
        "replay": True,
        "fault": "drop_response",
        "bytes": 0,
    }


# --- reservations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "charged", "released"),
    [
        ({}, None, None),
        ({"status": "COMMITTED", "charged": 3}, 3, 7),
        ({"status": "COMMITTED", "charged": 10}, 10, 0),
        ({"status": "COMMITTED", "charged": 11}, 11, 0),
        ({"status": "RELEASED"}, 0, 10),
        ({"status": "EXPIRED"}, 0, 10),
    ],
)
def test_a_settled_reservation_shows_what_was_charged_and_released(
    members: dict[str, Any], charged: int | None, released: int | None
) -> None:
    shown = reservation_row(
        Reservation(
            reservation_id="res-1",
            number=1,
            tenant="acme",
            idempotency_key="k",
            subject={"tenant": "acme"},
            action={"kind": "llm", "name": "m"},
            unit="TOKENS",
            reserved=10,
            overage_policy="REJECT",
            scopes=(ACME,),
            budgeted=(ACME,),
            created_at_ms=1,
            expires_at_ms=2,
            grace_period_ms=4,
            max_extensions=6,
            extensions=5,
            metadata={"not": "shown"},
            committed_metadata={"not": "shown"},
            **members,
        )
    )
    assert (shown["extensions"], shown["max_extensions"], shown["grace_period_ms"]) == (5, 6, 4)
    assert shown.keys().isdisjoint({"metadata", "committed_metadata"})
    amounts = [None if amount is None else {"unit": "TOKENS", "amount": amount} for amount in (charged, released)]
    assert [shown.get("charged"), shown.get("released")] == amounts


# --- budgets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("share", ["over", "empty", "usd", "ten", "ten-2", "wide", "below", "one"]),
        ("name", ["below", "empty", "over", "ten", "ten-2", "usd", "wide", "one"]),
        ("left", ["usd", "ten", "ten-2", "over", "empty", "one", "wide", "below"]),
    ],
)
def test_budgets_are_sorted_by_used_share_name_or_what_is_left(sort: str, order: list[str]) -> None:
    budgets = {
        "below": budget("tenant:a/agent:b", allocated=8),  # left 8, used 0 %
        "empty": budget("tenant:b", allocated=0),  # counts as 100 %
        "over": budget("tenant:c", allocated=10, spent=11),  # left -1
        "ten": budget("tenant:d", "CREDITS", allocated=100, reserved=90),
        "ten-2": budget("tenant:e", "CREDITS", allocated=100, spent=80, debt=10),
        "usd": budget("tenant:f", "USD_MICROCENTS", allocated=100, spent=1, reserved=98),
        "wide": budget("tenant:g", allocated=9, spent=2),
        "one": budget("tenant:h", allocated=1),
    }
    found = sorted(budgets, key=lambda name: SORTS[sort](budgets[name]))
    assert found == order


def test_budgets_of_one_scope_are_sorted_by_unit() -> None:
    pair = [budget(unit="TOKENS"), budget(unit="CREDITS")]
    for sort in SORTS.values():
        assert [each.unit for each in sorted(pair, key=sort)] == ["CREDITS", "TOKENS"]
    assert sorted([budget("tenant:b"), budget("tenant:a")], key=SORTS["left"])[0].scope == "tenant:a"
