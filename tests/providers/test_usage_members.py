"""Each member of a response that a reader counts, one at a time: no SDK is needed."""

from __future__ import annotations

from typing import Any

import pytest

import cycles
from cycles._usage.readers import bedrock, cohere, gigabytes
from cycles.usage import Usage, anthropic, google, openai
from tests.providers.bodies import BOOK, gemini, message, responses


def reported(**usage: Any) -> dict[str, Any]:
    return {"model": "m", "usage": usage}


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ({"prompt_tokens_details": {"cached_tokens": 4}}, {"tokens_cached_input": 4}),
        ({"input_tokens_details": {"cached_tokens": 4}}, {"tokens_cached_input": 4}),
        ({"input_token_details": {"cached_tokens": 4}}, {"tokens_cached_input": 4}),
        ({"cached_tokens": 4}, {"tokens_cached_input": 4}),
        ({"prompt_cache_hit_tokens": 4}, {"tokens_cached_input": 4}),
        ({"cached_tokens": 3, "input_tokens_details": {"cached_tokens": 4}}, {"tokens_cached_input": 4}),
        ({"input_tokens_details": {"cache_write_tokens": 4}}, {"tokens_cache_write": 4}),
        ({"input_tokens_details": {"audio_tokens": 4}}, {"tokens_input_audio": 4}),
        ({"input_tokens_details": {"image_tokens": 4}}, {"tokens_input_image": 4}),
        (
            {"input_tokens_details": {"cached_tokens_details": {"audio_tokens": 2, "image_tokens": 3}}},
            {"tokens_cached_input_audio": 2, "tokens_cached_input_image": 3},
        ),
        (
            {"cached_tokens_details": {"cached_audio_tokens": 2, "cached_image_tokens": 3}},
            {"tokens_cached_input_audio": 2, "tokens_cached_input_image": 3},
        ),
        ({"completion_tokens_details": {"reasoning_tokens": 4}}, {"tokens_reasoning": 4}),
        ({"output_tokens_details": {"reasoning_tokens": 4}}, {"tokens_reasoning": 4}),
        ({"output_token_details": {"audio_tokens": 4}}, {"tokens_output_audio": 4}),
        ({"output_tokens_details": {"image_tokens": 4}}, {"tokens_output_image": 4}),
        ({"reasoning_tokens": 4}, {"tokens_reasoning": 4}),
        ({"output_tokens_details": {"reasoning_tokens": 4}, "total_tokens": 160}, {"tokens_reasoning": 4}),
        ({"seconds": 0.0011}, {"audio_ms": 2}),
        ({"prompt_audio_seconds": 2}, {"audio_ms": 2000}),
        ({"seconds": -1}, {}),
        ({"seconds": True}, {}),
        ({"seconds": 1e12}, {}),
    ],
)
def test_openai(usage: dict[str, Any], counts: dict[str, int]) -> None:
    assert dict(openai(reported(input_tokens=100, output_tokens=50, **usage)).counts) == {
        "tokens_input": 100,
        "tokens_output": 50,
        **counts,
    }


@pytest.mark.parametrize(
    ("total", "counts"),
    [
        ({"prompt_tokens": 10, "total_tokens": 14}, (10, 4)),
        ({"completion_tokens": 4, "total_tokens": 14}, (10, 4)),
        ({"prompt_tokens": 15, "total_tokens": 14}, (15, 0)),
        ({"prompt_tokens": 14, "total_tokens": 14}, (14, 0)),
        ({"prompt_tokens": -1, "completion_tokens": 4, "total_tokens": 14}, (10, 4)),
        ({"prompt_tokens": 10.2, "completion_tokens": 4}, (11, 4)),
        ({"prompt_tokens": 10, "completion_tokens": True}, (10, 0)),
        ({"prompt_tokens": "10", "completion_tokens": None}, (0, 0)),
    ],
)
def test_a_part_that_is_missing_or_no_count(total: dict[str, Any], counts: tuple[int, int]) -> None:
    usage = openai(reported(**total))
    assert (usage.tokens_input, usage.tokens_output) == counts


