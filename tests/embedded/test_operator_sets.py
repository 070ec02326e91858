"""What `EmbeddedServer.ledger` sets by hand, beside reservations that are active."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import cycles

SCOPE = "tenant:acme"


@pytest.fixture
def server() -> Iterator[cycles.EmbeddedServer]:
    with cycles.EmbeddedServer({SCOPE: cycles.usd(10)}) as server:
        yield server


def test_a_reset_keeps_what_is_held_and_the_limit_is_kept_again(server: cycles.EmbeddedServer) -> None:
    owed: dict[str, Any] = {"spent": 4, "debt": 2, "overdraft_limit": 1, "is_over_limit": True}
    with (
        server.client(tenant="acme", journal=False) as client,
        client.reserve(cycles.usd(1), action=("llm.call", "m")) as guard,
    ):
        server.ledger.set_budget(SCOPE, cycles.usd(10), **owed)
        before = server.ledger.balance(SCOPE)
        server.ledger.reset_spent()
        after = server.ledger.balance(SCOPE)
        guard.commit(cycles.usd(1))
    assert (before.is_over_limit, before.reserved) == (True, cycles.usd(1)), "set again, it holds what is active"
    assert (after.is_over_limit, after.reserved, after.allocated) == (False, cycles.usd(1), cycles.usd(10))
    assert (after.spent, after.debt) == (cycles.usd(0), cycles.usd(0))
