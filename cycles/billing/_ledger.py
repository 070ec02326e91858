"""The ledger's side of a comparison: what committed and expired reservations of model calls were charged, by day."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time
from typing import Any, Final

from attrs import Factory, define

import cycles
from cycles.billing._items import is_chunk, items_of
from cycles.billing._rows import model_name

MODEL_CALLS: Final = "llm."
IMPORTED: Final = "llm.imported"
"""The kind of the reservations that charge what is on the bill only."""
CLAIMS: Final = "claims"
"""Metadata of a reservation by which one import excludes others; it charges nothing."""
_UNIT: Final = "USD_MICROCENTS"
_INCLUDE: Final = ("metadata", "committed_metadata")
NAMES: Final[Mapping[str, re.Pattern[str]]] = {
    "openai": re.compile(
        r"(ft:)?(gpt-|chatgpt-|o\d|text-embedding|text-moderation|omni-|dall-e|whisper|tts-|sora|codex|computer-use|"
        r"davinci|babbage)"
    ),
    "anthropic": re.compile(r"claude"),
}
"""Names of models by which a reservation without the member `provider` belongs to a provider."""
_OTHERS: Final = (
    *("openai", "anthropic", "google", "azure", "aws", "bedrock", "groq", "mistral", "x-ai", "openrouter"),
    *("deepseek", "ollama", "cohere", "perplexity", "together", "fireworks", "cerebras"),
)
"""Values of the member `provider` that say that another provider bills the call."""


@define
class Spent:
    """What the ledger has of one model on one day, in microcents.

    Attributes:
        amount: What was charged.
        calls: How many calls it had, expired ones and attempts without a response included.
        expired: Reservations that expired without a commit.
        expired_amount: What they had reserved.
        estimates: Calls that were settled at an estimate.
        estimated: What they were charged.
        unpriced: Calls with counts that have no price.
        fallbacks: Calls at the price of an unknown model.
        fallback: What they were charged.
    """

    amount: int = 0
    calls: int = 0
    expired: int = 0
    expired_amount: int = 0
    estimates: int = 0
    estimated: int = 0
    unpriced: int = 0
    fallbacks: int = 0
    fallback: int = 0


@define
class Imported:
    """What earlier imports have charged for one model and day.

    Attributes:
        amount: Microcents.
        done: How many have ended, also if they charged nothing.
        failed: How many of them charged nothing.
    """

    amount: int = 0
    done: int = 0
    failed: int = 0


Key = tuple[str, str]
"""A day, like ``2026-11-24``, and a model."""


@define
class LedgerSide:
    """What the ledger has of one provider."""

    spent: dict[Key, Spent] = Factory(lambda: defaultdict(Spent))
    imported: dict[Key, Imported] = Factory(lambda: defaultdict(Imported))


@define
class Names:
    """Which names of the ledger belong to a provider, and what the bill calls them.

    Attributes:
        provider: The provider.
        billed: The models that the bill names.
        aliases: Names of the ledger, with those of the bill.
    """

    provider: str
    billed: frozenset[str]
    aliases: Mapping[str, str]

    def of_item(self, name: str, metadata: Mapping[str, Any], committed: Mapping[str, Any]) -> str | None:
        """Return what the bill calls the model of an action; None if another provider bills it."""
        provider = metadata.get("provider")
        if provider != self.provider and isinstance(provider, str) and provider in _OTHERS:
            return None
        found = self.on_bill(name)
        if found in self.billed:
            return found
        response = committed.get("response_model")
        if isinstance(response, str) and self.on_bill(response) in self.billed:
            return self.on_bill(response)  # the name of the request is one that the provider resolves
        return found if provider == self.provider or NAMES[self.provider].match(found) else None

    def on_bill(self, name: str) -> str:
        """Return what the bill calls a model of the ledger."""
        plain = model_name(name)
        return self.aliases.get(plain, plain)


def read(client: cycles.Cycles, names: Names, since: date, until: date, subject: Any = None) -> LedgerSide:
    """Return what the ledger has of a provider. Changes nothing.

    Imports are found by the day in their metadata: they were made later than that day.

    Raises:
        CyclesError: the server does not list reservations.
    """
    side = LedgerSide()
    first = datetime.combine(since, time(), UTC)
    for status in ("COMMITTED", "EXPIRED"):
        rows = client.reservations(status=status, subject=subject, created_from=first, include=_INCLUDE, limit=200)
        _add(side, rows, names, since.isoformat(), until.isoformat())
    return side


def _add(side: LedgerSide, rows: Iterable[cycles.ReservationSummary], names: Names, since: str, until: str) -> None:
    for row in rows:
        if row.reserved.unit != _UNIT or not row.action.kind.startswith(MODEL_CALLS):
            continue
        if row.action.kind == IMPORTED:
            _add_import(side, row, names, since, until)
            continue
        day = _day(row.created_at_ms)
        if since <= day < until:
            _add_row(side, row, day, names)


def _add_import(side: LedgerSide, row: cycles.ReservationSummary, names: Names, since: str, until: str) -> None:
    metadata = row.metadata or {}
    day = metadata.get("day")
    if metadata.get("provider") != names.provider or CLAIMS in metadata or not isinstance(day, str):
        return
    if since <= day < until:
        found = side.imported[day, row.action.name]
        charged = 0 if row.committed is None else row.committed.amount
        found.amount += charged
        found.done += 1
        found.failed += not charged


def _add_row(side: LedgerSide, row: cycles.ReservationSummary, day: str, names: Names) -> None:
    metadata, committed = row.metadata or {}, row.committed_metadata or {}
    if row.status == "EXPIRED":
        model = names.of_item(row.action.name, metadata, committed)
        if model is not None:
            spent = side.spent[day, model]
            spent.calls += 1
            spent.expired += 1
            spent.expired_amount += row.reserved.amount
        return
    attempts = committed.get("attempts")
    more = attempts - 1 if type(attempts) is int and attempts > 1 and not is_chunk(row) else 0
    for item in items_of(row):
        model = names.of_item(item.name, metadata, committed)
        if model is None:
            continue
        spent = side.spent[day, model]
        spent.amount += item.amount
        spent.calls += item.calls + more
        if committed.get("actual_source") == "estimate":
            spent.estimates += item.calls
            spent.estimated += item.amount
        spent.unpriced += item.calls if committed.get("unpriced") else 0
        if committed.get("price_source") == "fallback":
            spent.fallbacks += item.calls
            spent.fallback += item.amount


def _day(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).date().isoformat()


def aliases_of(given: Iterable[tuple[str, str]]) -> tuple[dict[str, str], dict[str, str]]:
    """Return what the bill calls names of the ledger, and which names of the bill are the same model.

    Of several names of the bill for one name of the ledger, the first one counts.
    """
    of_ledger: dict[str, str] = {}
    of_bill: dict[str, str] = {}
    for billed, name in given:
        first = of_ledger.setdefault(model_name(name), model_name(billed))
        of_bill[model_name(billed)] = first
    return of_ledger, of_bill
