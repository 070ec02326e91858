"""No response costs more than the estimate of its request, for OpenAI's and Gemini's APIs and any rates.

The bodies are generated, and so is any usage that they allow: no more tokens than bytes, the most of each medium, and
no more output than the limits.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

import cycles
from cycles.providers._call import Call, End
from cycles.providers._endpoints import find
from cycles.providers._meter import make_meter
from cycles.providers._provider import Endpoint
from tests.support.short import fewer

ANY = 1_048_576
MEDIA = {  # of the media below, which have three bytes
    "m": {"image": ANY, "audio": ANY, "video": ANY},
    "gpt-4o": {"image": 1_445, "audio": 10},
    "gpt-4o-mini": {"image": 48_169, "audio": 10},
    "gemini-2.5-x": {"image": 4_128, "audio": 32, "video": ANY},
    "gemini-3-x": {"image": 2_240, "audio": 32, "video": ANY},
}
IMAGE = 6_240
CALLS = 5
slow = settings(
    max_examples=fewer(50),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    deadline=None,
)

rates = st.decimals(0, 100, places=3)
words = st.text(max_size=80)
KINDS = ("cached_input", "cache_write", "reasoning", "output_audio", "output_image")
MODALITIES = ("audio", "image", "video")


@st.composite
def prices(draw: st.DrawFn) -> cycles.Price:
    def price(**more: Any) -> cycles.Price:
        names = [*KINDS, *(f"input_{kind}" for kind in MODALITIES), *(f"cached_input_{kind}" for kind in MODALITIES)]
        chosen: dict[str, Any] = {name: draw(st.none() | rates) for name in names}
        return cycles.Price(draw(rates), draw(rates), **chosen, **more)

    calls = {"web_searches": draw(rates), "file_searches": draw(rates)}
    steps = draw(st.lists(st.integers(1, 7_000), max_size=2, unique=True))
    tiers = {"priority": price(per_call=calls)} if draw(st.booleans()) else {}
    return price(above={start: price(per_call=calls) for start in steps}, per_call=calls, tiers=tiers)


@pytest.fixture(scope="module")
def client() -> Iterator[cycles.Cycles]:
    with cycles.Cycles(cycles.Config(base_url="http://localhost", api_key="k", journal=False)) as client:
        yield client


def spent_and_estimated(
    client: cycles.Cycles, provider: Any, path: str, book: dict[str, cycles.Price], body: Any, response: Any
) -> tuple[int, int]:
    """Return what a response costs, and what was reserved for its request."""
    meter = make_meter(provider, provider, {"client": client, "prices": cycles.PriceBook(book)})
    endpoint = find(provider, "POST", path)
    assert isinstance(endpoint, Endpoint)
    call = Call(meter, endpoint, path, body, stream=False, url="")
    call.reserved = call.estimate()
    call.attempts = 1
    call.whole(json.dumps(response).encode())
    amount = call.conclude(End(None, None)).amount
    assert amount is not None
    return amount.amount, call.reserved.amount


class Drawn:
    """Draws parts of numbers."""

    def __init__(self, data: st.DataObject) -> None:
        self._data = data

    def up_to(self, most: int) -> int:
        return self._data.draw(st.just(most) | st.integers(0, most))  # what is exactly allowed, often

    def one_of(self, *values: Any) -> Any:
        return self._data.draw(st.sampled_from(values))

    def text(self) -> str:
        return self._data.draw(words)

    def yes(self) -> bool:
        return self._data.draw(st.booleans())


def _size(text: str) -> int:
    return len(text.encode())


class Read:
    """Input tokens by modality, text too, and how many of each came from the cache."""

    def __init__(self, draw: Drawn, text_bytes: int, media: dict[str, int], model: str = "m") -> None:
        most = {"text": text_bytes, **{kind: min(ANY, n * MEDIA[model][kind]) for kind, n in media.items()}}
        most = most if sum(most.values()) < ANY else {kind: min(n, ANY // 4) for kind, n in most.items()}
        self.tokens = {kind: draw.up_to(n) for kind, n in most.items()}
        self.cached = {kind: draw.up_to(n) for kind, n in self.tokens.items()}
        self.total = sum(self.tokens.values())
        self.from_cache = sum(self.cached.values())
        self.written = draw.up_to(self.tokens["text"] - self.cached["text"])

    def openai(self) -> dict[str, Any]:
        """Return the details in OpenAI's form."""
        details: dict[str, Any] = {f"{kind}_tokens": n for kind, n in self.tokens.items()}
        details |= {"cached_tokens": self.from_cache, "cache_write_tokens": self.written}
        return {**details, "cached_tokens_details": {f"{kind}_tokens": n for kind, n in self.cached.items()}}


