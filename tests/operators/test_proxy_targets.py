"""Where requests go, and that no body makes the proxy fail: it is charged, denied or rejected."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from cycles.proxy._targets import RejectedError, target_of
from tests.operators.proxying import proxied

UPSTREAMS = {"openai": "https://o.example/api/v1", "anthropic": "https://a.example", "gemini": "https://g.example/x"}


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

        @settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
        @given(path=st.sampled_from(PATHS), body=st.dictionaries(st.sampled_from(NAMES), values, max_size=5))
        def check(path: str, body: dict[str, Any]) -> None:
            response = place.post(path, json={"model": "m", **body})
            # 502: the fake provider breaks off if it cannot read a body.
            assert response.status_code in (200, 400, 402, 502), response.text

        check()
        assert place.held == 0
