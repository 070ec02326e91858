"""Operations on tenants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from attrs import evolve

from cycles._client.call_options import RequestOptions
from cycles._core.messages.outcome import Success
from cycles._core.messages.requests import Call, without_none
from cycles._errors import InvalidRequestError
from cycles._flows.retry import uncertain
from cycles.admin._arguments import string_map
from cycles.admin._channel import Channel, change, checked, failed, once, read
from cycles.admin.results import Tenant


def _settings(
    overage_policy: str | None, default_ttl_ms: int | None, max_ttl_ms: int | None, max_extensions: int | None
) -> dict[str, Any]:
    return without_none(
        default_commit_overage_policy=overage_policy,
        default_reservation_ttl_ms=default_ttl_ms,
        max_reservation_ttl_ms=max_ttl_ms,
        max_reservation_extensions=max_extensions,
    )


def _tenant(success: Success) -> Tenant:
    return Tenant.read(success.body, **success.ids)


async def create_tenant(
    channel: Channel,
    tenant_id: str,
    name: str,
    *,
    parent: str | None = None,
    overage_policy: str | None = None,
    default_ttl_ms: int | None = None,
    max_ttl_ms: int | None = None,
    max_extensions: int | None = None,
    metadata: Mapping[str, str] | None = None,
    **request: Unpack[RequestOptions],
) -> Tenant:
    """Create a tenant. A tenant that exists with this name is returned unchanged, with `created` false.

    Args:
        tenant_id: Permanent id: 3 to 64 characters of a-z, 0-9 and ``-``.
        name: Display name, at most 256 characters.
        parent: Id of the parent tenant. The server does not check that it exists.
        overage_policy: Overage policy of requests without one: REJECT, ALLOW_IF_AVAILABLE or ALLOW_WITH_OVERDRAFT.
        default_ttl_ms: Lifetime of reservations without one, 1,000 to 86,400,000 milliseconds.
        max_ttl_ms: Longest lifetime of a reservation, in milliseconds.
        max_extensions: Maximum number of extensions of a reservation.
        metadata: Strings that are stored with the tenant.

    Raises:
        InvalidRequestError: naming the argument that is wrong; nothing was sent.
        DuplicateResourceError: if the tenant exists with another name.
    """
    call = tenant_call(
        tenant_id,
        name,
        parent=parent,
        overage_policy=overage_policy,
        default_ttl_ms=default_ttl_ms,
        max_ttl_ms=max_ttl_ms,
        max_extensions=max_extensions,
        metadata=metadata,
    )
    success = await change(channel, call)
    return evolve(_tenant(success), created=success.status == 201)


def tenant_call(
    tenant_id: str,
    name: str,
    *,
    parent: str | None = None,
    overage_policy: str | None = None,
    default_ttl_ms: int | None = None,
    max_ttl_ms: int | None = None,
    max_extensions: int | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Call:
    """Return the call that creates a tenant.

    Raises:
        InvalidRequestError: if `metadata` is no mapping.
    """
    body = {
        "tenant_id": tenant_id,
        "name": name,
        **_settings(overage_policy, default_ttl_ms, max_ttl_ms, max_extensions),
        **without_none(parent_tenant_id=parent, metadata=string_map("metadata", metadata)),
    }
    return Call("createTenant", body=body)


async def tenant(channel: Channel, tenant_id: str, **request: Unpack[RequestOptions]) -> Tenant:
    """Return a tenant.

    Raises:
        NotFoundError: if there is no such tenant.
    """
    return _tenant(await read(channel, Call("getTenant", {"tenant_id": tenant_id})))


async def update_tenant(
    channel: Channel,
    tenant_id: str,
    *,
    name: str | None = None,
    status: str | None = None,
    overage_policy: str | None = None,
    default_ttl_ms: int | None = None,
    max_ttl_ms: int | None = None,
    max_extensions: int | None = None,
    metadata: Mapping[str, str] | None = None,
    **request: Unpack[RequestOptions],
) -> Tenant:
    """Change a tenant. Arguments that are None stay unchanged; `metadata` replaces the old metadata as a whole.

    Args:
        status: ACTIVE or SUSPENDED. `close_tenant` closes a tenant, because that is permanent.

    Raises:
        InvalidRequestError: for the status CLOSED, or naming the argument that is wrong; nothing was sent.
    """
    if status == "CLOSED":
        raise InvalidRequestError(
            "update_tenant does not close a tenant: use close_tenant(tenant_id, confirm=tenant_id)"
        )
    body = {
        **_settings(overage_policy, default_ttl_ms, max_ttl_ms, max_extensions),
        **without_none(name=name, status=status, metadata=string_map("metadata", metadata)),
    }
    return _tenant(await change(channel, _update(tenant_id, body)))


def _update(tenant_id: str, body: Mapping[str, Any]) -> Call:
    return Call("updateTenant", {"tenant_id": tenant_id}, body=body)


async def suspend_tenant(channel: Channel, tenant_id: str, **request: Unpack[RequestOptions]) -> Tenant:
    """Suspend a tenant: the runtime server rejects all of its requests, also commits, until it is active again."""
    return _tenant(await change(channel, _update(tenant_id, {"status": "SUSPENDED"})))


async def reactivate_tenant(channel: Channel, tenant_id: str, **request: Unpack[RequestOptions]) -> Tenant:
    """Make a suspended tenant active again."""
    return _tenant(await change(channel, _update(tenant_id, {"status": "ACTIVE"})))


async def close_tenant(channel: Channel, tenant_id: str, *, confirm: str, **request: Unpack[RequestOptions]) -> Tenant:
    """Close a tenant permanently, with its budgets, keys, webhooks and open reservations. This cannot be undone.

    The request is sent once. If its outcome is unknown, the tenant is read: a tenant that is CLOSED is returned.

    Args:
        confirm: The tenant id again.

    Raises:
        InvalidRequestError: if `confirm` is not the tenant id; nothing was sent.
    """
    if confirm != tenant_id:
        raise InvalidRequestError(
            f"confirm must repeat the tenant id {tenant_id!r:.80}: got {confirm!r:.80}; "
            "closing a tenant cannot be undone"
        )
    call = _update(tenant_id, {"status": "CLOSED"})
    outcome = await checked(channel, call, once)
    if uncertain(outcome):
        found = await tenant(channel, tenant_id)
        if found.status == "CLOSED":
            return found
    if not isinstance(outcome, Success):
        raise failed(outcome, call.operation)
    return _tenant(outcome)