@slow
@given(price=prices(), data=st.data())
def test_chat_completions(client: cycles.Cycles, price: cycles.Price, data: st.DataObject) -> None:
    draw = Drawn(data)
    model = draw.one_of("m", "gpt-4o", "gpt-4o-mini")
    text, images, sounds = draw.text(), draw.one_of(0, 0, 0, 2), draw.one_of(0, 0, 0, 1)
    content: list[dict[str, Any]] = [{"type": "text", "text": text}]
    content += [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}] * images
    content += [{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}] * sounds
    limit, n = 1 + draw.up_to(300), 1 + draw.up_to(2)
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": content}], "n": n}
    body[draw.one_of("max_tokens", "max_completion_tokens")] = limit
    speaks, auto = draw.yes(), draw.yes()
    if speaks:
        body["modalities"] = ["text", "audio"]
    if auto:
        body["service_tier"] = "auto"
    if draw.yes():
        body["web_search_options"] = {}
    read = Read(draw, _size(text), {"audio": sounds, "image": images}, model)
    written = draw.up_to(limit * n)
    spoken = draw.up_to(written) if speaks else 0
    response = {
        "model": model,
        "service_tier": draw.one_of("default", "priority") if auto else "default",
        "usage": {
            "prompt_tokens": read.total,
            "prompt_tokens_details": read.openai(),
            "completion_tokens": written,
            "completion_tokens_details": {"reasoning_tokens": draw.up_to(written - spoken), "audio_tokens": spoken},
        },
    }
    spent, estimated = spent_and_estimated(client, "openai", "/chat/completions", {model: price}, body, response)
    assert spent <= estimated


@slow
@given(price=prices(), image_price=prices(), data=st.data())
def test_responses(client: cycles.Cycles, price: cycles.Price, image_price: cycles.Price, data: st.DataObject) -> None:
    draw = Drawn(data)
    text, limit, calls = draw.text(), 1 + draw.up_to(300), draw.up_to(3)
    searches, draws, limits_calls = draw.yes(), draw.yes(), draw.yes()
    most = calls if limits_calls else CALLS
    model = draw.one_of("gpt-image-1", "gpt-image-9")
    body: dict[str, Any] = {"model": "m", "input": text, "max_output_tokens": limit, "tools": []}
    if searches:
        body["tools"] += [{"type": "web_search"}, {"type": "file_search", "vector_store_ids": ["v"]}]
    if draws:
        body["tools"].append({"type": "image_generation", "model": model})
    if limits_calls:
        body["max_tool_calls"] = calls
    written = draw.up_to(limit)
    read = Read(draw, _size(text), {})
    search = {"type": "web_search_call", "action": {"type": "search"}}
    found = [search] * draw.up_to(most if searches else 0) + [{"type": "file_search_call"}] * draw.up_to(
        most if searches else 0
    )
    response: dict[str, Any] = {
        "model": "m",
        "output": found,
        "tools": body["tools"],
        "usage": {
            "input_tokens": read.total,
            "input_tokens_details": read.openai(),
            "output_tokens": written,
            "output_tokens_details": {"reasoning_tokens": draw.up_to(written)},
        },
    }
    if draws and most:
        made = {"input_tokens": draw.up_to(_size(text) * most), "output_tokens": draw.up_to(IMAGE * most)}
        response["tool_usage"] = {"image_gen": made}
    book = {"m": price, "gpt-image-1": image_price, "gpt-image-9": image_price}
    spent, estimated = spent_and_estimated(client, "openai", "/responses", book, body, response)
    assert spent <= estimated


@slow
@given(price=prices(), data=st.data())
def test_embeddings(client: cycles.Cycles, price: cycles.Price, data: st.DataObject) -> None:
    draw = Drawn(data)
    texts = [draw.text() for _ in range(1 + draw.up_to(2))]
    body = {"model": "m", "input": texts if len(texts) > 1 else texts[0]}
    response = {"model": "m", "data": [], "usage": {"prompt_tokens": draw.up_to(sum(map(_size, texts)))}}
    spent, estimated = spent_and_estimated(client, "openai", "/embeddings", {"m": price}, body, response)
    assert spent <= estimated


