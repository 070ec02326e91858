"""The steps of a commit in their order: requests, records, reports, and the state that other threads see meanwhile.

The order decides what is lost if a process dies, or if its caller is interrupted, between two steps.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from attrs import evolve

import cycles
from cycles._core.messages.outcome import Outcome
from cycles._core.messages.requests import NO_OPTIONS, CallOptions
from cycles._core.settlement.put import PutResult
from cycles._core.settlement.record import Made, Record
from cycles._flows.commit import ahead_record, commit, record_of, settle_record, settled
from cycles._flows.guard_state import GuardState
from cycles._flows.io import run
from cycles._flows.reserve import open_lease
from cycles._flows.settle import attempt, conclude, event_record, settle_later, settle_queued
from cycles._flows.transfer import deserialize, serialize
from tests.support.scripted_io import (
    LOST,
    NOW_MS,
    UNSENT,
    ScriptedIo,
    committed,
    recorded,
    rejected,
    request_of,
    success,
    tokens,
)

T = cycles.tokens
Act = Callable[[ScriptedIo, GuardState], Coroutine[Any, Any, Any]]
EXPIRED = rejected(410, "RESERVATION_EXPIRED")
TOO_MUCH = rejected(409, "BUDGET_EXCEEDED")
INVALID = rejected(400, "INVALID_REQUEST")
MISMATCH = rejected(409, "IDEMPOTENCY_MISMATCH")


def commit_of(amount: int | None = 42, *, wait: bool = True, **values: Any) -> Act:
    actual = None if amount is None else T(amount)
    return lambda io, guard: commit(io.io, guard, actual, wait=wait, **values)


def reservation(status: str, amount: int | None = None) -> Outcome:
    body: dict[str, Any] = {"reservation_id": "r1", "status": status, "idempotency_key": "key-1"}
    body |= {"created_at_ms": 1, "expires_at_ms": 2, "scope_path": "tenant:acme", "affected_scopes": ["tenant:acme"]}
    body |= {"subject": {"tenant": "acme"}, "action": {"kind": "test", "name": "work"}, "reserved": tokens(100)}
    if amount is not None:
        body["committed"] = tokens(amount)
    return success(**body)


async def commit_twice(io: ScriptedIo, guard: GuardState) -> None:
    """Commit again in the background what an interrupted caller may have settled."""
    with pytest.raises(KeyboardInterrupt):
        await commit(io.io, guard, T(42), wait=True)
    (work,) = io.work
    await settle_queued(io.io, work.record, guard, is_saved=work.is_saved)


def queued(io: ScriptedIo, guard: GuardState, **changes: Any) -> Coroutine[Any, Any, Any]:
    record = record_of(io.io, guard, T(42), None, {})
    guard.claim("commit")
    io.clock_ms += 5_000
    is_saved = changes.pop("is_saved", True)
    return settle_queued(io.io, evolve(record, **changes), guard, is_saved=is_saved)


def later(io: ScriptedIo, guard: GuardState) -> Coroutine[Any, Any, Any]:
    async def settle() -> None:
        settle_later(io.io, guard, record_of(io.io, guard, T(42), None, {}))

    return settle()


class Case:
    def __init__(self, act: Act, *responses: Outcome | BaseException, guard: Any = None, **script: Any) -> None:
        self.act = act
        self.script = (responses, script)
        self.guard = guard or {}

    def run(self) -> ScriptedIo:
        responses, script = self.script
        io = ScriptedIo(responses, **script)
        guard = io.guard(**self.guard)
        io.run(self.act(io, guard))
        return io


SAVED, FAILED, HELD_BACK, TAKEN = PutResult.SAVED, PutResult.FAILED, PutResult.HELD_BACK, PutResult.TAKEN

CASES: dict[str, tuple[Case, str]] = {
    "the server charges it": (
        Case(commit_of(), committed(42)),
        """
        [active] check commit > put commit 42 > end ahead > send commit > end heartbeat > [committed] report
        Settled > finish commit 42 Settled > end trace > return committed 42
        """,
    ),
    "the server charges less": (
        Case(commit_of(), committed(30)),
        """
        [active] check commit > put commit 42 > end ahead > send commit > end heartbeat > [committed] report
        Settled > report Undercharged > finish commit 42 Settled > end trace > return committed 42
        """,
    ),
    "101 times the estimate": (
        Case(commit_of(101), committed(101), guard={"estimate": 1}),
        """
        [active] check commit > put commit 101 > end ahead > send commit > end heartbeat > [committed]
        report Settled > report FarAboveEstimate > finish commit 101 Settled > end trace > return committed
        101
        """,
    ),
    "100 times the estimate": (
        Case(commit_of(100), committed(100), guard={"estimate": 1}),
        """
        [active] check commit > put commit 100 > end ahead > send commit > end heartbeat > [committed]
        report Settled > finish commit 100 Settled > end trace > return committed 100
        """,
    ),
    "an estimate of nothing": (
        Case(commit_of(1), committed(1), guard={"estimate": 0}),
        """
        [active] check commit > put commit 1 > end ahead > send commit > end heartbeat > [committed] report
        Settled > finish commit 1 Settled > end trace > return committed 1
        """,
    ),
    "the server fails": (
        Case(commit_of(), rejected(503)),
        """
        [active] check commit > put commit 42 > end ahead > send commit > put commit 42 may have arrived >
        [pending] queue Settle later > finish commit 42 Unresolved > end trace > return pending 42
        """,
    ),
    "no response": (
        Case(commit_of(), LOST),
        """
        [active] check commit > put commit 42 > end ahead > send commit > put commit 42 may have arrived >
        [pending] queue Settle later > finish commit 42 Unresolved > end trace > return pending 42
        """,
    ),
    "no connection": (
        Case(commit_of(), UNSENT),
        """
        [active] check commit > put commit 42 > end ahead > send commit > [pending] queue Settle later >
        finish commit 42 Unresolved > end trace > return pending 42
        """,
    ),
    "too many requests": (
        Case(commit_of(), rejected(429, "LIMIT_EXCEEDED", retry_after_ms=7_000)),
        """
        [active] check commit > put commit 42 > end ahead > send commit > put commit 42 not before 7000 ms >
        [pending] queue Settle later > finish commit 42 Unresolved > end trace > return pending 42
        """,
    ),
    "the lease is over": (
        Case(commit_of(), EXPIRED, recorded()),
        """
        [active] check commit > put commit 42 > end ahead > send commit > put event 42 since 0 ms > send
        event > end heartbeat > [committed] report Settled > finish event 42 Settled > end trace > return
        recorded_as_event 42
        """,
    ),
    "the lease is over, and the server fails": (
        Case(commit_of(), EXPIRED, rejected(503)),
        """
        [active] check commit > put commit 42 > end ahead > send commit > put event 42 since 0 ms > send
        event > put event 42 since 0 ms may have arrived > [pending] queue Settle later > finish event 42
        Unresolved > end trace > return pending 42
        """,
    ),
    "the excess is rejected": (
        Case(commit_of(142), TOO_MUCH, committed(100)),
        """
        [active] check commit > put commit 142 > end ahead > send commit > put commit 100 > send commit >
        end heartbeat > [rejected] report Settled > report SettlementRejected > finish commit 100 Rejected >
        end trace > raise BudgetExceededError
        """,
    ),
    "the excess and the estimate are rejected": (
        Case(commit_of(142), TOO_MUCH, TOO_MUCH),
        """
        [active] check commit > put commit 142 > end ahead > send commit > put commit 100 > send commit >
        end heartbeat > [rejected] report SettlementRejected > finish commit 100 Rejected > end trace >
        raise BudgetExceededError
        """,
    ),
    "the excess is rejected, then no response": (
        Case(commit_of(142), TOO_MUCH, LOST),
        """
        [active] check commit > put commit 142 > end ahead > send commit > put commit 100 > send commit >
        put commit 100 may have arrived > [pending] queue Settle later > finish commit 100 Unresolved > end
        trace > raise BudgetExceededError
        """,
    ),
    "the whole amount is rejected": (
        Case(commit_of(), MISMATCH),
        """
        [active] check commit > put commit 42 > end ahead > send commit > end heartbeat > [rejected] report
        SettlementRejected > finish commit 42 Rejected > end trace > raise IdempotencyMismatchError
        """,
    ),
    "all of the estimate is rejected": (
        Case(commit_of(100), TOO_MUCH),
        """
        [active] check commit > put commit 100 > end ahead > send commit > end heartbeat > [rejected] report
        SettlementRejected > finish commit 100 Rejected > end trace > raise BudgetExceededError
        """,
    ),
    "the labels are rejected": (
        Case(commit_of(metadata={"run": 1}), INVALID, committed(42)),
        """
        [active] check commit > put commit 42 > end ahead > send commit > report ValuesOmitted > put commit
        42 > send commit > end heartbeat > [committed] report Settled > finish commit 42 Settled > end trace
        > return committed 42
        """,
    ),
    "values that JSON cannot have": (
        Case(commit_of(metadata={"run": object()}, metrics=object()), committed(42)),
        """
        [active] report ValuesOmitted > check commit > put commit 42 > end ahead > send commit > end
        heartbeat > [committed] report Settled > finish commit 42 Settled > end trace > return committed 42
        """,
    ),
    "another client has the record": (
        Case(commit_of(), puts=[TAKEN]),
        """
        [active] check commit > put commit 42 > end ahead > end heartbeat > [pending] finish commit 42 Taken
        > end trace > return pending 42
        """,
    ),
    "another client has the event": (
        Case(commit_of(), EXPIRED, puts=[SAVED, TAKEN]),
        """
        [active] check commit > put commit 42 > end ahead > send commit > put event 42 since 0 ms > finish
        commit 42 Taken > end heartbeat > [pending] finish event 42 Taken > end trace > return pending 42
        """,
    ),
    "the record is held back": (
        Case(commit_of(), puts=[HELD_BACK]),
        """
        [active] check commit > put commit 42 > [pending] queue Settle unsaved later > finish commit 42
        Unresolved > end trace > return pending 42
        """,
    ),
    "the event is held back": (
        Case(commit_of(), EXPIRED, puts=[SAVED, HELD_BACK]),
        """
        [active] check commit > put commit 42 > end ahead > send commit > put event 42 since 0 ms >
        [pending] queue Settle unsaved later > finish event 42 Unresolved > end trace > return pending 42
        """,
    ),
    "the journal fails": (
        Case(commit_of(), committed(42), puts=[FAILED]),
        """
        [active] check commit > put commit 42 > replace ahead by commit 42 > send commit > end ahead > end
        heartbeat > [committed] report Settled > finish commit 42 Settled > end trace > return committed 42
        """,
    ),
    "the journal fails twice": (
        Case(commit_of(), EXPIRED, puts=[FAILED, FAILED]),
        """
        [active] check commit > put commit 42 > replace ahead by commit 42 > send commit > put event 42
        since 0 ms > [pending] queue Settle unsaved later > finish event 42 Unresolved > end trace > return
        pending 42
        """,
    ),
    "the journal fails after the commit": (
        Case(commit_of(), EXPIRED, recorded(), puts=[SAVED, FAILED]),
        """
        [active] check commit > put commit 42 > end ahead > send commit > put event 42 since 0 ms > send
        event > end heartbeat > [committed] report Settled > finish event 42 Settled > end trace > return
        recorded_as_event 42
        """,
    ),
    "the reservation was never made": (
        Case(commit_of(), recorded(), guard={"is_held": False}),
        """
        [unreserved] check event > put event 42 > send event > [committed] report Settled > finish event 42
        Settled > end trace > return recorded_as_event 42
        """,
    ),
    "a dry run": (
        Case(commit_of(), guard={"shadow": True}),
        """
        check event > report ShadowSettled > [committed] end trace > return shadow 42
        """,
    ),
    "only observed": (
        Case(commit_of(), guard={"observed": True}),
        """
        [observed] check event > report Observed > end trace > return shadow 42
        """,
    ),
    "no amount": (
        Case(commit_of(None)),
        """
        raise InvalidRequestError
        """,
    ),
    "nobody waits": (
        Case(commit_of(wait=False)),
        """
        [active] check commit > put commit 42 > end ahead > [pending] queue Settle now > end trace > return
        pending 42
        """,
    ),
    "nobody waits, and the queue is full": (
        Case(commit_of(wait=False), committed(42), takes=False),
        """
        [active] check commit > put commit 42 > end ahead > [pending] queue Settle now > send commit > end
        heartbeat > [committed] report Settled > finish commit 42 Settled > end trace > return committed 42
        """,
    ),
    "the queue is full, and the server fails": (
        Case(commit_of(wait=False), LOST, takes=False),
        """
        [active] check commit > put commit 42 > end ahead > [pending] queue Settle now > send commit > put
        commit 42 may have arrived > queue Settle later > finish commit 42 Unresolved > end trace > return
        pending 42
        """,
    ),
    "nobody waits, and the record is held back": (
        Case(commit_of(wait=False), puts=[HELD_BACK]),
        """
        [active] check commit > put commit 42 > [pending] queue Settle unsaved later > finish commit 42
        Unresolved > end trace > return pending 42
        """,
    ),
    "nobody waits, and another client has the record": (
        Case(commit_of(wait=False), puts=[TAKEN]),
        """
        [active] check commit > put commit 42 > end ahead > end heartbeat > [pending] finish commit 42 Taken
        > end trace > return pending 42
        """,
    ),
    "interrupted before the claim": (
        Case(commit_of(), raises={"check": KeyboardInterrupt()}),
        """
        [active] check commit > raise KeyboardInterrupt
        """,
    ),
    "interrupted while it is saved": (
        Case(commit_of(), raises={"put": KeyboardInterrupt()}),
        """
        [active] check commit > put commit 42 > [pending] queue Settle unsaved now > end trace > end trace >
        raise KeyboardInterrupt
        """,
    ),
    "interrupted in the request": (
        Case(commit_of(), KeyboardInterrupt()),
        """
        [active] check commit > put commit 42 > end ahead > send commit > [pending] queue Settle unsaved now
        > end trace > end trace > raise KeyboardInterrupt
        """,
    ),
    "interrupted before the state": (
        Case(commit_of(), committed(42), raises={"end heart": KeyboardInterrupt()}),
        """
        [active] check commit > put commit 42 > end ahead > send commit > end heartbeat > [pending] queue
        Settle unsaved now > end trace > end trace > raise KeyboardInterrupt
        """,
    ),
    "interrupted in the report": (
        Case(commit_of(), committed(42), raises={"report": KeyboardInterrupt()}),
        """
        [active] check commit > put commit 42 > end ahead > send commit > end heartbeat > [committed] report
        Settled > queue Settle unsaved now > end trace > end trace > raise KeyboardInterrupt
        """,
    ),
    "interrupted after the report": (
        Case(commit_of(), committed(42), raises={"finish": KeyboardInterrupt()}),
        """
        [active] check commit > put commit 42 > end ahead > send commit > end heartbeat > [committed] report
        Settled > finish commit 42 Settled > finish later commit 42 Settled > end trace > raise
        KeyboardInterrupt
        """,
    ),
    "interrupted twice in the request": (
        Case(commit_of(), KeyboardInterrupt(), raises={"queue": KeyboardInterrupt()}),
        """
        [active] check commit > put commit 42 > end ahead > send commit > [pending] queue Settle unsaved now
        > queue Settle unsaved now > end trace > end trace > raise KeyboardInterrupt
        """,
    ),
    "interrupted twice after the report": (
        Case(commit_of(), committed(42), raises={"finish": KeyboardInterrupt(), "finish later": KeyboardInterrupt()}),
        """
        [active] check commit > put commit 42 > end ahead > send commit > end heartbeat > [committed] report
        Settled > finish commit 42 Settled > finish later commit 42 Settled > finish later commit 42 Settled
        > end trace > raise KeyboardInterrupt
        """,
    ),
    "charged, interrupted, charged again": (
        Case(commit_twice, committed(42), committed(42), raises={"report": KeyboardInterrupt()}),
        """
        [active] check commit > put commit 42 > end ahead > send commit > end heartbeat > [committed] report
        Settled > queue Settle unsaved now > end trace > end trace > put commit 42 > send commit > report
        Settled > finish commit 42 Settled > return None
        """,
    ),
    "rejected, interrupted, rejected again": (
        Case(commit_twice, MISMATCH, MISMATCH, raises={"report": KeyboardInterrupt()}),
        """
        [active] check commit > put commit 42 > end ahead > send commit > end heartbeat > [rejected] report
        SettlementRejected > queue Settle unsaved now > end trace > end trace > put commit 42 > send commit
        > report SettlementRejected > finish commit 42 Rejected > return None
        """,
    ),
    "charged, interrupted, no response": (
        Case(commit_twice, committed(42), LOST, raises={"report": KeyboardInterrupt()}),
        """
        [active] check commit > put commit 42 > end ahead > send commit > end heartbeat > [committed] report
        Settled > queue Settle unsaved now > end trace > end trace > put commit 42 > send commit > put
        commit 42 may have arrived > queue Settle later > finish commit 42 Unresolved > return None
        """,
    ),
    "charged, interrupted, taken by another client": (
        Case(commit_twice, committed(42), puts=[SAVED, TAKEN], raises={"report": KeyboardInterrupt()}),
        """
        [active] check commit > put commit 42 > end ahead > send commit > end heartbeat > [committed] report
        Settled > queue Settle unsaved now > end trace > end trace > put commit 42 > finish commit 42 Taken
        > finish commit 42 Taken > return None
        """,
    ),
    "queued": (
        Case(queued, committed(42)),
        """
        [active] send commit > end ahead > end heartbeat > [committed] report Settled > finish commit 42
        Settled > return None
        """,
    ),
    "queued and not saved": (
        Case(lambda io, guard: queued(io, guard, is_saved=False), committed(42)),
        """
        [active] put commit 42 > end ahead > send commit > end heartbeat > [committed] report Settled >
        finish commit 42 Settled > return None
        """,
    ),
    "queued, an event that was held back": (
        Case(lambda io, guard: queued(io, guard, is_saved=False, mode="event"), recorded()),
        """
        [active] put event 42 since 5000 ms > end ahead > send event > end heartbeat > [committed] report
        Settled > finish event 42 Settled > return None
        """,
    ),
    "queued, an event that was sent": (
        Case(lambda io, guard: queued(io, guard, is_saved=False, mode="event", attempt_unknown=True), recorded()),
        """
        [active] put event 42 may have arrived > end ahead > send event > end heartbeat > [committed] report
        Settled > finish event 42 Settled > return None
        """,
    ),
    "queued, an event that could be sent before": (
        Case(lambda io, guard: queued(io, guard, is_saved=False, mode="event", event_since_ms=1_001_000), recorded()),
        """
        [active] put event 42 since 1000 ms > end ahead > send event > end heartbeat > [committed] report
        Settled > finish event 42 Settled > return None
        """,
    ),
    "queued, held back": (
        Case(lambda io, guard: queued(io, guard, is_saved=False), puts=[HELD_BACK]),
        """
        [active] put commit 42 > [pending] queue Settle unsaved later > finish commit 42 Unresolved > return
        None
        """,
    ),
    "queued, rejected before": (
        Case(lambda io, guard: queued(io, guard, rejected="NOT_FOUND")),
        """
        [active] end ahead > end heartbeat > [rejected] report SettlementRejected > finish commit 42
        Rejected > return None
        """,
    ),
    "committed before its response was lost": (
        Case(lambda io, guard: queued(io, guard, attempt_unknown=True), MISMATCH, reservation("COMMITTED", 42)),
        """
        [active] send commit > send get > end ahead > end heartbeat > [committed] report Settled > finish
        commit 42 Settled > return None
        """,
    ),
    "committed before with another amount": (
        Case(lambda io, guard: queued(io, guard, attempt_unknown=True), MISMATCH, reservation("COMMITTED", 41)),
        """
        [active] send commit > send get > end ahead > end heartbeat > [rejected] report SettlementRejected >
        finish commit 42 Rejected > return None
        """,
    ),
    "the reservation cannot be read": (
        Case(lambda io, guard: queued(io, guard, attempt_unknown=True), MISMATCH, LOST),
        """
        [active] send commit > send get > [pending] queue Settle later > finish commit 42 Unresolved >
        return None
        """,
    ),
    "left to the background": (
        Case(later),
        """
        [pending] queue Settle unsaved now > return None
        """,
    ),
}


BODY = {"idempotency_key": "k", "actual": tokens(42), "subject": {"tenant": "acme"}, "action": {}}
BY_ID = Record(
    reservation_id="r1",
    base_url="http://x",
    commit_body={"idempotency_key": "k", "actual": tokens(42)},
    made=Made(None),
)


def event(io: ScriptedIo, guard: GuardState) -> Coroutine[Any, Any, Any]:
    return settle_record(io.io, event_record(io.io, BODY), NO_OPTIONS, "createEvent")


def by_id(io: ScriptedIo, guard: GuardState) -> Coroutine[Any, Any, Any]:
    return settle_record(io.io, BY_ID, NO_OPTIONS, "commitReservation")


def left(**changes: Any) -> dict[str, Record]:
    """Return what another process has in the journal for the event."""
    body = {**BODY, **changes}
    return {"event:k": Record(reservation_id="event:k", base_url="http://x", mode="event", event_fallback_body=body)}


WITHOUT_A_GUARD: dict[str, tuple[Case, str]] = {
    "an event": (
        Case(event, recorded()),
        """
        [active] check event > pending event:k > put event 42 > send event > report Settled > finish event
        42 Settled > return recorded_as_event 42
        """,
    ),
    "an event that is charged less": (
        Case(event, recorded(charged=tokens(30))),
        """
        [active] check event > pending event:k > put event 42 > send event > report Settled > report
        Undercharged > finish event 42 Settled > return recorded_as_event 42
        """,
    ),
    "an event that is charged nothing": (
        Case(event, recorded(charged=tokens(0))),
        """
        [active] check event > pending event:k > put event 42 > send event > report Settled > report
        Undercharged > finish event 42 Settled > return recorded_as_event 42
        """,
    ),
    "no response to an event": (
        Case(event, LOST),
        """
        [active] check event > pending event:k > put event 42 > send event > put event 42 may have arrived >
        queue Settle later > finish event 42 Unresolved > return pending 42
        """,
    ),
    "an event is rejected": (
        Case(event, MISMATCH),
        """
        [active] check event > pending event:k > put event 42 > send event > report SettlementRejected >
        finish event 42 Rejected > raise IdempotencyMismatchError
        """,
    ),
    "an event that is held back": (
        Case(event, puts=[HELD_BACK]),
        """
        [active] check event > pending event:k > put event 42 > queue Settle unsaved later > finish event 42
        Unresolved > return pending 42
        """,
    ),
    "an event that another client settles": (
        Case(event, puts=[TAKEN]),
        """
        [active] check event > pending event:k > put event 42 > finish event 42 Taken > finish event 42
        Taken > return pending 42
        """,
    ),
    "an event whose record is not saved": (
        Case(event, recorded(), puts=[FAILED]),
        """
        [active] check event > pending event:k > put event 42 > send event > report Settled > finish event
        42 Settled > return recorded_as_event 42
        """,
    ),
    "an event is interrupted": (
        Case(event, KeyboardInterrupt()),
        """
        [active] check event > pending event:k > put event 42 > send event > queue Settle unsaved now >
        raise KeyboardInterrupt
        """,
    ),
    "an event that no schema allows": (
        Case(event, raises={"check": cycles.InvalidRequestError("no")}),
        """
        [active] check event > raise InvalidRequestError
        """,
    ),
    "the same event again": (
        Case(event, recorded(), journal=left()),
        """
        [active] check event > pending event:k > put event 42 > send event > report Settled > finish event
        42 Settled > return recorded_as_event 42
        """,
    ),
    "the same event with other labels": (
        Case(event, recorded(), journal=left(metadata={"a": 1})),
        """
        [active] check event > pending event:k > put event 42 > send event > report Settled > finish event
        42 Settled > return recorded_as_event 42
        """,
    ),
    "another amount under its key": (
        Case(event, journal=left(actual=tokens(43))),
        """
        [active] check event > pending event:k > raise IdempotencyMismatchError
        """,
    ),
    "another subject under its key": (
        Case(event, journal=left(subject={"tenant": "b"})),
        """
        [active] check event > pending event:k > raise IdempotencyMismatchError
        """,
    ),
    "another action under its key": (
        Case(event, journal=left(action={"name": "b"})),
        """
        [active] check event > pending event:k > raise IdempotencyMismatchError
        """,
    ),
    "a commit by id": (
        Case(by_id, committed(42)),
        """
        [active] check commit > pending r1 > put commit 42 > send commit > report Settled > finish commit 42
        Settled > return committed 42
        """,
    ),
    "a commit by id is too late": (
        Case(by_id, EXPIRED),
        """
        [active] check commit > pending r1 > put commit 42 > send commit > finish commit 42 NoneType > raise
        ReservationExpiredError
        """,
    ),
    "no response to a commit by id": (
        Case(by_id, LOST),
        """
        [active] check commit > pending r1 > put commit 42 > send commit > put commit 42 may have arrived >
        queue Settle later > finish commit 42 Unresolved > return pending 42
        """,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_steps_of_a_commit(name: str) -> None:
    case, steps = CASES[name]
    io = case.run()
    assert io.story == " ".join(steps.split())
    assert io.with_other_options() == []


@pytest.mark.parametrize("name", WITHOUT_A_GUARD)
def test_the_steps_of_an_amount_without_a_guard(name: str) -> None:
    case, steps = WITHOUT_A_GUARD[name]
    assert case.run().story == " ".join(steps.split())


@pytest.mark.parametrize("response", [KeyboardInterrupt(), LOST, UNSENT], ids=["interrupt", "lost", "unsent"])
def test_the_background_sends_an_amount_without_a_guard_with_the_options_of_its_call(response: Any) -> None:
    io = ScriptedIo([response])
    options = CallOptions("a" * 32, timeout_s=2.0, headers={"X-Team": "a"})
    io.run(settle_record(io.io, event_record(io.io, BODY), options, "createEvent"))
    assert [call.options for call in io.calls] == [options]
    assert [work.options for work in io.work] == [options]


def test_a_wait_for_a_settlement_raises_what_rejected_it_after_it_was_pending() -> None:
    io = ScriptedIo([LOST, TOO_MUCH])
    guard = io.guard(100)
    assert run(commit(io.io, guard, T(42), wait=True)).status == "pending"
    run(settle_queued(io.io, io.work[0].record, guard))
    with pytest.raises(cycles.BudgetExceededError):
        run(settled(io.io, guard, None))


@pytest.mark.parametrize(("more", "known"), [(0, 42), (36, 42), (38, 43)])
def test_a_token_has_the_amount_of_a_commit_that_could_not_be_sent_or_more_spend(more: int, known: int) -> None:
    io = ScriptedIo(raises={"check": cycles.InvalidRequestError("no")})
    guard = io.guard(100)
    guard.spend(T(5))
    with pytest.raises(cycles.InvalidRequestError):
        run(commit(io.io, guard, T(42), wait=True))
    guard.spend(T(more))
    assert deserialize(serialize(guard), None, None).spent == T(known)


GUARD_TRACE = "t" * 32
IDS = "reservation_id='r1', request_id='req-1', trace_id='trace-1'"
NO_IDS = "reservation_id=None, request_id=None"
EXCESS = "detail='no (HTTP 409, BUDGET_EXCEEDED)', guards=None, hint='kept in rejected/'"
T_42, T_100, T_142 = "<Amount 42 tokens>", "<Amount 100 tokens>", "<Amount 142 tokens>"

REPORTS = {
    "the server charges less": [
        f"Settled({IDS}, status='committed', actual={T_42}, charged=<Amount 30 tokens>, recovered=False)",
        f"Undercharged({IDS}, actual={T_42}, charged=<Amount 30 tokens>)",
    ],
    "101 times the estimate": [
        f"Settled({IDS}, status='committed', actual=<Amount 101 tokens>, charged=<Amount 101 tokens>, recovered=False)",
        f"FarAboveEstimate(reservation_id='r1', request_id=None, trace_id='{GUARD_TRACE}', estimate=<Amount 1 token>, "
        "actual=<Amount 101 tokens>)",
    ],
    "the excess is rejected": [
        f"Settled({IDS}, status='committed', actual={T_100}, charged={T_100}, recovered=False)",
        f"SettlementRejected(reservation_id='r1', request_id=None, trace_id='trace-9', actual={T_42}, {EXCESS})",
    ],
    "the excess and the estimate are rejected": [
        f"SettlementRejected(reservation_id='r1', request_id=None, trace_id='trace-9', actual={T_142}, {EXCESS})",
    ],
    "the labels are rejected": [
        "ValuesOmitted(reservation_id='r1', request_id=None, trace_id=None, names=('metrics', 'metadata'))",
        f"Settled({IDS}, status='committed', actual={T_42}, charged={T_42}, recovered=False)",
    ],
    "values that JSON cannot have": [
        "ValuesOmitted(reservation_id='r1', request_id=None, trace_id=None, names=('metrics', 'metadata.run'))",
        f"Settled({IDS}, status='committed', actual={T_42}, charged={T_42}, recovered=False)",
    ],
    "a dry run": [
        f"ShadowSettled({NO_IDS}, trace_id='{GUARD_TRACE}', estimate={T_100}, actual={T_42}, action='work', "
        "would_deny=True)",
    ],
    "only observed": [
        f"Observed(reservation_id=None, request_id='req-1', trace_id='{GUARD_TRACE}', estimate={T_100}, "
        f"actual={T_42}, action='work', decision='DENY', reason_code='BUDGET_EXCEEDED')",
    ],
}


@pytest.mark.parametrize(
    ("decision", "denies"), [("ALLOW", False), ("ALLOW_WITH_CAPS", False), ("DENY", True), ("A_NEW_ONE", True)]
)
def test_what_would_have_been_denied_without_observe_mode(decision: str, denies: bool) -> None:
    event = cycles.events.Observed(estimate=T(100), actual=T(42), action="work", decision=decision)
    assert event.would_deny is denies


@pytest.mark.parametrize("name", REPORTS)
def test_what_the_reports_of_a_commit_say(name: str) -> None:
    assert [repr(event) for event in CASES[name][0].run().events] == REPORTS[name]


@pytest.mark.parametrize(
    ("name", "detail", "request_id"),
    [
        ("the server fails", "no (HTTP 503)", "req-9"),
        ("too many requests", "no (HTTP 429, LIMIT_EXCEEDED)", "req-9"),
        ("no connection", "refused", None),
        ("nobody waits", None, None),
        ("left to the background", None, None),
    ],
)
def test_what_a_pending_settlement_says(name: str, detail: str | None, request_id: str | None) -> None:
    io = CASES[name][0].run()
    guard = io.watched
    assert guard is not None
    assert guard.settlement is not None
    assert [(work.detail, work.guard, work.record.reservation_id) for work in io.work] == [(detail, guard, "r1")]
    assert (guard.settlement.actual, guard.settlement.charged) == (T(42), None)
    assert (guard.settlement.request_id, guard.settlement.trace_id) == (request_id, GUARD_TRACE)


@pytest.mark.parametrize("name", [name for name in CASES if "interrupted" not in name and "queued" not in name])
def test_nothing_is_unfinished_after_a_commit(name: str) -> None:
    guard = CASES[name][0].run().watched
    assert guard is not None
    assert guard.unfinished is None


@pytest.mark.parametrize(
    ("name", "waits"),
    [
        ("the server charges it", False),
        ("the whole amount is rejected", False),
        ("another client has the record", False),  # it reports the end to its own process only
        ("another client has the event", False),
        ("no response", True),
        ("nobody waits", True),
        ("the record is held back", True),
    ],
)
def test_a_caller_waits_only_for_what_this_client_settles(name: str, waits: bool) -> None:
    guard = CASES[name][0].run().watched
    assert guard is not None
    assert guard.when_settled().is_set is not waits


@pytest.mark.parametrize(
    ("previous", "arrives", "made_ms"),
    [
        (None, True, NOW_MS + 5_000),  # no request of before can have carried it
        ({"idempotency_key": "k"}, True, NOW_MS),
        (None, False, None),
    ],
)
def test_the_age_of_a_record_counts_from_the_first_request_that_may_have_arrived(
    previous: Any, arrives: bool, made_ms: float | None
) -> None:
    case = Case(lambda io, guard: queued(io, guard, previous_body=previous), LOST if arrives else UNSENT)
    assert [record.made and record.made.boot_ms for record in case.run().records] == ([made_ms] if made_ms else [])


@pytest.mark.parametrize(("since_ms", "kept_ms"), [(None, None), (NOW_MS + 1_000, NOW_MS + 1_000)])
def test_an_event_that_is_held_back_gets_its_time_when_it_is_first_sent(
    since_ms: int | None, kept_ms: int | None
) -> None:
    if since_ms is None:
        io = CASES["the event is held back"][0].run()
    else:
        waits = Case(
            lambda io, guard: queued(io, guard, mode="event", event_since_ms=since_ms), TOO_MUCH, puts=[HELD_BACK]
        )
        io = waits.run()
    (work,) = io.work
    assert (work.record.mode, work.record.event_since_ms, work.is_saved) == ("event", kept_ms, False)


@pytest.mark.parametrize(("passed_ms", "latency_ms"), [(-5, 0), (0, 0), (0.4, 0), (1, 1), (1_500.6, 1_501)])
def test_a_commit_reports_how_long_its_guard_was_open(passed_ms: float, latency_ms: int) -> None:
    io = ScriptedIo()
    guard = io.guard()
    io.clock_ms += passed_ms
    record = record_of(io.io, guard, T(42), None, {})
    assert record.body["metrics"] == {"latency_ms": latency_ms}
    guard.usage.add(tokens_input=3)
    assert record_of(io.io, guard, T(42), None, {}).body["metrics"] == {"latency_ms": latency_ms, "tokens_input": 3}
    given = cycles.Metrics(tokens_input=4)
    assert record_of(io.io, guard, T(42), given, {}).body["metrics"] == {"tokens_input": 4}


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("the server charges it", ("committed", T(42), None)),
        ("another client has the record", ("pending", T(42), None)),
        ("the whole amount is rejected", ("rejected", None, "IDEMPOTENCY_MISMATCH")),
    ],
)
def test_who_waits_for_a_settlement_finds_its_outcome(name: str, found: tuple[Any, ...]) -> None:
    case = CASES[name][0]
    responses, script = case.script
    io = ScriptedIo(responses, **script)
    guard = io.guard()
    seen: list[Any] = []

    def look() -> None:
        actual, code = guard.settlement and guard.settlement.actual, guard.rejection and guard.rejection.code
        seen.append((guard.state, actual, code))

    guard.when_settled().on_set(look)
    io.run(case.act(io, guard))
    assert seen == [found]


def test_a_dry_run_without_a_response_says_of_no_denial() -> None:
    io = ScriptedIo([LOST, LOST])
    guard = run(open_lease(io.io, request_of(shadow=True), io.take))
    run(commit(io.io, guard, T(42), wait=True))
    assert [event.would_deny for event in io.of("ShadowSettled")] == [None]


def test_a_guard_that_another_thread_commits_keeps_its_spend_ahead_if_it_cannot_be_detached() -> None:
    io = ScriptedIo()
    guard = io.guard()
    guard.claim("commit")
    with pytest.raises(cycles.GuardFinalizedError):
        serialize(guard)
    assert (io.steps, guard.state) == ([], "active")


@pytest.mark.parametrize("is_held", [True, False])
@pytest.mark.parametrize(
    ("sent", "marks"), [(False, {"of": "settings"}), (True, {"of": "settings", "actual_source": "estimate"})]
)
def test_spend_is_written_ahead_under_the_key_of_the_later_commit(
    sent: bool, marks: dict[str, str], is_held: bool
) -> None:
    io = ScriptedIo()
    guard = io.guard(is_held=is_held, settlement_metadata={"of": "settings"})
    marks = {**marks, "recovery_reason": "process_ended"} if sent and not is_held else marks
    guard.commit_key = None
    first, second = (ahead_record(io.io, guard, T(amount), sent=sent) for amount in (1, 2))
    commit_key = record_of(io.io, guard, T(3), None, {}).body["idempotency_key"]
    assert {first.body["idempotency_key"], second.body["idempotency_key"]} == {commit_key}
    assert (second.body["metadata"], second.sent, second.body["actual"]) == (marks, sent, tokens(2))


@pytest.mark.parametrize("is_recovered", [True, False])
@pytest.mark.parametrize("responses", [[committed(101)], [TOO_MUCH, committed(100)]], ids=["whole", "estimate"])
def test_a_report_says_whether_another_process_has_made_the_amount(
    is_recovered: bool, responses: list[Outcome]
) -> None:
    io = ScriptedIo(responses)
    record = record_of(io.io, io.guard(100), T(101), None, {})
    latest, result = run(attempt(io.io, record, None))
    conclude(io.io, latest, result, None, recovered=is_recovered)
    assert [each.recovered for each in io.of("Settled")] == [is_recovered]
