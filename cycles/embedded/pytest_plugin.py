"""Fixtures for testing agents with the embedded server. pytest loads them if this package is installed.

Importing this module is cheap: the rest of the package is imported when a test uses a fixture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

# The budgets of a test without any: enough of the two common units for one tenant.
DEFAULT_TENANT = "test-tenant"
DEFAULT_USD = 100
DEFAULT_TOKENS = 1_000_000
# Seconds that settlements in progress get before they count as leaked.
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
    """A separate `EmbeddedServer` for each test, with the budgets of its `cycles` marker or default ones."""
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
    """Fail a test that leaves a reservation active or a settlement pending. Call the value to list them."""

    def leaks() -> list[str]:
        cycles_client.flush(timeout=FLUSH_S)
        left = [f"reservation {rid} is still active" for rid in cycles_server.ledger.active_reservations()]
        return left + [f"settlement {pending} is still pending" for pending in cycles_client.pending()]

    return leaks


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Look for leaks before the test ends, so that the test fails and not its teardown."""
    outcome = yield
    leaks = getattr(item, "funcargs", {}).get("no_leaked_reservations")
    left = leaks() if leaks is not None else []
    if left:
        pytest.fail("the test leaked budget; commit or release it:\n  " + "\n  ".join(left), pytrace=False)
    return outcome


def _marked(request: pytest.FixtureRequest) -> dict[str, Any]:
    marker = request.node.get_closest_marker("cycles")
    return dict(marker.kwargs) if marker is not None else {}


def _default_budgets(tenant: str) -> dict[str, Any]:
    from cycles._core.amounts import tokens, usd

    return {f"tenant:{tenant}": [usd(DEFAULT_USD), tokens(DEFAULT_TOKENS)]}
