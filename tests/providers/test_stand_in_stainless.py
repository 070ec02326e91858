"""Hooks of SDKs that Stainless generates, with a stand-in of a client that sends nothing over a socket.

The SDKs themselves are in `make test-providers`.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import io
import json
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

import cycles
from cycles import providers
from cycles.providers import paid_by
from cycles.providers._stainless import _files_of, pricing_of
from cycles.testing import _openai
from cycles.testing._reply import Reply
from tests.providers.conftest import BOOK, EXACT, USED
from tests.support.requests import Requests

URL = "https://api.openai.com/v1/"
CHAT = "/chat/completions"
BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 500}
ESTIMATED = {"actual_source": "estimate"}
LOST = {"outcome": "error", "attempts": 1, **ESTIMATED}


class NotGiven:
    """Marks a parameter without a value."""


class Omit(NotGiven):
    """Marks one, too."""


class StatusError(Exception):
    """An error status."""

    def __init__(self, code: int) -> None:
        super().__init__(f"status {code}")
        self.status_code = code


class Upstream:
    """What a provider receives, and how it responds: each request gets the next outcome."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.outcomes: list[Any] = []
        self.before: Callable[[], object] = lambda: None

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.before()
        outcome = self.outcomes.pop(0) if self.outcomes else Reply(text="one two three", usage=USED)
        if isinstance(outcome, Exception):
            raise outcome
        if isinstance(outcome, int):
            return httpx.Response(outcome, json={})
        if isinstance(outcome, httpx.Response):
            return outcome
        body = json.loads(request.content)
        if isinstance(body, Mapping) and body.get("stream"):
            events = b"".join(_openai.events(request.url.path, body, outcome))
            return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=events)
        return httpx.Response(200, json=_openai.body(request.url.path, body, outcome))

    @property
    def bodies(self) -> list[Any]:
        """The body of each attempt."""
        return [json.loads(request.content) for request in self.requests]


class Inner:
    def connect(self) -> str:
        return "a websocket inside"


class Realtime:
    """A resource that connects over a websocket, and has another one inside."""

    def connect(self) -> str:
        return "a websocket"

    @functools.cached_property
    def translations(self) -> Inner:
        return Inner()

    @functools.cached_property
    def with_raw_response(self) -> Inner:
        return Inner()

    @functools.cached_property
    def _client(self) -> Inner:
        return Inner()


class Base:
    """What the sync and the async stand-in share: up to three attempts."""

    can_copy = True
    base_url: Any = httpx.URL(URL)

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.default_headers: Any = {}
        self._client = self.http(upstream)

    def http(self, upstream: Upstream) -> Any:
        raise NotImplementedError

    @functools.cached_property
    def realtime(self) -> Realtime:
        return Realtime()

    def copy(self, **options: Any) -> Any:
        if options and not self.can_copy:
            raise TypeError("unexpected keyword")
        assert options in ({}, {"http_client": self._client})
        return copy.copy(self)

    def _prepare_request(self, request: Any) -> None:
        request.is_prepared = True

    def _process_response(self, *, response: Any, stream: bool) -> Any:
        return response.json() if "json" in response.headers["content-type"] else response

    def _build(self, options: Any, stream: bool) -> Any:
        content = {**(options.json_data or {}), **(options.extra_json or {})}
        content = {name: value for name, value in content.items() if not isinstance(value, NotGiven)}
        url = options.url if "://" in options.url else f"{self.base_url}{options.url.lstrip('/')}"
        return self._client.build_request(options.method, url, json={**content, **({"stream": True} if stream else {})})

    @staticmethod
    def is_final(response: httpx.Response) -> bool:
        if response.status_code in (429, 500, 503):
            return False
        if response.status_code >= 300:
            raise StatusError(response.status_code)
        return True


