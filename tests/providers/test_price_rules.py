"""Rates that the price data lacks: a reported count never costs 0 because data is missing."""

from __future__ import annotations

import importlib
import logging
import weakref
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

import cycles
from cycles._core.values.counts import CALLS, PART_OF
from cycles._usage.catalogue import Catalogue, _maker_of, price_of
from cycles._usage.tool_prices import FACTORS, TOOL_PRICES, complete, times
from cycles.prices import Origin
from cycles.usage import Usage, google, openai
from tests.providers.bodies import gemini, responses
from tests.support.short import some

pytest.importorskip("genai_prices")

AT = datetime(2026, 11, 1, tzinfo=UTC)
BOOK = cycles.PriceBook.genai(at=AT)
LARGE = 1_000_000


def seen(model: str, **counts: int) -> Usage:
    usage = Usage()
    usage.see_response("r", {"tokens_input": 1000, "tokens_output": 100, **counts}, model=model)
    return usage


@pytest.mark.parametrize(
    ("model", "counts", "provider", "microcents", "rules"),
    [
        ("gpt-5", {"code_sessions": 2}, "openai", 6_225_000, {"code_sessions": "table"}),
        ("gpt-5", {"other_calls": 1}, "openai", 3_225_000, {"other_calls": "bound"}),
        ("gpt-5", {"web_searches": 1}, "openai", 1_225_000, {}),
        ("gpt-4.1", {"web_searches": 1}, "openai", 1_280_000, {}),
        (
            "gpt-4.1",
            {"web_searches": 3, "web_searches_preview": 2},
            "openai",
            280_000 + 1_000_000 + 2 * 2_500_000,
            {"web_searches_preview": "table"},
        ),
        ("gpt-4o-search-preview", {"web_searches": 1}, "openai", 2_850_000, {"web_searches": "table"}),
        ("gpt-5-search-api", {"web_searches": 1}, "openai", 1_225_000, {"web_searches": "table"}),
        ("claude-sonnet-4-5", {"web_searches": 2}, "google", 450_000 + 2_000_000, {"web_searches": "maker"}),
        ("gemini-2.5-flash", {"maps_searches": 1}, "google", 2_555_000, {"maps_searches": "table"}),
        ("gemini-3-flash-preview", {"maps_searches": 2}, "google", 80_000 + 2_800_000, {"maps_searches": "table"}),
        ("gemini-1.5-pro", {"web_searches": 1}, "google", 175_000 + 3_500_000, {"web_searches": "table"}),
        ("anthropic/claude-sonnet-4.5", {"web_searches": 1}, "openrouter", 1_450_000, {"web_searches": "maker"}),
        ("gemma-3", {}, "google", 0, {"tokens_input": "table", "tokens_output": "table"}),
    ],
)
def test_a_rule_supplies_the_rate(
    model: str, counts: dict[str, int], provider: str, microcents: int, rules: dict[str, str]
) -> None:
    priced = BOOK.priced(seen(model, **counts), Origin(provider=provider))
    assert (priced.amount, dict(priced.rules)) == (cycles.usd_microcents(microcents), rules)
    assert priced.unpriced == ()


@pytest.mark.parametrize(("tier", "microcents"), [("priority", 99_000), ("flex", 27_500)], ids=["priority", "flex"])
def test_a_tier_of_gemini_has_a_factor(tier: str, microcents: int) -> None:
    usage = google(gemini("gemini-2.5-flash", trafficType=f"ON_DEMAND_{tier.upper()}"))
    priced = BOOK.priced(usage, Origin(provider="google"))
    assert priced.amount == cycles.usd_microcents(microcents)
    assert (dict(priced.rules), priced.unpriced) == ({f"service_tier:{tier}": "table"}, ())


