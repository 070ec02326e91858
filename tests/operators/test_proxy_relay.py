"""What the proxy relays between a program and a provider, and the connections it leaves behind."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

import cycles
from cycles.proxy._clients import UpstreamClient
from tests.operators.proxying import CHAT_PATH, KEY, Place, proxied, upstreams
from tests.support.stub import Answer, Stub, ok, raw, reset
from tests.support.waiting import until

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
STREAM = {**CHAT, "stream": True}
FREE = "/openai/v1/moderations"
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"


def until_left(first: bytes) -> Answer:
    """These bytes, then nothing until the peer ends the connection."""

    def answer(sock: socket.socket, ended: threading.Event) -> bool:
        sock.sendall(first)
        sock.recv(1)
        return False

    return answer


@contextmanager
def relayed(*script: Answer, **settings: Any) -> Iterator[tuple[Place, Stub]]:
    """Run the proxy before a provider that sends what the script says."""
    with Stub(*script) as stub, proxied(upstreams=upstreams(stub.url), **settings) as place:
        yield place, stub


class Unclosable(httpx.AsyncByteStream):
    """A body that breaks off, and whose connection cannot be closed then."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b'{"model":'
        raise httpx.ReadError("it is cut")

    async def aclose(self) -> None:
        raise httpx.CloseError("the connection is gone")


