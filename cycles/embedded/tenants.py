"""What a tenant's record, if there is one, does to the ledger: open or closed, defaults and limits."""

from __future__ import annotations

from typing import Final

from cycles.embedded import overage
from cycles.embedded.errors import ApiError
from cycles.embedded.records import Body, Tenant
from cycles.embedded.tables import Tables

# What holds for a tenant without a record, or whose record leaves it out.
DEFAULT_POLICY: Final = "ALLOW_IF_AVAILABLE"
DEFAULT_TTL_MS: Final = 60_000
MAX_TTL_MS: Final = 3_600_000
MAX_EXTENSIONS: Final = 10


class TenantRules:
    """Reads tenant records. What `set_tenant` changes holds from the next request on."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def _record(self, tenant: str) -> Tenant:
        return self._tables.tenants.get((tenant,)) or Tenant(name=tenant)

    def require_open(self, tenant: str) -> None:
        """Refuse a closed tenant, and a record whose status is no status. A suspended one is stopped at the door."""
        status = self._record(tenant).status
        if status == "CLOSED":
            raise ApiError("TENANT_CLOSED", f"tenant {tenant} is closed")
        if status not in ("ACTIVE", "SUSPENDED"):
            raise ApiError("INTERNAL_ERROR", f"the record of tenant {tenant} cannot be read")

    def policy(self, tenant: str, request: Body) -> str:
        """The overage policy of a request: its own, else the tenant's default."""
        requested: str | None = request.get("overage_policy")
        if requested is not None:
            return requested
        default = self._record(tenant).default_commit_overage_policy
        if default is None:
            return DEFAULT_POLICY
        if default not in overage.POLICIES:
            raise ApiError("INVALID_REQUEST", f"the default overage policy of tenant {tenant} is {default!r}")
        return default

    def ttl_ms(self, tenant: str, requested: int | None) -> int:
        """The lifetime that is granted: what was asked for or the tenant's default, up to the tenant's maximum."""
        record = self._record(tenant)
        if requested is None:
            requested = (
                DEFAULT_TTL_MS if record.default_reservation_ttl_ms is None else record.default_reservation_ttl_ms
            )
        return min(requested, MAX_TTL_MS if record.max_reservation_ttl_ms is None else record.max_reservation_ttl_ms)

    def max_extensions(self, tenant: str) -> int:
        """How often a reservation that is made now may be extended."""
        most = self._record(tenant).max_reservation_extensions
        return MAX_EXTENSIONS if most is None else most
