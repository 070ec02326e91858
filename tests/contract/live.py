"""A live pair of servers as a `Target`: tenants, keys and budgets are made over the admin API.

What the admin API cannot do is written into the servers' Redis if it is given, else the test is skipped. The suite
changes only what it made. Two tenants and their keys serve many tests, because a server takes half a second to make
and check a key. A test that leaves something that the admin API cannot delete (a budget of another scope, rows of a
list) gets new tenants, or its tenants are not used again.
"""

from __future__ import annotations

import secrets
from typing import Any, NoReturn

import httpx
from attrs import frozen

from cycles._core.amounts import Amount

from .kit import Api, Target, amount, fresh_key
from .live_budget import AdminApi, Wanted, cannot, set_budget
from .live_redis import Redis, delete_budget, read_budget, write_budget, write_tenant

PERMISSIONS = [f"reservations:{name}" for name in ("create", "commit", "release", "extend", "list")] + ["balances:read"]
# Letters that are no hex digits, so that a tenant's name is never part of an id.
LETTERS = "ghjkmnpqrstuvwxyz"
POLICIES = ("REJECT", "ALLOW_IF_AVAILABLE", "ALLOW_WITH_OVERDRAFT")
TENANT_DEFAULTS: dict[str, Any] = {
    "default_commit_overage_policy": "ALLOW_IF_AVAILABLE",
    "default_reservation_ttl_ms": 60_000,
    "max_reservation_ttl_ms": 3_600_000,
    "max_reservation_extensions": 10,
}


@frozen
class Servers:
    """The addresses and keys of a live pair of servers."""

    runtime_url: str
    admin_url: str
    admin_key: str
    redis_url: str | None


class LiveTenant:
    """A tenant with a key. `name` is its name in the tests, `id` the one on the server, of the same length."""

    def __init__(self, servers: Servers, admin: AdminApi, name: str) -> None:
        self.name = name
        self.id = "".join(secrets.choice(LETTERS) for _ in name)
        self.is_reusable = True
        self._servers = servers
        self._transport = httpx.HTTPTransport()
        admin.call("POST", "tenants", {"tenant_id": self.id, "name": "Contract test"})
        body = {"tenant_id": self.id, "name": "contract", "permissions": PERMISSIONS}
        self.key = str(admin.call("POST", "api-keys", body)["key_secret"])

    def api(self, renamed: httpx.BaseTransport, **headers: str) -> Api:
        """Return a caller for the tests; `renamed` translates the names of tenants."""
        headers = {"Accept-Encoding": "identity", **headers}
        http = httpx.Client(base_url=self._servers.runtime_url, headers=headers, transport=renamed, timeout=60.0)
        return Api(http, self.name, is_live=True)


class Renamed(httpx.BaseTransport):
    """Translates the tenants' names of the tests into those on the server, and back in responses."""

    def __init__(self, transport: httpx.BaseTransport, names: dict[str, str]) -> None:
        self._transport = transport
        self._names = names

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request with the server's names."""
        url = str(request.url)
        content = request.read()
        for name, actual in self._names.items():
            url = url.replace(name, actual)
            content = content.replace(name.encode(), actual.encode())
        sent = httpx.Request(
            request.method, url, headers=request.headers, content=content, extensions=request.extensions
        )
        response = self._transport.handle_request(sent)
        body = response.read()
        headers = [(name.decode(), value.decode("latin-1")) for name, value in response.headers.raw]
        for name, actual in self._names.items():
            body = body.replace(actual.encode(), name.encode())
            headers = [(header, value.replace(actual, name)) for header, value in headers]
        headers = [(header, value) for header, value in headers if header.lower() != "transfer-encoding"]
        return httpx.Response(response.status_code, headers=headers, content=body)


class LiveClock:
    """The clock of a live server, which no test can read or set."""

    def now_ms(self) -> NoReturn:
        """Skip the test."""
        cannot("show its clock")

    def advance(self, ms: int) -> NoReturn:
        """Skip the test."""
        cannot(f"move its clock by {ms} ms")


@frozen
class Number:
    """An amount that may be negative."""

    amount: int


@frozen
class LiveBalance:
    """The members of `cycles.Balance` that the tests read."""

    remaining: Number
    reserved: Number
    spent: Number
    debt: Number
    is_over_limit: bool