def test_two_parts_of_a_context_have_both_factors() -> None:
    usage = Usage()
    context = {"service_tier": "priority", "processing": "batch"}
    usage.see_response("r", {"tokens_input": 1000}, model="gemini-1.5-pro", context=context)
    priced = BOOK.priced(usage, Origin(provider="google"))
    plain = BOOK.cost("gemini-1.5-pro", tokens_input=1000)
    assert priced.amount == cycles.usd_microcents(plain.amount * 18 // 10 // 2)
    assert dict(priced.rules) == {"service_tier:priority": "table", "processing:batch": "table"}


def test_data_that_stays_in_a_region_costs_a_tenth_more() -> None:
    usage = Usage()
    context = {"inference_geo": "us"}
    counts = {"tokens_input": 1000, "tokens_output": 100, "web_searches": 1}
    usage.see_response("r", counts, model="claude-opus-4-6", context=context)
    priced = BOOK.priced(usage)
    assert priced.amount == cycles.usd_microcents((1000 * 500 + 100 * 2500) * 11 // 10 + 1_000_000)
    assert dict(priced.rules)["inference_geo:us"] == "table"
    estimate = BOOK.estimate("claude-opus-4-6", "x", max_output_tokens=100, tokens_input=1000, context=context)
    assert estimate >= cycles.usd_microcents((1000 * 500 + 100 * 2500) * 11 // 10)


TIERS = ("service_tier:flex", "service_tier:priority", "processing:batch", "inference_geo:us")


@pytest.mark.parametrize(
    ("provider", "model", "factors"),
    [
        ("aws", "anthropic.claude-sonnet-4-5-20250929-v1:0", ("0.5", "1.75", None, None)),
        ("aws", "amazon.nova-pro-v1:0", ("0.5", "1.75", None, None)),
        ("google", "claude-sonnet-4-5", ("0.5", "1.8", "0.5", None)),
        ("google", "gemini-1.5-pro", ("0.5", "1.8", "0.5", None)),
        ("anthropic", "claude-opus-4-6", (None, None, "0.5", "1.1")),
        ("openrouter", "anthropic/claude-sonnet-4.5", (None, None, None, None)),
    ],
)
def test_the_one_who_sells_a_model_sets_the_price_of_its_tiers(
    provider: str, model: str, factors: tuple[str | None, ...]
) -> None:
    standard = BOOK.priced(seen(model), Origin(provider=provider)).amount.amount
    costs, unpriced = list[int](), list[str]()
    for part in TIERS:
        kind, _, value = part.partition(":")
        usage = Usage()
        usage.see_response("r", {"tokens_input": 1000, "tokens_output": 100}, model=model, context={kind: value})
        priced = BOOK.priced(usage, Origin(provider=provider))
        costs.append(priced.amount.amount)
        unpriced += priced.unpriced
    assert costs == [standard * Decimal(factor or 1) for factor in factors]
    assert unpriced == [part for part, factor in zip(TIERS, factors, strict=True) if factor is None]


def test_a_count_is_reported_once_for_each_model(caplog: pytest.LogCaptureFixture) -> None:
    book = cycles.PriceBook.genai(at=AT)
    for _ in range(2):
        book.priced(seen("gpt-5", code_sessions=1))
        book.priced(seen("gpt-5.1", code_sessions=1))
        book.priced(seen("gpt-5", maps_searches=1))
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, f"price of model {model}, {count}: the data has no rate; {rule} is used")
        for model, count, rule in (
            ("gpt-5", "code_sessions", "that of the table of tool prices"),
            ("gpt-5.1", "code_sessions", "that of the table of tool prices"),
            ("gpt-5", "maps_searches", "the highest that it may cost"),
        )
    ]


def test_a_price_of_the_user_is_complete() -> None:
    price = cycles.Price("1", "10")
    for book in (cycles.PriceBook.genai({"gpt-5": price}), cycles.PriceBook({"gpt-5": price})):
        priced = book.priced(seen("gpt-5", code_sessions=1, other_calls=1))
        assert priced.amount == cycles.usd_microcents(200_000)
        assert (priced.unpriced, dict(priced.rules)) == (("code_sessions", "other_calls"), {})
    own = cycles.PriceBook({"m": cycles.Price("1", "10", per_call={"web_searches": "0.01"})})
    priced = own.priced(seen("m", web_searches=2, web_searches_preview=2))
    assert (priced.amount, priced.unpriced) == (cycles.usd_microcents(2_200_000), ())


def test_prices_of_tools_can_be_replaced_for_all_models() -> None:
    book = cycles.PriceBook.genai(at=AT, tools={"code_sessions": "0.12", "web_searches": 0.02})
    assert book.cost("gpt-5", code_sessions=1) == cycles.usd("0.12")
    assert book.cost("gpt-5", web_searches=1) == cycles.usd("0.02")
    assert book.cost("claude-sonnet-4-5", web_searches=1) == cycles.usd("0.02")
    assert book.estimate("gpt-5", {"input": "", "tools": [{"type": "code_interpreter"}]}, max_output_tokens=1) > (
        cycles.usd("0.60")
    )


_NO_PRICE = r"tools: web_searches must be USD for one, such as '0.01', got "


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ({"teleports": "1"}, "tools has no count 'teleports'"),
        ({"tokens_input": "1"}, "tools has no count 'tokens_input'"),
        ({"file_searches": "0.1", "web_searches": "-1"}, f"{_NO_PRICE}'-1'$"),
        ({"web_searches": "x"}, f"{_NO_PRICE}'x'$"),
        ({"web_searches": None}, f"{_NO_PRICE}None$"),
        ([1], "tools must be a mapping"),
    ],
)
def test_wrong_prices_of_tools_are_rejected(tools: Any, message: str) -> None:
    with pytest.raises(cycles.InvalidRequestError, match=message):
        cycles.PriceBook.genai(tools=tools)


