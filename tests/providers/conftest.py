"""What tests of guarded provider clients share: a fake provider, an embedded server, and one way to use each SDK."""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import cycles
from cycles.testing import FakeProvider
from tests.support.requests import Requests

if TYPE_CHECKING:
    from tests.providers.ledgers import Ledger

BOOK = cycles.PriceBook({"m": cycles.Price("1", "10", cached_input="0.1"), "dear": cycles.Price("100", "1000")})
"""A token that is read costs 100 microcents, one that is written 1,000."""
USED = {"tokens_input": 1000, "tokens_output": 100}
EXACT = 1000 * 100 + 100 * 1000

HERE = Path(__file__).parent
SDK_WARNINGS = (
    "ignore::DeprecationWarning:google.*",
    "ignore::DeprecationWarning:aiohttp.*",
    "ignore:Inheritance class:DeprecationWarning",
    "ignore:.*is deprecated:DeprecationWarning",
)


class Desk(Requests):
    """One test's world: what was reserved, sent and settled."""

    def __init__(self, provider: FakeProvider) -> None:
        self.provider = provider
        budgets: list[Any] = [cycles.usd(1000), cycles.tokens(10**9)]
        self.server = cycles.EmbeddedServer(budgets={"tenant:acme": budgets})
        self.client = self.server.client(tenant="acme", journal=False)
        self.runner = asyncio.Runner()
        self.originals: list[Any] = []

    def close(self) -> None:
        for original in self.originals:
            self.runner.run(_close(original))
        self.runner.run(self.client.aclose())
        self.runner.close()
        self.server.close()

    def guard(self, llm: Any, **options: Any) -> Any:
        from cycles.providers import guard

        return guard(llm, **{"client": self.client, "prices": BOOK, **options})

    @property
    def held(self) -> int:
        reserved = self.server.ledger.balance("tenant:acme", unit="USD_MICROCENTS").reserved
        return 0 if reserved is None else reserved.amount

    def settle_dropped(self) -> None:
        """Drop what only cycles keep, and wait for what is settled in the background."""
        collect()
        for thread in threading.enumerate():
            if thread.name == "cycles-dropped-response":
                thread.join(60)


def collect() -> None:
    """Collect garbage. While another thread does, `gc.collect` returns and has done nothing, so it is called again."""
    me, phases = threading.get_ident(), list[str]()

    def note(phase: str, _: object) -> None:
        if threading.get_ident() == me:
            phases.append(phase)

    gc.callbacks.append(note)
    try:
        while "stop" not in phases:
            gc.collect()
    finally:
        gc.callbacks.remove(note)


async def _turns() -> None:
    collect()
    for _ in range(200):
        await asyncio.sleep(0)


async def _close(original: Any) -> None:
    if hasattr(original, "_client_wrapper"):
        leave = original.__aexit__ if hasattr(original, "__aexit__") else original.__exit__
        closing = leave(None, None, None)
        if inspect.isawaitable(closing):
            await closing
        return
    if hasattr(original, "sdk_configuration"):
        original.sdk_configuration.client.close()
        await original.sdk_configuration.async_client.aclose()
        return
    if hasattr(original, "aio"):
        if hasattr(original.aio, "aclose"):
            await original.aio.aclose()
        original.close()
        return
    closing = original.close()
    if inspect.isawaitable(closing):
        await closing


@pytest.fixture
def desk() -> Iterator[Desk]:
    with FakeProvider() as provider:
        made = Desk(provider)
        yield made
        made.close()


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    from tests.providers.ledgers import Ledger

    budgets: list[Any] = [cycles.usd(1000), cycles.tokens(10**9)]
    with cycles.EmbeddedServer(budgets={"tenant:acme": budgets}) as server:
        client = server.client(tenant="acme", journal=False)
        yield Ledger(server, client)
        client.close()


class Sdk:
    """One SDK, sync: the same verbs for all of them."""

    name = ""
    is_async = False

    def __init__(self, desk: Desk, **guard_options: Any) -> None:
        self.desk = desk
        self.original = self.make()
        desk.originals.append(self.original)
        self.llm = desk.guard(self.original, **guard_options)

    def make(self) -> Any:
        raise NotImplementedError

    def complete(self, prompt: str = "hi", model: str = "m", **more: Any) -> Any:
        raise NotImplementedError

    def stream(self, prompt: str = "hi", **more: Any) -> Any:
        """Return an iterator that can be closed."""
        raise NotImplementedError

    def read(self, count: int | None = None) -> int:
        """Read a stream to its end, or leave it after `count` chunks; return how many were read."""
        stream = self.stream()
        read = 0
        for _ in stream:
            read += 1
            if read == count:
                stream.close()
                break
        return read

    def drop(self, count: int) -> None:
        """Read some chunks and drop the stream."""
        stream = self.stream()
        for _ in range(count):
            next(iter(stream))
        del stream
        self.desk.settle_dropped()


