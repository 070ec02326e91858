"""Calls that wait for budget, on a clock that stands still until a test moves it; in threads or in tasks.

The calls are those of `cycles.providers`, without an SDK and without a provider: a test opens and ends them. A token
costs 1,000 microcents, and the prompt nothing, so a call with an output limit of 5 needs 5,000.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any

import pytest
from attrs import evolve

import cycles
from cycles._drivers.io.threads import BaseIo
from cycles.providers._call import Call
from cycles.providers._endpoints import find
from cycles.providers._meter import make_meter
from cycles.providers._queue import admissions_of
from cycles.providers._settle import TASK, end_call, open_call
from tests.support.inside import runtime_of

PATIENCE_S = 240.0

TOKEN = 1_000
BOOK = cycles.PriceBook({"m": cycles.Price("0", "10")})


def dollars(tokens: int) -> cycles.Amount:
    """The price of some output tokens."""
    return cycles.Amount("USD_MICROCENTS", tokens * TOKEN)


class VirtualTime:
    """Replaces the clock and the waits of the drivers. `advance` moves it and wakes what is due."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1_000.0
        self.pauses: list[float | None] = []
        self._news = threading.Condition()
        self._sleeping: dict[threading.Event, float | None] = {}
        self._opening = 0
        clock = evolve(BaseIo.clock, now_ms=lambda: self.now_s * 1000, random=lambda: 0.5)
        monkeypatch.setattr(BaseIo, "clock", clock)
        monkeypatch.setattr("cycles._drivers.io.threads.BlockingIo.wait", lambda io, *given: self.wait(*given))
        monkeypatch.setattr("cycles._drivers.io.tasks.TaskIo.wait", lambda io, *given: self._wait_async(*given))

    async def wait(self, signal: Any, timeout_s: float | None = None) -> bool:
        event = threading.Event()
        self._enter(event, signal, timeout_s)
        try:
            assert event.wait(10 * PATIENCE_S), "nothing woke this call"  # the last of many waits for all others
        finally:
            self._leave(event, signal)
        return bool(signal.is_set)

    async def _wait_async(self, signal: Any, timeout_s: float | None = None) -> bool:
        event = _LoopEvent()
        self._enter(event, signal, timeout_s)
        try:
            await event.woken
        finally:
            self._leave(event, signal)
        return bool(signal.is_set)

    def _enter(self, event: Any, signal: Any, timeout_s: float | None) -> None:
        signal.on_set(event.set)
        with self._news:
            self.pauses.append(timeout_s)
            self._sleeping[event] = None if timeout_s is None else self.now_s + timeout_s
            self._news.notify_all()

    def _leave(self, event: Any, signal: Any) -> None:
        signal.drop(event.set)
        with self._news:
            self._sleeping.pop(event, None)
            self._news.notify_all()

    def follow(self, opened: Future[None]) -> None:
        """Let `pass_until` wait for a call that is opened."""

        def ended(_: Future[None]) -> None:
            with self._news:
                self._opening -= 1
                self._news.notify_all()

        with self._news:
            self._opening += 1
        opened.add_done_callback(ended)

    def wait_for(self, sleeping: int) -> None:
        """Return when exactly so many calls wait."""
        with self._news:
            done = self._news.wait_for(lambda: len(self._awake()) == sleeping, PATIENCE_S)
            assert done, f"{len(self._sleeping)} calls wait, not {sleeping}"

    def wait_for_pauses(self, count: int, opened: Future[None]) -> None:
        """Return when so many waits have begun, or the call has ended."""
        with self._news:
            done = self._news.wait_for(lambda: len(self.pauses) >= count or opened.done(), PATIENCE_S)
            assert done, f"{len(self.pauses)} waits have begun, not {count}"

    def _awake(self) -> list[Any]:
        return [event for event in self._sleeping if not event.is_set()]

    def advance(self, seconds: float) -> None:
        """Let time pass, and wake what is due."""
        with self._news:
            self.now_s += seconds
            due = [event for event, end in self._sleeping.items() if end is not None and end <= self.now_s + 1e-9]
        for event in due:
            event.set()

    def pass_until(self, holds: Callable[[], bool], step_s: float = 1.0) -> None:
        """Let time pass in steps until something is true. After each, the calls that it woke open or wait again."""
        for _ in range(5_000):
            if holds():
                return
            self.advance(step_s)
            with self._news:
                assert self._news.wait_for(lambda: len(self._awake()) >= self._opening, PATIENCE_S), "a call hangs"
        raise AssertionError("it never became true")


