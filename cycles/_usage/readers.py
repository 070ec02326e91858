"""Read token counts from responses of model SDKs, by their shape: objects or mappings, whole responses or chunks.

Nothing in this file imports those SDKs, and nothing raises: a value without counts changes nothing. Streams repeat and
correct their counts: the largest count of a response is kept. `docs/prices.md` has the table of counts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from cycles._core.values.usage import MAX_MODEL_VERSION, Usage

_MODALITIES: Final = {"AUDIO": "audio", "IMAGE": "image", "DOCUMENT": "image", "VIDEO": "video"}
_GEMINI: Final = re.compile(r"gemini-(\d+)(?:\.(\d+))?")
_EVERYWHERE: Final = ("global", "not_available")
"""Values of Anthropic's `inference_geo` that cost the standard price."""
_GIGABYTES: Final = re.compile(r"(\d{1,6})gb?", re.IGNORECASE)
_PRICED_CALLS: Final = frozenset(
    ("web_search_call", "file_search_call", "code_interpreter_call", "image_generation_call")
)
_FREE_CALLS: Final = frozenset(
    (
        "function_call",
        "custom_tool_call",
        "mcp_call",
        "computer_call",
        "local_shell_call",
        "shell_call",
        "apply_patch_call",
        "tool_search_call",
    )
)
"""Items of a response that cost tokens only."""
_POLICIES: Final = (
    "contentPolicy",
    "contentPolicyImage",
    "topicPolicy",
    "sensitiveInformationPolicy",
    "contextualGroundingPolicy",
    "automatedReasoningPolicy",
)
"""Policies of a guardrail of Bedrock that cost something."""
_PENDING: Final = ("queued", "in_progress")
"""States of a response that may still report more."""
IMAGE_TOKENS: Final = 6_240
"""Output tokens of one generated image, at the highest quality."""
HOSTED_IMAGE_MODEL: Final = "gpt-image-1"
"""The model of a hosted image tool that names none."""
_NESTED_ITERATIONS: Final = ("compaction", "advisor_message")


def openai(response: Any, usage: Usage | None = None) -> Usage:
    """Read a response, a stream chunk or a stream event of an OpenAI API (chat, responses, embeddings, images, audio).

    Other providers that use the same shapes are read as well. Chat streams report their usage in the last chunk, and
    only if the request has ``stream_options={"include_usage": True}``.

    Args:
        response: Object or mapping; one without counts changes nothing.
        usage: What to update, for example ``guard.usage``; a new `Usage` by default.

    Returns:
        The updated usage.
    """
    total = Usage() if usage is None else usage
    source = _inner(response, "response")  # events of the responses API contain the response
    counts = _openai_counts(_get(source, "usage"))
    tools = _get(source, "tool_usage")
    counts |= _openai_tools(source, tools)
    tier = _word(_get(source, "service_tier"))
    context = {"service_tier": tier} if tier and tier != "auto" else None
    _see(total, source, counts, context)
    _openai_nested(total, source, tools)
    return total


def _completed(read: int | None, written: int | None, total: int | None) -> tuple[int | None, int | None]:
    """Return input and output; one that is absent is the rest of the reported total, if the total is large enough."""
    if total is not None and read is None and written is not None and written <= total:
        read = total - written
    elif total is not None and written is None and read is not None and read <= total:
        written = total - read
    return read, written


def reported_total(response: Any) -> int:
    """Return the total that a response or an event reports, 0 if it reports none."""
    reported = _first(_inner(response, "response"), "usage", "usageMetadata", "usage_metadata")
    return _count(reported, "total_tokens", "totalTokens", "totalTokenCount", "total_token_count") or 0


