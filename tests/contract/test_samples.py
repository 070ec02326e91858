"""The sample cases of the ledger rules. The numbers are remaining/reserved/spent/debt."""

from __future__ import annotations

from .kit import Api, Target, amount, fresh_key

A = "tenant:tenant-a"


def test_01_reserve(target: Target) -> None:
    response = target.api.reserve(1000)
    assert response.status == 200
    assert response.body["decision"] == "ALLOW"
    assert response.body["reserved"] == amount(1000)
    assert response.body["remaining_ttl_ms"] == 60_000
    assert response.numbers == (999_000, 1_000, 0, 0)


def test_02_reserve_more_than_the_budget(target: Target) -> None:
    response = target.api.reserve(99_999_999)
    assert response.outcome == (409, "BUDGET_EXCEEDED")
    assert "details" not in response.body
    assert target.numbers() == (1_000_000, 0, 0, 0)


def test_03_dry_run(target: Target) -> None:
    response = target.api.reserve(1000, dry_run=True)
    assert response.body["decision"] == "ALLOW"
    assert response.numbers == (1_000_000, 0, 0, 0)
    assert not {"reservation_id", "expires_at_ms", "remaining_ttl_ms"} & response.body.keys()
    assert target.numbers() == (1_000_000, 0, 0, 0)


def test_04_wrong_unit(target: Target) -> None:
    response = target.api.reserve(1000, "USD_MICROCENTS")
    assert response.outcome == (400, "UNIT_MISMATCH")
    assert response.body["details"] == {
        "scope": A,
        "requested_unit": "USD_MICROCENTS",
        "expected_units": ["TOKENS"],
    }


def test_05_frozen(target: Target) -> None:
    target.seed(status="FROZEN")
    assert target.api.reserve().outcome == (409, "BUDGET_FROZEN")
    assert target.api.event().outcome == (409, "BUDGET_FROZEN")


def test_06_debt_without_overdraft(target: Target) -> None:
    target.seed(debt=5000)
    assert target.api.reserve(100).outcome == (409, "DEBT_OUTSTANDING")
    decision = target.api.decide(100)
    assert (decision.status, decision.body["decision"], decision.body["reason_code"]) == (
        200,
        "DENY",
        "DEBT_OUTSTANDING",
    )
    assert target.api.event(1).status == 201


def test_07_scope_without_budget_is_listed_not_charged(target: Target) -> None:
    response = target.api.reserve(subject={"tenant": "tenant-a", "agent": "my-agent"})
    assert response.body["decision"] == "ALLOW"
    assert response.body["affected_scopes"] == [A, f"{A}/agent:my-agent"]
    assert len(response.body["balances"]) == 1


def test_08_a_short_parent_precedes_a_frozen_child(target: Target) -> None:
    target.seed(allocated=10)
    target.seed(f"{A}/workspace:w", status="FROZEN")
    response = target.api.reserve(100, subject={"tenant": "tenant-a", "workspace": "w"})
    assert response.outcome == (409, "BUDGET_EXCEEDED")


def test_09_caps_come_from_the_deepest_scope_only(target: Target) -> None:
    target.seed(caps={"max_tokens": 500})
    response = target.api.reserve()
    assert (response.body["decision"], response.body["caps"]) == ("ALLOW_WITH_CAPS", {"max_tokens": 500})
    below = target.api.reserve(subject={"tenant": "tenant-a", "workspace": "w"})
    assert below.body["decision"] == "ALLOW"
    assert "caps" not in below.body


def test_10_commit_less(target: Target) -> None:
    response = target.api.commit(target.api.held(1000), 800)
    assert response.body["status"] == "COMMITTED"
    assert response.body["charged"] == amount(800)
    assert response.body["released"] == amount(200)
    assert response.numbers == (999_200, 0, 800, 0)


def test_11_policy_reject_keeps_the_reservation_active(target: Target) -> None:
    rid = target.api.held(1000, overage_policy="REJECT")
    assert target.api.commit(rid, 2000).outcome == (409, "BUDGET_EXCEEDED")
    assert target.numbers() == (999_000, 1_000, 0, 0)
    assert target.api.commit(rid, 1000).status == 200
    assert target.numbers() == (999_000, 0, 1_000, 0)


def test_12_allow_if_available_is_capped(target: Target) -> None:
    target.api.event(999_000)
    response = target.api.commit(target.api.held(500, overage_policy="ALLOW_IF_AVAILABLE"), 1500)
    assert response.body["charged"] == amount(1000)
    assert response.numbers == (0, 0, 1_000_000, 0)
    assert response.body["balances"][0]["is_over_limit"] is True


