"""The HTTP operations of webhooks: ``/v1/admin/webhooks`` with the admin key, ``/v1/webhooks`` with a tenant's key.

They belong to the admin plane of a deployment. Here they are on the port of the runtime operations.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from attrs import frozen

from cycles._errors import InvalidRequestError
from cycles.embedded import admin_bulk, admin_forms as forms, event_list, webhook_security as security
from cycles.embedded.admin_access import AdminAccess, new_ids, response_headers
from cycles.embedded.admin_state import AdminCall, Result
from cycles.embedded.errors import ApiError
from cycles.embedded.http import Request, Response, error_body, wrong_method
from cycles.embedded.records import AdminInfo, Body
from cycles.embedded.routes import find_webhook
from cycles.embedded.validation import decode
from cycles.embedded.webhook_subscriptions import SYSTEM, InvalidUrlError, Subscription, checked
from cycles.embedded.webhooks import Webhooks

_EVENTS: Final = "/v1/events"
_BASES: Final = ("/v1/admin/webhooks", "/v1/admin/events", "/v1/admin/config/webhook-security", "/v1/webhooks")
_SORTS: Final = ("url", "tenant_id", "status", "consecutive_failures")
_TENANT_ONLY: Final = ("createTenantWebhook", "listTenantEvents")  # the admin key is of no use


@frozen
class _Call:
    """A request for webhooks. `tenant` is None for the admin key, `one` is the id in the path."""

    operation: str
    request: Request
    query: Mapping[str, str]
    tenant: str | None
    one: str

    @property
    def by_operator(self) -> bool:
        """Return whether the path is one of the operator, whose key reaches the subscriptions of all tenants."""
        return self.request.path.startswith("/v1/admin/")


class WebhookRoutes:
    """Handles the requests of webhooks; `serves` says which ones those are."""

    def __init__(self, webhooks: Webhooks, access: AdminAccess) -> None:
        self._webhooks = webhooks
        self._access = access

    def serves(self, request: Request) -> bool:
        """Return whether a request is one of webhooks or of their events.

        The document of the runtime operations has no GET of events, so only a key of the administration, which has
        permissions, can list them. A POST of an event is one of the ledger.
        """
        path = request.path
        is_list = (request.method, path) == ("GET", _EVENTS) and self._access.has_permissions(request)
        return is_list or any(path == base or path.startswith(base + "/") for base in _BASES)

    def handle(self, request: Request) -> Response:
        """Return the response to one request."""
        ids = new_ids(request)
        headers, name, tenant, error = response_headers(ids), f"{request.method}:{request.path}", None, None
        try:
            call = self._called(request)
            tenant = call.tenant
            result = self._run(call)
            name = call.operation
        except ApiError as raised:
            error = raised
            headers |= raised.headers
            result = Result(error.status, error_body(error, ids), tenant)
        if error is not None or request.method != "GET":
            with self._access.ledger.locked():
                self._access.log(name, request, result, error, ids)
        body = result.body
        content = b"" if body is None else json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
        return Response(result.status, headers, content)

    def _called(self, request: Request) -> _Call:
        route = find_webhook(request.method, request.path)
        if route.operation is None and route.allow:
            raise wrong_method(request, route)
        permission = "webhooks:read" if request.method == "GET" else "webhooks:write"
        permission = "events:read" if request.path == _EVENTS else permission
        by_operator = request.path.startswith("/v1/admin/")
        with self._access.ledger.locked() as now_ms:
            tenant, _ = self._access.caller(
                None if by_operator else permission,
                request,
                now_ms,
                tenant_only=route.operation in _TENANT_ONLY,
            )
        if route.operation is None:
            raise ApiError("NOT_FOUND", f"unknown path: {request.path[:200]}")
        query = forms.query_of(request.target)
        return _Call(route.operation, request, query, tenant, route.path_id or "")

    def _run(self, call: _Call) -> Result:
        try:
            match call.operation:
                case "createWebhookSubscription" | "createTenantWebhook":
                    return self._create(call)
                case "listWebhookSubscriptions" | "listTenantWebhooks":
                    return self._list(call)
                case "listEvents" | "listTenantEvents" | "getEvent":
                    return self._events(call)
                case "bulkActionWebhooks":
                    return self._bulk(call)
                case "getWebhookSecurityConfig" | "updateWebhookSecurityConfig":
                    return self._security(call)
                case _:
                    return self._one(call, self._subscription(call))
        except InvalidUrlError as error:
            raise ApiError("WEBHOOK_URL_INVALID", str(error), status=400) from None
        except InvalidRequestError as error:
            raise ApiError("INVALID_REQUEST", str(error)) from None

    def _subscription(self, call: _Call) -> Subscription:
        try:
            subscription = self._webhooks.subscription(call.one)
        except KeyError:
            subscription = None
        if subscription is None or call.tenant not in (None, subscription.tenant_id):
            raise ApiError("WEBHOOK_NOT_FOUND", f"webhook subscription not found: {call.one}", status=404)
        return subscription

    def _list(self, call: _Call) -> Result:
        query = forms.given(call.query, "status", "event_type", "tenant_id")
        if call.by_operator:
            forms.search(query)
            rows = [each.to_dict() for each in _matching(self._webhooks.subscriptions(), query)]
            forms.sort(rows, query, _SORTS, "consecutive_failures")
        else:  # the reference server neither sorts nor searches
            wanted = {"tenant_id": self._listed_tenant(call), "status": query.get("status")}
            rows = [each.to_dict() for each in _matching(self._webhooks.subscriptions(), wanted)]
            rows.sort(key=_id_of)
        return Result(200, forms.page("subscriptions", rows, _id_of, query))

    def _listed_tenant(self, call: _Call) -> str:
        tenant = call.query.get("tenant")
        if call.tenant is not None:
            if tenant is not None:
                raise ApiError("INVALID_REQUEST", "tenant: is that of the API key; leave the query parameter out")
            return call.tenant
        if tenant is None or not tenant.strip():
            raise ApiError("INVALID_REQUEST", "the query parameter tenant is missing; send it with the admin key")
        return tenant

    def _bulk(self, call: _Call) -> Result:
        """Pause, resume or delete several subscriptions."""
        form = forms.body_of(call.operation, call.request.body)

        def change(one: Subscription) -> bool:
            if one.status == status:
                return False
            if status is None:
                self._webhooks.unsubscribe(one.subscription_id)
            else:
                self._webhooks.update(one.subscription_id, status=status)
            return True

        status = {"PAUSE": "PAUSED", "RESUME": "ACTIVE", "DELETE": None}[form["action"]]
        with self._access.ledger.locked() as now_ms:
            return admin_bulk.run(
                self._access.state,
                AdminCall(None, "", call.query, form, now_ms),
                "webhook",
                lambda wanted: _matching(self._webhooks.subscriptions(), wanted),
                lambda one: one.subscription_id,
                change,
            )

    def _config(self) -> Body:
        with self._access.ledger.locked():
            return self._access.state.info(*security.PLACE) or security.DEFAULT

    def _security(self, call: _Call) -> Result:
        """Return, or replace, the configuration of allowed addresses."""
        if call.operation == "getWebhookSecurityConfig":
            return Result(200, self._config())
        config = security.replaced(forms.body_of(call.operation, call.request.body))
        with self._access.ledger.locked():
            self._access.state.tables.apply(AdminInfo(about=security.PLACE[0], name=security.PLACE[1], values=config))
        audit = {"allow_http": config["allow_http"], "blocked_cidr_count": len(config["blocked_cidr_ranges"])}
        return Result(200, config, None, security.PLACE, audit)

    def _one(self, call: _Call, subscription: Subscription) -> Result:
        one, audit = subscription.subscription_id, {"url": subscription.url}
        status, body = 200, None
        match call.operation:
            case "getWebhookSubscription" | "getTenantWebhook":
                body = subscription.to_dict()
            case "updateWebhookSubscription" | "updateTenantWebhook":
                form = _json(call.request)
                self._check_url(form.get("url"))
                body = self._webhooks.update(one, **form).to_dict()
            case "deleteWebhookSubscription" | "deleteTenantWebhook":
                self._webhooks.unsubscribe(one)
                status = 204
            case "testWebhookSubscription" | "testTenantWebhook":
                body = audit = self._webhooks.test(one)
            case "replayEvents":
                status, body = 202, self._replay(one, checked("replay", _json(call.request)))
                audit = {name: body[name] for name in ("replay_id", "events_queued")}
            case _:
                body = self._deliveries(one, call.query)
        return Result(status, body, subscription.tenant_id, ("webhook", one), audit)

    def _deliveries(self, subscription_id: str, query: Mapping[str, str]) -> Body:
        (first, last), wanted = forms.instants(query), query.get("status")
        rows = [each.to_dict() for each in self._webhooks.deliveries(subscription_id)]
        rows = [row for row in rows if wanted in (None, row["status"])]
        rows = [row for row in rows if first <= (row.get("attempted_at") or last) <= last]
        return forms.page("deliveries", rows, lambda row: str(row["delivery_id"]), query)

    def _create(self, call: _Call) -> Result:
        tenant = call.tenant or call.query.get("tenant_id") or SYSTEM
        form = checked("create", _json(call.request))
        self._check_url(form["url"])
        made = self._webhooks.subscribe(form.pop("url"), form.pop("event_types"), tenant=tenant, **form)
        body = {"subscription": made.to_dict(masked=False), "signing_secret": made.secret}
        return Result(201, body, tenant, ("webhook", made.subscription_id), {"url": made.url})

    def _check_url(self, url: Any) -> None:
        if isinstance(url, str):
            security.check(url, self._config())

    def _replay(self, subscription_id: str, form: Body) -> Body:
        return self._webhooks.replay(
            subscription_id,
            from_ms=forms.instant(form, "from"),
            to_ms=forms.instant(form, "to"),
            event_types=form.get("event_types", ()),
            max_events=form.get("max_events", 100),
        )

    def _events(self, call: _Call) -> Result:
        events = self._webhooks.events()
        if call.operation == "getEvent":
            found = next((each for each in events if each["event_id"] == call.one), None)
            if found is None:
                raise ApiError("EVENT_NOT_FOUND", f"event not found: {call.one}", status=404)
            return Result(200, found)
        if call.operation == "listTenantEvents":
            return Result(200, event_list.of_tenant(events, call.query, call.tenant or ""))
        return Result(200, event_list.of_operator(events, call.query))


def _matching(subscriptions: Iterable[Subscription], wanted: Mapping[str, Any]) -> list[Subscription]:
    """Return the subscriptions that a query or a filter chooses. `search` looks at id and URL."""
    search, event_type = wanted.get("search", "").lower(), wanted.get("event_type")
    return [
        each
        for each in subscriptions
        if wanted.get("tenant_id") in (None, each.tenant_id)
        and wanted.get("status") in (None, each.status)
        and (event_type is None or event_type in each.event_types)
        and (search in each.subscription_id or search in each.url.lower())
    ]


def _id_of(row: Body) -> str:
    return str(row["subscription_id"])


def _json(request: Request) -> Any:
    value = decode(request.body)
    if not isinstance(value, dict):
        raise ApiError("INVALID_REQUEST", "the body is not a JSON object; send one")
    return value
