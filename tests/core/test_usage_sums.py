"""The counts of several responses in one `Usage`: each counts once, with its own model, and none is lost."""

from __future__ import annotations

from typing import Any

import pytest

import cycles
from cycles._core.values.usage import ResponseUsage, salvage_metrics, usable_members


def reported(usage: cycles.Usage) -> list[tuple[dict[str, int], str | None, dict[str, str]]]:
    return [(dict(each.counts), each.model, dict(each.context)) for each in usage.responses()]


def test_the_model_is_that_of_the_last_response_and_not_of_a_part_of_it() -> None:
    usage = cycles.Usage()
    usage.see_response("r", {"tokens_output": 1})
    assert usage.model_version is None
    usage.see_response("r", {"tokens_output": 1}, model="m1")
    usage.see_response("r", {"tokens_output": 2})
    usage.see_response("r", {"tokens_output": 5}, model="image", part="image_gen")
    usage.see_response("r", {"tokens_output": 6}, part="svg")
    assert usage.model_version == "m1"
    usage.see_response("s", {"tokens_output": 3}, model="m2")
    assert usage.model_version == "m2"
    assert reported(usage) == [
        ({"tokens_output": 2}, "m1", {}),
        ({"tokens_output": 5}, "image", {}),
        ({"tokens_output": 6}, None, {}),
        ({"tokens_output": 3}, "m2", {}),
    ]
    assert dict(usage.counts) == {"tokens_output": 16}


def test_the_largest_count_of_a_response_is_kept() -> None:
    usage = cycles.Usage()
    for counts in ({"tokens_input": 5}, {"tokens_input": 3, "tokens_output": 0}, {"tokens_input": 5}, {}):
        usage.see_response("r", counts)
    assert (dict(usage.counts), reported(usage)) == (
        {"tokens_input": 5},
        [({"tokens_input": 5, "tokens_output": 0}, None, {})],
    )
    usage.see_response(None, {"tokens_input": 6})  # of the response that was seen last
    assert (usage.tokens_input, len(usage.responses())) == (6, 1)


def test_the_context_of_a_response_grows() -> None:
    usage = cycles.Usage()
    usage.see_response("r", {"tokens_input": 1}, context={"service_tier": "flex"})
    usage.see_response("r", {"tokens_input": 1}, context={"speed": "fast"})
    usage.see_response("s", {}, context={"service_tier": "flex"})  # nothing was counted
    assert reported(usage) == [({"tokens_input": 1}, None, {"service_tier": "flex", "speed": "fast"})]


def test_what_is_added_by_hand_is_one_more_response() -> None:
    usage = cycles.Usage()
    usage.see_response("r", {"tokens_input": 3, "web_searches": 1}, model="m")
    usage.add(tokens_input=2, tokens_output=4, model_version="by-hand", custom={"a": 1})
    usage.add(custom={"b": 2})
    usage.see_response("r", {"tokens_input": 4}, model="m")
    assert reported(usage) == [
        ({"tokens_input": 4, "web_searches": 1}, "m", {}),
        ({"tokens_input": 2, "tokens_output": 4}, "m", {}),
    ]
    assert (usage.custom, usage.model_version) == ({"a": 1, "b": 2}, "m")
    assert reported(cycles.Usage().add(tokens_output=1, model_version="x")) == [({"tokens_output": 1}, "x", {})]


def test_nothing_is_added_if_one_count_is_wrong() -> None:
    usage = cycles.Usage().add(tokens_input=0)
    wrong: dict[str, Any] = {"tokens_output": -1}
    with pytest.raises(cycles.InvalidRequestError, match="tokens_output"):
        usage.add(tokens_input=1, model_version="m", custom={"a": 1}, **wrong)
    assert (dict(usage.counts), usage.custom, usage.model_version, usage.is_filled) == ({}, {}, None, False)
    assert repr(usage) == "<Usage 0 tokens in, 0 out>"
    assert usage.add(custom={"a": 1}).is_filled
    assert repr(usage.add(tokens_input=1, tokens_output=2, model_version="m")) == "<Usage 1 tokens in, 2 out, m>"


