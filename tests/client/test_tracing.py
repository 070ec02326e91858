"""`client.trace_with`: what a tracer is told, what it may change, and that it breaks nothing."""

from __future__ import annotations

import contextlib
import pickle
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import cycles
from tests.client.conftest import World
from tests.support.waiting import PATIENCE_S, until

pytestmark = pytest.mark.anyio

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE_ID}-b7ad6b7169203331-00"


class Attempt:
    def __init__(self, calls: list[Any]) -> None:
        self.calls = calls
        self.headers = {"traceparent": PARENT, "tracestate": "a=b", "baggage": "secret=1"}

    def received(self, result: Any) -> None:
        self.calls.append((result.status, result.decision, result.error_type))


class Recorder:
    """A tracer, and the trace of its guards."""

    trace_id = TRACE_ID

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def begin(self, request: Any) -> Recorder:
        self.calls.append(("begin", request.action.name))
        return self

    @contextlib.contextmanager
    def sending(self, operation: str) -> Iterator[Attempt]:
        self.calls.append(operation)
        yield Attempt(self.calls)

    def opened(self, guard: Any) -> None:
        self.calls.append(("opened", guard.decision))

    def refused(self, error: BaseException) -> None:
        self.calls.append(("refused", type(error).__name__))

    def ended(self, guard: Any) -> None:
        self.calls.append(("ended", guard.state, guard.settlement and guard.settlement.status))

    def entered(self) -> str:
        self.calls.append("entered")
        return "token"

    def left(self, token: str) -> None:
        self.calls.append(("left", token))


@pytest.fixture
def tracer(client: cycles.Cycles) -> Recorder:
    recorder = Recorder()
    client.trace_with(recorder)
    return recorder


async def test_a_tracer_sees_the_life_of_a_guard(world: World, tracer: Recorder) -> None:
    async with world.enter(world.reserve(actual=cycles.tokens(7))):
        pass
    assert tracer.calls == [
        ("begin", "small-model"),
        "createReservation",
        (200, "ALLOW", None),
        ("opened", "ALLOW"),
        "entered",
        "commitReservation",
        (200, None, None),
        ("ended", "committed", "committed"),
        ("left", "token"),
    ]


async def test_a_tracer_sees_an_attempt_without_a_response(
    world: World, tracer: Recorder, server: cycles.EmbeddedServer
) -> None:
    guard = await world.acquire(world.reserve())
    tracer.calls.clear()
    server.faults.drop_response("commit")
    await world.get(guard.commit(cycles.tokens(7)))
    assert tracer.calls[:2] == ["commitReservation", (None, None, "TransportError")]
    assert ("ended", "pending", "pending") in tracer.calls


async def test_a_tracer_sees_a_denial_and_a_release(world: World, tracer: Recorder) -> None:
    with pytest.raises(cycles.BudgetExceededError):
        await world.acquire(world.reserve(cycles.tokens(10_000_000)))
    assert tracer.calls[1:] == [
        "createReservation",
        (409, None, "BUDGET_EXCEEDED"),
        ("refused", "BudgetExceededError"),
    ]
    tracer.calls.clear()
    guard = await world.acquire(world.reserve())
    await world.get(guard.release("not needed"))
    assert ("ended", "released", None) in tracer.calls


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("how", ["commit", "end of the block", "release"])
async def test_a_tracer_sees_the_end_of_a_guard_of_a_pool(
    client: cycles.Cycles, world: World, tracer: Recorder, how: str, is_first: bool
) -> None:
    with client.pool(cycles.tokens(1_000), chunk=cycles.tokens(500), action=("a", "chunk")) as pool:
        if not is_first:  # a guard that finds a chunk sends nothing
            pool.reserve(cycles.tokens(10)).acquire().release()
            tracer.calls.clear()
        async with world.enter(pool.reserve(cycles.tokens(10), action=("a", "mine"))) as guard:
            if how == "commit":
                await world.get(guard.commit(cycles.tokens(7)))
            elif how == "release":
                await world.get(guard.release())
            else:
                guard.spend(cycles.tokens(7))
        state = "released" if how == "release" else "pooled"
        ended = [call for call in tracer.calls if call[0] == "ended"]
        assert ended == [("ended", state, None if how == "release" else "pooled")]
        assert tracer.calls.count(("begin", "mine")) == 1