class OpenAI(Base):
    """Has the shape of the SDK's client."""

    def http(self, upstream: Upstream) -> Any:
        return httpx.Client(transport=httpx.MockTransport(upstream))

    def _prepare_options(self, options: Any) -> Any:
        return options

    def _sleep_for_retry(self, *, response: Any) -> None:
        pass

    def request(self, cast_to: Any, options: Any, *, stream: bool = False) -> Any:
        failure: Exception = StatusError(0)
        for left in (2, 1, 0):
            prepared = self._prepare_options(options)
            request, response = self._build(prepared, stream), None
            self._prepare_request(request)
            try:
                response = self._client.send(request, stream=stream)
            except Exception as error:
                failure = error
                if left:
                    self._sleep_for_retry(response=None)
                continue
            if self.is_final(response):
                return self._process_response(response=response, stream=stream)
            failure = StatusError(response.status_code)
            if left:
                self._sleep_for_retry(response=response)
        raise failure


class AsyncOpenAI(Base):
    """Has the shape of the SDK's async client."""

    def http(self, upstream: Upstream) -> Any:
        return httpx.AsyncClient(transport=httpx.MockTransport(upstream))

    async def _prepare_options(self, options: Any) -> Any:
        return options

    async def _sleep_for_retry(self, *, response: Any) -> None:
        pass

    async def _process_response(self, *, response: Any, stream: bool) -> Any:
        return response.json() if "json" in response.headers["content-type"] else response

    async def request(self, cast_to: Any, options: Any, *, stream: bool = False) -> Any:
        failure: Exception = StatusError(0)
        for left in (2, 1, 0):
            prepared = await self._prepare_options(options)
            request, response = self._build(prepared, stream), None
            self._prepare_request(request)
            try:
                response = await self._client.send(request, stream=stream)
            except Exception as error:
                failure = error
                if left:
                    await self._sleep_for_retry(response=None)
                continue
            if self.is_final(response):
                return await self._process_response(response=response, stream=stream)
            failure = StatusError(response.status_code)
            if left:
                await self._sleep_for_retry(response=response)
        raise failure


OpenAI.__module__ = AsyncOpenAI.__module__ = "openai"


def options_of(
    body: Any = None,
    url: str = CHAT,
    *,
    method: str = "post",
    extra: Any = None,
    headers: Any = None,
    files: Any = None,
) -> SimpleNamespace:
    """Return the options of a request, as the SDK has them."""
    content = dict(BODY) if body is None else body
    return SimpleNamespace(method=method, url=url, json_data=content, extra_json=extra, headers=headers, files=files)


class World(Requests):
    """One guarded client, sync or async."""

    def __init__(self, server: cycles.EmbeddedServer, *, is_async: bool) -> None:
        self.server = server
        self.client = server.client(tenant="acme", journal=False)
        self.is_async = is_async
        self.upstream = Upstream()
        self.original: Any = None
        self.llm: Any = None
        self.guard()

    def guard(self, **options: Any) -> None:
        self.original = (AsyncOpenAI if self.is_async else OpenAI)(self.upstream)
        self.llm = providers.guard(self.original, **{"client": self.client, "prices": BOOK, **options})

    def send(self, *given: Any, stream: bool = False, llm: Any = None, **options: Any) -> Any:
        """Send a request, and read its stream if it is one."""
        sent = given[0] if given and isinstance(given[0], SimpleNamespace) else options_of(*given, **options)
        client = self.llm if llm is None else llm
        if not self.is_async:
            response = client.request(object, sent, stream=stream)
            return b"".join(response.iter_bytes()) if stream else response

        async def request() -> Any:
            response = await client.request(object, sent, stream=stream)
            return b"".join([piece async for piece in response.aiter_bytes()]) if stream else response

        return asyncio.run(request())

    @property
    def metadata(self) -> list[Any]:
        """Of each reservation."""
        return [request.json.get("metadata") for request in self.server.requests.of("reserve")]

    @property
    def is_idle(self) -> bool:
        return self.server.ledger.active_reservations() == []


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with cycles.EmbeddedServer({"tenant:acme": cycles.usd(10)}) as server:
        made = World(server, is_async=request.param)
        yield made
        made.client.close()


def test_a_response_is_charged_before_it_is_returned(world: World) -> None:
    assert world.send()["usage"]["prompt_tokens"] == 1000
    assert (world.commits, world.is_idle, world.upstream.bodies) == ([(EXACT, {})], True, [BODY])


