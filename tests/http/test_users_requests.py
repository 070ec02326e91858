"""The requests that are built for a user's client of httpx are those that the library would have built."""

from __future__ import annotations

import asyncio
import copy
import pickle
from types import SimpleNamespace
from typing import Any

import httpx
import httpx2
import pytest
from hypothesis import given, strategies as st

from cycles._http import httpx_client
from cycles._http.exchange import Endpoint, ExchangeError, Reply
from cycles._http.httpx_client import AsyncClient, BlockingClient
from cycles._http.httpx_requests import Requests
from tests.support.stub import Stub, ok

LIBRARIES = pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
NAMES = st.sampled_from([b"X-A", b"x-a", b"Accept", b"Host", b"X-Key", b"Content-Length", b"traceparent", b"X-\xe4"])
VALUES = st.sampled_from([b"", b"1", b"a, b", b"caf\xc3\xa9", b"\xe4", b"*/*"])
PAIRS = st.lists(st.tuples(NAMES, VALUES), max_size=5)
LOOKED_UP = st.sampled_from(["x-a", "X-KEY", "host", "Content-Length", "missing", "Traceparent"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("raw")),
        st.tuples(st.just("get"), LOOKED_UP),
        st.tuples(st.just("in"), LOOKED_UP),
        st.tuples(st.just("set"), LOOKED_UP, st.sampled_from(["new", "2"])),
        st.tuples(st.just("del"), LOOKED_UP),
        st.tuples(st.just("encoding"), st.sampled_from(["latin-1", "utf-8"])),
    ),
    max_size=6,
)


def step(headers: Any, kind: str, *arguments: str) -> Any:
    """Do one thing that an event hook may do with the headers of a request, and return what it sees."""
    try:
        if kind == "raw":
            return headers.raw
        if kind == "get":
            return headers[arguments[0]], headers.get(arguments[0])
        if kind == "in":
            return arguments[0] in headers
        if kind == "set":
            headers[arguments[0]] = arguments[1]
        elif kind == "del":
            del headers[arguments[0]]
        else:
            headers.encoding = arguments[0]
    except (KeyError, UnicodeError) as error:
        return type(error)
    return None


def seen(headers: Any) -> Any:
    try:
        return dict(headers), headers.multi_items(), list(headers.values()), len(headers), repr(headers), headers.raw
    except UnicodeError:
        return headers.raw


@LIBRARIES
@given(of_client=PAIRS, ours=PAIRS, steps=STEPS, first=st.booleans())
def test_headers_are_read_and_changed_as_those_of_the_library(
    library: Any, of_client: Any, ours: Any, steps: list[Any], first: bool
) -> None:
    client = SimpleNamespace(headers=library.Headers(of_client))
    request = Requests(Endpoint("http://x.test"), client, library).make("POST", "/v1/x", ours, b"{}", {})
    plain = library.Headers(request.headers.raw)
    assert isinstance(request.headers, library.Headers)
    if first:  # the headers of a request that a hook has not touched yet
        assert seen(request.headers) == seen(plain)
    for kind, *arguments in steps:
        assert step(request.headers, kind, *arguments) == step(plain, kind, *arguments)
    for read in (request.headers, copy.deepcopy(request.headers), library.Headers(request.headers)):
        assert read == plain
    assert seen(request.headers) == seen(plain)
    assert pickle.loads(pickle.dumps(request.headers)) == plain


@LIBRARIES
def test_headers_of_the_client_are_sent_but_for_those_that_http11_implies(library: Any) -> None:
    client = library.Client(headers={"X-Gateway": "g"})
    requests = Requests(Endpoint("http://x.test"), client, library)

    def sent(content: bytes | None) -> dict[str, str]:
        return dict(requests.make("POST", "/v1/x", [(b"User-Agent", b"ours")], content, {}).headers)

    expected = {"host": "x.test", "x-gateway": "g", "accept-encoding": "identity", "user-agent": "ours"}
    assert sent(b"{}") == expected | {"content-length": "2"}
    assert sent(None) == expected
    client.headers.update({"Accept": "application/json", "Connection": "close"})
    assert sent(None) == expected | {"accept": "application/json", "connection": "close"}


@LIBRARIES
@pytest.mark.parametrize("auth", [None, ("user", "pass")])
def test_only_the_exchanges_that_may_open_a_connection_are_traced(library: Any, auth: Any) -> None:
    traced: list[bool] = []
    requests: list[Any] = []

    def see(response: Any) -> None:
        traced.append("trace" in response.request.extensions)
        requests.append(response.request)

    async def asee(response: Any) -> None:
        see(response)

    async def tasks(url: str) -> None:
        async with library.AsyncClient(auth=auth, event_hooks={"response": [asee]}) as client:
            connections = AsyncClient(Endpoint(url), client, connect_timeout_s=60)
            for _ in range(3):
                await connections.send("POST", "/v1/x", [], b"{}", 60.0)

    with Stub(*[ok(b"{}")] * 6) as stub:
        with library.Client(auth=auth, event_hooks={"response": [see]}) as client:
            connections = BlockingClient(Endpoint(stub.url), client, connect_timeout_s=60)
            for _ in range(3):
                connections.send("POST", "/v1/x", [], b"{}", 60.0)
        asyncio.run(tasks(stub.url))
    assert traced == [True, auth is not None, auth is not None] * 2  # with auth, an exchange may be several requests
    assert not any("trace" in request.extensions for request in requests)  # it would keep the attempt alive


def test_an_async_attempt_that_waits_for_its_connection_has_all_its_time_then(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(url: str) -> Reply:
        looked = asyncio.Event()
        look = httpx_client._Watch._look

        def looking(watch: Any) -> None:
            look(watch)
            looked.set()

        monkeypatch.setattr(httpx_client._Watch, "_look", looking)
        monkeypatch.setattr(httpx_client._Attempt, "shortest_s", 0.0)  # the first look is at once
        async with httpx.AsyncClient(limits=httpx.Limits(max_connections=1)) as client:
            connections = AsyncClient(Endpoint(url), client, connect_timeout_s=60)
            async with client.stream("GET", url) as held:  # the one connection is in use
                attempt = asyncio.create_task(connections.send("POST", "/v1/x", [], b"{}", 60.0))
                async with asyncio.timeout(60):
                    await looked.wait()
                assert not attempt.done()
                await held.aread()
            return await attempt

    with Stub(ok(b""), ok(b"done")) as stub:
        assert asyncio.run(main(stub.url)).body == b"done"


def test_a_response_that_a_hook_has_closed_is_not_read() -> None:
    with Stub(ok(b"hello")) as stub, httpx.Client(event_hooks={"response": [httpx.Response.close]}) as client:
        connections = BlockingClient(Endpoint(stub.url), client, connect_timeout_s=60)
        with pytest.raises(ExchangeError, match="closed"):
            connections.send("POST", "/v1/x", [], b"{}", 60.0)
