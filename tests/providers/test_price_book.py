"""PriceBook: lookups, the data of genai-prices, and an estimate that no response exceeds."""

from __future__ import annotations

import decimal
import json
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st

import cycles
from cycles._usage.estimating import Shape
from cycles.prices import Origin
from cycles.usage import anthropic, openai

pytest.importorskip("genai_prices")

AT = datetime(2026, 11, 1, tzinfo=UTC)
GENAI = cycles.PriceBook.genai(at=AT)


@pytest.mark.parametrize(
    ("model", "counts", "dollars"),
    [
        ("gpt-4o", {"tokens_input": 1000, "tokens_cached_input": 400, "tokens_output": 500}, "0.007"),
        ("gpt-4o-2024-08-06", {"tokens_input": 1_000_000}, "2.5"),
        ("models/gemini-2.5-pro", {"tokens_input": 200_000, "tokens_output": 1000}, "0.26"),
        ("publishers/google/models/gemini-2.5-pro", {"tokens_input": 200_001, "tokens_output": 1000}, "0.5150025"),
        ("claude-sonnet-4-5-20250929", {"tokens_input": 1000, "tokens_cache_write": 1000}, "0.00375"),
        ("claude-sonnet-4-5", {"tokens_input": 9, "tokens_cache_write": 9, "tokens_cache_write_1h": 9}, "0.000054"),
        ("claude-sonnet-4-5", {"tokens_input": 9, "tokens_cache_write_1h": 9}, "0.000054"),  # only the part is known
        ("text-embedding-3-small", {"tokens_input": 1_000_000}, "0.02"),
        ("whisper-1", {"audio_ms": 60_000}, "0.006"),
        ("gpt-live-1", {"audio_ms": 3_600_000}, "3"),  # an hourly rate that is no finite decimal per millisecond
        ("gpt-realtime-whisper", {"audio_ms": 3_600_000}, "1.02"),
        ("tts-1", {"characters_input": 1000}, "0.015"),
        ("gpt-4o", {"web_searches": 1}, "0.01"),
    ],
)
def test_prices_of_genai(model: str, counts: dict[str, int], dollars: str) -> None:
    assert GENAI.cost(model, **counts) == cycles.usd(dollars)


def test_a_tier_has_its_price_from_the_day_on_which_it_is_known() -> None:
    flex = {"service_tier": "flex"}
    assert GENAI.cost("gpt-5", tokens_input=1_000_000, context=flex) == cycles.usd("0.625")
    assert GENAI.cost("gpt-5", tokens_input=1_000_000) == cycles.usd("1.25")
    before = cycles.PriceBook.genai(at=datetime(2026, 10, 1, tzinfo=UTC))
    used = openai({"model": "gpt-5", "service_tier": "flex", "usage": {"prompt_tokens": 1_000_000}})
    assert before.priced(used).unpriced == ("service_tier:flex",)
    assert before.cost(used) == cycles.usd("1.25")
    # A guarded client knows when it has sent a request; the time of the book wins.
    assert before.priced(used, Origin(provider="openai", at=AT)).unpriced == ("service_tier:flex",)
    assert cycles.PriceBook.genai().priced(used, Origin(provider="openai", at=AT)).unpriced == ()


def test_overrides_win_and_aliases_lead_to_models() -> None:
    aliases = {"prod-chat": "gpt-5", "mine": "gpt-4o", "prod-writer": "claude-sonnet-4-5"}
    book = cycles.PriceBook.genai({"gpt-4o": ("1", "1")}, aliases=aliases)
    aliases["prod-chat"] = "gpt-5-nano"  # the book has its own copy
    million = 1_000_000
    assert book.cost("gpt-4o", tokens_input=million) == cycles.usd(1)
    assert book.cost("gpt-4o-2024-08-06", tokens_input=million) == cycles.usd(1)
    assert book.cost("mine", tokens_input=million) == cycles.usd(1)
    assert book.cost("prod-chat", tokens_input=million) == cycles.usd("1.25")
    assert book.cost("models/prod-chat", tokens_input=million) == cycles.usd("1.25")
    of_alias, of_model = (
        book.estimate(name, "x" * 1_000, max_output_tokens=1) for name in ("prod-writer", "claude-sonnet-4-5")
    )
    assert of_alias == of_model
    assert cycles.PriceBook({"models/own": ("1", "1")}).cost("models/own", tokens_input=million) == cycles.usd(1)


