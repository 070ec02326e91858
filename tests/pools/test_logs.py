"""What a pool does when the log of a chunk cannot be made."""

from __future__ import annotations

import errno
from typing import Any

import pytest

import cycles
from cycles._journal.pool_log import ChunkLogs

from .conftest import Shop
from .pool_use import estimates, pool_of, use


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Undone by the test when the disk has space again."""

    def make(_: ChunkLogs, __: Any) -> Any:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(ChunkLogs, "make", make)
    return monkeypatch


def test_a_chunk_is_opened_again_after_settle_ms(
    client: cycles.Cycles, shop: Shop, full_disk: pytest.MonkeyPatch
) -> None:
    pool = pool_of(client)
    assert [use(pool, 10, 5).is_pooled for _ in range(2)] == [False, False]
    assert estimates(shop) == [100, 10, 10]
    (sub,) = pool._state(client._runtime()).subs.values()
    assert sub.direct_until_ms - client._runtime().blocking.clock.now_ms() > 20_000
    sub.direct_until_ms = 0.0
    assert not use(pool, 10, 5).is_pooled, "the disk is still full"
    full_disk.undo()
    assert not use(pool, 10, 5).is_pooled, "it is not tried for each guard"
    sub.direct_until_ms = 0.0
    assert use(pool, 10, 5).is_pooled
    pool.close()
    assert shop.money() == (25, 0)


def test_short_settle_ms_does_not_try_it_for_each_guard(
    client: cycles.Cycles, shop: Shop, full_disk: pytest.MonkeyPatch
) -> None:
    pool = pool_of(client, settle_ms=1)
    use(pool, 10, 5)
    (sub,) = pool._state(client._runtime()).subs.values()
    assert sub.direct_until_ms - client._runtime().blocking.clock.now_ms() > 500
