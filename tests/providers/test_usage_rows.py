"""Each row of the usage table: what the readers find in a response, and what it costs, to the microcent."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

import cycles
from cycles.usage import Usage, anthropic, google, openai
from tests.providers.bodies import BOOK, as_object, chat, gemini, message, responses

# name, reader, response, counts beside 1000 in and 100 out, price in microcents (1 USD per million tokens = 100 each)
ROWS: list[tuple[str, Any, dict[str, Any], dict[str, int], int]] = [
    ("openai chat", openai, chat(), {}, 200_000),
    (
        "openai cached",
        openai,
        chat(prompt_tokens_details={"cached_tokens": 400}),
        {"tokens_cached_input": 400},
        600 * 100 + 400 * 10 + 100_000,
    ),
    (
        "openai cache write",
        openai,
        responses({"input_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 300}}),
        {"tokens_cached_input": 100, "tokens_cache_write": 300},
        600 * 100 + 100 * 10 + 300 * 125 + 100_000,
    ),
    (
        "openai audio and image input",
        openai,
        {
            **chat(),
            "usage": {
                "input_tokens": 1000,
                "output_tokens": 100,
                "input_token_details": {
                    "audio_tokens": 200,
                    "image_tokens": 300,
                    "cached_tokens": 100,
                    "cached_tokens_details": {"audio_tokens": 40, "image_tokens": 50},
                },
            },
        },
        {
            "tokens_input_audio": 200,
            "tokens_input_image": 300,
            "tokens_cached_input": 100,
            "tokens_cached_input_audio": 40,
            "tokens_cached_input_image": 50,
        },
        160 * 300 + 40 * 30 + 250 * 400 + 50 * 40 + 10 * 10 + 490 * 100 + 100_000,
    ),
    (
        "openai reasoning",
        openai,
        chat(completion_tokens_details={"reasoning_tokens": 60}),
        {"tokens_reasoning": 60},
        100_000 + 60 * 1100 + 40 * 1000,
    ),
    (
        "reasoning beside the completion, as xAI reports it",
        openai,
        chat(total_tokens=1160, completion_tokens_details={"reasoning_tokens": 60}),
        {"tokens_output": 160, "tokens_reasoning": 60},
        100_000 + 60 * 1100 + 100 * 1000,
    ),
    (
        "what DeepSeek read from its cache",
        openai,
        chat(prompt_cache_hit_tokens=400, prompt_cache_miss_tokens=600),
        {"tokens_cached_input": 400},
        600 * 100 + 400 * 10 + 100_000,
    ),
    (
        "openai audio output",
        openai,
        chat(completion_tokens_details={"audio_tokens": 70}),
        {"tokens_output_audio": 70},
        100_000 + 70 * 2000 + 30 * 1000,
    ),
    (
        "openai image output",
        openai,
        responses({"output_tokens_details": {"image_tokens": 100}}),
        {"tokens_output_image": 100},
        100_000 + 100 * 3000,
    ),
    (
        "openai searches reported by the tool usage",
        openai,
        responses(tool_usage={"web_search": {"num_requests": 3}}),
        {"web_searches": 3},
        200_000 + 3_000_000,
    ),
    (
        "openai searches among the items: a page that is opened is none",
        openai,
        responses(
            output=[
                {"type": "web_search_call", "action": {"type": "search"}},
                {"type": "web_search_call", "action": {"type": "open_page"}},
            ]
        ),
        {"web_searches": 1},
        200_000 + 1_000_000,
    ),
    (
        "openai file searches",
        openai,
        responses(output=[{"type": "file_search_call"}, {"type": "file_search_call"}]),
        {"file_searches": 2},
        200_000 + 500_000,
    ),
    ("anthropic", anthropic, message(), {}, 200_000),
    (
        "anthropic cache read and written: beside the input",
        anthropic,
        message(input_tokens=600, cache_read_input_tokens=300, cache_creation_input_tokens=100),
        {"tokens_cached_input": 300, "tokens_cache_write": 100},
        600 * 100 + 300 * 10 + 100 * 125 + 100_000,
    ),
    (
        "anthropic one-hour cache",
        anthropic,
        message(
            input_tokens=600,
            cache_creation_input_tokens=400,
            cache_creation={"ephemeral_5m_input_tokens": 150, "ephemeral_1h_input_tokens": 250},
        ),
        {"tokens_cache_write": 400, "tokens_cache_write_1h": 250},
        600 * 100 + 150 * 125 + 250 * 200 + 100_000,
    ),
    (
        "anthropic one-hour cache without a sum",
        anthropic,
        message(input_tokens=750, cache_creation={"ephemeral_1h_input_tokens": 250}),
        {"tokens_cache_write": 250, "tokens_cache_write_1h": 250},
        750 * 100 + 250 * 200 + 100_000,
    ),
    (
        "anthropic parts of the cache creation that are larger than its sum",
        anthropic,
        message(
            input_tokens=600,
            cache_creation_input_tokens=100,
            cache_creation={"ephemeral_5m_input_tokens": 150, "ephemeral_1h_input_tokens": 250},
        ),
        {"tokens_cache_write": 400, "tokens_cache_write_1h": 250},
        600 * 100 + 150 * 125 + 250 * 200 + 100_000,
    ),
    (
        "anthropic thinking",
        anthropic,
        message(output_tokens_details={"thinking_tokens": 60}),
        {"tokens_reasoning": 60},
        100_000 + 60 * 1100 + 40 * 1000,
    ),
    (
        "anthropic web search",
        anthropic,
        message(server_tool_use={"web_search_requests": 2, "web_fetch_requests": 9}),
        {"web_searches": 2},
        200_000 + 2_000_000,
    ),
    ("google", google, gemini(), {}, 200_000),
    (
        "google thoughts are output",
        google,
        gemini(candidatesTokenCount=40, thoughtsTokenCount=60),
        {"tokens_reasoning": 60},
        100_000 + 60 * 1100 + 40 * 1000,
    ),
    (
        "google tool use is input",
        google,
        gemini(promptTokenCount=700, toolUsePromptTokenCount=300),
        {"tokens_input_tool": 300},
        200_000,
    ),
    (
        "google modalities; a document counts as an image",
        google,
        gemini(
            cachedContentTokenCount=100,
            promptTokensDetails=[
                {"modality": "TEXT", "tokenCount": 500},
                {"modality": "AUDIO", "tokenCount": 200},
                {"modality": "IMAGE", "tokenCount": 50},
                {"modality": "DOCUMENT", "tokenCount": 150},
                {"modality": "VIDEO", "tokenCount": 100},
            ],
            cacheTokensDetails=[{"modality": "AUDIO", "tokenCount": 30}, {"modality": "VIDEO", "tokenCount": 20}],
        ),
        {
            "tokens_cached_input": 100,
            "tokens_input_audio": 200,
            "tokens_input_image": 200,
            "tokens_input_video": 100,
            "tokens_cached_input_audio": 30,
            "tokens_cached_input_video": 20,
        },
        170 * 300 + 30 * 30 + 200 * 400 + 80 * 500 + 20 * 50 + 50 * 10 + 450 * 100 + 100_000,
    ),
    (
        "google image output",
        google,
        gemini(candidatesTokensDetails=[{"modality": "IMAGE", "tokenCount": 80}]),
        {"tokens_output_image": 80},
        100_000 + 80 * 3000 + 20 * 1000,
    ),
    (
        "google search up to Gemini 2.5: one for a prompt",
        google,
        gemini("gemini-2.5-x", [{"groundingMetadata": {"webSearchQueries": ["a", "b", "c"]}}]),
        {"web_searches": 1},
        200_000 + 1_000_000,
    ),
    (
        "google search after Gemini 2.5: one for a query",
        google,
        gemini("gemini-3-x", [{"groundingMetadata": {"webSearchQueries": ["a", "b", "c"]}}]),
        {"web_searches": 3},
        200_000 + 3_000_000,
    ),
]


@pytest.mark.parametrize("shape", [lambda value: value, as_object], ids=["mapping", "object"])
@pytest.mark.parametrize(
    ("reader", "response", "counts", "microcents"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_row(reader: Any, response: Any, counts: dict[str, int], microcents: int, shape: Any) -> None:
    usage = reader(shape(response))
    assert dict(usage.counts) == {"tokens_input": 1000, "tokens_output": 100, **counts}
    assert BOOK.cost(usage) == cycles.usd_microcents(microcents)


def test_google_reads_snake_case_too() -> None:
    usage = google(
        as_object(
            {
                "response_id": "g1",
                "model_version": "m",
                "candidates": None,
                "usage_metadata": {
                    "prompt_token_count": 10,
                    "candidates_token_count": None,
                    "thoughts_token_count": 4,
                    "prompt_tokens_details": [{"modality": SimpleNamespace(value="AUDIO"), "token_count": 3}],
                    "traffic_type": SimpleNamespace(value="ON_DEMAND_FLEX"),
                },
            }
        )
    )
    assert dict(usage.counts) == {
        "tokens_input": 10,
        "tokens_output": 4,
        "tokens_reasoning": 4,
        "tokens_input_audio": 3,
    }
    assert usage.responses()[0].context == {"service_tier": "flex"}


def test_a_transcription_is_billed_by_its_seconds_rounded_up_to_a_millisecond() -> None:
    usage = openai({"model": "m", "usage": {"type": "duration", "seconds": 61.2001}})
    assert dict(usage.counts) == {"audio_ms": 61_201}
    assert BOOK.cost(usage) == cycles.usd_microcents(612_010)


def test_speech_is_billed_by_its_characters() -> None:
    assert BOOK.cost("m", characters_input=1000) == cycles.usd("0.015")


@pytest.mark.parametrize(
    ("reader", "response", "context"),
    [
        (openai, responses(service_tier="flex"), {"service_tier": "flex"}),
        (openai, responses(service_tier="auto"), {}),
        (anthropic, message(service_tier="batch"), {"processing": "batch"}),
        (anthropic, message(service_tier="standard", speed="fast"), {"speed": "fast"}),
        (google, gemini(trafficType="ON_DEMAND_PRIORITY"), {"service_tier": "priority"}),
        (google, gemini(trafficType="ON_DEMAND"), {}),
    ],
)
def test_the_context_selects_the_price(reader: Any, response: Any, context: dict[str, str]) -> None:
    usage = reader(response)
    assert usage.responses()[0].context == context
    tier = cycles.Price("2", "20")
    book = cycles.PriceBook(
        {"m": cycles.Price("1", "10", tiers={"flex": tier, "batch": tier, "fast": tier, "priority": tier})}
    )
    assert book.cost(usage) == cycles.usd_microcents(400_000 if context else 200_000)


def test_responses_inside_a_response_have_their_own_models() -> None:
    usage = anthropic(
        message(
            iterations=[
                {"type": "message", "input_tokens": 1000, "output_tokens": 100},
                {"type": "compaction", "input_tokens": 50, "output_tokens": 5},
                {"type": "advisor_message", "model": "other", "input_tokens": 10, "output_tokens": 1},
            ]
        )
    )
    assert (usage.tokens_input, usage.tokens_output, usage.model_version) == (1060, 106, "m")
    assert BOOK.cost(usage) == cycles.usd_microcents(200_000 + 50 * 100 + 5 * 1000 + 10 * 10_000 + 100_000)


@pytest.mark.parametrize("kind", ["compaction", "advisor_message"])
def test_each_response_of_a_kind_inside_a_response_counts(kind: str) -> None:
    """A stream repeats the counts of its response; a second one of the same kind is another response."""
    inside = [
        {"type": kind, "input_tokens": 50, "output_tokens": 5},
        {"type": kind, "input_tokens": 30, "output_tokens": 7},
    ]
    whole = message(iterations=inside)
    usage = anthropic(whole, anthropic(whole))
    assert (usage.tokens_input, usage.tokens_output) == (1080, 112)


def test_an_image_that_a_tool_generated_has_its_own_model() -> None:
    usage = openai(
        responses(
            tools=[{"type": "image_generation", "model": "other"}],
            tool_usage={"image_gen": {"input_tokens": 10, "output_tokens": 20}, "web_search": {"num_requests": 0}},
        )
    )
    assert (usage.tokens_input, usage.tokens_output) == (1010, 120)
    assert BOOK.cost(usage) == cycles.usd_microcents(200_000 + 10 * 10_000 + 20 * 100_000)


def test_a_drawing_beside_an_image_has_its_own_model() -> None:
    usage = openai(responses(svg_usage={"model": "other", "input_tokens": 10, "output_tokens": 20}))
    assert (usage.tokens_input, usage.tokens_output, usage.model_version) == (1010, 120, "m")
    assert BOOK.cost(usage) == cycles.usd_microcents(200_000 + 10 * 10_000 + 20 * 100_000)


def test_images_without_usage_cost_the_most_that_they_may_cost(caplog: pytest.LogCaptureFixture) -> None:
    """Each has read what the response has read, and has 6,240 tokens of output."""
    images = [{"type": "image_generation_call"}, {"type": "image_generation_call"}]
    usage = openai(responses(output=images, tools=[{"type": "image_generation", "model": "other"}]))
    priced = BOOK.priced(usage)
    assert priced.amount == cycles.usd_microcents(200_000 + 2 * (1000 * 10_000 + 6240 * 100_000))
    assert dict(priced.rules) == {"tokens_output_bound": "bound"}
    assert [record.getMessage() for record in caplog.records] == [
        "price of model other, tokens_output_bound: the response reports no usage; its bound is used"
    ]
    reported = openai(responses(output=images, tool_usage={"image_gen": {"input_tokens": 0, "output_tokens": 0}}))
    pending = openai(responses(output=images, status="in_progress"))
    assert dict(reported.counts) == dict(pending.counts) == {"tokens_input": 1000, "tokens_output": 100}


def test_a_long_context_is_a_matter_of_one_response_not_of_the_sum() -> None:
    book = cycles.PriceBook({"m": cycles.Price("1", "10", above={1500: cycles.Price("2", "20")})})
    usage = Usage()
    for name in ("r1", "r2"):
        openai({**chat(), "id": name}, usage)
    assert book.cost(usage) == cycles.usd_microcents(400_000)
    openai({**chat(prompt_tokens=1501), "id": "r3"}, usage)
    assert book.cost(usage) == cycles.usd_microcents(400_000 + 1501 * 200 + 100 * 2000)


def test_counts_added_by_hand_are_priced_beside_responses() -> None:
    usage = openai(chat())
    usage.add(web_searches=2, tokens_input=10)
    assert BOOK.cost(usage) == cycles.usd_microcents(200_000 + 1000 + 2_000_000)
    with pytest.raises(TypeError, match="usage has no count 'tokens'"):
        usage.add(tokens=1)  # type: ignore[call-arg]


def test_parts_larger_than_their_whole_are_clipped() -> None:
    usage = openai(
        chat(prompt_tokens_details={"cached_tokens": 5000}, completion_tokens_details={"reasoning_tokens": 900})
    )
    assert (usage.counts["tokens_cached_input"], usage.counts["tokens_reasoning"]) == (1000, 100)
    assert BOOK.cost(usage) == cycles.usd_microcents(1000 * 10 + 100 * 1100)


def test_what_has_no_price_is_reported_once_and_never_silent(caplog: pytest.LogCaptureFixture) -> None:
    book = cycles.PriceBook({"m": cycles.Price("1", "10")})
    usage = openai(responses(tool_usage={"web_search": {"num_requests": 3}}, service_tier="flex"))
    for _ in range(2):
        priced = book.priced(usage)
        assert priced.unpriced == ("service_tier:flex", "web_searches")
        assert priced.amount == cycles.usd_microcents(200_000)
    assert [record.getMessage() for record in caplog.records] == [
        "price of model m, service_tier:flex: no price is known for it; the standard price is used",
        "price of model m, web_searches: no price is known for it; it is not in the amount",
    ]


@pytest.mark.parametrize("reader", [openai, anthropic, google])
@pytest.mark.parametrize("odd", [None, "text", 5, {}, {"usage": 3}, {"usageMetadata": [1]}, {"candidates": [None, 3]}])
def test_what_has_no_counts_changes_nothing(reader: Any, odd: Any) -> None:
    assert not reader(odd).is_filled


def test_the_counts_are_read_only() -> None:
    with pytest.raises(TypeError):
        Usage().counts["tokens_input"] = 1  # type: ignore[index]


def test_a_smaller_count_of_the_same_response_is_ignored() -> None:
    usage = openai(chat())
    openai(chat(prompt_tokens=10, completion_tokens=1), usage)
    assert (usage.tokens_input, usage.tokens_output) == (1000, 100)
    openai(chat(prompt_tokens=1001), usage)
    assert usage.tokens_input == 1001
