"""Each option of a pool and of its guards has its effect, sync and async; so do the options of a view."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

import cycles
from tests.options.test_guards import OPTIONS, all_have_options, has_options
from tests.options.ways import SPENT, Place, T, Use
from tests.support.waiting import PATIENCE_S
from tests.support.worlds import ACTION

pytestmark = pytest.mark.anyio

IN_CHUNK: dict[str, Any] = {
    "ttl_ms": 7_000,
    "grace_period_ms": 3_000,
    "overage_policy": "ALLOW_WITH_OVERDRAFT",
    "metadata": {"run": 1},
}


async def close(use: Use, pool: Any) -> None:
    """Settle the chunks of a pool, and close it."""
    report = await use.world.get((pool.aio if use.place.is_async else pool).flush(timeout=PATIENCE_S))
    assert report.pending == 0
    await use.world.get(use.world.operations.flush(timeout=PATIENCE_S))  # what no chunk had space for
    await use.world.get(pool.aclose() if use.place.is_async else pool.close())


async def used(use: Use, amount: int = 10, of_guard: Any = None, **options: Any) -> Any:
    """Do the work with one guard of a new pool, close the pool, and return it."""
    given = {"action": ACTION, "chunk": T(150), **options}
    pool = use.world.client.pool(T(400), **given)
    async with use.world.enter(pool.reserve(T(amount), **(of_guard or {}))) as guard:
        use.do(guard)
    await close(use, pool)
    return pool


async def test_the_options_of_a_pool_are_those_of_its_chunks(place: Place) -> None:
    use = place.use()
    await used(use, action=("tool.call", "x"), subject={"agent": "bot"}, **IN_CHUNK, **OPTIONS)
    assert has_options(use, "reserve", "commit")
    body = use.content("reserve")
    assert {name: body[name] for name in IN_CHUNK} == IN_CHUNK
    assert (body["estimate"], body["action"]) == (T(150).to_dict(), {"kind": "tool.call", "name": "x"})
    assert body["subject"] == {"tenant": "acme", "agent": "bot"}
    assert use.content("commit")["actual"] == SPENT.to_dict()
    use = place.use()
    await used(use, chunk=None)  # a quarter of what is held
    assert use.content("reserve").keys() == {"idempotency_key", "subject", "action", "estimate", "ttl_ms"}
    assert (use.content("reserve")["estimate"], use.content("reserve")["ttl_ms"]) == (T(100).to_dict(), 60_000)


async def test_the_options_of_a_pool_are_those_of_what_no_chunk_has_space_for(place: Place) -> None:
    use = place.use()
    use.work = lambda guard: guard.spend(T(500))
    await used(use, **OPTIONS)
    assert {each.operation for each in use.sent} == {"reserve", "commit", "event"}
    assert all_have_options(use)
    assert use.content("event")["actual"] == T(350).to_dict()
    use = place.use()
    await used(use, 399, **OPTIONS)
    assert {each.operation for each in use.sent} >= {"reserve", "commit"}
    assert all_have_options(use)
    assert T(399).to_dict() in [each.body["estimate"] for each in use.of("reserve")]


async def test_the_options_of_a_view_are_those_of_its_pools(place: Place) -> None:
    policy = "ALLOW_WITH_OVERDRAFT"
    view = place.client().with_options(
        **OPTIONS, subject={"agent": "bot"}, overage_policy=policy, lease_policy="fail_on_finalize"
    )
    use = place.use(view)
    use.work = use.lose
    with pytest.raises(cycles.LeaseLostError):
        await used(use)
    assert use.content("reserve")["subject"] == {"tenant": "acme", "agent": "bot"}
    assert use.content("reserve")["overage_policy"] == policy
    assert all_have_options(use)


async def test_the_settings_of_a_client_are_those_of_its_pools(place: Place) -> None:
    settings: dict[str, Any] = {"agent": "bot", "timeout": OPTIONS["timeout"], "lease_policy": "fail_on_finalize"}
    use = place.use(place.client(**settings, default_headers=OPTIONS["extra_headers"]))
    use.work = use.lose
    with pytest.raises(cycles.LeaseLostError):
        await used(use)
    assert use.content("reserve")["subject"] == {"tenant": "acme", "agent": "bot"}
    assert all_have_options(use)
    use = place.use(place.client(shadow=True))
    await used(use)
    assert use.content("reserve")["dry_run"] is True
    use = place.use(place.client(on_observed="run"))
    use.server.ledger.set_tenant("acme", observe_mode="OBSERVE")
    try:
        await used(use)
    finally:
        use.server.ledger.set_tenant("acme", observe_mode="ENFORCE")
    assert use.state == "observed"


async def test_the_shadow_of_a_pool(place: Place) -> None:
    use = place.use()
    await used(use, shadow=True)
    assert use.content("reserve")["dry_run"] is True
    assert [each.operation for each in use.sent] == ["reserve"]


async def test_a_pool_that_may_run_without_a_server(place: Place) -> None:
    use = place.use()
    use.server.faults.refuse("reserve", times=None)
    await used(use, on_unavailable="allow")
    assert use.state == "unreserved"
    assert use.content("event")["actual"] == SPENT.to_dict()


async def test_the_limit_of_a_pool(place: Place) -> None:
    use = place.use()
    with pytest.raises(cycles.BudgetExceededError) as raised:
        await used(use, limit=T(9))
    assert (raised.value.code, use.sent) == ("POOL_LIMIT", [])


@pytest.mark.parametrize(
    ("of_pool", "of_guard"), [("fail_on_finalize", None), ("warn", "fail_on_finalize"), ("fail_on_finalize", "warn")]
)
async def test_the_lease_policy_of_a_guard_of_a_pool(place: Place, of_pool: Any, of_guard: Any) -> None:
    use = place.use()
    use.work = use.lose
    given = {"lease_policy": of_guard, "metadata": {"run": 1}}
    if of_guard == "warn":
        await used(use, of_guard=given, lease_policy=of_pool)
    else:
        with pytest.raises(cycles.LeaseLostError):
            await used(use, of_guard=given, lease_policy=of_pool)
    assert use.guard.lease_error is not None


@pytest.mark.parametrize("way", ["block", "function"])
async def test_the_options_of_a_guard_of_a_pool(place: Place, way: str) -> None:
    use, events = place.use(), list[Any]()
    use.world.client.on_event(lambda event: events.append(event) if type(event).__name__ == "PooledSettled" else None)
    use.work = lambda guard: None
    options: dict[str, Any] = {"action": ("tool.call", "x"), "subject": {"agent": "bot"}, "metadata": {"run": 1}}
    options["actual"] = T(9)
    if way == "block":
        await used(use, of_guard=options)
    else:
        pool = use.world.client.pool(T(400), action=ACTION)
        call = pool.guarded(T(10), **options)(use.world.function(lambda: use.do(cycles.current_guard())))
        await use.world.get(call())
        await close(use, pool)
    (event,) = events
    assert (event.actual, event.estimate, event.metadata) == (T(9), T(10), {"run": 1})
    assert (event.action, event.subject.agent) == (cycles.Action("tool.call", "x"), "bot")
    assert use.content("reserve")["subject"]["agent"] == "bot"
    assert use.content("commit")["actual"] == T(9).to_dict()


@pytest.mark.parametrize("way", ["block", "function"])
async def test_a_guard_of_a_pool_that_waits(place: Place, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cycles._flows.pool.chunks.DENIED_MS", 1.0)  # how long a denial is repeated without a request
    use = place.use()
    use.server.faults.status("reserve", 429, headers={"Retry-After": "0"})
    if way == "block":
        await used(use, of_guard={"wait": 30.0})
    else:
        pool = use.world.client.pool(T(400), action=ACTION)
        call = pool.guarded(T(10), wait=30.0)(use.world.function(lambda: use.do(cycles.current_guard())))
        await use.world.get(call())
        await close(use, pool)
    assert len(use.of("reserve")) == 2
    assert use.state == "active"


async def test_the_nearest_subject_of_a_guard_of_a_pool_wins(place: Place) -> None:
    use = place.use(place.client().with_options(subject={"agent": "of-view", "app": "of-view"}))
    pool = use.world.client.pool(T(400), action=ACTION, subject={"agent": "of-pool", "workflow": "of-pool"})
    agents = list[Any]()
    for around, own in ((None, None), ("around", None), ("another", None), ("around", "own")):
        with cycles.subject(agent=around) if around else contextlib.nullcontext():
            reservation = pool.reserve(T(10), subject={"agent": own} if own else None)
        async with use.world.enter(reservation) as guard:
            agents.append(guard.subject.agent)
            assert (guard.subject.workflow, guard.subject.app) == ("of-pool", "of-view")
            use.do(guard)
    await close(use, pool)
    assert agents == ["of-pool", "around", "another", "own"]
    assert [each.body["subject"]["agent"] for each in use.of("reserve")] == agents


async def test_the_time_of_a_flush_of_a_pool(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    use, times = place.use(), list[float]()

    async def flush(io: Any, state: Any, timeout_s: float, **_: Any) -> None:
        times.append(timeout_s)

    monkeypatch.setattr("cycles._client.pool.flush", flush)
    pool = use.world.client.pool(T(400), action=ACTION)
    operations = pool.aio if place.is_async else pool
    await use.world.get(operations.flush())
    await use.world.get(operations.flush(timeout=1.5))
    await use.world.get(operations.close())
    assert times == [10.0, 1.5, 0.0]  # the last one is the flush_timeout of the client