def test_a_provider_decides_between_prices_of_the_same_model() -> None:
    azure = cycles.PriceBook.genai(provider="azure", at=AT)
    assert azure.cost("text-embedding-3-small", tokens_input=10**9) == cycles.usd(20)
    assert azure.cost("gpt-4o", tokens_input=1_000_000) == cycles.usd("2.5")  # by its fallback to OpenAI's list


def test_an_unknown_model_names_both_remedies() -> None:
    with pytest.raises(cycles.UnknownModelError, match=r"no model 'nope-9'.*overrides=.*aliases=.*fallback=") as raised:
        GENAI.cost("nope-9", tokens_input=1)
    assert isinstance(raised.value, cycles.InvalidRequestError)
    with pytest.raises(cycles.UnknownModelError):
        GENAI.estimate("nope-9", "x", max_output_tokens=1)
    assert "nope-9" not in GENAI


@pytest.mark.parametrize(
    ("of_response", "of_request", "microcents"), [("a", "b", 100), (None, "b", 200), (None, None, 300)]
)
def test_the_model_of_a_response_then_of_its_request_then_the_default_has_the_price(
    of_response: str | None, of_request: str | None, microcents: int
) -> None:
    book = cycles.PriceBook({"a": ("1", "1"), "b": ("2", "1"), "c": ("3", "1")}, default_model="c")
    used = cycles.Usage()
    used.see_response("r", {"tokens_input": 1}, model=of_response)
    assert book.priced(used, Origin(model=of_request)).amount.amount == microcents


def test_the_price_of_the_requests_model_comes_before_the_fallback() -> None:
    book = cycles.PriceBook.genai({"b": ("2", "1")}, fallback=cycles.Price("9", "9"), at=AT)
    used = cycles.Usage()
    used.see_response("r", {"tokens_input": 1}, model="b-of-tomorrow")
    priced = book.priced(used, Origin(model="b"))
    assert (priced.amount.amount, priced.fallback) == (200, False)


@pytest.mark.parametrize("models", [("gpt-4o", "nope-9"), ("nope-9", "gpt-4o")])
def test_a_usage_has_a_fallback_if_one_of_its_responses_has(models: tuple[str, str]) -> None:
    book = cycles.PriceBook.genai(fallback=cycles.Price("1", "1"), at=AT)
    used = cycles.Usage()
    for number, model in enumerate(models):
        used.see_response(number, {"tokens_input": 1_000_000}, model=model)
    priced = book.priced(used)
    assert (priced.fallback, priced.amount) == (True, cycles.usd("3.5"))


@pytest.mark.parametrize("fallback", [cycles.Price("2.5", "10"), "gpt-4o"])
def test_a_fallback_prices_unknown_models_and_is_logged_once(fallback: Any, caplog: pytest.LogCaptureFixture) -> None:
    book = cycles.PriceBook.genai(fallback=fallback, at=AT)
    used = openai({"model": "nope-9", "usage": {"prompt_tokens": 1_000_000}})
    for _ in range(2):
        assert book.cost(used) == cycles.usd("2.5")
    used.see_response("r2", {"tokens_input": 1}, model="gpt-4o")  # a part suffices
    assert book.priced(used).fallback
    assert [r.getMessage() for r in caplog.records] == [
        "price of model nope-9, fallback: no price is known for it; the fallback price is used"
    ]


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices.data_snapshot", None)
    with pytest.raises(cycles.ConfigurationError, match=r"pip install 'cycles-sdk\[prices\]'"):
        cycles.PriceBook.genai()


def test_a_sum_is_rounded_up_once_in_any_decimal_context() -> None:
    book = cycles.PriceBook({"m": cycles.Price("0.001", "0.001")})
    used = cycles.Usage()
    for name in range(4):
        openai({"id": f"r{name}", "model": "m", "usage": {"prompt_tokens": 4}}, used)
    with decimal.localcontext() as context:
        context.prec, context.rounding = 1, decimal.ROUND_FLOOR
        assert book.cost(used) == cycles.usd_microcents(2)  # 4 x 0.4 = 1.6, not 4 x 1
        assert GENAI.cost("gpt-4o", tokens_input=123_457) == cycles.usd("0.3086425")


