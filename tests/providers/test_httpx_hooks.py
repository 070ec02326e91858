"""Guarded clients whose `httpx` client is watched: Mistral and Cohere, sync and async, and the parts they share."""

from __future__ import annotations

import gc
import threading
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

import cycles
from tests.providers.conftest import EXACT, USED, AsyncCohere, AsyncMistral, Cohere, Desk, Mistral, Sdk
from tests.providers.test_guard_lost import LOST


@pytest.fixture(params=(Mistral, AsyncMistral, Cohere, AsyncCohere), ids=lambda cls: cls.__name__)
def sdk(request: pytest.FixtureRequest, desk: Desk) -> Sdk:
    made: Sdk = request.param(desk)
    return made


def again(sdk: Sdk, **options: Any) -> Sdk:
    """The same SDK with other options of the guard."""
    return type(sdk)(sdk.desk, **options)


MODELS = {
    "mistral": ("mistral-large-2512", 1_000 * 50 + 100 * 150),
    "cohere": ("command-a-03-2025", 1_000 * 250 + 100 * 1_000),
}


def test_sums(sdk: Sdk) -> None:
    pytest.importorskip("genai_prices")
    desk, (model, microcents) = sdk.desk, MODELS[sdk.name]
    priced = again(sdk, prices=cycles.PriceBook.genai(at=datetime(2026, 11, 1, tzinfo=UTC)))
    desk.provider.reply(usage=USED)
    priced.complete(model=model, max_tokens=500)
    assert desk.commits == [(microcents, {})]
    assert desk.reserved[0] >= microcents


def test_a_response_is_settled_exactly_before_it_is_returned(sdk: Sdk) -> None:
    sdk.desk.provider.reply(usage=USED)
    sdk.complete()
    assert (sdk.desk.commits, sdk.desk.held) == ([(EXACT, {})], 0)


def test_a_stream_that_is_read_to_its_end_is_exact(sdk: Sdk) -> None:
    sdk.desk.provider.reply(text="one two three", usage=USED)
    assert sdk.read() >= 3
    assert sdk.desk.commits == [(EXACT, {})]


def test_a_stream_that_is_closed_early_is_estimated(sdk: Sdk) -> None:
    sdk.desk.provider.reply(text="one two three four five", usage=USED, gate=threading.Event(), gate_after=5)
    sdk.read(3)
    ((amount, metadata),) = sdk.desk.commits
    assert metadata == {"actual_source": "estimate", "outcome": "closed"}
    assert 0 < amount < EXACT
    sdk.desk.provider.stop()


def test_a_stream_that_is_dropped_is_settled_in_the_background(sdk: Sdk) -> None:
    gate = threading.Event()
    sdk.desk.provider.reply(text="one two three four five six", usage=USED, gate=gate, gate_after=5)
    sdk.drop(2)
    gate.set()
    ((amount, metadata),) = sdk.desk.commits
    assert (amount > 0, metadata) == (True, {"actual_source": "estimate", "outcome": "closed"})


def test_a_stream_that_breaks_is_estimated(sdk: Sdk) -> None:
    sdk.desk.provider.reply(text="one two three four", usage=USED, drop_after=4)
    with pytest.raises(Exception) as raised:
        sdk.read()
    assert not isinstance(raised.value, cycles.CyclesError)
    ((amount, metadata),) = sdk.desk.commits
    assert (amount > 0, metadata) == (True, {"actual_source": "estimate", "outcome": "error"})


def test_output_limits(sdk: Sdk) -> None:
    limited = again(sdk, max_output_tokens=60)
    cases: list[tuple[dict[str, Any], int]] = [({}, 60), ({"max_tokens": 500}, 60), ({"max_tokens": 50}, 50)]
    for options, sent in cases:
        limited.complete(**options)
        received = sdk.desk.provider.requests[-1]
        assert received.body["max_tokens"] == sent
        assert int(received.headers["content-length"]) > 20
    assert max(sdk.desk.reserved) < 200 * 1_000


def test_a_failed_request_is_released_with_its_error(sdk: Sdk) -> None:
    sdk.desk.provider.reply(status=400)
    with pytest.raises(Exception) as raised:
        sdk.complete()
    assert not isinstance(raised.value, cycles.CyclesError)
    assert sdk.desk.releases == ["provider_call_failed:HTTPStatusError"]
    assert (sdk.desk.commits, sdk.desk.held) == ([], 0)


def test_a_request_without_a_status_costs_its_bound(sdk: Sdk) -> None:
    sdk.desk.provider.reply(drop_after=0, times=9)
    with pytest.raises(Exception) as raised:
        sdk.complete()
    assert not isinstance(raised.value, cycles.CyclesError)
    assert set(sdk.desk.reserved) == {sdk.desk.reserved[0]}
    assert sdk.desk.commits == [(sdk.desk.reserved[0], LOST)] * len(sdk.desk.reserved)


def test_a_connection_that_is_refused_is_released(sdk: Sdk) -> None:
    sdk.desk.provider.stop()
    with pytest.raises(Exception) as raised:
        sdk.complete()
    assert not isinstance(raised.value, cycles.CyclesError)
    # httpx-aiohttp, which cohere prefers if it is installed, calls it a timeout
    assert set(sdk.desk.releases) <= {"provider_call_failed:ConnectError", "provider_call_failed:ConnectTimeout"}
    assert sdk.desk.releases
    assert sdk.desk.commits == []
    sdk.desk.provider.start()


