"""The heartbeat as a server sees it, over real sockets. Time stands still until a test lets the next one be due."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import pytest

import cycles
from cycles._core.messages.requests import Prepared
from cycles._drivers.work import scheduler
from cycles._http.blocking import BlockingConnections
from cycles._http.exchange import QUEUE_TIMEOUT_S, Limits
from tests.lease.conftest import TTL_MS, Events, reserve
from tests.lease.server import LeaseServer, Seen, gated, grant, hang, refuse
from tests.support.inside import runtime_of, state_of
from tests.support.points import run_at
from tests.support.schedulers import scheduled
from tests.support.still_time import StillTime
from tests.support.stub import ok
from tests.support.waiting import PATIENCE_S

Make = Callable[..., cycles.Cycles]
SLACK_MS = 5  # of rounding

IMPATIENT: Any = {"retry_initial_delay": 0.2, "retry_max_delay": 0.4}


def gaps(seen: list[Seen]) -> list[float]:
    return [after.at_ms - before.at_ms for before, after in itertools.pairwise(seen)]


def is_about(ms: float, expected_ms: float) -> bool:
    return expected_ms - SLACK_MS <= ms <= expected_ms + SLACK_MS


def keys(seen: list[Seen]) -> list[str]:
    return [each.body["idempotency_key"] for each in seen]


def test_a_guard_that_ends_while_its_timer_is_set_leaves_no_timer(client_of: Make, still: StillTime) -> None:
    number, more = 0, True
    with LeaseServer() as server, client_of(server) as client:
        while more:
            guard = reserve(client).acquire()
            found, heartbeat = runtime_of(client).scheduler, state_of(guard).heartbeat
            assert heartbeat is not None
            timer = found.at(time.monotonic() + 3_600.0, print, found.worker_pool("test", 1))
            more = run_at("/cycles/_flows/heartbeat_state", number, guard.release, partial(heartbeat.set_timer, timer))
            assert scheduled(found) == int(not more), number
            number += more
        guard.release()
        assert scheduled(found) == 0
    assert number > 3


def test_heartbeats_come_when_the_lease_needs_them(client_of: Make, server_responded: Events, still: StillTime) -> None:
    with LeaseServer() as server, client_of(server) as client:
        guard = reserve(client).acquire()
        at_first = guard.expires_at_ms
        for count in (1, 2, 3):
            still.beat(guard)
            server_responded.wait_for("LeaseExtended", count)
        extends = server.of("extend")
        (created,) = server.of("reservations")
        assert guard.expires_at_ms > at_first
        guard.commit(cycles.tokens(1))
        assert is_about(median(gaps([created, *extends])), 500)  # 3,500 of lead, 3,000 of reserve
        assert len(set(keys(extends))) == 3
        assert {each.body["extend_by_ms"] for each in extends} == {TTL_MS}
        count = len(server.of("extend"))
        assert scheduled(runtime_of(client).scheduler) == 0
    assert len(server.of("extend")) == count
    assert [
        event for event in server_responded.events if event.level >= 30 and type(event).__name__ != "HeartbeatDelayed"
    ] == []


def test_async_heartbeats_come_when_the_lease_needs_them(
    client_of: Make, server_responded: Events, still: StillTime
) -> None:
    async def main() -> None:
        async with reserve(client) as guard:
            at_first = guard.expires_at_ms
            for count in (1, 2, 3):
                still.beat(guard)
                await asyncio.to_thread(server_responded.wait_for, "LeaseExtended", count)
            assert guard.expires_at_ms > at_first
            await guard.commit(cycles.tokens(1))

    with LeaseServer() as server, client_of(server) as client:
        asyncio.run(main())
        extends = server.of("extend")
        assert is_about(median(gaps([*server.of("reservations"), *extends])), 500)
        assert len(set(keys(extends))) == len(extends)


def test_a_failure_before_a_success_is_not_the_cause_of_a_later_loss(
    client_of: Make, server_responded: Events, still: StillTime
) -> None:
    with LeaseServer(refuse(503), grant()) as server, client_of(server) as client:
        guard = reserve(client).acquire()
        still.beat(guard)
        server_responded.wait_for("LeaseRetrying")
        still.beat(guard)
        server_responded.wait_for("LeaseExtended")
        client.close()
        assert isinstance(guard.lease_error, cycles.LeaseLostError)
        assert guard.lease_error.__cause__ is None
        assert guard.commit(cycles.tokens(1)).status == "committed"


def test_a_lost_lease_is_not_reported_again_when_the_client_is_closed(
    client_of: Make, server_responded: Events, still: StillTime
) -> None:
    with LeaseServer(refuse(410, "RESERVATION_EXPIRED")) as server, client_of(server) as client:
        guard = reserve(client).acquire()
        still.beat(guard)
        server_responded.wait_for("LeaseLost")
        client.close()
        assert guard.commit(cycles.tokens(1)).status == "committed"
    assert len(server_responded.of("LeaseLost")) == 1


def test_a_failed_heartbeat_is_repeated_with_its_key_within_the_window(
    client_of: Make, server_responded: Events, still: StillTime
) -> None:
    with LeaseServer(refuse(503), grant()) as server, client_of(server) as client:
        guard = reserve(client).acquire()
        still.beat(guard)
        server_responded.wait_for("LeaseRetrying")
        still.beat(guard)
        server_responded.wait_for("LeaseExtended")
        extends = server.of("extend")
        assert guard.state == "active"
        assert guard.lease_error is None
        guard.commit(cycles.tokens(1))
    assert extends[0].body == extends[1].body
    (gap,) = gaps(extends[:2])
    assert is_about(gap, 750)  # a quarter of the 3,000 that are left
    (retrying,) = server_responded.of("LeaseRetrying")
    assert retrying.reservation_id == "r1"
    assert retrying.disposition.startswith("retrying in 0.")


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("status", [404, 409, 410, 422])
def test_a_page_of_a_gateway_is_retried_and_does_not_end_the_lease(
    client_of: Make, server_responded: Events, still: StillTime, kind: str, status: int
) -> None:
    async def main() -> None:
        async with reserve(client, actual=cycles.tokens(1), lease_policy="cancel") as guard:
            for name in ("LeaseRetrying", "LeaseExtended"):
                still.beat(guard)
                await asyncio.to_thread(server_responded.wait_for, name)
            assert guard.state == "active"

    page = ok(b"<html>this site has moved</html>", status)
    with LeaseServer(lambda server: page, grant()) as server, client_of(server) as client:
        if kind == "async":
            asyncio.run(main())
        else:
            with reserve(client, actual=cycles.tokens(1), lease_policy="cancel") as guard:
                for name in ("LeaseRetrying", "LeaseExtended"):
                    still.beat(guard)
                    server_responded.wait_for(name)
                assert guard.state == "active"
        first, second = server.of("extend")[:2]
    assert first.body == second.body
    assert server_responded.of("LeaseLost") == []


def test_an_attempt_times_out_so_that_one_retry_fits(
    client_of: Make, server_responded: Events, still: StillTime
) -> None:
    with LeaseServer(hang(), hang()) as server, client_of(server) as client:
        guard = reserve(client).acquire()
        still.beat(guard)
        server.wait_for_extends(1)
        still.move(0.95)  # a little more than the attempt has; the socket waits for that in real time
        server_responded.wait_for("LeaseRetrying")
        still.beat(guard)
        extends = server.wait_for_extends(2)
        still.move(0.95)
        (lost,) = server_responded.wait_for("LeaseLost")
        guard.commit(cycles.tokens(1))
    assert keys(extends)[0] == keys(extends)[1]
    (gap,) = gaps(extends)
    assert is_about(gap, 1_000)  # cut 100 ms before its deadline of a second, then the rest of the window
    assert lost.disposition.startswith("stopped: no usable response")
    assert len(server.of("extend")) == 2


@pytest.mark.parametrize("retry_after", [None, "2", "Wed, 21 Oct 2026 07:28:00 GMT", "99999999999999999999"])
def test_throttled_for_longer_than_the_window_stops(
    client_of: Make, server_responded: Events, still: StillTime, retry_after: str | None
) -> None:
    with LeaseServer(refuse(429, "LIMIT_EXCEEDED", retry_after=retry_after)) as server, client_of(server) as client:
        guard = reserve(client).acquire()
        still.beat(guard)
        (lost,) = server_responded.wait_for("LeaseLost")
        assert "Retry-After" in lost.detail
        assert isinstance(guard.lease_error, cycles.RateLimitedError)
        guard.commit(cycles.tokens(1))
    assert len(server.of("extend")) == 1


def test_throttled_for_no_time_is_tried_immediately(
    client_of: Make, server_responded: Events, still: StillTime
) -> None:
    throttle = refuse(429, "LIMIT_EXCEEDED", retry_after="0")
    with LeaseServer(throttle, grant()) as server, client_of(server) as client:
        guard = reserve(client).acquire()
        still.beat(guard)
        server_responded.wait_for("LeaseExtended")
        guard.commit(cycles.tokens(1))
        extends = server.of("extend")[:2]
    assert is_about(gaps(extends)[0], 0)
    assert keys(extends)[0] == keys(extends)[1]


def test_an_inconclusive_response_is_a_failure(client_of: Make, server_responded: Events, still: StillTime) -> None:
    with LeaseServer(lambda server: ok({"status": "ACTIVE"}), grant()) as server, client_of(server) as client:
        guard = reserve(client).acquire()
        still.beat(guard)
        server_responded.wait_for("LeaseRetrying")
        still.beat(guard)
        server_responded.wait_for("LeaseExtended")
        guard.commit(cycles.tokens(1))
        assert len(set(keys(server.of("extend")[:2]))) == 1


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (404, "NOT_FOUND", cycles.NotFoundError),
        (409, "RESERVATION_FINALIZED", cycles.ReservationFinalizedError),
        (409, "MAX_EXTENSIONS_EXCEEDED", cycles.MaxExtensionsExceededError),
        (410, "RESERVATION_EXPIRED", cycles.ReservationExpiredError),
        (409, "TENANT_CLOSED", cycles.TenantClosedError),
    ],
)
def test_a_permanent_code_stops_the_heartbeat_and_is_reported_once(
    client_of: Make,
    server_responded: Events,
    still: StillTime,
    caplog: pytest.LogCaptureFixture,
    status: int,
    code: str,
    error: type[cycles.CyclesError],
) -> None:
    with LeaseServer(refuse(status, code)) as server, client_of(server) as client:
        with reserve(client) as guard:
            still.beat(guard)
            (lost,) = server_responded.wait_for("LeaseLost")
            assert guard.state == "lost"
            assert isinstance(guard.lease_error, error)
            with pytest.raises(cycles.LeaseLostError) as raised:
                guard.raise_if_lost()
            assert raised.value.__cause__ is guard.lease_error
            settlement = guard.commit(cycles.tokens(1))  # warn: the commit is not suppressed
        assert settlement.status == "committed"
        assert guard.state == "committed"
    assert lost.reservation_id == "r1"
    assert lost.disposition.startswith("stopped: ")
    warnings = [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    assert [record.reservation_id for record in warnings if record.cycles_event == "LeaseLost"] == ["r1"]  # type: ignore[attr-defined]
    assert {record.cycles_event for record in warnings} <= {"LeaseLost", "HeartbeatDelayed"}  # type: ignore[attr-defined]
    assert len(server.of("extend")) == 1


def test_a_lease_too_short_for_a_safe_schedule_is_reported_immediately(
    client_of: Make, server_responded: Events, still: StillTime
) -> None:
    with LeaseServer(remaining_ms=2_000) as server, client_of(server) as client:
        guard = reserve(client, ttl_ms=2_000).acquire()
        (lost,) = server_responded.wait_for("LeaseLost")
        assert len(server.of("extend")) == 1  # one immediate fresh extension, and no loop
        (notice,) = server_responded.of("LeaseNotice")
        assert "retry-safety budget" in notice.detail
        assert "retry-safety budget" in lost.detail
        guard.commit(cycles.tokens(1))


def test_a_lease_without_remaining_ttl_is_extended_immediately(
    client_of: Make, server_responded: Events, still: StillTime
) -> None:
    with LeaseServer(remaining_ms=None) as server, client_of(server) as client:
        guard = reserve(client, ttl_ms=60_000).acquire()
        acquired_ms = time.monotonic() * 1000
        server_responded.wait_for("LeaseExtended")
        (extended,) = server.of("extend")
        assert is_about(extended.at_ms, acquired_ms)  # at once: it measures the first grant
        assert "best effort" in server_responded.of("LeaseNotice")[0].detail
        guard.commit(cycles.tokens(1))


def test_an_extension_by_hand_moves_the_next_heartbeat(
    client_of: Make, server_responded: Events, still: StillTime
) -> None:
    with LeaseServer(grant(60_000)) as server, client_of(server) as client:
        guard = reserve(client).acquire()
        assert guard.extend(60_000).remaining_ttl_ms == 60_000
        assert scheduled(runtime_of(client).scheduler) == 1
        assert repr(guard).endswith(" 60 s left>")
        guard.commit(cycles.tokens(1))
        assert [each.body["extend_by_ms"] for each in server.of("extend")] == [60_000]


def test_a_hung_extend_delays_no_other_lease(
    client_of: Make, server_responded: Events, still: StillTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    with LeaseServer() as server, client_of(server) as client:
        channel = runtime_of(client).channel
        send = channel.send

        def hang_with_the_first(call: Any, *args: Any) -> Any:
            assert "r1" not in str(call) or call.operation != "extendReservation" or go_on.wait(60)
            return send(call, *args)

        monkeypatch.setattr(channel, "send", hang_with_the_first)
        monkeypatch.setattr(scheduler, "GROW_AFTER_S", 0.0)  # a job that waits gets another worker
        stuck, live = reserve(client).acquire(), reserve(client).acquire()
        for count in (1, 2, 3, 4):
            still.beat(live)
            server_responded.wait_for("LeaseExtended", count)
        assert {event.reservation_id for event in server_responded.of("LeaseExtended")} == {"r2"}
        assert len(server.came["r2"]) == 4
        go_on.set()
        stuck.commit(cycles.tokens(1))
        live.commit(cycles.tokens(1))


def test_heartbeats_continue_while_a_settlement_is_pending(
    client_of: Make, server_responded: Events, still: StillTime
) -> None:
    with LeaseServer(remaining_ms=60_000) as server, client_of(server, **IMPATIENT) as client:
        committed = server.fail_commits()
        guard = reserve(client).acquire()
        assert guard.commit(cycles.tokens(1)).status == "pending"
        still.beat(guard)
        server_responded.wait_for("LeaseExtended", 1)
        server.commits[:] = committed
        still.pass_until(lambda: server_responded.of("Settled"))
        assert state_of(guard).heartbeat.ended
        assert state_of(guard).heartbeat.timer is None
        assert {each["idempotency_key"] for each in (seen.body for seen in server.of("commit"))} == {
            server.of("commit")[0].body["idempotency_key"]
        }
    assert server_responded.of("LeaseLost") == []


def test_heartbeats_continue_while_an_async_settlement_is_pending_and_its_loop_closed(
    client_of: Make, server_responded: Events, still: StillTime
) -> None:

    async def main() -> cycles.AsyncGuard:
        guard: cycles.AsyncGuard = await reserve(client)
        assert (await guard.commit(cycles.tokens(1))).status == "pending"
        return guard

    with LeaseServer(remaining_ms=60_000) as server, client_of(server, **IMPATIENT) as client:
        committed = server.fail_commits()
        still.beat(asyncio.run(main()))
        server_responded.wait_for("LeaseExtended", 1)
        server.commits[:] = committed
        still.pass_until(lambda: server_responded.of("Settled"))


def test_a_blocked_event_loop_is_named(
    client_of: Make, server_responded: Events, caplog: pytest.LogCaptureFixture, still: StillTime
) -> None:
    async def main() -> None:
        async with reserve(client, actual=cycles.tokens(1)):
            still.move(1.0)  # a second in which the loop did nothing: what a user's blocking code does
            await asyncio.to_thread(server_responded.wait_for, "LeaseExtended")

    with LeaseServer() as server, client_of(server) as client:
        asyncio.run(main())
    (late,) = server_responded.of("HeartbeatDelayed")
    assert late.blocked_loop
    assert is_about(late.late_ms, 500)
    assert "the event loop was blocked; run blocking code with asyncio.to_thread" in caplog.text


def test_late_heartbeats_of_threads_are_reported_once_a_minute(
    client_of: Make, server_responded: Events, caplog: pytest.LogCaptureFixture, still: StillTime
) -> None:
    def extend(seconds: float, count: int) -> int:
        with reserve(client, actual=cycles.tokens(1)):
            still.move(seconds)  # the heartbeat is due after half a second
            server_responded.wait_for("LeaseExtended", count)
        return len(server_responded.of("HeartbeatDelayed"))

    with LeaseServer() as server, client_of(server) as client:
        assert [extend(*each) for each in ((0.6, 1), (1.0, 2), (1.0, 3))] == [0, 1, 1]
        still.move(60.0)
        assert extend(1.0, 4) == 2
    for late in server_responded.of("HeartbeatDelayed"):
        assert not late.blocked_loop
        assert is_about(late.late_ms, 500)
    assert "the event loop was blocked" not in caplog.text


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_calls_that_use_all_connections_delay_no_heartbeat(
    client_of: Make, server_responded: Events, still: StillTime, kind: str
) -> None:
    async def main() -> None:
        guard = await reserve(client)
        committing = asyncio.create_task(guard.commit(cycles.tokens(1)))
        await asyncio.to_thread(server.wait_for, lambda stub: bool(server.of("commit")))
        still.beat(guard)
        await asyncio.to_thread(server_responded.wait_for, "LeaseExtended")
        gate.set()
        await committing

    gate = threading.Event()
    with LeaseServer() as server, client_of(server, timeout=60.0, max_connections=1) as client:
        server.commits.insert(0, gated(gate, {"status": "COMMITTED", "charged": {"unit": "TOKENS", "amount": 1}}))
        if kind == "async":
            asyncio.run(main())
            return
        guard = reserve(client).acquire()
        committing = threading.Thread(target=guard.commit, args=(cycles.tokens(1),))
        committing.start()
        server.wait_for(lambda stub: bool(server.of("commit")))
        still.beat(guard)
        server_responded.wait_for("LeaseExtended")
        gate.set()
        committing.join()


@pytest.mark.parametrize("timeout_s", [None, 60.0])
def test_a_heartbeat_waits_for_a_connection_no_longer_than_for_its_response(
    client_of: Make,
    server_responded: Events,
    still: StillTime,
    monkeypatch: pytest.MonkeyPatch,
    timeout_s: float | None,
) -> None:
    limits, send = dict[str, Limits](), BlockingConnections.send

    def note(connections: BlockingConnections, request: Prepared, its: Limits) -> Any:
        limits[request.target.rpartition("/")[2]] = its
        return send(connections, request, its)

    monkeypatch.setattr(BlockingConnections, "send", note)
    with LeaseServer() as server, client_of(server) as client:
        guard = reserve(client, timeout=timeout_s).acquire()
        still.beat(guard)
        server_responded.wait_for("LeaseExtended")
        guard.commit(cycles.tokens(1))
        assert limits["commit"].timeout_s == (client.config.timeout if timeout_s is None else timeout_s)
    assert limits["extend"].timeout_s < TTL_MS / 1000
    assert limits["extend"].queue_timeout_s == limits["extend"].timeout_s
    assert limits["commit"].queue_timeout_s == QUEUE_TIMEOUT_S > limits["extend"].queue_timeout_s


def test_an_async_close_waits_for_no_heartbeat(still: StillTime) -> None:
    async def main() -> None:
        guard = await reserve(client)
        still.beat(guard)
        await asyncio.to_thread(server.wait_for_extends, 1)
        await client.aclose()
        await guard.release()

    with LeaseServer(hang()) as server:
        client = cycles.Cycles(
            base_url=server.url, api_key="cyc_test", tenant="acme", journal=False, flush_timeout=3_600.0
        )
        closing = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
        closing.start()
        closing.join(PATIENCE_S)
        assert not closing.is_alive()


def test_a_close_reports_no_lease_that_was_lost_before(
    client_of: Make, server_responded: Events, still: StillTime
) -> None:
    with LeaseServer(refuse(410, "RESERVATION_EXPIRED")) as server, client_of(server) as client:
        guard = reserve(client).acquire()
        still.beat(guard)
        server_responded.wait_for("LeaseLost")
        client.close()
        guard.release()
    assert len(server_responded.of("LeaseLost")) == 1


def test_a_slow_commit_keeps_its_lease(client_of: Make, server_responded: Events, still: StillTime) -> None:
    gate = threading.Event()
    with LeaseServer() as server, client_of(server, timeout=60.0) as client:
        server.commits.insert(0, gated(gate, {"status": "COMMITTED", "charged": {"unit": "TOKENS", "amount": 1}}))
        guard = reserve(client).acquire()
        committing = threading.Thread(target=guard.commit, args=(cycles.tokens(1),))
        committing.start()
        server.wait_for(lambda stub: bool(server.of("commit")))
        for count in (1, 2):
            still.beat(guard)
            server_responded.wait_for("LeaseExtended", count)
        gate.set()
        committing.join(60)
        assert guard.state == "committed"


def test_a_heartbeat_in_progress_when_its_loop_ends_is_repeated_by_the_scheduler(
    client_of: Make, server_responded: Events, still: StillTime
) -> None:

    async def main() -> None:
        guard = await reserve(client)
        still.beat(guard)
        await asyncio.to_thread(server.wait_for_extends, 1)
        assert (await guard.commit(cycles.tokens(1))).status == "pending"

    with LeaseServer(hang(), grant()) as server, client_of(server, **IMPATIENT) as client:
        committed = server.fail_commits()
        asyncio.run(main())
        server_responded.wait_for("LeaseExtended", 1)
        first, second = server.wait_for_extends(2)[:2]
        assert first.body == second.body
        server.commits[:] = committed
        still.pass_until(lambda: server_responded.of("Settled"))


def test_a_heartbeat_in_progress_that_the_application_cancels_is_repeated(
    client_of: Make, server_responded: Events, still: StillTime
) -> None:
    async def main() -> None:
        async with reserve(client, actual=cycles.tokens(1)) as guard:
            still.beat(guard)
            await asyncio.to_thread(server.wait_for_extends, 1)
            others = asyncio.all_tasks() - {asyncio.current_task()}
            assert others
            for task in others:  # as a framework does at its end
                task.cancel()
            await asyncio.to_thread(server_responded.wait_for, "LeaseExtended", 1)

    with LeaseServer(hang(), grant()) as server, client_of(server) as client:
        asyncio.run(main())
    first, second = server.of("extend")[:2]
    assert first.body == second.body


def test_an_expired_lease_is_not_extended_while_its_event_is_pending(
    client_of: Make, server_responded: Events, still: StillTime
) -> None:
    with LeaseServer() as server, client_of(server, retry_initial_delay=60.0) as client:
        server.commits[:] = [ok({"error": "RESERVATION_EXPIRED", "message": "late", "request_id": "req-1"}, 410)]
        guard = reserve(client).acquire()
        assert guard.commit(cycles.tokens(1)).status == "pending"  # and the event is answered with nonsense
        assert [seen.what for seen in server.seen if seen.what != "extend"] == ["reservations", "commit", "events"]
        assert state_of(guard).heartbeat.ended
        assert state_of(guard).heartbeat.timer is None
    assert server_responded.of("LeaseLost") == []


def test_a_lease_that_expires_while_its_commit_is_retried_is_not_extended(
    client_of: Make, server_responded: Events, still: StillTime
) -> None:
    with LeaseServer(remaining_ms=60_000) as server, client_of(server, **IMPATIENT) as client:
        late = {"error": "RESERVATION_EXPIRED", "message": "late", "request_id": "req-1"}
        server.commits[:] = [ok({}, 503), ok(late, 410)]
        guard = reserve(client).acquire()
        assert guard.commit(cycles.tokens(1)).status == "pending"
        assert not state_of(guard).heartbeat.ended
        still.pass_until(lambda: state_of(guard).heartbeat.ended)
        assert server.of("events")
    assert server_responded.of("LeaseLost") == []


def test_an_exception_in_one_attempt_counts_as_a_failed_attempt(
    client_of: Make, server_responded: Events, still: StillTime
) -> None:
    with LeaseServer() as server, client_of(server) as client, pytest.MonkeyPatch.context() as patch:
        channel = runtime_of(client).channel
        send = channel.send

        def fail_once(call: Any, *args: Any) -> Any:
            if call.operation == "extendReservation":
                patch.undo()
                raise RuntimeError("a bug")
            return send(call, *args)

        patch.setattr(channel, "send", fail_once)
        guard = reserve(client).acquire()
        still.beat(guard)
        (retrying,) = server_responded.wait_for("LeaseRetrying")
        assert "RuntimeError: a bug" in retrying.detail
        still.beat(guard)
        assert server.wait_for_extends(1)
        guard.commit(cycles.tokens(1))
