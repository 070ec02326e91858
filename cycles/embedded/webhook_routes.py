"""The HTTP operations of webhooks: ``/v1/admin/webhooks`` with the admin key, ``/v1/webhooks`` with a tenant's key.

They belong to the admin plane of a deployment. Here they are on the port of the runtime operations.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import parse_qsl

from attrs import frozen

from cycles._errors import InvalidRequestError
from cycles.embedded import admin_bulk, admin_forms as forms, webhook_security as security
from cycles.embedded.admin_access import AdminAccess, error_body, new_ids, response_headers, wrong_method
from cycles.embedded.admin_state import AdminCall, Result
from cycles.embedded.errors import ApiError
from cycles.embedded.http import Request, Response
from cycles.embedded.records import AdminInfo, Body
from cycles.embedded.routes import find_webhook
from cycles.embedded.webhook_subscriptions import SYSTEM, InvalidUrlError, Subscription, checked
from cycles.embedded.webhooks import Webhooks

_BASES: Final = ("/v1/admin/webhooks", "/v1/admin/events", "/v1/admin/config/webhook-security", "/v1/webhooks")
_SEARCHED: Final = ("event_id", "tenant_id", "scope", "request_id", "trace_id", "correlation_id")
_PAGE: Final = 50
_MAX_PAGE: Final = 100


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

    def serves(self, path: str) -> bool:
        """Return whether a path is one of webhooks."""
        return any(path == base or path.startswith(base + "/") for base in _BASES)

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
        by_operator = request.path.startswith("/v1/admin/")
        with self._access.ledger.locked() as now_ms:
            tenant, _ = self._access.caller(
                None if by_operator else permission,
                request,
                now_ms,
                tenant_only=route.operation == "createTenantWebhook",
            )
        if route.operation is None:
            raise ApiError("NOT_FOUND", f"unknown path: {request.path[:200]}")
        query = dict(parse_qsl(request.target.partition("?")[2]))
        return _Call(route.operation, request, query, tenant, route.path_id or "")

    def _run(self, call: _Call) -> Result:
        try:
            match call.operation:
                case "createWebhookSubscription" | "createTenantWebhook":
                    return self._create(call)
                case "listWebhookSubscriptions" | "listTenantWebhooks":
                    return self._list(call)
                case "listEvents" | "getEvent":
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
        wanted = call.tenant
        if wanted is None:
            wanted = call.query.get("tenant_id" if call.by_operator else "tenant")
            if wanted is None and not call.by_operator:
                raise ApiError("INVALID_REQUEST", "the query parameter tenant is missing; send it with the admin key")
        chosen = _matching(self._webhooks.subscriptions(), {**call.query, "tenant_id": wanted})
        return Result(200, _page("subscriptions", [each.to_dict() for each in chosen], call.query))

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
                rows = [each.to_dict() for each in self._webhooks.deliveries(one)]
                wanted = call.query.get("status")
                body = _page("deliveries", [row for row in rows if wanted in (None, row["status"])], call.query)
        return Result(status, body, subscription.tenant_id, ("webhook", one), audit)

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
            from_ms=_instant("from", form.get("from")),
            to_ms=_instant("to", form.get("to")),
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
        names = ("event_type", "category", "tenant_id", "trace_id", "request_id")
        search = call.query.get("search", "").lower()
        chosen = [
            each
            for each in events
            if all(call.query.get(name) in (None, each.get(name)) for name in names)
            and any(search in str(each.get(name, "")).lower() for name in _SEARCHED)
        ]
        return Result(200, _page("events", chosen, call.query))


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


def _page(name: str, rows: list[Body], query: Mapping[str, str]) -> Body:
    """Return one page. The cursor is the number of rows before it."""
    start, limit = _number(query.get("cursor"), 0), min(_number(query.get("limit"), _PAGE), _MAX_PAGE)
    page: Body = {name: rows[start : start + limit], "has_more": len(rows) > start + limit}
    return page | {"next_cursor": str(start + limit)} if page["has_more"] else page


def _number(text: str | None, default: int) -> int:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 10 else default


def _instant(name: str, text: Any) -> int | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ApiError("INVALID_REQUEST", f"{name}: must be an ISO 8601 time with a zone, got {text[:60]!r}")
    return int(moment.timestamp() * 1000)


def _json(request: Request) -> Any:
    try:
        value = json.loads(request.body)
    except (ValueError, RecursionError):
        raise ApiError("INVALID_REQUEST", "the body is not JSON; send a JSON object") from None
    if not isinstance(value, dict):
        raise ApiError("INVALID_REQUEST", "the body is not a JSON object; send one")
    return value
