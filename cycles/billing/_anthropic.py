"""What Anthropic has billed: its cost analytics, or its older cost report if the organization has no analytics.

The shapes are those of the package anthropic 2.14, `types/beta/organization/analytics`, and of its API reference.
Amounts are decimal strings in cents.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from typing import Any, Final

from cycles._errors import ProtocolError
from cycles.billing._admin_api import AdminApi
from cycles.billing._rows import (
    MICROCENTS_PER_CENT,
    BillRow,
    ReportError,
    count,
    exact,
    merged,
    model_name,
    text,
    tiers,
)

VARIABLE: Final = "ANTHROPIC_ADMIN_API_KEY"
BASE: Final = "https://api.anthropic.com"
ANALYTICS: Final = "/v1/organizations/analytics/cost"
REPORT: Final = "/v1/organizations/cost_report"
BETA: Final = "analytics-usage-cost-2026-08-24"
_OTHER: Final = "(other)"
_NOT_FOUND: Final = 404


def admin_api(base: str | None, key: str) -> AdminApi:
    """Return the admin API.

    Raises:
        ConfigurationError: the address or the key cannot be used.
    """
    headers = {"x-api-key": key, "anthropic-version": "2023-06-01", "anthropic-beta": BETA}
    return AdminApi(base or BASE, key, VARIABLE, headers)


def read(api: AdminApi, since: date, until: date) -> list[BillRow]:
    """Return what was billed on some days.

    Raises:
        TransportError: there is no usable response.
        ProtocolError: the request was rejected.
    """
    times = [("starting_at", _moment(since)), ("ending_at", _moment(until))]
    groups = [("group_by[]", "model"), ("group_by[]", "service_tier")]
    order = [("order_by", "time"), ("order", "asc"), ("limit", "1000")]
    try:
        found = merged(api.rows(ANALYTICS, [*times, ("time_bucket_width", "1d"), *groups, *order], _analysed))
    except ProtocolError as error:
        if error.status != _NOT_FOUND:
            raise
        query = [*times, ("bucket_width", "1d"), ("group_by[]", "description"), ("limit", "31")]
        found = merged(api.rows(REPORT, query, _reported))
    return [row for row in found if since.isoformat() <= row.day < until.isoformat()]


def _analysed(item: Mapping[str, Any]) -> Iterator[BillRow]:
    """Yield the row of one item of the analytics."""
    cost, group = item["cost"], item["group"]
    _require_dollars(cost)
    model, listed = text(group.get("model")), cost.get("list_amount")
    yield BillRow(
        day=_day(item["starting_at"]),
        model=model_name(model) if model else _OTHER,
        amount=exact(cost["amount"], MICROCENTS_PER_CENT),
        calls=count(cost.get("requests")),
        listed=None if listed is None else exact(listed, MICROCENTS_PER_CENT),
        tiers=tiers(group.get("service_tier")),
        is_model=model is not None,
    )


def _reported(bucket: Mapping[str, Any]) -> Iterator[BillRow]:
    """Yield the rows of one day of the older report. It counts no calls."""
    day = _day(bucket["starting_at"])
    for result in bucket["results"]:
        _require_dollars(result)
        model = text(result.get("model"))
        name = model_name(model) if model else text(result.get("description")) or _OTHER
        yield BillRow(
            day=day,
            model=name,
            amount=exact(result["amount"], MICROCENTS_PER_CENT),
            tiers=tiers(result.get("service_tier")),
            is_model=model is not None,
        )


def _require_dollars(amount: Mapping[str, Any]) -> None:
    currency = amount.get("currency", "USD")
    if not isinstance(currency, str) or currency.upper() != "USD":
        raise ReportError(f"an amount is in {currency!r:.40}, and not in USD")


def _moment(day: date) -> str:
    return f"{day.isoformat()}T00:00:00Z"


def _day(moment: Any) -> str:
    try:
        found = datetime.fromisoformat(moment)
    except (TypeError, ValueError):
        raise ReportError(f"{moment!r:.80} is no time") from None
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).astimezone(UTC).date().isoformat()
