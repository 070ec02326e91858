"""Each request of a guard belongs to the trace of that guard, and all others to the tracer, sync and async."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

import cycles
from tests.options.ways import SPENT, Place, T
from tests.support.worlds import ACTION

pytestmark = pytest.mark.anyio


class Attempt:
    """One attempt, which adds the header of its trace."""

    def __init__(self, trace_id: str, results: list[Any]) -> None:
        self.headers = {"traceparent": f"00-{trace_id}-b7ad6b7169203331-00", "tracestate": "a=b"}
        self._results = results

    def received(self, result: Any) -> None:
        self._results.append((result.status, result.decision, result.error_type, bool(result.request_id)))


class Trace:
    """A tracer, or the trace of one guard."""

    def __init__(self, number: int = 0) -> None:
        self.trace_id = f"{number + 1:032x}"
        self.guards: list[Trace] = []
        self.operations: list[str] = []
        self.results: list[Any] = []
        self.tokens: list[Any] = []
        self.states: list[Any] = []

    def begin(self, request: Any) -> Trace:
        self.guards.append(Trace(len(self.guards) + 1))
        return self.guards[-1]

    @contextlib.contextmanager
    def sending(self, operation: str) -> Iterator[Attempt]:
        self.operations.append(operation)
        yield Attempt(self.trace_id, self.results)

    def opened(self, guard: Any) -> None:
        self.states.append(guard.state)

    def refused(self, error: BaseException) -> None:
        self.states.append(type(error).__name__)

    def ended(self, guard: Any) -> None:
        self.states.append(guard.state)

    def entered(self) -> str:
        return self.trace_id

    def left(self, token: Any) -> None:
        self.tokens.append(token)


async def test_a_request_belongs_to_the_trace_of_its_guard_or_to_the_tracer(place: Place) -> None:
    use, tracer = place.use(), Trace()
    remove = use.world.client.trace_with(tracer)
    for _ in range(2):
        async with use.world.enter(use.world.client.reserve(T(100), action=ACTION)) as guard:
            await use.world.get(guard.extend())
            await use.world.get(guard.commit(SPENT))
    await use.world.get(use.world.operations.decide(T(1), action=ACTION))
    with pytest.raises(cycles.BudgetExceededError) as raised:
        await use.world.acquire(use.world.client.reserve(T(10**15), action=ACTION))
    first, second, denied = tracer.guards
    operations = ["createReservation", "extendReservation", "commitReservation"]
    assert (first.operations, second.operations, denied.operations) == (operations, operations, operations[:1])
    assert tracer.operations == ["decide"]
    assert [each.headers["traceparent"].split("-")[1] for each in use.sent] == [
        *[first.trace_id] * 3,
        *[second.trace_id] * 3,
        tracer.trace_id,
        denied.trace_id,
    ]
    assert {each.headers["tracestate"] for each in use.sent} == {"a=b"}
    ok = [(200, "ALLOW", None, True), (200, None, None, True), (200, None, None, True)]
    assert (first.results, second.results) == (ok, ok)
    assert denied.results == [(409, None, "BUDGET_EXCEEDED", True)]
    assert (first.states, denied.states) == (["active", "committed"], ["BudgetExceededError"])
    assert (first.tokens, second.tokens, denied.tokens) == ([first.trace_id], [second.trace_id], [])
    assert (guard.trace_id, raised.value.trace_id) == (second.trace_id, denied.trace_id)
    remove()
    await use.world.get(use.world.operations.decide(T(1), action=ACTION))
    assert tracer.operations == ["decide"]
    assert "tracestate" not in use.sent[-1].headers


async def test_how_an_attempt_ended(place: Place) -> None:
    use, tracer = place.use(), Trace()
    use.world.client.trace_with(tracer)
    scope = f"tenant:acme/agent:poor-{place.kind}"
    place.server.ledger.set_budget(scope, T(1))
    poor: dict[str, Any] = {"action": ACTION, "subject": {"agent": f"poor-{place.kind}"}}
    assert (await use.world.get(use.world.operations.decide(T(5), **poor))).decision == "DENY"
    shadow = await use.world.acquire(use.world.client.reserve(T(5), shadow=True, **poor))
    use.server.faults.status("decide", 502)
    use.server.faults.body("decide", b"<html>")
    with pytest.raises(cycles.AmbiguousResponseError):
        await use.world.get(use.world.operations.decide(T(5), **poor))
    use.server.faults.refuse("decide", times=2)
    with pytest.raises(cycles.TransportError) as raised:
        await use.world.get(use.world.operations.decide(T(5), **poor))
    denied = (200, "DENY", "BUDGET_EXCEEDED")
    assert [each[:3] for each in tracer.results] == [
        denied,
        (502, None, "502"),
        (200, None, "AmbiguousResponseError"),
        *[(None, None, "TransportError")] * 2,
    ]
    assert [each[:3] for each in tracer.guards[0].results] == [denied]
    assert shadow.trace_id == tracer.guards[0].trace_id
    assert raised.value.trace_id == tracer.trace_id  # also without a response: that of the header
    await use.world.get(shadow.release())


async def test_a_key_of_a_callable_is_traced_with_each_of_its_attempts(place: Place) -> None:
    keys = iter(["wrong", place.server.api_key])

    def key() -> str:
        return next(keys)

    use, tracer = place.use(place.client(api_key=key)), Trace()
    use.world.client.trace_with(tracer)
    await use.world.get(use.world.operations.decide(T(1), action=ACTION))
    assert [each.headers["x-cycles-api-key"] for each in use.sent] == ["wrong", place.server.api_key]
    assert tracer.operations == ["decide"]
    assert [(status, error) for status, _, error, _ in tracer.results] == [(200, None)]
    assert {each.headers["traceparent"].split("-")[1] for each in use.sent} == {tracer.trace_id}
