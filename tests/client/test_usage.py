"""Usage counts what was used, once; readers find the counts in the shapes people have."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

import cycles
from cycles import usage as readers
from cycles._core.values.usage import Metrics, Usage, settlement_metrics
from cycles._errors import InvalidRequestError


def as_object(value: Any) -> Any:
    """The same answer as an SDK's objects would show it."""
    if isinstance(value, dict):
        return SimpleNamespace(**{name: as_object(member) for name, member in value.items()})
    return [as_object(item) for item in value] if isinstance(value, list) else value


shapes = pytest.mark.parametrize("shape", [lambda value: value, as_object], ids=["dicts", "objects"])


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"tokens_input": -1}, "metrics.tokens_input must be 0 to"),
        ({"tokens_output": 1.5}, "metrics.tokens_output must be an integer"),
        ({"tokens_output": True}, "metrics.tokens_output must be an integer"),
        ({"latency_ms": 2**63}, "metrics.latency_ms must be 0 to"),
        ({"model_version": "x" * 129}, "metrics.model_version must have at most 128"),
        ({"model_version": 4}, "metrics.model_version must be a str"),
        ({"custom": {"at": b"x"}}, r"metrics.custom.at is a bytes"),
        ({"custom": "x"}, "metrics.custom must be a mapping"),
    ],
)
def test_a_mapping_is_checked_when_it_becomes_metrics(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidRequestError, match=says):
        Metrics.of(wrong)


def test_metrics_that_the_protocol_does_not_allow_are_made_and_not_sent() -> None:
    made = Metrics(tokens_input=-1, tokens_output=3, model_version="x" * 129, custom={"good": 1, "bad": b"x"})
    assert made.model_version == "x" * 129
    assert made.to_dict() == {"tokens_output": 3, "custom": {"good": 1}}
    assert repr(made).startswith("Metrics(tokens_input=-1, ")
    assert Metrics(custom="x").to_dict() == {}  # type: ignore[arg-type]


def test_metrics_copy_custom_when_it_is_given() -> None:
    given: dict[str, Any] = {"images": [1]}
    made = Metrics(custom=given)
    given["images"].append(2)
    assert made.custom == {"images": [1]}


def test_metrics_as_callers_give_them() -> None:
    made = Metrics(tokens_input=1, model_version="m", custom={"images": 2})
    assert made.to_dict() == {"tokens_input": 1, "model_version": "m", "custom": {"images": 2}}
    assert Metrics.of({"tokens_input": 1, "model_version": "m", "custom": {"images": 2}}) == made
    assert Metrics.of(made) is made
    assert Metrics.of(None) is None
    assert Metrics.of(Usage().add(tokens_input=1)) == Metrics(tokens_input=1)
    with pytest.raises(InvalidRequestError, match=r"metrics has no tokens; put your own values into metrics\.custom"):
        Metrics.of({"tokens": 1})
    with pytest.raises(InvalidRequestError, match=r"cycles\.Metrics or a mapping"):
        Metrics.of(5)  # type: ignore[arg-type]


def test_usage_adds_up_and_becomes_metrics() -> None:
    usage = Usage()
    assert not usage.is_filled
    usage.add(tokens_input=10, tokens_output=1, model_version="m").add(tokens_output=2, custom={"images": 1})
    usage.tokens_output += 4
    usage.custom["cache"] = "hit"
    assert usage.is_filled
    assert repr(usage) == "<Usage 10 tokens in, 7 out, m>"
    assert settlement_metrics(None, usage, latency_ms=12) == (
        {
            "tokens_input": 10,
            "tokens_output": 7,
            "model_version": "m",
            "custom": {"images": 1, "cache": "hit"},
            "latency_ms": 12,
        },
        [],
    )


@pytest.mark.parametrize(
    "wrong", [{"tokens_input": -1}, {"tokens_output": 0.5}, {"custom": {"x": b""}}, {"model_version": 1}]
)
def test_a_wrong_count_adds_nothing(wrong: dict[str, Any]) -> None:
    usage, given = Usage(), dict[str, Any](tokens_input=5, model_version="m")
    with pytest.raises(InvalidRequestError, match="usage"):
        usage.add(**(given | wrong))
    assert (usage.is_filled, usage.model_version) == (False, None)


