"""What stands between: TLS, proxies of the environment, clients that users bring."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cycles._core.messages.requests import Prepared
from cycles._http.blocking import BlockingConnections
from cycles._http.exchange import Endpoint, ExchangeError, FailureKind, Limits
from cycles._http.factory import asynchronous, blocking
from cycles._http.httpx_client import AsyncClient, BlockingClient
from cycles._http.loop import AsyncConnections
from tests.http.connections import Open
from tests.support.stub import Stub, drip, ok, ok_then_hang_up, raw, reply, stall

TLS = Path(__file__).parent.parent / "support" / "tls"
OURS = {"connect_timeout_s": 1.0, "max_connections": 2}


@pytest.fixture
def secure() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "cert.pem", TLS / "key.pem")
    return context


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(TLS / "cert.pem"))


@pytest.fixture(params=["threads", "tasks"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.usefixtures("trusted")
def test_tls_connections_are_checked_used_and_used_again(connect: Open, secure: ssl.SSLContext) -> None:
    with Stub(ok(b"1"), ok_then_hang_up(b"2"), ok(b"3"), tls=secure) as stub:
        send = connect(stub.url.replace("127.0.0.1", "localhost"))
        assert send().body + send().body == b"12"
        stub.wait_for(lambda stub: stub.open == 0)
        assert send().body == b"3"
        assert [request.connection for request in stub.requests] == [1, 1, 2]


def test_an_untrusted_certificate_is_a_connection_never_made(connect: Open, secure: ssl.SSLContext) -> None:
    with Stub(tls=secure) as stub:
        with pytest.raises(ExchangeError) as caught:
            connect(stub.url)()
        assert (caught.value.kind, caught.value.request_sent) == (FailureKind.CONNECT, False)
        assert "certificate" in str(caught.value).lower()
        assert stub.requests == []


@pytest.mark.usefixtures("trusted")
def test_the_certificate_must_be_that_of_the_name_and_not_of_its_address(
    connect: Open, secure: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest, **more: real("127.0.0.1", *rest, **more))
    with Stub(tls=secure) as stub:
        assert connect(stub.url)().status == 200  # it is that of the address, too
        with pytest.raises(ExchangeError, match="certificate") as caught:
            connect(stub.url.replace("127.0.0.1", "server.test"))()
        assert (caught.value.kind, caught.value.request_sent) == (FailureKind.CONNECT, False)
        assert len(stub.requests) == 1


@pytest.mark.usefixtures("trusted")
def test_a_server_that_speaks_http2_too_is_asked_for_http11(secure: ssl.SSLContext) -> None:
    secure.set_alpn_protocols(["h2", "http/1.1"])
    context = Endpoint("https://localhost").tls
    assert context is not None
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(back, there, server_hostname="localhost")
    server = secure.wrap_bio(there, back, server_side=True)
    for _ in range(4):  # each reads what the other one has written
        for side in (client, server):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    assert (client.selected_alpn_protocol(), server.selected_alpn_protocol()) == ("http/1.1", "http/1.1")


@pytest.mark.usefixtures("trusted")
def test_a_tls_handshake_that_stalls_ends_with_the_connect_timeout(connect: Open) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute, pytest.raises(ExchangeError) as caught:
        connect(f"https://127.0.0.1:{mute.getsockname()[1]}")(timeout_s=0.2)  # without a timeout it would never end
    assert (caught.value.kind, caught.value.request_sent) == (FailureKind.CONNECT, False)


@pytest.mark.usefixtures("trusted")
def test_a_tls_response_that_drips_has_the_same_deadline(connect: Open, secure: ssl.SSLContext) -> None:
    with Stub(ok(), drip(reply(b"x" * 900), 0.1), tls=secure) as stub:
        send = connect(stub.url)
        send()  # connects, which may take longer than the deadline on a busy machine
        with pytest.raises(ExchangeError) as caught:
            send(timeout_s=0.4)  # the whole response would arrive after 90 s
        assert (caught.value.kind, caught.value.request_sent) == (FailureKind.TIMEOUT, True)


@contextlib.contextmanager
def environment(monkeypatch: pytest.MonkeyPatch, **values: str) -> Iterator[None]:
    with monkeypatch.context() as patch:
        for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
            patch.delenv(name, raising=False)
            patch.delenv(name.upper(), raising=False)
        for name, value in values.items():
            patch.setenv(name, value)
        yield


def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with Stub(ok(b"from the proxy")) as proxy, environment(monkeypatch, http_proxy=proxy.url):
        sync = blocking(Endpoint("http://cycles.example"), **OURS)  # type: ignore[arg-type]
        assert (
            sync.send(Prepared("POST", "/v1/x", [(b"X-Cycles-API-Key", b"k")], b"{}"), Limits(60.0)).body
            == b"from the proxy"
        )
        sync.close()

        async def main() -> bytes:
            tasks = asynchronous(Endpoint("http://cycles.example"), **OURS)  # type: ignore[arg-type]
            answer = await tasks.send(Prepared("POST", "/v1/x", [(b"X-Cycles-API-Key", b"k")], b"{}"), Limits(60.0))
            await tasks.aclose()
            return answer.body

        assert asyncio.run(main()) == b"from the proxy"
        assert [request.target for request in proxy.requests] == ["http://cycles.example/v1/x"] * 2


@pytest.mark.parametrize("exempt", ["cycles.example", "*", ".example", "cycles.example:80"])
def test_no_proxy_is_heeded(monkeypatch: pytest.MonkeyPatch, exempt: str) -> None:
    with environment(monkeypatch, http_proxy="http://127.0.0.1:9", no_proxy=exempt):
        assert isinstance(blocking(Endpoint("http://cycles.example"), **OURS), BlockingConnections)  # type: ignore[arg-type]
        assert isinstance(asynchronous(Endpoint("http://cycles.example"), **OURS), AsyncConnections)  # type: ignore[arg-type]


def test_a_proxy_for_the_other_scheme_is_no_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    with environment(monkeypatch, https_proxy="http://127.0.0.1:9"):
        assert isinstance(blocking(Endpoint("http://cycles.example"), **OURS), BlockingConnections)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "named",
    [{"http_proxy": "http://127.0.0.1:9", "no_proxy": "cycles.example:81"}, {"all_proxy": "http://127.0.0.1:9"}],
)
def test_a_proxy_of_all_schemes_and_one_that_another_port_is_exempt_from_are_used(
    monkeypatch: pytest.MonkeyPatch, named: dict[str, str]
) -> None:
    with environment(monkeypatch, **named):
        sync = blocking(Endpoint("http://cycles.example"), **OURS)  # type: ignore[arg-type]
        assert isinstance(sync, BlockingClient)
        sync.close()
        assert isinstance(asynchronous(Endpoint("http://cycles.example"), **OURS), AsyncClient)  # type: ignore[arg-type]


def test_a_users_client_keeps_its_base_url_params_and_cookies_to_itself() -> None:
    with (
        Stub() as stub,
        httpx.Client(
            base_url="http://elsewhere.invalid/deep/",
            params={"tracking": "1"},
            cookies={"session": "s"},
            headers={"X-Gateway": "g", "User-Agent": "theirs"},
            auth=("user", "pass"),
            follow_redirects=True,
        ) as client,
    ):
        connections = blocking(Endpoint(stub.url), client=client, **OURS)  # type: ignore[arg-type]
        connections.send(
            Prepared("POST", "/v1/x", [(b"User-Agent", b"ours"), (b"X-Cycles-API-Key", b"k")], b"{}"), Limits(60.0)
        )
        connections.close()
        assert not client.is_closed
    (request,) = stub.requests
    assert request.target == "/v1/x"
    assert "cookie" not in request.headers
    assert (request.headers["user-agent"], request.headers["x-gateway"]) == ("ours", "g")
    assert request.headers["authorization"].startswith("Basic ")
    assert request.headers["accept-encoding"] == "identity"


def test_a_client_that_follows_redirects_does_not_follow_ours() -> None:
    with Stub() as elsewhere, Stub(ok(b"", 302, [("Location", elsewhere.url)])) as stub:
        with httpx.Client(follow_redirects=True) as client:
            connections = BlockingClient(Endpoint(stub.url), client, connect_timeout_s=60, max_connections=4)
            assert (
                connections.send(Prepared("POST", "/v1/x", [(b"X-Cycles-API-Key", b"k")], b"{}"), Limits(60.0)).status
                == 302
            )
        assert elsewhere.connections == 0


def test_an_async_client_that_follows_redirects_does_not_follow_ours() -> None:
    async def main(stub: Stub) -> int:
        async with httpx.AsyncClient(follow_redirects=True) as client:
            connections = AsyncClient(Endpoint(stub.url), client, connect_timeout_s=60, max_connections=4)
            request = Prepared("POST", "/v1/x", [(b"X-Cycles-API-Key", b"k")], b"{}")
            return (await connections.send(request, Limits(60.0))).status

    with Stub() as elsewhere, Stub(ok(b"", 302, [("Location", elsewhere.url)])) as stub:
        assert asyncio.run(main(stub)) == 302
        assert elsewhere.connections == 0


@pytest.mark.parametrize("is_async", [False, True])
def test_the_connect_timeout_limits_a_users_client(is_async: bool) -> None:
    seen: list[float] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.extensions["timeout"]["connect"])
        return httpx.Response(200, json={})

    async def main(endpoint: Endpoint, request: Prepared) -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(handler)) as client:
            tasks = AsyncClient(endpoint, client, connect_timeout_s=2.5, max_connections=4)
            for timeout_s in (60.0, 1.5):
                await tasks.send(request, Limits(timeout_s))

    where, what = Endpoint("http://in.memory"), Prepared("GET", "/v1/x", [], b"")
    if is_async:
        asyncio.run(main(where, what))
    else:
        with httpx.Client(transport=httpx.MockTransport(handler)) as client:
            connections = BlockingClient(where, client, connect_timeout_s=2.5, max_connections=4)
            for timeout_s in (60.0, 1.5):
                connections.send(what, Limits(timeout_s))
    assert seen == [2.5, 1.5]


def test_a_transport_that_responds_from_memory_works() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(201, json={"path": request.url.path, "key": request.headers["x-cycles-api-key"]})

    key = [(b"X-Cycles-API-Key", b"k")]
    with httpx.Client(transport=httpx.MockTransport(handler)) as client:
        connections = BlockingClient(Endpoint("http://in.memory/p"), client, connect_timeout_s=60, max_connections=4)
        answer = connections.send(Prepared("POST", "/v1/x", key, b"{}"), Limits(60.0))
    assert (answer.status, json.loads(answer.body)) == (201, {"path": "/p/v1/x", "key": "k"})

    async def main() -> bytes:
        async with httpx.AsyncClient(transport=httpx.MockTransport(handler)) as client:
            tasks = AsyncClient(Endpoint("http://in.memory/p"), client, connect_timeout_s=60, max_connections=4)
            return (await tasks.send(Prepared("POST", "/v1/x", key, b"{}"), Limits(60.0))).body

    assert asyncio.run(main()) == answer.body


@pytest.mark.parametrize(
    ("raised", "kind", "sent"),
    [
        (httpx.ConnectError("refused"), FailureKind.CONNECT, False),
        (httpx.PoolTimeout("busy"), FailureKind.QUEUE, False),
        (httpx.ConnectTimeout("who knows"), FailureKind.TIMEOUT, True),
        (httpx.ReadTimeout("slow"), FailureKind.TIMEOUT, True),
        (httpx.RemoteProtocolError("garbage"), FailureKind.BROKEN, True),
        (httpx.UnsupportedProtocol("ftp"), FailureKind.INVALID, False),
        (ConnectionResetError("gone"), FailureKind.BROKEN, True),
        (RuntimeError("their transport is odd"), FailureKind.BROKEN, True),
        (LookupError("their transport is odd"), FailureKind.BROKEN, True),
    ],
)
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_any_exception_of_a_transport_is_an_exchange_error(
    raised: Exception, kind: FailureKind, sent: bool, is_async: bool
) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise raised

    async def main() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(handler)) as client:
            await AsyncClient(Endpoint("http://in.memory"), client, connect_timeout_s=60, max_connections=4).send(
                Prepared("POST", "/", [], b""), Limits(60.0)
            )

    with pytest.raises(ExchangeError) as caught:
        if is_async:
            asyncio.run(main())
        else:
            with httpx.Client(transport=httpx.MockTransport(handler)) as client:
                BlockingClient(Endpoint("http://in.memory"), client, connect_timeout_s=60, max_connections=4).send(
                    Prepared("POST", "/", [], b""), Limits(60.0)
                )
    assert (caught.value.kind, caught.value.request_sent, caught.value.__cause__) == (kind, sent, raised)


def test_a_users_closed_client_says_so() -> None:
    client = httpx.Client()
    client.close()
    with pytest.raises(ExchangeError) as caught:
        BlockingClient(Endpoint("http://x.invalid"), client, connect_timeout_s=60, max_connections=4).send(
            Prepared("POST", "/", [], b""), Limits(1.0)
        )
    assert caught.value.kind is FailureKind.CLOSED


def test_a_users_client_takes_its_times_while_it_holds_a_connection() -> None:
    with Stub() as stub, httpx.Client(limits=httpx.Limits(max_connections=1)) as client:
        connections = BlockingClient(Endpoint(stub.url), client, connect_timeout_s=60, max_connections=4)
        with client.stream("GET", stub.url) as held:  # the one connection is in use
            freed: list[float] = []

            def free() -> None:
                freed.append(time.monotonic())
                held.read()

            late = threading.Timer(0.05, free)  # and becomes free a little later
            late.start()
            answer = connections.send(Prepared("POST", "/v1/x", [], b"{}"), Limits(60.0))
            late.join()
        assert answer.sent >= freed[0]


def test_any_async_transport_works() -> None:
    aiohttp = pytest.importorskip("httpx_aiohttp")

    async def main(stub: Stub, slow: Stub) -> None:
        async with httpx.AsyncClient(transport=aiohttp.AiohttpTransport()) as client:
            tasks = AsyncClient(Endpoint(stub.url), client, connect_timeout_s=60, max_connections=4)
            assert (await tasks.send(Prepared("POST", "/v1/x", [], b"{}"), Limits(60.0))).body == b"hello"
            tasks = AsyncClient(Endpoint(slow.url), client, connect_timeout_s=60, max_connections=4)
            with pytest.raises(ExchangeError) as caught:
                await tasks.send(Prepared("POST", "/v1/x", [], b"{}"), Limits(1.0))
            assert (caught.value.kind, caught.value.request_sent) == (FailureKind.TIMEOUT, True)

    with Stub(ok(b"hello")) as stub, Stub(stall()) as slow:
        asyncio.run(main(stub, slow))


@pytest.mark.parametrize(
    "base_url", ["", "cycles.example.com", "ftp://x", "http://", "http://x:notaport", "http://[::1"]
)
def test_a_base_url_that_leads_nowhere_is_rejected(base_url: str) -> None:
    with pytest.raises(ValueError, match="base_url"):
        Endpoint(base_url)


def test_a_base_url_may_have_credentials_that_are_never_shown() -> None:
    endpoint = Endpoint("https://user:secret@cycles.example.com:8443/p/")
    assert (endpoint.name, endpoint.port) == ("https://cycles.example.com:8443", 8443)
    assert endpoint.url("/v1/x") == "https://cycles.example.com:8443/p/v1/x"


def test_a_base_url_without_a_port_has_that_of_its_scheme() -> None:
    urls = ("http://a.test", "https://a.test", "http://a.test:81")
    assert [Endpoint(base_url).port for base_url in urls] == [80, 443, 81]


def test_an_international_name_is_one() -> None:
    assert Endpoint("https://bücher.example").host == "xn--bcher-kva.example"


def test_a_raw_reply_is_not_classified(connect: Open) -> None:
    with Stub(raw(reply(b"\xff\xfe<html>", 200))) as stub:
        assert connect(stub.url)().body == b"\xff\xfe<html>"
