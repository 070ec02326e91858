"""The highest price that a request may have, from its content and the rates of its model.

`docs/prices.md` explains the bound: bytes for tokens, the output limit, and the highest rates that may apply.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final, Literal, TypeAlias

from attrs import frozen

from cycles._usage.catalogue import Found
from cycles._usage.media import BYTES_PER_AUDIO_SECOND, LARGEST_WINDOW, Medium, billed_seconds, most_of
from cycles._usage.pricing import MICROCENTS_PER_USD, Price, call_rate, of_tokens
from cycles._usage.readers import HOSTED_IMAGE_MODEL, IMAGE_TOKENS, gigabytes
from cycles._usage.tokens import Bound

Kind: TypeAlias = Literal["text", "embedding", "image", "transcription", "speech", "unknown"]

ASSUMED_OUTPUT_TOKENS: Final = 4_096
"""Output tokens that `PriceBook.estimate` assumes if it is given none."""
OUTPUT_MAXIMA: Final = {
    "gpt-3.5": 4_096,
    "gpt-4": 8_192,
    "gpt-4-turbo": 4_096,
    "gpt-4o": 16_384,
    "gpt-4o-64k": 64_000,
    "chatgpt-4o": 16_384,
    "gpt-4.1": 32_768,
    "gpt-4.5": 16_384,
    "gpt-5": 128_000,
    "o1": 100_000,
    "o3": 100_000,
    "o4": 100_000,
    "gemini-1": 8_192,
    "gemini-2.0": 8_192,
    "gemini-2.5": 65_536,
    "gemini-3": 65_536,
}
"""The most output tokens of a response, by the beginning of the model's name. Providers enforce it."""
OTHER_OUTPUT_MAXIMUM: Final = 131_072
"""The same for every other model."""
HOSTED_CALLS: Final = 5
"""Calls of a hosted tool in a request that does not limit them."""
_MODALITIES: Final = frozenset(("audio", "image", "video"))
_GOOGLE_SEARCH: Final = ("googleSearch", "google_search", "googleSearchRetrieval", "google_search_retrieval")
_HOSTED: Final = {
    "file_search": "file_searches",
    "code_interpreter": "code_sessions",
    "browser_search": "web_searches",
}
_FREE_TOOLS: Final = (
    "function",
    "custom",
    "mcp",
    "computer",
    "image_generation",
    "local_shell",
    "shell",
    "apply_patch",
    "namespace",
    "tool_search",
    "programmatic_tool_calling",
)
"""Tools of the responses API whose calls cost tokens only, or are priced by their own usage."""
_SEARCH_MODEL: Final = re.compile(r"-search-(?:preview|api)")
_AUDIO_TOKENS_PER_SECOND: Final = 20
_CHARACTERS_PER_TOKEN: Final = 16
_CHARACTERS_PER_UNIT: Final = 1_000
_SPEECH_TOKENS_PER_CHARACTER: Final = 2


@frozen
class Files:
    """The files that a request uploads.

    Attributes:
        count: How many.
        size: Their bytes.
    """

    count: int = 0
    size: int = 0


@frozen
class Shape:
    """What of a request decides its highest price, beside its content.

    Attributes:
        kind: What the endpoint makes.
        output_tokens: The output limit of one result.
        results: The number of results in the request.
        output_kinds: Modalities of the output other than text.
        searches: Calls of hosted tools, by count name.
        images: Images that a hosted tool may generate.
        image_models: The models of hosted image tools.
        images_input: Uploaded images.
        audio_s: Seconds of audio to transcribe.
        characters: Characters to speak.
    """

    kind: Kind = "text"
    output_tokens: int = ASSUMED_OUTPUT_TOKENS
    results: int = 1
    output_kinds: frozenset[str] = frozenset()
    searches: tuple[tuple[str, int], ...] = ()
    images: int = 0
    image_models: tuple[str, ...] = ()
    images_input: int = 0
    audio_s: int = 0
    characters: int = 0


def output_maximum(model: str) -> int:
    """Return the most output tokens that a model makes for a request without a limit: by the longest known prefix."""
    known = [prefix for prefix in OUTPUT_MAXIMA if model.startswith(prefix)]
    return OUTPUT_MAXIMA[max(known, key=len)] if known else OTHER_OUTPUT_MAXIMUM