def test_each_row_names_its_page_and_the_day_of_its_check() -> None:
    for row in (*TOOL_PRICES, *FACTORS):
        assert row.page.startswith("https://")
        assert datetime.fromisoformat(row.checked).date() <= datetime.now(UTC).date()


def models() -> list[tuple[str, str]]:
    from genai_prices.data_snapshot import get_snapshot

    return [
        (provider.id, model.id)
        for provider in get_snapshot().providers
        if provider.id in ("openai", "anthropic", "google")
        for model in provider.models
    ]


@pytest.mark.parametrize(("provider", "model"), some(models()))
def test_every_count_of_every_model_has_a_price(provider: str, model: str) -> None:
    book, origin = cycles.PriceBook.genai(at=AT), Origin(provider=provider)
    free = provider == "google" and model.startswith("gemma")
    if model not in book:
        return  # an entry without rates is no price: the request is rejected
    for count, whole in PART_OF.items():
        counts = {count: LARGE}
        while whole is not None:
            counts[whole], whole = LARGE, PART_OF[whole]
        usage = Usage()
        usage.see_response("r", counts, model=model)
        priced = book.priced(usage, origin)
        may_cost_nothing = count in priced.unpriced or (free and count.startswith("tokens_"))
        assert may_cost_nothing >= (priced.amount.amount == 0), count


@pytest.mark.parametrize(
    ("provider", "model", "context"),
    [
        ("openai", "o3", None),
        ("openai", "gpt-5", {"service_tier": "flex"}),
        ("anthropic", "claude-opus-4-5", {"processing": "batch"}),  # all of its variants have a day
        ("aws", "mistral.voxtral-small-24b-2507", None),  # only the rates that its maker lists change
        ("quicksilverpro", "kimi-k2.6", None),  # those of its maker do not
    ],
)
def test_each_request_has_the_price_of_its_time(provider: str, model: str, context: dict[str, str] | None) -> None:
    counts = {"tokens_input": 1000, "tokens_output": 100, "tokens_cached_input": 100, "tokens_cache_write": 100}
    usage, book = Usage(), cycles.PriceBook.genai()
    usage.see_response("r", counts, model=model, context=context)
    if model not in book:
        return  # older data
    found = []
    for at in (datetime(2025, 1, 1, 12, tzinfo=UTC), datetime(2026, 11, 28, 2, tzinfo=UTC)):
        alone = cycles.PriceBook.genai(at=at).priced(usage, Origin(provider=provider))
        assert book.priced(usage, Origin(provider=provider, at=at)) == alone
        found.append((alone.amount, alone.unpriced))
    assert (found[0] != found[1]) >= (provider in ("openai", "anthropic"))  # the data of the others may be older


@pytest.mark.parametrize("count", CALLS)
def test_a_free_model_of_a_gateway_costs_nothing_for_any_count(count: str) -> None:
    usage = Usage()
    usage.see_response("r", {"tokens_input": LARGE, "tokens_output": LARGE, count: LARGE}, model="a/b:free")
    assert BOOK.priced(usage, Origin(provider="openrouter")).amount == cycles.usd(0)


TOOLS = {
    "web_searches": {"type": "web_search"},
    "web_searches_preview": {"type": "web_search_preview"},
    "file_searches": {"type": "file_search"},
    "code_sessions": {"type": "code_interpreter", "container": {"type": "auto"}},
    "maps_searches": {"googleMaps": {}},
    "other_calls": {"type": "teleport"},
}


@pytest.mark.parametrize(("provider", "model"), some(models()))
def test_the_estimate_is_a_bound_of_every_count(provider: str, model: str) -> None:
    book, origin = cycles.PriceBook.genai(at=AT), Origin(provider=provider)
    if model not in book:
        return
    from cycles._usage.estimating import shape_of

    for count, tool in TOOLS.items():
        body = {"model": model, "input": "x" * 1000, "tools": [tool], "max_tool_calls": 3}
        shape = shape_of(body, output_tokens=100)
        estimate = book.worst_case(model, body, shape, tokens_input=1000, origin=origin)
        counts = {"tokens_input": 1000, "tokens_output": 100, "tokens_cached_input": 500, "tokens_reasoning": 50}
        counts |= {count: 3} | ({"web_searches": 3} if count == "web_searches_preview" else {})
        usage = Usage()
        usage.see_response("r", counts, model=model)
        assert estimate >= book.priced(usage, origin).amount, count


def test_code_runs_in_containers_of_a_size() -> None:
    calls = [{"type": "code_interpreter_call", "container_id": name} for name in ("c1", "c1", "c2")]
    tool = {"type": "code_interpreter", "container": {"type": "auto", "memory_limit": "4g"}}
    assert openai(responses(output=calls)).counts["code_sessions"] == 2
    assert openai(responses(output=calls, tools=[tool])).counts["code_sessions"] == 8
    shell = {"type": "shell_call", "environment": {"type": "container_reference", "container_id": "c1"}}
    assert openai(responses(output=[shell, {"type": "shell_call"}])).counts["code_sessions"] == 1


