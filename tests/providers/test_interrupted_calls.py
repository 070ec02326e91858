"""An exception at any Python call between a response and its commit: it is charged once, and nothing is held.

A signal handler may raise at each of these calls.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import cycles
from cycles.providers import _settle
from tests.providers.conftest import ALL, EXACT, USED, AsyncOpenAI, Bedrock, Desk, Gemini, OpenAI, Sdk
from tests.support.deadlines import Unanswered, no_thread
from tests.support.inside import runtime_of
from tests.support.short import IS_SHORT
from tests.support.waiting import until

EACH = 79 if IS_SHORT else 1
STEPS = {OpenAI: EACH, AsyncOpenAI: EACH, Gemini: EACH, Bedrock: 5}
"""The others are interrupted at few calls in the short form: their hooks are the same."""
FOLDER = str(Path(cycles.__file__).parent)
EMBEDDED = f"{FOLDER}/embedded"
TESTING = f"{FOLDER}/testing"


# An exception inside of a coroutine that is being made, or in a finalizer, is printed and goes no further.
pytestmark = [
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def leave_modules_out_of_collections() -> None:
    """Let each run collect what it has dropped in a millisecond, and not the modules of the SDKs in half a second.

    They stay frozen, because the tests that follow in this process collect too.
    """
    gc.collect()
    gc.freeze()


class Interruption(BaseException):
    """What the signal handler raises."""


class AtCall:
    """A trace function that raises at Python call `number` of the SDK after `begun` returns True."""

    def __init__(self, number: int, begun: Callable[[], object]) -> None:
        self._left = number
        self._begun = begun
        self.done = False
        self._has_begun = False

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        name = frame.f_code.co_filename
        if self.done or not name.startswith(FOLDER) or name.startswith((EMBEDDED, TESTING)):
            return
        self._has_begun = self._has_begun or bool(self._begun())
        if not self._has_begun:
            return
        if frame.f_code.co_name in ("__del__", "<genexpr>") or _in_finalizer(frame):
            return  # Python prints what is raised there, and continues
        self._left -= 1
        if self._left < 0:
            self.done = True
            raise Interruption


def _in_finalizer(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.endswith("weakref.py"):
            return True
        frame = frame.f_back
    return False


def interrupted(desk: Desk, call: Callable[[], object], number: int) -> bool:
    """Run a call and interrupt it; False if it has fewer Python calls after the response has arrived."""
    at = AtCall(number, lambda: desk.provider.requests)
    before = sys.gettrace()
    sys.settrace(at)
    try:
        call()
    except Interruption:
        pass
    finally:
        sys.settrace(before)
    return at.done


def settled(desk: Desk) -> None:
    """Wait for what is settled in the background."""
    for _ in range(2):
        desk.runner.run(_nothing())
        gc.collect()
        until(lambda: not any(thread.name == "cycles-dropped-response" for thread in threading.enumerate()))
    assert desk.client.flush(60).pending == 0
    until(lambda: not desk.held)
    assert runtime_of(desk.client).background.in_other_threads([]) == []  # `close` would report them as pending


async def _nothing() -> None:
    import asyncio

    for _ in range(20):
        await asyncio.sleep(0)


def spent(desk: Desk) -> int:
    """What the ledger has charged; a commit whose response was lost is sent again with the same key."""
    found = desk.server.ledger.balance("tenant:acme", unit="USD_MICROCENTS").spent
    return 0 if found is None else found.amount


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("kind", ALL, ids=lambda cls: cls.__name__)
def test_a_response_is_charged_once(kind: type[Sdk], streamed: bool, desk: Desk) -> None:
    sdk = kind(desk)
    desk.provider.reply(usage=USED)
    sdk.complete()  # what is done once in a process
    leave_modules_out_of_collections()
    charged, before, number = [], spent(desk), 0
    assert before == EXACT
    more = True
    while more:
        desk.provider.clear()
        desk.server.requests.clear()
        desk.provider.reply(text="one two", usage=USED)
        more = interrupted(desk, sdk.read if streamed else sdk.complete, number)
        settled(desk)
        charged.append(spent(desk) - before)
        (bound,) = desk.reserved  # what it costs if it is interrupted before its status is read
        if charged[-1] != bound:
            assert 0 < charged[-1] <= EXACT, f"call {number}: {charged[-1]}, {desk.releases}"
        assert in_flight(desk) == 0, f"call {number}"
        before, number = spent(desk), number + STEPS.get(kind, 11)
    assert number > 100
    assert charged.count(EXACT) > len(charged) // 2


@pytest.mark.parametrize("kind", [OpenAI, AsyncOpenAI], ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("begins", [True, False], ids=["begun", "retrieved"])
def test_a_response_made_in_the_background_is_charged_once(kind: type[Sdk], begins: bool, desk: Desk) -> None:
    sdk = kind(desk)
    begin, retrieve = partial(of_responses, sdk, "create"), partial(of_responses, sdk, "retrieve")
    asked: dict[str, Any] = {"model": "m", "input": "hi", "max_output_tokens": 500, "background": True}
    desk.provider.reply(usage=USED)
    retrieve(begin(**asked).id)  # what is done once in a process
    leave_modules_out_of_collections()
    before, number, made, more = spent(desk), 0, 1, True
    assert before == EXACT
    while more:
        desk.provider.clear()
        desk.server.requests.clear()
        desk.provider.reply(usage=USED)
        made += 1
        response_id = f"resp_{made}"
        if begins:
            more = interrupted(desk, partial(begin, **asked), number)
        else:
            begin(**asked)
            desk.provider.clear()
            more = interrupted(desk, partial(retrieve, response_id), number)
        retrieve(response_id)
        settled(desk)
        charged = spent(desk) - before
        bound = desk.server.requests.of("reserve")[-1].json["estimate"]["amount"]
        if begins and more:
            assert 0 < charged <= bound, f"call {number}: {charged}"
        else:
            assert charged == EXACT, f"call {number}: {charged}"
        assert in_flight(desk) == 0, f"call {number}"
        before, number = spent(desk), number + (1 if begins and kind is OpenAI else 17)
    assert number > 50


def of_responses(sdk: Sdk, name: str, *args: Any, **more: Any) -> Any:
    """Call a method of the responses API, in the loop of the desk if it is async."""
    if not sdk.is_async:
        return getattr(sdk.llm.responses, name)(*args, **more)

    async def call() -> Any:
        return await getattr(sdk.llm.responses, name)(*args, **more)

    return sdk.desk.runner.run(call())


def in_flight(desk: Desk) -> int:
    from cycles.providers._queue import admissions_of

    return len(vars(admissions_of(vars(desk.client)["_runtime_"]))["_in_flight"])


def test_a_guard_around_the_request_pays_for_it_once(desk: Desk) -> None:
    sdk = OpenAI(desk, within="enclosing")
    number, more, bound = 0, True, 0
    while more:
        desk.provider.clear()
        desk.provider.reply(usage=USED)
        with desk.client.reserve(cycles.usd(1), action=("test", "work")) as guard:
            more = interrupted(desk, sdk.complete, number)
            until(partial(getattr, guard, "spent"))
            assert guard.spent is not None, f"call {number}"
            bound = bound or guard.spent.amount  # the first one is interrupted before its status is read
            if guard.spent.amount != bound:
                assert 0 < guard.spent.amount <= EXACT, f"call {number}"
            guard.commit()
        number += 3 if IS_SHORT else 1
    assert number > 10
    assert bound > 2 * EXACT


def test_what_another_thread_spends_does_not_hide_the_cost_of_an_interrupted_call(desk: Desk) -> None:
    sdk = OpenAI(desk, within="enclosing")
    desk.provider.reply(usage=USED)
    with desk.client.reserve(cycles.usd(1), action=("test", "work")) as guard, pytest.MonkeyPatch.context() as patch:
        guard.spend(cycles.usd("0.5"))
        spend = type(guard).spend

        def interrupted(guard: cycles.Guard, amount: cycles.Amount) -> None:
            patch.undo()
            spend(guard, cycles.usd_microcents(1))  # another thread, between the price and the interruption
            raise Interruption

        patch.setattr(type(guard), "spend", interrupted)
        with pytest.raises(Interruption):
            sdk.complete()
        until(lambda: guard.spent == cycles.usd("0.5") + cycles.usd_microcents(1 + EXACT))
        guard.commit()


def interrupted_once(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let the next settlement be interrupted as it calls this function, while no thread can be started."""
    function = getattr(_settle, name)

    def interrupt(*_: Any, **__: Any) -> None:
        monkeypatch.setattr(_settle, name, function)
        raise Interruption

    monkeypatch.setattr("_thread.start_new_thread", no_thread)
    monkeypatch.setattr(_settle, name, interrupt)


def test_a_flush_limits_the_requests_of_a_call_that_no_thread_could_settle(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    sdk = OpenAI(desk)
    desk.provider.reply(usage=USED)
    interrupted_once(monkeypatch, "commit")
    with pytest.raises(Interruption):
        sdk.complete()
    unanswered = Unanswered(runtime_of(desk.client), monkeypatch)
    assert desk.client.flush(0.1).pending == 1
    assert unanswered.left_s
    assert max(unanswered.left_s) <= 0.1


def test_a_flush_limits_the_event_of_a_call_that_no_thread_could_settle(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    sdk = OpenAI(desk, within="enclosing")
    desk.provider.reply(usage=USED)
    with desk.client.reserve(cycles.usd(1), action=("test", "work")) as guard:
        interrupted_once(monkeypatch, "_pay")
        with pytest.raises(Interruption):
            sdk.complete()
        guard.release()
    unanswered = Unanswered(runtime_of(desk.client), monkeypatch)
    assert desk.client.flush(0.1).pending == 1
    assert unanswered.left_s
    assert max(unanswered.left_s) <= 0.1
