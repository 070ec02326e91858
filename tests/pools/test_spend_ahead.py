"""What a live guard of a pool has spent is in the log of its chunk, and a killed process is charged for it once."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import cycles
from cycles._core.pool.chunk_record import recovered_record
from cycles._core.pool.sums import Totals, encode
from cycles._core.settlement.record import Record, decode
from cycles._flows.pool.chunks import settle_now
from cycles._journal.files.chunk_cells import ChunkLog, recover_chunks
from cycles._journal.files.locked_file import LockedFile
from cycles._journal.files.record_files import RecordFiles
from cycles._journal.files.spend import Layout, Slot, read_entries, recover_spend
from tests.support.deadlines import no_thread
from tests.support.inside import runtime_of, state_of
from tests.support.points import run_at

from .conftest import ACTION, Shop, T, chunk_of, seal
from .pool_use import pool_of, use
from .test_interrupts import FOLDERS, LONGEST, ignore_dropped, interrupt, left_in, torn


def test_the_log_has_the_known_spend_until_the_guard_ends(client: cycles.Cycles, shop: Shop) -> None:
    pool = pool_of(client)
    use(pool, 10, 4)
    first, second = (pool.reserve(T(10)).acquire() for _ in range(2))
    first.spend(T(3))
    assert left_in(shop) == 7
    first.spend(T(2))
    second.spend(T(10))
    assert left_in(shop) == 4 + 5 + 10
    second.commit(T(1))
    assert left_in(shop) == 4 + 5 + 1, "the amount of the commit replaces what was spent"
    first.release("the provider returned an error")
    assert left_in(shop) == 4 + 1
    pool.close()
    assert shop.money() == (5, 0)


def test_a_guard_that_ends_without_a_commit_of_its_own(client: cycles.Cycles, shop: Shop) -> None:
    pool = pool_of(client)
    with pytest.raises(KeyError), pool.reserve(T(10)) as guard:
        guard.spend(T(3))
        raise KeyError
    assert left_in(shop) == 3
    pool.close()
    assert shop.money() == (3, 0)


def test_more_than_the_estimate_is_written_ahead_too(client: cycles.Cycles, shop: Shop) -> None:
    pool = pool_of(client)
    guard = pool.reserve(T(10)).acquire()
    guard.spend(T(60))
    assert left_in(shop) == 60
    guard.spend(T(60))
    assert left_in(shop) == 100, "the amount of the chunk"
    guard.commit()
    pool.close()
    assert client.flush(5).pending == 0
    assert shop.money() == (120, 0)


def test_without_a_journal_nothing_is_written(shop: Shop) -> None:
    with shop.client(journal=False) as client, client.pool(T(400), action=ACTION) as pool:
        guard = pool.reserve(T(10)).acquire()
        guard.spend(T(3))
        assert shop.logs() == []
        guard.commit()
    assert shop.money() == (3, 0)


def test_a_guard_that_outlives_its_chunk_is_charged_once(client: cycles.Cycles, shop: Shop) -> None:
    pool = pool_of(client)
    guard = pool.reserve(T(10)).acquire()
    guard.spend(T(3))
    seal(guard)
    guard.spend(T(1))
    guard.commit()
    pool.close()
    assert client.flush(5).pending == 0
    assert shop.money() == (4, 0)


def seal_only(client: cycles.Cycles, pool: Any, guard: Any) -> None:
    """Seal the chunk of a guard, whose settlement has not begun."""
    state = state_of(pool)(runtime_of(client))
    with state.lock:
        state.seal(chunk_of(guard))


def settle_chunks(client: cycles.Cycles, pool: Any) -> None:
    """Begin the settlement of all chunks, in this thread."""
    settle_now(state_of(pool)(runtime_of(client)))


def after_a_kill(shop: Shop, tmp_path: Path) -> int:
    """Return what the next process would charge if this one was killed now."""
    records: dict[str, Record] = {}
    copy = tmp_path / "copy"
    while not _is_copied(shop.logs()[0].parent, copy):
        shutil.rmtree(copy)
    for path in copy.glob("v2-*.json"):
        record = decode(path.read_bytes())
        records[record.reservation_id] = record

    def save(record: Record) -> bool:
        records[record.reservation_id] = record
        return True

    recover_chunks(f"{copy}/", records.get, save)
    assert not list(copy.glob("pool-*"))
    list(recover_spend(f"{copy}/", records.__contains__, save))
    shutil.rmtree(copy)
    return sum(record.actual.amount for record in records.values())


def _is_copied(folder: Path, copy: Path) -> bool:
    """Copy a folder. Return False if a thread of the client has removed a file in the meantime."""
    try:
        shutil.copytree(folder, copy)
    except shutil.Error:
        return False
    return True


IN_SEALED_CHUNK: dict[str, tuple[Callable[[Any, Any, Any], object], int]] = {
    "settlement": (lambda client, pool, guard: settle_chunks(client, pool), 5 + 3 + 4),
    "spend": (lambda client, pool, guard: guard.spend(T(1)), 5 + 4 + 4),
    "commit": (lambda client, pool, guard: guard.commit(T(9)), 5 + 9 + 4),
    "release": (lambda client, pool, guard: guard.release(), 5 + 4),
}


@contextlib.contextmanager
def at_each_write(look: Callable[[], object]) -> Iterator[None]:
    """Call `look` before and after each change of the files of a journal by this thread; other threads wait."""
    looking = [threading.get_ident()]  # empty while `look` changes its own files
    may_change = threading.RLock()
    changes = [
        (ChunkLog, "write"),
        (Slot, "write"),
        (Slot, "end"),
        (RecordFiles, "write"),
        (RecordFiles, "remove"),
        (LockedFile, "remove"),
    ]

    def watched(change: Callable[..., object]) -> Callable[..., object]:
        def changed(*arguments: object) -> object:
            if threading.get_ident() not in looking:
                with may_change:
                    return change(*arguments)
            watch()
            result = change(*arguments)
            watch()
            return result

        return changed

    def watch() -> None:
        this_thread = looking.pop()
        look()
        looking.append(this_thread)

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in changes:
            patch.setattr(owner, name, watched(getattr(owner, name)))
        with may_change:
            yield


@pytest.mark.parametrize("slots", [1, 256])
@pytest.mark.parametrize("name", IN_SEALED_CHUNK)
def test_a_kill_between_two_writes_charges_once_what_outlives_its_chunk(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, slots: int
) -> None:
    """With one slot in a file, each guard has its own file."""
    monkeypatch.setattr("cycles._journal.files.spend._LAYOUTS", (Layout(slots, 1_024),))
    client = shop.client()
    call, after = IN_SEALED_CHUNK[name]
    shop.faults.status("event", 503, times=None)
    pool = pool_of(client)
    use(pool, 10, 5)
    first, second = (pool.reserve(T(10)).acquire() for _ in range(2))
    first.spend(T(3))
    second.spend(T(4))
    seal_only(client, pool, first)
    found: list[int] = []

    def look() -> None:
        if shop.logs():
            found.append(after_a_kill(shop, tmp_path))

    with at_each_write(look):
        call(client, pool, first)
    assert len(found) >= 4
    assert (found[0], found[-1]) == (12, after)
    assert set(found) <= set(range(min(12, after), max(12, after) + 1)), (
        "what has returned, and at most what was called"
    )
    if first.state == "active":
        first.release()
    second.release()
    shop.faults.clear()  # or closing the client waits for its flush timeout


def test_a_release_leaves_nothing_of_a_guard_that_outlived_its_chunk(client: cycles.Cycles, shop: Shop) -> None:
    pool = pool_of(client)
    guard = pool.reserve(T(10)).acquire()
    guard.spend(T(3))
    settle_chunks(client, pool)
    (log,) = shop.folder.rglob("spend-*.log")
    assert [decode(entry).actual for entry in read_entries(log.read_bytes())] == [T(3)]
    guard.release()
    assert read_entries(log.read_bytes()) == []


@ignore_dropped
def test_a_kill_charges_a_dropped_guard_whose_chunk_is_settled_before_it(
    client: cycles.Cycles, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    pool, other = pool_of(client), pool_of(client)
    other.reserve(T(1)).acquire().release()
    guard = pool.reserve(T(10)).acquire()
    guard.spend(T(3))
    with monkeypatch.context() as patch:
        patch.setattr("cycles._drivers.live_guards._thread.start_new_thread", refuse)
        del guard
        settle_chunks(client, pool)
    assert after_a_kill(shop, tmp_path) == 3
    pool.close()
    other.close()
    assert client.flush(5).pending == 0
    assert shop.money() == (3, 0)


@ignore_dropped
@pytest.mark.parametrize("policy", ["ALLOW_IF_AVAILABLE", "REJECT"])
def test_a_kill_in_an_outage_loses_nothing_of_a_dropped_guard_that_its_chunk_has_no_space_for(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: Any
) -> None:
    client = shop.client(retry_initial_delay=3600.0, flush_timeout=0.0)
    pool, other = pool_of(client, overage_policy=policy), pool_of(client)
    other.reserve(T(1)).acquire().release()
    guard = pool.reserve(T(10)).acquire()
    guard.spend(T(120))
    shop.faults.status("commit", 503, times=None)
    client.reserve(T(10), action=ACTION).acquire().commit(T(7))
    while shop.count("commit") < 2:
        client.flush(0.1)  # after this attempt nothing is tried for half an hour
    monkeypatch.setattr("_thread.start_new_thread", no_thread)
    del guard
    runtime_of(client).background.ends.run()
    assert after_a_kill(shop, tmp_path) == 120 + 7


@ignore_dropped
def test_a_kill_in_an_outage_loses_nothing_of_an_interrupted_commit_that_its_chunk_has_no_space_for(
    shop: Shop, tmp_path: Path
) -> None:
    client = shop.client(retry_initial_delay=3600.0, flush_timeout=0.0)
    pool = pool_of(client, max_held=4_000)
    guards = [pool.reserve(T(1)).acquire() for _ in range(160)]
    first = client.reserve(T(10), action=ACTION).acquire()
    for operation in ("commit", "event", "reserve"):
        shop.faults.status(operation, 503, times=None)
    first.commit(T(7))
    while shop.count("commit") < 2:
        client.flush(0.1)  # after this attempt no worker tries anything for half an hour
    number, interrupted, more = 0, 0, True
    while more:
        guard = guards[number]
        try:
            more = run_at("/cycles/_flows/pool/", number, interrupt, partial(guard.commit, T(2_000)))
        except KeyboardInterrupt:
            if guard.state == "active":
                guard.commit(T(2_000))
            else:
                interrupted += 1
        number += 1
        assert after_a_kill(shop, tmp_path) == 7 + 2_000 * number
    assert interrupted > 10


def test_a_log_that_returns_after_a_loss_of_power_charges_nothing_again(
    client: cycles.Cycles, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process died between the two writes, and another one has settled the events that were subtracted."""
    returned: list[bytes] = []
    remove = LockedFile.remove
    pool = pool_of(client)
    use(pool, 10, 5)
    guard = pool.reserve(T(10)).acquire()
    guard.spend(T(3))
    monkeypatch.setattr(ChunkLog, "write", lambda log, totals: None)
    monkeypatch.setattr(ChunkLog, "remove", lambda log: None)
    settle_chunks(client, pool)
    (log,) = shop.logs()

    def removed(file: LockedFile) -> None:
        returned.append(Path(file.path).read_bytes())
        remove(file)

    monkeypatch.setattr(LockedFile, "remove", removed)
    assert after_a_kill(shop, tmp_path) == 8
    assert recovered_record(log.read_bytes(), 0)[1] is not None
    assert recovered_record(returned[0], 0)[1] is None
    guard.release()


