"""Map method and path to an operation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote

from attrs import frozen


@frozen
class Route:
    """The route of a request. `operation` is None for an unknown path or method; `allow` lists the path's methods."""

    operation: str | None
    path_id: str | None = None
    public: bool = False
    allow: tuple[str, ...] = ()


# Path below /v1 with "*" for an id -> method -> operation.
_TABLE: Final[dict[tuple[str, ...], dict[str, str]]] = {
    ("decide",): {"POST": "decide"},
    ("reservations",): {"POST": "reserve", "GET": "list"},
    ("reservations", "*"): {"GET": "get"},
    ("reservations", "*", "commit"): {"POST": "commit"},
    ("reservations", "*", "release"): {"POST": "release"},
    ("reservations", "*", "extend"): {"POST": "extend"},
    ("balances",): {"GET": "balances"},
    ("events",): {"POST": "event"},
    ("evidence", "*"): {"GET": "evidence"},
    (".well-known", "cycles-jwks.json"): {"GET": "jwks"},
    ("action-kinds",): {"GET": "actionKinds"},
    ("action-kinds", "*"): {"GET": "actionKind"},
}
# Method and path below /v1/admin, with "*" for an id -> operation.
ADMIN_TABLE: Final[dict[tuple[str, str], str]] = {
    ("GET", "overview"): "getAdminOverview",
    ("POST", "tenants/bulk-action"): "bulkActionTenants",
    ("POST", "policies"): "createPolicy",
    ("GET", "policies"): "listPolicies",
    ("PATCH", "policies/*"): "updatePolicy",
    ("POST", "tenants"): "createTenant",
    ("GET", "tenants"): "listTenants",
    ("GET", "tenants/*"): "getTenant",
    ("PATCH", "tenants/*"): "updateTenant",
    ("POST", "budgets"): "createBudget",
    ("GET", "budgets"): "listBudgets",
    ("PATCH", "budgets"): "updateBudget",
    ("GET", "budgets/lookup"): "lookupBudget",
    ("POST", "budgets/fund"): "fundBudget",
    ("POST", "budgets/freeze"): "freezeBudget",
    ("POST", "budgets/unfreeze"): "unfreezeBudget",
    ("POST", "budgets/bulk-action"): "bulkActionBudgets",
    ("POST", "api-keys"): "createApiKey",
    ("GET", "api-keys"): "listApiKeys",
    ("PATCH", "api-keys/*"): "updateApiKey",
    ("DELETE", "api-keys/*"): "revokeApiKey",
    ("GET", "audit/logs"): "listAuditLogs",
    ("GET", "action-quota-counters"): "listActionQuotaCounters",
    ("POST", "action-quota-counters/reset"): "resetActionQuotaCounter",
}
# Method and path below /v1/auth: what a key may do.
AUTH_TABLE: Final[dict[tuple[str, str], str]] = {
    ("GET", "introspect"): "introspectAuth",
    ("POST", "validate"): "validateApiKey",
}
# Method and path below /v1/admin: the webhooks and events of the operator.
OPERATOR_TABLE: Final[dict[tuple[str, str], str]] = {
    ("POST", "webhooks"): "createWebhookSubscription",
    ("GET", "webhooks"): "listWebhookSubscriptions",
    ("POST", "webhooks/bulk-action"): "bulkActionWebhooks",
    ("GET", "config/webhook-security"): "getWebhookSecurityConfig",
    ("PUT", "config/webhook-security"): "updateWebhookSecurityConfig",
    ("GET", "webhooks/*"): "getWebhookSubscription",
    ("PATCH", "webhooks/*"): "updateWebhookSubscription",
    ("DELETE", "webhooks/*"): "deleteWebhookSubscription",
    ("POST", "webhooks/*/test"): "testWebhookSubscription",
    ("GET", "webhooks/*/deliveries"): "listWebhookDeliveries",
    ("POST", "webhooks/*/replay"): "replayEvents",
    ("GET", "events"): "listEvents",
    ("GET", "events/*"): "getEvent",
}
# Method and path below /v1: the webhooks and events of a tenant.
TENANT_TABLE: Final[dict[tuple[str, str], str]] = {
    ("POST", "webhooks"): "createTenantWebhook",
    ("GET", "webhooks"): "listTenantWebhooks",
    ("GET", "webhooks/*"): "getTenantWebhook",
    ("PATCH", "webhooks/*"): "updateTenantWebhook",
    ("DELETE", "webhooks/*"): "deleteTenantWebhook",
    ("POST", "webhooks/*/test"): "testTenantWebhook",
    ("GET", "webhooks/*/deliveries"): "listTenantWebhookDeliveries",
    ("GET", "events"): "listTenantEvents",
}
OPERATIONS: Final = (
    *(operation for methods in _TABLE.values() for operation in methods.values()),
    *ADMIN_TABLE.values(),
    *AUTH_TABLE.values(),
    *OPERATOR_TABLE.values(),
    *TENANT_TABLE.values(),
)
# The operations that accept X-Admin-API-Key.
ADMIN_OPERATIONS: Final = frozenset({"list", "get", "release"})
PUBLIC_OPERATIONS: Final = frozenset({"evidence", "jwks", "actionKinds", "actionKind"})
# The operations of protocol 0.1.26.
NEXT_OPERATIONS: Final = frozenset({"actionKinds", "actionKind"})


def find(method: str, path: str) -> Route:
    """Return the route of a request. An id is one percent-encoded segment."""
    segments = tuple(path.split("/"))
    if segments[:2] != ("", "v1"):
        return Route(None)
    below = segments[2:]
    methods = _TABLE.get(below)
    path_id = None
    if methods is None and len(below) > 1 and below[1]:
        methods = _TABLE.get((below[0], "*", *below[2:]))
        path_id = unquote(below[1])
    if methods is None:
        return Route(None)
    public = not PUBLIC_OPERATIONS.isdisjoint(methods.values())
    operation = methods.get("GET" if method == "HEAD" else method)
    if operation is None:
        allow = (*methods, "HEAD") if "GET" in methods else tuple(methods)
        return Route(None, public=public, allow=allow)
    return Route(operation, path_id, public)


def find_admin(method: str, path: str) -> Route:
    """Return the route of a request for an admin operation, except for those of `find_webhook`."""
    if path.startswith("/v1/auth/"):
        return _below(AUTH_TABLE, "/v1/auth/", method, path)
    return _below(ADMIN_TABLE, "/v1/admin/", method, path)


def find_webhook(method: str, path: str) -> Route:
    """Return the route of a request for webhooks or events, of the operator or of a tenant."""
    if path.startswith("/v1/admin/"):
        return _below(OPERATOR_TABLE, "/v1/admin/", method, path)
    return _below(TENANT_TABLE, "/v1/", method, path)


def operation_of(method: str, path: str) -> str | None:
    """Return the operation of a request, or None for an unknown path or method."""
    for route in (find(method, path), find_admin(method, path), find_webhook(method, path)):
        if route.operation is not None:
            return route.operation
    return None


def _below(table: Mapping[tuple[str, str], str], base: str, method: str, path: str) -> Route:
    below = path.removeprefix(base).rstrip("/") if path.startswith(base) else ""
    first, _, rest = below.partition("/")
    path_id, slash, action = rest.partition("/")
    if (method, below) in table:
        return Route(table[method, below])
    one = f"{first}/*{slash}{action}" if path_id else below
    if (method, one) in table:
        return Route(table[method, one], unquote(path_id))
    return Route(None, allow=tuple(sorted(known for known, place in table if place in (below, one))))
