"""What the tests of pools do with a pool: open it, reserve from it, read what it requested."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from attrs import evolve

import cycles

from .conftest import ACTION, Shop, T

TOO_LITTLE = {"error": "BUDGET_EXCEEDED", "message": "too little", "request_id": "r"}


async def eventually(shop: Shop, condition: Callable[[], object]) -> None:
    await asyncio.to_thread(shop.until, condition)


def pool_of(client: cycles.Cycles, max_held: int = 400, settle_ms: int | None = None, **options: Any) -> Any:
    """Return a pool whose chunks are committed at another age than 30 seconds."""
    pool = client.pool(T(max_held), action=ACTION, **options)
    if settle_ms is not None:
        pool._options = evolve(pool._options, settle_ms=settle_ms)
    return pool


def estimates(shop: Shop) -> list[int]:
    return [body["estimate"]["amount"] for body in shop.bodies("reserve")]


def use(pool: Any, estimate: int, actual: int) -> Any:
    with pool.reserve(T(estimate)) as guard:
        guard.commit(T(actual))
    return guard
