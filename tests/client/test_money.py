"""Money is exact, stays within its unit, and reads and writes the forms people use."""

from __future__ import annotations

import copy
import json
import pickle
from decimal import Decimal
from enum import IntEnum
from typing import Any

import pytest
from hypothesis import given, strategies as st

from cycles._core.amounts import (
    INT64_MAX,
    Amount,
    SignedAmount,
    Unit,
    UnitsDifferError,
    credits,  # noqa: A004 - the protocol's word
    risk_points,
    to_usd,
    tokens,
    usd,
    usd_microcents,
)
from cycles._errors import InvalidRequestError

amounts = st.builds(Amount, st.sampled_from([unit.value for unit in Unit]), st.integers(0, INT64_MAX))


@pytest.mark.parametrize(
    ("given_", "microcents"),
    [
        ("0.05", 5_000_000),
        (Decimal("0.05"), 5_000_000),
        (0.1, 10_000_000),
        (3, 300_000_000),
        ("1e-8", 1),
        (" 2 ", 2 * 10**8),
        (0.1 + 0.2, 30_000_000),
        (0.07 * 3, 21_000_000),
        (1e-9, 1),
        (0.012345678901, 1_234_568),
        (1e-300, 1),
    ],
)
def test_usd_is_exact_for_every_kind_of_number(given_: Any, microcents: int) -> None:
    assert usd(given_) == usd_microcents(microcents)


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        ("0.000000001", "fraction of a microcent"),
        ("1e-999999999", "fraction of a microcent"),
        (-1, "negative"),
        ("-0.01", "negative"),
        (float("nan"), "finite"),
        ("Infinity", "finite"),
        ("sNaN", "finite"),
        ("92233720368.54775808", "64-bit"),
        ("1e999999999", "64-bit"),
        ("five", "not a number"),
        (True, "usd takes"),
        (None, "usd takes"),
    ],
)
def test_a_value_that_is_no_amount_of_dollars_is_rejected_with_the_reason(given_: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        usd(given_)


@given(st.integers(0, INT64_MAX))
def test_dollars_and_microcents_convert_without_loss(n: int) -> None:
    assert usd(to_usd(usd_microcents(n))) == usd_microcents(n)


@given(st.floats(0, 9e9, allow_nan=False).map(lambda x: round(x, 4)))
def test_a_float_means_its_shortest_repr(x: float) -> None:
    assert to_usd(usd(x)) == Decimal(repr(x))


@pytest.mark.parametrize("given_", ["0.012345678901", Decimal("0.012345678901")])
def test_a_fraction_of_a_microcent_is_rounded_up_on_request(given_: Any) -> None:
    assert usd(given_, rounding="up") == usd_microcents(1_234_568)
    assert usd("1e-999999999", rounding="up") == usd_microcents(1)
    with pytest.raises(ValueError, match="64-bit"):
        usd("1e999999999", rounding="up")
    with pytest.raises(ValueError, match="negative"):
        usd("-1e-12", rounding="up")


@given(amounts)
def test_text_of_an_amount_parses_back_to_it(amount: Amount) -> None:
    assert Amount.parse(str(amount)) == amount


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("$0.50", usd("0.5")),
        ("0.5 USD", usd("0.5")),
        ("10USD", usd(10)),
        ("$1,234.50", usd("1234.5")),
        ("2500 tokens", tokens(2500)),
        ("50000TOKENS", tokens(50_000)),
        ("1 token", tokens(1)),
        ("7 credits", credits(7)),
        ("9 risk points", risk_points(9)),
        ("3 USD_MICROCENTS", usd_microcents(3)),
    ],
)
def test_parsing_takes_the_forms_people_write(text: str, amount: Amount) -> None:
    assert Amount.parse(text) == amount


