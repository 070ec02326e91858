"""What a closed client does."""

from __future__ import annotations

import asyncio

import pytest

import cycles


def make() -> cycles.Cycles:
    return cycles.Cycles(base_url="http://localhost", api_key="k", tenant="acme", journal=False)


def assert_closed(client: cycles.Cycles) -> None:
    with pytest.raises(cycles.CyclesError, match=r"^this client is closed: make a new one with cycles.Cycles\(...\)$"):
        client.reserve(cycles.usd(1), action=("tool.call", "search"))
    with pytest.raises(cycles.CyclesError, match="closed"):
        client.pending()


def test_closing_a_client_before_its_first_request_closes_it() -> None:
    client = make()
    client.close()
    assert_closed(client)
    client.close()


def test_closing_an_async_client_before_its_first_request_closes_it() -> None:
    client = make()
    asyncio.run(client.aclose())
    assert_closed(client)
    asyncio.run(client.aclose())
