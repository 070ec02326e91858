"""What all integrations share: options, denials, and what a call costs, sync, async and streamed."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

import cycles
from cycles._version import install_extra
from cycles.integrations._cost import Cost
from cycles.integrations._options import CallOptions, Common, estimate_of
from cycles.integrations._shared import code_of, require, standard_message, withhold
from cycles.integrations._stepping import finished, result_of
from cycles.integrations._work import Work
from tests.integrations.conftest import Ledger
from tests.support.waiting import set_by

pytestmark = pytest.mark.anyio

DENIED = {"agent": "poor"}


def price(usage: cycles.Usage) -> cycles.Amount:
    return cycles.tokens(2 * usage.tokens_input + 10 * usage.tokens_output)


def reports(event: Any, usage: cycles.Usage) -> bool:
    """Read the usage of a result or an event that has one."""
    if not isinstance(event, dict):
        return False
    usage.see_response("r1", {"tokens_input": event["in"], "tokens_output": event["out"]}, model="small")
    return True


@pytest.fixture(params=["sync", "async"])
def run(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Run a work with a function that takes the guard, both ways."""

    async def run(work: Work, body: Callable[[Any], Any]) -> Any:
        if request.param == "sync":
            return work.run(body)

        async def later(guard: Any) -> Any:
            return body(guard)

        return await work.arun(later)

    return run


@pytest.fixture
def work(client: cycles.Cycles) -> Callable[..., Work]:
    def work(subject: Any = None, **options: Any) -> Work:
        given: dict[str, Any] = {
            "common": Common(client, subject),
            "estimate": cycles.tokens(100),
            "action": ("llm.completion", "small"),
            "denied": lambda error: standard_message(error),
            "read": reports,
            "is_model": True,
        }
        return Work(**{**given, **options})

    return work


@pytest.mark.parametrize(
    ("options", "result", "committed", "metadata"),
    [
        ({"price": price}, {"in": 3, "out": 4}, 46, {}),
        ({}, {"in": 3, "out": 4}, 7, {}),
        ({}, "no usage", 100, {"actual_source": "estimate"}),
        ({"price": price}, "no usage", 100, {"actual_source": "estimate"}),
        ({"price": lambda usage: 1 / 0}, {"in": 3, "out": 4}, 100, {"actual_source": "estimate"}),
        ({"actual": cycles.tokens(9)}, "no usage", 9, {}),
        ({"call": ("q",), "actual": lambda q, result: cycles.tokens(len(q + result))}, "abc", 4, {}),
        ({"actual": lambda result: "wrong"}, "abc", 100, {"actual_source": "estimate"}),
        ({"actual": lambda result: cycles.usd(1)}, "abc", 100, {"actual_source": "estimate"}),
        ({"actual": lambda result: None}, "abc", 100, {"actual_source": "estimate"}),
        ({"actual": lambda result: cycles.tokens(0)}, "abc", 0, {}),
    ],
)
async def test_a_call_costs_what_the_table_says(
    run: Any, work: Any, ledger: Ledger, options: Any, result: Any, committed: int, metadata: Any
) -> None:
    assert await run(work(**options), lambda guard: result) == result
    assert ledger.spent() == committed
    assert ledger.metadata() == [metadata]


@pytest.mark.parametrize(("name", "reserved"), [("n" * 257, "n" * 256), ("n" * 256, "n" * 256), ("", "unknown")])
async def test_a_name_becomes_one_that_the_protocol_allows(
    run: Any, work: Any, ledger: Ledger, name: str, reserved: str
) -> None:
    await run(work(action=("llm.completion", name)), lambda guard: {"in": 3, "out": 4})
    assert (ledger.spent(), ledger.rows()[0].action.name) == (7, reserved)


async def test_dollars_without_prices_cost_the_estimate(run: Any, work: Any, ledger: Ledger) -> None:
    await run(work(estimate=cycles.usd("0.05")), lambda guard: {"in": 3, "out": 4})
    assert ledger.spent("USD_MICROCENTS") == cycles.usd("0.05").amount


async def test_what_the_call_itself_settles_stands(run: Any, work: Any, ledger: Ledger) -> None:
    await run(work(price=price), lambda guard: guard.spend(cycles.tokens(5)))
    assert ledger.spent() == 5


async def test_a_result_that_cannot_be_read_is_paid_with_the_estimate(run: Any, work: Any, ledger: Ledger) -> None:
    assert await run(work(), lambda guard: {"other": 1}) == {"other": 1}
    assert ledger.spent() == 100


async def test_a_call_that_raises_is_released_and_raises_unchanged(run: Any, work: Any, ledger: Ledger) -> None:
    with pytest.raises(ZeroDivisionError):
        await run(work(price=price), lambda guard: 1 / 0)
    assert ledger.spent() == 0


