"""The tables and rules of a provider's module: error bodies, what an event reports, and the endpoints of Bedrock."""

from __future__ import annotations

from typing import Any

import pytest

from cycles.providers._endpoints import find
from cycles.providers._provider import PROVIDERS, Endpoint, provider_named


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (402, "billing_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (405, "invalid_request_error"),
        (429, "invalid_request_error"),
        (499, "invalid_request_error"),
        (500, "api_error"),
        (503, "api_error"),
    ],
)
def test_the_error_body_of_anthropic(status: int, kind: str) -> None:
    body = {"type": "error", "error": {"type": kind, "message": "no budget"}}
    assert provider_named("anthropic").error(status, "no budget") == body


@pytest.mark.parametrize("name", ["bedrock", "cohere"])
def test_the_error_body_of_providers_with_a_message_only(name: str) -> None:
    assert provider_named(name).error(402, "no budget") == {"message": "no budget"}


def test_whose_wire_format_others_have() -> None:
    copied = {name for name in PROVIDERS if provider_named(name).is_copied}
    assert copied == {"openai", "anthropic"}


COUNTS = {"input_tokens": 1, "output_tokens": 5}


@pytest.mark.parametrize(
    ("name", "event", "reports"),
    [
        ("anthropic", {"type": "message_delta", "usage": COUNTS}, "total"),
        ("anthropic", {"type": "message_delta", "usage": {"output_tokens": None}}, "part"),
        ("anthropic", {"type": "other", "usage": COUNTS}, "part"),
        ("anthropic", {"type": "message_start", "message": {"usage": COUNTS}}, "part"),
        ("anthropic", {"type": "message_start", "message": {}}, None),
        ("anthropic", {"type": "ping", "message": 5}, None),
        ("anthropic", {"usage": 5, "message": 5}, None),
        ("bedrock", {"usage": {"inputTokens": 0}}, "total"),
        ("bedrock", {"usage": {"outputTokens": 5}}, None),
        ("bedrock", {"usage": 5}, None),
        ("bedrock", {"type": "message_delta", "usage": COUNTS}, "total"),
        ("bedrock", {"type": "message_start", "message": {"usage": COUNTS}}, "part"),
        ("bedrock", {"amazon-bedrock-invocationMetrics": {"inputTokenCount": 1}}, "total"),
        ("bedrock", {"type": 5}, None),
        ("cohere", {"type": "message-end", "delta": {"usage": {"tokens": {}}}}, "total"),
        ("cohere", {"type": "other", "delta": {"usage": {"tokens": {}}}}, "part"),
        ("cohere", {"type": "message-end", "delta": {}}, None),
        ("cohere", {"type": "message-end", "delta": 5}, None),
        ("cohere", {"type": "message-end"}, None),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_what_an_event_reports(name: str, event: dict[str, Any], reports: str | None, finished: bool) -> None:
    assert provider_named(name).stream({}).usage(event, finished) == reports


@pytest.mark.parametrize(
    ("name", "event", "fails"),
    [
        ("anthropic", {"type": "error"}, True),
        ("anthropic", {"error": {"message": "x"}}, True),
        ("anthropic", {"type": "ping", "error": None}, False),
        ("bedrock", {"type": "error"}, True),
        ("cohere", {"error": "x"}, True),
        ("cohere", {"delta": {"error": "x"}}, True),
        ("cohere", {"delta": {"error": ""}, "error": None}, False),
        ("cohere", {"delta": "x"}, False),
    ],
)
def test_which_events_are_errors(name: str, event: dict[str, Any], fails: bool) -> None:
    assert provider_named(name).stream({}).failed(event) is fails


def test_the_rules_of_streams() -> None:
    rules = {name: provider_named(name).stream({}) for name in ("anthropic", "bedrock", "cohere")}
    assert {name: one.is_usage_last for name, one in rules.items()} == {
        "anthropic": False,
        "bedrock": True,
        "cohere": False,
    }
    assert [(one.running_totals, dict(one.requested)) for one in rules.values()] == [(False, {})] * 3


CLAUDE = (("thinking.budget_tokens",), True)
INVOKED = [
    ("ai21.jamba-x", "text", ("max_tokens",)),
    ("amazon.nova-x", "text", ("inferenceConfig.maxTokens", "inferenceConfig.max_new_tokens")),
    ("amazon.titan-embed-text-v2", "embedding", ()),
    ("amazon.titan-text-x", "text", ("textGenerationConfig.maxTokenCount",)),
    ("anthropic.claude-x", "text", ("max_tokens",)),
    ("cohere.command-x", "text", ("max_tokens",)),
    ("cohere.embed-x", "embedding", ()),
    ("deepseek.r1", "text", ("max_tokens",)),
    ("meta.llama3", "text", ("max_gen_len",)),
    ("mistral.x", "text", ("max_tokens",)),
    ("openai.gpt-oss", "text", ("max_completion_tokens", "max_tokens")),
    ("qwen.x", "text", ("max_tokens",)),
]


@pytest.mark.parametrize("before", ["", "us.", "arn:aws:bedrock:us-east-1:1:inference-profile%2Feu."])
@pytest.mark.parametrize("operation", ["invoke", "invoke-with-response-stream"])
@pytest.mark.parametrize(("model", "kind", "limits"), INVOKED)
def test_the_endpoint_of_an_invoked_model(
    before: str, operation: str, model: str, kind: str, limits: tuple[str, ...]
) -> None:
    found = find("bedrock", "POST", f"/model/{before}{model}/{operation}")
    assert isinstance(found, Endpoint)
    assert (found.name, found.kind, found.limits) == ("invoke_model", kind, limits)
    assert (found.thinking, found.is_thinking_below) == (CLAUDE if "claude" in model else ((), False))
    assert found.tier == ("serviceTier" if kind == "text" else "service_tier")


@pytest.mark.parametrize(
    "model",
    ["amazon.nova-canvas-v1", "amazon.nova-reel-v1", "amazon.nova-sonic-v1", "amazon.titan-image-x", "x.y", "x"],
)
def test_models_that_make_no_text_and_unknown_ones_are_not_metered(model: str) -> None:
    assert find("bedrock", "POST", f"/model/{model}/invoke") == "unmetered"
    assert find("bedrock", "POST", f"/model/us.{model}/invoke") == "unmetered"


@pytest.mark.parametrize("operation", ["converse", "converse-stream"])
def test_the_endpoints_of_converse(operation: str) -> None:
    found = find("bedrock", "POST", f"/model/any.model/{operation}")
    assert isinstance(found, Endpoint)
    assert (found.name, found.limits, found.is_thinking_below) == (
        operation.replace("-", "_"),
        ("inferenceConfig.maxTokens",),
        True,
    )
    assert (found.thinking, found.tier) == (
        (
            "additionalModelRequestFields.thinking.budget_tokens",
            "additionalModelRequestFields.reasoning_config.budget_tokens",
        ),
        "serviceTier",
    )


@pytest.mark.parametrize(
    ("method", "path", "found"),
    [
        ("POST", "/model/m/count-tokens", "free"),
        ("POST", "/model/m/converse/x", "unmetered"),
        ("POST", "/models/m/converse", "unmetered"),
        ("GET", "/model/m/converse", "free"),
    ],
)
def test_other_paths_of_bedrock(method: str, path: str, found: str) -> None:
    assert find("bedrock", method, path) == found


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/messages", "messages"),
        ("/messages", "messages"),
        ("/v2beta/messages", "messages"),
        ("/v1/complete", "completions"),
        ("/complete", "completions"),
    ],
)
def test_the_paths_of_anthropic(path: str, name: str) -> None:
    found = find("anthropic", "POST", path)
    assert isinstance(found, Endpoint)
    assert (found.name, found.is_thinking_below) == (name, name == "messages")


@pytest.mark.parametrize("path", ["/v1/messages/count_tokens", "/messages/count_tokens", "/v1/files/x", "/v1/x/cancel"])
def test_the_free_paths_of_anthropic(path: str) -> None:
    assert find("anthropic", "POST", path) == "free"


@pytest.mark.parametrize("path", ["/v1/messages/batches", "/messagesx", "/x/messages"])
def test_other_paths_of_anthropic(path: str) -> None:
    assert find("anthropic", "POST", path) == "unmetered"
