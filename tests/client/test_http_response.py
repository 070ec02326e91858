"""Every result and every error has the raw response: `http.status`, `http.headers`, `http.elapsed`."""

from __future__ import annotations

import pickle
from datetime import timedelta
from typing import Any

import pytest

import cycles
from tests.client.conftest import ACTION, World

pytestmark = pytest.mark.anyio


def check(found: Any, status: int) -> None:
    http = found.http
    assert isinstance(http, cycles.HttpResponse)
    assert http.status == status
    assert http.headers["X-Request-ID"] == http.headers["x-request-id"] == found.request_id
    assert "X-Request-Id" in http.headers
    assert isinstance(http.elapsed, timedelta)
    assert timedelta(0) <= http.elapsed < timedelta(minutes=1)


async def test_every_result_has_its_response(world: World) -> None:
    operations = world.operations
    check(await world.get(operations.decide(cycles.tokens(1), action=ACTION)), 200)
    check(await world.get(operations.preview(cycles.tokens(1), action=ACTION)), 200)
    check(await world.get(operations.record(cycles.tokens(1), action=ACTION)), 201)
    guard = await world.acquire(world.reserve())
    check(await world.get(operations.reservation(guard.reservation_id)), 200)
    check(await world.get(operations.find(idempotency_key=guard.idempotency_key)), 200)
    check(await world.get(guard.extend()), 200)
    settlement = await world.get(guard.commit(cycles.tokens(1)))
    check(settlement, 200)
    check(settlement.response, 200)
    for balance in await world.all(operations.balances()):
        check(balance, 200)
    released = await world.acquire(world.reserve())
    check(await world.get(released.release()), 200)


async def test_a_settlement_in_a_pool_has_the_response_to_its_chunk(world: World) -> None:
    with world.client.pool(cycles.tokens(100), action=ACTION) as pool:
        guard = await world.acquire(pool.reserve(cycles.tokens(10)))
        assert (await world.get(guard.commit(cycles.tokens(7)))).http is None  # nothing was sent
    check(guard.settlement, 200)


async def test_every_error_has_its_response_and_survives_a_pickle(world: World) -> None:
    with pytest.raises(cycles.BudgetExceededError) as denied:
        await world.acquire(world.reserve(cycles.tokens(10_000_000)))
    check(denied.value, 409)
    assert pickle.loads(pickle.dumps(denied.value)).http == denied.value.http
    with pytest.raises(cycles.NotFoundError) as missing:
        await world.get(world.operations.reservation("unknown"))
    check(missing.value, 404)


async def test_a_denial_that_is_no_error_response_has_its_response(world: World, server: cycles.EmbeddedServer) -> None:
    evidence = {"evidence_id": "0" * 64, "cycles_evidence_url": "http://localhost/evidence"}
    body = {"decision": "DENY", "reason_code": "BUDGET_EXCEEDED", "affected_scopes": [], "retry_after_ms": 1_500}
    server.faults.status("reserve", 200, body={**body, "cycles_evidence": evidence})
    with pytest.raises(cycles.BudgetExceededError) as denied:
        await world.acquire(world.reserve())
    assert denied.value.http.status == 200
    assert denied.value.evidence.to_dict() == evidence
    assert denied.value.retry_after_ms == 1_500


async def test_an_observed_reservation_has_its_response(world: World, server: cycles.EmbeddedServer) -> None:
    server.faults.status("reserve", 200, body={"decision": "DENY", "affected_scopes": ["tenant:acme"]})
    with pytest.raises(cycles.ObservedReservationError) as observed:
        await world.acquire(world.reserve())
    assert (observed.value.http.status, observed.value.decision) == (200, "DENY")


async def test_an_ambiguous_response_has_its_status(world: World, server: cycles.EmbeddedServer) -> None:
    server.faults.status("decide", 302, headers={"Location": "/elsewhere"}, times=2)
    with pytest.raises(cycles.AmbiguousResponseError) as raised:
        await world.get(world.operations.decide(cycles.tokens(1), action=ACTION))
    assert (raised.value.http.status, raised.value.http.headers["location"]) == (302, "/elsewhere")


async def test_without_a_response_there_is_none(world: World, server: cycles.EmbeddedServer) -> None:
    server.faults.refuse("decide", times=2)
    with pytest.raises(cycles.TransportError) as raised:
        await world.get(world.operations.decide(cycles.tokens(1), action=ACTION))
    assert raised.value.http is None
    assert cycles.CyclesError("x").http is None


async def test_a_pending_settlement_has_the_last_response(world: World, server: cycles.EmbeddedServer) -> None:
    guard = await world.acquire(world.reserve())
    server.faults.status("commit", 503, times=None)  # until it is read: the background settles it immediately
    settlement = await world.get(guard.commit(cycles.tokens(1)))
    assert (settlement.status, settlement.http.status) == ("pending", 503)
    server.faults.clear()


def test_values_of_a_repeated_header_are_joined() -> None:
    response = cycles.HttpResponse(200, ((b"Vary", b"a"), (b"vary", b"b")), 0.5)
    assert dict(response.headers) == {"vary": "a, b"}
    assert response.elapsed == timedelta(milliseconds=500)
    assert len(response.headers) == 1
