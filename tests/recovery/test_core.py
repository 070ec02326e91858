"""Recovery profile, core: what a response means for a settlement, in a process that lives on."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Callable
from typing import Any

import pytest

import cycles
from tests.recovery.child import ACTION
from tests.recovery.kit import PATIENCE_S, TENANT, Seen, Setup
from tests.support.inside import runtime_of
from tests.support.still_time import StillTime
from tests.support.waiting import event_of

ACTUAL = cycles.tokens(42)
EXPIRED = {"error": "RESERVATION_EXPIRED", "message": "m", "request_id": "r"}
Committing = Callable[[cycles.Cycles], Any]


def commit(client: cycles.Cycles) -> Any:
    return client.reserve(cycles.tokens(100), action=ACTION).acquire().commit(ACTUAL)


def commit_async(client: cycles.Cycles) -> Any:
    async def run() -> Any:
        guard = await client.reserve(cycles.tokens(100), action=ACTION)
        return await guard.commit(ACTUAL)

    return asyncio.run(run())


both = pytest.mark.parametrize("committing", [commit, commit_async])


def what_was_sent(world: Setup) -> list[str]:
    return [seen.operation for seen in world.server.settling()]


def keys(world: Setup) -> set[str]:
    return {seen.key for seen in world.server.settling()}


def expire_on_commit(world: Setup) -> Callable[[Seen], None]:
    """The lease ends, long ago, in the moment in which the commit arrives."""

    def expire(seen: Seen) -> None:
        if seen.operation == "commit":
            world.server.clock.advance(3_600_000)

    return expire


@both
def test_cr_core_001_a_commit_without_a_response_is_repeated_with_its_key(world: Setup, committing: Committing) -> None:
    world.server.faults.drop_response("commit")
    with world.client() as client:
        assert committing(client).status == "pending"
        assert client.flush(timeout=PATIENCE_S).pending == 0
    assert what_was_sent(world) == ["commit", "commit"]
    assert len(keys(world)) == 1
    assert world.server.charged == 42
    assert world.leftovers == []


@both
def test_cr_core_002_an_expired_commit_becomes_an_event_with_the_same_key(
    manual_world: Setup, committing: Committing
) -> None:
    world = manual_world
    world.server.on_arrival = expire_on_commit(world)
    with world.client() as client:
        settlement = committing(client)
    assert settlement.status == "recorded_as_event"
    assert settlement.event_id
    assert what_was_sent(world) == ["commit", "event"]
    assert len(keys(world)) == 1
    event = world.server.settling()[1].body
    assert event["subject"] == {"tenant": TENANT}
    assert event["action"] == {"kind": ACTION[0], "name": ACTION[1]}
    assert event["actual"] == {"unit": "TOKENS", "amount": 42}
    assert event["metadata"]["recovery_reason"] == "commit_after_reservation_expired"
    assert event["metadata"]["recovered_reservation_id"]
    assert "overage_policy" not in event  # the server's default never refuses
    assert world.server.charged == 42
    assert world.leftovers == []


def test_an_event_carries_the_metrics_and_metadata_of_the_commit(manual_world: Setup) -> None:
    world = manual_world
    world.server.on_arrival = expire_on_commit(world)
    with world.client() as client:
        guard = client.reserve(cycles.tokens(100), action=ACTION).acquire()
        guard.commit(ACTUAL, metrics=cycles.Metrics(tokens_input=7), metadata={"run": "r1"})
    commit_sent, event_sent = (seen.body for seen in world.server.settling())
    assert event_sent["metrics"] == commit_sent["metrics"]
    assert event_sent["metadata"]["run"] == commit_sent["metadata"]["run"] == "r1"


@both
def test_cr_core_003_a_failed_extend_is_reported_and_repeated_and_the_commit_is_made(
    world: Setup, committing: Committing, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.server.faults.refuse("extend")
    told: list[Any] = []
    still = StillTime(monkeypatch)
    with world.client() as client:
        client.on_event(told.append)
        retrying = event_of(client, "LeaseRetrying")
        still.drives(runtime_of(client).scheduler)
        if committing is commit:
            with client.reserve(cycles.tokens(100), action=ACTION, ttl_ms=60_000) as guard:
                still.beat(guard)
                retrying()
                still.beat(guard)
                world.server.wait_for("extend", 2)
                assert guard.commit(ACTUAL).status == "committed"
        else:

            async def run() -> None:
                async with client.reserve(cycles.tokens(100), action=ACTION, ttl_ms=60_000) as guard:
                    still.beat(guard)
                    await asyncio.to_thread(retrying)
                    still.beat(guard)
                    await asyncio.to_thread(world.server.wait_for, "extend", 2)
                    assert (await guard.commit(ACTUAL)).status == "committed"

            asyncio.run(run())
    failed = [event for event in told if type(event).__name__ == "LeaseRetrying"]
    assert len(failed) == 1
    assert failed[0].reservation_id
    assert failed[0].disposition.startswith("retr")
    assert [seen.operation for seen in world.server.seen] == ["reserve", "extend", "extend", "commit"]
    first, second = (seen for seen in world.server.seen if seen.operation == "extend")
    assert first.body == second.body  # the key is in it
    assert world.server.charged == 42


@both
@pytest.mark.parametrize(
    "fault",
    [
        {"status": 202, "body": {"status": "COMMITTED", "charged": {"unit": "TOKENS", "amount": 42}}},
        {"status": 200, "body": {"status": "COMMITTED"}},
        {"status": 200, "body": b"<html>welcome to the hotel network</html>"},
        {"status": 200, "body": b'{"status": "COMMITTED", "charged": {"unit"'},
        {"status": 200, "body": b""},
        {"status": 302, "body": b"", "headers": {"Location": "/v1/elsewhere"}},
        {"status": 500, "body": {"error": "INTERNAL_ERROR", "message": "m", "request_id": "r"}},
        {"status": 529, "body": b"overloaded"},
    ],
    ids=lambda fault: f"{fault['status']}-{str(fault['body'])[:12]}",
)
def test_cr_core_004_only_the_exact_success_is_one(world: Setup, committing: Committing, fault: dict[str, Any]) -> None:
    world.server.faults.status("commit", **fault, reaches_ledger=True)
    with world.client() as client:
        assert committing(client).status == "pending"
        assert client.flush(timeout=PATIENCE_S).pending == 0
    assert what_was_sent(world) == ["commit", "commit"]
    assert len(keys(world)) == 1
    assert world.server.charged == 42
    assert world.leftovers == []


@pytest.mark.parametrize("status", [200, 202, 204])
def test_an_event_is_settled_by_201_only(world: Setup, status: int) -> None:
    world.server.faults.status("event", status, body={"status": "APPLIED", "event_id": "e"}, reaches_ledger=True)
    with world.client() as client:
        assert client.record(ACTUAL, action=ACTION).status != "APPLIED"
        assert client.flush(timeout=PATIENCE_S).pending == 0
    assert what_was_sent(world) == ["event", "event"]
    assert len(keys(world)) == 1
    assert world.server.charged == 42
    assert world.leftovers == []


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (409, "RESERVATION_FINALIZED", cycles.ReservationFinalizedError),
        (409, "IDEMPOTENCY_MISMATCH", cycles.IdempotencyMismatchError),
        (409, "BUDGET_EXCEEDED", cycles.BudgetExceededError),
        (400, "UNIT_MISMATCH", cycles.UnitMismatchError),
    ],
)
def test_an_understood_rejection_raises_and_ends_the_record(
    world: Setup, status: int, code: str, error: type[Exception]
) -> None:
    world.server.faults.status("commit", status, body={"error": code, "message": "m", "request_id": "r"})
    with world.client() as client:
        guard = client.reserve(cycles.tokens(100), action=ACTION).acquire()
        with pytest.raises(error):
            guard.commit(ACTUAL)
        assert guard.state == "rejected"
        assert client.pending() == []
    assert what_was_sent(world) == ["commit"]
    assert world.leftovers == []
    assert world.rejected == [(code, ACTUAL.amount)]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, {"error": "UNAUTHORIZED", "message": "m", "request_id": "r"}),
        (403, {"error": "FORBIDDEN", "message": "m", "request_id": "r"}),
        (403, b"<html>blocked by the firewall</html>"),
        (404, b"not found"),
        (409, {"error": "SOMETHING_NEW", "message": "m", "request_id": "r"}),
        (400, {"error": "RESERVATION_FINALIZED", "message": "m", "request_id": "r"}),
        (409, {"error": "RESERVATION_FINALIZED"}),
        (429, {"error": "LIMIT_EXCEEDED", "message": "m", "request_id": "r"}),
        (503, b""),
    ],
    ids=str,
)
def test_a_temporary_error_response_keeps_the_record_and_never_releases(world: Setup, status: int, body: Any) -> None:
    world.server.faults.status("commit", status, body=body)
    with world.client() as client:
        with client.reserve(cycles.tokens(100), action=ACTION) as guard:
            assert guard.commit(ACTUAL).status == "pending"
        assert [owed.amount for owed in client.pending()] in ([ACTUAL], [])
        assert client.flush(timeout=PATIENCE_S).pending == 0
    assert {seen.operation for seen in world.server.seen} == {"reserve", "commit"}
    assert len(keys(world)) == 1
    assert world.server.charged == 42


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (410, EXPIRED),
        (409, EXPIRED),
        (410, {"error": "RESERVATION_EXPIRED"}),
        (410, {"error": "GONE"}),
        (410, b""),
    ],
    ids=str,
)
def test_the_status_alone_or_the_code_alone_means_expired(world: Setup, status: int, body: Any) -> None:
    world.server.faults.status("commit", status, body=body)
    with world.client() as client:
        assert commit(client).status == "recorded_as_event"
    assert what_was_sent(world) == ["commit", "event"]


def test_a_rejected_recovery_event_is_reported_as_an_error(world: Setup) -> None:
    world.server.faults.status("commit", 410, body=EXPIRED)
    refused = {"error": "BUDGET_CLOSED", "message": "m", "request_id": "r"}
    world.server.faults.status("event", 409, body=refused)
    told: list[Any] = []
    with world.client() as client:
        client.on_event(told.append)
        with pytest.raises(cycles.BudgetClosedError):
            commit(client)
    (rejected,) = [event for event in told if type(event).__name__ == "SettlementRejected"]
    assert rejected.actual == ACTUAL
    assert world.leftovers == []
    assert world.rejected == [("BUDGET_CLOSED", ACTUAL.amount)]


def test_cr_boundary_001_a_block_without_a_known_amount_commits_nothing(world: Setup) -> None:
    with world.client() as client:
        with pytest.warns(cycles.UncommittedGuardWarning), client.reserve(cycles.tokens(100), action=ACTION):
            pass
        with pytest.raises(ZeroDivisionError), client.reserve(cycles.tokens(100), action=ACTION):
            raise ZeroDivisionError
    assert what_was_sent(world) == []
    assert [seen.operation for seen in world.server.seen] == ["reserve", "release"] * 2
    assert world.server.charged == 0
    assert world.leftovers == []


def test_cr_boundary_001_a_process_killed_before_the_amount_is_known_commits_nothing(world: Setup) -> None:
    ended = world.run(("acquire",), ("die",))
    assert ended.killed
    assert world.recover() == {"settled": 0, "pending": 0, "quarantined": 0}
    assert what_was_sent(world) == []
    assert world.leftovers == []


def test_commit_without_an_amount_sends_nothing_and_leaves_the_guard_usable(world: Setup) -> None:
    with world.client() as client:
        guard = client.reserve(cycles.tokens(100), action=ACTION).acquire()
        with pytest.raises(cycles.InvalidRequestError):
            guard.commit()
        assert guard.commit(ACTUAL).status == "committed"
    assert what_was_sent(world) == ["commit"]


def test_capped_spend_is_visible(world: Setup) -> None:
    world.server.ledger.set_budget(f"tenant:{TENANT}", cycles.tokens(100))
    told: list[Any] = []
    with world.client() as client:
        client.on_event(told.append)
        settlement = client.reserve(cycles.tokens(100), action=ACTION).acquire().commit(cycles.tokens(150))
    assert settlement.undercharged
    assert settlement.charged == cycles.tokens(100)
    assert "Undercharged" in [type(event).__name__ for event in told]


def test_nothing_of_the_client_is_left_when_it_is_closed(world: Setup) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        client = world.client()
        commit(client)
        client.close()
        del client
        gc.collect()


@pytest.mark.parametrize(
    "wrong", [{"metadata": {"when": float("nan")}}, {"metadata": {"tags": {1}}}, {"metrics": {"tokens_input": -1}}]
)
def test_an_amount_is_settled_without_a_label_that_json_does_not_have(world: Setup, wrong: dict[str, Any]) -> None:
    with world.client() as client, client.reserve(cycles.tokens(100), action=ACTION) as guard:
        guard.commit(ACTUAL, **wrong)
        assert guard.state == "committed"
    assert what_was_sent(world) == ["commit"]
    assert world.server.charged == 42


INVALID = {"error": "INVALID_REQUEST", "message": "m", "request_id": "r"}


def test_an_amount_is_settled_without_the_values_that_the_server_rejects(manual_world: Setup) -> None:
    """The commit's metadata is rejected, then the lease is over, then the event's metadata is rejused as well."""
    world = manual_world
    world.server.faults.status("commit", 400, body=INVALID)
    world.server.faults.status("commit", 410, body=EXPIRED)
    world.server.faults.status("event", 400, body=INVALID)
    told: list[Any] = []
    with world.client() as client:
        client.on_event(told.append)
        guard = client.reserve(cycles.tokens(100), action=ACTION).acquire()
        settlement = guard.commit(ACTUAL, metrics=cycles.Metrics(tokens_input=1), metadata={"run": "r1"})
    assert settlement.status == "recorded_as_event"
    assert what_was_sent(world) == ["commit", "commit", "event", "event"]
    assert len(keys(world)) == 1
    assert set(world.server.settling()[-1].body) == {"idempotency_key", "actual", "subject", "action"}
    assert world.server.charged == 42
    assert world.leftovers == []
    assert "ValuesOmitted" in [type(event).__name__ for event in told]


def test_a_caller_who_is_cancelled_while_an_event_is_sent_leaves_the_event_to_the_background(
    manual_world: Setup,
) -> None:
    """The background continues with the event. With the commit it would forget that the event may be charged."""
    world = manual_world
    expire = expire_on_commit(world)

    async def main() -> None:
        async with world.client() as client:
            guard = await client.reserve(cycles.tokens(100), action=ACTION)
            committing = asyncio.ensure_future(guard.commit(ACTUAL))
            loop = asyncio.get_running_loop()

            def leave(seen: Seen) -> None:
                expire(seen)
                if seen.operation == "event":
                    loop.call_soon_threadsafe(committing.cancel)

            world.server.on_arrival = leave
            world.server.faults.drop_response("event")
            with pytest.raises(asyncio.CancelledError):
                await committing
            assert (await client.aio.flush(timeout=PATIENCE_S)).pending == 0

    asyncio.run(main())
    assert what_was_sent(world) == ["commit", "event", "event"]
    assert len(keys(world)) == 1
    assert world.server.charged == 42
