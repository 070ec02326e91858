"""Parameters of the methods of the client itself, and what its settings do to its connections and its close."""

from __future__ import annotations

import asyncio
import importlib
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from weakref import WeakSet

import httpx
import pytest

import cycles
from cycles._core.settlement.settlement import FlushReport
from cycles._drivers.pools import Checkpoints
from cycles._flows.heartbeat import send_heartbeat
from cycles._flows.io import run
from cycles.journal import MemoryStore
from tests.http.conftest import ANSWERS, CREATED
from tests.options.test_guards import EXPIRED
from tests.options.ways import SPENT, Place, T
from tests.support.deadlines import refuse_threads_of_schedulers
from tests.support.inside import runtime_of, state_of
from tests.support.stub import Stub, ok
from tests.support.worlds import ACTION, World

pytestmark = pytest.mark.anyio


def calls_of(monkeypatch: pytest.MonkeyPatch, path: str) -> list[Any]:
    """Return the arguments and keywords of each call of a class or function from now on."""
    module, _, name = path.rpartition(".")
    real, made = getattr(importlib.import_module(module), name), list[Any]()

    def note(*arguments: Any, **keywords: Any) -> Any:
        made.append((arguments, keywords))
        return real(*arguments, **keywords)

    monkeypatch.setattr(path, note)
    return made


async def close(client: cycles.Cycles, kind: str) -> None:
    """Close a client from sync or async code."""
    if kind == "async":
        await client.aclose()
    else:
        client.close()