def test_unknown_calls_are_counted_and_free_ones_are_not() -> None:
    free = ["function_call", "mcp_call", "computer_call", "shell_call", "apply_patch_call", "custom_tool_call"]
    items = [{"type": kind} for kind in [*free, "teleport_call", "teleport_call", "message"]]
    usage = openai(responses(output=items))
    assert dict(usage.counts) == {"tokens_input": 1000, "tokens_output": 100, "other_calls": 2}


def test_a_web_search_without_an_action_is_a_search() -> None:
    items = [{"type": "web_search_call", "action": action} for action in (None, {"type": "search"}, {"type": "find"})]
    usage = openai(responses(output=items, tools=[{"type": "web_search_preview_2025_03_11"}]))
    assert (usage.counts["web_searches"], usage.counts["web_searches_preview"]) == (2, 2)


@pytest.mark.parametrize(
    ("model", "chunks", "queries", "counts"),
    [
        ("gemini-2.5-x", [{"maps": {}}], ["a", "b"], {"maps_searches": 1}),
        ("gemini-3-x", [{"maps": {}}, {"maps": {}}], [], {"maps_searches": 1}),
        ("gemini-3-x", [{"maps": {}}], ["a", "b"], {"maps_searches": 2}),
        ("gemini-3-x", [{"maps": {}}, {"web": {}}], ["a", "b"], {"maps_searches": 1, "web_searches": 2}),
    ],
)
def test_grounding_by_maps(model: str, chunks: list[Any], queries: list[str], counts: dict[str, int]) -> None:
    grounding = {"groundingChunks": chunks, "webSearchQueries": queries}
    usage = google(gemini(model, [{"groundingMetadata": grounding}]))
    assert dict(usage.counts) == {"tokens_input": 1000, "tokens_output": 100, **counts}


def test_output_without_details_has_the_modality_of_the_response() -> None:
    parts = [{"text": "here"}, {"inlineData": {"mimeType": "image/png", "data": "AA"}}]
    usage = google(
        gemini("gemini-2.5-flash-image", [{"content": {"parts": parts}}])
        | {"usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 1290}}
    )
    assert usage.counts["tokens_output_image"] == 1290
    assert BOOK.cost(usage) == cycles.usd_microcents(3_870_300)
    candidates = [{"content": {"parts": parts}}]
    for thoughts, counts in ((1289, {"tokens_output_image": 1}), (1290, {}), (None, {"tokens_output_image": 1290})):
        reported = {"candidatesTokenCount": 1290 - (thoughts or 0), "thoughtsTokenCount": thoughts}
        found = google(gemini("m", candidates) | {"usageMetadata": {"promptTokenCount": 10, **reported}}).counts
        assert {name: n for name, n in found.items() if name.startswith("tokens_output_")} == counts
    assert dict(google({"candidates": candidates}).counts) == {}


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ({"prompt_tokens": 60, "completion_tokens": None, "total_tokens": 560}, (60, 500)),
        ({"prompt_tokens": None, "completion_tokens": 500, "total_tokens": 560}, (60, 500)),
        ({"prompt_tokens": None, "completion_tokens": 500, "total_tokens": 500}, (0, 500)),
        ({"prompt_tokens": None, "completion_tokens": 500, "total_tokens": 499}, (None, 500)),
        ({"prompt_tokens": 60, "completion_tokens": None, "total_tokens": 60}, (60, 0)),
        ({"prompt_tokens": 60, "completion_tokens": "x", "total_tokens": 10}, (60, None)),
        ({"prompt_tokens": 60, "completion_tokens": -1}, (60, None)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, (0, 0)),
    ],
)
def test_partial_usage_is_completed_from_its_total(
    usage: dict[str, Any], counts: tuple[int | None, int | None]
) -> None:
    seen = openai({"id": "r", "model": "m", "usage": usage}).responses()[0].counts
    assert (seen.get("tokens_input"), seen.get("tokens_output")) == counts


def test_a_price_that_is_the_makers_has_its_other_rates_too() -> None:
    of_maker = cycles.Price("1", "2", cached_input="0.1", cache_write="1.25")
    price, rules = complete(cycles.Price("1", "2", cached_input="0.5"), [], "m", "openai", of_maker, {})
    assert (price.cached_input, price.cache_write) == (Decimal("0.5"), Decimal("1.25"))
    assert (rules.get("tokens_cached_input"), rules.get("tokens_cache_write")) == (None, "maker")
    price, rules = complete(cycles.Price("1", "3"), [], "m", "openai", of_maker, {})
    assert (price.cached_input, price.cache_write) == (None, None)


