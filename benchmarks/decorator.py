"""What the decorator adds to a guard, in this process and without I/O: stored replies take the place of exchanges."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any, cast

import cycles
from benchmarks import ours
from benchmarks.measure import Case, interleave

ESTIMATE, ACTUAL = cycles.usd("0.05"), cycles.usd("0.032")
GUARD = "guard"


class _Replies:
    """Takes the place of the connections of a client: keeps the reply to each kind of request, and returns it again."""

    def __init__(self, connections: Any) -> None:
        self._connections = connections
        self._known: dict[bool, Any] = {}

    def send(self, request: Any, limits: Any) -> Any:
        is_commit = request.target.endswith("/commit")
        if is_commit not in self._known:
            self._known[is_commit] = self._connections.send(request, limits)
        return self._known[is_commit]

    def close(self) -> None:
        self._connections.close()


def measure(port: int, calls: int, rounds: int) -> dict[str, dict[str, float]]:
    """Return the CPU of a call, and what each form of the decorator adds to a guard."""
    with ours.client(port, None) as client:
        _without_io(client)
        cases = [Case(name, call) for name, call in _calls(client).items()]
        series = interleave(cases, workers=1, calls=calls, rounds=3 * rounds)
    base = series.samples[GUARD]
    return {
        case.name: {
            "cpu_us": series.cpu_us(case.name),
            "added_us": statistics.median(
                sample.cpu_us - other.cpu_us for sample, other in zip(series.samples[case.name], base, strict=True)
            ),
        }
        for case in cases
    }


def _without_io(client: cycles.Cycles) -> None:
    with client.reserve(ESTIMATE, action=ours.ACTION) as guard:
        guard.commit(ACTUAL)
    connections = cast(Any, client._runtime().channel)._threads
    connections[False] = _Replies(connections[False])


def _calls(client: cycles.Cycles) -> dict[str, Callable[[], object]]:
    def guard() -> None:
        with client.reserve(ESTIMATE, action=ours.ACTION, actual=ACTUAL):
            pass

    @client.guarded(ESTIMATE, action=ours.ACTION, actual=ACTUAL)
    def decorated(prompt: str) -> None:
        return None

    @client.guarded(lambda prompt: ESTIMATE, action=ours.ACTION, actual=lambda result, prompt: ACTUAL)
    def with_callables(prompt: str) -> None:
        return None

    return {GUARD: guard, "decorator": lambda: decorated("x"), "with callables": lambda: with_callables("x")}
