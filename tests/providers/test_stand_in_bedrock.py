"""Hooks of boto3, with a stand-in of its client that sends nothing over a socket.

The SDK itself is in `make test-providers`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

import cycles
from cycles import providers
from cycles.testing import _bedrock
from cycles.testing._reply import Reply
from tests.integrations.stand_ins import noted
from tests.providers.conftest import BOOK, EXACT, USED
from tests.support.requests import Requests

URL = "https://bedrock-runtime.us-east-1.amazonaws.com"
HI: list[Any] = [{"role": "user", "content": [{"text": "hi"}]}]
CONVERSE: dict[str, Any] = {"modelId": "m", "messages": HI, "inferenceConfig": {"maxTokens": 500}}
CLAUDE: dict[str, Any] = {"max_tokens": 500, "messages": HI}
ESTIMATED = {"actual_source": "estimate"}
OPERATIONS = {
    "Converse": ("/model/{modelId}/converse", False),
    "ConverseStream": ("/model/{modelId}/converse-stream", True),
    "InvokeModel": ("/model/{modelId}/invoke", False),
    "InvokeModelWithResponseStream": ("/model/{modelId}/invoke-with-response-stream", True),
    "CountTokens": ("/model/{modelId}/count-tokens", False),
    "ApplyGuardrail": ("/guardrail/{guardrailIdentifier}/version/{guardrailVersion}/apply", False),
}


class LostError(Exception):
    """A connection that broke after the request was sent."""


class ClientError(Exception):
    """An error status; botocore's class has the response too."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}}


class EndpointConnectionError(Exception):
    """A connection that was not made; botocore has a class of this name."""


class Raw:
    """The body of a response, as urllib3 has it."""

    connection = None

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces
        self.closed = 0

    def stream(self) -> Iterator[bytes]:
        yield from self.pieces

    def read(self) -> bytes:
        found, self.pieces = b"".join(self.pieces), []
        return found

    def close(self) -> None:
        self.closed += 1


class Endpoint:
    """Has the shape of botocore's endpoint. Each request gets the next outcome; the last one stays."""

    def __init__(self) -> None:
        self.outcomes: list[Exception | int | Reply] = [Reply(text="one two three", usage=USED)]
        self.sent: list[SimpleNamespace] = []
        self.raws: list[Raw] = []
        self.stream_headers: dict[str, str] = {}
        self.more_headers: dict[str, str] = {}

    def create_request(self, params: Mapping[str, Any], operation: Any = None) -> SimpleNamespace:
        return SimpleNamespace(**params, stream_output=operation.has_streaming_output)

    def _send(self, request: SimpleNamespace) -> Any:
        self.sent.append(request)
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, Exception):
            raise outcome
        if isinstance(outcome, int):
            return SimpleNamespace(status_code=outcome, headers={}, content=b"{}", raw=Raw([b"{}"]))
        body = json.loads(request.body)
        if request.is_stream:
            pieces, headers = list(_bedrock.events(request.path, body, outcome)), self.stream_headers
        else:
            pieces = [json.dumps(_bedrock.body(request.path, body, outcome)).encode()]
            headers = {**_bedrock.headers(request.path, body, outcome), **self.more_headers}
        raw = Raw(pieces)
        self.raws.append(raw)
        content = b"" if request.stream_output else raw.read()
        return SimpleNamespace(status_code=200, headers=headers, content=content, raw=raw)


class BedrockRuntime:
    """Has the shape of boto3's client, which sends up to three attempts."""

    def __init__(self) -> None:
        self._endpoint = Endpoint()
        model = SimpleNamespace(operation_model=self.operation)
        self.meta = SimpleNamespace(service_model=model, endpoint_url=URL)

    @staticmethod
    def operation(name: str) -> Any:
        uri, streams = OPERATIONS[name]
        reads_later = streams or name == "InvokeModel"
        http = {"requestUri": uri, "method": "POST"}
        return SimpleNamespace(http=http, has_event_stream_output=streams, has_streaming_output=reads_later)

    def _make_api_call(self, name: str, params: Mapping[str, Any]) -> Any:
        operation = self.operation(name)
        path = operation.http["requestUri"].format(**params)
        is_json = "body" not in params
        members = {key: value for key, value in params.items() if key != "modelId"}
        body = json.dumps(members).encode() if is_json else params["body"]
        wanted = {"path": path, "body": body, "is_stream": operation.has_event_stream_output}
        failure: Exception | None = None
        for _ in range(3):
            request = self._endpoint.create_request(wanted, operation)
            try:
                response = self._endpoint._send(request)
            except Exception as error:
                failure = error
                continue
            if response.status_code == 503:
                continue
            if response.status_code >= 300:
                raise ClientError(response.status_code)
            return response.raw if operation.has_streaming_output else json.loads(response.content)
        raise failure or ClientError(503)

    def call(self, name: str, **params: Any) -> Any:
        return self._make_api_call(name, params)


