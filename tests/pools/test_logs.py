"""What a pool does when the log of a chunk cannot be made, or is synced slowly."""

from __future__ import annotations

import asyncio
import errno
import threading
from typing import Any

import pytest

import cycles
from cycles._core.pool.chunk_record import recovered_record
from cycles._journal.files.locked_file import LockedFile
from cycles._journal.journal import Journal
from tests.support.inside import runtime_of, state_of

from .conftest import Shop
from .pool_use import estimates, pool_of, use


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Undone by the test when the disk has space again."""

    def make(_: Journal, __: Any) -> Any:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(Journal, "chunk_log", make)
    return monkeypatch


def test_a_chunk_is_opened_again_after_settle_ms(
    client: cycles.Cycles, shop: Shop, full_disk: pytest.MonkeyPatch
) -> None:
    pool = pool_of(client)
    assert [use(pool, 10, 5).is_pooled for _ in range(2)] == [False, False]
    assert estimates(shop) == [100, 10, 10]
    (sub,) = state_of(pool)(runtime_of(client)).subs.values()
    assert sub.direct_until_ms - runtime_of(client).blocking.clock.now_ms() > 20_000
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
    full_disk.setattr("cycles._flows.pool.chunks.DENIED_MS", 60_000.0)
    pool = pool_of(client, settle_ms=1)
    use(pool, 10, 5)
    (sub,) = state_of(pool)(runtime_of(client)).subs.values()
    assert sub.direct_until_ms - runtime_of(client).blocking.clock.now_ms() > 20_000


def test_a_commit_during_the_sync_of_another_one_waits_for_its_own(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """With durability ``disk``, a sync writes what the log had when it began, and perhaps nothing that came later."""
    begun, respond = threading.Event(), threading.Event()
    on_disk = [0]
    sync = LockedFile.sync

    def slow(file: LockedFile) -> None:
        content = sum_in(shop)
        sync(file)
        if not begun.is_set():
            begun.set()
            assert respond.wait(60)
        on_disk[0] = content

    client = shop.client(durability="disk")
    pool = pool_of(client)
    use(pool, 10, 5)
    monkeypatch.setattr(LockedFile, "sync", slow)
    found: list[int] = []

    def commit() -> None:
        use(pool, 10, 5)
        found.append(on_disk[0])

    first, second = threading.Thread(target=commit), threading.Thread(target=commit)
    first.start()
    assert begun.wait(60)
    second.start()
    shop.until(lambda: sum_in(shop) == 15)
    respond.set()
    first.join()
    second.join()
    assert max(found) == 15, "the second commit has returned"
    pool.close()
    assert shop.money() == (15, 0)


def test_a_commit_of_a_task_returns_when_the_disk_has_it(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    on_disk, sync = [0], LockedFile.sync

    def note(file: LockedFile) -> None:
        sync(file)
        on_disk.append(sum_in(shop))

    async def main() -> None:
        async with pool.reserve(cycles.tokens(10)) as guard:
            await guard.commit(cycles.tokens(5))
            assert on_disk[-1] == 5

    client = shop.client(durability="disk")
    pool = pool_of(client)
    monkeypatch.setattr(LockedFile, "sync", note)
    asyncio.run(main())
    pool.close()


def sum_in(shop: Shop) -> int:
    """Return what the log of the only chunk has."""
    (log,) = shop.logs()
    record = recovered_record(log.read_bytes(), 0)[1]
    return 0 if record is None else record.actual.amount


def test_missing_file_locks_are_reported_once_also_if_an_observer_uses_the_pool(
    client: cycles.Cycles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cycles._journal.files.locked_file.fcntl", None)
    details: list[str] = []

    def look(event: cycles.events.Event) -> None:
        if isinstance(event, cycles.events.JournalProblem):
            details.append(event.detail)
            use(pool, 10, 5)

    client.on_event(look)
    pool = pool_of(client)
    use(pool, 10, 5)
    assert [detail for detail in details if "guards of pools are reserved directly" in detail] == details[:1]
    pool.close()
