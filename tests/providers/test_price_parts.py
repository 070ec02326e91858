"""What each count costs, one count at a time, and what of a request raises its bound."""

from __future__ import annotations

import base64
from typing import Any

import pytest

import cycles
from cycles._usage.catalogue import Found
from cycles._usage.estimating import (
    Files,
    Shape,
    highest,
    most_tokens,
    output_maximum,
    results_of,
    searches_in_chat,
    shape_of,
)
from cycles._usage.media import medium_of
from cycles._usage.pricing import unpriced
from cycles._usage.tokens import bound_of
from cycles._usage.tool_prices import bound_of_count, factor_of, rate_of
from cycles.prices import Price

INPUTS = ("audio", "image", "video")


def test_four_rates_may_be_positional_and_a_price_can_be_a_key() -> None:
    wider = Price(1, 2, 3, 4, above={9: (5, 6)}, tiers={"flex": (1, 1)}, per_call={"web_searches": 1})
    assert [wider.input, wider.output, wider.cached_input, wider.cache_write] == [1, 2, 3, 4]
    assert {wider: 1}[Price(1, 2, 3, 4, above={9: (5, 6)}, tiers={"flex": (1, 1)}, per_call={"web_searches": 1})] == 1
    with pytest.raises(TypeError):
        Price(1, 2, 3, 4, 5)  # type: ignore[call-arg]


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize(
    ("rates", "own", "from_cache"),
    [
        ({}, 100, 100),
        ({"cached_input": "0.5"}, 100, 50),
        ({"input_{}": "3"}, 300, 100),
        ({"input_{}": "3", "cached_input": "0.5"}, 300, 50),
        ({"input_{}": "3", "cached_input_{}": "2", "cached_input": "0.5"}, 300, 200),
    ],
)
def test_a_modality_without_a_rate_costs_what_contains_it(
    kind: str, rates: dict[str, Any], own: int, from_cache: int
) -> None:
    given: Any = {name.format(kind): rate for name, rate in rates.items()}
    price = Price("1", "10", **given)
    whole: Any = {"tokens_input": 10, f"tokens_input_{kind}": 10}
    assert price.cost(**whole).amount == 10 * own
    cached: Any = {"tokens_cached_input": 10, f"tokens_cached_input_{kind}": 10}
    assert price.cost(**whole, **cached).amount == 10 * from_cache


@pytest.mark.parametrize("kind", INPUTS)
def test_cached_tokens_of_a_modality_whose_input_is_not_reported_have_their_rate(kind: str) -> None:
    rates: Any = {f"cached_input_{kind}": "2", "cached_input": "0.5"}
    counts: Any = {"tokens_input": 10, "tokens_cached_input": 10, f"tokens_cached_input_{kind}": 4}
    assert Price("1", "10", **rates).cost(**counts).amount == 4 * 200 + 6 * 50


@pytest.mark.parametrize("kind", INPUTS)
def test_an_output_modality_has_its_rate_or_that_of_all_output(kind: str) -> None:
    counts: Any = {"tokens_output": 10, f"tokens_output_{kind}": 4}
    assert Price("1", "10").cost(**counts).amount == 10 * 1000
    dearer: Any = {f"output_{kind}": "20"}
    assert Price("1", "10", **dearer).cost(**counts).amount == 6 * 1000 + 4 * 2000


@pytest.mark.parametrize(
    ("rates", "short", "long"),
    [
        ({}, 100, 100),
        ({"cache_write": "1.25"}, 125, 125),
        ({"cache_write_1h": "2"}, 100, 200),
        ({"cache_write": "1.25", "cache_write_1h": "2"}, 125, 200),
    ],
)
def test_cache_writes(rates: dict[str, Any], short: int, long: int) -> None:
    price = Price("1", "10", **rates)
    assert price.cost(tokens_input=10, tokens_cache_write=10).amount == 10 * short
    assert price.cost(tokens_input=10, tokens_cache_write=10, tokens_cache_write_1h=10).amount == 10 * long
    assert price.cost(tokens_input=10, tokens_cache_write=10, tokens_cache_write_1h=4).amount == 6 * short + 4 * long
    assert price.cost(tokens_input=10, tokens_cache_write_1h=10).amount == 10 * long