def test_a_denial_reaches_the_caller_and_nothing_is_sent(sdk: Sdk) -> None:
    denied = again(sdk, wait=0)
    sdk.desk.server.ledger.set_budget("tenant:acme", cycles.Amount("USD_MICROCENTS", 1))
    with pytest.raises(cycles.BudgetExceededError):
        denied.complete(max_tokens=500)
    with pytest.raises(cycles.UnknownModelError):
        again(sdk, prices=cycles.PriceBook({"other": ("1", "1")})).complete()
    assert sdk.desk.provider.requests == []


def test_the_original_client_is_untouched_and_its_parts_may_outlive_it(sdk: Sdk) -> None:
    original = sdk.original
    with pytest.raises(cycles.InvalidRequestError, match="is guarded already"):
        sdk.desk.guard(sdk.llm)
    assert isinstance(sdk.llm, type(original))
    unguarded = again(sdk)
    unguarded.llm = unguarded.original
    unguarded.complete()
    assert sdk.desk.reserved == []


def test_a_part_may_outlive_its_client(desk: Desk) -> None:
    sdk = Mistral(desk)
    chat = desk.guard(sdk.make()).chat
    gc.collect()  # a client of mistralai closes its connections when it is dropped
    desk.provider.reply(usage=USED)
    chat.complete(model="m", messages=[{"role": "user", "content": "hi"}])
    assert desk.commits == [(EXACT, {})]
    connections = chat.sdk_configuration
    connections.client.close()
    desk.runner.run(connections.async_client.aclose())


def test_realtime_connections_of_mistral_are_rejected(desk: Desk) -> None:
    sdk = Mistral(desk)
    if "audio" not in dir(sdk.original) or not hasattr(type(sdk.original.audio), "realtime"):
        pytest.skip("this version of mistralai has no realtime connections")
    for llm in (sdk.llm, desk.guard(sdk.original)):  # whose audio is made later, and copied
        with pytest.raises(cycles.InvalidRequestError, match=r"audio\.realtime may cost money .* unmetered='allow'"):
            _ = llm.audio.realtime


def test_what_mistral_cannot_meter_is_rejected(desk: Desk) -> None:
    llm = Mistral(desk).llm
    with pytest.raises(cycles.InvalidRequestError, match=r"/v1/agents/completions may cost money .* unmetered="):
        llm.agents.complete(agent_id="a", messages=[{"role": "user", "content": "hi"}])
    assert (desk.provider.requests, desk.reserved) == ([], [])


def test_code_and_embeddings_of_mistral(desk: Desk) -> None:
    llm = Mistral(desk).llm
    desk.provider.reply(usage=USED).reply(usage={"tokens_input": 1_000})
    llm.fim.complete(model="m", prompt="def f(", max_tokens=200)
    llm.embeddings.create(model="m", inputs=["hi"])
    assert desk.commits == [(EXACT, {}), (1_000 * 100, {})]
    assert [request.path for request in desk.provider.requests] == [
        "/mistral/v1/fim/completions",
        "/mistral/v1/embeddings",
    ]


def test_a_retry_of_cohere_is_a_reservation_of_its_own(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    sdk = Cohere(desk)
    http: Any = pytest.importorskip("cohere.core.http_client")
    monkeypatch.setattr(http, "time", SimpleNamespace(sleep=lambda seconds: None, time=lambda: 0.0))
    desk.provider.reply(status=503).reply(usage=USED)
    sdk.complete(request_options={"max_retries": 3})  # older versions count from 2
    assert len(desk.reserved) == 2
    assert (desk.releases, desk.commits) == (["provider_call_failed:HTTPStatusError"], [(EXACT, {})])


def test_embeddings_of_cohere_and_what_is_free(desk: Desk) -> None:
    llm = Cohere(desk).llm
    desk.provider.reply(usage={"tokens_input": 1_000})
    llm.embed(model="m", texts=["hi"], input_type="search_query", embedding_types=["float"])
    assert desk.commits == [(1_000 * 100, {})]
    with pytest.raises(cycles.InvalidRequestError, match=r"/v2/rerank may cost money .* unmetered="):
        llm.rerank(model="m", query="q", documents=["d"])
    assert len(desk.reserved) == 1


def test_an_error_in_a_stream_of_cohere(desk: Desk) -> None:
    sdk = Cohere(desk)
    desk.provider.reply(text="one two three", usage=USED, error_after=4)
    sdk.read()
    ((amount, metadata),) = desk.commits
    assert (amount > 0, metadata) == (True, {"actual_source": "estimate", "outcome": "error"})


def test_clients_of_cohere_for_clouds_are_rejected(desk: Desk) -> None:
    cohere: Any = pytest.importorskip("cohere")
    keys = {"aws_access_key": "a", "aws_secret_key": "b", "aws_session_token": "c", "aws_region": "us-east-1"}
    with pytest.raises(cycles.InvalidRequestError, match=r"got cohere\.\w+\.BedrockClientV2"):
        desk.guard(cohere.BedrockClientV2(**keys))
