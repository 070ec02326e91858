"""Servers with an admin key: the embedded server, and a reference server if the environment names one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from attrs import frozen

import cycles
from cycles.admin import Admin
from cycles.embedded import EmbeddedServer

URL, KEY = os.environ.get("CYCLES_CONTRACT_ADMIN_URL"), os.environ.get("CYCLES_CONTRACT_ADMIN_KEY")
RUNTIME = os.environ.get("CYCLES_CONTRACT_URL")
SERVERS = ["embedded", "reference"] if URL and KEY and RUNTIME else ["embedded"]
TEN, FIVE = cycles.tokens(10), cycles.tokens(5)


@frozen
class AdminTarget:
    """A server with its admin client, and a tenant id that no other test uses."""

    admin: Admin
    tenant: str
    client: Callable[[str], cycles.Cycles]
    send: Callable[..., httpx.Response]
    server: EmbeddedServer | None = None

    @property
    def scope(self) -> str:
        return f"tenant:{self.tenant}"

    def onboarded(self, **budgets: Any) -> cycles.admin.Onboarded:
        """Create the tenant with a budget of ten tokens."""
        return self.admin.onboard(self.tenant, "Test", budgets={self.scope: TEN, **budgets}, key_name="test")


@pytest.fixture(params=SERVERS)
def target(request: pytest.FixtureRequest) -> Iterator[AdminTarget]:
    tenant = f"t-{secrets.token_hex(5)}"
    if request.param == "reference":
        assert URL is not None
        with Admin(URL, KEY) as admin, httpx.Client(base_url=URL) as http:
            yield AdminTarget(
                admin,
                tenant,
                lambda key: cycles.Cycles(base_url=RUNTIME, api_key=key, tenant=tenant, journal=False),
                http.request,
            )
        return
    with EmbeddedServer(admin_api_key="admin-key-of-the-test") as server:
        http = httpx.Client(transport=server.transport(), base_url="http://embedded.test")

        def client(key: str) -> cycles.Cycles:
            return cycles.Cycles(
                base_url="http://embedded.test",
                api_key=key,
                tenant=tenant,
                journal=False,
                flush_timeout=0.1,
                http_client=http,
            )

        with http, Admin("http://embedded.test", "admin-key-of-the-test", http_client=http) as admin:
            yield AdminTarget(admin, tenant, client, http.request, server)