@pytest.mark.parametrize("kind", ["service_tier", "processing", "speed", "inference_geo"])
def test_each_part_of_a_context_selects_a_price(kind: str) -> None:
    price = Price("1", "10", tiers={"x": Price("2", "20")})
    assert price.cost(1, context={kind: "x"}).amount == 200
    assert price.cost(1, context={kind: "unknown"}).amount == 100
    assert price.cost(1, context={"other": "x"}).amount == 100


@pytest.mark.parametrize("turned", [False, True])
def test_a_part_of_a_context_without_a_price_is_reported_beside_one_that_has_a_price(turned: bool) -> None:
    parts = [("service_tier", "flex"), ("inference_geo", "us")]
    book = cycles.PriceBook({"m": Price("1", "10", tiers={"flex": Price("2", "20")})})
    usage = cycles.Usage()
    usage.see_response("r", {"tokens_input": 1}, model="m", context=dict(reversed(parts) if turned else parts))
    priced = book.priced(usage)
    assert (priced.amount.amount, priced.unpriced) == (200, ("inference_geo:us",))


@pytest.mark.parametrize(
    ("parts", "cost", "unpriced_parts"),
    [
        ([("service_tier", "flex"), ("speed", "fast")], 300, ()),
        ([("speed", "fast"), ("service_tier", "flex")], 200, ()),
        ([("speed", "fast"), ("service_tier", "standard")], 300, ()),
        ([("speed", "slow"), ("service_tier", "fast")], 300, ("speed:slow",)),
        ([("service_tier", "slow"), ("processing", "slow")], 100, ("service_tier:slow", "processing:slow")),
    ],
)
def test_of_two_parts_of_a_context_the_last_one_with_a_price_counts(
    parts: Any, cost: int, unpriced_parts: tuple[str, ...]
) -> None:
    book = cycles.PriceBook({"m": Price("1", "10", tiers={"flex": Price("2", "20"), "fast": Price("3", "30")})})
    usage = cycles.Usage()
    usage.see_response("r", {"tokens_input": 1}, model="m", context=dict(parts))
    priced = book.priced(usage)
    assert (priced.amount.amount, priced.unpriced) == (cost, unpriced_parts)


@pytest.mark.parametrize("tier", ["default", "standard", "auto"])
def test_the_standard_tiers_have_the_standard_price(tier: str) -> None:
    price = Price("1", "10", tiers={tier: Price("2", "20")})
    assert price.cost(1, context={"service_tier": tier}).amount == 100


def test_a_long_context_begins_above_its_length_and_is_for_all_tokens() -> None:
    longer = {"200": Price("2", "20"), "1000": Price("3", "30")}
    price = Price("1", "10", above={int(start): each for start, each in longer.items()})
    costs = {n: price.cost(tokens_input=n, tokens_output=1).amount for n in (200, 201, 1000, 1001)}
    assert costs == {
        200: 200 * 100 + 1000,
        201: 201 * 200 + 2000,
        1000: 1000 * 200 + 2000,
        1001: 1001 * 300 + 3000,
    }


def test_a_long_context_without_prices_of_calls_has_those_of_the_model() -> None:
    searches = {"web_searches": "0.01"}
    price = Price("0", "0", per_call=searches, above={10: Price("0", "0"), 20: Price("0", "0", per_call={})})
    assert [price.cost(tokens_input=n, web_searches=2).amount for n in (1, 11, 21)] == [2_000_000] * 3
    dearer = Price("0", "0", per_call=searches, above={10: Price("0", "0", per_call={"web_searches": "0.05"})})
    assert dearer.cost(tokens_input=11, web_searches=2).amount == 10_000_000


def test_a_part_of_the_calls_is_not_paid_twice() -> None:
    price = Price("0", "0", per_call={"web_searches": "0.01", "web_searches_preview": "0.025"})
    assert price.cost(web_searches=3, web_searches_preview=2).amount == 1_000_000 + 2 * 2_500_000
    guarded = Price("0", "0", per_call={"guardrail_units": "0.00015", "guardrail_information_units": "0.0001"})
    assert guarded.cost(guardrail_units=5, guardrail_information_units=2).amount == 3 * 15_000 + 2 * 10_000
    assert (
        Price("0", "0", per_call={"web_searches": "0.01"}).cost(web_searches=1, web_searches_preview=1).amount == 10**6
    )


