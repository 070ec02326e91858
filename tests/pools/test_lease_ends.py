"""The leases of chunks on a virtual clock: idle pools, long guards, old chunks, and processes that were stopped."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cycles
from cycles._flows.pool import chunks as pool_chunks
from cycles._flows.reserve import open_lease

from .conftest import T
from .pool_use import pool_of
from .virtual_clock import VirtualClock

TTL_S = 20


class Shop:
    """A server and a client on one virtual clock."""

    def __init__(self, clock: VirtualClock, folder: Path) -> None:
        self.clock = clock
        self.server = cycles.EmbeddedServer(budgets={"tenant:acme": T(1_000_000)}, clock=clock.server)
        self.client = self.server.client(journal_dir=folder)
        clock.drives(self.client)

    def pool(self, **options: Any) -> Any:
        defaults: dict[str, Any] = {"chunk": T(100), "ttl_ms": TTL_S * 1000, "settle_ms": 4 * TTL_S * 1000}
        return pool_of(self.client, **{"max_held": 1_000, **defaults, **options})

    def use(self, pool: Any, estimate: int, actual: int, **options: Any) -> Any:
        with pool.reserve(T(estimate), **options) as guard:
            guard.commit(T(actual))
        return guard

    def count(self, operation: str) -> int:
        return len(self.server.requests.of(operation))

    def money(self) -> tuple[int, int]:
        """Return what is spent, and what is held."""
        balance = self.server.ledger.balance("tenant:acme", unit="TOKENS")
        assert balance.spent is not None
        assert balance.reserved is not None
        return balance.spent.amount, balance.reserved.amount


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    shop = Shop(VirtualClock(monkeypatch), tmp_path)
    with shop.server, shop.client:
        yield shop


def test_an_idle_pool_over_several_scopes_holds_nothing(shop: Shop) -> None:
    pool = shop.pool()
    guards = [shop.use(pool, 10, number, subject={"agent": f"a{number}"}) for number in range(1, 5)]
    assert shop.money() == (0, 400)
    shop.clock.advance(2 * TTL_S)
    assert {guard.state for guard in guards} == {"committed"}
    assert (shop.money(), pool.stats().held, pool.stats().chunks) == ((10, 0), T(0), 0)
    extends = shop.count("extend")
    shop.clock.advance(3 * TTL_S)
    assert shop.count("extend") == extends, "nothing is left to renew"
    assert shop.use(pool, 10, 1, subject={"agent": "a1"}).is_pooled, "the pool opens a chunk again when it is used"


def test_a_guard_whose_chunk_is_over_when_its_response_arrives_is_reserved_directly(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []

    async def slow(*arguments: Any) -> Any:
        opened.append(1)
        assert len(opened) < 5, "the caller would wait for one chunk after the other"
        lease = await open_lease(*arguments)
        shop.clock.jump(2 * TTL_S)
        return lease

    monkeypatch.setattr(pool_chunks, "open_lease", slow)
    pool = shop.pool()
    guard = pool.reserve(T(10)).acquire()
    assert (guard.is_pooled, len(opened)) == (False, 1)
    guard.commit(T(7))
    pool.close()
    assert shop.money()[0] == 7


def test_only_the_scopes_that_are_used_keep_their_chunks(shop: Shop) -> None:
    pool = shop.pool()
    idle = shop.use(pool, 10, 7, subject={"agent": "idle"})
    used = shop.use(pool, 1, 1, subject={"agent": "used"})
    for _ in range(2 * TTL_S):
        shop.clock.advance(1)
        shop.use(pool, 1, 1, subject={"agent": "used"})
    assert (idle.state, used.state) == ("committed", "pooled")
    assert shop.money() == (7, 100)


def test_a_chunk_opened_ahead_is_not_idle_while_another_one_is_used(shop: Shop) -> None:
    pool = shop.pool()
    shop.use(pool, 60, 60)
    shop.clock.settle()
    assert pool.stats().chunks == 2
    for _ in range(2 * TTL_S):
        shop.clock.advance(1)
        shop.use(pool, 1, 1)
    shop.clock.settle()
    assert (shop.count("reserve"), shop.count("release"), shop.count("commit")) == (2, 0, 1)
    shop.use(pool, 50, 50)
    assert shop.count("reserve") == 2, "the first chunk is used up and committed, and its successor was there"


def test_the_chunk_of_a_guard_that_lives_long_is_committed_before_its_lease_ends(shop: Shop) -> None:
    pool = shop.pool(settle_ms=TTL_S * 1000)
    short = shop.use(pool, 10, 7)
    long = pool.reserve(T(10)).acquire()
    shop.clock.advance(2 * TTL_S)
    assert (long.chunk.state, short.state, shop.count("commit")) == ("draining", "pooled", 0)
    shop.clock.advance(4 * TTL_S)
    assert (short.state, short.settlement.status) == ("committed", "committed"), "not an event: the lease was live"
    assert shop.count("extend") <= 10
    assert shop.money() == (7, 0)
    long.commit(T(5))
    assert long.settled(5).status == "recorded_as_event"
    assert shop.money() == (12, 0)


def test_the_ledger_learns_of_spend_after_settle_ms_at_the_latest(shop: Shop) -> None:
    settle_s = TTL_S // 2
    pool = shop.pool(settle_ms=settle_s * 1000)
    committed_s: dict[str, float] = {}
    opened_s: dict[str, float] = {}
    guards = []
    for second in itertools.count():
        guards.append(shop.use(pool, 1, 1))
        opened_s.setdefault(guards[-1].reservation_id, second)
        shop.clock.advance(1)
        for guard in guards:
            if guard.state == "committed":
                committed_s.setdefault(guard.reservation_id, second + 1)
        if len(committed_s) == 3:
            break
    assert all(committed_s[chunk] - opened_s[chunk] <= settle_s + 1 for chunk in committed_s)


@pytest.mark.parametrize(("ttl_s", "settle_s"), [(60, 30), (5, 20)])
def test_a_chunk_in_use_is_committed_after_four_ttls_and_after_30_seconds_at_the_latest(
    shop: Shop, ttl_s: int, settle_s: int
) -> None:
    pool = pool_of(shop.client, 13, ttl_ms=ttl_s * 1000)
    began_s = shop.clock.monotonic()
    first, seconds = shop.use(pool, 1, 0), 0
    while first.state == "pooled":
        shop.use(pool, 1, 0)
        shop.clock.advance(1)
        seconds += 1
    assert seconds <= settle_s + 1
    assert shop.clock.monotonic() - began_s >= settle_s
    reserved = [request.json["estimate"]["amount"] for request in shop.server.requests.of("reserve")]
    assert set(reserved) == {4}, "a quarter of what is held, rounded up"


@pytest.mark.parametrize(
    ("stopped_s", "status"),
    [(TTL_S + 1, "committed"), (TTL_S + 30, "recorded_as_event")],
    ids=["within the grace period", "after it"],
)
def test_a_process_that_was_stopped_beyond_the_lease_loses_no_amount(shop: Shop, stopped_s: int, status: str) -> None:
    pool = shop.pool()
    done = shop.use(pool, 10, 7)
    live = pool.reserve(T(10)).acquire()
    first = live.reservation_id
    shop.clock.jump(stopped_s)
    after = shop.use(pool, 10, 3)
    assert after.reservation_id != first, "no guard is admitted into a chunk whose lease is over"
    live.commit(T(5))
    shop.clock.settle()
    pool.close()
    assert (done.settlement.status, live.state, after.state) == (status, "committed", "committed")
    assert shop.money() == (15, 0)


def test_held_never_exceeds_max_held_while_time_passes(shop: Shop) -> None:
    pool = pool_of(shop.client, 200, chunk=T(50), ttl_ms=5_000, settle_ms=3_000)
    for number in range(120):
        shop.use(pool, 20, number % 30)
        held = shop.money()[1]
        assert held <= 200 + 20, "a guard that is reserved directly is not the pool's"
        assert pool.stats().held.amount <= 200
        shop.clock.advance(0.5)
    pool.close()
    assert shop.money() == (sum(number % 30 for number in range(120)), 0)