async def test_a_call_that_raises_pays_its_known_usage(run: Any, work: Any, ledger: Ledger) -> None:
    def body(guard: Any) -> None:
        guard.usage.add(tokens_input=1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await run(work(price=price), body)
    assert ledger.spent() == 2
    assert ledger.metadata() == [{"outcome": "error"}]


@pytest.mark.parametrize("raised", [asyncio.CancelledError(), KeyboardInterrupt()])
async def test_a_call_that_is_interrupted_in_flight_costs_its_estimate(
    run: Any, work: Any, ledger: Ledger, raised: BaseException
) -> None:
    def body(guard: Any) -> None:
        raise raised

    with pytest.raises(type(raised)):
        await run(work(charges_lost=True, price=price), body)
    assert ledger.spent() == 100
    assert ledger.metadata() == [{"outcome": "error", "attempts": 1, "actual_source": "estimate"}]


def broken(error: httpx.TransportError) -> RuntimeError:
    """Return the error of a library that hides the error of a connection, as LiteLLM and the SDKs below it do."""
    hidden = RuntimeError("APIConnectionError")
    hidden.status_code = 500  # type: ignore[attr-defined]  # LiteLLM gives each error a status
    hidden.__cause__ = error
    return hidden


@pytest.mark.parametrize("kind", [httpx.ReadTimeout, httpx.ReadError, httpx.RemoteProtocolError, httpx.WriteError])
async def test_a_call_whose_response_is_lost_costs_its_estimate(
    run: Any, work: Any, ledger: Ledger, kind: type[httpx.TransportError]
) -> None:
    def body(guard: Any) -> None:
        raise broken(kind("lost"))

    with pytest.raises(RuntimeError):
        await run(work(charges_lost=True, price=price), body)
    assert ledger.spent() == 100
    assert ledger.metadata() == [{"outcome": "error", "attempts": 1, "actual_source": "estimate"}]


@pytest.mark.parametrize("kind", [httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout])
async def test_a_call_that_reached_no_server_is_released(
    run: Any, work: Any, ledger: Ledger, kind: type[httpx.TransportError]
) -> None:
    def body(guard: Any) -> None:
        raise broken(kind("nothing was sent"))

    with pytest.raises(RuntimeError):
        await run(work(charges_lost=True, price=price), body)
    assert ledger.spent() == 0


@pytest.mark.parametrize("raised", [asyncio.CancelledError(), KeyboardInterrupt()])
async def test_a_stream_that_is_interrupted_before_its_first_event_costs_its_estimate(
    begin: Any, work: Any, ledger: Ledger, raised: BaseException
) -> None:
    with pytest.raises(type(raised)):
        async for _ in begin(streamed(work, charges_lost=True), [], raised):
            pass
    assert ledger.spent() == 100
    assert ledger.metadata() == [{"outcome": "error", "attempts": 1, "actual_source": "estimate"}]


async def test_a_stream_that_is_left_after_an_event_without_text_costs_its_prompt(
    begin: Any, work: Any, ledger: Ledger
) -> None:
    stream = begin(streamed(work, charges_lost=True), [("role", "assistant"), "Hello"])
    await anext(stream)
    await stream.aclose()
    assert ledger.spent() == 10
    assert ledger.metadata() == [{"outcome": "closed", "actual_source": "estimate"}]


async def test_a_call_that_is_interrupted_while_its_result_is_read_costs_its_estimate(
    run: Any, work: Any, ledger: Ledger
) -> None:
    def read(result: Any, usage: cycles.Usage) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await run(work(charges_lost=True, read=read), lambda guard: "a result")
    assert ledger.spent() == 100
    assert ledger.metadata() == [{"outcome": "error", "attempts": 1, "actual_source": "estimate"}]


@pytest.mark.parametrize(("spends", "committed"), [(True, 5), (False, 100)])
async def test_an_interrupted_call_that_has_reported_its_cost_pays_that(
    run: Any, work: Any, ledger: Ledger, spends: bool, committed: int
) -> None:
    def body(guard: Any) -> None:
        if spends:
            guard.spend(cycles.tokens(5))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await run(work(charges_lost=True), body)
    assert ledger.spent() == committed


@pytest.mark.parametrize(
    ("raised", "outcome"),
    [(asyncio.CancelledError(), "closed"), (GeneratorExit(), "closed"), (ConnectionError("gone"), "error")],
)
async def test_a_call_that_streams_inside_and_does_not_end_says_how_it_was_left(
    run: Any, work: Any, ledger: Ledger, raised: BaseException, outcome: str
) -> None:
    made = streamed(work)

    def body(guard: Any) -> None:
        made.see("Hello", guard)
        raise raised

    with pytest.raises(type(raised)):
        await run(made, body)
    assert ledger.spent() == 10 + 2
    assert ledger.metadata() == [{"outcome": outcome, "actual_source": "estimate"}]


@pytest.mark.parametrize(("streams", "committed"), [(True, 10), (False, 0)])
async def test_a_call_that_is_left_before_the_first_text_of_its_stream_costs_its_prompt(
    run: Any, work: Any, ledger: Ledger, streams: bool, committed: int
) -> None:
    made = streamed(work)

    def body(guard: Any) -> None:
        made.streams = streams
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await run(made, body)
    assert ledger.spent() == committed


@pytest.mark.parametrize("blocks", [True, False])
@pytest.mark.parametrize("raised", [None, KeyboardInterrupt(), ConnectionError("gone")])
async def test_a_call_that_commits_its_guard_itself_is_not_settled_again(
    work: Any, ledger: Ledger, raised: BaseException | None, blocks: bool
) -> None:
    made = streamed(work, charges_lost=True)

    async def body(guard: Any) -> str:
        if not isinstance(raised, KeyboardInterrupt):
            made.see("Hello", guard)
        await result_of(guard.commit(cycles.tokens(5)))
        if raised is not None:
            raise raised
        return "done"

    with contextlib.nullcontext() if raised is None else pytest.raises(type(raised)):
        result = made.run(lambda guard: finished(body(guard))) if blocks else await made.arun(body)
        assert result == "done"
    assert getattr(raised, "__notes__", []) == []
    assert ledger.spent() == 5


async def test_a_failed_result_is_released_and_returned(run: Any, work: Any, ledger: Ledger) -> None:
    assert await run(work(read=None, failed=lambda result: True), lambda guard: "failed") == "failed"
    assert ledger.spent() == 0


async def test_a_denied_call_does_not_run_and_its_message_leaks_nothing(run: Any, work: Any, ledger: Ledger) -> None:
    ran: list[int] = []
    message = await run(work(DENIED), lambda guard: ran.append(1))
    assert not ran
    assert "(BUDGET_EXCEEDED)" in message
    assert not any(secret in message for secret in ("acme", "poor", "100", "5"))


async def test_a_denial_of_the_callers_own_code_inside_is_no_denial_of_the_call(run: Any, work: Any) -> None:
    def body(guard: Any) -> None:
        raise cycles.BudgetExceededError("inner")

    with pytest.raises(cycles.BudgetExceededError, match="inner"):
        await run(work(), body)


async def test_an_unreachable_server_is_an_error_and_nothing_runs(run: Any, work: Any) -> None:
    ran: list[int] = []
    dead = cycles.Cycles(base_url="http://127.0.0.1:9", api_key="k", tenant="acme", journal=False)
    with pytest.raises(cycles.TransportError):
        await run(work(common=Common(dead)), lambda guard: ran.append(1))
    dead.close()
    assert not ran


@pytest.mark.parametrize(
    ("caps", "options", "code"),
    [
        ({"tool_denylist": ["shell"]}, {"tool": "shell", "is_model": False}, "TOOL_NOT_ALLOWED"),
        ({"max_steps_remaining": 0}, {}, "STEPS_EXHAUSTED"),
    ],
)
async def test_caps_that_forbid_the_call_are_a_denial(
    run: Any, work: Any, ledger: Ledger, server: Any, caps: Any, options: Any, code: str
) -> None:
    server.ledger.set_budget("tenant:acme", cycles.tokens(1000), caps=caps)
    ran: list[int] = []
    assert f"({code})" in await run(work(**options), lambda guard: ran.append(1))
    assert not ran
    assert ledger.spent() == 0


async def test_a_stream_that_caps_forbid_is_denied_and_holds_nothing(
    begin: Any, work: Any, ledger: Ledger, server: Any
) -> None:
    server.ledger.set_budget("tenant:acme", cycles.tokens(1000), caps={"max_steps_remaining": 0})
    [denied] = [event async for event in begin(work())]
    assert "(STEPS_EXHAUSTED)" in denied
    assert server.ledger.balance("tenant:acme", unit="TOKENS").reserved.amount == 0
    assert [row.status for row in ledger.rows()] == ["RELEASED"]


async def test_a_result_that_reports_a_failure_is_returned_and_costs_nothing(
    run: Any, work: Any, ledger: Ledger
) -> None:
    assert await run(work(failed=lambda result: result == "failed"), lambda guard: "failed") == "failed"
    assert [row.status for row in ledger.rows()] == ["RELEASED"]
    assert await run(work(failed=lambda result: result == "failed"), lambda guard: "made") == "made"
    assert ledger.spent() == 100


async def test_the_guard_is_the_current_one_while_the_call_runs(run: Any, work: Any) -> None:
    assert await run(work(read=None), lambda guard: cycles.current_guard() is guard)
    assert cycles.current_guard() is None


async def test_a_callable_subject_gets_the_call(run: Any, work: Any, ledger: Ledger) -> None:
    common = Common(ledger.client, lambda name: {"agent": name})
    await run(work(common=common, call=("bot",)), lambda guard: None)
    assert ledger.rows()[0].subject.agent == "bot"


async def test_a_subject_that_is_known_already_is_not_called_again(run: Any, work: Any, ledger: Ledger) -> None:
    made = work(common=Common(ledger.client, lambda name: {"agent": name}), call=("bot",))
    made.subject = {"agent": "known"}
    await run(made, lambda guard: None)
    assert ledger.rows()[0].subject.agent == "known"


def test_the_default_client_is_looked_up_at_each_call(work: Any, ledger: Ledger) -> None:
    later = work(common=Common(None), read=None)
    cycles.set_default_client(ledger.client)
    try:
        later.run(lambda guard: None)
    finally:
        cycles.set_default_client(None)
    assert ledger.spent() == 100


EVENTS = ("Hello", " you", {"in": 3, "out": 4})


def texts(event: Any) -> list[str]:
    return [event] if isinstance(event, str) else []


def opened(events: Any = EVENTS, error: BaseException | None = None) -> Iterator[Any]:
    yield from events
    if error is not None:
        raise error


async def aopened(events: Any = EVENTS, error: BaseException | None = None) -> AsyncIterator[Any]:
    for event in opened(events, error):
        yield event


class Stepped:
    """A blocking stream with the methods of an async one."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __aiter__(self) -> Stepped:
        return self

    async def __anext__(self) -> Any:
        for event in self._stream:
            return event
        raise StopAsyncIteration

    async def athrow(self, error: BaseException) -> Any:
        return self._stream.throw(error)

    async def aclose(self) -> None:
        self._stream.close()


@pytest.fixture(params=["sync", "async"])
def begin(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Begin the stream of a work with these events, both ways."""

    def begin(work: Work, *given: Any, whole: Any = None) -> Any:
        if request.param == "async":
            return work.astream(lambda guard: whole or aopened(*given))
        return Stepped(work.stream(lambda guard: whole or opened(*given)))

    return begin


def streamed(work: Any, **options: Any) -> Work:
    given: Work = work(**{"strings": texts, "prompt": lambda: "x" * 30, **options})
    return given


async def test_a_stream_read_to_its_end_costs_its_usage(begin: Any, work: Any, ledger: Ledger) -> None:
    assert [event async for event in begin(streamed(work))] == list(EVENTS)
    assert ledger.spent() == 7
    assert ledger.metadata() == [{}]


@pytest.mark.parametrize(
    ("options", "committed"),
    [
        ({}, 12),
        ({"price": price}, 40),
        ({"limit": 1}, 11),
        ({"limit": 0}, 10),
        ({"price": lambda usage: 1 / 0}, 100),
        ({"price": lambda usage: cycles.usd(1)}, 100),
        ({"action": ("llm.completion", "n" * 300)}, 12),
    ],
)
async def test_a_stream_left_early_costs_what_was_made(
    begin: Any, work: Any, ledger: Ledger, options: Any, committed: int
) -> None:
    stream = begin(streamed(work, **options))
    await anext(stream)
    await stream.aclose()
    assert ledger.spent() == committed
    assert ledger.metadata() == [{"outcome": "closed", "actual_source": "estimate"}]


async def test_each_piece_of_a_stream_that_is_left_is_a_token_at_least(begin: Any, work: Any, ledger: Ledger) -> None:
    stream = begin(streamed(work), ["a", "b", "", "c", "d", "not read"])
    assert [await anext(stream) for _ in range(5)] == ["a", "b", "", "c", "d"]
    await stream.aclose()
    assert ledger.spent() == 10 + 4


async def test_a_stream_left_early_in_dollars_without_prices_costs_the_estimate(
    begin: Any, work: Any, ledger: Ledger
) -> None:
    stream = begin(streamed(work, estimate=cycles.usd("0.05")))
    await anext(stream)
    await stream.aclose()
    assert ledger.spent("USD_MICROCENTS") == cycles.usd("0.05").amount


async def test_a_stream_left_after_its_usage_is_exact(begin: Any, work: Any, ledger: Ledger) -> None:
    stream = begin(streamed(work))
    async for event in stream:
        if isinstance(event, dict):
            break
    await stream.aclose()
    assert ledger.spent() == 7
    assert ledger.metadata() == [{"outcome": "closed"}]


@pytest.mark.parametrize(
    ("reported", "text", "committed"),
    [
        ({"tokens_input": 3, "tokens_output": 40}, "abc", 43),
        ({"tokens_input": 3, "tokens_output": 1}, "a" * 60, 23),
        ({"tokens_output": 40}, "abc", 50),
        ({"tokens_input": 3}, "abc", 4),
    ],
)
async def test_counts_that_are_not_complete_raise_what_a_stream_that_is_left_costs(
    begin: Any, work: Any, ledger: Ledger, reported: dict[str, int], text: str, committed: int
) -> None:
    def read(event: Any, usage: cycles.Usage) -> bool:
        usage.see_response("r1", reported, model="small")
        return False

    stream = begin(streamed(work, read=read), [text, text])
    await anext(stream)
    await stream.aclose()
    assert ledger.spent() == committed
    assert ledger.metadata() == [{"outcome": "closed", "actual_source": "estimate"}]


async def test_a_price_book_counts_the_prompt_of_a_stream_that_is_left(begin: Any, work: Any, ledger: Ledger) -> None:
    asked: list[tuple[str, Any]] = []

    def count(model: str, content: Any) -> int:
        asked.append((model, content))
        return 7

    book = cycles.PriceBook.genai({"small": cycles.Price("1", "0")}, count_tokens=count)
    stream = begin(streamed(work, estimate=cycles.usd(1), price=book), ["Hello"])
    await anext(stream)
    await stream.aclose()
    assert asked == [("small", "x" * 30)]
    assert ledger.spent("USD_MICROCENTS") == 7 * 100


async def test_a_stream_with_text_that_is_no_utf8_costs_what_was_made(begin: Any, work: Any, ledger: Ledger) -> None:
    stream = begin(streamed(work), ["\ud83d", "\ude00"])  # an emoji that was split between two events
    assert await anext(stream) == "\ud83d"
    await stream.aclose()
    assert ledger.spent() == 11


async def test_a_stream_that_breaks_off_costs_what_was_made(begin: Any, work: Any, ledger: Ledger) -> None:
    stream = begin(streamed(work), ["Hello"], ConnectionError())
    with pytest.raises(ConnectionError):
        async for _ in stream:
            pass
    assert ledger.spent() == 12
    assert ledger.metadata() == [{"outcome": "error", "actual_source": "estimate"}]


async def test_a_stream_that_does_not_begin_is_released(begin: Any, work: Any, ledger: Ledger) -> None:
    with pytest.raises(ConnectionError):
        async for _ in begin(streamed(work), [], ConnectionError()):
            pass
    assert ledger.spent() == 0


@pytest.mark.parametrize(
    ("raised", "outcome"), [(ZeroDivisionError(), "error"), (SystemExit(), "error"), (GeneratorExit(), "closed")]
)
async def test_a_stream_into_which_its_reader_throws_costs_what_was_made(
    begin: Any, work: Any, ledger: Ledger, raised: BaseException, outcome: str
) -> None:
    stream = begin(streamed(work))
    await anext(stream)
    with pytest.raises(type(raised)) as caught:
        await stream.athrow(raised)
    assert caught.value is raised
    assert ledger.spent() == 12
    assert ledger.metadata() == [{"outcome": outcome, "actual_source": "estimate"}]


def test_a_stream_that_breaks_after_its_guard_was_committed_is_not_settled_again(work: Any, ledger: Ledger) -> None:
    reason = ConnectionError("gone")

    def events(guard: Any) -> Iterator[str]:
        yield "Hello"
        guard.commit(cycles.tokens(5))
        raise reason

    with pytest.raises(ConnectionError):
        list(streamed(work).stream(events))
    assert getattr(reason, "__notes__", []) == []
    assert ledger.spent() == 5


class Greeting:
    """A stream of two pieces, for both kinds of code."""

    def __iter__(self) -> Iterator[str]:
        return iter(["Hello", " you"])

    def __aiter__(self) -> AsyncIterator[str]:
        return aopened(["Hello", " you"])


async def test_a_stream_is_closed_before_it_is_settled(begin: Any, work: Any, server: Any, ledger: Ledger) -> None:
    held: list[int] = []

    class Events(Greeting):
        def close(self) -> None:
            held.append(server.ledger.balance("tenant:acme", unit="TOKENS").reserved.amount)

        async def aclose(self) -> None:
            self.close()

    stream = begin(streamed(work), whole=Events())
    await anext(stream)
    await stream.aclose()
    assert held == [100]
    assert ledger.spent() == 12


@pytest.mark.parametrize("error", [ZeroDivisionError(), KeyboardInterrupt()])
async def test_a_stream_that_cannot_be_closed_is_settled(
    begin: Any, work: Any, ledger: Ledger, error: BaseException
) -> None:
    class Events(Greeting):
        def close(self) -> None:
            raise error

        async def aclose(self) -> None:
            raise error

    stream = begin(streamed(work), whole=Events())
    await anext(stream)
    with pytest.raises(type(error)):
        await stream.aclose()
    assert ledger.spent() == 12
    assert ledger.metadata() == [{"outcome": "closed", "actual_source": "estimate"}]


REJECTED = {"error": "INVALID_REQUEST", "message": "no such commit", "request_id": "r1"}


@pytest.mark.parametrize("how", ["breaks", "is left", "raises inside"])
async def test_a_settlement_that_is_rejected_hides_no_reason_why_a_call_ended(
    begin: Any, run: Any, work: Any, server: Any, how: str
) -> None:
    server.faults.status("commit", 400, body=REJECTED, times=None)
    reason = ConnectionError("gone")
    if how == "is left":
        stream = begin(streamed(work), ["Hello", " you"])
        await anext(stream)
        await stream.aclose()
        return
    if how == "breaks":
        with pytest.raises(ConnectionError) as raised:
            async for _ in begin(streamed(work), ["Hello"], reason):
                pass
    else:
        made = streamed(work)

        def body(guard: Any) -> None:
            made.see("Hello", guard)
            raise reason

        with pytest.raises(ConnectionError) as raised:
            await run(made, body)
    assert raised.value is reason
    [note] = reason.__notes__
    assert note.startswith("cycles: the guard could not be settled: ")
    assert "no such commit" in note


async def test_guarded_clients_report_to_each_step_of_a_stream_only(begin: Any, work: Any) -> None:
    seen: list[bool] = []

    def events() -> Iterator[str]:
        for text in ("a", "b"):
            seen.append(cycles.providers.current_payer() is not None)
            yield text

    async for _ in begin(streamed(work), events()):
        seen.append(cycles.providers.current_payer() is not None)
    assert seen == [True, False, True, False]


async def test_a_stream_cancelled_before_its_first_event_costs_its_prompt(work: Any, ledger: Ledger) -> None:
    begun = asyncio.Event()

    async def waits() -> AsyncIterator[str]:
        begun.set()
        await asyncio.Event().wait()
        yield ""

    async def read() -> None:
        async for _ in streamed(work).astream(lambda guard: waits()):
            pass

    task = asyncio.create_task(read())
    await set_by(task, begun)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ledger.spent() == 10
    assert ledger.metadata() == [{"outcome": "closed", "actual_source": "estimate"}]


async def test_a_stream_leaves_no_guard_in_the_context_of_its_reader(begin: Any, work: Any) -> None:
    guards = [cycles.current_guard() async for _ in begin(streamed(work))]
    assert guards
    assert set(guards) == {None}


async def test_a_denied_stream_is_one_message(begin: Any, work: Any) -> None:
    stream = begin(streamed(work, subject=DENIED))
    assert ["(BUDGET_EXCEEDED)" in event async for event in stream] == [True]


async def test_a_denied_stream_that_raises_opens_nothing(begin: Any, work: Any, ledger: Ledger) -> None:
    def denied(error: Exception) -> None:
        raise error

    events = iter(EVENTS)
    stream = begin(streamed(work, subject=DENIED, denied=denied), events)
    with pytest.raises(cycles.BudgetExceededError, match="Do not try it again"):
        await anext(stream)
    assert list(events) == list(EVENTS)
    assert ledger.spent() == 0


async def test_thirty_streams_in_threads_have_a_guard_each(work: Any, ledger: Ledger) -> None:
    def read(n: int) -> int:
        return len(list(streamed(work).stream(lambda guard: opened(["a", {"in": n, "out": 0}]))))

    assert await asyncio.gather(*[asyncio.to_thread(read, n) for n in range(1, 31)]) == [2] * 30
    assert ledger.spent() == sum(range(1, 31))


async def test_thirty_concurrent_calls_have_a_guard_each(work: Any, ledger: Ledger) -> None:
    async def one(n: int) -> None:
        async def call(guard: cycles.AsyncGuard) -> dict[str, int]:
            await asyncio.sleep(0)
            assert cycles.current_guard() is guard
            return {"in": n, "out": 0}

        await work().arun(call)

    await asyncio.gather(*[one(n) for n in range(1, 31)])
    assert ledger.spent() == sum(range(1, 31))
    assert len({row.idempotency_key for row in ledger.rows()}) == 30


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"client": "c"}, cycles.InvalidRequestError),
        ({"on_denied": "ignore"}, cycles.InvalidRequestError),
        ({"subject": 5}, cycles.InvalidRequestError),
        ({"options": {"ttl_ms": 5}}, cycles.InvalidRequestError),
        ({"options": {"lease_policy": "never"}}, cycles.InvalidRequestError),
        ({"options": {"tll_ms": 60_000}}, TypeError),
        ({"options": {"idempotency_key": "k"}}, TypeError),
    ],
)
def test_options_are_checked_when_the_object_is_made(options: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Common(**{"client": None, **options})


def test_the_options_of_calls_are_those_of_reserve() -> None:
    reserve = set(inspect.signature(cycles.Cycles.reserve).parameters)
    own = {"self", "estimate", "action", "actual", "idempotency_key", "unknown"}
    assert CallOptions.__annotations__.keys() - {"on_denied"} == reserve - own


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"tool_budget": {"shell": 5}}, r"tool_budget\['shell'\] must be an Amount"),
        ({"tool_budget": {"ls": None, "shell": {}}}, r"tool_budget\['shell'\] must be an Amount"),
        ({"tool_budget": None}, "tool_budget must be an Amount .* or a mapping of them by tool name, got None"),
        ({"model_budget": None}, "model_budget must be an Amount .* or a callable, got None"),
        ({"model_budget": {"shell": cycles.tokens(5)}}, "model_budget must be"),
        ({"model_budget": cycles.tokens(5), "options": {"model_actual": cycles.tokens(5)}}, "model_actual must be"),
        (
            {"tool_budget": cycles.tokens(5), "options": {"tool_actual": len}, "takes": ("call", "result")},
            r"tool_actual must take \(call, result\)",
        ),
    ],
)
def test_budgets_and_actuals_are_checked_when_the_object_is_made(given: Any, named: str) -> None:
    with pytest.raises(cycles.InvalidRequestError, match=named):
        Common.of(None, given.pop("options", {}), **given)


