"""Short forms for tests of the lease planner. Times are milliseconds."""

from __future__ import annotations

from cycles._core.lease.planner import (
    ExtendAttempt,
    Failure,
    FailureKind,
    Grant,
    Lease,
    Step,
    Stop,
    StopReason,
)

TRANSPORT = Failure(FailureKind.TRANSPORT, "timed out")
DAY = 86_400_000


def answer(
    remaining: int | None, received: float = 0.0, *, rtt: float | None = 0.0, expires: int | None = None
) -> Grant:
    return Grant(remaining, expires, None if rtt is None else received - rtt, received)


def opened(
    remaining: int | None,
    *,
    ttl: int = 60_000,
    timeout: float = 5_000.0,
    rtt: float | None = 0.0,
    expires: int | None = None,
) -> tuple[Lease, Step]:
    return Lease.opened(ttl_ms=ttl, timeout_ms=timeout, grant=answer(remaining, rtt=rtt, expires=expires))


def attempt(step: Step) -> tuple[float, bool]:
    assert isinstance(step, ExtendAttempt), step
    return step.due_ms, step.fresh_key


def stop(step: Step) -> StopReason:
    assert isinstance(step, Stop), step
    return step.reason


def throttled(after_ms: int | None) -> Failure:
    return Failure(FailureKind.RATE_LIMITED, "HTTP 429", "LIMIT_EXCEEDED", after_ms)


# -- the formulas (10.2) ---
