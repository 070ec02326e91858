"""Amounts as people type them."""

from __future__ import annotations

from typing import Final

from cycles._core.amounts import Amount

_CENT_OF_A_CENT: Final = 10_000  # microcents: amounts for people are rounded up to it


def rounded_up(amount: int, unit: str) -> Amount:
    """Return an amount that people can type, dollars in hundredths of a cent."""
    step = _CENT_OF_A_CENT if unit == "USD_MICROCENTS" else 1
    return Amount(unit, -(-amount // step) * step)


def written(amount: Amount) -> str:
    """Return an amount as options take it, like ``0.0012USD`` or ``500TOKENS``."""
    if amount.unit == "USD_MICROCENTS":
        return f"{str(amount).removeprefix('$')}USD"
    return f"{amount.amount}{amount.unit}"
