"""Amounts in USD for people. No I/O."""

from __future__ import annotations

from typing import Final

_DECIMALS: Final = 4


def dollars(microcents: int, decimals: int = _DECIMALS) -> str:
    """Return an amount for people: more decimals only if it would read as zero or, for a budget, be rounded."""
    exact = f"{microcents // 100_000_000}.{microcents % 100_000_000:08d}"
    if not microcents:
        return "$0.00"
    if decimals == _DECIMALS and microcents >= 10_000:
        return f"${round(microcents / 100_000_000, decimals):.{decimals}f}"
    shown = exact.rstrip("0")
    whole, _, fraction = shown.partition(".")
    return f"${whole}.{fraction.ljust(decimals, '0')}"
