"""The fake provider's HTTP server: a thread per connection, on a free port of loopback."""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import socket
import threading
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Self, cast
from urllib.parse import unquote, urlsplit

from attrs import define

from cycles._core.amounts import Amount, usd
from cycles._errors import InvalidRequestError
from cycles.providers._endpoints import find
from cycles.providers._provider import PROVIDERS, Endpoint, provider_named
from cycles.testing import _anthropic, _google, _openai
from cycles.testing._background import BackgroundResponses
from cycles.testing._limits import billed, limited
from cycles.testing._reply import Received, Reply

if TYPE_CHECKING:
    from cycles.prices import PriceBook

_OF_CLOUDS: Final = (":rawPredict", ":streamRawPredict")
"""Paths of Vertex that take the bodies of a publisher's own API."""
_OF_BEDROCK: Final = re.compile(r".*/model/(?P<model>[^/]+)/(?:converse|invoke).*")
_EMBEDS: Final = "mbed"
"""Part of the paths of embeddings, which have no output."""
_WAIT_S: Final = 30.0
"""How long a response waits for its gate, so that a wrong test ends."""


class FakeProvider:
    """A fake OpenAI, Anthropic, Gemini and Bedrock server on loopback, for tests.

    ``with FakeProvider() as provider:`` starts it. Give `openai_url`, `anthropic_url`, `google_url` or
    ``url_of("bedrock")`` to the SDK's client as its base URL. `reply` queues what the next requests get; without one
    they get a short text.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._replies: deque[Reply] = deque()
        self._received: list[Received] = []
        self._made: list[_Made] = []
        self._background = BackgroundResponses()
        self._server: _Server | None = None

    def reply(self, *, times: int = 1, **options: Any) -> Self:
        """Queue a `Reply` for the next request to a model, or for the next `times`.

        Args:
            times: How many requests get it.
            options: The attributes of `Reply`.

        Raises:
            InvalidRequestError: (a ValueError) for a wrong value.
            TypeError: for an unknown option, or a name in `usage` that is no count.
        """
        if isinstance(times, bool) or not isinstance(times, int) or times < 1:
            raise InvalidRequestError(f"times must be an integer of 1 or more, got {times!r:.80}")
        with self._lock:
            self._replies.extend([Reply(**options)] * times)
        return self

    @property
    def requests(self) -> list[Received]:
        """The requests so far, oldest first."""
        with self._lock:
            return list(self._received)

    def count(self, path: str = "") -> int:
        """Return the number of requests whose path ends with `path`."""
        return sum(request.path.endswith(path) for request in self.requests)

    def bill(self, prices: PriceBook) -> Amount:
        """Return what the responses so far cost, also those that were lost or left.

        A whole response is billed when it is made. A stream is billed for its prompt and for the part of its output
        that was sent until the end of its client was seen.

        Raises:
            UnknownModelError: if the book has no price for a model.
        """
        with self._lock:
            made = [(one.model, billed(one.counts, one.share), one.context) for one in self._made if one.counts]
        costs = [prices.cost(model, context=context, **cast(Any, counts)) for model, counts, context in made]
        return sum(costs[1:], costs[0]) if costs else usd(0)

    def clear(self) -> None:
        """Delete queued replies and received requests, and the bill."""
        with self._lock:
            self._replies.clear()
            self._received.clear()
            self._made.clear()

    @property
    def url(self) -> str:
        """The address of the server, for example ``http://127.0.0.1:40123``.

        Raises:
            RuntimeError: if the server is not started.
        """
        if self._server is None:
            raise RuntimeError("the fake provider is not started: use `with FakeProvider() as provider:`")
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def url_of(self, provider: str) -> str:
        """Return the address at which the server has the shapes of a provider, for example of ``"groq"``.

        Raises:
            InvalidRequestError: for an unknown provider.
            RuntimeError: if the server is not started.
        """
        if provider not in PROVIDERS:
            raise InvalidRequestError(f"provider must be one of {', '.join(PROVIDERS)}, got {provider!r:.80}")
        return f"{self.url}/{provider}"

    @property
    def openai_url(self) -> str:
        """The ``base_url`` of ``openai.OpenAI``."""
        return f"{self.url}/v1"

    @property
    def anthropic_url(self) -> str:
        """The ``base_url`` of ``anthropic.Anthropic``."""
        return self.url

    @property
    def google_url(self) -> str:
        """The ``base_url`` in the ``http_options`` of ``google.genai.Client``."""
        return self.url

    def start(self) -> Self:
        """Start the server; `stop` ends it."""
        self._server = _Server(self)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), name="fake-provider", daemon=True).start()
        return self

    def stop(self) -> None:
        """Close the server and its connections."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            server.close_connections()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: object, raised: BaseException | None, tb: object) -> None:
        self.stop()

    def _receive(self, request: Received) -> Reply:
        with self._lock:
            self._received.append(request)
            if not generates(request):
                return self._background.reply_to(request) or Reply()
            reply = self._replies.popleft() if self._replies else Reply()
        return limited(reply, model_of(request, Reply()), request_body(request))

    def _bill(self, request: Received, reply: Reply) -> _Made:
        """Note that a response is being made."""
        tier = reply.extra.get("service_tier")
        context = {"service_tier": tier} if isinstance(tier, str) else {}
        counts = reply.counts(request_body(request))
        if _EMBEDS in request.path:
            counts = {name: n for name, n in counts.items() if name == "tokens_input"}
        made = _Made(model_of(request, reply), counts, context)
        with self._lock:
            if generates(request):
                self._made.append(made)
        return made


