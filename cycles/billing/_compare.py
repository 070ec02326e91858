"""Compare the bill with the ledger: one row for each day and model, and the causes of each difference. No I/O."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from fractions import Fraction
from typing import Any, Final

from attrs import Factory, define, evolve, frozen

from cycles.billing._ledger import Imported, Key, LedgerSide, Spent
from cycles.billing._rows import BillRow, together

DAY_EDGE: Final = "day_edge"
NOT_A_MODEL: Final = "not_a_model"
_ANOTHER_PRICE: Final = "nothing else holds: the provider has charged another price"
_UNKNOWN_CALLS: Final = "another price, or calls outside the guard: the bill has no number of calls"


@frozen
class Cause:
    """Why a row differs.

    Attributes:
        cause: The name of the cause.
        amount: Microcents that it explains; None if that is not known.
        detail: The cause in words.
        calls: How many calls are missing; None if that is not what the cause is about.
    """

    cause: str
    amount: int | None
    detail: str
    calls: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object."""
        members: dict[str, Any] = {"cause": self.cause, "amount": self.amount, "detail": self.detail}
        return members if self.calls is None else {**members, "calls": self.calls}


@define(kw_only=True)
class Row:
    """One day of one model, in microcents."""

    day: str
    model: str
    bill: int
    ledger: int
    bill_calls: int | None
    ledger_calls: int
    listed: int | None = None
    tiers: frozenset[str] = frozenset()
    is_model: bool = True
    spent: Spent = Factory(Spent)
    imports: Imported = Factory(Imported)
    ok: bool = False
    causes: list[Cause] = Factory(list)

    @property
    def difference(self) -> int:
        """What is on the bill only; below zero, what is in the ledger only."""
        return self.bill - self.ledger - self.imports.amount

    @property
    def may_be_imported(self) -> bool:
        """Whether an import charges the difference."""
        return self.difference > 0 and self.is_model and all(cause.cause != DAY_EDGE for cause in self.causes)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {
            "day": self.day,
            "model": self.model,
            "bill": self.bill,
            "ledger": self.ledger,
            "imported": self.imports.amount,
            "difference": self.difference,
            "bill_calls": self.bill_calls,
            "ledger_calls": self.ledger_calls,
            "ok": self.ok,
            "causes": [cause.to_dict() for cause in self.causes],
        }


def compare(
    bill: Iterable[BillRow], side: LedgerSide, tolerance: Fraction, same: Mapping[str, str] | None = None
) -> list[Row]:
    """Return the rows by day and model, with their causes.

    Args:
        bill: The rows of the bill.
        side: What the ledger has.
        tolerance: The part of a row's bill that its difference may be.
        same: Names of the bill that are the same model as another one.
    """
    billed: dict[tuple[str, str, bool], BillRow] = {}
    for line in bill:
        name = (same or {}).get(line.model, line.model)
        key = line.day, name, line.is_model
        before = billed.get(key)
        billed[key] = evolve(line, model=name) if before is None else together(before, line)
    keys = [*billed, *((*key, True) for key in (*side.spent, *side.imported) if (*key, True) not in billed)]
    rows = {key: _row(key, billed.get(key), side) for key in keys}
    for row in rows.values():
        row.ok = _is_ok(row, tolerance)
    for row in rows.values():
        row.causes = [] if row.ok else causes_of(row, _neighbours(row, rows), tolerance)
    return sorted(rows.values(), key=lambda row: (row.day, row.model, not row.is_model))


def settle(row: Row, tolerance: Fraction) -> None:
    """Calculate again whether a row is ok, after an import has charged something."""
    row.ok = _is_ok(row, tolerance)
    if row.ok:
        row.causes = []


