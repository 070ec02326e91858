"""The tools of the contract tests: a caller that uses plain HTTP, and the numbers of a balance."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Mapping
from typing import Any

import httpx
from attrs import frozen

from cycles._core.amounts import Amount

_fresh = itertools.count(1)
_run = secrets.token_hex(6)
ABSENT: Any = object()
"""As the value of a member, omits the member from the body."""


def fresh_key() -> str:
    """Return a new idempotency key, different from those of other runs."""
    return f"contract-{next(_fresh)}-{_run}"


@frozen
class Response:
    """A response: status, JSON body and headers. `is_live`: another server than the embedded one sent it."""

    status: int
    body: dict[str, Any]
    headers: httpx.Headers
    is_live: bool = False

    @property
    def error(self) -> str | None:
        """Return the error code."""
        return self.body.get("error")

    @property
    def numbers(self) -> tuple[int, int, int, int]:
        """Return remaining/reserved/spent/debt of the first balance of the response."""
        return numbers(self.body["balances"][0])

    @property
    def outcome(self) -> tuple[int, str | None]:
        """Return status and error code."""
        return self.status, self.error

    def mentions(self, text: str) -> bool:
        """Return whether the error message contains `text`. Other servers may word their messages as they like."""
        return self.is_live or text in self.body["message"]


def numbers(balance: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """Return remaining/reserved/spent/debt of a balance object."""
    return (
        balance["remaining"]["amount"],
        balance["reserved"]["amount"],
        balance["spent"]["amount"],
        balance.get("debt", {"amount": 0})["amount"],
    )


def amount(value: int, unit: str = "TOKENS") -> dict[str, Any]:
    """Return an amount object."""
    return {"unit": unit, "amount": value}


def without_absent(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members that are not ABSENT."""
    return {name: value for name, value in fields.items() if value is not ABSENT}


class Api:
    """Calls one server with one API key. Bodies are complete; `fields` adds or replaces members."""

    def __init__(self, http: httpx.Client, tenant: str, *, is_live: bool = False) -> None:
        self.http = http
        self.tenant = tenant
        self.is_live = is_live

    def call(
        self, method: str, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None, **options: Any
    ) -> Response:
        """Send one request, with the body as JSON."""
        return self.response(self.http.request(method, path, json=body, headers=headers, **options))

    def response(self, received: httpx.Response) -> Response:
        """Return a response for the tests. Without JSON, its body is empty."""
        is_json = received.content and "json" in received.headers.get("Content-Type", "")
        body = received.json() if is_json else {}
        return Response(received.status_code, body, received.headers, self.is_live)

    def post(self, path: str, body: Any, **options: Any) -> Response:
        """Send a POST."""
        return self.call("POST", path, body, **options)

    def get(self, path: str, **options: Any) -> Response:
        """Send a GET."""
        return self.call("GET", path, **options)

    def who(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return the members that every request with a subject has."""
        return {
            "idempotency_key": fresh_key(),
            "subject": {"tenant": self.tenant},
            "action": {"kind": "llm.completion", "name": "gpt-4o"},
        } | fields

    def reserve(self, estimate: int = 1000, unit: str = "TOKENS", /, *, headers: Any = None, **fields: Any) -> Response:
        """Reserve, with the policy REJECT and a ttl of a minute."""
        body = self.who({"estimate": amount(estimate, unit), "ttl_ms": 60_000, "overage_policy": "REJECT"} | fields)
        return self.post("/v1/reservations", without_absent(body), headers=headers)

    def held(self, estimate: int = 1000, unit: str = "TOKENS", /, **fields: Any) -> str:
        """Reserve and return the reservation id."""
        response = self.reserve(estimate, unit, **fields)
        assert response.status == 200, response.body
        reservation_id: str = response.body["reservation_id"]
        return reservation_id

    def decide(self, estimate: int = 1000, unit: str = "TOKENS", /, *, headers: Any = None, **fields: Any) -> Response:
        """Decide."""
        body = self.who({"estimate": amount(estimate, unit)} | fields)
        return self.post("/v1/decide", without_absent(body), headers=headers)

    def event(self, actual: int = 1000, unit: str = "TOKENS", /, *, headers: Any = None, **fields: Any) -> Response:
        """Send an event."""
        body = self.who({"actual": amount(actual, unit)} | fields)
        return self.post("/v1/events", without_absent(body), headers=headers)

    def commit(
        self, rid: str, actual: int = 1000, unit: str = "TOKENS", /, *, headers: Any = None, **fields: Any
    ) -> Response:
        """Commit."""
        body = {"idempotency_key": fresh_key(), "actual": amount(actual, unit)} | fields
        return self.post(f"/v1/reservations/{rid}/commit", without_absent(body), headers=headers)

    def release(self, rid: str, *, headers: Any = None, **fields: Any) -> Response:
        """Release."""
        body = {"idempotency_key": fresh_key()} | fields
        return self.post(f"/v1/reservations/{rid}/release", without_absent(body), headers=headers)

    def extend(self, rid: str, by_ms: int = 30_000, /, *, headers: Any = None, **fields: Any) -> Response:
        """Extend."""
        body = {"idempotency_key": fresh_key(), "extend_by_ms": by_ms} | fields
        return self.post(f"/v1/reservations/{rid}/extend", without_absent(body), headers=headers)

    def row(self, rid: str) -> Response:
        """Read one reservation."""
        return self.get(f"/v1/reservations/{rid}")

    def rows(self, **query: Any) -> Response:
        """List reservations; `from_` is the parameter `from`."""
        return self.get("/v1/reservations", params={name.rstrip("_"): value for name, value in query.items()})

    def balances(self, **query: Any) -> Response:
        """List balances, by default those of the tenant."""
        return self.get("/v1/balances", params=query or {"tenant": self.tenant})


@frozen
class Target:
    """A server to test. `ledger` and `clock` change its state directly, so far as the place allows it."""

    api: Api
    other: Api
    ledger: Any  # an Operator, or the part of it that a live server offers
    clock: Any
    anonymous: Api
    admin: Api

    def seed(
        self, scope: str = "tenant:tenant-a", allocated: int = 1_000_000, unit: str = "TOKENS", **fields: Any
    ) -> None:
        """Set a budget."""
        self.ledger.set_budget(scope, Amount(unit, allocated), **fields)

    def numbers(self, scope: str = "tenant:tenant-a", unit: str = "TOKENS") -> tuple[int, int, int, int]:
        """Return remaining/reserved/spent/debt of a scope."""
        shown = self.ledger.balance(scope, unit)
        parts = (shown.remaining, shown.reserved, shown.spent, shown.debt)
        remaining, reserved, spent, debt = (part.amount for part in parts if part is not None)
        return remaining, reserved, spent, debt

    def over_limit(self, scope: str = "tenant:tenant-a", unit: str = "TOKENS") -> bool:
        """Return the over-limit flag of a scope."""
        return bool(self.ledger.balance(scope, unit).is_over_limit)
