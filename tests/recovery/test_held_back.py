"""An event is not sent while a journal has the commit that it replaces and the disk does not take the event.

A later process would find the commit and send an event too. Servers delete the keys of events after seven days, so
the amount would be charged twice.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from attrs import evolve

import cycles
from cycles._drivers.io.threads import BlockingIo
from cycles._drivers.work.work import Later
from cycles._flows.commit import record_of
from cycles._journal.files import file_calls, locked_file, record_files
from tests.recovery.child import ACTION
from tests.recovery.kit import PATIENCE_S, Seen, Setup, attempt_once, journal_files, records_in
from tests.support.inside import runtime_of, state_of
from tests.support.waiting import until

ACTUAL = cycles.tokens(42)
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


class Disk:
    """The operating system, with a disk that takes no record while it is full."""

    def __init__(self) -> None:
        self.is_full = False

    def write(self, descriptor: int, content: bytes) -> int:
        if self.is_full:
            raise OSError(errno.ENOSPC, "no space left on device")
        return os.write(descriptor, content)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk()
    for module in (file_calls, record_files, locked_file):
        monkeypatch.setattr(module, "os", disk)
    yield disk
    disk.is_full = False


@pytest.fixture
def fills(manual_world: Setup, disk: Disk) -> Setup:
    """A server that has expired each reservation before its commit, and a disk that is full from that commit on."""

    def on_arrival(seen: Seen) -> None:
        if seen.operation == "commit" and not disk.is_full:
            manual_world.server.clock.advance(HOUR_MS)
            disk.is_full = True

    manual_world.server.on_arrival = on_arrival
    return manual_world


def sync_commit(client: cycles.Cycles) -> cycles.Settlement:
    return client.reserve(cycles.tokens(100), action=ACTION).acquire().commit(ACTUAL)


def async_commit(client: cycles.Cycles) -> cycles.Settlement:
    async def main() -> cycles.Settlement:
        async with client.reserve(cycles.tokens(100), action=ACTION) as guard:
            return await guard.commit(ACTUAL)

    return asyncio.run(main())


def sent(world: Setup) -> list[str]:
    return [seen.operation for seen in world.server.settling()]


def modes(world: Setup) -> list[str]:
    return [record["mode"] for record in records_in(world.root)]


@pytest.mark.parametrize("commit", [sync_commit, async_commit])
def test_an_event_waits_until_the_disk_takes_it(
    fills: Setup, disk: Disk, commit: Callable[[cycles.Cycles], cycles.Settlement]
) -> None:
    seen: list[Any] = []
    with fills.client(retry_initial_delay=60.0) as client:
        client.on_event(seen.append)
        settlement = commit(client)
        assert (settlement.status, settlement.actual) == ("pending", ACTUAL)
        assert (sent(fills), modes(fills), fills.server.charged) == (["commit"], ["commit"], 0)
        (pending,) = client.pending()
        assert pending.amount == ACTUAL
        assert client.flush(timeout=0.5).pending == 1
        assert (sent(fills), fills.server.charged) == (["commit"], 0), "tried again, and not sent"
        disk.is_full = False
        assert client.flush(timeout=PATIENCE_S).settled == 1
    assert (sent(fills), fills.server.charged, fills.leftovers) == (["commit", "event"], 42, [])
    assert len({each.key for each in fills.server.settling()}) == 1
    (reported,) = [event for event in seen if isinstance(event, cycles.events.SettlementPending)]
    assert "does not take the event" in reported.detail
    assert len([event for event in seen if isinstance(event, cycles.events.JournalProblem)]) == 1


@pytest.mark.parametrize("commit", [sync_commit, async_commit])
def test_eight_days_later_the_amount_is_charged_once(
    fills: Setup, disk: Disk, commit: Callable[[cycles.Cycles], cycles.Settlement]
) -> None:
    """The server has forgotten the keys of events by then; the first client left without a response to any event."""
    fills.server.faults.drop_response("event", times=None)
    with fills.client(flush_timeout=0.0) as first:
        commit(first)
    fills.server.faults.clear()
    fills.server.on_arrival, disk.is_full = None, False
    fills.server.clock.advance(8 * DAY_MS)
    with fills.client() as second:
        assert second.flush(timeout=PATIENCE_S).pending == 0
    assert (fills.server.charged, fills.leftovers, fills.rejected) == (42, [], [])


def test_a_client_that_closes_says_that_the_amount_is_pending(fills: Setup) -> None:
    seen: list[Any] = []
    with fills.client(flush_timeout=0.0) as client:
        client.on_event(seen.append)
        assert sync_commit(client).status == "pending"
    (left,) = [event for event in seen if isinstance(event, cycles.events.SettlementsLeftPending)]
    assert left.pending == 1
    assert modes(fills) == ["commit"]


def test_what_the_background_commits_waits_in_the_same_way(fills: Setup, disk: Disk) -> None:
    fills.server.faults.refuse("commit")
    with fills.client(retry_initial_delay=60.0) as client:
        assert sync_commit(client).status == "pending"
        assert client.flush(timeout=1.0).pending == 1
        assert (sent(fills), modes(fills)) == (["commit", "commit"], ["commit"])
        disk.is_full = False
        assert client.flush(timeout=PATIENCE_S).settled == 1
    assert (sent(fills), fills.server.charged) == (["commit", "commit", "event"], 42)


def test_what_an_earlier_process_left_waits_too(manual_world: Setup, disk: Disk) -> None:
    world = manual_world
    world.server.faults.refuse("commit")
    with world.client(flush_timeout=0.0, retry_initial_delay=60.0) as first:
        assert sync_commit(first).status == "pending"
    world.server.clock.advance(HOUR_MS)
    disk.is_full = True
    with world.client(retry_initial_delay=0.01, retry_max_delay=0.01) as second:
        world.server.wait_for("commit", 4)
        assert (set(sent(world)), modes(world)) == ({"commit"}, ["commit"])
        disk.is_full = False
        assert second.flush(timeout=PATIENCE_S).pending == 0
    assert (sent(world)[-1], sent(world).count("event"), world.server.charged) == ("event", 1, 42)


def test_with_nothing_on_the_disk_the_event_is_sent(fills: Setup, disk: Disk) -> None:
    disk.is_full = True
    with fills.client() as client:
        guard = client.reserve(cycles.tokens(100), action=ACTION).acquire()
        fills.server.clock.advance(HOUR_MS)
        assert guard.commit(ACTUAL).status == "recorded_as_event"
    assert (sent(fills), fills.server.charged, fills.leftovers) == (["commit", "event"], 42, [])


def test_without_a_journal_the_event_is_sent(fills: Setup) -> None:
    with fills.client(journal=False) as client:
        assert sync_commit(client).status == "recorded_as_event"
    assert fills.server.charged == 42


@pytest.mark.skipif(os.name != "posix", reason="spend is written ahead under file locks")
def test_spend_that_is_written_ahead_counts_as_a_commit_on_the_disk(fills: Setup, disk: Disk) -> None:
    """The disk never took the record of the commit, but a start would commit what the log of spend has."""
    with fills.client(retry_initial_delay=60.0) as client:
        guard = client.reserve(cycles.tokens(100), action=ACTION).acquire()
        guard.spend(ACTUAL)
        fills.server.clock.advance(HOUR_MS)
        disk.is_full = True
        assert guard.commit().status == "pending"
        assert (sent(fills), modes(fills)) == (["commit"], [])
        disk.is_full = False
        assert client.flush(timeout=PATIENCE_S).settled == 1
    assert (sent(fills), fills.server.charged, fills.leftovers) == (["commit", "event"], 42, [])


@pytest.mark.skipif(os.name != "posix", reason="pools need file locks")
def test_the_log_of_a_chunk_counts_as_a_commit_on_the_disk(fills: Setup, disk: Disk) -> None:
    seen: list[Any] = []
    with fills.client(retry_initial_delay=60.0) as client:
        client.on_event(seen.append)
        with client.pool(max_held=cycles.tokens(1_000), chunk=cycles.tokens(1_000), action=ACTION) as pool:
            with pool.reserve(cycles.tokens(100)) as guard:
                guard.spend(ACTUAL)
            fills.server.clock.advance(HOUR_MS)
            disk.is_full = True
            assert pool.flush(timeout=0.5).pending == 1
            until(lambda: sent(fills) == ["commit"])
            assert modes(fills) == []
            assert [path.name[:5] for path in fills.root.rglob("pool-*.log")] == ["pool-"]
            disk.is_full = False
            client.flush(timeout=PATIENCE_S)
    assert (sent(fills), fills.server.charged, fills.leftovers) == (["commit", "event"], 42, [])


def test_an_event_that_waited_for_a_week_is_as_new_as_its_first_attempt(fills: Setup, disk: Disk) -> None:
    """It was never sent, so the age of its key does not count."""
    with fills.client(flush_timeout=0.0, retry_initial_delay=3600.0) as client:
        runtime = runtime_of(client)
        guard = client.reserve(cycles.tokens(100), action=ACTION).acquire()
        record = record_of(runtime.blocking, state_of(guard), ACTUAL, None, {})
        old = evolve(record, recorded_at_ms=record.recorded_at_ms - 8 * DAY_MS)
        runtime.records.put(old)
        item, step = attempt_once(client, old)
        assert isinstance(step, Later)
        assert not step.outage
        disk.is_full = False
        attempt_once(client, old, item)
        with pytest.raises(cycles.ReservationExpiredError):
            guard.release()
    assert (fills.server.charged, fills.rejected) == (42, [])


def test_an_interrupted_event_does_not_become_a_commit_again(fills: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """The background continues with the form that was saved last: the event may have been charged."""
    send = BlockingIo.send
    fills.server.on_arrival = None

    async def interrupted(io: BlockingIo, call: Any) -> Any:
        outcome = await send(io, call)
        if call.operation == "createEvent":
            raise KeyboardInterrupt
        return outcome

    with fills.client(flush_timeout=0.0, retry_initial_delay=3600.0) as client:
        guard = client.reserve(cycles.tokens(100), action=ACTION).acquire()
        fills.server.clock.advance(HOUR_MS)
        monkeypatch.setattr(runtime_of(client).background, "hand_over", lambda *_, **__: True)
        monkeypatch.setattr(BlockingIo, "send", interrupted)
        with pytest.raises(KeyboardInterrupt):
            guard.commit(ACTUAL)
        assert modes(fills) == ["event"]
        monkeypatch.setattr(BlockingIo, "send", send)


@pytest.mark.parametrize(("age_ms", "charged"), [(DAY_MS, 42), (8 * DAY_MS, 0)])
def test_an_event_that_an_earlier_process_left_is_as_old_as_its_record(world: Setup, age_ms: int, charged: int) -> None:
    """That process may have sent it, and after a week the server has deleted its key."""
    world.server.faults.status("commit", 503, times=None)
    with world.client(flush_timeout=0.0) as first:
        assert sync_commit(first).status == "pending"
    (path,) = journal_files(world.root)
    record = json.loads(path.read_bytes())
    del record["check"]  # of what is changed now
    changes = {"mode": "event", "recorded_at_ms": record["recorded_at_ms"] - age_ms, "attempt_unknown": False}
    path.write_text(json.dumps(record | changes))
    with world.client() as second:
        assert second.flush(timeout=PATIENCE_S).pending == 0
    assert (world.server.charged, len(world.rejected)) == (charged, int(not charged))