def shape_of(body: Any, *, kind: Kind = "text", output_tokens: int | None = None, files: Files | None = None) -> Shape:
    """Read the shape of a request's body; a body that is no mapping has none but the defaults.

    Args:
        body: The request, or its messages alone.
        kind: What the endpoint makes.
        output_tokens: The limit of one result; None assumes `ASSUMED_OUTPUT_TOKENS`.
        files: What is uploaded beside the body.
    """
    limit = ASSUMED_OUTPUT_TOKENS if output_tokens is None else output_tokens
    if not isinstance(body, Mapping):
        return Shape(kind, 0 if kind == "embedding" else limit, output_kinds=_MODALITIES)
    files = files or Files()
    config = _mapping(body.get("generationConfig") or body.get("generation_config"))
    spoken = body.get("input") if kind == "speech" else None
    return Shape(
        kind=kind,
        output_tokens=0 if kind == "embedding" else limit,
        results=results_of(body),
        output_kinds=frozenset(_output_kinds(body, config)),
        searches=tuple(_searches(body, limit)),
        images=_hosted_images(body),
        image_models=tuple(dict.fromkeys(str(tool.get("model") or HOSTED_IMAGE_MODEL) for tool in _image_tools(body))),
        images_input=files.count if kind == "image" else 0,
        audio_s=-(-files.size // BYTES_PER_AUDIO_SECOND),
        characters=len(spoken) if isinstance(spoken, str) else 0,
    )


def results_of(body: Mapping[str, Any]) -> int:
    """Return how many results a request may have: `n` for each prompt of a list of prompts."""
    config = _mapping(body.get("generationConfig") or body.get("generation_config"))
    each = max(1, *(_number(n) for n in (body.get("n"), body.get("best_of"), config.get("candidateCount"))))
    prompts = sum(isinstance(prompt, str | list | tuple) for prompt in _list(body.get("prompt")))  # no token ids
    return each * max(1, prompts)


def _output_kinds(body: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[str]:
    if "contents" in body and not config.get("responseModalities"):  # the model decides: some of Gemini's draw
        yield from _MODALITIES
    for modality in (*_list(body.get("modalities")), *_list(config.get("responseModalities"))):
        if (name := str(modality).lower()) in _MODALITIES:
            yield name


def _searches(body: Mapping[str, Any], output_tokens: int) -> Iterator[tuple[str, int]]:
    limit = body.get("max_tool_calls")
    for tool in _list(body.get("tools")):
        uses = _mapping(tool).get("max_uses") or limit
        calls = _number(uses) if uses is not None else HOSTED_CALLS
        if (count := _hosted(_mapping(tool), "input" in body or "prompt" in body)) is not None:
            size = gigabytes(tool) if count == "code_sessions" else 1
            yield count, calls * size
    if searches_in_chat(body):
        yield "web_searches", HOSTED_CALLS
    if has_guardrail(body):
        yield from guardrail_units(body, _CHARACTERS_PER_TOKEN * output_tokens).items()


def has_guardrail(body: Mapping[str, Any]) -> bool:
    """Return whether a guardrail of Bedrock evaluates a request and its response."""
    return bool(body.get("guardrailConfig") or body.get("guardrailIdentifier"))


def guardrail_units(body: Mapping[str, Any], written: int) -> dict[str, int]:
    """Return the most units of text that a guardrail of Bedrock evaluates, by count name.

    Args:
        body: The request.
        written: Characters of the response.
    """
    units = sum(-(-len(text) // _CHARACTERS_PER_UNIT) for text in _strings(body)) + -(-written // _CHARACTERS_PER_UNIT)
    # Content, topics and reasoning, whose units cost a little more, and two policies of information.
    return {"guardrail_units": 6 * units, "guardrail_information_units": 2 * units}


def _strings(value: Any) -> Iterator[str | bytes]:
    if isinstance(value, str | bytes):
        yield value
    for member in value.values() if isinstance(value, Mapping) else _list(value):
        yield from _strings(member)


def _hosted(tool: Mapping[str, Any], is_response: bool) -> str | None:
    """Return the count of a hosted tool that costs something for each call.

    Args:
        tool: As the request has it.
        is_response: Whether it is a request to the responses API, whose hosted tools are called by name.
    """
    kind = str(tool.get("type", ""))
    if kind.startswith("web_search_preview"):
        return "web_searches_preview"
    if kind.startswith("web_search") or any(name in tool for name in _GOOGLE_SEARCH):
        return "web_searches"
    if "googleMaps" in tool or "google_maps" in tool:
        return "maps_searches"
    if kind == "shell" and str(_mapping(tool.get("environment")).get("type")).startswith("container"):
        return "code_sessions"
    if kind in _HOSTED:
        return _HOSTED[kind]
    return "other_calls" if is_response and kind and not kind.startswith(_FREE_TOOLS) else None


def searches_in_chat(body: Mapping[str, Any]) -> bool:
    """Return whether a chat completion searches the web, by its options or by its model; its usage does not say so."""
    return body.get("web_search_options") is not None or _SEARCH_MODEL.search(str(body.get("model"))) is not None


def _image_tools(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    tools = [_mapping(tool) for tool in _list(body.get("tools"))]
    return [tool for tool in tools if tool.get("type") == "image_generation"]


def _hosted_images(body: Mapping[str, Any]) -> int:
    limit = body.get("max_tool_calls")
    return (_number(limit) if limit is not None else HOSTED_CALLS) if _image_tools(body) else 0


def highest(
    found: Found,
    model: str,
    bound: Bound,
    shape: Shape,
    *,
    tokens_input: int | None = None,
    writes_cache: bool = False,
) -> Fraction:
    """Return the highest price of a request, in microcents.

    Args:
        found: The price of its model.
        model: The name of the model, as its maker has it.
        bound: The bound of its content.
        shape: What else of the request decides.
        tokens_input: Input tokens, if they are known; otherwise the bound.
        writes_cache: Whether the provider writes to its cache automatically.
    """
    tokens = read_tokens(bound, shape, model, tokens_input)
    if found.window is not None:
        fills = tokens_input is None and bound.may_fill_window(model)
        tokens = found.window if fills else min(tokens, found.window)
    calls = found.price.per_call
    listened_s = shape.audio_s + (billed_seconds(bound.media, model, found.window) if bound.media else 0)
    return max(
        _at(price, price.per_call or calls, tokens, bound, shape, listened_s, writes_cache)
        for price in _reachable(found.price, tokens)
    )


def read_tokens(bound: Bound, shape: Shape, model: str, tokens_input: int | None) -> int:
    """Return the most input tokens of a request: the known ones or the bound, and uploaded images."""
    tokens = bound.tokens(model) if tokens_input is None else tokens_input
    if not shape.images_input:
        return tokens
    images = most_of([Medium("image")] * shape.images_input, model)
    return max(tokens, LARGEST_WINDOW) if images is None else tokens + images


def most_tokens(bound: Bound, shape: Shape, model: str, *, tokens_input: int | None = None) -> int:
    """Return the most tokens that a request may read and write.

    Args:
        bound: The bound of its content.
        shape: What else of the request decides.
        model: The name of the model, as its maker has it.
        tokens_input: Input tokens, if they are known; otherwise the bound.
    """
    read = read_tokens(bound, shape, model, tokens_input) + _AUDIO_TOKENS_PER_SECOND * shape.audio_s
    return read + _output_tokens(shape) + shape.images * (read + IMAGE_TOKENS)


def _reachable(price: Price, tokens: int) -> Iterator[Price]:
    yield price
    for start, longer in price.above.items():
        if tokens > start:
            yield longer


def _at(
    price: Price,
    per_call: Mapping[str, Decimal | Fraction],
    tokens: int,
    bound: Bound,
    shape: Shape,
    listened_s: int,
    writes_cache: bool,
) -> Fraction:
    extra = shape.audio_s * _AUDIO_TOKENS_PER_SECOND
    cost = of_tokens(
        (
            (tokens + extra, _input_rate(price, bound, shape, writes_cache)),
            (_output_tokens(shape), _output_rate(price, shape)),
        )
    )
    for name, n in (*shape.searches, ("audio_ms", listened_s * 1000), ("characters_input", shape.characters)):
        if n:  # fractions are slow, and most requests have none of these
            cost += n * Fraction(call_rate(per_call, name) or 0) * MICROCENTS_PER_USD
    return cost


def _output_tokens(shape: Shape) -> int:
    if shape.kind == "image":
        return IMAGE_TOKENS * shape.results
    if shape.kind == "speech":
        return _SPEECH_TOKENS_PER_CHARACTER * shape.characters
    return shape.output_tokens * shape.results


def _input_rate(price: Price, bound: Bound, shape: Shape, writes_cache: bool) -> Decimal:
    rates = [price.input, price.cached_input]
    if writes_cache or bound.cache:
        rates.append(price.cache_write)
    if bound.cache == "1h":
        rates.append(price.cache_write_1h)
    kinds = {"image" if each.kind == "document" else each.kind for each in bound.media}
    kinds |= {"audio"} if shape.kind == "transcription" else set()
    kinds |= {"image"} if shape.images_input else set()
    for kind in kinds:
        rates += [getattr(price, f"input_{kind}"), getattr(price, f"cached_input_{kind}")]
    return _max(rates)


def _output_rate(price: Price, shape: Shape) -> Decimal:
    rates = [price.output, price.reasoning]
    kinds = set(shape.output_kinds)
    kinds |= {"image"} if shape.kind == "image" else {"audio"} if shape.kind == "speech" else set()
    rates += [getattr(price, f"output_{kind}") for kind in kinds]
    return _max(rates)


def _max(rates: Iterable[Decimal | None]) -> Decimal:
    return max(rate for rate in rates if rate is not None)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _number(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0
