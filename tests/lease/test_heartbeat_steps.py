"""The steps of heartbeats in their order, on a virtual clock: requests, reports, timers and the state of the guard."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

import cycles
from cycles._core.lease.planner import Stop, StopReason
from cycles._core.messages.outcome import Ambiguous, Outcome
from cycles._flows.guard_state import GuardState
from cycles._flows.heartbeat import adopt, extend, lose_if_over, lose_lease, report_late, send_heartbeat
from cycles._flows.heartbeat_state import Heartbeat
from cycles._flows.io import run
from tests.support.scripted_io import LOST, NOW_MS, UNSENT, ScriptedIo, allowed, extended, rejected
from tests.support.scripted_pool import NotingLock, ScriptedPool

Act = Callable[[ScriptedIo, GuardState, Heartbeat], Any]
DUE_MS = 49_000


class Case:
    """Send the first heartbeat when it is due, or do something else."""

    def __init__(self, *responses: Outcome | BaseException, act: Act | None = None, **options: Any) -> None:
        self.act = act or (lambda io, guard, heartbeat: send_heartbeat(io.io, heartbeat))
        self.acts: dict[str, Act] = options.pop("acts", {})
        self.at_ms: float = options.pop("at_ms", DUE_MS)
        self.guard = options.pop("guard", {})
        self.script = responses, options

    def run(self) -> ScriptedIo:
        responses, options = self.script
        io = ScriptedIo(responses, **options)
        guard = io.guard(**self.guard)
        heartbeat = guard.own_heartbeat
        assert heartbeat is not None
        heartbeat.timer = None
        guard.cancellation = Cancelling(io)
        io.clock_ms += self.at_ms
        io.acts = {step: lambda act=act: act(io, guard, heartbeat) for step, act in self.acts.items()}  # type: ignore[misc]
        doing = self.act(io, guard, heartbeat)
        if isinstance(doing, Coroutine):
            io.run(doing)
        return io


class Cancelling:
    """Notes when the block is cancelled."""

    def __init__(self, io: ScriptedIo) -> None:
        self._io = io

    def lease_lost(self) -> None:
        self._io.note("cancel the block")

    def end(self, raised: BaseException | None) -> BaseException | None:
        return raised


def ends(io: ScriptedIo, guard: GuardState, heartbeat: Heartbeat) -> None:
    heartbeat.end()


def lost(act: Act | None = None) -> Act:
    """Lose the lease, then do something."""

    def acts(io: ScriptedIo, guard: GuardState, heartbeat: Heartbeat) -> Any:
        lose_lease(io.io, heartbeat, Stop(StopReason.EXPIRED, "it is over"))
        return None if act is None else act(io, guard, heartbeat)

    return acts


def by_hand(by_ms: int | None = None) -> Act:
    return lambda io, guard, heartbeat: extend(io.io, guard, by_ms)


async def again(io: ScriptedIo, guard: GuardState, heartbeat: Heartbeat) -> None:
    with pytest.raises(KeyboardInterrupt):
        await send_heartbeat(io.io, heartbeat)
    await send_heartbeat(io.io, heartbeat)


async def twice(io: ScriptedIo, guard: GuardState, heartbeat: Heartbeat) -> None:
    await send_heartbeat(io.io, heartbeat)
    await send_heartbeat(io.io, heartbeat)


def ended(act: Act) -> Act:
    def acts(io: ScriptedIo, guard: GuardState, heartbeat: Heartbeat) -> Any:
        heartbeat.end()
        return act(io, guard, heartbeat)

    return acts


def committed(act: Act) -> Act:
    def acts(io: ScriptedIo, guard: GuardState, heartbeat: Heartbeat) -> Any:
        guard.claim("commit")
        return act(io, guard, heartbeat)

    return acts


def adopting(io: ScriptedIo, guard: GuardState, heartbeat: Heartbeat) -> None:
    adopt(io.io, heartbeat)
    io.note("adopted" if heartbeat.adopted else "not adopted")


def over(io: ScriptedIo, guard: GuardState, heartbeat: Heartbeat) -> None:
    lose_if_over(io.io, heartbeat)


def late(io: ScriptedIo, guard: GuardState, heartbeat: Heartbeat) -> None:
    report_late(io.io, heartbeat)


async def nothing_held(io: ScriptedIo, guard: GuardState, heartbeat: Heartbeat) -> Any:
    return await extend(io.io, io.guard(is_held=False), None)


OVER = rejected(410, "RESERVATION_EXPIRED")
CASES: dict[str, tuple[Case, str]] = {
    "extended": (
        Case(extended(DUE_MS)),
        """
        [active] send extend > report LeaseExtended > schedule 98000 > return None
        """,
    ),
    "extended twice": (
        Case(extended(DUE_MS), extended(DUE_MS), act=twice),
        """
        [active] send extend > report LeaseExtended > schedule 98000 > send extend > report LeaseExtended >
        schedule 98000 > return None
        """,
    ),
    "extended without a remaining time": (
        Case(extended(DUE_MS, None)),
        """
        [active] send extend > report LeaseExtended > report LeaseNotice > report LeaseNotice > schedule
        79000 > return None
        """,
    ),
    "the server fails": (
        Case(rejected(503)),
        """
        [active] send extend > report LeaseRetrying > schedule 51750 > return None
        """,
    ),
    "no response": (
        Case(LOST),
        """
        [active] send extend > report LeaseRetrying > schedule 51750 > return None
        """,
    ),
    "no connection": (
        Case(UNSENT),
        """
        [active] send extend > report LeaseRetrying > schedule 51750 > return None
        """,
    ),
    "an ambiguous response": (
        Case(Ambiguous(200, "odd")),
        """
        [active] send extend > report LeaseRetrying > schedule 51750 > return None
        """,
    ),
    "a page": (
        Case(rejected(404, None, "page", is_page=True, conformant=False)),
        """
        [active] send extend > report LeaseRetrying > schedule 51750 > return None
        """,
    ),
    "a rejected key": (
        Case(rejected(401, "UNAUTHORIZED")),
        """
        [active] send extend > report LeaseRetrying > schedule 50000 > return None
        """,
    ),
    "too many requests": (
        Case(rejected(429, "LIMIT_EXCEEDED", retry_after_ms=2_000)),
        """
        [active] send extend > report LeaseRetrying > schedule 51000 > return None
        """,
    ),
    "too many requests, for no time": (
        Case(rejected(429, "LIMIT_EXCEEDED", retry_after_ms=0)),
        """
        [active] send extend > report LeaseRetrying > schedule 49000 > return None
        """,
    ),
    "late by an hour": (
        Case(act=late, at_ms=0, guard={"remaining_ms": 3_600_000}),
        """
        [active] report LeaseNotice
        """,
    ),
    "extended by hand, nothing held": (
        Case(act=nothing_held),
        """
        return None
        """,
    ),
    "too many requests for a minute": (
        Case(rejected(429, "LIMIT_EXCEEDED", retry_after_ms=60_000)),
        """
        [active] send extend > [lost] report LeaseLost > cancel the block > return None
        """,
    ),
    "the lease is over": (
        Case(OVER),
        """
        [active] send extend > [lost] report LeaseLost > cancel the block > return None
        """,
    ),
    "the lease is over under cancel": (
        Case(OVER, guard={"lease_policy": "cancel"}),
        """
        [active] send extend > [lost] report LeaseLost > cancel the block > return None
        """,
    ),
    "the reservation is unknown": (
        Case(rejected(404, "NOT_FOUND")),
        """
        [active] send extend > [lost] report LeaseLost > cancel the block > return None
        """,
    ),
    "no response, too late for another attempt": (
        Case(LOST, at_ms=58_000),
        """
        [active] send extend > [lost] report LeaseLost > cancel the block > return None
        """,
    ),
    "a bug": (
        Case(ValueError("a bug")),
        """
        [active] send extend > report LeaseRetrying > schedule 51750 > return None
        """,
    ),
    "interrupted": (
        Case(KeyboardInterrupt(), extended(DUE_MS), act=again),
        """
        [active] send extend > send extend > report LeaseExtended > schedule 98000 > return None
        """,
    ),
    "no response, then extended": (
        Case(LOST, extended(DUE_MS), act=twice),
        """
        [active] send extend > report LeaseRetrying > schedule 51750 > send extend > report LeaseExtended >
        schedule 98000 > return None
        """,
    ),
    "a guard that ends meanwhile": (
        Case(extended(DUE_MS), acts={"send": ends}),
        """
        [active] send extend > return None
        """,
    ),
    "a guard that ends while an attempt fails": (
        Case(OVER, acts={"send": ends}),
        """
        [active] send extend > return None
        """,
    ),
    "a guard that has ended": (
        Case(act=ended(lambda io, guard, own: send_heartbeat(io.io, own))),
        """
        return None
        """,
    ),
    "a lease that was lost": (
        Case(act=lost(lambda io, guard, own: send_heartbeat(io.io, own))),
        """
        [lost] report LeaseLost > cancel the block > return None
        """,
    ),
    "another attempt is in progress": (
        Case(extended(DUE_MS), acts={"send": lambda io, guard, own: run(send_heartbeat(io.io, own))}),
        """
        [active] send extend > report LeaseExtended > schedule 98000 > return None
        """,
    ),
    "extended by hand": (
        Case(extended(DUE_MS), act=by_hand()),
        """
        [active] check extend > send extend > report LeaseExtended > schedule 98000 > return
        ReservationExtendResponse(status='ACTIVE', expires_at_ms=1109000, remaining_ttl_ms=60000,
        balances=None)
        """,
    ),
    "extended by hand by 5 s": (
        Case(extended(DUE_MS), act=by_hand(5_000)),
        """
        [active] check extend > send extend > report LeaseExtended > schedule 98000 > return
        ReservationExtendResponse(status='ACTIVE', expires_at_ms=1109000, remaining_ttl_ms=60000,
        balances=None)
        """,
    ),
    "a lost lease is extended by hand": (
        Case(extended(DUE_MS), act=lost(by_hand())),
        """
        [lost] report LeaseLost > cancel the block > check extend > send extend > [active] report
        LeaseExtended > schedule 98000 > return ReservationExtendResponse(status='ACTIVE',
        expires_at_ms=1109000, remaining_ttl_ms=60000, balances=None)
        """,
    ),
    "by hand, no response": (
        Case(LOST, LOST, act=by_hand()),
        """
        [active] check extend > send extend > send extend > raise TransportError
        """,
    ),
    "by hand, no response at first": (
        Case(LOST, extended(DUE_MS), act=by_hand()),
        """
        [active] check extend > send extend > send extend > report LeaseExtended > schedule 98000 > return
        ReservationExtendResponse(status='ACTIVE', expires_at_ms=1109000, remaining_ttl_ms=60000,
        balances=None)
        """,
    ),
    "by hand, rejected": (
        Case(OVER, act=by_hand()),
        """
        [active] check extend > send extend > raise ReservationExpiredError
        """,
    ),
    "by hand, after a commit": (
        Case(act=committed(by_hand())),
        """
        raise GuardFinalizedError
        """,
    ),
    "adopted": (
        Case(act=adopting),
        """
        [active] schedule 49000 > adopted
        """,
    ),
    "adopted after its end": (
        Case(act=ended(adopting)),
        """
        [active] not adopted
        """,
    ),
    "adopted after a loss": (
        Case(act=lost(adopting)),
        """
        [lost] report LeaseLost > cancel the block > not adopted
        """,
    ),
    "over by the clock": (
        Case(act=over, at_ms=60_000),
        """
        [lost] report LeaseLost > cancel the block
        """,
    ),
    "over by the clock, in 1 ms": (
        Case(act=over, at_ms=59_999),
        """

        """,
    ),
    "over by the clock, lost before": (
        Case(act=lost(over), at_ms=60_000),
        """
        [lost] report LeaseLost > cancel the block
        """,
    ),
    "over by the clock, after its end": (
        Case(act=ended(over), at_ms=60_000),
        """

        """,
    ),
    "over by the clock, without a remaining time": (
        Case(act=over, at_ms=60_000, guard={"remaining_ms": None}),
        """
        [lost] report LeaseLost > cancel the block
        """,
    ),
    "over by the clock, without a remaining time, in 1 ms": (
        Case(act=over, at_ms=59_999, guard={"remaining_ms": None}),
        """

        """,
    ),
    "late": (
        Case(act=late),
        """
        [active] report LeaseNotice
        """,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_steps_of_a_heartbeat(name: str) -> None:
    case, steps = CASES[name]
    io = case.run()
    assert io.story == " ".join(steps.split())
    assert io.with_other_options() == []


R1 = "reservation_id='r1', request_id=None, trace_id='tttttttttttttttttttttttttttttttt'"


@pytest.mark.parametrize(
    ("name", "detail", "ms"),
    [
        ("extended", None, NOW_MS + DUE_MS + 60_000),
        ("the server fails", "no (HTTP 503)", 2_750),
        ("no response", "timed out", 2_750),
        ("an ambiguous response", "odd", 2_750),
        ("a page", "page (HTTP 404)", 2_750),
        ("a rejected key", "no (HTTP 401, UNAUTHORIZED)", 1_000),
        ("too many requests", "no (HTTP 429, LIMIT_EXCEEDED)", 2_000),
        ("too many requests, for no time", "no (HTTP 429, LIMIT_EXCEEDED)", 0),
        (
            "late by an hour",
            "no thread can be started to extend the lease, which ends in about 3600 s; trying again",
            None,
        ),
        (
            "too many requests for a minute",
            "no (HTTP 429, LIMIT_EXCEEDED); Retry-After (60 s) is too long, the lease leaves 5 s to wait",
            11_000,
        ),
        ("the lease is over", "no (HTTP 410, RESERVATION_EXPIRED)", 11_000),
        ("the reservation is unknown", "no (HTTP 404, NOT_FOUND)", 11_000),
        (
            "no response, too late for another attempt",
            "timed out; no safe retry is left, 2 s before the lease may end",
            2_000,
        ),
        ("a bug", "ValueError: a bug", 2_750),
        ("over by the clock", "no thread could be started to extend it", 0),
        ("over by the clock, without a remaining time", "no thread could be started to extend it", 0),
        ("late", "no thread can be started to extend the lease, which ends in about 11 s; trying again", None),
    ],
)
def test_what_the_last_report_of_a_heartbeat_says(name: str, detail: str | None, ms: int | None) -> None:
    *_, event = CASES[name][0].run().events
    assert repr(event).startswith(f"{type(event).__name__}({R1}, ")
    assert getattr(event, "detail", None) == detail
    assert [getattr(event, each) for each in ("expires_at_ms", "retry_in_ms", "lasts_ms") if hasattr(event, each)] == (
        [] if ms is None else [ms]
    )


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("extended twice", 2),
        ("interrupted", 1),
        ("no response, then extended", 1),
        ("by hand, no response at first", 1),
    ],
)
def test_only_a_repetition_has_the_key_of_the_attempt_before(name: str, keys: int) -> None:
    calls = CASES[name][0].run().calls
    assert len(calls) == 2
    assert len({call.body["idempotency_key"] for call in calls if call.body}) == keys


@pytest.mark.parametrize(
    ("name", "by_ms", "timeout_s"),
    [("extended", 60_000, 4.9), ("extended by hand", 60_000, None), ("extended by hand by 5 s", 5_000, None)],
)
def test_what_an_extend_requests(name: str, by_ms: int, timeout_s: float | None) -> None:
    (call,) = CASES[name][0].run().calls
    assert call.body is not None
    assert (call.path, call.body["extend_by_ms"], call.timeout_s) == ({"reservation_id": "r1"}, by_ms, timeout_s)
    assert call.trace_id == "t" * 32


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("the lease is over", cycles.ReservationExpiredError),
        ("no response, too late for another attempt", cycles.TransportError),
        ("over by the clock", type(None)),
    ],
)
def test_a_lost_lease_has_the_failure_of_its_last_attempt_as_its_cause(name: str, cause: type) -> None:
    guard = CASES[name][0].run().watched
    assert guard is not None
    assert guard.loss is not None
    assert type(guard.loss.__cause__) is cause
    assert guard.loss.reservation_id == "r1"
    *_, event = CASES[name][0].run().events
    text = f"the lease of reservation r1 was lost: {event.detail}; committed amounts are charged anyway"
    assert str(guard.loss) == text


@pytest.mark.parametrize("name", ["extended", "no response, then extended", "a lost lease is extended by hand"])
def test_an_extended_lease_is_not_lost_and_has_no_failure(name: str) -> None:
    guard = CASES[name][0].run().watched
    assert guard is not None
    assert guard.heartbeat is not None
    assert (guard.loss, guard.heartbeat.error, guard.heartbeat.lost) == (None, None, False)


def test_a_lease_without_a_remaining_time_begins_with_a_notice_and_an_extend_immediately() -> None:
    io = ScriptedIo()
    io.guard(remaining_ms=None)
    assert io.begun == ["report LeaseNotice", "schedule 0"]


class Timer:
    """A timer of the driver."""

    is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


@pytest.mark.parametrize("act", ["replace", "drop", "end", "lose", "set after the end"])
def test_a_heartbeat_has_at_most_one_timer(act: str) -> None:
    io = ScriptedIo()
    heartbeat = io.guard().own_heartbeat
    assert heartbeat is not None
    first, second = Timer(), Timer()
    if act == "set after the end":
        heartbeat.end()
    heartbeat.set_timer(first)
    done: dict[str, Callable[[], object]] = {
        "replace": lambda: heartbeat.set_timer(second),
        "drop": heartbeat.drop_timer,
        "end": heartbeat.end,
        "lose": lambda: lose_lease(io.io, heartbeat, Stop(StopReason.EXPIRED, "over")),
        "set after the end": lambda: None,
    }
    done[act]()
    assert first.is_cancelled
    assert not second.is_cancelled
    assert heartbeat.timer is (second if act == "replace" else None)


@pytest.mark.parametrize("is_step", [True, False])
def test_an_interrupted_attempt_is_repeated_with_its_key(is_step: bool) -> None:
    heartbeat = ScriptedIo().guard().own_heartbeat
    assert heartbeat is not None
    attempt = heartbeat.begin()
    assert attempt is not None
    assert heartbeat.begin() is None
    key = heartbeat.key
    if not is_step:
        heartbeat.step = Stop(StopReason.EXPIRED, "over")
    heartbeat.interrupted()
    again = heartbeat.begin()
    assert again == (attempt._replace(fresh_key=False) if is_step else None)
    assert heartbeat.key == key


class NotingOwner:
    """Notes what its heartbeat says when it is told of a change."""

    def __init__(self, heartbeat: Heartbeat) -> None:
        self._heartbeat = heartbeat
        self.seen: list[tuple[str, bool]] = []

    def may_extend(self) -> bool:
        return True

    def lease_changed(self, event: str) -> None:
        self.seen.append((event, self._heartbeat.lost))

    def lease_lost(self) -> None:
        self.seen.append(("act", self._heartbeat.lost))


def test_an_owner_that_is_told_of_a_change_finds_it_done() -> None:
    io = ScriptedIo()
    heartbeat = io.guard().own_heartbeat
    assert heartbeat is not None
    owner = NotingOwner(heartbeat)
    heartbeat.owner = owner
    lose_lease(io.io, heartbeat, Stop(StopReason.EXPIRED, "over"))
    heartbeat.resume()
    heartbeat.resume()
    assert owner.seen == [("lease_lost", True), ("act", True), ("extended", False)]


def test_a_lease_that_is_lost_keeps_its_first_reason() -> None:
    heartbeat = ScriptedIo().guard().own_heartbeat
    assert heartbeat is not None
    owner = NotingOwner(heartbeat)
    heartbeat.owner = owner
    for detail in ("the first reason", "another reason"):
        heartbeat.advance(heartbeat.lease, Stop(StopReason.EXPIRED, detail))
    assert "the first reason" in str(heartbeat.lost_error())
    assert owner.seen == [("lease_lost", True)]


def test_a_pooled_guard_is_not_extended_by_hand() -> None:
    pool = ScriptedPool([allowed()])
    assert run(extend(pool.io.io, pool.reserve(10), None)) is None
    assert len(pool.io.calls) == 1


@pytest.mark.parametrize("method", ["begin", "interrupted", "advance", "end"])
def test_each_change_of_a_heartbeat_is_made_under_its_lock(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    io = ScriptedIo()
    locks = SimpleNamespace(RLock=lambda: NotingLock(io, "the lock"))
    monkeypatch.setattr("cycles._flows.heartbeat_state.threading", locks)
    heartbeat = io.guard().own_heartbeat
    assert heartbeat is not None
    heartbeat.timer = None
    changes: dict[str, Callable[[], object]] = {
        "begin": heartbeat.begin,
        "interrupted": heartbeat.interrupted,
        "advance": lambda: heartbeat.advance(heartbeat.lease, heartbeat.step),  # type: ignore[arg-type]
        "end": heartbeat.end,
    }
    changes[method]()
    assert io.steps == ["[active] take the lock"]


@pytest.mark.parametrize(
    ("response", "reason", "detail"),
    [
        (OVER, StopReason.EXPIRED, "no (HTTP 410, RESERVATION_EXPIRED)"),
        (rejected(410), StopReason.EXPIRED, "no (HTTP 410)"),
        (rejected(404, "NOT_FOUND"), StopReason.NOT_FOUND, "no (HTTP 404, NOT_FOUND)"),
        (
            rejected(409, "RESERVATION_FINALIZED"),
            StopReason.FINALIZED,
            "no (HTTP 409, RESERVATION_FINALIZED)",
        ),
        (
            rejected(409, "MAX_EXTENSIONS_EXCEEDED"),
            StopReason.MAX_EXTENSIONS,
            "no (HTTP 409, MAX_EXTENSIONS_EXCEEDED); the server grants no more extensions after 0; for longer work, "
            "reserve and commit part by part (client.lease_series)",
        ),
        (rejected(422, "SOMETHING_NEW"), StopReason.REJECTED, "no (HTTP 422, SOMETHING_NEW)"),
    ],
)
def test_why_a_heartbeat_stops(response: Outcome, reason: StopReason, detail: str) -> None:
    guard = Case(response).run().watched
    assert guard is not None
    assert guard.heartbeat is not None
    assert guard.heartbeat.stop == Stop(reason, detail)
