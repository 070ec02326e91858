"""The steps of a release and of the end of a block in their order, with what the server and an observer are told."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest

import cycles
from cycles._core.lease.planner import Stop, StopReason
from cycles._core.messages.outcome import Outcome
from cycles._core.settlement.lifecycle import Dropped
from cycles._flows.block_end import end_at_estimate, end_block, end_later
from cycles._flows.commit import commit
from cycles._flows.guard_state import GuardState, Release
from cycles._flows.heartbeat import lose_lease
from cycles._flows.io import run
from cycles._flows.release import release, release_call_of, release_in_background, send_release
from tests.support.scripted_io import LOST, UNSENT, ScriptedIo, committed, rejected, success, tokens

T = cycles.tokens
Act = Callable[[ScriptedIo, GuardState], Coroutine[Any, Any, Any]]

RELEASED = success(status="RELEASED", released=tokens(100))
FINALIZED = "RESERVATION_FINALIZED"
BY_ITSELF = rejected(409, FINALIZED, "Reservation is already Released")
COMMITTED = rejected(409, FINALIZED, "reservation was committed")
GONE = rejected(404, "NOT_FOUND")
TOO_MUCH = rejected(409, "BUDGET_EXCEEDED")


class Case:
    def __init__(self, act: Act, *responses: Outcome | BaseException, guard: Any = None, **script: Any) -> None:
        self.act = act
        self.acts = script.pop("acts", {})
        self._script = (responses, script)
        self.guard = guard or {}

    def run(self) -> ScriptedIo:
        responses, script = self._script
        io = ScriptedIo(responses, **script)
        guard = io.guard(**self.guard)
        io.acts = {step: partial(act, guard) for step, act in self.acts.items()}
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            io.run(self.act(io, guard))
        io.steps += [f"warn: {each.message}"[:60] for each in warned]
        return io


def released(reason: Any = "over") -> Act:
    return lambda io, guard: release(io.io, guard, reason)


def sent(io: ScriptedIo, guard: GuardState) -> Coroutine[Any, Any, Any]:
    return send_release(io.io, Release("r1", "key-3", "over", guard.call_options))


def block(raised: BaseException | None = None, spend: int | None = None, lost: bool = False, done: Any = None) -> Act:
    """Return the end of a block that has raised, has spent, has lost its lease, or has ended its guard."""

    async def end(io: ScriptedIo, guard: GuardState) -> str:
        guard.enter_block()
        if lost:
            assert guard.own_heartbeat is not None
            lose_lease(io.io, guard.own_heartbeat, Stop(StopReason.EXPIRED, "it is over"))
        if spend is not None:
            guard.spend(T(spend))
        if done is not None:
            guard.claim(done)
        # Each run has its own exception: notes are added to it.
        error = None if raised is None else type(raised)(*raised.args)
        await end_block(io.io, guard, error)
        return " ".join(getattr(error, "__notes__", [])) or "no note"

    return end


def later(raised: BaseException | None = None, spend: int | None = None) -> Act:
    async def end(io: ScriptedIo, guard: GuardState) -> None:
        if spend is not None:
            guard.spend(T(spend))
        guard.claim("drop")
        end_later(io.io, guard, raised)

    return end


async def background(io: ScriptedIo, guard: GuardState) -> None:
    guard.claim("drop")
    release_in_background(io.io, guard, "over")


async def estimated(io: ScriptedIo, guard: GuardState) -> None:
    guard.claim("exit")
    end_at_estimate(io.io, guard)


def fails(usage: object) -> cycles.Amount:
    raise ZeroDivisionError("no price")


STOP = KeyboardInterrupt()
DROPPED = Dropped("it was dropped")
LOSS = cycles.LeaseLostError("lost")
CASES: dict[str, tuple[Case, str]] = {
    "released": (
        Case(released(), RELEASED),
        """
        [released] end ahead > end heartbeat > send release > report Released > end trace > return
        ReleaseResponse(status='RELEASED', released=<Amount 100 tokens>, balances=None,
        cycles_evidence=None)
        """,
    ),
    "released without a reason": (
        Case(released(None), RELEASED),
        """
        [released] end ahead > end heartbeat > send release > report Released > end trace > return
        ReleaseResponse(status='RELEASED', released=<Amount 100 tokens>, balances=None,
        cycles_evidence=None)
        """,
    ),
    "released before": (
        Case(released(), BY_ITSELF),
        """
        [released] end ahead > end heartbeat > send release > report Released > end trace > return None
        """,
    ),
    "committed before": (
        Case(released(), COMMITTED),
        """
        [released] end ahead > end heartbeat > send release > report ReleaseFailed > end trace > raise
        ReservationFinalizedError
        """,
    ),
    "a release of an unknown reservation": (
        Case(released(), GONE),
        """
        [released] end ahead > end heartbeat > send release > report ReleaseFailed > end trace > raise
        NotFoundError
        """,
    ),
    "a release of an expired reservation": (
        Case(released(), rejected(410, "RESERVATION_EXPIRED")),
        """
        [released] end ahead > end heartbeat > send release > report ReleaseFailed > end trace > raise
        ReservationExpiredError
        """,
    ),
    "a release, and the server fails": (
        Case(released(), rejected(503)),
        """
        [released] end ahead > end heartbeat > send release > report ReleaseFailed > queue Release later >
        end trace > return None
        """,
    ),
    "a release without a response": (
        Case(released(), LOST),
        """
        [released] end ahead > end heartbeat > send release > report ReleaseFailed > queue Release later >
        end trace > return None
        """,
    ),
    "a release without a connection": (
        Case(released(), UNSENT),
        """
        [released] end ahead > end heartbeat > send release > report ReleaseFailed > queue Release later >
        end trace > return None
        """,
    ),
    "a release with a rejected key": (
        Case(released(), rejected(401, "UNAUTHORIZED")),
        """
        [released] end ahead > end heartbeat > send release > report ReleaseFailed > queue Release later >
        end trace > return None
        """,
    ),
    "a release with a reason that is no text": (
        Case(released(5)),
        """
        raise InvalidRequestError
        """,
    ),
    "a release of a dry run": (
        Case(released(), guard={"shadow": True}),
        """
        report ShadowSettled > [released] end trace > return None
        """,
    ),
    "a release of what was only observed": (
        Case(released(), guard={"observed": True}),
        """
        [observed] report Observed > end trace > return None
        """,
    ),
    "a release of nothing": (
        Case(released(), guard={"is_held": False}),
        """
        [released] end trace > return None
        """,
    ),
    "a release is interrupted": (
        Case(released(), STOP),
        """
        [released] end ahead > end heartbeat > send release > queue Release now > end trace > raise
        KeyboardInterrupt
        """,
    ),
    "a release is interrupted before its request": (
        Case(released(), raises={"end ahead": STOP}),
        """
        [released] end ahead > end ahead > end heartbeat > queue Release now > end trace > raise
        KeyboardInterrupt
        """,
    ),
    "a release is interrupted twice": (
        Case(released(), STOP, raises={"queue": STOP}),
        """
        [released] end ahead > end heartbeat > send release > queue Release now > queue Release now > end
        trace > raise KeyboardInterrupt
        """,
    ),
    "a release is interrupted in its report": (
        Case(released(), RELEASED, raises={"report": STOP}),
        """
        [released] end ahead > end heartbeat > send release > report Released > queue Release now > end
        trace > raise KeyboardInterrupt
        """,
    ),
    "a release that no caller waits for": (
        Case(sent, RELEASED),
        """
        [active] send release > report Released > return None
        """,
    ),
    "a rejected release that no caller waits for": (
        Case(sent, GONE),
        """
        [active] send release > report ReleaseFailed > return None
        """,
    ),
    "a failed release that no caller waits for": (
        Case(sent, LOST),
        """
        [active] send release > report ReleaseFailed > queue Release later > return None
        """,
    ),
    "an interrupted release that no caller waits for": (
        Case(sent, STOP),
        """
        [active] send release > queue Release now > raise KeyboardInterrupt
        """,
    ),
    "a release of a closed client that no caller waits for": (
        Case(sent, cycles.CyclesError("closed")),
        """
        [active] send release > raise CyclesError
        """,
    ),
    "a release of a closed client": (
        Case(released(), cycles.CyclesError("closed")),
        """
        [released] end ahead > end heartbeat > send release > end trace > raise CyclesError
        """,
    ),
    "a release in the background": (
        Case(background),
        """
        [released] end ahead > end heartbeat > queue Release now > end trace > return None
        """,
    ),
    "a release of nothing in the background": (
        Case(background, guard={"is_held": False}),
        """
        [released] end trace > return None
        """,
    ),
    "a block that has spent": (
        Case(block(spend=7), committed(7)),
        """
        [active] check commit > put commit 7 > end ahead > send commit > end heartbeat > [committed] report
        Settled > finish commit 7 Settled > end trace > end trace > return no note
        """,
    ),
    "a block that does not wait": (
        Case(block(spend=7), guard={"settle": "background"}),
        """
        [active] check commit > put commit 7 > end ahead > [pending] queue Settle now > end trace > end
        trace > return no note
        """,
    ),
    "a block that has spent and raised": (
        Case(block(ValueError("x"), spend=7), committed(7)),
        """
        [active] check commit > put commit 7 > end ahead > send commit > end heartbeat > [committed] report
        Settled > finish commit 7 Settled > end trace > end trace > return no note
        """,
    ),
    "a block that has spent nothing": (
        Case(block(), RELEASED),
        """
        [released] end ahead > end heartbeat > send release > report Released > report GuardNotCommitted >
        end trace > return no note > warn: reservation r1 ended and no cost was reported: its 100
        """,
    ),
    "a block that has raised": (
        Case(block(ValueError("x")), RELEASED),
        """
        [released] end ahead > end heartbeat > send release > report Released > end trace > return no note
        """,
    ),
    "a block whose commit is rejected": (
        Case(block(spend=7), TOO_MUCH),
        """
        [active] check commit > put commit 7 > end ahead > send commit > end heartbeat > [rejected] report
        SettlementRejected > finish commit 7 Rejected > end trace > end trace > raise BudgetExceededError
        """,
    ),
    "a block that has raised and whose commit is rejected": (
        Case(block(ValueError("x"), spend=7), TOO_MUCH),
        """
        [active] check commit > put commit 7 > end ahead > send commit > end heartbeat > [rejected] report
        SettlementRejected > finish commit 7 Rejected > end trace > end trace > return cycles: the guard
        could not be settled: no; the remaining budget is smaller than that; client.balances() lists what is
        left, cycles fund SCOPE AMOUNT adds to it [BUDGET_EXCEEDED, HTTP 409, request req-9]
        """,
    ),
    "a block that has raised and whose release is rejected": (
        Case(block(ValueError("x")), GONE),
        """
        [released] end ahead > end heartbeat > send release > report ReleaseFailed > end trace > return no
        note
        """,
    ),
    "a block whose release is rejected": (
        Case(block(), GONE),
        """
        [released] end ahead > end heartbeat > send release > report ReleaseFailed > report
        GuardNotCommitted > end trace > return no note > warn: reservation r1 ended and no cost was
        reported: its 100
        """,
    ),
    "a block with an amount": (
        Case(block(), committed(8), guard={"actual": T(8)}),
        """
        [active] check commit > put commit 8 > end ahead > send commit > end heartbeat > [committed] report
        Settled > finish commit 8 Settled > end trace > end trace > return no note
        """,
    ),
    "a block with a callable": (
        Case(block(), committed(8), guard={"actual": lambda usage: T(8)}),
        """
        [active] check commit > put commit 8 > end ahead > send commit > end heartbeat > [committed] report
        Settled > finish commit 8 Settled > end trace > end trace > return no note
        """,
    ),
    "a block with a callable that fails": (
        Case(block(), committed(100), guard={"actual": fails}),
        """
        [active] report ActualFailed > check commit > put commit 100 > end ahead > send commit > end
        heartbeat > [committed] report Settled > finish commit 100 Settled > end trace > end trace > return
        no note
        """,
    ),
    "a block with a callable in dollars": (
        Case(block(), committed(100), guard={"actual": lambda usage: cycles.usd(1)}),
        """
        [active] report ActualFailed > check commit > put commit 100 > end ahead > send commit > end
        heartbeat > [committed] report Settled > finish commit 100 Settled > end trace > end trace > return
        no note
        """,
    ),
    "a block of a dry run": (
        Case(block(), guard={"shadow": True}),
        """
        report ShadowSettled > [released] end trace > return no note
        """,
    ),
    "a block of what was only observed": (
        Case(block(), guard={"observed": True}),
        """
        [observed] report Observed > end trace > return no note
        """,
    ),
    "a block whose guard has ended": (
        Case(block(done="commit")),
        """
        return no note
        """,
    ),
    "a dropped guard": (
        Case(block(DROPPED), RELEASED),
        """
        [active] report GuardNotCommitted > [released] end ahead > end heartbeat > send release > report
        Released > end trace > return no note
        """,
    ),
    "a dropped guard that has spent": (
        Case(block(DROPPED, spend=7), committed(7)),
        """
        [active] report GuardNotCommitted > check commit > put commit 7 > end ahead > send commit > end
        heartbeat > [committed] report Settled > finish commit 7 Settled > end trace > end trace > return no
        note
        """,
    ),
    "a dropped guard that spends meanwhile": (
        Case(block(DROPPED), committed(5), acts={"report": lambda guard: guard.spend(T(5))}),
        """
        [active] report GuardNotCommitted > report GuardNotCommitted > check commit > put commit 5 > end
        ahead > send commit > end heartbeat > [committed] report Settled > finish commit 5 Settled > end
        trace > end trace > return no note
        """,
    ),
    "a dropped guard that another thread ends": (
        Case(block(DROPPED), acts={"report": lambda guard: guard.claim("commit")}),
        """
        [active] report GuardNotCommitted > return no note
        """,
    ),
    "a lost lease under warn": (
        Case(block(spend=7, lost=True), committed(7)),
        """
        [active] end heartbeat > [lost] report LeaseLost > check commit > put commit 7 > end ahead > send
        commit > [committed] report Settled > finish commit 7 Settled > end trace > end trace > return no
        note
        """,
    ),
    "a lost lease under fail": (
        Case(block(spend=7, lost=True), committed(7), guard={"lease_policy": "fail_on_finalize"}),
        """
        [active] end heartbeat > [lost] report LeaseLost > check commit > put commit 7 > end ahead > send
        commit > [committed] report Settled > finish commit 7 Settled > end trace > end trace > raise
        LeaseLostError
        """,
    ),
    "a lost lease of an ended guard": (
        Case(block(lost=True, done="commit"), guard={"lease_policy": "fail_on_finalize"}),
        """
        [active] end heartbeat > [lost] report LeaseLost > raise LeaseLostError
        """,
    ),
    "a lost lease in a block that has raised": (
        Case(block(ValueError("x"), lost=True), RELEASED, guard={"lease_policy": "fail_on_finalize"}),
        """
        [active] end heartbeat > [lost] report LeaseLost > [released] end ahead > send release > report
        Released > end trace > return cycles: the lease of reservation r1 was lost: it is over; committed
        amounts are charged anyway
        """,
    ),
    "a lost lease in a block that it has cancelled": (
        Case(block(LOSS, lost=True), RELEASED, guard={"lease_policy": "cancel"}),
        """
        [active] end heartbeat > [lost] report LeaseLost > [released] end ahead > send release > report
        Released > end trace > return no note
        """,
    ),
    "ended later": (
        Case(later()),
        """
        [released] end ahead > end heartbeat > queue Release now > end trace > return None
        """,
    ),
    "ended later, with spend": (
        Case(later(spend=7)),
        """
        [pending] queue Settle unsaved now > end trace > return None
        """,
    ),
    "ended later, dropped": (
        Case(later(DROPPED)),
        """
        [active] report GuardNotCommitted > [released] end ahead > end heartbeat > queue Release now > end
        trace > return None
        """,
    ),
    "ended later, dropped with spend": (
        Case(later(DROPPED, spend=7)),
        """
        [active] report GuardNotCommitted > [pending] queue Settle unsaved now > end trace > return None
        """,
    ),
    "ended later, with a callable that fails": (
        Case(later(), guard={"actual": fails}),
        """
        [active] report ActualFailed > [pending] queue Settle unsaved now > end trace > return None
        """,
    ),
    "ended later, a dry run": (
        Case(later(spend=7), guard={"shadow": True}),
        """
        [released] end trace > return None
        """,
    ),
    "ended later, nothing held": (
        Case(later(spend=7), guard={"is_held": False}),
        """
        [pending] queue Settle unsaved now > end trace > return None
        """,
    ),
    "ended later, only observed": (
        Case(later(spend=7), guard={"observed": True}),
        """
        [observed] end trace > return None
        """,
    ),
    "ended later, only observed, without an amount": (
        Case(later(), guard={"observed": True}),
        """
        [observed] end trace > return None
        """,
    ),
    "ended later, after an error": (
        Case(later(ValueError())),
        """
        [released] end ahead > end heartbeat > queue Release now > end trace > return None
        """,
    ),
    "at the estimate": (
        Case(estimated),
        """
        [pending] queue Settle unsaved now > end trace > return None
        """,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_steps_of_an_end(name: str) -> None:
    case, steps = CASES[name]
    io = case.run()
    assert io.story == " ".join(steps.split())
    assert io.with_other_options() == []


@pytest.mark.parametrize(
    ("name", "marks"),
    [
        ("a block that has spent", {}),
        ("a block that has spent and raised", {"outcome": "error"}),
        ("a dropped guard that has spent", {"outcome": "dropped"}),
        ("a block with an amount", {}),
        ("a block with a callable that fails", {"actual_source": "estimate"}),
        ("ended later, with spend", {}),
        ("ended later, dropped with spend", {"outcome": "dropped"}),
        ("ended later, with a callable that fails", {"actual_source": "estimate"}),
        ("at the estimate", {"actual_source": "estimate"}),
    ],
)
def test_a_commit_says_how_its_amount_is_known(name: str, marks: dict[str, str]) -> None:
    case = CASES[name][0]
    own = Case(case.act, committed(1), guard={**case.guard, "settlement_metadata": {"of": "settings"}}).run()
    record = own.records[0] if own.records else own.work[0].record
    assert record.body["metadata"] == {"of": "settings", **marks}


TRACE = "trace_id='tttttttttttttttttttttttttttttttt'"
R1 = f"reservation_id='r1', request_id=None, {TRACE}"


@pytest.mark.parametrize(
    ("name", "reports"),
    [
        ("released", [f"Released({R1}, reason='over')"]),
        ("released before", [f"Released({R1}, reason='over')"]),
        (
            "a release of an unknown reservation",
            [f"ReleaseFailed({R1}, detail='no (HTTP 404, NOT_FOUND)', retrying=False)"],
        ),
        ("a release without a response", [f"ReleaseFailed({R1}, detail='timed out', retrying=True)"]),
        (
            "a block that has spent nothing",
            [
                f"Released({R1}, reason='guard_exited_without_commit')",
                f"GuardNotCommitted({R1}, detail='the block ended without commit, spend or actual=; its budget is "
                "released')",
            ],
        ),
        (
            "a dropped guard",
            [
                f"GuardNotCommitted({R1}, detail='it was dropped; its budget is released')",
                f"Released({R1}, reason='guard_dropped')",
            ],
        ),
        (
            "ended later, dropped with spend",
            [f"GuardNotCommitted({R1}, detail='it was dropped; its known spend is committed')"],
        ),
        (
            "ended later, with a callable that fails",
            [f"ActualFailed({R1}, estimate=<Amount 100 tokens>, detail='ZeroDivisionError: no price')"],
        ),
        ("a block that has raised", [f"Released({R1}, reason='block_raised:ValueError')"]),
        (
            "a lost lease in a block that it has cancelled",
            [f"LeaseLost({R1}, detail='it is over', lasts_ms=60000)", f"Released({R1}, reason='lease_lost')"],
        ),
        (
            "a release of a dry run",
            [
                f"ShadowSettled(reservation_id=None, request_id=None, {TRACE}, estimate=<Amount 100 tokens>, "
                "actual=None, action='work', would_deny=True)",
            ],
        ),
    ],
)
def test_what_the_reports_of_an_end_say(name: str, reports: list[str]) -> None:
    assert [repr(event) for event in CASES[name][0].run().events] == reports


FINAL = (
    "a release of a closed client",
    "committed before",
    "a release of an unknown reservation",
    "a release of an expired reservation",
)


@pytest.mark.parametrize("name", [name for name in CASES if name not in FINAL and "interrupted" not in name])
def test_nothing_is_unfinished_after_an_end(name: str) -> None:
    guard = CASES[name][0].run().watched
    assert guard is not None
    assert guard.unfinished is None


@pytest.mark.parametrize("name", ["released", "a release without a response", "a release is interrupted"])
def test_each_request_of_a_release_has_its_key_and_its_reason(name: str) -> None:
    io = CASES[name][0].run()
    bodies = [call.body or {} for call in [*io.calls, *map(release_call_of, io.work)]]
    assert {body["reason"] for body in bodies} == {"over"}
    assert len({body["idempotency_key"] for body in bodies}) == 1


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ended later", "guard_exited_without_commit"),
        ("ended later, dropped", "guard_dropped"),
        ("ended later, after an error", "block_raised:ValueError"),
        ("a release in the background", "over"),
    ],
)
def test_a_release_in_the_background_says_why(name: str, reason: str) -> None:
    (work,) = CASES[name][0].run().work
    assert (release_call_of(work).body or {})["reason"] == reason


def test_the_warning_of_a_block_without_an_amount_names_the_line_of_the_caller() -> None:
    io = ScriptedIo([RELEASED])
    with pytest.warns(cycles.UncommittedGuardWarning) as warned:
        run(end_block(io.io, io.guard(), None))
    assert [each.filename for each in warned] == [__file__]


@pytest.mark.parametrize("first", ["commit", "release"])
@pytest.mark.parametrize("second", ["commit", "release"])
def test_a_second_end_while_the_first_one_is_sent_sends_nothing(first: str, second: str) -> None:
    io = ScriptedIo([committed(42), RELEASED])
    guard = io.guard()
    ends: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
        "commit": lambda: commit(io.io, guard, T(42), wait=True),
        "release": lambda: release(io.io, guard, "over"),
    }

    def end_again() -> None:
        with pytest.raises(cycles.GuardFinalizedError, match=f"cannot {second}: .* already ended .{first}.; nothing"):
            run(ends[second]())

    io.acts[f"send {first}"] = end_again
    if first == "release":
        io.responses.reverse()
    run(ends[first]())
    assert io.work == []
    assert [call.operation.removesuffix("Reservation") for call in io.calls] == [first]


@pytest.mark.parametrize("lease_policy", ["warn", "fail_on_finalize", "cancel"])
@pytest.mark.parametrize("in_block", [True, False])
@pytest.mark.parametrize("end", ["commit", "release"])
def test_the_loss_of_a_lease_is_raised_after_the_end_of_a_guard_without_a_block(
    lease_policy: Any, in_block: bool, end: str
) -> None:
    io = ScriptedIo([committed(42) if end == "commit" else RELEASED])
    guard = io.guard(lease_policy=lease_policy)
    assert guard.own_heartbeat is not None
    lose_lease(io.io, guard.own_heartbeat, Stop(StopReason.EXPIRED, "it is over"))
    guard.in_block = in_block
    ends = commit(io.io, guard, T(42), wait=True) if end == "commit" else release(io.io, guard, None)
    raises = lease_policy != "warn" and not in_block
    with pytest.raises(cycles.LeaseLostError) if raises else contextlib.nullcontext():
        run(ends)
    assert guard.state == ("committed" if end == "commit" else "released")
    assert len(io.calls) == 1