def test_an_event_waits_until_the_log_of_its_chunk_is_settled(
    client: cycles.Cycles, shop: Shop, tmp_path: Path
) -> None:
    """Another process is settling that log: without the entry it would charge the spend as well."""
    pool = pool_of(client)
    guard = pool.reserve(T(10)).acquire()
    guard.spend(T(3))
    (log,) = shop.logs()
    seal_only(client, pool, guard)
    guard.spend(T(1))
    copy = tmp_path / "copy"
    shutil.copytree(log.parent, copy)
    with pytest.raises(OSError, match="the log of its chunk is there"):
        list(recover_spend(f"{copy}/", lambda known: False, lambda record: True))
    assert list(copy.glob("spend-*.log"))
    (copy / log.name).unlink()
    assert [each.actual for each in recover_spend(f"{copy}/", lambda known: False, lambda record: True)] == [T(4)]
    guard.release()


def test_a_log_that_is_about_to_be_removed_has_nothing_that_is_also_written_ahead(
    client: cycles.Cycles, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill before its file is removed would charge the spend twice."""
    left: list[int] = []
    remove = ChunkLog.remove

    def watched(log: ChunkLog) -> None:
        left.append(left_in(shop))
        remove(log)

    monkeypatch.setattr(ChunkLog, "remove", watched)
    pool = pool_of(client)
    guard = pool.reserve(T(10)).acquire()
    guard.spend(T(3))
    pool.close()
    assert left == [0]
    assert len(list(shop.folder.rglob("spend-*.log"))) == 1
    guard.commit()
    assert client.flush(5).pending == 0
    assert shop.money() == (3, 0)


ENDS: dict[str, tuple[Callable[[Any], object], set[int], int]] = {
    "spend": (lambda guard: guard.spend(T(3)), {2, 5}, 5),
    "commit": (lambda guard: guard.commit(T(1)), {2, 1}, 1),
    "release": (lambda guard: guard.release(), {2, 0}, 0),
}


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("name", ENDS)
@ignore_dropped
def test_a_kill_at_any_point_leaves_the_amount_before_or_after(
    client: cycles.Cycles, shop: Shop, folder: str, name: str
) -> None:
    call, possible, after = ENDS[name]
    base = 0
    pool = pool_of(client, max_held=40_000)
    for number in range(LONGEST):
        guard = pool.reserve(T(5)).acquire()
        guard.spend(T(2))
        found: list[tuple[str, int]] = []
        look = lambda: found.append((guard.state, left_in(shop) - base))  # noqa: B023, E731
        more = run_at(f"/cycles/{folder}/", number, look, lambda: call(guard))  # noqa: B023
        assert {amount for _, amount in found} <= possible
        assert {amount for state, amount in found if state == "pooled"} <= {after}, "another thread sees the end"
        assert left_in(shop) == base + after
        if name == "spend":
            guard.commit()
        base += after
        if not more:
            return
    pytest.fail("the call never ends")


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("name", ENDS)
@ignore_dropped
def test_an_interrupt_leaves_nothing_ahead_of_a_guard_that_has_ended(
    client: cycles.Cycles, shop: Shop, folder: str, name: str
) -> None:
    call, possible, _ = ENDS[name]
    pool = pool_of(client, max_held=40_000)
    base = 0
    for number in range(LONGEST):
        guard = pool.reserve(T(5)).acquire()
        guard.spend(T(2))
        try:
            more = run_at(f"/cycles/{folder}/", number, interrupt, lambda: call(guard))  # noqa: B023
        except KeyboardInterrupt:
            more = True
        if guard.state == "active":
            with contextlib.suppress(cycles.GuardFinalizedError):  # the end was interrupted, and is carried out
                guard.commit() if name == "spend" else call(guard)
        guard = None
        use(pool, 5, 0)
        shop.until(lambda: pool.stats().live == T(0))
        assert left_in(shop) == pool.stats().spent.amount
        assert left_in(shop) - base in possible
        base = left_in(shop)
        if not more:
            return
    pytest.fail("the call never ends")


@ignore_dropped
def test_a_kill_in_the_middle_of_a_copy_leaves_the_state_before(client: cycles.Cycles, shop: Shop) -> None:
    """Also if an interrupt has kept the write before from being made."""
    pool = pool_of(client, max_held=40_000)
    for base, written in enumerate(range(len(encode(Totals()))), 1):
        use(pool, 5, 1)
        guard = pool.reserve(T(5)).acquire()
        log = chunk_of(guard).log
        with torn(log, 0), pytest.raises(SystemExit):
            guard.spend(T(2))
        with torn(log, written), pytest.raises(SystemExit):
            guard.spend(T(2))
        assert left_in(shop) == base
        guard.spend(T(1))
        assert left_in(shop) == base + 5
        guard.release()
        assert left_in(shop) == base
