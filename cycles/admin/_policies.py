"""Policies of tenants. Servers store them; only the quotas of protocol 0.1.26 are applied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from cycles._client.call_options import RequestOptions
from cycles._core.messages.outcome import Success
from cycles._core.messages.requests import Call, without_none
from cycles.admin._arguments import tenant_filter
from cycles.admin._channel import Channel, change, checked, once
from cycles.admin._keys import unknown
from cycles.admin._pages import Pages, pages
from cycles.admin.results import Policy


async def create_policy(
    channel: Channel,
    tenant: str,
    name: str,
    scope_pattern: str,
    *,
    description: str | None = None,
    priority: int | None = None,
    caps: Mapping[str, Any] | None = None,
    overage_policy: str | None = None,
    **request: Unpack[RequestOptions],
) -> Policy:
    """Create a policy. The request is sent once, because it has no idempotency key.

    Args:
        tenant: Owner of the policy.
        scope_pattern: Scopes that the policy is for, such as ``"tenant:acme/*"``.
        priority: Policies with a higher priority come first.
        caps: Limits of the policy.
        overage_policy: REJECT, ALLOW_IF_AVAILABLE or ALLOW_WITH_OVERDRAFT.

    Raises:
        InvalidRequestError: naming the argument that is wrong; nothing was sent.
        AmbiguousResponseError: if it is unknown whether the policy was created.
    """
    body = {"tenant_id": tenant, "name": name, "scope_pattern": scope_pattern} | without_none(
        description=description, priority=priority, caps=caps, commit_overage_policy=overage_policy
    )
    call = Call("createPolicy", body=body)
    outcome = await checked(channel, call, once)
    if isinstance(outcome, Success):
        return Policy.read(outcome.body, **outcome.ids)
    what = f"a policy {name!r:.80} may exist; list it with policies({tenant!r:.80})"
    raise unknown(outcome, call.operation, what)


async def update_policy(
    channel: Channel,
    policy_id: str,
    *,
    name: str | None = None,
    description: str | None = None,
    priority: int | None = None,
    caps: Mapping[str, Any] | None = None,
    overage_policy: str | None = None,
    status: str | None = None,
    **request: Unpack[RequestOptions],
) -> Policy:
    """Change a policy, and return it. What is None stays unchanged.

    Args:
        status: ACTIVE or DISABLED.

    Raises:
        NotFoundError: There is no such policy.
    """
    body = without_none(
        name=name,
        description=description,
        priority=priority,
        caps=caps,
        commit_overage_policy=overage_policy,
        status=status,
    )
    success = await change(channel, Call("updatePolicy", {"policy_id": policy_id}, body=body))
    return Policy.read(success.body, **success.ids)


def policies(
    channel: Channel,
    tenant: str,
    *,
    status: str | None = None,
    search: str | None = None,
    page_size: int | None = None,
    **request: Unpack[RequestOptions],
) -> Pages[Policy]:
    """Return the policies of a tenant, newest first, lazily.

    Args:
        status: Only policies that are ACTIVE, or that are DISABLED.
        search: Only policies whose id, name or pattern contains this.
        page_size: Policies per request, 1 to 100.
    """
    query = {"tenant_id": tenant_filter(tenant), "status": status, "search": search, "limit": page_size}
    return pages(channel, "listPolicies", "policies", Policy, query)
