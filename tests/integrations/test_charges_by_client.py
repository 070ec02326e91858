"""LangChain charges for models of Bedrock and Groq what a guarded client charges: guarded models and the middleware."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

import cycles
from cycles.testing import FakeProvider
from tests.integrations.test_charges import BOOK, SDK_WARNINGS, arun_langchain, run_langchain

pytestmark = [pytest.mark.usefixtures("closed_http_clients"), *map(pytest.mark.filterwarnings, SDK_WARNINGS)]

CACHED = {"tokens_input": 3_400, "tokens_cached_input": 2_000, "tokens_cache_write": 400, "tokens_output": 100}
CASES = {"bedrock": (CACHED, 726_000), "groq": ({"tokens_input": 1_000, "tokens_output": 100}, 21_000)}


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeProvider]:
    for name, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    with FakeProvider() as provider:
        yield provider


def chat_model(name: str, provider: FakeProvider) -> Any:
    """Return an unguarded chat model."""
    url = provider.url_of(name)
    if name == "groq":
        chat = pytest.importorskip("langchain_groq").ChatGroq
        clients = {"http_client": httpx.Client(), "http_async_client": httpx.AsyncClient()}
        return chat(model="openai/gpt-oss-120b", api_key="k", base_url=url, max_tokens=500, **clients)
    chat = pytest.importorskip("langchain_aws").ChatBedrockConverse
    return chat(model="us.anthropic.claude-sonnet-4-5-20250929-v1:0", endpoint_url=url, max_tokens=500)


def by_guard(model: Any, client: cycles.Cycles, *, streamed: bool) -> None:
    from cycles.integrations.langchain import guard

    guarded = guard(model, client=client, prices=BOOK)
    if streamed:
        list(guarded.stream("hi"))
    else:
        guarded.invoke("hi")


def by_async_middleware(model: Any, client: cycles.Cycles, *, streamed: bool) -> None:
    async def run() -> None:
        await arun_langchain(model, client, streamed=streamed)
        if (http := getattr(model, "http_async_client", None)) is not None:
            await http.aclose()

    asyncio.run(run())


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("way", [by_guard, run_langchain, by_async_middleware], ids=["guard", "middleware", "async"])
@pytest.mark.parametrize("name", CASES)
def test_sums(name: str, way: Any, streamed: bool, provider: FakeProvider) -> None:
    pytest.importorskip("langchain")
    model, (usage, microcents) = chat_model(name, provider), CASES[name]
    with cycles.EmbeddedServer(budgets={"tenant:acme": [cycles.usd(100)]}) as server:
        with server.client(tenant="acme", journal=False) as client:
            provider.reply(text="one two", usage=usage)
            way(model, client, streamed=streamed)
        if name == "bedrock":
            model.client.close()
        commits = [request.json["actual"]["amount"] for request in server.requests.of("commit")]
    assert commits == [microcents]
    assert provider.count() == 1
