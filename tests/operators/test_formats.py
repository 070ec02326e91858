"""Amounts, durations and orders as people read them."""

from __future__ import annotations

from typing import Any

import pytest

import cycles
from cycles.cli._format import amount_of, duration, moment, number_of, short_of
from cycles.cli.balances import _read as read_balances
from cycles.cli.budget import _unit_of as unit_of_budget
from cycles.cli.report import _print as print_report


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0 s"),
        (999, "0 s"),
        (59_999, "59 s"),
        (65_000, "1 m 05 s"),
        (3_600_000, "1 h 00 m"),
        (7_500_000, "2 h 05 m"),
        (90_000_000, "1 d 01 h"),
        (-65_000, "-1 m 05 s"),
    ],
)
def test_durations(ms: int, text: str) -> None:
    assert duration(ms) == text


@pytest.mark.parametrize(
    ("microcents", "whole", "short"),
    [
        (0, "$0.00", "$0.00"),
        (1, "$0.00000001", "<$0.0001"),
        (9_999, "$0.00009999", "<$0.0001"),
        (-1, "-$0.00000001", "-<$0.0001"),
        (10_000, "$0.0001", "$0.0001"),
        (15_000, "$0.00015", "$0.0002"),
        (123_456_789_012, "$1,234.56789012", "$1,234.5679"),
        (-150_000_000, "-$1.50", "-$1.50"),
    ],
)
def test_amounts_in_dollars(microcents: int, whole: str, short: str) -> None:
    amount = cycles.SignedAmount("USD_MICROCENTS", microcents)
    assert (number_of(amount), amount_of(amount), short_of(amount)) == (whole, whole, short)


def test_other_amounts_and_times() -> None:
    tokens = cycles.tokens(1_234)
    assert (number_of(tokens), amount_of(tokens), short_of(tokens)) == ("1,234", "1,234 TOKENS", "1,234")
    assert (number_of(None), amount_of(None)) == ("-", "-")
    assert moment(0) == "1970-01-01 00:00:00Z"
    assert moment(10**20) == f"{10**20} ms"


def test_budgets_are_listed_below_their_parents() -> None:
    class Balance:
        def __init__(self, scope_path: str, unit: str) -> None:
            self.scope_path, self.remaining = scope_path, cycles.Amount(unit, 1)

    given = [("tenant:a-b", "TOKENS"), ("tenant:a/agent:x", "TOKENS"), ("tenant:a", "USD_MICROCENTS")]
    given.append(("tenant:a", "TOKENS"))

    class Client:
        def balances(self, **_: Any) -> Any:
            return (Balance(*each) for each in given)

    client: Any = Client()
    found = [(each.scope_path, each.remaining.unit) for each in read_balances(client, None, True)]
    assert found == [given[3], given[2], given[1], given[0]]


def test_the_unit_of_a_scope_in_any_case() -> None:
    class Budgets:
        def budgets(self, *, scope_prefix: str) -> Any:
            for scope, unit in (("tenant:acme", "TOKENS"), ("tenant:acme/agent:x", "CREDITS")):
                yield _Budget(scope, unit)

    admin: Any = Budgets()
    assert unit_of_budget(admin, "tenant:ACME", None) == "TOKENS"
    assert unit_of_budget(admin, "tenant:acme", "CREDITS") == "CREDITS"
    assert unit_of_budget(admin, "tenant:other", None) == "USD_MICROCENTS"


class _Budget:
    def __init__(self, scope: str, unit: str) -> None:
        self.scope, self.unit = scope, unit


@pytest.mark.parametrize(("first", "shown"), [(3, ", first call 3"), (None, "")])
def test_the_first_call_that_a_budget_would_deny(first: int | None, shown: str) -> None:
    lines: list[str] = []

    class Out:
        line = staticmethod(lines.append)

    class Cli:
        out = Out

    spent = cycles.usd(1).to_dict()
    document = {
        "calls": 4,
        "runs": {"count": 1},
        "spent": spent,
        "models": {},
        "agents": {},
        "unpriced": 1,
        "would_deny": {"calls": 1, "first_call": first, "spent": spent},
        "proposed": spent,
    }
    cli: Any = Cli
    print_report(cli, "mine", document, cycles.usd(5), None)
    assert lines == [
        "mine: 4 calls in 1 run, $1.00",
        "1 call without a price, or with a part without one",
        f"$5.00 would deny 1 call{shown}, and spend $1.00",
        "proposed for each run: $1.00",
    ]
