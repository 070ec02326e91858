"""What a user's client of httpx sends for the SDK, and what its event hooks and its auth see of it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gzip
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import httpx2
import pytest

from cycles._core.messages.outcome import Reply
from cycles._core.messages.requests import Prepared
from cycles._http.exchange import MAX_BODY, Endpoint, ExchangeError, FailureKind, Limits
from cycles._http.httpx_client import AsyncClient, BlockingClient
from tests.support.stub import Stub, ok

LIBRARIES = pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
BOTH = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
KEY = "cyc_live_key_of_this_test"
OURS = [(b"X-Cycles-API-Key", KEY.encode()), (b"User-Agent", b"ours")]
request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id")


def exchange(
    library: Any, is_async: bool, url: str, *, times: int = 1, content: bytes = b"{}", **options: Any
) -> Reply:
    """Send some exchanges over one client of the library, and return the last reply."""
    if not is_async:
        with library.Client(**options) as client:
            blocking = BlockingClient(Endpoint(url), client, connect_timeout_s=60, max_connections=4)
            for _ in range(times - 1):
                blocking.send(Prepared("POST", "/v1/x", OURS, content), Limits(60.0))
            try:
                return blocking.send(Prepared("POST", "/v1/x", OURS, content), Limits(60.0))
            finally:
                blocking.close()

    async def main() -> Reply:
        async with library.AsyncClient(**options) as client:
            connections = AsyncClient(Endpoint(url), client, connect_timeout_s=60, max_connections=4)
            for _ in range(times - 1):
                await connections.send(Prepared("POST", "/v1/x", OURS, content), Limits(60.0))
            return await connections.send(Prepared("POST", "/v1/x", OURS, content), Limits(60.0))

    return asyncio.run(main())


@LIBRARIES
@BOTH
def test_a_response_that_is_too_large_leaves_its_connection_to_the_next_request(library: Any, is_async: bool) -> None:
    limits = {"limits": library.Limits(max_connections=1)}
    request, times = Prepared("POST", "/v1/x", OURS, b"{}"), Limits(60.0, queue_timeout_s=5.0)

    async def main(endpoint: Endpoint) -> int:
        async with library.AsyncClient(**limits) as client:
            connections = AsyncClient(endpoint, client, connect_timeout_s=60, max_connections=4)
            with pytest.raises(ExchangeError, match="larger than"):
                await connections.send(request, times)
            return (await connections.send(request, times)).status

    with Stub(ok(b"x" * (MAX_BODY + 1)), ok(b"{}")) as stub:
        endpoint = Endpoint(stub.url)
        if is_async:
            assert asyncio.run(main(endpoint)) == 200
            return
        with library.Client(**limits) as client:
            blocking = BlockingClient(endpoint, client, connect_timeout_s=60, max_connections=4)
            with contextlib.closing(blocking):
                with pytest.raises(ExchangeError, match="larger than"):
                    blocking.send(request, times)
                assert blocking.send(request, times).status == 200


def hook(see: Callable[[Any], object], is_async: bool) -> Any:
    """Return an event hook for a client of this kind."""
    if not is_async:
        return see

    async def asee(message: Any) -> None:
        result = see(message)
        if hasattr(result, "__await__"):
            await result

    return asee


@LIBRARIES
@BOTH
def test_headers_of_the_client_are_sent_but_for_those_that_http11_implies(library: Any, is_async: bool) -> None:
    def sent(headers: dict[str, str], content: bytes = b"{}") -> dict[str, str]:
        with Stub(ok(b"{}")) as stub:
            exchange(library, is_async, stub.url, content=content, headers=headers)
            (request,) = stub.requests
            return {name: value for name, value in request.headers.items() if name != "host"}

    ours = {"x-gateway": "g", "accept-encoding": "identity", "user-agent": "ours", "x-cycles-api-key": KEY}
    given = {"X-Gateway": "g", "User-Agent": "theirs", "X-Cycles-API-Key": "theirs", "Content-Length": "7"}
    assert sent(given) == ours | {"content-length": "2"}
    assert sent(given, b"") == ours | {"content-length": "0"}
    changed = {"accept": "application/json", "connection": "close"}
    assert sent(given | changed) == ours | changed | {"content-length": "2"}


@LIBRARIES
def test_headers_that_the_user_changes_later_are_sent(library: Any) -> None:
    with Stub(ok(b"{}"), ok(b"{}")) as stub, library.Client(headers={"X-Gateway": "first"}) as client:
        connections = BlockingClient(Endpoint(stub.url), client, connect_timeout_s=60, max_connections=4)
        connections.send(Prepared("POST", "/v1/x", OURS, b"{}"), Limits(60.0))
        client.headers["X-Gateway"] = "second"
        connections.send(Prepared("POST", "/v1/x", OURS, b"{}"), Limits(60.0))
        connections.close()
        assert [request.headers["x-gateway"] for request in stub.requests] == ["first", "second"]


@LIBRARIES
@BOTH
def test_a_request_hook_may_read_and_change_what_is_sent(library: Any, is_async: bool) -> None:
    seen: list[tuple[str, bytes]] = []

    def sign(request: Any) -> None:
        seen.append((request.headers["x-cycles-api-key"], request.content))
        request.headers["X-Signature"] = "signed"

    with Stub(ok(b"{}")) as stub:
        exchange(library, is_async, stub.url, event_hooks={"request": [hook(sign, is_async)]})
        assert stub.requests[0].headers["x-signature"] == "signed"
    assert seen == [(KEY, b"{}")]


@LIBRARIES
@BOTH
def test_a_hook_that_reads_the_response_leaves_it_to_the_sdk(library: Any, is_async: bool) -> None:
    def read(response: Any) -> Any:
        return response.aread() if is_async else response.read()

    with Stub(ok(b"hello")) as stub:
        reply = exchange(library, is_async, stub.url, event_hooks={"response": [hook(read, is_async)]})
    assert reply.body == b"hello"


@LIBRARIES
@BOTH
@pytest.mark.parametrize(
    ("coding", "encode"), [("gzip", gzip.compress), ("deflate", zlib.compress)], ids=["gzip", "deflate"]
)
@pytest.mark.parametrize("is_read", [False, True], ids=["sdk", "hook"])
def test_a_coded_response_is_decoded_once_whoever_reads_it(
    library: Any, is_async: bool, coding: str, encode: Callable[[bytes], bytes], is_read: bool
) -> None:
    def read(response: Any) -> Any:
        return response.aread() if is_async else response.read()

    hooks = {"response": [hook(read, is_async)]} if is_read else {}
    with Stub(ok(encode(b"hello"), headers=[("Content-Encoding", coding)])) as stub:
        assert exchange(library, is_async, stub.url, event_hooks=hooks).body == b"hello"


@LIBRARIES
@BOTH
def test_only_one_coding_is_accepted(library: Any, is_async: bool) -> None:
    seen: list[list[bytes]] = []

    def respond(request: Any) -> Any:
        seen.append([value for name, value in request.headers.raw if name.lower() == b"accept-encoding"])
        return library.Response(200, content=b"{}")

    for headers in ({}, {"Accept-Encoding": "gzip"}):
        exchange(library, is_async, "http://server.test", headers=headers, transport=library.MockTransport(respond))
    assert seen == [[b"identity"]] * 2


@LIBRARIES
@BOTH
def test_a_response_that_a_hook_has_read_is_limited(library: Any, is_async: bool) -> None:
    def read(response: Any) -> Any:
        return response.aread() if is_async else response.read()

    with Stub(ok(b"<" * (MAX_BODY + 1))) as stub, pytest.raises(ExchangeError, match="larger than") as caught:
        exchange(library, is_async, stub.url, event_hooks={"response": [hook(read, is_async)]})
    assert caught.value.kind is FailureKind.TOO_LARGE


@LIBRARIES
@BOTH
@pytest.mark.parametrize("ends", ["whole", "too large", "broken"])
def test_a_response_is_closed_however_its_body_ends(library: Any, is_async: bool, ends: str) -> None:
    """Else the user's client runs out of connections."""
    closed: list[str] = []

    class Body(library.SyncByteStream, library.AsyncByteStream):  # type: ignore[misc]
        def __iter__(self) -> Iterator[bytes]:
            yield b"<" * (MAX_BODY + 1 if ends == "too large" else 1)
            if ends == "broken":
                raise library.ReadError("reset by the server")

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for chunk in self:
                yield chunk

        def close(self) -> None:
            closed.append(ends)

        async def aclose(self) -> None:
            closed.append(ends)

    transport = library.MockTransport(lambda request: library.Response(200, stream=Body()))
    if ends == "whole":
        assert exchange(library, is_async, "http://in.memory", transport=transport).body == b"<"
    else:
        with pytest.raises(ExchangeError, match="larger than" if ends == "too large" else "reset by the server"):
            exchange(library, is_async, "http://in.memory", transport=transport)
    assert closed == [ends]