def test_a_connection_that_cannot_be_closed_is_one_that_broke_off(monkeypatch: pytest.MonkeyPatch) -> None:
    def respond(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": "application/json"}, stream=Unclosable())

    client = UpstreamClient(transport=httpx.MockTransport(respond))
    monkeypatch.setattr("cycles.proxy._server._upstream_client", lambda *_: client)
    with proxied() as place:
        response = place.post(json=CHAT)
        assert (response.status_code, "broke off its response" in response.text) == (502, True)
        [(_, metadata)] = place.commits
        assert (metadata["outcome"], place.held, place.proxy.app.totals.calls) == ("error", 0, 1)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@pytest.mark.parametrize("path", [FREE, "/openai/v1/responses/resp_9/cancel", CHAT_PATH])
def test_a_body_in_chunks_arrives_whole(path: str) -> None:
    """A request without Content-Length, as a program sends it that makes its body on the way."""
    with relayed(ok({"choices": []})) as (place, stub):
        text = json.dumps({**CHAT, "input": "x", "max_tokens": 9}).encode()
        place.post(path, content=iter([text[:9], text[9:]]), headers={"content-type": "application/json"})
        assert stub.requests[0].body == text


@pytest.mark.parametrize("in_chunks", [True, False])
@pytest.mark.parametrize("body", [b'{"reason": "x"}', b""])
def test_the_body_of_a_request_for_a_response_that_is_open_reaches_the_provider(body: bytes, in_chunks: bool) -> None:
    queued = {"id": "resp_9", "object": "response", "status": "queued", "background": True, "output": []}
    with relayed(ok(queued), ok({**queued, "status": "in_progress"})) as (place, stub):
        asked = {"model": "m", "input": "x", "max_output_tokens": 9, "background": True}
        assert place.post("/openai/v1/responses", json=asked).json()["status"] == "queued"
        content = iter([body[:4], body[4:]]) if in_chunks else body
        assert place.post("/openai/v1/responses/resp_9/cancel", content=content).json()["status"] == "in_progress"
        assert (stub.requests[1].body, place.held > 0) == (body, True)


@pytest.mark.parametrize("path", [FREE, "/openai/v1/responses/resp_9/cancel"])
def test_a_request_without_a_body_says_no_length_of_one(path: str) -> None:
    with relayed(ok()) as (place, stub):
        httpx.request("GET", f"{place.url}/{KEY}{path}", timeout=60)
        assert not {"content-length", "transfer-encoding"} & set(stub.requests[0].headers)


BROKEN: list[tuple[str, str, Any, bytes]] = [
    ("free, before its end", FREE, CHAT, JSON),
    ("error, before its end", CHAT_PATH, CHAT, JSON.replace(b"200 OK", b"400 Bad")),
    ("error of a stream", CHAT_PATH, STREAM, JSON.replace(b"200 OK", b"500 Bad")),
    ("events", CHAT_PATH, STREAM, EVENTS + chunk(b"data: {}\n\n")),
]


@pytest.mark.parametrize("end", [raw, reset], ids=["closed", "reset"])
@pytest.mark.parametrize(("path", "body", "sent"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_a_response_that_breaks_off_breaks_for_the_program_too(path: str, body: Any, sent: bytes, end: Any) -> None:
    """A program that took the part for the whole would go on with it."""
    with relayed(end(sent)) as (place, stub):
        with pytest.raises(httpx.RemoteProtocolError):
            place.post(path, json=body)
        stub.wait_for(lambda stub: stub.open == 0)
        until(lambda: place.held == 0)


@pytest.mark.parametrize("end", [raw, reset], ids=["closed", "reset"])
def test_a_whole_response_that_breaks_off_is_502_and_costs_its_bound(end: Any) -> None:
    with relayed(end(JSON)) as (place, stub):
        response = place.post()
        assert (response.status_code, "broke off its response" in response.text) == (502, True)
        [(amount, metadata)] = place.commits
        assert (amount > 0, metadata["outcome"], place.held) == (True, "error", 0)
        stub.wait_for(lambda stub: stub.open == 0)


LEFT = [
    ("free", FREE, CHAT, JSON),
    ("error", CHAT_PATH, STREAM, JSON.replace(b"200 OK", b"400 Bad")),
    ("events", CHAT_PATH, STREAM, EVENTS + chunk(b'data: {"choices": []}\n\n')),
]


@pytest.mark.parametrize(("path", "body", "sent"), [case[1:] for case in LEFT], ids=[case[0] for case in LEFT])
def test_a_program_that_leaves_leaves_no_connection_to_the_provider(path: str, body: Any, sent: bytes) -> None:
    with relayed(until_left(sent)) as (place, stub):
        with httpx.stream("POST", f"{place.url}/{KEY}{path}", json=body, timeout=60) as response:
            chunks = response.iter_raw()  # a generator that is dropped would close the response
            next(chunks)
            assert stub.open == 1
        stub.wait_for(lambda stub: stub.open == 0)
        until(lambda: place.held == 0)


@pytest.mark.parametrize("path", [FREE, CHAT_PATH])
def test_the_connection_to_the_provider_is_used_again(path: str) -> None:
    with relayed(ok(status=400), ok(status=429), ok()) as (place, stub):

        def is_one_reused() -> bool:
            place.post(path)
            return stub.connections < len(stub.requests)

        until(is_one_reused)


@pytest.mark.parametrize("broken", [raw(JSON), reset(JSON), raw(b""), raw(b"no http\r\n\r\n")])
@pytest.mark.parametrize("path", [FREE, CHAT_PATH])
def test_a_request_after_a_broken_one_gets_its_response(path: str, broken: Answer) -> None:
    with relayed(broken, ok({"choices": []})) as (place, stub):
        try:
            place.post(path)
        except httpx.HTTPError:
            assert path == FREE
        assert place.post(path).status_code == 200
        assert stub.connections == 2


def test_only_the_denial_of_another_proxy_is_counted_as_one() -> None:
    """A provider behind another proxy may copy the header into its own errors."""
    with relayed() as (place, stub):
        statuses = [304, 400, 401, 403, 409, 422, 429, 500, 503]
        for status in statuses:
            stub.then(ok(b"", status, headers=[("x-cycles-reason", "budget_exceeded")]))
            assert place.post().status_code == status
        totals = place.proxy.app.totals
        assert (dict(totals.denied_by), totals.calls) == ({}, len(statuses))


def test_the_denial_of_another_proxy_counts_for_the_share_that_got_it() -> None:
    with relayed(ok(status=402, headers=[("x-cycles-reason", "limit_exceeded" * 20)])) as (place, _):
        made = httpx.post(f"{place.url}/{KEY}/shares", json={"name": "a", "limit": "1USD"}, timeout=60).json()
        assert httpx.post(f"{made['proxy_url']}{CHAT_PATH}", json=CHAT, timeout=60).status_code == 402
        assert place.proxy.shares.document()["a"]["denied"] == 1
        assert [len(reason) for reason in place.proxy.app.totals.denied_by] == [80]


@pytest.mark.parametrize("status", [304, 404, 500])
def test_a_retrieval_that_fails_settles_nothing(status: int) -> None:
    responses = "/openai/v1/responses"
    with relayed(ok({"id": "resp_1", "status": "queued"}), ok(b"" if status == 304 else b"{}", status)) as (place, _):
        place.post(responses, json={"model": "m", "input": "hi", "background": True, "max_output_tokens": 9})
        held = place.held
        got = httpx.get(f"{place.url}/{KEY}{responses}/resp_1", timeout=60)
        assert (got.status_code, place.commits, place.held == held > 0) == (status, [], True)


def test_what_follows_the_usage_of_a_stream_that_was_left_is_read_to_a_limit() -> None:
    """After its program has left, 64 KiB are read for the usage behind the finish reason; then it is settled."""
    first = chunk(b'data: {"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}]}\n\n')
    more = chunk(b": " + b"x" * 9000 + b"\n\n")
    gate, blocked = threading.Event(), threading.Event()

    def endless(sock: socket.socket, ended: threading.Event) -> bool:
        sock.sendall(EVENTS + first)
        gate.wait(60)
        for _ in range(4000):
            try:
                sock.sendall(more)
            except OSError:
                blocked.set()
                break
        return False

    with relayed(endless) as (place, stub):
        with httpx.stream("POST", f"{place.url}/{KEY}{CHAT_PATH}", json=STREAM, timeout=60) as response:
            next(response.iter_raw())
        gate.set()
        until(lambda: place.commits)  # the ledger has a commit before the log of the requests has it
        assert place.held == 0
        stub.wait_for(lambda stub: stub.open == 0)
        assert blocked.is_set()
        assert [metadata["outcome"] for _, metadata in place.commits] == ["closed"]


def test_a_lowered_request_that_the_server_caps_has_the_lower_limit() -> None:
    amount = cycles.usd("0.02")
    with proxied(amount) as place:
        place.server.ledger.set_budget("tenant:run", amount, caps={"max_tokens": 50})
        response = place.post(json={**CHAT, "max_tokens": 5_000})
        assert (response.headers["x-cycles-output-limit"], place.provider.requests[-1].body["max_tokens"]) == ("50", 50)
        assert place.commits[0][1]["output_limit"] == 50
