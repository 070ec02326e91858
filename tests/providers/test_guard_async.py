"""The ways to read a response with async clients: raw, parsed, helper streams, nested guards, other clouds."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

import cycles
from tests.providers.conftest import EXACT, USED, AsyncAnthropic, AsyncGemini, AsyncOpenAI, Desk
from tests.support.waiting import PATIENCE_S

T = TypeVar("T")
MESSAGES = [{"role": "user", "content": "x"}]


def run(desk: Desk, work: Coroutine[Any, Any, T]) -> T:
    result: T = desk.runner.run(work)
    return result


def test_raw_responses(desk: Desk) -> None:
    desk.provider.reply(text="raw", usage=USED, times=3)
    chat = AsyncOpenAI(desk).llm.chat.completions

    async def go() -> None:
        raw = await chat.with_raw_response.create(model="m", messages=MESSAGES)
        assert raw.parse().choices[0].message.content == "raw"
        assert desk.commits == [(EXACT, {})]
        async with chat.with_streaming_response.create(model="m", messages=MESSAGES) as response:
            assert (await response.parse()).choices[0].message.content == "raw"
        assert desk.commits == [(EXACT, {})] * 2
        async with chat.with_streaming_response.create(model="m", messages=MESSAGES, stream=True) as response:
            lines = [line async for line in response.iter_lines()]
        assert not any("prompt_tokens" in line for line in lines)

    run(desk, go())
    assert desk.commits == [(EXACT, {})] * 3


def test_a_raw_response_that_is_not_read_is_settled(desk: Desk) -> None:
    chat = AsyncOpenAI(desk).llm.chat.completions

    async def go() -> None:
        async with chat.with_streaming_response.create(model="m", messages=MESSAGES):
            pass

    run(desk, go())
    assert [metadata["outcome"] for _, metadata in desk.commits] == ["closed"]


def test_a_stream_whose_connection_cannot_be_closed_is_settled(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.provider.reply(text="a b c", usage=USED)

    async def go() -> list[tuple[int, dict[str, Any]]]:
        stream = await AsyncOpenAI(desk).llm.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        await anext(aiter(stream))
        kind: Any = type(stream.response).__mro__[1]
        close = kind.aclose

        async def fail(response: Any) -> None:
            await close(response)
            if response is stream.response:
                raise OSError("the connection cannot be closed")

        with monkeypatch.context() as patch, pytest.raises(OSError, match="cannot be closed"):
            patch.setattr(kind, "aclose", fail)
            await stream.close()
        return list(desk.commits)

    assert [metadata["outcome"] for _, metadata in run(desk, go())] == ["closed"]


def test_helper_streams(desk: Desk) -> None:
    desk.provider.reply(text="a b c", usage=USED, times=3)
    openai, anthropic = AsyncOpenAI(desk).llm, AsyncAnthropic(desk).llm

    async def go() -> None:
        async with openai.chat.completions.stream(model="m", messages=MESSAGES) as stream:
            assert (await stream.get_final_completion()).choices[0].message.content == "a b c"
        async with openai.responses.stream(model="m", input="x") as responses:
            assert (await responses.get_final_response()).output_text == "a b c"
        async with anthropic.messages.stream(model="m", max_tokens=999, messages=MESSAGES) as messages:
            assert await messages.get_final_text() == "a b c"

    run(desk, go())
    assert desk.commits == [(EXACT, {})] * 3


def test_leaving_helper_streams_early(desk: Desk) -> None:
    desk.provider.reply(text="a b c d e f", usage=USED, times=2)
    openai, anthropic = AsyncOpenAI(desk).llm, AsyncAnthropic(desk).llm

    async def go() -> None:
        async with openai.chat.completions.stream(model="m", messages=MESSAGES) as stream:
            await anext(aiter(stream))
        async with anthropic.messages.stream(model="m", max_tokens=999, messages=MESSAGES) as messages:
            await anext(aiter(messages))

    run(desk, go())
    assert [metadata["outcome"] for _, metadata in desk.commits] == ["closed", "closed"]
    assert desk.held == 0


def test_parsed_responses(desk: Desk) -> None:
    desk.provider.reply(text='{"city": "Ulm"}', usage=USED).reply(text="no json", usage=USED)
    pydantic: Any = pytest.importorskip("pydantic")
    place = pydantic.create_model("Place", city=(str, ...))
    chat = AsyncOpenAI(desk).llm.chat.completions

    async def go() -> None:
        parsed = await chat.parse(model="m", messages=MESSAGES, response_format=place)
        assert parsed.choices[0].message.parsed.city == "Ulm"
        with pytest.raises(pydantic.ValidationError):
            await chat.parse(model="m", messages=MESSAGES, response_format=place)

    run(desk, go())
    assert desk.commits == [(EXACT, {}), (EXACT, {"outcome": "error"})]


def test_retries_share_one_reservation(desk: Desk) -> None:
    for make in (AsyncOpenAI, AsyncAnthropic):
        llm = make(desk)
        llm.llm = llm.llm.with_options(max_retries=2)
        desk.provider.reply(status=500, headers={"retry-after-ms": "1"}).reply(usage=USED)
        llm.complete()
    assert (len(desk.provider.requests), len(desk.reserved)) == (4, 2)
    assert desk.commits == [(EXACT, {})] * 2


@pytest.mark.parametrize("make", [AsyncOpenAI, AsyncAnthropic, AsyncGemini])
def test_an_enclosing_guard_pays(desk: Desk, make: Any) -> None:
    nested = make(desk, within="enclosing", max_output_tokens=500)
    desk.provider.reply(usage=USED, times=3)

    async def go() -> None:
        async with desk.client.reserve(cycles.usd(1), action=("agent", "run")) as outer:
            await asyncio.gather(*(nested.acomplete() for _ in range(3)))
            assert outer.spent == cycles.usd_microcents(3 * EXACT)
            await outer.commit()

    run(desk, go())
    assert (len(desk.reserved), desk.commits) == (1, [(3 * EXACT, {})])


def test_a_stream_that_outlives_its_enclosing_guard_is_an_event(desk: Desk) -> None:
    nested = AsyncOpenAI(desk, within="enclosing")
    desk.provider.reply(usage=USED)

    async def go() -> None:
        async with desk.client.reserve(cycles.usd(1), action=("agent", "run")) as outer:
            stream = await nested.astream()
            await outer.commit(cycles.usd(0))
        assert [chunk async for chunk in stream]

    run(desk, go())
    assert [event.json["actual"]["amount"] for event in desk.server.requests.of("event")] == [EXACT]


def test_many_tasks_share_one_client(desk: Desk) -> None:
    llm = AsyncOpenAI(desk)
    desk.provider.reply(usage=USED, times=30)

    async def work(number: int) -> None:
        if number % 2:
            await llm.acomplete()
        else:
            assert [chunk async for chunk in await llm.astream()]

    async def go() -> None:
        await asyncio.gather(*(work(number) for number in range(30)))

    run(desk, go())
    assert desk.commits == [(EXACT, {})] * 30
    assert desk.held == 0


class Gate(threading.Event):
    """Holds the provider's response back, and reports that the provider waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        self.reached.set()
        return super().wait(timeout)