def test_the_actual_of_a_budget_that_an_object_does_not_have_is_unknown() -> None:
    with pytest.raises(TypeError, match="unknown option 'tool_actual'"):
        Common.of(None, {"tool_actual": cycles.tokens(5)}, model_budget=cycles.tokens(5))


def test_the_estimate_of_a_call_is_that_of_its_tool() -> None:
    with pytest.raises(cycles.InvalidRequestError, match="model_budget"):
        estimate_of("model_budget", lambda: 5, None)
    assert estimate_of("tool_budget", {"shell": cycles.tokens(5)}, "other") is None
    assert estimate_of("tool_budget", {"shell": lambda call: cycles.tokens(len(call))}, "shell", "ls") == cycles.tokens(
        2
    )
    by_name = {"Shell": cycles.tokens(5), "shell": cycles.tokens(6), "ls": None, "": cycles.tokens(7)}
    Common.of(None, {}, tool_budget=by_name)
    found = [estimate_of("tool_budget", by_name, name) for name in ("Shell", "shell", "SHELL", "ls", "")]
    assert found == [cycles.tokens(5), cycles.tokens(6), None, None, cycles.tokens(7)]


@pytest.mark.parametrize("make", [lambda nothing: nothing, lambda nothing: lambda *call: nothing])
async def test_a_call_with_an_estimate_of_zero_is_guarded(run: Any, ledger: Ledger, make: Any) -> None:
    """Caps hold for it, and it is charged if it costs something."""
    budget = make(cycles.tokens(0))
    common = Common.of(ledger.client, {}, model_budget=budget, tool_budget=budget)
    tool = Work.of_tool(common, "shell", "call", denied=lambda error, text: text)
    model = Work.of_model(common, "small", "call", denied=lambda error, text: text)
    assert tool is not None
    assert model is not None
    assert [await run(each, lambda guard: "done") for each in (tool, model)] == ["done", "done"]
    assert [row.action.kind for row in ledger.rows()] == ["tool.call", "llm.completion"]
    assert ledger.spent() == 0


