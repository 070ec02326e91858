"""Calls of the proxy that wait for budget, or whose output limit is lowered; what the summary says of them."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

import cycles
from tests.operators.proxying import BOOK, CHAT_PATH, proxied
from tests.support.waiting import until

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def chat(limit: int, **more: Any) -> dict[str, Any]:
    return {**CHAT, "max_tokens": limit, **more}


def test_a_lowered_request_has_a_header_and_counts_in_the_summary() -> None:
    with proxied(cycles.usd("0.02")) as place:
        place.provider.reply(usage={"tokens_input": 10, "tokens_output": 9_000})
        response = place.post(json=chat(5_000))
        limit = int(response.headers["x-cycles-output-limit"])
        assert 1_900 < limit < 2_000
        assert place.provider.requests[-1].body["max_tokens"] == limit
        assert response.json()["choices"][0]["finish_reason"] == "length"
        assert place.commits[0][1] == {"output_limit": limit}
        totals = place.proxy.app.totals
        assert (totals.waited, totals.lowered) == (0, 1)
        assert totals.document(1.0, 0)["lowered"] == 1
        assert "0 denied, 1 lowered" in totals.line(1.0, None)
        assert place.provider.bill(BOOK).amount <= 2_000_000


def test_a_lowered_stream_has_the_header() -> None:
    with proxied(cycles.usd("0.02")) as place:
        response = place.post(json=chat(5_000, stream=True))
        assert int(response.headers["x-cycles-output-limit"]) < 2_000


def test_an_error_response_to_a_lowered_request_has_the_header() -> None:
    with proxied(cycles.usd("0.02")) as place:
        place.provider.reply(status=500)
        response = place.post(json=chat(5_000))
        assert response.status_code == 500
        assert int(response.headers["x-cycles-output-limit"]) == place.provider.requests[-1].body["max_tokens"] < 2_000


def test_a_request_that_fits_is_forwarded_byte_for_byte() -> None:
    with proxied(cycles.usd("1")) as place:
        content = b'{"model": "m",  "messages": [], "max_tokens": 50}'
        response = place.post(content=content, headers={"content-type": "application/json"})
        assert "x-cycles-output-limit" not in response.headers
        assert place.provider.requests[-1].headers["content-length"] == str(len(content))
        assert [request.operation for request in place.server.requests] == ["reserve", "commit"]
        assert "waited" not in place.proxy.app.totals.line(1.0, None)


@pytest.mark.parametrize("stream", [False, True])
def test_parallel_calls_that_do_not_fit_together_wait(stream: bool) -> None:
    with proxied(cycles.usd("0.10")) as place, ThreadPoolExecutor(12) as pool:
        place.provider.reply(usage={"tokens_input": 10, "tokens_output": 100}, delay_s=0.02, times=12)
        responses = list(pool.map(lambda _: place.post(json=chat(5_000, stream=stream)), range(12)))
        assert [response.status_code for response in responses] == [200] * 12
        totals = place.proxy.app.totals
        until(lambda: totals.calls == 12)
        assert (totals.denied, totals.lowered) == (0, 0)
        assert totals.waited >= 8


def test_a_limit_of_the_run_beside_a_server_is_waited_for() -> None:
    with proxied(limit=cycles.usd("0.06")) as place, ThreadPoolExecutor(6) as pool:
        place.provider.reply(usage={"tokens_input": 10, "tokens_output": 100}, delay_s=0.02, times=6)
        statuses = list(pool.map(lambda _: place.post(json=chat(5_000)).status_code, range(6)))
        assert statuses == [200] * 6


def test_a_denial_says_what_the_call_needs_at_its_lowest_limit() -> None:
    with proxied(cycles.usd("0.005")) as place:
        response = place.post(json=chat(5_000))
        message = response.json()["error"]["message"]
        assert response.status_code == 402
        assert "at an output limit of 1024 tokens, and $0.005 is left in tenant:run" in message
        assert len(place.server.requests.of("reserve")) == 2


def test_a_waiting_call_whose_program_leaves_sends_nothing() -> None:
    gate = threading.Event()
    with proxied(cycles.usd("0.06")) as place, ThreadPoolExecutor(1) as pool:
        place.provider.reply(usage={"tokens_input": 10, "tokens_output": 10}, gate=gate, times=2)
        running = pool.submit(place.post, json=chat(5_000))
        until(lambda: place.provider.requests)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{place.openai_url}/chat/completions", json=chat(5_000), timeout=0.5)
        gate.set()
        assert running.result().status_code == 200
        assert place.post(json=chat(5_000)).status_code == 200
        assert len(place.provider.requests) == 2
        assert place.held == 0


def test_waiting_calls_get_503_when_the_proxy_stops() -> None:
    gate = threading.Event()
    with proxied(cycles.usd("0.06")) as place, ThreadPoolExecutor(2) as pool:
        place.provider.reply(usage={"tokens_input": 10, "tokens_output": 10}, gate=gate)
        running = pool.submit(place.post, json=chat(5_000))
        until(lambda: place.provider.requests)
        waiting = pool.submit(place.post, json=chat(5_000))
        # Denied, a dry run, and one more dry run: only a call that has begun to wait looks again.
        until(lambda: len(place.server.requests.of("reserve")) >= 4)
        stopping = threading.Thread(target=place.proxy.stop, args=(20,))
        stopping.start()
        response = waiting.result(60)
        assert response.status_code == 503
        assert "the proxy stops while the call waits for its budget" in response.json()["error"]["message"]
        assert not running.done()
        gate.set()
        assert running.result(60).status_code == 200
        stopping.join()
        assert place.proxy.app.totals.waited == 1


def test_the_summary_of_calls_that_waited_is_json() -> None:
    with proxied(cycles.usd("1")) as place:
        place.post(json=chat(50))
        document = json.loads(json.dumps(place.proxy.app.totals.document(1.0, 0)))
        assert (document["waited"], document["lowered"]) == (0, 0)
        assert CHAT_PATH.endswith("completions")