def test_a_stream_is_charged_when_it_is_read_and_its_usage_is_hidden(world: World) -> None:
    read = world.send(stream=True)
    assert (b"one" in read, b"prompt_tokens" in read) == (True, False)
    assert world.commits == [(EXACT, {})]
    [body] = world.upstream.bodies
    assert body == {**BODY, "stream": True, "stream_options": {"include_usage": True}}


def test_a_stream_that_the_body_asks_for_is_charged_too(world: World) -> None:
    response = world.send({**BODY, "stream": True})
    read = asyncio.run(_read(response)) if world.is_async else b"".join(response.iter_bytes())
    assert (b"one" in read, b"prompt_tokens" in read) == (True, False)
    assert world.commits == [(EXACT, {})]


async def _read(response: httpx.Response) -> bytes:
    return b"".join([piece async for piece in response.aiter_bytes()])


@pytest.mark.parametrize("value", ["g1", None])
def test_a_guardrail_in_the_headers_is_counted(world: World, value: str | None) -> None:
    world.send(headers={"X-Amzn-Bedrock-GuardrailIdentifier": value, "X-Other": "g1"})
    unpriced = ["guardrail_units", "guardrail_information_units"]
    assert world.commits == [(EXACT, {} if value is None else {**ESTIMATED, "unpriced": unpriced})]


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("outcomes", "options", "sent", "reserved", "commits", "fails"),
    [
        ([500], {}, 2, 1, ["exact"], False),
        ([400], {}, 1, 1, [], True),
        ([500] * 3, {}, 3, 1, [], True),
        ([httpx.ReadError("x")], {}, 2, 2, ["bound", "exact"], False),
        ([httpx.ReadError("x")] * 3, {}, 3, 3, ["bound"] * 3, True),
        ([httpx.ReadError("x"), 400], {}, 2, 2, ["bound"], True),
        ([500, httpx.ReadError("x")], {}, 3, 2, ["bound of 2", "exact"], False),
        ([httpx.ConnectError("x")], {}, 2, 1, ["exact"], False),
        ([httpx.ConnectError("x")] * 3, {}, 3, 1, [], True),
        ([httpx.ReadError("x")] * 2, {"lost_attempt": "prompt"}, 3, 1, ["2 prompts and exact"], False),
        ([httpx.ReadError("x")] * 3, {"lost_attempt": "prompt"}, 3, 1, ["3 prompts"], True),
    ],
)
def test_what_attempts_cost(
    world: World,
    streams: bool,
    outcomes: list[Any],
    options: dict[str, Any],
    sent: int,
    reserved: int,
    commits: list[str],
    fails: bool,
) -> None:
    world.guard(**options)
    world.upstream.outcomes = list(outcomes)
    if fails:
        with pytest.raises((StatusError, httpx.HTTPError)):
            world.send(stream=streams)
    else:
        world.send(stream=streams)
    assert len(world.upstream.requests) == sent
    bound, prompt = world.reserved[0], BOOK.count_input("m", BODY) * 100
    assert world.reserved == [bound] * reserved
    kinds = {
        "exact": (EXACT, {}),
        "bound": (bound, LOST),
        "bound of 2": (bound, {**LOST, "attempts": 2}),
        "2 prompts and exact": (EXACT + 2 * prompt, {"attempts": 3, **ESTIMATED}),
        "3 prompts": (3 * prompt, {**LOST, "attempts": 3}),
    }
    assert world.commits == [kinds[kind] for kind in commits]
    ends_with_status = (fails and not commits) or outcomes[-1] == 400
    assert len(world.releases) == ends_with_status
    assert (world.is_idle, world.upstream.bodies) == (True, [world.upstream.bodies[0]] * sent)