def item(kind: str, **members: Any) -> dict[str, Any]:
    return {"type": kind, **members}


@pytest.mark.parametrize(
    ("members", "counts"),
    [
        ({"output": [item("web_search_call", action={"type": "search"})]}, {"web_searches": 1}),
        ({"output": [item("web_search_call", action={})]}, {"web_searches": 1}),
        ({"output": [item("web_search_call"), item("web_search_call")]}, {"web_searches": 2}),
        ({"output": [item("web_search_call", action={"type": "open_page"})]}, {}),
        ({"output": [item("web_search_call", action={"type": "find_in_page"})]}, {}),
        (
            {"output": [item("web_search_call")], "tools": [item("web_search_preview_2025_03_11")]},
            {"web_searches": 1, "web_searches_preview": 1},
        ),
        ({"tool_usage": {"web_search": {"num_requests": 0}}, "output": [item("web_search_call")]}, {}),
        ({"tool_usage": {"web_search": {"num_requests": 2}}, "output": []}, {"web_searches": 2}),
        ({"tool_usage": {}, "output": [item("web_search_call")]}, {"web_searches": 1}),
        ({"output": [item("file_search_call"), item("file_search_call")]}, {"file_searches": 2}),
        (
            {
                "output": [item("code_interpreter_call", container_id=name) for name in ("a", "b", "a")],
                "tools": [item("x", container={"memory_limit": "1g"}), item("x", container={"memory_limit": "4g"})],
            },
            {"code_sessions": 8},
        ),
        ({"output": [item("code_interpreter_call"), item("code_interpreter_call")]}, {"code_sessions": 2}),
        ({"output": [item("shell_call", environment={"container_id": "a"})]}, {"code_sessions": 1}),
        ({"output": [item("shell_call", environment={"type": "local"})]}, {}),
        ({"output": [item("teleport_call"), item("message")]}, {"other_calls": 1}),
        *(
            ({"output": [item(f"{name}_call")]}, {})
            for name in ("function", "custom_tool", "mcp", "computer", "local_shell", "apply_patch", "tool_search")
        ),
    ],
)
def test_calls_of_hosted_tools(members: dict[str, Any], counts: dict[str, int]) -> None:
    assert dict(openai(responses(**members)).counts) == {"tokens_input": 1000, "tokens_output": 100, **counts}


@pytest.mark.parametrize(
    ("limit", "size"), [("16GB", 16), ("4g", 4), ("0g", 1), ("500m", 1), (None, 1), (4, 1), ("1234567g", 1)]
)
def test_the_size_of_a_container(limit: Any, size: int) -> None:
    assert [gigabytes({name: {"memory_limit": limit}}) for name in ("container", "environment")] == [size, size]


@pytest.mark.parametrize(
    ("status", "images"), [("completed", 2), ("incomplete", 2), (None, 2), ("queued", 0), ("in_progress", 0)]
)
def test_images_without_usage_are_counted_at_their_bound_when_the_response_has_ended(status: Any, images: int) -> None:
    made = [item("image_generation_call")] * 2
    used = openai(responses(status=status, output=made))
    assert used.counts.get("tokens_output_bound", 0) == images * 6_240
    assert used.tokens_input == 1000 + images * 1000
    assert [one.model for one in used.responses()] == ["m", "gpt-image-1"][: 1 + bool(images)]


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ({"cache_read_input_tokens": 4}, {"tokens_input": 1004, "tokens_cached_input": 4}),
        ({"cache_creation_input_tokens": 4}, {"tokens_input": 1004, "tokens_cache_write": 4}),
        (
            {"cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 6}},
            {"tokens_input": 1010, "tokens_cache_write": 10, "tokens_cache_write_1h": 6},
        ),
        ({"cache_creation": {"ephemeral_5m_input_tokens": 4}}, {"tokens_input": 1004, "tokens_cache_write": 4}),
        (
            {"cache_creation_input_tokens": 3, "cache_creation": {"ephemeral_1h_input_tokens": 6}},
            {"tokens_input": 1006, "tokens_cache_write": 6, "tokens_cache_write_1h": 6},
        ),
        ({"output_tokens_details": {"thinking_tokens": 4}}, {"tokens_reasoning": 4}),
        ({"server_tool_use": {"web_search_requests": 2}}, {"web_searches": 2}),
    ],
)
def test_anthropic(usage: dict[str, Any], counts: dict[str, int]) -> None:
    assert dict(anthropic(message(**usage)).counts) == {"tokens_input": 1000, "tokens_output": 100, **counts}


