"""What a guard says of its state, its settlement and its cost, for each state of what it follows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from attrs import evolve

import cycles
from cycles._core.messages.requests import CallOptions
from cycles._core.settlement.settlement import Settlement
from cycles._flows.guard_state import ANY_AMOUNT, GuardState
from tests.support.scripted_io import ScriptedIo, allowed, rejected, request_of
from tests.support.scripted_pool import NotingLock

T = cycles.tokens
NO = rejected(409, "TENANT_CLOSED")


def settled(status: Any, actual: int, charged: int | None) -> Settlement:
    return Settlement(
        status=status, actual=T(actual), charged=None if charged is None else T(charged), request_id="req-1"
    )


def chunk(end: str) -> GuardState:
    """Return the lease of a chunk that has ended in this way."""
    lease = ScriptedIo().guard(1_000)
    lease.claim("commit")
    if end == "rejected":
        lease.rejection = NO
        lease.apply("rejected")
    elif end == "pending":
        lease.apply("unresolved", settled("pending", 500, None))
    elif end != "live":
        lease.apply("settled", settled("committed", 500, 500 if end == "committed" else 400))
    return lease


def pooled(end: str) -> GuardState:
    """Return a guard that ended with 42 tokens in such a chunk."""
    guard = ScriptedIo().guard()
    guard.claim("commit")
    guard.apply("pooled", settled("pooled", 42, None))
    guard.settled_in = chunk(end)
    return guard


@pytest.mark.parametrize(
    ("end", "state", "status", "charged"),
    [
        ("live", "pooled", "pooled", None),
        ("pending", "pooled", "pooled", None),
        ("rejected", "rejected", "pooled", None),
        ("committed", "committed", "committed", 42),
        ("undercharged", "committed", "committed", None),  # no server says which guard the rest belongs to
    ],
)
def test_a_pooled_guard_follows_its_chunk(end: str, state: str, status: str, charged: int | None) -> None:
    guard = pooled(end)
    settlement = guard.settlement
    assert settlement is not None
    assert (guard.state, settlement.status, settlement.actual, guard.cost) == (state, status, T(42), 42)
    assert settlement.charged == (None if charged is None else T(charged))
    assert settlement.request_id == "req-1"
    assert guard.charged is None
    assert (guard.rejection is None) is (end != "rejected")


@pytest.mark.parametrize("end", ["live", "pending", "rejected", "committed"])
def test_who_waits_for_a_pooled_guard_waits_for_its_chunk(end: str) -> None:
    guard = pooled(end)
    assert guard.settled_in is not None
    assert guard.when_settled() is guard.settled_in.when_settled()
    assert guard.when_settled().is_set is (end in ("rejected", "committed"))


@pytest.mark.parametrize(
    ("excess", "charged"),
    [("none", 42), ("pending", None), ("uncharged", None), ("short", None), ("full", 42)],
)
def test_the_charge_of_a_pooled_guard_is_known_when_that_of_its_excess_is(excess: str, charged: int | None) -> None:
    guard = pooled("committed")
    if excess != "none":
        guard.excess = ScriptedIo().guard(is_held=False)
        guard.excess.claim("commit")
    if guard.excess is not None and excess == "uncharged":
        guard.excess.apply("unresolved", settled("pending", 5, None))
    elif guard.excess is not None and excess in ("short", "full"):
        guard.excess.apply("settled", settled("recorded_as_event", 5, 5 if excess == "full" else 4))
    assert guard.settlement is not None
    assert guard.settlement.charged == (None if charged is None else T(charged))
    assert guard.charged == {"none": None, "pending": None, "uncharged": None, "short": T(4), "full": T(5)}[excess]


@pytest.mark.parametrize(
    ("spent", "reported", "known"),
    [(None, None, None), (3, None, 3), (None, 5, 5), (3, 5, 5), (5, 5, 5), (7, 5, 7), (0, None, 0), (None, 0, 0)],
)
def test_the_known_spend_is_no_less_than_the_amount_of_a_failed_commit(
    spent: int | None, reported: int | None, known: int | None
) -> None:
    guard = ScriptedIo().guard(6)
    guard.spent = None if spent is None else T(spent)
    guard.reported_amount = None if reported is None else T(reported)
    assert guard.known == (None if known is None else T(known))
    assert (guard.cost, guard.held) == (None, max(6, known or 0))


@pytest.mark.parametrize(
    ("event", "settlement", "spent", "cost"),
    [
        ("settled", settled("committed", 42, 30), None, 42),
        ("settled", settled("committed", 42, 30), 7, 42),
        ("unresolved", settled("pending", 42, None), None, 42),
        ("unresolved", settled("pending", 42, None), 50, 50),
        ("rejected", None, 7, 7),
        ("rejected", None, None, 100),
        ("release_started", None, None, 0),
        ("release_started", None, 7, 0),
        ("lease_lost", None, 7, None),
        ("detached", None, 7, None),
    ],
)
def test_what_a_guard_has_cost(event: Any, settlement: Settlement | None, spent: int | None, cost: int | None) -> None:
    guard = ScriptedIo().guard()
    guard.spent = None if spent is None else T(spent)
    guard.apply(event, settlement)
    assert guard.cost == cost
    follower = ScriptedIo().guard()
    follower.spent = T(150)
    follower.attached = guard
    assert (follower.cost, follower.held) == (cost, 100)


@pytest.mark.parametrize(
    ("claimed", "event", "later"),
    [
        ("drop", None, True),
        ("end", None, True),
        ("exit", None, True),
        ("exit", "lease_lost", True),
        ("commit", None, False),
        (None, None, False),
        ("drop", "unresolved", False),
        ("drop", "settled", False),
        ("exit", "release_started", False),
    ],
)
def test_a_guard_is_ended_later_until_the_background_has_ended_it(claimed: str | None, event: Any, later: bool) -> None:
    guard = ScriptedIo().guard()
    if claimed is not None:
        guard.claim(claimed)
    if event is not None:
        guard.apply(event)
    assert guard.is_ended_later is later


@pytest.mark.parametrize(
    ("claimed", "event", "notes"),
    [
        (None, "lease_lost", []),
        ("commit", None, []),
        ("commit", "lease_lost", []),
        (None, "settled", []),
        ("commit", "settled", ["[committed] end trace"]),
        ("commit", "unresolved", ["[pending] end trace"]),
        ("release", "release_started", ["[released] end trace"]),
        ("detach", "detached", ["[detached] end trace"]),
    ],
)
def test_a_trace_ends_with_its_guard(claimed: str | None, event: Any, notes: list[str]) -> None:
    io = ScriptedIo()
    guard = io.guard()
    if claimed is not None:
        guard.claim(claimed)
    if event is not None:
        guard.apply(event)
    io.steps.clear()
    guard.end_trace()
    assert io.steps == notes


def test_an_event_that_the_table_does_not_have_changes_nothing_or_is_an_error() -> None:
    guard = ScriptedIo().guard()
    first = settled("committed", 42, 42)
    guard.apply("settled", first)
    guard.apply("settled", settled("committed", 43, 43), if_accepted=True)
    assert guard.settlement is first
    with pytest.raises(ValueError, match="a guard that is 'committed' cannot encounter 'rejected'"):
        guard.apply("rejected")
    assert (guard.state, guard.settlement) == ("committed", first)


@pytest.mark.parametrize("event", ["settled", "rejected", "release_started", "unresolved", "lease_lost"])
@pytest.mark.parametrize("first", ["waits", "ends"])
def test_the_signal_of_a_guard_is_set_once_its_state_is_final(event: Any, first: str) -> None:
    guard = ScriptedIo().guard()
    signals = [guard.when_settled(), guard.when_settled()] if first == "waits" else []
    guard.apply(event)
    signals.append(guard.when_settled())
    assert {id(signal) for signal in signals} == {id(signals[0])}
    assert signals[0].is_set is (event in ("settled", "rejected", "release_started"))


class ContendedLock:
    """A lock that another thread has for what it does: `its`, once."""

    its: Callable[[], object] | None = None

    def __enter__(self) -> None:
        its, self.its = self.its, None
        if its is not None:
            its()

    def __exit__(self, *_: object) -> None:
        """No other thread waits."""


def outcome(act: Callable[[], object]) -> object:
    """Return what a call returns, or the name of its error."""
    try:
        return act()
    except cycles.CyclesError as error:
        return type(error).__name__


@pytest.mark.parametrize(
    ("other", "act", "expected"),
    [
        ("settle", "wait", True),
        ("claim", "claim", "GuardFinalizedError"),
        ("claim", "spend", "GuardFinalizedError"),
        ("spend", "spend", T(2)),
        ("spend", "claim what is known", False),
        ("claim", "enter", "GuardFinalizedError"),
        ("enter", "enter", "GuardFinalizedError"),
        ("step", "step", 2),
        ("release", "lose", "released"),
    ],
)
def test_what_another_thread_changes_before_a_lock_is_taken_counts(other: str, act: str, expected: object) -> None:
    lock: Any = ContendedLock()
    guard = GuardState(request_of(), "k", CallOptions(), 0.0, allowed(), lock=lock)

    def lose() -> str:
        guard.apply("lease_lost", if_accepted=True)
        return guard.state

    does: dict[str, Callable[[], object]] = {
        "settle": partial(guard.apply, "settled", settled("committed", 42, 42)),
        "wait": lambda: guard.when_settled().is_set,
        "claim": partial(guard.claim, "commit"),
        "claim what is known": partial(guard.claim, "release", None),
        "spend": partial(guard.spend, T(1)),
        "enter": guard.enter_block,
        "step": partial(guard.next_step, None),
        "release": partial(guard.apply, "release_started"),
        "lose": lose,
    }
    lock.its = does[other]
    assert outcome(does[act]) == expected
    assert lock.its is None


@pytest.mark.parametrize(
    ("options", "state", "sends_nothing", "reservation_id"),
    [
        ({}, "active", False, "r1"),
        ({"is_held": False}, "unreserved", False, None),
        ({"shadow": True}, "active", True, None),
        ({"is_held": False, "shadow": True}, "active", True, None),
        ({"observed": True}, "observed", True, None),
    ],
)
def test_how_a_guard_begins(options: Any, state: str, sends_nothing: bool, reservation_id: str | None) -> None:
    guard = ScriptedIo().guard(**options)
    assert (guard.state, guard.sends_nothing, guard.reservation_id) == (state, sends_nothing, reservation_id)
    assert guard.name == ("reservation r1" if reservation_id else "guard of 'work'")
    assert (guard.finalized, guard.loss, guard.cost, guard.held, guard.charged) == (False, None, None, 100, None)


def test_the_response_of_a_guard_is_read_on_first_use() -> None:
    guard = ScriptedIo().guard()
    created = guard.created
    assert created is not None
    assert (created.reservation_id, created.request_id, created.trace_id) == ("r1", "req-1", "trace-1")
    assert guard.created is created
    assert guard.decision == "ALLOW"
    in_chunk = ScriptedIo().guard(is_held=False)
    assert (in_chunk.created, in_chunk.decision) == (None, None)
    in_chunk.lease = guard
    assert in_chunk.created is created
    assert in_chunk.heartbeat is guard.own_heartbeat
    read = GuardState(guard.request, "k", guard.call_options, 0.0, created)
    assert (read.created, read.reservation_id) == (created, "r1")


@pytest.mark.parametrize("known", ["same", "other", "any"])
@pytest.mark.parametrize("spent", [None, 3])
def test_a_claim_ends_a_guard_only_with_the_spend_that_its_caller_has_seen(known: str, spent: int | None) -> None:
    guard = ScriptedIo().guard()
    guard.spent = None if spent is None else T(spent)
    seen: Any = {"same": guard.known, "other": T(4), "any": ANY_AMOUNT}[known]
    assert guard.claim("commit", seen) is (known != "other")
    assert (guard.finalized, guard.claimed) == (known != "other", "commit" if known != "other" else None)


@pytest.mark.parametrize("is_ended", [False, True])
@pytest.mark.parametrize("in_block", [False, True])
def test_a_guard_enters_one_block(is_ended: bool, in_block: bool) -> None:
    guard = ScriptedIo().guard()
    if in_block:
        guard.enter_block()
    if is_ended:
        guard.claim("commit")
    message = r"has ended \(commit\); reserve again" if is_ended else "a block of reservation r1 is running"
    if is_ended or in_block:
        with pytest.raises(cycles.GuardFinalizedError, match=message):
            guard.enter_block()
    else:
        guard.enter_block()
    assert guard.in_block is (in_block or not is_ended)


def test_caps_count_the_steps_of_a_guard_or_of_its_chunk() -> None:
    caps = cycles.Caps(max_steps_remaining=2)
    guard, lease = ScriptedIo().guard(), ScriptedIo().guard()
    assert [guard.next_step(caps), guard.next_step(caps)] == [1, 2]
    with pytest.raises(cycles.StepsExhaustedError):
        guard.next_step(caps)
    assert (guard.steps, guard.next_step(None)) == (2, 3)
    guard.lease = lease
    assert (guard.next_step(caps), lease.steps, guard.steps) == (1, 1, 3)


@pytest.mark.parametrize("is_ended", [False, True])
def test_the_amount_of_a_failed_commit_is_noted_unless_the_guard_has_ended(is_ended: bool) -> None:
    guard = ScriptedIo().guard()
    if is_ended:
        guard.claim("commit")
    guard.note(T(5))
    assert guard.reported_amount == (None if is_ended else T(5))
    with pytest.raises(cycles.InvalidRequestError, match="in the unit of the reservation"):
        guard.note(cycles.usd(1))
    with pytest.raises(cycles.InvalidRequestError, match="must be an amount"):
        guard.note(5)  # type: ignore[arg-type]


def test_usage_is_made_once() -> None:
    guard = ScriptedIo().guard()
    assert guard.counted_usage is None
    usage = guard.usage
    assert guard.usage is usage
    assert guard.counted_usage is usage


@pytest.mark.parametrize(
    ("of_response", "of_request", "trace_id"),
    [("a", "b", "a"), (None, "b", "b"), ("a", None, "a"), (None, None, "")],
)
def test_a_response_without_a_trace_id_has_that_of_its_request(
    of_response: str | None, of_request: str | None, trace_id: str
) -> None:
    response = evolve(allowed(), trace_id=of_response)
    guard = GuardState(request_of(), "k", CallOptions(of_request), 0.0, response)
    assert guard.created is not None
    assert guard.created.trace_id == trace_id
    assert guard.trace_id == (of_request or "")


@pytest.mark.parametrize("method", ["apply", "usage", "when_settled", "claim", "enter_block", "spend", "next_step"])
def test_each_change_of_a_guard_is_made_under_its_lock(method: str) -> None:
    io = ScriptedIo()
    lock: Any = NotingLock(io, "the lock")
    guard = GuardState(request_of(), "k", CallOptions(), 0.0, allowed(), lock=lock)
    changes: dict[str, Callable[[], object]] = {
        "apply": lambda: guard.apply("settled"),
        "usage": lambda: guard.usage,
        "when_settled": guard.when_settled,
        "claim": lambda: guard.claim("commit"),
        "enter_block": guard.enter_block,
        "spend": lambda: guard.spend(T(1)),
        "next_step": lambda: guard.next_step(None),
    }
    changes[method]()
    assert io.steps == ["take the lock"]


def test_spend_is_added_up_until_the_guard_has_ended() -> None:
    guard = ScriptedIo().guard()
    assert [guard.spend(T(0)), guard.spend(T(3)), guard.spend(T(4))] == [T(0), T(3), T(7)]
    guard.claim("commit")
    with pytest.raises(cycles.GuardFinalizedError, match=r"cannot spend: reservation r1 already ended \(commit\)"):
        guard.spend(T(1))
    assert guard.spent == T(7)


@pytest.mark.parametrize("wrong", [cycles.usd(1), 5, None])
def test_spend_of_another_kind_is_rejected_and_not_counted(wrong: Any) -> None:
    guard = ScriptedIo().guard()
    with pytest.raises(cycles.InvalidRequestError, match="actual must be"):
        guard.spend(wrong)
    assert (guard.spent, guard.known) == (None, None)
