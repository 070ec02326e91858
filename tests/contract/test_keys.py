"""API keys and the admin key: who may send a request, and the reasons for a 401."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .kit import Api, Response, Target
from .test_requests import raw

INVALID = (400, "INVALID_REQUEST")


# --- keys -------------------------------------------------------------------------------------------------------------


def keyed(target: Target, key: str | None) -> Response:
    headers = {} if key is None else {"X-Cycles-API-Key": key}
    return target.anonymous.get("/v1/balances?tenant=tenant-a", headers=headers)


def test_the_reasons_for_a_401_in_order(target: Target) -> None:
    now = target.clock.now_ms()
    secret = "cyc_live_abcdefghij"
    wrong = secret[:14] + "-wrong"
    assert keyed(target, None).mentions("missing")
    assert keyed(target, "").mentions("missing")
    steps: list[tuple[dict[str, Any], str, str]] = [
        ({"tenant": "tenant-a", "status": "REVOKED", "expires_at_ms": 0}, wrong, "KEY_REVOKED"),
        ({"tenant": "tenant-a", "status": "EXPIRED"}, wrong, "KEY_EXPIRED"),
        ({"tenant": "tenant-a", "expires_at_ms": now - 1}, wrong, "KEY_EXPIRED"),
        ({"tenant": None}, wrong, "INVALID_KEY"),
        ({"tenant": None}, secret, "KEY_NOT_OWNED_BY_TENANT"),
        ({"tenant": "tenant-s"}, secret, "TENANT_SUSPENDED"),
        ({"tenant": "tenant-c"}, secret, "TENANT_CLOSED"),
        ({"tenant": "tenant-a", "status": "SLEEPY"}, secret, "INTERNAL_ERROR"),
    ]
    target.ledger.set_tenant("tenant-s", status="SUSPENDED")
    target.ledger.set_tenant("tenant-c", status="CLOSED")
    for record, key, message in steps:
        target.ledger.set_api_key(secret, **record)
        response = keyed(target, key)
        assert (*response.outcome, response.body["message"]) == (401, "UNAUTHORIZED", message)
    target.ledger.set_api_key(secret, tenant="tenant-a", expires_at_ms=now)
    assert keyed(target, secret).status == 200
    assert keyed(target, "cyc_live_zzzzzzzz").body["message"] == "KEY_NOT_FOUND"


def test_keys_with_a_common_prefix_are_distinct(target: Target) -> None:
    target.ledger.set_api_key("cyc_live_same_beginning_1", tenant="tenant-a")
    target.ledger.set_api_key("cyc_live_same_beginning_2", tenant="tenant-b", status="REVOKED")
    assert keyed(target, "cyc_live_same_beginning_1").status == 200
    assert keyed(target, "cyc_live_same_beginning_2").body["message"] == "KEY_REVOKED"


def test_a_key_of_a_tenant_with_an_unknown_status_still_works(target: Target) -> None:
    target.ledger.set_tenant("tenant-a", status="???")
    assert target.api.balances().status == 200


def test_the_key_is_checked_before_the_body(target: Target) -> None:
    assert raw(target.anonymous, b"{").outcome == (401, "UNAUTHORIZED")


# --- the admin key ----------------------------------------------------------------------------------------------------

ADMIN_CALLS: list[Callable[[Api, dict[str, str]], Response]] = [
    lambda api, headers: api.get("/v1/reservations?tenant=tenant-a", headers=headers),
    lambda api, headers: api.get("/v1/reservations/x", headers=headers),
    lambda api, headers: api.release("x", headers=headers),
]


@pytest.mark.new_tenants
def test_the_admin_key_works_for_list_get_and_release(target: Target) -> None:
    mine, theirs = target.api.held(), target.other.held()
    for rid in (mine, theirs):
        assert target.admin.row(rid).status == 200
        released = target.admin.release(rid)
        assert released.status == 200
        assert "X-Cycles-Tenant" not in released.headers
    assert [row["reservation_id"] for row in target.admin.rows(tenant="tenant-b").body["reservations"]] == [theirs]
    for missing in ({}, {"tenant": " "}):
        assert target.admin.rows(**missing).outcome == INVALID


@pytest.mark.parametrize("call", ADMIN_CALLS)
def test_a_wrong_admin_key_is_401_even_with_a_valid_api_key(target: Target, call: Callable[..., Response]) -> None:
    assert call(target.api, {"X-Admin-API-Key": "wrong"}).outcome == (401, "UNAUTHORIZED")
    assert call(target.api, {"X-Admin-API-Key": ""}).status != 401  # a blank key counts as absent


def test_other_operations_ignore_the_admin_key(target: Target) -> None:
    rid = target.api.held()
    for response in (
        target.admin.reserve(),
        target.admin.decide(),
        target.admin.event(),
        target.admin.commit(rid),
        target.admin.extend(rid),
        target.admin.balances(),
    ):
        assert response.outcome == (401, "UNAUTHORIZED")
    assert target.api.reserve(headers={"X-Admin-API-Key": "wrong"}).status == 200