@pytest.mark.parametrize("kind", ["compaction", "advisor_message"])
def test_a_step_of_another_model_is_counted_beside_the_message(kind: str) -> None:
    step = {"type": kind, "model": "other", "input_tokens": 7, "output_tokens": 3}
    used = anthropic(message(iterations=[step, {**step, "type": "message"}]))
    assert [(one.model, one.counts["tokens_output"]) for one in used.responses()] == [("m", 100), ("other", 3)]
    assert BOOK.cost(used) == cycles.usd_microcents(200_000 + 7 * 10_000 + 3 * 100_000)
    fast = anthropic(message(iterations=[step], speed="fast"))
    assert [dict(one.context) for one in fast.responses()] == [{"speed": "fast"}] * 2


@pytest.mark.parametrize(
    ("usage", "context"),
    [
        ({"service_tier": "standard"}, {}),
        ({"service_tier": "priority"}, {"service_tier": "priority"}),
        ({"service_tier": "batch"}, {"processing": "batch"}),
        ({"speed": "standard"}, {}),
        ({"speed": "fast"}, {"speed": "fast"}),
        ({"inference_geo": "us"}, {"inference_geo": "us"}),
        ({"inference_geo": "global"}, {}),
        ({"inference_geo": "not_available"}, {}),
    ],
)
def test_what_selects_the_price_of_claude(usage: dict[str, Any], context: dict[str, str]) -> None:
    assert dict(anthropic(message(**usage)).responses()[0].context) == context


GUARDED = {
    "contentPolicyUnits": 1,
    "contentPolicyImageUnits": 2,
    "topicPolicyUnits": 3,
    "sensitiveInformationPolicyUnits": 4,
    "contextualGroundingPolicyUnits": 5,
}


def traced(**units: int) -> dict[str, Any]:
    return {"guardrail": {"inputAssessment": {"g1": measured(**units)}}}


def measured(**units: int) -> dict[str, Any]:
    return {"invocationMetrics": {"usage": units}}