def test_views_for_streams_keep_responses_without_ids_apart() -> None:
    usage, changes = cycles.Usage(), list[int]()
    usage.watch(lambda: changes.append(usage.tokens_output))
    first, second = usage.for_stream(), usage.for_stream()
    for view, count in ((first, 1), (second, 2), (first, 3)):
        view.see_response(None, {"tokens_output": count})
    usage.add(tokens_output=10)
    assert (usage.tokens_output, first.tokens_output, changes) == (15, 15, [1, 3, 5, 15])
    assert [each.counts["tokens_output"] for each in usage.responses()] == [3, 2, 10]


def test_the_metrics_of_what_was_counted() -> None:
    usage = cycles.Usage()
    usage.see_response("r", {"tokens_input": 3, "tokens_output": 2, "web_searches": 1}, model="m")
    usage.custom = {"page": 1}
    usage.custom = {"run": 7}
    found = usage.metrics()
    assert (found.tokens_input, found.tokens_output, found.model_version, found.latency_ms) == (3, 2, "m", None)
    assert found.custom == {"web_searches": 1, "run": 7}
    assert cycles.Usage().metrics() == cycles.Metrics()
    assert ResponseUsage({}) == ResponseUsage({}, None, {})


class Raising(dict[str, Any]):
    """A mapping of a user that cannot be read."""

    def items(self) -> Any:
        raise RuntimeError("no items")


@pytest.mark.parametrize(
    ("given", "usable", "omitted"),
    [
        (None, None, []),
        (5, None, ["metrics"]),
        (Raising(a=1), None, ["metrics"]),
        ({}, None, []),
        ({"tokens_input": None}, None, []),
        ({"tokens_input": -1}, None, ["metrics.tokens_input"]),
        ({"tokens_input": 1, "other": 2}, cycles.Metrics(tokens_input=1), ["metrics.other"]),
        ({"tokens_input": 0}, cycles.Metrics(tokens_input=0), []),
        ({"custom": {}}, None, []),
        ({"custom": {"a": 1}}, cycles.Metrics(custom={"a": 1}), []),
        ({"custom": {"a": 1, "b": object()}}, cycles.Metrics(custom={"a": 1}), ["metrics.custom.b"]),
        ({"custom": 5}, None, ["metrics.custom"]),
        ({"custom": object()}, None, ["metrics.custom"]),
        (cycles.Metrics(latency_ms=4), cycles.Metrics(latency_ms=4), []),
        (cycles.Usage().add(tokens_input=2), cycles.Metrics(tokens_input=2), []),
    ],
)
def test_what_can_be_sent_of_metrics(given: Any, usable: Any, omitted: list[str]) -> None:
    found, left_out = salvage_metrics(given)
    assert (None if found is None else found.to_dict()) == (None if usable is None else usable.to_dict())
    assert left_out == omitted


def test_members_that_can_be_sent() -> None:
    given = {"tokens_input": 1, "latency_ms": None, 5: 1, "model_version": "x" * 129}
    assert usable_members(given) == ({"tokens_input": 1}, ["metrics.5", "metrics.model_version"])


def test_a_count_that_was_set_below_that_of_its_response_is_no_response_of_its_own() -> None:
    usage = cycles.Usage()
    usage.see_response("r", {"tokens_input": 5, "tokens_output": 2})
    usage.tokens_input = 3
    assert [dict(one.counts) for one in usage.responses()] == [{"tokens_input": 5, "tokens_output": 2}]


def test_a_whole_that_is_reported_after_its_part_lowers_the_sum_of_the_part() -> None:
    usage = cycles.Usage()
    usage.see_response("r", {"tokens_cached_input": 8})
    usage.see_response("r", {"tokens_input": 5})
    usage.see_response("other", {"tokens_input": 2, "tokens_cached_input": 1})
    assert usage.counts == {"tokens_input": 7, "tokens_cached_input": 6}
