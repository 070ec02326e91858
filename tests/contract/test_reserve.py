"""Reserve, dry run and decide: scopes, the order of checks, decisions, caps, lifetimes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .kit import ABSENT, Api, Response, Target, amount, fresh_key, numbers

A = "tenant:tenant-a"
CHILD = f"{A}/workspace:w"
AT_CHILD = {"tenant": "tenant-a", "workspace": "w"}


# --- scopes ---------------------------------------------------------------------------------------------------------


def test_scopes_skip_gaps_and_are_lower_cased(api: Api) -> None:
    body = api.reserve(subject={"tenant": api.tenant, "agent": "Bot1", "app": "My.App_x"}).body
    tenant = f"tenant:{api.tenant.lower()}"
    assert body["affected_scopes"] == [tenant, f"{tenant}/app:my.app_x", f"{tenant}/app:my.app_x/agent:bot1"]
    assert body["scope_path"] == body["affected_scopes"][-1]


def test_the_six_levels_are_ordered(api: Api) -> None:
    levels = {"toolset": "t", "agent": "a", "workflow": "f", "app": "p", "workspace": "w", "tenant": api.tenant}
    path = api.reserve(subject=levels).body["scope_path"]
    assert path == f"tenant:{api.tenant.lower()}/workspace:w/app:p/workflow:f/agent:a/toolset:t"


def test_dimensions_do_not_make_scopes(api: Api) -> None:
    subject = {"tenant": api.tenant, "dimensions": {"Any Key": "cost-center"}}
    assert len(api.reserve(subject=subject).body["affected_scopes"]) == 1


def test_a_subject_without_tenant_has_scopes_without_tenant(target: Target) -> None:
    target.seed("agent:bot", 100)
    mine, theirs = (api.reserve(60, subject={"agent": "bot"}) for api in (target.api, target.other))
    assert mine.body["affected_scopes"] == ["agent:bot"]
    assert theirs.outcome == (409, "BUDGET_EXCEEDED")  # all tenants that omit the tenant level share the budget


def test_every_budgeted_scope_is_reserved_in_order(target: Target) -> None:
    target.seed(CHILD, 5_000)
    shown = target.api.reserve(subject=AT_CHILD).body["balances"]
    assert [item["scope_path"] for item in shown] == [A, CHILD]
    assert [numbers(item) for item in shown] == [(999_000, 1000, 0, 0), (4_000, 1000, 0, 0)]


def test_a_budget_in_another_unit_is_skipped_if_an_ancestor_has_the_unit(target: Target) -> None:
    target.seed(CHILD, 10, unit="CREDITS")
    response = target.api.reserve(subject=AT_CHILD)
    assert response.status == 200
    assert len(response.body["balances"]) == 1


# --- the order of checks ----------------------------------------------------------------------------------------------

BLOCKED: list[tuple[dict[str, Any], str]] = [
    ({"status": "FROZEN", "is_over_limit": True, "debt": 1}, "BUDGET_FROZEN"),
    ({"status": "CLOSED", "is_over_limit": True, "debt": 1}, "BUDGET_CLOSED"),
    ({"is_over_limit": True, "debt": 1, "spent": 1_000_000}, "OVERDRAFT_LIMIT_EXCEEDED"),
    ({"debt": 1, "spent": 1_000_000}, "DEBT_OUTSTANDING"),
    ({"debt": 1, "spent": 1_000_000, "overdraft_limit": 5}, "BUDGET_EXCEEDED"),
    ({"spent": 999_001}, "BUDGET_EXCEEDED"),
]


@pytest.mark.parametrize(("budget", "code"), BLOCKED)
def test_the_blocking_states_of_one_scope_in_order(target: Target, budget: dict[str, Any], code: str) -> None:
    target.seed(**budget)
    before = target.numbers()
    assert target.api.reserve().outcome == (409, code)
    dry = target.api.reserve(dry_run=True)
    decided = target.api.decide()
    assert target.numbers() == before
    assert dry.body == {"decision": "DENY", "reason_code": code, "affected_scopes": [A], "scope_path": A}
    assert decided.body == {"decision": "DENY", "reason_code": code, "affected_scopes": [A]}


@pytest.mark.parametrize(("child", "code"), BLOCKED)
def test_the_parent_is_checked_completely_before_the_child(target: Target, child: dict[str, Any], code: str) -> None:
    target.seed(CHILD, **child)
    assert target.api.reserve(subject=AT_CHILD).outcome == (409, code)
    assert target.numbers()[1] == 0  # the parent has no reserved amount
    target.seed(allocated=999)
    assert target.api.reserve(subject=AT_CHILD).outcome == (409, "BUDGET_EXCEEDED")


def test_debt_within_a_limit_does_not_block(target: Target) -> None:
    target.seed(debt=5, overdraft_limit=5)
    assert target.api.reserve().status == 200


def test_debt_above_its_limit_without_the_flag_does_not_block(target: Target) -> None:
    target.seed(debt=50, overdraft_limit=5)
    assert target.api.reserve().status == 200


def test_an_estimate_of_zero_is_denied_if_remaining_is_negative(target: Target) -> None:
    target.seed(allocated=0, debt=1, overdraft_limit=1)
    assert target.api.reserve(0).outcome == (409, "BUDGET_EXCEEDED")
    target.seed(allocated=0)
    assert target.api.reserve(0).status == 200


def test_reserve_needs_the_whole_estimate_under_every_policy(target: Target) -> None:
    target.seed(allocated=999, overdraft_limit=10_000)
    for policy in ("REJECT", "ALLOW_IF_AVAILABLE", "ALLOW_WITH_OVERDRAFT"):
        assert target.api.reserve(1000, overage_policy=policy).outcome == (409, "BUDGET_EXCEEDED")
    assert target.api.reserve(999).status == 200


# --- no budget --------------------------------------------------------------------------------------------------------


def test_a_subject_without_any_budget(target: Target) -> None:
    subject = {"tenant": "tenant-a", "agent": "x"}
    target.ledger.delete_budget(A, unit="TOKENS")
    assert target.api.reserve(subject=subject).outcome == (404, "NOT_FOUND")
    assert target.api.event(subject=subject).outcome == (404, "NOT_FOUND")
    assert target.api.reserve(subject=subject, dry_run=True).body["reason_code"] == "BUDGET_NOT_FOUND"
    assert target.api.decide(subject=subject).body["reason_code"] == "BUDGET_NOT_FOUND"


def test_unit_mismatch_names_the_shallowest_scope_and_its_units(target: Target) -> None:
    target.ledger.delete_budget(A, unit="TOKENS")
    target.seed(CHILD, 5, unit="RISK_POINTS")
    target.seed(CHILD, 5, unit="USD_MICROCENTS")
    target.seed(f"{CHILD}/agent:x", 5, unit="CREDITS")
    subject = AT_CHILD | {"agent": "x"}
    details = {"scope": CHILD, "requested_unit": "TOKENS", "expected_units": ["USD_MICROCENTS", "RISK_POINTS"]}
    responses: list[Response] = [
        target.api.reserve(subject=subject),
        target.api.reserve(subject=subject, dry_run=True),
        target.api.decide(subject=subject),
        target.api.event(subject=subject),
    ]
    for response in responses:
        assert response.outcome == (400, "UNIT_MISMATCH")
        assert response.body["details"] == details


# --- responses -------------------------------------------------------------------------------------------------------


def test_a_reservation_has_exactly_these_members(api: Api) -> None:
    body = api.reserve().body
    assert body.keys() - {"caps", "cycles_evidence"} == {
        "decision",
        "reservation_id",
        "affected_scopes",
        "expires_at_ms",
        "remaining_ttl_ms",
        "scope_path",
        "reserved",
        "balances",
    }


def test_an_allowed_dry_run_has_exactly_these_members(target: Target) -> None:
    body = target.api.reserve(dry_run=True).body
    assert body.keys() == {"decision", "affected_scopes", "scope_path", "reserved", "balances"}


def test_a_decision_has_exactly_these_members(target: Target) -> None:
    assert target.api.decide().body == {"decision": "ALLOW", "affected_scopes": [A]}


def test_ids_are_lower_case_uuids(api: Api) -> None:
    rid = api.held()
    assert (len(rid), rid[14], rid) == (36, "4", rid.lower())


@pytest.mark.parametrize("caps", [{}, {"max_tokens": 5}, {"tool_allowlist": ["Search"], "cooldown_ms": 0}])
def test_caps_are_returned_unchanged(target: Target, caps: dict[str, Any]) -> None:
    target.seed(caps=caps)
    for response in (target.api.reserve(), target.api.reserve(dry_run=True), target.api.decide()):
        assert (response.body["decision"], response.body["caps"]) == ("ALLOW_WITH_CAPS", caps)


def test_denials_commits_and_events_have_no_caps(target: Target) -> None:
    target.seed(caps={"max_tokens": 5}, allocated=2000)
    rid = target.api.held()
    for response in (target.api.decide(5000), target.api.commit(rid), target.api.event()):
        assert "caps" not in response.body


def test_caps_belong_to_the_requested_unit(target: Target) -> None:
    target.seed(caps={"max_tokens": 5})
    target.seed(unit="CREDITS")
    assert target.api.reserve(1000, "CREDITS").body["decision"] == "ALLOW"


# --- lifetimes --------------------------------------------------------------------------------------------------------


def test_ttl_default_maximum_and_tenant_record(target: Target) -> None:
    assert target.api.reserve(ttl_ms=ABSENT).body["remaining_ttl_ms"] == 60_000
    target.ledger.set_tenant("tenant-a", default_reservation_ttl_ms=90_000, max_reservation_ttl_ms=7_200_000)
    assert target.api.reserve(ttl_ms=ABSENT).body["remaining_ttl_ms"] == 90_000
    assert target.api.reserve(ttl_ms=None).body["remaining_ttl_ms"] == 90_000
    assert target.api.reserve(ttl_ms=86_400_000).body["remaining_ttl_ms"] == 7_200_000
    target.ledger.set_tenant("tenant-a", default_reservation_ttl_ms=90_000, max_reservation_ttl_ms=30_000)
    assert target.api.reserve(ttl_ms=ABSENT).body["remaining_ttl_ms"] == 30_000


def test_expiry_is_server_time_plus_ttl(target: Target) -> None:
    body = target.api.reserve(ttl_ms=1234).body
    assert body["expires_at_ms"] == target.clock.now_ms() + 1234


# --- tenant records ---------------------------------------------------------------------------------------------------

MUTATIONS: list[Callable[[Api, str], Response]] = [
    lambda api, rid: api.reserve(),
    lambda api, rid: api.event(),
    lambda api, rid: api.commit(rid),
    lambda api, rid: api.extend(rid),
    lambda api, rid: api.release(rid),
]


@pytest.mark.parametrize("status", [7, ["ACTIVE"]])
def test_an_undecodable_tenant_record_is_a_401_on_everything(target: Target, status: Any) -> None:
    rid = target.api.held()
    target.ledger.set_tenant("tenant-a", status=status)
    for response in (target.api.reserve(), target.api.row(rid), target.api.balances()):
        assert (*response.outcome, response.body["message"]) == (401, "UNAUTHORIZED", "INTERNAL_ERROR")
    assert target.admin.release(rid).outcome == (500, "INTERNAL_ERROR")
    assert target.admin.row(rid).status == 200


@pytest.mark.parametrize("status", ["BOGUS", "active", None])
def test_an_unknown_tenant_status_is_a_500_on_every_mutation(target: Target, status: Any) -> None:
    rid = target.api.held()
    before = target.numbers()
    target.ledger.set_tenant("tenant-a", status=status)
    for mutate in MUTATIONS:
        assert mutate(target.api, rid).outcome == (500, "INTERNAL_ERROR")
    assert target.api.reserve(dry_run=True).outcome == (500, "INTERNAL_ERROR")
    assert target.api.decide().outcome == (500, "INTERNAL_ERROR")
    assert target.numbers() == before
    assert target.api.row(rid).status == 200
    assert target.api.balances().status == 200


def test_policy_default_is_fixed_at_reserve_time(target: Target) -> None:
    target.ledger.set_tenant("tenant-a", default_commit_overage_policy="REJECT")
    rid = target.api.held(overage_policy=ABSENT)
    target.ledger.delete_tenant("tenant-a")
    assert target.api.commit(rid, 1001).outcome == (409, "BUDGET_EXCEEDED")
    later = target.api.held(overage_policy=ABSENT)
    assert target.api.commit(later, 1001).status == 200


def test_an_invalid_default_policy_fails_only_if_it_is_used(target: Target) -> None:
    key = fresh_key()
    assert target.api.event(1, idempotency_key=key).status == 201
    target.ledger.set_tenant("tenant-a", status="BOGUS", default_commit_overage_policy="SOMETIMES")
    assert target.api.reserve(overage_policy=ABSENT).outcome == (400, "INVALID_REQUEST")
    assert target.api.event(1, idempotency_key=key).outcome == (400, "INVALID_REQUEST")  # also before the replay
    target.ledger.set_tenant("tenant-a", default_commit_overage_policy="SOMETIMES")
    assert target.api.reserve().status == 200
    assert target.api.reserve(overage_policy=ABSENT, dry_run=True).body["decision"] == "ALLOW"
    assert target.api.decide().body["decision"] == "ALLOW"


def test_the_maximum_of_extensions_is_fixed_at_reserve_time(target: Target) -> None:
    target.ledger.set_tenant("tenant-a", max_reservation_extensions=1)
    rid = target.api.held()
    target.ledger.set_tenant("tenant-a", max_reservation_extensions=5)
    assert target.api.extend(rid).status == 200
    assert target.api.extend(rid).outcome == (409, "MAX_EXTENSIONS_EXCEEDED")


def test_amounts_are_exact_over_the_whole_range(target: Target) -> None:
    most = 2**63 - 1
    target.seed(allocated=most)
    response = target.api.reserve(most)
    assert response.body["reserved"] == amount(most)
    assert response.numbers == (0, most, 0, 0)
    assert target.api.commit(response.body["reservation_id"], most - 1).numbers == (1, 0, most - 1, 0)


@pytest.mark.embedded_only("the reference server charges the parent")
def test_an_overflow_changes_no_scope(target: Target) -> None:
    most = 2**63 - 1
    target.seed(f"{A}/agent:x", allocated=0, spent=most, overdraft_limit=most)
    response = target.api.event(2, overage_policy="ALLOW_WITH_OVERDRAFT", subject={"tenant": "tenant-a", "agent": "x"})
    assert response.outcome == (500, "INTERNAL_ERROR")
    assert target.numbers(f"{A}/agent:x") == (-most, 0, most, 0)
    assert target.numbers() == (1_000_000, 0, 0, 0)  # the parent comes first and is not charged either
