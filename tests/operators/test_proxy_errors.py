"""What the proxy denies, what it rejects, and how calls are settled that fail or are left."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

import cycles
from cycles.providers._hosts import FreeHost
from cycles.proxy._app import App
from cycles.proxy._clients import LedgerClient
from cycles.proxy._server import ProxyServer
from cycles.proxy._settings import ProxySettings
from tests.operators.proxying import BOOK, EXACT, KEY, USED, Place, proxied, upstreams
from tests.support.stub import Stub, after, ok
from tests.support.waiting import PATIENCE_S, forever, hold_responses, set_by, until

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
STREAM = {**CHAT, "stream": True}
CALLS = [
    ("openai", "/openai/v1/chat/completions", CHAT),
    ("anthropic", "/anthropic/v1/messages", {**CHAT, "max_tokens": 500}),
    ("gemini", "/gemini/v1beta/models/m:generateContent", {"contents": [{"parts": [{"text": "hi"}]}]}),
]


def _error(name: str, document: Any) -> tuple[str, str]:
    """Return kind and message of an error in the shape of a provider."""
    error = document["error"]
    if name == "openai":
        return error["code"], error["message"]
    if name == "anthropic":
        assert document["type"] == "error"
        return error["type"], error["message"]
    assert error["code"] == 402
    return error["status"], error["message"]


@pytest.mark.parametrize(("name", "path", "body"), CALLS)
def test_a_denial_has_the_shape_of_the_provider_and_sends_nothing(name: str, path: str, body: dict[str, Any]) -> None:
    with proxied(cycles.usd_microcents(5000)) as place:
        response = place.post(path, json=body)
        assert response.status_code == 402
        assert response.headers["x-should-retry"] == "false"
        assert response.headers["x-cycles-reason"] == "budget_exceeded"
        kind, message = _error(name, response.json())
        assert kind == {"openai": "budget_exceeded", "anthropic": "billing_error", "gemini": "RESOURCE_EXHAUSTED"}[name]
        for part in ("it may cost up to $0.0", "$0.00005 is left in tenant:run", "raise the budget"):
            assert part in message
        assert place.provider.requests == []
        totals = place.proxy.app.totals
        assert (totals.denied, totals.calls, place.spent, place.held) == (1, 0, 0, 0)


@pytest.mark.parametrize(("name", "path", "body"), CALLS)
def test_an_unknown_model_is_denied_or_charged_at_the_amount_that_is_allowed(
    name: str, path: str, body: dict[str, Any]
) -> None:
    other = {**body, "model": "new"} if "model" in body else body
    with proxied() as place:
        response = place.post(path.replace("models/m:", "models/new:"), json=other)
        assert response.status_code == 402
        assert response.headers["x-cycles-reason"] == "unknown_model"
        message = _error(name, response.json())[1]
        for part in ("--unknown-model allow=AMOUNT", "--free-host HOST if that host costs nothing"):
            assert part in message
        assert place.provider.requests == []
    with proxied(unknown_model=cycles.usd("0.25")) as place:
        assert place.post(path.replace("models/m:", "models/new:"), json=other).status_code == 200
        assert place.commits == [(25_000_000, {"actual_source": "estimate"})]
        assert place.proxy.app.totals.estimated == 1


def test_unmetered_requests_are_denied_or_passed_and_reported() -> None:
    with proxied() as place:
        response = place.post("/openai/v1/batches", json={"input_file_id": "f"})
        assert response.status_code == 402
        error = response.json()["error"]
        assert (error["code"], "a request to /v1/batches may cost money" in error["message"]) == ("unmetered", True)
        assert place.provider.requests == []
    with proxied(unmetered="allow") as place:
        assert place.post("/openai/v1/batches", json={"input_file_id": "f"}).status_code == 200
        totals = place.proxy.app.totals
        assert (totals.unmetered, totals.paths["/v1/batches"], place.spent) == (1, 1, 0)


def test_a_request_to_a_free_host_is_never_denied_as_unmetered() -> None:
    with proxied(free_hosts=(FreeHost("127.0.0.1", None),)) as place:
        assert place.post("/openai/v1/batches", json={"input_file_id": "f"}).status_code == 200
        totals = place.proxy.app.totals
        assert (totals.unmetered, totals.passed, place.spent) == (0, 1, 0)


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("/openai/v1/chat/completions", {"content": b"no json"}),
        ("/openai/v1/chat/completions", {"json": ["a list"]}),
        ("/openai/v1/chat/completions", {"json": {"messages": []}}),
        ("/openai/v1/chat/completions", {"json": {**CHAT, "max_tokens": 0}}),
        ("/openai/v1/chat/completions", {"json": {**CHAT, "max_tokens": "9"}}),
        ("/openai/v1/chat/completions", {"json": {**CHAT, "max_completion_tokens": 1.5}}),
        ("/openai/v1/chat/completions", {"json": {**CHAT, "max_tokens": True}}),
        ("/anthropic/v1/messages", {"json": {**CHAT, "max_tokens": -1}}),
        ("/gemini/v1/models/m:generateContent", {"json": {"generation_config": {"max_output_tokens": "9"}}}),
        ("/openai/v1/../chat", {}),
        ("/openai/v1/%2e%2e/chat", {}),
        ("/openai/v1//chat/completions", {}),
        ("/openai/v1/chat%5c..%5cx", {}),
    ],
)
def test_wrong_requests_are_400_and_reach_no_upstream(path: str, options: dict[str, Any]) -> None:
    with proxied() as place:
        assert _raw(place, f"/{KEY}{path}", **options) == 400
        assert place.provider.requests == []
        assert place.proxy.app.totals.denied == 0


def _raw(place: Place, target: str, *, method: str = "POST", **options: Any) -> int:
    """Send a request whose target no client library cleans up, and return the status."""
    with _sent(place, target, method=method, **options) as connection:
        return int(connection.makefile("rb").readline().split()[1])


@contextlib.contextmanager
def _sent(place: Place, target: str, *, method: str = "POST", **options: Any) -> Iterator[socket.socket]:
    """Send a request and yield its connection, which is closed at the end."""
    host = place.url.removeprefix("http://")
    body = httpx.Request("POST", place.url, **(options or {"json": CHAT})).read()
    head = f"{method} {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    address, _, port = host.partition(":")
    with socket.create_connection((address, int(port)), timeout=60) as connection:
        connection.sendall(head.encode() + body)
        yield connection


def test_absolute_targets_unknown_paths_and_connect_reach_no_upstream() -> None:
    with proxied() as place:
        assert _raw(place, f"http://example.com/{KEY}/openai/v1/chat/completions") in (400, 401)
        assert _raw(place, "example.com:443", method="CONNECT") in (400, 401)
        assert _raw(place, f"/{KEY}/other/v1/chat/completions") == 404
        assert _raw(place, f"/{KEY}/openai") == 404
        assert place.provider.requests == []


def test_a_target_with_the_address_of_the_proxy_is_as_its_path_alone() -> None:
    with proxied() as place:
        port = int(place.url.rpartition(":")[2])
        for own in (place.url, f"HTTP://127.0.0.1:{port}"):
            assert _raw(place, f"{own}/{KEY}/openai/v1/chat/completions") == 200
            assert _raw(place, f"{own}/openai/v1/chat/completions") == 401
        for other in (f"http://127.0.0.1:{port + 1}", f"http://u@127.0.0.1:{port}", "http://127.0.0.1", "http://[:1"):
            assert _raw(place, f"{other}/{KEY}/openai/v1/chat/completions") == 401
        assert len(place.provider.requests) == 2


def test_a_target_with_another_name_of_the_proxy_is_as_its_path_alone() -> None:
    with proxied() as place:
        for name, target, status in (
            ("cycles:9000", f"http://cycles:9000/{KEY}", 200),
            ("cycles:9000", "http://cycles:9000", 401),
            ("cycles:9000", f"http://other:9000/{KEY}", 401),
            ("u@cycles:9000", f"http://u@cycles:9000/{KEY}", 401),
        ):
            head = f"GET {target}/openai/v1/models HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n"
            assert _status(place, head) == status
        assert len(place.provider.requests) == 1
    with proxied(key=None) as place:
        assert _status(place, "GET http://cycles/openai/v1/models HTTP/1.1\r\nHost: cycles\r\n\r\n") == 403


def test_without_the_key_nothing_is_accepted() -> None:
    with proxied() as place:
        for key in (None, "wrong", KEY[:-1]):
            assert place.post(key=key).status_code == 401
        assert place.provider.requests == []


def test_a_foreign_origin_is_403_and_without_a_key_a_foreign_host_too() -> None:
    with proxied() as place:
        assert place.post(headers={"origin": "https://example.com"}).status_code == 403
        assert place.post(headers={"origin": "null"}).status_code == 403
        assert place.post(headers={"origin": "http://localhost:3000"}).status_code == 200
    with proxied(key=None) as place:
        assert place.post(key=None, headers={"host": "rebound.example"}).status_code == 403
        assert place.post(key=None, headers={"host": "localhost:1"}).status_code == 200


def _status(place: Place, head: str, body: bytes = b"") -> int:
    """Send these bytes, and return the status."""
    address, _, port = place.url.removeprefix("http://").partition(":")
    with socket.create_connection((address, int(port)), timeout=60) as connection:
        connection.sendall(head.replace("HOST", f"{address}:{port}").encode("latin-1") + body)
        return int(connection.makefile("rb").readline().split()[1])


PAID, FREE = f"POST /{KEY}/openai/v1/chat/completions", f"GET /{KEY}/openai/v1/models"


@pytest.mark.parametrize("target", [PAID, FREE], ids=["paid", "free"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("Origin: http://[\r\nContent-Length: 2", 403),
        ("Origin: http://]\r\nContent-Length: 2", 403),
        ("Origin: http://[::1\r\nContent-Length: 2", 403),
        ("Origin: http://localhost:1@evil.example\r\nContent-Length: 2", 403),
        ("Origin: \r\nContent-Length: 2", 403),
        ("Origin: https://evil.example\r\nOrigin: http://localhost\r\nContent-Length: 2", 400),
        ("Origin: http://localhost\r\norigin: https://evil.example\r\nContent-Length: 2", 400),
        ("Host: localhost\r\nContent-Length: 2", 400),
        (f"X-Cycles-Proxy-Key: {KEY}\r\nX-Cycles-Proxy-Key: x\r\nContent-Length: 2", 400),
        ("Content-Length: 2\r\nTransfer-Encoding: chunked", 400),
        ("Transfer-Encoding: chunked\r\nContent-Length: 2", 400),
        ("Content-Length: 2\r\nContent-Length: 3", 400),
    ],
)
def test_headers_that_two_readers_read_differently(target: str, headers: str, status: int) -> None:
    body = b"2\r\n{}\r\n0\r\n\r\n" if "chunked" in headers else b"{}"
    with proxied() as place:
        head = f"{target} HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n{headers}\r\n\r\n"
        assert _status(place, head, body) == status
        assert place.provider.requests == []


def test_a_broken_origin_without_a_key() -> None:
    with proxied(key=None) as place:
        for line, status in (("Origin: http://[", 403), ("Origin: http://127.0.0.1:5\r\nOrigin: null", 400)):
            head = f"GET /openai/v1/models HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n{line}\r\n\r\n"
            assert _status(place, head) == status
        assert place.provider.requests == []


def test_a_websocket_gets_426_and_the_program_sends_the_request_over_http() -> None:
    with proxied() as place:
        headers = {"upgrade": "websocket", "connection": "upgrade", "sec-websocket-version": "13"}
        response = httpx.get(f"{place.openai_url}/responses", headers=headers)
        assert response.status_code == 426
        assert "send the request over HTTP" in response.json()["error"]["message"]
        assert place.provider.requests == []


def test_a_denial_in_the_format_of_openai_has_the_words_that_aider_looks_for() -> None:
    with proxied(cycles.usd_microcents(5000)) as place:
        message = place.post().json()["error"]["message"]
        assert "insufficient credits" in message
        assert '"code":402' in message


def test_an_error_of_the_provider_is_forwarded_and_the_reservation_released() -> None:
    with proxied() as place:
        place.provider.reply(status=429, error="slow down", headers={"retry-after": "7"})
        response = place.post()
        assert (response.status_code, response.headers["retry-after"]) == (429, "7")
        assert "slow down" in response.text
        assert place.releases == ["provider_call_failed:StatusError"]
        assert (place.spent, place.held) == (0, 0)


def test_a_denial_of_the_run_around_this_one_is_forwarded_and_counted_as_one() -> None:
    with proxied() as place:
        place.provider.reply(status=402, error="too little", headers={"x-cycles-reason": "budget_exceeded"})
        response = place.post()
        assert (response.status_code, response.headers["x-cycles-reason"]) == (402, "budget_exceeded")
        totals = place.proxy.app.totals
        assert (dict(totals.denied_by), totals.calls) == ({"budget_exceeded": 1}, 0)
        assert (place.spent, place.held) == (0, 0)


def test_a_402_of_the_provider_is_no_denial() -> None:
    with proxied() as place:
        place.provider.reply(status=402, error="pay your bill")
        assert place.post().status_code == 402
        totals = place.proxy.app.totals
        assert (dict(totals.denied_by), totals.calls) == ({}, 1)


def test_redirects_are_not_followed() -> None:
    with proxied() as place:
        place.provider.reply(status=302, headers={"location": "http://127.0.0.1:1/"})
        assert place.post().status_code == 502
        totals = place.proxy.app.totals
        assert (totals.calls, dict(totals.failed_by), place.held) == (1, {}, 0)


def test_a_redirect_leaves_no_connection_open() -> None:
    with Stub(ok(status=302, headers=[("Location", "http://127.0.0.1:1/")])) as stub:
        with proxied(upstreams=upstreams(stub.url)) as place:
            assert place.post().status_code == 502
            stub.wait_for(lambda stub: stub.open == 0)
        assert stub.connections == 1


def test_a_run_waits_for_the_last_of_its_whole_responses() -> None:
    gate, body = threading.Event(), {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
    with Stub(after(gate, ok(body)), ok(body)) as stub, proxied(upstreams=upstreams(stub.url)) as place:
        with ThreadPoolExecutor(1) as pool:
            last = pool.submit(place.post)
            stub.wait_for(lambda stub: len(stub.requests) == 1)
            assert [place.post().status_code for _ in range(3)] == [200] * 3
            is_over = place.proxy.app.whole.wait(0)
            gate.set()
            assert not is_over
            assert last.result().status_code == 200
        assert place.proxy.app.whole.wait(PATIENCE_S)


def test_a_provider_that_is_down_is_502_and_the_reservation_released() -> None:
    with proxied(upstreams=upstreams("http://127.0.0.1:1")) as place:
        response = place.post()
        assert response.status_code == 502
        assert "x-should-retry" not in response.headers
        assert place.releases == ["provider_call_failed:ConnectError"]


@pytest.mark.parametrize("lost_attempt", ["bound", "prompt"])
def test_a_request_that_was_sent_and_got_no_response_costs_its_bound_or_its_prompt(lost_attempt: str) -> None:
    with proxied(lost_attempt=lost_attempt) as place:
        place.provider.reply(drop_after=0)
        assert place.post().status_code == 502
        [(amount, metadata)] = place.commits
        (bound,) = [request.json["estimate"]["amount"] for request in place.server.requests.of("reserve")]
        assert amount == bound if lost_attempt == "bound" else 0 < amount < 100 * 100
        assert metadata == {"actual_source": "estimate", "outcome": "error", "attempts": 1}


def test_a_stream_that_the_provider_breaks_off_breaks_for_the_program_too() -> None:
    with proxied() as place:
        place.provider.reply(usage=USED, text="one two three four", drop_after=3)
        with pytest.raises(httpx.RemoteProtocolError):
            place.post(json=STREAM)
        place.arrivals.wait_for("commit")
        [(amount, metadata)] = place.commits
        assert 0 < amount < EXACT
        assert metadata == {"actual_source": "estimate", "outcome": "error"}


def test_an_error_event_is_passed_on_and_what_was_made_is_charged() -> None:
    with proxied() as place:
        place.provider.reply(text="one two three four", error_after=3)
        assert "fake_error" in place.post(json=STREAM).text
        [(_, metadata)] = place.commits
        assert metadata == {"actual_source": "estimate", "outcome": "error"}


def test_a_program_that_leaves_a_stream_pays_what_was_made() -> None:
    with proxied() as place:
        gate = threading.Event()
        place.provider.reply(usage=USED, text="one two three four", gate=gate, gate_after=3)
        with httpx.stream("POST", f"{place.openai_url}/chat/completions", json=STREAM, timeout=120) as response:
            next(response.iter_bytes())
        place.arrivals.wait_for("commit")
        gate.set()
        [(amount, metadata)] = place.commits
        assert 0 < amount < EXACT
        assert metadata == {"actual_source": "estimate", "outcome": "closed"}
        assert place.held == 0


def test_a_program_that_leaves_after_the_finish_reason_pays_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cycles.proxy._exchange._DRAIN_S", PATIENCE_S)
    with proxied() as place:
        gate = threading.Event()
        place.provider.reply(usage=USED, text="one", gate=gate, gate_after=3)
        seen = b""
        with httpx.stream("POST", f"{place.openai_url}/chat/completions", json=STREAM, timeout=120) as response:
            for chunk in response.iter_bytes():
                seen += chunk
                if b'"stop"' in seen:
                    break
        gate.set()
        place.arrivals.wait_for("commit")
        assert place.commits == [(EXACT, {})]


def test_the_usage_of_a_stream_that_was_left_is_not_waited_for_longer_than_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cycles.proxy._exchange._DRAIN_S", 0.01)
    with proxied() as place:
        gate = threading.Event()
        place.provider.reply(usage=USED, text="one", gate=gate, gate_after=3)
        seen = b""
        with httpx.stream("POST", f"{place.openai_url}/chat/completions", json=STREAM, timeout=120) as response:
            for chunk in response.iter_bytes():
                seen += chunk
                if b'"stop"' in seen:
                    break
        place.arrivals.wait_for("commit")  # although the event with the usage has not come
        gate.set()
        [(_, metadata)] = place.commits
        assert metadata == {"actual_source": "estimate", "outcome": "closed"}


def test_a_program_that_leaves_during_the_settlement_is_counted() -> None:
    with proxied() as place:
        place.server.faults.delay("commit", seconds=0.2)
        place.provider.reply(usage=USED, text="one")
        with httpx.stream("POST", f"{place.openai_url}/chat/completions", json=STREAM, timeout=120) as response:
            for chunk in response.iter_bytes():
                if b"[DONE]" in chunk:
                    break
        place.proxy.stop(0)
        totals = place.proxy.app.totals
        assert (totals.calls, totals.spent, totals.pending) == (1, EXACT, 0)
        assert place.spent == EXACT


class _Stuck(httpx.AsyncByteStream):
    """A response whose next part never comes, and whose connection never closes."""

    def __init__(self) -> None:
        self.reading, self.closing = asyncio.Event(), asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b'data: {"model":"m","choices":[{"index":0,"delta":{"content":"one"}}]}\n\n'
        self.reading.set()
        await forever()

    async def aclose(self) -> None:
        self.closing.set()
        await forever()


@pytest.mark.parametrize("streams", [True, False])
def test_a_call_that_is_cancelled_again_while_its_response_closes_is_settled(streams: bool) -> None:
    async def main(server: cycles.EmbeddedServer) -> App:
        body = _Stuck()
        kind = {"content-type": "text/event-stream" if streams else "application/json"}
        upstream = httpx.AsyncClient(
            transport=httpx.MockTransport(lambda _: httpx.Response(200, headers=kind, stream=body))
        )
        client = server.client(tenant="run", async_http_client=LedgerClient(server))
        settings = ProxySettings(upstreams={"openai": "http://provider.test"}, prices=BOOK)
        ignored: Any = lambda *_: None  # noqa: E731
        app = App(
            settings,
            client,
            upstream,
            on_denied=ignored,
            on_no_decision=ignored,
            on_settled=ignored,
            forwarding=None,
        )
        messages = [{"type": "http.request", "body": json.dumps({**CHAT, "stream": streams}).encode()}]

        async def receive() -> Any:
            return messages.pop() if messages else await forever()

        async def send(_: object) -> None:
            pass

        path = "/openai/v1/chat/completions"
        scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b""}
        call = asyncio.create_task(app({**scope, "headers": [(b"host", b"127.0.0.1")]}, receive, send))
        for moment in (body.reading, body.closing):
            await set_by(call, moment)
            call.cancel()
        await asyncio.wait([call])
        await client.aclose()
        return app

    with cycles.EmbeddedServer({"tenant:run": cycles.usd(1000)}) as server:
        app = asyncio.run(main(server))
        assert (app.totals.calls, app.totals.pending) == (1, 0)
        assert app.totals.spent == server.spent("tenant:run").amount > 0
        assert server.ledger.balance("tenant:run").reserved == cycles.usd(0)


def test_a_settlement_that_the_ledger_does_not_confirm_is_pending_in_the_summary() -> None:
    with proxied() as place:
        place.server.faults.status("commit", 503, times=None)
        place.provider.reply(usage=USED, text="one")
        assert place.post("/openai/v1/chat/completions", json=CHAT).status_code == 200
        totals = place.proxy.app.totals
        assert (totals.calls, totals.spent, totals.document(1.0, 0)["pending"]) == (1, EXACT, 1)
        assert ", 1 pending, " in totals.line(1.0, None)
        place.server.faults.clear()


def test_a_program_that_leaves_while_it_waits_pays_exactly() -> None:
    with proxied() as place:
        gate = threading.Event()
        place.provider.reply(usage=USED, gate=gate)
        with _sent(place, f"{place.openai_url.removeprefix(place.url)}/chat/completions"):
            until(lambda: place.provider.requests)
        gate.set()
        place.arrivals.wait_for("commit")
        [(amount, metadata)] = place.commits
        assert (amount, "actual_source" in metadata) == (EXACT, False)
        assert place.proxy.app.whole.wait(60)
        assert place.proxy.app.totals.document(0, 0)["estimated"] == 0


def test_an_error_after_the_program_has_left_is_released() -> None:
    with proxied() as place:
        gate = threading.Event()
        place.provider.reply(status=500, gate=gate)
        with _sent(place, f"{place.openai_url.removeprefix(place.url)}/chat/completions"):
            until(lambda: place.provider.requests)
        gate.set()
        place.arrivals.wait_for("release")
        assert (place.commits, place.releases) == ([], ["provider_call_failed:StatusError"])


def test_a_program_that_leaves_while_its_failed_call_is_released_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = hold_responses(monkeypatch)
    with proxied() as place:
        place.provider.reply(status=500)
        place.server.faults.delay("release", 60)
        target = f"{place.openai_url.removeprefix(place.url)}/chat/completions"
        with _sent(place, target, json={**CHAT, "stream": True}):
            place.arrivals.wait_for("release")
        until(lambda: place.proxy.app.totals.calls == 1)
        go_on.set()


def test_a_whole_response_that_is_left_when_the_proxy_stops_costs_its_bound() -> None:
    with proxied() as place:
        gate = threading.Event()
        place.provider.reply(usage=USED, gate=gate)
        with _sent(place, f"{place.openai_url.removeprefix(place.url)}/chat/completions"):
            until(lambda: place.provider.requests)
        assert not place.proxy.app.whole.wait(0)
        place.proxy.stop(0)
        gate.set()
        (bound,) = [request.json["estimate"]["amount"] for request in place.server.requests.of("reserve")]
        assert [amount for amount, _ in place.commits] == [bound]


def test_a_ledger_that_does_not_respond_is_503_and_nothing_is_sent() -> None:
    with proxied() as place:
        place.server.faults.refuse("reserve", times=4)
        response = place.post()
        assert response.status_code == 503
        assert "nothing was sent" in response.json()["error"]["message"]
        assert place.provider.requests == []
        assert place.proxy.app.totals.denied == 0


def test_a_thinking_budget_above_the_limit_is_400_and_released() -> None:
    with proxied(max_output_tokens=100) as place:
        body = {**CHAT, "max_tokens": 2000, "thinking": {"type": "enabled", "budget_tokens": 1024}}
        assert place.post("/anthropic/v1/messages", json=body).status_code == 400
        assert place.provider.requests == []
        assert place.held == 0


def test_waits_for_budget_that_a_call_in_progress_releases() -> None:
    with proxied(cycles.usd_microcents(EXACT * 30), wait=120.0) as place:
        gate = threading.Event()
        place.provider.reply(usage=USED, gate=gate)
        body = {**CHAT, "max_tokens": 4000}
        first = threading.Thread(target=place.post, kwargs={"json": body})
        first.start()
        place.arrivals.wait_for("reserve", 1)
        waiting: list[int] = []
        second = threading.Thread(target=lambda: waiting.append(place.post(json=body).status_code))
        second.start()
        place.arrivals.wait_for("reserve", 2)
        gate.set()
        first.join()
        second.join()
        assert waiting == [200]


def test_the_proxy_stops_when_running_calls_have_finished() -> None:
    with proxied() as place:
        gate = threading.Event()
        place.provider.reply(usage=USED, gate=gate)
        responses: list[httpx.Response] = []
        caller = threading.Thread(target=lambda: responses.append(place.post()))
        caller.start()
        until(lambda: place.provider.requests)  # a call that still waits for its budget would get 503
        stopping = threading.Thread(target=place.proxy.stop, args=(20,))
        stopping.start()
        gate.set()
        stopping.join()
        caller.join()
        assert responses[0].status_code == 200
        assert place.commits == [(EXACT, {})]


def test_a_proxy_that_does_not_start_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(sock: socket.socket, *_: object) -> None:
        sock.close()
        raise OSError("no memory")

    monkeypatch.setattr("cycles.proxy._server.START_S", 0.01)
    monkeypatch.setattr("cycles.proxy._server.Listener", fail)
    before = set(threading.enumerate())
    with cycles.EmbeddedServer({"tenant:run": cycles.usd(1)}) as server:
        proxy = ProxyServer(ProxySettings(upstreams={}, prices=BOOK), server.client(tenant="run"))
        with pytest.raises(
            cycles.ConfigurationError, match=r"the proxy did not start within 0\.01 s on 127\.0\.0\.1:0"
        ):
            proxy.start("127.0.0.1", 0)
        assert [each.name for each in set(threading.enumerate()) - before if each.name == "cycles-proxy"] == []


def test_a_port_in_use_is_a_configuration_error() -> None:
    with proxied() as place, place.server.client(tenant="run") as client:
        port = int(place.url.rpartition(":")[2])
        proxy = ProxyServer(ProxySettings(upstreams=upstreams("http://x"), prices=BOOK), client)
        with pytest.raises(cycles.ConfigurationError, match="cannot listen on"):
            proxy.start("127.0.0.1", port)
