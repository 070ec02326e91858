"""A price book is exact, rounds up to a microcent once, and knows no price it was not told."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from math import ceil
from typing import Any

import pytest
from hypothesis import given, strategies as st

from cycles import Price, PriceBook
from cycles._core.amounts import usd, usd_microcents
from cycles._core.values.usage import Usage
from cycles._errors import InvalidRequestError

BOOK = PriceBook(
    {"small": Price(input="0.15", output="0.60", cached_input="0.075"), "large": {"input": 3, "output": 15.0}}
)


def test_cost_of_a_call() -> None:
    assert BOOK.cost("small", tokens_input=1200, tokens_output=800) == usd("0.00066")
    assert BOOK.cost("small", tokens_input=1200, tokens_output=800, tokens_cached_input=1000) == usd("0.000585")
    assert BOOK.cost("large", tokens_input=10, tokens_cached_input=10) == usd("0.00003")


def test_what_a_cache_write_costs() -> None:
    price = Price(input=3, output=15, cached_input="0.30", cache_write="3.75")
    assert price.cost(1000, 0, tokens_cached_input=600, tokens_cache_write=300) == usd("0.001605")


rates = st.decimals(0, 1000, allow_nan=False, allow_infinity=False, places=9)
counts = st.integers(0, 10**9)


@given(rates, rates, rates, counts, counts, counts)
def test_the_cost_is_the_exact_one_rounded_up_once(
    i: Decimal, o: Decimal, c: Decimal, read: int, written: int, cached: int
) -> None:
    cached = min(cached, read)
    exact = 100 * ((read - cached) * Fraction(i) + written * Fraction(o) + cached * Fraction(c))
    assert Price(i, o, c).cost(read, written, cached) == usd_microcents(ceil(exact))


def test_many_digits_stay_exact() -> None:
    price = Price("0.123456789012345678901234567891", "0.3", "0.000000000000000000001")
    exact = 100 * (Fraction(price.input) * (10**15 + 7) + Fraction(price.cached_input or 0) * 11)
    assert price.cost(10**15 + 18, 0, 11) == usd_microcents(ceil(exact))


def test_a_book_prices_usage_and_responses() -> None:
    usage = Usage().add(tokens_input=1200, tokens_output=800, model_version="small-2024-08-06")
    assert BOOK(usage) == usd("0.00066")
    assert BOOK({"model": "small", "usage": {"prompt_tokens": 1200, "completion_tokens": 800}}) == usd("0.00066")
    message = {
        "type": "message",
        "model": "large@20250101",
        "usage": {"input_tokens": 10, "output_tokens": 1, "cache_read_input_tokens": 5},
    }
    assert BOOK(message) == usd("0.00006")
    assert PriceBook({"m": ("3", "15")}).price("m") == BOOK.price("large")
    assert PriceBook({"m": Price(1, 1)}, default_model="m")(Usage().add(tokens_input=1)) == usd("0.000001")


@pytest.mark.parametrize(
    ("use", "says"),
    [
        (lambda: BOOK.cost("huge", tokens_input=1), "no model 'huge'; it has large, small"),
        (lambda: BOOK.cost("small-mini", tokens_input=1), "no model 'small-mini'"),
        (lambda: BOOK(Usage().add(tokens_input=1)), "names no model"),
        (lambda: BOOK(Usage().add(model_version="small")), "no token counts"),
        (lambda: BOOK.cost("small", tokens_input=-1), "tokens_input must be 0 to"),
        (lambda: BOOK.cost("small", tokens_input=2**63 - 1, tokens_output=2**63 - 1), "64-bit"),
        (lambda: PriceBook({"m": {"input": "0.1"}}), "price of 'm'"),
        (lambda: PriceBook({"m": {"input": "0.1", "output": -1}}), "price of 'm'.*0 or more"),
    ],
)
def test_what_cannot_be_priced_is_an_error_that_says_so(use: Any, says: str) -> None:
    with pytest.raises(InvalidRequestError, match=says):
        use()


@pytest.mark.parametrize("rate", ["x", None, float("nan"), -0.1, True, "1" * 31, "1e-40", [1]])
def test_rates_are_finite_numbers(rate: Any) -> None:
    with pytest.raises(InvalidRequestError, match="rate"):
        Price(input=rate, output=1)


def test_no_price_ships_with_the_package() -> None:
    assert "small" in BOOK
    assert "gpt-4o" not in PriceBook({})
    assert repr(BOOK) == "<PriceBook of 2 models>"
