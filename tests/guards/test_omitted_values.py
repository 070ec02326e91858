"""Metrics and metadata that the protocol does not allow are omitted and reported; the amount is settled."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

import cycles
from tests.guards.conftest import Shop, World

pytestmark = pytest.mark.anyio

T = cycles.tokens


def omitted(events: list[Any]) -> set[str]:
    return {name for event in events if type(event).__name__ == "ValuesOmitted" for name in event.names}


LARGEST = {"model_version": "m" * 128, "tokens_input": 0, "tokens_output": 2**31 - 1, "latency_ms": 0}


@pytest.mark.parametrize(
    ("metrics", "kept", "names"),
    [
        ({"tokens_input": 3, "model_version": "m" * 129}, {"tokens_input": 3}, {"metrics.model_version"}),
        ({"tokens_input": -1, "tokens_output": 4}, {"tokens_output": 4}, {"metrics.tokens_input"}),
        ({"tokens_output": 4, "tokens_cached": 1}, {"tokens_output": 4}, {"metrics.tokens_cached"}),
        ({"custom": {"good": 1, "bad": b"x"}}, {"custom": {"good": 1}}, {"metrics.custom.bad"}),
        ({"tokens_input": True, "latency_ms": 2**63}, {}, {"metrics.tokens_input", "metrics.latency_ms"}),
        ("no mapping", None, {"metrics"}),
        (LARGEST, LARGEST, set()),
    ],
)
async def test_metrics(
    world: World, shop: Shop, events: list[Any], metrics: Any, kept: dict[str, Any] | None, names: set[str]
) -> None:
    guard = await world.acquire(world.reserve())
    assert (await world.get(guard.commit(T(5), metrics=metrics))).status == "committed"
    assert shop.money() == (5, 0)
    sent = shop.bodies("commit")[0].get("metrics", {})
    assert {name: sent.get(name) for name in kept or {}} == (kept or {})
    assert omitted(events) == names


class Failing(dict[str, Any]):
    """A mapping that raises when it is read."""

    def items(self) -> Any:
        raise OSError("the disk is full")


@pytest.mark.parametrize(
    ("metrics", "kept", "names"),
    [
        (lambda: cycles.Metrics(model_version="x" * 200), {}, {"metrics.model_version"}),
        (lambda: cycles.Metrics(tokens_input=-1, tokens_output=4), {"tokens_output": 4}, {"metrics.tokens_input"}),
        (lambda: cycles.Metrics(latency_ms=2**63, custom={"a": 1, "b": b"x"}), {"custom": {"a": 1}},
         {"metrics.latency_ms", "metrics.custom.b"}),
        (lambda: cycles.Metrics(tokens_input=3, custom=Failing(a=1)), {"tokens_input": 3}, {"metrics.custom"}),
        (lambda: usage_with_a_bad_value(), {"tokens_output": 7}, {"metrics.custom.at"}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("wait", [True, False])
async def test_metrics_that_are_made_in_the_call_of_commit(
    world: World, shop: Shop, events: list[Any], metrics: Any, kept: dict[str, Any], names: set[str], wait: bool
) -> None:
    async with world.enter(world.reserve()) as guard:
        await world.get(guard.commit(T(5), metrics=metrics(), wait=wait))
        assert (await world.get(guard.settled())).status == "committed"
    assert shop.money() == (5, 0)
    assert shop.bodies("commit")[0].get("metrics", {}) == kept
    assert omitted(events) == names


def usage_with_a_bad_value() -> Any:
    usage = cycles.Usage().add(tokens_output=7)
    usage.custom["at"] = object()
    return usage


async def test_metrics_of_an_operation_without_a_guard(world: World, shop: Shop, events: list[Any]) -> None:
    wrong = cycles.Metrics(tokens_input=3, model_version="x" * 200)
    await world.get(world.operations.record(T(5), action=("a", "b"), idempotency_key="key-1", metrics=wrong))
    guard = await world.acquire(world.reserve())
    guard.detach()
    await world.get(world.operations.commit_reservation(guard.reservation_id, T(7), metrics=wrong))
    assert shop.money() == (12, 0)
    for body in (*shop.bodies("events"), *shop.bodies("commit")):
        assert body["metrics"] == {"tokens_input": 3}
    told = [(e.reservation_id, e.names) for e in events if type(e).__name__ == "ValuesOmitted"]
    names = ("metrics.model_version",)
    assert told == [("event:key-1", names), (guard.reservation_id, names)]


@pytest.mark.parametrize(
    ("metadata", "kept", "names"),
    [
        ({"run": "r1", "at": datetime(2026, 1, 1)}, {"run": "r1"}, {"metadata.at"}),  # noqa: DTZ001 - no JSON value
        (["no", "mapping"], None, {"metadata"}),
    ],
)
async def test_metadata(
    world: World, shop: Shop, events: list[Any], metadata: Any, kept: dict[str, Any] | None, names: set[str]
) -> None:
    guard = await world.acquire(world.reserve())
    assert (await world.get(guard.commit(T(5), metadata=metadata))).status == "committed"
    assert shop.bodies("commit")[0].get("metadata") == kept
    assert omitted(events) == names


async def test_a_model_name_that_is_too_long_does_not_end_the_block(
    world: World, shop: Shop, events: list[Any]
) -> None:
    async with world.enter(world.reserve()) as guard:
        guard.usage.add(tokens_input=3, model_version="m" * 129)
        guard.spend(T(5))
    assert shop.money() == (5, 0)
    assert shop.bodies("commit")[0]["metrics"]["tokens_input"] == 3
    assert omitted(events) == {"metrics.model_version"}
