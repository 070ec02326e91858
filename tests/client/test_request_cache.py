"""Calls that differ only in their amounts are checked once; calls that only look like them are checked each time."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, strategies as st

import cycles
from cycles._client import operation_context
from cycles._client.reservation import LONGEST_METADATA, MOST, RequestCache, cache_key
from cycles.embedded import EmbeddedServer

ACTION = ("llm.completion", "gpt-4o")
ESTIMATE = cycles.usd("0.05")


@pytest.fixture
def ours() -> Any:
    server = EmbeddedServer(budgets={"tenant:acme": cycles.usd(10)})
    with server.client(tenant="acme", journal=False) as client:
        yield client


def _request(client: cycles.Cycles, *args: Any, **options: Any) -> Any:
    return client.reserve(*args, **{"action": ACTION, **options})._request


def test_the_second_call_has_the_same_request(ours: cycles.Cycles, monkeypatch: pytest.MonkeyPatch) -> None:
    first = _request(ours, ESTIMATE)

    def fail(*_: Any, **__: Any) -> Any:
        raise AssertionError("the request was made again")

    monkeypatch.setattr(operation_context, "ReserveRequest", fail)
    assert _request(ours, ESTIMATE) is first
    assert _request(ours, cycles.usd("0.05")) is first
    assert _request(ours, cycles.usd("0.06")).estimate == cycles.usd("0.06")
    assert _request(ours, ESTIMATE, actual=cycles.usd("0.01")).actual == cycles.usd("0.01")
    assert _request(ours, ESTIMATE).actual is None


def test_a_call_with_the_same_small_metadata_has_the_same_request(ours: cycles.Cycles) -> None:
    metadata: dict[str, Any] = {"provider": "openai"}
    first = _request(ours, ESTIMATE, metadata=metadata)
    assert _request(ours, ESTIMATE, metadata={"provider": "openai"}) is first
    metadata["provider"] = "groq"
    changed = _request(ours, ESTIMATE, metadata=metadata)
    assert (first.metadata, changed.metadata) == ({"provider": "openai"}, {"provider": "groq"})
    assert _request(ours, ESTIMATE).metadata is None


@pytest.mark.parametrize(
    "metadata",
    [
        {"tags": ["a"]},
        {"n": 1},
        {"text": "x" * LONGEST_METADATA},
        MappingProxyType({"a": "b"}),
    ],
    ids=["list", "number", "long", "mapping"],
)
def test_other_metadata_is_read_at_each_call(metadata: Any) -> None:
    assert cache_key(ACTION, None, ESTIMATE, 60_000, metadata, (), ()) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ttl_ms", 5_000),
        ("grace_period_ms", 5),
        ("overage_policy", "REJECT"),
        ("metadata", {"a": "b"}),
        ("idempotency_key", "k"),
        ("lease_policy", "cancel"),
        ("shadow", True),
        ("on_unavailable", "allow"),
        ("wait", 1.0),
        ("on_observed", "run"),
        ("observe", True),
        ("timeout", 1.0),
        ("extra_headers", {"X-Team": "red"}),
        ("settle", "background"),
        ("subject", {"agent": "bot"}),
        ("action", ("llm.completion", "o3")),
    ],
)
def test_an_option_counts_after_a_call_without_it_and_not_for_the_next_one(
    ours: cycles.Cycles, name: str, value: Any
) -> None:
    usual = getattr(_request(ours, ESTIMATE), name)
    expected = {
        "subject": cycles.Subject(tenant="acme", agent="bot"),
        "action": cycles.Action("llm.completion", "o3"),
    }.get(name, value)
    found = [getattr(_request(ours, ESTIMATE, **options), name) for options in ({name: value}, {name: value}, {})]
    assert usual != expected
    assert found == [expected, expected, usual]


TAGS = ["a"]
HAVE_KEYS: list[tuple[bool, dict[str, Any]]] = [
    (True, {}),
    (True, {"subject": cycles.Subject(agent="bot")}),
    (True, {"metadata": {"a": "b"}}),
    (True, {"metadata": {"a": "x" * (LONGEST_METADATA - 1)}}),
    (False, {"metadata": {"a": "x" * LONGEST_METADATA}}),
    (False, {"metadata": {5: "x"}}),
    (False, {"metadata": 5}),
    (False, {"action": [*ACTION]}),
    (False, {"action": (*ACTION, TAGS)}),
    (False, {"ttl_ms": True}),
    (False, {"subject": {"agent": "bot"}}),
    (False, {"subject": cycles.Subject(agent="bot", dimensions={"a": "b"})}),
    (False, {"others": (None, 0)}),
]


@pytest.mark.parametrize(("has_key", "changes"), HAVE_KEYS, ids=repr)
def test_only_a_call_whose_values_cannot_change_has_a_key(has_key: bool, changes: dict[str, Any]) -> None:
    given = {"action": ACTION, "subject": None, "ttl_ms": 60_000, "metadata": None, "others": (None, None), **changes}
    assert (cache_key(estimate=ESTIMATE, choices=(), **given) is not None) is has_key
    with cycles.subject(agent="around"):
        assert (cache_key(estimate=ESTIMATE, choices=(), **given) is not None) is has_key
    with cycles.subject(dimensions={"team": "a"}):
        assert cache_key(estimate=ESTIMATE, choices=(), **given) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"ttl_ms": 60_000.0},
        {"ttl_ms": True},
        {"ttl_ms": 10},
        {"observe": 0},
        {"observe": None},
        {"settle": "later"},
        {"settle": ["background"]},
        {"overage_policy": "NONE"},
        {"lease_policy": 1},
        {"shadow": 0},
        {"wait": -1.0},
        {"action": ("llm.completion", "n" * 257)},
        {"action": ("llm.completion", ["gpt-4o"])},
        {"action": "llm.completion"},
        {"subject": {"tenant": "t" * 129}},
        {"actual": 3},
        {"actual": cycles.tokens(3)},
        {"timeout": 0},
        {"metadata": []},
        {"idempotency_key": ""},
    ],
    ids=str,
)
def test_a_wrong_value_is_rejected_after_a_valid_call_too(ours: cycles.Cycles, changed: dict[str, Any]) -> None:
    _request(ours, ESTIMATE)
    _request(ours, ESTIMATE, ttl_ms=60_000)
    for _ in range(2):  # what was rejected is not kept
        with pytest.raises(cycles.InvalidRequestError):
            _request(ours, ESTIMATE, **changed)


def test_the_subject_of_a_block_and_of_a_view_are_part_of_the_request(ours: cycles.Cycles) -> None:
    view = ours.with_options(subject={"agent": "viewer"}, overage_policy="REJECT")
    for _ in range(2):
        assert _request(ours, ESTIMATE).subject.agent is None
        with cycles.subject(agent="researcher"):
            assert _request(ours, ESTIMATE).subject.agent == "researcher"
        with cycles.subject(dimensions={"team": "a"}):
            assert _request(ours, ESTIMATE).subject.dimensions == {"team": "a"}
        assert _request(ours, ESTIMATE, subject=cycles.Subject(agent="writer")).subject.agent == "writer"
        seen = _request(view, ESTIMATE)
        assert (seen.subject.agent, seen.overage_policy) == ("viewer", "REJECT")
        assert _request(ours, ESTIMATE).overage_policy is None


def test_another_unit_is_another_request(ours: cycles.Cycles) -> None:
    assert _request(ours, ESTIMATE).estimate.unit == "USD_MICROCENTS"
    assert _request(ours, cycles.tokens(5)).estimate == cycles.tokens(5)
    with pytest.raises(cycles.InvalidRequestError):
        _request(ours, cycles.Amount("PEANUTS", 5))


def test_an_action_with_tags_has_no_key_because_its_tags_can_change() -> None:
    action = cycles.Action("llm.completion", "gpt-4o", ["a"])
    assert cache_key(action, None, ESTIMATE, 60_000, None, (), ()) is None


@given(st.lists(st.integers(0, 2 * MOST), max_size=3 * MOST))
def test_a_bounded_number_of_requests_is_kept(names: list[int]) -> None:
    kept = RequestCache()
    request = _request(
        cycles.Cycles(base_url="http://localhost:1", api_key="k", tenant="acme", journal=False), ESTIMATE
    )
    for name in names:
        kept.keep((name,), request)
        assert kept.find((name,), ESTIMATE, None) is request
    assert len(kept._requests) <= MOST


def test_the_request_of_the_last_amount_is_kept() -> None:
    kept = RequestCache()
    client = cycles.Cycles(base_url="http://localhost:1", api_key="k", tenant="acme", journal=False)
    kept.keep(("gpt-4o",), _request(client, ESTIMATE))
    twice = ESTIMATE + ESTIMATE
    changed = kept.find(("gpt-4o",), twice, None)
    assert changed is not None
    assert changed.estimate == twice
    assert kept.find(("gpt-4o",), ESTIMATE + ESTIMATE, None) is changed


def test_a_client_keeps_a_limited_number_of_requests(ours: cycles.Cycles) -> None:
    request, kept = _request(ours, ESTIMATE), RequestCache()
    for number in range(MOST + 1):
        kept.keep((number,), request)
    found = [kept.find((number,), ESTIMATE, None) for number in range(MOST + 1)]
    assert found == [None] * MOST + [request]