@pytest.mark.parametrize(
    "text",
    ["", "0,50 USD", "0,500 USD", "01,500 USD", "1,00,000 tokens", "5", "$5 tokens", "2.5 tokens", "5 EUR", "$-5", "x"],
)
def test_parse_rejects_ambiguous_text(text: str) -> None:
    with pytest.raises(InvalidRequestError):
        Amount.parse(text)


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (usd("0.0123"), "$0.0123"),
        (usd("0.5"), "$0.50"),
        (usd(0), "$0.00"),
        (usd_microcents(1), "$0.00000001"),
        (tokens(2500), "2500 tokens"),
        (tokens(1), "1 token"),
        (risk_points(2), "2 risk points"),
        (SignedAmount("USD_MICROCENTS", -150_000_000), "-$1.50"),
        (Amount("EUR_CENTS", 5), "5 EUR_CENTS"),
    ],
)
def test_amounts_read_well(amount: SignedAmount, text: str) -> None:
    assert str(amount) == text
    assert repr(amount) == f"<{type(amount).__name__} {text}>"
    assert f"{amount:>20}" == text.rjust(20)


@given(st.integers(0, 2**62 - 1), st.integers(0, 2**62 - 1))
def test_arithmetic_and_order_are_those_of_integers(a: int, b: int) -> None:
    assert tokens(a) + tokens(b) == tokens(a + b) == sum([tokens(a), tokens(b)])
    assert (tokens(a) < tokens(b)) == (a < b)
    assert (tokens(a) >= tokens(b)) == (a >= b)
    assert tokens(max(a, b)) - tokens(min(a, b)) == tokens(abs(a - b))
    assert bool(tokens(a)) == bool(a)


def test_multiples_are_exact_and_bounded() -> None:
    assert usd("0.01") * 3 == 3 * usd("0.01") == usd("0.03")
    with pytest.raises(InvalidRequestError, match="64-bit"):
        tokens(INT64_MAX) * 2
    with pytest.raises(TypeError):
        usd(1) * 0.5  # type: ignore[operator]


def test_an_amount_is_never_negative_but_a_signed_amount_may_be() -> None:
    with pytest.raises(InvalidRequestError, match="negative"):
        usd(1) - usd(2)
    assert (SignedAmount("TOKENS", 1) - tokens(2)).amount == -1


@pytest.mark.parametrize("cross", ["a + b", "a - b", "a < b", "a >= b", "sum([a, b])"])
def test_units_are_never_mixed(cross: str) -> None:
    with pytest.raises(UnitsDifferError, match=r"\$1\.00 and 5 tokens|5 tokens and \$1\.00"):
        eval(cross, {"a": usd(1), "b": tokens(5)})
    assert usd_microcents(5) != tokens(5)


def test_a_number_is_not_an_amount() -> None:
    with pytest.raises(TypeError):
        tokens(1) + 1  # type: ignore[operator]
    with pytest.raises(TypeError):
        tokens(1) < 2  # type: ignore[operator]  # noqa: B015
    for number in (1, -1):
        with pytest.raises(TypeError):
            number + tokens(1)
    assert tokens(1) != 1


@pytest.mark.parametrize("wrong", [1.5, 1.0, "1", True, None, Decimal(1)])
def test_tokens_are_whole(wrong: Any) -> None:
    with pytest.raises(InvalidRequestError, match="must be an integer"):
        tokens(wrong)


def test_integers_of_other_types_become_plain_ones() -> None:
    class Size(IntEnum):
        SMALL = 10

    assert json.dumps(tokens(Size.SMALL).to_dict()) == '{"unit": "TOKENS", "amount": 10}'


def test_amounts_are_values() -> None:
    amount = usd("0.5")
    assert len({amount, usd("0.50")}) == 1
    assert pickle.loads(pickle.dumps(amount)) == copy.deepcopy(amount) == amount
    with pytest.raises(AttributeError, match="immutable"):
        amount.amount = 1


def test_only_dollars_are_dollars() -> None:
    with pytest.raises(InvalidRequestError, match="not an amount of dollars"):
        to_usd(tokens(1))