def _row(key: tuple[str, str, bool], billed: BillRow | None, side: LedgerSide) -> Row:
    day, model, is_model = key
    place: Key = (day, model)
    spent = side.spent.get(place, Spent()) if is_model else Spent()
    imports = side.imported.get(place, Imported()) if is_model else Imported()
    return Row(
        day=day,
        model=model,
        bill=0 if billed is None else round(billed.amount),
        ledger=spent.amount,
        bill_calls=0 if billed is None else billed.calls,
        ledger_calls=spent.calls,
        listed=None if billed is None or billed.listed is None else round(billed.listed),
        tiers=frozenset() if billed is None else billed.tiers,
        is_model=is_model,
        spent=spent,
        imports=imports,
    )


def _is_ok(row: Row, tolerance: Fraction) -> bool:
    return abs(row.difference) <= tolerance * max(row.bill, 0)


def _neighbours(row: Row, rows: Mapping[tuple[str, str, bool], Row]) -> list[Row]:
    day = date.fromisoformat(row.day)
    days = [(day + timedelta(days=step)).isoformat() for step in (-1, 1)]
    return [rows[each, row.model, True] for each in days if (each, row.model, True) in rows and row.is_model]


def causes_of(row: Row, neighbours: Iterable[Row], tolerance: Fraction) -> list[Cause]:
    """Return all causes of a difference that hold, in their order."""
    found = [*_edge(row, neighbours, tolerance), *_of_bill(row), *_of_ledger(row.spent)]
    if row.tiers:
        found.append(Cause("tier", None, f"the bill has the tier {', '.join(sorted(row.tiers))}"))
    if row.listed is not None and row.listed != row.bill:
        found.append(Cause("discount", row.listed - row.bill, "the bill is not the list price"))
    if not found:
        found.append(Cause("price", None, _ANOTHER_PRICE if row.bill_calls is not None else _UNKNOWN_CALLS))
    return found


def _edge(row: Row, neighbours: Iterable[Row], tolerance: Fraction) -> list[Cause]:
    for other in neighbours:
        margin = tolerance * max(row.bill, other.bill, 0)
        if row.difference * other.difference < 0 and abs(row.difference + other.difference) <= margin:
            detail = f"{other.day} has the opposite difference: calls around midnight"
            return [Cause(DAY_EDGE, row.difference, detail)]
    return []


def _of_bill(row: Row) -> list[Cause]:
    if not row.is_model:
        return [Cause(NOT_A_MODEL, row.difference, "it is no call of a model")]
    more = None if row.bill_calls is None else row.bill_calls - row.ledger_calls
    is_unknown = more is None and not row.ledger_calls and row.bill > 0
    if is_unknown:
        return [Cause("outside_guard", row.difference, "calls outside the guard")]
    if more is None or more <= 0:
        return []
    detail = f"{_calls(more)} outside the guard"
    return [Cause("outside_guard", None if row.ledger_calls else row.difference, detail, calls=more)]


def _of_ledger(spent: Spent) -> list[Cause]:
    found = []
    if spent.expired:
        detail = f"{_calls(spent.expired)} expired without a commit"
        found.append(Cause("expired", spent.expired_amount, detail))
    if spent.estimates:
        found.append(Cause("estimate", spent.estimated, f"{_were(spent.estimates)} settled at an estimate"))
    if spent.unpriced:
        found.append(Cause("unpriced", None, f"{_calls(spent.unpriced)} with counts that have no price"))
    if spent.fallbacks:
        detail = f"{_were(spent.fallbacks)} charged at the price of an unknown model"
        found.append(Cause("fallback_price", spent.fallback, detail))
    return found


def _calls(number: int) -> str:
    return f"{number} {'call' if number == 1 else 'calls'}"


def _were(number: int) -> str:
    return f"{_calls(number)} {'was' if number == 1 else 'were'}"


def sums(rows: Iterable[Row]) -> dict[str, int]:
    """Return the sums of all rows."""
    totals: dict[str, int] = defaultdict(int, {"bill": 0, "ledger": 0, "imported": 0, "difference": 0})
    for row in rows:
        totals["bill"] += row.bill
        totals["ledger"] += row.ledger
        totals["imported"] += row.imports.amount
        totals["difference"] += row.difference
    return dict(totals)
