"""What connections know of a host: its addresses while the name service is down, and the options of their sockets."""

from __future__ import annotations

import asyncio
import socket
import threading
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from cycles._core.messages.requests import Prepared
from cycles._http import blocking as blocking_connections
from cycles._http.blocking import BlockingConnections
from cycles._http.exchange import Endpoint, Limits
from cycles._http.resolver import Lookup, Resolver
from tests.support.points import run_at
from tests.support.stub import Stub

FOUND: list[Any] = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80))]
PATIENCE_S = 60.0


@pytest.fixture(params=["threads", "tasks"])
def addresses(request: pytest.FixtureRequest) -> Any:
    """Resolve a host as threads do, or as the tasks of an event loop do."""

    def of(resolver: Resolver) -> Any:
        if request.param == "threads":
            return resolver.addresses(PATIENCE_S)

        async def main() -> Any:
            lookup = resolver.start()
            assert isinstance(lookup, Lookup)
            loop, done = asyncio.get_running_loop(), asyncio.Event()
            lookup.when_done(lambda: loop.call_soon_threadsafe(done.set))
            async with asyncio.timeout(PATIENCE_S):
                await done.wait()
            return resolver.result(lookup)

        return asyncio.run(main())

    return of


def test_the_last_good_addresses_are_used_while_the_name_service_fails(
    addresses: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes: list[Any] = [FOUND, socket.gaierror(-3, "temporary failure"), socket.gaierror(-2, "unknown"), FOUND * 2]

    def respond(*_: Any, **__: Any) -> Any:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(socket, "getaddrinfo", respond)
    resolver = Resolver("server.test", 80)
    assert [addresses(resolver) for _ in range(4)] == [FOUND, FOUND, FOUND, FOUND * 2]


def test_a_name_that_was_never_found_is_an_error(addresses: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(-2, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(socket.gaierror, match="unknown"):
        addresses(Resolver("server.test", 80))


def test_a_request_is_not_held_back_for_the_acknowledgement_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[socket.socket] = []

    def new_socket(*given: Any) -> socket.socket:
        made.append(socket.socket(*given))
        return made[-1]

    monkeypatch.setattr(blocking_connections, "new_socket", new_socket)
    with Stub() as stub:
        connections = BlockingConnections(Endpoint(stub.url), connect_timeout_s=PATIENCE_S, max_connections=1)
        connections.send(Prepared("POST", "/v1/x", [], b"{}"), Limits(PATIENCE_S))
        assert [each.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for each in made] == [1]
        connections.close()


class Names:
    """A name service that responds when the test runs its threads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.outcome: Any = FOUND
        self.threads: list[threading.Thread] = []
        self.has_threads = True
        monkeypatch.setattr(socket, "getaddrinfo", self.respond)

        class Thread(threading.Thread):
            def start(this) -> None:
                self.start(this)

        monkeypatch.setattr("cycles._http.resolver.threading", SimpleNamespace(Thread=Thread))

    def respond(self, host: str, port: int, **options: Any) -> Any:
        self.calls.append((host, port, options.get("type"), options.get("flags", 0)))
        if options.get("flags") and any(letter.isalpha() for letter in host):
            raise socket.gaierror(-2, "not numeric")
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def start(self, thread: threading.Thread) -> None:
        if not self.has_threads:
            raise RuntimeError("can't start new thread")
        self.threads.append(thread)

    def run(self) -> None:
        """Let the name service respond."""
        for thread in self.threads:
            thread.run()
        self.threads.clear()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    return Names(monkeypatch)


NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_numeric_host_needs_no_name_service(names: Names, host: str) -> None:
    resolver = Resolver(host, 81)
    assert resolver.start() == resolver.addresses(0.0) == FOUND
    assert names.calls == [(host, 81, socket.SOCK_STREAM, NUMERIC)] * 2
    assert names.threads == []


@pytest.mark.parametrize("host", ["server1", "server.test"])
def test_a_name_is_looked_up_in_a_thread_that_all_callers_share(names: Names, host: str) -> None:
    resolver = Resolver(host, 81)
    first, second = resolver.start(), resolver.start()
    assert isinstance(first, Lookup)
    assert first is second
    [thread] = names.threads
    assert (thread.name, thread.daemon) == ("cycles-resolver", True)
    with pytest.raises(TimeoutError) as raised:
        resolver.result(first)
    assert str(raised.value) == f"the name service has not resolved {host} in time"
    woken: list[str] = []
    first.when_done(lambda: woken.append("before"))
    assert woken == []
    names.run()
    first.when_done(lambda: woken.append("after"))
    assert woken == ["before", "after"]
    assert resolver.result(first) == FOUND
    assert resolver.start() is not first
    assert (host, 81, socket.SOCK_STREAM, 0) in names.calls


def test_a_caller_that_joins_a_lookup_as_it_ends_is_woken(names: Names) -> None:
    number, more = 0, True
    while more:
        lookup, woken = Resolver("server.test", 81).start(), list[int]()
        assert isinstance(lookup, Lookup)
        join = partial(lookup.when_done, partial(woken.append, number))
        more = run_at("/cycles/_http/resolver", number, join, names.run)
        assert woken == [number] * more
        number += 1
    assert number > 2


@pytest.mark.parametrize(("seconds", "known_s", "unknown_s"), [(8.0, 2.0, 8.0), (0.0, 0.0, 0.0), (-1.0, 0.0, 0.0)])
def test_a_name_with_known_addresses_is_waited_for_a_quarter_of_the_time(
    names: Names, seconds: float, known_s: float, unknown_s: float
) -> None:
    resolver = Resolver("server.test", 81)
    lookup = resolver.start()
    assert isinstance(lookup, Lookup)
    assert resolver.longest_wait(seconds) == unknown_s
    names.run()
    resolver.result(lookup)
    assert resolver.longest_wait(seconds) == known_s


def test_a_name_that_is_none_is_an_error_of_the_name_service(names: Names) -> None:
    names.has_threads = False  # then it is looked up in the caller's thread
    names.outcome = UnicodeError("label too long")
    with pytest.raises(OSError, match=r"^not a host name: label too long$"):
        Resolver("server.test", 81).addresses(0.0)


@pytest.mark.parametrize(
    "outcome",
    [UnicodeError("label too long"), socket.gaierror(socket.EAI_NONAME, "unknown")],
    ids=["no-name", "unknown"],
)
def test_a_lookup_that_fails_wakes_its_callers_and_the_next_one_makes_another(names: Names, outcome: Exception) -> None:
    names.outcome = outcome
    resolver = Resolver("server.test", 81)
    for count in (1, 2):
        woken: list[int] = []
        lookup = resolver.start()
        assert isinstance(lookup, Lookup)
        assert resolver.start() is lookup
        lookup.when_done(partial(woken.append, 1))
        assert (len(names.threads), woken) == (1, [])
        names.run()
        assert woken == [1]
        assert len([call for call in names.calls if not call[3]]) == count
        with pytest.raises(OSError, match=r"label too long|unknown"):
            resolver.result(lookup)
