"""The ASGI application of the embedded server, without a socket: what it reads, sends, and breaks off."""

from __future__ import annotations

import asyncio
import gzip
import socket
import threading
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

import cycles
from cycles.embedded import serve
from cycles.embedded.dashboard.routes import Stream
from cycles.embedded.faults import Fault
from cycles.embedded.http import Request, Response
from cycles.embedded.serve import App, Listener, bound
from tests.support.waiting import PATIENCE_S

CLIENT = ("10.0.0.1", 5)
SCOPE: dict[str, Any] = {
    "method": "POST", "raw_path": b"/v1/x%20y", "query_string": b"a=%31", "client": CLIENT, "server": ("h", 1),
    "headers": [(b"Host", b"h"), (b"X-Twice", b"\xe9"), (b"x-twice", b"2")],
}  # fmt: skip
LAST = {"type": "http.request", "body": b""}
LEFT = {"type": "http.disconnect"}


class Wire:
    """One request: its messages, the server's responses, and what was sent and broken off."""

    def __init__(self, *messages: dict[str, Any], response: Response | None = None, fault: Fault | None = None) -> None:
        self.messages = list(messages)
        self.response = response
        self.fault = fault
        self.sent: list[Any] = []
        self.aborted: list[Any] = []
        self.requests: list[Request] = []
        self.reads = self.reads_at_abort = 0

    def abort(self, client: Any) -> None:
        self.aborted.append(client)
        self.reads_at_abort = self.reads

    def handle(self, request: Request) -> tuple[Response | None, Fault | None]:
        self.requests.append(request)
        return self.response, self.fault

    async def receive(self) -> Any:
        self.reads += 1
        if not self.messages:
            await asyncio.Event().wait()  # nothing more arrives
        return self.messages.pop(0)

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    def run(self, dashboard: Any = None, **scope: Any) -> Wire:
        app = App(self, self.abort, dashboard)
        asyncio.run(app({**SCOPE, **scope}, self.receive, self.send))
        return self

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}


def test_a_request_and_its_response() -> None:
    messages: tuple[dict[str, Any], ...] = ({"body": b"ab", "more_body": True}, {}, {"body": b"never"})
    wire = Wire(
        *({"type": "http.request", **each} for each in messages), response=Response(201, {"A": "\u00e9✓"}, b"xyz")
    )
    wire.run()
    headers = {"host": "h", "x-twice": "\u00e9"}
    assert wire.requests == [
        Request(method="POST", target="/v1/x%20y?a=%31", headers=headers, body=b"ab", address="10.0.0.1")
    ]
    lines = [(b"Content-Length", b"3"), (b"A", b"\xe9?")]
    assert wire.sent == [
        {"type": "http.response.start", "status": 201, "headers": lines},
        {"type": "http.response.body", "body": b"xyz"},
    ]  # fmt: skip
    assert (wire.reads, wire.aborted) == (2, [])
    assert Wire(LAST, response=Response(200, {}, b"")).run(query_string=b"").requests[0].target == "/v1/x%20y"
    own = Wire(LAST, response=Response(200, {"Content-Length": "7"}, b"x")).run()
    assert own.headers == {"Content-Length": "7"}


def test_a_client_that_leaves_before_its_body_is_read() -> None:
    wire = Wire({"type": "http.request", "body": b"ab", "more_body": True}, LEFT, response=Response(200, {}, b"")).run()
    assert (wire.requests, wire.sent, wire.aborted) == ([], [], [])


@pytest.mark.parametrize(
    ("chunks", "read", "closes", "reads"),
    [
        ([b"0123456789"], b"0123456789", False, 1),
        ([b"01234567890"], b"01234567890", True, 1),
        ([b"0123456789", b"abc", b"def"], b"0123456789abc", True, 3),
        ([b"01234567890", b"a" * 9, b"b", b"c"], b"01234567890", True, 3),  # 21 bytes are too many to drain
        ([b"0123456789", b"a" * 10, b"b", b"c"], b"0123456789" + b"a" * 10, True, 3),
    ],
)
def test_a_body_that_is_too_big(
    monkeypatch: pytest.MonkeyPatch, chunks: list[bytes], read: bytes, closes: bool, reads: int
) -> None:
    assert serve.MAX_DRAINED_BYTES == 8_388_608
    assert (serve.MAX_PARSED_HEAD_BYTES, serve.KEEP_ALIVE_S, serve.STOP_S, serve.START_S) == (65_536, 75, 5.0, 10.0)
    monkeypatch.setattr(serve, "MAX_BODY_BYTES", 10)
    monkeypatch.setattr(serve, "MAX_DRAINED_BYTES", 20)
    messages = [{"type": "http.request", "body": each, "more_body": True} for each in chunks]
    messages[-1]["more_body"] = False
    wire = Wire(*messages, response=Response(413, {"A": "b"}, b"")).run()
    assert (wire.requests[0].body, wire.reads) == (read, reads)
    assert wire.headers == {"Content-Length": "0", "A": "b"} | ({"Connection": "close"} if closes else {})


