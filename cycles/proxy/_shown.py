"""Amounts of a run for people. No I/O."""

from __future__ import annotations

from typing import Final

from cycles._core.amounts import Amount

_DECIMALS: Final = 4


def shown(unit: str, amount: int, decimals: int = _DECIMALS) -> str:
    """Return an amount for people, like ``$0.0401`` or ``1,200 tokens``.

    Args:
        unit: The unit.
        amount: How much of it.
        decimals: Of dollars: more only if the amount would read as zero or, for a budget, be rounded.
    """
    if unit == "USD_MICROCENTS":
        return _dollars(amount, decimals)
    return f"{amount:,} tokens" if unit == "TOKENS" and amount != 1 else str(Amount(unit, amount))


def _dollars(microcents: int, decimals: int) -> str:
    exact = f"{microcents // 100_000_000}.{microcents % 100_000_000:08d}"
    if not microcents:
        return "$0.00"
    if decimals == _DECIMALS and microcents >= 10_000:
        return f"${round(microcents / 100_000_000, decimals):.{decimals}f}"
    text = exact.rstrip("0")
    whole, _, fraction = text.partition(".")
    return f"${whole}.{fraction.ljust(decimals, '0')}"
