"""Give a budget of a live server the numbers that a test wants, over the admin API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import httpx
import pytest
from attrs import frozen

from cycles._core.amounts import Amount

from .kit import amount, fresh_key

# The admin server calculates funding with floats, which are exact up to here.
EXACT = 2**53


def cannot(what: str) -> NoReturn:
    """Skip the test: the admin API cannot do this."""
    pytest.skip(f"a live server cannot {what} over the admin API")


@frozen(kw_only=True)
class Wanted:
    """The numbers and states that a test wants a budget to have."""

    allocated: Amount
    overdraft_limit: int = 0
    debt: int = 0
    spent: int = 0
    status: str | None = "ACTIVE"
    is_over_limit: bool = False
    caps: Mapping[str, Any] | None = None

    @property
    def unit(self) -> str:
        """The unit of all its numbers."""
        return str(self.allocated.unit)

    @property
    def obstacle(self) -> str | None:
        """What the admin API cannot do for this budget, or None."""
        obstacles = {
            "set caps": self.caps is not None,
            "make debt without a spend": self.debt > 0,
            "set the over-limit flag": self.is_over_limit,
            f"set the budget status {self.status}": self.status not in ("ACTIVE", "FROZEN"),
            "set amounts beyond 2^53": max(self.allocated.amount, self.spent, self.overdraft_limit) > EXACT,
        }
        return next((what for what, is_met in obstacles.items() if is_met), None)


class AdminApi:
    """The admin operations that the suite uses."""

    def __init__(self, url: str, key: str) -> None:
        self._http = httpx.Client(base_url=url, headers={"X-Admin-API-Key": key}, timeout=60.0)

    def call(self, method: str, path: str, body: Any = None, **query: Any) -> dict[str, Any]:
        """Send one request, which must succeed, and return its body."""
        response = self._http.request(method, f"/v1/admin/{path}", json=body, params=query or None)
        assert response.status_code < 300, (method, path, body, response.status_code, response.text)
        return dict(response.json())

    def find_budget(self, scope: str, unit: str) -> dict[str, Any] | None:
        """Return a budget, or None if the scope has none in this unit."""
        response = self._http.get("/v1/admin/budgets/lookup", params={"scope": scope, "unit": unit})
        assert response.status_code in (200, 404), response.text
        return dict(response.json()) if response.status_code == 200 else None

    def close(self) -> None:
        """Close the connections."""
        self._http.close()


def set_budget(admin: AdminApi, tenant: str, scope: str, wanted: Wanted) -> None:
    """Create or change a budget until it has these numbers, which must be possible over the admin API."""
    unit = wanted.unit
    where = {"scope": scope, "unit": unit}
    limit = {"overdraft_limit": amount(wanted.overdraft_limit, unit)}

    def fund(operation: str, value: int, **members: Any) -> None:
        body = {"operation": operation, "amount": amount(value, unit), "idempotency_key": fresh_key(), **members}
        admin.call("POST", "budgets/fund", body, **where, tenant_id=tenant)

    found = admin.find_budget(scope, unit)
    if found is None:
        admin.call("POST", "budgets", {"tenant_id": tenant, **where, "allocated": amount(0, unit), **limit})
    elif found["status"] == "FROZEN":
        admin.call("POST", "budgets/unfreeze", {"reason": "contract test"}, **where)
    if found is not None and found["debt"]["amount"]:
        fund("REPAY_DEBT", found["debt"]["amount"])
    admin.call("PATCH", "budgets", limit, **where)
    fund("RESET_SPENT", wanted.allocated.amount, spent=amount(wanted.spent, unit))
    if wanted.status == "FROZEN":
        admin.call("POST", "budgets/freeze", {"reason": "contract test"}, **where)
