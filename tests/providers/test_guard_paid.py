"""Inside a `paid_by` block a guarded client reserves nothing, and the call that pays gets the cost of its requests."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import cycles
from cycles.providers import metered, paid_by
from tests.providers.conftest import (
    BOOK,
    EXACT,
    USED,
    Anthropic,
    AsyncAnthropic,
    AsyncGemini,
    AsyncOpenAI,
    AsyncSdk,
    Desk,
    Gemini,
    OpenAI,
    Responses,
    Sdk,
)


class Payer:
    """A call of a framework that keeps the requests that it pays."""

    estimate = cycles.usd(1)
    price: Any = BOOK

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.usage = cycles.Usage()

    def bind(self, request: Any) -> None:
        self.requests.append(request)

    def ended(self, request: Any) -> None:
        request.add_usage(self.usage)

    def costs(self, outcome: Any = None) -> list[Any]:
        found = [request.paid(outcome) for request in self.requests]
        return [(None if end.amount is None else end.amount.amount, dict(end.metadata)) for end in found]


@pytest.fixture(params=[OpenAI, Responses, Anthropic, Gemini], ids=lambda cls: cls.__name__)
def sdk(request: pytest.FixtureRequest, desk: Desk) -> Sdk:
    """Each sync SDK: the runner of the others has a context of its own."""
    made: Sdk = request.param(desk)
    return made


def test_the_call_pays_in_place_of_a_reservation(sdk: Sdk) -> None:
    payer = Payer()
    sdk.desk.provider.reply(text="one two", usage=USED, times=2)
    with paid_by(payer):
        sdk.complete()
        sdk.read()
    assert payer.costs() == [(EXACT, {}), (EXACT, {})]
    assert payer.usage.tokens_input == 2 * USED["tokens_input"]
    assert sdk.desk.reserved == []
    sdk.desk.provider.reply(usage=USED)
    sdk.complete()
    assert sdk.desk.commits == [(EXACT, {})]


def test_a_copy_for_a_framework_passes_requests_that_no_call_pays(sdk: Sdk) -> None:
    sdk.llm = metered(sdk.original)
    payer = Payer()
    sdk.desk.provider.reply(usage=USED, times=2)
    sdk.complete()
    with paid_by(payer):
        sdk.complete()
    assert payer.costs() == [(EXACT, {})]
    assert sdk.desk.reserved == []


def test_a_stream_is_bound_to_the_call_in_which_it_was_sent(desk: Desk) -> None:
    sdk, payer = OpenAI(desk), Payer()
    desk.provider.reply(text="one two three", usage=USED)
    with paid_by(payer):
        stream = sdk.stream()
    for _ in stream:
        pass
    assert payer.costs() == [(EXACT, {})]
    assert desk.reserved == []


def test_a_stream_that_is_open_when_the_call_ends_costs_what_was_made(desk: Desk) -> None:
    sdk, payer = OpenAI(desk), Payer()
    desk.provider.reply(text="one two three", usage=USED, gate=threading.Event(), gate_after=3)
    with paid_by(payer):
        stream = sdk.stream()
        next(stream)
    ((amount, metadata),) = payer.costs("closed")
    assert 0 < amount < EXACT
    assert metadata == {"actual_source": "estimate", "outcome": "closed"}
    stream.close()
    assert payer.costs("closed") == [(amount, metadata)]
    desk.provider.stop()


def test_a_request_without_a_response_costs_nothing_and_one_that_was_lost_costs_its_prompt(desk: Desk) -> None:
    sdk, payer = OpenAI(desk), Payer()
    desk.provider.reply(status=400).reply(drop_after=0)
    for _ in range(2):
        with paid_by(payer), pytest.raises(Exception):  # noqa: B017 - each SDK has its own
            sdk.complete()
    (rejected, _), (lost, metadata) = payer.costs()
    assert rejected is None
    assert lost > 0
    assert metadata["actual_source"] == "estimate"


def test_prices_of_the_call_count_and_without_any_its_estimate(desk: Desk) -> None:
    sdk, payer = OpenAI(desk), Payer()
    desk.provider.reply(usage=USED, times=4)

    def run(price: Any, estimate: cycles.Amount) -> Any:
        payer.price, payer.estimate = price, estimate
        payer.requests.clear()
        with paid_by(payer):
            sdk.complete(model="unknown-to-the-book")
        return payer.costs()[0]

    assert run(lambda usage: cycles.usd_microcents(usage.tokens_output), cycles.usd(1)) == (100, {})
    assert run(None, cycles.tokens(9)) == (1100, {})
    estimated = (cycles.usd(1).amount, {"actual_source": "estimate"})
    assert run(None, cycles.usd(1)) == estimated
    assert run(BOOK, cycles.usd(1)) == estimated


def test_a_background_response_is_left_to_what_the_framework_reports(desk: Desk) -> None:
    sdk, payer = Responses(desk), Payer()
    with paid_by(payer):
        assert sdk.complete(background=True).status == "queued"
    assert payer.requests == []
    assert desk.reserved == []


def test_a_block_inside_a_block_lets_the_client_pay_itself(desk: Desk) -> None:
    sdk, payer = OpenAI(desk), Payer()
    desk.provider.reply(usage=USED)
    with paid_by(payer), paid_by(None):
        sdk.complete()
    assert payer.requests == []
    assert desk.commits == [(EXACT, {})]


@pytest.mark.parametrize("cls", [AsyncOpenAI, AsyncAnthropic, AsyncGemini])
def test_two_tasks_are_paid_by_their_own_calls(desk: Desk, cls: type[AsyncSdk]) -> None:
    sdk = cls(desk)
    payers = [Payer(), Payer()]
    desk.provider.reply(usage=USED, times=2)

    async def one(payer: Payer) -> None:
        with paid_by(payer):
            await sdk.acomplete()

    async def both() -> None:
        await asyncio.gather(*map(one, payers))

    desk.runner.run(both())
    assert [payer.costs() for payer in payers] == [[(EXACT, {})]] * 2
