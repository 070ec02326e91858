"""An admin server with scripted responses: it records requests, and can lose them or their responses."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx

import cycles
from cycles.admin import Admin

KEY = "adm_secret_key_of_the_tests"
Json = dict[str, Any]
Step = httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]


def ok(body: Json, status: int = 200) -> httpx.Response:
    """Return a success."""
    return httpx.Response(status, json=body)


def rejected(status: int, code: str, message: str = "no", **details: Any) -> httpx.Response:
    """Return an error response."""
    body: Json = {"error": code, "message": message, "request_id": "r1"}
    return httpx.Response(status, json={**body, "details": details} if details else body)


LOST = httpx.ReadTimeout("the response is lost")
REFUSED = httpx.ConnectError("connection refused")
UNAVAILABLE = httpx.Response(503)


class Script:
    """Respond to the requests of one test with the given steps, in their order."""

    def __init__(self, *steps: Step) -> None:
        self.steps = list(steps)
        self.requests: list[httpx.Request] = []
        transport = httpx.MockTransport(self._respond)
        self.http = httpx.Client(transport=transport)
        self.async_http = httpx.AsyncClient(transport=httpx.MockTransport(self._respond))
        self.admin = Admin("http://admin.test", KEY, http_client=self.http, async_http_client=self.async_http)

    def _respond(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        if not isinstance(step, httpx.Response):
            return step(request)
        # A client binds a response to itself, and tests share some of them.
        return httpx.Response(step.status_code, headers=step.headers, content=step.content)

    @property
    def calls(self) -> list[str]:
        """Return the requests, as method and path."""
        return [f"{request.method} {request.url.path}" for request in self.requests]

    def body(self, number: int = -1) -> Json:
        """Return the body of a request."""
        body: Json = json.loads(self.requests[number].content)
        return body


def budget_body(scope: str = "tenant:acme", amount: int = 100, **members: Any) -> Json:
    """Return a budget as the server returns it."""
    unit = members.pop("unit", "TOKENS")
    amounts = {"allocated": amount, "remaining": amount, "reserved": 0, "spent": 0, "debt": 0, "overdraft_limit": 0}
    body: Json = {name: {"unit": unit, "amount": value} for name, value in amounts.items()}
    body |= {"ledger_id": "l1", "tenant_id": "acme", "scope": scope, "unit": unit, "status": "ACTIVE"}
    return body | members


def funding_body(operation: str = "CREDIT", before: int = 100, after: int = 150, unit: str = "TOKENS") -> Json:
    """Return a funding result as the server returns it."""
    values = {"previous": before, "new": after}
    body: Json = {
        f"{when}_{what}": {"unit": unit, "amount": value}
        for when, value in values.items()
        for what in ("allocated", "remaining")
    }
    return {"operation": operation, **body, "timestamp": "2026-11-25T20:23:37.882461091Z"}


def key_body(**members: Any) -> Json:
    """Return a new API key as the server returns it."""
    return {
        "key_id": "key_1",
        "key_secret": "cyc_live_the_secret",
        "key_prefix": "cyc_live_the_s",
        "tenant_id": "acme",
        "permissions": ["balances:read"],
        "created_at": "2026-11-25T20:23:37Z",
    } | members


TENANT: Json = {"tenant_id": "acme", "name": "Acme", "status": "ACTIVE", "created_at": "2026-11-25T20:23:37Z"}
FIVE = cycles.tokens(5)
