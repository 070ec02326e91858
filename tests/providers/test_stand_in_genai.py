"""Hooks of google-genai, with a stand-in of its client that sends nothing over a socket.

The SDK itself is in `make test-providers`.
"""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

import cycles
from cycles import providers
from cycles.testing import _google
from cycles.testing._reply import Reply
from tests.providers.conftest import BOOK, EXACT, USED, collect
from tests.support.requests import Requests
from tests.support.waiting import PATIENCE_S

URL = "https://generativelanguage.googleapis.com/"
WHOLE, STREAM = "models/m:generateContent", "models/m:streamGenerateContent?alt=sse"
BODY: dict[str, Any] = {"contents": [{"parts": [{"text": "hi"}]}], "generationConfig": {"maxOutputTokens": 500}}
ESTIMATED = {"actual_source": "estimate"}
LOST = {"outcome": "error", "attempts": 1, **ESTIMATED}


class LostError(Exception):
    """A connection that broke after the request was sent."""


class ClientConnectorError(Exception):
    """A connection that was not made; aiohttp has a class of this name."""


class APIError(Exception):
    """An error status."""

    def __init__(self, code: int) -> None:
        super().__init__(f"status {code}")
        self.code = code


class ApiClient:
    """Has the shape of the SDK's API client, which sends up to three attempts. Each gets the next outcome."""

    def __init__(self, base_url: str | None) -> None:
        self._http_options = SimpleNamespace(**({} if base_url is None else {"base_url": base_url}))
        self.outcomes: list[Any] = []
        self.sent: list[Any] = []
        self.is_closed = False
        self.sends_again = False  # inside of an attempt, as with aiohttp
        self.before: Callable[[], object] = lambda: None

    def __del__(self) -> None:
        self.is_closed = True

    def respond(self, http_request: Any) -> list[Any]:
        assert not self.is_closed, "the connections are closed"
        self.sent.append(http_request)
        self.before()
        outcome = self.outcomes.pop(0) if self.outcomes else Reply(text="one two three", usage=USED)
        if isinstance(outcome, Exception):
            raise outcome
        if isinstance(outcome, list):
            return outcome
        if "stream" in http_request.path:
            events = _google.events(http_request.path.partition("?")[0], BODY, outcome)
            return [event.removeprefix(b"data: ").decode() for event in events]
        return [json.dumps(_google.body(http_request.path, BODY, outcome))]

    def _request_once(self, http_request: Any, stream: bool = False) -> list[Any]:
        return self.respond(http_request)

    async def _get_aiohttp_session(self) -> str:
        return "a session"

    async def _async_request_once(self, http_request: Any, stream: bool = False) -> list[Any]:
        assert await self._get_aiohttp_session() == "a session"
        try:
            return self.respond(http_request)
        except (LostError, ClientConnectorError):
            if not self.sends_again:
                raise
            await self._get_aiohttp_session()
            return self.respond(http_request)

    def upload(self) -> list[Any]:
        """Send a request that is no call."""
        return self._request_once(SimpleNamespace(path="upload", data={}))

    async def async_upload(self) -> list[Any]:
        return await self._async_request_once(SimpleNamespace(path="upload", data={}))

    def _attempts(self, path: str, data: Any) -> Any:
        failure: Exception | None = None
        for _ in range(3):
            try:
                return self._request_once(SimpleNamespace(path=path, data=data))
            except Exception as error:
                failure = error
                if isinstance(error, APIError) and error.code != 503:
                    break
        assert failure is not None
        raise failure

    async def _async_attempts(self, path: str, data: Any) -> Any:
        failure: Exception | None = None
        for _ in range(3):
            try:
                return await self._async_request_once(SimpleNamespace(path=path, data=data))
            except Exception as error:
                failure = error
                if isinstance(error, APIError) and error.code != 503:
                    break
        assert failure is not None
        raise failure

    def request(self, http_method: str, path: str, request_dict: Any, http_options: Any = None) -> Any:
        return SimpleNamespace(body=self._attempts(path, request_dict)[0], options=http_options)

    def request_streamed(
        self, http_method: str, path: str, request_dict: Any, http_options: Any = None
    ) -> Iterator[Any]:
        for piece in self._attempts(path, request_dict):
            if isinstance(piece, BaseException):
                raise piece
            yield SimpleNamespace(body=piece, options=http_options)

    async def async_request(self, http_method: str, path: str, request_dict: Any, http_options: Any = None) -> Any:
        return SimpleNamespace(body=(await self._async_attempts(path, request_dict))[0], options=http_options)

    async def async_request_streamed(
        self, http_method: str, path: str, request_dict: Any, http_options: Any = None
    ) -> AsyncIterator[Any]:
        pieces = await self._async_attempts(path, request_dict)

        async def chunks() -> AsyncIterator[Any]:
            for piece in pieces:
                if isinstance(piece, BaseException):
                    raise piece
                yield SimpleNamespace(body=piece, options=http_options)

        return chunks()