async def test_the_timeout_of_a_flush(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    use, times = place.use(), list[float]()

    def flush(timeout_s: float, **_: Any) -> FlushReport:
        times.append(timeout_s)
        return FlushReport()

    monkeypatch.setattr(runtime_of(use.world.client).background, "flush", flush)
    await use.world.get(use.world.operations.flush())
    await use.world.get(use.world.operations.flush(timeout=1.5))
    assert times == [10.0, 1.5]


async def test_the_requests_of_a_flush_end_with_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_threads_of_schedulers(monkeypatch)  # so that the flush sends it
    use = place.use(place.client(retry_initial_delay=60.0))
    guard = await use.world.acquire(use.world.client.reserve(T(100), action=ACTION))
    use.server.faults.status("commit", 503)
    await use.world.get(guard.commit(SPENT))
    report = await use.world.get(use.world.operations.flush(timeout=2.0))
    assert (report.settled, report.pending) == (1, 0)
    first, second = use.of("commit")
    assert first.timeout["read"] == 5.0
    assert 0.0 < second.timeout["read"] <= 2.0


async def test_pending_lists_what_is_open_or_what_was_rejected(place: Place, tmp_path: Any) -> None:
    use = place.use(place.client(journal_dir=tmp_path))
    left, wrong = [await use.world.acquire(use.world.client.reserve(T(100), action=ACTION)) for _ in range(2)]
    # Else a busy machine may try it again before it is listed.
    use.server.faults.status("commit", 503, headers={"Retry-After": "600"})
    await use.world.get(left.commit(SPENT))
    use.server.faults.status("commit", 400, body={**EXPIRED, "error": "UNIT_MISMATCH"})
    with pytest.raises(cycles.UnitMismatchError):
        await use.world.get(wrong.commit(SPENT))
    for rejected, guard in ((False, left), (True, wrong)):
        found = await use.world.get(use.world.operations.pending(rejected=rejected))
        assert [each.reservation_id for each in found] == [guard.reservation_id]


async def test_the_parameters_of_on_threshold(place: Place) -> None:
    use, called = place.use(), list[Any]()
    scopes = {name: f"tenant:acme/agent:{name}-{place.kind}" for name in ("watched", "other")}
    for scope in scopes.values():
        place.server.ledger.set_budget(scope, T(100))
    remove = use.world.client.on_threshold((0.5, 0.9), called.append, scopes=[scopes["watched"].upper()])
    for name in ("other", "watched"):
        subject = {"agent": f"{name}-{place.kind}"}
        for amount in (60, 35):
            guard = await use.world.acquire(use.world.client.reserve(T(amount), action=ACTION, subject=subject))
            await use.world.get(guard.commit(T(amount)))
    assert [(each.scope, each.threshold) for each in called] == [(scopes["watched"], 0.5), (scopes["watched"], 0.9)]
    remove()


@pytest.mark.parametrize("what", ["events", "thresholds"])
async def test_an_observer_that_is_removed_leaves_the_others(place: Place, what: str) -> None:
    use, called = place.use(), list[Any]()
    scope = f"tenant:acme/agent:observed-{place.kind}"
    place.server.ledger.set_budget(scope, T(100))
    client = use.world.client
    removes = []
    for name in ("first", "second", "third"):
        note = partial(lambda name, event: called.append(name), name)
        removes.append(client.on_event(note) if what == "events" else client.on_threshold(0.5, note, [scope]))
    for _ in range(2):  # a second call changes nothing
        removes[1]()
    subject = {"agent": f"observed-{place.kind}"}
    guard = await use.world.acquire(use.world.client.reserve(T(60), action=ACTION, subject=subject))
    assert called == ["first", "third"]
    await use.world.get(guard.commit(T(60)))
    seen = len(called)
    removes[0]()
    removes[2]()
    await use.world.get((await use.world.acquire(client.reserve(T(40), action=ACTION, subject=subject))).release())
    assert len(called) == seen


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_the_parameters_of_embedded(kind: str) -> None:
    budgets = {"tenant:first": T(1_000), "tenant:second": T(2_000)}
    for tenant, most in ((None, 1_000), ("second", 2_000)):
        with cycles.Cycles.embedded(budgets, tenant, timeout=7.5) as client:
            world = World(kind, client)
            (balance,) = await world.all(world.operations.balances())
            assert (balance.allocated, client.config.timeout) == (T(most), 7.5)
            assert client.config.tenant == (tenant or "first")


def test_what_a_client_describes_of_the_users_clients(place: Place) -> None:
    assert place.client().describe()["http_client"] == "Client, AsyncClient"
    with cycles.Cycles(base_url="http://localhost:1", api_key="k", journal=False) as client:
        assert client.describe()["http_client"] is None


class Pool(ThreadPoolExecutor):
    """A pool that notes how it is shut down."""

    ended: Any = None

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.ended = (wait, cancel_futures)
        super().shutdown(wait, cancel_futures=cancel_futures)


@pytest.mark.parametrize(
    ("given", "ended"), [({}, (True, False)), ({"wait": False, "cancel_futures": True}, (False, True))]
)
def test_the_parameters_of_an_executor_with_a_context(given: Any, ended: Any) -> None:
    pool = Pool(1)
    executor = cycles.copy_context_to(pool)
    assert executor.submit(lambda *args, **kwargs: (args, kwargs), 1, second=2).result(60) == ((1,), {"second": 2})
    executor.shutdown(**given)
    assert pool.ended == ended
    pool.shutdown()


async def test_an_actual_that_needs_the_result_is_not_called_without_one(place: Place) -> None:
    """The usage that was counted is no result: what the call has cost is unknown, so its estimate is charged."""
    use = place.use()

    def body() -> None:
        guard: Any = cycles.current_guard()
        guard.usage.add(tokens_output=3)
        raise KeyError("mine")

    call = use.world.client.guarded(T(100), action=ACTION, actual=lambda result: T(3))(use.world.function(body))
    with pytest.raises(KeyError):
        await use.world.get(call())
    assert use.content("commit")["actual"] == T(100).to_dict()


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_the_limits_of_the_connections(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a client that makes its own connections: those of calls, and those of heartbeats."""
    made = calls_of(monkeypatch, f"cycles._drivers.channel.{'asynchronous' if kind == 'async' else 'blocking'}")
    extended = {"status": "ACTIVE", "expires_at_ms": 1_700_000_120_000, "remaining_ttl_ms": 60_000}
    for given, connect_s in ((1.5, 1.5), (60.0, 30.0)):
        settings: dict[str, Any] = {"connect_timeout": given, "timeout": 30.0, "max_connections": 3}
        with Stub(ok({"decision": "ALLOW"}), ok(extended)) as stub:
            client = cycles.Cycles(base_url=stub.url, api_key="k", tenant="acme", journal=False, **settings)
            world = World(kind, client)
            await world.get(world.operations.decide(T(1), action=ACTION))
            await world.get(world.operations.extend_reservation("r-1", 1_000))
            await close(client, kind)
        assert [arguments[0].name for arguments, _ in made] == [stub.url, stub.url]
        limits = {"client": None, "connect_timeout_s": connect_s}
        assert [keywords for _, keywords in made] == [
            {**limits, "max_connections": 3},
            {**limits, "max_connections": 32},
        ]
        made.clear()


async def test_the_times_of_a_users_client(place: Place) -> None:
    client, patient = place.client(connect_timeout=1.5, timeout=20.0), place.client(timeout=45.0)
    seen = {}
    for name, view in (("client", client), ("quick", client.with_options(timeout=0.75)), ("patient", patient)):
        use = place.use(view)
        guard = await use.world.acquire(use.world.client.reserve(T(9), action=ACTION))
        await use.world.get(guard.extend())
        await use.world.get(guard.release())
        seen[name] = [(each.operation, each.timeout) for each in use.sent]
    for name, connect_s, timeout_s, extend_s in (
        ("client", 1.5, 20.0, 20.0),
        ("quick", 0.75, 0.75, 0.75),
        ("patient", 2.0, 45.0, 30.0),
    ):
        times = {"connect": connect_s, "read": timeout_s, "write": timeout_s, "pool": 30.0}
        extend = {**times, "pool": extend_s}  # it waits for a connection no longer than for its response
        assert seen[name] == [("reserve", times), ("extend", extend), ("release", times)]


async def test_a_heartbeat_has_the_time_that_its_lease_leaves_it(place: Place) -> None:
    use = place.use(place.client(timeout=50.0))
    guard = await use.world.acquire(use.world.client.reserve(T(9), action=ACTION, ttl_ms=40_000, timeout=45.0))
    runtime, heartbeat = runtime_of(use.world.client), state_of(guard).heartbeat
    if place.is_async:
        await send_heartbeat(runtime.tasks(), heartbeat)
    else:
        run(send_heartbeat(runtime.blocking, heartbeat))
    (extend,) = use.of("extend")
    assert extend.is_async is place.is_async
    assert 4.0 < extend.timeout["read"] <= 5.0  # an eighth of the lease
    assert extend.timeout["read"] == extend.timeout["write"] == extend.timeout["pool"]
    assert extend.timeout["connect"] == 2.0
    await use.world.get(guard.release())


async def test_the_time_of_a_close(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    client, times = place.client(flush_timeout=50.0), list[float]()

    def flush(timeout_s: float, **_: Any) -> FlushReport:
        times.append(timeout_s)
        return FlushReport()

    async def drain(self: Any, timeout_s: float) -> None:
        drained.append(timeout_s)

    drained = list[float]()
    monkeypatch.setattr("cycles._drivers.io.tasks.TaskIo.drain", drain)
    monkeypatch.setattr(runtime_of(client).background, "flush", flush)
    await close(client, place.kind)
    assert drained == ([50.0] if place.is_async else [])  # the tasks of the loop first
    assert len(times) == 1
    assert 5.0 < times[0] <= 50.0  # what the close has used of it before


def test_the_pauses_between_the_attempts_of_a_settlement(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    made = calls_of(monkeypatch, "cycles._drivers.work.queue.RetrySchedule")
    runtime_of(place.client(retry_initial_delay=7.0, retry_max_delay=70.0))
    assert [arguments[:2] for arguments, _ in made] == [(7.0, 70.0)]


class Store(MemoryStore):
    """A store that notes how it is bound."""

    bound: Any = None

    def bind(self, partition: str, *, durability: Any = None, timeout_s: float = 0.0) -> Any:
        self.bound = (durability, timeout_s)
        return self


def test_the_time_between_two_checkpoints() -> None:
    class Fake:
        """A scheduler that notes when it is to call."""

        def __init__(self) -> None:
            self.times = list[float]()

        def worker_pool(self, name: str, size: int) -> None:
            pass

        def at(self, when_s: float, job: Any, pool: Any) -> object:
            self.times.append(when_s)
            return job

    scheduler: Any = Fake()
    shared: Any = None
    before = time.monotonic()
    checkpoints = Checkpoints(scheduler, shared, 7_000, WeakSet())
    checkpoints.start()
    checkpoints.start()  # the timer runs
    (when_s,) = scheduler.times
    assert before + 7.0 <= when_s <= time.monotonic() + 7.0


def test_the_journal_has_its_settings(place: Place, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    files, shared = (calls_of(monkeypatch, f"cycles._journal.open.{name}") for name in ("Journal", "StoreJournal"))
    checkpoints = calls_of(monkeypatch, "cycles._drivers.pools.Checkpoints")
    store = Store()
    settings: dict[str, Any] = {"journal_store": store, "journal_claim_ms": 7_000, "journal_store_timeout": 1.25}
    settings |= {"journal_outage": "memory", "journal_checkpoint_ms": 70, "durability": "disk", "journal_dir": tmp_path}
    client = place.client(**settings)
    assert runtime_of(client).pools
    assert store.bound == ("disk", 1.25)
    assert (files[0][0][0], files[0][1]["durability"]) == (tmp_path, "disk")
    of_store = shared[0][1]
    assert (of_store["claim_ms"], of_store["timeout_s"], of_store["outage"]) == (7_000, 1.25, "memory")
    assert checkpoints[0][0][2] == 70


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("own", [True, False])
async def test_a_guard_that_ends_after_the_close_leaves_no_connection_open(kind: str, own: bool) -> None:
    with Stub(ok(CREATED), ok(ANSWERS["commit"])) as stub:
        users: dict[str, Any] = {"http_client": httpx.Client(), "async_http_client": httpx.AsyncClient()}
        given = {} if own else users
        client = cycles.Cycles(base_url=stub.url, api_key="k", tenant="acme", journal=False, max_retries=0, **given)
        world = World(kind, client)
        guard = await world.acquire(world.reserve())
        await close(client, kind)
        assert (await world.get(guard.commit(SPENT))).status == "committed"
        assert [each.is_closed for each in users.values()] == [False, False]
        users["http_client"].close()
        await users["async_http_client"].aclose()
        await asyncio.to_thread(stub.wait_for, lambda stub: stub.open == 0)
        assert stub.connections == (2 if own else 1)


async def test_a_close_of_threads_leaves_the_connections_of_a_loop_that_runs() -> None:
    with Stub(ok(CREATED), ok(ANSWERS["commit"])) as stub:
        client = cycles.Cycles(base_url=stub.url, api_key="k", tenant="acme", journal=False, max_retries=0)
        world = World("async", client)
        guard = await world.acquire(world.reserve())
        client.close()
        assert (await guard.commit(SPENT)).status == "committed"
        assert stub.connections == 1
        await client.aclose()
        await asyncio.to_thread(stub.wait_for, lambda stub: stub.open == 0)


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("given", ["http_client", "async_http_client"])
async def test_heartbeats_have_separate_connections_unless_the_users_client_sends_them(
    kind: str, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = calls_of(monkeypatch, f"cycles._drivers.channel.{'asynchronous' if kind == 'async' else 'blocking'}")
    users: dict[str, Any] = {"http_client": httpx.Client(), "async_http_client": httpx.AsyncClient()}
    own = (given == "http_client") is (kind == "async")
    with Stub(ok(CREATED), ok(ANSWERS["extend"]), ok(ANSWERS["commit"])) as stub:
        settings: dict[str, Any] = {given: users[given], "max_connections": 3}
        client = cycles.Cycles(base_url=stub.url, api_key="k", tenant="acme", journal=False, **settings)
        world = World(kind, client)
        guard = await world.acquire(world.reserve())
        await world.get(guard.extend())
        await world.get(guard.commit(SPENT))
        await close(client, kind)
        users["http_client"].close()
        await users["async_http_client"].aclose()
    assert [keywords["client"] for _, keywords in made] == ([None, None] if own else [users[given]])
    assert [keywords["max_connections"] for _, keywords in made] == ([3, 32] if own else [3])
