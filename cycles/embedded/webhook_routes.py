"""The HTTP operations of webhooks: ``/v1/admin/webhooks`` with the admin key, ``/v1/webhooks`` with a tenant's key.

They belong to the admin plane of a deployment. Here they are on the port of the runtime operations.
"""

from __future__ import annotations

import hmac
import json
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import parse_qsl

from attrs import frozen

from cycles._errors import InvalidRequestError
from cycles.embedded.errors import ApiError
from cycles.embedded.http import Request, Response, trace_id_of
from cycles.embedded.records import Body
from cycles.embedded.webhook_subscriptions import SYSTEM, InvalidUrlError, Subscription, checked
from cycles.embedded.webhooks import Webhooks

_OPERATOR: Final = "/v1/admin/webhooks"
_EVENTS: Final = "/v1/admin/events"
_TENANT: Final = "/v1/webhooks"
_PAGE: Final = 50
_MAX_PAGE: Final = 100


@frozen
class _Caller:
    """Who calls: a tenant, or the operator (None)."""

    tenant: str | None

    def may_reach(self, subscription: Subscription) -> bool:
        return self.tenant is None or subscription.tenant_id == self.tenant


class WebhookRoutes:
    """Handles the requests of webhooks; `serves` says which ones those are."""

    def __init__(self, webhooks: Webhooks, tenant_of: Callable[[Request], str], admin_api_key: str | None) -> None:
        self._webhooks = webhooks
        self._tenant_of = tenant_of  # raises ApiError for a wrong key
        self._admin_api_key = admin_api_key

    def serves(self, path: str) -> bool:
        """Return whether a path is one of webhooks."""
        return any(path == base or path.startswith(base + "/") for base in (_OPERATOR, _TENANT, _EVENTS))

    def handle(self, request: Request) -> Response:
        """Return the response to one request."""
        request_id, trace_id = str(uuid.uuid4()), trace_id_of(request.headers)
        headers = {"X-Request-Id": request_id, "X-Cycles-Trace-Id": trace_id, "Content-Type": "application/json"}
        try:
            status, body = self._run(request)
        except ApiError as error:
            status = error.status
            body = {"error": error.code, "message": error.message, "request_id": request_id, "trace_id": trace_id}
        content = b"" if body is None else json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
        return Response(status, headers, content)

    def _run(self, request: Request) -> tuple[int, Body | None]:
        caller = self._authenticate(request)
        query = dict(parse_qsl(request.target.partition("?")[2]))
        below = request.path.split("/")[4 if caller.tenant is None else 3 :]
        if request.path.startswith(_EVENTS):
            return self._events(request, below, query)
        try:
            return self._subscriptions(request, caller, below, query)
        except KeyError:
            raise _not_found(below[0]) from None
        except InvalidUrlError as error:
            raise ApiError("WEBHOOK_URL_INVALID", str(error), status=400) from None
        except InvalidRequestError as error:
            raise ApiError("INVALID_REQUEST", str(error)) from None

    def _authenticate(self, request: Request) -> _Caller:
        if request.path.startswith(_TENANT):
            return _Caller(self._tenant_of(request))
        given = request.headers.get("x-admin-api-key", "")
        if not given:
            raise ApiError("UNAUTHORIZED", "the admin API key is missing; send it in the header X-Admin-API-Key")
        if self._admin_api_key is None or not _same(given, self._admin_api_key):
            raise ApiError("UNAUTHORIZED", "the admin API key is wrong; send the admin_api_key of the server")
        return _Caller(None)

    def _subscriptions(
        self, request: Request, caller: _Caller, below: list[str], query: Mapping[str, str]
    ) -> tuple[int, Body | None]:
        method, action = request.method, "/".join(below[1:])
        if not below:
            if method == "POST":
                return self._create(request, caller, query)
            if method == "GET":
                found = [each for each in self._webhooks.subscriptions() if caller.may_reach(each)]
                return 200, _page("subscriptions", [each.to_dict() for each in found], query)
            raise _unknown(request)
        subscription = self._webhooks.subscription(below[0])
        if not caller.may_reach(subscription):
            raise _not_found(below[0])
        return self._one(request, caller, subscription, (method, action), query)

    def _one(
        self,
        request: Request,
        caller: _Caller,
        subscription: Subscription,
        operation: tuple[str, str],
        query: Mapping[str, str],
    ) -> tuple[int, Body | None]:
        subscription_id = subscription.subscription_id
        match operation:
            case ("GET", ""):
                return 200, subscription.to_dict()
            case ("PATCH", ""):
                return 200, self._webhooks.update(subscription_id, **_json(request)).to_dict()
            case ("DELETE", ""):
                self._webhooks.unsubscribe(subscription_id)
                return 204, None
            case ("POST", "test"):
                return 200, self._webhooks.test(subscription_id)
            case ("GET", "deliveries"):
                rows = [each.to_dict() for each in self._webhooks.deliveries(subscription_id)]
                wanted = query.get("status")
                return 200, _page("deliveries", [row for row in rows if wanted in (None, row["status"])], query)
            case ("POST", "replay") if caller.tenant is None:
                return 202, self._replay(subscription_id, checked("replay", _json(request)))
        raise _unknown(request)

    def _create(self, request: Request, caller: _Caller, query: Mapping[str, str]) -> tuple[int, Body]:
        tenant = caller.tenant or query.get("tenant_id") or SYSTEM
        form = checked("create", _json(request))
        subscription = self._webhooks.subscribe(form.pop("url"), form.pop("event_types"), tenant=tenant, **form)
        return 201, {"subscription": subscription.to_dict(masked=False), "signing_secret": subscription.secret}

    def _replay(self, subscription_id: str, form: Body) -> Body:
        return self._webhooks.replay(
            subscription_id,
            from_ms=_instant("from", form.get("from")),
            to_ms=_instant("to", form.get("to")),
            event_types=form.get("event_types", ()),
            max_events=form.get("max_events", 100),
        )

    def _events(self, request: Request, below: list[str], query: Mapping[str, str]) -> tuple[int, Body]:
        if request.method != "GET" or len(below) > 1:
            raise _unknown(request)
        events = self._webhooks.events()
        if below:
            found = next((each for each in events if each["event_id"] == below[0]), None)
            if found is None:
                raise ApiError("EVENT_NOT_FOUND", f"event not found: {below[0]}", status=404)
            return 200, found
        names = ("event_type", "category", "tenant_id", "trace_id", "request_id")
        chosen = [each for each in events if all(query.get(name) in (None, each.get(name)) for name in names)]
        return 200, _page("events", chosen, query)


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


def _same(left: str, right: str) -> bool:
    return hmac.compare_digest(left.encode("utf-8", "surrogatepass"), right.encode("utf-8", "surrogatepass"))


def _not_found(subscription_id: str) -> ApiError:
    return ApiError("WEBHOOK_NOT_FOUND", f"webhook subscription not found: {subscription_id}", status=404)


def _unknown(request: Request) -> ApiError:
    return ApiError("NOT_FOUND", f"unknown method or path: {request.method} {request.path[:200]}")