class Module:
    """Has the shape of a module of the SDK."""

    def __init__(self, api: ApiClient) -> None:
        self._api_client = api
        self.config = {"vertexai": False}

    @property
    def api(self) -> Any:
        """What sends its requests."""
        return self._api_client


class AsyncLive(Module):
    """Connects over a websocket."""

    music: AsyncLive

    def connect(self, **options: Any) -> str:
        return "a websocket"


class AsyncLiveMusic(AsyncLive):
    """Connects over another one."""


class AsyncClient(Module):
    """The async half of a client."""

    def __init__(self, api: ApiClient) -> None:
        super().__init__(api)
        self.models = Module(api)
        self.live = AsyncLive(api)
        self.live.music = AsyncLiveMusic(api)


class Client(Module):
    """Has the shape of the SDK's client, which closes its connections when it is dropped."""

    def __init__(self, base_url: str | None = URL) -> None:
        super().__init__(ApiClient(base_url))
        self.models = Module(self._api_client)
        self.aio = AsyncClient(self._api_client)
        self._interactions: Any = [self]

    def __del__(self) -> None:
        self._api_client.is_closed = True

    @property
    def interactions(self) -> Any:
        """Requests that no hook sees."""
        if self._interactions is None:
            self._interactions = [self]
        return self._interactions


Client.__module__ = "google.genai.client"


class World(Requests):
    """One guarded client, of which the sync or the async half is used."""

    def __init__(self, client: cycles.Cycles, server: cycles.EmbeddedServer, *, is_async: bool) -> None:
        self.client = client
        self.server = server
        self.is_async = is_async
        self.original = Client()
        self.guard()

    def guard(self, base_url: str | None = URL, **options: Any) -> None:
        self.original = Client(base_url)
        self.llm = providers.guard(self.original, **{"client": self.client, "prices": BOOK, **options})

    @property
    def api(self) -> Any:
        """What sends the requests of the original client, and of its copy."""
        return self.original.api

    @property
    def bodies(self) -> list[Any]:
        """The body of each attempt."""
        return [request.data for request in self.api.sent]

    async def asend(self, body: Any = BODY, path: str = WHOLE, **more: Any) -> Any:
        api = self.llm.aio.models.api
        return await api.async_request(more.pop("method", "post"), path, body, more.pop("options", None))

    def send(self, body: Any = BODY, path: str = WHOLE, **more: Any) -> Any:
        """Send a request, and return the response."""
        if self.is_async:
            return asyncio.run(self.asend(body, path, **more))
        return self.llm.models.api.request(more.pop("method", "post"), path, body, more.pop("options", None))

    async def aread(self, count: int | None = None, body: Any = BODY, path: str = STREAM) -> int:
        stream = await self.llm.aio.models.api.async_request_streamed("post", path, body)
        read = 0
        while read != count and await anext(stream, None) is not None:
            read += 1
        del stream
        return read

    def read(self, count: int | None = None, body: Any = BODY, path: str = STREAM) -> int:
        """Read so many chunks of a stream, or all of them, and drop it; return how many there were."""
        if self.is_async:
            return asyncio.run(self.aread(count, body, path))
        stream, read = self.llm.models.api.request_streamed("post", path, body), 0
        while read != count and next(stream, None) is not None:
            read += 1
        return read

    def settle_dropped(self) -> None:
        """Wait for what is settled in the background."""
        collect()
        for thread in threading.enumerate():
            if thread.name == "cycles-dropped-response":
                thread.join(PATIENCE_S)

    @property
    def is_idle(self) -> bool:
        return self.server.ledger.active_reservations() == []


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with cycles.EmbeddedServer({"tenant:acme": cycles.usd(10)}) as server:
        client = server.client(tenant="acme", journal=False)
        yield World(client, server, is_async=request.param)
        client.close()


