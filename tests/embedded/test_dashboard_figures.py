"""The figures, the chart and the denials of the dashboard for given changes, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pytest

from cycles.embedded.dashboard import history as histories
from cycles.embedded.dashboard.history import PERIODS, Charge, History, Steps, is_within
from cycles.embedded.dashboard.summary import View, changes_of, denials, ended_ms, event_of, summary
from cycles.embedded.records import Budget, Reservation, StoredResponse

ACME: Final = "tenant:acme"
BOT: Final = "tenant:acme/agent:bot"
NOW_MS: Final = 1_200_000_000  # a step of each period begins


def kept(*changes: Charge) -> History:
    found = History()
    for one in changes:
        found.add(one)
    return found


def spent(scope: str, amount: int, action: str = "llm m", at_ms: int = NOW_MS, unit: str = "TOKENS") -> Charge:
    return Charge(at_ms, (scope, unit, action), amount)


def reservation(**members: Any) -> Reservation:
    given: dict[str, Any] = {"scopes": (ACME, BOT), "reserved": 10, "unit": "TOKENS", **members}
    return Reservation(
        reservation_id="res-1",
        number=1,
        tenant="acme",
        idempotency_key="k",
        subject={"tenant": "acme"},
        overage_policy="REJECT",
        budgeted=(),
        created_at_ms=100,
        expires_at_ms=200,
        grace_period_ms=50,
        max_extensions=0,
        **{"action": {"kind": "llm", "name": "m"}, **given},
    )


def shown(
    view: View, *changes: Charge, budgets: Sequence[Budget] = (), active: Sequence[Reservation] = ()
) -> dict[str, Any]:
    return summary(view, NOW_MS, kept(*changes), budgets, active)


# --- the chart --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("view", "names"),
    [
        (View(), {"spent": 31}),
        (View(by="action"), {"llm m": 26, "other actions": 5}),
        (View(by="scope"), {BOT: 15, ACME: 11, "tenant:other": 5}),
        (View(ACME, by="scope"), {"agent:bot": 15, ACME: 11}),
        (View(BOT, by="scope"), {"toolset:t": 12, BOT: 3}),
        (View(BOT), {"spent": 15}),
        (View("tenant:ac"), {}),
        (View(unit="CREDITS"), {"spent": 31}),
        (View(unit="USD_MICROCENTS"), {"spent": 4}),
    ],
)
def test_what_was_spent_is_grouped_by_unit_scope_or_action(view: View, names: dict[str, int]) -> None:
    found = shown(
        view,
        spent(ACME, 11),
        spent(BOT, 3),
        spent(f"{BOT}/toolset:t", 12),
        spent("tenant:other", 5, ""),
        spent(ACME, 4, unit="USD_MICROCENTS"),
        spent(ACME, 0, "free"),
        budgets=[Budget(scope=ACME, unit="USD_MICROCENTS", allocated=9)]
        if view.unit == "USD_MICROCENTS"
        else [Budget(scope=view.scope or ACME, unit="TOKENS", allocated=9)],
    )
    assert {group["name"]: group["spent"] for group in found["groups"]} == names
    assert [group["spent"] for group in found["groups"]] == sorted(names.values(), reverse=True)
    assert found["spent"] == sum(names.values())


@pytest.mark.parametrize(
    ("count", "last"), [(5, ("a5", 1)), (6, ("1 other", 1)), (7, ("2 others", 3)), (8, ("3 others", 6))]
)
def test_the_five_largest_groups_are_shown_and_the_others_together(count: int, last: tuple[str, int]) -> None:
    changes = [spent(ACME, count + 1 - number, f"a{number}") for number in range(1, count + 1)]
    groups = shown(View(by="action"), *changes)["groups"]
    assert [group["name"] for group in groups[:-1]] == [f"a{number}" for number in range(1, min(count, 6))][
        : len(groups) - 1
    ]
    assert (groups[-1]["name"], groups[-1]["spent"]) == last
    assert [group["values"][-1] for group in groups] == [group["spent"] for group in groups]


def test_a_chart_adds_up_and_goes_back_from_what_is_reserved_now() -> None:
    held, step_ms = ("tenant:acme", "TOKENS", "llm m"), 5_000
    found = shown(
        View(),
        Charge(NOW_MS - 59 * step_ms, held, 2, 30),
        Charge(NOW_MS - 58 * step_ms, held, 3, -10),
        Charge(NOW_MS - step_ms, held, 0, 5),
        Charge(NOW_MS - 1, held, 0, 1),
        Charge(NOW_MS, held, 7, -6),
        active=[reservation(reserved=13), reservation(reserved=7), reservation(unit="CREDITS")],
    )
    assert (found["from_ms"], found["step_ms"]) == (NOW_MS - 59 * step_ms, step_ms)
    assert found["groups"] == [{"name": "spent", "spent": 12, "values": [2, *[5] * 58, 12]}]
    assert found["held"] == [30, *[20] * 57, 26, 20]
    assert (found["at_ms"], found["unit"], found["units"], found["reserved"]) == (
        NOW_MS,
        "TOKENS",
        ["TOKENS", "CREDITS"],
        20,
    )


# --- the figures ------------------------------------------------------------------------------------------------------


def test_what_is_left_is_that_of_the_outermost_budgets_of_the_unit() -> None:
    def budget(scope: str, allocated: int, unit: str = "TOKENS") -> Budget:
        return Budget(scope=scope, unit=unit, allocated=allocated, spent=1)

    budgets = [
        budget("tenant:b/agent:x", 500),
        budget("tenant:b", 60),
        budget("tenant:b-2", 7),
        budget("tenant:c/agent:x", 8),
        budget("tenant:c/agent:y", 9),
        budget("tenant:c/agent:x/toolset:t", 100),
        budget("tenant:b", 1_000, "CREDITS"),
    ]

    def figures(scope: str, unit: str = "TOKENS") -> tuple[Any, ...]:
        found = shown(View(scope, unit), budgets=budgets)
        return (found["unit"], found["remaining"], found["allocated"], found["has_budget"])

    assert figures("") == ("TOKENS", 60 + 7 + 8 + 9 - 4, 60 + 7 + 8 + 9, True)
    assert figures("", "CREDITS") == ("CREDITS", 999, 1_000, True)
    assert figures("tenant:b/agent:x") == ("TOKENS", 499, 500, True)
    assert figures("tenant:c") == ("TOKENS", 15, 17, True)
    assert figures("tenant:d", "CREDITS") == ("USD_MICROCENTS", 0, 0, False)


def test_the_units_are_those_of_budgets_and_reservations_or_else_of_what_was_spent() -> None:
    changes = [spent(BOT, 1, unit="RISK_POINTS"), spent(ACME, 1, unit="CREDITS")]
    budget = Budget(scope=ACME, unit="CREDITS", allocated=1)
    assert shown(View(BOT), *changes)["units"] == ["RISK_POINTS"]
    assert shown(View(BOT), *changes)["unit"] == "RISK_POINTS"
    assert shown(View(), *changes)["units"] == ["CREDITS", "RISK_POINTS"]
    assert shown(View(), *changes, budgets=[budget])["units"] == ["CREDITS"]
    assert shown(View(), *changes, active=[reservation()])["units"] == ["TOKENS"]
    assert shown(View(), *changes, budgets=[budget], active=[reservation()])["units"] == ["TOKENS", "CREDITS"]
    assert shown(View("tenant:x"), *changes, budgets=[budget], active=[reservation()])["units"] == []


# --- what changes add -------------------------------------------------------------------------------------------------


def test_a_reservation_adds_its_hold_once_and_its_end_once() -> None:
    name = (BOT, "TOKENS", "llm m")
    active = reservation()
    ended = reservation(status="COMMITTED", charged=4, finalized_at_ms=160)
    hold, end = Charge(100, name, 0, 10), Charge(160, name, 4, -10)
    assert changes_of(None, active) == [hold]
    assert changes_of(active, active) == []
    assert changes_of(active, ended) == [end]
    assert changes_of(None, ended) == [hold, end]
    assert changes_of(ended, ended) == []
    expired = reservation(status="EXPIRED", action={"kind": "llm"})
    assert changes_of(active, expired) == [Charge(250, (BOT, "TOKENS", "llm"), 0, -10)]
    assert (ended_ms(expired), ended_ms(ended)) == (250, 160)
    assert ended_ms(reservation(finalized_at_ms=0)) == 0


def test_a_stored_response_adds_what_an_event_charged() -> None:
    def stored(charge: Any) -> StoredResponse:
        members: dict[str, Any] = {"owner": "acme", "idempotency_key": "k", "digest": "", "response": {}, "until_ms": 0}
        return StoredResponse(operation="event", charge=charge, **members)

    charge = {"at_ms": 5, "scope_path": BOT, "unit": "TOKENS", "action": "tool search", "amount": 3}
    assert event_of(stored(charge)) == [Charge(5, (BOT, "TOKENS", "tool search"), 3, 0)]
    assert event_of(stored(None)) == []


@pytest.mark.parametrize(
    ("path", "scope", "is_in"),
    [
        (ACME, ACME, True),
        (BOT, ACME, True),
        (ACME, BOT, False),
        ("tenant:acme2", ACME, False),
        (None, ACME, False),
        (None, "", True),
        (ACME, "", True),
    ],
)
def test_a_scope_is_within_itself_and_those_above(path: str | None, scope: str, is_in: bool) -> None:
    assert is_within(path, scope) is is_in


# --- denials ----------------------------------------------------------------------------------------------------------


def denial(scope: str, reason: str, count: int, at_ms: int = NOW_MS) -> Charge:
    return Charge(at_ms, (scope, "", reason), count)


def test_denials_are_those_of_the_scope_and_the_period() -> None:
    found = kept(
        denial(BOT, "BUDGET_FROZEN", 2),
        denial(ACME, "BUDGET_EXCEEDED", 3),
        denial(BOT, "BUDGET_EXCEEDED", 2, NOW_MS - 3_600_000),
        denial("tenant:other", "NOT_FOUND", 1),
    )
    assert denials(View(ACME, period="5m"), NOW_MS, found, 0) == {
        "since_ms": NOW_MS - 295_000,
        "count": 5,
        "most": [{"scope": ACME, "count": 3}],
        "groups": [
            {"scope": ACME, "reason": "BUDGET_EXCEEDED", "count": 3},
            {"scope": BOT, "reason": "BUDGET_FROZEN", "count": 2},
        ],
        "group_count": 2,
    }
    day = denials(View(ACME, period="24h"), NOW_MS, found, NOW_MS - 500_000)
    assert (day["since_ms"], day["count"], day["group_count"]) == (NOW_MS - 500_000, 7, 3)
    assert day["most"] == [{"scope": BOT, "count": 4}]
    nothing = denials(View("tenant:x", period="all"), NOW_MS, found, 77)
    assert nothing == {"since_ms": 77, "count": 0, "most": [], "groups": [], "group_count": 0}


def test_the_50_most_frequent_denials_are_shown_and_all_are_counted() -> None:
    found = denials(View(), NOW_MS, kept(*(denial(ACME, f"R{number}", number) for number in range(1, 52))), 0)
    assert [group["reason"] for group in found["groups"]] == [f"R{number}" for number in range(51, 1, -1)]
    assert (found["count"], found["group_count"]) == (51 * 52 // 2, 51)
    assert found["most"] == [{"scope": ACME, "count": 51 * 52 // 2}]


def test_denials_of_all_time_begin_where_steps_were_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histories, "MAX_SUMS", 2)
    found = kept(*(denial(ACME, f"R{number}", 1, NOW_MS + number * 60_000) for number in range(4)))
    end_ms = NOW_MS + 3 * 60_000
    all_time = denials(View(period="all"), end_ms, found, 5)
    assert (all_time["since_ms"], all_time["count"]) == (NOW_MS + 2 * 60_000, 2)
    assert denials(View(period="all"), end_ms, found, end_ms)["since_ms"] == end_ms


# --- steps ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["5m", "1h", "24h"])
def test_a_period_ends_with_the_step_of_now(name: str) -> None:
    step_ms, most = PERIODS[name]
    steps = Steps(step_ms, most, joins=False)
    for now_ms in (NOW_MS, NOW_MS + step_ms - 1):
        assert steps.window(now_ms) == (NOW_MS - (most - 1) * step_ms, most)
    assert steps.window(NOW_MS + step_ms) == (NOW_MS - (most - 2) * step_ms, most)


@pytest.mark.parametrize(("steps", "step_ms", "count"), [(89, 60_000, 90), (90, 120_000, 46), (179, 120_000, 90)])
def test_all_time_has_at_most_90_steps_of_a_minute_or_more(steps: int, step_ms: int, count: int) -> None:
    found = kept(spent(ACME, 1), spent(ACME, 1, at_ms=NOW_MS + steps * 60_000))
    sums = found.sums("all", NOW_MS + steps * 60_000)
    assert (sums.first_ms, sums.step_ms, sums.count) == (NOW_MS, step_ms, count)


def test_the_steps_of_all_time_become_longer() -> None:
    steps = Steps(1_000, 4, joins=True)
    assert steps.window(5_500) == (5_000, 1)
    name = (ACME, "u", "a")
    for at_ms in (1_999, 4_000, 1_000):
        steps.add(Charge(at_ms, name, 1, 10))
    assert (steps.step_ms, steps.window(4_999), steps.size) == (1_000, (1_000, 4), 2)
    assert steps.steps == {1_000: {name: (2, 20)}, 4_000: {name: (1, 10)}}
    steps.add(Charge(5_000, (BOT, "u", "a"), 1, 5))
    assert (steps.step_ms, steps.window(5_000), steps.size) == (2_000, (0, 3), 3)
    assert steps.steps == {0: {name: (2, 20)}, 4_000: {name: (1, 10), (BOT, "u", "a"): (1, 5)}}
    steps.add(Charge(31_000, name, 4))
    assert (steps.step_ms, steps.steps[0], steps.steps[24_000], steps.size) == (
        8_000,
        {name: (3, 30), (BOT, "u", "a"): (1, 5)},
        {name: (4, 0)},
        3,
    )


def test_a_step_leaves_when_the_newest_one_is_a_period_later() -> None:
    steps = Steps(1_000, 3, joins=False)
    for at_ms in (1_000, 2_500, 3_999):
        steps.add(Charge(at_ms, (ACME, "u", "a"), 1))
    assert (sorted(steps.steps), steps.size) == ([1_000, 2_000, 3_000], 3)
    steps.add(Charge(4_000, (ACME, "u", "a"), 1))
    assert (sorted(steps.steps), steps.size) == ([2_000, 3_000, 4_000], 3)
    steps.add(Charge(1_999, (ACME, "u", "a"), 1))  # too old
    steps.add(Charge(2_000, (ACME, "u", "b"), 1))
    assert (sorted(steps.steps), steps.size) == ([2_000, 3_000, 4_000], 4)


def test_a_period_of_dropped_steps_begins_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histories, "MAX_SUMS", 2)
    steps = Steps(1_000, 60, joins=False)
    for at_ms in (1_000, 2_000):
        steps.add(Charge(at_ms, (ACME, "u", "a"), 1))
    assert (sorted(steps.steps), steps.since_ms) == ([1_000, 2_000], None)
    steps.add(Charge(3_000, (ACME, "u", "a"), 1))
    assert (sorted(steps.steps), steps.since_ms, steps.window(3_000)) == ([2_000, 3_000], 2_000, (2_000, 2))
    steps.add(Charge(3_000, (BOT, "u", "a"), 1))
    assert (sorted(steps.steps), steps.since_ms, steps.window(3_000)) == ([3_000], 3_000, (3_000, 1))
    for scope in (f"{BOT}-2", f"{BOT}-3"):  # a third name of one step counts for the outermost scope
        steps.add(Charge(3_500, (scope, "u", "a"), 4, 1))
    assert steps.steps == {3_000: {(ACME, "u", "a"): (1, 0), (BOT, "u", "a"): (1, 0), (ACME, "u", ""): (8, 2)}}
    assert steps.window(1_500) == (3_000, 1)


def test_sums_are_those_of_the_scope_the_unit_and_the_period() -> None:
    found = kept(
        Charge(NOW_MS - 295_000, (BOT, "u", "a"), 1, 2),
        Charge(NOW_MS, (BOT, "u", "a"), 3, 4),
        Charge(NOW_MS, (ACME, "u", "a"), 5),
        Charge(NOW_MS, (BOT, "v", "a"), 6),
    )
    name = (BOT, "u", "a")
    assert list(found.sums("5m", NOW_MS).within(BOT, "u")) == [(0, name, 1, 2), (59, name, 3, 4)]
    assert list(found.sums("5m", NOW_MS + 5_000).within(BOT, "u")) == [(58, name, 3, 4)]
    assert list(found.sums("5m", NOW_MS - 5_000).within(BOT, "u")) == [(1, name, 1, 2)]
    assert [charged for _, _, charged, _ in found.sums("5m", NOW_MS).within("", "u")] == [1, 3, 5]
    assert found.units(BOT, NOW_MS) == {"u", "v"}
    assert found.units(ACME, NOW_MS) == {"u", "v"}
    assert found.units("tenant:x", NOW_MS) == set()
