"""Reservations that the server only observes: it evaluates them and holds nothing."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest

import cycles
from tests.client.conftest import World, held, spent
from tests.client.next_protocol.conftest import MAIL, of

pytestmark = pytest.mark.anyio


def set_observe_mode(server: cycles.EmbeddedServer) -> None:
    server.ledger.set_tenant("acme", observe_mode="OBSERVE")


async def test_an_observed_reservation_raises_by_default_and_sends_one_request(
    world: World, server: cycles.EmbeddedServer
) -> None:
    set_observe_mode(server)
    for amount, decision in ((cycles.tokens(1), "ALLOW"), (cycles.tokens(10**9), "DENY")):
        server.requests.clear()
        with pytest.raises(cycles.ObservedReservationError, match="observe mode") as caught:
            await world.acquire(world.client.reserve(amount, action=MAIL))
        error = caught.value
        assert (error.decision, error.status) == (decision, 200)
        assert error.reason_code == (None if decision == "ALLOW" else "BUDGET_EXCEEDED")
        assert len(server.requests.of("reserve")) == 1
        assert pickle.loads(pickle.dumps(error)).decision == decision


@pytest.mark.parametrize("chosen_by", ["setting", "argument", "request"])
async def test_an_observed_block_runs_with_any_decision_and_sends_nothing_more(
    server: cycles.EmbeddedServer, chosen_by: str, tmp_path: Path, world: World
) -> None:
    choices: dict[str, dict[str, Any]] = {"argument": {"on_observed": "run"}, "request": {"observe": True}}
    options = choices.get(chosen_by, {})
    if chosen_by != "request":
        set_observe_mode(server)
    settings = {"on_observed": "run"} if chosen_by == "setting" else {}
    with server.client(tenant="acme", journal_dir=tmp_path / chosen_by, **settings) as client:
        seen: list[Any] = []
        client.on_event(seen.append)
        used = World("async" if world.is_async else "sync", client)
        server.requests.clear()
        huge = client.reserve(cycles.tokens(10**9), action=MAIL, **options)
        async with used.enter(huge) as guard:
            assert (guard.state, guard.decision, guard.reason_code) == ("observed", "DENY", "BUDGET_EXCEEDED")
            assert (guard.reservation_id, guard.expires_at_ms, guard.reserved) == (None, None, None)
            settlement = await used.get(guard.commit(cycles.tokens(7)))
        assert (settlement.status, settlement.actual, guard.state) == ("shadow", cycles.tokens(7), "observed")
        with pytest.raises(cycles.GuardFinalizedError):
            await used.get(guard.release())
        async with used.enter(client.reserve(cycles.tokens(2), action=MAIL, **options)) as guard:
            assert guard.decision == "ALLOW"
            await used.get(guard.release())
        observed = [event for event in seen if isinstance(event, cycles.events.Observed)]
        assert [(event.decision, event.estimate, event.actual) for event in observed] == [
            ("DENY", cycles.tokens(10**9), cycles.tokens(7)),
            ("ALLOW", cycles.tokens(2), None),
        ]
        assert observed[0].would_deny
        assert [each.operation for each in server.requests] == ["reserve", "reserve"]
        assert client.pending() == []
    assert (spent(server), held(server)) == (0, 0)


async def test_a_block_that_is_observed_warns_of_nothing_and_cannot_be_detached(
    world: World, server: cycles.EmbeddedServer
) -> None:
    set_observe_mode(server)
    plain = world.client.reserve(cycles.tokens(1), action=MAIL, on_observed="run")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with world.enter(plain) as guard:
            with pytest.raises(cycles.GuardFinalizedError, match="only observed"):
                guard.detach()
        guard = await world.acquire(plain)
        del guard  # dropped: nothing is held, so nothing is said
    with cycles.limit(cycles.tokens(10)) as limit:
        async with world.enter(of(world, on_observed="run")):
            assert limit.held == cycles.tokens(10)
        assert (limit.spent, limit.held) == (cycles.tokens(4), cycles.tokens(0))


def test_an_enforced_request_goes_before_the_mode_of_the_tenant(server: cycles.EmbeddedServer) -> None:
    set_observe_mode(server)
    client = server.client(tenant="acme")
    body = {
        "idempotency_key": "k1",
        "subject": {"tenant": "acme"},
        "action": MAIL.to_dict(),
        "estimate": {"unit": "TOKENS", "amount": 1},
        "observe_mode": "ENFORCE",
    }
    with client:
        created = client.raw("createReservation", body=body)
    assert created.reservation_id
    assert held(server) == 1


@pytest.mark.parametrize("member", ["reservation_id", "expires_at_ms", "affected_scopes"])
def test_other_forms_stay_ambiguous(member: str, server: cycles.EmbeddedServer, client: cycles.Cycles) -> None:
    body: dict[str, Any] = {"decision": "ALLOW", "affected_scopes": ["tenant:acme"]}
    further: dict[str, dict[str, Any]] = {
        "reservation_id": {"reservation_id": ""},
        "expires_at_ms": {"expires_at_ms": 5},
    }
    body |= further.get(member, {})
    if member == "affected_scopes":
        body["affected_scopes"] = []
    server.faults.body("reserve", body, times=2)
    with pytest.raises(cycles.AmbiguousResponseError):
        client.reserve(cycles.tokens(1), action=MAIL, on_observed="run").acquire()
