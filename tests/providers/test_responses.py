"""Responses of `httpx` that are read, left, dropped or broken: what is forwarded, read for the usage, and charged."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import attrs
import httpx
import pytest

import cycles
from cycles.providers import _pump
from cycles.providers._call import Call
from cycles.providers._endpoints import find
from cycles.providers._meter import make_meter
from cycles.providers._pump import receive
from cycles.providers._settle import TASK, end_call, open_call
from cycles.testing._bedrock import frame
from tests.providers.conftest import BOOK, EXACT, collect
from tests.support.requests import Requests
from tests.support.waiting import PATIENCE_S

ESTIMATED = {"actual_source": "estimate"}
LEFT = {"outcome": "closed", **ESTIMATED}
BROKEN = {"outcome": "error", **ESTIMATED}
TEXT = b'data: {"choices":[{"delta":{"content":"abc"}}]}\n\n'
ENDS = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":1000,"completion_tokens":100}}\n\n'
DONE = b"data: [DONE]\n\n"
ERROR = b'data: {"error":{"message":"overloaded"}}\n\n'
WHOLE = json.dumps({"model": "m", "usage": {"prompt_tokens": 1000, "completion_tokens": 100}}).encode()
LONG = b":" + b"x" * 32_765 + b"\n\n"  # half of what is read for the usage
EVENTS, JSON = "text/event-stream", "application/json"


class Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    """The body of a response, in pieces; one that is an error is raised, and one that is a callable is called."""

    def __init__(self, *pieces: Any) -> None:
        self.pieces = list(pieces)
        self.pulled = self.closed = 0

    def _next(self, piece: Any) -> Any:
        self.pulled += 1
        if isinstance(piece, BaseException):
            raise piece
        return piece() if callable(piece) else piece

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.pieces:
            yield self._next(piece)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            found = self._next(piece)
            yield found if isinstance(found, bytes) else await found

    def close(self) -> None:
        self.closed += 1

    async def aclose(self) -> None:
        self.closed += 1


@attrs.define
class World(Requests):
    """One client whose responses are read by a thread or by a task."""

    server: cycles.EmbeddedServer
    client: cycles.Cycles
    is_async: bool
    runner: asyncio.Runner

    def call(self, *, stream: bool = True, **body: Any) -> Call:
        """Reserve a call that is sent."""
        meter = make_meter("openai", "openai", {"client": self.client, "prices": BOOK})
        path = "/chat/completions"
        endpoint: Any = find("openai", "POST", path)
        content = {"model": "m", "messages": [], "max_tokens": 500, "stream": stream, **body}
        made = Call(meter, endpoint, path, content, stream=stream, url="")
        made.reserved = made.estimate()
        open_call(made)
        made.with_usage_event()
        made.attempts = 1
        return made

    def response(self, call: Call, body: Body, kind: str | None = EVENTS, *, status: int = 200, **how: Any) -> Any:
        """Return a response that the call receives."""
        headers = {} if kind is None else {"content-type": kind}
        made = httpx.Response(status, headers=headers, stream=body, **how)
        receive(call, made)
        return made

    def read(self, response: httpx.Response, count: int | None = None) -> bytes:
        """Read so many pieces and close the response, or read all of it."""
        if self.is_async:
            return self.runner.run(_aread(response, count))
        found, pieces = b"", response.iter_bytes()
        for number, piece in enumerate(pieces, 1):
            found += piece
            if number == count:
                break
        if count is not None:
            response.close()
        return found

    def close(self, response: httpx.Response) -> None:
        if self.is_async:
            self.runner.run(response.aclose())
        else:
            response.close()

    def end(self, call: Call) -> None:
        if self.is_async:
            self.runner.run(TASK.end(call))
        else:
            end_call(call)


async def _aread(response: httpx.Response, count: int | None) -> bytes:
    found, number = b"", 0
    async for piece in response.aiter_bytes():
        found, number = found + piece, number + 1
        if number == count:
            break
    if count is not None:
        await response.aclose()
    return found


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with cycles.EmbeddedServer({"tenant:acme": cycles.usd(10)}) as server, asyncio.Runner() as runner:
        client = server.client(tenant="acme", journal=False)
        yield World(server, client, request.param, runner)
        client.close()


def prompt_of(call: Call) -> int:
    return BOOK.count_input("m", call.request.body) * 100


@pytest.mark.parametrize(
    ("body", "pieces", "kind", "forwarded"),
    [
        ({}, [TEXT, ENDS, USAGE, DONE], EVENTS, TEXT + ENDS + DONE),
        ({}, [TEXT + ENDS + USAGE, DONE[:-1]], EVENTS, TEXT + ENDS + DONE[:-1]),
        ({}, [TEXT + ENDS + USAGE, DONE], "Text/Event-Stream; charset=utf-8", TEXT + ENDS + DONE),
        ({}, [TEXT + ENDS + USAGE, DONE], None, TEXT + ENDS + DONE),
        ({"stream_options": {"include_usage": True}}, [TEXT, USAGE, DONE], EVENTS, TEXT + USAGE + DONE),
        ({"stream": False}, [WHOLE[:9], WHOLE[9:]], JSON, WHOLE),
        ({"stream": False}, [WHOLE[:9], WHOLE[9:]], None, WHOLE),
        ({"stream": False}, [WHOLE], "APPLICATION/JSON", WHOLE),
    ],
)
def test_a_response_that_is_read_is_charged_exactly_once(
    world: World, body: dict[str, Any], pieces: list[bytes], kind: str | None, forwarded: bytes
) -> None:
    call, source = world.call(**body), Body(*pieces)
    response = world.response(call, source, kind)
    assert (call.streams, world.commits, type(response).__name__) == (True, [], "Response")
    assert world.read(response) == forwarded
    assert (world.commits, source.closed) == ([(EXACT, {})], 1)
    world.close(response)
    assert len(world.commits) == 1


def test_frames_are_read_for_their_usage(world: World) -> None:
    call = world.call()
    pieces = [frame("chunk", {"a": 1}), frame("x", {"error": "x"}, "exception")]
    response = world.response(call, Body(*pieces), "application/vnd.amazon.eventstream")
    assert world.read(response) == b"".join(pieces)
    assert [metadata for _, metadata in world.commits] == [BROKEN]


def test_a_body_of_another_type_is_forwarded_and_costs_its_bound(world: World) -> None:
    call = world.call(stream=False)
    assert world.read(world.response(call, Body(b"ab", b"cd"), "audio/mpeg")) == b"abcd"
    assert world.commits == [(world.reserved[0], ESTIMATED)]


@pytest.mark.parametrize("status", [300, 400, 500])
def test_the_response_of_an_error_is_not_watched(world: World, status: int) -> None:
    call = world.call()
    response = world.response(call, Body(TEXT), status=status)
    assert (type(response), call.responded, call.streams) == (httpx.Response, False, False)


@pytest.mark.parametrize(
    ("stream", "kind", "content", "streams"),
    [
        (False, JSON, WHOLE, False),
        (False, EVENTS, TEXT + ENDS + USAGE + DONE, False),  # some gateways stream what was not asked to stream
        (True, JSON, WHOLE, False),
        (True, EVENTS, TEXT + ENDS + USAGE + DONE, True),
        (True, None, TEXT + ENDS + USAGE + DONE, True),
    ],
)
def test_a_response_that_a_hook_has_read_is_charged_exactly(
    world: World, stream: bool, kind: str | None, content: bytes, streams: bool
) -> None:
    call = world.call(stream=stream)
    made = httpx.Response(200, headers={} if kind is None else {"content-type": kind}, stream=Body(content))
    if world.is_async:
        world.runner.run(made.aread())
    else:
        made.read()
    receive(call, made)
    assert call.streams is streams
    if streams:
        assert world.read(made) == TEXT + ENDS + DONE
    world.end(call)
    assert world.commits == [(EXACT, {})]


@pytest.mark.parametrize(
    ("body", "count", "pieces", "pulled", "exact"),
    [
        ({}, 2, [TEXT, ENDS, USAGE, DONE], 3, True),
        ({}, 2, [TEXT, ENDS, DONE, USAGE], 3, False),  # it has no usage any more
        ({}, 2, [TEXT, ENDS, TEXT, ENDS, USAGE, DONE], 5, True),
        ({}, 1, [TEXT, ENDS, USAGE, DONE], 1, False),
        ({}, 2, [TEXT, ENDS, ValueError("x"), USAGE], 3, False),
        ({}, 2, [TEXT, ENDS], 2, False),
        ({"stream_options": {"include_usage": False}}, 2, [TEXT, ENDS, USAGE, DONE], 2, False),
        ({}, 2, [TEXT, ENDS, *[LONG] * 2, USAGE, DONE], 5, True),
        ({}, 2, [TEXT, ENDS, *[LONG] * 3, USAGE], 5, False),
        ({}, 3, [TEXT, ENDS, ERROR, USAGE], 3, False),
        ({}, 3, [TEXT, ENDS, DONE, USAGE], 3, False),
        ({"stream_options": {"include_usage": True}}, 3, [TEXT, ENDS, USAGE, DONE], 3, True),
    ],
)
def test_a_stream_that_is_left_after_its_finish_reason_is_read_for_its_usage(
    world: World, body: dict[str, Any], count: int, pieces: list[Any], pulled: int, exact: bool
) -> None:
    call, source = world.call(**body), Body(*pieces)
    assert world.read(world.response(call, source), count) == b"".join(pieces[:count])
    assert (source.pulled, source.closed) == (pulled, 1)
    [(amount, metadata)] = world.commits
    outcome = BROKEN if ERROR in pieces else {**ESTIMATED} if DONE in pieces[:pulled] else LEFT
    assert metadata == ({} if exact else outcome)
    assert amount == (EXACT if exact else prompt_of(call) + max(1, pieces[:pulled].count(TEXT)) * 1_000)


def test_a_stream_that_is_closed_unread_is_charged_and_not_read(world: World) -> None:
    call, source = world.call(), Body(TEXT, ENDS, USAGE)
    world.close(world.response(call, source))
    assert (source.pulled, source.closed) == (0, 1)
    assert world.commits == [(prompt_of(call) + 1_000, LEFT)]


def test_a_whole_response_that_is_left_costs_its_bound(world: World) -> None:
    response = world.response(world.call(stream=False), Body(WHOLE[:9], WHOLE[9:]), JSON)
    world.read(response, 1)
    assert world.commits == [(world.reserved[0], LEFT)]


def test_an_error_event_settles_its_call_before_the_sdk_raises(world: World) -> None:
    call = world.call()
    response = world.response(call, Body(TEXT, ERROR, TEXT))

    async def first_two() -> None:
        chunks = response.aiter_bytes()
        await anext(chunks)
        assert world.commits == []
        await anext(chunks)

    if world.is_async:
        world.runner.run(first_two())
    else:
        chunks = response.iter_bytes()
        next(chunks)
        assert world.commits == []
        next(chunks)
    assert world.commits == [(prompt_of(call) + 1_000, BROKEN)]


@pytest.mark.parametrize(
    ("error", "metadata"),
    [(httpx.ReadError("x"), BROKEN), (KeyboardInterrupt(), LEFT), (asyncio.CancelledError(), LEFT)],
)
def test_a_stream_that_breaks_is_charged_what_was_made(
    world: World, error: BaseException, metadata: dict[str, Any]
) -> None:
    call = world.call()
    response = world.response(call, Body(TEXT, error))
    with pytest.raises(type(error)):
        world.read(response)
    assert world.commits == [(prompt_of(call) + 1_000, metadata)]


def test_a_stream_whose_iterator_is_dropped_is_charged_when_the_response_is_closed(world: World) -> None:
    call = world.call()
    response = world.response(call, Body(TEXT, TEXT, ENDS))

    async def begin() -> None:
        chunks = response.aiter_bytes()
        await anext(chunks)
        await chunks.aclose()

    if world.is_async:
        world.runner.run(begin())
    else:
        chunks = response.iter_bytes()
        next(chunks)
        chunks.close()
    assert world.commits == []
    world.close(response)
    assert world.commits == [(prompt_of(call) + 1_000, LEFT)]


def test_a_response_that_cannot_be_closed_is_charged(world: World) -> None:
    class Stuck(Body):
        def close(self) -> None:
            raise ValueError("it does not close")

        async def aclose(self) -> None:
            raise ValueError("it does not close")

    call = world.call()
    with pytest.raises(ValueError, match="it does not close"):
        world.read(world.response(call, Stuck(TEXT, TEXT)), 1)
    assert world.commits == [(prompt_of(call) + 1_000, LEFT)]


def test_a_response_that_is_dropped_is_charged(world: World) -> None:
    call = world.call()
    response = world.response(call, Body(TEXT))
    del response
    collect()
    for thread in threading.enumerate():
        if thread.name == "cycles-dropped-response":
            thread.join(PATIENCE_S)
    assert world.commits == [(prompt_of(call) + 1_000, LEFT)]


def of_socket(connection: socket.socket) -> Any:
    stream = SimpleNamespace(get_extra_info={"socket": connection}.get)
    return {"extensions": {"network_stream": stream}}


def received(connection: socket.socket) -> bytes | None:
    """Return what a socket has received, empty at its end; None if nothing came yet."""
    try:
        return connection.recv(1)
    except BlockingIOError:
        return None


@pytest.mark.parametrize("known", [True, False])
def test_a_usage_event_that_does_not_come_is_not_waited_for_and_its_connection_ends(
    world: World, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    monkeypatch.setattr(_pump, "_DRAIN_S", 0.02)
    here, there = socket.socketpair()
    known = known and not world.is_async  # a task is cancelled
    with here, there:
        call = world.call()

        async def wait() -> bytes:
            await asyncio.Event().wait()
            return b""

        silent: Callable[[], Any] = wait if world.is_async else lambda: here.recv(1)
        response = world.response(call, Body(TEXT, ENDS, silent), **(of_socket(here) if known else {}))
        world.read(response, 2)
        assert world.commits == [(prompt_of(call) + 1_000, LEFT)]
        there.settimeout(PATIENCE_S if known else 0)
        assert received(there) == (b"" if known else None)  # it was shut down, or not
        there.shutdown(socket.SHUT_RDWR)
    for thread in threading.enumerate():
        if thread.name == "cycles-stream-usage":
            thread.join(PATIENCE_S)


class Interrupt(BaseException):
    """What a signal handler raises."""


def test_a_response_whose_close_is_interrupted_is_closed_and_charged(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrives, join = threading.Event(), threading.Thread.join

    def interrupted(thread: threading.Thread, timeout: float | None = None) -> None:
        arrives.set()
        if threading.current_thread() is threading.main_thread():
            raise Interrupt
        join(thread, timeout)

    async def leave() -> None:
        started = asyncio.Event()

        async def wait() -> bytes:
            started.set()
            await asyncio.Event().wait()
            return b""

        body.pieces.append(wait)
        chunks = response.aiter_bytes()
        for _ in range(2):
            await anext(chunks)
        closing = asyncio.create_task(response.aclose())
        await started.wait()
        closing.cancel()
        await closing

    def late() -> bytes:
        assert arrives.wait(PATIENCE_S)
        return b""

    call, body = world.call(), Body(TEXT, ENDS)
    response = world.response(call, body)
    if world.is_async:
        with pytest.raises(asyncio.CancelledError):
            world.runner.run(leave())
    else:
        body.pieces.append(late)
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "join", interrupted)
            with pytest.raises(Interrupt):
                world.read(response, 2)
    for thread in threading.enumerate():
        if thread.name == "cycles-stream-usage":
            join(thread, PATIENCE_S)
    assert (body.closed, world.commits) == (1, [(prompt_of(call) + 1_000, LEFT)])


@pytest.mark.parametrize("world", [False], indirect=True)
def test_a_thread_waits_for_the_usage_before_and_after_it_ends_the_connection(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_pump, "_DRAIN_S", 0.02)
    here, there = socket.socketpair()

    def connection(_: str) -> socket.socket:
        monkeypatch.setattr(_pump, "_DRAIN_S", PATIENCE_S)  # from now on the usage comes in time
        return here

    with here, there:
        extensions = {"network_stream": SimpleNamespace(get_extra_info=connection)}
        source = Body(TEXT, ENDS, lambda: here.recv(1), USAGE)
        world.read(world.response(world.call(), source, extensions=extensions), 2)
    assert world.commits == [(EXACT, {})]
    arrives, ended, join = threading.Event(), list[str](), threading.Thread.join

    def joined(thread: threading.Thread, timeout: float | None = None) -> None:
        arrives.set()
        join(thread, timeout)

    def late() -> bytes:
        assert arrives.wait(PATIENCE_S)
        return USAGE

    monkeypatch.setattr(threading.Thread, "join", joined)
    extensions = {"network_stream": SimpleNamespace(get_extra_info=ended.append)}
    world.read(world.response(world.call(), Body(TEXT, ENDS, late), extensions=extensions), 2)
    assert (world.commits, ended) == ([(EXACT, {})] * 2, [])
