"""A journal that takes longer to list than a flush may take: what is pending is unknown, which is not zero."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import cycles
from cycles._journal.files.record_files import RecordFiles
from tests.recovery.kit import PATIENCE_S, Setup
from tests.recovery.test_leaving import leave_one_pending

Flush = Callable[[cycles.Cycles, float], cycles.FlushReport]


@pytest.fixture(params=["sync", "async"])
def flush(request: pytest.FixtureRequest) -> Flush:
    def sync(client: cycles.Cycles, timeout: float) -> cycles.FlushReport:
        return client.flush(timeout)

    def in_loop(client: cycles.Cycles, timeout: float) -> cycles.FlushReport:
        return asyncio.run(client.aio.flush(timeout))

    return sync if request.param == "sync" else in_loop


@pytest.fixture
def left(world: Setup) -> Setup:
    """An earlier process left one settlement."""
    world.server.faults.refuse("commit", times=None)
    with world.client(flush_timeout=0) as client:
        leave_one_pending(client)
    world.server.faults.clear()
    assert len(world.leftovers) == 1
    return world


@pytest.fixture
def listing(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Listing the journal ends when this is set."""
    gate, names = threading.Event(), RecordFiles.names

    def later(store: Any) -> list[str]:
        gate.wait()
        return names(store)

    monkeypatch.setattr(RecordFiles, "names", later)
    monkeypatch.setattr("cycles._drivers.work.queue.SCAN_S", 0.01)
    monkeypatch.setattr("cycles._drivers.runtime.THREADS_END_S", 0.01)
    yield gate
    gate.set()


def test_a_flush_that_ends_before_the_scan_says_so(left: Setup, listing: threading.Event, flush: Flush) -> None:
    client = left.client()
    report = flush(client, 0.01)
    assert (report.settled, report.pending, report.scan_finished) == (0, 0, False)
    assert "scan_finished=False" in repr(report)
    listing.set()
    report = flush(client, PATIENCE_S)
    assert (report.pending, report.scan_finished) == (0, True)
    client.close()
    assert left.server.charged == 42
    assert left.leftovers == []


def test_a_listing_that_fails_is_unknown_too(left: Setup, monkeypatch: pytest.MonkeyPatch, flush: Flush) -> None:
    def fail(store: Any) -> list[str]:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(RecordFiles, "names", fail)
    client = left.client(flush_timeout=0)
    report = flush(client, PATIENCE_S)
    assert (report.pending, report.scan_finished) == (0, False)
    client.close()


@pytest.mark.usefixtures("listing")
def test_a_client_that_is_closed_before_the_scan_ends_reports_it(left: Setup, caplog: pytest.LogCaptureFixture) -> None:
    client = left.client(flush_timeout=0.01)
    client.close()
    assert "closed before its journal was read to the end" in caplog.text
    assert len(left.leftovers) == 1


def test_the_list_of_pending_settlements_waits_no_longer_than_a_flush(left: Setup, listing: threading.Event) -> None:
    client, found = left.client(flush_timeout=0.01), list[list[cycles.PendingSettlement]]()
    reading = threading.Thread(target=lambda: found.append(client.pending()), daemon=True)
    reading.start()
    reading.join(PATIENCE_S)
    assert found == [[]]
    listing.set()
    client.close()


def test_without_a_journal_there_is_nothing_to_scan(world: Setup, flush: Flush) -> None:
    with world.client(journal=False) as client:
        assert flush(client, 0.0) == cycles.FlushReport(0, 0, 0)
        assert flush(client, 0.0).scan_finished
