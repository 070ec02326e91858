"""Many callers, few connections: reuse, the queue, closing, interrupts, forks."""

from __future__ import annotations

import asyncio
import gc
import os
import queue
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from cycles._core.messages.outcome import Reply
from cycles._core.messages.requests import Prepared
from cycles._http import blocking, connection_pool, http11, loop as loop_connections
from cycles._http.blocking import BlockingConnections
from cycles._http.exchange import Endpoint, ExchangeError, FailureKind, Limits
from cycles._http.loop import AsyncConnections
from tests.support.stub import Stub, after, ok, reply, stall


def threads(url: str, max_connections: int = 2) -> BlockingConnections:
    return BlockingConnections(Endpoint(url), connect_timeout_s=60, max_connections=max_connections)


def tasks(url: str, max_connections: int = 2) -> AsyncConnections:
    return AsyncConnections(Endpoint(url), connect_timeout_s=60, max_connections=max_connections)


def post(
    connections: BlockingConnections, body: bytes = b"{}", timeout_s: float = 60.0, queue_timeout_s: float = 60.0
) -> Reply:
    return connections.send(Prepared("POST", "/v1/x", [], body), Limits(timeout_s, queue_timeout_s))


def apost(
    connections: AsyncConnections, body: bytes = b"{}", timeout_s: float = 60.0, queue_timeout_s: float = 60.0
) -> asyncio.Task[Reply]:
    return asyncio.ensure_future(
        connections.send(Prepared("POST", "/v1/x", [], body), Limits(timeout_s, queue_timeout_s))
    )


def joins_of(pool: Any) -> threading.Semaphore:
    """Return a semaphore that is released each time a caller has joined the queue of a pool."""
    joined, join = threading.Semaphore(0), pool.join

    def note(waiter: object) -> None:
        join(waiter)
        joined.release()

    pool.join = note
    return joined