def test_counts_of_zero_cost_nothing_and_wrong_ones_are_rejected() -> None:
    assert GENAI.cost("gpt-4o") == cycles.usd(0)
    with pytest.raises(cycles.InvalidRequestError, match=r"usage\.tokens_input"):
        GENAI.cost("gpt-4o", tokens_input=-1)
    with pytest.raises(TypeError, match="no count 'tokens'"):
        GENAI.cost("gpt-4o", tokens=1)  # type: ignore[call-overload]
    with pytest.raises(cycles.InvalidRequestError, match="per_call has no count 'searches'"):
        cycles.Price(1, 1, per_call={"searches": 1})
    with pytest.raises(cycles.InvalidRequestError, match="above must map integers"):
        cycles.Price(1, 1, above={"many": cycles.Price(1, 1)})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("model", "content", "limit", "dollars"),
    [
        ("gpt-4o", "hello", 100, (5 * 2.5 + 100 * 10) / 1e6),
        ("gpt-4o", "größe", 0, 7 * 2.5 / 1e6),  # bytes, not characters
        ("gpt-4o", [{"role": "user", "content": "hé"}], 0, 33 * 2.5 / 1e6),
        ("claude-sonnet-4-5", "hello", 10, (5 * 3 + 10 * 15) / 1e6),
        ("gpt-4o", "x" * 300_000, 0, 128_000 * 2.5 / 1e6),  # the context window
        ("gemini-2.5-pro", "x" * 300_000, 10, (300_000 * 2.5 + 10 * 15) / 1e6),  # a long context
    ],
)
def test_estimates(model: str, content: Any, limit: int, dollars: float) -> None:
    assert GENAI.estimate(model, content, max_output_tokens=limit) == cycles.usd(dollars)


def estimate(body: dict[str, Any], limit: int = 0, **options: Any) -> float:
    return float(cycles.to_usd(GENAI.estimate(body["model"], body, max_output_tokens=limit, **options))) * 1e6


def bytes_of(body: dict[str, Any]) -> int:
    return len(json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode())


def test_images_count_their_most_tokens_and_unknown_media_the_context_window() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 50_000}}
    empty = {"type": "image_url", "image_url": ""}
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": [picture, picture]}]}
    bare = {"model": "gpt-4o", "messages": [{"role": "user", "content": [empty, empty]}]}
    assert estimate(body) == (bytes_of(bare) + 2 * 1_445) * 2.5
    by_reference = {"model": "gpt-4o", "input": [{"type": "input_file", "file_id": "f1"}]}
    assert estimate(by_reference) == 128_000 * 2.5


def test_audio_raises_the_rate_of_the_input() -> None:
    body = {
        "model": "gpt-audio",
        "messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": ""}]}],
    }
    plain = estimate(body)
    body["messages"][0]["content"][0]["input_audio"] = {"data": "A" * 4_000, "format": "wav"}  # type: ignore[index]
    assert estimate(body) == (plain / 2.5 + 4 * 10) * 32  # 3,000 bytes are at most 4 seconds


def test_unseen_context_counts() -> None:
    body = {"model": "gpt-4o", "input": "x", "previous_response_id": "r", "conversation": "c", "prompt": {"id": "p"}}
    assert estimate(body) == (bytes_of(body) + 3 * 8_192) * 2.5


def test_results_and_modalities_multiply_the_output() -> None:
    body = {"model": "gpt-audio", "n": 3, "modalities": ["text", "audio"], "messages": []}
    assert estimate(body, 10) == bytes_of(body) * 2.5 + 3 * 10 * 64


@pytest.mark.parametrize(
    ("control", "rate"), [({"type": "ephemeral"}, 3.75), ({"type": "ephemeral", "ttl": "1h"}, 6.0)]
)
def test_cache_control_raises_the_rate_of_the_input(control: dict[str, str], rate: float) -> None:
    text = {"type": "text", "text": "x", "cache_control": control}
    body = {"model": "claude-sonnet-4-5", "messages": [{"role": "user", "content": [text]}]}
    assert estimate(body) == pytest.approx(bytes_of(body) * rate)