@pytest.mark.parametrize(
    ("body", "extra", "sent"),
    [
        ({"max_tokens": 500}, None, [{"max_tokens": 60}, {"max_tokens": 33}]),
        ({"max_tokens": 500}, {"max_tokens": 400}, [{"max_tokens": 60}, {"max_tokens": 33}]),
        ({"max_tokens": 20}, None, [{"max_tokens": 20}, {"max_tokens": 20}]),
        ({}, None, [{"max_completion_tokens": 60}, {"max_completion_tokens": 33}]),
        (
            {"max_tokens": 500},
            {"max_completion_tokens": 400},
            [{"max_tokens": 60, "max_completion_tokens": 60}, {"max_tokens": 33, "max_completion_tokens": 33}],
        ),
    ],
)
def test_the_limits_of_an_attempt_are_those_that_are_reserved_for_it(
    world: World, body: dict[str, Any], extra: Any, sent: list[Any]
) -> None:
    def cap() -> None:
        world.server.ledger.set_budget("tenant:acme", cycles.usd(10), caps={"max_tokens": 33})

    world.guard(max_output_tokens=60)
    world.upstream.before, world.upstream.outcomes = cap, [httpx.ReadError("x")]
    options = options_of({"model": "m", "messages": [], **body}, extra=extra)
    given = copy.deepcopy(options)
    world.send(options)
    assert world.upstream.bodies == [{"model": "m", "messages": [], **limits} for limits in sent]
    assert options == given


@pytest.mark.parametrize(
    ("body", "extra"),
    [
        ({"max_tokens": 500}, None),
        ({"max_tokens": 500}, {"max_tokens": 400}),
        ({}, {"max_tokens": 400}),
        ({"max_tokens": 400}, {"max_completion_tokens": 400}),
        ({}, None),
    ],
)
def test_a_limit_that_no_longer_has_to_be_lowered_is_that_of_the_request_again(
    world: World, body: dict[str, Any], extra: Any
) -> None:
    def set_caps(caps: dict[str, int]) -> None:
        world.server.ledger.set_budget("tenant:acme", cycles.usd(10), caps=caps)

    set_caps({"max_tokens": 33})
    world.upstream.before, world.upstream.outcomes = lambda: set_caps({}), [httpx.ReadError("x")]
    world.send(options_of({"model": "m", "messages": [], **body}, extra=extra))
    given = {**body, **(extra or {})}
    lowered = dict.fromkeys(given or ["max_completion_tokens"], 33)
    assert world.upstream.bodies == [{"model": "m", "messages": [], **limits} for limits in (lowered, given)]


@pytest.mark.parametrize("options", [{}, {"lost_attempt": "prompt"}], ids=["bound", "prompt"])
@pytest.mark.parametrize(("asked", "hides"), [({}, True), ({"stream_options": {"include_usage": True}}, False)])
def test_the_usage_of_a_later_attempt_is_hidden_as_that_of_the_first(
    world: World, asked: dict[str, Any], hides: bool, options: dict[str, Any]
) -> None:
    world.guard(**options)
    world.upstream.outcomes = [httpx.ReadError("x")] * 2
    read = world.send({**BODY, **asked}, stream=True)
    assert (b"one" in read, b"prompt_tokens" in read) == (True, not hides)
    assert [body["stream_options"] for body in world.upstream.bodies] == [{"include_usage": True}] * 3


def test_the_body_of_a_request_may_be_in_its_extra_members(world: World) -> None:
    with pytest.raises(cycles.UnknownModelError, match="names no model"):
        world.send([])
    world.guard(max_output_tokens=5)
    options = options_of(extra={"model": "m"})
    options.json_data = None
    world.send(options)
    assert world.upstream.bodies == [{"model": "m", "max_completion_tokens": 5}]


def test_parameters_without_a_value_are_not_there(world: World) -> None:
    world.send({**BODY, "max_tokens": NotGiven(), "n": Omit()})
    world.send({"model": "m", "messages": BODY["messages"]})
    assert world.reserved[0] == world.reserved[1]


@pytest.mark.parametrize(
    ("of_client", "of_request", "project"),
    [
        ({}, None, None),
        ({"OpenAI-Project": "a"}, None, "a"),
        ({"OpenAI-Project": "a"}, {"openai-project": "b"}, "b"),
        ({"OpenAI-Project": "a"}, {"openai-project": ""}, "a"),
        ({"OpenAI-Project": "a"}, {"openai-project": NotGiven()}, "a"),
        ({"X-Other": "a"}, {"x-other": "b"}, None),
        (None, NotGiven(), None),
    ],
)
def test_the_project_of_a_request_is_in_its_metadata(
    world: World, of_client: Any, of_request: Any, project: Any
) -> None:
    world.llm.default_headers = of_client
    world.send(headers=of_request)
    assert world.metadata == [{"provider": "openai", **({} if project is None else {"project": project})}]


