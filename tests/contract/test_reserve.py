"""Reserve, dry run and decide: scopes, the order of checks, decisions, caps, lifetimes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .kit import ABSENT, Api, Response, World, amount, fresh_key, numbers

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


def test_a_subject_without_tenant_has_scopes_without_tenant(world: World) -> None:
    world.seed("agent:bot", 100)
    mine, theirs = (api.reserve(60, subject={"agent": "bot"}) for api in (world.api, world.other))
    assert mine.body["affected_scopes"] == ["agent:bot"]
    assert theirs.outcome == (409, "BUDGET_EXCEEDED")  # all tenants that omit the tenant level share the budget


def test_every_budgeted_scope_is_reserved_in_order(world: World) -> None:
    world.seed(CHILD, 5_000)
    shown = world.api.reserve(subject=AT_CHILD).body["balances"]
    assert [item["scope_path"] for item in shown] == [A, CHILD]
    assert [numbers(item) for item in shown] == [(999_000, 1000, 0, 0), (4_000, 1000, 0, 0)]


def test_a_budget_in_another_unit_is_skipped_if_an_ancestor_has_the_unit(world: World) -> None:
    world.seed(CHILD, 10, unit="CREDITS")
    response = world.api.reserve(subject=AT_CHILD)
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
def test_the_blocking_states_of_one_scope_in_order(world: World, budget: dict[str, Any], code: str) -> None:
    world.seed(**budget)
    before = world.numbers()
    assert world.api.reserve().outcome == (409, code)
    dry = world.api.reserve(dry_run=True)
    decided = world.api.decide()
    assert world.numbers() == before
    assert dry.body == {"decision": "DENY", "reason_code": code, "affected_scopes": [A], "scope_path": A}
    assert decided.body == {"decision": "DENY", "reason_code": code, "affected_scopes": [A]}


@pytest.mark.parametrize(("child", "code"), BLOCKED)
def test_the_parent_is_checked_completely_before_the_child(world: World, child: dict[str, Any], code: str) -> None:
    world.seed(CHILD, **child)
    assert world.api.reserve(subject=AT_CHILD).outcome == (409, code)
    assert world.numbers()[1] == 0  # the parent has no reserved amount
    world.seed(allocated=999)
    assert world.api.reserve(subject=AT_CHILD).outcome == (409, "BUDGET_EXCEEDED")


def test_debt_within_a_limit_does_not_block(world: World) -> None:
    world.seed(debt=5, overdraft_limit=5)
    assert world.api.reserve().status == 200


def test_debt_above_its_limit_without_the_flag_does_not_block(world: World) -> None:
    world.seed(debt=50, overdraft_limit=5)
    assert world.api.reserve().status == 200


def test_an_estimate_of_zero_is_denied_if_remaining_is_negative(world: World) -> None:
    world.seed(allocated=0, debt=1, overdraft_limit=1)
    assert world.api.reserve(0).outcome == (409, "BUDGET_EXCEEDED")
    world.seed(allocated=0)
    assert world.api.reserve(0).status == 200


def test_reserve_needs_the_whole_estimate_under_every_policy(world: World) -> None:
    world.seed(allocated=999, overdraft_limit=10_000)
    for policy in ("REJECT", "ALLOW_IF_AVAILABLE", "ALLOW_WITH_OVERDRAFT"):
        assert world.api.reserve(1000, overage_policy=policy).outcome == (409, "BUDGET_EXCEEDED")
    assert world.api.reserve(999).status == 200


# --- no budget --------------------------------------------------------------------------------------------------------


def test_a_subject_without_any_budget(world: World) -> None:
    subject = {"tenant": "tenant-a", "agent": "x"}
    world.ledger.delete_budget(A, unit="TOKENS")
    assert world.api.reserve(subject=subject).outcome == (404, "NOT_FOUND")
    assert world.api.event(subject=subject).outcome == (404, "NOT_FOUND")
    assert world.api.reserve(subject=subject, dry_run=True).body["reason_code"] == "BUDGET_NOT_FOUND"
    assert world.api.decide(subject=subject).body["reason_code"] == "BUDGET_NOT_FOUND"


def test_unit_mismatch_names_the_shallowest_scope_and_its_units(world: World) -> None:
    world.ledger.delete_budget(A, unit="TOKENS")
    world.seed(CHILD, 5, unit="RISK_POINTS")
    world.seed(CHILD, 5, unit="USD_MICROCENTS")
    world.seed(f"{CHILD}/agent:x", 5, unit="CREDITS")
    subject = AT_CHILD | {"agent": "x"}
    details = {"scope": CHILD, "requested_unit": "TOKENS", "expected_units": ["USD_MICROCENTS", "RISK_POINTS"]}
    responses: list[Response] = [
        world.api.reserve(subject=subject),
        world.api.reserve(subject=subject, dry_run=True),
        world.api.decide(subject=subject),
        world.api.event(subject=subject),
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


def test_an_allowed_dry_run_has_exactly_these_members(world: World) -> None:
    body = world.api.reserve(dry_run=True).body
    assert body.keys() == {"decision", "affected_scopes", "scope_path", "reserved", "balances"}


def test_a_decision_has_exactly_these_members(world: World) -> None:
    assert world.api.decide().body == {"decision": "ALLOW", "affected_scopes": [A]}


def test_ids_are_lower_case_uuids(api: Api) -> None:
    rid = api.held()
    assert (len(rid), rid[14], rid) == (36, "4", rid.lower())


@pytest.mark.parametrize("caps", [{}, {"max_tokens": 5}, {"tool_allowlist": ["Search"], "cooldown_ms": 0}])
def test_caps_are_returned_unchanged(world: World, caps: dict[str, Any]) -> None:
    world.seed(caps=caps)
    for response in (world.api.reserve(), world.api.reserve(dry_run=True), world.api.decide()):
        assert (response.body["decision"], response.body["caps"]) == ("ALLOW_WITH_CAPS", caps)


def test_denials_commits_and_events_have_no_caps(world: World) -> None:
    world.seed(caps={"max_tokens": 5}, allocated=2000)
    rid = world.api.held()
    for response in (world.api.decide(5000), world.api.commit(rid), world.api.event()):
        assert "caps" not in response.body


def test_caps_belong_to_the_requested_unit(world: World) -> None:
    world.seed(caps={"max_tokens": 5})
    world.seed(unit="CREDITS")
    assert world.api.reserve(1000, "CREDITS").body["decision"] == "ALLOW"


# --- lifetimes --------------------------------------------------------------------------------------------------------


def test_ttl_default_maximum_and_tenant_record(world: World) -> None:
    assert world.api.reserve(ttl_ms=ABSENT).body["remaining_ttl_ms"] == 60_000
    world.ledger.set_tenant("tenant-a", default_reservation_ttl_ms=90_000, max_reservation_ttl_ms=7_200_000)
    assert world.api.reserve(ttl_ms=ABSENT).body["remaining_ttl_ms"] == 90_000
    assert world.api.reserve(ttl_ms=None).body["remaining_ttl_ms"] == 90_000
    assert world.api.reserve(ttl_ms=86_400_000).body["remaining_ttl_ms"] == 7_200_000
    world.ledger.set_tenant("tenant-a", default_reservation_ttl_ms=90_000, max_reservation_ttl_ms=30_000)
    assert world.api.reserve(ttl_ms=ABSENT).body["remaining_ttl_ms"] == 30_000


def test_expiry_is_server_time_plus_ttl(world: World) -> None:
    body = world.api.reserve(ttl_ms=1234).body
    assert body["expires_at_ms"] == world.clock.now_ms() + 1234


# --- tenant records ---------------------------------------------------------------------------------------------------

MUTATIONS: list[Callable[[Api, str], Response]] = [
    lambda api, rid: api.reserve(),
    lambda api, rid: api.event(),
    lambda api, rid: api.commit(rid),
    lambda api, rid: api.extend(rid),
    lambda api, rid: api.release(rid),
]


@pytest.mark.parametrize("status", [7, ["ACTIVE"]])
def test_an_undecodable_tenant_record_is_a_401_on_everything(world: World, status: Any) -> None:
    rid = world.api.held()
    world.ledger.set_tenant("tenant-a", status=status)
    for response in (world.api.reserve(), world.api.row(rid), world.api.balances()):
        assert (*response.outcome, response.body["message"]) == (401, "UNAUTHORIZED", "INTERNAL_ERROR")
    assert world.admin.release(rid).outcome == (500, "INTERNAL_ERROR")
    assert world.admin.row(rid).status == 200


@pytest.mark.parametrize("status", ["BOGUS", "active", None])
def test_an_unknown_tenant_status_is_a_500_on_every_mutation(world: World, status: Any) -> None:
    rid = world.api.held()
    before = world.numbers()
    world.ledger.set_tenant("tenant-a", status=status)
    for mutate in MUTATIONS:
        assert mutate(world.api, rid).outcome == (500, "INTERNAL_ERROR")
    assert world.api.reserve(dry_run=True).outcome == (500, "INTERNAL_ERROR")
    assert world.api.decide().outcome == (500, "INTERNAL_ERROR")
    assert world.numbers() == before
    assert world.api.row(rid).status == 200
    assert world.api.balances().status == 200


def test_policy_default_is_fixed_at_reserve_time(world: World) -> None:
    world.ledger.set_tenant("tenant-a", default_commit_overage_policy="REJECT")
    rid = world.api.held(overage_policy=ABSENT)
    world.ledger.delete_tenant("tenant-a")
    assert world.api.commit(rid, 1001).outcome == (409, "BUDGET_EXCEEDED")
    later = world.api.held(overage_policy=ABSENT)
    assert world.api.commit(later, 1001).status == 200


def test_an_invalid_default_policy_fails_only_if_it_is_used(world: World) -> None:
    key = fresh_key()
    assert world.api.event(1, idempotency_key=key).status == 201
    world.ledger.set_tenant("tenant-a", status="BOGUS", default_commit_overage_policy="SOMETIMES")
    assert world.api.reserve(overage_policy=ABSENT).outcome == (400, "INVALID_REQUEST")
    assert world.api.event(1, idempotency_key=key).outcome == (400, "INVALID_REQUEST")  # also before the replay
    world.ledger.set_tenant("tenant-a", default_commit_overage_policy="SOMETIMES")
    assert world.api.reserve().status == 200
    assert world.api.reserve(overage_policy=ABSENT, dry_run=True).body["decision"] == "ALLOW"
    assert world.api.decide().body["decision"] == "ALLOW"


def test_the_maximum_of_extensions_is_fixed_at_reserve_time(world: World) -> None:
    world.ledger.set_tenant("tenant-a", max_reservation_extensions=1)
    rid = world.api.held()
    world.ledger.set_tenant("tenant-a", max_reservation_extensions=5)
    assert world.api.extend(rid).status == 200
    assert world.api.extend(rid).outcome == (409, "MAX_EXTENSIONS_EXCEEDED")


def test_amounts_are_exact_over_the_whole_range(world: World) -> None:
    most = 2**63 - 1
    world.seed(allocated=most)
    response = world.api.reserve(most)
    assert response.body["reserved"] == amount(most)
    assert response.numbers == (0, most, 0, 0)
    assert world.api.commit(response.body["reservation_id"], most - 1).numbers == (1, 0, most - 1, 0)


@pytest.mark.embedded_only("the reference server charges the parent")
def test_an_overflow_changes_no_scope(world: World) -> None:
    most = 2**63 - 1
    world.seed(f"{A}/agent:x", allocated=0, spent=most, overdraft_limit=most)
    response = world.api.event(2, overage_policy="ALLOW_WITH_OVERDRAFT", subject={"tenant": "tenant-a", "agent": "x"})
    assert response.outcome == (500, "INTERNAL_ERROR")
    assert world.numbers(f"{A}/agent:x") == (-most, 0, most, 0)
    assert world.numbers() == (1_000_000, 0, 0, 0)  # the parent comes first and is not charged either
