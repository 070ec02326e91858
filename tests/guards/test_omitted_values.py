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


@pytest.mark.parametrize(
    ("metrics", "kept", "names"),
    [
        ({"tokens_input": 3, "model_version": "m" * 129}, {"tokens_input": 3}, {"metrics.model_version"}),
        ({"tokens_input": -1, "tokens_output": 4}, {"tokens_output": 4}, {"metrics.tokens_input"}),
        ({"tokens_output": 4, "tokens_cached": 1}, {"tokens_output": 4}, {"metrics.tokens_cached"}),
        ({"custom": {"good": 1, "bad": b"x"}}, {"custom": {"good": 1}}, {"metrics.custom.bad"}),
        ("no mapping", None, {"metrics"}),
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
