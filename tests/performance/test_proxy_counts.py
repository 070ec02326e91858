"""What a metered call of the proxy costs beside its provider: function calls, tasks, and requests of httpx."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

import cycles
from cycles.proxy._app import App
from cycles.proxy._clients import LedgerClient
from cycles.proxy._settings import ProxySettings
from tests.performance.conftest import garbage, steps

MOST_STEPS = 4_300  # about 3,640 in Python 3.11; they were 6,000, more than half of them for the ledger over httpx
MOST_STEPS_OF_A_CHUNK = 36  # about 31; they were 39
TASKS = 1
"""It watches whether the program is still there."""
_USAGE = {"prompt_tokens": 20, "completion_tokens": 600, "total_tokens": 620}
_EVENT = b'data: {"model":"gpt-4o","choices":[{"index":0,"delta":{"content":"word"},"finish_reason":null}]}\n\n'
_LAST = b'data: {"model":"gpt-4o","choices":[],"usage":%b}\n\ndata: [DONE]\n\n' % json.dumps(_USAGE).encode()


class _Chunks(httpx.AsyncByteStream):
    def __init__(self, count: int) -> None:
        self._count = count

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(self._count):
            yield _EVENT
        yield _LAST


def _nothing(*_: object) -> None:
    pass


class _Place:
    """The application of the proxy, with a ledger in this process and a provider in memory."""

    def __init__(self) -> None:
        self.server = cycles.EmbeddedServer({"tenant:run": cycles.usd(1000)})
        self.chunks = 0
        self.upstream_requests: list[httpx.Request] = []
        settings = ProxySettings(
            upstreams={"openai": "http://provider.test"},
            prices=cycles.PriceBook({"gpt-4o": cycles.Price("2.50", "10")}),
        )
        self.app = App(
            settings,
            self.server.client(tenant="run", async_http_client=LedgerClient(self.server)),
            httpx.AsyncClient(transport=httpx.MockTransport(self._respond)),
            on_denied=_nothing,
            on_no_decision=_nothing,
            on_settled=_nothing,
            forwarding=None,
        )

    def _respond(self, request: httpx.Request) -> httpx.Response:
        self.upstream_requests.append(request)
        if self.chunks:
            return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=_Chunks(self.chunks))
        choices = [{"message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]
        return httpx.Response(200, json={"model": "gpt-4o", "choices": choices, "usage": _USAGE})

    async def call(self, chunks: int = 0) -> bytes:
        """Make a call, streamed if it has chunks; return the body of its response."""
        self.chunks = chunks
        body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Why?"}], "max_tokens": 1000}
        content = json.dumps({**body, "stream": bool(chunks)}).encode()
        path, sent = "/openai/v1/chat/completions", list[Any]()
        headers = [(b"host", b"127.0.0.1"), (b"content-length", b"%d" % len(content))]

        async def receive() -> Any:
            if sent or receiving:
                await asyncio.get_running_loop().create_future()  # the program stays
            receiving.append(True)
            return {"type": "http.request", "body": content}

        async def send(message: Any) -> None:
            sent.append(message)

        receiving: list[bool] = []
        scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b""}
        await self.app({**scope, "headers": headers}, receive, send)
        assert sent[0]["status"] == 200
        return b"".join(message["body"] for message in sent[1:])


def _steps(place: _Place, loop: asyncio.AbstractEventLoop, chunks: int = 0) -> int:
    return steps(lambda: loop.run_until_complete(place.call(chunks)))


@pytest.fixture
def place() -> _Place:
    """After some calls: the first ones take more."""
    made = _Place()
    for _ in range(3):
        asyncio.run(made.call())
        asyncio.run(made.call(2))
    return made


def test_a_metered_call_takes_few_steps(place: _Place) -> None:
    with asyncio.Runner() as runner:
        _steps(place, runner.get_loop())
        assert _steps(place, runner.get_loop()) <= MOST_STEPS


def test_a_streamed_chunk_takes_few_steps(place: _Place) -> None:
    with asyncio.Runner() as runner:
        few, many = (_steps(place, runner.get_loop(), count) for count in (100, 400))
        assert (many - few) / 300 <= MOST_STEPS_OF_A_CHUNK


def test_a_metered_call_makes_one_task_and_a_chunk_none(place: _Place) -> None:
    made: list[object] = []

    def counted(loop: asyncio.AbstractEventLoop, work: Any, **how: Any) -> asyncio.Task[Any]:
        made.append(work)
        return asyncio.Task(work, loop=loop, **how)

    async def main(chunks: int) -> list[object]:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(counted)
        made.clear()
        await place.call(chunks)
        return list(made)

    assert [len(asyncio.run(main(chunks))) for chunks in (0, 1, 50)] == [TASKS] * 3


def test_only_the_provider_gets_a_request_of_httpx(place: _Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests and responses of httpx cost more than the run's own ledger, which needs none."""
    made: list[object] = []
    create = httpx.Request.__init__

    def counted(request: httpx.Request, *arguments: Any, **options: Any) -> None:
        made.append(request)
        create(request, *arguments, **options)

    monkeypatch.setattr(httpx.Request, "__init__", counted)
    place.upstream_requests.clear()
    operations = len(place.server.requests)
    asyncio.run(place.call())
    assert made == place.upstream_requests
    assert len(made) == 1
    assert len(place.server.requests) - operations == 2


@pytest.mark.parametrize("chunks", [0, 50])
def test_a_metered_call_leaves_nothing_of_the_package_to_the_garbage_collector(place: _Place, chunks: int) -> None:
    with asyncio.Runner() as runner:
        runner.run(place.call(chunks))
        assert garbage(lambda: runner.run(place.call(chunks))) == []