PRICE = cycles.Price(
    "1",
    "10",
    cache_write="3",
    per_call={"web_searches": "0.5"},
    above={100: cycles.Price("2", "20"), 200: cycles.Price("3", "30", per_call={"web_searches": "0.7"})},
)
LISTED = cycles.Price(
    "1",
    "10",
    cached_input="0.1",
    cache_write="9",
    per_call={"web_searches": "7", "file_searches": "8"},
    above={200: cycles.Price("3", "30", reasoning="40")},
)


def test_a_price_is_completed_from_its_makers_list_the_table_and_the_bound() -> None:
    price, rules = complete(PRICE, [], "m", "anthropic", LISTED, {"code_sessions": Decimal(6)})
    rates = [price.input, price.output, price.cached_input, price.cache_write]
    assert rates == [Decimal(1), Decimal(10), Decimal("0.1"), Decimal(3)]
    assert price.reasoning is None
    calls = {name: price.per_call[name] for name in ("web_searches", "file_searches", "code_sessions", "other_calls")}
    assert calls == {
        "web_searches": Decimal("0.5"),
        "file_searches": 8,
        "code_sessions": 6,
        "other_calls": Decimal("0.01"),
    }
    assert {name: rule for name, rule in rules.items() if name in (*calls, "tokens_cached_input")} == {
        "tokens_cached_input": "maker",
        "file_searches": "maker",
        "code_sessions": "table",
        "other_calls": "bound",
    }
    assert [rule for name, rule in rules.items() if name.startswith("tokens_")] == ["maker"]
    assert {start: longer.per_call["web_searches"] for start, longer in price.above.items()} == {
        100: Decimal("0.5"),
        200: Decimal("0.7"),
    }
    assert price.above[200].reasoning == 40
    assert (price.above[100].reasoning, price.above[100].cached_input) == (None, None)
    assert set(price.per_call) == set(CALLS)


@pytest.mark.parametrize(
    "listed", [None, cycles.Price("1", "11", cached_input="0.1"), cycles.Price("2", "10", reasoning=1)]
)
def test_a_list_with_other_rates_supplies_no_rate_of_tokens(listed: Any) -> None:
    price, rules = complete(PRICE, [], "m", "anthropic", listed, {})
    assert (price.cached_input, price.reasoning) == (None, None)
    assert [name for name in rules if name.startswith("tokens_")] == []


@pytest.mark.parametrize(
    ("price", "absent", "maker", "model", "listed", "expected"),
    [
        (cycles.Price(0, "10"), "tokens_input", "x", "m", cycles.Price("4", "10"), ("maker", "4")),
        (cycles.Price(0, "10"), "tokens_input", "x", "m", cycles.Price("0", "10"), ("bound", "10")),
        (cycles.Price(0, "10", reasoning="12"), "tokens_input", "x", "m", None, ("bound", "12")),
        (cycles.Price("3", 0, cache_write="2"), "tokens_output", "x", "m", None, ("bound", "3")),
        (cycles.Price("3", 0), "tokens_output", "google", "gemma-3", None, ("table", "0")),
        (cycles.Price("3", 0), "tokens_output", "google", "gemini-3", None, ("bound", "3")),
        (cycles.Price(0, 0), "tokens_output", "x", "m", None, (None, "0")),
    ],
)
def test_an_absent_rate_of_all_input_or_output_is_supplied(
    price: cycles.Price, absent: str, maker: str, model: str, listed: Any, expected: tuple[str | None, str]
) -> None:
    completed, rules = complete(price, [absent], model, maker, listed, {})
    rate = getattr(completed, absent.removeprefix("tokens_"))
    assert (rules.get(absent), rate) == (expected[0], Decimal(expected[1]))


@pytest.mark.parametrize("usd", ["0", "0.5"])
def test_a_price_of_a_call_in_the_makers_list_wins_over_the_table_also_if_it_is_0(usd: str) -> None:
    of_maker = cycles.Price("3", "4", per_call={"web_searches": usd})
    price, rules = complete(cycles.Price("1", "2"), (), "gpt-5", "openai", of_maker, {})
    assert (price.per_call["web_searches"], rules["web_searches"]) == (Decimal(usd), "maker")
    own = cycles.Price("1", "2", per_call={"web_searches": usd})
    price, rules = complete(own, (), "gpt-5", "openai", None, {"web_searches": Decimal(9)})
    assert price.per_call["web_searches"] == 9
    price, rules = complete(own, (), "gpt-5", "openai", None, {})
    assert (price.per_call["web_searches"], "web_searches" in rules) == (Decimal(usd), False)