@pytest.mark.parametrize(
    ("accepts", "media_type", "body", "is_compressed"),
    [
        (b"gzip", "application/json", b"{}", True),
        (b"br, GZIP;q=1", "application/json", b"{}", True),
        (b"br", "application/json", b"{}", False),
        (b"", "application/json", b"{}", False),
        (b"gzip", "application/json;charset=UTF-8", b"{}", False),
        (b"gzip", "application/json", b"", False),
    ],
)
def test_which_responses_are_compressed(accepts: bytes, media_type: str, body: bytes, is_compressed: bool) -> None:
    wire = Wire(LAST, response=Response(200, {"Content-Type": media_type}, body))
    wire.run(headers=[(b"accept-encoding", accepts)])
    sent = wire.sent[1]["body"]
    further = {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"} if is_compressed else {}
    assert wire.headers == {"Content-Length": str(len(sent)), "Content-Type": media_type, **further}
    assert (gzip.decompress(sent) if is_compressed else sent) == body


@pytest.mark.parametrize(
    ("response", "fault"),
    [
        (None, None),
        (None, Fault(reaches_ledger=False, lost=True)),
        (Response(200, {}, b"x"), Fault(lost=True)),
        (Response(200, {}, b"x"), Fault(lost=True, delay_s=9.0)),
    ],
)
def test_a_connection_that_is_broken(response: Response | None, fault: Fault | None) -> None:
    wire = Wire(LAST, LEFT, response=response, fault=fault).run()
    assert (wire.aborted, wire.sent, wire.reads) == ([CLIENT], [], 2)  # it returns when the connection is closed
    assert wire.reads_at_abort == 1


def test_a_response_that_is_late() -> None:
    left = Wire(LAST, LEFT, response=Response(200, {}, b"x"), fault=Fault(delay_s=60.0)).run()
    assert (left.sent, left.reads) == ([], 2)
    waited = Wire(LAST, response=Response(200, {}, b"x"), fault=Fault(delay_s=0.001)).run()
    assert (len(waited.sent), waited.reads) == (2, 2)
    at_once = Wire(LAST, response=Response(200, {}, b"x"), fault=Fault()).run()
    assert (len(at_once.sent), at_once.reads) == (2, 1)


def test_a_response_that_arrives_byte_by_byte() -> None:
    fault = Fault(drip_s=0.0)
    whole = Wire(LAST, response=Response(200, {}, b"abc"), fault=fault).run()
    part = {"type": "http.response.body", "more_body": True}
    assert whole.sent[1:] == [*({**part, "body": each} for each in (b"a", b"b", b"c")), {"type": "http.response.body"}]
    assert whole.headers == {"Content-Length": "3"}
    slow = Fault(drip_s=60.0)
    left = Wire(LAST, LEFT, response=Response(200, {}, b"abc"), fault=slow).run()
    assert (len(left.sent), left.aborted) == (1, [])


class Page:
    """A dashboard with one page and one stream."""

    def __init__(self, response: Response | Stream) -> None:
        self.response = response
        self.calls: list[Any] = []

    def serves(self, path: str) -> bool:
        return path == "/dashboard"

    def handle(self, request: Request, host: str) -> Response | Stream:
        self.calls.append((request.path, host))
        return self.response

    async def stream(
        self, stream: Stream, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        self.calls.append(stream)


def test_the_requests_of_the_dashboard() -> None:
    page = Page(Response(200, {"Content-Type": "text/html"}, b"page"))
    wire = Wire(LAST, response=Response(200, {}, b"other")).run(page, raw_path=b"/dashboard")
    assert (page.calls, wire.requests, wire.sent[1]["body"]) == ([("/dashboard", "h")], [], b"page")
    wire = Wire(LAST, response=Response(200, {}, b"other")).run(page)
    assert (len(page.calls), len(wire.requests), wire.sent[1]["body"]) == (1, 1, b"other")
    streamed = Page(stream := object.__new__(Stream))
    wire = Wire(LAST).run(streamed, raw_path=b"/dashboard")
    assert (streamed.calls[1] is stream, wire.sent, wire.aborted) == (True, [], [])


def test_a_socket_that_listens() -> None:
    with bound("127.0.0.1", 0, "advice") as sock:
        host, port = sock.getsockname()
        options = [sock.getsockopt(socket.SOL_SOCKET, each) for each in (socket.SO_REUSEADDR, socket.SO_ACCEPTCONN)]
        assert (host, sock.family, sock.proto, options) == ("127.0.0.1", socket.AF_INET, socket.IPPROTO_TCP, [1, 1])
        with pytest.raises(cycles.ConfigurationError) as caught:
            bound("127.0.0.1", port, "pass another one")
        assert str(caught.value) == f"cannot listen on 127.0.0.1:{port} (Address already in use); pass another one"
        assert caught.traceback[-1].locals["sock"].fileno() == -1  # it is closed


# --- the listener ---------------------------------------------------------------------------------------------------


class Uvicorn:
    """A server that runs until it should exit; a stubborn one until its connections are broken."""

    is_stubborn, starts = False, True

    def __init__(self, config: Any) -> None:
        made.append(self)
        self.config = config
        self.has_started, self.ended = threading.Event(), threading.Event()
        self.server_state = SimpleNamespace(connections=set())
        self.calls: list[str] = []

    def run(self, sockets: list[socket.socket]) -> None:
        if self.starts:
            self.has_started.set()
        self.ended.wait(PATIENCE_S)
        for each in sockets:
            each.close()

    @property
    def should_exit(self) -> bool:
        return self.ended.is_set()

    @should_exit.setter
    def should_exit(self, value: bool) -> None:
        self.calls.append(f"exit {value}")
        if value and not self.is_stubborn:
            self.ended.set()

    def break_connections(self) -> None:
        self.calls.append("break")
        self.ended.set()


class Stubborn(Uvicorn):
    is_stubborn = True


class NeverStarted(Uvicorn):
    starts = False


made: list[Uvicorn] = []


def listener(monkeypatch: pytest.MonkeyPatch, kind: type[Uvicorn], *further: Any) -> Listener:
    made.clear()
    monkeypatch.setattr(serve, "_Uvicorn", kind)
    return Listener(Wire(), "127.0.0.1", 0, *further)


def test_a_listener_that_starts_and_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    page = SimpleNamespace(open=lambda: calls.append("open"), close=lambda: calls.append("close"))
    it = listener(monkeypatch, Uvicorn, page, calls.append)
    before = set(threading.enumerate())
    url = it.start()
    (thread,) = (each for each in set(threading.enumerate()) - before if each.name == "cycles-embedded-server")
    port = int(url.removeprefix("http://127.0.0.1:"))
    assert (port > 0, thread.daemon) == (True, True)
    config = made[0].config
    assert (config.http, config.ws, config.lifespan, config.log_config, config.access_log) == (
        "h11", "none", "off", None, False,
    )  # fmt: skip
    assert (config.date_header, config.server_header, config.proxy_headers) == (False, False, False)
    assert (config.timeout_keep_alive, config.timeout_graceful_shutdown) == (75, 10)
    assert config.h11_max_incomplete_event_size == 65_536
    assert calls == ["open", f"{url}/dashboard"]
    it.stop(PATIENCE_S)
    assert (thread.is_alive(), made[0].calls) == (False, ["exit True"])
    assert calls == ["open", f"{url}/dashboard", "close", None]
    it.stop()
    assert len(calls) == 4


def test_a_listener_that_does_not_stop_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "STOP_S", PATIENCE_S)
    it = listener(monkeypatch, Stubborn)
    before = set(threading.enumerate())
    it.start()
    (thread,) = (each for each in set(threading.enumerate()) - before if each.name == "cycles-embedded-server")
    it.stop(0.0)
    assert (thread.is_alive(), made[0].calls) == (False, ["exit True", "break"])


def test_a_listener_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "START_S", 0.0)
    it = listener(monkeypatch, NeverStarted)
    it.stop()  # nothing to stop
    with pytest.raises(cycles.ConfigurationError) as caught:
        it.start()
    text = str(caught.value)
    assert text.startswith("the embedded server did not start within 0 s: 127.0.0.1:")
    assert text.endswith("; try again or pass port=0")
    assert made[0].calls == ["exit True"]


def test_a_fault_breaks_the_connection_of_its_client_only(monkeypatch: pytest.MonkeyPatch) -> None:
    aborted: list[Any] = []

    def connection(**members: Any) -> Any:
        client = members.get("client")
        return SimpleNamespace(transport=SimpleNamespace(abort=lambda: aborted.append(client)), **members)

    it = listener(monkeypatch, Uvicorn)
    with it:
        made[0].server_state.connections = [connection(client=CLIENT), connection(client=("x", 1)), connection()]
        wire = Wire(LAST, LEFT)
        asyncio.run(made[0].config.app({**SCOPE}, wire.receive, wire.send))
    assert aborted == [CLIENT]
    asyncio.run(made[0].config.app({**SCOPE}, Wire(LAST, LEFT).receive, wire.send))
    assert aborted == [CLIENT]  # it is stopped
