"""The figures at the top of the page, its chart and its denials, for one scope, unit and period. Nothing here locks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Final

from attrs import frozen

from cycles._core.amounts import Unit
from cycles.embedded.dashboard.history import Charge, History, Name, is_within
from cycles.embedded.records import Body, Budget, Reservation, StoredResponse

GROUPINGS: Final = ("unit", "scope", "action")
MAX_GROUPS: Final = 5
MAX_DENIALS: Final = 50
UNITS: Final = tuple(unit.value for unit in Unit)


@frozen
class View:
    """What a page selected."""

    scope: str = ""
    unit: str = ""
    period: str = "5m"
    by: str = "unit"


def changes_of(before: Reservation | None, row: Reservation) -> list[Charge]:
    """Return what a new or changed reservation adds to the history: its hold, its end with the charge, or both."""
    name: Name = (row.scope_path, row.unit, " ".join(filter(None, (row.action.get("kind"), row.action.get("name")))))
    changes = [] if before is not None else [Charge(row.created_at_ms, name, 0, row.reserved)]
    if row.status != "ACTIVE" and (before is None or before.status == "ACTIVE"):
        changes.append(Charge(ended_ms(row), name, row.charged or 0, -row.reserved))
    return changes


def event_of(stored: StoredResponse) -> list[Charge]:
    """Return what a stored response of an event adds to the history; nothing if it is of another operation."""
    charge = stored.charge
    if charge is None:
        return []
    return [Charge(charge["at_ms"], (charge["scope_path"], charge["unit"], charge["action"]), charge["amount"])]


def ended_ms(row: Reservation) -> int:
    """Return when a reservation was settled or expired."""
    return row.grace_ends_ms if row.finalized_at_ms is None else row.finalized_at_ms


def summary(
    view: View, now_ms: int, history: History, budgets: Iterable[Budget], active: Iterable[Reservation]
) -> Body:
    """Return spent, reserved and left of a scope, and what was spent in each step of the period, by group."""
    found = [each for each in budgets if is_within(each.scope, view.scope)]
    held = [row for row in active if is_within(row.scope_path, view.scope)]
    known = {each.unit for each in found} | {row.unit for row in held} or history.units(view.scope, now_ms)
    units = [unit for unit in UNITS if unit in known]
    unit = view.unit if view.unit in units else next(iter(units), UNITS[0])
    reserved = sum(row.reserved for row in held if row.unit == unit)
    outer = _outermost(each for each in found if each.unit == unit)
    return {
        "at_ms": now_ms,
        "unit": unit,
        "units": units,
        "reserved": reserved,
        "remaining": sum(each.remaining for each in outer),
        "allocated": sum(each.allocated for each in outer),
        "has_budget": bool(outer),
        **_chart(view, unit, now_ms, history, reserved),
    }


def _outermost(budgets: Iterable[Budget]) -> list[Budget]:
    """Return the budgets that are below no other: those below count the same amounts again."""
    found: list[Budget] = []
    for budget in sorted(budgets, key=lambda each: each.scope.split("/")):
        if not found or not is_within(budget.scope, found[-1].scope):
            found.append(budget)
    return found


def _chart(view: View, unit: str, now_ms: int, history: History, reserved: int) -> Body:
    sums = history.sums(view.period, now_ms)
    count = sums.count
    changes = [0] * count
    groups: dict[str, list[int]] = {}
    for place, name, charged, change in sums.within(view.scope, unit):
        changes[place] += change
        if charged:
            groups.setdefault(_group(view, name), [0] * count)[place] += charged
    totals = Counter({name: sum(values) for name, values in groups.items()})
    shown = [name for name, _ in totals.most_common(MAX_GROUPS)]
    rest = [groups[name] for name in groups if name not in shown]
    lines = [(name, groups[name]) for name in shown]
    lines += (
        [(f"{len(rest)} other{'s' * (len(rest) > 1)}", [sum(each) for each in zip(*rest, strict=True)])] if rest else []
    )
    return {
        "from_ms": sums.first_ms,
        "step_ms": sums.step_ms,
        "spent": totals.total(),
        "held": list(accumulate(reversed(changes[1:]), lambda left, change: left - change, initial=reserved))[::-1],
        "groups": [{"name": name, "spent": sum(values), "values": list(accumulate(values))} for name, values in lines],
    }


def _group(view: View, name: Name) -> str:
    scope, _, action = name
    if view.by == "unit":
        return "spent"
    if view.by == "action":
        return action or "other actions"
    below = scope[len(view.scope) + 1 :] if view.scope else scope
    return "/".join(below.split("/")[: 1 if view.scope else 2]) or view.scope


def denials(view: View, now_ms: int, history: History, since_ms: int) -> Body:
    """Return how often calls of a scope were denied in the period, grouped by scope and reason, most frequent first."""
    counts = history.counts(view.period, view.scope, now_ms)
    steps = history.periods[view.period]
    first_ms = steps.since_ms or 0 if view.period == "all" else steps.window(now_ms)[0]
    scopes: Counter[str] = Counter()
    for (scope, _), count in counts.items():
        scopes[scope] += count
    groups: Sequence[Body] = [
        {"scope": scope, "reason": reason, "count": count} for (scope, reason), count in counts.most_common(MAX_DENIALS)
    ]
    most = [{"scope": scope, "count": count} for scope, count in scopes.most_common(1)]
    found: Body = {"since_ms": max(since_ms, first_ms), "count": counts.total(), "most": most, "groups": groups}
    return found | {"group_count": len(counts)}
