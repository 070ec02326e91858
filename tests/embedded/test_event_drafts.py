"""Which events a change of the ledger makes, and what they say: one row for each change."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from cycles.embedded.errors import ApiError
from cycles.embedded.records import (
    AdminInfo,
    ApiKey,
    Budget,
    BudgetWindow,
    QuotaCounter,
    Reservation,
    StoredResponse,
    Tenant,
)
from cycles.embedded.webhook_events import drafts_of, is_event_type, timestamp

A = "tenant:acme/agent:bot"
BUDGET = Budget(scope=A, unit="TOKENS", allocated=100, reserved=10, spent=20, debt=0, overdraft_limit=50)
ROW = Reservation(
    reservation_id="r-1",
    number=1,
    tenant="acme",
    idempotency_key="k",
    subject={"tenant": "acme"},
    action={"kind": "a", "name": "b"},
    unit="TOKENS",
    reserved=10,
    overage_policy="ALLOW_WITH_OVERDRAFT",
    scopes=("tenant:acme", A),
    budgeted=(A,),
    created_at_ms=1_000,
    expires_at_ms=61_000,
    grace_period_ms=5_000,
    max_extensions=10,
    extensions=3,
)
FORM = {"estimate": {"unit": "TOKENS", "amount": 7}, "action": ROW.action, "subject": ROW.subject}


def drafts(*changes: tuple[Any, Any], form: Any = None) -> list[tuple[str, dict[str, Any]]]:
    """Return the types of the events, and their data."""
    found = list(drafts_of(changes, lambda: form or {}))
    assert {each.tenant_id for each in found} <= {"acme"}
    return [(each.type, dict(each.data)) for each in found]


def state(budget: Budget) -> dict[str, Any]:
    names = ("allocated", "remaining", "debt", "spent", "reserved", "status")
    return {name: getattr(budget, name) for name in names}


def test_a_new_budget() -> None:
    data = {"scope": A, "unit": "TOKENS", "operation": "CREATE", "new_state": state(BUDGET)}
    assert drafts((None, BUDGET)) == [("budget.created", data)]
    assert state(BUDGET)["remaining"] == 70


@pytest.mark.parametrize(
    ("members", "form", "events"),
    [
        ({"allocated": 150}, {}, [("funded", "CREDIT")]),
        ({"allocated": 90}, {}, [("debited", "DEBIT")]),
        ({"allocated": 150}, {"operation": "RESET"}, [("reset", "RESET")]),
        ({"spent": 0}, {"operation": "RESET_SPENT"}, [("reset_spent", "RESET_SPENT")]),
        ({"spent": 40}, {"operation": "RESET_SPENT"}, [("reset_spent", "RESET_SPENT")]),
        ({"spent": 40}, {}, []),  # a commit
        ({"spent": 40}, {"operation": "CREDIT"}, []),
        ({"spent": 0}, {}, []),  # a new window
        ({"spent": 0}, {"action": "RESET_SPENT"}, [("reset_spent", "RESET_SPENT")]),
        ({"status": "FROZEN"}, {}, [("frozen", "STATUS_CHANGE")]),
        ({"status": "CLOSED"}, {}, [("closed", "STATUS_CHANGE")]),
        ({"status": "ODD"}, {}, [("updated", "STATUS_CHANGE")]),
        ({"status": "FROZEN", "allocated": 101}, {}, [("funded", "CREDIT"), ("frozen", "STATUS_CHANGE")]),
        ({"reserved": 20}, {}, []),
        ({"caps": {"max_tokens": 1}}, {}, []),
    ],
)
def test_a_budget_that_the_operator_changes(
    members: dict[str, Any], form: dict[str, Any], events: list[tuple[str, str]]
) -> None:
    after = evolve(BUDGET, **members)
    found = drafts((BUDGET, after), form={**form, "reason": "why"})
    assert [(name, data["operation"]) for name, data in found] == [(f"budget.{name}", what) for name, what in events]
    for _, data in found:
        common = {"scope": A, "unit": "TOKENS", "previous_state": state(BUDGET), "new_state": state(after)}
        assert data.items() >= {**common, "reason": "why"}.items()
        assert data.get("spent_override_provided") == (False if data["operation"] == "RESET_SPENT" else None)


@pytest.mark.parametrize("form", [{}, {"action": {"kind": "a", "name": "b"}}, {"operation": "CREDIT", "reason": "why"}])
def test_a_budget_that_begins_again_is_not_changed_by_the_request_that_found_it(form: dict[str, Any]) -> None:
    window = BudgetWindow(scope=A, unit="TOKENS", period="day", timezone="UTC", ends_ms=1)
    assert drafts((BUDGET, evolve(BUDGET, spent=0)), (None, window), form=form) == []


def test_a_budget_that_is_active_again_and_one_whose_debt_is_repaid() -> None:
    frozen, owing = evolve(BUDGET, status="FROZEN"), evolve(BUDGET, debt=5)
    assert [name for name, _ in drafts((frozen, BUDGET))] == ["budget.unfrozen"]
    ((name, data),) = drafts((owing, evolve(BUDGET, debt=4)))
    assert (name, data["operation"], "reason" in data) == ("budget.debt_repaid", "REPAY_DEBT", False)
    ((_, data),) = drafts((BUDGET, evolve(BUDGET, spent=1)), form={"operation": "RESET_SPENT", "spent": 1})
    assert data["spent_override_provided"] is True


@pytest.mark.parametrize(("debt", "incurred"), [(0, None), (1, 1), (7, 7)])
def test_new_debt(debt: int, incurred: int | None) -> None:
    after = evolve(BUDGET, debt=debt)
    data: dict[str, Any] = {
        "scope": A,
        "unit": "TOKENS",
        "debt_incurred": incurred,
        "total_debt": debt,
        "overdraft_limit": 50,
    }
    assert drafts((BUDGET, after)) == ([] if incurred is None else [("budget.debt_incurred", data)])
    settled = {"reservation_id": "r-1", "overage_policy": "ALLOW_WITH_OVERDRAFT"}
    found = drafts((ROW, evolve(ROW, status="COMMITTED")), (BUDGET, after))
    assert found == ([] if incurred is None else [("budget.debt_incurred", data | settled)])


def test_a_budget_that_is_over_its_limit_and_no_longer() -> None:
    over = evolve(BUDGET, is_over_limit=True)
    data = {"scope": A, "unit": "TOKENS", "debt": 0, "overdraft_limit": 50}
    assert drafts((BUDGET, over)) == [("budget.over_limit_entered", data | {"is_over_limit": True})]
    assert drafts((over, BUDGET)) == [("budget.over_limit_exited", data | {"is_over_limit": False})]


@pytest.mark.parametrize(
    ("before", "after", "is_exhausted"),
    [(1, 0, True), (1, -1, True), (70, 0, True), (0, 0, False), (0, -1, False), (2, 1, False), (0, 1, False)],
)
def test_a_budget_that_is_used_up(before: int, after: int, is_exhausted: bool) -> None:
    found = drafts((evolve(BUDGET, spent=90 - before), evolve(BUDGET, spent=90 - after)))
    numbers = {"allocated": 100, "remaining": after, "spent": 90 - after, "reserved": 10}
    data = {"scope": A, "unit": "TOKENS", "threshold": 1.0, "utilization": 1.0, "direction": "rising", **numbers}
    assert found == ([("budget.exhausted", data)] if is_exhausted else [])


RESERVED = {"reservation_id": "r-1", "scope": A, "unit": "TOKENS", "estimated_amount": 10}


def test_a_reservation_that_expires() -> None:
    (expired,) = drafts_of([(ROW, evolve(ROW, status="EXPIRED"))], dict)
    assert (expired.type, expired.tenant_id, expired.scope, expired.by_system) == (
        "reservation.expired", "acme", A, True,
    )  # fmt: skip
    times = {"created_at": "1970-01-01T00:00:01.000Z", "expired_at": "1970-01-01T00:01:01.000Z"}
    assert expired.data == {**RESERVED, **times, "ttl_ms": 60_000, "extensions_used": 3}
    ended = evolve(ROW, status="COMMITTED")
    assert drafts((ROW, ended)) == drafts((ended, evolve(ROW, status="EXPIRED"))) == drafts((None, ROW)) == []


def stored(operation: str, **members: Any) -> StoredResponse:
    fixed: dict[str, Any] = {"owner": "acme", "idempotency_key": "k", "digest": "d", "until_ms": 1}
    return StoredResponse(operation=operation, **{**fixed, **members})


@pytest.mark.parametrize(
    ("actual", "response", "overage"),
    [(10, {}, None), (11, {}, 1), (25, {}, 15), (9, {}, None), (25, {"released": {}}, None)],
)
def test_a_commit_above_its_estimate(actual: int, response: dict[str, Any], overage: int | None) -> None:
    changes = [
        (ROW, evolve(ROW, status="COMMITTED")),
        (BUDGET, evolve(BUDGET, debt=3)),
        (BUDGET, evolve(BUDGET, debt=2)),
        (None, stored("commit", response=response)),
    ]
    found = [each for each in drafts(*changes, form={"actual": {"amount": actual}}) if "overage" in each[0]]
    policy = {"overage_policy": "ALLOW_WITH_OVERDRAFT", "debt_incurred": 3}
    data = {**RESERVED, "actual_amount": actual, "overage": overage, **policy}
    assert found == ([] if overage is None else [("reservation.commit_overage", data)])
    assert drafts((None, stored("commit", response={})), form={"actual": {"amount": actual}}) == []
    assert drafts(changes[0], (None, stored("extend", response={})), form={"actual": {"amount": actual}}) == []


@pytest.mark.parametrize("scopes", [["tenant:acme", A], [A]])
def test_a_denied_request(scopes: list[str]) -> None:
    response = {"decision": "DENY", "reason_code": "BUDGET_EXCEEDED", "affected_scopes": scopes}
    common: dict[str, Any] = {"scope": A, "unit": "TOKENS", "action": ROW.action, "subject": ROW.subject}
    data = {**common, "reason_code": "BUDGET_EXCEEDED", "requested_amount": 7}
    assert drafts((None, stored("decide", response=response)), form=FORM) == [("reservation.denied", data)]
    assert drafts((None, stored("decide", response={**response, "decision": "ALLOW"})), form=FORM) == []
    observed = stored("reserve", response={**response, "deny_detail": "d"}, observed=True)
    common |= {"observe_mode": "OBSERVE", "estimated_amount": 7}
    assert drafts((None, observed), form=FORM) == [("reservation.observed_denied", {**common, "deny_detail": "d"})]
    observed = stored("reserve", response={**response, "decision": "ALLOW"}, observed=True)
    assert drafts((None, observed), form=FORM) == [("reservation.observed_allowed", {**common, "decision": "ALLOW"})]


def test_a_tenant() -> None:
    active = Tenant(name="acme")
    data = {"tenant_id": "acme", "new_status": "ACTIVE", "changed_fields": []}
    assert drafts((None, active)) == [("tenant.created", data)]
    names = {"SUSPENDED": "suspended", "CLOSED": "closed", "ODD": "updated", "ACTIVE": "updated"}
    for status, name in names.items():
        changed = {**data, "new_status": status, "previous_status": "ACTIVE"}
        assert drafts((active, evolve(active, status=status))) == [(f"tenant.{name}", changed)]
    assert [name for name, _ in drafts((Tenant(name="acme", status="SUSPENDED"), active))] == ["tenant.reactivated"]


def test_an_api_key() -> None:
    key = ApiKey(secret="cyc_live_1", tenant="acme")
    revoked = evolve(key, status="REVOKED")
    data = {"key_id": key.key_id, "new_status": "ACTIVE"}
    named = AdminInfo(about="api_key", name=key.key_id, values={"name": "n"})
    assert drafts((None, key)) == []  # that of a test
    assert drafts((None, key), (None, named)) == [("api_key.created", {**data, "key_name": "n"})]
    assert drafts((None, key), (None, evolve(named, about="tenant"))) == []
    ended = {**data, "new_status": "REVOKED", "previous_status": "ACTIVE"}
    assert drafts((key, revoked)) == [("api_key.revoked", ended)]
    assert drafts((revoked, revoked)) == drafts((key, key)) == drafts((key, evolve(key, status="EXPIRED"))) == []
    for reason, name in (("tenant_closed", "revoked_via_tenant_cascade"), ("lost", "revoked")):
        about = evolve(named, values={"revoked_reason": reason})
        assert drafts((key, revoked), (named, about)) == [(f"api_key.{name}", {**ended, "failure_reason": reason})]


def test_a_policy() -> None:
    values = {"scope_pattern": A, "name": "n", "tenant": "acme"}
    policy = AdminInfo(about="policy", name="p-1", values=values)
    data = {"policy_id": "p-1", "scope_pattern": A, "name": "n"}
    assert drafts((None, policy)) == [("policy.created", data)]
    assert drafts((policy, policy)) == [("policy.updated", data)]


@pytest.mark.parametrize(
    ("name", "is_known"),
    [("budget.funded", True), ("custom.x", True), ("custom.", False), ("custom", False), ("budget.x", False)],
)
def test_types_of_events(name: str, is_known: bool) -> None:
    assert is_event_type(name) is is_known


@pytest.mark.parametrize(("ms", "text"), [(0, "1970-01-01T00:00:00.000Z"), (86_399_999, "1970-01-01T23:59:59.999Z")])
def test_times(ms: int, text: str) -> None:
    assert timestamp(ms) == text


def test_a_balance_shows_debt_limit_and_flag_only_if_they_are_set() -> None:
    shown = BUDGET.balance()
    numbers = {
        name: shown[name]["amount"] for name in ("remaining", "reserved", "spent", "allocated", "overdraft_limit")
    }
    assert numbers == {"remaining": 70, "reserved": 10, "spent": 20, "allocated": 100, "overdraft_limit": 50}
    assert (shown["scope"], shown["scope_path"], "debt" in shown, "is_over_limit" in shown) == (
        "agent:bot", A, False, False,
    )  # fmt: skip
    owing = evolve(BUDGET, debt=1, overdraft_limit=0, is_over_limit=True).balance()
    assert (owing["debt"]["amount"], "overdraft_limit" in owing, owing["is_over_limit"]) == (1, False, True)
    assert evolve(BUDGET, overdraft_limit=1).balance()["overdraft_limit"]["amount"] == 1
    moved = BUDGET.moved(reserved=-10, spent=5, debt=2)
    assert (moved.reserved, moved.spent, moved.debt, moved.is_over_limit, moved.remaining) == (0, 25, 2, False, 73)
    assert BUDGET.moved(over_limit=True).is_over_limit
    assert evolve(BUDGET, is_over_limit=True).moved().is_over_limit


@pytest.mark.parametrize(
    ("members", "fits"),
    [
        ({"allocated": 2**63 - 1}, True),
        ({"allocated": 2**63}, False),
        ({"allocated": 0, "spent": 2**63 - 1, "debt": 1}, True),
        ({"allocated": 0, "spent": 2**63 - 1, "debt": 2}, False),
        ({"overdraft_limit": 2**63}, False),
        ({"allocated": 0, "reserved": 2**63}, False),
    ],
)
def test_the_numbers_that_fit_into_a_budget(members: dict[str, int], fits: bool) -> None:
    budget = Budget(**{"scope": A, "unit": "TOKENS", "allocated": 0, **members})  # type: ignore[arg-type]
    assert budget.fits() is fits
    if not fits:
        with pytest.raises(ApiError, match=f"a number of {A} would no longer fit into 64 bits; nothing was changed"):
            budget.moved()


def test_how_a_counter_is_shown() -> None:
    fixed: dict[str, Any] = {"tenant": "acme", "scope": A, "action_kind": "a", "window": "per_run", "window_key": "r"}
    counter = QuotaCounter(**fixed, limit=3, policy="p", used=1)
    shown = {
        "action_kind": "a", "scope": A, "scope_path": A, "window": "per_run", "window_key": "r", "used": 1, "limit": 3,
        "remaining": 2, "policy_id": "p",
    }  # fmt: skip
    assert counter.to_body() == shown
    assert evolve(counter, used=4, risk_class="high_risk").to_body() == {
        **shown, "used": 4, "remaining": 0, "risk_class": "high_risk",
    }  # fmt: skip
    assert (counter.key, counter.due_ms) == (("acme", A, "a", "", "per_run", "r"), None)
    assert evolve(counter, until_ms=5, risk_class="x").due_ms == 5


def test_when_a_reservation_is_due() -> None:
    month_ms = 30 * 86_400_000
    assert (ROW.grace_ends_ms, ROW.due_ms, ROW.scope_path) == (66_000, 66_000, A)
    assert evolve(ROW, status="EXPIRED").due_ms == 66_000 + month_ms
    assert evolve(ROW, status="COMMITTED", finalized_at_ms=5).due_ms == 5 + month_ms
