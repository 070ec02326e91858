"""The admin operations over HTTP, on the port of the runtime operations: tenants, budgets, API keys, the audit log.

They have the status, codes and bodies of the reference admin server. Webhooks and events are in `webhook_routes.py`.
See `docs/admin.md`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Final

from cycles.embedded import (
    admin_budgets as budgets,
    admin_forms as forms,
    admin_keys as keys,
    admin_overview,
    admin_policies as policies,
    admin_quotas as quotas,
    admin_tenants as tenants,
)
from cycles.embedded.admin_access import AdminAccess, new_ids, response_headers
from cycles.embedded.admin_state import AdminCall, AdminState, Result
from cycles.embedded.errors import ApiError
from cycles.embedded.http import Request, Response, error_body, wrong_method
from cycles.embedded.records import Body
from cycles.embedded.routes import find_admin
from cycles.embedded.webhooks import Webhooks

_SEARCHED: Final = ("operation", "resource_id", "tenant_id", "log_id", "key_id", "request_id", "trace_id")
_EXACT: Final = ("tenant_id", "resource_id", "key_id", "request_id", "trace_id")
_SORTS: Final = ("timestamp", "operation", "resource_type", "tenant_id", "key_id", "status")
Operation = Callable[[AdminState, AdminCall], Result]
_INTROSPECT: Final = ("GET", "/v1/auth/introspect")
_QUOTAS: Final = "/v1/admin/action-quota-counters"  # of protocol 0.1.26


# Operation: the function, and the permission that a tenant's key needs; None allows the admin key only.
_OPERATIONS: Final[dict[str, tuple[Operation, str | None]]] = {
    "createTenant": (tenants.create, None),
    "listTenants": (tenants.listed, None),
    "getTenant": (tenants.get, None),
    "updateTenant": (tenants.update, None),
    "bulkActionTenants": (tenants.bulk, None),
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
    "createPolicy": (policies.create, "policies:write"),
    "listPolicies": (policies.listed, "policies:read"),
    "updatePolicy": (policies.update, "policies:write"),
    "validateApiKey": (admin_overview.validate, None),
    "listActionQuotaCounters": (quotas.listed, "action_quotas:read"),
    "resetActionQuotaCounter": (quotas.reset, None),
}


class AdminRoutes:
    """Handles the requests of admin operations; `serves` says which ones those are."""

    def __init__(self, access: AdminAccess, webhooks: Webhooks, *, is_next: bool) -> None:
        self._access = access
        self._webhooks = webhooks
        self._ledger = access.ledger
        self._is_next = is_next
        own = {"listAuditLogs": self._audit_logs, "getAdminOverview": self._overview}
        self._operations = {**_OPERATIONS, **{name: (run, None) for name, run in own.items()}}

    def serves(self, path: str) -> bool:
        """Return whether a path belongs to admin operations."""
        return path.startswith(("/v1/admin/", "/v1/auth/"))

    def handle(self, request: Request) -> Response:
        """Return the response to one request."""
        ids = new_ids(request)
        headers = response_headers(ids)
        with self._ledger.locked() as now_ms:
            name, error = f"{request.method}:{request.path}", None
            try:
                if (request.method, request.path) == _INTROSPECT:
                    result = admin_overview.introspect(self._access.state, self._access.secret_of(request, now_ms))
                else:
                    name, result, more = self._run(request, now_ms)
                    headers |= more
            except ApiError as raised:
                error = raised
                headers |= raised.headers
                result = Result(error.status, error_body(error, ids), self._access.tenant_of(request))
            if error is not None or request.method != "GET":
                self._access.log(name, request, result, error, ids)
        return Response(result.status, headers, json.dumps(result.body, separators=(",", ":")).encode())

    def _run(self, request: Request, now_ms: int) -> tuple[str, Result, dict[str, str]]:
        """Return the operation of a request, its result, and further headers of the response."""
        operation, path_id, permission, run = self._find(request)
        tenant, headers = self._access.caller(permission, request, now_ms)
        query = forms.query_of(request.target)
        form = forms.body_of(operation, request.body) if request.method in ("POST", "PATCH") else {}
        return operation, run(self._access.state, AdminCall(tenant, path_id, query, form, now_ms)), headers

    def _find(self, request: Request) -> tuple[str, str, str | None, Operation]:
        route = find_admin(request.method, request.path)
        is_known = self._is_next or not request.path.startswith(_QUOTAS)
        if route.operation is not None and is_known:
            run, permission = self._operations[route.operation]
            return route.operation, route.path_id or "", permission, run
        if route.allow and is_known:
            raise wrong_method(request, route)
        raise ApiError(
            "NOT_FOUND", f"unknown path: {request.path[:200]}; the embedded server has no such admin operation"
        )

    def _overview(self, state: AdminState, call: AdminCall) -> Result:
        return admin_overview.overview(state, call, self._webhooks.subscriptions(), self._webhooks.events())

    def _audit_logs(self, state: AdminState, call: AdminCall) -> Result:
        """Return one page of the audit log, newest first."""
        query = forms.given(call.query, *_EXACT)
        if "status" in query and ("status_min" in query or "status_max" in query):
            raise ApiError(
                "INVALID_REQUEST", "status cannot be combined with status_min or status_max; send one of them"
            )
        entries = [info.values for (about, _), info in state.tables.admin_info.items() if about == "audit"]
        chosen = [entry for entry in reversed(entries) if _matches(entry, query)]
        forms.sort(chosen, query, _SORTS, "timestamp")
        return Result(200, forms.page("logs", chosen, lambda row: str(row["log_id"]), query))


def _matches(entry: Body, query: Mapping[str, str]) -> bool:
    for name in ("operation", "resource_type", "error_code"):
        if name in query and entry.get(name) not in query[name].split(","):
            return False
    if entry.get("error_code") in query.get("error_code_exclude", "").split(","):
        return False
    search = forms.search(query)
    if not any(search in str(entry.get(name, "")).lower() for name in _SEARCHED):
        return False
    if any(name in query and str(entry.get(name)) != query[name] for name in (*_EXACT, "status")):
        return False
    least, most = forms.number(query, "status_min"), forms.number(query, "status_max")
    in_range = (least is None or entry["status"] >= least) and (most is None or entry["status"] <= most)
    first, last = forms.instants(query)
    at: str = entry["timestamp"]
    return in_range and first <= at <= last