def test_13_overdraft_makes_debt(target: Target) -> None:
    target.api.event(950_000)
    response = target.api.commit(target.api.held(1000, overage_policy="ALLOW_WITH_OVERDRAFT"), 100_000)
    assert response.body["charged"] == amount(100_000)
    assert response.numbers == (-50_000, 0, 1_000_000, 50_000)
    assert "is_over_limit" not in response.body["balances"][0]
    assert target.api.reserve(100).outcome == (409, "BUDGET_EXCEEDED")


def test_14_commit_in_another_unit(target: Target) -> None:
    response = target.api.commit(target.api.held(), 10, "USD_MICROCENTS")
    assert response.outcome == (400, "UNIT_MISMATCH")
    assert "details" not in response.body


def test_15_commit_again(api: Api) -> None:
    rid, key = api.held(), fresh_key()
    first = api.commit(rid, 800, idempotency_key=key)
    again = api.commit(rid, 800, idempotency_key=key)
    assert (again.status, again.body) == (200, first.body)


def test_16_finalized_is_final(api: Api) -> None:
    committed, released = api.held(), api.held()
    api.commit(committed, 1)
    api.release(released)
    assert api.release(committed).outcome == (409, "RESERVATION_FINALIZED")
    assert api.commit(released).outcome == (409, "RESERVATION_FINALIZED")
    assert api.extend(committed).outcome == (409, "RESERVATION_FINALIZED")
    assert api.extend(released).outcome == (409, "RESERVATION_FINALIZED")


def test_17_expired(target: Target) -> None:
    rid = target.api.held(grace_period_ms=0)
    target.clock.advance(70_000)
    for response in (target.api.commit(rid), target.api.release(rid), target.api.extend(rid)):
        assert response.outcome == (410, "RESERVATION_EXPIRED")


def test_18_extend(api: Api) -> None:
    made = api.reserve().body
    response = api.extend(made["reservation_id"], 30_000)
    assert response.body["status"] == "ACTIVE"
    assert response.body["expires_at_ms"] == made["expires_at_ms"] + 30_000
    assert response.body["remaining_ttl_ms"] <= 90_000
    assert response.body["balances"] == made["balances"]


def test_19_ttl_bounds(target: Target) -> None:
    assert target.api.reserve(ttl_ms=999).outcome == (400, "INVALID_REQUEST")
    assert target.api.reserve(ttl_ms=1000).status == 200
    assert target.api.reserve(ttl_ms=86_400_000).body["remaining_ttl_ms"] == 3_600_000
    assert target.api.reserve(ttl_ms=86_400_001).outcome == (400, "INVALID_REQUEST")


def test_20_reserve_twice_with_one_key(target: Target) -> None:
    key = fresh_key()
    first, again = target.api.reserve(idempotency_key=key), target.api.reserve(idempotency_key=key)
    assert again.body["reservation_id"] == first.body["reservation_id"]
    assert target.numbers() == (999_000, 1_000, 0, 0)


def test_21_dry_and_live_share_keys(target: Target) -> None:
    dry, live = fresh_key(), fresh_key()
    target.api.reserve(idempotency_key=dry, dry_run=True)
    target.api.reserve(idempotency_key=live)
    assert target.api.reserve(idempotency_key=dry).outcome == (409, "IDEMPOTENCY_MISMATCH")
    assert target.api.reserve(idempotency_key=live, dry_run=True).outcome == (409, "IDEMPOTENCY_MISMATCH")


def test_22_event(target: Target) -> None:
    response = target.api.event(500)
    assert (response.status, response.body["status"]) == (201, "APPLIED")
    assert "charged" not in response.body
    assert response.numbers == (999_500, 0, 500, 0)


def test_23_balances(target: Target) -> None:
    assert target.api.get("/v1/balances").outcome == (400, "INVALID_REQUEST")
    target.seed(f"{A}/workspace:prod", 10)
    found = target.api.balances().body["balances"]
    assert {(item["scope"], item["scope_path"]) for item in found} == {
        (A, A),
        ("workspace:prod", f"{A}/workspace:prod"),
    }


def test_24_evidence_needs_no_key(target: Target) -> None:
    assert target.anonymous.get("/v1/evidence/xyz").outcome == (400, "INVALID_REQUEST")
    assert target.anonymous.get(f"/v1/evidence/{'a' * 64}").outcome == (404, "NOT_FOUND")
