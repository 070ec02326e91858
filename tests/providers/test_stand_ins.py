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
        self.response: httpx.Response | BaseException | None = None

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if isinstance(self.response, BaseException):
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


def test_what_a_request_has_beside_its_body_stays_when_its_limit_is_lowered(world: World) -> None:
    client = world.llm(max_output_tokens=60).sdk_configuration.client
    request = client.build_request(
        "POST", URL, json=BODY, headers=[("x-a", "1"), ("x-a", "2")], extensions={"trace": 5}
    )
    client.send(request)
    [sent] = world.upstream.requests
    assert (sent.headers.get_list("x-a"), sent.extensions["trace"]) == (["1", "2"], 5)
    assert (sent.method, str(sent.url)) == ("POST", URL)
    assert sent.headers.get_list("content-length") == [str(len(sent.content))]
    assert json.loads(request.content) == BODY


def test_a_chunked_body_gets_a_length(world: World) -> None:
    client = world.llm(max_output_tokens=60).sdk_configuration.client
    request = client.build_request("POST", URL, json=BODY, headers={"Transfer-Encoding": "chunked"})
    client.send(request)
    headers = world.upstream.requests[0].headers
    assert ("transfer-encoding" in headers, "content-length" in headers) == (False, True)


@pytest.mark.parametrize("content", [b"no json", b"[1]", b"", iter([b"{}"])])
def test_a_body_that_names_no_model_is_not_sent(world: World, content: Any) -> None:
    client = world.llm().sdk_configuration.client
    with pytest.raises(cycles.UnknownModelError, match="a request to /v1/chat/completions names no model"):
        client.send(client.build_request("POST", URL, content=content))
    assert (world.upstream.requests, world.reserved) == ([], [])


@pytest.mark.parametrize("stream", [1, "true", False, None])
def test_a_response_that_is_no_stream_is_charged_before_it_is_returned(world: World, stream: Any) -> None:
    reply = _mistral.body("/v1/chat/completions", BODY, Reply(usage=USED))
    world.upstream.response = httpx.Response(200, json=reply)
    world.llm().send({**BODY, "stream": stream})
    assert world.commits == [(EXACT, {})]


def test_an_interruption_while_a_request_is_sent_charges_its_bound(world: World) -> None:
    world.upstream.response = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        world.llm().send()
    assert world.commits == [(world.reserved[0], {"outcome": "error", "attempts": 1, **ESTIMATED})]


def test_an_unmetered_request_is_settled_at_its_estimate(world: World) -> None:
    world.upstream.response = httpx.Response(200, json={})
    world.llm(unmetered="estimate", estimate=cycles.usd("0.5")).send(url="https://api.mistral.ai/v1/ocr")
    assert world.commits == [(cycles.usd("0.5").amount, ESTIMATED)]


def test_the_caps_of_the_reservation_are_sent(world: World) -> None:
    world.server.ledger.set_budget("tenant:acme", cycles.usd(1), caps={"max_tokens": 33})
    world.llm().send()
    assert world.upstream.sent == {**BODY, "max_tokens": 33}


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


@pytest.mark.parametrize(
    ("module", "name"),
    [("openai_tools", "OpenAI"), ("my.openai", "OpenAI"), ("openai", "OpenAIError"), ("cohere.client", "AwsClientV2")],
)
def test_classes_with_the_name_or_the_package_of_a_client_are_none(world: World, module: str, name: str) -> None:
    made = type(name, (), {"__module__": module})()
    with pytest.raises(cycles.InvalidRequestError, match=rf"llm must be a client of .*got {module}\.{name};"):
        providers.guard(made, client=world.client, prices=BOOK)


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


@pytest.mark.parametrize(
    ("counts", "complete", "amount", "metadata"),
    [
        (USED, True, EXACT, {}),
        (USED, False, EXACT, {}),
        ({}, True, None, ESTIMATED),
        ({"tokens_output": 100}, True, None, ESTIMATED),
    ],
)
def test_what_a_framework_reports_of_a_whole_response(
    world: World, counts: dict[str, int], complete: bool, amount: int | None, metadata: dict[str, str]
) -> None:
    call = reported(world).call(BODY, stream=False, url="")
    call.begin()
    call.report(["abcdef"], counts, "m", {}, complete=complete)
    call.finish()
    prompt = BOOK.count_input("m", call.request.body) * 100
    expected = prompt + counts.get("tokens_output", 2) * 1000 if amount is None else amount
    assert world.commits == [(expected, metadata)]


