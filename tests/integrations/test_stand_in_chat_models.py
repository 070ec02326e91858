"""`guard(model)` of LangChain for a model whose client is unknown, with stand-ins of the library.

The library itself is in `make test-integrations`.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import pickle
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import openai
import pytest
from pydantic import BaseModel

import cycles
from tests.integrations.conftest import Ledger
from tests.integrations.stand_ins import imported_with, module

FLEX = {"flex": cycles.Price("0.5", "5")}
PRICE = cycles.Price("1", "10", cached_input="0.1", cache_write="1.25", per_call={"web_searches": "0.01"}, tiers=FLEX)
SERVED = cycles.Price("2", "20", per_call=PRICE.per_call)
BOOK = cycles.PriceBook({"m": PRICE, "served": SERVED})
EXACT = 10 * 100 + 5 * 1_000
"""Microcents of 10 tokens in and 5 out."""
ONE_WORD = 1_000
"""Microcents of the text `one`, of which no count is reported."""
SEARCH = 1_000_000
"""Microcents of a search."""


class AIMessage(SimpleNamespace):
    """A message of a model. The text of a list is that of its parts."""

    def __init__(self, content: Any = "", **members: Any) -> None:
        parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
        text = "".join(part["text"] for part in parts if part["type"] == "text")
        given = {"type": "ai", "text": text, "usage_metadata": None, "response_metadata": {}, "id": None, **members}
        super().__init__(content=content, **given)


class AIMessageChunk(AIMessage):
    def __init__(self, content: Any = "", **members: Any) -> None:
        super().__init__(content, **{"tool_call_chunks": [], "chunk_position": None, **members})


def add_usage(left: Any, right: Any) -> Any:
    """Add two usages as LangChain does: all members, also those of the details."""
    if left is None:
        return right
    found = dict(left)
    for name, value in right.items():
        found[name] = add_usage(left.get(name), value) if isinstance(value, dict) else left.get(name, 0) + value
    return found


class BaseChatModel(BaseModel):
    """The base of chat models. It has no stream of its own, so it streams the whole message."""

    @property
    def _llm_type(self) -> str:
        return "stand-in"

    def _get_ls_params(self) -> dict[str, Any]:
        return {}

    def _generate(self, messages: Any, stop: Any = None, **options: Any) -> Any:
        raise AssertionError

    async def _agenerate(self, messages: Any, stop: Any = None, **options: Any) -> Any:
        return self._generate(messages, stop, **options)

    def _stream(self, messages: Any, stop: Any = None, **options: Any) -> Iterator[Any]:
        raise AssertionError

    async def _astream(self, messages: Any, stop: Any = None, **options: Any) -> AsyncIterator[Any]:
        for chunk in self._stream(messages, stop, **options):
            yield chunk

    def call(self, how: str, **options: Any) -> list[str]:
        """Call the model one of four ways as LangChain does; return the texts of its messages or chunks."""
        cls, given = type(self), ([SimpleNamespace(type="human", content="hi")], None)
        base = vars(BaseChatModel)
        streams = cls._stream is not base["_stream"], cls._astream is not base["_astream"]
        if how == "stream" and streams[0]:
            return [each.message.text for each in self._stream(*given, **options)]
        if how == "astream" and (streams[0] or streams[1]):
            return asyncio.run(texts_of(self._astream(*given, **options)))
        is_async = how in ("ainvoke", "astream")
        result = asyncio.run(self._agenerate(*given, **options)) if is_async else self._generate(*given, **options)
        return [each.message.text for each in result.generations]


async def texts_of(chunks: AsyncIterator[Any]) -> list[str]:
    return [each.message.text async for each in chunks]


class Whole(BaseChatModel):
    """A model that only makes whole messages. It notes its options and its limits at each call."""

    model_name: str = "m"
    max_tokens: Any = None
    max_output_tokens: Any = None
    replies: list[Any]
    output: Any = None
    seen: list[Any] = []

    def _generate(self, messages: Any, stop: Any = None, **options: Any) -> Any:
        return self.whole(messages, options)

    def whole(self, messages: Any, options: Any) -> Any:
        assert [message.content for message in messages] == ["hi"]
        self.seen.append((options, self.max_tokens, self.max_output_tokens))
        return SimpleNamespace(generations=list(map(generation, self.replies)), llm_output=self.output)


class Model(Whole):
    """A model that also streams its replies, one chunk for each."""

    def _stream(self, messages: Any, stop: Any = None, **options: Any) -> Iterator[Any]:
        self.seen.append((options, self.max_tokens, self.max_output_tokens))
        yield from map(generation, self.replies)


class Native(Model):
    """A model with events of its own, and with a client that it makes when it is needed."""

    def _stream_chat_model_events(self) -> None:
        raise AssertionError("these events are not reserved")

    @functools.cached_property
    def connection(self) -> object:
        return object()


def generation(reply: Any) -> Any:
    """Return a generation, or a chunk, with this message and what is reported beside it; raise an error."""
    message, information = reply if isinstance(reply, tuple) else (reply, None)
    if isinstance(message, BaseException):
        raise message
    return SimpleNamespace(message=message, generation_info=information)


def used(tokens_input: int = 10, tokens_output: int = 5, **details: int) -> dict[str, Any]:
    found: dict[str, Any] = {"input_tokens": tokens_input, "output_tokens": tokens_output}
    return {**found, "input_token_details": details} if details else found


def says(text: Any = "one two", **members: Any) -> AIMessage:
    return AIMessage(text, **{"usage_metadata": used(), **members})


CHUNKS = [
    AIMessageChunk("one ", usage_metadata=used(10, 1, cache_read=4)),
    AIMessageChunk("two"),
    AIMessageChunk("", usage_metadata=used(0, 4), chunk_position="last"),
]
OF_CHUNKS = 6 * 100 + 4 * 10 + 5 * 1_000
WAYS = pytest.mark.parametrize("how", ["invoke", "ainvoke", "stream", "astream"])


@pytest.fixture
def langchain() -> Iterator[Any]:
    yield from imported_with(
        "_langchain_guard",
        module("langchain_core.language_models", BaseChatModel=BaseChatModel),
        module("langchain_core.messages", AIMessage=AIMessage),
        module("langchain_core.messages.ai", add_usage=add_usage),
        module("langchain_core.callbacks", BaseCallbackHandler=object),
        module("langchain_core.tracers.context", register_configure_hook=lambda variable, inheritable: None),
        parts=("_langchain_reported", "_langchain_reading"),
    )


class Guarding:
    """Guards models, and reads what the server has charged."""

    def __init__(self, integration: Any, ledger: Ledger) -> None:
        self.integration, self.ledger = integration, ledger

    def __call__(self, *replies: Any, cls: Any = Model, members: Any = None, **options: Any) -> Any:
        original = cls(replies=list(replies), seen=[], **(members or {}))
        return self.integration.guard(original, **{"client": self.ledger.client, "prices": BOOK, **options})

    def spent(self) -> int:
        return self.ledger.spent("USD_MICROCENTS")

    def reserved(self) -> list[int]:
        return [row.reserved.amount for row in self.ledger.rows() if row.reserved is not None]


@pytest.fixture
def guarding(langchain: Any, ledger: Ledger) -> Guarding:
    return Guarding(langchain, ledger)


# --- What is charged --------------------------------------------------------------------------------------------------


@WAYS
def test_a_call_is_charged_what_it_reports(guarding: Guarding, ledger: Ledger, how: str) -> None:
    streamed = how.endswith("stream")
    model = guarding(*(CHUNKS if streamed else [says()]))
    assert model.call(how) == (["one ", "two", ""] if streamed else ["one two"])
    assert guarding.spent() == (OF_CHUNKS if streamed else EXACT)
    assert [(row.action.kind, row.action.name) for row in ledger.rows()] == [("llm.completion", "m")]
    assert ledger.metadata() == [{}]


@WAYS
def test_a_model_without_a_stream_is_charged_once_for_its_whole_message(
    guarding: Guarding, ledger: Ledger, how: str
) -> None:
    assert guarding(says(), cls=Whole).call(how) == ["one two"]
    assert (guarding.spent(), len(ledger.rows())) == (EXACT, 1)


def test_a_stream_of_its_own_in_async_code_is_guarded_without_a_blocking_one(
    guarding: Guarding, ledger: Ledger
) -> None:
    class Async(Whole):
        async def _astream(self, messages: Any, stop: Any = None, **options: Any) -> AsyncIterator[Any]:
            for each in self.replies:
                yield generation(each)

    model = guarding(*CHUNKS, cls=Async)
    assert model.call("astream") == ["one ", "two", ""]
    assert guarding.spent() == OF_CHUNKS
    assert model.call("stream") == ["one ", "two", ""], "LangChain makes this of a whole response"
    assert len(ledger.rows()) == 2


@WAYS
def test_a_free_host_costs_nothing(guarding: Guarding, ledger: Ledger, how: str) -> None:
    class Local(Model):
        base_url: Any = None
        endpoint: str = "http://gpu:8000"

    model = guarding(says(), cls=Local, free_hosts=["gpu:8000"])
    assert model.call(how) == ["one two"]
    assert guarding.spent() == 0
    assert ledger.metadata() == [{"price_source": "free_host"}]


@WAYS
def test_a_call_inside_a_call_of_the_same_guard_passes(guarding: Guarding, ledger: Ledger, how: str) -> None:
    class Outer(Model):
        def _generate(self, messages: Any, stop: Any = None, **options: Any) -> Any:
            *_, last = self._stream(messages, **options)
            return SimpleNamespace(generations=[last], llm_output=None)

        async def _agenerate(self, messages: Any, stop: Any = None, **options: Any) -> Any:
            return self.whole(messages, options)

        async def _astream(self, messages: Any, stop: Any = None, **options: Any) -> AsyncIterator[Any]:
            for each in (await self._agenerate(messages, **options)).generations:
                yield each

    assert guarding(says(), cls=Outer).call(how) == ["one two"]
    assert (guarding.spent(), len(ledger.rows())) == (EXACT, 1)


def test_a_whole_message_that_a_model_reads_of_its_own_async_stream_is_charged_once(
    guarding: Guarding, ledger: Ledger
) -> None:
    class Streaming(Model):
        async def _agenerate(self, messages: Any, stop: Any = None, **options: Any) -> Any:
            chunks = [each async for each in self._astream(messages, stop, **options)]
            return SimpleNamespace(generations=chunks[-1:], llm_output=None)

    assert guarding(AIMessage("one"), says(), cls=Streaming).call("ainvoke") == ["one two"]
    assert (guarding.spent(), len(ledger.rows())) == (EXACT, 1)


def test_a_call_inside_of_the_opening_of_a_stream_passes(guarding: Guarding, ledger: Ledger) -> None:
    class Eager(Model):
        def _stream(self, messages: Any, stop: Any = None, **options: Any) -> Iterator[Any]:
            return iter(self._generate(messages, stop, **options).generations)

    assert guarding(says(), cls=Eager).call("stream") == ["one two"]
    assert (guarding.spent(), len(ledger.rows())) == (EXACT, 1)


def test_a_guarded_client_inside_of_a_call_reports_instead_of_its_message(guarding: Guarding, ledger: Ledger) -> None:
    from cycles.testing import FakeProvider

    with FakeProvider() as provider, openai.OpenAI(api_key="k", base_url=provider.openai_url) as plain:
        llm = cycles.providers.guard(plain, client=ledger.client, prices=BOOK)

        class Outer(Whole):
            def _generate(self, messages: Any, stop: Any = None, **options: Any) -> Any:
                llm.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
                return self.whole(messages, options)

        provider.reply(model="m", usage={"tokens_input": 30, "tokens_output": 2})
        guarding(says(), cls=Outer).call("invoke")
    assert (guarding.spent(), len(ledger.rows())) == (30 * 100 + 2 * 1_000, 1)


@pytest.mark.parametrize(
    ("reply", "cost"),
    [
        (says(usage_metadata=used(1_000, 5, cache_read=500, cache_creation=300)), 20_000 + 5_000 + 37_500 + 5_000),
        (says(usage_metadata={**used(), "output_token_details": {"flex_reasoning": 2}}), EXACT // 2),
        (says(usage_metadata={**used(), "input_token_details": None, "output_token_details": None}), EXACT),
        (says(response_metadata={"model_name": "served", "model": "m"}), 2 * EXACT),
        (says(response_metadata={"model": "served"}), 2 * EXACT),
        ((says(), {"model_name": "served"}), 2 * EXACT),
        ((says(response_metadata={"model_name": "m"}), {"model_name": "served"}), EXACT),
        (says([{"type": "text", "text": "one"}, {"type": "web_search_call"}]), EXACT + SEARCH),
        (says(response_metadata={"usage": {"server_tool_use": {"web_search_requests": 2}}}), EXACT + 2 * SEARCH),
        (
            says(response_metadata={"grounding_metadata": {"web_search_queries": ["a", "b", "c"]}}),
            EXACT + 3 * SEARCH,
        ),
        (says(response_metadata={"usage": {"input_tokens": 900, "output_tokens": 900}}), EXACT),
    ],
    ids=[
        "caches",
        "tier",
        "no details",
        "name",
        "model",
        "information",
        "message-first",
        "calls",
        "anthropic",
        "google",
        "only-tools",
    ],
)
def test_the_message_and_what_is_beside_it_are_priced(guarding: Guarding, reply: Any, cost: int) -> None:
    guarding(reply).call("invoke")
    assert guarding.spent() == cost


def test_searches_and_the_model_of_early_chunks_are_kept(guarding: Guarding) -> None:
    named = AIMessageChunk("", response_metadata={"model_name": "served"})
    first = AIMessageChunk([{"type": "web_search_call"}])
    middle = AIMessageChunk([{"type": "text", "text": "one"}, {"type": "web_search_call"}], usage_metadata=used())
    guarding(named, first, middle, AIMessageChunk("two")).call("stream")
    assert guarding.spent() == 2 * EXACT + 2 * SEARCH


def test_the_counts_of_several_whole_messages_are_those_of_the_last(guarding: Guarding) -> None:
    guarding(says(usage_metadata=used(10, 0)), says()).call("invoke")
    assert guarding.spent() == EXACT, "each choice of a response repeats the usage of the response"


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 5}, EXACT),
        ({"prompt_tokens": 10, "completion_tokens": -5}, 1_000 + ONE_WORD),
        ({"prompt_tokens": 10, "completion_tokens": "5"}, 1_000 + ONE_WORD),
        ({"prompt_tokens": 20}, 2_000 + ONE_WORD),
        ({"prompt_tokens": 10, "completion_tokens": 0}, 1_000),
    ],
    ids=["counts", "negative", "no-number", "half", "zero"],
)
def test_older_models_report_their_counts_beside_their_messages(guarding: Guarding, usage: Any, cost: int) -> None:
    guarding(AIMessage("one"), members={"output": {"token_usage": usage}}).call("invoke")
    assert guarding.spent() == cost


@WAYS
@pytest.mark.parametrize("beside", [{}, {"token_usage": "many"}], ids=["none", "no-mapping"])
def test_without_counts_the_text_is_charged_and_marked(
    guarding: Guarding, ledger: Ledger, how: str, beside: Any
) -> None:
    cls = AIMessageChunk if how.endswith("stream") else AIMessage
    guarding(cls("one two", response_metadata=beside)).call(how)
    assert 0 < guarding.spent() < 20_000
    assert ledger.metadata() == [{"actual_source": "estimate"}]


def test_a_message_that_cannot_be_read_is_returned_and_logged(
    guarding: Guarding, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    odd = SimpleNamespace(text="one two")
    assert guarding(odd).call("invoke") == ["one two"]
    assert ledger.metadata() == [{"actual_source": "estimate"}]
    assert "the usage of a message of LangChain cannot be read" in caplog.text


@pytest.mark.parametrize(
    ("last", "exact"),
    [
        (AIMessageChunk("", usage_metadata=used(0, 5), chunk_position="last"), True),
        ((AIMessageChunk("", usage_metadata=used(0, 5)), {"finish_reason": "stop"}), True),
        (AIMessageChunk("", usage_metadata=used(0, 5)), False),
    ],
    ids=["position", "reason", "neither"],
)
def test_a_stream_that_breaks_after_its_last_chunk_costs_what_it_reported(
    guarding: Guarding, ledger: Ledger, last: Any, exact: bool
) -> None:
    first = AIMessageChunk("one two three four five six", usage_metadata=used(10, 0))
    model = guarding(first, last, ConnectionError("broken"))
    with pytest.raises(ConnectionError):
        model.call("stream")
    guessed = {"actual_source": "estimate"}
    assert ledger.metadata() == [{"outcome": "error", **({} if exact else guessed)}]
    assert (guarding.spent() == EXACT) is exact


# --- What is reserved and sent ----------------------------------------------------------------------------------------


@WAYS
def test_a_denied_call_sends_nothing_and_says_nothing_secret(guarding: Guarding, how: str) -> None:
    model = guarding(says(), estimate=cycles.usd(1_000))
    with pytest.raises(cycles.BudgetExceededError) as raised:
        model.call(how)
    assert str(raised.value).startswith("The budget does not allow this call (BUDGET_EXCEEDED)")
    assert (model.seen, guarding.spent()) == ([], 0)


@WAYS
def test_an_error_that_is_no_denial_keeps_its_message(guarding: Guarding, ledger: Ledger, how: str) -> None:
    body = {"error": "INVALID_REQUEST", "message": "wrong subject", "request_id": "r"}
    ledger.server.faults.status("reserve", 400, body=body, times=None)
    with pytest.raises(cycles.CyclesError) as raised:
        guarding(says()).call(how)
    assert "wrong subject" in str(raised.value)


@WAYS
def test_a_failing_call_is_released(guarding: Guarding, ledger: Ledger, how: str) -> None:
    with pytest.raises(ConnectionError):
        guarding(ConnectionError("down")).call(how)
    assert [row.status for row in ledger.rows()] == ["RELEASED"]
    assert guarding.spent() == 0


@WAYS
def test_a_cancelled_call_costs_what_was_reserved(guarding: Guarding, ledger: Ledger, how: str) -> None:
    with pytest.raises(asyncio.CancelledError):
        guarding(asyncio.CancelledError()).call(how)
    assert [each["actual_source"] for each in ledger.metadata()] == ["estimate"]
    assert guarding.reserved() == [guarding.spent()]


@pytest.mark.parametrize("how", ["stream", "astream"])
def test_a_stream_that_is_left_is_closed_and_costs_what_was_made(guarding: Guarding, ledger: Ledger, how: str) -> None:
    closed: list[str] = []

    class Closing(Model):
        def _stream(self, messages: Any, stop: Any = None, **options: Any) -> Iterator[Any]:
            try:
                yield from map(generation, self.replies)
            finally:
                closed.append("stream")

        async def _astream(self, messages: Any, stop: Any = None, **options: Any) -> AsyncIterator[Any]:
            try:
                for each in self.replies:
                    yield generation(each)
            finally:
                closed.append("astream")

        async def leave(self) -> None:
            chunks = self._astream([])
            await anext(chunks)
            await chunks.aclose()  # type: ignore[attr-defined]

        def leave_blocking(self) -> None:
            chunks = self._stream([])
            next(chunks)
            chunks.close()  # type: ignore[attr-defined]

    model = guarding(*[AIMessageChunk("one ")] * 9, cls=Closing)
    asyncio.run(model.leave()) if how == "astream" else model.leave_blocking()
    assert closed == [how]
    assert ledger.metadata() == [{"outcome": "closed", "actual_source": "estimate"}]
    assert 0 < guarding.spent() < 20_000


@pytest.mark.parametrize("how", ["stream", "astream"])
@pytest.mark.parametrize("error", [ConnectionResetError(), KeyboardInterrupt()])
def test_a_stream_that_cannot_be_closed_is_settled(
    guarding: Guarding, ledger: Ledger, how: str, error: BaseException
) -> None:
    class Failing(Model):
        def _stream(self, messages: Any, stop: Any = None, **options: Any) -> Iterator[Any]:
            try:
                yield from map(generation, self.replies)
            finally:
                raise error

        async def _astream(self, messages: Any, stop: Any = None, **options: Any) -> AsyncIterator[Any]:
            try:
                for each in self.replies:
                    yield generation(each)
            finally:
                raise error

        async def leave(self) -> None:
            chunks: Any = self._astream([])
            await anext(chunks)
            with pytest.raises(type(error)):
                await chunks.aclose()

        def leave_blocking(self) -> None:
            chunks: Any = self._stream([])
            next(chunks)
            with pytest.raises(type(error)):
                chunks.close()

    model = guarding(*[AIMessageChunk("one ")] * 9, cls=Failing)
    asyncio.run(model.leave()) if how == "astream" else model.leave_blocking()
    assert ledger.metadata() == [{"outcome": "closed", "actual_source": "estimate"}]
    assert 0 < guarding.spent() < 20_000


@WAYS
@pytest.mark.parametrize(
    ("members", "options", "sent"),
    [
        ({"max_tokens": 90}, {}, ({}, 50, None)),
        ({"max_output_tokens": 90}, {}, ({}, None, 50)),
        ({"max_tokens": 20}, {}, ({}, 20, None)),
        ({"max_tokens": True, "max_output_tokens": 90}, {}, ({}, True, 50)),
        ({"max_tokens": 20}, {"max_tokens": 90}, ({"max_tokens": 50}, 20, None)),
        ({"max_tokens": 90}, {"num_predict": 70}, ({"num_predict": 50}, 90, None)),
        ({}, {"num_predict": None, "max_new_tokens": 60}, ({"num_predict": None, "max_new_tokens": 50}, None, None)),
        ({}, {}, ({}, 50, None)),
    ],
    ids=["field", "other-field", "low", "bool", "option", "other-option", "set-option-first", "none"],
)
def test_caps_lower_the_limit_by_the_name_that_is_set(
    guarding: Guarding, ledger: Ledger, how: str, members: Any, options: Any, sent: Any
) -> None:
    ledger.server.ledger.set_budget("tenant:acme", cycles.usd(100), caps={"max_tokens": 50})
    model = guarding(says(), members=members)
    model.call(how, **options)
    assert model.seen == [sent]
    given = [members.get("max_tokens"), members.get("max_output_tokens")]
    assert [model.max_tokens, model.max_output_tokens] == given, "the model of the caller stays"


def test_a_model_without_a_field_for_a_limit_gets_it_as_an_option(guarding: Guarding, ledger: Ledger) -> None:
    class Bare(BaseChatModel):
        model: str = "m"
        replies: list[Any]
        seen: list[Any]

        def _generate(self, messages: Any, stop: Any = None, **options: Any) -> Any:
            self.seen.append(options)
            return SimpleNamespace(generations=list(map(generation, self.replies)), llm_output=None)

    ledger.server.ledger.set_budget("tenant:acme", cycles.usd(100), caps={"max_tokens": 50})
    model = guarding(says(), cls=Bare)
    model.call("invoke", own=1)
    assert model.seen == [{"max_tokens": 50, "own": 1}]
    assert [row.action.name for row in ledger.rows()] == ["m"]


def test_the_estimate_has_the_limit_the_tools_and_each_choice(guarding: Guarding) -> None:
    small = {"members": {"max_tokens": 100}}
    guarding(says(), **small).call("invoke")
    guarding(says(), members={"max_tokens": 900}).call("invoke")
    guarding(says(), **small).call("invoke", n=3)
    guarding(says(), **small).call("invoke", tools=[{"name": "search", "description": "x" * 900}])
    guarding(says(), **small).call("invoke", response_format={"description": "x" * 900})
    first, longer, thrice, tools, shaped = guarding.reserved()
    assert longer - first == 800 * 1_000
    assert thrice - first >= 2 * 100 * 1_000
    assert tools - first >= 100 * 100
    assert shaped - first >= 100 * 100


def test_the_estimate_has_the_messages_and_their_tool_calls(guarding: Guarding) -> None:
    seen: list[Any] = []

    class Asking(Whole):
        def ask(self, *messages: Any) -> None:
            self._generate(messages)

        def _generate(self, messages: Any, stop: Any = None, **options: Any) -> Any:
            return SimpleNamespace(generations=list(map(generation, self.replies)), llm_output=None)

    def estimate(request: cycles.providers.Request) -> cycles.Amount:
        seen.append(request.body)
        return cycles.usd(1)

    calls = [{"name": "search", "args": {"q": "x"}, "id": "1"}]
    model = guarding(says(), cls=Asking, estimate=estimate)
    model.ask(SimpleNamespace(type="human", content="hi"), AIMessage("one", tool_calls=calls))
    assert seen == [
        {
            "model": "m",
            "messages": [
                {"role": "human", "content": "hi", "tool_calls": []},
                {"role": "ai", "content": "one", "tool_calls": calls},
            ],
        }
    ]


def test_prices_are_those_of_the_provider_that_langchain_names(guarding: Guarding) -> None:
    class Claude(Whole):
        def _get_ls_params(self) -> dict[str, Any]:
            return {"ls_provider": "anthropic"}

    named = {"members": {"model_name": "claude-sonnet-4-5"}, "prices": cycles.PriceBook.genai()}
    guarding(says(), cls=Claude, **named).call("invoke")
    assert guarding.spent() == 10 * 300 + 5 * 1_500


# --- The copy ---------------------------------------------------------------------------------------------------------


def test_a_copy_is_a_model_like_the_original(guarding: Guarding, langchain: Any, client: cycles.Cycles) -> None:
    original = Native(replies=[says()], seen=[])
    guarded = langchain.guard(original, client=client, prices=BOOK)
    cls = type(guarded)
    assert (cls.__name__, cls.__qualname__, cls.__module__, cls.__doc__) == (
        Native.__name__,
        Native.__qualname__,
        Native.__module__,
        Native.__doc__,
    )
    assert isinstance(guarded, Native)
    assert guarded.model_dump() == original.model_dump()
    assert type(langchain.guard(original, client=client, prices=BOOK)) is cls
    assert (type(original), vars(original).keys()) == (Native, Native(replies=[]).__dict__.keys())
    assert getattr(guarded, "_stream_chat_model_events", "none") is None, "LangChain uses the reserved stream instead"
    assert not hasattr(guarded, "_astream_chat_model_events")
    original.call("invoke")
    assert guarding.ledger.rows() == []


def test_pickles_and_deep_copies_are_guarded_and_keep_settings_of_the_copy(
    guarding: Guarding, langchain: Any, client: cycles.Cycles
) -> None:
    original = Native(replies=[says()], max_tokens=100)
    assert original.connection is original.connection
    model = langchain.guard(original, client=None, prices=BOOK).model_copy(update={"max_tokens": 7})
    assert model.connection is original.connection
    made: list[Any] = [pickle.loads(pickle.dumps(model)), copy.deepcopy(model)]
    assert [each.max_tokens for each in made] == [7, 7]
    assert ["connection" in vars(each) for each in made] == [False, False], "a copy makes its own client"
    assert [each.replies is model.replies for each in made] == [False, False]
    assert original.max_tokens == 100
    cycles.set_default_client(client)
    try:
        assert [each.call("invoke") for each in made] == [["one two"]] * 2
    finally:
        cycles.set_default_client(None)
    assert guarding.spent() == 2 * EXACT


def test_a_model_with_its_own_client_is_copied_but_not_pickled(guarding: Guarding) -> None:
    model = guarding(says())
    copy.deepcopy(model).call("invoke")
    assert guarding.spent() == EXACT
    with pytest.raises(TypeError, match=r"a guarded Model with client= .* cycles.set_default_client\(\)"):
        pickle.dumps(model)


def test_a_client_that_is_known_is_guarded_itself(guarding: Guarding, ledger: Ledger) -> None:
    from cycles.testing import FakeProvider

    known = type("BaseChatOpenAI", (Whole,), {"__module__": "langchain_openai.chat_models"})

    class OpenAI(known):  # type: ignore[misc, valid-type]
        client: Any = None
        async_client: Any = None

        def _generate(self, messages: Any, stop: Any = None, **options: Any) -> Any:
            self.client.create(model="m", messages=[{"role": "user", "content": "hi"}])
            return self.whole(messages, options)

        def __deepcopy__(self, memo: Any = None) -> Any:
            return copy.copy(self)

    with FakeProvider() as provider, openai.OpenAI(api_key="k", base_url=provider.openai_url) as llm:
        provider.reply(model="m", usage={"tokens_input": 30, "tokens_output": 2})
        inner = llm.chat.completions
        model = guarding(AIMessage("one"), cls=OpenAI, members={"client": inner})
        model.call("invoke")
        with pytest.raises(cycles.InvalidRequestError, match=r"the client of this .*OpenAI is guarded already"):
            guarding(AIMessage("one"), cls=OpenAI, members={"client": model.client})
        again = copy.deepcopy(model)
        assert (again.client is inner, again.client is model.client) == (False, False)
    assert (guarding.spent(), len(ledger.rows())) == (30 * 100 + 2 * 1_000, 1)
    assert type(inner) is type(llm.chat.completions)


def test_two_resources_of_one_client_share_its_guarded_copy(guarding: Guarding) -> None:
    known = type("BaseChatOpenAI", (Whole,), {"__module__": "langchain_openai.chat_models"})

    class OpenAI(known):  # type: ignore[misc, valid-type]
        client: Any = None
        root_client: Any = None

    with openai.OpenAI(api_key="k", base_url="http://localhost:1") as llm:
        members = {"client": llm.chat.completions, "root_client": llm}
        model = guarding(cls=OpenAI, members=members)
        assert vars(model.client)["_client"] is model.root_client
        assert model.root_client is not llm


def test_wrong_models_and_options_are_rejected(guarding: Guarding, langchain: Any) -> None:
    with pytest.raises(cycles.InvalidRequestError, match="must be a chat model of LangChain, got 'm'"):
        langchain.guard("m")
    with pytest.raises(cycles.InvalidRequestError, match=r"this .*Model is guarded already"):
        langchain.guard(guarding(says()))
    with pytest.raises(TypeError, match="unknown option"):
        guarding(says(), ttl=5)


def test_a_class_with_an_unknown_client_is_logged_once(
    guarding: Guarding, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cycles.integrations._metering._reported", set())

    class Strange(Model):
        pass

    caplog.set_level("INFO", logger="cycles")
    for _ in range(2):
        guarding(says(), cls=Strange)
    logged = [(each.levelname, each.getMessage()) for each in caplog.records if "is unknown" in each.getMessage()]
    assert [(level, "Strange is unknown: its calls" in text) for level, text in logged] == [("INFO", True)]
