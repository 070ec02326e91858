"""The tables of docs/prices.md, and the samples with prices that were calculated by hand."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import pytest

import cycles
from cycles._core.values.counts import PART_OF
from cycles._usage.media import MEDIA_TOKENS
from cycles._usage.tool_prices import FACTORS, TOOL_PRICES

pytest.importorskip("genai_prices")

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "prices.md").read_text(encoding="utf-8")
MEDIA_PAGE = (DOCS / "media.md").read_text(encoding="utf-8")
SAMPLES = re.findall(
    r"^\| ((?:OpenAI|Anthropic|Gemini)[^|]*) \| `([^`]+)` \| ([^|]+) \| \$([\d.]+) \|$",
    (Path(__file__).parent / "price_samples.md").read_text(encoding="utf-8"),
    re.M,
)
READERS = {"OpenAI": cycles.usage.openai, "Anthropic": cycles.usage.anthropic, "Gemini": cycles.usage.google}


def test_there_are_twenty_samples() -> None:
    assert len(SAMPLES) == 20


@pytest.mark.parametrize(("what", "usage", "by_hand", "price"), SAMPLES, ids=[sample[0] for sample in SAMPLES])
def test_a_sample_costs_what_was_calculated_by_hand(what: str, usage: str, by_hand: str, price: str) -> None:
    terms = [term.split("×") for term in by_hand.split("+")]
    total = sum(Fraction(n.strip()) * Fraction(rate.strip()) for n, rate in terms)
    assert cycles.usd_microcents(math.ceil(total * 100)) == cycles.usd(price), "the sum by hand is wrong"
    book = cycles.PriceBook.genai(at=datetime(2026, 11, 1, tzinfo=UTC))
    priced = book.priced(READERS[what.split()[0]](json.loads(usage)))
    assert priced.amount == cycles.usd(price)
    assert priced.unpriced == ()


def test_the_list_of_counts_is_complete() -> None:
    rows = re.findall(r"^- `(\w+)`(?: of `(\w+)`)?: [a-z]", PAGE.partition("## Counts")[2].partition("\n#")[0], re.M)
    assert {name: whole or None for name, whole in rows} == PART_OF


def test_the_tool_prices_and_factors_are_those_of_the_code() -> None:
    rows = re.findall(r"^- (\w+) `(\w+)`, .+: ([\d.]+)$", PAGE, re.M)
    assert rows == [(row.maker, row.count, format(row.usd, "f")) for row in TOOL_PRICES]
    rows = re.findall(r"^- (\w+) `(\w+:\w+)`: ([\d.]+)$", PAGE, re.M)
    assert rows == [(row.maker, row.context, str(row.times)) for row in FACTORS]
    sources = re.findall(r"^- (\w+): \[page\]\(([^)]+)\) as of ([\d-]+)$", PAGE, re.M)
    assert set(sources) == {(row.maker, row.page, row.checked) for row in (*TOOL_PRICES, *FACTORS)}


def test_the_table_of_media_is_that_of_the_code() -> None:
    rows = re.findall(r"^\| [^|]+ \|((?:[ \d,]*\|){4})$", MEDIA_PAGE, re.M)
    shown = [[int(n.strip().replace(",", "")) if n.strip() else None for n in row.split("|")[:4]] for row in rows]
    assert shown == [[row.image, row.page, row.audio, row.video] for row in MEDIA_TOKENS]
    sources = re.findall(r"^- Media of \w+: \[page\]\(([^)]+)\) as of ([\d-]+)$", MEDIA_PAGE, re.M)
    assert set(sources) == {(row.source, row.checked) for row in MEDIA_TOKENS}