def _openai_counts(reported: Any) -> dict[str, int]:
    if reported is None:
        return {}
    inputs = _first(reported, "prompt_tokens_details", "input_tokens_details", "input_token_details")
    outputs = _first(reported, "completion_tokens_details", "output_tokens_details", "output_token_details")
    cached = _first(inputs, "cached_tokens_details") or _get(reported, "cached_tokens_details")
    total, reasoning = _count(reported, "total_tokens"), _count(outputs, "reasoning_tokens")
    read, written = _completed(
        _count(reported, "prompt_tokens", "input_tokens"), _count(reported, "completion_tokens", "output_tokens"), total
    )
    if reasoning and read is not None and written is not None and total == read + written + reasoning:
        written += reasoning  # xAI counts it beside the completion
    return _present(
        tokens_input=read,
        tokens_output=written,
        tokens_cached_input=_largest(
            _count(inputs, "cached_tokens"), _count(reported, "cached_tokens", "prompt_cache_hit_tokens")
        ),
        tokens_cache_write=_count(inputs, "cache_write_tokens"),
        tokens_input_audio=_count(inputs, "audio_tokens"),
        tokens_input_image=_count(inputs, "image_tokens"),
        tokens_cached_input_audio=_count(cached, "audio_tokens", "cached_audio_tokens"),
        tokens_cached_input_image=_count(cached, "image_tokens", "cached_image_tokens"),
        tokens_reasoning=_largest(reasoning, _count(reported, "reasoning_tokens")),
        tokens_output_audio=_count(outputs, "audio_tokens"),
        tokens_output_image=_count(outputs, "image_tokens"),
        audio_ms=_milliseconds(_first(reported, "seconds", "prompt_audio_seconds")),
    )


def _openai_tools(source: Any, tools: Any) -> dict[str, int]:
    items = list(_items(_get(source, "output")))
    if tools is None and not items:
        return {}
    kinds = [(_word(_get(item, "type")) or "", item) for item in items]
    searches = _count(_get(tools, "web_search"), "num_requests")
    if searches is None:
        searches = sum(kind == "web_search_call" and _searches(_get(item, "action")) for kind, item in kinds) or None
    offered = [_word(_get(tool, "type")) or "" for tool in _items(_get(source, "tools"))]
    is_preview = any(kind.startswith("web_search_preview") for kind in offered)
    files = sum(kind == "file_search_call" for kind, _ in kinds)
    others = sum(kind.endswith("_call") and kind not in _PRICED_CALLS | _FREE_CALLS for kind, _ in kinds)
    return _present(
        web_searches=searches,
        web_searches_preview=searches if is_preview else None,
        file_searches=files or None,
        code_sessions=sum(code_sessions(source).values()) or None,
        other_calls=others or None,
    )


def _searches(action: Any) -> bool:
    """Whether a call of the web search searches, and does not only open a page; a call without an action does."""
    return action is None or _word(_get(action, "type")) in (None, "search")


def code_sessions(response: Any) -> dict[str, int]:
    """Return the containers in which a response has run code, and how many sessions of 1 GB each of them costs."""
    source = _inner(response, "response")
    found = list[str]()
    for number, item in enumerate(_items(_get(source, "output"))):
        if _get(item, "type") == "code_interpreter_call":
            found.append(_text(_get(item, "container_id")) or f"call {number}")
        elif _get(item, "type") == "shell_call" and (name := _text(_get(_get(item, "environment"), "container_id"))):
            found.append(name)  # a shell in a container of the provider
    return dict.fromkeys(found, max((gigabytes(tool) for tool in _items(_get(source, "tools"))), default=1))


def gigabytes(tool: Any) -> int:
    """Return the memory limit in GB of a tool's container, for example 4 for ``"4g"``; 1 if it has none."""
    limit = _get(_first(tool, "container", "environment"), "memory_limit")
    found = _GIGABYTES.fullmatch(_word(limit) or "")
    return max(1, int(found[1])) if found else 1


def _openai_nested(total: Usage, source: Any, tools: Any) -> None:
    """Image generation inside a response, and SVG authoring beside an image, have their own models."""
    image = _openai_counts(_get(tools, "image_gen"))
    if not image and _word(_get(source, "status")) not in _PENDING:
        image = _bound_of_images(source)
    if any(image.values()):
        model = next(
            (_get(tool, "model") for tool in _items(_get(source, "tools")) if _get(tool, "type") == "image_generation"),
            None,
        )
        total.see_response(None, image, model=_model(model) or HOSTED_IMAGE_MODEL, part="image_gen")
    drawing = _get(source, "svg_usage")
    if drawn := _openai_counts(drawing):
        total.see_response(None, drawn, model=_model(_get(drawing, "model")), part="svg")


def _bound_of_images(source: Any) -> dict[str, int]:
    """Count images whose usage a response does not report: at the highest quality, each from all that was read."""
    images = sum(_get(item, "type") == "image_generation_call" for item in _items(_get(source, "output")))
    written = dict.fromkeys(("tokens_output", "tokens_output_image", "tokens_output_bound"), images * IMAGE_TOKENS)
    return {"tokens_input": images * _openai_counts(_get(source, "usage")).get("tokens_input", 0), **written}


