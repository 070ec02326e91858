"""Fixtures that folders of tests import into their `conftest.py`; `client` is each folder's own."""

from __future__ import annotations

from typing import Any

import pytest

import cycles
from tests.support.worlds import World


@pytest.fixture(params=["sync", "async"])
def world(request: pytest.FixtureRequest, client: cycles.Cycles) -> World:
    """The client in sync code, then in async code."""
    return World(request.param, client)


@pytest.fixture
def events(client: cycles.Cycles) -> list[Any]:
    """The events that the client reports from now on."""
    seen: list[Any] = []
    client.on_event(seen.append)
    return seen