TOOLS = [
    ("openai", "web_searches", "gpt-5", "0.01"),
    ("openai", "web_searches", "gpt-4o-search-preview", "0.025"),
    ("openai", "web_searches", "gpt-4o-mini-search-preview", "0.025"),
    ("openai", "web_searches_preview", "gpt-4o", "0.025"),
    ("openai", "web_searches_preview", "gpt-4.1-mini", "0.025"),
    ("openai", "web_searches_preview", "gpt-5", "0.01"),
    ("openai", "file_searches", "gpt-5", "0.0025"),
    ("openai", "code_sessions", "gpt-5", "0.03"),
    ("anthropic", "web_searches", "claude-x", "0.01"),
    ("google", "web_searches", "gemini-2.5-pro", "0.035"),
    ("google", "web_searches", "gemini-pro", "0.035"),
    ("google", "web_searches", "gemini-3-pro", "0.014"),
    ("google", "maps_searches", "gemini-1.5-flash", "0.025"),
    ("google", "maps_searches", "gemini-3-pro", "0.014"),
    ("aws", "guardrail_units", "x", "0.00015"),
    ("aws", "guardrail_information_units", "x", "0.0001"),
    ("google", "tokens_output", "gemma-3", "0"),
]
FACTORS = [
    ("google", "service_tier:priority", "1.8"),
    ("google", "service_tier:flex", "0.5"),
    ("google", "processing:batch", "0.5"),
    ("aws", "service_tier:flex", "0.5"),
    ("aws", "service_tier:priority", "1.75"),
    ("anthropic", "inference_geo:us", "1.1"),
]


@pytest.mark.parametrize(("maker", "count", "model", "usd"), TOOLS)
def test_the_rate_of_a_tool(maker: str, count: str, model: str, usd: str) -> None:
    assert str(rate_of(maker, count, model)) == usd


@pytest.mark.parametrize(("maker", "context", "times"), FACTORS)
def test_the_factor_of_a_tier(maker: str, context: str, times: str) -> None:
    assert str(factor_of(maker, context)) == times
    assert factor_of("another", context) is None


@pytest.mark.parametrize(
    ("maker", "count", "usd"),
    [
        ("openai", "other_calls", "0.03"),
        ("google", "other_calls", "0.035"),
        ("anthropic", "other_calls", "0.01"),
        ("unknown", "other_calls", "0.035"),
        ("mistral", "web_searches", "0.035"),
        ("google", "code_sessions", "0.03"),
    ],
)
def test_a_count_without_a_row_costs_the_most_that_it_may(maker: str, count: str, usd: str) -> None:
    assert str(bound_of_count(maker, count)) == usd


@pytest.mark.parametrize(
    ("model", "most"),
    [
        ("gpt-3.5-turbo", 4_096),
        ("gpt-4-0613", 8_192),
        ("gpt-4-turbo-x", 4_096),
        ("gpt-4o-mini", 16_384),
        ("gpt-4o-64k-output", 64_000),
        ("chatgpt-4o-latest", 16_384),
        ("gpt-4.1-nano", 32_768),
        ("gpt-4.5-preview", 16_384),
        ("gpt-5-mini", 128_000),
        ("o1-pro", 100_000),
        ("o3", 100_000),
        ("o4-mini", 100_000),
        ("gemini-1.5-pro", 8_192),
        ("gemini-2.0-flash", 8_192),
        ("gemini-2.5-pro", 65_536),
        ("gemini-3-pro", 65_536),
        ("claude-x", 131_072),
    ],
)
def test_the_maximum_of_a_model(model: str, most: int) -> None:
    assert output_maximum(model) == most


@pytest.mark.parametrize("kind", ["text", "embedding", "image", "transcription", "speech"])
def test_an_empty_request_has_one_result_and_nothing_else(kind: Any) -> None:
    limit = 0 if kind == "embedding" else 4_096
    assert shape_of({}, kind=kind) == Shape(kind, limit, 1, frozenset(), (), 0, (), 0, 0, 0)
    assert shape_of("messages", kind=kind) == Shape(kind, limit, 1, frozenset(INPUTS), (), 0, (), 0, 0, 0)


@pytest.mark.parametrize(("last", "beyond"), [("1e30", "1e31"), ("1e-30", "1e-31"), ("1" * 30, "1" * 31), (0, -1)])
def test_a_rate_at_its_limit_is_accepted_and_one_beyond_it_is_not(last: Any, beyond: Any) -> None:
    Price(last, last)
    wrong: list[Any] = [beyond, "x", "", [], (1,), {}, float("nan"), "inf", True]
    for rate in wrong:
        with pytest.raises(cycles.InvalidRequestError, match=r"a rate must|a price needs"):
            Price(1, rate)


