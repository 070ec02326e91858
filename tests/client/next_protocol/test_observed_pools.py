"""Pools of a tenant in observe mode: the server holds no chunk, so each guard is observed separately."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cycles
from tests.client.conftest import World, held, spent
from tests.client.next_protocol.conftest import MAIL
from tests.support.inside import runtime_of, state_of

pytestmark = pytest.mark.anyio
T = cycles.tokens


@pytest.fixture
def observed(server: cycles.EmbeddedServer) -> cycles.EmbeddedServer:
    server.ledger.set_tenant("acme", observe_mode="OBSERVE")
    return server


@pytest.fixture
def used(world: World, observed: cycles.EmbeddedServer, tmp_path: Path) -> Iterator[World]:
    with observed.client(tenant="acme", journal_dir=tmp_path, on_observed="run") as client:
        yield World("async" if world.is_async else "sync", client)


def estimates(server: cycles.EmbeddedServer) -> list[int]:
    bodies: list[Any] = [request.json for request in server.requests.of("reserve")]
    return [body["estimate"]["amount"] for body in bodies]


async def test_each_guard_is_observed_after_one_chunk_was(used: World, observed: cycles.EmbeddedServer) -> None:
    pool = used.client.pool(T(400), action=MAIL)
    for _ in range(2):
        async with used.enter(pool.reserve(T(10))) as guard:
            assert (guard.state, guard.decision, guard.is_pooled) == ("observed", "ALLOW", False)
            assert (await used.get(guard.commit(T(4)))).status == "shadow"
    assert estimates(observed) == [100, 10, 10]
    stats = pool.stats()
    assert (stats.direct, stats.spent, stats.held) == (2, T(8), T(0))
    assert (spent(observed), held(observed)) == (0, 0)


async def test_an_observed_guard_counts_toward_the_limit(used: World) -> None:
    pool = used.client.pool(T(400), action=MAIL, limit=T(15))
    async with used.enter(pool.reserve(T(10))) as guard:
        assert pool.stats().live == T(10)
        with pytest.raises(cycles.BudgetExceededError) as raised:
            await used.acquire(pool.reserve(T(10)))
        assert raised.value.code == "POOL_LIMIT"
        await used.get(guard.commit(T(4)))
    assert pool.stats().live == T(0)


async def test_a_chunk_is_reserved_again_after_settle_ms(used: World, observed: cycles.EmbeddedServer) -> None:
    pool = used.client.pool(T(400), action=MAIL)
    async with used.enter(pool.reserve(T(10), actual=T(4))):
        observed.ledger.set_tenant("acme", observe_mode="ENFORCE")
    (sub,) = state_of(pool)(runtime_of(used.client)).subs.values()
    assert sub.direct_until_ms - runtime_of(used.client).blocking.clock.now_ms() > 20_000
    sub.direct_until_ms = 0.0
    async with used.enter(pool.reserve(T(10), actual=T(4))) as guard:
        assert guard.is_pooled
    assert estimates(observed)[:3] == [100, 10, 100]


async def test_the_error_names_the_setting_of_the_client(world: World, observed: cycles.EmbeddedServer) -> None:
    pool = world.client.pool(T(400), action=MAIL)
    with pytest.raises(cycles.ObservedReservationError) as raised:
        await world.acquire(pool.reserve(T(10)))
    assert 'on_observed="run" to cycles.Cycles(...)' in str(raised.value.hint)