def test_a_factor_multiplies_each_rate_of_tokens_exactly_and_no_price_of_calls() -> None:
    price = cycles.Price("1.1", "10", cached_input="0.3", per_call={"web_searches": "0.5"}, above={9: ("2", "20")})
    changed = times(price, Decimal("1.75"))
    assert changed == cycles.Price(
        "1.925", "17.5", cached_input="0.525", per_call={"web_searches": "0.5"}, above={9: ("3.5", "35")}
    )


@pytest.mark.parametrize(
    ("model", "maker", "name", "entry"),
    [
        ("openai/gpt-4o", "openai", "gpt-4o", "gpt-4o"),
        ("x/openai/gpt-4o", "openai", "gpt-4o", "gpt-4o"),
        ("gpt-4o", "openai", "gpt-4o", "gpt-4o"),
        ("ft:gpt-4o", "openai", "gpt-4o", "gpt-4o"),
        ("azure/gpt-4o", "azure", "gpt-4o", None),  # its list has the model of another maker
        (
            "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "anthropic",
            "claude-sonnet-4-5-20250929",
            "claude-sonnet-4-5",
        ),
        ("mistralai/mistral-unknown", "mistral", "mistral-unknown", None),
        ("meta-llama/llama-3", "meta", "llama-3", None),
        ("acme/model", "acme", "model", None),
        ("no-such-model", "", "no-such-model", None),
    ],
)
def test_the_maker_of_a_model_is_read_from_its_name(model: str, maker: str, name: str, entry: str | None) -> None:
    snapshot = importlib.import_module("genai_prices.data_snapshot").get_snapshot()
    found = _maker_of(snapshot, None, model)
    assert (*found[:2], None if found[2] is None else found[2].id) == (maker, name, entry)


def tiered(base: str, **at: str) -> SimpleNamespace:
    """A rate as `genai-prices` has it: the price of requests with more input tokens than a start is for all tokens."""
    tiers = [SimpleNamespace(start=int(start.removeprefix("above_")), price=Decimal(n)) for start, n in at.items()]
    return SimpleNamespace(base=Decimal(base), tiers=tiers)


def entry(rates: dict[str, Any], *variants: tuple[dict[str, str], bool | None, dict[str, Any]]) -> SimpleNamespace:
    """An entry of `genai-prices`, with variants: when they apply, whether their time is now, and their rates."""

    def get_prices(at: datetime, context: Any = None) -> SimpleNamespace:
        chosen = [own for when, is_now, own in variants if when == context and is_now is not False]
        return SimpleNamespace(**(chosen[0] if chosen else rates))

    def constraint(is_now: bool | None) -> Any:
        return None if is_now is None else SimpleNamespace(active=lambda at: is_now)

    made = [SimpleNamespace(when=when, constraint=constraint(is_now)) for when, is_now, _ in variants]
    return SimpleNamespace(get_prices=get_prices, price_variants=made or None)


@pytest.mark.parametrize(
    ("rates", "price"),
    [
        ({"input_mtok": Decimal(1), "output_mtok": Decimal(2)}, cycles.Price("1", "2")),
        ({"input_mtok": None, "output_mtok": Decimal(2)}, cycles.Price(0, "2")),
        ({"input_text_mtok": Decimal(1)}, cycles.Price("1", 0)),
        ({"input_mtok": Decimal(3), "input_text_mtok": Decimal(1)}, cycles.Price("3", 0)),
        ({"cache_write_5m_mtok": Decimal(1), "reasoning_mtok": 2}, cycles.Price(0, 0, cache_write="1", reasoning="2")),
        (
            {"input_mtok": tiered("1", above_100="2", above_200="3"), "output_mtok": Decimal(5)},
            cycles.Price("1", "5", above={100: ("2", "5"), 200: ("3", "5")}),
        ),
        (
            {"input_mtok": tiered("1", above_100="2"), "output_mtok": tiered("5", above_101="6")},
            cycles.Price("1", "5", above={100: ("2", "5"), 101: ("2", "6")}),
        ),
        ({"input_mtok": tiered("1", above_0="2")}, cycles.Price("1", 0, above={0: ("2", 0)})),
        (
            {"web_searches_kcount": Decimal(10), "storage_searches_kcount": Decimal("2.5")},
            cycles.Price(0, 0, per_call={"web_searches": "0.01", "file_searches": "0.0025"}),
        ),
        (
            {"input_audio_hours": Decimal("0.36"), "input_mchars": Decimal(15)},
            cycles.Price(0, 0, per_call={"audio_ms": "0.0000001", "characters_input": "0.000015"}),
        ),
        ({"input_mtok": None}, None),
        ({}, None),
    ],
    ids=repr,
)
def test_the_rates_of_an_entry_are_a_price(rates: dict[str, Any], price: cycles.Price | None) -> None:
    assert price_of(entry(rates), AT) == price