@slow
@given(price=prices(), data=st.data())
def test_images(client: cycles.Cycles, price: cycles.Price, data: st.DataObject) -> None:
    draw = Drawn(data)
    prompt, n = draw.text(), 1 + draw.up_to(3)
    written = draw.up_to(IMAGE * n)
    usage = {
        "input_tokens": draw.up_to(_size(prompt)),
        "output_tokens": written,
        "output_tokens_details": {"image_tokens": draw.up_to(written)},
    }
    body, response = {"model": "m", "prompt": prompt, "n": n}, {"created": 1, "data": [], "usage": usage}
    spent, estimated = spent_and_estimated(client, "openai", "/images/generations", {"m": price}, body, response)
    assert spent <= estimated


@slow
@given(price=prices(), data=st.data())
def test_gemini(client: cycles.Cycles, price: cycles.Price, data: st.DataObject) -> None:
    draw = Drawn(data)
    model = draw.one_of("gemini-2.5-x", "gemini-3-x")
    text, limit, n = draw.text(), 1 + draw.up_to(300), 1 + draw.up_to(2)
    media = {kind: draw.one_of(0, 0, 0, 1) for kind in MODALITIES}
    parts: list[dict[str, Any]] = [{"text": text}]
    parts += [
        {"inlineData": {"mimeType": f"{kind}/x", "data": "AAAA"}} for kind, count in media.items() for _ in range(count)
    ]
    config: dict[str, Any] = {"maxOutputTokens": limit, "candidateCount": n}
    shows, searches = draw.yes(), draw.yes()
    if shows:
        config["responseModalities"] = ["TEXT", "IMAGE"]
    body: dict[str, Any] = {"contents": [{"parts": parts}], "generationConfig": config}
    if searches:
        body["tools"] = [{"googleSearch": {}}]
    read = Read(draw, _size(text), media, model)
    written = draw.up_to(limit * n)
    thoughts = draw.up_to(written)
    drawn = draw.up_to(written - thoughts) if shows else 0
    queries = ["q"] * draw.up_to(CALLS if searches else 0)
    response = {
        "modelVersion": model,
        "candidates": [{"groundingMetadata": {"webSearchQueries": queries}}],
        "usageMetadata": {
            "promptTokenCount": read.total,
            "cachedContentTokenCount": read.from_cache,
            "promptTokensDetails": [{"modality": kind.upper(), "tokenCount": n} for kind, n in read.tokens.items()],
            "cacheTokensDetails": [{"modality": kind.upper(), "tokenCount": n} for kind, n in read.cached.items()],
            "candidatesTokenCount": written - thoughts,
            "thoughtsTokenCount": thoughts,
            "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": drawn}],
        },
    }
    path = f"models/{model}:generateContent"
    spent, estimated = spent_and_estimated(client, "google", path, {model: price}, body, response)
    assert spent <= estimated


# --- what the usage of a response does not report, and what a request leaves open


def test_a_search_of_a_chat_completion_is_reserved_and_charged(client: cycles.Cycles) -> None:
    price = cycles.Price("1", "10", per_call={"web_searches": "0.01"})
    response = {"model": "m", "usage": {"prompt_tokens": 10, "completion_tokens": 0}}
    body: dict[str, Any] = {"model": "m", "messages": [], "max_tokens": 0}
    plain = spent_and_estimated(client, "openai", "/chat/completions", {"m": price}, body, response)
    assert plain[0] == 1_000
    searching = {**body, "web_search_options": {"search_context_size": "low"}}
    spent, estimated = spent_and_estimated(client, "openai", "/chat/completions", {"m": price}, searching, response)
    assert spent == 1_000 + 1_000_000
    assert estimated >= plain[1] + CALLS * 1_000_000
    named = {**body, "model": "m-search-preview"}
    book = {"m-search-preview": price}
    spent, _ = spent_and_estimated(client, "openai", "/chat/completions", book, named, {**response, "model": None})
    assert spent == 1_000 + 1_000_000


def test_a_hosted_image_is_reserved_at_the_price_of_its_model(client: cycles.Cycles) -> None:
    book = {"m": cycles.Price(0, 0), "gpt-image-1": cycles.Price(0, 1), "dear": cycles.Price(0, 9)}
    estimates = []
    for tool in ({}, {"model": "dear"}):
        body = {"model": "m", "input": "x", "tools": [{"type": "image_generation", **tool}], "max_tool_calls": 1}
        response = {"model": "m", "usage": {"input_tokens": 1, "output_tokens": 1}}
        estimates.append(spent_and_estimated(client, "openai", "/responses", book, body, response)[1])
    assert estimates == [IMAGE * 100, IMAGE * 900]


