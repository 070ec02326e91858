"""`@client.guarded`: functions, methods, coroutines and generators, guarded by one line."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import pytest

import cycles
from tests.support.waiting import set_by

from .conftest import ACTION, World, held, spent

pytestmark = pytest.mark.anyio


async def test_a_call_reserves_its_estimate_and_commits_its_actual(world: World, server: Any) -> None:
    def ask(prompt: str, n: int = 1) -> str:
        """Ask it."""
        assert held(server) == 500 * n
        return prompt * n

    guarded = world.client.guarded(
        estimate=lambda prompt, n: cycles.tokens(n * 500),
        action=lambda prompt: ("llm.completion", prompt),
        subject=lambda n: {"agent": f"bot-{n}"},
        metadata=lambda prompt: {"prompt": prompt},
        actual=lambda answer, n: cycles.tokens(len(answer) + n),
    )(world.function(ask))
    assert await world.get(guarded("hello", n=2)) == "hellohello"
    assert (spent(server), held(server)) == (12, 0)
    [row] = await world.all(world.operations.reservations(include=["metadata"]))
    assert (row.action.name, row.subject.agent, row.metadata) == ("hello", "bot-2", {"prompt": "hello"})


async def test_without_actual_the_estimate_is_committed_and_says_so(world: World, server: Any) -> None:
    guarded = world.client.guarded(cycles.tokens(50), action=ACTION)(world.function(lambda: "x"))
    await world.get(guarded())
    assert spent(server) == 50
    [row] = await world.all(world.operations.reservations())
    detail = await world.get(world.operations.reservation(row.reservation_id))
    assert detail.committed_metadata == {"actual_source": "estimate"}


async def test_spend_counted_inside_is_committed_and_is_no_estimate(world: World, server: Any) -> None:
    def count() -> None:
        guard = cycles.current_guard()
        assert guard is not None
        guard.spend(cycles.tokens(7))

    await world.get(world.client.guarded(cycles.tokens(50), action=ACTION)(world.function(count))())
    assert spent(server) == 7
    assert "metadata" not in server.requests.of("commit")[-1].json


@pytest.mark.parametrize("wrong", [lambda answer: 1 / 0, lambda answer: 5, lambda answer: cycles.usd(1)])
async def test_a_failing_actual_never_loses_the_spend(world: World, server: Any, log: Any, wrong: Any) -> None:
    guarded = world.client.guarded(cycles.tokens(50), action=ACTION, actual=wrong)(world.function(lambda: "x"))
    assert await world.get(guarded()) == "x"
    assert spent(server) == 50
    assert "actual= callable failed" in log.text


async def test_a_call_that_raises_is_released(world: World, server: Any) -> None:
    def fail() -> None:
        raise KeyError("mine")

    guarded = world.client.guarded(cycles.tokens(50), action=ACTION)(world.function(fail))
    with pytest.raises(KeyError, match="mine"):
        await world.get(guarded())
    assert (spent(server), held(server)) == (0, 0)


@pytest.mark.parametrize(
    ("body", "actual", "charged"),
    [
        (lambda guard: guard.spend(cycles.tokens(7)), None, 7),
        (lambda guard: guard.usage.add(tokens_output=9), lambda usage: cycles.tokens(usage.tokens_output), 9),
        (lambda guard: guard.usage.add(tokens_output=9), lambda answer: cycles.tokens(1), 50),
        (lambda guard: None, lambda usage: cycles.tokens(1), 0),
    ],
)
async def test_what_was_spent_before_the_failure_stays_spent(
    world: World, server: Any, body: Any, actual: Any, charged: int
) -> None:
    def fail() -> None:
        body(cycles.current_guard())
        raise RuntimeError("half way")

    guarded = world.client.guarded(cycles.tokens(50), action=ACTION, actual=actual)(world.function(fail))
    with pytest.raises(RuntimeError, match="half way"):
        await world.get(guarded())
    assert (spent(server), held(server)) == (charged, 0)


async def test_a_call_that_is_interrupted_commits_what_was_spent(world: World, server: Any) -> None:
    class Left(BaseException):
        pass

    def work() -> None:
        cycles.current_guard().spend(cycles.tokens(4))  # type: ignore[union-attr]
        raise Left

    guarded = world.client.guarded(cycles.tokens(50), action=ACTION)(world.function(work))
    async with world.enter(world.reserve(actual=cycles.tokens(1))) as outer:
        with pytest.raises(Left):
            await world.get(guarded())
        assert cycles.current_guard() is outer
        assert (spent(server), held(server)) == (4, 100)


async def test_a_denied_call_does_not_run(world: World) -> None:
    ran: list[int] = []
    guarded = world.client.guarded(cycles.tokens(2_000_000), action=ACTION)(world.function(lambda: ran.append(1)))
    with pytest.raises(cycles.BudgetExceededError):
        await world.get(guarded())
    assert not ran


async def test_a_call_may_settle_itself(world: World, server: Any) -> None:
    async def alater() -> None:
        guard = cycles.current_guard()
        assert isinstance(guard, cycles.AsyncGuard)
        await guard.commit(cycles.tokens(3))

    def now() -> None:
        guard = cycles.current_guard()
        assert isinstance(guard, cycles.Guard)
        guard.commit(cycles.tokens(3))

    guarded = world.client.guarded(cycles.tokens(50), action=ACTION)(alater if world.is_async else now)
    await world.get(guarded())
    assert spent(server) == 3


async def test_calls_nest_and_each_sees_its_own_guard(world: World) -> None:
    seen: list[Any] = []

    def inner() -> None:
        seen.append(cycles.current_guard())

    guarded = world.client.guarded(cycles.tokens(5), action=ACTION)(inner)
    async with world.enter(world.client.reserve(cycles.tokens(50), action=ACTION, actual=cycles.tokens(1))) as outer:
        assert cycles.current_guard() is outer
        guarded()
        assert cycles.current_guard() is outer
    assert cycles.current_guard() is None
    assert seen[0] not in (None, outer)


async def test_child_tasks_inherit_the_guard_and_see_when_it_has_ended(client: cycles.Cycles) -> None:
    go = asyncio.Event()

    async def child() -> Any:
        before = cycles.current_guard()
        await go.wait()
        return before, cycles.current_guard()

    async with client.reserve(cycles.tokens(50), action=ACTION, actual=cycles.tokens(1)) as guard:
        task = asyncio.create_task(child())
        await asyncio.sleep(0)
    go.set()
    before, after = await task
    assert before is after is guard
    assert after.state == "committed"


class Agent:
    """Methods of every kind."""

    name = "agent"

    def __init__(self, client: cycles.Cycles, *, is_async: bool) -> None:
        guard = partial(client.guarded, action=ACTION, actual=lambda answer: cycles.tokens(len(answer)))

        class Bound:
            name = "bound"

            @guard(estimate=lambda self, text: cycles.tokens(100))
            def method(self, text: str) -> str:
                return self.name + text

            @guard(estimate=lambda text: cycles.tokens(100))
            @staticmethod
            def static(text: str) -> str:
                return text

            @guard(estimate=lambda cls: cycles.tokens(len(cls.name)))
            @classmethod
            def made(cls, text: str) -> str:
                return cls.name + text

            @guard(estimate=cycles.tokens(100))
            async def later(self, text: str) -> str:
                return self.name + text

        self.bound = Bound


async def test_methods_of_every_kind(client: cycles.Cycles, server: Any) -> None:
    bound = Agent(client, is_async=False).bound
    assert bound().method("!") == "bound!"
    assert bound.static("x") == bound().static("x") == "x"
    assert bound.made("?") == bound().made("?") == "bound?"
    assert await bound().later("!") == "bound!"
    assert spent(server) == 6 + 1 + 1 + 6 + 6 + 6


async def test_inspect_still_sees_what_is_decorated(client: cycles.Cycles) -> None:
    guard = client.guarded(cycles.tokens(5), action=ACTION)

    @guard
    def plain(prompt: str, *, n: int = 1) -> str:
        """Says it."""
        return prompt

    @guard
    async def later() -> None: ...

    @guard
    def chunks() -> Iterator[int]:
        yield 1

    @guard
    async def later_chunks() -> AsyncIterator[int]:
        yield 1

    assert (plain.__name__, plain.__doc__, str(inspect.signature(plain))) == (
        "plain",
        "Says it.",
        "(prompt: 'str', *, n: 'int' = 1) -> 'str'",
    )
    assert inspect.iscoroutinefunction(later)
    assert inspect.isgeneratorfunction(chunks)
    assert inspect.isasyncgenfunction(later_chunks)


class Later:
    """An object that is called like a coroutine function."""

    async def __call__(self, text: str) -> str:
        return text


class Chunks:
    """An object that is called like a generator function."""

    def __call__(self, text: str) -> Iterator[str]:
        yield from text


class LaterChunks:
    """An object that is called like an asynchronous generator function."""

    async def __call__(self, text: str) -> AsyncIterator[str]:
        for letter in text:
            yield letter


@pytest.mark.parametrize(
    ("what", "is_kind"),
    [
        (Later(), inspect.iscoroutinefunction),
        (Chunks(), inspect.isgeneratorfunction),
        (LaterChunks(), inspect.isasyncgenfunction),
    ],
    ids=["coroutine", "generator", "async generator"],
)
async def test_an_object_is_of_the_kind_of_its_call_method(
    client: cycles.Cycles, server: Any, what: Any, is_kind: Any
) -> None:
    guarded = client.guarded(cycles.tokens(5), action=ACTION)(what)
    assert is_kind(guarded)
    result = guarded("ab")
    assert server.requests.of("reserve") == []  # like a function of this kind, it has not begun
    if is_kind is inspect.iscoroutinefunction:
        assert await result == "ab"
    elif is_kind is inspect.isgeneratorfunction:
        assert list(result) == ["a", "b"]
    else:
        assert [letter async for letter in result] == ["a", "b"]
    assert (spent(server), held(server)) == (5, 0)


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (5, "function"),
        (property(lambda self: 1), "property"),
        (type("Thing", (), {}), "class"),
    ],
)
def test_an_object_that_cannot_be_guarded_is_rejected_when_decorating(
    client: cycles.Cycles, what: Any, says: str
) -> None:
    with pytest.raises(cycles.InvalidRequestError, match=says):
        client.guarded(cycles.tokens(5), action=ACTION)(what)


@pytest.mark.parametrize(
    "wrong",
    [
        {"estimate": lambda promt: cycles.tokens(1)},
        {"estimate": 5},
        {"estimate": cycles.tokens(1), "action": "llm"},
        {"estimate": cycles.tokens(1), "actual": 7},
        {"estimate": cycles.tokens(1), "actual": cycles.usd(1)},
        {"estimate": cycles.tokens(1), "metadata": {"at": object()}},
        {"estimate": cycles.tokens(1), "subject": {"team": "x"}},
        {"estimate": cycles.tokens(1), "nonsense": 5},
    ],
)
def test_wrong_options_are_rejected_when_decorating(client: cycles.Cycles, wrong: dict[str, Any]) -> None:
    def ask(prompt: str) -> None: ...

    with pytest.raises((cycles.InvalidRequestError, TypeError)):
        client.guarded(**{"action": ACTION, **wrong})(ask)


def test_the_default_client_is_made_from_the_environment_once(
    server: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    @cycles.guarded(cycles.tokens(5), action=ACTION, actual=lambda answer: cycles.tokens(answer))
    def ask() -> int:
        return 4

    monkeypatch.setenv("CYCLES_JOURNAL_DIR", str(tmp_path))
    monkeypatch.setenv("CYCLES_API_KEY", server.api_key)
    monkeypatch.setenv("CYCLES_TENANT", "acme")
    with server.listen(port=0) as url:
        monkeypatch.setenv("CYCLES_BASE_URL", url)
        try:
            assert ask() == ask() == 4
            assert cycles.get_default_client() is cycles.get_default_client()
        finally:
            cycles.get_default_client().close()
            cycles.set_default_client(None)
    assert spent(server) == 8


def test_a_default_client_may_be_set(client: cycles.Cycles, server: Any) -> None:
    cycles.set_default_client(client)
    try:
        cycles.guarded(cycles.tokens(5), action=ACTION)(lambda: None)()
    finally:
        cycles.set_default_client(None)
    assert spent(server) == 5


async def test_options_of_reserve_are_options_of_the_decorator(world: World, server: Any) -> None:
    ran: list[str] = []
    guard = world.client.guarded
    shadowed = guard(cycles.tokens(10**9), action=ACTION, shadow=True)(world.function(lambda: ran.append("shadow")))
    await world.get(shadowed())
    keyed = guard(cycles.tokens(5), action=ACTION, idempotency_key=lambda job: f"job-{job}")
    run = keyed(world.function(lambda job: ran.append(job)))
    await world.get(run(1))
    await world.get(run(2))
    with pytest.raises(cycles.ReservationNotActiveError):
        await world.get(run(1))
    assert ran == ["shadow", 1, 2]
    assert spent(server) == 10


async def test_a_cancelled_call_is_released_and_stays_cancelled(client: cycles.Cycles, server: Any) -> None:
    running = asyncio.Event()

    @client.guarded(cycles.tokens(50), action=ACTION)
    async def ask() -> None:
        running.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(ask())
    await set_by(task, running)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (spent(server), held(server)) == (0, 0)


@pytest.mark.parametrize(
    ("actual", "charged", "source"),
    [
        (lambda usage: cycles.tokens(usage.tokens_output), 7, None),
        (lambda result, usage: cycles.tokens(result), 100, "estimate"),
    ],
    ids=["usage", "result"],
)
def test_a_call_that_raises_after_it_counted_usage_is_charged(
    client: cycles.Cycles, server: Any, actual: Any, charged: int, source: str | None
) -> None:
    @client.guarded(cycles.tokens(100), action=ACTION, actual=actual)
    def work() -> int:
        guard = cycles.current_guard()
        assert guard is not None
        guard.usage.add(tokens_output=7)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    (commit,) = [request.json for request in server.requests.of("commit")]
    assert commit["actual"]["amount"] == charged
    assert commit["metadata"].get("actual_source") == source
    assert commit["metadata"]["outcome"] == "error"