def test_a_whole_response_is_charged_before_it_is_returned(world: World) -> None:
    found = world.send(options={"timeout": 5})
    assert json.loads(found.body)["usageMetadata"]["promptTokenCount"] == 1000
    assert found.options == {"timeout": 5}
    assert (world.commits, world.is_idle) == ([(EXACT, {})], True)
    assert world.bodies == [BODY]
    reserve = world.server.requests.of("reserve")[0].json
    assert (reserve["action"], reserve["metadata"]) == ({"kind": "llm.completion", "name": "m"}, {"provider": "google"})


@pytest.mark.parametrize(("body", "is_json"), [(b"{}", True), ("{}", True), (None, False), ("", False)])
def test_a_response_that_reports_nothing_is_estimated(world: World, body: Any, is_json: bool) -> None:
    world.api.outcomes = [[body]]
    assert world.send().body == body
    made = BOOK.count_input("m", BODY) * 100 + 1_000  # a token at least
    assert world.commits == [(made if is_json else world.reserved[0], ESTIMATED)]


def test_a_stream_is_charged_when_it_is_read(world: World) -> None:
    assert world.read() == 4
    assert (world.commits, world.is_idle, len(world.reserved)) == ([(EXACT, {})], True, 1)


def test_a_task_sends_its_stream_at_once_and_a_thread_at_the_first_chunk(world: World) -> None:
    async def begin() -> int:
        stream = await world.llm.aio.models.api.async_request_streamed("post", STREAM, BODY, {"timeout": 5})
        sent = len(world.api.sent)
        assert [chunk.options async for chunk in aiter(stream)] == [{"timeout": 5}] * 4
        return sent

    if world.is_async:
        assert asyncio.run(begin()) == 1
    else:
        stream = world.llm.models.api.request_streamed("post", STREAM, BODY, {"timeout": 5})
        assert (len(world.reserved), world.api.sent) == (1, [])
        assert [chunk.options for chunk in iter(stream)] == [{"timeout": 5}] * 4
    assert world.commits == [(EXACT, {})]


@pytest.mark.parametrize("count", [1, 3])
def test_a_stream_that_is_dropped_costs_what_it_has_made(world: World, count: int) -> None:
    assert world.read(count) == count
    world.settle_dropped()
    [(amount, metadata)] = world.commits
    assert metadata == {"outcome": "closed", **ESTIMATED}
    assert 1_000 * 100 < amount < EXACT


def test_a_stream_that_is_dropped_before_its_first_chunk(world: World) -> None:
    assert world.read(0) == 0
    world.settle_dropped()
    assert world.is_idle
    assert world.releases == ([] if world.is_async else ["provider_not_called"])
    assert [metadata for _, metadata in world.commits] == [{"outcome": "closed", **ESTIMATED}] * world.is_async


