"""One change for every tenant, or every webhook subscription, that a filter chooses."""

from __future__ import annotations

from typing import Any, Unpack

from cycles._client.call_options import RequestOptions
from cycles._core.messages.requests import Call, new_key, without_none
from cycles._errors import BulkActionError, InvalidRequestError
from cycles.admin._arguments import tenant_filter
from cycles.admin._channel import Channel, change
from cycles.admin.results import BulkReport


async def change_tenants(
    channel: Channel,
    action: str,
    *,
    status: str | None = None,
    parent: str | None = None,
    search: str | None = None,
    expected_count: int | None = None,
    idempotency_key: str | None = None,
    **request: Unpack[RequestOptions],
) -> BulkReport:
    """Suspend, reactivate or close the tenants that match all of these; at least one is required.

    Args:
        action: SUSPEND, REACTIVATE or CLOSE. Closing cannot be undone.
        status: Only tenants with this status.
        parent: Only tenants below this one.
        search: Only tenants whose id or name contains this.
        expected_count: Number of tenants that must match; otherwise the server changes nothing.
        idempotency_key: Your key for this change; a repetition with it returns the first report.

    Raises:
        InvalidRequestError: nothing chooses the tenants; nothing was sent.
        BulkActionError: if a row failed; its `report` has all rows. Rows are not one transaction.
    """
    chosen = without_none(status=status, parent_tenant_id=tenant_filter(parent), search=search)
    return await _changed(channel, "bulkActionTenants", action, chosen, expected_count, idempotency_key)


async def change_webhooks(
    channel: Channel,
    action: str,
    *,
    tenant: str | None = None,
    status: str | None = None,
    event_type: str | None = None,
    search: str | None = None,
    expected_count: int | None = None,
    idempotency_key: str | None = None,
    **request: Unpack[RequestOptions],
) -> BulkReport:
    """Pause, resume or delete the webhook subscriptions that match all of these; at least one is required.

    Args:
        action: PAUSE, RESUME or DELETE.
        tenant: Only subscriptions of this tenant.
        event_type: Only subscriptions of this type.
        search: Only subscriptions whose id or URL contains this.
        expected_count: Number of subscriptions that must match; otherwise the server changes nothing.
        idempotency_key: Your key for this change; a repetition with it returns the first report.

    Raises:
        InvalidRequestError: nothing chooses the subscriptions; nothing was sent.
        BulkActionError: if a row failed; its `report` has all rows. Rows are not one transaction.
    """
    chosen = without_none(tenant_id=tenant_filter(tenant), status=status, event_type=event_type, search=search)
    return await _changed(channel, "bulkActionWebhooks", action, chosen, expected_count, idempotency_key)


async def _changed(
    channel: Channel,
    operation: str,
    action: str,
    chosen: dict[str, Any],
    expected_count: int | None,
    idempotency_key: str | None,
) -> BulkReport:
    if not chosen:
        raise InvalidRequestError(f"{action} needs a filter, such as search=: without one it would change every row")
    key = new_key() if idempotency_key is None else idempotency_key
    body = {"filter": chosen, "action": action, "idempotency_key": key} | without_none(expected_count=expected_count)
    success = await change(channel, Call(operation, body=body))
    return report_of(BulkReport.read(success.body, **success.ids))


def report_of(report: BulkReport) -> BulkReport:
    """Return the report of a bulk action.

    Raises:
        BulkActionError: A row failed.
    """
    if report.failed:
        shown = "; ".join(f"{row.id}: {row.message or row.error_code}" for row in report.failed[:3])
        raise BulkActionError(
            f"{len(report.failed)} of {report.total_matched} rows are unchanged: {shown}; see error.report.failed",
            report=report,
        )
    return report