def anthropic(response: Any, usage: Usage | None = None) -> Usage:
    """Read a message or a stream event of Anthropic's messages API.

    ``tokens_input`` counts all that was read: this API reports what came from its cache, and what was written to it,
    beside ``input_tokens``.

    Args:
        response: Object or mapping; one without counts changes nothing.
        usage: What to update, for example ``guard.usage``; a new `Usage` by default.

    Returns:
        The updated usage.
    """
    total = Usage() if usage is None else usage
    source = _inner(response, "message")  # message_start contains the message
    reported = _get(source, "usage")
    tier, speed = _word(_get(reported, "service_tier")), _word(_get(reported, "speed"))
    context = {}
    if tier == "batch":
        context["processing"] = "batch"
    elif tier and tier != "standard":
        context["service_tier"] = tier
    if speed and speed != "standard":
        context["speed"] = speed
    if (region := _word(_get(reported, "inference_geo"))) and region not in _EVERYWHERE:
        context["inference_geo"] = region
    _see(total, source, _anthropic_counts(reported), context)
    for index, iteration in enumerate(_items(_get(reported, "iterations"))):
        kind = _get(iteration, "type")
        if kind in _NESTED_ITERATIONS:  # the other kinds are in the totals
            model = _model(_get(iteration, "model")) or total.model_version
            total.see_response(None, _anthropic_counts(iteration), model=model, context=context, part=f"{kind} {index}")
    return total


def _anthropic_counts(reported: Any) -> dict[str, int]:
    cached = _count(reported, "cache_read_input_tokens")
    creation = _get(reported, "cache_creation")
    short, long = (_count(creation, f"ephemeral_{ttl}_input_tokens") for ttl in ("5m", "1h"))
    parts = None if short is None and long is None else (short or 0) + (long or 0)
    written = _largest(_count(reported, "cache_creation_input_tokens"), parts)
    return _present(
        tokens_input=_sum(_count(reported, "input_tokens"), cached, written),
        tokens_output=_count(reported, "output_tokens"),
        tokens_cached_input=cached,
        tokens_cache_write=written,
        tokens_cache_write_1h=long,
        tokens_reasoning=_count(_get(reported, "output_tokens_details"), "thinking_tokens"),
        web_searches=_count(_get(reported, "server_tool_use"), "web_search_requests"),
    )


def bedrock(response: Any, usage: Usage) -> None:
    """Read a response or a stream event of Amazon Bedrock: of Converse, or of a model that is invoked.

    Claude reports as Anthropic's API does. Other models are counted by the headers of the response, or at the end of
    the stream: the caller passes the headers in the form that a stream has.
    """
    counts = _guardrail_counts(_get(_first(response, "trace", "amazon-bedrock-trace"), "guardrail"))
    if _get(response, "type") in ("message", "message_start", "message_delta"):
        anthropic(response, usage)
    else:
        used = _bedrock_counts(_get(response, "usage"))
        if not used and not usage.is_filled:
            used = _bedrock_counts(_get(response, "amazon-bedrock-invocationMetrics"), "Count")
        counts |= used
    tier = _word(_get(_get(response, "serviceTier"), "type"))
    if counts or tier:
        usage.see_response(None, counts, context={"service_tier": tier} if tier else None)