class OpenAI(Sdk):
    name = "openai"

    def make(self) -> Any:
        openai: Any = pytest.importorskip("openai")
        return openai.OpenAI(api_key="k", base_url=self.desk.provider.openai_url, max_retries=0)

    def complete(self, prompt: str = "hi", model: str = "m", **more: Any) -> Any:
        return self.llm.chat.completions.create(model=model, messages=[{"role": "user", "content": prompt}], **more)

    def stream(self, prompt: str = "hi", **more: Any) -> Any:
        return self.complete(prompt, stream=True, **more)


class Responses(OpenAI):
    name = "responses"

    def complete(self, prompt: str = "hi", model: str = "m", **more: Any) -> Any:
        return self.llm.responses.create(model=model, input=prompt, **more)


class Groq(OpenAI):
    def make(self) -> Any:
        groq: Any = pytest.importorskip("groq")
        return groq.Groq(api_key="k", base_url=self.desk.provider.url_of("groq"), max_retries=0)


class Mistral(Sdk):
    name = "mistral"

    def make(self) -> Any:
        package: Any = pytest.importorskip("mistralai")
        if not hasattr(package, "Mistral"):  # newer versions have a package of namespaces
            package = pytest.importorskip("mistralai.client")
        return package.Mistral(api_key="k", server_url=self.desk.provider.url_of("mistral"))

    def complete(self, prompt: str = "hi", model: str = "m", **more: Any) -> Any:
        return self.llm.chat.complete(model=model, messages=[{"role": "user", "content": prompt}], **more)

    def stream(self, prompt: str = "hi", **more: Any) -> Any:
        return _Closed(self.llm.chat.stream(model="m", messages=[{"role": "user", "content": prompt}], **more))


class _Closed:
    """A stream of mistralai, which has no `close`: its block closes its response."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.close = stream.response.close

    def __iter__(self) -> Iterator[Any]:
        return iter(self._stream)


class Cohere(Sdk):
    name = "cohere"

    def make(self) -> Any:
        cohere: Any = pytest.importorskip("cohere")
        return cohere.ClientV2(api_key="k", base_url=self.desk.provider.url_of("cohere"))

    def complete(self, prompt: str = "hi", model: str = "m", **more: Any) -> Any:
        return self.llm.chat(model=model, messages=[{"role": "user", "content": prompt}], **more)

    def stream(self, prompt: str = "hi", **more: Any) -> Any:
        return self.llm.chat_stream(model="m", messages=[{"role": "user", "content": prompt}], **more)


class Anthropic(Sdk):
    name = "anthropic"

    def make(self) -> Any:
        anthropic: Any = pytest.importorskip("anthropic")
        return anthropic.Anthropic(api_key="k", base_url=self.desk.provider.anthropic_url, max_retries=0)

    def complete(self, prompt: str = "hi", model: str = "m", **more: Any) -> Any:
        more.setdefault("max_tokens", 500)
        return self.llm.messages.create(model=model, messages=[{"role": "user", "content": prompt}], **more)

    def stream(self, prompt: str = "hi", **more: Any) -> Any:
        return self.complete(prompt, stream=True, **more)


class Gemini(Sdk):
    name = "google"

    def make(self) -> Any:
        genai: Any = pytest.importorskip("google.genai")
        return genai.Client(api_key="k", http_options={"base_url": self.desk.provider.google_url})

    def complete(self, prompt: str = "hi", model: str = "m", **more: Any) -> Any:
        return self.llm.models.generate_content(model=model, contents=prompt, **more)

    def stream(self, prompt: str = "hi", **more: Any) -> Any:
        return self.llm.models.generate_content_stream(model="m", contents=prompt, **more)


class Bedrock(Sdk):
    name = "bedrock"

    def make(self) -> Any:
        return bedrock_client(self.desk.provider.url_of("bedrock"))

    def complete(self, prompt: str = "hi", model: str = "m", **more: Any) -> Any:
        return self.llm.converse(modelId=model, messages=_of_bedrock(prompt), **more)

    def stream(self, prompt: str = "hi", **more: Any) -> Any:
        return self.llm.converse_stream(modelId="m", messages=_of_bedrock(prompt), **more)["stream"]


def bedrock_client(url: str, attempts: int = 1) -> Any:
    """Return a client of boto3 for a server on loopback."""
    boto3: Any = pytest.importorskip("boto3")
    config = boto3.session.Config(retries={"total_max_attempts": attempts}, ignore_configured_endpoint_urls=True)
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
    return boto3.client("bedrock-runtime", region_name="us-east-1", endpoint_url=url, config=config, **keys)


def _of_bedrock(prompt: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"text": prompt}]}]


class AsyncSdk(Sdk):
    """As `Sdk`, for async clients: the verbs run in the desk's event loop."""

    is_async = True

    async def acomplete(self, prompt: str = "hi", model: str = "m", **more: Any) -> Any:
        raise NotImplementedError

    async def astream(self) -> Any:
        return await self.acomplete(stream=True)

    def complete(self, prompt: str = "hi", model: str = "m", **more: Any) -> Any:
        return self.desk.runner.run(self.acomplete(prompt, model, **more))

    def read(self, count: int | None = None) -> int:
        async def go() -> int:
            stream = await self.astream()
            read = 0
            async for _ in stream:
                read += 1
                if read == count:
                    await (stream.close() if hasattr(stream, "close") else stream.aclose())
                    break
            return read

        try:
            return self.desk.runner.run(go())
        finally:
            self.desk.runner.run(_turns())

    def drop(self, count: int) -> None:
        async def go() -> None:
            stream = await self.astream()
            for _ in range(count):
                await anext(aiter(stream))

        self.desk.runner.run(go())
        self.desk.runner.run(_turns())  # the loop closes generators that were dropped
        self.desk.settle_dropped()