@pytest.mark.parametrize(
    ("url", "metered"),
    [
        ("chat/completions", True),
        ("/chat/completions/", True),
        (f"{URL}chat/completions", True),
        ("https://other.example/v1/chat/completions", True),
        (f"{URL}files", False),
        ("files", False),
    ],
)
def test_a_path_is_looked_up_below_the_base_url(world: World, url: str, metered: bool) -> None:
    world.upstream.outcomes = [httpx.Response(200, json=_openai.body("/v1" + CHAT, BODY, Reply(usage=USED)))]
    world.send(url=url)
    assert world.commits == ([(EXACT, {})] if metered else [])


def test_a_request_that_is_not_metered_passes_or_is_rejected(world: World) -> None:
    world.send(url="/files")
    world.send(method="get")
    with pytest.raises(cycles.InvalidRequestError, match="a request to /batches may cost money"):
        world.send(url="/batches")
    assert (len(world.upstream.requests), world.reserved) == (2, [])
    world.guard(unmetered="estimate", estimate=cycles.usd(1))
    world.upstream.outcomes = [httpx.ReadError("x")]
    world.send(url="/batches")
    assert [amount for amount, _ in world.commits] == [cycles.usd(1).amount] * 2


def test_a_denied_request_is_not_sent(world: World) -> None:
    world.guard(min_output_tokens=None, wait=0)
    with pytest.raises(cycles.BudgetExceededError):
        world.send({**BODY, "max_tokens": 10**7})
    assert (world.upstream.requests, world.commits, world.releases) == ([], [], [])


def test_an_error_of_the_sdk_after_the_response_is_charged(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any, **how: Any) -> None:
        raise ValueError("no such type")

    monkeypatch.setattr(Base, "_process_response", fail)
    monkeypatch.setattr(AsyncOpenAI, "_process_response", fail)
    world.guard()
    with pytest.raises(ValueError, match="no such type"):
        world.send()
    assert world.commits == [(EXACT, {"outcome": "error"})]


def test_requests_of_other_clients_inside_of_a_request_are_none_of_its_attempts(world: World) -> None:
    inner = World(world.server, is_async=False)

    def count() -> None:
        world.upstream.before = lambda: None
        inner.send(url="/files")
        inner.send()

    world.upstream.before, world.upstream.outcomes = count, [httpx.ReadError("x")]
    world.send()
    assert sorted(world.commits, key=str) == sorted([(EXACT, {}), (world.reserved[0], LOST), (EXACT, {})], key=str)
    inner.client.close()


def test_what_is_sent_after_a_request_is_no_attempt_of_it(world: World) -> None:
    world.upstream.outcomes = [httpx.ReadError("x")] * 3
    with pytest.raises(httpx.ReadError):
        world.send()
    world.send(url="/files")
    assert len(world.reserved) == 3


class Payer:
    estimate = cycles.usd(1)
    price: Any = BOOK

    def __init__(self) -> None:
        self.requests: list[Any] = []

    def bind(self, request: Any) -> None:
        self.requests.append(request)

    def ended(self, request: Any) -> None:
        pass


def test_a_call_of_a_framework_pays_but_not_for_what_is_made_in_the_background(world: World) -> None:
    payer = Payer()
    world.upstream.outcomes = [httpx.Response(200, json={"id": "r", "status": "queued"})]
    with paid_by(payer):
        world.send({"model": "m", "input": "hi", "background": True}, "/responses")
        assert payer.requests == []
        world.send()
    assert [request.paid(None).amount.amount for request in payer.requests] == [EXACT]
    assert world.reserved == []


@pytest.mark.parametrize(("wait_s", "commits"), [(60, 0), (0, 1)])
def test_a_response_in_the_background_keeps_its_call_open_if_it_is_waited_for(
    world: World, wait_s: int, commits: int
) -> None:
    world.guard(background_wait=wait_s)
    world.upstream.outcomes = [httpx.Response(200, json={"id": "r", "status": "queued"})]
    world.send({"model": "m", "input": "hi", "background": True, "max_output_tokens": 9}, "/responses")
    assert len(world.commits) == commits
    usage = {"input_tokens": 1000, "output_tokens": 100}
    world.upstream.outcomes = [
        httpx.Response(200, json={"id": "r", "model": "m", "status": "completed", "usage": usage})
    ]
    world.send(url="/responses/r", method="get")
    assert world.commits == [(world.reserved[0], ESTIMATED) if commits else (EXACT, {})]