@pytest.mark.parametrize(
    ("response", "counts"),
    [
        ({"usage": {"inputTokens": 10, "outputTokens": 5}}, {"tokens_input": 10, "tokens_output": 5}),
        ({"usage": {"inputTokens": 10, "totalTokens": 15}}, {"tokens_input": 10, "tokens_output": 5}),
        (
            {
                "usage": {
                    "inputTokens": 10,
                    "outputTokens": 5,
                    "cacheReadInputTokens": 2,
                    "cacheWriteInputTokens": 7,
                    "cacheDetails": [{"ttl": "1h", "inputTokens": 4}, {"ttl": "5m", "inputTokens": 3}],
                }
            },
            {
                "tokens_input": 19,
                "tokens_output": 5,
                "tokens_cached_input": 2,
                "tokens_cache_write": 7,
                "tokens_cache_write_1h": 4,
            },
        ),
        (
            {
                "usage": {
                    "inputTokens": 10,
                    "cacheWriteInputTokens": 7,
                    "cacheDetails": [{"ttl": "1h", "inputTokens": 4}],
                }
            },
            {"tokens_input": 17, "tokens_cache_write": 7, "tokens_cache_write_1h": 4},
        ),
        (
            {
                "usage": {
                    "inputTokens": 10,
                    "cacheWriteInputTokens": 7,
                    "cacheDetails": [{"ttl": "1h", "inputTokens": 5}, {"ttl": "5m", "inputTokens": 4}],
                }
            },
            {"tokens_input": 19, "tokens_cache_write": 9, "tokens_cache_write_1h": 5},
        ),
        (
            {"usage": {"inputTokens": 10, "outputTokens": 5, "cacheDetails": [{"ttl": "5m", "inputTokens": 3}]}},
            {"tokens_input": 13, "tokens_output": 5, "tokens_cache_write": 3},
        ),
        (
            {
                "amazon-bedrock-invocationMetrics": {
                    "inputTokenCount": 10,
                    "outputTokenCount": 5,
                    "cacheReadInputTokenCount": 2,
                    "cacheWriteInputTokenCount": 1,
                }
            },
            {"tokens_input": 13, "tokens_output": 5, "tokens_cached_input": 2, "tokens_cache_write": 1},
        ),
        (
            {"type": "message", "usage": {"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 2}},
            {"tokens_input": 12, "tokens_output": 5, "tokens_cached_input": 2},
        ),
        ({"type": "message_delta", "usage": {"output_tokens": 5}}, {"tokens_output": 5}),
        ({"trace": traced(**GUARDED)}, {"guardrail_units": 23, "guardrail_information_units": 9}),
        ({"amazon-bedrock-trace": traced(automatedReasoningPolicyUnits=1)}, {"guardrail_units": 2}),
        ({"trace": traced(automatedReasoningPolicyUnits=15)}, {"guardrail_units": 17}),
        ({"trace": traced(wordPolicyUnits=9, sensitiveInformationPolicyFreeUnits=9)}, {}),
        (
            {
                "trace": {
                    "guardrail": {
                        "inputAssessment": {"g1": measured(contentPolicyUnits=1)},
                        "outputAssessments": {
                            "g1": [measured(topicPolicyUnits=2), measured(contextualGroundingPolicyUnits=4)],
                            "g2": [[measured(contentPolicyUnits=8)]],
                        },
                    }
                }
            },
            {"guardrail_units": 15, "guardrail_information_units": 4},
        ),
        ({"message": "no usage"}, {}),
    ],
)
def test_bedrock(response: dict[str, Any], counts: dict[str, int]) -> None:
    usage = Usage()
    bedrock(response, usage)
    assert {name: n for name, n in usage.counts.items() if n} == counts


@pytest.mark.parametrize(("tier", "context"), [("priority", {"service_tier": "priority"}), (None, {})])
def test_the_tier_of_bedrock(tier: str | None, context: dict[str, str]) -> None:
    usage = Usage()
    bedrock({"usage": {"inputTokens": 1, "outputTokens": 1}, "serviceTier": {"type": tier}}, usage)
    assert dict(usage.responses()[0].context) == context


UNITS = {"input_tokens": 10, "output_tokens": 5}


@pytest.mark.parametrize(
    "response",
    [
        {"usage": {"billed_units": UNITS, "tokens": {"input_tokens": 99, "output_tokens": 99}}},
        {"usage": {"tokens": UNITS}},
        {"meta": {"billed_units": UNITS}},
        {"type": "message-end", "delta": {"usage": {"billed_units": UNITS}}},
    ],
)
def test_cohere(response: dict[str, Any]) -> None:
    usage = Usage()
    cohere(response, usage)
    assert dict(usage.counts) == {"tokens_input": 10, "tokens_output": 5}


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ({"toolUsePromptTokenCount": 4}, {"tokens_input": 1004, "tokens_input_tool": 4}),
        ({"thoughtsTokenCount": 4}, {"tokens_output": 104, "tokens_reasoning": 4}),
        ({"thoughtsTokenCount": 4, "candidatesTokenCount": None}, {"tokens_output": 4, "tokens_reasoning": 4}),
        ({"cachedContentTokenCount": 4}, {"tokens_cached_input": 4}),
        ({"promptTokenCount": None, "totalTokenCount": 104}, {"tokens_input": 4}),
        ({"candidatesTokenCount": None, "totalTokenCount": 1004}, {"tokens_output": 4}),
        *(
            ({f"{member}Details": [{"modality": modality, "tokenCount": 3}] * 2}, {f"{prefix}_{kind}": 6})
            for member, prefix in (
                ("promptTokens", "tokens_input"),
                ("toolUsePromptTokens", "tokens_input"),
                ("candidatesTokens", "tokens_output"),
            )
            for modality, kind in (("AUDIO", "audio"), ("IMAGE", "image"), ("VIDEO", "video"), ("document", "image"))
        ),
        (
            {"cachedContentTokenCount": 9, "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 3}]},
            {"tokens_cached_input": 9, "tokens_cached_input_audio": 3},
        ),
        ({"promptTokensDetails": [{"modality": "TEXT", "tokenCount": 3}]}, {}),
    ],
)
def test_google(usage: dict[str, Any], counts: dict[str, int]) -> None:
    assert dict(google(gemini(**usage)).counts) == {"tokens_input": 1000, "tokens_output": 100, **counts}


@pytest.mark.parametrize("name", ["traffic_type", "trafficType", "service_tier", "serviceTier"])
@pytest.mark.parametrize(
    ("word", "tier"), [("ON_DEMAND_FLEX", "flex"), ("priority", "priority"), ("standard", None), (None, None)]
)
def test_the_tier_of_gemini(name: str, word: str | None, tier: str | None) -> None:
    reported: Any = {name: word}
    context = google(gemini(**reported)).responses()[0].context
    assert dict(context) == ({} if tier is None else {"service_tier": tier})


@pytest.mark.parametrize(
    ("model", "searches"),
    [("gemini-1.5-pro", 1), ("gemini-2.0-flash", 1), ("gemini-2.5-pro", 1), ("gemini-2.6-x", 3), ("gemini-3-pro", 3)],
)
def test_up_to_gemini_2_5_a_prompt_is_one_search(model: str, searches: int) -> None:
    grounded = [{"groundingMetadata": {"webSearchQueries": ["a", "b", "c"]}}]
    assert google(gemini(model, grounded)).counts["web_searches"] == searches


def test_text_beside_an_image_is_text() -> None:
    parts = [{"text": "a cat"}, {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}]
    details = [{"modality": "IMAGE", "tokenCount": 90}]
    drawn = google(gemini("gemini-3-x", [{"content": {"parts": parts}}], candidatesTokensDetails=details))
    assert (drawn.tokens_output, drawn.counts["tokens_output_image"]) == (100, 90)


def test_a_later_chunk_without_a_model_is_of_the_same_one() -> None:
    usage = google(gemini("gemini-2.5-pro"))
    google({"candidates": [{"groundingMetadata": {"webSearchQueries": ["a", "b", "c"]}}]}, usage)
    assert usage.counts["web_searches"] == 1


@pytest.mark.parametrize(("prompt", "counts"), [({}, {"tokens_input": 0}), ({"promptTokenCount": None}, {})])
def test_a_prompt_that_is_null_is_not_counted_as_0(prompt: dict[str, Any], counts: dict[str, int]) -> None:
    usage = google({"usageMetadata": {"candidatesTokenCount": 5, **prompt}})
    assert dict(usage.responses()[0].counts) == {"tokens_output": 5, **counts}


def test_grounding_by_maps_without_a_query_is_one_search() -> None:
    by_maps = [{"groundingMetadata": {"groundingChunks": [{"maps": {"uri": "x"}}]}}]
    assert google(gemini("gemini-3-x", by_maps)).counts["maps_searches"] == 1