def test_what_an_endpoint_makes_decides_its_most_tokens() -> None:
    content = bound_of({"input": "x" * 10})
    speech = shape_of({"input": "x" * 10}, kind="speech")
    assert most_tokens(content, speech, "m", tokens_input=7) == 7 + 2 * 10
    none, one, two = (
        most_tokens(content, shape_of({"n": 3}, kind="image", files=Files(count, 0)), "gpt-4o", tokens_input=7)
        for count in range(3)
    )
    assert none == 7 + 3 * 6_240
    assert two - one == one - none > 1_000
    drawing = shape_of({"tools": [{"type": "image_generation"}], "max_tool_calls": 2}, output_tokens=5)
    assert most_tokens(content, drawing, "gpt-4o", tokens_input=7) == 7 + 5 + 2 * (7 + 6_240), "each reads the prompt"
    transcript = shape_of({}, kind="transcription", output_tokens=5, files=Files(1, 751))
    assert most_tokens(content, transcript, "m", tokens_input=7) == 7 + 2 * 20 + 5
    guarded = shape_of({"guardrailConfig": {"a": "x" * 1_001}}, output_tokens=1_000)
    assert dict(guarded.searches) == {"guardrail_units": 6 * 18, "guardrail_information_units": 2 * 18}


class Model:
    """An object with the interface of pydantic's models."""

    def model_dump(self, *, mode: str, exclude_none: bool) -> dict[str, Any]:
        members = {"type": "text", "text": "hello", "mode": mode, "name": None}
        return {name: value for name, value in members.items() if value is not None or not exclude_none}


@pytest.mark.parametrize(
    ("part", "kinds", "kept"),
    [
        (Model(), [], {"type": "text", "text": "hello", "mode": "json"}),
        ({"type": "tool", "result": "AAAA"}, [], {"type": "tool", "result": "AAAA"}),
        (
            {"type": "image_generation_call", "result": "AAAA"},
            ["image"],
            {"type": "image_generation_call", "result": ""},
        ),
        ({"type": "tool", "url": "https://a/b"}, [], {"type": "tool", "url": "https://a/b"}),
        (
            {"type": "url", "url": "https://a/b", "text": "x"},
            [None],
            {"type": "url", "url": "https://a/b", "text": "x"},
        ),
        ({"type": "url", "url": "data:audio/mp3;base64,AAAA"}, ["audio"], {"type": "url", "url": ""}),
        ({"image_url": "https://a/b"}, ["image"], {"image_url": "https://a/b"}),
        ({"image_url": {"url": "https://a/b"}}, ["image"], {"image_url": ""}),
        ({"image_url": {"other": "x"}}, [], {"image_url": {"other": "x"}}),
        ({"fileData": {"mime_type": "audio/mp3"}}, ["audio"], None),
        ({"fileData": {"mimeType": "video/mp4"}}, ["video"], None),
        ({"file_uri": "gs://a/b", "mime_type": "video/mp4"}, ["video"], None),
        ({"fileUri": "gs://a/b", "mimeType": "video/mp4"}, ["video"], None),
        ({"file_uri": "gs://a/b", "media_type": "audio/mp3"}, ["audio"], None),
        ({"inlineData": {"mime_type": "audio/mp3", "data": "AAAA"}}, ["audio"], {"inlineData": ""}),
        ({"input_audio": "AAAA"}, ["audio"], {"input_audio": ""}),
        ({"input_audio": ""}, [], {"input_audio": ""}),
        (
            {"type": "text", "media_type": "text/plain", "data": "AAAA"},
            [],
            {"type": "text", "media_type": "text/plain", "data": "AAAA"},
        ),
        ({"type": "image", "mimeType": "image/png", "data": "AAAA"}, ["image"], None),
        ({"type": "image", "mimeType": "image/png", "data": b"AAAA"}, ["image"], None),
        (
            {"type": "image", "mimeType": "image/png", "data": 5},
            [],
            {"type": "image", "mimeType": "image/png", "data": 5},
        ),
        ({"type": "image", "mimeType": "png", "data": "AA"}, [], {"type": "image", "mimeType": "png", "data": "AA"}),
        ({"type": "base64", "data": {"bytes": b"AAAA"}}, [None], {"type": "base64", "data": ""}),
        ({"file_data": b"AA"}, [None], {"file_data": ""}),
        ({"file_data": 5}, [], {"file_data": 5}),
        ({"image_url": 5}, [], {"image_url": 5}),
        ({"image_url": {"url": 5}}, [], {"image_url": {"url": 5}}),
        ({"input_audio": 5}, [], {"input_audio": 5}),
        ({"inlineData": "AAAA"}, [], {"inlineData": "AAAA"}),
        ({"type": "image_generation_call", "result": 5}, [], {"type": "image_generation_call", "result": 5}),
        ({"file_id": ""}, [], {"file_id": ""}),
        ({"type": "other", "url": "https://a/b"}, [], {"type": "other", "url": "https://a/b"}),
        ({"type": "base64", "media_type": "image/png", "data": "AAAA"}, ["image"], None),
        ({"type": "other", "data": "AAAA"}, [], {"type": "other", "data": "AAAA"}),
        ({"file_data": "data:image/png;base64,AAAA"}, ["image"], {"file_data": ""}),
        ({"a": 1, "b": 1.5, "c": None, "d": True, "e": 1j}, [], {"a": 1, "b": 1.5, "c": None, "d": True, "e": "1j"}),
        ({"videoMetadata": {"fps": 5}}, ["video"], {"videoMetadata": {"fps": 5}}),
        ({"video_metadata": {"fps": 5}}, ["video"], {"video_metadata": {"fps": 5}}),
        ({"video_metadata": {"end": "5s"}}, [], {"video_metadata": {"end": "5s"}}),
    ],
)
def test_which_members_of_a_request_are_media(part: Any, kinds: list[str | None], kept: Any) -> None:
    bound = bound_of({"input": [part]})
    assert [each.kind if kind else None for each, kind in zip(bound.media, kinds, strict=True)] == kinds
    assert bound.content["input"] == [bound.content["input"][0] if kept is None else kept]