def test_a_variant_of_an_entry_is_a_tier_if_it_has_one_condition_and_its_time_is_now() -> None:
    own: dict[str, Any] = {"input_mtok": Decimal(3)}
    variants = [
        ({"service_tier": "flex"}, None, own),
        ({"service_tier": "priority"}, True, own),
        ({"service_tier": "batch"}, False, own),
        ({"service_tier": "slow", "region": "us"}, None, own),
    ]
    price = price_of(entry({"input_mtok": Decimal(1)}, *variants), AT)
    assert price == cycles.Price("1", 0, tiers={"flex": ("3", 0), "priority": ("3", 0)})


class Everything:
    """Price data in which one provider has each name, with or without a tag after a colon."""

    def __init__(self, provider: str, *, has_tags: bool = True, rates: dict[str, Any] | None = None) -> None:
        self.owner = SimpleNamespace(id=provider, models=[])
        self.has_tags = has_tags
        self.rates = {"input_mtok": Decimal(1), "output_mtok": Decimal(2)} if rates is None else rates

    def find_provider(self, model: Any, *hints: Any) -> Any:
        return self.owner

    def find_provider_model(self, name: str, owner: Any, *hints: Any) -> Any:
        if ":" in name and not self.has_tags:
            raise LookupError(name)
        info = entry(self.rates)
        info.id, info.is_match, info.prices, info.context_window = name, lambda other: False, None, 5
        return self.owner, info


@pytest.mark.parametrize(
    ("provider", "model", "rates", "rules"),
    [
        ("openai", "m", {}, None),
        ("google", "gemini-9", {}, None),
        ("google", "gemma-9", {}, {"tokens_input": "table", "tokens_output": "table"}),
        ("openai", "m", {"output_mtok": Decimal(2)}, {"tokens_input": "bound"}),
        ("openai", "m", {"input_mtok": Decimal(2)}, {"tokens_output": "bound"}),
    ],
)
def test_a_model_whose_entry_has_no_rate_has_a_price_only_by_a_row(
    provider: str, model: str, rates: dict[str, Any], rules: dict[str, str] | None
) -> None:
    data = Everything(provider, rates=rates)
    found = Catalogue(lambda: data, None, {}).find(model, {}, AT, None, None)
    tokens = None if found is None else {name: by for name, by in found.rules.items() if name.startswith("tokens_")}
    assert tokens == rules