@define
class _Made:
    """A response on the bill, and the part of its output that was made."""

    model: str
    counts: Mapping[str, int]
    context: Mapping[str, str]
    share: float = 1.0


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 2048  # the kernel resets some of many connections at once that do not fit

    def __init__(self, provider: FakeProvider) -> None:
        self.provider = provider
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that closed its connection is no error of the server."""

    def close_connections(self) -> None:
        """Close what clients keep open. A thread that waits for the next request of its client ends."""
        for connection in list(self._open):
            with contextlib.suppress(OSError):  # its client has closed it
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
        """Log nothing: tests read `FakeProvider.requests`."""

    def _handle(self) -> None:
        split = urlsplit(self.path)
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Received(self.command, split.path, split.query, headers, _parsed(raw, headers))
        provider = self.server.provider
        reply = provider._receive(request)
        if generates(request):
            reply = provider._background.begun(request, model_of(request, reply), reply)
        if reply.delay_s:
            threading.Event().wait(reply.delay_s)
        if reply.status >= 400 and reply.drop_after != 0:
            self._send(reply, json.dumps(_api(split.path).error(reply)).encode())
            return
        made = provider._bill(request, reply)
        if reply.drop_after == 0:
            made.share = 0.0 if _streams(request) else 1.0
            self._drop()
        elif _streams(request):
            self._stream(request, reply, made)
        else:
            _wait(reply)
            self._send(reply, _whole(request, reply), _content_type(request), _headers(request, reply))

    do_GET = do_POST = do_DELETE = do_PATCH = do_PUT = _handle

    def _send(
        self,
        reply: Reply,
        body: bytes,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.send_response(reply.status)
        if reply.gzip:
            body = gzip.compress(body)
            self.send_header("content-encoding", "gzip")
        self.send_header("content-length", str(len(body)))
        for name, value in {"content-type": content_type, **(headers or {}), **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, request: Received, reply: Reply, made: _Made) -> None:
        self.send_response(reply.status)
        content_type = getattr(_api(request.path), "STREAM_TYPE", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        squeeze = zlib.compressobj(wbits=31) if reply.gzip else None
        if squeeze:
            self.send_header("content-encoding", "gzip")
        for name, value in {"content-type": content_type, **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        events, made.share = list(_events(request, reply)), 0.0
        for number, event in enumerate(events):
            if number == reply.gate_after:
                _wait(reply)
            if number == reply.drop_after:
                self._drop()
                return
            made.share = (number + 1) / len(events)
            self._chunk(event if squeeze is None else squeeze.compress(event) + squeeze.flush(zlib.Z_SYNC_FLUSH))
        if squeeze:
            self._chunk(squeeze.flush())
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.flush()

    def _drop(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


def _parsed(raw: bytes, headers: Mapping[str, str]) -> Any:
    if "json" in headers.get("content-type", "") or raw.startswith(b"{"):  # boto3 names no type for a body of its user
        try:
            return json.loads(raw or b"null")
        except ValueError:
            return raw
    return raw


def _wait(reply: Reply) -> None:
    if reply.gate is not None:
        reply.gate.wait(_WAIT_S)


def _named(path: str) -> str | None:
    """Return the provider that a path begins with, as the addresses of `FakeProvider.url_of` do."""
    first = path.split("/", 2)[1] if path.startswith("/") else ""
    return first if first in PROVIDERS else None


def _api(path: str) -> ModuleType:
    if (name := _named(path)) is not None:
        return import_module(f"cycles.testing._{name}")
    if path.endswith(("/messages", "/count_tokens", "/complete", "awPredict")) or "/v1/messages" in path:
        return _anthropic
    return _google if ":" in path else _openai


def _streams(request: Received) -> bool:
    if request.path.endswith((":streamGenerateContent", ":streamRawPredict", "-stream")):
        return True
    if request.method == "GET":
        return "stream=true" in request.query
    body = request.body if isinstance(request.body, Mapping) else {}
    if request.path.endswith("/audio/speech"):
        return body.get("stream_format") == "sse"
    if isinstance(request.body, bytes):
        return b'name="stream"\r\n\r\ntrue' in request.body
    return body.get("stream") is True


def _content_type(request: Received) -> str:
    return "audio/mpeg" if request.path.endswith("/audio/speech") else "application/json"


def _headers(request: Received, reply: Reply) -> Mapping[str, str]:
    """Return headers that a provider adds to a whole response."""
    found: Mapping[str, str] = {}
    if (add := getattr(_api(request.path), "headers", None)) is not None:
        found = add(request.path, request_body(request), reply)
    return found


def generates(request: Received) -> bool:
    """Return whether a request gets output of a model."""
    if (name := _named(request.path)) is not None:
        return isinstance(find(name, request.method, request.path.removeprefix(f"/{name}")), Endpoint)
    paths = (path.removeprefix("/v1") for each in PROVIDERS for path in provider_named(each).metered)
    return request.path.endswith((*paths, *_OF_CLOUDS))


def request_body(request: Received) -> Mapping[str, Any]:
    """Return the members of a request; none if its body is no JSON object."""
    body = request.body if isinstance(request.body, Mapping) else {}
    if request.path.endswith(_OF_CLOUDS) and "model" not in body:  # the path names it
        return {"model": request.path.rpartition("models/")[2].partition(":")[0], **body}
    if (found := _OF_BEDROCK.fullmatch(request.path)) is not None:
        return {"model": unquote(found["model"]), **body}
    return body


def model_of(request: Received, reply: Reply) -> str:
    """Return the model that a response names."""
    named = request_body(request).get("model")
    if not isinstance(named, str):
        named = request.path.rpartition("models/")[2].partition(":")[0] if ":" in request.path else "gpt-4o"
    return reply.model or named


def _whole(request: Received, reply: Reply) -> bytes:
    if isinstance(reply.body, bytes):
        return reply.body
    if reply.body is not None:
        return json.dumps(dict(reply.body)).encode()
    if request.path.endswith("/audio/speech"):
        return b"ID3" + reply.text.encode()
    found = _api(request.path).body(request.path, request_body(request), reply)
    return json.dumps({**found, **reply.extra}, ensure_ascii=False).encode()


def _events(request: Received, reply: Reply) -> Iterator[bytes]:
    api = _api(request.path)
    if isinstance(reply.body, bytes):
        yield reply.body
        return
    for number, event in enumerate(api.events(request.path, request_body(request), reply)):
        if number == reply.error_after:
            yield api.error_event(request.path, reply)
            return
        yield event
