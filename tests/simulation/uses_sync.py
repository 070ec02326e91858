"""The kinds of uses of a guard in threads: small programs that note what they report."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

import cycles
from tests.simulation.accounts import ESTIMATE, LARGE
from tests.simulation.network import amount
from tests.simulation.uses_pool import POOL_SYNC
from tests.simulation.workload import ACTION, MOMENT_S, RESERVE_S, Boom, Op, Program, check_unreserved

HELD: Final = "held until exit"


def commit(program: Program, op: Op, guard: Any, value: int) -> None:
    """Commit an amount, within the bound of a commit."""
    program.commits(op, value)
    with program.settles(op, "commit"):
        guard.commit(amount(value), metadata={"use": op.agent})
    op.returned = value


def commit_sync(program: Program, op: Op) -> None:
    with program.reserve(op) as guard:
        program.entered(op, guard)
        program.hub.sleep(program.work_s())
        commit(program, op, guard, 60)


def commit_twice_sync(program: Program, op: Op) -> None:
    with program.reserve(op) as guard:
        program.entered(op, guard)
        commit(program, op, guard, 60)
        try:
            guard.commit(amount(61))
        except cycles.GuardFinalizedError:
            return
        op.problems.append("a second commit was accepted")


def two_threads_sync(program: Program, op: Op) -> None:
    guard = program.reserve(op).acquire()
    program.entered(op, guard)
    program.commits(op, 60)
    rejected: list[BaseException] = []

    def settle() -> None:
        try:
            guard.commit(amount(60))
        except cycles.CyclesError as error:
            rejected.append(error)

    threads = [threading.Thread(target=settle) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    others = [error for error in rejected if not isinstance(error, cycles.GuardFinalizedError)]
    if len(rejected) - len(others) != 1:
        op.problems.append(f"one of two commits must be rejected, not {len(rejected) - len(others)}")
    if others:
        raise others[0]


def actual_sync(program: Program, op: Op) -> None:
    with program.reserve(op, actual=amount(70)) as guard:
        program.entered(op, guard)
        program.hub.sleep(program.work_s())
        program.commits(op, 70)


def spend_sync(program: Program, op: Op) -> None:
    with program.reserve(op) as guard:
        program.entered(op, guard)
        for value in (10, 20, 30):
            program.hub.sleep(program.work_s() / 3)
            program.spend(op, guard, value)
        op.committing = True


def raise_sync(program: Program, op: Op) -> None:
    with program.reserve(op) as guard:
        program.entered(op, guard)
        program.hub.sleep(program.work_s())
        op.releases = True
        raise Boom


def spend_raise_sync(program: Program, op: Op) -> None:
    with program.reserve(op) as guard:
        program.entered(op, guard)
        program.spend(op, guard, 25)
        program.hub.sleep(program.work_s())
        op.committing = True
        raise Boom


def overspend_raise_sync(program: Program, op: Op) -> None:
    with program.reserve(op, overage_policy="REJECT") as guard:
        program.entered(op, guard)
        program.spend(op, guard, ESTIMATE + 40)
        op.committing = True
        raise Boom


def release_sync(program: Program, op: Op) -> None:
    guard = program.reserve(op).acquire()
    program.entered(op, guard)
    program.hub.sleep(program.work_s())
    op.releases = True
    with program.settles(op, "release"):
        guard.release("not needed")


def extend_sync(program: Program, op: Op) -> None:
    with program.reserve(op) as guard:
        program.entered(op, guard)
        with program.within(op, "extend", RESERVE_S):
            guard.extend()
        commit(program, op, guard, 50)


def over_sync(program: Program, op: Op) -> None:
    with program.reserve(op) as guard:
        program.entered(op, guard)
        commit(program, op, guard, ESTIMATE + 40)


def unavailable_sync(program: Program, op: Op) -> None:
    op.may_run_unreserved = True
    with program.reserve(op, on_unavailable="allow") as guard:
        program.entered(op, guard)
        check_unreserved(op, guard)
        program.hub.sleep(program.work_s())
        commit(program, op, guard, 45)


def shadow_sync(program: Program, op: Op) -> None:
    op.may_run_unreserved, op.charges = True, False
    with program.reserve(op, shadow=True) as guard:
        program.entered(op, guard)
        guard.commit(amount(50))


def record_sync(program: Program, op: Op) -> None:
    op.ran = True
    with program.settles(op, "record"):
        program.client.record(program.commits(op, 33), action=ACTION, subject=op.account.subject)


def decorated_sync(program: Program, op: Op) -> None:
    @program.client.guarded(amount(ESTIMATE), action=ACTION, actual=amount, **_options(op))
    def call() -> int:
        program.entered(op, cycles.current_guard())
        program.hub.sleep(program.work_s())
        program.commits(op, 42)
        return 42

    call()


def stream_sync(program: Program, op: Op) -> None:
    with program.reserve(op, actual=_tokens) as guard:
        program.entered(op, guard)
        for _ in guard.wrap(iter(range(5)), usage=_seven(op), settle=False):
            program.spent(op, 7)
            program.hub.sleep(program.work_s() / 5)
        op.committing = True


def _generator(program: Program, op: Op) -> Iterator[int]:
    @program.client.guarded(amount(ESTIMATE), action=ACTION, actual=_tokens, **_options(op))
    def items() -> Iterator[int]:
        guard = cycles.current_guard()
        assert guard is not None
        program.entered(op, guard)
        for item in range(4):
            op.reaching = op.known + 8
            guard.usage.add(tokens_output=8)
            program.spent(op, 8)
            program.hub.sleep(program.work_s() / 5)
            yield item
        op.committing = True

    return items()


def generator_sync(program: Program, op: Op) -> None:
    assert list(_generator(program, op)) == [0, 1, 2, 3]


def closed_generator_sync(program: Program, op: Op) -> None:
    items: Any = _generator(program, op)
    next(items)
    next(items)
    op.committing = True
    with program.settles(op, "the close of a generator"):
        items.close()


def dropped_generator_sync(program: Program, op: Op) -> None:
    items = _generator(program, op)
    next(items)
    op.committing = op.dropped = True
    del items


def transfer_sync(program: Program, op: Op) -> None:
    guard = program.reserve(op).acquire()
    with program.within(op, "detach", MOMENT_S):
        token = guard.detach()
    program.hub.sleep(program.hub.random.random() * 0.5)
    with program.client.attach(token) as continued:
        program.entered(op, continued)
        commit(program, op, continued, 55)


def transfer_spend_sync(program: Program, op: Op) -> None:
    guard = program.reserve(op).acquire()
    program.spend(op, guard, 25)
    op.keeps_spend = False
    token = guard.detach()
    with program.client.attach(token) as continued:
        program.entered(op, continued)
        op.keeps_spend = True
        op.steps.append((program.hub.awake_s, op.known))
        program.hub.sleep(program.work_s())
        op.committing = True


def denied_sync(program: Program, op: Op) -> None:
    options: Any = {"action": ACTION, "subject": op.account.subject}
    with program.client.reserve(amount(LARGE + 1), **options) as guard:
        if op.account.has_changed:
            guard.release()
            return
        op.problems.append("a block ran although its estimate is larger than the budget")


def dropped_sync(program: Program, op: Op) -> None:
    guard = program.reserve(op).acquire()
    program.entered(op, guard)
    program.spend(op, guard, 15)
    op.committing = op.dropped = True
    del guard


def held_sync(program: Program, op: Op) -> None:
    guard = program.reserve(op).acquire()
    program.entered(op, guard)
    program.held.append((op, guard))
    program.spend(op, guard, 15)
    program.spend(op, guard, 5)
    program.hub.sleep(1.2)


def fail_policy_sync(program: Program, op: Op) -> None:
    with contextlib.suppress(cycles.LeaseLostError), program.reserve(op, lease_policy="fail_on_finalize") as guard:
        program.entered(op, guard)
        program.hub.sleep(program.work_s())
        commit(program, op, guard, 35)


def own_key_sync(program: Program, op: Op) -> None:
    restores = program.server.restores
    key = {"idempotency_key": f"key of {op.agent}", "ttl_ms": 5_000}
    with program.reserve(op, **key) as guard:
        program.entered(op, guard)
        program.server.refuse_commit(op.account, guard.reservation_id)
        commit(program, op, guard, 30)
    described = program.reserve(op, **key).described
    with contextlib.suppress(cycles.CyclesError), described:
        # A server without `remaining_ttl_ms` does not say that a replayed reservation is over.
        if program.server.restores == restores and "no remaining ttl" not in program.server.swarm:
            op.problems.append("the work of an idempotency key ran a second time")


def series_sync(program: Program, op: Op) -> None:
    options: Any = {"subject": op.account.subject, "overage_policy": op.account.policy}
    with program.client.lease_series(amount(ESTIMATE), action=ACTION, part_ms=4_000, **options) as series:
        for _ in range(4):
            with program.settles(op, "the next part of a series", RESERVE_S):
                guard = series.next()
            program.entered(op, guard)
            program.spend(op, guard, 15)
            program.hub.sleep(program.hub.random.choice((0.0, 3.0)))
        op.committing = True


def nested_subjects_sync(program: Program, op: Op) -> None:
    options: Any = {"overage_policy": op.account.policy}
    with (
        cycles.subject(**dict.fromkeys(op.account.subject, "another")),
        cycles.subject(**op.account.subject),
        program.client.reserve(amount(ESTIMATE), action=ACTION, **options) as guard,
    ):
        program.entered(op, guard)
        program.hub.sleep(program.work_s())
        commit(program, op, guard, 50)


def flush_sync(program: Program, op: Op) -> None:
    with program.within(op, "flush", 2.0):
        program.client.flush(timeout=2.0)
    program.client.pending()


def _options(op: Op) -> Any:
    return {"subject": op.account.subject, "overage_policy": op.account.policy}


def _tokens(usage: Any) -> cycles.Amount:
    return amount(usage.tokens_output)


def _seven(op: Op) -> Callable[[Any], dict[str, int]]:
    def read(_: Any) -> dict[str, int]:
        op.reaching = op.known + 7
        return {"tokens_output": 7}

    return read


INTERRUPTIBLE: Final = (
    "commit",
    "spend",
    "raise",
    "spend and raise",
    "actual",
    "release",
    "transfer",
    "pool",
    "pool with blocks",
    "commit above the estimate",
    "direct event",
    "commit without waiting",
    "decorated",
)
"""The uses in which a signal handler may raise: each reports its amount in one call, or by `spend`."""

SYNC: Final[dict[str, Callable[[Program, Op], None]]] = {
    "commit": commit_sync,
    "commit twice": commit_twice_sync,
    "commit in two threads": two_threads_sync,
    "actual": actual_sync,
    "spend": spend_sync,
    "raise": raise_sync,
    "spend and raise": spend_raise_sync,
    "overspend and raise": overspend_raise_sync,
    "release": release_sync,
    "extend": extend_sync,
    "commit above the estimate": over_sync,
    "allow if unavailable": unavailable_sync,
    "shadow": shadow_sync,
    "direct event": record_sync,
    "decorated": decorated_sync,
    "stream": stream_sync,
    "generator": generator_sync,
    "closed generator": closed_generator_sync,
    "dropped generator": dropped_generator_sync,
    "transfer": transfer_sync,
    "transfer after spend": transfer_spend_sync,
    "denied": denied_sync,
    "dropped": dropped_sync,
    HELD: held_sync,
    "fail policy": fail_policy_sync,
    "own key": own_key_sync,
    "series": series_sync,
    "nested subjects": nested_subjects_sync,
    "flush": flush_sync,
    **POOL_SYNC,
}
