"""The kinds of uses of a guard, in threads and in event loops: small programs that note what they report."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, Final

import cycles
from tests.simulation.network import amount
from tests.simulation.workload import ACTION, BUDGET, ESTIMATE, POLICY, Boom, Op, Program


def _spend(op: Op, guard: Any, value: int) -> None:
    guard.spend(amount(value))
    op.know(op.known + value)


def _commit(op: Op, value: int) -> cycles.Amount:
    op.know(value)
    op.committing = True
    return amount(value)


def commit_sync(program: Program, op: Op) -> None:
    with program.reserve(op) as guard:
        program.entered(op, guard)
        program.hub.sleep(program.work_s())
        guard.commit(_commit(op, 60))


def actual_sync(program: Program, op: Op) -> None:
    with program.reserve(op, actual=amount(70)) as guard:
        program.entered(op, guard)
        program.hub.sleep(program.work_s())
        _commit(op, 70)


def spend_sync(program: Program, op: Op) -> None:
    with program.reserve(op) as guard:
        program.entered(op, guard)
        for value in (10, 20, 30):
            program.hub.sleep(program.work_s() / 3)
            _spend(op, guard, value)
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
        _spend(op, guard, 25)
        program.hub.sleep(program.work_s())
        op.committing = True
        raise Boom


def release_sync(program: Program, op: Op) -> None:
    guard = program.reserve(op).acquire()
    program.entered(op, guard)
    program.hub.sleep(program.work_s())
    op.releases = True
    guard.release("not needed")


def over_sync(program: Program, op: Op) -> None:
    with program.reserve(op) as guard:
        program.entered(op, guard)
        guard.commit(_commit(op, ESTIMATE + 40))


def unavailable_sync(program: Program, op: Op) -> None:
    op.may_run_unreserved = True
    with program.reserve(op, on_unavailable="allow") as guard:
        program.entered(op, guard)
        program.hub.sleep(program.work_s())
        guard.commit(_commit(op, 45))


def shadow_sync(program: Program, op: Op) -> None:
    op.may_run_unreserved, op.charges = True, False
    with program.reserve(op, shadow=True) as guard:
        program.entered(op, guard)
        guard.commit(amount(50))


def record_sync(program: Program, op: Op) -> None:
    op.ran = True
    program.client.record(_commit(op, 33), action=ACTION, subject={"agent": op.agent})


def decorated_sync(program: Program, op: Op) -> None:
    @program.client.guarded(amount(ESTIMATE), action=ACTION, subject={"agent": op.agent}, actual=amount)
    def call() -> int:
        program.entered(op, cycles.current_guard())
        program.hub.sleep(program.work_s())
        _commit(op, 42)
        return 42

    call()


def stream_sync(program: Program, op: Op) -> None:
    with program.reserve(op, actual=lambda usage: amount(usage.tokens_output)) as guard:
        program.entered(op, guard)
        for _ in guard.wrap(iter(range(5)), usage=lambda _: {"tokens_output": 7}, settle=False):
            op.know(op.known + 7)
            program.hub.sleep(program.work_s() / 5)
        op.committing = True


def transfer_sync(program: Program, op: Op) -> None:
    guard = program.reserve(op).acquire()
    token = guard.detach()
    program.hub.sleep(program.hub.random.random() * 0.5)
    with program.client.attach(token) as continued:
        program.entered(op, continued)
        continued.commit(_commit(op, 55))


def transfer_spend_sync(program: Program, op: Op) -> None:
    guard = program.reserve(op).acquire()
    _spend(op, guard, 25)
    token = guard.detach()
    with program.client.attach(token) as continued:
        program.entered(op, continued)
        op.committing = True


def denied_sync(program: Program, op: Op) -> None:
    with program.client.reserve(amount(BUDGET + 1), action=ACTION, subject={"agent": op.agent}):
        op.problems.append("a block ran although its estimate is larger than the budget")


def dropped_sync(program: Program, op: Op) -> None:
    guard = program.reserve(op).acquire()
    program.entered(op, guard)
    _spend(op, guard, 15)
    op.committing = True
    del guard


def series_sync(program: Program, op: Op) -> None:
    options: Any = {"subject": {"agent": op.agent}, "overage_policy": POLICY}
    with program.client.lease_series(amount(ESTIMATE), action=ACTION, part_ms=4_000, **options) as series:
        for _ in range(4):
            guard = series.next()
            program.entered(op, guard)
            _spend(op, guard, 15)
            program.hub.sleep(program.hub.random.choice((0.0, 3.0)))
        op.committing = True


async def commit_async(program: Program, op: Op) -> None:
    async with program.reserve(op) as guard:
        program.entered(op, guard)
        await asyncio.sleep(program.work_s())
        await guard.commit(_commit(op, 60))


async def cancelled_commit_async(program: Program, op: Op) -> None:
    task = asyncio.current_task()
    assert task is not None
    async with program.reserve(op) as guard:
        program.entered(op, guard)
        # At once: while the record is being saved. Later: while the request is on its way.
        delay_s = program.hub.random.choice((0.0, program.hub.random.random() * 2 * program.server.faults.delay_s))
        asyncio.get_running_loop().call_later(delay_s, task.cancel)
        await guard.commit(_commit(op, 65))


async def spend_async(program: Program, op: Op) -> None:
    async with program.reserve(op) as guard:
        program.entered(op, guard)
        for value in (10, 20, 30):
            await asyncio.sleep(program.work_s() / 3)
            _spend(op, guard, value)
        op.committing = True


async def raise_async(program: Program, op: Op) -> None:
    async with program.reserve(op) as guard:
        program.entered(op, guard)
        op.releases = True
        await asyncio.sleep(program.work_s())
        raise Boom


async def unavailable_async(program: Program, op: Op) -> None:
    op.may_run_unreserved = True
    async with program.reserve(op, on_unavailable="allow") as guard:
        program.entered(op, guard)
        await asyncio.sleep(program.work_s())
        await guard.commit(_commit(op, 45))


async def record_async(program: Program, op: Op) -> None:
    op.ran = True
    await program.client.aio.record(_commit(op, 33), action=ACTION, subject={"agent": op.agent})


async def cancel_policy_async(program: Program, op: Op) -> None:
    with contextlib.suppress(cycles.LeaseLostError):
        async with program.reserve(op, lease_policy="cancel") as guard:
            program.entered(op, guard)
            _spend(op, guard, 5)
            op.committing = True
            await asyncio.sleep(program.work_s())


SYNC: Final[dict[str, Callable[[Program, Op], None]]] = {
    "commit": commit_sync,
    "actual": actual_sync,
    "spend": spend_sync,
    "raise": raise_sync,
    "spend and raise": spend_raise_sync,
    "release": release_sync,
    "commit above the estimate": over_sync,
    "allow if unavailable": unavailable_sync,
    "shadow": shadow_sync,
    "direct event": record_sync,
    "decorated": decorated_sync,
    "stream": stream_sync,
    "transfer": transfer_sync,
    "transfer after spend": transfer_spend_sync,
    "denied": denied_sync,
    "dropped": dropped_sync,
    "series": series_sync,
}

ASYNC: Final[dict[str, Callable[[Program, Op], Coroutine[Any, Any, None]]]] = {
    "commit": commit_async,
    "commit, cancelled": cancelled_commit_async,
    "spend": spend_async,
    "raise": raise_async,
    "allow if unavailable": unavailable_async,
    "direct event": record_async,
    "cancel policy": cancel_policy_async,
}
