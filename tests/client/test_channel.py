"""Which connections a call gets, for how long it may take, and what its failure says."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import json
import math
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from cycles._config import Config
from cycles._core.messages.outcome import Outcome, Reply, Success, Unreachable
from cycles._core.messages.requests import Call, CallOptions
from cycles._core.protocol import EXTEND_RESERVATION, GET_BALANCES
from cycles._drivers.channel import HEARTBEAT_CONNECTIONS, Channel, without_frames
from cycles._drivers.reporting import Reporter
from cycles._drivers.tracing import SafeTrace
from cycles._flows.io import run
from cycles._http import exchange
from cycles._http.exchange import ExchangeError, FailureKind, Limits
from tests.http.conftest import ANSWERS
from tests.support.waiting import PATIENCE_S

Answer = Callable[[], object]


class Connections:
    """Connections without a network: each request gets the next result of the test, the last one for ever."""

    def __init__(self, network: Network, client: Any, limits: dict[str, Any]) -> None:
        self.network = network
        self.client = client
        self.limits = limits
        self.closed = 0

    def reply(self, limits: Limits) -> Any:
        self.network.used.append(self)
        self.network.times.append(limits)
        script = self.network.script
        answer = script.pop(0) if len(script) > 1 else script[0]
        made = answer()
        if isinstance(made, Reply):
            return made
        return Reply(200, (), json.dumps({**ANSWERS["balances"], **ANSWERS["extend"]}).encode(), 1.0, 2.0)

    def close(self) -> None:
        self.closed += 1


class Blocking(Connections):
    def send(self, _: Any, limits: Limits) -> Any:
        return self.reply(limits)


class Async(Connections):
    async def send(self, _: Any, limits: Limits) -> Any:
        await asyncio.sleep(0)
        return self.reply(limits)

    async def aclose(self) -> None:
        await asyncio.sleep(0)
        self.close()


def fail(error: Exception) -> Answer:
    def answer() -> None:
        raise error

    return answer


class Network:
    """Where the channels of a test send, and the one event loop of its async calls."""

    def __init__(self, is_async: bool, loop: asyncio.AbstractEventLoop) -> None:
        self.is_async = is_async
        self.loop = loop
        self.script: list[Answer] = [lambda: None]
        self.made: list[Connections] = []
        self.used: list[Connections] = []
        self.times: list[Limits] = []
        self.succeeded = 0
        self.reporter = Reporter()

    def channel(self, clients: tuple[Any, Any] = (None, None), **settings: Any) -> Channel:
        base = {"base_url": "http://a.test", "api_key": "k", "tenant": "acme", **settings}
        return Channel(Config(**base), self.on_success, self.reporter, *clients)

    def on_success(self) -> None:
        self.succeeded += 1

    def send(self, channel: Channel, operation: str = GET_BALANCES, **call: Any) -> Outcome:
        path = {"reservation_id": "res-1"} if operation == EXTEND_RESERVATION else {}
        made = Call(operation, path, options=call.pop("options", CallOptions("trace")), **call)
        if self.is_async:
            return self.loop.run_until_complete(channel.send(made, self.loop))
        return run(channel.send(made))

    def close(self, channel: Channel) -> None:
        if self.is_async:
            self.loop.run_until_complete(channel.aclose(self.loop))
        else:
            channel.close()

    def make(self, kind: type[Connections]) -> Any:
        def make(_: Any, client: Any = None, **limits: Any) -> Connections:
            self.made.append(made := kind(self, client, limits))
            return made

        return make


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Network]:
    loop = asyncio.new_event_loop()
    network = Network(request.param, loop)
    monkeypatch.setattr("cycles._drivers.channel.blocking", network.make(Blocking))
    monkeypatch.setattr("cycles._drivers.channel.asynchronous", network.make(Async))
    yield network
    loop.close()


@pytest.mark.parametrize(
    ("operation", "timeout_s", "options_s", "call_s", "expected"),
    [
        (GET_BALANCES, 5.0, None, None, (5.0, 30.0)),
        (GET_BALANCES, 50.0, 6.0, None, (6.0, 30.0)),
        (GET_BALANCES, 50.0, 6.0, 7.0, (7.0, 30.0)),
        (EXTEND_RESERVATION, 5.0, None, None, (5.0, 5.0)),
        (EXTEND_RESERVATION, 5.0, None, 0.5, (0.5, 0.5)),
        (EXTEND_RESERVATION, 31.0, None, None, (31.0, 30.0)),
    ],
)
def test_a_call_has_its_own_timeout_and_a_heartbeat_waits_no_longer_for_a_connection(
    network: Network, operation: str, timeout_s: float, options_s: Any, call_s: Any, expected: tuple[float, float]
) -> None:
    channel = network.channel(timeout=timeout_s)
    network.send(channel, operation, options=CallOptions(timeout_s=options_s), timeout_s=call_s)
    assert network.times == [Limits(*expected, math.inf)]


@pytest.mark.parametrize("is_traced", [False, True], ids=["plain", "traced"])
@pytest.mark.parametrize("way", ["a key", "a callable", "another key after a 401", "closed on its way"])
def test_a_thread_ends_its_attempts_at_the_time_that_its_caller_has_left(
    network: Network, way: str, is_traced: bool
) -> None:
    keys = iter(["old", "new"])
    channel = network.channel(api_key="k" if way in ("a key", "closed on its way") else lambda: next(keys))
    if is_traced:
        network.reporter.trace = SafeTrace(object())
    attempts = 1
    if way == "another key after a 401":
        network.script, attempts = [lambda: Reply(401, (), b"{}", 1.0, 2.0), lambda: None], 2
    elif way == "closed on its way":

        def close_before_it_is_sent() -> None:
            channel.close()
            raise exchange.closed()

        network.script, attempts = [close_before_it_is_sent, lambda: None], 2
    assert isinstance(run(channel.send(Call(GET_BALANCES), ends_at_s=123.0)), Success)
    assert network.times == [Limits(5.0, 30.0, 123.0)] * attempts


def test_heartbeats_have_connections_that_no_call_uses(network: Network) -> None:
    channel = network.channel(max_connections=7, connect_timeout=1.5)
    for operation in (GET_BALANCES, EXTEND_RESERVATION, GET_BALANCES, EXTEND_RESERVATION):
        network.send(channel, operation)
    assert [each.limits for each in network.made] == [
        {"connect_timeout_s": 1.5, "max_connections": 7},
        {"connect_timeout_s": 1.5, "max_connections": HEARTBEAT_CONNECTIONS},
    ]
    assert network.used == [*network.made, *network.made]
    assert type(network.made[0]) is (Async if network.is_async else Blocking)


def test_a_users_client_sends_the_calls_and_the_heartbeats_of_its_kind(network: Network) -> None:
    clients = httpx.Client(), httpx.AsyncClient()
    channel = network.channel(clients, max_connections=7)
    for operation in (GET_BALANCES, EXTEND_RESERVATION):
        network.send(channel, operation)
    assert [(each.client, each.limits["max_connections"]) for each in network.made] == [(clients[network.is_async], 7)]


def test_each_success_is_reported_once_and_no_failure(network: Network) -> None:
    channel = network.channel()
    network.script = [lambda: None, fail(exchange.closed()), lambda: None]
    outcomes = [type(network.send(channel)) for _ in range(3)]
    assert outcomes == [Success, Unreachable, Success]
    assert network.succeeded == 2


SLOW = "timed out waiting for the response"


@pytest.mark.parametrize(
    ("error", "call_s", "expected"),
    [
        (exchange.timed_out("waiting for the response", request_sent=True), None,
         (f"no usable response from http://a.test: {SLOW}: 4 s; raise timeout (CYCLES_TIMEOUT) if the server is only "
          "slow", True, False)),
        # The timeout of a heartbeat comes from its lease, so no setting would help.
        (exchange.timed_out("waiting for the response", request_sent=False), 2.5,
         (f"no usable response from http://a.test: {SLOW}", False, False)),
        (ExchangeError(FailureKind.CONNECT, "can't connect", request_sent=False), None,
         ("no usable response from http://a.test: can't connect; check that the server is running and that base_url "
          "(CYCLES_BASE_URL) is right", False, False)),
        (ExchangeError(FailureKind.BROKEN, "it broke", request_sent=True), None,
         ("no usable response from http://a.test: it broke", True, False)),
        (exchange.no_free_connection(3.0), None,
         ("no connection was free within 3 s, so nothing was sent; raise max_connections, or start fewer calls at the "
          "same time", False, True)),
    ],
)  # fmt: skip
def test_a_failure_says_what_happened_and_which_setting_helps(
    network: Network, error: ExchangeError, call_s: float | None, expected: tuple[str, bool, bool]
) -> None:
    network.script = [fail(error)]
    outcome = network.send(network.channel(timeout=4.0), timeout_s=call_s)
    assert isinstance(outcome, Unreachable)
    assert (outcome.message, outcome.sent, outcome.queued) == expected
    assert (outcome.cause, outcome.trace_id) == (error, "trace")


def test_a_key_in_the_text_of_a_failure_is_redacted(network: Network) -> None:
    network.script = [fail(exchange.broken(OSError("rejected header: Bearer cyc_live_0123"), request_sent=True))]
    outcome = network.send(network.channel(api_key="cyc_live_0123"))
    assert isinstance(outcome, Unreachable)
    assert outcome.message == (
        "no usable response from http://a.test: the connection broke before the response (rejected header: Bearer "
        "[api key])"
    )


def test_an_error_behind_an_error_keeps_no_frame(network: Network) -> None:
    def answer() -> None:
        try:
            try:
                raise KeyError("a")
            except KeyError:
                raise OSError("b")  # noqa: B904 - its context
        except OSError as error:
            raise ExchangeError(FailureKind.BROKEN, "c", request_sent=True) from error

    network.script = [answer]
    outcome = network.send(network.channel())
    assert isinstance(outcome, Unreachable)
    cause = outcome.cause
    assert isinstance(cause, OSError)
    assert isinstance(cause.__context__, KeyError)
    assert (cause.__traceback__, cause.__context__.__traceback__) == (None, None)


def test_a_call_that_the_close_of_its_client_reaches_is_sent_over_a_connection_of_its_own(network: Network) -> None:
    channel = network.channel()

    def close_before_it_is_sent() -> None:
        channel.close()
        raise exchange.closed()

    network.script = [close_before_it_is_sent, lambda: None]
    outcome = network.send(channel)
    if network.is_async:  # its loop waits for the close, so no call of it is on its way
        assert isinstance(outcome, Unreachable)
        assert [each.closed for each in network.made] == [0]
    else:
        assert isinstance(outcome, Success)
        assert [each.closed for each in network.made] == [2, 1]


def test_a_call_after_the_close_has_a_connection_of_its_own_that_is_closed(network: Network) -> None:
    channel = network.channel()
    network.send(channel)
    network.close(channel)
    assert [each.closed for each in network.made] == [1]
    network.script = [lambda: None, fail(exchange.closed())]
    assert isinstance(network.send(channel), Success)
    assert isinstance(network.send(channel), Unreachable)  # and it is not sent again
    assert [each.closed for each in network.made] == [1, 1, 1]
    assert network.used == network.made


def test_the_close_of_a_loop_closes_its_connections_only(network: Network) -> None:
    channel, other = network.channel(), asyncio.new_event_loop()
    other.run_until_complete(channel.send(Call(GET_BALANCES), other))
    for operation in (GET_BALANCES, EXTEND_RESERVATION):
        network.send(channel, operation)
    network.close(channel)
    assert [each.closed for each in network.made] == [0, 1, 1]
    other.run_until_complete(channel.aclose(other))
    assert [each.closed for each in network.made] == [1, 1, 1]
    other.close()


def test_a_loop_keeps_its_connections_until_it_is_closed(network: Network) -> None:
    network.is_async = True
    channel, first = network.channel(), asyncio.new_event_loop()
    first.run_until_complete(channel.send(Call(GET_BALANCES), first))
    network.send(channel)
    first.run_until_complete(channel.send(Call(GET_BALANCES), first))
    assert network.used == [network.made[0], network.made[1], network.made[0]]
    first.close()
    gone = weakref.ref(first)
    del first
    last = asyncio.new_event_loop()
    last.run_until_complete(channel.send(Call(GET_BALANCES), last))  # a new loop: those that are closed are removed
    last.close()
    gc.collect()
    assert gone() is None
    network.send(channel)
    assert network.used[-1] is network.made[1]


def test_a_part_of_the_sdk_that_cannot_be_read_is_a_failure_of_a_request_that_was_not_sent() -> None:
    def no_descriptor() -> Any:
        raise OSError(errno.EMFILE, "too many open files")

    config = Config(base_url="http://a.test", api_key="k", tenant="acme")
    channel = Channel(config, lambda: None, Reporter(), tables=no_descriptor)
    outcome = run(channel.send(Call(GET_BALANCES, options=CallOptions("trace"))))
    assert isinstance(outcome, Unreachable)
    assert (outcome.sent, outcome.trace_id, outcome.queued) == (False, "trace", False)
    assert outcome.message == (
        "a part of the SDK could not be loaded, so nothing was sent: [Errno 24] too many open files; close files or "
        "raise the limit of open files (ulimit -n)"
    )
    assert isinstance(outcome.cause, OSError)
    assert outcome.cause.__traceback__ is None


def test_errors_that_are_causes_of_each_other_keep_no_frame() -> None:
    first, second, ended = ValueError(), KeyError(), threading.Event()
    for error in (first, second):
        with contextlib.suppress(LookupError, ValueError):
            raise error
    first.__context__, second.__cause__ = second, first

    def end() -> None:
        without_frames(first)
        ended.set()

    threading.Thread(target=end, daemon=True).start()
    assert ended.wait(PATIENCE_S)
    assert (first.__traceback__, second.__traceback__) == (None, None)
