"""What would let a denied call pass: a lower output limit, a longer wait, or a larger budget. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import frozen

from cycles.providers._admission import highest_limit
from cycles.providers._typed import rounded_up, written


@frozen
class Payer:
    """One budget that must pay for a call: that of the run, the limit of a share, or a scope of a server.

    Attributes:
        name: As people know it: ``this run``, ``share NAME``, or the path of a scope.
        scope: How the ledger names it.
        left: What is left of it, perhaps less than nothing.
        held: What calls in flight hold of it.
        whole: Its limit.
        is_scope: Whether it is a scope of a server, not a limit of the run or of a share.
    """

    name: str
    scope: str
    left: int
    held: int
    whole: int
    is_scope: bool = False


def tightest(payers: Sequence[Payer]) -> Payer | None:
    """Return the payer with the least left."""
    return min(payers, key=lambda payer: payer.left, default=None)


def remedies(
    payers: Sequence[Payer],
    unit: str,
    *,
    least: int,
    bound: Callable[[int], int] | None,
    lowest: int,
    wait: float,
) -> str | None:
    """Return what would let a call pass, the cheapest first; None if nothing is short.

    Args:
        payers: All budgets that must pay for it.
        unit: Their unit.
        least: What it may cost at the lowest output limit that it may get.
        bound: Returns what it may cost at an output limit; None: it has none.
        lowest: That lowest output limit.
        wait: Seconds that it could wait for calls in flight.
    """
    short = [payer for payer in payers if payer.left < least]
    if not short:
        return None
    left = min(payer.left for payer in short)
    found = []
    if bound is not None and bound(1) <= left:
        limit = highest_limit(bound, 1, max(1, lowest), left)
        found.append(f"request at most {limit} output tokens (or pass --min-output-tokens {limit})")
    if all(payer.left + payer.held >= least for payer in short):
        found.append(f"pass a --wait above {wait:g} s, until the calls that hold the budget end")
    found.append(" and ".join(_raised(payer, unit, least) for payer in short))
    return "; or ".join(found)


def _raised(payer: Payer, unit: str, least: int) -> str:
    missing = least - payer.left
    if payer.is_scope:
        amount = rounded_up(missing, unit)
        return f"raise the budget of {payer.name} by {amount}: cycles fund {payer.name} {written(amount)}"
    whole = rounded_up(payer.whole + missing, unit)
    option = "--budget" if payer.name == "this run" else "its limit"
    return f"raise the budget of {payer.name} to {whole}: {option} {written(whole)}"
