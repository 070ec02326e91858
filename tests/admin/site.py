"""A server of one tenant for tests that compare whole answers of admin operations."""

from __future__ import annotations

import json
from typing import Any, Final

from cycles.embedded import EmbeddedServer, ManualClock
from cycles.embedded.http import Request

START_MS: Final = 1_767_225_600_000
START: Final = "2026-01-01T00:00:00.000Z"
SECOND: Final = "2026-01-01T00:00:01.000Z"
DAY_MS: Final = 86_400_000
ACME: Final = "tenant:acme"
BOT: Final = "tenant:acme/agent:bot"
PLACE: Final = f"scope={ACME}&unit=TOKENS"
FUND: Final = f"budgets/fund?tenant_id=acme&{PLACE}"


def tokens(amount: int) -> dict[str, Any]:
    return {"unit": "TOKENS", "amount": amount}


class Site:
    """A server with the tenant acme, its key and a budget of ten tokens. Requests have no socket."""

    def __init__(self) -> None:
        self.clock = ManualClock(START_MS)
        self.server = EmbeddedServer(admin_api_key="adm", clock=self.clock, protocol="0.1.26")
        self.headers: dict[str, str] = {}
        """Those of the last response."""
        self.made("tenants", tenant_id="acme", name="Acme")
        self.key = self.made("api-keys", tenant_id="acme", name="one")
        self.budget = self.made("budgets", tenant_id="acme", scope=ACME, unit="TOKENS", allocated=tokens(10))

    def send(
        self, method: str, path: str, body: Any = None, key: str | None = None, **headers: str
    ) -> tuple[int, dict[str, Any]]:
        """Send a request with the admin key, or with a tenant's; return status and body."""
        own = {"x-admin-api-key": "adm"} if key is None else {"x-cycles-api-key": key}
        request = Request(
            method=method,
            target=f"/v1/{path}" if path.startswith("auth/") else f"/v1/admin/{path}",
            headers={**own, "content-type": "application/json", **headers},
            body=b"" if body is None else json.dumps(body).encode(),
            address="192.0.2.7",
        )
        response, _ = self.server.handle(request)
        assert response is not None
        self.headers = response.headers
        found = json.loads(response.body)
        if "error" in found:
            assert (found.pop("request_id"), found.pop("trace_id")) == (
                response.headers["X-Request-Id"],
                response.headers["X-Cycles-Trace-Id"],
            )
        return response.status, found

    def made(self, path: str, **body: Any) -> dict[str, Any]:
        status, found = self.send("POST", path, body)
        assert status in (200, 201), found
        return found

    def audited(self) -> dict[str, Any]:
        """Return the newest entry of the audit log, without what is random."""
        entry: dict[str, Any] = self.send("GET", "audit/logs?limit=1")[1]["logs"][0]
        return {name: entry[name] for name in entry if name not in ("log_id", "request_id", "trace_id")}


def error(code: str, message: str) -> dict[str, Any]:
    return {"error": code, "message": message}