@pytest.mark.parametrize(
    ("raised", "outcome"), [(LostError("x"), "error"), (KeyboardInterrupt(), "closed"), (APIError(500), "error")]
)
def test_a_stream_that_breaks_costs_what_it_has_made(world: World, raised: BaseException, outcome: str) -> None:
    piece = json.dumps({"candidates": [{"content": {"parts": [{"text": "abcdef"}]}}]})
    world.api.outcomes = [[piece, "", raised]]
    with pytest.raises(type(raised)):
        world.read()
    prompt = BOOK.count_input("m", BODY) * 100
    assert world.commits == [(prompt + 2 * 1000, {"outcome": outcome, **ESTIMATED})]
    assert world.is_idle


def test_an_error_inside_of_a_stream_is_an_error(world: World) -> None:
    world.api.outcomes = [[json.dumps({"error": {"code": 500, "message": "x"}})]]
    assert world.read() == 1
    assert [metadata for _, metadata in world.commits] == [{"outcome": "error", **ESTIMATED}]


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("outcomes", "options", "sent", "reserved", "commits", "releases"),
    [
        ([APIError(503)], {}, 2, 1, ["exact"], 0),
        ([APIError(400)], {}, 1, 1, [], 1),
        ([APIError(503)] * 3, {}, 3, 1, [], 1),
        ([LostError("x")], {}, 2, 2, ["bound", "exact"], 0),
        ([LostError("x")] * 3, {}, 3, 3, ["bound"] * 3, 0),
        ([LostError("x"), APIError(400)], {}, 2, 2, ["bound"], 1),
        ([APIError(503), LostError("x")], {}, 3, 2, ["bound of 2", "exact"], 0),
        ([ClientConnectorError("x")], {}, 2, 1, ["exact"], 0),
        ([ClientConnectorError("x")] * 3, {}, 3, 1, [], 1),
        ([LostError("x")] * 3, {"lost_attempt": "prompt"}, 3, 1, ["3 prompts"], 0),
        ([LostError("x")] * 2, {"lost_attempt": "prompt"}, 3, 1, ["2 prompts and exact"], 0),
        ([LostError("x"), APIError(400)], {"lost_attempt": "prompt"}, 2, 1, ["a prompt"], 0),
        ([APIError(400)], {"lost_attempt": "prompt"}, 1, 1, [], 1),
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
    releases: int,
) -> None:
    world.guard(**options)
    world.api.outcomes = list(outcomes)
    fails = len(outcomes) == 3 or any(isinstance(error, APIError) and error.code == 400 for error in outcomes)
    if fails:
        with pytest.raises(type(outcomes[-1])):
            world.read() if streams else world.send()
    else:
        world.read() if streams else world.send()
    assert len(world.api.sent) == sent
    assert world.reserved == [world.reserved[0]] * reserved
    prompt = BOOK.count_input("m", BODY) * 100
    kinds = {
        "exact": (EXACT, {}),
        "bound": (world.reserved[0], LOST),
        "bound of 2": (world.reserved[0], {**LOST, "attempts": 2}),
        "a prompt": (prompt, {**LOST, "attempts": 2}),
        "3 prompts": (3 * prompt, {**LOST, "attempts": 3}),
        "2 prompts and exact": (EXACT + 2 * prompt, {"attempts": 3, **ESTIMATED}),
    }
    assert world.commits == [kinds[kind] for kind in commits]
    assert world.releases == [f"provider_call_failed:{type(outcomes[-1]).__name__}"] * releases
    assert world.is_idle


def test_an_interruption_while_a_request_is_sent_settles_it(world: World) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    for read in (world.send, world.read):
        world.api.before = interrupt
        with pytest.raises(KeyboardInterrupt):
            read()
        assert world.is_idle
    left = LOST if world.is_async else {**LOST, "outcome": "closed"}  # a thread sends it when it reads
    assert world.commits == [(world.reserved[0], LOST), (world.reserved[0], left)]