def test_another_thread_may_count_while_the_code_runs_that_is_told_of_a_count() -> None:
    usage, others = Usage(), list[threading.Thread]()

    def tell() -> None:
        if not others:
            others.append(threading.Thread(target=lambda: usage.add(tokens_output=1)))
            others[0].start()
            others[0].join(20.0)
            assert not others[0].is_alive()

    usage.watch(tell)
    usage.add(tokens_input=1)
    assert usage.counts == {"tokens_input": 1, "tokens_output": 1}


def test_setting_a_count_checks_it_too() -> None:
    usage = Usage()
    for name, value in [("tokens_input", 1.5), ("tokens_output", -1), ("model_version", 4), ("custom", [])]:
        with pytest.raises(InvalidRequestError, match=name):
            setattr(usage, name, value)


def test_no_count_is_lost_between_threads() -> None:
    usage = Usage()

    def work(_: int) -> None:
        for _ in range(500):
            usage.add(tokens_output=1)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert usage.tokens_output == 4000


def test_passed_metrics_override_usage_and_latency_is_measured_if_it_is_not_passed() -> None:
    usage = Usage().add(tokens_output=9)
    assert settlement_metrics(Metrics(tokens_input=1), usage, 7) == ({"tokens_input": 1, "latency_ms": 7}, [])
    assert settlement_metrics(Metrics(latency_ms=1), usage, 7) == ({"latency_ms": 1}, [])


def test_a_value_in_custom_that_is_no_json_is_omitted_and_reported() -> None:
    usage = Usage().add(tokens_output=1)
    usage.custom["at"] = object()
    metrics, left_out = settlement_metrics(None, usage, 5)
    assert metrics == {"tokens_output": 1, "latency_ms": 5}
    assert left_out == ["metrics.custom.at"]
    json.dumps(metrics)


@shapes
def test_openai_chat_response(shape: Any) -> None:
    answer = {
        "id": "chatcmpl-1",
        "model": "gpt-x",
        "usage": {"prompt_tokens": 100, "completion_tokens": 20, "prompt_tokens_details": {"cached_tokens": 60}},
    }
    usage = readers.openai(shape(answer))
    assert (usage.tokens_input, usage.tokens_output, usage.tokens_cached_input, usage.model_version) == (
        100,
        20,
        60,
        "gpt-x",
    )
    assert usage.metrics().custom == {"tokens_cached_input": 60}


