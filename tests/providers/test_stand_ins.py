"""Hooks of `httpx` clients and calls of frameworks, with stand-ins of their SDKs that send nothing over a socket.

The SDKs themselves are in `make test-providers`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

import cycles
from cycles import providers
from cycles.testing import _mistral
from cycles.testing._reply import Reply
from tests.providers.conftest import BOOK, EXACT, USED
from tests.support.requests import Requests

ESTIMATED = {"actual_source": "estimate"}
URL = "https://api.mistral.ai/v1/chat/completions"
BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 500}


class Upstream:
    """What a provider receives, and how it responds."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.response: httpx.Response | Exception | None = None

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if isinstance(self.response, Exception):
            raise self.response
        if self.response is not None:
            return self.response
        body = json.loads(request.content)
        reply = Reply(text="one two three", usage=USED)
        if body.get("stream"):
            events = b"".join(_mistral.events("/v1/chat/completions", body, reply))
            return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=events)
        return httpx.Response(200, json=_mistral.body("/v1/chat/completions", body, reply))

    @property
    def sent(self) -> dict[str, Any]:
        """The body of the last request."""
        found: dict[str, Any] = json.loads(self.requests[-1].content)
        return found


class Configuration:
    def __init__(self, upstream: Upstream) -> None:
        self.client = httpx.Client(transport=httpx.MockTransport(upstream))
        self.async_client = httpx.AsyncClient(transport=httpx.MockTransport(upstream))


class Realtime:
    def __init__(self, configuration: Configuration) -> None:
        self.sdk_configuration = configuration

    @property
    def realtime(self) -> str:
        return "a websocket"


class Mistral:
    """Has the shape of the SDK of Mistral."""

    def __init__(self, upstream: Upstream) -> None:
        self.sdk_configuration = Configuration(upstream)
        self.audio = Realtime(self.sdk_configuration)

    def send(self, body: dict[str, Any] = BODY, url: str = URL, method: str = "POST", **headers: str) -> httpx.Response:
        client = self.sdk_configuration.client
        request = client.build_request(method, url, json=body, headers=headers)
        return client.send(request, stream=body.get("stream") is True)

    async def asend(self, body: dict[str, Any] = BODY) -> httpx.Response:
        client = self.sdk_configuration.async_client
        return await client.send(client.build_request("POST", URL, json=body), stream=body.get("stream") is True)


Mistral.__module__ = "mistralai.sdk"


class World(Requests):
    def __init__(self, client: cycles.Cycles, server: cycles.EmbeddedServer) -> None:
        self.client = client
        self.server = server
        self.upstream = Upstream()

    def llm(self, **options: Any) -> Mistral:
        return providers.guard(Mistral(self.upstream), **{"client": self.client, "prices": BOOK, **options})


@pytest.fixture
def world() -> Iterator[World]:
    with cycles.EmbeddedServer({"tenant:acme": cycles.usd(1)}) as server:
        client = server.client(tenant="acme", journal=False)
        yield World(client, server)
        client.close()


def test_a_response_is_charged_before_it_is_returned(world: World) -> None:
    response = world.llm().send()
    assert response.json()["usage"]["prompt_tokens"] == 1000
    assert world.commits == [(EXACT, {})]
    assert world.upstream.sent == BODY


def test_a_request_without_a_limit_gets_one_and_keeps_its_headers(world: World) -> None:
    free = {name: value for name, value in BODY.items() if name != "max_tokens"}
    world.llm(max_output_tokens=60).send(free, authorization="Bearer k")
    assert world.upstream.sent == {**free, "max_tokens": 60}
    headers = world.upstream.requests[-1].headers
    assert (headers["authorization"], int(headers["content-length"])) == (
        "Bearer k",
        len(world.upstream.requests[-1].content),
    )


def test_a_stream_is_charged_when_it_is_read(world: World) -> None:
    response = world.llm().send({**BODY, "stream": True})
    assert world.commits == []
    assert b"one" in b"".join(response.iter_bytes())
    assert world.commits == [(EXACT, {})]


def test_the_same_for_coroutines(world: World) -> None:
    async def run() -> None:
        llm = world.llm()
        assert (await llm.asend()).status_code == 200
        response = await llm.asend({**BODY, "stream": True})
        assert b"one" in b"".join([chunk async for chunk in response.aiter_bytes()])
        await llm.sdk_configuration.async_client.aclose()

    asyncio.run(run())
    assert world.commits == [(EXACT, {})] * 2


@pytest.mark.parametrize("status", [400, 429, 500])
def test_an_error_status_is_released(world: World, status: int) -> None:
    world.upstream.response = httpx.Response(status, json={"message": "no"})
    assert world.llm().send().status_code == status
    assert (world.commits, world.releases) == ([], ["provider_call_failed:HTTPStatusError"])


@pytest.mark.parametrize(
    ("error", "charged"),
    [(httpx.ConnectError("x"), False), (httpx.ReadTimeout("x"), True), (httpx.ReadError("x"), True)],
)
def test_what_got_no_response_is_charged_if_it_was_sent(world: World, error: Exception, charged: bool) -> None:
    world.upstream.response = error
    with pytest.raises(type(error)):
        world.llm().send()
    lost = (world.reserved[0], {"outcome": "error", "attempts": 1, **ESTIMATED})
    assert world.commits == ([lost] if charged else [])
    assert len(world.releases) == (not charged)


