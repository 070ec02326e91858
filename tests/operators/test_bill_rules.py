"""The rules of `cycles reconcile` without a server: what is compared with what, and which causes a difference has."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest

from cycles.billing._anthropic import _day as day_of_anthropic
from cycles.billing._compare import compare, sums
from cycles.billing._items import items_of
from cycles.billing._ledger import Imported, LedgerSide, Names, Spent, aliases_of, read
from cycles.billing._openai import _day as day_of_openai
from cycles.billing._rows import BillRow, ReportError, merged, model_name, tiers
from cycles.cli._format import moment as moment_shown

DAY, NEXT = "2026-11-24", "2026-11-25"
TENTH = Fraction(1, 1000)


def bill(amount: int, day: str = DAY, model: str = "m", **members: Any) -> BillRow:
    return BillRow(day=day, model=model, amount=Fraction(amount), **members)


def side(**amounts: int) -> LedgerSide:
    made = LedgerSide()
    for name, amount in amounts.items():
        made.spent[{"today": DAY, "next_day": NEXT}[name], "m"] = Spent(amount=amount, calls=1)
    return made


def causes(rows: Any) -> list[list[tuple[str, int | None]]]:
    return [[(cause.cause, cause.amount) for cause in row.causes] for row in rows]


def test_the_edge_of_a_day_may_differ_by_the_tolerance() -> None:
    billed = [bill(100_000, calls=1), bill(50_000, NEXT, calls=1)]
    rows = compare(billed, side(today=90_000, next_day=60_100), TENTH)
    assert causes(rows) == [[("day_edge", 10_000)], [("day_edge", -10_100)]]
    assert [row.may_be_imported for row in rows] == [False, False]
    rows = compare(billed, side(today=90_000, next_day=60_101), TENTH)
    assert causes(rows) == [[("price", None)], [("price", None)]]
    assert [row.may_be_imported for row in rows] == [True, False]


@pytest.mark.parametrize(
    ("today", "next_day", "later", "is_edge"),
    [
        (90_000, 60_000, 0, True),
        (90_000, 40_000, 0, False),  # both miss the same
        (90_000, 50_000, 10**8, False),  # the next day is ok
        (99_800, 10**8 + 50_000, 10**8, False),  # ok too: what is missing is less than its tolerance
        (90_000, 10**8 + 200_000, 10**8, False),
        (100_000, 60_000, 0, False),
    ],
)
def test_calls_around_midnight_need_two_opposite_differences(
    today: int, next_day: int, later: int, is_edge: bool
) -> None:
    billed = [bill(100_000, calls=1), bill(50_000 + later, NEXT, calls=1)]
    [row, _] = compare(billed, side(today=today, next_day=next_day), TENTH)
    assert ("day_edge" in [cause.cause for cause in row.causes]) is is_edge
    assert row.may_be_imported is (today < 100_000 and not is_edge)


def test_the_edge_of_a_day_is_the_first_of_several_causes() -> None:
    ledger = side(today=90_000, next_day=60_000)
    ledger.spent[DAY, "m"].estimates = 1
    [row, _] = compare([bill(100_000, calls=3), bill(50_000, NEXT, calls=1)], ledger, TENTH)
    assert [cause.cause for cause in row.causes] == ["day_edge", "outside_guard", "estimate"]
    assert not row.may_be_imported


@pytest.mark.parametrize("tolerance", [Fraction(0), TENTH, Fraction(1)])
def test_a_credit_of_the_bill_is_never_ok(tolerance: Fraction) -> None:
    [row] = compare([bill(-1000, calls=0)], LedgerSide(), tolerance)
    assert (row.ok, row.difference, row.may_be_imported) == (False, -1000, False)


def test_what_is_only_in_the_ledger_or_was_only_imported_is_a_row() -> None:
    ledger = LedgerSide()
    ledger.spent[DAY, "spent"] = Spent(amount=3, calls=1)
    ledger.imported[DAY, "imported"] = Imported(amount=5, done=1)
    ledger.spent[DAY, "both"] = Spent(amount=7, calls=1)
    ledger.imported[DAY, "both"] = Imported(amount=11, done=1)
    rows = compare([bill(2, model="both", is_model=False)], ledger, Fraction(0))
    found = [(row.model, row.is_model, row.bill, row.ledger, row.imports.amount, row.difference) for row in rows]
    assert found == [
        ("both", True, 0, 7, 11, -18),
        ("both", False, 2, 0, 0, 2),
        ("imported", True, 0, 0, 5, -5),
        ("spent", True, 0, 3, 0, -3),
    ]


def test_names_of_the_bill_that_are_one_model_are_one_row() -> None:
    same = {"a": "m", "b": "m"}
    lines = [bill(10, model="a", calls=1, listed=Fraction(15)), bill(20, model="b", calls=2, listed=Fraction(20))]
    [row] = compare(lines, side(today=0), Fraction(0), same)
    assert (row.model, row.bill, row.bill_calls, row.listed) == ("m", 30, 3, 35)
    [row] = compare([lines[0], bill(20, model="b")], side(today=0), Fraction(0), same)
    assert (row.bill, row.bill_calls, row.listed) == (30, 1, None)


@pytest.mark.parametrize(
    ("line", "spent", "found"),
    [
        (bill(100, calls=3), Spent(amount=40, calls=1), [("outside_guard", None)]),
        (bill(100, calls=3), Spent(), [("outside_guard", 100)]),
        (bill(100), Spent(), [("outside_guard", 100)]),
        (bill(100), Spent(amount=40, calls=1), [("price", None)]),
        (bill(100, calls=1), Spent(amount=40, calls=1, expired=1, expired_amount=9), [("expired", 9)]),
        (bill(100, calls=1), Spent(amount=40, calls=1, estimates=1, estimated=8), [("estimate", 8)]),
        (bill(100, calls=1), Spent(amount=40, calls=1, unpriced=1), [("unpriced", None)]),
        (bill(100, calls=1), Spent(amount=40, calls=1, fallbacks=1, fallback=7), [("fallback_price", 7)]),
        (bill(100, calls=1, tiers=frozenset(["flex"])), Spent(amount=40, calls=1), [("tier", None)]),
        (bill(100, calls=1, listed=Fraction(120)), Spent(amount=120, calls=1), [("discount", 20)]),
        (bill(100, calls=1, listed=Fraction(0)), Spent(amount=40, calls=1), [("discount", -100)]),
        (bill(100, calls=0), Spent(), [("price", None)]),
        (bill(100, calls=2), Spent(amount=140, calls=1), [("outside_guard", None)]),
        (bill(-5), Spent(), [("price", None)]),  # a credit is no call outside the guard
        (bill(-5, is_model=False), Spent(), [("not_a_model", -5)]),
        (bill(100, is_model=False), Spent(), [("not_a_model", 100)]),
        (bill(100, calls=1), Spent(amount=100, calls=1), []),
    ],
)
def test_causes(line: BillRow, spent: Spent, found: list[tuple[str, int | None]]) -> None:
    ledger = LedgerSide()
    if spent != Spent():
        ledger.spent[DAY, "m"] = spent
    [row] = compare([line], ledger, Fraction(0))
    assert causes([row]) == [found]
    assert row.ok is (not found)


def test_what_was_imported_counts() -> None:
    ledger = side(today=40)
    ledger.imported[DAY, "m"] = Imported(amount=60, done=1)
    rows = compare([bill(100, calls=1)], ledger, Fraction(0))
    assert (rows[0].ok, rows[0].difference) == (True, 0)
    assert sums(rows) == {"bill": 100, "ledger": 40, "imported": 60, "difference": 0}
    assert sums([*rows, *rows]) == {"bill": 200, "ledger": 80, "imported": 120, "difference": 0}
    assert sums(compare([bill(9)], side(today=4), Fraction(0))) == {
        "bill": 9,
        "ledger": 4,
        "imported": 0,
        "difference": 5,
    }


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("claude-x-20250929", "claude-x"),
        ("claude-x@20250929", "claude-x"),
        ("models/gemini", "gemini"),
        ("gpt-4o", "gpt-4o"),
    ],
)
def test_dates_of_names_are_left_out(name: str, plain: str) -> None:
    assert model_name(name) == plain
    assert [row.model for row in merged([bill(1, model=plain), bill(2, model=model_name(name))])] == [plain]


def test_standard_tiers_are_none() -> None:
    assert tiers("default", "standard", None) == frozenset()
    assert tiers("flex", "batch") == {"flex", "batch"}


def test_of_several_names_for_one_the_first_counts() -> None:
    of_ledger, of_bill = aliases_of([("a-2024-01-01", "mine"), ("b", "mine")])
    assert (of_ledger, of_bill) == ({"mine": "a"}, {"a": "a", "b": "a"})


# --- the ledger's side


def reserved(amount: int, status: str = "COMMITTED", at: str = DAY, **members: Any) -> Any:
    given: dict[str, Any] = {
        "status": status,
        "reserved": SimpleNamespace(unit="USD_MICROCENTS", amount=50),
        "action": SimpleNamespace(kind="llm.completion", name="gpt-4o"),
        "created_at_ms": int(datetime.fromisoformat(f"{at}T23:59:59+00:00").timestamp() * 1000),
        "committed": SimpleNamespace(amount=amount),
        "metadata": {},
        "committed_metadata": {},
    }
    return SimpleNamespace(**given | members)


def of_ledger(*rows: Any, provider: str = "openai", billed: tuple[str, ...] = ("gpt-4o",)) -> LedgerSide:
    def reservations(status: str, **_: Any) -> Iterator[Any]:
        return (row for row in rows if row.status == status)

    client: Any = SimpleNamespace(reservations=reservations)
    names = Names(provider, frozenset(billed), {})
    return read(client, names, date.fromisoformat(DAY), date.fromisoformat(NEXT))


def spent_of(*rows: Any, **options: Any) -> Spent:
    return of_ledger(*rows, **options).spent[DAY, "gpt-4o"]


@pytest.mark.parametrize(
    ("row", "spent"),
    [
        (reserved(10), Spent(amount=10, calls=1)),
        (reserved(10, committed_metadata={"attempts": 3}), Spent(amount=10, calls=3)),
        (reserved(10, committed_metadata={"attempts": True}), Spent(amount=10, calls=1)),
        (
            reserved(10, committed_metadata={"actual_source": "estimate"}),
            Spent(amount=10, calls=1, estimates=1, estimated=10),
        ),
        (reserved(10, committed_metadata={"unpriced": ["x"]}), Spent(amount=10, calls=1, unpriced=1)),
        (
            reserved(10, committed_metadata={"price_source": "fallback"}),
            Spent(amount=10, calls=1, fallbacks=1, fallback=10),
        ),
        (
            reserved(
                10,
                committed_metadata={
                    "attempts": 3,
                    "actual_source": "estimate",
                    "unpriced": ["x"],
                    "price_source": "fallback",
                },
            ),
            Spent(amount=10, calls=3, estimates=1, estimated=10, unpriced=1, fallbacks=1, fallback=10),
        ),
        (reserved(0, "EXPIRED"), Spent(calls=1, expired=1, expired_amount=50)),
        (reserved(10, at=NEXT), Spent()),
        (reserved(10, metadata={"provider": "azure"}), Spent()),
        (reserved(10, metadata={"provider": "my-gateway"}), Spent(amount=10, calls=1)),
        (reserved(10, action=SimpleNamespace(kind="tool.call", name="gpt-4o")), Spent()),
        (reserved(10, reserved=SimpleNamespace(unit="TOKENS", amount=5)), Spent()),
        (
            reserved(10, metadata={"pool_chunk": 1}, committed_metadata={"attempts": 3, "pool_calls": 4}),
            Spent(amount=10, calls=4),
        ),
        (
            reserved(
                10,
                metadata={"pool_chunk": 1},
                committed_metadata={"pool_calls": 4, "actual_source": "estimate", "price_source": "fallback"},
            ),
            Spent(amount=10, calls=4, estimates=4, estimated=10, fallbacks=4, fallback=10),
        ),
        (
            reserved(10, metadata={"pool_chunk": 1}, committed_metadata={"pool_calls": 4, "unpriced": ["x"]}),
            Spent(amount=10, calls=4, unpriced=4),
        ),
    ],
)
def test_what_a_reservation_is_of_a_model(row: Any, spent: Spent) -> None:
    assert spent_of(row) == spent


def test_reservations_of_one_model_and_day_add_up() -> None:
    expired, guessed = reserved(0, "EXPIRED"), {"actual_source": "estimate"}
    rows = [expired, reserved(10, committed_metadata=guessed), reserved(3, committed_metadata=guessed), expired]
    found = Spent(amount=13, calls=4, expired=2, expired_amount=100, estimates=2, estimated=13)
    assert spent_of(*rows) == found


def test_the_model_of_the_response_joins_a_name_that_is_not_on_the_bill() -> None:
    row = reserved(
        10,
        action=SimpleNamespace(kind="llm.completion", name="my-alias"),
        metadata={"provider": "openai"},
        committed_metadata={"response_model": "gpt-4o-2024-08-06"},
    )
    assert spent_of(row) == Spent(amount=10, calls=1)
    assert of_ledger(row, billed=()).spent[DAY, "my-alias"] == Spent(amount=10, calls=1)


def test_imports_of_a_row_are_counted_also_if_they_charged_nothing() -> None:
    imported = SimpleNamespace(kind="llm.imported", name="gpt-4o")

    def made(amount: int, metadata: dict[str, Any], status: str = "COMMITTED") -> Any:
        return reserved(amount, status, at="2026-11-29", action=imported, metadata=metadata)

    whose = {"provider": "openai", "day": DAY}
    others: list[dict[str, Any]] = [
        {"provider": "anthropic", "day": DAY},
        {"day": DAY},
        {"provider": "openai"},
        {"provider": "openai", "day": NEXT},
        {"provider": "openai", "day": "2026-11-23"},
        {**whose, "claims": [0, 5]},
    ]
    rows = [made(7, whose), made(0, whose), made(5, whose), *(made(100, other) for other in others)]
    expired = made(0, whose, "EXPIRED")
    expired.committed = None
    found = of_ledger(*rows, expired)
    assert dict(found.imported) == {(DAY, "gpt-4o"): Imported(amount=12, done=4, failed=2)}
    assert dict(found.spent) == {}


@pytest.mark.parametrize(
    ("actions", "charged", "pool_calls", "items"),
    [
        ({"a": [2, 30], "b": [1, 10]}, 40, 3, [("a", 2, 30), ("b", 1, 10)]),
        ({"a": [2, 30]}, 40, 3, [("a", 2, 30), ("chunk", 1, 10)]),
        ({"a": [2, 50]}, 40, 2, [("chunk", 2, 40)]),
        ({"a": [2, "x"]}, 40, 2, [("a", 2, 0), ("chunk", 0, 40)]),
        ({"a": "x"}, 40, 2, [("chunk", 2, 40)]),
        (None, 40, None, [("chunk", 0, 40)]),
    ],
)
def test_what_a_chunk_itemises(actions: Any, charged: int, pool_calls: Any, items: list[Any]) -> None:
    action = SimpleNamespace(kind="llm.completion", name="chunk")
    metadata = {"pool_chunk": 1, "pool_calls": pool_calls, "actions": actions}
    found = items_of(reserved(charged, action=action, committed_metadata=metadata))
    assert [(item.name, item.calls, item.amount) for item in found] == items


# --- times


@contextlib.contextmanager
def zone(name: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", name)
        time.tzset()
        yield
    time.tzset()


@pytest.fixture
def west() -> Iterator[None]:
    with zone("America/New_York"):
        yield


@pytest.mark.parametrize("name", ["America/New_York", "Asia/Tokyo"])
@pytest.mark.parametrize("moment", [f"{DAY}T00:00:00+00:00", f"{DAY}T23:59:59+00:00"])
def test_days_are_those_of_utc_on_each_machine(name: str, moment: str) -> None:
    at_ms = int(datetime.fromisoformat(moment).timestamp() * 1000)
    with zone(name):
        days = [day_of_openai(at_ms // 1000), day_of_anthropic(moment), moment_shown(at_ms)[:10]]
        assert days == [DAY, DAY, DAY]
        assert spent_of(reserved(10, created_at_ms=at_ms)) == Spent(amount=10, calls=1)


@pytest.mark.parametrize(
    "moment",
    [
        *(f"{DAY}T00:00:00", f"{DAY}T00:00:00Z", f"{DAY}T02:00:00+02:00", f"{DAY}T23:59:59", f"{DAY}"),
        *(f"{NEXT}T01:59:59+02:00", "2026-11-23T22:00:00-02:00"),
    ],
)
def test_a_time_of_a_bill_without_an_offset_is_utc(west: None, moment: str) -> None:
    assert day_of_anthropic(moment) == DAY


def test_days_of_bills(west: None) -> None:
    assert day_of_openai(int(datetime(2026, 11, 24, tzinfo=UTC).timestamp())) == DAY
    for wrong in (None, "1", True, 1.5, 10**20):
        with pytest.raises(ReportError, match="is no time"):
            day_of_openai(wrong)
    for text in (None, 5, "yesterday"):
        with pytest.raises(ReportError, match="is no time"):
            day_of_anthropic(text)