def test_a_denied_request_is_not_sent(world: World) -> None:
    world.guard(min_output_tokens=None, wait=0)
    for send, path in ((world.send, WHOLE), (world.read, STREAM)):
        with pytest.raises(cycles.BudgetExceededError):
            send(body={"generationConfig": {"maxOutputTokens": 10**7}}, path=path)
    assert (world.api.sent, world.commits, world.releases) == ([], [], [])


def test_output_limits_are_sent(world: World) -> None:
    world.guard(max_output_tokens=60)
    for send, path in ((world.send, WHOLE), (world.read, STREAM)):
        send(path=path)
        send(body={"contents": []}, path=path)
    limited = {**BODY, "generationConfig": {"maxOutputTokens": 60}}
    assert world.bodies == [limited, {"contents": [], "generationConfig": {"maxOutputTokens": 60}}] * 2
    assert BODY["generationConfig"] == {"maxOutputTokens": 500}


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "stream"])
def test_the_attempt_after_a_lost_one_has_the_limit_that_is_reserved_for_it(world: World, streams: bool) -> None:
    def cap() -> None:
        world.server.ledger.set_budget("tenant:acme", cycles.usd(10), caps={"max_tokens": 33})

    world.api.before, world.api.outcomes = cap, [LostError("x")]
    world.read() if streams else world.send()
    assert world.bodies == [BODY, {**BODY, "generationConfig": {"maxOutputTokens": 33}}]
    assert world.commits == [(world.reserved[0], LOST), (EXACT, {})]


@pytest.mark.parametrize(
    ("path", "body"), [("models/m:embedContent", {"content": "hi"}), ("models/m:embedContent", b"hi"), (WHOLE, b"hi")]
)
def test_the_attempt_after_a_lost_one_is_sent_unchanged_if_it_has_no_limit(world: World, path: str, body: Any) -> None:
    world.api.outcomes = [LostError("x")]
    world.send(body, path)
    assert world.bodies == [body] * 2
    assert len(world.commits) == 2


def test_a_second_request_inside_of_an_attempt_has_its_own_reservation() -> None:
    with cycles.EmbeddedServer({"tenant:acme": cycles.usd(10)}) as server:
        client = server.client(tenant="acme", journal=False)
        world = World(client, server, is_async=True)
        lost, unmade = LostError("x"), ClientConnectorError("x")
        bound = 0
        cases: list[tuple[list[Any], dict[str, Any], list[Any]]] = [
            ([lost], {}, [LOST, {}]),
            ([unmade], {}, [{}]),
            ([lost], {"lost_attempt": "prompt"}, [{"attempts": 2, **ESTIMATED}]),
            ([unmade, unmade], {}, [{}]),
            ([lost, lost], {}, [LOST, LOST, {}]),
            ([lost, lost, lost], {}, [LOST, LOST, LOST, {}]),
            ([unmade, unmade, lost], {}, [{**LOST, "attempts": 3}, {}]),
        ]
        for outcomes, options, charged in cases:
            server.requests.clear()
            world.guard(**options)
            world.api.sends_again, world.api.outcomes = True, list(outcomes)
            world.send()
            bound = bound or world.reserved[0]
            assert world.reserved == [bound] * len(charged), outcomes
            assert [metadata for _, metadata in world.commits] == charged, outcomes
            assert len(world.api.sent) == len(outcomes) + 1
            assert world.bodies == [BODY] * len(world.api.sent)
        client.close()


def test_a_request_of_another_client_inside_of_an_attempt_is_none_of_its_attempts(world: World) -> None:
    inner = World(world.client, world.server, is_async=False)

    def count() -> None:
        inner.llm.models.api.request("post", "models/m:countTokens", {})
        raise LostError

    world.api.before = count
    with pytest.raises(LostError):
        world.send()
    assert len(inner.api.sent) == 3
    assert [metadata for _, metadata in world.commits] == [LOST] * 3
    assert len(world.reserved) == 3


