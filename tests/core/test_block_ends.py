"""How a block ends, for each combination of what it raised, what it spent, and what `actual=` is."""

from __future__ import annotations

from typing import Any

import pytest

import cycles
from cycles._core.settlement.lifecycle import (
    BLOCK_RAISED,
    DROPPED,
    LEASE_LOST,
    NOT_COMMITTED,
    CallActual,
    Commit,
    Dropped,
    ReleaseBudget,
    block_end,
)

SPENT, ACTUAL = cycles.tokens(3), cycles.tokens(5)
LOST = cycles.LeaseLostError("lost")


def price(*_: Any) -> cycles.Amount:
    return cycles.tokens(7)


@pytest.mark.parametrize("filled", [False, True])
@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(
    ("spent", "actual", "end"),
    [
        (SPENT, None, Commit(SPENT)),
        (SPENT, ACTUAL, Commit(SPENT)),
        (SPENT, price, Commit(SPENT)),
        (None, ACTUAL, Commit(ACTUAL)),
        (None, price, CallActual(price)),
        (None, None, ReleaseBudget(NOT_COMMITTED, uncommitted=True)),
    ],
)
def test_a_block_that_ends_normally(spent: Any, actual: Any, end: Any, filled: bool, is_stream: bool) -> None:
    assert block_end(None, spent, actual, filled, is_stream) == end


RAISED = [
    (ValueError("x"), "error", f"{BLOCK_RAISED}:ValueError"),
    (KeyboardInterrupt(), "error", f"{BLOCK_RAISED}:KeyboardInterrupt"),
    (GeneratorExit(), "error", f"{BLOCK_RAISED}:GeneratorExit"),
    (LOST, "error", LEASE_LOST),
    (Dropped("d"), "dropped", DROPPED),
]


@pytest.mark.parametrize("filled", [False, True])
@pytest.mark.parametrize("actual", [None, ACTUAL, price])
@pytest.mark.parametrize("spent", [None, SPENT])
@pytest.mark.parametrize(("raised", "outcome", "reason"), RAISED, ids=lambda each: str(each)[:20])
def test_a_block_that_raises(
    raised: BaseException, outcome: str, reason: str, spent: Any, actual: Any, filled: bool
) -> None:
    """An amount that was planned is charged only if the block ended."""
    end: Any = ReleaseBudget(reason)
    if spent is not None:
        end = Commit(SPENT, outcome)
    elif actual is price and filled:
        end = CallActual(price, outcome)
    assert block_end(raised, spent, actual, filled, False) == end


def test_a_stream_that_is_closed_early_is_no_error() -> None:
    assert block_end(GeneratorExit(), SPENT, None, False, True) == Commit(SPENT, "closed")
    assert block_end(GeneratorExit(), None, price, True, True) == CallActual(price, "closed")
    assert block_end(ValueError("x"), SPENT, None, False, True) == Commit(SPENT, "error")