class _LoopEvent(threading.Event):
    """An event that a task waits for."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self.woken: asyncio.Future[None] = self._loop.create_future()

    def set(self) -> None:
        super().set()
        self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        if not self.woken.done():
            self.woken.set_result(None)


class Started:
    """A call in a thread or a task."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.opened: Future[None] = Future()
        self.task: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether it was reserved."""
        return self.opened.done() and not self.opened.cancelled() and self.opened.exception() is None

    @property
    def tokens(self) -> int:
        """What was reserved for it, in tokens."""
        self.opened.result(PATIENCE_S)
        return self.call.reserved.amount // TOKEN

    def error(self) -> Any:
        """Return why it was not reserved."""
        return self.opened.exception(PATIENCE_S)


class Line:
    """One client, and calls that wait for its budgets."""

    def __init__(self, kind: str, monkeypatch: pytest.MonkeyPatch, budget: int, **settings: Any) -> None:
        self.is_async = kind == "async"
        self.time = VirtualTime(monkeypatch)
        self.server = cycles.EmbeddedServer(budgets={"tenant:acme": dollars(budget)})
        self.client = self.server.client(tenant="acme", journal=False, **settings)
        self.events: list[Any] = []
        self.client.on_event(self.events.append)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="loop-of-calls")
        self._thread.start()

    def close(self) -> None:
        """End the loop."""
        self.run_async(_cancel_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()
        self.client.close()
        self.server.close()

    def run_async(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the loop of the calls."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)

    def call(
        self, limit: int | None, *, client: Any = None, body: dict[str, Any] | None = None, **options: Any
    ) -> Call:
        """Describe a call with an output limit."""
        given = {"client": client or self.client, "prices": BOOK, "min_output_tokens": 1, **options}
        meter = make_meter("openai", "openai", given)
        sent = {"model": "m", "messages": [], **(body or {})} | ({} if limit is None else {"max_tokens": limit})
        endpoint: Any = find("openai", "POST", "/chat/completions")
        call = Call(meter, endpoint, "/chat/completions", sent, stream=False, url="http://provider")
        call.reserved = call.estimate()
        return call

    def start(self, call: Call) -> Started:
        """Open a call in a new thread or task, in the context of the test."""
        started = Started(call)
        self.time.follow(started.opened)
        context = contextvars.copy_context()
        if not self.is_async:
            work = threading.Thread(target=context.run, args=(_open, started), name="call", daemon=True)
            work.start()
            return started

        async def begin() -> None:
            started.task = asyncio.get_running_loop().create_task(_open_async(started), context=context)

        self.run_async(begin())
        return started

    def open(self, limit: int | None, **options: Any) -> Started:
        """Open a call that fits."""
        started = self.start(self.call(limit, **options))
        started.opened.result(PATIENCE_S)
        return started

    def waiting(self, limit: int | None, *, waits: int = 1, **options: Any) -> Started:
        """Open a call that has to wait; return when so many calls wait."""
        started = self.start(self.call(limit, **options))
        self.time.wait_for(waits)
        return started

    def end(self, started: Started, tokens: int = 0) -> None:
        """End a call that has made some tokens, or none."""
        call = started.call
        if tokens:
            usage = {"prompt_tokens": 0, "completion_tokens": tokens}
            call.attempts = 1
            call.whole(b'{"model":"m","usage":{"prompt_tokens":0,"completion_tokens":%d}}' % usage["completion_tokens"])
        if self.is_async:
            self.run_async(TASK.end(call))
        else:
            end_call(call)

    @property
    def admissions(self) -> Any:
        """The queues of the client."""
        return admissions_of(runtime_of(self.client))

    def reserves(self, *, dry: bool = False) -> list[int]:
        """The estimates of the reserve requests so far, or those of the dry runs."""
        bodies = [request.json for request in self.server.requests.of("reserve")]
        return [body["estimate"]["amount"] // TOKEN for body in bodies if bool(body.get("dry_run")) is dry]

    def events_of(self, name: str) -> list[Any]:
        """The events of a class so far."""
        return [event for event in self.events if type(event).__name__ == name]

    @property
    def held(self) -> int:
        """What is held now, in tokens."""
        balance = self.server.ledger.balance("tenant:acme", "USD_MICROCENTS")
        return 0 if balance.reserved is None else balance.reserved.amount // TOKEN


def _open(started: Started) -> None:
    try:
        open_call(started.call)
    except BaseException as error:
        started.opened.set_exception(error)
    else:
        started.opened.set_result(None)


async def _open_async(started: Started) -> None:
    try:
        await TASK.open(started.call)
    except BaseException as error:
        started.opened.set_exception(error)
    else:
        started.opened.set_result(None)


async def _cancel_all() -> None:
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