def test_the_prices_that_a_book_keeps_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller of the proxy chooses the names of models."""
    monkeypatch.setattr("cycles._usage.catalogue._MOST_COMPLETED", 3)
    made: list[weakref.ref[object]] = []
    catalogue = Catalogue(lambda: data, None, {})
    data = Everything("openai", rates={"input_mtok": Decimal(1), "output_mtok": Decimal(2)})
    for number in range(10):
        found = catalogue.find(f"m{number}", {}, AT, None, None)
        assert found is not None
        assert catalogue.find(f"m{number}", {}, AT, None, None) is found
        made.append(weakref.ref(found))
    del found
    assert sum(each() is not None for each in made) <= 3


class Resold(Everything):
    """Price data in which another provider resells a model whose maker has changed a rate."""

    def __init__(self) -> None:
        super().__init__("gateway")
        self.listed = SimpleNamespace(
            **vars(entry({})), id="m", is_match=lambda other: False, prices=[], context_window=5
        )
        self.listed.get_prices = lambda at, context=None: SimpleNamespace(
            **self.rates, cache_read_mtok=Decimal(3 if at < AT else 4)
        )
        self.maker = SimpleNamespace(id="maker", models=[self.listed])

    def find_provider_model(self, name: str, owner: Any, *hints: Any) -> Any:
        return (self.maker, self.listed) if hints[0] == "maker" else super().find_provider_model(name, owner, *hints)


def test_a_rate_of_the_maker_is_that_of_the_time_of_the_request() -> None:
    data = Resold()
    catalogue = Catalogue(lambda: data, None, {})
    times = (AT - timedelta(days=1), AT, AT - timedelta(days=1))
    found = [catalogue.find("maker/m", {}, at, "gateway", None) for at in times]
    assert [None if each is None else each.price.cached_input for each in found] == [3, 4, 3]


@pytest.mark.parametrize(
    ("provider", "has_tags", "model", "rate"),
    [
        ("openrouter", True, "openrouter/auto", None),
        ("openrouter", True, "openrouter/auto-beta", None),
        ("openrouter", True, "auto", None),
        ("openrouter", True, "automatic", 1),
        ("openrouter", True, "x:free", 0),
        ("openrouter", True, "x:online", 1),
        ("openrouter", False, "x:online", 1),
        ("openrouter", False, "x", 1),
        ("openai", True, "openrouter/auto", None),
        ("openai", True, "auto", 1),
        ("openai", True, "x:free", 1),
        ("openai", False, "x:free", None),
    ],
)
def test_the_names_of_a_gateway_are_no_names_of_other_providers(
    provider: str, has_tags: bool, model: str, rate: int | None
) -> None:
    data = Everything(provider, has_tags=has_tags)
    found = Catalogue(lambda: data, None, {}).find(model, {}, AT, None, None)
    assert (None if found is None else found.price.input) == rate


class Listed(Everything):
    """Price data with one entry, which its provider lists."""

    def __init__(self, *variants: tuple[dict[str, str], bool | None, dict[str, Any]], provider: str = "openai") -> None:
        super().__init__(provider)
        self.info = entry(self.rates, *variants)
        self.info.id, self.info.is_match, self.info.context_window = "m", lambda other: False, 5
        self.info.prices = None
        self.owner.models = [self.info]

    def find_provider_model(self, name: str, owner: Any, *hints: Any) -> Any:
        return self.owner, self.info


FLEX, FAST = {"service_tier": "flex"}, {"speed": "fast"}


@pytest.mark.parametrize(
    ("variants", "context", "rate", "missing"),
    [
        ([(FLEX, None)], FLEX, 3, ()),
        ([(FLEX, True)], FLEX, 3, ()),
        ([(FLEX, False)], FLEX, 1, ("service_tier:flex",)),
        ([(FLEX, None)], FAST, 1, ("speed:fast",)),
        ([(FLEX, None)], {"service_tier": "slow"}, 1, ("service_tier:slow",)),
        ([(FLEX | FAST, None)], FLEX, 1, ("service_tier:flex",)),
        ([(FLEX | FAST, None)], FLEX | {"speed": "slow"}, 1, ("service_tier:flex", "speed:slow")),
        ([(FLEX | FAST, None)], FLEX | FAST, 3, ()),
        ([(FAST, False), (FLEX, None)], FLEX, 3, ()),
    ],
)
def test_a_variant_applies_if_all_of_its_conditions_do(
    variants: list[Any], context: dict[str, str], rate: int, missing: tuple[str, ...]
) -> None:
    data = Listed(*[(when, is_now, {"input_mtok": Decimal(3)}) for when, is_now in variants])
    found = Catalogue(lambda: data, None, {}).find("m", context, AT, None, None)
    assert found is not None
    assert found.price.input == rate
    assert tuple(kind for kind in found.missing if ":" in kind) == missing


def test_a_variant_of_the_entry_of_another_provider_does_not_apply() -> None:
    data = Listed((FLEX, None, {"input_mtok": Decimal(3)}))
    data.owner.models = []
    found = Catalogue(lambda: data, None, {}).find("m", FLEX, AT, None, None)
    assert found is not None
    assert found.price.input == 1
    assert [kind for kind in found.missing if ":" in kind] == ["service_tier:flex"]


def test_each_name_of_one_entry_has_its_own_row() -> None:
    data = Listed(provider="google")
    catalogue = Catalogue(lambda: data, None, {})
    names = ("gemini-2.0-x", "gemini-3-x", "gemini-2.0-x")
    found = [catalogue.find(name, {}, AT, None, None) for name in names]
    rates = [None if one is None else str(one.price.per_call["web_searches"]) for one in found]
    assert rates == ["0.035", "0.014", "0.035"]


class Named(Everything):
    """Price data whose only provider lists some entries, none of which has the name that is looked up."""

    def __init__(self, **rates: tuple[str, str]) -> None:
        super().__init__("openai")
        self.owner.models = [self.listed(name, *of) for name, of in rates.items()]

    def listed(self, name: str, read: str, written: str) -> Any:
        found = entry({"input_mtok": Decimal(read), "output_mtok": Decimal(written)})
        found.id, found.is_match, found.prices, found.context_window = name, lambda other: False, None, 5
        return found

    def find_provider_model(self, name: str, owner: Any, *hints: Any) -> Any:
        raise LookupError(name)


@pytest.mark.parametrize(
    ("rates", "dearest"),
    [
        ({"ma": ("1", "9"), "mb": ("5", "1"), "other": ("50", "50")}, ("1", "9")),
        ({"ma": ("5", "1"), "mb": ("1", "9")}, ("1", "9")),
        ({"ma": ("9", "1"), "mb": ("1", "5")}, ("9", "1")),
        ({"mb": ("2", "2"), "ma": ("1", "2")}, ("2", "2")),
    ],
)
def test_the_dearest_of_input_and_output_together_is_the_latest(
    monkeypatch: pytest.MonkeyPatch, rates: dict[str, tuple[str, str]], dearest: tuple[str, str]
) -> None:
    data = Named(**rates)
    monkeypatch.setattr("genai_prices.data_snapshot.get_snapshot", lambda: data)
    price = cycles.PriceBook.genai(at=AT).price("m-latest")
    assert (price.input, price.output) == tuple(map(Decimal, dearest))
