"""Guards, their amounts and what the server returns."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from decimal import Decimal
from typing import assert_type

import cycles

client = cycles.Cycles(base_url="http://localhost", api_key="key", tenant="acme")


def scripts() -> None:
    with client.reserve(cycles.usd("0.05"), action=("llm.completion", "m")) as guard:
        assert_type(guard, cycles.Guard)
        assert_type(guard.caps, cycles.Caps | None)
        if guard.is_capped:
            assert_type(guard.max_tokens(1024), int)
        assert_type(guard.max_tokens(), int | None)
        assert_type(guard.filter_tools(["search"]), list[str])
        assert_type(guard.step(), int)
        assert_type(guard.expires_at, datetime | None)
        assert_type(guard.estimate, cycles.Amount)
        assert_type(guard.usage.tokens_output, int)
        for chunk in guard.wrap(words()):
            assert_type(chunk, str)
        settlement = guard.commit(cycles.usd("0.03"), metrics=cycles.Metrics(tokens_input=5))
        assert_type(settlement, cycles.Settlement)
        assert_type(settlement.charged, cycles.Amount | None)
    assert_type(client.reserve(cycles.tokens(5), action=("a", "b")).acquire(), cycles.Guard)
    for balance in client.balances():
        assert_type(balance.scope, str)
    client.reserve(5, action=("a", "b"))  # type: ignore[arg-type]
    client.reserve(cycles.tokens(5))  # type: ignore[call-arg]
    guard.commit(cycles.usd(1), metrics=5)  # type: ignore[arg-type]


def hand_over() -> None:
    token = client.reserve(cycles.tokens(5), action=("a", "b")).acquire().detach()
    assert_type(token, str)
    with client.attach(token, actual=cycles.tokens(1)) as guard:
        assert_type(guard, cycles.Guard)
    assert_type(client.find(idempotency_key="k"), cycles.ReservationSummary | None)


async def services() -> None:
    async with client.reserve(cycles.usd("0.05"), action=("llm.completion", "m"), wait=5.0) as guard:
        assert_type(guard, cycles.AsyncGuard)
        async for chunk in guard.wrap(words_later()):
            assert_type(chunk, str)
        assert_type(await guard.commit(cycles.usd("0.03")), cycles.Settlement)
    assert_type(await client.reserve(cycles.tokens(5), action=("a", "b")), cycles.AsyncGuard)
    async for balance in client.aio.balances():
        assert_type(balance.remaining, cycles.SignedAmount)
    assert_type(await client.aio.decide(cycles.tokens(1), action=("a", "b")), cycles.DecisionResponse)
    assert_type(await client.aio.flush(), cycles.FlushReport)
    assert_type(await client.aio.find(idempotency_key="k"), cycles.ReservationSummary | None)
    async with client.attach("token") as attached:
        assert_type(attached, cycles.AsyncGuard)


def money() -> None:
    assert_type(cycles.usd(1) + cycles.usd("0.5"), cycles.Amount)
    assert_type(cycles.usd(1) * 3, cycles.Amount)
    assert_type(cycles.to_usd(cycles.usd(1)), Decimal)
    assert_type(cycles.Amount.parse("$1"), cycles.Amount)
    prices = cycles.PriceBook({"m": cycles.Price(input="1", output=2)})
    assert_type(prices.cost("m", tokens_input=5), cycles.Amount)
    assert_type(cycles.usage.openai({}), cycles.Usage)
    cycles.usd(None)  # type: ignore[arg-type]
    cycles.usd(1) * 0.5  # type: ignore[operator]


def words() -> Iterator[str]:
    yield "word"


async def words_later() -> AsyncIterator[str]:
    yield "word"


class ProviderClient:
    """Any client of a provider: `guard` returns its type."""


def provider_clients() -> None:
    assert_type(cycles.providers.guard(ProviderClient()), ProviderClient)