@pytest.mark.parametrize("complete", [True, False])
def test_a_stream_of_a_framework_is_exact_if_its_counts_are_complete(world: World, complete: bool) -> None:
    call = reported(world).call(BODY, stream=True, url="")
    call.begin()
    call.report(["abc"], {"tokens_input": 1000, "tokens_output": 1}, "m", {}, complete=False)
    call.report(["abcdefabcdef"], {"tokens_input": 1000, "tokens_output": 2}, "m", {}, complete=complete)
    call.finish(ValueError("broke"))
    outcome = {"outcome": "error"}
    made = (100_000 + 2 * 1000, outcome) if complete else (100_000 + 5 * 1000, {**outcome, **ESTIMATED})
    assert world.commits == [made]


def test_the_model_and_the_context_of_a_report_select_its_price(world: World) -> None:
    call = reported(world).call(BODY, stream=False, url="")
    call.begin()
    call.report([], USED, "dear", {"service_tier": "flex"}, complete=True)
    call.finish()
    [(amount, metadata)] = world.commits
    assert (amount, metadata["response_model"], metadata["service_tier"]) == (100 * EXACT, "dear", "flex")


@pytest.mark.parametrize("is_async", [False, True])
def test_a_limit_that_is_lowered_is_returned(world: World, is_async: bool) -> None:
    call = reported(world, max_output_tokens=60).call(BODY, stream=False, url="")

    async def run() -> Any:
        limits = await call.abegin()
        call.report(["hi"], USED, "m", {}, complete=True)
        await call.afinish()
        return limits

    if is_async:
        limits = asyncio.run(run())
    else:
        limits = call.begin()
        call.report(["hi"], USED, "m", {}, complete=True)
        call.finish()
    assert (limits, world.commits) == ({"max_tokens": 60}, [(EXACT, {})])


def test_a_call_that_reports_nothing_costs_its_bound_and_one_that_failed_nothing(world: World) -> None:
    first, second = (reported(world).call(BODY, stream=False, url="") for _ in range(2))
    first.begin()
    first.finish()
    assert world.commits == [(world.reserved[0], ESTIMATED)]
    second.begin()
    second.finish(ValueError("failed"))
    assert (len(world.commits), world.releases) == (1, ["provider_call_failed:ValueError"])


def test_what_requests_inside_of_a_call_cost_replaces_its_report(world: World) -> None:
    llm, call = world.llm(), reported(world).call(BODY, stream=False, url="")
    call.begin()
    with call.inside():
        llm.send()
    call.finish(ValueError("after it"))
    assert world.commits == [(EXACT, {})]
    assert call.usage.tokens_input == 1000


def test_a_model_of_another_guard_inside_of_a_call_is_a_call_that_it_pays(world: World) -> None:
    outer, inner = reported(world), reported(world)
    call = outer.call(BODY, stream=False, url="")
    call.begin()
    with call.inside():
        nested = inner.call(BODY, stream=False, url="")
        nested.begin()
        nested.report(["hi"], USED, "m", {}, complete=True)
        nested.finish()
    call.finish()
    assert (len(world.reserved), world.commits) == (1, [(EXACT, {})])


def test_a_model_on_a_free_host_and_behind_the_proxy(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    call = reported(world, free_hosts=["localhost"]).call(BODY, stream=False, url="http://localhost:1")
    assert call.reserved == cycles.usd(0)
    monkeypatch.setenv("CYCLES_PROXY_URL", "http://localhost:1")
    assert reported(world).call(BODY, stream=False, url="http://localhost:1") is None
    assert reported(world).call(BODY, stream=False, url="http://localhost:2") is not None


def test_the_bound_of_a_request_is_that_of_its_kind(world: World) -> None:
    model = reported(world)
    text = model.bound(BODY, embeds=False)
    assert text == model.call(BODY, stream=False, url="").reserved
    assert model.bound({"model": "m", "input": "hi"}, embeds=True).amount < 10_000 < 500_000 < text.amount


def test_a_framework_gets_the_error_of_a_reservation_that_fails(world: World) -> None:
    errors: list[BaseException] = []
    options = {"client": world.client, "prices": BOOK, "min_output_tokens": None, "wait": 0}
    model: Any = providers.reported_model("openai", options, errors.append)
    with pytest.raises(cycles.BudgetExceededError) as raised:
        model.call({**BODY, "max_tokens": 10**6}, stream=False, url="").begin()
    assert errors == [raised.value]