def test_a_count_without_a_rate_is_named_unless_it_is_part_of_one_with_a_rate() -> None:
    counts = {
        "tokens_input": 5,
        "tokens_cached_input": 2,
        "tokens_input_audio": 1,
        "tokens_output": 1,
        "web_searches": 1,
    }
    price = Price(0, 0, cached_input=1, per_call={"file_searches": 1})
    assert unpriced(price, counts) == ["web_searches"]
    assert unpriced(price, counts, ["tokens_input"]) == ["tokens_input", "tokens_input_audio", "web_searches"]
    assert unpriced(price, {**counts, "tokens_input": 0, "file_searches": 1}, ["tokens_output"]) == [
        "tokens_output",
        "web_searches",
    ]


def test_a_count_whose_rate_is_0_is_free_and_not_named() -> None:
    price = Price(0, 0, cached_input=0, output_audio=0, per_call={"web_searches": 0, "audio_ms": "0"})
    counts = {"tokens_cached_input": 1, "tokens_output_audio": 1, "web_searches": 1, "audio_ms": 1}
    assert unpriced(price, counts, ["tokens_input", "tokens_output"]) == []
    assert unpriced(price, {"web_searches_preview": 1, "file_searches": 1}) == ["file_searches"]


def test_a_prompt_without_a_request_counts_its_bytes_only() -> None:
    assert [bound_of(content).tokens("m") for content in (None, "", "é", "\ud800")] == [0, 0, 2, 3]


@pytest.mark.parametrize("name", ["previous_response_id", "conversation", "cachedContent", "cached_content"])
def test_each_context_that_a_request_names_counts(name: str) -> None:
    assert [bound_of({name: value}).unseen for value in ("r", {"id": "r"}, "", None)] == [1, 1, 0, 0]
    assert bound_of([{name: "r"}]).unseen == 0


