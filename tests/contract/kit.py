"""What contract tests are written with: a caller that speaks HTTP and nothing else, and the numbers of a balance."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import httpx
from attrs import frozen

from cycles._core.amounts import Amount
from cycles.embedded import ManualClock
from cycles.embedded.operator import Operator

_fresh = itertools.count(1)
ABSENT: Any = object()
"""Given for a field, leaves it out of the body."""


def fresh_key() -> str:
    """An idempotency key nobody has used, in this run or another."""
    return f"contract-{next(_fresh)}-{id(ABSENT):x}"


@frozen
class Response:
    """A response, taken apart."""

    status: int
    body: dict[str, Any]
    headers: httpx.Headers

    @property
    def error(self) -> str | None:
        """The error code."""
        return self.body.get("error")

    @property
    def numbers(self) -> tuple[int, int, int, int]:
        """remaining/reserved/spent/debt of the first balance of the response."""
        return numbers(self.body["balances"][0])

    @property
    def outcome(self) -> tuple[int, str | None]:
        """Status and error code."""
        return self.status, self.error


def numbers(balance: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """remaining/reserved/spent/debt of a balance object."""
    return (
        balance["remaining"]["amount"],
        balance["reserved"]["amount"],
        balance["spent"]["amount"],
        balance.get("debt", {"amount": 0})["amount"],
    )


def amount(value: int, unit: str = "TOKENS") -> dict[str, Any]:
    """An amount as it goes over the wire."""
    return {"unit": unit, "amount": value}


def without_absent(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that were given."""
    return {name: value for name, value in fields.items() if value is not ABSENT}


class Api:
    """Calls one server with one API key. Bodies are complete unless told otherwise; `fields` are added or replaced."""

    def __init__(self, http: httpx.Client, tenant: str) -> None:
        self.http = http
        self.tenant = tenant

    def call(
        self, method: str, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None, **options: Any
    ) -> Response:
        """One request; a body goes as JSON."""
        response = self.http.request(method, path, json=body, headers=headers, **options)
        return Response(response.status_code, response.json(), response.headers)

    def post(self, path: str, body: Any, **options: Any) -> Response:
        """One POST."""
        return self.call("POST", path, body, **options)

    def get(self, path: str, **options: Any) -> Response:
        """One GET."""
        return self.call("GET", path, **options)

    def who(self, fields: dict[str, Any]) -> dict[str, Any]:
        """What every request of a subject has."""
        return {
            "idempotency_key": fresh_key(),
            "subject": {"tenant": self.tenant},
            "action": {"kind": "llm.completion", "name": "gpt-4o"},
        } | fields

    def reserve(self, estimate: int = 1000, unit: str = "TOKENS", /, *, headers: Any = None, **fields: Any) -> Response:
        """POST /v1/reservations, with policy REJECT and a ttl of a minute."""
        body = self.who({"estimate": amount(estimate, unit), "ttl_ms": 60_000, "overage_policy": "REJECT"} | fields)
        return self.post("/v1/reservations", without_absent(body), headers=headers)

    def held(self, estimate: int = 1000, unit: str = "TOKENS", /, **fields: Any) -> str:
        """The id of a new reservation."""
        response = self.reserve(estimate, unit, **fields)
        assert response.status == 200, response.body
        reservation_id: str = response.body["reservation_id"]
        return reservation_id

    def decide(self, estimate: int = 1000, unit: str = "TOKENS", /, *, headers: Any = None, **fields: Any) -> Response:
        """POST /v1/decide."""
        body = self.who({"estimate": amount(estimate, unit)} | fields)
        return self.post("/v1/decide", without_absent(body), headers=headers)

    def event(self, actual: int = 1000, unit: str = "TOKENS", /, *, headers: Any = None, **fields: Any) -> Response:
        """POST /v1/events."""
        body = self.who({"actual": amount(actual, unit)} | fields)
        return self.post("/v1/events", without_absent(body), headers=headers)

    def commit(
        self, rid: str, actual: int = 1000, unit: str = "TOKENS", /, *, headers: Any = None, **fields: Any
    ) -> Response:
        """POST .../commit."""
        body = {"idempotency_key": fresh_key(), "actual": amount(actual, unit)} | fields
        return self.post(f"/v1/reservations/{rid}/commit", without_absent(body), headers=headers)

    def release(self, rid: str, *, headers: Any = None, **fields: Any) -> Response:
        """POST .../release."""
        body = {"idempotency_key": fresh_key()} | fields
        return self.post(f"/v1/reservations/{rid}/release", without_absent(body), headers=headers)

    def extend(self, rid: str, by_ms: int = 30_000, /, *, headers: Any = None, **fields: Any) -> Response:
        """POST .../extend."""
        body = {"idempotency_key": fresh_key(), "extend_by_ms": by_ms} | fields
        return self.post(f"/v1/reservations/{rid}/extend", without_absent(body), headers=headers)

    def row(self, rid: str) -> Response:
        """GET one reservation."""
        return self.get(f"/v1/reservations/{rid}")

    def rows(self, **query: Any) -> Response:
        """GET the list of reservations; `from_` is the parameter `from`."""
        return self.get("/v1/reservations", params={name.rstrip("_"): value for name, value in query.items()})

    def balances(self, **query: Any) -> Response:
        """GET balances, of the tenant if nothing else is asked for."""
        return self.get("/v1/balances", params=query or {"tenant": self.tenant})


@frozen
class World:
    """A server to test, and what can be done behind its counter."""

    api: Api
    other: Api
    ledger: Operator
    clock: ManualClock
    anonymous: Api
    admin: Api

    def seed(
        self, scope: str = "tenant:tenant-a", allocated: int = 1_000_000, unit: str = "TOKENS", **fields: Any
    ) -> None:
        """Set a budget."""
        self.ledger.set_budget(scope, Amount(unit, allocated), **fields)

    def numbers(self, scope: str = "tenant:tenant-a", unit: str = "TOKENS") -> tuple[int, int, int, int]:
        """remaining/reserved/spent/debt of a scope."""
        shown = self.ledger.balance(scope, unit)
        parts = (shown.remaining, shown.reserved, shown.spent, shown.debt)
        remaining, reserved, spent, debt = (part.amount for part in parts if part is not None)
        return remaining, reserved, spent, debt

    def over_limit(self, scope: str = "tenant:tenant-a", unit: str = "TOKENS") -> bool | None:
        """The over-limit mark of a scope."""
        return self.ledger.balance(scope, unit).is_over_limit