async def test_a_model_call_inside_a_paid_one_is_not_guarded_again(run: Any, work: Any, ledger: Ledger) -> None:
    common = Common.of(ledger.client, {}, model_budget=cycles.tokens(9))
    made = Work.of_model(common, "small", "call", denied=lambda error, text: text)
    assert made is not None
    assert await run(made, lambda guard: Work.of_model(common, "small", "call", denied=lambda *_: None)) is None
    assert [row.reserved for row in ledger.rows()] == [cycles.tokens(9)]


@pytest.mark.parametrize(
    ("on_denied", "text"),
    [
        ("message", "The budget does not allow this call (X). Do not try it again; continue without it."),
        (lambda error: f"no: {error.code}", "no: X"),
        (lambda error, tool: f"no {tool}", "no shell"),
        (lambda error: 5, "5"),
        (lambda error, tool: [tool], "['shell']"),
    ],
)
def test_a_denial_becomes_the_message_that_was_chosen(on_denied: Any, text: str) -> None:
    error = cycles.BudgetExceededError("tenant:acme has $0.98 left", code="X")
    assert Common(None, on_denied=on_denied).message(error, "shell", default="raise") == text


@pytest.mark.parametrize(("on_denied", "default"), [("raise", "message"), (None, "raise")])
def test_a_denial_is_raised_if_that_was_chosen(on_denied: Any, default: Any) -> None:
    error = cycles.BudgetExceededError("denied", code="BUDGET_EXCEEDED")
    with pytest.raises(cycles.BudgetExceededError) as raised:
        Common(None, on_denied=on_denied).message(error, default=default)
    assert raised.value is error