@shapes
def test_openai_stream_reports_its_usage_in_the_last_chunk(shape: Any) -> None:
    chunks: list[dict[str, Any]] = [{"id": "c1", "model": "gpt-x", "choices": [], "usage": None} for _ in range(3)]
    chunks.append({"id": "c1", "model": "gpt-x", "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}})
    usage = Usage()
    for chunk in chunks:
        readers.openai(shape(chunk), usage)
    assert (usage.tokens_input, usage.tokens_output) == (7, 3)


@shapes
def test_cumulative_chunks_count_once_and_two_responses_are_added(shape: Any) -> None:
    usage = Usage()
    for answer in ("c1", "c2"):
        for written in (1, 2, 3):
            readers.openai(shape({"id": answer, "usage": {"prompt_tokens": 5, "completion_tokens": written}}), usage)
    assert (usage.tokens_input, usage.tokens_output) == (10, 6)


@shapes
def test_openai_responses_events(shape: Any) -> None:
    usage = Usage()
    readers.openai(shape({"type": "response.output_text.delta", "delta": "x"}), usage)
    done = {
        "id": "r1",
        "model": "gpt-x",
        "usage": {"input_tokens": 4, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 1}},
    }
    readers.openai(shape({"type": "response.completed", "response": done}), usage)
    assert (usage.tokens_input, usage.tokens_output, usage.tokens_cached_input) == (4, 2, 1)


def anthropic_stream(written: int = 9, name: str = "msg_1") -> list[dict[str, Any]]:
    start = {
        "id": name,
        "model": "claude-x",
        "usage": {
            "input_tokens": 10,
            "cache_read_input_tokens": 30,
            "cache_creation_input_tokens": 5,
            "output_tokens": 1,
        },
    }
    return [
        {"type": "message_start", "message": start},
        {"type": "content_block_delta", "delta": {"text": "hi"}},
        {"type": "message_delta", "usage": {"output_tokens": 4}},
        {"type": "message_delta", "usage": {"output_tokens": written}},
        {"type": "message_stop"},
    ]


@shapes
def test_anthropic_stream_is_cumulative(shape: Any) -> None:
    usage = Usage()
    for event in anthropic_stream():
        readers.anthropic(shape(event), usage)
    assert (usage.tokens_input, usage.tokens_output, usage.model_version) == (45, 9, "claude-x")
    assert (usage.tokens_cached_input, usage.tokens_cache_write) == (30, 5)


def test_two_concurrent_anthropic_streams_are_counted_separately() -> None:
    usage = Usage()
    first, second = usage.for_stream(), usage.for_stream()
    for one, other in zip(anthropic_stream(9, "msg_1"), anthropic_stream(7, "msg_2"), strict=True):
        readers.anthropic(one, first)
        readers.anthropic(other, second)
    assert usage.tokens_output == first.tokens_output == 16


def test_streams_without_ids_add_up_too() -> None:
    usage = Usage()
    for _ in range(2):
        view = usage.for_stream()
        for written in (1, 5):
            readers.openai({"usage": {"completion_tokens": written}}, view)
    assert usage.tokens_output == 10


@pytest.mark.parametrize(
    "odd",
    [
        None,
        "text",
        5,
        {},
        {"usage": 3},
        {"usage": {"prompt_tokens": "7", "completion_tokens": -1}},
        {"id": 4, "model": 5},
    ],
)
@pytest.mark.parametrize("reader", [readers.openai, readers.anthropic])
def test_what_has_no_counts_changes_nothing(reader: Any, odd: Any) -> None:
    assert not reader(odd).is_filled


@pytest.mark.parametrize(
    ("reader", "response"),
    [
        (cycles.usage.openai, {"usage": {"prompt_tokens": 5.0, "completion_tokens": 7.0}}),
        (cycles.usage.anthropic, {"usage": {"input_tokens": 5.0, "output_tokens": 7.0}}),
        (cycles.usage.google, {"usageMetadata": {"promptTokenCount": 5.0, "candidatesTokenCount": 7.0}}),
    ],
)
def test_a_reader_accepts_a_count_that_is_a_float_without_a_fraction(reader: Any, response: Any) -> None:
    usage = reader(response)
    assert (usage.tokens_input, usage.tokens_output) == (5, 7)


def test_a_reader_of_the_caller_may_return_a_count_that_is_a_float_without_a_fraction(client: cycles.Cycles) -> None:
    with client.reserve(cycles.tokens(100), action=("a", "b"), actual=cycles.tokens(1)) as guard:
        assert list(guard.wrap([1], usage=lambda chunk: {"tokens_output": 5.0}, settle=False)) == [1]
        assert guard.usage.tokens_output == 5


def test_a_response_has_no_more_cached_tokens_than_it_has_read() -> None:
    usage = cycles.Usage()
    usage.see_response("r", {"tokens_input": 10, "tokens_cached_input": 30})
    assert dict(usage.counts) == {"tokens_input": 10, "tokens_cached_input": 10}
    usage.see_response("r", {"tokens_input": 40, "tokens_cached_input": 30})  # a stream reports its totals again
    assert dict(usage.counts) == {"tokens_input": 40, "tokens_cached_input": 30}


def test_a_response_has_no_count_that_its_provider_did_not_report() -> None:
    usage = cycles.Usage()
    usage.see_response("r", {"tokens_input": 0, "tokens_output": 5, "tokens_reasoning": 7})
    assert [each.counts for each in usage.responses()] == [
        {"tokens_input": 0, "tokens_output": 5, "tokens_reasoning": 5}
    ]
