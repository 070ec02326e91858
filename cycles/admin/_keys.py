"""Operations on API keys. Creating a key is never repeated: a second key would exist that no client knows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, Unpack

from cycles._client.call_options import RequestOptions
from cycles._core.messages.outcome import NoSuccess, RejectedResponse, Success
from cycles._core.messages.paging import Cursors
from cycles._core.messages.requests import Call, aware, without_none
from cycles._errors import AmbiguousResponseError, CyclesError, NotFoundError
from cycles._flows.retry import may_have_taken_effect, uncertain
from cycles.admin._arguments import string_list, tenant_filter
from cycles.admin._channel import Channel, checked, failed, once
from cycles.admin._pages import Pages, pages
from cycles.admin.results import ApiKey, NewApiKey

RUNTIME_PERMISSIONS: Final = (
    "reservations:create",
    "reservations:commit",
    "reservations:release",
    "reservations:extend",
    "reservations:list",
    "balances:read",
)
"""The permissions of a key for the runtime client."""


async def create_api_key(
    channel: Channel,
    tenant: str,
    name: str,
    *,
    permissions: Sequence[str] = RUNTIME_PERMISSIONS,
    scope_filter: Sequence[str] | None = None,
    expires_at: datetime | None = None,
    description: str | None = None,
    **request: Unpack[RequestOptions],
) -> NewApiKey:
    """Create an API key of a tenant. `secret` of the result is the key; no later call can return it.

    The request is sent once. If its outcome is unknown, a key may exist whose secret no client received: the error
    names tenant and key name, so that it can be found with `api_keys` and revoked.

    Args:
        name: Display name, at most 256 characters.
        permissions: What the key may do. It is always sent, because servers have different defaults.
        scope_filter: Scopes that the key is limited to.
        expires_at: Aware datetime; None is the server's default (90 days on the reference server).

    Raises:
        InvalidRequestError: naming the argument that is wrong; nothing was sent.
        AmbiguousResponseError: if it is unknown whether the key was created.
    """
    call = key_call(
        tenant,
        name,
        permissions=permissions,
        scope_filter=scope_filter,
        expires_at=expires_at,
        description=description,
    )
    outcome = await checked(channel, call, once)
    if isinstance(outcome, Success):
        return NewApiKey.read(outcome.body, **outcome.ids)
    what = f"an API key {name!r:.80} of tenant {tenant!r:.80} may exist whose secret no client received"
    raise unknown(outcome, call.operation, f"{what}; list it with api_keys(tenant={tenant!r:.80}) and revoke it")


def key_call(
    tenant: str,
    name: str,
    *,
    permissions: Sequence[str],
    scope_filter: Sequence[str] | None = None,
    expires_at: datetime | None = None,
    description: str | None = None,
) -> Call:
    """Return the call that creates an API key.

    Raises:
        InvalidRequestError: naming the argument that is wrong.
    """
    body = {
        "tenant_id": tenant,
        "name": name,
        "permissions": string_list("permissions", permissions),
        **without_none(
            scope_filter=None if scope_filter is None else string_list("scope_filter", scope_filter),
            expires_at=None if expires_at is None else aware("expires_at", expires_at).astimezone(UTC).isoformat(),
            description=description,
        ),
    }
    return Call("createApiKey", body=body)


def unknown(outcome: NoSuccess, operation: str, what: str) -> CyclesError:
    """Return the error of a create that is not repeated: `what` may exist if bytes of the request were sent."""
    if not may_have_taken_effect(outcome):
        return failed(outcome, operation)
    error = AmbiguousResponseError(
        f"{operation} has no confirmed outcome ({outcome.message}): {what}",
        status=getattr(outcome, "status", None),
        request_id=getattr(outcome, "request_id", None),
        trace_id=outcome.trace_id,
    )
    error.__cause__ = getattr(outcome, "cause", None)
    return error


def api_keys(
    channel: Channel,
    *,
    tenant: str | None = None,
    status: str | None = None,
    search: str | None = None,
    page_size: int | None = None,
    **request: Unpack[RequestOptions],
) -> Pages[ApiKey]:
    """Return API keys without their secrets, lazily.

    Args:
        tenant: Only keys of this tenant; None lists the keys of all tenants.
        status: ACTIVE, REVOKED or EXPIRED.
        search: Part of id or name, in any case.
        page_size: Entries per request, 1 to 100.
    """
    query = {"tenant_id": tenant_filter(tenant), "status": status, "search": search, "limit": page_size}
    return pages(channel, "listApiKeys", "keys", ApiKey, query)


async def revoke_api_key(
    channel: Channel, key_id: str, *, reason: str | None = None, **request: Unpack[RequestOptions]
) -> ApiKey:
    """Revoke an API key permanently. The runtime server rejects it from then on, also for commits.

    If the outcome is unknown, the request is repeated; then "revoked already" is a success.

    Args:
        reason: Reason for the audit log, at most 512 characters.

    Raises:
        NotFoundError: if there is no such key.
        ProtocolError: with the code KEY_REVOKED if the key was revoked before this call.
    """
    call = Call("revokeApiKey", {"key_id": key_id}, query=without_none(reason=reason))
    outcome = await checked(channel, call, once)
    if uncertain(outcome):
        outcome = await channel.send(call)
        if isinstance(outcome, RejectedResponse) and outcome.code == "KEY_REVOKED":
            return await _find(channel, key_id)
    if not isinstance(outcome, Success):
        raise failed(outcome, call.operation)
    return ApiKey.read(outcome.body, **outcome.ids)


async def _find(channel: Channel, key_id: str) -> ApiKey:
    listed, cursors = api_keys(channel, search=key_id, page_size=100), Cursors()
    while not cursors.ended:
        for key in await listed.fetch(channel, cursors):
            if key.key_id == key_id:
                return key
    raise NotFoundError(f"no API key has the id {key_id!r:.80}; api_keys() lists them", status=404, code="NOT_FOUND")


async def rotate_api_key(channel: Channel, key_id: str, **request: Unpack[RequestOptions]) -> NewApiKey:
    """Create a key like an existing one: same tenant, name, permissions and scopes. The old key keeps working.

    Deploy the new key, then revoke the old one with `revoke_api_key`.

    Raises:
        NotFoundError: if there is no such key.
        AmbiguousResponseError: if it is unknown whether the new key was created.
    """
    old = await _find(channel, key_id)
    return await create_api_key(
        channel,
        old.tenant_id,
        old.name or old.key_id,
        permissions=old.permissions or RUNTIME_PERMISSIONS,
        scope_filter=old.scope_filter,
        description=old.description,
    )