def test_websockets_are_rejected_also_inside_of_a_resource(world: World) -> None:
    for _ in range(2):
        realtime = world.llm.realtime
        for connect, name in ((realtime.connect, "realtime"), (realtime.translations.connect, "realtime.translations")):
            with pytest.raises(cycles.InvalidRequestError, match=rf"^{name}\.connect may cost money"):
                connect()
        assert realtime.with_raw_response.connect() == "a websocket inside"
    assert world.original.realtime.connect() == "a websocket"
    world.guard(unmetered="allow")
    assert world.llm.realtime.connect() == "a websocket"


def test_copies_of_a_guarded_client_have_its_class_and_the_original_stays(world: World) -> None:
    assert type(world.llm.copy()) is type(world.llm)
    assert type(world.llm).__name__ == type(world.original).__name__
    world.send(llm=world.original)
    assert world.reserved == []
    world.send(llm=world.llm.copy())
    assert world.commits == [(EXACT, {})]
    assert type(providers.metered(world.original)) is type(providers.metered(world.original))


def test_a_client_that_cannot_be_copied_with_its_connections_is_copied_by_its_attributes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Base, "can_copy", False)
    world.guard()
    assert world.original.realtime.connect() == "a websocket"
    copied = providers.guard(world.original, client=world.client, prices=BOOK)
    world.send(llm=copied)
    assert world.commits == [(EXACT, {})]
    with pytest.raises(cycles.InvalidRequestError):  # its resources are its own
        copied.realtime.connect()


@pytest.mark.parametrize("name", ["copy", "_prepare_request", "_process_response"])
def test_a_client_without_a_hook_is_not_guarded(world: World, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(Base, name, None)
    if world.is_async and name == "_process_response":
        monkeypatch.setattr(AsyncOpenAI, name, None)
    with pytest.raises(cycles.ConfigurationError, match=rf"openai .*cannot be guarded: \w+ has no {name};"):
        world.guard()


@pytest.mark.parametrize(
    ("names", "provider"),
    [
        (["OpenAI"], "own"),
        (["AzureOpenAI"], "azure"),
        (["AsyncAnthropicVertex"], "google"),
        (["AnthropicBedrockMantle"], "aws"),
        (["Mine", "AnthropicBedrock"], "aws"),
    ],
)
def test_the_cloud_of_a_client_has_its_prices(names: list[str], provider: str) -> None:
    cls: type = object
    for name in reversed(names):
        cls = type(name, (cls,), {})
    assert pricing_of(cls(), "own") == provider


class Unsized:
    def tell(self) -> int:
        raise OSError


def opened(size: int, at: int) -> io.BytesIO:
    made = io.BytesIO(b"x" * size)
    made.seek(at)
    return made


@pytest.mark.parametrize(
    ("files", "count", "size"),
    [
        (None, 0, 0),
        ([], 0, 0),
        ([("file", b"abc")], 1, 3),
        ({"file": b"abc", "mask": bytearray(b"de")}, 2, 5),
        ([("file", "abc"), ("file", ("a.png", b"defg", "image/png"))], 2, 7),
        ([["file", ["a.png", b"abc"]]], 1, 3),
        ([("file", ("a.png",)), ("file",), "x"], 3, 0),
        ([("file", opened(9, 4))], 1, 9),
        ([("file", Unsized()), ("file", 5), ("file", ("a", b"b"))], 3, 1),
    ],
)
def test_the_number_and_the_size_of_files(files: Any, count: int, size: int) -> None:
    found = _files_of(files)
    assert (found.count, found.size) == (count, size)


def test_a_file_is_read_from_where_it_was() -> None:
    file = opened(9, 4)
    assert _files_of({"file": file}).size == 9
    assert file.tell() == 4
