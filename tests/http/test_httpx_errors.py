"""An error of a user's httpx client carries no request, whose headers contain the API key."""

from __future__ import annotations

import concurrent.futures
import pickle

import httpx
import pytest

import cycles
from cycles._core.messages.requests import Prepared
from cycles._http.exchange import Endpoint, ExchangeError, FailureKind, Limits
from cycles._http.httpx_client import BlockingClient

KEY = "cyc_live_key_of_this_test"


def test_an_error_for_a_status_does_not_contain_the_key_either() -> None:
    """A hook of the user's client raises it, and its response has the request too."""
    hooks = {"response": [lambda response: response.raise_for_status()]}
    with (
        httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(503)), event_hooks=hooks) as http,
        cycles.Cycles(base_url="http://a.test", api_key=KEY, tenant="acme", journal=False, http_client=http) as client,
        pytest.raises(cycles.TransportError) as raised,
    ):
        client.decide(cycles.tokens(1), action=("a", "b"))
    cause = raised.value.__cause__
    assert isinstance(cause, httpx.HTTPStatusError)
    assert "x-cycles-api-key" not in cause.request.headers
    assert "x-cycles-api-key" not in cause.response.request.headers


def test_no_error_behind_the_cause_has_the_frames_of_a_request() -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        try:
            raise OSError("the pool is broken")
        except OSError:
            raise httpx.ReadTimeout("slow", request=request)  # noqa: B904 - as transports do

    with (
        httpx.Client(transport=httpx.MockTransport(fail)) as http,
        cycles.Cycles(base_url="http://a.test", api_key=KEY, tenant="acme", journal=False, http_client=http) as client,
        # A new thread: a signal handler that raised in an earlier test may have left its exception in this one.
        concurrent.futures.ThreadPoolExecutor(1) as threads,
        pytest.raises(cycles.TransportError) as raised,
    ):
        threads.submit(client.decide, cycles.tokens(1), action=("a", "b")).result()
    cause = raised.value.__cause__
    assert cause is not None
    assert isinstance(cause.__context__, OSError)
    assert cause.__context__.__traceback__ is None


@pytest.mark.parametrize("protocol", ["http11", "http2"])
def test_what_fails_after_the_headers_were_sent_may_have_arrived(protocol: str) -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        request.extensions["trace"]("connection.connect_tcp.complete", {})
        request.extensions["trace"](f"{protocol}.send_request_headers.started", {})
        raise httpx.ConnectError("the connection broke", request=request)

    with httpx.Client(transport=httpx.MockTransport(fail)) as http:
        connections = BlockingClient(Endpoint("http://a.test"), http, connect_timeout_s=60, max_connections=4)
        with pytest.raises(ExchangeError) as raised:
            connections.send(Prepared("POST", "/v1/x", [], b"{}"), Limits(60.0))
        connections.close()
    assert (raised.value.kind, raised.value.request_sent) == (FailureKind.BROKEN, True)


def test_the_cause_of_a_transport_error_does_not_contain_the_key() -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("slow", request=request)

    with (
        httpx.Client(transport=httpx.MockTransport(fail)) as http,
        cycles.Cycles(base_url="http://a.test", api_key=KEY, tenant="acme", journal=False, http_client=http) as client,
        pytest.raises(cycles.TransportError) as raised,
    ):
        client.decide(cycles.tokens(1), action=("a", "b"))
    assert isinstance(raised.value.__cause__, httpx.ReadTimeout)
    assert KEY not in repr(pickle.dumps(raised.value))
    assert "x-cycles-api-key" not in raised.value.__cause__.request.headers