def test_what_a_request_only_names_counts_beside_its_text() -> None:
    file = {"type": "file", "file_data": "data:text/plain;base64,AAAA"}
    bound = bound_of({"previous_response_id": "r", "prompt": {"id": "p"}, "input": [file, file]})
    assert (bound.text_bytes_of_files, bound.unseen, bound.media) == (6, 2, [])
    assert bound.typical("gpt-4o") == 6 + 2 * 8_192
    assert bound.tokens("gpt-4o") == bound.text_bytes + 6 + 2 * 8_192
    assert bound.tokens("gpt-4o", 5) == 5 + 6 + 2 * 8_192
    assert not bound.may_fill_window("gpt-4o")
    unknown = bound_of({"input": [{"type": "video_url", "data": "AAAA", "media_type": "video/mp4"}, file]})
    assert unknown.typical("no-model") == 6_000 + 3
    assert (unknown.tokens("no-model"), unknown.may_fill_window("no-model")) == (1_048_576, True)
    assert unknown.tokens("no-model", 2_000_000) == 2_000_000


@pytest.mark.parametrize(
    ("body", "results"),
    [
        ({}, 1),
        ({"n": 3}, 3),
        ({"best_of": 4}, 4),
        ({"n": 3, "best_of": 4}, 4),
        ({"n": True}, 1),
        ({"n": "3"}, 1),
        ({"generationConfig": {"candidateCount": 2}}, 2),
        ({"generation_config": {"candidateCount": 2}}, 2),
        ({"n": 2, "prompt": ["a", "b", "c"]}, 6),
        ({"n": 2, "prompt": [[1, 2], [3]]}, 4),
        ({"n": 2, "prompt": [1, 2, 3]}, 2),
        ({"n": 2, "prompt": "abc"}, 2),
    ],
)
def test_how_many_results_a_request_may_have(body: dict[str, Any], results: int) -> None:
    assert results_of(body) == results
    assert shape_of(body).results == results


@pytest.mark.parametrize(
    ("body", "searches"),
    [
        ({"tools": [{"type": "web_search"}]}, {"web_searches": 5}),
        ({"tools": [{"type": "web_search_20250305", "max_uses": 2}], "max_tool_calls": 9}, {"web_searches": 2}),
        *(({"tools": [{"type": "web_search"}], "max_tool_calls": n}, {"web_searches": 0}) for n in (0, -1, "9", True)),
        ({"tools": [{"type": "web_search_preview_2025_03_11"}]}, {"web_searches_preview": 5}),
        ({"tools": [{"type": "browser_search"}]}, {"web_searches": 5}),
        ({"tools": [{"type": "file_search"}]}, {"file_searches": 5}),
        ({"tools": [{"type": "code_interpreter"}]}, {"code_sessions": 5}),
        ({"tools": [{"type": "code_interpreter", "container": {"memory_limit": "4g"}}]}, {"code_sessions": 20}),
        ({"tools": [{"type": "shell", "environment": {"type": "container_auto"}}]}, {"code_sessions": 5}),
        ({"input": "", "tools": [{"type": "shell", "environment": {"type": "local"}}]}, {}),
        *(
            ({"tools": [{name: {}}]}, {"web_searches": 5})
            for name in ("googleSearch", "google_search", "googleSearchRetrieval", "google_search_retrieval")
        ),
        *(({"tools": [{name: {}}]}, {"maps_searches": 5}) for name in ("googleMaps", "google_maps")),
        ({"input": "", "tools": [{"type": "teleport"}]}, {"other_calls": 5}),
        ({"prompt": "", "tools": [{"type": "teleport"}]}, {"other_calls": 5}),
        ({"messages": [], "tools": [{"type": "teleport"}]}, {}),
        ({"web_search_options": {}}, {"web_searches": 5}),
        ({"model": "gpt-4o-search-preview"}, {"web_searches": 5}),
        ({"model": "gpt-5-search-api"}, {"web_searches": 5}),
        *(
            ({"input": "", "tools": [{"type": kind}]}, {})
            for kind in ("function", "custom", "mcp", "computer_use_preview", "image_generation", "local_shell")
        ),
    ],
)
def test_calls_of_hosted_tools_are_reserved(body: dict[str, Any], searches: dict[str, int]) -> None:
    assert dict(shape_of(body).searches) == searches


@pytest.mark.parametrize("body", [{"input": "x"}, ["x"]])
def test_an_embedding_has_no_output(body: Any) -> None:
    assert shape_of(body, kind="embedding", output_tokens=5).output_tokens == 0
    assert shape_of(body, output_tokens=5).output_tokens == 5


