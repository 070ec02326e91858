"""Fixtures for testing agents against the embedded server; loaded by pytest wherever this package is installed.

Importing it costs next to nothing: everything of this package is imported by the test that asks for a fixture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

# What a test gets that names no budgets: enough of the two common units for one tenant.
DEFAULT_TENANT = "test-tenant"
DEFAULT_USD = 100
DEFAULT_TOKENS = 1_000_000
# How long settlements under way may take to end before they count as left behind.
FLUSH_S = 1.0


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers",
        "cycles(budgets=None, tenant=None, **options): budgets and tenant of the `cycles_server` and `cycles_client` "
        "fixtures of this test; other options (clock=, path=, admin_api_key=) go to EmbeddedServer",
    )


@pytest.fixture
def cycles_server(request: pytest.FixtureRequest) -> Iterator[Any]:
    """An `EmbeddedServer` of the test's own, with the budgets of its `cycles` marker, or some for one tenant."""
    from cycles.embedded.server import EmbeddedServer

    options = _marked(request)
    tenant = options.pop("tenant", None)
    budgets = options.pop("budgets", None)
    if budgets is None:
        budgets = _default_budgets(tenant or DEFAULT_TENANT)
    with EmbeddedServer(budgets, **options) as server:
        yield server


@pytest.fixture
def cycles_client(request: pytest.FixtureRequest, cycles_server: Any) -> Iterator[Any]:
    """A `cycles.Cycles` of the marker's tenant (the first of the budgets by default) on `cycles_server`."""
    client = cycles_server.client(tenant=_marked(request).get("tenant"))
    try:
        yield client
    finally:
        client.close()


@pytest.fixture
def no_leaked_reservations(cycles_server: Any, cycles_client: Any) -> Callable[[], list[str]]:
    """Fails a test that leaves a reservation active or a settlement pending. The value lists what is left right now."""

    def left_behind() -> list[str]:
        cycles_client.flush(timeout=FLUSH_S)
        left = [f"reservation {rid} is still active" for rid in cycles_server.ledger.active_reservations()]
        return left + [f"settlement {pending} is still pending" for pending in cycles_client.pending()]

    return left_behind


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Look for leaks while the test can still fail, not only its tear-down."""
    outcome = yield
    left_behind = getattr(item, "funcargs", {}).get("no_leaked_reservations")
    left = left_behind() if left_behind is not None else []
    if left:
        pytest.fail("the test left budget behind:\n  " + "\n  ".join(left), pytrace=False)
    return outcome


def _marked(request: pytest.FixtureRequest) -> dict[str, Any]:
    marker = request.node.get_closest_marker("cycles")
    return dict(marker.kwargs) if marker is not None else {}


def _default_budgets(tenant: str) -> dict[str, Any]:
    from cycles._core.amounts import tokens, usd

    return {f"tenant:{tenant}": [usd(DEFAULT_USD), tokens(DEFAULT_TOKENS)]}
