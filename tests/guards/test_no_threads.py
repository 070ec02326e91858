"""The process is at its limit of threads: what the background would do is done by callers, flush and close."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

import cycles
from cycles._core.settlement.record import decode
from tests.recovery.kit import records_in
from tests.support.inside import runtime_of
from tests.support.waiting import PATIENCE_S

from .conftest import ACTION, Shop, World
from .test_locks import entries_in

T = cycles.tokens

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore:.*no thread can be started")]


@pytest.fixture(autouse=True)
def no_threads(monkeypatch: pytest.MonkeyPatch, shop: Shop) -> None:
    """Let the client start no thread; the server behind the socket may."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("cycles-scheduler"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)


def guard_of(client: cycles.Cycles) -> Any:
    return client.reserve(T(100), action=ACTION).acquire()


def test_each_spend_is_written_ahead_at_once(shop: Shop, tmp_path: Path) -> None:
    guard = guard_of(shop.client(journal_dir=tmp_path / "journal"))
    for amount in (3, 4, 5):
        guard.spend(T(amount))
    assert [decode(entry).actual for entry in entries_in(tmp_path / "journal", tmp_path / "copies")] == [T(12)]
    guard.commit()


def test_a_commit_that_does_not_wait_is_sent_by_its_caller(shop: Shop) -> None:
    client = shop.client()
    for count in (1, 2):
        assert guard_of(client).commit(T(7), wait=False).status == "committed"
        assert shop.money() == (7 * count, 0)
    assert records_in(shop._folder) == []


async def test_a_loop_needs_no_thread_for_a_commit_that_does_not_wait(shop: Shop) -> None:
    client = shop.client()
    guard = await client.reserve(T(100), action=ACTION)
    assert (await guard.commit(T(7), wait=False)).status == "pending"
    assert (await guard.settled(PATIENCE_S)).status == "committed"


async def test_a_flush_settles_what_is_pending(world: World, shop: Shop) -> None:
    world.client = shop.client(retry_initial_delay=3600.0)
    shop.faults.status("commit", 503)
    guard = await world.acquire(world.reserve())
    assert (await world.get(guard.commit(T(7)))).status == "pending"
    report = await world.get(world.operations.flush(timeout=PATIENCE_S))
    assert (report.settled, report.pending, guard.state) == (1, 0, "committed")


async def test_a_flush_tries_again_after_each_pause(world: World, shop: Shop) -> None:
    world.client = shop.client(retry_initial_delay=0.01)
    shop.faults.status("commit", 503, times=4)
    guard = await world.acquire(world.reserve())
    await world.get(guard.commit(T(7)))
    report = await world.get(world.operations.flush(timeout=PATIENCE_S))
    assert (report.settled, report.pending, guard.state) == (1, 0, "committed")


def test_close_settles_what_is_pending(shop: Shop) -> None:
    client = shop.client(retry_initial_delay=3600.0)
    shop.faults.status("commit", 503)
    guard = guard_of(client)
    guard.commit(T(7))
    client.close()
    assert (guard.state, shop.money()) == ("committed", (7, 0))


def test_a_flush_settles_what_an_earlier_process_left(shop: Shop) -> None:
    shop.faults.status("commit", 503, times=None)
    with shop.client(flush_timeout=0.0) as earlier:
        guard_of(earlier).commit(T(7))
    shop.faults.clear()
    report = shop.client().flush(PATIENCE_S)
    assert (report.settled, report.pending) == (1, 0)
    assert shop.money() == (7, 0)


def test_what_an_earlier_process_left_is_listed_before_anything_else_happens(shop: Shop) -> None:
    shop.faults.status("commit", 503, times=None)
    with shop.client(flush_timeout=0.0) as earlier:
        guard_of(earlier).commit(T(7))
    shop.faults.clear()
    client = shop.client()
    assert [each.amount for each in client.pending()] == [T(7)]
    assert client.flush(PATIENCE_S).settled == 1


def test_an_interrupted_commit_is_settled_by_the_next_flush(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    client = shop.client()
    guard = guard_of(client)
    io = runtime_of(client).blocking
    put = io.put

    async def interrupted(record: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(io, "put", interrupted)
    with pytest.raises(KeyboardInterrupt):
        guard.commit(T(7))
    monkeypatch.setattr(io, "put", put)
    assert [each.amount for each in client.pending()] == [T(7)]
    assert client.flush(PATIENCE_S).settled == 1
    assert shop.money() == (7, 0)


def test_an_interrupted_commit_that_no_flush_reaches_is_in_the_journal_after_close(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = shop.client(flush_timeout=0.0)
    guard = guard_of(client)
    io = runtime_of(client).blocking
    put = io.put

    async def interrupted(record: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(io, "put", interrupted)
    with pytest.raises(KeyboardInterrupt):
        guard.commit(T(7))
    monkeypatch.setattr(io, "put", put)
    client.close()
    (record,) = records_in(shop._folder)
    assert record["commit_body"]["actual"]["amount"] == 7
