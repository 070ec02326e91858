"""Commits far above their estimate. They are reported, and the denials that they may have caused name them.

Such a commit is usually a wrong unit or a wrong price, and it uses up a budget that others need.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from cycles._errors import BudgetExceededError, CyclesError

FAR_ABOVE: Final = 100
"""A commit of more than this times its estimate is far above it. An estimate of 0 says nothing."""

_last: Final[deque[tuple[str, Any, str]]] = deque(maxlen=16)


def report_far_above(io: Any, guard: Any, actual: Any) -> None:
    """Report such a commit, and keep it for denials: the last 16 of this process."""
    request = guard.request
    times = actual.amount // request.estimate.amount
    text = f"{guard.name} was committed with {actual}, {times:,} times its estimate"
    _last.append((io.settings.base_url, request, text))
    io.report("FarAboveEstimate", guard, estimate=request.estimate, actual=actual)


def name_far_above(io: Any, request: Any, error: CyclesError) -> None:
    """Name the last such commit of the same server, tenant and unit in the error of a denied reservation."""
    if not isinstance(error, BudgetExceededError):
        return
    for server, other, text in reversed(_last):
        same = server == io.settings.base_url and other.subject.tenant == request.subject.tenant
        if same and other.estimate.unit == request.estimate.unit:
            error.hint = f"{error.hint}; {text}" if error.hint else text
            return
