"""`guard(model)` for chat models of LangChain: any class, all four methods, exact sums, limits, pickling."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import pickle
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import cycles
from tests.integrations.conftest import Ledger, forget_clients_of_langchain, settled
from tests.support.waiting import set_by

pytest.importorskip("langchain", reason="langchain is not installed: run make test-integrations")

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import MessagesState, StateGraph
from pydantic import BaseModel

from cycles.integrations.langchain import CyclesMiddleware, guard
from tests.integrations.langchain_models import TOKENS, Model, SlowModel, StuckModel, says, usage

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore")]

BOOK = cycles.PriceBook({"small-model": cycles.Price(input="1", output="10", cached_input="0.1", cache_write="1.25")})
EXACT = 10 * 100 + 5 * 1_000
"""Microcents of the usage of `says`: 10 tokens in and 5 out."""
Spent = Callable[[], int]


@tool
def search(query: str) -> str:
    """Search."""
    return f"found {query}"


class Answer(BaseModel):
    """An answer."""

    number: int


class Limited(SlowModel):
    """A model with an output limit of its own."""

    max_tokens: int | None = 100
    seen: list[Any]

    def _next(self, options: dict[str, Any]) -> Any:
        self.seen.append(self.max_tokens)
        return super()._next(options)


@pytest.fixture
def guarded(client: cycles.Cycles) -> Callable[..., Any]:
    def guarded(model: Any, **options: Any) -> Any:
        return guard(model, **{"client": client, "prices": BOOK, **options})

    return guarded


@pytest.fixture
def spent(ledger: Ledger) -> Spent:
    return lambda: ledger.spent("USD_MICROCENTS")


async def read(model: Any, how: str, question: str = "hi") -> Any:
    """Call a model one of four ways, and return its message."""
    if how == "invoke":
        return await asyncio.to_thread(model.invoke, question)
    if how == "ainvoke":
        return await model.ainvoke(question)
    found = None
    if how == "stream":
        for chunk in await asyncio.to_thread(lambda: list(model.stream(question))):
            found = chunk if found is None else found + chunk
    else:
        async for chunk in model.astream(question):
            found = chunk if found is None else found + chunk
    return found


WAYS = ["invoke", "ainvoke", "stream", "astream"]


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("cls", [Model, SlowModel])
async def test_each_call_is_charged_what_it_reports(
    how: str, cls: Any, guarded: Any, spent: Spent, ledger: Ledger
) -> None:
    model = cls(replies=[says("one two")])
    copied = guarded(model)
    message = await read(copied, how)
    assert message.text.split() == ["one", "two"]
    assert spent() == EXACT
    [row] = ledger.rows()
    assert (row.action.kind, row.action.name) == ("llm.completion", "small-model")
    assert ledger.metadata() == [{}]
    await read(model, how)
    assert len(ledger.rows()) == 1


async def test_all_counts_are_priced(guarded: Any, spent: Spent) -> None:
    reply = says(tokens=usage(1_000, 10, cache_read=500, cache_creation=300))
    await read(guarded(Model(replies=[reply])), "invoke")
    assert spent() == 200 * 100 + 500 * 10 + 300 * 125 + 10 * 1_000


async def test_counts_of_several_chunks_are_added(guarded: Any, spent: Spent) -> None:
    class Parts(Model):
        """The first chunk reports the input and the last one the output, as Claude does."""

        def _stream(self, messages: Any, stop: Any = None, run_manager: Any = None, **options: Any) -> Iterator[Any]:
            yield ChatGenerationChunk(message=AIMessageChunk("", usage_metadata=usage(10, 0, cache_read=4)))
            yield ChatGenerationChunk(message=AIMessageChunk("one "))
            yield ChatGenerationChunk(message=AIMessageChunk("two", usage_metadata=usage(0, 5)))

    for how in ("stream", "astream"):
        await read(guarded(Parts(replies=[])), how)
    assert spent() == 2 * (6 * 100 + 4 * 10 + 5 * 1_000)


async def test_usage_beside_the_message_is_read(guarded: Any, spent: Spent) -> None:
    class Older(Model):
        def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **options: Any) -> ChatResult:
            used = {"token_usage": {"prompt_tokens": 10, "completion_tokens": 5}}
            return ChatResult(generations=[ChatGeneration(message=AIMessage("done"))], llm_output=used)

    await read(guarded(Older(replies=[])), "invoke")
    assert spent() == EXACT


@pytest.mark.parametrize("how", WAYS)
async def test_without_usage_the_text_is_charged_and_marked(
    how: str, guarded: Any, spent: Spent, ledger: Ledger
) -> None:
    class Silent(Model):
        def _generate(self, *_: Any, **options: Any) -> ChatResult:
            return ChatResult(generations=[ChatGeneration(message=AIMessage("one two"))])

        def _stream(self, *_: Any, **options: Any) -> Iterator[Any]:
            yield ChatGenerationChunk(message=AIMessageChunk("one two"))

    await read(guarded(Silent(replies=[])), how)
    assert 0 < spent() < 100_000
    assert ledger.metadata() == [{"actual_source": "estimate"}]


async def test_thirty_calls_in_parallel(guarded: Any, spent: Spent) -> None:
    model = guarded(SlowModel(replies=[says()]))
    await asyncio.gather(*(read(model, WAYS[n % 4]) for n in range(30)))
    assert spent() == 30 * EXACT


@pytest.mark.parametrize("how", WAYS)
async def test_a_denied_call_raises_and_sends_nothing(how: str, guarded: Any, spent: Spent) -> None:
    model = Model(replies=[says()])
    copied = guarded(model, estimate=cycles.usd(500))
    with pytest.raises(cycles.BudgetExceededError):
        await read(copied, how)
    assert copied.asked == model.asked == []
    assert spent() == 0


@pytest.mark.parametrize("how", WAYS)
async def test_a_failing_call_is_released(how: str, guarded: Any, spent: Spent) -> None:
    with pytest.raises(ConnectionError):
        await read(guarded(SlowModel(replies=[ConnectionError("down")])), how)
    assert spent() == 0


@pytest.mark.parametrize("how", ["stream", "astream"])
async def test_a_stream_that_breaks_off_costs_what_was_made(
    how: str, guarded: Any, spent: Spent, ledger: Ledger
) -> None:
    with pytest.raises(ConnectionError):
        await read(guarded(SlowModel(replies=[says("one two BREAK")])), how)
    assert 0 < spent() < 100_000
    assert ledger.metadata() == [{"outcome": "error", "actual_source": "estimate"}]


async def test_a_stream_that_is_left_early_costs_what_was_made(
    guarded: Any, client: cycles.Cycles, spent: Spent, ledger: Ledger
) -> None:
    model = guarded(SlowModel(replies=[says("one " * 100)]))
    stream = model.astream("hi")
    await anext(stream)
    await stream.aclose()
    for _ in model.stream("hi"):
        break
    await settled(client)
    assert 0 < spent() < 100_000
    assert ledger.metadata() == [{"outcome": "closed", "actual_source": "estimate"}] * 2


@pytest.mark.parametrize("how", ["ainvoke", "astream"])
async def test_a_cancelled_call_costs_what_was_reserved(how: str, guarded: Any, spent: Spent, ledger: Ledger) -> None:
    called = asyncio.Event()

    class Waiting(StuckModel):
        async def _agenerate(self, *_: Any, **options: Any) -> Any:
            called.set()
            await asyncio.Event().wait()

        async def _astream(self, *_: Any, **options: Any) -> AsyncIterator[Any]:
            called.set()
            await asyncio.Event().wait()
            yield ChatGenerationChunk(message=AIMessageChunk(""))

    task = asyncio.create_task(read(guarded(Waiting(replies=[])), how))
    await set_by(task, called)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    [row] = ledger.rows()
    assert row.reserved is not None
    assert spent() == row.reserved.amount
    assert [each["actual_source"] for each in ledger.metadata()] == ["estimate"]


@pytest.mark.parametrize("how", WAYS)
async def test_caps_lower_the_limit_of_the_model_on_a_copy(how: str, guarded: Any, server: Any, spent: Spent) -> None:
    server.ledger.set_budget("tenant:acme", cycles.usd(1), caps={"max_tokens": 7})
    model = Limited(replies=[says()], seen=[])
    limited = guarded(model)
    await read(limited, how)
    assert model.seen == [7]
    assert (model.max_tokens, limited.max_tokens) == (100, 100)
    await read(guarded(model).bind(max_tokens=5), how)
    assert model.asked[-1] == {"max_tokens": 5}
    other = guarded(Model(replies=[says()]))
    await read(other, how)
    assert other.asked == [{"max_tokens": 7}]
    assert spent() == 3 * EXACT


async def test_a_limit_is_lowered_so_that_the_call_fits(guarded: Any, server: Any, spent: Spent) -> None:
    server.ledger.set_budget("tenant:acme", cycles.usd("0.02"))
    model = Limited(replies=[says()], seen=[], max_tokens=50_000)
    await read(guarded(model), "invoke")
    [limit] = model.seen
    assert 1_024 <= limit < 2_000
    assert spent() == EXACT


async def test_a_call_inside_a_call_is_charged_once(guarded: Any, spent: Spent, ledger: Ledger) -> None:
    class Streaming(Model):
        """A model whose whole responses are streams, as many are."""

        def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **options: Any) -> ChatResult:
            *_, last = self._stream(messages, **options)
            return ChatResult(
                generations=[ChatGeneration(message=AIMessage("done", usage_metadata=last.message.usage_metadata))]
            )

    for how in WAYS:
        await read(guarded(Streaming(replies=[says()])), how)
    assert spent() == 4 * EXACT
    assert len(ledger.rows()) == 4


@pytest.mark.parametrize("how", ["invoke", "astream"])
async def test_inside_the_middleware_it_is_charged_once(
    how: str, guarded: Any, client: cycles.Cycles, spent: Spent, ledger: Ledger
) -> None:
    middleware: Any = CyclesMiddleware(client, model_budget=cycles.usd(1), model_actual=BOOK)
    agent: Any = create_agent(guarded(SlowModel(replies=[says()])), [], middleware=[middleware])
    messages: Any = {"messages": [("user", "hi")]}
    if how == "invoke":
        await asyncio.to_thread(agent.invoke, messages)
    else:
        async for _ in agent.astream(messages, stream_mode="messages"):
            pass
    assert spent() == EXACT
    assert len(ledger.rows()) == 1


async def test_a_guarded_client_inside_pays_nothing_itself(guarded: Any, client: cycles.Cycles, spent: Spent) -> None:
    openai: Any = pytest.importorskip("openai")
    from cycles.testing import FakeProvider

    with FakeProvider() as provider:
        llm = cycles.providers.guard(
            openai.OpenAI(api_key="k", base_url=provider.openai_url), client=client, prices=BOOK
        )

        class Outer(Model):
            def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **options: Any) -> ChatResult:
                llm.chat.completions.create(model="small-model", messages=[{"role": "user", "content": "hi"}])
                return ChatResult(generations=[ChatGeneration(message=says())])

        provider.reply(model="small-model", usage={"tokens_input": 30, "tokens_output": 2})
        with contextlib.closing(llm):
            await read(guarded(Outer(replies=[])), "invoke")
    assert spent() == 30 * 100 + 2 * 1_000


async def test_a_node_of_langgraph_with_a_checkpointer(guarded: Any, spent: Spent) -> None:
    model = guarded(Model(replies=[says()]))

    async def node(state: MessagesState) -> Any:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph: Any = StateGraph(MessagesState)
    graph.add_node("model", node)
    graph.set_entry_point("model")
    agent = graph.compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    for _ in range(2):
        result = await agent.ainvoke({"messages": [("user", "hi")]}, config)
    assert len(result["messages"]) == 4
    assert spent() == 2 * EXACT


async def test_it_is_a_model_like_the_original(guarded: Any, spent: Spent) -> None:
    class Structured(Model):
        def with_structured_output(self, schema: Any, **options: Any) -> Any:
            return self | (lambda message: schema(number=int(message.text)))

    model = Structured(replies=[says("4")])
    copied = guarded(model)
    assert isinstance(copied, Structured)
    assert (type(copied).__name__, type(copied).__module__) == ("Structured", Structured.__module__)
    assert copied.model_dump() == model.model_dump()
    assert repr(copied) == repr(model)
    assert "_cycles_guarded" not in vars(model)
    assert copied.with_structured_output(Answer).invoke("hi").number == 4
    copied.bind_tools([search]).invoke("hi")
    assert model.asked[-1]["tools"] == ["search"]
    failing = guarded(Model(replies=[ConnectionError()]))
    assert failing.with_fallbacks([copied]).invoke("hi").text == "4"
    assert copied.model_copy(update={"model_name": "small-model"}).invoke("hi").text == "4"
    assert spent() == 4 * EXACT


async def test_it_can_be_pickled(client: cycles.Cycles, ledger: Ledger) -> None:
    copied: Any = pickle.loads(pickle.dumps(guard(Model(replies=[says()]), prices=BOOK)))
    cycles.set_default_client(client)
    try:
        copied.invoke("hi")
    finally:
        cycles.set_default_client(None)
    assert ledger.spent("USD_MICROCENTS") == EXACT


@pytest.mark.parametrize("copied_by", [copy.deepcopy, lambda model: model.model_copy(deep=True)])
async def test_a_deep_copy_is_guarded_by_the_same_client(
    copied_by: Any, guarded: Any, spent: Spent, client: cycles.Cycles
) -> None:
    model = guarded(Model(replies=[says(), says()], asked=[]))
    copied = copied_by(model)
    assert copied.replies is not model.replies
    copied.invoke("hi")
    assert spent() == EXACT
    with pytest.raises(cycles.InvalidRequestError, match="guarded already"):
        guard(copied, client=client, prices=BOOK)


async def test_pickles_and_deep_copies_have_the_settings_of_the_guarded_model() -> None:
    model = guard(Limited(replies=[says()], seen=[]), prices=BOOK).model_copy(update={"max_tokens": 7})
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert copied.max_tokens == 7


async def test_a_pickle_of_a_model_with_its_own_client_says_what_to_do(guarded: Any) -> None:
    with pytest.raises(TypeError, match=r"without client=.*cycles.set_default_client\(\) in each process"):
        pickle.dumps(guarded(Model(replies=[says()])))


async def test_a_model_with_a_known_client_can_be_pickled_if_the_original_can(client: cycles.Cycles) -> None:
    anthropic: Any = pytest.importorskip("langchain_anthropic")
    from cycles.testing import FakeProvider

    with FakeProvider() as provider:
        original = anthropic.ChatAnthropic(model="claude-sonnet-4-5", api_key="k", base_url=provider.anthropic_url)
        copied: Any = pickle.loads(pickle.dumps(guard(original, prices=cycles.PriceBook.genai())))
        assert isinstance(copied, anthropic.ChatAnthropic)
        cycles.set_default_client(client)
        provider.reply(usage={"tokens_input": 10, "tokens_output": 5})
        try:
            copied.invoke("hi")
        finally:
            cycles.set_default_client(None)
            copied._client.close()
            forget_clients_of_langchain()
    [row] = client.reservations(status="COMMITTED")
    assert row.committed is not None
    assert row.committed.amount == 10 * 300 + 5 * 1_500


def test_events_of_a_model_that_makes_them_itself_are_made_of_its_stream(guarded: Any) -> None:
    class Native(SlowModel):
        def _stream_chat_model_events(self, *_: Any, **options: Any) -> Any:
            raise AssertionError("this stream is not reserved")

    assert getattr(guarded(Native(replies=[says()])), "_stream_chat_model_events", "none") is None


async def test_the_class_of_an_unknown_client_is_reported_once(guarded: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Strange(Model):
        pass

    caplog.set_level("INFO")
    for _ in range(2):
        guarded(Strange(replies=[says()])).invoke("hi")
    [record] = [each for each in caplog.records if "is unknown" in each.message]
    assert record.levelname == "INFO"
    assert "Strange" in record.message


def test_wrong_values_are_rejected_when_the_model_is_guarded(guarded: Any) -> None:
    model = Model(replies=[says()])
    with pytest.raises(TypeError, match="unknown option 'ttl'"):
        guarded(model, ttl=5)
    wrong: Any
    for wrong in ({"wait": -1}, {"estimate": 5}, {"client": "c"}, {"unit": "EUR"}, {"ttl_ms": -1}):
        with pytest.raises(cycles.InvalidRequestError):
            guarded(model, **wrong)
    with pytest.raises(cycles.InvalidRequestError, match="guarded already"):
        guarded(guarded(model))
    with pytest.raises(cycles.InvalidRequestError, match="must be a chat model"):
        guarded(search)


async def test_a_model_without_a_price_is_denied_before_it_is_called(guarded: Any) -> None:
    model = Model(replies=[says()], model_name="teleporter")
    with pytest.raises(cycles.UnknownModelError, match="teleporter"):
        await read(guarded(model), "invoke")
    assert model.asked == []


async def test_budgets_in_tokens_need_no_price(guarded: Any, ledger: Ledger) -> None:
    model = Limited(replies=[says()], seen=[], model_name="teleporter")
    await read(guarded(model, prices=None, unit="TOKENS"), "astream")
    assert ledger.spent() == TOKENS(15).amount


async def test_a_free_host_costs_nothing(guarded: Any, spent: Spent, ledger: Ledger) -> None:
    class Local(Model):
        base_url: str = "http://localhost:11434"

    await read(guarded(Local(replies=[says()], model_name="teleporter"), free_hosts=["localhost:11434"]), "ainvoke")
    assert spent() == 0
    assert ledger.metadata() == [{"price_source": "free_host"}]