@pytest.mark.parametrize(
    ("tool", "more", "calls"),
    [
        ({"type": "web_search"}, {}, 5),
        ({"type": "web_search"}, {"max_tool_calls": 2}, 2),
        ({"type": "web_search_20250305", "max_uses": 7}, {}, 7),
    ],
)
def test_hosted_searches_are_reserved(tool: dict[str, Any], more: dict[str, Any], calls: int) -> None:
    body = {"model": "gpt-4o", "input": "x", "tools": [tool], **more}
    assert estimate(body) == pytest.approx(bytes_of(body) * 2.5 + calls * 10_000)


def test_a_user_counts_tokens() -> None:
    book = cycles.PriceBook.genai(count_tokens=lambda model, content: 42, at=AT)
    assert book.estimate("gpt-4o", "x" * 999, max_output_tokens=0) == cycles.usd(42 * 2.5 / 1e6)


def test_known_input_replaces_the_bound_and_a_tier_its_price() -> None:
    body = {"model": "gpt-5"}
    assert estimate(body, tokens_input=1000) == 1250
    assert estimate(body, tokens_input=1000, context={"service_tier": "priority"}) == 2500
    assert estimate(body, tokens_input=1000, context={"service_tier": "flex"}) == 1250


rates = st.decimals(0, 100, places=3)


@st.composite
def priced_models(draw: st.DrawFn) -> cycles.Price:
    def price(**more: Any) -> cycles.Price:
        names = ("cached_input", "cache_write", "cache_write_1h", "input_image", "cached_input_image", "reasoning")
        chosen: dict[str, Any] = {name: draw(st.none() | rates) for name in names}
        return cycles.Price(draw(rates), draw(rates), **chosen, **more)

    steps = draw(st.lists(st.integers(1, 200), max_size=2, unique=True))
    return price(above={start: price() for start in steps}, per_call={"web_searches": draw(rates)})


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)  # machines of CI may be busy
@given(price=priced_models(), data=st.data())
def test_no_response_costs_more_than_the_estimate(price: cycles.Price, data: st.DataObject) -> None:
    words = data.draw(st.text(max_size=120))
    control = data.draw(st.sampled_from([None, {"type": "ephemeral"}, {"type": "ephemeral", "ttl": "1h"}]))
    text: dict[str, Any] = {"type": "text", "text": words}
    if control:
        text["cache_control"] = control
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    pictures = data.draw(st.integers(0, 2))
    limit, searches = data.draw(st.integers(0, 300)), data.draw(st.integers(0, 6))
    body = {
        "messages": [{"role": "user", "content": [text, *[picture] * pictures]}],
        "tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": searches}],
    }
    most = len(words.encode("utf-8", "surrogatepass")) + 4_784 * pictures
    total = data.draw(st.integers(0, most))
    read = data.draw(st.integers(0, total))
    written = data.draw(st.integers(0, total - read)) if control else 0
    long = written if control and "ttl" in control else 0
    output = data.draw(st.integers(0, limit))
    response = {
        "type": "message",
        "model": "claude-x",
        "usage": {
            "input_tokens": total - read - written,
            "cache_read_input_tokens": read,
            "cache_creation_input_tokens": written,
            "cache_creation": {"ephemeral_1h_input_tokens": long},
            "output_tokens": output,
            "output_tokens_details": {"thinking_tokens": data.draw(st.integers(0, output))},
            "server_tool_use": {"web_search_requests": data.draw(st.integers(0, searches))},
        },
    }
    book = cycles.PriceBook({"claude-x": price})
    used = anthropic(response)
    cost = book.cost(used) if used.is_filled else cycles.usd(0)
    assert book.estimate("claude-x", body, max_output_tokens=limit).amount >= cost.amount


@given(st.text(max_size=200))
@example("\ud800 lone")
@example("🙂" * 10)
def test_the_bound_of_text_is_its_bytes(words: str) -> None:
    at_least = len(words.encode("utf-8", "surrogatepass"))
    book = cycles.PriceBook({"m": cycles.Price(1, 1)})
    assert book.estimate("m", words, max_output_tokens=0) == cycles.usd_microcents(at_least * 100)
    in_messages = book.estimate("m", [{"role": "user", "content": words}], max_output_tokens=0)
    assert in_messages.amount >= at_least * 100


