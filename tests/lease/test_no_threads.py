"""A process at its limit of threads: no thread can send the heartbeat, and the guard sees when its lease ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

import cycles
from tests.lease.conftest import TTL_MS, Events, reserve
from tests.lease.server import LeaseServer
from tests.support.inside import runtime_of
from tests.support.still_time import StillTime

Make = Callable[..., cycles.Cycles]
ONE = cycles.tokens(1)
TTL_S = TTL_MS / 1000


def refuse_threads(patch: pytest.MonkeyPatch, named: str) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("cycles-scheduler") and named in thread.name:
            raise RuntimeError("can't start new thread")
        start(thread)

    patch.setattr(threading.Thread, "start", refuse)


@pytest.fixture(params=["timer", "heartbeats"])
def refused(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads of the scheduler that cannot be started."""
    refuse_threads(monkeypatch, request.param)


def overdue(client: cycles.Cycles, still: StillTime) -> None:
    """Let time pass until the heartbeat is due and its thread could not be started."""
    still.move(TTL_S * 0.9)
    still.pass_until(lambda: runtime_of(client).scheduler.short_of_threads)


def test_the_warning_names_the_reservation(
    client_of: Make, still: StillTime, server_responded: Events, caplog: pytest.LogCaptureFixture, monkeypatch: Any
) -> None:
    with LeaseServer() as server, client_of(server) as client:
        with monkeypatch.context() as patch:
            refuse_threads(patch, "timer")
            guard = reserve(client).acquire()
            assert guard.state == "active"
        (notice,) = server_responded.of("LeaseNotice")
        assert (notice.kind, notice.reservation_id) == ("no_thread", guard.reservation_id)
        assert f"reservation {guard.reservation_id}: no thread can be started to extend the lease" in caplog.text
        guard.release()


def test_leases_are_not_reported_once_there_are_threads_again(
    client_of: Make, still: StillTime, server_responded: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LeaseServer() as server, client_of(server) as client:
        with monkeypatch.context() as patch:
            refuse_threads(patch, "timer")
            guard = reserve(client).acquire()
        assert guard.state == "active"  # which starts the thread
        still.beat(guard)
        server_responded.wait_for("LeaseExtended")
        another = reserve(client).acquire()
        assert [notice.reservation_id for notice in server_responded.of("LeaseNotice")] == [guard.reservation_id]
        guard.release()
        another.release()


def raise_if_lost(guard: cycles.Guard) -> None:
    with pytest.raises(cycles.LeaseLostError):
        guard.raise_if_lost()


@pytest.mark.parametrize(
    "look",
    [
        lambda guard: guard.state,
        lambda guard: guard.lease_error,
        lambda guard: guard.spend(ONE),
        lambda guard: guard.commit(ONE),
        lambda guard: guard.release(),
        lambda guard: guard.end(),
        raise_if_lost,
    ],
    ids=["state", "lease_error", "spend", "commit", "release", "end", "raise_if_lost"],
)
@pytest.mark.usefixtures("refused")
def test_the_loss_is_reported_when_the_lease_ends(
    client_of: Make, still: StillTime, server_responded: Events, look: Callable[[Any], object]
) -> None:
    with LeaseServer() as server, client_of(server) as client:
        guard = reserve(client, actual=ONE).acquire()
        assert guard.state == "active"
        overdue(client, still)
        still.move(TTL_S)
        assert server_responded.of("LeaseLost") == []
        look(guard)
        (lost,) = server_responded.of("LeaseLost")
        assert lost.reservation_id == guard.reservation_id
        assert (lost.detail, lost.lasts_ms) == ("no thread could be started to extend it", 0)
        assert isinstance(guard.lease_error, cycles.LeaseLostError)
        look_again = guard.state
        assert look_again in ("lost", "committed", "released")
        assert len(server_responded.of("LeaseLost")) == 1
        if look_again == "lost":
            guard.release()
        assert server.of("extend") == []


@pytest.mark.usefixtures("refused")
@pytest.mark.parametrize("policy", ["fail_on_finalize", "cancel"])
def test_the_policy_applies_to_it(client_of: Make, still: StillTime, policy: Any) -> None:
    with LeaseServer() as server, client_of(server) as client:
        with pytest.raises(cycles.LeaseLostError), reserve(client, lease_policy=policy, actual=ONE):
            overdue(client, still)
            still.move(TTL_S)
        with pytest.raises(cycles.LeaseLostError):
            guard = reserve(client, lease_policy=policy).acquire()
            overdue(client, still)
            still.move(TTL_S)
            guard.commit(ONE)
        assert guard.state == "committed"
        assert len(server.of("commit")) == 2


@pytest.mark.parametrize("remaining_ms", [TTL_MS, None])
def test_a_lease_that_lasts_is_not_lost(
    client_of: Make, still: StillTime, server_responded: Events, monkeypatch: Any, remaining_ms: int | None
) -> None:
    with LeaseServer(remaining_ms=remaining_ms) as server, client_of(server) as client:
        with monkeypatch.context() as patch:
            refuse_threads(patch, "timer")
            guard = reserve(client).acquire()
            still.move(TTL_S / 2)
            assert (guard.state, guard.lease_error) == ("active", None)
        guard.spend(ONE)  # a thread can be started again
        server.wait_for_extends(1)
        server_responded.wait_for("LeaseExtended")
        assert guard.state == "active"
        guard.commit(ONE)


@pytest.mark.usefixtures("refused")
def test_a_lease_that_ended_unseen_becomes_active_by_hand(client_of: Make, still: StillTime) -> None:
    with LeaseServer() as server, client_of(server) as client:
        guard = reserve(client).acquire()
        overdue(client, still)
        still.move(TTL_S)
        assert guard.state == "lost"
        guard.extend()
        assert (guard.state, guard.lease_error) == ("active", None)
        guard.release()


@pytest.mark.usefixtures("refused")
def test_an_async_guard_that_outlives_its_loop_sees_it_too(
    client_of: Make, still: StillTime, server_responded: Events
) -> None:
    async def acquire(client: cycles.Cycles) -> Any:
        return await reserve(client)

    with LeaseServer() as server, client_of(server) as client:
        guard = asyncio.run(acquire(client))
        assert guard.state == "active"
        overdue(client, still)
        still.move(TTL_S)
        assert guard.state == "lost"
        (lost,) = server_responded.of("LeaseLost")
        assert lost.reservation_id == guard.reservation_id


@pytest.mark.usefixtures("refused")
def test_the_policy_applies_to_an_async_guard_that_ends_in_another_loop(client_of: Make, still: StillTime) -> None:
    async def acquire(client: cycles.Cycles) -> Any:
        return await reserve(client, lease_policy="fail_on_finalize", actual=ONE)

    with LeaseServer() as server, client_of(server) as client:
        guard = asyncio.run(acquire(client))
        overdue(client, still)
        still.move(TTL_S)
        with pytest.raises(cycles.LeaseLostError):
            asyncio.run(guard.end())
        assert (guard.state, len(server.of("commit"))) == ("committed", 1)
