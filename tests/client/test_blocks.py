"""How a block ends: every row of the table, in both worlds, over real HTTP."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

import cycles
from tests.support.waiting import Arrivals, set_by

from .conftest import ACTION, BUDGETS, World, held, spent

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def listening() -> Iterator[tuple[cycles.EmbeddedServer, str]]:
    server = cycles.EmbeddedServer(budgets={"tenant:acme": BUDGETS})
    with server.listen(port=0) as url:
        yield server, url
    server.close()


@pytest.fixture
def server(listening: tuple[cycles.EmbeddedServer, str]) -> cycles.EmbeddedServer:
    """One server for all, as good as new for each."""
    server, _ = listening
    server.ledger.set_budget("tenant:acme", cycles.tokens(1_000_000))
    server.requests.clear()
    server.faults.clear()
    return server


@pytest.fixture
def client(listening: tuple[cycles.EmbeddedServer, str], tmp_path: Path) -> Iterator[cycles.Cycles]:
    server, url = listening
    with cycles.Cycles(base_url=url, api_key=server.api_key, tenant="acme", journal_dir=tmp_path) as client:
        for left_by_the_test_before in client.reservations(status="ACTIVE"):
            client.release_reservation(left_by_the_test_before.reservation_id)
        server.requests.clear()
        yield client


@pytest.fixture
async def aclient(client: cycles.Cycles) -> AsyncIterator[cycles.Cycles]:
    """Its async connections are closed on the loop that opened them."""
    async with client:
        yield client


@pytest.fixture(params=["sync", "async"])
async def world(request: pytest.FixtureRequest, aclient: cycles.Cycles) -> World:
    return World(request.param, aclient)


def reserve(world: World, **options: Any) -> Any:
    return world.client.reserve(cycles.tokens(100), action=ACTION, **options)


def sent(server: Any) -> list[str]:
    """What was asked of the server, reserve aside."""
    return [request.operation for request in server.requests if request.operation not in ("reserve", "get")]


def reason(server: Any) -> str:
    return str(server.requests.of("release")[-1].json["reason"])


def committed(server: Any) -> dict[str, Any]:
    body: dict[str, Any] = server.requests.of("commit")[-1].json
    return body


async def test_committed_inside(world: World, server: Any) -> None:
    async with world.enter(reserve(world, actual=cycles.tokens(99))) as guard:
        settlement = await world.get(guard.commit(cycles.tokens(30), metadata={"page": 1}))
    assert (settlement.charged, settlement.released) == (cycles.tokens(30), cycles.tokens(70))
    assert guard.settlement is settlement
    assert (guard.state, sent(server), spent(server)) == ("committed", ["commit"], 30)
    assert committed(server)["metadata"] == {"page": 1}


async def test_released_inside(world: World, server: Any) -> None:
    async with world.enter(reserve(world, actual=cycles.tokens(99))) as guard:
        await world.get(guard.release("changed my mind"))
    assert (guard.state, sent(server), reason(server)) == ("released", ["release"], "changed my mind")


async def test_ends_normally_after_spend(world: World, server: Any) -> None:
    async with world.enter(reserve(world, actual=cycles.tokens(99))) as guard:
        guard.spend(cycles.tokens(10))
        guard.spend(cycles.tokens(15))
        assert guard.spent == cycles.tokens(25)
    assert (spent(server), held(server), sent(server)) == (25, 0, ["commit"])
    assert "metadata" not in committed(server)


@pytest.mark.parametrize("actual", [cycles.tokens(12), lambda usage: cycles.tokens(usage.tokens_output)])
async def test_ends_normally_with_actual(world: World, server: Any, actual: Any) -> None:
    async with world.enter(reserve(world, actual=actual)) as guard:
        guard.usage.add(tokens_output=12, model_version="m")
    metrics = committed(server)["metrics"]
    assert (spent(server), metrics["tokens_output"], metrics["model_version"]) == (12, 12, "m")
    assert type(metrics["latency_ms"]) is int


async def test_ends_normally_with_nothing_known(world: World, server: Any, log: Any) -> None:
    with pytest.warns(cycles.UncommittedGuardWarning, match="no cost was reported") as warned:
        async with world.enter(reserve(world)) as guard:
            pass
    assert Path(__file__).parents[1] in Path(warned[0].filename).parents  # it points to the user's code
    assert (guard.state, spent(server), held(server)) == ("released", 0, 0)
    assert reason(server) == "guard_exited_without_commit"
    assert "WARNING" in [record.levelname for record in log.records]


ENDINGS = [ValueError("mine"), asyncio.CancelledError(), KeyboardInterrupt(), GeneratorExit(), SystemExit(3)]


@pytest.mark.parametrize("raised", ENDINGS, ids=lambda raised: type(raised).__name__)
@pytest.mark.parametrize("fails", [False, True], ids=["released", "release-fails"])
async def test_raises_with_nothing_known(world: World, server: Any, raised: BaseException, fails: bool) -> None:
    if fails:
        server.faults.status("release", 409, body={"error": "RESERVATION_FINALIZED", "message": "x", "request_id": "r"})
    caught = None
    try:
        async with world.enter(reserve(world, actual=cycles.tokens(5))):
            raise raised
    except BaseException as error:
        caught = error
    assert caught is raised
    assert sent(server) == ["release"]
    assert type(raised).__name__ in reason(server)
    assert (spent(server), held(server)) == (0, 100 if fails else 0)


@pytest.mark.parametrize(
    ("spend", "actual"),
    [
        (lambda guard: guard.spend(cycles.tokens(8)), None),
        (lambda guard: guard.usage.add(tokens_output=8), lambda usage: cycles.tokens(usage.tokens_output)),
    ],
    ids=["spend", "usage"],
)
async def test_raises_with_spend_known(world: World, server: Any, spend: Callable[[Any], Any], actual: Any) -> None:
    with pytest.raises(ValueError, match="mine"):
        async with world.enter(reserve(world, actual=actual)) as guard:
            spend(guard)
            raise ValueError("mine")
    assert (spent(server), held(server), sent(server)) == (8, 0, ["commit"])
    assert committed(server)["metadata"] == {"outcome": "error"}


async def test_raises_after_commit(world: World, server: Any) -> None:
    with pytest.raises(ValueError, match="mine"):
        async with world.enter(reserve(world)) as guard:
            await world.get(guard.commit(cycles.tokens(3)))
            raise ValueError("mine")
    assert (spent(server), sent(server)) == (3, ["commit"])


@pytest.mark.parametrize("first", ["commit", "release"])
@pytest.mark.parametrize("second", ["commit", "release"])
async def test_a_guard_ends_once(world: World, server: Any, first: str, second: str) -> None:
    async with world.enter(reserve(world)) as guard:
        arguments = {"commit": (cycles.tokens(1),), "release": ()}
        await world.get(getattr(guard, first)(*arguments[first]))
        with pytest.raises(cycles.GuardFinalizedError):
            await world.get(getattr(guard, second)(*arguments[second]))
        with pytest.raises(cycles.GuardFinalizedError):
            guard.spend(cycles.tokens(1))
    assert sent(server) == [first]


def test_two_threads_racing_on_a_guard_settle_it_once(client: cycles.Cycles, server: Any) -> None:
    lost: list[Exception] = []
    start = threading.Barrier(8)

    def settle() -> None:
        start.wait()
        try:
            guard.commit(cycles.tokens(1))
        except cycles.GuardFinalizedError as error:
            lost.append(error)

    with client.reserve(cycles.tokens(100), action=ACTION) as guard:
        threads = [threading.Thread(target=settle) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(lost) == 7
    assert (sent(server), spent(server)) == (["commit"], 1)


async def test_a_rejected_commit_raises_its_typed_error(world: World, server: Any) -> None:
    with pytest.raises(cycles.BudgetExceededError):
        async with world.enter(reserve(world, overage_policy="REJECT")) as guard:
            await world.get(guard.commit(cycles.tokens(10**9)))
    assert guard.state == "rejected"


@pytest.mark.parametrize(
    "wrong",
    [
        {"actual": cycles.usd(1)},
        {"actual": 5},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
async def test_a_wrong_commit_sends_nothing_and_the_guard_stays(world: World, server: Any, wrong: Any) -> None:
    async with world.enter(reserve(world)) as guard:
        with pytest.raises(cycles.InvalidRequestError):
            await world.get(guard.commit(**{"actual": cycles.tokens(1), **wrong}))
        assert (guard.state, sent(server)) == ("active", [])
        await world.get(guard.commit(cycles.tokens(2)))
    assert spent(server) == 2


async def test_a_task_that_is_cancelled_twice_still_settles(aclient: cycles.Cycles, server: Any) -> None:
    server.faults.delay("commit", 60.0)
    inside, arrivals = asyncio.Event(), Arrivals(server)

    async def work() -> None:
        async with aclient.reserve(cycles.tokens(100), action=ACTION) as guard:
            guard.spend(cycles.tokens(6))
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await set_by(task, inside)
    task.cancel()
    await arrivals.arrives("commit")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await aclient.aio.flush(60)
    assert (spent(server), held(server)) == (6, 0)


async def test_an_anyio_scope_that_keeps_cancelling_still_settles(aclient: cycles.Cycles, server: Any) -> None:
    with anyio.CancelScope() as scope:
        async with aclient.reserve(cycles.tokens(100), action=ACTION) as guard:
            guard.spend(cycles.tokens(6))
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    await aclient.aio.flush(60)
    assert (spent(server), held(server)) == (6, 0)


async def test_a_caller_who_leaves_while_reserving_holds_nothing(aclient: cycles.Cycles, server: Any) -> None:
    server.faults.delay("reserve", 60.0)
    arrivals = Arrivals(server)
    task = asyncio.create_task(aclient.reserve(cycles.tokens(100), action=ACTION).__aenter__())
    await arrivals.arrives("reserve")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await arrivals.arrives("release")
    assert held(server) == 0


class Chunks:
    """An async stream that is no generator."""

    def __aiter__(self) -> Chunks:
        return self

    async def __anext__(self) -> int:
        return 1


def test_streams_left_open_settle_when_their_loop_ends(client: cycles.Cycles, server: Any) -> None:
    left_open: list[Any] = []

    @client.guarded(cycles.tokens(50), action=ACTION)
    async def count() -> AsyncIterator[int]:
        for number in range(5):
            cycles.current_guard().spend(cycles.tokens(1))  # type: ignore[union-attr]
            yield number

    async def main() -> None:
        guard = await client.reserve(cycles.tokens(50), action=ACTION)
        guard.spend(cycles.tokens(2))
        left_open.extend([count(), guard.wrap(Chunks())])
        for stream in left_open:
            await anext(stream)

    asyncio.run(main())
    client.flush(5)
    assert (spent(server), held(server)) == (3, 0)