def test_a_code_that_a_server_invented_is_not_repeated() -> None:
    assert "(DENIED)" in standard_message(cycles.ReservationDeniedError("no", code="tenant:acme is broke"))


@pytest.mark.parametrize(
    ("names", "code"),
    [
        ({"code": "A", "reason_code": "B"}, "A"),
        ({"code": None, "reason_code": "B"}, "B"),
        ({"code": "A"}, "A"),
        ({"code": "A1_" + "X" * 61}, "A1_" + "X" * 61),
        ({"code": "A1_" + "X" * 62}, "DENIED"),
        ({"code": "1A"}, "DENIED"),
        ({"code": "a"}, "DENIED"),
        ({"code": 5}, "DENIED"),
        ({}, "DENIED"),
    ],
)
def test_the_code_of_a_denial_is_its_own_or_that_of_its_reason(names: dict[str, Any], code: str) -> None:
    error = Exception("no")
    vars(error).update(names)
    assert code_of(error) == code


def test_a_denial_that_passes_two_calls_keeps_its_own_text_once() -> None:
    error = cycles.BudgetExceededError("tenant:acme has $0.98 left", code="BUDGET_EXCEEDED")
    withhold(error)
    withhold(error)
    assert str(error) == standard_message(error)
    assert error.__notes__ == ["cycles: tenant:acme has $0.98 left [BUDGET_EXCEEDED]"]