def test_a_tracer_sees_the_end_of_a_guard_of_a_pool_after_its_excess_is_charged(
    server: cycles.EmbeddedServer, client: cycles.Cycles, tracer: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    respond, handle = threading.Event(), server.handle

    def slow(request: Any) -> Any:
        if request.target != "/v1/reservations":  # also the commit of the chunk, whose trace ends after it
            assert respond.wait(PATIENCE_S)
        return handle(request)

    monkeypatch.setattr(server, "handle", slow)
    with client.pool(cycles.tokens(20), chunk=cycles.tokens(20), action=("a", "chunk")) as pool:
        guard = pool.reserve(cycles.tokens(10)).acquire()
        guard.commit(cycles.tokens(35))
        before = [call for call in tracer.calls if call[0] == "ended"]
        respond.set()
        until(lambda: [call for call in tracer.calls if call[0] == "ended"])
    assert before == []


class Charges(Recorder):
    """A tracer that reads what each guard was charged, as metrics do."""

    def ended(self, guard: Any) -> None:
        self.calls.append(("charged", guard.charged))


@pytest.mark.parametrize(("amount", "charged"), [(7, cycles.tokens(7)), (None, None)], ids=["commit", "release"])
async def test_a_tracer_sees_what_a_guard_was_charged(
    world: World, client: cycles.Cycles, amount: int | None, charged: Any
) -> None:
    client.trace_with(tracer := Charges())
    guard = await world.acquire(world.reserve())
    await world.get(guard.release() if amount is None else guard.commit(cycles.tokens(amount)))
    assert [call[1] for call in tracer.calls if call[0] == "charged"] == [charged]


def test_a_tracer_sees_what_the_chunk_of_a_guard_was_charged(client: cycles.Cycles) -> None:
    client.trace_with(tracer := Charges())
    with client.pool(cycles.tokens(20), chunk=cycles.tokens(20), action=("a", "chunk")) as pool:
        pool.reserve(cycles.tokens(10)).acquire().commit(cycles.tokens(4))
    until(lambda: len([call for call in tracer.calls if call[0] == "charged"]) == 2)
    # That of the guard, then that of its chunk, which is charged the amount.
    assert [call[1] for call in tracer.calls if call[0] == "charged"] == [None, cycles.tokens(4)]


async def test_requests_carry_the_headers_of_the_tracer_and_no_other(
    world: World, tracer: Recorder, server: cycles.EmbeddedServer
) -> None:
    guard = await world.acquire(world.reserve())
    assert guard.trace_id == TRACE_ID
    assert type(guard.trace_id) is str
    await world.get(guard.commit(cycles.tokens(1)))
    await world.get(world.operations.decide(cycles.tokens(1), action=("a", "b")))
    for request in server.requests[-3:]:
        assert request.headers["traceparent"] == PARENT
        assert request.headers["tracestate"] == "a=b"
        assert "baggage" not in request.headers


async def test_errors_and_events_have_the_trace_id_of_the_tracer_and_can_be_pickled(
    world: World, tracer: Recorder, events: list[Any]
) -> None:
    await world.acquire(world.reserve(shadow=True))
    assert {event.trace_id for event in events} == {TRACE_ID}
    assert type(pickle.loads(pickle.dumps(events[0])).trace_id) is str


def fail(*_: Any) -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize("failing", ["begin", "sending", "opened", "ended", "entered", "left"])
async def test_a_tracer_that_raises_is_logged_and_breaks_no_guard(
    world: World, tracer: Recorder, failing: str, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracer, failing, fail)
    async with world.enter(world.reserve(actual=cycles.tokens(7))) as guard:
        assert len(guard.trace_id) == 32
    assert guard.state == "committed"
    assert f"tracer failed in {failing}" in log.text


@pytest.mark.parametrize("failing", ["begin", "sending", "refused"])
async def test_a_tracer_that_raises_is_logged_and_changes_no_denial(
    world: World, tracer: Recorder, failing: str, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracer, failing, fail)
    with pytest.raises(cycles.BudgetExceededError):
        await world.acquire(world.reserve(cycles.tokens(10_000_000)))
    assert f"tracer failed in {failing}" in log.text


async def test_a_trace_id_that_is_none_is_ignored(world: World, tracer: Recorder) -> None:
    tracer.trace_id = "0" * 32
    guard = await world.acquire(world.reserve())
    assert guard.trace_id.strip("0")
    await world.get(guard.release())


async def test_a_block_of_a_generator_is_entered_at_each_step(client: cycles.Cycles, tracer: Recorder) -> None:
    @client.guarded(cycles.tokens(5), action=("a", "b"), actual=cycles.tokens(5))
    def steps() -> Iterator[int]:
        yield 1
        yield 2

    assert list(steps()) == [1, 2]
    assert tracer.calls.count("entered") == tracer.calls.count(("left", "token")) == 3


def test_a_second_tracer_is_rejected_until_the_first_is_removed(client: cycles.Cycles) -> None:
    remove = client.trace_with(Recorder())
    with pytest.raises(cycles.InvalidRequestError, match="has a tracer"):
        client.trace_with(Recorder())
    remove()
    later = Recorder()
    client.trace_with(later)
    remove()
    client.decide(cycles.tokens(1), action=("a", "b"))
    assert "decide" in later.calls


def test_something_that_is_no_tracer_is_rejected(client: cycles.Cycles) -> None:
    with pytest.raises(cycles.InvalidRequestError, match="begin and sending"):
        client.trace_with(object())  # type: ignore[arg-type]


def test_a_tracer_sees_the_end_of_a_chunk_that_the_close_settles(client: cycles.Cycles, tracer: Recorder) -> None:
    pool = client.pool(cycles.tokens(1_000), chunk=cycles.tokens(500), action=("a", "chunk"))
    with pool.reserve(cycles.tokens(10), action=("a", "mine")) as guard:
        guard.commit(cycles.tokens(3))
    tracer.calls.clear()
    client.close()
    assert tracer.calls == ["commitReservation", (200, None, None), ("ended", "committed", "committed")]


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_tracer_sees_what_interrupts_an_attempt(server: cycles.EmbeddedServer, kind: str) -> None:
    class Stop(BaseException):
        pass

    class Interrupted(Recorder):
        @contextlib.contextmanager
        def sending(self, operation: str) -> Iterator[Attempt]:
            try:
                yield Attempt(self.calls)
            except BaseException as error:
                self.calls.append(error)
                raise

    def stop() -> str:
        raise Stop

    with server.client(tenant="acme", api_key=stop, journal=False) as client:
        tracer, world = Interrupted(), World(kind, client)
        client.trace_with(tracer)
        with pytest.raises(Stop) as raised:
            await world.get(world.operations.decide(cycles.tokens(1), action=("a", "b")))
    assert tracer.calls == [raised.value]
