"""Where requests go, and that no body makes the proxy fail: it is charged, denied or rejected."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from cycles.providers._endpoints import find
from cycles.proxy._settings import upstreams_of
from cycles.proxy._targets import RejectedError, target_of
from tests.operators.proxying import proxied
from tests.support.short import fewer

UPSTREAMS = {
    "openai": "https://o.example/api/v1",
    "anthropic": "https://a.example",
    "gemini": "https://g.example/x",
    "azure": "https://my.openai.azure.com",
    "groq": "https://api.groq.com",
    "openrouter": "https://openrouter.ai/api/v1",
    "deepseek": "https://api.deepseek.com",
}


@pytest.mark.parametrize(
    ("path", "looked_up", "url"),
    [
        ("/openai/v1/chat/completions", "/chat/completions", "https://o.example/api/v1/chat/completions"),
        ("/openai/v2/chat/completions", "/chat/completions", "https://o.example/api/v2/chat/completions"),
        ("/openai/v1/chat/completions/", "/chat/completions/", "https://o.example/api/v1/chat/completions/"),
        ("/anthropic/v1/messages", "/v1/messages", "https://a.example/v1/messages"),
        ("/anthropic/v9beta/messages", "/v1/messages", "https://a.example/v9beta/messages"),
        (
            "/gemini/v1beta/models/m:countTokens",
            "models/m:countTokens",
            "https://g.example/x/v1beta/models/m:countTokens",
        ),
        (
            "/gemini/v1/models/m%3AgenerateContent",
            "models/m:generateContent",
            "https://g.example/x/v1/models/m%3AgenerateContent",
        ),
        ("/gemini/upload/v1beta/files", "files", "https://g.example/x/upload/v1beta/files"),
        ("/anthropic/messages", "/v1/messages", "https://a.example/v1/messages"),
        ("/anthropic/%6Dessages", "/v1/messages", "https://a.example/v1/%6Dessages"),
        ("/anthropic/messages/batches", "/v1/messages/batches", "https://a.example/v1/messages/batches"),
        ("/anthropic/api/telemetry", "/api/telemetry", "https://a.example/api/telemetry"),
        ("/groq/openai/v1/chat/completions", "/chat/completions", "https://api.groq.com/openai/v1/chat/completions"),
        ("/openrouter/api/v1/chat/completions", "/chat/completions", "https://openrouter.ai/api/v1/chat/completions"),
        ("/deepseek/beta/chat/completions", "/chat/completions", "https://api.deepseek.com/beta/chat/completions"),
        ("/deepseek/chat/completions", "/chat/completions", "https://api.deepseek.com/chat/completions"),
        (
            "/azure/openai/deployments/gpt-4o/chat/completions",
            "/chat/completions",
            "https://my.openai.azure.com/openai/deployments/gpt-4o/chat/completions",
        ),
        ("/azure/openai/v1/responses", "/responses", "https://my.openai.azure.com/openai/v1/responses"),
        (
            "/vertex/v1beta1/projects/p/locations/us-east5/publishers/google/models/m:generateContent",
            "models/m:generateContent",
            "https://us-east5-aiplatform.googleapis.com/v1beta1/projects/p/locations/us-east5/publishers/google/models"
            "/m:generateContent",
        ),
        (
            "/vertex/v1/projects/p/locations/global/publishers/anthropic/models/count-tokens:rawPredict",
            "/v1/messages/count_tokens",
            "https://aiplatform.googleapis.com/v1/projects/p/locations/global/publishers/anthropic/models"
            "/count-tokens:rawPredict",
        ),
        (
            "/vertex/v1/projects/p/locations/global/publishers/anthropic/models/c@1:streamRawPredict",
            "/v1/messages",
            "https://aiplatform.googleapis.com/v1/projects/p/locations/global/publishers/anthropic/models"
            "/c@1:streamRawPredict",
        ),
    ],
)
def test_a_path_is_looked_up_decoded_and_forwarded_unchanged(path: str, looked_up: str, url: str) -> None:
    found = target_of(path, "a=%20b", UPSTREAMS)
    assert (found.path, found.url) == (looked_up, f"{url}?a=%20b")


@pytest.mark.parametrize(
    "path", ["", "openai/v1/x", "/openai/v1/./x", "/openai/v1/%2E%2E/x", "/openai//x", "/", "/other/x"]
)
def test_other_paths_reach_no_upstream(path: str) -> None:
    with pytest.raises(RejectedError) as caught:
        target_of(path, "", UPSTREAMS)
    assert caught.value.status in (400, 404)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/openai/v1/chat/completions", ("openai", None, False)),
        ("/azure/openai/deployments/d/chat/completions", ("openai", "d", False)),
        ("/vertex/v1/projects/p/locations/eu/publishers/anthropic/models/c:rawPredict", ("anthropic", "c", False)),
        ("/vertex/v1/projects/p/locations/eu/publishers/anthropic/models/c:streamRawPredict", ("anthropic", "c", True)),
        ("/vertex/v1/publishers/google/models/g:streamGenerateContent", ("google", None, False)),
    ],
)
def test_a_path_may_name_the_wire_format_the_model_and_a_stream(path: str, found: tuple[str, str, bool]) -> None:
    target = target_of(path, "", UPSTREAMS)
    assert (target.provider, target.model, target.streams) == found


@pytest.mark.parametrize(
    "path",
    [
        "/vertex/v1/projects/p/locations/l/publishers/mistralai/models/m:rawPredict",
        "/vertex/v1/projects/p/locations/l/publishers/google/models/imagen:predict",
        "/vertex/v1/projects/p/locations/l/endpoints/openapi/chat/completions",
        "/deepseek/anthropic/v1/messages",
        "/ollama/api/chat",
        "/azure/openai/deployments/d/extensions/chat/completions",
    ],
)
def test_what_has_no_known_price_is_unmetered(path: str) -> None:
    target = target_of(path, "", {**UPSTREAMS, "ollama": "http://127.0.0.1:11434"})
    assert find(target.provider, "POST", target.path) == "unmetered"


def test_a_route_without_an_upstream_says_what_to_set() -> None:
    with pytest.raises(RejectedError, match=r"set OLLAMA_HOST or OLLAMA_API_BASE .* or pass --upstream ollama=URL"):
        target_of("/ollama/v1/chat/completions", "", UPSTREAMS)


@pytest.mark.parametrize(
    ("given", "environ", "name", "path", "url"),
    [
        ({}, {}, "openai", "/v1/responses", "https://api.openai.com/v1/responses"),
        ({}, {"OPENAI_API_BASE": "http://gw/v1"}, "openai", "/v1/responses", "http://gw/v1/responses"),
        ({}, {"OPENAI_HOST": "http://gw"}, "openai", "/v1/responses", "http://gw/v1/responses"),
        ({"openai": "http://x/v1"}, {"OPENAI_BASE_URL": "http://y"}, "openai", "/v1/files", "http://x/v1/files"),
        ({}, {"GROQ_BASE_URL": "http://gw"}, "groq", "/openai/v1/models", "http://gw/openai/v1/models"),
        ({}, {"GROQ_API_BASE": "http://gw/openai/v1"}, "groq", "/openai/v1/models", "http://gw/openai/v1/models"),
        ({}, {"GROQ_API_BASE": "http://gw/x"}, "groq", "/openai/v1/models", "http://gw/x/models"),
        ({}, {"AZURE_API_BASE": "http://az/"}, "azure", "/openai/models", "http://az/openai/models"),
        ({}, {"ANTHROPIC_VERTEX_BASE_URL": "http://v/v1"}, "vertex", "/v1/projects/p", "http://v/v1/projects/p"),
        ({}, {"ANTHROPIC_BASE_URL": "http://a/v1"}, "anthropic", "/messages", "http://a/v1/messages"),
        ({"ollama": "http://o"}, {}, "ollama", "/v1/models", "http://o/v1/models"),
    ],
)
def test_the_upstream_is_what_a_flag_or_a_variable_names(
    given: dict[str, str], environ: dict[str, str], name: str, path: str, url: str
) -> None:
    found = upstreams_of(given, environ)
    assert target_of(f"/{name}{path}", "", found["upstreams"], found["mounts"]).url == url
    assert (name in found["named"]) == bool(given or environ)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-10, 10**6)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NAMES = [
    "messages",
    "max_tokens",
    "max_completion_tokens",
    "n",
    "tools",
    "stream",
    "stream_options",
    "modalities",
    "thinking",
    "service_tier",
    "generationConfig",
    "generation_config",
    "contents",
    "input",
    "web_search_options",
    "cachedContent",
]
PATHS = (
    "/openai/v1/chat/completions",
    "/openai/v1/responses",
    "/openai/v1/embeddings",
    "/anthropic/v1/messages",
    "/gemini/v1beta/models/m:generateContent",
)


def test_no_body_makes_the_proxy_fail_or_leaves_budget_held() -> None:
    with proxied(max_output_tokens=50) as place:

        @settings(max_examples=fewer(120), deadline=None, suppress_health_check=list(HealthCheck))
        @given(path=st.sampled_from(PATHS), body=st.dictionaries(st.sampled_from(NAMES), values, max_size=5))
        def check(path: str, body: dict[str, Any]) -> None:
            response = place.post(path, json={"model": "m", **body})
            # 502: the fake provider breaks off if it cannot read a body.
            assert response.status_code in (200, 400, 402, 502), response.text

        check()
        assert place.held == 0
