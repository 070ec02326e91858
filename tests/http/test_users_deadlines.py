"""One deadline limits an attempt over a user's client of httpx, whatever the client waits for."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import httpx
import httpx2
import pytest

from cycles._core.messages.outcome import Reply
from cycles._core.messages.requests import Prepared
from cycles._http import attempt_threads
from cycles._http.attempt_threads import AttemptThreads
from cycles._http.exchange import Endpoint, ExchangeError, FailureKind, Limits
from cycles._http.httpx_client import AsyncClient, BlockingClient
from tests.support.stub import Stub, ok, stall
from tests.support.waiting import until

LIBRARIES = pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
BOTH = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
SHORT_S = 0.5
SOON_S = 20.0  # far more than a deadline of SHORT_S, and less than the wait for a connection, which is 30 s
PATIENCE_S = 60.0


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """What hangs waits for this event, which is set at the end of the test."""
    event = threading.Event()
    yield event
    event.set()


def failure(
    library: Any, is_async: bool, url: str, queue_timeout_s: float = 0.0, hooks: Any = None, **options: Any
) -> ExchangeError:
    """Return the failure of an exchange that has SHORT_S seconds, after it came soon enough.

    Args:
        hooks: Of the client during this exchange. It has a connection then: on a busy machine a first exchange may take
            SHORT_S seconds until its request is sent.
    """
    began = time.monotonic()

    async def main() -> None:
        async with library.AsyncClient(**options) as client:
            connections = AsyncClient(Endpoint(url), client, connect_timeout_s=PATIENCE_S, max_connections=4)
            if hooks is not None:
                await connections.send(Prepared("POST", "/v1/x", [], b"{}"), Limits(PATIENCE_S))
                client.event_hooks = hooks
            await connections.send(Prepared("POST", "/v1/x", [], b"{}"), Limits(SHORT_S, queue_timeout_s))

    with pytest.raises(ExchangeError) as caught:
        if is_async:
            asyncio.run(main())
        else:
            with library.Client(**options) as client:
                connections = BlockingClient(Endpoint(url), client, connect_timeout_s=PATIENCE_S, max_connections=4)
                if hooks is not None:
                    connections.send(Prepared("POST", "/v1/x", [], b"{}"), Limits(PATIENCE_S))
                    client.event_hooks = hooks
                connections.send(Prepared("POST", "/v1/x", [], b"{}"), Limits(SHORT_S, queue_timeout_s))
    assert time.monotonic() - began < SOON_S
    return caught.value


@LIBRARIES
@BOTH
def test_a_name_service_that_hangs(
    library: Any, is_async: bool, released: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def hang(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host in ("server.test", b"server.test"):
            released.wait(PATIENCE_S)
            host = "127.0.0.1"
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    began = time.monotonic()
    if is_async:
        error = asyncio.run(_async_failure_with_a_busy_executor(library, released))
    else:
        error = failure(library, False, "http://server.test:9", PATIENCE_S)
    assert time.monotonic() - began < SOON_S
    assert (error.kind, error.request_sent) == (FailureKind.TIMEOUT, False)


async def _async_failure_with_a_busy_executor(library: Any, released: threading.Event) -> ExchangeError:
    """`asyncio.run` waits for the thread of the look-up, so it is released inside."""
    async with library.AsyncClient() as client:
        connections = AsyncClient(
            Endpoint("http://server.test:9"), client, connect_timeout_s=PATIENCE_S, max_connections=4
        )
        try:
            await connections.send(Prepared("POST", "/v1/x", [], b"{}"), Limits(SHORT_S))
        except ExchangeError as error:
            return error
        finally:
            released.set()
    raise AssertionError("the exchange has a reply")


@LIBRARIES
@BOTH
@pytest.mark.parametrize("event", ["request", "response"])
def test_an_event_hook_that_hangs(library: Any, is_async: bool, event: str, released: threading.Event) -> None:
    def hang(_: Any) -> None:
        released.wait(PATIENCE_S)

    async def hang_async(_: Any) -> None:
        await asyncio.Event().wait()

    with Stub(ok(b"{}")) as stub:
        error = failure(library, is_async, stub.url, hooks={event: [hang_async if is_async else hang]})
    assert error.kind is FailureKind.TIMEOUT
    assert error.request_sent  # also in the hook of a request: what a user's client has sent is not known


@LIBRARIES
@BOTH
def test_an_auth_flow_that_hangs(library: Any, is_async: bool, released: threading.Event) -> None:
    class Slow(library.Auth):  # type: ignore[misc]
        def sync_auth_flow(self, request: Any) -> Any:
            released.wait(PATIENCE_S)
            yield request

        async def async_auth_flow(self, request: Any) -> Any:
            await asyncio.Event().wait()
            yield request

    with Stub(ok(b"{}")) as stub:
        assert failure(library, is_async, stub.url, auth=Slow()).kind is FailureKind.TIMEOUT
        assert stub.requests == []


@LIBRARIES
@BOTH
def test_a_transport_that_hangs(library: Any, is_async: bool, released: threading.Event) -> None:
    class Hanging(library.BaseTransport, library.AsyncBaseTransport):  # type: ignore[misc]
        def handle_request(self, request: Any) -> Any:
            released.wait(PATIENCE_S)
            return library.Response(200)

        async def handle_async_request(self, request: Any) -> Any:
            await asyncio.Event().wait()

    error = failure(library, is_async, "http://in.memory", transport=Hanging())
    assert (error.kind, error.request_sent) == (FailureKind.TIMEOUT, True)


@LIBRARIES
@BOTH
def test_the_deadline_counts_from_the_connection_although_the_wait_for_it_could_last_longer(
    library: Any, is_async: bool
) -> None:
    with Stub(ok(b""), stall()) as stub:
        began = time.monotonic()
        error = asyncio.run(_wait_async(library, stub.url)) if is_async else _wait(library, stub.url)
        assert time.monotonic() - began < SOON_S
    assert (error.kind, error.request_sent) == (FailureKind.TIMEOUT, True)


def _wait(library: Any, url: str) -> ExchangeError:
    with library.Client(limits=library.Limits(max_connections=1)) as client:
        connections = BlockingClient(Endpoint(url), client, connect_timeout_s=PATIENCE_S, max_connections=4)
        errors: list[ExchangeError] = []
        with client.stream("GET", url) as held:  # the one connection is in use
            waiting = threading.Thread(target=lambda: errors.append(_error_of(connections)))
            waiting.start()
            held.read()
        waiting.join(PATIENCE_S)
        return errors[0]


def _error_of(connections: BlockingClient) -> ExchangeError:
    with pytest.raises(ExchangeError) as caught:
        connections.send(Prepared("POST", "/v1/x", [], b"{}"), Limits(SHORT_S))
    return caught.value


async def _wait_async(library: Any, url: str) -> ExchangeError:
    async with library.AsyncClient(limits=library.Limits(max_connections=1)) as client:
        connections = AsyncClient(Endpoint(url), client, connect_timeout_s=PATIENCE_S, max_connections=4)
        async with client.stream("GET", url) as held:
            attempt = asyncio.create_task(connections.send(Prepared("POST", "/v1/x", [], b"{}"), Limits(SHORT_S)))
            await asyncio.sleep(0)
            await held.aread()
        with pytest.raises(ExchangeError) as caught:
            await attempt
        return caught.value


@BOTH
def test_nothing_is_sent_after_the_end_of_the_attempt(is_async: bool) -> None:
    async def main(url: str) -> Reply:
        async with httpx.AsyncClient() as client:
            connections = AsyncClient(Endpoint(url), client, connect_timeout_s=60, max_connections=4)
            return await connections.send(Prepared("POST", "/", [], b"{}"), Limits(PATIENCE_S, ends_at_s=0.0))

    with Stub() as stub:
        with pytest.raises(ExchangeError) as caught:
            if is_async:
                asyncio.run(main(stub.url))
            else:
                with httpx.Client() as client:
                    connections = BlockingClient(Endpoint(stub.url), client, connect_timeout_s=60, max_connections=4)
                    connections.send(Prepared("POST", "/", [], b"{}"), Limits(PATIENCE_S, ends_at_s=0.0))
        assert (caught.value.kind, caught.value.request_sent) == (FailureKind.TIMEOUT, False)
        assert stub.connections == 0


def threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "cycles-http"]


def test_one_thread_serves_all_attempts_of_a_caller_and_ends_with_the_client() -> None:
    before = set(threads())
    with Stub(*[ok(b"{}")] * 20) as stub, httpx.Client() as client:
        connections = BlockingClient(Endpoint(stub.url), client, connect_timeout_s=60, max_connections=4)
        for _ in range(20):
            connections.send(Prepared("POST", "/", [], b"{}"), Limits(PATIENCE_S))
        assert len(set(threads()) - before) == 1
        connections.close()
        until(lambda: not set(threads()) - before)


def test_all_idle_threads_end_with_the_client() -> None:
    before = set(threads())
    pool = AttemptThreads()
    pool.run(lambda: pool.run(threading.get_ident, lambda: PATIENCE_S), lambda: PATIENCE_S)  # one in the other
    assert len(set(threads()) - before) == 2
    pool.close()
    until(lambda: not set(threads()) - before)


def test_a_thread_whose_caller_has_left_ends_after_its_attempt(released: threading.Event) -> None:
    before = set(threads())
    pool = AttemptThreads()
    with pytest.raises(TimeoutError):
        pool.run(lambda: released.wait(PATIENCE_S), lambda: 0.0)
    pool.close()
    assert len(set(threads()) - before) == 1
    released.set()
    until(lambda: not set(threads()) - before)


def test_an_attempt_has_no_caller_after_an_interrupt(released: threading.Event) -> None:
    def interrupted() -> float:
        raise KeyboardInterrupt

    pool = AttemptThreads()
    with pytest.raises(KeyboardInterrupt):
        pool.run(lambda: released.wait(PATIENCE_S), interrupted)
    assert pool.run(lambda: "the next one", lambda: PATIENCE_S) == "the next one"
    pool.close()


class Interrupt(BaseException):
    """As KeyboardInterrupt, which would end pytest if a test fails."""


@pytest.mark.parametrize("left_by", [TimeoutError, Interrupt])
def test_attempts_that_hang_are_limited(
    left_by: type[BaseException], released: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt_threads, "_MOST_LEFT", 2)
    pool = AttemptThreads()

    def wait_s() -> float:
        if released.is_set():
            return PATIENCE_S
        if left_by is TimeoutError:
            return 0.0
        raise left_by

    def attempt() -> str:
        return pool.run(lambda: str(released.wait(PATIENCE_S)), wait_s)

    for _ in range(2):
        with pytest.raises(left_by):
            attempt()
    with pytest.raises(ExchangeError, match="2 earlier requests still hang") as caught:
        attempt()
    assert (caught.value.kind, caught.value.request_sent) == (FailureKind.QUEUE, False)
    released.set()

    def ends() -> bool:
        try:
            return attempt() == "True"
        except ExchangeError:
            return False

    until(ends)
    pool.close()


@pytest.mark.parametrize("raised", [ValueError("odd"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_what_an_attempt_raises_is_raised_in_its_caller(raised: BaseException) -> None:
    def fail() -> None:
        raise raised

    pool = AttemptThreads()
    with pytest.raises(type(raised)) as caught:
        pool.run(fail, lambda: PATIENCE_S)
    assert caught.value is raised
    pool.close()


def test_an_error_is_freed_with_its_last_reference() -> None:
    """Its frames have the request, with the API key."""

    class OddError(Exception):
        pass

    def fail() -> None:
        raise OddError

    pool = AttemptThreads()
    gc.disable()
    try:
        try:
            pool.run(fail, lambda: PATIENCE_S)
        except OddError as error:
            gone = weakref.ref(error)
        until(lambda: gone() is None, SOON_S)
    finally:
        gc.enable()
    pool.close()


def test_an_idle_thread_keeps_no_response() -> None:
    class Response:
        pass

    pool = AttemptThreads()
    gone = weakref.ref(pool.run(Response, lambda: PATIENCE_S))
    until(lambda: gone() is None, SOON_S)
    pool.close()


def test_the_caller_sends_if_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("can't start new thread")

    def respond(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, text=threading.current_thread().name)

    monkeypatch.setattr(threading.Thread, "start", fail)
    with httpx.Client(transport=httpx.MockTransport(respond)) as client:
        connections = BlockingClient(Endpoint("http://in.memory"), client, connect_timeout_s=60, max_connections=4)
        reply = connections.send(Prepared("POST", "/", [], b"{}"), Limits(PATIENCE_S))
    assert reply.body.decode() == threading.current_thread().name
