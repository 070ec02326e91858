"""The admin operations over HTTP, on the port of the runtime operations: tenants, budgets, API keys, the audit log.

They have the status, codes and bodies of the reference admin server. Webhooks and events are in `webhook_routes.py`.
See `docs/admin.md`.
"""

from __future__ import annotations

import hmac
import json
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

from cycles.embedded import (
    admin_budgets as budgets,
    admin_forms as forms,
    admin_keys as keys,
    admin_quotas as quotas,
    admin_tenants as tenants,
)
from cycles.embedded.admin_state import AdminCall, AdminState, Result
from cycles.embedded.authentication import Authenticator
from cycles.embedded.errors import ApiError
from cycles.embedded.http import Request, Response, trace_id_of
from cycles.embedded.ledger import Ledger
from cycles.embedded.records import AdminInfo, Body
from cycles.embedded.routes import Route, find_admin
from cycles.embedded.webhook_events import timestamp

Operation = Callable[[AdminState, AdminCall], Result]
_SERVED: Final = ("tenants", "budgets", "api-keys", "audit")
_QUOTAS: Final = "action-quota-counters"  # of protocol 0.1.26
_KEPT_MS: Final = 30 * 24 * 60 * 60 * 1000


# Operation: the function, and the permission that a tenant's key needs; None allows the admin key only.
_OPERATIONS: Final[dict[str, tuple[Operation, str | None]]] = {
    "createTenant": (tenants.create, None),
    "listTenants": (tenants.listed, None),
    "getTenant": (tenants.get, None),
    "updateTenant": (tenants.update, None),
    "createBudget": (budgets.create, "budgets:write"),
    "listBudgets": (budgets.listed, "budgets:read"),
    "updateBudget": (budgets.update, None),
    "lookupBudget": (budgets.lookup, "budgets:read"),
    "fundBudget": (budgets.fund, "budgets:write"),
    "freezeBudget": (budgets.freeze, None),
    "unfreezeBudget": (budgets.unfreeze, None),
    "bulkActionBudgets": (budgets.bulk, None),
    "createApiKey": (keys.create, None),
    "listApiKeys": (keys.listed, None),
    "updateApiKey": (keys.update, None),
    "revokeApiKey": (keys.revoke, None),
    "listActionQuotaCounters": (quotas.listed, "action_quotas:read"),
    "resetActionQuotaCounter": (quotas.reset, None),
}
_ALSO: Final = {"action_quotas:read": "balances:read"}  # a permission that protocol 0.1.26 accepts in its place


