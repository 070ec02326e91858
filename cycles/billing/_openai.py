"""What OpenAI has billed: its costs by day and line item, and its usage for the number of calls and their tiers.

The sums come from the costs, because they agree with the invoice. The shapes are those of the package openai 3.57,
`types/admin/organization`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time
from fractions import Fraction
from typing import Any, Final

from attrs import evolve

from cycles._errors import ProtocolError
from cycles.billing._admin_api import AdminApi
from cycles.billing._ledger import NAMES
from cycles.billing._rows import (
    MICROCENTS_PER_DOLLAR,
    BillRow,
    ReportError,
    count,
    exact,
    merged,
    model_name,
    text,
    tiers,
)

VARIABLE: Final = "OPENAI_ADMIN_KEY"
BASE: Final = "https://api.openai.com"
COSTS: Final = "/v1/organization/costs"
USAGE: Final = "/v1/organization/usage/completions"
EMBEDDINGS: Final = "/v1/organization/usage/embeddings"
_EMBEDDING: Final = "embedding"
"""A part of the names of models whose calls are in a report of their own, which is read only if the bill has one."""
_OTHER: Final = "(other)"


def admin_api(base: str | None, key: str) -> AdminApi:
    """Return the admin API.

    Raises:
        ConfigurationError: the address or the key cannot be used.
    """
    return AdminApi(base or BASE, key, VARIABLE, {"Authorization": f"Bearer {key}"})


def read(api: AdminApi, since: date, until: date) -> list[BillRow]:
    """Return what was billed on some days.

    Raises:
        TransportError: there is no usable response.
        ProtocolError: the request was rejected.
    """
    times = [("start_time", _seconds(since)), ("end_time", _seconds(until)), ("bucket_width", "1d")]
    costs = merged(api.rows(COSTS, [*times, ("group_by[]", "line_item"), ("limit", "31")], _costs))
    groups = [("group_by[]", name) for name in ("model", "service_tier", "batch")]
    usage = merged(api.rows(USAGE, [*times, *groups, ("limit", "31")], _usage))
    known = {(row.day, row.model): row for row in usage}
    if any(_EMBEDDING in row.model and (row.day, row.model) not in known for row in costs):
        usage = merged([*usage, *_embeddings(api, [*times, groups[0], ("limit", "31")])])
        known = {(row.day, row.model): row for row in usage}
    models = {row.model for row in usage}
    found = []
    for row in costs:
        counted = known.pop((row.day, row.model), None)
        is_model = row.is_model or row.model in models
        if counted is not None and is_model:
            row = evolve(row, calls=counted.calls, tiers=counted.tiers)
        found.append(evolve(row, is_model=is_model))
    found += known.values()  # calls that cost nothing, or whose cost is not there yet
    return [row for row in merged(found) if since.isoformat() <= row.day < until.isoformat()]


def _embeddings(api: AdminApi, query: list[tuple[str, str]]) -> list[BillRow]:
    """Return the usage of embeddings; none if a gateway does not have that report."""
    try:
        return list(api.rows(EMBEDDINGS, query, _usage))
    except ProtocolError as error:
        if error.status != 404:
            raise
        return []


def _costs(bucket: Mapping[str, Any]) -> Iterator[BillRow]:
    """Yield the rows of one day of the costs."""
    day = _day(bucket["start_time"])
    return (_cost(day, result) for result in bucket["results"])


def _cost(day: str, result: Mapping[str, Any]) -> BillRow:
    item = text(result.get("line_item"))
    name, comma, _ = (item or _OTHER).partition(",")
    model = model_name(name.strip())
    # Names of models have no spaces; those of storage and of tools do.
    is_model = " " not in model and (bool(comma) or NAMES["openai"].match(model) is not None)
    amount = result["amount"]
    cost = Fraction(0)
    if amount is not None:
        currency = amount.get("currency", "usd")
        if not isinstance(currency, str) or currency.lower() != "usd":
            raise ReportError(f"an amount is in {currency!r:.40}, and not in usd")
        cost = exact(amount["value"], MICROCENTS_PER_DOLLAR)
    return BillRow(day=day, model=model, amount=cost, is_model=is_model)


def _usage(bucket: Mapping[str, Any]) -> Iterator[BillRow]:
    """Yield the rows of one day of the usage."""
    day = _day(bucket["start_time"])
    for result in bucket["results"]:
        model = text(result.get("model"))
        calls = count(result["num_model_requests"])
        found = tiers(result.get("service_tier"), "batch" if result.get("batch") is True else None)
        name = model_name(model) if model else _OTHER
        yield BillRow(day=day, model=name, amount=Fraction(0), calls=calls, tiers=found if calls else frozenset())


def _seconds(day: date) -> str:
    return str(int(datetime.combine(day, time(), UTC).timestamp()))


def _day(seconds: Any) -> str:
    if type(seconds) is not int:
        raise ReportError(f"{seconds!r:.80} is no time")
    try:
        return datetime.fromtimestamp(seconds, UTC).date().isoformat()
    except (OverflowError, OSError, ValueError):
        raise ReportError(f"{seconds!r:.80} is no time") from None
