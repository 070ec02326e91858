"""What a guarded model of Pydantic AI does beside requests: compactions, batches, counted tokens, pending responses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

import cycles
from tests.integrations.conftest import Ledger

pytest.importorskip("pydantic_ai", reason="pydantic-ai is not installed: run make test-integrations")

from pydantic_ai import Agent
from pydantic_ai.capabilities import BatchModelRequests
from pydantic_ai.direct import model_request_batch
from pydantic_ai.messages import ModelRequest, ModelResponse, UserPromptPart
from pydantic_ai.models import CompletedStreamedResponse, ModelRequestContext, ModelRequestParameters
from pydantic_ai.models.batch import BatchRequest
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.usage import RequestUsage

from cycles.integrations.pydantic_ai import CyclesCapability, GuardedModel
from tests.integrations.pydantic_models import TOKENS, Fake, says

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore")]

ASKED: Any = [ModelRequest(parts=[UserPromptPart("hello")])]
SOON = timedelta(milliseconds=1)


class Compacting(WrapperModel):
    """A model that compacts messages and counts tokens."""

    def __init__(self, *replies: Any) -> None:
        super().__init__(Fake(says()).model)
        self.replies = list(replies)
        self.contexts: list[Any] = []

    async def compact_messages(self, request_context: Any, *, instructions: str | None = None) -> Any:
        self.contexts.append((request_context, instructions))
        reply = self.replies.pop(0)
        if isinstance(reply, BaseException):
            raise reply
        return reply

    async def count_tokens(self, messages: Any, model_settings: Any, model_request_parameters: Any) -> RequestUsage:
        return RequestUsage(input_tokens=3)


def context_of(model: Any) -> ModelRequestContext:
    parameters = ModelRequestParameters()
    return ModelRequestContext(model=model, messages=ASKED, model_settings={}, model_request_parameters=parameters)


async def test_a_compaction_is_guarded(client: cycles.Cycles, ledger: Ledger) -> None:
    model = Compacting(says("short", tokens=(40, 6)))
    guarded = GuardedModel(model, client, model_budget=TOKENS(100))
    compacted = await guarded.compact_messages(context_of(guarded), instructions="be brief")
    assert compacted.parts[0].content == "short"
    assert model.contexts[0][1] == "be brief"
    assert ledger.spent() == 46


async def test_a_compaction_without_a_budget_is_not_guarded(client: cycles.Cycles, ledger: Ledger) -> None:
    guarded = GuardedModel(Compacting(says("short")), client, model_budget=lambda request: None)
    assert (await guarded.compact_messages(context_of(guarded))).parts[0].content == "short"
    assert ledger.rows() == []


async def test_a_denied_compaction_is_raised(client: cycles.Cycles, ledger: Ledger) -> None:
    model = Compacting()
    options: Any = {"model_budget": TOKENS(10_000_000), "on_denied": "message"}
    guarded = GuardedModel(model, client, **options)
    with pytest.raises(cycles.BudgetExceededError):
        await guarded.compact_messages(context_of(guarded))
    assert model.contexts == []
    assert ledger.spent() == 0


async def test_a_compaction_is_within_the_caps(
    client: cycles.Cycles, server: cycles.EmbeddedServer, ledger: Ledger
) -> None:
    server.ledger.set_budget("tenant:acme", TOKENS(1000), caps={"max_tokens": 7})
    model = Compacting(says())
    guarded = GuardedModel(model, client, model_budget=TOKENS(100))
    context = context_of(guarded)
    await guarded.compact_messages(context)
    assert model.contexts[0][0].model_settings == {"max_tokens": 7}
    assert context.model_settings == {}
    assert ledger.spent() == 15


async def test_a_failed_compaction_is_released(client: cycles.Cycles, ledger: Ledger) -> None:
    guarded = GuardedModel(Compacting(ConnectionError("broken")), client, model_budget=TOKENS(100))
    with pytest.raises(ConnectionError):
        await guarded.compact_messages(context_of(guarded))
    assert ledger.spent() == 0


async def test_counting_tokens_is_free(client: cycles.Cycles, ledger: Ledger) -> None:
    guarded = GuardedModel(Compacting(), client, model_budget=TOKENS(100))
    assert (await guarded.count_tokens(ASKED, None, ModelRequestParameters())).input_tokens == 3
    assert ledger.rows() == []


@pytest.mark.parametrize("guarding_is_first", [True, False])
async def test_each_request_of_a_batch_is_charged_once(
    client: cycles.Cycles, ledger: Ledger, guarding_is_first: bool
) -> None:
    guarding = CyclesCapability(client, model_budget=TOKENS(100))
    batching = BatchModelRequests(max_requests=2, poll_interval=SOON, max_poll_interval=SOON)
    capabilities: list[Any] = [guarding, batching] if guarding_is_first else [batching, guarding]
    agent: Any = Agent(Fake(says()).model, capabilities=capabilities)
    async with batching:
        results = await asyncio.gather(*[agent.run("hello") for _ in range(2)])
    assert [result.output for result in results] == ["done", "done"]
    assert ledger.spent() == 30
    assert sum(row.status == "COMMITTED" for row in ledger.rows()) == 2


async def test_a_batch_of_a_guarded_model_is_not_sent(client: cycles.Cycles, ledger: Ledger) -> None:
    fake = Fake(says())
    guarded = GuardedModel(fake.model, client, model_budget=TOKENS(100))
    requests = [BatchRequest(custom_id="a", messages=ASKED)]
    with pytest.raises(cycles.InvalidRequestError, match="CyclesCapability"):
        await model_request_batch(guarded, requests)
    assert fake.asked == []
    assert ledger.rows() == []


class Pending(WrapperModel):
    """A model that works in the background: the third response is the result."""

    polls = 0

    def _next(self, response: ModelResponse) -> ModelResponse:
        self.polls += 1
        is_done = self.polls == 3
        return response if is_done else replace(response, parts=[], usage=RequestUsage(), state="suspended")

    async def request(self, *request: Any) -> Any:
        return self._next(await super().request(*request))

    @asynccontextmanager
    async def request_stream(self, *request: Any) -> AsyncIterator[Any]:
        response = self._next(await super().request(*request[:3]))
        yield CompletedStreamedResponse(response, model_request_parameters=request[2])


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_pending_response_is_released_and_the_last_one_is_charged(
    client: cycles.Cycles, ledger: Ledger, is_stream: bool
) -> None:
    model = GuardedModel(Pending(Fake(says()).model), client, model_budget=TOKENS(100))
    for state in ("suspended", "suspended", "complete"):
        if is_stream:
            async with model.request_stream(ASKED, None, ModelRequestParameters()) as stream:
                response = stream.get()
        else:
            response = await model.request(ASKED, None, ModelRequestParameters())
        assert response.state == state
    assert [row.status for row in ledger.rows()] == ["RELEASED", "RELEASED", "COMMITTED"]
    assert ledger.spent() == 15