@pytest.mark.parametrize("name", ["guardrailConfig", "guardrailIdentifier"])
def test_a_guardrail_is_reserved_for_each_thousand_characters(name: str) -> None:
    body = {name: "", "messages": ["x" * 1001]}
    assert shape_of(body, output_tokens=1).searches == ()
    searches = dict(shape_of({**body, name: "g"}, output_tokens=63).searches)
    # 1,001 characters are two units, the name of the guardrail one, and 63 tokens of at most 16 characters two.
    assert searches == {"guardrail_units": 6 * 5, "guardrail_information_units": 2 * 5}


def test_chats_that_search() -> None:
    assert not searches_in_chat({"model": "gpt-4o", "web_search_options": None})
    assert not searches_in_chat({"model": "my-search"})


@pytest.mark.parametrize(
    ("kind", "size", "member", "value"),
    [
        ("transcription", 1, "audio_s", 1),
        ("transcription", 750, "audio_s", 1),
        ("transcription", 751, "audio_s", 2),
        ("image", 751, "images_input", 3),
        ("text", 751, "images_input", 0),
    ],
)
def test_uploads(kind: Any, size: int, member: str, value: int) -> None:
    assert getattr(shape_of({}, kind=kind, files=Files(3, size)), member) == value
    assert medium_of(bytes(size), "audio/mp3").seconds == -(-size // 750)


def test_a_transcription_is_bounded_by_the_rate_of_audio() -> None:
    book = cycles.PriceBook({"m": Price(input="1", output="10", input_audio="7")})
    shape = shape_of({}, kind="transcription", output_tokens=0, files=Files(1, 750))
    costs = book.bounds("m", {}, shape, tokens_input=1_000)
    assert costs(0).amount == (1_000 + 20) * 700  # and one second of audio


RATES = Price(
    "1",
    "10",
    cache_write="3",
    cache_write_1h="4",
    input_audio="5",
    input_image="6",
    output_audio="20",
    output_image="30",
    per_call={"audio_ms": "0.01", "characters_input": "0.02", "web_searches": "0.5"},
    above={500: Price("2", "11")},
)
MARKED = {"input": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]}
FOR_AN_HOUR = {"input": [{"type": "text", "text": "x", "cache_control": {"ttl": "1h"}}]}
HIGHEST: list[tuple[dict[str, Any], Any, dict[str, Any], int]] = [
    ({}, {}, {}, 100 * 100),
    ({}, {}, {"writes_cache": True}, 100 * 300),
    ({}, MARKED, {}, 100 * 300),
    ({}, FOR_AN_HOUR, {}, 100 * 400),
    ({}, {}, {"tokens_input": 500}, 500 * 100),
    ({}, {}, {"tokens_input": 501}, 501 * 200),
    ({"output_tokens": 7, "results": 2}, {}, {}, 100 * 100 + 14 * 1_000),
    ({"output_tokens": 7, "output_kinds": frozenset(["audio"])}, {}, {}, 100 * 100 + 7 * 2_000),
    ({"kind": "embedding"}, {}, {}, 100 * 100),
    ({"kind": "image", "results": 2}, {}, {}, 100 * 100 + 2 * 6_240 * 3_000),
    ({"kind": "speech", "characters": 3}, {}, {}, 100 * 100 + 6 * 2_000 + 3 * 2_000_000),
    ({"kind": "transcription", "audio_s": 2}, {}, {}, 140 * 500 + 2_000 * 1_000_000),
    ({"kind": "text", "audio_s": 2}, {}, {}, 140 * 100 + 2_000 * 1_000_000),
    ({"searches": (("web_searches", 2), ("other_calls", 5))}, {}, {}, 100 * 100 + 2 * 50_000_000),
]


@pytest.mark.parametrize(("shape", "body", "options", "microcents"), HIGHEST, ids=repr)
def test_each_part_of_a_request_has_its_highest_price(
    shape: dict[str, Any], body: Any, options: dict[str, Any], microcents: int
) -> None:
    given = Shape(**{"output_tokens": 0, **shape})
    assert highest(Found(RATES), "m", bound_of(body), given, **{"tokens_input": 100, **options}) == microcents


def test_seconds_of_an_upload_and_of_audio_in_the_request_are_both_billed() -> None:
    content = bound_of({"input": [{"input_audio": base64.b64encode(bytes(750)).decode()}]})
    shape = Shape(output_tokens=0, audio_s=2)
    most = [highest(Found(RATES), model, content, shape, tokens_input=100) for model in ("voxtral-small", "other")]
    assert most == [140 * 500 + seconds * 1_000 * 1_000_000 for seconds in (3, 2)]