def test_a_request_that_is_cancelled_in_flight_costs_its_bound(desk: Desk) -> None:
    gate = Gate()
    desk.provider.reply(usage=USED, gate=gate)
    llm = AsyncOpenAI(desk)

    async def go() -> None:
        task = asyncio.ensure_future(llm.acomplete(prompt="p" * 600))
        assert await asyncio.to_thread(gate.reached.wait, PATIENCE_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(desk, go())
    gate.set()
    ((amount, metadata),) = desk.commits
    assert metadata == {"actual_source": "estimate", "attempts": 1, "outcome": "error"}
    assert amount == desk.reserved[0]


def test_a_close_that_is_cancelled_while_it_waits_for_the_usage_is_settled(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cycles.providers._pump._DRAIN_S", 60)
    gate = threading.Event()
    desk.provider.reply(text="a b", usage=USED, gate=gate, gate_after=4)  # the finish reason is the fourth event

    async def go() -> tuple[bool, list[dict[str, Any]], int]:
        stream = await AsyncOpenAI(desk).astream()
        async for chunk in stream:
            if chunk.choices[0].finish_reason is not None:
                break
        waits = asyncio.Event()

        async def close() -> None:
            asyncio.get_running_loop().call_soon(waits.set)
            await stream.close()

        closing = asyncio.ensure_future(close())
        await waits.wait()
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        return stream.response.is_closed, [metadata for _, metadata in desk.commits], desk.held

    left = run(desk, go())
    gate.set()
    assert left == (True, [{"actual_source": "estimate", "outcome": "closed"}], 0)


def test_azure(desk: Desk) -> None:
    openai: Any = pytest.importorskip("openai")
    azure = openai.AsyncAzureOpenAI(api_key="k", azure_endpoint=desk.provider.url, api_version="2024-10-21")
    desk.originals.append(azure)
    desk.provider.reply(usage=USED)
    guarded = desk.guard(azure)

    async def go() -> None:
        await guarded.chat.completions.create(model="m", messages=MESSAGES)

    run(desk, go())
    assert desk.commits == [(EXACT, {})]