def _guardrail_counts(trace: Any) -> dict[str, int]:
    """Add what a guardrail has evaluated: an image is 5 units of text, and 15 units of reasoning are 17."""
    used = [_get(metrics, "usage") for metrics in _members(trace, "invocationMetrics")]
    if not used:
        return {}
    units = {name: sum(_count(each, f"{name}Units") or 0 for each in used) for name in _POLICIES}
    information = units["sensitiveInformationPolicy"] + units["contextualGroundingPolicy"]
    text = units["contentPolicy"] + units["topicPolicy"] + 5 * units["contentPolicyImage"]
    reasoning = -(-17 * units["automatedReasoningPolicy"] // 15)
    return {"guardrail_units": text + information + reasoning, "guardrail_information_units": information}


def _members(value: Any, name: str) -> Iterator[Any]:
    """Yield the members of this name, at any depth."""
    if isinstance(value, Mapping):
        for key, member in value.items():
            yield from (member,) if key == name else _members(member, name)
    for item in _items(value):
        yield from _members(item, name)


def _bedrock_counts(reported: Any, ending: str = "s") -> dict[str, int]:
    cached, written = (_count(reported, f"cache{kind}InputToken{ending}") for kind in ("Read", "Write"))
    details = list(_items(_get(reported, "cacheDetails")))
    parts = [(_get(each, "ttl"), _count(each, "inputTokens") or 0) for each in details]
    written = _largest(written, sum(n for _, n in parts) if parts else None)
    read, made = _completed(*(_count(reported, f"{kind}Token{ending}") for kind in ("input", "output", "total")))
    return _present(
        tokens_input=_sum(read, cached, written) if read is not None else None,
        tokens_output=made,
        tokens_cached_input=cached,
        tokens_cache_write=written,
        tokens_cache_write_1h=sum(n for ttl, n in parts if ttl == "1h") or None,
    )


def cohere(response: Any, usage: Usage) -> None:
    """Read a response or a stream event of version 2 of Cohere's API, by its billed units."""
    reported = _first(
        _first(response, "usage", "meta") or _get(_get(response, "delta"), "usage"), "billed_units", "tokens"
    )
    names = ("input_tokens", "output_tokens")
    read, made = (_count(reported, name) for name in names)
    _see(usage, response, _present(tokens_input=read, tokens_output=made), None)


def google(response: Any, usage: Usage | None = None) -> Usage:
    """Read a response or a stream chunk of the Gemini API, or of Gemini on Vertex.

    Args:
        response: Object or mapping, names in snake or camel case; one without counts changes nothing.
        usage: What to update, for example ``guard.usage``; a new `Usage` by default.

    Returns:
        The updated usage.
    """
    total = Usage() if usage is None else usage
    reported = _first(response, "usage_metadata", "usageMetadata")
    model = _model(_first(response, "model_version", "modelVersion"))
    counts = _google_counts(reported) | _google_searches(response, model or total.model_version)
    if (kind := _inline_kind(response)) and not any(name.startswith("tokens_output_") for name in counts):
        made = counts.get("tokens_output", 0) - counts.get("tokens_reasoning", 0)
        counts |= {f"tokens_output_{kind}": made} if made > 0 else {}
    tier = _google_tier(reported)
    context = {"service_tier": tier} if tier else None
    response_id = _text(_first(response, "response_id", "responseId"))
    if counts or model or response_id:
        total.see_response(response_id, counts, model=model, context=context)
    return total


def _google_tier(reported: Any) -> str | None:
    """Vertex reports a traffic type such as ON_DEMAND_FLEX, the Gemini API the tier itself."""
    names = ("traffic_type", "trafficType", "service_tier", "serviceTier")
    words = " ".join(_word(_get(reported, name)) or "" for name in names).lower()
    return next((tier for tier in ("priority", "flex") if tier in words), None)


def _google_counts(reported: Any) -> dict[str, int]:
    prompt = _count(reported, "prompt_token_count", "promptTokenCount")
    tool = _count(reported, "tool_use_prompt_token_count", "toolUsePromptTokenCount")
    thoughts = _count(reported, "thoughts_token_count", "thoughtsTokenCount")
    written = _count(reported, "candidates_token_count", "candidatesTokenCount")
    total = _count(reported, "total_token_count", "totalTokenCount")
    made = None if written is None else _sum(written, thoughts)
    read = None if prompt is None else _sum(prompt, tool)
    read, made = _completed(read, made, total)
    if read is None and made is not None and isinstance(reported, Mapping):  # protobuf omits a 0, and never a null
        read = None if {"promptTokenCount", "prompt_token_count"} & reported.keys() else tool or 0
    counts = _present(
        tokens_input=read if read is not None else tool,
        tokens_input_tool=tool,
        tokens_cached_input=_count(reported, "cached_content_token_count", "cachedContentTokenCount"),
        tokens_output=made if made is not None else thoughts,
        tokens_reasoning=thoughts,
    )
    for prefix, *names in (
        ("tokens_input", "prompt_tokens_details", "promptTokensDetails"),
        ("tokens_input", "tool_use_prompt_tokens_details", "toolUsePromptTokensDetails"),
        ("tokens_cached_input", "cache_tokens_details", "cacheTokensDetails"),
        ("tokens_output", "candidates_tokens_details", "candidatesTokensDetails"),
    ):
        for item in _items(_first(reported, *names)):
            modality = _MODALITIES.get((_word(_get(item, "modality")) or "").upper())
            n = _count(item, "token_count", "tokenCount")
            if modality and n:
                counts[f"{prefix}_{modality}"] = counts.get(f"{prefix}_{modality}", 0) + n
    return counts


def _google_searches(response: Any, model: str | None) -> dict[str, int]:
    queries = places = 0
    for candidate in _items(_get(response, "candidates")):
        grounding = _first(candidate, "grounding_metadata", "groundingMetadata")
        asked = sum(1 for _ in _items(_first(grounding, "web_search_queries", "webSearchQueries")))
        chunks = list(_items(_first(grounding, "grounding_chunks", "groundingChunks")))
        if not any(_get(chunk, "maps") is not None for chunk in chunks):
            queries += asked
        elif any(_get(chunk, "web") is not None for chunk in chunks):
            queries, places = queries + asked, places + 1
        else:  # the queries of a grounding by Maps alone are those of Maps
            places += max(1, asked)
    if _bills_per_prompt(model):
        queries, places = min(queries, 1), min(places, 1)
    return _present(web_searches=queries or None, maps_searches=places or None)


def _inline_kind(response: Any) -> str | None:
    """Return the modality of the media that a response contains."""
    for candidate in _items(_get(response, "candidates")):
        for part in _items(_get(_get(candidate, "content"), "parts")):
            data = _first(part, "inline_data", "inlineData")
            kind = (_text(_first(data, "mime_type", "mimeType")) or "").partition("/")[0].lower()
            if kind in ("audio", "image", "video"):
                return kind
    return None


def _bills_per_prompt(model: str | None) -> bool:
    """Up to Gemini 2.5 a search is billed for each prompt, later for each query."""
    version = _GEMINI.search(model or "")
    return version is not None and (int(version[1]), int(version[2] or 0)) <= (2, 5)


def any_response(response: Any) -> Usage:
    """Read a response of any known shape: Anthropic's or Google's by their members, otherwise OpenAI's."""
    if _first(response, "usage_metadata", "usageMetadata") is not None:
        return google(response)
    source = _inner(response, "message")
    reported = _get(source, "usage")
    if _get(source, "type") == "message" or _get(reported, "cache_read_input_tokens") is not None:
        return anthropic(response)
    return openai(response)


def _see(total: Usage, source: Any, counts: dict[str, int], context: Mapping[str, str] | None) -> None:
    response_id = _text(_get(source, "id"))
    model = _model(_get(source, "model"))
    if counts or response_id is not None or model:
        total.see_response(response_id, counts, model=model, context=context)


def _model(value: Any) -> str | None:
    return value[:MAX_MODEL_VERSION] if isinstance(value, str) and value else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _get(source: Any, name: str) -> Any:
    if type(source) is dict:  # decoded JSON: the usual case, without the cost of an abstract class
        return source.get(name)
    if source is None:
        return None
    try:
        return source.get(name) if isinstance(source, Mapping) else getattr(source, name, None)
    except Exception:  # an object of an SDK or of a test, with its own idea of attributes
        return None


def _inner(event: Any, name: str) -> Any:
    """Return the response that an event contains, or the event itself if it reports usage or contains none."""
    found = _get(event, name)
    is_value = found is None or isinstance(found, str | bytes | int | float | Sequence)
    return event if is_value or _get(event, "usage") is not None else found


def _first(source: Any, *names: str) -> Any:
    """Return the first of these members that is present."""
    for name in names:
        if (found := _get(source, name)) is not None:
            return found
    return None


def _items(value: Any) -> Iterator[Any]:
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        yield from value


def _word(value: Any) -> str | None:
    """Return a string or the value of a string enum."""
    of_enum = _get(value, "value")
    found = of_enum if isinstance(of_enum, str) else value
    return found if isinstance(found, str) else None


def _count(source: Any, *names: str) -> int | None:
    if source is None:
        return None
    for name in names:
        found = _get(source, name)
        if type(found) is int and found >= 0:  # the usual case
            return found
        if isinstance(found, float) and math.isfinite(found):
            found = math.ceil(found)
        if isinstance(found, int) and not isinstance(found, bool) and found >= 0:
            return found
    return None


def _milliseconds(seconds: Any) -> int | None:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 1e12:
        return None
    return math.ceil(round(seconds * 1000, 6))


def _present(**counts: int | None) -> dict[str, int]:
    return {name: n for name, n in counts.items() if n is not None}


def _largest(*counts: int | None) -> int | None:
    return max((n for n in counts if n is not None), default=None)


def _sum(*counts: int | None) -> int | None:
    return sum(n or 0 for n in counts) if any(n is not None for n in counts) else None
