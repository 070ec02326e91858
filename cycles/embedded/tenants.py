"""The rules that a tenant's record sets: open or closed, defaults, and limits. A tenant needs no record."""

from __future__ import annotations

from typing import Final

from cycles.embedded import overage
from cycles.embedded.errors import ApiError
from cycles.embedded.records import Body, Tenant
from cycles.embedded.tables import Tables

# Used for a tenant without a record, and for members that a record omits.
DEFAULT_POLICY: Final = "ALLOW_IF_AVAILABLE"
DEFAULT_TTL_MS: Final = 60_000
MAX_TTL_MS: Final = 3_600_000
MAX_EXTENSIONS: Final = 10


class TenantRules:
    """Reads tenant records. A change by `set_tenant` applies from the next request."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def _record(self, tenant: str) -> Tenant:
        return self._tables.tenants.get((tenant,)) or Tenant(name=tenant)

    def require_open(self, tenant: str) -> None:
        """Raise `ApiError` for a closed tenant and for an unknown status. Authentication rejects suspended tenants."""
        status = self._record(tenant).status
        if status == "CLOSED":
            raise ApiError("TENANT_CLOSED", f"tenant {tenant} is closed; a closed tenant stays closed")
        if status not in ("ACTIVE", "SUSPENDED"):
            raise ApiError("INTERNAL_ERROR", f"the record of tenant {tenant} cannot be read; use another ledger file")

    def policy(self, tenant: str, request: Body) -> str:
        """Return the overage policy of a request: its own, or else the tenant's default."""
        requested: str | None = request.get("overage_policy")
        if requested is not None:
            return requested
        default = self._record(tenant).default_commit_overage_policy
        if default is None:
            return DEFAULT_POLICY
        if default not in overage.POLICIES:
            raise ApiError(
                "INVALID_REQUEST",
                f"tenant {tenant} has an unknown default overage policy: {default!r:.80}; send overage_policy",
            )
        return default

    def is_observed(self, tenant: str, request: Body) -> bool:
        """Return whether a live reservation is only observed: by its own mode, or else by the tenant's."""
        return (request.get("observe_mode") or self._record(tenant).observe_mode) == "OBSERVE"

    def ttl_ms(self, tenant: str, requested: int | None) -> int:
        """Return the granted lifetime: the requested one or the tenant's default, at most the tenant's maximum."""
        record = self._record(tenant)
        if requested is None:
            requested = (
                DEFAULT_TTL_MS if record.default_reservation_ttl_ms is None else record.default_reservation_ttl_ms
            )
        return min(requested, MAX_TTL_MS if record.max_reservation_ttl_ms is None else record.max_reservation_ttl_ms)

    def max_extensions(self, tenant: str) -> int:
        """Return how often a reservation created now may be extended."""
        most = self._record(tenant).max_reservation_extensions
        return MAX_EXTENSIONS if most is None else most
