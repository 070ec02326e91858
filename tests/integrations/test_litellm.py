"""LiteLLM under guards: sums, streams, denials, caps, retries, Router, and DSPy on top of it; the provider is fake."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # it downloads prices when it is imported
pytest.importorskip("litellm", reason="litellm is not installed: run make test-integrations")

import litellm
import openai

import cycles
from cycles.integrations.litellm import install
from cycles.testing import FakeProvider
from tests.integrations.conftest import Ledger, settled
from tests.support.waiting import set_by, until

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("closed_http_clients"), pytest.mark.filterwarnings("ignore")]

BOOK = cycles.PriceBook.genai()
MESSAGES = [{"role": "user", "content": "hi"}]
USED = {"tokens_input": 1_000, "tokens_output": 300}
CACHED = {"tokens_input": 3_700, "tokens_cached_input": 2_000, "tokens_cache_write": 700, "tokens_cache_write_1h": 400}
GPT, CLAUDE, GEMINI = "openai/gpt-5", "anthropic/claude-sonnet-4-5", "gemini/gemini-2.5-flash"
EXACT = 1_000 * 125 + 300 * 1_000
"""Microcents of `USED` by gpt-5."""
Spent = Callable[[], int]


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider() as provider:
        yield provider


@pytest.fixture
def installed(client: cycles.Cycles) -> Iterator[Callable[..., Any]]:
    made: list[Any] = []

    def installed(**options: Any) -> Any:
        given = {"client": client, "model_budget": cycles.usd(1), "model_actual": BOOK, **options}
        made.append(install(**given))
        return made[-1]

    yield installed
    for each in made:
        each.remove()


@pytest.fixture
def spent(ledger: Ledger) -> Spent:
    return lambda: ledger.spent("USD_MICROCENTS")


@pytest.fixture
def ask(provider: FakeProvider) -> Callable[..., Any]:
    """Call a model one of four ways; a stream is read to its end. Returns the response, or the chunks."""

    def arguments(model: str, **options: Any) -> dict[str, Any]:
        of = model.partition("/")[0]
        bases = {"openai": provider.openai_url, "anthropic": provider.anthropic_url, "gemini": provider.google_url}
        base = bases.get(of, f"{provider.url}/{of}/openai/v1")
        return {"model": model, "messages": MESSAGES, "api_base": base, "api_key": "k", "max_retries": 0, **options}

    async def ask(how: str = "acompletion", model: str = GPT, **options: Any) -> Any:
        given = arguments(model, **options)
        if how == "completion":
            return await asyncio.to_thread(litellm.completion, **given)
        if how == "acompletion":
            return await litellm.acompletion(**given)
        if how == "stream":
            return await asyncio.to_thread(lambda: list(litellm.completion(**given, stream=True)))
        return [chunk async for chunk in await litellm.acompletion(**given, stream=True)]

    ask.arguments = arguments  # type: ignore[attr-defined]
    return ask


WAYS = ["completion", "acompletion", "stream", "astream"]


def words(chunks: Any) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


@pytest.mark.parametrize("how", WAYS)
async def test_each_call_is_charged_what_it_reports(
    how: str, installed: Any, ask: Any, provider: FakeProvider, spent: Spent, ledger: Ledger
) -> None:
    installed()
    provider.reply(text="one two", usage=USED)
    found = await ask(how)
    assert (words(found) if "stream" in how else found.choices[0].message.content) == "one two"
    assert spent() == EXACT
    [row] = ledger.rows()
    assert (row.action.kind, row.action.name) == ("llm.completion", "gpt-5")
    assert ledger.metadata() == [{}]


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize(
    ("model", "reply", "cost"),
    [
        (GPT, {"usage": {**USED, "tokens_cached_input": 800}}, 200 * 125 + 800 * 12.5 + 300 * 1_000),
        (GPT, {"usage": {**USED, "tokens_reasoning": 200}}, EXACT),
        (GPT, {"usage": USED, "extra": {"service_tier": "priority"}}, 1_000 * 250 + 300 * 2_000),
        (CLAUDE, {"usage": {**CACHED, "tokens_output": 500}}, 300_000 + 60_000 + 300 * 375 + 400 * 600 + 750_000),
        (CLAUDE, {"usage": {**USED, "web_searches": 2}}, 300_000 + 450_000 + 2 * 1_000_000),
        (GEMINI, {"usage": USED}, 1_000 * 30 + 300 * 250),
        ("groq/openai/gpt-oss-120b", {"usage": USED}, 1_000 * 15 + 300 * 60),
    ],
)
async def test_the_amount_is_that_of_a_guarded_client(
    how: str, model: str, reply: Any, cost: float, installed: Any, ask: Any, provider: FakeProvider, spent: Spent
) -> None:
    installed()
    provider.reply(text="one two", **reply)
    await ask(how, model)
    assert spent() == cost


@pytest.mark.parametrize("function", ["responses", "aresponses", "responses stream", "aresponses stream"])
async def test_responses_are_charged_with_their_searches(
    function: str, installed: Any, provider: FakeProvider, spent: Spent
) -> None:
    installed()
    provider.reply(usage={**USED, "tokens_cached_input": 200, "web_searches": 2}, extra={"service_tier": "priority"})
    given: Any = {"model": GPT, "input": "hi", "api_base": provider.openai_url, "api_key": "k"}
    if function == "responses":
        await asyncio.to_thread(litellm.responses, **given)
    elif function == "responses stream":
        await asyncio.to_thread(lambda: list(litellm.responses(**given, stream=True)))
    elif function == "aresponses":
        await litellm.aresponses(**given)
    else:
        assert [event async for event in await litellm.aresponses(**given, stream=True)]
    assert spent() == 2_805_000


async def test_embeddings_and_text_completions_are_charged(
    installed: Any, provider: FakeProvider, spent: Spent, ledger: Ledger
) -> None:
    installed(model_budget="book")
    where: Any = {"api_base": provider.openai_url, "api_key": "k"}
    provider.reply(usage={"tokens_input": 1_000}, times=2)
    await litellm.aembedding("openai/text-embedding-3-small", ["hi"], **where)
    await asyncio.to_thread(litellm.embedding, "openai/text-embedding-3-small", ["hi"], **where)
    assert spent() == 2 * 2_000
    assert [row.action.kind for row in ledger.rows()] == ["llm.embedding"] * 2
    provider.reply(usage=USED, times=2)
    complete: Any = {"model": "openai/gpt-3.5-turbo-instruct", "prompt": "hi", **where}
    await asyncio.to_thread(lambda: litellm.text_completion(**complete))
    assert [chunk async for chunk in await litellm.atext_completion(**complete, stream=True)]
    assert spent() == 2 * 2_000 + 2 * (1_000 * 150 + 300 * 200)


async def test_the_book_reserves_the_upper_bound(
    installed: Any, ask: Any, provider: FakeProvider, ledger: Ledger
) -> None:
    installed(model_budget="book")
    provider.reply(usage=USED)
    await ask(max_tokens=1_000)
    [row] = ledger.rows()
    assert 1_000 * 1_000 < row.reserved.amount < 1_000 * 1_000 + 100_000
    assert row.committed is not None
    assert row.committed.amount == EXACT


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("how", ["stream", "astream"])
async def test_the_usage_chunk_is_hidden_if_the_caller_did_not_ask_for_it(
    how: str, asked: bool, installed: Any, ask: Any, provider: FakeProvider, spent: Spent
) -> None:
    installed()
    provider.reply(usage=USED)
    chunks = await ask(how, **({"stream_options": {"include_usage": True}} if asked else {}))
    assert [bool(getattr(chunk, "usage", None)) for chunk in chunks].count(True) == asked
    assert provider.requests[-1].body["stream_options"] == {"include_usage": True}
    assert spent() == EXACT


async def test_a_stream_is_one_of_litellm(installed: Any, ask: Any, provider: FakeProvider) -> None:
    installed()
    stream = await litellm.acompletion(**ask.arguments(GPT), stream=True)
    assert isinstance(stream, litellm.CustomStreamWrapper)
    assert stream.custom_llm_provider == "openai"
    async for _ in stream:
        pass
    whole = litellm.stream_chunk_builder(list(litellm.completion(**ask.arguments(GPT), stream=True)))
    assert whole.choices[0].message.content


async def test_thirty_calls_in_parallel(installed: Any, ask: Any, provider: FakeProvider, spent: Spent) -> None:
    installed()
    provider.reply(usage=USED, times=30)
    await asyncio.gather(*(ask(WAYS[n % 4]) for n in range(30)))
    assert spent() == 30 * EXACT


@pytest.mark.parametrize("how", WAYS)
async def test_a_denied_call_raises_and_sends_nothing(
    how: str, installed: Any, ask: Any, provider: FakeProvider, spent: Spent
) -> None:
    installed(model_budget=cycles.usd(500))
    with pytest.raises(cycles.BudgetExceededError, match="Do not try it again"):
        await ask(how, num_retries=3)
    assert provider.requests == []
    assert spent() == 0


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("on_denied", ["message", lambda error, call: f"no money for {call.model}"])
async def test_a_denied_call_can_be_a_message(
    how: str, on_denied: Any, installed: Any, ask: Any, provider: FakeProvider, spent: Spent
) -> None:
    installed(model_budget=cycles.usd(500), on_denied=on_denied)
    found = await ask(how)
    text = words(found) if "stream" in how else found.choices[0].message.content
    assert ("no money for gpt-5" if callable(on_denied) else "BUDGET_EXCEEDED") in text
    assert "acme" not in text
    assert provider.requests == []
    assert spent() == 0


@pytest.mark.parametrize("how", WAYS)
async def test_caps_lower_the_output_limit_and_hide_tools(
    how: str, installed: Any, ask: Any, provider: FakeProvider, server: Any
) -> None:
    server.ledger.set_budget("tenant:acme", cycles.usd(9), caps={"max_tokens": 7, "tool_denylist": ["delete"]})
    installed()
    tools = [
        {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}
        for name in ("search", "delete")
    ]
    await ask(how, max_tokens=50, tools=tools)
    body = provider.requests[-1].body
    assert 7 in (body.get("max_tokens"), body.get("max_completion_tokens"))
    assert [each["function"]["name"] for each in body["tools"]] == ["search"]


@pytest.mark.parametrize("how", WAYS)
async def test_a_failing_call_is_released(
    how: str, installed: Any, ask: Any, provider: FakeProvider, spent: Spent
) -> None:
    installed()
    provider.reply(status=400)
    with pytest.raises(litellm.exceptions.BadRequestError):
        await ask(how)
    assert spent() == 0


async def test_each_retry_has_its_own_reservation(
    installed: Any, ask: Any, provider: FakeProvider, spent: Spent, ledger: Ledger
) -> None:
    installed()
    for how in ("completion", "acompletion"):
        provider.reply(status=500).reply(usage=USED)
        await ask(how, num_retries=2)
    assert spent() == 2 * EXACT
    assert [str(row.status) for row in ledger.rows()] == ["RELEASED", "COMMITTED"] * 2


async def test_each_fallback_has_its_own_reservation(
    installed: Any, ask: Any, provider: FakeProvider, spent: Spent, ledger: Ledger
) -> None:
    installed()
    provider.reply(status=400).reply(usage=USED, model="gpt-5-mini")
    await ask(fallbacks=["openai/gpt-5-mini"])
    assert spent() == EXACT // 5
    assert [(row.action.name, str(row.status)) for row in ledger.rows()] == [
        ("gpt-5", "RELEASED"),
        ("gpt-5-mini", "COMMITTED"),
    ]


@pytest.mark.parametrize("how", WAYS)
async def test_each_attempt_of_the_router_has_its_own_reservation(
    how: str, installed: Any, provider: FakeProvider, spent: Spent, ledger: Ledger
) -> None:
    installed()
    where = {"api_base": provider.openai_url, "api_key": "k"}
    models = [
        {"model_name": name, "litellm_params": {"model": f"openai/{name}", **where}} for name in ("gpt-5", "gpt-5-mini")
    ]
    router = litellm.Router(model_list=models, fallbacks=[{"gpt-5": ["gpt-5-mini"]}], num_retries=1, retry_after=0)
    provider.reply(status=500, times=2).reply(usage=USED, model="gpt-5-mini")
    given: Any = {"model": "gpt-5", "messages": MESSAGES, "stream": "stream" in how}
    if how in ("completion", "stream"):
        response = await asyncio.to_thread(router.completion, **given)
        if given["stream"]:
            await asyncio.to_thread(list, response)
    else:
        response = await router.acompletion(**given)
        if given["stream"]:
            assert [chunk async for chunk in response]
    assert spent() == EXACT // 5
    attempts = [(row.action.name, str(row.status)) for row in ledger.rows()]
    assert attempts == [*[("gpt-5", "RELEASED")] * (provider.count() - 1), ("gpt-5-mini", "COMMITTED")]
    assert len(attempts) == 3


@pytest.mark.parametrize("how", ["completion", "acompletion"])
async def test_retries_of_a_deployment_are_made_by_the_router_alone(
    how: str, installed: Any, provider: FakeProvider, spent: Spent, ledger: Ledger
) -> None:
    installed()
    where = {"model": "openai/gpt-5", "api_base": provider.openai_url, "api_key": "k", "num_retries": 2}
    models = [{"model_name": "gpt-5", "litellm_params": {**where, "max_retries": 0}}]
    router = litellm.Router(model_list=models, num_retries=1, retry_after=0)
    provider.reply(status=500, times=9)
    with pytest.raises(litellm.exceptions.InternalServerError):
        if how == "completion":
            await asyncio.to_thread(router.completion, "gpt-5", MESSAGES)
        else:
            await router.acompletion("gpt-5", MESSAGES)
    assert provider.count() == 3
    assert [str(row.status) for row in ledger.rows()] == ["RELEASED"] * 3
    assert spent() == 0


async def test_a_denial_in_the_router_is_raised(installed: Any, provider: FakeProvider, spent: Spent) -> None:
    installed(model_budget=cycles.usd(500))
    where = {"model": "openai/gpt-5", "api_base": provider.openai_url, "api_key": "k"}
    router = litellm.Router(model_list=[{"model_name": "gpt-5", "litellm_params": where}], num_retries=0)
    with pytest.raises(cycles.BudgetExceededError):
        await router.acompletion(model="gpt-5", messages=MESSAGES)
    assert provider.requests == []
    assert spent() == 0


@pytest.mark.parametrize("ends", ["closed", "dropped"])
@pytest.mark.parametrize("how", ["stream", "astream"])
async def test_a_stream_that_is_left_early_costs_what_was_made(
    how: str, ends: str, installed: Any, ask: Any, provider: FakeProvider, client: Any, spent: Spent, ledger: Ledger
) -> None:
    installed()
    provider.reply(text="one two three four " * 20, usage=USED)
    if how == "stream":

        def read() -> None:
            stream = litellm.completion(**ask.arguments(GPT), stream=True)
            next(stream)
            if ends == "closed":
                stream.close()

        await asyncio.to_thread(read)
    else:
        stream = await litellm.acompletion(**ask.arguments(GPT), stream=True)
        await anext(stream)
        if ends == "closed":
            await stream.aclose()
        del stream  # the event loop closes its generators
    await settled(client)
    assert 0 < spent() < EXACT
    assert ledger.metadata() == [{"outcome": "closed", "actual_source": "estimate"}]


@pytest.mark.parametrize("how", ["stream", "astream"])
async def test_a_stream_that_breaks_off_costs_what_was_made(
    how: str, installed: Any, ask: Any, provider: FakeProvider, spent: Spent, ledger: Ledger
) -> None:
    installed()
    provider.reply(text="one two three four five", usage=USED, drop_after=4)
    with pytest.raises(Exception) as raised:
        await ask(how)
    assert not isinstance(raised.value, cycles.CyclesError)
    assert 0 < spent() < EXACT
    assert ledger.metadata() == [{"outcome": "error", "actual_source": "estimate"}]


@pytest.mark.parametrize("budget", ["book", cycles.usd(1)])
@pytest.mark.parametrize("how", ["acompletion", "astream"])
@pytest.mark.parametrize("model", [GPT, GEMINI])
async def test_a_call_that_is_cancelled_in_flight_costs_what_was_reserved(
    model: str, how: str, budget: Any, installed: Any, ask: Any, provider: FakeProvider, spent: Spent, ledger: Ledger
) -> None:
    installed(model_budget=budget)
    gate = threading.Event()
    provider.reply(text="one two", usage=USED, gate=gate)
    task = asyncio.create_task(ask(how, model, max_tokens=500))
    try:
        await asyncio.to_thread(until, lambda: provider.requests)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    finally:
        gate.set()
    [row] = ledger.rows()
    assert row.reserved is not None
    assert spent() == row.reserved.amount > 0
    assert ledger.metadata() == [{"outcome": "error", "attempts": 1, "actual_source": "estimate"}]


@pytest.mark.parametrize("budget", ["book", cycles.usd(1)])
@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("model", [GPT, CLAUDE, GEMINI])
async def test_a_call_whose_response_is_lost_costs_what_was_reserved(
    model: str, how: str, budget: Any, installed: Any, ask: Any, provider: FakeProvider, spent: Spent, ledger: Ledger
) -> None:
    installed(model_budget=budget)
    provider.reply(usage=USED, drop_after=0)
    with pytest.raises(openai.APIError):
        await ask(how, model, max_tokens=500)
    [row] = ledger.rows()
    assert row.reserved is not None
    assert spent() == row.reserved.amount > 0
    assert ledger.metadata() == [{"outcome": "error", "attempts": 1, "actual_source": "estimate"}]


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("model", [GPT, CLAUDE, GEMINI])
async def test_a_call_that_reaches_no_provider_is_released(
    model: str, how: str, installed: Any, ask: Any, spent: Spent
) -> None:
    installed()
    with socket.socket() as taken:  # bound, and nothing listens
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(openai.APIError):
            await ask(how, model, api_base=f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert spent() == 0


async def test_a_cancelled_stream_costs_what_was_made(
    installed: Any, ask: Any, provider: FakeProvider, client: cycles.Cycles, spent: Spent, ledger: Ledger
) -> None:
    installed()
    gate, began = threading.Event(), asyncio.Event()
    provider.reply(text="one two three four five", usage=USED, gate=gate, gate_after=4)

    async def read() -> None:
        async for _ in await litellm.acompletion(**ask.arguments(GPT), stream=True):
            began.set()

    task = asyncio.create_task(read())
    try:
        await set_by(task, began)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    finally:
        gate.set()
    await settled(client)
    assert 0 < spent() < EXACT
    assert ledger.metadata() == [{"outcome": "closed", "actual_source": "estimate"}]


async def test_a_cached_response_costs_nothing(installed: Any, ask: Any, monkeypatch: Any, spent: Spent) -> None:
    def cached(**arguments: Any) -> Any:
        response = litellm.ModelResponse(model="gpt-5", usage=litellm.Usage(prompt_tokens=10, completion_tokens=5))
        response._hidden_params = {"cache_hit": True}
        return response

    monkeypatch.setattr(litellm, "completion", cached)
    installed()
    assert (await ask("completion")).usage.prompt_tokens == 10
    assert spent() == 0


async def test_tools_and_structured_output_are_charged(
    installed: Any, ask: Any, provider: FakeProvider, spent: Spent
) -> None:
    from pydantic import BaseModel

    class Answer(BaseModel):
        number: int

    installed()
    provider.reply(usage=USED, tool_calls=[("search", {"query": "x"})])
    tools = [{"type": "function", "function": {"name": "search", "parameters": {"type": "object", "properties": {}}}}]
    response = await ask(tools=tools)
    assert response.choices[0].message.tool_calls[0].function.name == "search"
    provider.reply(text='{"number": 4}', usage=USED)
    response = await ask(response_format=Answer)
    assert Answer.model_validate_json(response.choices[0].message.content).number == 4
    assert spent() == 2 * EXACT


async def test_inside_another_guarded_model_call_that_call_pays(
    installed: Any, ask: Any, provider: FakeProvider, ledger: Ledger
) -> None:
    from cycles.integrations._options import Common
    from cycles.integrations._work import Work

    installed()
    work = Work(
        common=Common(ledger.client),
        estimate=cycles.tokens(10),
        action=("llm.completion", "outer"),
        denied=lambda error: None,
        is_model=True,
    )
    await work.arun(lambda guard: ask())
    assert [row.action.name for row in ledger.rows()] == ["outer"]


async def test_a_client_that_the_user_has_guarded_is_paid_once(
    installed: Any, ask: Any, provider: FakeProvider, client: cycles.Cycles, spent: Spent, ledger: Ledger
) -> None:
    openai: Any = pytest.importorskip("openai")
    installed()
    llm = cycles.providers.guard(openai.OpenAI(api_key="k", base_url=provider.openai_url), client=client, prices=BOOK)
    provider.reply(usage=USED)
    with contextlib.closing(llm):
        await ask("completion", client=llm)
    assert spent() == EXACT
    assert len(ledger.rows()) == 1


async def test_dspy_on_top_of_it(installed: Any, provider: FakeProvider, spent: Spent) -> None:
    dspy: Any = pytest.importorskip("dspy", reason="dspy is not installed: run make test-integrations")
    installed()
    provider.reply(text="[[ ## answer ## ]]\nfour\n\n[[ ## completed ## ]]", usage=USED)
    given = {"cache": False, "temperature": 1.0, "max_tokens": 16_000, "engine": "litellm"}  # DSPy 3.4 has another one
    lm = dspy.LM(GPT, api_base=provider.openai_url, api_key="k", **given)

    def predict() -> Any:
        with dspy.context(lm=lm):
            return dspy.Predict("question -> answer")(question="2 + 2").answer

    assert await asyncio.to_thread(predict) == "four"
    assert spent() == EXACT


async def test_removed_again(installed: Any, ask: Any, spent: Spent) -> None:
    before = litellm.completion, litellm.acompletion
    made = installed()
    assert litellm.completion is not before[0]
    assert litellm.completion.__name__ == "completion"
    with pytest.raises(cycles.InvalidRequestError, match="guarded already"):
        installed()
    made.remove()
    made.remove()
    assert (litellm.completion, litellm.acompletion) == before
    await ask()
    assert spent() == 0
    installed()


@pytest.mark.parametrize("how", ["completion", "acompletion"])
async def test_a_guarded_function_that_a_library_keeps_is_the_original_one_after_a_removal(
    how: str, installed: Any, ask: Any, spent: Spent
) -> None:
    made = installed()
    kept = getattr(litellm, how)
    made.remove()
    if how == "completion":
        await asyncio.to_thread(kept, **ask.arguments(GPT))
    else:
        await kept(**ask.arguments(GPT))
    assert spent() == 0


async def test_what_another_library_has_replaced_since_stays(installed: Any, monkeypatch: Any) -> None:
    made = installed()
    monkeypatch.setattr(litellm, "embedding", "theirs")
    made.remove()
    assert litellm.embedding == "theirs"


async def test_a_module_that_has_imported_a_function_by_name_is_named(
    installed: Any, monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    module = types.ModuleType("their.models")
    module.acompletion = litellm.acompletion  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "their.models", module)
    installed()
    named = [record.getMessage() for record in caplog.records if "their.models" in record.getMessage()]
    assert named == ["their.models imported acompletion of LiteLLM before install(): its calls are not guarded"]


async def test_wrong_options_are_rejected_when_it_is_installed(installed: Any) -> None:
    with pytest.raises(TypeError, match="unknown option 'ttl'"):
        installed(ttl=5)
    wrong: Any
    for wrong in (
        {"model_budget": None},
        {"model_budget": "books"},
        {"model_budget": 5},
        {"model_budget": "book", "model_actual": lambda usage: cycles.usd(1)},
        {"model_actual": cycles.usd(1)},
        {"on_denied": "ignore"},
        {"ttl_ms": -1},
    ):
        with pytest.raises(cycles.InvalidRequestError):
            installed(**wrong)
    with pytest.raises(cycles.InvalidRequestError, match="an Amount, a callable or 'book', got 'books'"):
        installed(model_budget="books")
    assert not hasattr(litellm.completion, "_cycles_guarded")


async def test_without_the_library_the_error_says_what_to_install() -> None:
    script = (
        "import sys; sys.modules['litellm'] = None\n"
        "try:\n    import cycles.integrations.litellm\nexcept ImportError as error:\n    print(error)"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "pip install 'cycles-sdk[litellm]'" in told