def test_a_hosted_image_of_a_model_without_a_price_is_rejected(client: cycles.Cycles) -> None:
    body = {"model": "m", "input": "x", "tools": [{"type": "image_generation", "model": "new"}]}
    with pytest.raises(cycles.UnknownModelError, match="'new'"):
        spent_and_estimated(client, "openai", "/responses", {"m": cycles.Price(1, 1)}, body, {})


def test_the_tier_auto_is_reserved_at_the_priority_price(client: cycles.Cycles) -> None:
    price = cycles.Price(1, 1, tiers={"priority": cycles.Price(2, 2)})
    body = {"model": "m", "messages": [], "max_tokens": 1000, "service_tier": "auto"}
    usage = {"prompt_tokens": 0, "completion_tokens": 1000}
    response = {"model": "m", "service_tier": "priority", "usage": usage}
    spent, estimated = spent_and_estimated(client, "openai", "/chat/completions", {"m": price}, body, response)
    assert spent == 200_000
    assert estimated >= spent


def test_each_prompt_of_a_list_has_its_own_results(client: cycles.Cycles) -> None:
    body = {"model": "m", "prompt": ["a", "b", "c"], "n": 2, "best_of": 4, "max_tokens": 1000}
    response = {"model": "m", "usage": {"prompt_tokens": 0, "completion_tokens": 3 * 4 * 1000}}
    book = {"m": cycles.Price(0, 1)}
    spent, estimated = spent_and_estimated(client, "openai", "/completions", book, body, response)
    assert spent == estimated == 3 * 4 * 1000 * 100
    token_ids = {**body, "prompt": [1, 2, 3]}
    assert spent_and_estimated(client, "openai", "/completions", book, token_ids, response)[1] == 4 * 1000 * 100


def test_a_gemini_request_without_modalities_may_draw(client: cycles.Cycles) -> None:
    price = cycles.Price(0, 1, output_image=30)
    body: dict[str, Any] = {"contents": [], "generationConfig": {"maxOutputTokens": 1000}}
    drawn = {"candidatesTokenCount": 1000, "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1000}]}
    path, response = "models/m:generateContent", {"modelVersion": "m", "usageMetadata": drawn}
    spent, estimated = spent_and_estimated(client, "google", path, {"m": price}, body, response)
    assert spent == estimated == 30 * 1000 * 100
    body["generationConfig"]["responseModalities"] = ["TEXT"]
    assert spent_and_estimated(client, "google", path, {"m": price}, body, response)[1] == 1000 * 100
    assert cycles.PriceBook({"m": price}).estimate("m", "", max_output_tokens=1000).amount == 30 * 1000 * 100


def test_a_gemini_request_of_a_tier_is_reserved_and_charged_at_its_price(client: cycles.Cycles) -> None:
    price = cycles.Price(1, 1, tiers={"priority": cycles.Price(2, 2)})
    body = {"contents": [], "generationConfig": {"maxOutputTokens": 1000}, "serviceTier": "PRIORITY"}
    response = {"modelVersion": "m", "usageMetadata": {"candidatesTokenCount": 1000, "serviceTier": "priority"}}
    path = "models/m:generateContent"
    spent, estimated = spent_and_estimated(client, "google", path, {"m": price}, body, response)
    assert spent == 200_000
    assert estimated >= spent


def test_a_fast_request_is_reserved_and_charged_at_its_price(client: cycles.Cycles) -> None:
    price = cycles.Price(0, 1, tiers={"fast": cycles.Price(0, 6)})
    body = {"model": "m", "messages": [], "max_tokens": 1000}
    usage = {"input_tokens": 0, "output_tokens": 1000}
    path, fast = "/v1/messages", {"model": "m", "usage": {**usage, "speed": "fast"}}
    spent = spent_and_estimated(client, "anthropic", path, {"m": price}, {**body, "speed": "fast"}, fast)
    assert spent == (600_000, 600_000)
    usual = spent_and_estimated(client, "anthropic", path, {"m": price}, body, {"model": "m", "usage": usage})
    assert usual == (100_000, 100_000)
