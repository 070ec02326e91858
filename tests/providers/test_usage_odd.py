"""Readers of usage raise nothing and drop no count, for any shape of a response."""

from __future__ import annotations

import math
from typing import Any

import pytest

import cycles
from cycles._usage.readers import any_response, reported_total
from cycles.usage import anthropic, google, openai


class Raising:
    """Raises for every attribute."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __bool__(self) -> bool:
        raise RuntimeError("bool")


class RaisingMapping(dict[str, Any]):
    """Raises for every member."""

    def get(self, *_: Any) -> Any:
        raise KeyError("no member")


ODD: tuple[Any, ...] = (
    None,
    "x",
    "",
    -1,
    0,
    1.5,
    math.nan,
    math.inf,
    10**400,
    True,
    [],
    [1],
    {},
    {"a": []},
    b"x",
    object(),
    set(),
)
MEMBERS = {
    openai: ("id", "model", "service_tier", "output", "tools", "tool_usage", "svg_usage", "response"),
    anthropic: ("id", "model", "message", "type"),
    google: ("modelVersion", "responseId", "candidates"),
}
REPORTED = {
    openai: {"usage": {"prompt_tokens": 3, "completion_tokens": 4}},
    anthropic: {"usage": {"input_tokens": 3, "output_tokens": 4}},
    google: {"usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 4}},
}


@pytest.mark.parametrize("reader", [openai, anthropic, google])
@pytest.mark.parametrize("odd", [*ODD, Raising(), RaisingMapping()], ids=lambda odd: type(odd).__name__)
def test_an_odd_member_raises_nothing_and_drops_no_count(reader: Any, odd: Any) -> None:
    assert reader(odd).counts == {}
    for member in MEMBERS[reader]:
        usage = reader({**REPORTED[reader], member: odd})
        assert (usage.tokens_input, usage.tokens_output) == (3, 4), member
    [(outer, counts)] = REPORTED[reader].items()
    for name in counts:
        usage = reader({outer: {**counts, name: odd, "prompt_tokens_details": odd, "cacheTokensDetails": odd}})
        assert all(isinstance(n, int) and n >= 0 for n in usage.counts.values())
    book = cycles.PriceBook({"m": cycles.Price("1", "2")}, default_model="m")
    assert book.cost(REPORTED[reader]) == cycles.usd_microcents(3 * 100 + 4 * 200)


def test_counts_beside_an_absent_whole_are_not_dropped() -> None:
    cached = anthropic(
        {"usage": {"input_tokens": None, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 7}}
    )
    assert (cached.tokens_input, cached.tokens_cached_input, cached.tokens_cache_write) == (12, 5, 7)
    assert openai({"usage": {"prompt_tokens": 2.5, "completion_tokens": 0}}).tokens_input == 3


@pytest.mark.parametrize(
    ("seconds", "milliseconds"),
    [
        (0, 0),
        (1, 1_000),
        (0.0005, 1),
        (1.2, 1_200),
        (2.3, 2_300),  # 2299.9999999999995 as a product
        (1.0000000004, 1_000),
        (1.000000001, 1_001),
        (999_999_999_999, 999_999_999_999_000),
        (1e12, None),
        (-1, None),
        (True, None),
        ("1", None),
        (math.nan, None),
    ],
)
@pytest.mark.parametrize("name", ["seconds", "prompt_audio_seconds"])
def test_seconds_of_audio_are_milliseconds_rounded_up(name: str, seconds: Any, milliseconds: int | None) -> None:
    reported = [dict(each.counts) for each in openai({"usage": {name: seconds}}).responses()]
    assert reported == ([] if milliseconds is None else [{"audio_ms": milliseconds}])


@pytest.mark.parametrize(
    ("count", "expected"), [(0, 0), (5, 5), (0.0, 0), (2.1, 3), (-1, None), (-0.5, 0), (True, None), ("5", None)]
)
def test_a_count_is_an_integer_rounded_up(count: Any, expected: int | None) -> None:
    read = [
        anthropic({"id": "r", "usage": {"input_tokens": 1, "output_tokens": count}}),
        google({"responseId": "r", "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": count}}),
    ]
    assert [usage.responses()[0].counts.get("tokens_output") for usage in read] == [expected] * 2


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ({"cache_creation": {"ephemeral_1h_input_tokens": 7}}, (10, 7, 7)),
        ({"cache_creation": {"ephemeral_5m_input_tokens": 7}}, (10, 7, None)),
        ({"cache_creation": {"ephemeral_5m_input_tokens": 2, "ephemeral_1h_input_tokens": 5}}, (10, 7, 5)),
        ({"cache_creation_input_tokens": 8, "cache_creation": {"ephemeral_1h_input_tokens": 5}}, (11, 8, 5)),
        ({"cache_creation_input_tokens": 4, "cache_creation": {"ephemeral_1h_input_tokens": 5}}, (8, 5, 5)),
        ({"cache_creation_input_tokens": 4}, (7, 4, None)),
        ({}, (3, None, None)),
    ],
)
def test_what_claude_wrote_to_its_cache_is_the_larger_of_the_total_and_its_parts(
    usage: dict[str, Any], counts: tuple[int | None, ...]
) -> None:
    (seen,) = anthropic({"usage": {"input_tokens": 3, **usage}}).responses()
    assert tuple(map(seen.counts.get, ("tokens_input", "tokens_cache_write", "tokens_cache_write_1h"))) == counts


@pytest.mark.parametrize(
    ("response", "tokens_input"),
    [
        ({"type": "message", "usage": {"input_tokens": 3, "cache_creation_input_tokens": 5}}, 8),
        ({"usage": {"input_tokens": 3, "cache_read_input_tokens": 5}}, 8),
        ({"message": {"usage": {"input_tokens": 3, "cache_read_input_tokens": 5}}}, 8),
        ({"usage": {"input_tokens": 3, "cache_creation_input_tokens": 5}}, 3),
        ({"usageMetadata": {"promptTokenCount": 4}, "type": "message"}, 4),
        ({"usage_metadata": {"prompt_token_count": 4}}, 4),
        ({"response": {"usage": {"input_tokens": 6}}}, 6),
    ],
)
def test_a_response_of_any_shape_is_read_by_its_members(response: dict[str, Any], tokens_input: int) -> None:
    assert any_response(response).tokens_input == tokens_input


@pytest.mark.parametrize(
    ("reader", "response", "model"),
    [
        (openai, {"model": "m"}, "m"),
        (anthropic, {"message": {"model": "m"}}, "m"),
        (google, {"modelVersion": "m"}, "m"),
        (google, {"model_version": "m"}, "m"),
    ],
)
def test_a_response_without_counts_names_its_model(reader: Any, response: dict[str, Any], model: str) -> None:
    assert reader(response).model_version == model


@pytest.mark.parametrize(("reader", "name"), [(openai, "id"), (google, "responseId"), (google, "response_id")])
def test_an_id_without_counts_begins_another_response(reader: Any, name: str) -> None:
    usage = cycles.Usage()
    for response_id in ("a", "b"):
        reader({name: response_id}, usage)
        for _ in range(2):
            reader(REPORTED[reader], usage)
    assert (usage.tokens_input, usage.tokens_output) == (6, 8)


@pytest.mark.parametrize("name", ["id", "model"])
@pytest.mark.parametrize("odd", [5, "", ["r"], True])
def test_an_id_or_a_model_that_is_no_text_is_none(name: str, odd: Any) -> None:
    usage = cycles.Usage()
    for number in range(2):
        openai({name: odd if number else None, "usage": {"prompt_tokens": 3}}, usage)
    assert (usage.tokens_input, usage.model_version) == (3, None)


def test_searches_of_a_response_without_usage_count() -> None:
    searched = {"output": [{"type": "web_search_call"}, {"type": "file_search_call"}]}
    assert openai(searched).counts == {"web_searches": 1, "file_searches": 1}


def test_only_the_first_four_rates_of_a_price_have_a_position() -> None:
    assert cycles.Price("1", "2", "0.1", "1.25").above == {}
    with pytest.raises(TypeError, match="positional"):
        cycles.Price(*("1", "2", "0.1", "1.25", "0"))  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("response", "total"),
    [
        ({"usage": {"total_tokens": 7}}, 7),
        ({"response": {"usage": {"total_tokens": 7}}}, 7),
        ({"usageMetadata": {"totalTokenCount": 7}}, 7),
        ({"usage_metadata": {"total_token_count": 7}}, 7),
        ({"usage": {"totalTokens": 7}}, 7),
        ({"usage": {"prompt_tokens": 7}}, 0),
        ({"usage": {"total_tokens": "7"}}, 0),
        ({}, 0),
        (None, 0),
    ],
)
def test_the_total_that_a_response_reports(response: Any, total: int) -> None:
    assert reported_total(response) == total