def test_the_bound_is_available_without_a_price() -> None:
    assert cycles.usage.token_bound("größe") == 7
    file = {"input": [{"type": "input_file", "file_id": "f"}]}
    assert cycles.usage.token_bound(file) == 1_048_576
    assert cycles.usage.token_bound({"input": [{"type": "input_image", "file_id": "f"}]}, "gpt-4o") < 1_600


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: cycles.Price(1, 1, above=5), "above must be a mapping, got 5"),  # type: ignore[arg-type]
        (lambda: cycles.Price(1, 1, per_call=["x"]), "per_call must be a mapping"),  # type: ignore[arg-type]
        (lambda: cycles.Price(1, 1, tiers="flex"), "tiers must be a mapping, got 'flex'"),  # type: ignore[arg-type]
        (lambda: cycles.Price(1, 1, tiers={"flex": 5}), r"a price must be a cycles\.Price"),
        (lambda: cycles.PriceBook(5), "prices must be a mapping"),  # type: ignore[arg-type]
        (lambda: cycles.PriceBook({"m": 5}), r"the price of 'm': a price must be a cycles\.Price"),  # type: ignore[dict-item]
        (lambda: cycles.PriceBook.genai(aliases="x"), "aliases must be a mapping"),  # type: ignore[arg-type]
        (lambda: cycles.PriceBook.genai(at="today"), "at must be a datetime"),  # type: ignore[arg-type]
        (lambda: cycles.PriceBook.genai(count_tokens=5), "count_tokens must be a callable"),  # type: ignore[arg-type]
        (lambda: GENAI.estimate("gpt-4o", iter(["x"]), max_output_tokens=1), "read only once; pass a list"),
    ],
)
def test_wrong_prices_are_one_clear_error(make: Any, says: str) -> None:
    with pytest.raises(cycles.InvalidRequestError, match=says):
        make()


def test_a_model_that_only_another_provider_has_is_no_suggestion_for_itself() -> None:
    pytest.importorskip("genai_prices")
    assert cycles.PriceBook.genai().has("openai/gpt-oss-120b", Origin(url="https://api.groq.com/openai/v1"))
    with pytest.raises(cycles.UnknownModelError, match=r"no model 'openai/gpt-oss-120b': pass its price"):
        cycles.PriceBook.genai().price("openai/gpt-oss-120b")


# --- names that have more than one price, and options that are given together

MISTRAL = Origin(provider="mistral")
FLEX = {"service_tier": "flex"}


def used(model: str, **context: str) -> cycles.Usage:
    usage = cycles.Usage()
    usage.see_response("r", {"tokens_input": 1_000_000}, model=model, context=context)
    return usage


def test_a_name_with_latest_has_the_highest_price_of_what_it_may_be() -> None:
    assert GENAI.priced(used("pixtral-latest"), MISTRAL).amount == cycles.usd(2)
    own = cycles.PriceBook.genai({"pixtral-latest": ("0.5", "1")}, at=AT)
    assert own.priced(used("pixtral-latest"), MISTRAL).amount == cycles.usd("0.5")
    most = own.bounds("pixtral-latest", "x", Shape(), tokens_input=1_000_000, origin=MISTRAL)
    assert most(0) == cycles.usd("0.5")  # also of a request, whose model the data may have under more names


@pytest.mark.parametrize(
    "url", [None, "https://openrouter.ai/api/v1", "https://api.openai.com/v1", "https://x.example"]
)
def test_a_name_with_latest_is_looked_up_where_it_is_listed_if_the_host_lists_no_such_model(url: str | None) -> None:
    assert GENAI.priced(used("pixtral-latest"), Origin(provider="mistral", url=url)).amount == cycles.usd(2)


@pytest.mark.parametrize("model", ["mine", "models/mine", "publishers/google/models/mine"])
def test_an_alias_is_found_behind_the_path_of_a_model(model: str) -> None:
    book = cycles.PriceBook.genai(aliases={"mine": "gpt-4o"}, at=AT)
    assert book.cost(model, tokens_input=1_000_000) == cycles.usd("2.5")


@pytest.mark.parametrize(
    ("model", "is_known"),
    [("m-2024-08-06", True), ("m@20250101", True), ("m-2024-08-06-mini", False), ("m-2024", False), ("n-m", False)],
)
def test_only_a_date_at_the_end_is_left_out_of_a_name(model: str, is_known: bool) -> None:
    assert (model in cycles.PriceBook({"m": ("1", "1")})) is is_known