def test_a_denied_request_is_not_sent(world: World) -> None:
    with pytest.raises(cycles.BudgetExceededError):
        world.llm(min_output_tokens=None, wait=0).send({**BODY, "max_tokens": 10**6})
    assert (world.upstream.requests, world.commits, world.releases) == ([], [], [])


def test_requests_that_cost_nothing_pass(world: World) -> None:
    world.upstream.response = httpx.Response(200, json={})
    llm = world.llm()
    llm.send(url="https://api.mistral.ai/v1/models", method="GET")
    llm.send(url="https://api.mistral.ai/v1/files")
    assert (len(world.upstream.requests), world.reserved) == (2, [])
    with pytest.raises(cycles.InvalidRequestError, match="a request to /v1/ocr may cost money and cannot be metered"):
        llm.send(url="https://api.mistral.ai/v1/ocr")
    assert len(world.upstream.requests) == 2
    world.llm(unmetered="allow").send(url="https://api.mistral.ai/v1/ocr")
    assert (len(world.upstream.requests), world.reserved) == (3, [])


def test_websockets_are_rejected(world: World) -> None:
    with pytest.raises(cycles.InvalidRequestError, match=r"realtime\.realtime may cost money and cannot be metered"):
        _ = world.llm().audio.realtime
    assert world.llm(unmetered="allow").audio.realtime == "a websocket"


def test_the_original_client_stays_as_it_is(world: World) -> None:
    original = Mistral(world.upstream)
    guarded = providers.guard(original, client=world.client, prices=BOOK)
    original.send()
    assert (world.commits, original.audio.realtime) == ([], "a websocket")
    assert guarded.audio.sdk_configuration is guarded.sdk_configuration
    with pytest.raises(cycles.InvalidRequestError, match="this Mistral client is guarded already"):
        providers.guard(guarded, client=world.client, prices=BOOK)


@pytest.mark.parametrize(
    ("module", "name", "lacks"),
    [
        ("mistralai", "Mistral", "Mistral has no httpx client; install a version that its extra allows"),
        ("google.genai.client", "Client", "its API client has no request, request_streamed"),
        ("botocore.client", "BedrockRuntime", "BedrockRuntime has no _make_api_call, _endpoint, create_request, _send"),
    ],
)
def test_a_client_without_the_known_hooks(world: World, module: str, name: str, lacks: str) -> None:
    made = type(name, (), {"__module__": module})()
    with pytest.raises(cycles.ConfigurationError, match=lacks):
        providers.guard(made, client=world.client, prices=BOOK)


def test_what_is_no_client(world: World) -> None:
    with pytest.raises(
        cycles.InvalidRequestError, match=r"llm must be a client of openai, anthropic.*got builtins\.int"
    ):
        providers.guard(5, client=world.client, prices=BOOK)


# --- calls of frameworks whose client is unknown


def reported(world: World, **options: Any) -> Any:
    return providers.reported_model("openai", {"client": world.client, "prices": BOOK, **options})


def test_a_call_is_priced_by_what_its_framework_reports(world: World) -> None:
    call = reported(world).call(BODY, stream=False, url="")
    assert call.begin() == {}
    call.report(["hi"], USED, "m", {}, complete=True)
    call.finish()
    assert world.commits == [(EXACT, {})]


def test_requests_inside_of_a_call_are_paid_by_it_once(world: World) -> None:
    llm = world.llm()
    call = reported(world).call(BODY, stream=False, url="")
    call.begin()
    with call.inside():
        for _ in range(2):
            llm.send()
    call.report(["hi"], {"tokens_input": 9, "tokens_output": 9}, "m", {}, complete=True)
    call.finish()
    assert (len(world.reserved), world.commits) == (1, [(2 * EXACT, {})])


def test_a_model_inside_of_its_own_call_passes(world: World) -> None:
    model = reported(world)
    call = model.call(BODY, stream=False, url="")
    call.begin()
    with call.inside():
        assert model.call(BODY, stream=False, url="") is None
    call.finish(ValueError("failed"))
    assert (world.commits, world.releases) == ([], ["provider_call_failed:ValueError"])


@pytest.mark.parametrize(
    ("raised", "outcome"),
    [(ValueError("broke"), "error"), (KeyboardInterrupt(), "closed"), (GeneratorExit(), "closed")],
)
def test_a_stream_that_is_left_costs_what_it_has_made(world: World, raised: BaseException, outcome: str) -> None:
    call = reported(world).call(BODY, stream=True, url="")
    call.begin()
    call.report(["abcdef"], {}, None, {}, complete=False)
    call.finish(raised)
    prompt = BOOK.count_input("m", call.request.body) * 100
    assert world.commits == [(prompt + 2 * 1000, {"outcome": outcome, **ESTIMATED})]


def test_an_interrupted_call_without_a_report_is_charged_its_bound(world: World) -> None:
    call = reported(world).call(BODY, stream=False, url="")
    call.begin()
    call.finish(KeyboardInterrupt())
    assert world.commits == [(world.reserved[0], {"outcome": "error", "attempts": 1, **ESTIMATED})]


def test_an_unknown_host_of_a_framework_is_billed_by_its_maker(world: World) -> None:
    for url in ("", "https://gateway.internal/v1"):
        call = reported(world).call(BODY, stream=False, url=url)
        call.begin()
        call.finish(ValueError("failed"))
    metadata = [request.json.get("metadata") for request in world.server.requests.of("reserve")]
    assert metadata == [{"provider": "openai"}] * 2
