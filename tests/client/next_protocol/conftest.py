"""Fixtures of protocol 0.1.26: a server that has it, at a fixed time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

import cycles
from tests.client.conftest import BUDGETS, World

MAIL = cycles.Action("message.email.send", "welcome", policy_keys=cycles.PolicyKeys(host="api.mail.example"))
NOON = int(datetime(2026, 4, 9, 12, tzinfo=UTC).timestamp() * 1000)


@pytest.fixture
def clock() -> cycles.ManualClock:
    return cycles.ManualClock(start_ms=NOON)


@pytest.fixture
def server(clock: cycles.ManualClock) -> Iterator[cycles.EmbeddedServer]:
    with cycles.EmbeddedServer({"tenant:acme": BUDGETS}, protocol="0.1.26", clock=clock) as server:
        yield server


def of(world: World, action: Any = MAIL, **options: Any) -> cycles.Reservation:
    """Return a reservation of 10 tokens that commits 4."""
    return world.client.reserve(cycles.tokens(10), action=action, actual=cycles.tokens(4), **options)


async def denied(world: World, action: Any = MAIL, **options: Any) -> Any:
    """Return the error of a reservation that the server denies."""
    with pytest.raises(cycles.ReservationDeniedError) as caught:
        async with world.enter(of(world, action, **options)):
            raise AssertionError("the block must not run")
    return caught.value
