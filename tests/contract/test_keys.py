"""API keys and the admin key: who may send a request, and the reasons for a 401."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .kit import Api, Response, World
from .test_requests import raw

INVALID = (400, "INVALID_REQUEST")


# --- keys -------------------------------------------------------------------------------------------------------------


def keyed(world: World, key: str | None) -> Response:
    headers = {} if key is None else {"X-Cycles-API-Key": key}
    return world.anonymous.get("/v1/balances?tenant=tenant-a", headers=headers)


def test_the_reasons_for_a_401_in_order(world: World) -> None:
    now = world.clock.now_ms()
    secret = "cyc_live_abcdefghij"
    wrong = secret[:14] + "-wrong"
    assert keyed(world, None).mentions("missing")
    assert keyed(world, "").mentions("missing")
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
    world.ledger.set_tenant("tenant-s", status="SUSPENDED")
    world.ledger.set_tenant("tenant-c", status="CLOSED")
    for record, key, message in steps:
        world.ledger.set_api_key(secret, **record)
        response = keyed(world, key)
        assert (*response.outcome, response.body["message"]) == (401, "UNAUTHORIZED", message)
    world.ledger.set_api_key(secret, tenant="tenant-a", expires_at_ms=now)
    assert keyed(world, secret).status == 200
    assert keyed(world, "cyc_live_zzzzzzzz").body["message"] == "KEY_NOT_FOUND"


def test_keys_with_a_common_prefix_are_distinct(world: World) -> None:
    world.ledger.set_api_key("cyc_live_same_beginning_1", tenant="tenant-a")
    world.ledger.set_api_key("cyc_live_same_beginning_2", tenant="tenant-b", status="REVOKED")
    assert keyed(world, "cyc_live_same_beginning_1").status == 200
    assert keyed(world, "cyc_live_same_beginning_2").body["message"] == "KEY_REVOKED"


def test_a_key_of_a_tenant_with_an_unknown_status_still_works(world: World) -> None:
    world.ledger.set_tenant("tenant-a", status="???")
    assert world.api.balances().status == 200


def test_the_key_is_checked_before_the_body(world: World) -> None:
    assert raw(world.anonymous, b"{").outcome == (401, "UNAUTHORIZED")


# --- the admin key ----------------------------------------------------------------------------------------------------

ADMIN_CALLS: list[Callable[[Api, dict[str, str]], Response]] = [
    lambda api, headers: api.get("/v1/reservations?tenant=tenant-a", headers=headers),
    lambda api, headers: api.get("/v1/reservations/x", headers=headers),
    lambda api, headers: api.release("x", headers=headers),
]


@pytest.mark.new_tenants
def test_the_admin_key_works_for_list_get_and_release(world: World) -> None:
    mine, theirs = world.api.held(), world.other.held()
    for rid in (mine, theirs):
        assert world.admin.row(rid).status == 200
        released = world.admin.release(rid)
        assert released.status == 200
        assert "X-Cycles-Tenant" not in released.headers
    assert [row["reservation_id"] for row in world.admin.rows(tenant="tenant-b").body["reservations"]] == [theirs]
    for missing in ({}, {"tenant": " "}):
        assert world.admin.rows(**missing).outcome == INVALID


@pytest.mark.parametrize("call", ADMIN_CALLS)
def test_a_wrong_admin_key_is_401_even_with_a_valid_api_key(world: World, call: Callable[..., Response]) -> None:
    assert call(world.api, {"X-Admin-API-Key": "wrong"}).outcome == (401, "UNAUTHORIZED")
    assert call(world.api, {"X-Admin-API-Key": ""}).status != 401  # a blank key counts as absent


def test_other_operations_ignore_the_admin_key(world: World) -> None:
    rid = world.api.held()
    for response in (
        world.admin.reserve(),
        world.admin.decide(),
        world.admin.event(),
        world.admin.commit(rid),
        world.admin.extend(rid),
        world.admin.balances(),
    ):
        assert response.outcome == (401, "UNAUTHORIZED")
    assert world.api.reserve(headers={"X-Admin-API-Key": "wrong"}).status == 200
