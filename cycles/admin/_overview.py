"""The state of a whole deployment, and which addresses its webhooks may have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from cycles._client.call_options import RequestOptions
from cycles._core.messages.requests import Call
from cycles.admin._arguments import string_list
from cycles.admin._channel import Channel, change, read
from cycles.admin.results import Overview, WebhookSecurity


async def overview(channel: Channel, **request: Unpack[RequestOptions]) -> Overview:
    """Return the numbers of tenants, budgets, webhooks and recent events, and what needs a look."""
    success = await read(channel, Call("getAdminOverview"))
    return Overview.read(success.body, **success.ids)


async def webhook_security(channel: Channel, **request: Unpack[RequestOptions]) -> WebhookSecurity:
    """Return which addresses webhooks may have."""
    success = await read(channel, Call("getWebhookSecurityConfig"))
    return WebhookSecurity.read(success.body, **success.ids)


async def set_webhook_security(
    channel: Channel,
    *,
    allow_http: bool,
    blocked_cidr_ranges: Sequence[str],
    allowed_url_patterns: Sequence[str] = (),
    **request: Unpack[RequestOptions],
) -> WebhookSecurity:
    """Set which addresses webhooks may have. It replaces the whole configuration; subscriptions that exist stay.

    Args:
        allow_http: Whether URLs without TLS are allowed.
        blocked_cidr_ranges: Address ranges that are rejected, such as ``"10.0.0.0/8"``.
        allowed_url_patterns: If there are any, a URL must match one, such as ``"https://*.example.com/*"``.
    """
    body = {
        "allow_http": allow_http,
        "blocked_cidr_ranges": string_list("blocked_cidr_ranges", blocked_cidr_ranges),
        "allowed_url_patterns": string_list("allowed_url_patterns", allowed_url_patterns),
    }
    success = await change(channel, Call("updateWebhookSecurityConfig", body=body))
    return WebhookSecurity.read(success.body, **success.ids)
