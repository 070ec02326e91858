"""Amounts that a server rejects, or whose reservation it has lost: charged where that is safe, otherwise kept."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from attrs import evolve

import cycles
from cycles._drivers.work.work import Later
from cycles._flows.commit import record_of
from cycles._journal.files.record_files import RecordFiles
from tests.recovery.child import ACTION
from tests.recovery.kit import PATIENCE_S, Setup, attempt_once
from tests.support.inside import runtime_of, state_of
from tests.support.short import some

ACTUAL = cycles.tokens(42)


def error(code: str) -> dict[str, str]:
    return {"error": code, "message": "m", "request_id": "r"}


def bodies(world: Setup, operation: str) -> list[dict[str, Any]]:
    return [seen.body for seen in world.server.settling() if seen.operation == operation]


def test_a_reservation_that_the_server_has_lost_is_recorded_as_an_event(world: Setup) -> None:
    world.server.faults.status("commit", 404, body=error("NOT_FOUND"))
    with world.client() as client:
        guard = client.reserve(cycles.tokens(100), action=ACTION).acquire()
        settlement = guard.commit(ACTUAL)
        assert (guard.state, settlement.status) == ("committed", "recorded_as_event")
    (event,) = bodies(world, "event")
    assert event["idempotency_key"] == bodies(world, "commit")[0]["idempotency_key"]
    assert event["metadata"]["recovery_reason"] == "reservation_not_found"
    assert (world.server.charged, world.leftovers, world.rejected) == (42, [], [])


def test_a_lost_reservation_after_a_lost_response_is_kept(world: Setup) -> None:
    world.server.faults.drop_response("commit")
    world.server.faults.status("commit", 404, body=error("NOT_FOUND"))
    with world.client() as client:
        guard = client.reserve(cycles.tokens(100), action=ACTION).acquire()
        assert guard.commit(ACTUAL).status == "pending"
        assert client.flush(PATIENCE_S).pending == 0
        assert guard.state == "rejected"
    assert bodies(world, "event") == []
    assert world.rejected == [("may_be_charged", 42)]


def test_a_rejected_excess_charges_the_estimate(world: Setup) -> None:
    events: list[Any] = []
    with world.client() as client:
        client.on_event(events.append)
        guard = client.reserve(cycles.tokens(100), action=ACTION, overage_policy="REJECT").acquire()
        with pytest.raises(cycles.BudgetExceededError) as caught:
            guard.commit(cycles.tokens(5_000_000))
    assert caught.value.request_id
    assert guard.state == "rejected"
    assert world.server.charged == 100
    amounts = [event.charged for event in events if isinstance(event, cycles.events.Settled)]
    assert amounts == [cycles.tokens(100)]
    first, second = bodies(world, "commit")
    assert second["idempotency_key"] == first["idempotency_key"] + ":reserved"
    assert second["metadata"]["actual_amount"] == 5_000_000
    assert world.rejected == [("BUDGET_EXCEEDED", 4_999_900)]
    assert world.leftovers == []


@pytest.mark.parametrize("code", ["BUDGET_EXCEEDED", "OVERDRAFT_LIMIT_EXCEEDED"])
def test_a_rejected_excess_is_kept_beside_an_estimate_that_is_rejected_too(world: Setup, code: str) -> None:
    """The budget was frozen between the two requests."""
    world.server.faults.status("commit", 409, body=error(code))
    world.server.faults.status("commit", 409, body=error("BUDGET_FROZEN"))
    seen: list[cycles.events.Event] = []
    with world.client() as client:
        client.on_event(seen.append)
        guard = client.reserve(cycles.tokens(100), action=ACTION, overage_policy="REJECT").acquire()
        with pytest.raises(cycles.CyclesError):
            guard.commit(cycles.tokens(140))
    assert world.server.charged == 0
    (event,) = [each for each in seen if isinstance(each, cycles.events.SettlementRejected)]
    assert event.actual == cycles.tokens(140)  # all that the ledger does not have
    assert sorted(world.rejected) == sorted([(code, 40), ("BUDGET_FROZEN", 100)])
    assert world.leftovers == []


def test_a_start_leaves_a_rejected_excess_alone_that_is_being_kept(
    world: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[Any] = []
    keep = RecordFiles.keep_rejected
    with world.client() as client:
        records = runtime_of(client).records

        def keep_and_list(files: RecordFiles, *words: Any) -> None:
            listed.append(records.left_by_others(0))
            keep(files, *words)

        monkeypatch.setattr(RecordFiles, "keep_rejected", keep_and_list)
        guard = client.reserve(cycles.tokens(100), action=ACTION, overage_policy="REJECT").acquire()
        with pytest.raises(cycles.BudgetExceededError):
            guard.commit(cycles.tokens(5_000_000))
    assert listed == [[]]


def test_a_rejected_excess_survives_a_lost_response(world: Setup) -> None:
    with world.client() as client:
        guard = client.reserve(cycles.tokens(100), action=ACTION, overage_policy="REJECT").acquire()

        def lose_the_second(seen: Any) -> None:
            if seen.operation == "commit" and len(bodies(world, "commit")) == 1:
                world.server.faults.drop_response("commit")

        world.server.on_done = lose_the_second
        with pytest.raises(cycles.BudgetExceededError):
            guard.commit(cycles.tokens(5_000_000))
        assert str(guard.state) == "pending"
        assert client.flush(PATIENCE_S).pending == 0
        assert guard.state == "rejected"
    assert world.server.charged == 100
    assert world.rejected == [("BUDGET_EXCEEDED", 4_999_900)]


@pytest.mark.parametrize("policy", ["ALLOW_WITH_OVERDRAFT", "ALLOW_IF_AVAILABLE"])
def test_the_event_after_expiry_has_the_policy_of_its_reservation(world: Setup, policy: str) -> None:
    world.server.faults.status("commit", 410, body=error("RESERVATION_EXPIRED"))
    with world.client() as client:
        client.reserve(cycles.tokens(100), action=ACTION, overage_policy=policy).acquire().commit(ACTUAL)
    assert [body["overage_policy"] for body in bodies(world, "event")] == [policy]


def test_the_event_after_expiry_names_no_policy_otherwise(world: Setup) -> None:
    world.server.faults.status("commit", 410, body=error("RESERVATION_EXPIRED"))
    with world.client() as client:
        client.reserve(cycles.tokens(100), action=ACTION, overage_policy="REJECT").acquire().commit(ACTUAL)
    assert ["overage_policy" in body for body in bodies(world, "event")] == [False]


def test_an_event_that_the_budget_cannot_cover_charges_what_is_left(world: Setup) -> None:
    world.server.faults.status("commit", 410, body=error("RESERVATION_EXPIRED"))
    world.server.faults.status("event", 409, body=error("BUDGET_EXCEEDED"))
    with world.client() as client:
        guard = client.reserve(cycles.tokens(100), action=ACTION).acquire()
        settlement = guard.commit(cycles.tokens(5_000_000))
    first, second = bodies(world, "event")
    assert second == {**first, "overage_policy": "ALLOW_IF_AVAILABLE"}
    assert settlement.undercharged
    assert world.server.charged > 0
    assert world.rejected == []


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_body_that_a_proxy_finds_too_large_is_sent_without_its_metadata(world: Setup, status: int) -> None:
    world.server.faults.status("commit", status, body=b"<html>too large</html>")
    seen: list[Any] = []
    with world.client() as client:
        client.on_event(seen.append)
        guard = client.reserve(cycles.tokens(100), action=ACTION).acquire()
        assert guard.commit(ACTUAL, metadata={"trace": "x" * 5_000}).status == "committed"
    assert [("metadata" in body) for body in bodies(world, "commit")] == [True, False]
    (omitted,) = [event for event in seen if type(event).__name__ == "ValuesOmitted"]
    assert "metadata" in omitted.names
    assert world.server.charged == 42


@pytest.mark.parametrize("operation", ["commit", "record"])
@pytest.mark.parametrize("status", some([404, 409, 410, 422]))
def test_a_page_for_an_amount_that_a_killed_process_had_charged_charges_nothing(
    world: Setup, operation: str, status: int
) -> None:
    """The ledger has the amount, the process is killed before the response, and a gateway responds from then on."""
    sent = {"commit": "commit", "record": "event"}[operation]
    world.killed_at(sent, (operation, 42), answered=True)
    assert world.server.charged == 42
    world.server.faults.status(sent, status, body=b"<html>this site has moved</html>", times=None)
    assert world.recover()["pending"] == 1
    assert world.server.charged == 42
    world.server.faults.clear()
    assert world.recover() == {"settled": 1, "pending": 0, "quarantined": 0}
    assert {seen.operation for seen in world.server.settling()} == {sent}
    assert (world.server.charged, world.leftovers, world.rejected) == (42, [], [])


def test_a_commit_that_was_received_before_is_confirmed_by_its_reservation(world: Setup) -> None:
    world.server.faults.drop_response("commit")
    with world.client() as client:
        guard = client.reserve(cycles.tokens(100), action=ACTION).acquire()
        assert guard.commit(ACTUAL).status == "pending"
        world.server.faults.status("commit", 409, body=error("RESERVATION_FINALIZED"))
        assert client.flush(PATIENCE_S) == cycles.FlushReport(settled=1, pending=0, quarantined=0)
        assert guard.state == "committed"
    assert world.rejected == []


def test_an_excess_that_another_client_of_the_journal_has_settled_is_kept_once(world: Setup) -> None:
    world.server.faults.status("commit", 401, body=error("UNAUTHORIZED"))
    with world.client(retry_initial_delay=60.0) as first:
        guard = first.reserve(cycles.tokens(100), action=ACTION, overage_policy="REJECT").acquire()
        assert guard.commit(cycles.tokens(5_000_000)).status == "pending"
        with world.client() as second:
            assert second.flush(PATIENCE_S).pending == 0
        assert (world.server.charged, world.rejected) == (100, [("BUDGET_EXCEEDED", 4_999_900)])
        assert first.flush(PATIENCE_S).pending == 0
    assert (world.server.charged, world.rejected) == (100, [("BUDGET_EXCEEDED", 4_999_900)])


def test_another_amount_under_the_key_of_a_pending_one_is_rejected(world: Setup) -> None:
    world.server.faults.status("event", 503, times=None)
    with world.client() as client:
        assert client.record(cycles.tokens(5), action=ACTION, idempotency_key="invoice-1").status == "PENDING"
        with pytest.raises(cycles.IdempotencyMismatchError, match="5 tokens"):
            client.record(cycles.tokens(7), action=ACTION, idempotency_key="invoice-1")
        client.record(cycles.tokens(5), action=ACTION, idempotency_key="invoice-1")  # the same again is no mistake
        world.server.faults.clear()
        assert client.flush(PATIENCE_S).pending == 0
    assert world.server.charged == 5


def test_rejected_amounts_are_listed(world: Setup) -> None:
    world.server.faults.status("commit", 409, body=error("BUDGET_CLOSED"))
    with world.client() as client:
        assert client.pending(rejected=True) == []
        guard = client.reserve(cycles.tokens(100), action=ACTION).acquire()
        with pytest.raises(cycles.BudgetClosedError):
            guard.commit(ACTUAL)
        (kept,) = client.pending(rejected=True)
        assert asyncio.run(client.aio.pending(rejected=True))[0].reservation_id == kept.reservation_id
        assert client.pending() == []
    assert (kept.reservation_id, kept.amount, kept.last_outcome) == (guard.reservation_id, ACTUAL, "BUDGET_CLOSED")


UNLISTED = {"error": "SOMETHING_NEW", "message": "m", "request_id": "r"}


@pytest.mark.parametrize(
    ("status", "body", "longest_s"), [(409, UNLISTED, 3_600.0), (401, error("UNAUTHORIZED"), None), (503, b"", None)]
)
def test_after_an_error_that_no_table_lists_the_pauses_grow_to_an_hour(
    world: Setup, status: int, body: Any, longest_s: float | None
) -> None:
    with world.client(flush_timeout=0.0) as client:
        guard = client.reserve(cycles.tokens(100), action=ACTION).acquire()
        record = record_of(runtime_of(client).blocking, state_of(guard), ACTUAL, None, {})
        world.server.faults.status("commit", status, body=body)
        _, step = attempt_once(client, record)
        assert isinstance(step, Later)
        assert step.longest_s == longest_s
        guard.release()


def test_a_settlement_that_is_stuck_for_a_day_is_reported_once(world: Setup) -> None:
    seen: list[Any] = []
    with world.client() as client:
        client.on_event(seen.append)
        runtime = runtime_of(client)
        guard = client.reserve(cycles.tokens(100), action=ACTION).acquire()
        record = record_of(runtime.blocking, state_of(guard), ACTUAL, None, {})
        old = evolve(record, recorded_at_ms=record.recorded_at_ms - 25 * 3_600_000)
        world.server.faults.status("commit", 409, body=UNLISTED, times=2)
        item, step = attempt_once(client, old)
        assert isinstance(step, Later)
        item, step = attempt_once(client, old, item)
        assert isinstance(step, Later)
        guard.release()
    (stuck,) = [event for event in seen if type(event).__name__ == "SettlementPending"]
    assert f"cycles journal show {guard.reservation_id}" in stuck.detail
    assert stuck.actual == ACTUAL
