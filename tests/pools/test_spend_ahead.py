"""What a live guard of a pool has spent is in the log of its chunk, and a killed process is charged for it once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

import cycles
from cycles._core.pool.sums import Totals, encode
from cycles._journal.files.chunk_cells import ChunkLog
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


def test_the_spend_in_a_sealed_chunk_is_in_its_log_until_its_settlement_begins(
    client: cycles.Cycles, shop: Shop
) -> None:
    pool = pool_of(client)
    guard = pool.reserve(T(10)).acquire()
    guard.spend(T(3))
    state = state_of(pool)(runtime_of(client))
    with state.lock:
        state.seal(chunk_of(guard))
    guard.spend(T(1))
    assert left_in(shop) == 4
    guard.commit(T(2))
    pool.close()
    assert client.flush(5).pending == 0
    assert shop.money() == (2, 0)


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
        found: list[int] = []
        more = run_at(f"/cycles/{folder}/", number, lambda: found.append(left_in(shop)), lambda: call(guard))  # noqa: B023
        assert {amount - base for amount in found} <= possible
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
