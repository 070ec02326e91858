"""Files of newer prices: which prices win, and what a broken file raises."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import cycles
from cycles._usage.catalogue import price_of
from cycles.cli._newer_prices import members_of
from cycles.prices import read_price_file
from cycles.proxy._settings import price_book

get_snapshot = pytest.importorskip("genai_prices.data_snapshot").get_snapshot

FILE = {
    "models": {
        "gpt-5": {"input": "2", "output": "20", "above": {"200000": {"input": "4", "output": "40"}}},
        "brand-new": {"input": 1, "output": 2},
    },
    "tools": {"code_sessions": "0.05"},
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "prices.json"
    path.write_text(json.dumps(FILE))
    return path


def test_a_file_wins_over_the_package_and_loses_against_arguments(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYCLES_PRICES_FILE", str(file))
    for book in (cycles.PriceBook.genai(), cycles.PriceBook.genai(file=file), price_book(str(file))):
        assert book.cost("gpt-5", tokens_input=1_000_000) == cycles.usd(4)
        assert book.cost("gpt-5", tokens_input=1_000) == cycles.usd("0.002")
        assert book.cost("brand-new", tokens_output=1_000_000) == cycles.usd(2)
        assert book.cost("gpt-4o", code_sessions=1) == cycles.usd("0.05")
    own = cycles.PriceBook.genai({"gpt-5": ("1", "1")}, tools={"code_sessions": "0.01"})
    assert own.cost("gpt-5", tokens_input=1_000_000) == cycles.usd(1)
    assert own.cost("gpt-4o", code_sessions=1) == cycles.usd("0.01")
    searches = cycles.PriceBook.genai(tools={"web_searches": "0.01"})  # the other prices of the file stay
    assert searches.cost("gpt-4o", code_sessions=1) == cycles.usd("0.05")
    other = file.with_name("other.json")
    other.write_text('{"models": {"gpt-5": {"input": 3, "output": 3}}}')
    assert cycles.PriceBook.genai(file=other).cost("gpt-5", tokens_input=1_000_000) == cycles.usd(3)


def test_each_length_of_a_context_in_a_file_has_its_price(tmp_path: Path) -> None:
    path = tmp_path / "lengths.toml"
    path.write_text(
        '[models.m]\ninput = "1"\noutput = "1"\n'
        '[models.m.above.1000]\ninput = "2"\noutput = "1"\n[models.m.above.5000]\ninput = "4"\noutput = "1"\n'
    )
    book = cycles.PriceBook.genai(file=path)
    costs = [book.cost("m", tokens_input=read).amount for read in (1000, 1001, 5000, 5001)]
    assert costs == [1000 * 100, 1001 * 200, 5000 * 200, 5001 * 400]


def test_a_tier_in_a_file_has_a_price_for_each_length_of_a_context(tmp_path: Path) -> None:
    longer = {"1000": {"input": "4", "output": "1"}}
    path = tmp_path / "tiers.json"
    tiers = {"flex": {"input": "2", "output": "1", "above": longer}}
    path.write_text(json.dumps({"models": {"m": {"input": "1", "output": "1", "above": longer, "tiers": tiers}}}))
    price = cycles.PriceBook.genai(file=path).price("m", context={"service_tier": "flex"})
    assert [price.cost(tokens_input=read).amount for read in (1000, 1001)] == [1000 * 200, 1001 * 400]


def test_a_file_may_have_each_price_of_a_maker(tmp_path: Path) -> None:
    """`cycles prices update` writes them: prices with tiers, and tiers with longer contexts."""
    at = datetime(2026, 11, 1, tzinfo=UTC)
    (maker,) = [owner for owner in get_snapshot().providers if owner.id == "openai"]
    known = {info.id: price_of(info, at) for info in maker.models}
    prices = {model: price for model, price in known.items() if price is not None}
    path = tmp_path / "all.json"
    path.write_text(json.dumps({"models": {model: members_of(price) for model, price in prices.items()}}))
    read = read_price_file(path, "file").models
    assert {model: members_of(price) for model, price in read.items()} == {
        model: members_of(price) for model, price in prices.items()
    }
    assert any(tier.above for price in read.values() for tier in price.tiers.values())


def test_a_price_in_a_file_may_be_0_and_has_the_context_window_of_the_model(tmp_path: Path) -> None:
    path = tmp_path / "free.json"
    prices = {"gpt-5": {"input": "1", "output": 0}, "own": {"input": 0, "output": "2"}}
    path.write_text(json.dumps({"models": prices}))
    book = cycles.PriceBook.genai(file=path)
    assert [book.cost("own", tokens_input=1, tokens_output=n).amount for n in (0, 10)] == [0, 2_000]
    document = [{"type": "input_file", "file_url": "https://x.example/a.pdf"}]
    body = {"input": [{"role": "user", "content": document}]}
    bounds = [book.estimate("gpt-5", content, max_output_tokens=0).amount for content in (body, "x" * 10**6)]
    assert (book.look_up("gpt-5").window, bounds) == (400_000, [400_000 * 100] * 2)


def test_an_empty_name_reads_no_file_also_if_the_variable_names_one(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CYCLES_PRICES_FILE", str(file))
    assert "brand-new" in cycles.PriceBook.genai()
    assert "brand-new" not in cycles.PriceBook.genai(file="")


@pytest.mark.parametrize("read", [lambda path: cycles.PriceBook.genai(file=path), lambda path: price_book(str(path))])
def test_the_rules_apply_to_the_models_of_a_file(file: Path, read: Any) -> None:
    book = read(file)
    usage = cycles.Usage()
    counts = {"tokens_input": 1000, "tokens_output": 100, "file_searches": 1, "other_calls": 1}
    usage.see_response("r", counts, model="gpt-5")
    priced = book.priced(usage)
    assert priced.amount == cycles.usd_microcents(1000 * 200 + 100 * 2000 + 250_000 + 3_000_000)
    assert dict(priced.rules) == {"file_searches": "maker", "other_calls": "bound"}


def test_the_older_form_of_prices_is_complete(tmp_path: Path) -> None:
    older = tmp_path / "older.toml"
    older.write_text('[gpt-5]\ninput = "1"\noutput = "2"\n')
    book = price_book(str(older))
    usage = cycles.Usage()
    usage.see_response("r", {"tokens_input": 1_000_000, "code_sessions": 1}, model="gpt-5")
    priced = book.priced(usage)
    assert (priced.amount, priced.unpriced) == (cycles.usd(1), ("code_sessions",))


def test_a_file_of_tools_alone_has_no_models_also_where_the_older_form_is_read(tmp_path: Path) -> None:
    path = tmp_path / "tools.json"
    path.write_text('{"tools": {"code_sessions": "0.05"}}')
    for book in (price_book(str(path)), cycles.PriceBook.genai(file=path)):
        assert book.cost("gpt-4o", code_sessions=1) == cycles.usd("0.05")
        assert book.cost("gpt-4o", tokens_input=1_000_000) == cycles.usd("2.50")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        ("{", "cannot be read"),
        ("[1]", "no models"),
        ('{"models": {"gpt-9": {"input": "-1", "output": "1"}}}', "gpt-9"),
        ('{"models": {"gpt-9": {"input": "1"}}}', "gpt-9"),
        ('{"models": {"gpt-9": 7}}', "gpt-9"),
        ('{"models": {"gpt-9": {"input": 1, "output": 1, "above": {"\\u00b2": [2, 2]}}}}', "above must map integers"),
        ('{"models": []}', "models must be"),
        ('{"tools": {"teleports": "1"}}', "teleports"),
        ('{"tools": {"web_searches": "x"}}', "tools"),
        ('{"model": {}}', "model"),
    ],
)
def test_a_broken_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, said: str
) -> None:
    path = tmp_path / "broken.json"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("CYCLES_PRICES_FILE", str(path))
    makers: list[Any] = [cycles.PriceBook.genai, lambda: cycles.PriceBook.genai(file=path)]
    for make in makers:
        with pytest.raises(cycles.ConfigurationError) as raised:
            make()
        assert str(path) in str(raised.value)
        assert said in str(raised.value)


def test_the_book_reads_the_current_data_at_each_look_up(monkeypatch: pytest.MonkeyPatch) -> None:
    import copy

    from genai_prices import data_snapshot

    book = cycles.PriceBook.genai()
    assert book.cost("gpt-5", tokens_input=1_000_000) == cycles.usd("1.25")
    newer = copy.deepcopy(data_snapshot.get_snapshot())
    model = newer.find_provider_model("gpt-5", None, "openai", None)[1]
    prices: Any = model.prices[-1].prices if isinstance(model.prices, list) else model.prices
    monkeypatch.setitem(prices.__dict__, "input_mtok", prices.input_mtok * 2)
    data_snapshot.set_custom_snapshot(newer)
    try:
        assert book.cost("gpt-5", tokens_input=1_000_000) == cycles.usd("2.50")
    finally:
        data_snapshot.set_custom_snapshot(None)
    assert book.cost("gpt-5", tokens_input=1_000_000) == cycles.usd("1.25")
