"""Properties of the planner for any behaviour of server and network. See `docs/protocol/heartbeat.md`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings, strategies as st

from cycles._core.lease.planner import ExtendAttempt, Failure, FailureKind, Grant, Lease, Step, Stop, StopReason
from tests.lease.simulation import Attempt, Fate, Run, Server
from tests.support.short import fewer

DAY = 86_400_000
TRAVEL_MS = st.floats(0, 200)  # one way
LATE_MS = st.floats(0, 90)  # a timer; the attempt ends 100 ms earlier for it

attempts = st.builds(
    Attempt,
    fate=st.sampled_from([Fate.OK, *Fate]),
    there_ms=TRAVEL_MS,
    back_ms=TRAVEL_MS,
    late_ms=LATE_MS,
    retry_after_ms=st.none() | st.integers(0, 5).map(lambda seconds: seconds * 1000),
)
servers = st.builds(
    Server,
    ttl_ms=st.integers(10_000, 120_000),
    max_extension_ms=st.just(math.inf) | st.integers(8_000, 60_000),
    max_lead_ms=st.just(math.inf) | st.integers(8_000, 60_000),
    tick_ms=st.sampled_from([1, 16, 100]),
)
quick = settings(max_examples=fewer(100), deadline=None)


def repeated(drawn: list[Attempt]) -> Iterator[Attempt]:
    return itertools.cycle(drawn)


def one_failure_at_a_time(drawn: list[Attempt]) -> Iterator[Attempt]:
    """The drawn attempts, each failure followed by a success: for those a safe schedule exists."""
    yield Attempt()
    for attempt in itertools.cycle(drawn):
        yield attempt
        if attempt.fate is not Fate.OK:
            yield Attempt(Fate.OK, attempt.there_ms, attempt.back_ms, attempt.late_ms)


@quick
@given(servers, st.lists(attempts.filter(lambda attempt: attempt.fate is not Fate.THROTTLED), min_size=1))
def test_a_lease_is_kept_while_one_retry_is_enough(server: Server, drawn: list[Attempt]) -> None:
    run = Run(server)
    run.keep(one_failure_at_a_time(drawn), until_ms=600_000)
    assert run.stopped is None
    assert not run.lapsed


@quick
@given(servers, st.lists(attempts, min_size=1))
def test_no_attempt_comes_too_late(server: Server, drawn: list[Attempt]) -> None:
    run = Run(server)
    run.keep(repeated(drawn), until_ms=600_000)
    assert not run.lapsed  # until the planner stopped, the lease was alive whenever an attempt arrived


@quick
@given(servers, st.lists(attempts, min_size=1))
def test_the_key_stays_until_a_response_and_is_new_after_it(server: Server, drawn: list[Attempt]) -> None:
    run = Run(server)
    run.keep(repeated(drawn), until_ms=600_000)
    for (before, after), answered in zip(itertools.pairwise(run.keys), run.succeeded, strict=False):
        assert (before != after) == answered


@quick
@example(Server(3_024, max_extension_ms=1), [Attempt(there_ms=0.0, back_ms=0.0)])
@example(Server(3_024, max_lead_ms=3_024), [Attempt()])
@given(
    st.builds(
        Server,
        ttl_ms=st.integers(1_000, 12_000),
        max_extension_ms=st.just(math.inf) | st.integers(0, 4_000),
        max_lead_ms=st.just(math.inf) | st.integers(0, 4_000),
        tick_ms=st.sampled_from([1, 16, 1_000]),
        tells_remaining=st.booleans(),
    ),
    st.lists(attempts, min_size=1),
)
def test_no_grant_of_the_server_leads_to_a_loop_without_delay(server: Server, drawn: list[Attempt]) -> None:
    run = Run(server)
    run.keep(repeated(drawn), until_ms=60_000)
    fresh = [run.waits[0], *(wait for wait, answered in zip(run.waits[1:], run.succeeded, strict=False) if answered)]
    assert not any(
        first == second == third == 0 for first, second, third in zip(fresh, fresh[1:], fresh[2:], strict=False)
    )
    assert len(run.waits) < 500  # in a minute of the worst network
    # One extend may follow immediately after a response that leaves no delay; three within 250 ms do not happen.
    answered = [False, *run.succeeded]
    starts = [start for start, fresh in zip(run.starts, answered, strict=False) if fresh]
    assert all(third - first >= 250 for first, third in zip(starts, starts[2:], strict=False))


@quick
@given(servers, st.lists(TRAVEL_MS, min_size=1))
def test_fallback_keeps_leases_on_servers_without_remaining_ttl_ms(server: Server, travel: list[float]) -> None:
    server.tells_remaining = False
    server.max_extension_ms = math.inf
    server.max_lead_ms = math.inf if server.max_lead_ms == math.inf else server.ttl_ms
    run = Run(server)
    run.keep(repeated([Attempt(there_ms=each, back_ms=each) for each in travel]), until_ms=600_000)
    assert run.stopped is None
    assert not run.lapsed
    shortest = min(server.ttl_ms / 2, 30_000)
    assert len(run.starts) <= 600_000 / shortest + 5


numbers = st.integers(0, 2**63 - 1) | st.integers(0, 100_000)
times = st.floats(0, 1e13, allow_nan=False) | st.floats(0, 100_000, allow_nan=False)
grants = st.tuples(st.none() | numbers, st.none() | numbers, st.none() | times)
failures = st.builds(
    Failure,
    kind=st.sampled_from([kind for kind in FailureKind if kind is not FailureKind.REJECTED]),
    detail=st.just("x"),
    retry_after_ms=st.none() | numbers,
)


def valid(step: Step, now_ms: float, *, fresh_key: bool) -> None:
    if isinstance(step, Stop):
        assert step.detail
        return
    assert step.due_ms >= now_ms  # neither negative nor NaN
    assert step.fresh_key is fresh_key
    assert step.timeout_ms > 0  # may be infinite


@settings(max_examples=fewer(200), deadline=None)
@given(
    st.integers(1_000, DAY),
    st.floats(1, 1e9) | st.just(math.inf),
    grants,
    st.lists(st.tuples(times, grants | failures), max_size=20),
)
def test_steps_are_valid_for_any_input(
    ttl_ms: int,
    timeout_ms: float,
    first: tuple[int | None, int | None, float | None],
    inputs: list[tuple[float, tuple[int | None, int | None, float | None] | Failure]],
) -> None:
    now = 1_000.0
    lease, step = Lease.opened(ttl_ms=ttl_ms, timeout_ms=timeout_ms, grant=Grant(*first, now))
    valid(step, now, fresh_key=True)
    for later, given_in in inputs:
        if isinstance(step, Stop):
            return
        now += later
        if isinstance(given_in, Failure):
            lease, step = lease.failed(given_in, now)
            valid(step, now, fresh_key=False)
            if (
                given_in.kind is FailureKind.RATE_LIMITED
                and given_in.retry_after_ms
                and isinstance(step, ExtendAttempt)
            ):
                assert step.due_ms >= now + given_in.retry_after_ms
        else:
            lease, step = lease.granted(Grant(*given_in, now))
            valid(step, now, fresh_key=True)
        assert not math.isnan(lease.lasts_until_ms())


@quick
@given(servers, st.lists(attempts, min_size=1))
def test_no_retry_is_earlier_than_the_retry_after(server: Server, drawn: list[Attempt]) -> None:
    run = Run(server)
    run.keep(repeated(drawn), until_ms=600_000)
    used = itertools.islice(repeated(drawn), 1, None)
    throttled = [
        (attempt.retry_after_ms, wait)
        for attempt, succeeded, wait in zip(used, run.succeeded, run.waits[1:], strict=False)
        if attempt.fate is Fate.THROTTLED and not succeeded
    ]
    assert [each for each in throttled if each[0] is None or each[1] < each[0] - 1e-6] == []


@pytest.mark.parametrize("max_lead_ms", [math.inf, 10_000, 8_000])
@pytest.mark.parametrize("ttl_ms", [10_000, 15_000, 60_000])
def test_leases_from_ten_seconds_live_on_default_settings(ttl_ms: int, max_lead_ms: float) -> None:
    """Every other attempt times out, its request lost, and every timer is late: for an hour."""
    bad, good = Attempt(Fate.LOST_REQUEST, late_ms=90), Attempt(there_ms=100, back_ms=100, late_ms=90)
    run = Run(Server(ttl_ms, max_lead_ms=max_lead_ms))
    run.keep(itertools.cycle([good, bad]), until_ms=3_600_000)
    assert run.stopped is None
    assert not run.lapsed


def test_two_time_outs_in_a_row_stop_before_the_lease_ends() -> None:
    bad = Attempt(Fate.LOST_REQUEST)
    run = Run(Server(10_000))
    run.keep(itertools.chain([Attempt()], itertools.repeat(bad)), until_ms=60_000)
    assert run.stopped is not None
    assert run.stopped.reason is StopReason.NO_SAFE_RETRY
    assert run.now_ms < 10_000
    assert len(run.starts) == 2