class AsyncOpenAI(AsyncSdk):
    name = "openai"

    def make(self) -> Any:
        openai: Any = pytest.importorskip("openai")
        return openai.AsyncOpenAI(api_key="k", base_url=self.desk.provider.openai_url, max_retries=0)

    async def acomplete(self, prompt: str = "hi", model: str = "m", **more: Any) -> Any:
        messages = [{"role": "user", "content": prompt}]
        return await self.llm.chat.completions.create(model=model, messages=messages, **more)


class AsyncGroq(AsyncOpenAI):
    def make(self) -> Any:
        groq: Any = pytest.importorskip("groq")
        return groq.AsyncGroq(api_key="k", base_url=self.desk.provider.url_of("groq"), max_retries=0)


class AsyncMistral(AsyncSdk):
    name = "mistral"
    make = Mistral.make

    async def acomplete(self, prompt: str = "hi", model: str = "m", stream: bool = False, **more: Any) -> Any:
        send = self.llm.chat.stream_async if stream else self.llm.chat.complete_async
        answer = await send(model=model, messages=[{"role": "user", "content": prompt}], **more)
        if stream:
            answer.close = answer.response.aclose
        return answer


class AsyncCohere(AsyncSdk):
    name = "cohere"

    def make(self) -> Any:
        cohere: Any = pytest.importorskip("cohere")
        return cohere.AsyncClientV2(api_key="k", base_url=self.desk.provider.url_of("cohere"))

    async def acomplete(self, prompt: str = "hi", model: str = "m", stream: bool = False, **more: Any) -> Any:
        messages = [{"role": "user", "content": prompt}]
        if stream:
            return self.llm.chat_stream(model=model, messages=messages, **more)
        return await self.llm.chat(model=model, messages=messages, **more)


class AsyncAnthropic(AsyncSdk):
    name = "anthropic"

    def make(self) -> Any:
        anthropic: Any = pytest.importorskip("anthropic")
        return anthropic.AsyncAnthropic(api_key="k", base_url=self.desk.provider.anthropic_url, max_retries=0)

    async def acomplete(self, prompt: str = "hi", model: str = "m", **more: Any) -> Any:
        more.setdefault("max_tokens", 500)
        return await self.llm.messages.create(model=model, messages=[{"role": "user", "content": prompt}], **more)


class AsyncGemini(AsyncSdk):
    name = "google"

    def make(self) -> Any:
        genai: Any = pytest.importorskip("google.genai")
        return genai.Client(api_key="k", http_options={"base_url": self.desk.provider.google_url})

    async def acomplete(self, prompt: str = "hi", model: str = "m", **more: Any) -> Any:
        return await self.llm.aio.models.generate_content(model=model, contents=prompt, **more)

    async def astream(self) -> Any:
        return await self.llm.aio.models.generate_content_stream(model="m", contents="hi")


ALL = (OpenAI, Responses, Anthropic, Gemini, Bedrock, AsyncOpenAI, AsyncAnthropic, AsyncGemini)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """SDKs warn about their own dependencies; that is not ours to fix."""
    for item in items:
        if item.path.parent == HERE:
            for warning in SDK_WARNINGS:
                item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture(params=ALL, ids=lambda cls: cls.__name__)
def sdk(request: pytest.FixtureRequest, desk: Desk) -> Sdk:
    """Each SDK with a guarded client."""
    made: Sdk = request.param(desk)
    return made
