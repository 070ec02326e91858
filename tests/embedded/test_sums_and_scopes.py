"""What the embedded server computes: scopes of a subject, the charge of a commit, and the last entries of a list."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

import cycles
from cycles.embedded.dashboard.latest import Latest, drained
from cycles.embedded.errors import ApiError
from cycles.embedded.overage import charge, settle
from cycles.embedded.records import Budget
from cycles.embedded.scopes import derive, has_segments, leaf, normalise, wanted_segments

FULL = "tenant:a/workspace:w/app:x/workflow:f/agent:b/toolset:t"
REJECT, AIA, AWO = "REJECT", "ALLOW_IF_AVAILABLE", "ALLOW_WITH_OVERDRAFT"


@pytest.mark.parametrize(
    ("subject", "scopes"),
    [
        ({}, ()),
        ({"tenant": "Acme"}, ("tenant:acme",)),
        ({"agent": "B", "tenant": "a"}, ("tenant:a", "tenant:a/agent:b")),
        ({"tenant": None, "app": "X", "dimensions": {"a": "b"}}, ("app:x",)),
        ({"workspace": "w", "toolset": "t"}, ("workspace:w", "workspace:w/toolset:t")),
    ],
)
def test_the_scopes_of_a_subject(subject: dict[str, Any], scopes: tuple[str, ...]) -> None:
    assert derive(subject) == scopes


@pytest.mark.parametrize(
    ("scope", "stored"),
    [
        ("tenant:Acme", "tenant:acme"),
        (FULL, FULL),
        ("agent:b", "agent:b"),
        ("tenant:a:b", "tenant:a:b"),
        ("", None),
        ("tenant", None),
        ("tenant:", None),
        ("team:x", None),
        ("tenant:a/", None),
        ("tenant:a/tenant:b", None),
        ("agent:b/tenant:a", None),
    ],
)
def test_the_form_of_a_scope(scope: str, stored: str | None) -> None:
    if stored is None:
        with pytest.raises(cycles.InvalidRequestError, match="scope"):
            normalise(scope)
    else:
        assert normalise(scope) == stored


def test_which_scopes_a_query_finds() -> None:
    scope = "tenant:a/agent:b"
    assert (leaf(scope), leaf("tenant:a")) == ("agent:b", "tenant:a")
    assert has_segments(scope, wanted_segments({}))
    assert has_segments(scope, wanted_segments({"agent": "B"}))
    assert has_segments(scope, wanted_segments({"agent": "b", "tenant": "A"}))
    assert not has_segments(scope, wanted_segments({"agent": ""}))
    assert not has_segments(scope, wanted_segments({"agent": "c", "tenant": "a"}))


def budget(remaining: int, limit: int = 0, debt: int = 0, reserved: int = 0) -> Budget:
    fixed: dict[str, Any] = {"scope": "tenant:a", "unit": "TOKENS", "spent": 5, "debt": debt, "reserved": reserved}
    return Budget(allocated=remaining + 5 + debt + reserved, overdraft_limit=limit, **fixed)


def numbers(after: Budget) -> tuple[int, int, int, bool]:
    """Return what was spent beyond 5, the debt, what is reserved, and whether it is over its limit."""
    return after.spent - 5, after.debt, after.reserved, after.is_over_limit


NO_BUDGET, NO_DEBT = "BUDGET_EXCEEDED", "OVERDRAFT_LIMIT_EXCEEDED"


@pytest.mark.parametrize(
    ("policy", "wanted", "budgets", "charged"),
    [
        (REJECT, 10, [budget(10)], [(10, 0, 0, False)]),
        (REJECT, 10, [budget(9)], NO_BUDGET),
        (REJECT, 10, [budget(20), budget(9)], NO_BUDGET),
        (AIA, 10, [budget(10)], [(10, 0, 0, False)]),
        (AIA, 10, [budget(9)], [(9, 0, 0, True)]),
        (AIA, 10, [budget(0)], [(0, 0, 0, True)]),
        (AIA, 10, [budget(-3)], [(0, 0, 0, True)]),
        (AIA, 10, [budget(10), budget(9)], [(9, 0, 0, False), (9, 0, 0, True)]),
        (AIA, 0, [budget(-3)], [(0, 0, 0, False)]),
        (AIA, 10, [], []),
        (AWO, 10, [budget(10)], [(10, 0, 0, False)]),
        (AWO, 10, [budget(9)], [(9, 0, 0, True)]),
        (AWO, 10, [budget(9, limit=1)], [(9, 1, 0, False)]),
        (AWO, 10, [budget(8, limit=1)], NO_DEBT),
        (AWO, 10, [budget(9, limit=3, debt=2)], [(9, 3, 0, False)]),
        (AWO, 10, [budget(9, limit=3, debt=3)], NO_DEBT),
        (AWO, 10, [budget(10, limit=3, debt=4)], [(10, 4, 0, False)]),  # it needs none
        (AWO, 10, [budget(0, limit=10)], [(0, 10, 0, False)]),
        (AWO, 10, [budget(-4, limit=10)], [(0, 10, 0, False)]),
        (AWO, 10, [budget(9, limit=9), budget(4)], [(4, 0, 0, False), (4, 0, 0, True)]),
        (AWO, 0, [budget(-3)], [(0, 0, 0, False)]),
        (AWO, 10, [budget(10), budget(4)], [(4, 0, 0, False), (4, 0, 0, True)]),
        (AWO, 10, [budget(2, limit=1), budget(4)], NO_DEBT),
        (AWO, 10, [budget(2, limit=2), budget(4)], [(2, 2, 0, False), (4, 0, 0, True)]),
        # A budget that owes more than its limit takes part in a charge for which it needs no more debt.
        (AWO, 10, [budget(6, limit=3, debt=4), budget(4)], [(4, 4, 0, False), (4, 0, 0, True)]),
        (AWO, 10, [budget(4), budget(4, limit=3, debt=4)], [(4, 0, 0, True), (4, 4, 0, False)]),
        (AWO, 10, [budget(3, limit=3, debt=4), budget(4)], NO_DEBT),
    ],
)
def test_the_charge_of_an_amount_that_is_not_reserved(
    policy: str, wanted: int, budgets: list[Budget], charged: list[tuple[int, int, int, bool]] | str
) -> None:
    if isinstance(charged, str):
        with pytest.raises(ApiError) as caught:
            charge(budgets, wanted, policy)
        assert caught.value.code == charged
        return
    found = charge(budgets, wanted, policy)
    assert [numbers(after) for after in found.budgets] == charged
    assert found.amount == (charged[0][0] + charged[0][1] - budgets[0].debt if charged else wanted)


@pytest.mark.parametrize(
    ("policy", "actual", "remaining", "charged"),
    [
        (REJECT, 6, 0, (6, 0, 0, False)),
        (REJECT, 5, 0, (5, 0, 0, False)),
        (REJECT, 0, 0, (0, 0, 0, False)),
        (REJECT, 7, 50, NO_BUDGET),
        (AIA, 6, 0, (6, 0, 0, False)),
        (AIA, 7, 1, (7, 0, 0, False)),
        (AIA, 8, 1, (7, 0, 0, True)),
        (AWO, 8, 2, (8, 0, 0, False)),
        (AWO, 9, 2, (8, 0, 0, True)),
    ],
)
def test_the_charge_of_a_reservation(
    policy: str, actual: int, remaining: int, charged: tuple[int, int, int, bool] | str
) -> None:
    held = [budget(remaining, reserved=6)]
    if isinstance(charged, str):
        with pytest.raises(ApiError) as caught:
            settle(held, 6, actual, policy)
        assert caught.value.code == charged
        return
    found = settle(held, 6, actual, policy)
    assert ([numbers(after) for after in found.budgets], found.amount) == ([charged], charged[0])


def test_the_last_entries() -> None:
    latest = Latest[str, int](2)
    for key, value in (("a", 1), ("b", 2), ("a", 3)):
        latest.put(key, value)
    assert (latest.values(), len(latest), latest.has_dropped) == ([2, 3], 2, False)
    latest.put("c", 4)
    assert (latest.values(), latest.has_dropped) == ([3, 4], True)
    latest.discard("a")
    latest.discard("unknown")
    assert latest.values() == [4]
    every = Latest[int, int]()
    for number in range(5):
        every.put(number, number)
    assert (len(every), every.has_dropped) == (5, False)
    entries = deque([1, 2])
    assert (list(drained(entries)), entries) == ([1, 2], deque())


@pytest.mark.parametrize("remaining", [(5, 9), (9, 5), (9, 5, 9)])
def test_an_amount_that_may_not_go_over_needs_to_remain_in_every_scope(remaining: tuple[int, ...]) -> None:
    budgets = [budget(each) for each in remaining]
    with pytest.raises(ApiError) as raised:
        charge(budgets, 6, "REJECT")
    assert raised.value.code == NO_BUDGET
    assert [numbers(after)[0] for after in charge(budgets, 5, "REJECT").budgets] == [5] * len(budgets)