class AdminRoutes:
    """Handles the requests of admin operations; `serves` says which ones those are."""

    def __init__(self, ledger: Ledger, admin_api_key: str | None, *, is_next: bool = False) -> None:
        self._ledger = ledger
        self._served = (*_SERVED, _QUOTAS) if is_next else _SERVED
        self._state = AdminState(ledger)
        self._admin_api_key = admin_api_key
        self._operations = {**_OPERATIONS, "listAuditLogs": (self._audit_logs, None)}

    def serves(self, path: str) -> bool:
        """Return whether a path belongs to one of these operations."""
        return path.startswith("/v1/admin/") and path.split("/")[3] in self._served

    def handle(self, request: Request) -> Response:
        """Return the response to one request."""
        request_id, trace_id = str(uuid.uuid4()), trace_id_of(request.headers)
        headers = {"X-Request-Id": request_id, "X-Cycles-Trace-Id": trace_id, "Content-Type": "application/json"}
        with self._ledger.locked() as now_ms:
            name, tenant, error = f"{request.method}:{request.path}", None, None
            result = Result(500, None)
            try:
                operation, path_id, permission, run = self._find(request)
                tenant = self._authenticate(permission, request, now_ms)
                query = dict(parse_qsl(request.target.partition("?")[2], keep_blank_values=True))
                form = forms.body_of(operation, request.body) if request.method in ("POST", "PATCH") else {}
                result = run(self._state, AdminCall(tenant, path_id, query, form, now_ms))
                name = operation
            except ApiError as raised:
                error = raised
                result = Result(error.status, _error_body(error, request_id, trace_id), tenant)
            if error is not None or request.method != "GET":
                ids = {"request_id": request_id, "trace_id": trace_id, "source_ip": request.address}
                self._log(name, result, error, ids, now_ms)
        return Response(result.status, headers, json.dumps(result.body, separators=(",", ":")).encode())

    def _find(self, request: Request) -> tuple[str, str, str | None, Operation]:
        route = find_admin(request.method, request.path)
        if route.operation is not None:
            run, permission = self._operations[route.operation]
            return route.operation, route.path_id or "", permission, run
        if route.allow:
            allow = ", ".join(route.allow)
            message = f"unknown method for this path: {request.method}; use {allow}"
            raise ApiError("INVALID_REQUEST", message, status=405, headers={"Allow": allow})
        raise ApiError("NOT_FOUND", f"unknown path: {request.path[:200]}; admin paths begin with /v1/admin")

    def _authenticate(self, permission: str | None, request: Request, now_ms: int) -> str | None:
        """Return the tenant of a tenant's key, or None for the admin key."""
        given = request.headers.get("x-admin-api-key", "")
        if given or permission is None:
            self._require_admin(given)
            return None
        secret = request.headers.get("x-cycles-api-key", "")
        if not secret:
            raise ApiError("UNAUTHORIZED", "the API key is missing; send it in the header X-Cycles-API-Key")
        try:
            authenticator = Authenticator(self._ledger.tables, None)
            tenant = authenticator.authenticate(Route("admin"), request.headers, now_ms).tenant
        except ApiError as error:
            raise ApiError("FORBIDDEN", f"invalid API key: {error.message}") from None
        permissions = self._state.permissions_of(secret)
        if permissions is not None and {permission, _ALSO.get(permission)}.isdisjoint(permissions):
            message = f"the API key lacks the permission {permission}; use a key that has it, or the admin key"
            raise ApiError("INSUFFICIENT_PERMISSIONS", message, status=403)
        return tenant

    def _require_admin(self, given: str) -> None:
        if not given:
            raise ApiError("UNAUTHORIZED", "the admin API key is missing; send it in the header X-Admin-API-Key")
        if not self._admin_api_key:
            raise ApiError("INTERNAL_ERROR", "the server has no admin API key; pass admin_api_key= to EmbeddedServer")
        if not hmac.compare_digest(given.encode(), self._admin_api_key.encode()):
            raise ApiError("UNAUTHORIZED", "the admin API key is wrong; send the admin_api_key of the server")

    # --- audit log --------------------------------------------------------------------------------------------------

    def _log(self, name: str, result: Result, error: ApiError | None, ids: Mapping[str, str], now_ms: int) -> None:
        log_id = f"log_{uuid.uuid4().hex[:16]}"
        unknown = "__unauth__" if error is not None and error.status == 401 else "__admin__"
        entry: Body = {
            "log_id": log_id,
            "timestamp": timestamp(now_ms),
            "tenant_id": result.tenant or unknown,
            "operation": name,
            "status": result.status,
            **ids,
        }
        if result.resource is not None:
            entry |= {"resource_type": result.resource[0], "resource_id": result.resource[1]}
        if error is not None:
            entry |= {"error_code": error.code, "metadata": {"error_message": error.message}}
        elif result.audit is not None:
            entry["metadata"] = result.audit
        record = AdminInfo(about="audit", name=log_id, values=entry, until_ms=now_ms + _KEPT_MS)
        self._ledger.tables.apply(record)

    def _audit_logs(self, state: AdminState, call: AdminCall) -> Result:
        """Return one page of the audit log, newest first."""
        query = call.query
        if "status" in query and ("status_min" in query or "status_max" in query):
            raise ApiError(
                "INVALID_REQUEST", "status cannot be combined with status_min or status_max; send one of them"
            )
        entries = [info.values for (about, _), info in state.tables.admin_info.items() if about == "audit"]
        chosen = [entry for entry in reversed(entries) if _matches(entry, query)]
        return Result(200, forms.page("logs", chosen, lambda row: str(row["log_id"]), query))


def _matches(entry: Body, query: Mapping[str, str]) -> bool:
    for name in ("operation", "resource_type", "error_code"):
        if name in query and entry.get(name) not in query[name].split(","):
            return False
    if entry.get("error_code") in query.get("error_code_exclude", "").split(","):
        return False
    exact = ("tenant_id", "resource_id", "key_id", "request_id", "trace_id", "status")
    if any(name in query and str(entry.get(name)) != query[name] for name in exact):
        return False
    least, most = forms.number(query, "status_min"), forms.number(query, "status_max")
    in_range = (least is None or entry["status"] >= least) and (most is None or entry["status"] <= most)
    timestamp: str = entry["timestamp"]
    return in_range and query.get("from", "") <= timestamp < query.get("to", "~")


def _error_body(error: ApiError, request_id: str, trace_id: str) -> Body:
    body: dict[str, Any] = {
        "error": error.code,
        "message": error.message,
        "request_id": request_id,
        "trace_id": trace_id,
    }
    return body if error.details is None else body | {"details": dict(error.details)}
