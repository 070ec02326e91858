"""Who pays for a call, when it ends, and what the ledger gets: calls without an SDK, in threads and in tasks."""

from __future__ import annotations

import asyncio
import inspect
import json
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import cycles
from cycles._flows.io import run
from cycles.providers import _settle, paid_by
from cycles.providers._call import Call, End
from cycles.providers._endpoints import find
from cycles.providers._held import HeldResponses
from cycles.providers._meter import make_meter
from cycles.providers._queue import Source, admissions_of
from cycles.providers._settle import TASK, THREAD, Caller, end_call, end_dropped, open_call
from tests.providers.admissions import BOOK, TOKEN, dollars
from tests.support.deadlines import no_thread
from tests.support.inside import runtime_of
from tests.support.requests import Requests
from tests.support.waiting import PATIENCE_S, until

ESTIMATED = {"actual_source": "estimate"}


class World(Requests):
    """One client whose calls are made by threads or by tasks. A token costs 1,000 microcents, the prompt nothing."""

    def __init__(self, server: cycles.EmbeddedServer, *, is_async: bool) -> None:
        self.server = server
        self.client = server.client(tenant="acme", journal=False)
        self.is_async = is_async
        self.caller: Caller = TASK if is_async else THREAD

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a scenario. In a thread nothing of it suspends."""
        return asyncio.run(work) if self.is_async else run(work)

    def call(self, limit: int | None = 10, *, stream: bool = False, on_error: Any = None, **options: Any) -> Call:
        """Describe a call with an output limit."""
        given = {"client": self.client, "prices": BOOK, "min_output_tokens": 1, "wait": 0, **options}
        path = options.pop("path", "/chat/completions")
        given.pop("path", None)
        body = {"model": "m", "messages": [], **options.pop("body", {})} | (
            {} if limit is None else {"max_tokens": limit}
        )
        given.pop("body", None)
        endpoint: Any = find("openai", "POST", path)
        meter = make_meter("openai", "openai", given, on_error=on_error)
        made = Call(meter, endpoint, path, body, stream=stream, url="")
        made.reserved = made.estimate()
        return made

    @asynccontextmanager
    async def guard(self, tokens: int, **options: Any) -> AsyncIterator[Any]:
        """Reserve for the work around some calls."""
        reservation = self.client.reserve(dollars(tokens), action=("agent", "run"), **options)
        if self.is_async:
            async with reservation as guard:
                yield guard
        else:
            with reservation as guard:
                yield guard

    async def respond(self, call: Call, tokens: int) -> None:
        """End a call whose response has made some tokens."""
        call.attempts = 1
        call.whole(json.dumps({"model": "m", "usage": {"prompt_tokens": 0, "completion_tokens": tokens}}).encode())
        await self.caller.end(call)

    @property
    def tokens(self) -> list[int]:
        """What was reserved, in tokens."""
        return [amount // TOKEN for amount in self.reserved]

    @property
    def charged(self) -> list[int]:
        """What was committed, in tokens."""
        return [amount // TOKEN for amount, _ in self.commits]


async def done(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


async def settle(guard: Any) -> None:
    """Commit what a guard has spent."""
    await done(guard.commit(guard.spent or dollars(0)))


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    budgets: list[Any] = [dollars(1_000), cycles.tokens(10**6)]
    with cycles.EmbeddedServer({"tenant:acme": budgets}) as server:
        made = World(server, is_async=request.param)
        yield made
        made.client.close()


# --- who pays


@pytest.mark.parametrize(
    ("around", "limit", "options", "reserved", "spent"),
    [
        (10, 10, {"within": "enclosing"}, [10], 7),
        (9, 10, {"within": "enclosing"}, [9, 10], None),
        (10, 10, {}, [10, 10], None),
        (10, 10, {"within": "enclosing", "unit": "TOKENS"}, [10, None], None),
    ],
)
def test_a_guard_pays_for_a_call_that_fits_in_it(
    world: World, around: int, limit: int, options: dict[str, Any], reserved: list[int | None], spent: int | None
) -> None:
    async def scenario() -> None:
        async with world.guard(around) as guard:
            call = world.call(limit, **options)
            assert await world.caller.open(call) is None
            await world.respond(call, 7)
            assert guard.spent == (None if spent is None else dollars(spent))
            assert guard.usage.tokens_output == (spent or 0)
            await settle(guard)

    world.run(scenario())
    assert [tokens for tokens, expected in zip(world.tokens, reserved, strict=True) if expected is not None] == [
        each for each in reserved if each is not None
    ]


def test_a_kill_after_a_response_charges_its_cost_and_not_its_bound(world: World, tmp_path: Path) -> None:
    world.client.close()
    world.client = world.server.client(tenant="acme", journal_dir=tmp_path / "killed")

    async def scenario() -> None:
        async with world.guard(30) as guard:
            call = world.call(10, within="enclosing")
            await world.caller.open(call)
            await world.respond(call, 7)
            shutil.copytree(tmp_path / "killed", tmp_path / "next")  # as a process that was killed now leaves it
            with world.server.client(tenant="acme", journal_dir=tmp_path / "next") as client:
                assert client.flush().pending == 0
            assert world.charged == [7]
            with pytest.raises(cycles.IdempotencyMismatchError):  # the killed process is only assumed
                await settle(guard)

    world.run(scenario())


def test_what_calls_in_flight_may_cost_and_what_was_spent_is_not_left_for_others(world: World) -> None:
    async def scenario() -> None:
        async with world.guard(30) as guard:
            first, second, third, fourth = (world.call(10, within="enclosing") for _ in range(4))
            for call in (first, second, third):
                await world.caller.open(call)
            assert world.tokens == [30]
            await world.caller.open(fourth)  # nothing is left for it
            assert world.tokens == [30, 10]
            await world.respond(first, 4)
            await world.caller.end(second, None, ValueError())  # it was not sent, and costs nothing
            await world.respond(third, 6)
            assert guard.spent == dollars(10)
            sixth, seventh = world.call(20, within="enclosing"), world.call(1, within="enclosing")
            await world.caller.open(sixth)
            assert world.tokens == [30, 10]
            await world.caller.open(seventh)
            assert world.tokens == [30, 10, 1]
            for call in (fourth, sixth, seventh):
                await world.respond(call, 1)
            await settle(guard)

    world.run(scenario())
    assert world.charged == [1, 1, 11]


@pytest.mark.parametrize(
    ("around", "options", "limits"),
    [
        (16_384, {}, {"max_completion_tokens": 16_384}),
        (16_383, {}, None),
        (16_384, {"max_output_tokens": 20_000}, None),
        (16_384, {"min_output_tokens": None}, None),
        (16_384, {"path": "/embeddings"}, {}),
    ],
)
def test_a_call_without_a_limit_gets_the_one_for_which_its_guard_can_pay(
    world: World, around: int, options: dict[str, Any], limits: dict[str, int] | None
) -> None:
    world.server.ledger.set_budget("tenant:acme", dollars(10**7))

    async def scenario() -> None:
        async with world.guard(around) as guard:
            call = world.call(None, within="enclosing", **options)
            cap = await world.caller.open(call)
            assert len(world.tokens) == (2 if limits is None else 1)
            if limits is not None:
                assert call.limits(cap) == limits
            await world.respond(call, 0)
            await settle(guard)

    world.run(scenario())


def test_a_lost_call_that_a_guard_pays_costs_the_bound_that_was_left_for_it(world: World) -> None:
    world.server.ledger.set_budget("tenant:acme", dollars(10**7))

    async def scenario() -> None:
        async with world.guard(16_384) as guard:
            call = world.call(None, within="enclosing")
            call.limits(await world.caller.open(call))
            call.attempts = 1
            await world.caller.end(call, None, TimeoutError())
            assert guard.spent == dollars(16_384)
            await settle(guard)

    world.run(scenario())
    assert (world.tokens, world.charged) == ([16_384], [16_384])


def test_a_call_has_the_caps_of_the_guard_that_pays(world: World) -> None:
    world.server.ledger.set_budget("tenant:acme", dollars(1_000), caps={"max_tokens": 3})

    async def scenario() -> None:
        async with world.guard(100) as guard:
            inside, own = world.call(within="enclosing"), world.call()
            assert [await world.caller.open(call) for call in (inside, own)] == [3, 3]
            for call in (inside, own):
                await world.respond(call, 1)
            await settle(guard)

    world.run(scenario())


@pytest.mark.parametrize("held", [True, False])
def test_a_response_made_in_the_background_is_not_paid_by_a_guard_that_may_end_before_it(
    world: World, held: bool
) -> None:
    async def scenario() -> None:
        async with world.guard(100) as guard:
            body = {"background": True, "max_output_tokens": 9}
            call = world.call(None, within="enclosing", path="/responses", body=body)
            call.held_in = HeldResponses() if held else None
            await world.caller.open(call)
            assert len(world.tokens) == 1 + held
            await world.respond(call, 1)
            await settle(guard)

    world.run(scenario())


def test_a_guard_that_has_ended_pays_for_no_call_and_a_shadow_charges_none(world: World) -> None:
    async def scenario() -> None:
        async with world.guard(100) as guard:
            await done(guard.commit(dollars(1)))
            call = world.call(within="enclosing")
            await world.caller.open(call)
            await world.respond(call, 2)
        async with world.guard(100, shadow=True) as guard:
            call = world.call(within="enclosing")
            await world.caller.open(call)
            await world.respond(call, 3)
            assert guard.spent == dollars(3)

    world.run(scenario())
    assert world.charged == [1, 2]


# --- what the ledger gets


@pytest.mark.parametrize("left", [False, True])
def test_a_call_that_outlives_its_guard_is_an_event(world: World, left: bool) -> None:
    async def scenario() -> None:
        call = world.call(within="enclosing", stream=left, action=("tool", "x"))
        async with world.guard(100, subject={"tenant": "acme", "agent": "a"}) as guard:
            await world.caller.open(call)
            await done(guard.commit(dollars(1)))
        if left:
            call.attempts = 1
            call.stream().feed(b'data: {"choices":[{"delta":{"content":"abcdef"}}]}\n\n')
            await world.caller.end(call, "closed")
        else:
            await world.respond(call, 7)

    world.run(scenario())
    [event] = world.server.requests.of("event")
    body = event.json
    assert body["actual"] == {"unit": "USD_MICROCENTS", "amount": (2 if left else 7) * TOKEN}
    assert (body["action"], body["subject"]) == ({"kind": "tool", "name": "x"}, {"tenant": "acme", "agent": "a"})
    assert body.get("metadata") == ({"outcome": "closed", **ESTIMATED} if left else None)
    assert body["metrics"]["tokens_output"] == (2 if left else 7)
    assert world.charged == [1]


def test_an_event_that_the_server_rejects_raises_nothing(world: World) -> None:
    reports: list[Any] = []
    world.client.on_event(reports.append)

    async def scenario() -> None:
        call = world.call(within="enclosing")
        async with world.guard(100) as guard:
            await world.caller.open(call)
            await done(guard.commit(dollars(1)))
        world.server.ledger.set_budget("tenant:acme", dollars(2))
        await world.respond(call, 7)

    world.run(scenario())
    assert len(world.server.requests.of("event")) == 1
    assert reports


@pytest.mark.parametrize(
    ("raised", "sent", "commits", "releases"),
    [
        (None, 0, [], ["provider_not_called"]),
        (ValueError(), 0, [], ["provider_call_failed:ValueError"]),
        (TimeoutError(), 1, [(10_000, {"outcome": "error", "attempts": 1, **ESTIMATED})], []),
    ],
)
def test_a_call_without_a_response(
    world: World, raised: BaseException | None, sent: int, commits: list[Any], releases: list[str]
) -> None:
    async def scenario() -> None:
        call = world.call()
        await world.caller.open(call)
        call.attempts = sent
        for _ in range(2):
            await world.caller.end(call, None, raised)

    world.run(scenario())
    assert (world.commits, world.releases) == (commits, releases)


def test_a_settlement_that_the_server_rejects_raises_nothing(world: World) -> None:
    async def scenario() -> None:
        call = world.call(overage_policy="REJECT", actual=lambda usage: dollars(10**6))
        await world.caller.open(call)
        await world.respond(call, 7)

    world.run(scenario())
    assert world.client.flush(PATIENCE_S).pending == 0


def test_a_denial_is_reported_to_the_framework_and_ends_nothing(world: World) -> None:
    errors: list[BaseException] = []

    async def scenario() -> None:
        call = world.call(2_000, min_output_tokens=None, on_error=errors.append)
        with pytest.raises(cycles.BudgetExceededError):
            await world.caller.open(call)
        assert call.guard is None

    world.run(scenario())
    assert [type(error) for error in errors] == [cycles.BudgetExceededError]
    assert (world.commits, world.releases) == ([], [])


def test_an_interruption_after_the_reservation_releases_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(call: Call, amount: cycles.Amount, limit: int | None) -> None:
        raise KeyboardInterrupt

    errors: list[BaseException] = []
    monkeypatch.setattr(Call, "admitted", interrupt)

    async def scenario() -> None:
        with pytest.raises(KeyboardInterrupt):
            await world.caller.open(world.call(on_error=errors.append))

    world.run(scenario())
    assert (world.releases, world.commits) == (["provider_call_failed:KeyboardInterrupt"], [])
    assert [type(error) for error in errors] == [KeyboardInterrupt]


def test_a_call_is_in_flight_from_its_reservation_until_its_end(world: World) -> None:
    sources = (Source("tenant:acme", 9, 9),)

    def held() -> dict[Any, int]:
        return admissions_of(runtime_of(world.client)).own_holds(sources, by_task=world.is_async)

    async def scenario() -> None:
        calls = [world.call(10), world.call(5)]
        for call in calls:
            await world.caller.open(call)
        assert held() == {"tenant:acme": 15 * TOKEN}
        await world.respond(calls[0], 1)
        assert held() == {"tenant:acme": 5 * TOKEN}
        await world.caller.end(calls[1], None, ValueError())
        assert held() == {}

    world.run(scenario())


@pytest.mark.parametrize("settle", ["background", None])
def test_a_settlement_in_the_background_is_not_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch, settle: str | None
) -> None:
    gate, handle = threading.Event(), world.server.handle
    held: list[bool] = []

    def hold(request: Any) -> Any:
        if request.path.endswith("/commit"):
            held.append(gate.wait(PATIENCE_S if settle else 0))
        return handle(request)

    monkeypatch.setattr(world.server, "handle", hold)

    async def scenario() -> None:
        call = world.call(settle=settle)
        await world.caller.open(call)
        await world.respond(call, 7)
        assert len(world.commits) == (settle is None)
        gate.set()

    world.run(scenario())
    world.client.flush(PATIENCE_S)
    assert (world.charged, held) == ([7], [settle is not None])


# --- responses that are made in the background


def response(status: str, name: str = "r") -> bytes:
    used = None if status == "queued" else {"input_tokens": 0, "output_tokens": 7}
    return json.dumps({"id": name, "model": "m", "status": status, "usage": used}).encode()


def begun(world: World, held: HeldResponses[Call] | None, **options: Any) -> Call:
    body = {"background": True, "max_output_tokens": 10}
    call = world.call(None, path="/responses", body=body, **options)
    call.held_in = held
    return call


@pytest.mark.parametrize(
    ("held", "status", "raised", "charged"),
    [
        (True, "queued", None, []),
        (True, "queued", ValueError(), [(10 * TOKEN, {"outcome": "error", **ESTIMATED})]),
        (True, "completed", None, [(7 * TOKEN, {})]),
        (False, "queued", None, [(10 * TOKEN, ESTIMATED)]),
        (False, "completed", None, [(7 * TOKEN, {})]),
    ],
)
def test_a_call_stays_open_while_its_response_is_made(
    world: World, held: bool, status: str, raised: Exception | None, charged: list[Any]
) -> None:
    responses: HeldResponses[Call] = HeldResponses()

    async def scenario() -> None:
        call = begun(world, responses if held else None)
        await world.caller.open(call)
        call.attempts = 1
        call.whole(response(status))
        for _ in range(2):
            await world.caller.end(call, None, raised)
        assert responses.get("r") is (None if charged else call)

    world.run(scenario())
    assert world.commits == charged
    world.client.close()  # which charges what is still being made
    assert world.commits == (charged or [(10 * TOKEN, ESTIMATED)])


def test_a_response_that_is_not_retrieved_in_time_is_charged_its_estimate(world: World) -> None:
    async def scenario() -> None:
        call = begun(world, HeldResponses(), background_wait=0.001)
        await world.caller.open(call)
        call.attempts = 1
        call.whole(response("queued"))
        await world.caller.end(call)

    world.run(scenario())
    until(lambda: world.commits)
    assert world.commits == [(10 * TOKEN, ESTIMATED)]


def test_of_two_responses_with_one_id_only_the_first_is_waited_for(world: World) -> None:
    responses: HeldResponses[Call] = HeldResponses()

    async def scenario() -> None:
        for _ in range(2):
            call = begun(world, responses)
            await world.caller.open(call)
            call.attempts = 1
            call.whole(response("queued"))
            await world.caller.end(call)

    world.run(scenario())
    assert world.commits == [(10 * TOKEN, ESTIMATED)]
    assert not responses.is_empty


class Payer:
    estimate = cycles.usd(1)
    price: Any = BOOK

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.ends = 0

    def bind(self, request: Any) -> None:
        self.requests.append(request)

    def ended(self, request: Any) -> None:
        self.ends += 1


@pytest.mark.parametrize("held", [True, False])
def test_a_framework_pays_for_a_call_when_it_ends(world: World, held: bool) -> None:
    payer = Payer()

    async def scenario() -> None:
        with paid_by(payer):
            call = begun(world, HeldResponses() if held else None)
            assert await world.caller.open(call) is None
        assert payer.requests == [call]
        call.attempts = 1
        call.whole(response("queued"))
        for _ in range(2):
            await world.caller.end(call)

    world.run(scenario())
    assert (payer.ends, world.reserved, world.commits) == (1, [], [])


# --- interruptions


class Interruption(BaseException):
    """What a signal handler raises."""


def interrupt_once(patch: pytest.MonkeyPatch, owner: Any, name: str, *, after: bool, is_async: bool = False) -> None:
    """Let the next call of a function be interrupted, before or after it has done its work."""
    function = getattr(owner, name)

    async def interrupted(*args: Any, **options: Any) -> Any:
        patch.setattr(owner, name, function)
        if after:
            await done(function(*args, **options))
        raise Interruption

    def method(*args: Any, **options: Any) -> Any:
        return run(interrupted(*args, **options))

    patch.setattr(owner, name, interrupted if is_async else method)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", ["conclude", "commit", "claim_end", "add_usage"])
def test_an_interrupted_settlement_is_finished_once(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str, after: bool
) -> None:
    is_flow = name == "commit"
    interrupt_once(monkeypatch, _settle if is_flow else Call, name, after=after, is_async=is_flow)

    async def scenario() -> None:
        call = world.call()
        await world.caller.open(call)
        with pytest.raises(Interruption):
            await world.respond(call, 7)
        if name == "claim_end" and not after:  # the SDK's hook ends it with the error, and a response is known
            await world.caller.end(call, None, Interruption())

    world.run(scenario())
    until(lambda: world.commits)
    world.client.flush(PATIENCE_S)
    assert world.charged == [7]
    assert world.server.ledger.active_reservations() == []


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", ["conclude", "spend", "add_usage"])
def test_what_a_guard_pays_is_added_once_also_if_that_is_interrupted(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str, after: bool
) -> None:
    async def scenario() -> None:
        async with world.guard(100) as guard:
            call = world.call(within="enclosing")
            await world.caller.open(call)
            interrupt_once(monkeypatch, type(guard) if name == "spend" else Call, name, after=after)
            with pytest.raises(Interruption):
                await world.respond(call, 7)
            until(lambda: guard.spent is not None)
            world.client.flush(PATIENCE_S)
            await settle(guard)

    world.run(scenario())
    assert world.charged == [7]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_what_a_guard_that_has_ended_did_not_pay_is_charged_once_also_if_that_is_interrupted(
    world: World, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    owner = world.client.aio if world.is_async else world.client

    async def scenario() -> None:
        call = world.call(within="enclosing")
        async with world.guard(100) as guard:
            await world.caller.open(call)
            await done(guard.commit(dollars(1)))
        interrupt_once(monkeypatch, owner, "record", after=after, is_async=world.is_async)
        with pytest.raises(Interruption):
            await world.respond(call, 7)

    world.run(scenario())
    until(lambda: world.server.ledger.balance("tenant:acme", "USD_MICROCENTS").spent == dollars(8))
    assert world.client.flush(PATIENCE_S).pending == 0
    assert world.server.ledger.balance("tenant:acme", "USD_MICROCENTS").spent == dollars(8)
    keys = [event.json["idempotency_key"] for event in world.server.requests.of("event")]
    assert set(keys) == {keys[0]}


# --- responses that are dropped, and odd errors


def dropped(world: World) -> Call:
    call = world.call(stream=True)
    open_call(call)
    call.attempts = 1
    call.stream().feed(b'data: {"choices":[{"delta":{"content":"abcdef"}}]}\n\n')
    return call


@pytest.fixture
def threads() -> Iterator[World]:
    with cycles.EmbeddedServer({"tenant:acme": dollars(1_000)}) as server:
        made = World(server, is_async=False)
        yield made
        made.client.close()


def test_a_dropped_response_is_settled_in_a_thread_that_the_interpreter_waits_for(
    threads: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[threading.Thread] = []
    start = threading.Thread.start

    def note(thread: threading.Thread) -> None:
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", note)
    call = dropped(threads)
    end_dropped(call)
    [thread] = [each for each in started if each.name == "cycles-dropped-response"]
    thread.join(PATIENCE_S)
    assert thread.daemon is False
    assert threads.commits == [(2 * TOKEN, {"outcome": "closed", **ESTIMATED})]


@pytest.mark.parametrize("lacks", ["thread", "main thread"])
def test_a_response_that_is_dropped_as_the_interpreter_ends_is_settled_at_once(
    threads: World, monkeypatch: pytest.MonkeyPatch, lacks: str
) -> None:
    call = dropped(threads)
    if lacks == "thread":
        monkeypatch.setattr(threading.Thread, "start", no_thread)
    else:
        monkeypatch.setattr(threading, "main_thread", lambda: threading.Thread())
    end_dropped(call)
    assert threads.commits == [(2 * TOKEN, {"outcome": "closed", **ESTIMATED})]


def test_a_claimed_call_is_ended_once(threads: World) -> None:
    call = dropped(threads)
    end_call(call, "closed")
    end_call(call, None, ValueError())
    _settle.end_open(call, End(None, None))
    assert threads.commits == [(2 * TOKEN, {"outcome": "closed", **ESTIMATED})]


def raising(error: BaseException, cause: BaseException | None = None) -> Callable[[], Any]:
    async def flow() -> None:
        raise error from cause

    return THREAD.method(flow)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (RuntimeError("x"), None),
        (RuntimeError("x"), StopIteration()),
        (RuntimeError("coroutine raised StopIteration"), None),
        (RuntimeError("coroutine raised StopIteration"), ValueError()),
        (ValueError("coroutine raised StopIteration"), StopIteration()),
    ],
)
def test_errors_of_an_sdk_pass_unchanged(error: Exception, cause: BaseException | None) -> None:
    with pytest.raises(type(error)) as raised:
        raising(error, cause)()
    assert raised.value is error


def test_a_stop_iteration_of_an_sdk_passes_too() -> None:
    stopped = StopIteration(5)
    with pytest.raises(StopIteration) as raised:
        raising(stopped)()
    assert raised.value is stopped