@BOTH
def test_a_response_that_a_hook_has_closed_is_broken(is_async: bool) -> None:
    def close(response: Any) -> Any:
        return response.aclose() if is_async else response.close()

    with Stub(ok(b"hello")) as stub, pytest.raises(ExchangeError, match="closed") as caught:
        exchange(httpx, is_async, stub.url, event_hooks={"response": [hook(close, is_async)]})
    assert (caught.value.kind, caught.value.request_sent) == (FailureKind.BROKEN, True)


class OddError(Exception):
    """An exception that no library knows."""


@LIBRARIES
@BOTH
@pytest.mark.parametrize("raised", [OddError("odd"), KeyError("odd"), TypeError("odd")], ids=lambda each: repr(each))
def test_any_exception_of_a_hook_is_an_exchange_error(library: Any, is_async: bool, raised: Exception) -> None:
    def fail(_: Any) -> None:
        raise raised

    with Stub(ok(b"{}")) as stub, pytest.raises(ExchangeError, match="odd") as caught:
        exchange(library, is_async, stub.url, event_hooks={"response": [hook(fail, is_async)]})
    assert (caught.value.kind, caught.value.request_sent) == (FailureKind.BROKEN, True)
    assert caught.value.__cause__ is raised


@LIBRARIES
@BOTH
def test_a_hook_that_raises_for_the_status_gives_the_key_to_no_error(library: Any, is_async: bool) -> None:
    def fail(response: Any) -> None:
        response.raise_for_status()

    with Stub(ok(b"{}", 503)) as stub, pytest.raises(ExchangeError, match="503") as caught:
        exchange(library, is_async, stub.url, event_hooks={"response": [hook(fail, is_async)]})
    cause: Any = caught.value.__cause__
    assert isinstance(cause, library.HTTPStatusError)
    assert "x-cycles-api-key" not in cause.request.headers
    assert "x-cycles-api-key" not in cause.response.request.headers