class LiveLedger:
    """The part of `server.ledger` that the admin API and Redis offer. Anything else skips the test."""

    def __init__(self, admin: AdminApi, redis: Redis | None, tenants: dict[str, LiveTenant]) -> None:
        self._admin = admin
        self._redis = redis
        self._tenants = tenants
        self._shared: list[tuple[str, str]] = []

    def _actual(self, scope: str) -> tuple[LiveTenant | None, str]:
        level, _, rest = scope.partition(":")
        name, slash, below = rest.partition("/")
        if level != "tenant":
            return None, scope
        tenant = self._tenants[name]
        return tenant, f"tenant:{tenant.id}{slash}{below}"

    def _in_redis(self, what: str) -> Redis:
        return self._redis or cannot(what)

    def set_budget(self, scope: str, allocated: Amount, **members: Any) -> None:
        """Create or replace a budget."""
        wanted = Wanted(allocated=allocated, **members)
        tenant, actual = self._actual(scope)
        if tenant is None:  # all tenants share it, so the end of the test deletes it
            self._shared.append((scope, str(allocated.unit)))
            write_budget(self._in_redis("make a budget without a tenant"), "", scope, wanted)
            return
        if actual != f"tenant:{tenant.id}" or allocated.unit != "TOKENS":
            tenant.is_reusable = False
        if wanted.obstacle is not None:
            tenant.is_reusable = False
            write_budget(self._in_redis(wanted.obstacle), tenant.id, actual, wanted)
        else:
            set_budget(self._admin, tenant.id, actual, wanted)

    def delete_budget(self, scope: str, unit: str) -> None:
        """Delete a budget."""
        tenant, actual = self._actual(scope)
        assert tenant is not None
        tenant.is_reusable = False
        delete_budget(self._in_redis("delete a budget"), tenant.id, actual, unit)

    def fund(self, scope: str, added: Amount) -> None:
        """Add to a budget."""
        tenant, actual = self._actual(scope)
        assert tenant is not None
        body = {"operation": "CREDIT", "amount": amount(added.amount, added.unit), "idempotency_key": fresh_key()}
        self._admin.call("POST", "budgets/fund", body, scope=actual, unit=str(added.unit), tenant_id=tenant.id)

    def balance(self, scope: str, unit: str) -> LiveBalance:
        """Return the numbers of a budget."""
        names = ("remaining", "reserved", "spent", "debt")
        _, actual = self._actual(scope)
        if self._redis is not None:
            stored = read_budget(self._redis, actual, unit)
            numbers = {name: Number(int(stored[name])) for name in names}
            return LiveBalance(is_over_limit=stored["is_over_limit"] == "true", **numbers)
        found = self._admin.find_budget(actual, unit)
        assert found is not None, f"{scope} has no budget in {unit}"
        numbers = {name: Number(found[name]["amount"]) for name in names}
        return LiveBalance(is_over_limit=bool(found["is_over_limit"]), **numbers)

    def set_tenant(self, name: str, *, status: Any = "ACTIVE", **members: Any) -> None:
        """Change a tenant's record. A member that is not given gets its default, as in a new record."""
        tenant = self._tenants.get(name) or cannot(f"make the tenant {name}")
        tenant.is_reusable = False
        members = TENANT_DEFAULTS | members | {"status": status}
        policy = members["default_commit_overage_policy"]
        if status in ("ACTIVE", "SUSPENDED") and policy in POLICIES:
            self._admin.call("PATCH", f"tenants/{tenant.id}", members)
        else:  # closing over the admin API would also release the tenant's reservations
            write_tenant(self._in_redis(f"set the status {status!r}, the policy {policy!r}"), tenant.id, members)

    def delete_tenant(self, name: str) -> None:
        """Give a tenant's record its defaults, which is what a tenant without a record has."""
        self.set_tenant(name)

    def set_api_key(self, key: str, **members: Any) -> NoReturn:
        """Skip the test."""
        cannot("store a given API key")

    def delete_shared_budgets(self) -> None:
        """Delete the budgets of this test that belong to no tenant."""
        for scope, unit in self._shared:
            delete_budget(self._in_redis("delete a budget"), "", scope, unit)


class LiveTargets:
    """Makes targets on a live pair of servers, with as few tenants as possible."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._admin = AdminApi(servers.admin_url, servers.admin_key)
        self._transport = httpx.HTTPTransport()
        self._redis = Redis(servers.redis_url) if servers.redis_url else None
        self._free: dict[str, LiveTenant] = {}

    def open(self, *, new_tenants: bool) -> Target:
        """Return a target in which both tenants have their first budget and no active reservation."""
        tenants = {name: self._tenant(name, new_tenants) for name in ("tenant-a", "tenant-b")}
        renamed = Renamed(self._transport, {name: tenant.id for name, tenant in tenants.items()})
        ledger = LiveLedger(self._admin, self._redis, tenants)
        ledger.set_budget("tenant:tenant-a", Amount("TOKENS", 1_000_000), overdraft_limit=100_000)
        ledger.set_budget("tenant:tenant-b", Amount("TOKENS", 500_000))
        a, b = tenants.values()
        return Target(
            api=a.api(renamed, **{"X-Cycles-API-Key": a.key}),
            other=b.api(renamed, **{"X-Cycles-API-Key": b.key}),
            anonymous=a.api(renamed),
            admin=a.api(renamed, **{"X-Admin-API-Key": self._servers.admin_key}),
            ledger=ledger,
            clock=LiveClock(),
        )

    def _tenant(self, name: str, new: bool) -> LiveTenant:
        found = self._free.get(name)
        if found is None or new or not found.is_reusable:
            found = self._free[name] = LiveTenant(self._servers, self._admin, name)
        return found

    def end(self, target: Target) -> None:
        """Release the reservations that the test left active, then delete what no tenant owns.

        A reservation that ends after its budget was deleted would make the budget again, with wrong numbers.
        """
        for api in (target.api, target.other):
            for row in api.rows(status="ACTIVE", limit="200").body.get("reservations", ()):
                released = api.release(row["reservation_id"])
                assert released.status == 200 or not self._free[api.tenant].is_reusable
        target.ledger.delete_shared_budgets()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()
        self._admin.close()
        if self._redis is not None:
            self._redis.close()
