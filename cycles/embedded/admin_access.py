"""Who may call an admin operation, and the audit log of these calls. See `docs/admin.md`."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Final

from cycles.embedded.admin_state import AdminState, Result
from cycles.embedded.authentication import Authenticator, is_same_secret
from cycles.embedded.errors import ApiError
from cycles.embedded.http import Request, trace_id_of
from cycles.embedded.ledger import Ledger
from cycles.embedded.records import AdminInfo, Body
from cycles.embedded.routes import Route
from cycles.embedded.webhook_events import timestamp

_KEPT_MS: Final = 30 * 24 * 60 * 60 * 1000
_ALSO: Final = {"action_quotas:read": "balances:read"}  # a permission that protocol 0.1.26 accepts in its place


class AdminAccess:
    """Identifies the callers of admin operations, and keeps the audit log. `state` is what the operations change."""

    def __init__(self, ledger: Ledger, admin_api_key: str | None) -> None:
        self.state: AdminState = AdminState(ledger)
        self.ledger: Ledger = ledger
        self._admin_api_key = admin_api_key

    def caller(
        self, permission: str | None, request: Request, now_ms: int, *, tenant_only: bool = False
    ) -> tuple[str | None, dict[str, str]]:
        """Return the tenant of a tenant's key, or None for the admin key, and headers for the response.

        Args:
            permission: What a tenant's key needs; None accepts the admin key only.
            tenant_only: Whether the admin key is of no use.

        Raises:
            ApiError: if the caller may not call the operation.
        """
        given = request.headers.get("x-admin-api-key", "")
        if permission is None or (given and not tenant_only):
            self._require_admin(given)
            return None, {}
        secret, tenant = self._tenant(request, now_ms)
        permissions = self.state.permissions_of(secret)
        if permissions is None or permission in permissions:
            return tenant, {}
        former = _ALSO.get(permission)
        if former in permissions:
            return tenant, {"X-Cycles-Permission-Deprecated": f"{former}; use {permission}"}
        message = f"the API key lacks the permission {permission}; use a key that has it, or the admin key"
        raise ApiError("INSUFFICIENT_PERMISSIONS", message, status=403)

    def secret_of(self, request: Request, now_ms: int) -> str | None:
        """Return the tenant's key of a request, or None for the admin key.

        Raises:
            ApiError: The request has no key, or one that does not work.
        """
        if given := request.headers.get("x-admin-api-key", ""):
            self._require_admin(given)
            return None
        return self._tenant(request, now_ms)[0]

    def tenant_of(self, request: Request) -> str | None:
        """Return the tenant of a tenant's key, without a check, or None."""
        key = self.ledger.tables.api_keys.get((request.headers.get("x-cycles-api-key", ""),))
        return None if key is None or request.headers.get("x-admin-api-key") else key.tenant

    def has_permissions(self, request: Request) -> bool:
        """Return whether the tenant's key of a request has permissions: `createApiKey` made it."""
        return self.state.permissions_of(request.headers.get("x-cycles-api-key", "")) is not None

    def _tenant(self, request: Request, now_ms: int) -> tuple[str, str | None]:
        secret = request.headers.get("x-cycles-api-key", "")
        if not secret:
            raise ApiError("UNAUTHORIZED", "the API key is missing; send it in the header X-Cycles-API-Key")
        try:
            authenticator = Authenticator(self.ledger.tables, None)
            return secret, authenticator.authenticate(Route("admin"), request.headers, now_ms).tenant
        except ApiError as error:
            raise ApiError("FORBIDDEN", f"invalid API key: {error.message}") from None

    def _require_admin(self, given: str) -> None:
        if not given:
            raise ApiError("UNAUTHORIZED", "the admin API key is missing; send it in the header X-Admin-API-Key")
        if not self._admin_api_key:
            raise ApiError("INTERNAL_ERROR", "the server has no admin API key; pass admin_api_key= to EmbeddedServer")
        if not is_same_secret(given, self._admin_api_key):
            raise ApiError("UNAUTHORIZED", "the admin API key is wrong; send the admin_api_key of the server")

    def log(self, name: str, request: Request, result: Result, error: ApiError | None, ids: Mapping[str, str]) -> None:
        """Add one call to the audit log. The ledger must be locked.

        Args:
            name: The operation, or method and path of a request that failed.
            ids: Request and trace id.
        """
        log_id = f"log_{uuid.uuid4().hex[:16]}"
        unknown = "__unauth__" if error is not None and error.status == 401 else "__admin__"
        now_ms = self.ledger.clock.now_ms()
        entry: Body = {
            "log_id": log_id,
            "timestamp": timestamp(now_ms),
            "tenant_id": result.tenant or unknown,
            "operation": name,
            "status": result.status,
            **ids,
            "source_ip": request.address,
        }
        if result.resource is not None:
            entry |= {"resource_type": result.resource[0], "resource_id": result.resource[1]}
        if error is not None:
            entry |= {"error_code": error.code, "metadata": {"error_message": error.message}}
        elif result.audit is not None:
            entry["metadata"] = result.audit
        self.ledger.tables.apply(AdminInfo(about="audit", name=log_id, values=entry, until_ms=now_ms + _KEPT_MS))


def new_ids(request: Request) -> dict[str, str]:
    """Return a new request id, and the trace id of the request."""
    return {"request_id": str(uuid.uuid4()), "trace_id": trace_id_of(request.headers)}


def response_headers(ids: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of each response of an admin operation."""
    return {
        "X-Request-Id": ids["request_id"],
        "X-Cycles-Trace-Id": ids["trace_id"],
        "Content-Type": "application/json",
    }