@pytest.mark.parametrize(
    ("window", "tokens_input", "body", "tokens"),
    [
        (None, None, {"input": "x"}, len('{"input":"x"}')),
        (5, None, {"input": "x"}, 5),
        (5, 6, {"input": "x"}, 5),
        (50, 6, {"input": "x"}, 6),
        (50, None, {"input": [{"type": "input_file", "file_id": "f"}]}, 50),
        (50, 6, {"input": [{"type": "input_file", "file_id": "f"}]}, 6),
        (None, None, {"input": [{"type": "input_file", "file_id": "f"}]}, 1_048_576),
    ],
)
def test_the_context_window_bounds_the_input(
    window: int | None, tokens_input: int | None, body: Any, tokens: int
) -> None:
    found = Found(Price("1", "0"), window=window)
    assert highest(found, "m", bound_of(body), Shape(output_tokens=0), tokens_input=tokens_input) == 100 * tokens


BASE = {"input": "1", "output": "10"}
TEXT = {"type": "text", "text": "x"}


def bound(price: dict[str, Any], body: dict[str, Any], tokens_output: int = 0) -> float:
    """What a request of 1,000 input tokens may cost, in tokens of USD 1 per million."""
    book = cycles.PriceBook({"m": Price(**price)})
    return book.estimate("m", body, max_output_tokens=tokens_output, tokens_input=1_000).amount / 100_000


@pytest.mark.parametrize(
    ("rates", "part", "rate"),
    [
        ({"cached_input": "7"}, TEXT, 7),
        ({"cache_write": "7"}, {**TEXT, "cache_control": {"type": "ephemeral"}}, 7),
        ({"cache_write": "7", "cache_write_1h": "9"}, {**TEXT, "cache_control": {"type": "ephemeral"}}, 7),
        ({"cache_write": "7", "cache_write_1h": "9"}, {**TEXT, "cache_control": {"ttl": "1h"}}, 9),
        ({"cache_write_1h": "9"}, {"cachePoint": {"type": "default", "ttl": "1h"}}, 9),
        ({"input_image": "7"}, TEXT, 1),
        ({"input_image": "7"}, {"type": "image_url", "image_url": "https://h/x.png"}, 7),
        ({"cached_input_image": "7"}, {"type": "image_url", "image_url": "https://h/x.png"}, 7),
        ({"input_image": "7"}, {"type": "input_file", "file_id": "f"}, 7),
        ({"input_audio": "7"}, {"inlineData": {"mimeType": "audio/mp3", "data": "AAAA"}}, 7),
        ({"input_video": "7"}, {"fileData": {"mimeType": "video/mp4", "fileUri": "gs://x"}}, 7),
    ],
)
def test_the_rate_of_the_input_is_the_highest_that_may_apply(
    rates: dict[str, str], part: dict[str, Any], rate: int
) -> None:
    assert bound({**BASE, **rates}, {"messages": [{"role": "user", "content": [part]}]}) == rate


@pytest.mark.parametrize("lasts", [["1h", "5m"], ["5m", "1h"]], ids="-".join)
def test_a_cache_mark_of_an_hour_bounds_the_input_whatever_marks_surround_it(lasts: list[str]) -> None:
    content = [{**TEXT, "cache_control": {"type": "ephemeral", "ttl": last}} for last in lasts]
    rates = {**BASE, "cache_write": "7", "cache_write_1h": "9"}
    assert bound(rates, {"messages": [{"role": "user", "content": content}]}) == 9


@pytest.mark.parametrize(
    ("rates", "body", "rate"),
    [
        ({"reasoning": "12"}, {}, 12),
        ({"output_audio": "12"}, {}, 10),
        ({"output_audio": "12"}, {"modalities": ["text", "audio"]}, 12),
        ({"output_image": "12"}, {"contents": [], "generationConfig": {"responseModalities": ["TEXT", "IMAGE"]}}, 12),
        ({"output_video": "12"}, {"contents": [], "generationConfig": {"responseModalities": ["TEXT"]}}, 10),
        ({"output_video": "12"}, {"contents": []}, 12),
    ],
)
def test_the_rate_of_the_output_is_the_highest_that_may_apply(
    rates: dict[str, str], body: dict[str, Any], rate: int
) -> None:
    assert bound({**BASE, **rates}, body, tokens_output=1_000) - bound({**BASE, **rates}, body) == rate