@LIBRARIES
@BOTH
def test_an_auth_flow_may_send_several_requests(library: Any, is_async: bool) -> None:
    challenge = ok(b"", 401, [("WWW-Authenticate", 'Digest realm="r", nonce="n", qop="auth"')])
    with Stub(challenge, ok(b"done")) as stub:
        reply = exchange(library, is_async, stub.url, auth=library.DigestAuth("user", "pass"))
        assert [request.headers.get("authorization", "")[:6] for request in stub.requests] == ["", "Digest"]
    assert reply.body == b"done"


@LIBRARIES
@BOTH
@pytest.mark.parametrize("auth", [None, ("user", "pass")])
def test_a_request_outlives_its_attempt_without_a_trace(library: Any, is_async: bool, auth: Any) -> None:
    requests: list[Any] = []
    with Stub(*[ok(b"{}")] * 3) as stub:
        see = hook(lambda response: requests.append(response.request), is_async)
        exchange(library, is_async, stub.url, times=3, auth=auth, event_hooks={"response": [see]})
    assert len(requests) == 3
    assert not any("trace" in request.extensions for request in requests)


@BOTH
def test_a_hook_runs_in_the_context_of_the_call(is_async: bool) -> None:
    seen: list[str] = []
    token = request_id.set("of this call")
    try:
        with Stub(ok(b"{}")) as stub:
            see = hook(lambda _: seen.append(request_id.get()), is_async)
            exchange(httpx, is_async, stub.url, event_hooks={"request": [see]})
    finally:
        request_id.reset(token)
    assert seen == ["of this call"]


@BOTH
def test_the_timeouts_of_the_users_client_are_not_used(is_async: bool) -> None:
    with Stub(ok(b"hello")) as stub:
        assert exchange(httpx, is_async, stub.url, timeout=1e-6).body == b"hello"
