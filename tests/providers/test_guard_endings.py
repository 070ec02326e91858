"""How a guarded request ends, for every SDK, sync and async: what is committed or released, and how it is marked."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

import pytest

import cycles
from cycles.providers._bodies import was_sent
from tests.providers.conftest import EXACT, USED, AsyncGemini, Bedrock, Desk, Gemini, OpenAI, Sdk
from tests.support.waiting import Arrivals


def test_a_response_is_settled_exactly_before_it_is_returned(sdk: Sdk) -> None:
    sdk.desk.provider.reply(usage=USED)
    sdk.complete()
    assert sdk.desk.commits == [(EXACT, {})]
    assert sdk.desk.reserved[0] >= 4_096 * 1_000 if sdk.name != "anthropic" else sdk.desk.reserved[0] >= 500 * 1_000
    assert sdk.desk.held == 0


def test_the_reservation_is_held_while_the_request_runs(sdk: Sdk) -> None:
    gate = threading.Event()
    sdk.desk.provider.reply(usage=USED, gate=gate)
    worker = threading.Thread(target=sdk.complete)
    worker.start()
    while not sdk.desk.provider.requests:
        worker.join(0.01)
    assert sdk.desk.held == sdk.desk.reserved[0] > 0
    assert sdk.desk.commits == []
    gate.set()
    worker.join(60)
    assert sdk.desk.held == 0


def test_a_stream_that_is_read_to_its_end_is_exact(sdk: Sdk) -> None:
    sdk.desk.provider.reply(text="one two three", usage=USED)
    assert sdk.read() >= 3
    assert sdk.desk.commits == [(EXACT, {})]


@pytest.mark.parametrize("gzip", [False, True])
def test_a_compressed_response_is_read(sdk: Sdk, gzip: bool) -> None:
    if isinstance(sdk, Bedrock):
        pytest.skip("botocore requests no compression, and reads none")
    sdk.desk.provider.reply(text="one two", usage=USED, gzip=gzip).reply(text="one two", usage=USED, gzip=gzip)
    sdk.complete()
    sdk.read()
    assert sdk.desk.commits == [(EXACT, {})] * 2


def test_a_stream_that_is_closed_early_is_estimated(sdk: Sdk) -> None:
    sdk.desk.provider.reply(text="one two three four five six", usage=USED, gate=threading.Event(), gate_after=6)
    sdk.read(3) if sdk.name != "responses" else sdk.read(5)
    if isinstance(sdk, Gemini | AsyncGemini):
        sdk.desk.settle_dropped()
    ((amount, metadata),) = sdk.desk.commits
    assert metadata == {"actual_source": "estimate", "outcome": "closed"}
    least = 100_000 if sdk.name in ("anthropic", "google") else 0  # these report the input early
    assert least < amount < EXACT
    assert sdk.desk.held == 0
    sdk.desk.provider.stop()


def test_a_stream_that_is_dropped_is_settled_in_the_background(sdk: Sdk) -> None:
    sdk.desk.provider.reply(text="one two three four five six", usage=USED)
    sdk.drop(2)
    ((amount, metadata),) = sdk.desk.commits
    assert metadata == {"actual_source": "estimate", "outcome": "closed"}
    assert amount > 0


def test_a_stream_that_is_never_read_is_settled(sdk: Sdk) -> None:
    if isinstance(sdk, Gemini | AsyncGemini):
        pytest.skip("its streams are lazy: nothing is sent before the first chunk is read")
    sdk.desk.provider.reply(text="one two", usage=USED)
    sdk.drop(0)
    ((amount, metadata),) = sdk.desk.commits
    assert (amount > 0, metadata) == (True, {"actual_source": "estimate", "outcome": "closed"})


def test_a_lazy_stream_reserves_at_its_first_chunk(desk: Desk) -> None:
    gemini = Gemini(desk)
    stream = gemini.stream()
    assert desk.reserved == []
    next(stream)
    assert len(desk.reserved) == 1
    stream.close()
    desk.settle_dropped()
    assert len(desk.commits) == 1


def test_a_stream_that_breaks_is_estimated(sdk: Sdk) -> None:
    sdk.desk.provider.reply(text="one two three four", usage=USED, drop_after=4)
    with pytest.raises(Exception) as raised:
        sdk.read()
    assert not isinstance(raised.value, cycles.CyclesError)
    ((amount, metadata),) = sdk.desk.commits
    assert metadata == {"actual_source": "estimate", "outcome": "error"}
    assert amount > 0


def test_an_error_event_inside_a_stream_is_an_error(sdk: Sdk) -> None:
    sdk.desk.provider.reply(text="one two three four", usage=USED, error_after=4)
    with contextlib.suppress(Exception):  # some versions raise nothing
        sdk.read()
    ((amount, metadata),) = sdk.desk.commits
    assert metadata == {"actual_source": "estimate", "outcome": "error"}
    assert amount > 0


def test_a_response_without_usage_is_estimated_from_its_text(sdk: Sdk) -> None:
    sdk.desk.provider.reply(text="x" * 300, usage={})
    sdk.complete(prompt="p" * 600)
    ((amount, metadata),) = sdk.desk.commits
    assert metadata == {"actual_source": "estimate"}
    assert amount >= 200 * 100 + 100 * 1000  # a third of the bytes
    assert amount < 400 * 100 + 110 * 1000


def test_a_failed_request_is_released_with_its_error(sdk: Sdk) -> None:
    sdk.desk.provider.reply(status=400)
    with pytest.raises(Exception) as raised:
        sdk.complete()
    assert sdk.desk.releases == [f"provider_call_failed:{type(raised.value).__name__}"]
    assert sdk.desk.commits == []
    assert sdk.desk.held == 0


def test_a_request_without_a_status_costs_its_bound(sdk: Sdk) -> None:
    if sdk.name == "google" and sdk.is_async:
        pytest.skip("aiohttp retries this connection itself")
    sdk.desk.provider.reply(drop_after=0)
    with pytest.raises(Exception) as raised:
        sdk.complete(prompt="p" * 600)
    assert not isinstance(raised.value, cycles.CyclesError)
    ((amount, metadata),) = sdk.desk.commits
    assert metadata == {"actual_source": "estimate", "outcome": "error", "attempts": 1}
    assert amount == sdk.desk.reserved[0]


def test_a_connection_that_is_refused_is_released(sdk: Sdk, monkeypatch: pytest.MonkeyPatch) -> None:
    pause = asyncio.sleep  # google-genai retries after 1 to 10 s
    monkeypatch.setattr(asyncio, "sleep", lambda seconds, *args: pause(0, *args))
    sdk.desk.provider.stop()
    with pytest.raises(Exception) as raised:
        sdk.complete()
    assert sdk.desk.releases == [f"provider_call_failed:{type(raised.value).__name__}"]
    assert sdk.desk.commits == []
    sdk.desk.provider.start()


def test_a_closed_client_sends_nothing_and_is_released(desk: Desk) -> None:
    llm = OpenAI(desk)
    llm.original.close()
    with pytest.raises(Exception, match=r"closed|Connection error"):
        llm.complete()
    assert (desk.provider.requests, desk.commits, desk.held) == ([], [], 0)
    assert len(desk.releases) == 1


def test_errors_before_the_request_differ_from_errors_after_it() -> None:
    class GoogleAuthError(Exception):
        pass

    class RefreshError(GoogleAuthError):
        pass

    class ClientConnectorError(OSError):
        pass

    class ClientConnectorDNSError(ClientConnectorError):
        pass

    outer = RuntimeError("the call failed")
    outer.__cause__ = ClientConnectorDNSError()
    for unsent in (RefreshError(), outer, RuntimeError("Cannot send a request, as the client has been closed.")):
        assert not was_sent(unsent)
    for sent in (TimeoutError(), RuntimeError("Event loop is closed"), ConnectionResetError()):
        assert was_sent(sent)


def test_a_denial_sends_nothing(sdk: Sdk) -> None:
    sdk.desk.server.ledger.set_budget("tenant:acme", cycles.usd("0.0001"))
    with pytest.raises(cycles.BudgetExceededError):
        sdk.complete()
    assert sdk.desk.provider.requests == []


def test_an_unknown_model_reserves_and_sends_nothing(sdk: Sdk) -> None:
    with pytest.raises(cycles.UnknownModelError, match="no model 'nope'"):
        sdk.complete(model="nope")
    assert (sdk.desk.provider.requests, sdk.desk.reserved) == ([], [])


def test_a_settlement_that_the_server_rejects_costs_no_response(sdk: Sdk) -> None:
    def overspend(usage: Any) -> cycles.Amount:
        return cycles.usd(5000)

    sdk.desk.provider.reply(text="kept", usage=USED)
    paid = type(sdk)(sdk.desk, actual=overspend, overage_policy="REJECT")
    assert "kept" in repr(paid.complete())
    assert [amount for amount, _ in sdk.desk.commits][:1] == [cycles.usd(5000).amount]


def test_a_model_of_the_response_is_priced_if_the_book_knows_it(sdk: Sdk) -> None:
    if isinstance(sdk, Bedrock):
        pytest.skip("its responses name no model")
    sdk.desk.provider.reply(usage=USED, model="dear").reply(usage=USED, model="nobody-knows")
    sdk.complete()
    sdk.complete()
    named = [{"response_model": "dear"}, {"response_model": "nobody-knows"}]
    assert sdk.desk.commits == [(EXACT * 100, named[0]), (EXACT, named[1])]


def test_the_metrics_have_the_counts_and_the_model(sdk: Sdk) -> None:
    sdk.desk.provider.reply(usage={**USED, "tokens_cached_input": 400})
    sdk.complete()
    metrics = sdk.desk.server.requests.of("commit")[0].json["metrics"]
    assert (metrics["tokens_input"], metrics["tokens_output"], metrics["model_version"]) == (1000, 100, "m")
    assert metrics["custom"]["tokens_cached_input"] == 400


def test_many_threads_share_one_guarded_client(desk: Desk) -> None:
    desk.provider.reply(usage=USED, times=20)
    llm = OpenAI(desk)
    workers = [threading.Thread(target=llm.complete if n % 2 else llm.read) for n in range(20)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert desk.commits == [(EXACT, {})] * 20
    assert desk.held == 0


def test_settles_after_a_cancelled_task(desk: Desk) -> None:
    import asyncio

    from tests.providers.conftest import AsyncOpenAI

    gate = threading.Event()
    desk.provider.reply(text="one two three", gate=gate, gate_after=3)
    llm = AsyncOpenAI(desk)
    seen = asyncio.Event()

    async def read() -> None:
        async for _ in await llm.astream():
            seen.set()

    async def go() -> None:
        task = asyncio.ensure_future(read())
        await seen.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    desk.runner.run(go())
    gate.set()
    ((amount, metadata),) = desk.commits
    assert (amount > 0, metadata) == (True, {"actual_source": "estimate", "outcome": "closed"})


def test_the_lease_of_a_long_stream_is_extended(desk: Desk) -> None:
    gate = threading.Event()
    arrivals = Arrivals(desk.server)
    desk.provider.reply(usage=USED, text="one two three", gate=gate, gate_after=2)
    llm = OpenAI(desk, ttl_ms=3_500)
    stream = llm.stream()
    next(iter(stream))
    arrivals.wait_for("extend")
    gate.set()
    for _ in stream:
        pass
    assert desk.commits == [(EXACT, {})]


@pytest.mark.parametrize(("make", "method"), [(OpenAI, "request"), (Gemini, "_request_once")])
def test_a_stop_iteration_of_the_sdk_passes_unchanged(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, make: type[Sdk], method: str
) -> None:
    stopped = StopIteration("no more")

    def stop(self: Any, *args: Any, **how: Any) -> Any:
        raise stopped

    sdk = make(desk)
    original = getattr(sdk.original, "_api_client", sdk.original)
    monkeypatch.setattr(type(original), method, stop)
    guarded = type(sdk)(desk)
    with pytest.raises(StopIteration) as raised:
        guarded.complete()
    assert raised.value is stopped
    # Not None: a signal handler that raised in an earlier test may have left its exception in this thread.
    assert not isinstance(stopped.__context__, RuntimeError)
    assert desk.held == 0