@pytest.mark.parametrize("prefix", ["", "models/", "publishers/google/models/"])
@pytest.mark.parametrize("model", ["m", "m-2024-08-06", "m@20250101"])
def test_a_dated_name_is_found_behind_a_path_and_behind_an_alias(prefix: str, model: str) -> None:
    book = cycles.PriceBook.genai({"m": ("1", "1")}, aliases={"mine": prefix + model}, at=AT)
    plain = cycles.PriceBook({"m": ("1", "1")})
    costs = [found.cost(prefix + model, tokens_input=1_000_000) for found in (plain, book)]
    assert [*costs, book.cost("mine", tokens_input=1_000_000)] == [cycles.usd(1)] * 3


def test_a_fallback_without_the_tier_of_a_response_is_reported() -> None:
    for fallback in ("gpt-4o-mini", cycles.Price("1", "1")):
        book = cycles.PriceBook.genai({"gpt-4o-mini": ("1", "1")}, fallback=fallback, at=AT)
        priced = book.priced(used("nope-9", **FLEX))
        assert (priced.unpriced, priced.fallback, priced.amount) == (("service_tier:flex",), True, cycles.usd(1))


def test_writes_of_the_cache_are_reserved_by_the_model_that_an_alias_names() -> None:
    price = cycles.Price("1", "1", cache_write="4")
    book = cycles.PriceBook.genai({"claude-own": price, "gpt-own": price}, aliases={"c": "claude-own", "g": "gpt-own"})
    costs = [book.estimate(model, "x", max_output_tokens=0, tokens_input=1_000_000) for model in ("c", "g")]
    assert costs == [cycles.usd(1), cycles.usd(4)]  # Claude writes to its cache only if the request says so


@pytest.mark.parametrize(("counts", "known", "tokens"), [(None, 3, 3), (None, 5_000, 12), (7, 3, 7), (7, None, 7)])
def test_the_lower_bound_of_the_input_counts_unless_the_user_counts_it(
    counts: int | None, known: int | None, tokens: int
) -> None:
    count = None if counts is None else lambda model, content: counts
    book = cycles.PriceBook.genai({"m": ("1", "1")}, count_tokens=count)
    assert book.bounds("m", "twelve bytes", Shape(), known_input=known)(0).amount == tokens * 100
    assert book.token_bounds("m", "twelve bytes", Shape(), known_input=known)(0) == cycles.tokens(tokens)


@pytest.mark.parametrize("counted", [-1, 1.5, "7", None])
def test_a_function_that_counts_tokens_must_return_a_count(counted: Any) -> None:
    book = cycles.PriceBook.genai({"m": ("1", "1")}, count_tokens=lambda model, content: counted)
    with pytest.raises(cycles.InvalidRequestError, match="count_tokens must be"):
        book.count_output("m", b"text")
    with pytest.raises(cycles.InvalidRequestError, match="count_tokens must be"):
        book.estimate("m", "text", max_output_tokens=0)


@pytest.mark.parametrize("models", [("cheap", "dear"), ("dear", "cheap")])
def test_the_dearest_of_several_image_models_is_reserved(models: tuple[str, str]) -> None:
    book = cycles.PriceBook({"m": ("0", "0"), "cheap": ("1", "1"), "dear": ("10", "10")})
    costs = []
    for names in (models, ("dear", "dear")):
        tools = [{"type": "image_generation", "model": name} for name in names]
        costs.append(book.estimate("m", {"model": "m", "input": "x", "tools": tools}, max_output_tokens=0))
    assert costs[0] >= costs[1] > cycles.usd(0)  # its text is longer


@pytest.mark.parametrize("given", [True, False])
def test_each_hosted_image_reads_the_input_that_is_known(given: bool) -> None:
    book = cycles.PriceBook({"m": ("0", "0"), "own": ("1", "0")})
    tool = {"type": "image_generation", "model": "own"}
    costs = []
    for tokens in (1_000, 3_000):
        body = {"model": "m", "input": "x" if given else "x" * tokens, "max_tool_calls": 2, "tools": [tool]}
        costs.append(
            book.estimate("m", body, max_output_tokens=0, tokens_input=tokens if given else None).amount,
        )
    assert costs[1] - costs[0] == 2 * 2_000 * 100