BedrockRuntime.__module__ = "botocore.client"


class World(Requests):
    def __init__(self, client: cycles.Cycles, server: cycles.EmbeddedServer) -> None:
        self.client = client
        self.server = server
        self.original = BedrockRuntime()
        self.llm: Any = None
        self.guard()

    def guard(self, **options: Any) -> None:
        self.llm = providers.guard(self.original, **{"client": self.client, "prices": BOOK, **options})

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint that sends for the guarded client."""
        found: Endpoint = vars(self.llm)["_endpoint"]
        return found

    @property
    def bodies(self) -> list[Any]:
        """The body of each attempt."""
        return [json.loads(request.body) for request in self.endpoint.sent]

    def reserved_for(self, params: dict[str, Any]) -> int:
        """What one such call reserves; nothing of it stays in the ledger or the log."""
        outcomes, self.endpoint.outcomes = self.endpoint.outcomes, [400]
        with pytest.raises(ClientError):
            self.llm.call("Converse", **params)
        self.endpoint.outcomes = outcomes
        [reserved] = self.reserved
        self.server.requests.clear()
        self.endpoint.sent.clear()
        return reserved

    @property
    def is_idle(self) -> bool:
        return self.server.ledger.active_reservations() == []


@pytest.fixture
def world() -> Iterator[World]:
    with cycles.EmbeddedServer({"tenant:acme": cycles.usd(10)}) as server:
        client = server.client(tenant="acme", journal=False)
        yield World(client, server)
        client.close()


def test_a_whole_response_is_charged_before_it_is_returned(world: World) -> None:
    found = world.llm.call("Converse", **CONVERSE)
    assert found["usage"]["inputTokens"] == 1000
    assert (world.commits, world.is_idle) == ([(EXACT, {})], True)
    assert world.bodies == [{"messages": HI, "inferenceConfig": {"maxTokens": 500}}]


def test_a_stream_is_charged_at_its_end(world: World) -> None:
    body = world.llm.call("ConverseStream", **CONVERSE)
    assert world.commits == []
    assert b"".join(body.stream()) == b"".join(world.endpoint.raws[0].pieces)
    assert (world.commits, world.is_idle) == ([(EXACT, {})], True)


def test_a_stream_that_is_closed_is_charged_by_what_it_made_and_closes_its_connection(world: World) -> None:
    body = world.llm.call("ConverseStream", **CONVERSE)
    stream = body.stream()
    next(stream)
    body.close()
    [(amount, metadata)] = world.commits
    assert (0 < amount < EXACT, metadata) == (True, {"outcome": "closed", **ESTIMATED})
    assert (world.endpoint.raws[0].closed, world.is_idle) == (1, True)
    assert body.connection is None, "other members are those of the body"


def test_a_stream_that_is_dropped_closes_its_connection_and_is_charged(world: World) -> None:
    from tests.providers.conftest import collect
    from tests.support.waiting import until

    raw = (body := world.llm.call("ConverseStream", **CONVERSE)) and world.endpoint.raws[0]
    next(stream := body.stream())
    del body, stream
    collect()
    until(lambda: bool(world.commits) and world.is_idle)
    assert raw.closed == 1
    assert world.commits[0][1] == {"outcome": "closed", **ESTIMATED}


def test_an_error_inside_of_a_stream(world: World) -> None:
    world.endpoint.outcomes = [Reply(text="one two three", usage=USED)]
    body = world.llm.call("ConverseStream", **CONVERSE)
    raw = world.endpoint.raws[0]
    raw.pieces = [*raw.pieces[:2], _bedrock.error_event("", Reply(status=500, error="overloaded"))]
    list(body.stream())
    assert world.commits[0][1] == {"outcome": "error", **ESTIMATED}


@pytest.mark.parametrize(
    ("name", "model", "body", "sent"),
    [
        ("Converse", "m", None, {"messages": HI, "inferenceConfig": {"maxTokens": 60}}),
        ("InvokeModel", "anthropic.claude-m", CLAUDE, {**CLAUDE, "max_tokens": 60}),
        ("InvokeModel", "us.meta.llama-m", {"prompt": "hi"}, {"prompt": "hi", "max_gen_len": 60}),
    ],
)
def test_the_output_limit_is_lowered_in_a_copy(world: World, name: str, model: str, body: Any, sent: Any) -> None:
    world.guard(max_output_tokens=60, prices=cycles.PriceBook({model: cycles.Price("1", "10")}))
    given = CONVERSE if body is None else {"modelId": model, "body": json.dumps(body).encode()}
    before = json.dumps({key: str(value) for key, value in given.items()})
    world.llm.call(name, **given)
    assert world.bodies == [sent]
    assert json.dumps({key: str(value) for key, value in given.items()}) == before


def test_a_body_that_can_be_read_once_is_priced_and_sent(world: World) -> None:
    import io

    world.guard(prices=cycles.PriceBook({"anthropic.claude-m": cycles.Price("1", "10")}))
    content = json.dumps(CLAUDE).encode()
    response = world.llm.call("InvokeModel", modelId="anthropic.claude-m", body=io.BytesIO(content))
    assert json.loads(response.read())["usage"]["input_tokens"] == 1000
    assert [amount for amount, _ in world.commits] == [EXACT]
    assert world.bodies == [CLAUDE]


def test_the_counts_of_an_invoked_model_are_in_its_headers(world: World) -> None:
    world.guard(prices=cycles.PriceBook({"meta.llama-m": cycles.Price("1", "10")}))
    response = world.llm.call("InvokeModel", modelId="meta.llama-m", body=b'{"prompt": "hi"}')
    assert "generation" in json.loads(response.read())
    assert world.commits == [(EXACT, {})]


def test_the_tier_of_a_stream_is_in_its_headers(world: World) -> None:
    world.guard(estimate=lambda request: cycles.usd(1), actual=lambda usage: cycles.usd("0.5"))
    world.endpoint.stream_headers = {"x-amzn-bedrock-service-tier": "flex"}
    body = json.dumps(CLAUDE)
    stream = world.llm.call("InvokeModelWithResponseStream", modelId="anthropic.claude-m", body=body)
    assert b"".join(stream.stream())
    [(_, metadata)] = world.commits
    assert metadata["service_tier"] == "flex"


@pytest.mark.parametrize(
    ("outcomes", "commits", "releases"),
    [
        ([503, 503, Reply(usage=USED)], [(EXACT, {})], 0),
        ([EndpointConnectionError(), Reply(usage=USED)], [(EXACT, {})], 0),
        ([400], [], 1),
        ([300], [], 1),
        ([EndpointConnectionError()], [], 1),
    ],
    ids=["unavailable twice", "not connected, then a response", "rejected", "redirected", "never connected"],
)
def test_attempts_that_cost_nothing_share_one_reservation(
    world: World, outcomes: list[Any], commits: Any, releases: int
) -> None:
    world.endpoint.outcomes = outcomes
    failed = isinstance(outcomes[-1], int | Exception)
    if failed:
        with pytest.raises((ClientError, EndpointConnectionError)):
            world.llm.call("Converse", **CONVERSE)
    else:
        world.llm.call("Converse", **CONVERSE)
    assert (world.commits, len(world.releases), len(world.reserved)) == (commits, releases, 1)
    assert world.is_idle


@pytest.mark.parametrize("between", [[], [503]], ids=["at once", "after one with a status"])
def test_an_attempt_without_a_status_is_charged_and_the_next_one_is_reserved(world: World, between: list[int]) -> None:
    world.endpoint.outcomes = [LostError(), *between, Reply(usage=USED)]
    world.llm.call("Converse", **CONVERSE)
    assert len(world.reserved) == 2
    [lost, answered] = world.commits
    assert lost == (world.reserved[0], {**ESTIMATED, "attempts": 1, "outcome": "error"})
    assert answered == (EXACT, {})
    assert len(world.bodies) == 2 + len(between)
    assert world.is_idle


def test_the_attempt_after_a_lost_one_has_the_limit_that_it_has_reserved(world: World) -> None:
    """The lost attempt leaves budget for a shorter response only."""
    world.guard(min_output_tokens=10, wait=0)
    whole = world.reserved_for(CONVERSE)
    world.server.ledger.set_allocated("tenant:acme", cycles.Amount("USD_MICROCENTS", whole + whole // 2))
    world.endpoint.outcomes = [LostError(), Reply(usage={"tokens_input": 10, "tokens_output": 5})]
    world.llm.call("Converse", **CONVERSE)
    [first, second] = [body["inferenceConfig"]["maxTokens"] for body in world.bodies]
    assert (first, 10 <= second < 500) == (500, True)
    assert world.reserved[-1] <= whole // 2


def test_a_lost_attempt_whose_next_one_is_denied_sends_nothing_more(world: World) -> None:
    world.guard(min_output_tokens=None, wait=0)
    whole = world.reserved_for(CONVERSE)
    world.server.ledger.set_allocated("tenant:acme", cycles.Amount("USD_MICROCENTS", whole + 1))
    world.endpoint.outcomes = [LostError()]
    with pytest.raises(cycles.BudgetExceededError):
        world.llm.call("Converse", **CONVERSE)
    assert (len(world.endpoint.sent), world.is_idle) == (1, True)


def test_a_denied_call_is_not_sent(world: World) -> None:
    world.guard(wait=0, min_output_tokens=None)
    world.server.ledger.set_allocated("tenant:acme", cycles.usd(0))
    with pytest.raises(cycles.BudgetExceededError):
        world.llm.call("Converse", **CONVERSE)
    assert world.endpoint.sent == []


def test_operations_that_are_free_pass_and_others_are_rejected(world: World) -> None:
    assert "inputTokens" in world.llm.call("CountTokens", modelId="m", input={})
    with pytest.raises(cycles.InvalidRequestError, match="cannot be metered"):
        world.llm.call("ApplyGuardrail", guardrailIdentifier="g", guardrailVersion="1", source="INPUT")
    assert (world.reserved, len(world.endpoint.sent)) == ([], 1)


def test_what_has_a_price_beside_the_body_is_seen(world: World) -> None:
    """A tier and a guardrail of InvokeModel are headers."""
    seen: list[Any] = []
    world.guard(estimate=noted(seen, cycles.usd(1)), actual=lambda usage: cycles.usd("0.5"))
    body = json.dumps(CLAUDE)
    world.llm.call("InvokeModel", modelId="anthropic.claude-m", body=body, serviceTier="flex", guardrailIdentifier="g")
    [request] = seen
    assert dict(request.body) == {
        **CLAUDE,
        "serviceTier": "flex",
        "guardrailIdentifier": "g",
        "model": "anthropic.claude-m",
    }
    assert (request.model, request.provider, request.stream) == ("anthropic.claude-m", "bedrock", False)


def test_the_original_client_stays_as_it_is(world: World) -> None:
    before = type(world.original), vars(world.original)["_endpoint"]
    world.llm.call("Converse", **CONVERSE)
    world.original.call("Converse", **CONVERSE)
    assert (type(world.original), vars(world.original)["_endpoint"]) == before
    assert type(before[1]) is Endpoint
    assert len(world.commits) == 1


def test_two_clients_in_one_call_are_each_charged_once(world: World) -> None:
    """A hook of one client is called while the other one sends: each sees its own exchange only."""
    other = providers.guard(BedrockRuntime(), client=world.client, prices=BOOK)
    create: Callable[..., Any] = world.endpoint.create_request

    def nested(*args: Any) -> Any:
        other.call("Converse", **CONVERSE)
        return create(*args)

    world.endpoint.__dict__["create_request"] = nested
    world.llm.call("Converse", **CONVERSE)
    assert world.commits == [(EXACT, {})] * 2


@pytest.mark.parametrize("missing", ["_make_api_call", "_endpoint", "create_request", "_send"])
def test_a_client_without_a_hook_is_an_error(world: World, missing: str) -> None:
    class Other(Endpoint):
        pass

    llm: Any = BedrockRuntime()
    vars(llm)["_endpoint"] = None if missing == "_endpoint" else Other()
    if missing in ("create_request", "_send"):
        setattr(Other, missing, None)
    if missing == "_make_api_call":
        vars(llm)["_make_api_call"] = None
    with pytest.raises(cycles.ConfigurationError, match=missing):
        providers.guard(llm, client=world.client, prices=BOOK)


@pytest.mark.parametrize(
    ("headers", "microcents"),
    [
        ({}, 10 * 100 + 5 * 1000),
        ({"input": "1000", "output": "100"}, EXACT),
        ({"input": "1000", "output": "100", "cache-read-input": "1000"}, EXACT + 1000 * 10),
        ({"input": "1000", "output": "100", "cache-write-input": "8"}, EXACT + 8 * 100),
        ({"input": "x", "output": "100"}, None),
        ({"input": "-5", "output": "100"}, None),
    ],
)
def test_the_counts_in_the_headers_of_a_response(world: World, headers: dict[str, str], microcents: int | None) -> None:
    price = cycles.Price("1", "10", cached_input="0.1", cache_write="1")
    world.guard(prices=cycles.PriceBook({"meta.llama-m": price}))
    world.endpoint.outcomes = [Reply(text="abc", usage={"tokens_input": 10, "tokens_output": 5})]
    world.endpoint.more_headers = {f"x-amzn-bedrock-{name}-token-count": count for name, count in headers.items()}
    world.llm.call("InvokeModel", modelId="meta.llama-m", body=b'{"prompt": "hi"}').read()
    [(amount, metadata)] = world.commits
    assert metadata == (ESTIMATED if microcents is None else {})
    assert (amount == microcents) is (microcents is not None)


def test_a_call_leaves_nothing_behind_for_the_next_one(world: World) -> None:
    """An operation that costs nothing is not part of the call before it, also if that was a stream or was lost."""
    world.llm.call("ConverseStream", **CONVERSE).close()
    assert "inputTokens" in world.llm.call("CountTokens", modelId="m", input={})
    world.endpoint.outcomes = [LostError(), LostError(), LostError(), Reply(usage=USED)]
    with pytest.raises(LostError):
        world.llm.call("Converse", **CONVERSE)
    before = len(world.reserved)
    assert "inputTokens" in world.llm.call("CountTokens", modelId="m", input={})
    assert (len(world.reserved), world.is_idle) == (before, True)


def test_a_lost_attempt_of_an_embedding_is_sent_again_unchanged(world: World) -> None:
    world.guard(prices=cycles.PriceBook({"cohere.embed-x": cycles.Price("1", "10")}))
    world.endpoint.outcomes = [LostError(), Reply(usage=USED)]
    body = json.dumps({"texts": ["a"], "max_tokens": 9})
    world.llm.call("InvokeModel", modelId="cohere.embed-x", body=body)
    assert [request.body for request in world.endpoint.sent] == [body, body]
    assert len(world.reserved) == 2


@pytest.mark.parametrize("body", ["[1]", b"no json", bytearray(b'{"prompt": "hi"}')])
def test_a_body_of_another_kind_is_sent_unchanged(world: World, body: Any) -> None:
    seen: list[Any] = []
    world.guard(estimate=noted(seen, cycles.usd(1)), actual=lambda usage: cycles.usd("0.5"))
    world.endpoint.outcomes = [400]
    with pytest.raises(ClientError):
        world.llm.call("InvokeModel", modelId="meta.llama-m", body=body)
    assert [request.body for request in world.endpoint.sent] == [body]
    members = {"prompt": "hi"} if isinstance(body, bytearray) else {}
    assert [dict(request.body) for request in seen] == [{**members, "model": "meta.llama-m"}]


def test_the_guarded_classes_look_like_those_of_the_sdk(world: World) -> None:
    for guarded, original in ((world.llm, BedrockRuntime), (world.endpoint, Endpoint)):
        cls = type(guarded)
        assert (cls.__name__, cls.__module__, cls.__doc__) == (original.__name__, original.__module__, original.__doc__)
        assert cls is not original
        assert issubclass(cls, original)


def test_the_error_for_a_client_without_a_hook_names_each_and_the_version_to_install(world: World) -> None:
    llm: Any = BedrockRuntime()
    vars(llm)["_endpoint"] = SimpleNamespace()
    with pytest.raises(cycles.ConfigurationError) as raised:
        providers.guard(llm, client=world.client, prices=BOOK)
    assert "cannot be guarded: BedrockRuntime has no create_request, _send; install a version that " in str(
        raised.value
    )
    assert str(raised.value).startswith("botocore ")


def test_the_uri_of_an_operation_may_have_a_query_and_long_names(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPERATIONS, "Converse", ("/model/{modelId}/converse?v={modelId}", False))
    world.endpoint.outcomes = [400]
    with pytest.raises(ClientError):
        world.llm.call("Converse", **CONVERSE)
    assert len(world.reserved) == 1


def test_a_parameter_that_is_missing_stays_a_placeholder_in_the_path(world: World) -> None:
    seen: list[Any] = []
    world.guard(estimate=noted(seen, cycles.usd(1)), actual=lambda usage: cycles.usd("0.5"))
    with pytest.raises(KeyError, match="modelId"):
        world.llm.call("Converse", messages=HI)
    assert [(request.path, request.model) for request in seen] == [("/model/{modelId}/converse", None)]
    assert (world.endpoint.sent, world.is_idle, len(world.releases)) == ([], True, 1)
