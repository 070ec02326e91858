"""Webhook subscriptions, the audit log, quota counters, and any other operation by its id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Unpack

from attrs import evolve

from cycles._client.call_options import RequestOptions
from cycles._core.messages.outcome import Success
from cycles._core.messages.requests import Call, aware, new_trace_id, without_none
from cycles._errors import InvalidRequestError
from cycles._wire import generated
from cycles.admin._arguments import string_list, string_map, tenant_filter
from cycles.admin._channel import PACKAGE, Channel, checked, once, read, require
from cycles.admin._keys import unknown
from cycles.admin._pages import Pages, pages
from cycles.admin.results import AuditEntry, NewWebhook, QuotaCounter


async def create_webhook(
    channel: Channel,
    url: str,
    event_types: Sequence[str],
    *,
    tenant: str | None = None,
    secret: str | None = None,
    scope_filter: str | None = None,
    headers: Mapping[str, str] | None = None,
    name: str | None = None,
    description: str | None = None,
    disable_after_failures: int | None = None,
    metadata: Mapping[str, str] | None = None,
    **request: Unpack[RequestOptions],
) -> NewWebhook:
    """Subscribe a URL to events. `secret` of the result signs its deliveries; no later call can return it.

    The request is sent once. If its outcome is unknown, a subscription may exist: the error names the URL.

    Args:
        url: Address that receives events, with https.
        event_types: Types such as ``"budget.exhausted"``; at least one.
        tenant: Owner of the subscription; None subscribes to events of the whole system.
        secret: Secret for signatures; None lets the server make one.
        scope_filter: Only events of these scopes.
        headers: Further headers of a delivery.
        disable_after_failures: Failed deliveries after which the server disables the subscription.

    Raises:
        InvalidRequestError: naming the argument that is wrong; nothing was sent.
        AmbiguousResponseError: if it is unknown whether the subscription was created.
    """
    if secret == "":
        raise InvalidRequestError(
            "secret is empty, so anyone could sign deliveries; omit it to let the server make one"
        )
    body = {"url": url, "event_types": string_list("event_types", event_types)} | without_none(
        signing_secret=secret,
        scope_filter=scope_filter,
        headers=string_map("headers", headers),
        name=name,
        description=description,
        disable_after_failures=disable_after_failures,
        metadata=string_map("metadata", metadata),
    )
    call = Call("createWebhookSubscription", query=without_none(tenant_id=tenant_filter(tenant)), body=body)
    outcome = await checked(channel, call, once)
    if isinstance(outcome, Success):
        new = NewWebhook.read(outcome.body, **outcome.ids)
        return new if secret is None else evolve(new, secret=secret)
    what = f"a subscription of {url!r:.120} may exist; list it with raw('listWebhookSubscriptions') and delete it"
    raise unknown(outcome, call.operation, what)


def audit(
    channel: Channel,
    *,
    tenant: str | None = None,
    operation: str | Sequence[str] = (),
    resource_type: str | Sequence[str] = (),
    resource_id: str | None = None,
    error_code: str | Sequence[str] = (),
    key_id: str | None = None,
    status: int | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    search: str | None = None,
    page_size: int | None = None,
    **request: Unpack[RequestOptions],
) -> Pages[AuditEntry]:
    """Return calls of admin operations, newest first, lazily.

    Args:
        operation: One or several operation ids, such as ``"fundBudget"``; at most 25.
        resource_type: One or several kinds of changed objects.
        error_code: One or several error codes.
        status: Only responses with this HTTP status.
        since: Only calls at or after this aware datetime.
        until: Only calls before this aware datetime.
        page_size: Entries per request, 1 to 100.
    """
    query = {
        "tenant_id": tenant_filter(tenant),
        "operation": _list("operation", operation),
        "resource_type": _list("resource_type", resource_type),
        "resource_id": resource_id,
        "error_code": _list("error_code", error_code),
        "key_id": key_id,
        "status": status,
        "from": None if since is None else aware("since", since),
        "to": None if until is None else aware("until", until),
        "search": search,
        "limit": page_size,
    }
    return pages(channel, "listAuditLogs", "logs", AuditEntry, query)


def _list(name: str, values: str | Sequence[str]) -> list[str] | None:
    return ([values] if isinstance(values, str) else string_list(name, values)) or None


def quota_counters(
    channel: Channel,
    tenant: str,
    *,
    scope: str | None = None,
    action_kind: str | None = None,
    window: str | None = None,
    run_id: str | None = None,
    include_zero: bool = False,
    **request: Unpack[RequestOptions],
) -> Pages[QuotaCounter]:
    """Return quota counters of a tenant, lazily. The server must support protocol 0.1.26.

    Args:
        scope: Only scopes that begin with this.
        window: A window such as ``"per_day_tumbling"``.
        run_id: Only counters of this run.
        include_zero: Whether to include counters that are zero.
    """
    query = {
        "tenant_id": tenant_filter(tenant),
        "scope": scope,
        "action_kind": action_kind,
        "window": window,
        "run_id": run_id,
        "include_zero": include_zero or None,
    }
    return pages(channel, "listActionQuotaCounters", "counters", QuotaCounter, query)


async def reset_quota_counter(
    channel: Channel,
    tenant: str,
    *,
    scope: str,
    window: str,
    action_kind: str | None = None,
    risk_class: str | None = None,
    window_key: str | None = None,
    run_id: str | None = None,
    reason: str | None = None,
    **request: Unpack[RequestOptions],
) -> QuotaCounter:
    """Set one quota counter to zero, and return it with `previous_used`. This cannot be undone.

    The request is sent once, because it has no idempotency key: a repetition would lose `previous_used`. The server
    must support protocol 0.1.26.

    Raises:
        InvalidRequestError: naming the argument that is wrong; nothing was sent.
        TransportError: if it is unknown whether the counter was reset.
    """
    body = {"tenant_id": tenant_filter(tenant), "scope": scope, "window": window} | without_none(
        action_kind=action_kind, risk_class=risk_class, window_key=window_key, run_id=run_id, reason=reason
    )
    call = Call("resetActionQuotaCounter", body=body)
    success = require(await checked(channel, call, once), call.operation)
    counter = QuotaCounter.read(success.body["counter"], **success.ids)
    return evolve(counter, previous_used=success.body.get("previous_used"))


async def raw(
    channel: Channel,
    operation: str,
    /,
    *,
    extra_headers: Mapping[str, str] | None = None,
    timeout: float | None = None,
    **arguments: Any,
) -> Any:
    """Call any operation of the admin document by its id, and return the generated model of its response.

    A read is repeated within one timeout. Every other operation is sent once.

    Args:
        operation: An operation id such as ``"getAdminOverview"``.
        extra_headers: Further headers of the request.
        timeout: Seconds that one attempt may take.
        arguments: Arguments of the generated function of the operation; `body` may be a mapping.

    Raises:
        InvalidRequestError: for an unknown id or wrong arguments; nothing was sent.
    """
    if not isinstance(operation, str):
        raise InvalidRequestError(f"operation must be an operation id: got {operation!r:.80}")
    channel = channel.with_options(timeout)
    name = generated.find(operation, PACKAGE)
    call = generated.call_of(
        name, arguments, extra_headers or {}, evolve(channel.options, trace_id=new_trace_id()), PACKAGE
    )
    if generated.is_read(name, PACKAGE):
        success = await read(channel, call)
    else:
        success = require(await checked(channel, call, once), name)
    return generated.model_of(name, success.body, PACKAGE)