def test_a_missing_library_is_an_error_with_the_line_that_installs_it() -> None:
    with pytest.raises(ImportError) as raised:
        require("no_such_library.part", "otel")
    message = f"this integration needs the package no_such_library, which is not installed: {install_extra('otel')}"
    assert str(raised.value) == message


@pytest.mark.parametrize("needed", ["something_else_entirely", "broken", "broken_library_part"])
def test_an_import_error_inside_a_library_passes_unchanged(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, needed: str
) -> None:
    (tmp_path / "broken_library.py").write_text(f"import {needed}", "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match=f"'{needed}'") as raised:
        require("broken_library", "otel")
    assert "pip install" not in str(raised.value)


def test_importing_cycles_loads_no_integration() -> None:
    code = "import sys, cycles; cycles.Cycles; print(*[m for m in sys.modules if 'integrations' in m])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""


class _Request:
    """A request of a guarded client."""

    def __init__(self) -> None:
        self.ending: Any = None

    def paid(self, outcome: Any = None) -> Any:
        self.ending = SimpleNamespace(amount=cycles.tokens(7), metadata={})
        return self.ending

    def add_usage(self, usage: cycles.Usage) -> None:
        usage.see_response(self, {"tokens_input": 7})


def count_for(cost: Cost, guard: Any) -> None:
    """Let the requests of a cost count in the usage of a guard."""
    cost._used = guard.usage


def test_the_cost_that_is_written_ahead_ends_no_request_in_flight(client: cycles.Cycles) -> None:
    """Each addition to the usage of a guard asks what is to be written ahead. 7 of 14 tokens were charged."""
    first, second = _Request(), _Request()
    cost = Cost(estimate=cycles.tokens(20), action=("llm.completion", "x"), price=price)
    with client.reserve(cost.estimate, action=cost.action, actual=cost.known()) as guard:
        count_for(cost, guard)
        cost.bind(first)
        cost.bind(second)
        first.paid()
        cost.ended(first)
        assert second.ending is None
        assert cost.paid() == (cycles.tokens(14), {})


def test_what_a_request_in_flight_has_used_is_in_the_usage_of_a_guard_that_ends(client: cycles.Cycles) -> None:
    cost = Cost(estimate=cycles.tokens(20), action=("llm.completion", "x"), price=price)
    with client.reserve(cost.estimate, action=cost.action, actual=cycles.tokens(14)) as guard:
        count_for(cost, guard)
        cost.bind(_Request())
        cost.bind(_Request())
        assert cost.paid("closed") == (cycles.tokens(14), {})
        assert guard.usage.tokens_input == 14


@pytest.mark.parametrize(
    ("text", "tokens"), [("four", 2), ("четыре", 4), ("四个", 2), ("\N{GRINNING FACE}", 2), ("\ud83d", 1)]
)
def test_text_without_a_usage_counts_by_its_bytes(client: cycles.Cycles, text: str, tokens: int) -> None:
    """In any script, three bytes count as one token."""

    def by_output(usage: cycles.Usage) -> cycles.Amount:
        return cycles.tokens(usage.tokens_output)

    action = ("llm.completion", "x")
    cost = Cost(estimate=cycles.tokens(20), action=action, price=by_output, strings=lambda event: [event])
    with client.reserve(cost.estimate, action=action, actual=cycles.tokens(0)) as guard:
        cost.see(text, guard)
        assert cost.made(guard, "closed")[0] == cycles.tokens(tokens)


@pytest.mark.parametrize("outcome", ["closed", "error"])
def test_what_requests_of_a_stream_have_cost_so_far_says_how_the_stream_ended(
    client: cycles.Cycles, outcome: Any
) -> None:
    cost = Cost(estimate=cycles.tokens(20), action=("llm.completion", "x"), price=price)
    with client.reserve(cost.estimate, action=cost.action, actual=cycles.tokens(7)) as guard:
        cost.bind(_Request())
        assert cost.made(guard, outcome) == (cycles.tokens(7), {"outcome": outcome})


def test_what_guarded_clients_have_sent_is_not_read_from_the_framework_too(client: cycles.Cycles) -> None:
    def read(event: Any, usage: cycles.Usage) -> None:
        usage.add(tokens_input=7)

    cost = Cost(estimate=cycles.tokens(20), action=("llm.completion", "x"), price=price, read=read)
    with client.reserve(cost.estimate, action=cost.action, actual=cycles.tokens(7)) as guard:
        cost.bind(_Request())
        cost.see({}, guard)
        assert guard.usage.tokens_input == 0


@pytest.mark.parametrize(
    ("wrong", "meant"), [("on_deniedd", "on_denied"), ("subjects", "subject"), ("model_actuals", "model_actual")]
)
def test_a_misspelled_option_names_the_one_that_may_be_meant(wrong: str, meant: str) -> None:
    with pytest.raises(TypeError, match=f"unknown option '{wrong}'; use one of .*; did you mean {meant}?"):
        Common.of(None, {wrong: None}, model_budget=cycles.tokens(5))