def test_what_is_sent_after_a_call_is_no_attempt_of_it(world: World) -> None:
    async def after() -> None:
        api = world.llm.aio.models.api
        await world.asend()
        await api.async_upload()
        await world.aread()
        await api.async_upload()

    if world.is_async:
        asyncio.run(after())
    else:
        for read in (world.send, world.read):
            read()
            world.llm.models.api.upload()
    assert (len(world.api.sent), len(world.reserved)) == (4, 2)
    assert world.commits == [(EXACT, {})] * 2


def test_requests_that_cost_nothing_pass(world: World) -> None:
    world.send(path="models/m:countTokens")
    world.send(path=WHOLE, method="get")
    world.read(path="models/m:countTokens?streams")
    assert (len(world.api.sent), world.reserved) == (3, [])
    with pytest.raises(cycles.InvalidRequestError, match="a request to models/m:predict may cost money"):
        world.send(path="models/m:predict")
    assert len(world.api.sent) == 3
    world.guard(unmetered="estimate", estimate=cycles.usd(1))
    world.api.outcomes = [LostError("x")]
    world.send(path="models/m:predict")
    assert world.commits == [(cycles.usd(1).amount, LOST), (cycles.usd(1).amount, ESTIMATED)]


@pytest.mark.parametrize(
    ("base_url", "provider", "free"),
    [(URL, "google", False), (None, "google", False), ("", "google", False), ("http://localhost:1/", "google", True)],
)
def test_the_address_of_the_client_counts(world: World, base_url: str | None, provider: str, free: bool) -> None:
    world.guard(base_url, free_hosts=["localhost"])
    world.send()
    assert world.commits == [(0, {"price_source": "free_host"}) if free else (EXACT, {})]
    assert world.server.requests.of("reserve")[0].json["metadata"] == {"provider": provider}


def test_what_no_hook_sees_is_rejected_unless_it_is_allowed(world: World) -> None:
    live = world.llm.aio.live
    for connect, name in ((live.connect, "aio.live.connect"), (live.music.connect, "aio.live.music.connect")):
        with pytest.raises(cycles.InvalidRequestError, match=rf"^{name} may cost money and cannot be metered"):
            connect(model="m")
    with pytest.raises(cycles.InvalidRequestError, match=r"^interactions may cost money and cannot be metered"):
        _ = world.llm.interactions
    assert world.original.interactions == [world.original]
    world.guard(unmetered="allow")
    assert (world.llm.aio.live.connect(), world.llm.aio.live.music.connect()) == ("a websocket", "a websocket")
    assert world.llm.interactions == [world.llm]  # that of the original has its connections


def test_the_original_client_stays_as_it_is_and_open(world: World) -> None:
    world.llm.models.config["vertexai"] = True
    world.llm.config["vertexai"] = True
    assert (world.original.models.config, world.original.config) == ({"vertexai": False},) * 2
    del world.llm
    gc.collect()
    world.original.models.api.request("post", WHOLE, BODY)
    assert (len(world.api.sent), world.reserved) == (1, [])


class OwnClient(Client):
    """A user's class, which inherits how the client of the SDK is dropped."""


@pytest.mark.parametrize("kind", [Client, OwnClient])
def test_a_part_may_outlive_its_client(world: World, kind: type[Client]) -> None:
    models = providers.guard(kind(), client=world.client, prices=BOOK).models
    gc.collect()
    assert models.api.request("post", WHOLE, BODY).body
    assert world.commits == [(EXACT, {})]


def test_classes_of_copies_for_a_framework_are_made_once() -> None:
    first, second = providers.metered(Client()), providers.metered(Client())
    assert type(first) is type(second)
    assert type(first.models) is type(second.aio.models)
    assert type(first.api) is type(second.api)
    assert (type(first).__name__, type(first.api).__name__) == ("Client", "ApiClient")