@pytest.mark.skipif(not hasattr(select, "poll"), reason="sockets have a timeout there")
def test_a_connection_is_used_again_without_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait of a millisecond for the end of an idle connection would be added to each request."""
    waits: list[float] = []

    class Poll:
        def __init__(self) -> None:
            self._poll = usual()
            self.register = self._poll.register

        def poll(self, timeout_ms: float) -> list[tuple[int, int]]:
            waits.append(timeout_ms)
            return self._poll.poll(timeout_ms)

    usual = select.poll
    monkeypatch.setattr(select, "poll", Poll)
    with Stub() as stub:
        connections = threads(stub.url)
        post(connections)
        first = len(waits)
        post(connections)
        connections.close()
        assert stub.connections == 1
    assert first > 0
    assert waits[first] == 0


@pytest.mark.skipif(not hasattr(select, "poll"), reason="sockets have a timeout there")
def test_a_plain_exchange_sets_no_timeout_of_its_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """It costs three system calls more."""
    calls: list[tuple[str, object]] = []
    here = threading.get_ident()

    def noting(name: str) -> Any:
        usual = getattr(socket.socket, name)

        def call(sock: socket.socket, value: Any) -> None:
            if threading.get_ident() == here:
                calls.append((name, value))
            usual(sock, value)

        return call

    with Stub() as stub:
        for name in ("settimeout", "setblocking"):
            monkeypatch.setattr(socket.socket, name, noting(name))
        connections = threads(stub.url)
        post(connections)
        post(connections)
        connections.close()
        assert [name for name, _ in calls] == ["settimeout", "setblocking"]  # to connect, and never again
        assert calls[1] == ("setblocking", False)


def test_sixteen_threads_share_four_connections_and_each_gets_its_own_response() -> None:
    def echo(sock: socket.socket, ended: threading.Event) -> bool:
        return ok(stub.requests[-1].body)(sock, ended)

    with Stub() as stub:
        connections = threads(stub.url, 4)
        with ThreadPoolExecutor(16) as pool:
            replies = list(pool.map(lambda n: post(connections, b"%d" % n), range(320)))
        connections.close()
        assert len(replies) == len(stub.requests) == 320
        assert sorted(int(request.body) for request in stub.requests) == list(range(320))
        assert 1 <= stub.connections <= 4


def test_one_caller_after_the_other_needs_one_connection() -> None:
    with Stub() as stub:
        connections = threads(stub.url, 8)
        for _ in range(5):
            post(connections)
        connections.close()
        assert stub.connections == 1


def test_the_connection_used_last_is_used_first() -> None:
    gate = threading.Event()
    with Stub(after(gate, ok()), ok()) as stub:
        connections = threads(stub.url, 2)
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(post, connections)
            stub.wait_for(lambda stub: len(stub.requests) == 1)
            post(connections)
            gate.set()
            first.result()
            post(connections)
        connections.close()
        assert [request.connection for request in stub.requests] == [1, 2, 1]


def test_waiting_threads_are_served_in_their_order() -> None:
    gate = threading.Event()
    with Stub(after(gate, ok()), ok()) as stub:
        connections = threads(stub.url, 1)
        joined = joins_of(connections._pool)
        with ThreadPoolExecutor(4) as pool:
            pool.submit(post, connections, b"0")
            stub.wait_for(lambda stub: len(stub.requests) == 1)
            for number in (b"1", b"2", b"3"):
                pool.submit(post, connections, number)
                assert joined.acquire(timeout=60)
            gate.set()
        connections.close()
        assert [request.body for request in stub.requests] == [b"0", b"1", b"2", b"3"]


LATE_S = 120.0
"""Far more than a wait of 0.1 s."""
WAITS = pytest.mark.parametrize(
    "limits",
    [lambda: Limits(60.0, 0.1), lambda: Limits(60.0, LATE_S, time.monotonic() + 0.1)],
    ids=["its timeout", "the end of all"],
)


@WAITS
def test_a_wait_for_a_connection_that_is_too_long_sends_nothing_and_says_so(limits: Callable[[], Limits]) -> None:
    gate = threading.Event()
    with Stub(after(gate, ok()), ok()) as stub:
        connections = threads(stub.url, 1)
        with ThreadPoolExecutor(1) as pool:
            busy = pool.submit(post, connections)
            stub.wait_for(lambda stub: len(stub.requests) == 1)
            started = time.monotonic()
            with pytest.raises(ExchangeError) as caught:
                connections.send(Prepared("POST", "/v1/x", [], b"{}"), limits())
            assert time.monotonic() - started < LATE_S
            gate.set()
            assert busy.result().status == 200
        assert (caught.value.kind, caught.value.request_sent) == (FailureKind.QUEUE, False)
        assert post(connections).status == 200  # nothing of the failed wait is left in the queue
        assert len(stub.requests) == 2
        connections.close()


@WAITS
def test_a_tasks_wait_for_a_connection_that_is_too_long_sends_nothing_and_says_so(limits: Callable[[], Limits]) -> None:
    async def main(stub: Stub, gate: threading.Event) -> None:
        connections = tasks(stub.url, 1)
        busy = apost(connections)
        await asyncio.to_thread(stub.wait_for, lambda stub: len(stub.requests) == 1)
        started = time.monotonic()
        with pytest.raises(ExchangeError) as caught:
            await connections.send(Prepared("POST", "/v1/x", [], b"{}"), limits())
        assert time.monotonic() - started < LATE_S
        assert (caught.value.kind, caught.value.request_sent) == (FailureKind.QUEUE, False)
        gate.set()
        assert (await busy).status == 200
        assert (await apost(connections)).status == 200
        await connections.aclose()

    gate = threading.Event()
    with Stub(after(gate, ok()), ok()) as stub:
        asyncio.run(main(stub, gate))


def test_time_in_the_queue_is_not_round_trip_time() -> None:
    gate = threading.Event()
    with Stub(after(gate, ok()), ok()) as stub:
        connections = threads(stub.url, 1)
        joined = joins_of(connections._pool)
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(post, connections)
            stub.wait_for(lambda stub: len(stub.requests) == 1)
            second = pool.submit(post, connections)
            assert joined.acquire(timeout=60)
            gate.set()
            assert second.result().sent >= first.result().received
        connections.close()


def test_sixty_four_tasks_share_their_connections() -> None:
    async def main(stub: Stub) -> None:
        connections = tasks(stub.url, 4)
        replies = await asyncio.gather(*(apost(connections, b"%d" % n) for n in range(64)))
        assert {reply.status for reply in replies} == {200}
        await connections.aclose()
        assert sorted(int(request.body) for request in stub.requests) == list(range(64))
        assert stub.connections <= 4

    with Stub() as stub:
        asyncio.run(main(stub))


def test_a_cancelled_task_spoils_its_connection_only() -> None:
    async def main(stub: Stub) -> None:
        connections = tasks(stub.url, 2)
        task = apost(connections, b"cancelled")
        await asyncio.to_thread(stub.wait_for, lambda stub: len(stub.requests) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        stub.then(ok(b"mine"))
        for _ in range(3):
            assert (await apost(connections)).body == b"mine"
        await connections.aclose()
        assert [request.connection for request in stub.requests] == [1, 2, 2, 2]

    with Stub(stall()) as stub:
        asyncio.run(main(stub))


def test_a_cancelled_task_leaves_neither_its_connection_nor_its_place_in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Connection(http11.Http11):
        """Those of this test: clients of earlier tests may end in their threads now, and drop theirs."""

    class Waiter(loop_connections._Waiter):
        """The same."""

    def left() -> int:
        gc.collect()
        return sum(type(each) in (Connection, Waiter) for each in gc.get_objects())

    async def main(stub: Stub) -> int:
        connections = tasks(stub.url, 1)
        busy = apost(connections)
        await asyncio.to_thread(stub.wait_for, lambda stub: len(stub.requests) == 1)
        waiting = apost(connections)
        await asyncio.sleep(0)
        assert left() == 2
        for task in (waiting, busy):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        del task, waiting, busy
        await connections.aclose()
        await asyncio.sleep(0)  # the loop drops the transport
        return left()

    monkeypatch.setattr(loop_connections, "Http11", Connection)
    monkeypatch.setattr(loop_connections, "_Waiter", Waiter)
    with Stub(stall()) as stub:
        assert asyncio.run(main(stub)) == 0


def test_bytes_that_come_without_a_request_end_the_connection() -> None:
    idle = threading.Event()

    def respond(sock: socket.socket, ended: threading.Event) -> bool:
        sock.sendall(reply(b"mine"))
        assert idle.wait(60)
        sock.sendall(reply(b"stray"))
        return True

    async def main(stub: Stub) -> None:
        connections = tasks(stub.url)
        await apost(connections)
        idle.set()
        await asyncio.to_thread(stub.wait_for, lambda stub: stub.open == 0)
        await connections.aclose()

    with Stub(respond) as stub:
        asyncio.run(main(stub))


def test_a_connection_whose_server_has_not_read_all_of_a_request_is_not_used_again() -> None:
    opened: list[asyncio.StreamWriter] = []

    async def respond_early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    async def main() -> None:
        server = await asyncio.start_server(respond_early, "127.0.0.1", 0)
        connections = tasks(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", 1)
        for body in (b"x" * (16 * 1024 * 1024), b"{}"):
            assert (await apost(connections, body)).body == b"{}"
        assert len(opened) == 2
        await connections.aclose()
        for writer in opened:
            writer.transport.abort()
        server.close()

    asyncio.run(main())


def test_a_cancelled_task_in_the_queue_leaves_its_slot_to_the_next() -> None:
    async def main(stub: Stub, gate: threading.Event) -> None:
        connections = tasks(stub.url, 1)
        busy = apost(connections)
        await asyncio.to_thread(stub.wait_for, lambda stub: len(stub.requests) == 1)
        gone, next_one = apost(connections), apost(connections, b"next")
        await asyncio.sleep(0)
        gate.set()
        await busy  # hands its seat to `gone`, which is cancelled before it can use it
        gone.cancel()
        assert (await next_one).status == 200
        await connections.aclose()
        assert len(stub.requests) <= 3

    gate = threading.Event()
    with Stub(after(gate, ok()), ok()) as stub:
        asyncio.run(main(stub, gate))


class Clock(asyncio.SelectorEventLoop):
    """An event loop whose clock the test moves on."""

    ahead_s = 0.0

    def time(self) -> float:
        return super().time() + self.ahead_s


def test_the_timeout_of_a_request_begins_when_its_task_has_a_connection() -> None:
    async def main(stub: Stub) -> None:
        connections = tasks(stub.url, 1)
        busy = apost(connections, timeout_s=1_000.0)
        await asyncio.to_thread(stub.wait_for, lambda stub: len(stub.requests) == 1)
        waiting = apost(connections, timeout_s=60.0, queue_timeout_s=1_000.0)
        await asyncio.sleep(0)
        clock.ahead_s = 100.0
        gates[0].set()
        assert (await busy).status == 200
        await asyncio.to_thread(stub.wait_for, lambda stub: len(stub.requests) == 2)
        gates[1].set()
        assert (await waiting).status == 200
        await connections.aclose()

    clock, gates = Clock(), [threading.Event(), threading.Event()]
    with Stub(*(after(gate, ok()) for gate in gates)) as stub, asyncio.Runner(loop_factory=lambda: clock) as runner:
        runner.run(main(stub))


def test_a_task_that_is_cancelled_in_the_queue_gets_no_slot_later() -> None:
    async def main(stub: Stub, gate: threading.Event) -> None:
        connections = tasks(stub.url, 1)
        busy = apost(connections)
        await asyncio.to_thread(stub.wait_for, lambda stub: len(stub.requests) == 1)
        gone = apost(connections, b"gone")
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait([gone])
        gate.set()
        await busy
        assert (await apost(connections, b"next", queue_timeout_s=10.0)).status == 200
        await connections.aclose()
        assert [request.body for request in stub.requests] == [b"{}", b"next"]

    gate = threading.Event()
    with Stub(after(gate, ok()), ok()) as stub:
        asyncio.run(main(stub, gate))


def test_an_interrupt_spoils_its_connection_only(monkeypatch: pytest.MonkeyPatch) -> None:
    with Stub(ok(b"theirs"), ok(b"mine")) as stub:
        connections = threads(stub.url, 1)

        def interrupted(*_: object) -> NoReturn:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(http11.Http11, "feed", interrupted)
            with pytest.raises(KeyboardInterrupt):
                post(connections)
        assert post(connections).body == b"mine"
        connections.close()
        assert [request.connection for request in stub.requests] == [1, 2]


def test_an_interrupt_in_the_queue_leaves_its_slot_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    with Stub(after(gate, ok()), ok()) as stub:
        connections = threads(stub.url, 1)
        with ThreadPoolExecutor(1) as pool:
            busy = pool.submit(post, connections)
            stub.wait_for(lambda stub: len(stub.requests) == 1)

            class Interrupted(deque[Any]):
                put, get_nowait = deque.append, deque.popleft

                def empty(self) -> bool:
                    return not self

                def get(self, block: bool, timeout: float) -> NoReturn:
                    gate.set()
                    busy.result()  # the slot has arrived, and then the interrupt
                    assert len(self) == 1
                    raise KeyboardInterrupt

            with monkeypatch.context() as patch:
                module = SimpleNamespace(SimpleQueue=Interrupted, Empty=queue.Empty)
                patch.setattr(blocking, "queue", module)
                patch.setattr(connection_pool, "Empty", IndexError)
                with pytest.raises(KeyboardInterrupt):
                    post(connections)
        assert post(connections).status == 200
        connections.close()


def test_a_closed_client_says_so() -> None:
    with Stub() as stub:
        connections = threads(stub.url)
        post(connections)
        connections.close()
        connections.close()
        stub.wait_for(lambda stub: stub.open == 0)
        with pytest.raises(ExchangeError) as caught:
            post(connections)
        assert (caught.value.kind, caught.value.request_sent) == (FailureKind.CLOSED, False)


def test_closing_sends_the_queue_home_and_lets_the_exchange_end() -> None:
    gate = threading.Event()
    with Stub(after(gate, ok())) as stub:
        connections = threads(stub.url, 1)
        joined = joins_of(connections._pool)
        with ThreadPoolExecutor(2) as pool:
            busy = pool.submit(post, connections)
            stub.wait_for(lambda stub: len(stub.requests) == 1)
            waiting = pool.submit(post, connections)
            assert joined.acquire(timeout=60)
            connections.close()
            error = waiting.exception()
            assert isinstance(error, ExchangeError)
            assert error.kind is FailureKind.CLOSED
            gate.set()
            assert busy.result().status == 200
        stub.wait_for(lambda stub: stub.open == 0)


def test_a_closed_async_client_says_so_and_its_queue_too() -> None:
    async def main(stub: Stub, gate: threading.Event) -> None:
        connections = tasks(stub.url, 1)
        busy, waiting = apost(connections), apost(connections)
        await asyncio.to_thread(stub.wait_for, lambda stub: len(stub.requests) == 1)
        await connections.aclose()
        for late in (waiting, apost(connections)):
            with pytest.raises(ExchangeError) as caught:
                await late
            assert caught.value.kind is FailureKind.CLOSED
        gate.set()
        assert (await busy).status == 200
        await connections.aclose()

    gate = threading.Event()
    with Stub(after(gate, ok())) as stub:
        asyncio.run(main(stub, gate))
        stub.wait_for(lambda stub: stub.open == 0)


def test_the_end_of_the_loop_closes_the_connections_that_are_open() -> None:
    """No ResourceWarning either: pytest would turn it into a failure."""

    async def main(stub: Stub) -> AsyncConnections:
        connections = tasks(stub.url)
        await apost(connections)
        return connections

    with Stub() as stub:
        connections = asyncio.run(main(stub))
        stub.wait_for(lambda stub: stub.open == 0)
        assert connections._pool.closed


def test_a_loop_that_was_held_up_sees_first_that_the_server_hung_up() -> None:
    blocked = threading.Event()

    def respond_and_leave_later(sock: socket.socket, ended: threading.Event) -> bool:
        sock.sendall(reply(b"one"))
        return not blocked.wait(60)

    async def main(stub: Stub) -> None:
        connections = tasks(stub.url)
        assert (await apost(connections)).body == b"one"
        blocked.set()
        stub.wait_for(lambda stub: stub.open == 0)  # blocks the loop, as a user's own code may
        assert (await connections.send(Prepared("POST", "/v1/x", [], b"{}"), Limits(60.0))).body == b"two"
        await connections.aclose()

    with Stub(respond_and_leave_later, ok(b"two")) as stub:
        asyncio.run(main(stub))


def test_connections_without_use_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    with Stub(after(gate, ok()), ok()) as stub:
        connections = threads(stub.url, 2)
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(post, connections)
            stub.wait_for(lambda stub: len(stub.requests) == 1)
            post(connections)
            gate.set()
            first.result()
        assert stub.open == 2
        for module in (blocking, connection_pool):
            monkeypatch.setattr(module, "KEEPALIVE_S", 0.0)
        post(connections)  # its own is too old to be used, the other too old to be kept
        stub.wait_for(lambda stub: stub.open <= 1)
        assert stub.connections == 3
        connections.close()


def test_an_old_connection_is_not_used_by_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(stub: Stub) -> None:
        connections = tasks(stub.url)
        await apost(connections)
        monkeypatch.setattr(loop_connections, "KEEPALIVE_S", 0.0)
        await apost(connections)
        await connections.aclose()
        assert [request.connection for request in stub.requests] == [1, 2]

    with Stub() as stub:
        asyncio.run(main(stub))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_that_drops_the_connections_disturbs_nothing() -> None:
    with Stub() as stub:
        connections = threads(stub.url)
        post(connections, b"before")
        child = os.fork()
        if child == 0:
            code = 1
            try:
                connections.close()
                fresh = threads(stub.url)
                code = 0 if post(fresh, b"child").status == 200 else 2
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        post(connections, b"after")
        connections.close()
        numbers = {request.body: request.connection for request in stub.requests}
        assert numbers == {b"before": 1, b"child": 2, b"after": 1}
