"""Guarded clients of boto3 for Amazon Bedrock: sums, retries, operations without a meter, and what the client keeps."""

from __future__ import annotations

import inspect
import io
import json
import threading
from datetime import UTC, datetime
from typing import Any

import pytest

import cycles
from tests.providers.conftest import BOOK, EXACT, USED, Bedrock, Desk
from tests.providers.test_guard_lost import with_retries

boto3: Any = pytest.importorskip("boto3")
stubs: Any = pytest.importorskip("botocore.stub")

SONNET = "anthropic.claude-sonnet-4-5-20250929-v1:0"
PROFILES = "arn:aws:bedrock:us-east-1:123456789012:inference-profile"
CACHED = {"tokens_input": 3400, "tokens_cached_input": 2000, "tokens_cache_write": 400, "tokens_output": 100}
HI: Any = [{"role": "user", "content": [{"text": "hi"}]}]
LIMIT = {"maxTokens": 500}


def prices(**options: Any) -> cycles.PriceBook:
    pytest.importorskip("genai_prices")
    return cycles.PriceBook.genai(at=datetime(2026, 11, 1, tzinfo=UTC), **options)


@pytest.fixture
def retrying(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A guarded client that makes three attempts, without a pause between them."""
    return with_retries(Bedrock(desk), monkeypatch).llm


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("model", "written_1h", "microcents"),
    [
        (f"us.{SONNET}", 0, 726_000),
        (f"global.{SONNET}", 0, 660_000),
        (f"{PROFILES}/us.{SONNET}", 0, 726_000),
        (f"us.{SONNET}", 300, 800_250),
    ],
    ids=["us", "global", "arn of a profile", "written for an hour"],
)
def test_sums(desk: Desk, streamed: bool, model: str, written_1h: int, microcents: int) -> None:
    sdk = Bedrock(desk, prices=prices())
    desk.provider.reply(usage={**CACHED, "tokens_cache_write_1h": written_1h})
    options = {"modelId": model, "messages": HI, "inferenceConfig": LIMIT}
    if streamed:
        list(sdk.llm.converse_stream(**options)["stream"])
    else:
        sdk.llm.converse(**options)
    assert desk.commits == [(microcents, {})]


def test_cache_points_raise_the_bound() -> None:
    def bound(*content: dict[str, Any]) -> int:
        messages = [{"role": "user", "content": [{"text": "hi"}, *content]}]
        book = prices(provider="aws")
        return book.estimate(f"us.{SONNET}", messages, max_output_tokens=0, tokens_input=1_000_000).amount

    assert bound() == 200_000 * 330, "the context window"
    assert bound({"cachePoint": {"type": "default"}}) == 200_000 * 412.5
    assert bound({"cachePoint": {"type": "default", "ttl": "1h"}}) == 200_000 * 660


def test_a_profile_of_an_application_needs_an_alias(desk: Desk) -> None:
    arn = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2"
    with pytest.raises(cycles.UnknownModelError, match="aliases="):
        Bedrock(desk, prices=prices()).complete(model=arn)
    assert (desk.provider.requests, desk.reserved) == ([], [])
    for name in (arn, "a1b2"):
        desk.provider.reply(usage=CACHED)
        Bedrock(desk, prices=prices(aliases={name: f"global.{SONNET}"})).complete(model=arn)
    assert desk.commits == [(660_000, {})] * 2


def body_of(model: str) -> dict[str, Any]:
    if "anthropic" in model:
        return {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 500, "messages": HI}
    return {"prompt": "hi"}


def invoke(llm: Any, model: str, body: Any, *, streamed: bool = False) -> Any:
    """Invoke a model, and return its response, or the number of its events."""
    if not streamed:
        return json.loads(llm.invoke_model(modelId=model, body=body)["body"].read())
    return len(list(llm.invoke_model_with_response_stream(modelId=model, body=body)["body"]))


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("model", "usage", "microcents"),
    [
        (f"us.{SONNET}", CACHED, 726_000),
        (f"global.{SONNET}", CACHED, 660_000),
        (f"{PROFILES}/us.{SONNET}", CACHED, 726_000),
        ("us.meta.llama3-3-70b-instruct-v1:0", USED, 1_000 * 72 + 100 * 72),
    ],
    ids=["us", "global", "arn of a profile", "llama"],
)
def test_sums_of_invoked_models(desk: Desk, streamed: bool, model: str, usage: Any, microcents: int) -> None:
    desk.provider.reply(text="one two", usage=usage)
    assert invoke(Bedrock(desk, prices=prices()).llm, model, json.dumps(body_of(model)), streamed=streamed)
    ((amount, metadata),) = desk.commits
    assert amount == microcents
    assert "actual_source" not in metadata
    assert desk.reserved[0] >= amount


def test_embeddings_of_an_invoked_model(desk: Desk) -> None:
    desk.provider.reply(usage={"tokens_input": 1_000})
    model = "amazon.titan-embed-text-v2:0"
    assert invoke(Bedrock(desk, prices=prices()).llm, model, b'{"inputText": "hi"}') == {"embedding": [0.1, 0.2]}
    assert (desk.commits, desk.provider.requests[0].body) == ([(2_000, {})], {"inputText": "hi"})


@pytest.mark.parametrize(
    "make", [str, str.encode, lambda text: io.BytesIO(text.encode())], ids=["str", "bytes", "file"]
)
@pytest.mark.parametrize(
    ("model", "limit", "sent"),
    [
        (SONNET, {"max_tokens": 900}, {"max_tokens": 60}),
        ("meta.llama3-3-70b-instruct-v1:0", {"max_gen_len": 900}, {"max_gen_len": 60}),
        ("amazon.nova-pro-v1:0", {"inferenceConfig": {"maxTokens": 900, "topK": 5}}, {"maxTokens": 60, "topK": 5}),
        ("openai.gpt-oss-20b-1:0", {}, {"max_completion_tokens": 60}),
    ],
    ids=["claude", "llama", "nova", "openai"],
)
def test_the_limit_of_a_family_is_lowered(desk: Desk, make: Any, model: str, limit: Any, sent: Any) -> None:
    llm = Bedrock(desk, prices=prices(), max_output_tokens=60).llm
    invoke(llm, model, make(json.dumps({"prompt": "hi", **limit})))
    received = desk.provider.requests[0].body
    assert {**received, **received.get("inferenceConfig", {})}.items() >= {"prompt": "hi", **sent}.items()
    assert desk.provider.requests[0].headers["authorization"].startswith("AWS4-HMAC-SHA256 ")


def test_a_body_of_an_invoked_model_is_read_when_it_is_returned(desk: Desk) -> None:
    desk.provider.reply(text="x" * 300, usage=USED)
    answer = Bedrock(desk, prices=cycles.PriceBook({"mistral.m": ("1", "10")})).llm.invoke_model(
        modelId="mistral.m", body='{"prompt": "hi"}'
    )
    assert desk.commits == [(EXACT, {})]
    body = answer["body"]
    assert body.read(2) == b'{"'
    assert json.loads(b'{"' + body.read())["generation"] == "x" * 300


def test_an_invoked_model_is_retried_as_a_call_of_its_own(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    book = cycles.PriceBook({"mistral.m": ("1", "10")})
    llm = with_retries(Bedrock(desk), monkeypatch, prices=book, max_output_tokens=500).llm
    desk.provider.reply(drop_after=0).reply(usage=USED)
    invoke(llm, "mistral.m", '{"prompt": "hi"}')
    assert [amount for amount, _ in desk.commits] == [desk.reserved[0], EXACT]
    assert [request.body for request in desk.provider.requests] == [{"prompt": "hi", "max_tokens": 500}] * 2


def test_operations_that_cannot_be_metered_are_rejected(desk: Desk) -> None:
    llm = Bedrock(desk).llm
    for model in ("stability.stable-image-core-v1:0", "amazon.nova-canvas-v1:0", f"{PROFILES}/a1b2c3"):
        with pytest.raises(cycles.InvalidRequestError, match=r"/invoke .* unmetered='estimate'"):
            invoke(llm, model, "{}")
    with pytest.raises(cycles.InvalidRequestError, match=r"/guardrail/g/version/1/apply .* unmetered='estimate'"):
        llm.apply_guardrail(guardrailIdentifier="g", guardrailVersion="1", source="INPUT", content=[])
    if hasattr(llm, "start_async_invoke"):
        with pytest.raises(cycles.InvalidRequestError, match=r"/async-invoke .* unmetered="):
            llm.start_async_invoke(modelId="amazon.nova-reel-v1:0", modelInput={}, outputDataConfig={})
    assert (desk.provider.requests, desk.reserved) == ([], [])


def test_counting_tokens_is_free(desk: Desk) -> None:
    llm = Bedrock(desk).llm
    if not hasattr(llm, "count_tokens"):
        pytest.skip("this version of boto3 has no such operation")
    assert llm.count_tokens(modelId=SONNET, input={"converse": {"messages": HI}})["inputTokens"] > 0
    assert desk.reserved == []


def test_attempts_with_a_status_share_one_reservation(desk: Desk, retrying: Any) -> None:
    desk.provider.reply(status=503).reply(status=429).reply(usage=USED)
    retrying.converse(modelId="m", messages=HI)
    assert (desk.provider.count(), len(desk.reserved), desk.commits) == (3, 1, [(EXACT, {})])


def test_the_errors_of_the_provider_are_those_of_boto3(desk: Desk, retrying: Any) -> None:
    llm = retrying
    desk.provider.reply(status=429, times=3, headers={"x-amzn-errortype": "ThrottlingException"})
    with pytest.raises(llm.exceptions.ThrottlingException):
        llm.converse(modelId="m", messages=HI)
    assert desk.releases == ["provider_call_failed:ThrottlingException"]


def test_wrong_parameters_are_an_error_of_boto3_and_released(desk: Desk) -> None:
    sdk = Bedrock(desk)
    with pytest.raises(Exception, match="Unknown parameter"):
        sdk.complete(size=7)
    assert desk.releases == ["provider_call_failed:ParamValidationError"]


def test_the_client_and_its_events_are_not_changed(desk: Desk) -> None:
    sdk = Bedrock(desk)
    original, llm, seen = sdk.original, sdk.llm, list[str]()
    assert type(llm) is not type(original)
    assert isinstance(llm, type(original))
    assert llm.meta is original.meta
    llm.meta.events.register("before-send.bedrock-runtime.Converse", lambda request, **_: seen.append(request.url))
    desk.provider.reply(usage=USED).reply(usage=USED)
    original.converse(modelId="m", messages=HI)
    assert desk.reserved == []
    llm.converse(modelId="m", messages=HI)
    assert (len(seen), desk.commits) == (2, [(EXACT, {})])
    assert all(request.headers["authorization"].startswith("AWS4-HMAC-SHA256 ") for request in desk.provider.requests)


def test_a_stubbed_response_costs_nothing(desk: Desk) -> None:
    sdk = Bedrock(desk)
    message = {"role": "assistant", "content": [{"text": "hi"}]}
    usage = {"inputTokens": 1, "outputTokens": 1, "totalTokens": 2}
    stubbed = {"output": {"message": message}, "stopReason": "end_turn", "usage": usage, "metrics": {"latencyMs": 1}}
    with stubs.Stubber(sdk.llm) as stubber:
        stubber.add_response("converse", stubbed)
        assert sdk.complete()["output"]["message"] == message
    assert (desk.releases, desk.provider.requests) == (["provider_not_called"], [])


def test_a_stream_left_after_its_stop_reason_is_exact(desk: Desk) -> None:
    sdk = Bedrock(desk)
    desk.provider.reply(text="one two", usage=USED)
    stream = sdk.stream()
    for event in stream:
        if "messageStop" in event:
            stream.close()
            break
    assert desk.commits == [(EXACT, {})]


def test_arguments_of_tools_and_reasoning_count_as_output_of_a_stream_that_is_left(desk: Desk) -> None:
    sdk = Bedrock(desk)
    call = cycles.testing.ToolCall("search", {"query": "q" * 600})
    desk.provider.reply(text="", reasoning="r" * 300, tool_calls=[call], usage=USED)
    stream = sdk.stream()
    for event in stream:
        if "toolUse" in event.get("contentBlockDelta", {}).get("delta", {}):
            stream.close()
            break
    ((amount, metadata),) = desk.commits
    assert metadata["actual_source"] == "estimate"
    assert amount > 300 * 1000


def test_a_thinking_budget_is_not_lowered(desk: Desk) -> None:
    sdk = Bedrock(desk, max_output_tokens=1_000)
    thinking = {"thinking": {"type": "enabled", "budget_tokens": 1_500}}
    with pytest.raises(cycles.InvalidRequestError, match=r"thinking\.budget_tokens=1500"):
        sdk.complete(inferenceConfig={"maxTokens": 2_000}, additionalModelRequestFields=thinking)
    assert (desk.provider.requests, desk.held) == ([], 0)


def test_a_conversation_is_bounded_by_what_was_counted(desk: Desk) -> None:
    sdk = Bedrock(desk)
    long: Any = [{"role": "user", "content": [{"text": "word " * 2_000}]}]
    for size, message in ((500, {"role": "assistant", "content": [{"text": "ok"}]}), (400, HI[0])):
        desk.provider.reply(usage={"tokens_input": 2_100, "tokens_output": 5})
        sdk.llm.converse(modelId="m", messages=list(long), inferenceConfig={"maxTokens": size})
        long.append(message)
    first, second = desk.reserved
    assert second < first - 5_000 * 100, "the second request begins like the first"


def test_a_missing_hook_is_an_error_and_no_unguarded_client(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Bedrock(desk).original
    monkeypatch.setattr(type(original._endpoint), "_send", None)
    with pytest.raises(cycles.ConfigurationError, match=r"botocore \d.*has no _send"):
        desk.guard(original)


def test_clients_of_other_services_are_rejected(desk: Desk) -> None:
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
    with pytest.raises(cycles.InvalidRequestError, match=r"must be a client of .*bedrock.* got botocore\.client\.S3"):
        desk.guard(boto3.client("s3", **keys))


def test_budgets_in_tokens_count_what_was_read_from_the_cache(desk: Desk) -> None:
    sdk = Bedrock(desk, prices=None, unit="TOKENS")
    desk.provider.reply(usage=CACHED)
    sdk.complete(model="nobody-knows")
    assert desk.commits == [(3_500, {})]
    assert BOOK.has("m")


def anthropic_client(desk: Desk, name: str) -> Any:
    """Return an unguarded client of Anthropic's package for Bedrock."""
    anthropic: Any = pytest.importorskip("anthropic")
    cls = getattr(anthropic, name, None) or getattr(pytest.importorskip("anthropic.lib.bedrock"), name, None)
    if cls is None:
        pytest.skip(f"this version of anthropic has no {name}")
    url = desk.provider.url_of("anthropic" if "Mantle" in name else "bedrock")
    keys = {"aws_region": "us-east-1", "aws_access_key": "a", "aws_secret_key": "b"}
    made = cls(base_url=url, max_retries=0, **keys)
    desk.originals.append(made)
    return made


CLIENTS = ("AnthropicBedrock", "AsyncAnthropicBedrock", "AnthropicBedrockMantle", "AsyncAnthropicBedrockMantle")


async def read_to(stream: Any, last: str) -> None:
    """Read a stream up to an event of this type, and close it."""
    async for event in stream:
        if event.type == last:
            break
    await stream.close()


def create(desk: Desk, llm: Any, model: str, *, until: str = "", **more: Any) -> Any:
    """Send a message; read its stream, if it is one, up to an event of type `until`."""
    answer = llm.messages.create(model=model, max_tokens=500, messages=[{"role": "user", "content": "hi"}], **more)
    if inspect.isawaitable(answer):
        answer = desk.runner.run(_awaited(answer))
        if until:
            desk.runner.run(read_to(answer, until))
    elif until:
        next(event for event in answer if event.type == until)
        answer.close()
    return answer


async def _awaited(value: Any) -> Any:
    return await value


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("name", CLIENTS)
def test_sums_of_clients_of_anthropic(desk: Desk, name: str, streamed: bool) -> None:
    llm = desk.guard(anthropic_client(desk, name), prices=prices())
    for model, microcents in ((f"us.{SONNET}", 726_000), (f"global.{SONNET}", 660_000)):
        desk.provider.reply(text="one two", usage=CACHED, model="claude-sonnet-4-5-20250929")
        options: dict[str, Any] = {"stream": True, "until": "message_stop"} if streamed else {}
        create(desk, llm, model, **options)
        amount, metadata = desk.commits[-1]
        assert amount == microcents
        assert metadata == {"response_model": "claude-sonnet-4-5-20250929"}
    assert {request.headers["authorization"][:16] for request in desk.provider.requests} == {"AWS4-HMAC-SHA256"}
    assert desk.held == 0


@pytest.mark.parametrize("name", CLIENTS[:2])
def test_a_stream_of_a_client_of_anthropic_that_is_left_is_estimated(desk: Desk, name: str) -> None:
    llm = desk.guard(anthropic_client(desk, name), prices=cycles.PriceBook({"anthropic.claude-m": ("1", "10")}))
    desk.provider.reply(text="one two three four", usage=USED, gate=threading.Event(), gate_after=5)
    create(desk, llm, "anthropic.claude-m", stream=True, until="content_block_delta")
    ((amount, metadata),) = desk.commits
    assert metadata == {"actual_source": "estimate", "outcome": "closed"}
    assert 100_000 < amount < EXACT
    desk.provider.stop()


@pytest.mark.parametrize("name", CLIENTS[:2])
def test_an_error_in_a_stream_of_a_client_of_anthropic(desk: Desk, name: str) -> None:
    llm = desk.guard(anthropic_client(desk, name), prices=cycles.PriceBook({"anthropic.claude-m": ("1", "10")}))
    desk.provider.reply(text="one two three four", usage=USED, error_after=4)
    with pytest.raises(Exception) as raised:
        create(desk, llm, "anthropic.claude-m", stream=True, until="message_stop")
    assert not isinstance(raised.value, cycles.CyclesError)
    ((amount, metadata),) = desk.commits
    assert (amount > 100_000, metadata) == (True, {"actual_source": "estimate", "outcome": "error"})


@pytest.mark.parametrize("name", CLIENTS)
def test_batches_and_limits_of_clients_of_anthropic(desk: Desk, name: str) -> None:
    llm = desk.guard(anthropic_client(desk, name), max_output_tokens=60)
    create(desk, llm, "m")
    assert desk.provider.requests[0].body["max_tokens"] == 60
    with pytest.raises(cycles.InvalidRequestError, match=r"/v1/messages/batches .* unmetered="):
        rejected = llm.post("/v1/messages/batches", body={"requests": []}, cast_to=object)
        desk.runner.run(_awaited(rejected))


def test_a_copy_of_a_client_of_anthropic_shares_its_connections(desk: Desk) -> None:
    original = anthropic_client(desk, "AnthropicBedrock")
    llm = desk.guard(original)
    original.close()
    assert llm.is_closed()


GUARDED = {"guardrailIdentifier": "g", "guardrailVersion": "1", "trace": "enabled"}


@pytest.mark.parametrize("name", CLIENTS[:2])
def test_a_guardrail_of_a_client_of_anthropic_costs_its_bound(desk: Desk, name: str) -> None:
    llm = desk.guard(anthropic_client(desk, name), prices=prices())
    for header in ({}, {"X-Amzn-Bedrock-GuardrailIdentifier": "g"}):
        desk.provider.reply(text="one two", usage=CACHED)
        create(desk, llm, f"us.{SONNET}", extra_headers=header)
    (plain, _), (amount, metadata) = desk.commits
    assert plain + 2 * 67_000 <= amount <= desk.reserved[1]
    assert metadata["actual_source"] == "estimate"


POLICIES = {"contentPolicyUnits": 2, "topicPolicyUnits": 1, "wordPolicyUnits": 9, "sensitiveInformationPolicyUnits": 3}
MORE = {"contextualGroundingPolicyUnits": 1, "contentPolicyImageUnits": 1, "sensitiveInformationPolicyFreeUnits": 9}


def needs(llm: Any, operation: str, member: str) -> None:
    """Skip the test if this version of boto3 does not know a parameter."""
    if member not in llm.meta.service_model.operation_model(operation).input_shape.members:
        pytest.skip(f"this version of boto3 has no {member}")


def trace(*keys: str) -> dict[str, Any]:
    """Return what a guardrail reports of the input and of two parts of the output."""
    first, rest = ({"g": {"invocationMetrics": {"usage": used}}} for used in (POLICIES, MORE))
    return {"guardrail": {keys[0]: first, keys[1]: {"g": [rest["g"]]}}}


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_a_guardrail_is_charged_by_what_it_reports(desk: Desk, streamed: bool) -> None:
    llm = Bedrock(desk, prices=prices()).llm
    needs(llm, "Converse", "guardrailConfig")
    options = {"modelId": f"us.{SONNET}", "messages": HI, "inferenceConfig": LIMIT, "guardrailConfig": GUARDED}
    desk.provider.reply(usage=CACHED, extra={"trace": trace("inputAssessment", "outputAssessments")})
    if streamed:
        list(llm.converse_stream(**options)["stream"])
    else:
        llm.converse(**options)
    rules = {"guardrail_units": "table", "guardrail_information_units": "table"}
    assert desk.commits == [(726_000 + (2 + 1 + 5) * 15_000 + (3 + 1) * 10_000, {"price_rules": rules})]
    assert desk.reserved[0] >= desk.commits[0][0]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_a_guardrail_that_reports_nothing_costs_its_bound(desk: Desk, streamed: bool) -> None:
    llm = Bedrock(desk, prices=prices()).llm
    needs(llm, "Converse", "guardrailConfig")
    options = {"modelId": f"us.{SONNET}", "messages": HI, "inferenceConfig": LIMIT, "guardrailConfig": GUARDED}
    desk.provider.reply(usage=CACHED, text="a" * 2_500)
    if streamed:
        list(llm.converse_stream(**options)["stream"])
    else:
        llm.converse(**options)
    ((amount, metadata),) = desk.commits
    assert amount >= 726_000 + 3 * (2 * 15_000 + 2 * 10_000 + 17_000)
    assert metadata["actual_source"] == "estimate"
    assert desk.reserved[0] >= amount


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_a_guardrail_of_an_invoked_model_is_charged(desk: Desk, streamed: bool) -> None:
    llm = Bedrock(desk, prices=prices()).llm
    send = llm.invoke_model_with_response_stream if streamed else llm.invoke_model
    desk.provider.reply(usage=CACHED, text="one two")
    answer = send(
        modelId=f"us.{SONNET}", body=json.dumps(body_of(SONNET)), guardrailIdentifier="g", guardrailVersion="1"
    )
    list(answer["body"])
    ((amount, metadata),) = desk.commits
    assert (amount > 726_000, metadata["actual_source"]) == (True, "estimate")


@pytest.mark.parametrize(
    ("tier", "microcents", "rules"),
    [
        ("default", 726_000, {}),
        ("flex", 363_000, {"service_tier:flex": "table"}),
        ("priority", 1_270_500, {"service_tier:priority": "table"}),
    ],
)
def test_a_service_tier_has_its_price(desk: Desk, tier: str, microcents: int, rules: dict[str, str]) -> None:
    llm = Bedrock(desk, prices=prices()).llm
    needs(llm, "Converse", "serviceTier")
    desk.provider.reply(usage=CACHED, extra={"serviceTier": {"type": tier}})
    llm.converse(modelId=f"us.{SONNET}", messages=HI, inferenceConfig=LIMIT, serviceTier={"type": tier})
    ((amount, metadata),) = desk.commits
    assert (amount, metadata.get("price_rules", {})) == (microcents, rules)
    assert "unpriced" not in metadata
    assert desk.reserved[0] >= amount


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_the_service_tier_of_an_invoked_model_is_in_a_header(desk: Desk, streamed: bool) -> None:
    llm = Bedrock(desk, prices=prices()).llm
    needs(llm, "InvokeModel", "serviceTier")
    send = llm.invoke_model_with_response_stream if streamed else llm.invoke_model
    desk.provider.reply(usage=CACHED, headers={"x-amzn-bedrock-service-tier": "priority"})
    answer = send(modelId=f"us.{SONNET}", body=json.dumps(body_of(SONNET)), serviceTier="priority")
    list(answer["body"])
    ((amount, metadata),) = desk.commits
    assert (amount, metadata["service_tier"]) == (1_270_500, "priority")
    assert desk.reserved[0] >= amount
